"""Followers see the leader's weights and gradients, and only the leader moves."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import adabayes_fixed_point
from bayesfilt.simulate import PrecisionWarning, shadow, simulate
from bayesfilt.tasks import make_task

LEADER = optax.adamw(1e-2, weight_decay=0.1)
FOLLOWERS = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "fixed point": adabayes_fixed_point(1e-2, 0.05, batch_size=16),
    "itself": LEADER,
}


@pytest.fixture(scope="module")
def digits():
    return make_task("digits-mlp", batch_size=16, dtype="float64")


@pytest.fixture(scope="module")
def record(digits):
    return shadow(jax.random.key(0), digits, LEADER, FOLLOWERS, 11, record_every=5)


def test_the_leader_runs_as_if_nobody_followed(digits, record):
    alone = simulate(jax.random.key(0), digits, LEADER, 11, record_every=5)
    np.testing.assert_array_equal(record.step, [0, 5, 10])
    np.testing.assert_allclose(record.records["loss"], alone.records["loss"], rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), record.params, alone.params
    )


def test_a_follower_equal_to_the_leader_proposes_the_leaders_updates(record):
    updates = record.records["updates"]
    jax.tree.map(np.testing.assert_array_equal, updates["itself"], updates["leader"])


def test_a_follower_proposes_what_a_literal_loop_proposes(digits, record):
    init_key, batch_key = jax.random.split(jax.random.key(0))
    params = digits.init_params(init_key)
    states = {name: tx.init(params) for name, tx in FOLLOWERS.items()}
    leader = LEADER.init(params)
    for step in range(11):
        batch = digits.sample_batch(jax.random.fold_in(batch_key, step), step)
        gradient = jax.grad(digits.loss)(params, batch)
        proposals = {}
        for name, tx in FOLLOWERS.items():
            proposals[name], states[name] = tx.update(gradient, states[name], params)
        updates, leader = LEADER.update(gradient, leader, params)
        params = optax.apply_updates(params, updates)
    last = jax.tree.map(lambda x: x[-1], record.records["updates"])
    for name, proposal in proposals.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13),
            last[name],
            proposal,
        )


def test_followers_vmap_with_the_leader(digits):
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda key: shadow(key, digits, LEADER, FOLLOWERS, 4, record_every=2))(keys)
    assert many.records["loss"].shape == (3, 2)


def test_a_follower_that_fails_does_not_stop_the_leader(digits):
    bad = {"bad": optax.scale(jnp.inf)}
    record = shadow(jax.random.key(0), digits, LEADER, bad, 4, record_every=1)
    assert record.diverged_at == -1
    assert not np.all(np.isfinite(record.records["updates"]["bad"]["dense_0"].weight))
    assert np.all(np.isfinite(record.records["loss"]))
    np.testing.assert_array_equal(record.last_loss, record.records["loss"][-1])


def test_at_least_one_follower_is_needed(digits):
    with pytest.raises(ValueError, match="followers"):
        shadow(jax.random.key(0), digits, LEADER, {}, 4)


def test_float32_warns_that_small_gaps_are_rounding():
    task = make_task("bowl", batch_size=4, dtype="float32")
    with pytest.warns(PrecisionWarning, match="float64"):
        shadow(jax.random.key(0), task, LEADER, {"sgd": optax.sgd(0.1)}, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double = make_task("bowl", batch_size=4, dtype="float64")
        shadow(jax.random.key(0), double, LEADER, {"sgd": optax.sgd(0.1)}, 2)
