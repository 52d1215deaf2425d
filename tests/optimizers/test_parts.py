"""Taken apart and put together again, an update is itself."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import (
    OPTIMIZERS,
    Setting,
    adabayes_fixed_point,
    compose,
    filter_parts,
    named_optimizer,
)
from tests.quick_look import ONE_OF_EACH_STATUS, slow_but

PARAMS = {"w": jnp.array([[1.0, -2.0, 0.5]]), "dead": jnp.array([0.3])}


SETTING = Setting(1e-2, 0.1, batch_size=8, num_steps=20)
TAKEN_APART = [name for name in OPTIMIZERS if named_optimizer(name, SETTING).parts is not None]


def stream(steps):
    draws = np.random.default_rng(1).normal(0.2, [0.001, 0.1, 5.0], (steps, 1, 3))
    return [{"w": jnp.asarray(g), "dead": jnp.zeros(1)} for g in draws]


@pytest.mark.equation("OPT-7")
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", slow_but(ONE_OF_EACH_STATUS, TAKEN_APART))
def test_the_parts_of_every_named_optimizer_make_its_update(name, schedule):
    setting = Setting(1e-2, 0.1, batch_size=8, num_steps=20, schedule=schedule)
    optimizer, parts_of = named_optimizer(name, setting)
    state, params = optimizer.init(PARAMS), PARAMS
    for gradient in stream(12):
        updates, state = optimizer.update(gradient, state, params)
        again = compose(parts_of(state), params)
        for leaf in PARAMS:
            np.testing.assert_allclose(again[leaf], updates[leaf], rtol=1e-11, atol=1e-18)
        params = optax.apply_updates(params, updates)


@pytest.mark.equation("OPT-7")
@pytest.mark.parametrize("sigma2", [0.5, np.inf])
def test_decay_after_the_step_is_part_of_the_decay(sigma2):
    optimizer = adabayes_fixed_point(
        0.1, sigma2, batch_size=8, weight_decay=0.1, decay_order="after"
    )
    parts_of = filter_parts(b1=0.9, decay_order="after")
    state = optimizer.init(PARAMS)
    for gradient in stream(5):
        updates, state = optimizer.update(gradient, state, PARAMS)
    parts = parts_of(state)
    again = compose(parts, PARAMS)
    for leaf in PARAMS:
        np.testing.assert_allclose(again[leaf], updates[leaf], rtol=1e-11, atol=1e-18)
    assert parts.step_shrink == parts.shrink == 0.1


def test_adamw_and_the_fixed_point_share_momentum_variance_and_decay():
    setting = Setting(1e-2, 0.1, batch_size=8, num_steps=20)
    parts = {}
    for name in ("adamw", "adabayes_fixed_point"):
        optimizer, parts_of = named_optimizer(name, setting)
        state = optimizer.init(PARAMS)
        for gradient in stream(6):
            _, state = optimizer.update(gradient, state, PARAMS)
        parts[name] = parts_of(state)
    adamw, ours = parts["adamw"], parts["adabayes_fixed_point"]
    np.testing.assert_allclose(ours.momentum["w"], adamw.momentum["w"], rtol=1e-12)
    np.testing.assert_allclose(ours.variance["w"], adamw.variance["w"], rtol=1e-12)
    np.testing.assert_allclose(ours.shrink, adamw.shrink, rtol=1e-12)
    assert np.all(ours.prior_precision["w"] > adamw.prior_precision["w"])


def test_without_decay_the_filters_have_no_prior_and_still_run():
    setting = Setting(1e-2, 0.0, batch_size=8, num_steps=20)
    for name, (facts, _) in OPTIMIZERS.items():
        own_rate = ":learning_rate=0.1" if "learning_rate" in facts.defaults else ""
        optimizer = named_optimizer(name + own_rate, setting).optimizer
        updates, _ = optimizer.update(stream(1)[0], optimizer.init(PARAMS), PARAMS)
        assert np.all(np.isfinite(updates["w"]))


def test_adam_with_the_prior_for_its_epsilon_is_what_optax_makes_of_the_formula():
    setting = Setting(1e-2, 0.1, batch_size=8, num_steps=20, schedule="cosine")
    eta, sigma2 = 1e-2, 1e-2 / (2 * 0.1)
    rate = optax.cosine_decay_schedule(eta, 20)
    by_hand = optax.adamw(rate, eps=eta / sigma2 / 8 + 1e-8, weight_decay=0.1)
    ours = named_optimizer("adam_large_eps", setting).optimizer
    state, hand = ours.init(PARAMS), by_hand.init(PARAMS)
    for gradient in stream(8):
        updates, state = ours.update(gradient, state, PARAMS)
        wanted, hand = by_hand.update(gradient, hand, PARAMS)
        np.testing.assert_allclose(updates["w"], wanted["w"], rtol=1e-12)
