"""Shares of a gap, against the sum over all orders, and the parts against real updates."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import PARTS, gap_shares, shares
from bayesfilt.optimizers import (
    OPTIMIZERS,
    NamedOptimizer,
    Setting,
    UpdateParts,
    adabayes,
    adabayes_fixed_point,
    compose,
    filter_parts,
    named_optimizer,
    steady_state,
)
from bayesfilt.simulate import shadow
from bayesfilt.tasks import bowl_task

FIELDS = {
    "decay": ("shrink", "step_shrink"),
    "variance": ("variance",),
    "momentum": ("momentum",),
    "eps": ("prior_precision",),
}


def draw_parts(seed, scale=1.0):
    """Parts of an update of four weights in two leaves, all numbers different."""
    rng = np.random.RandomState(seed)
    tree = lambda values: {"a": jnp.asarray(values[:3]), "b": jnp.asarray(values[3])}  # noqa: E731
    return UpdateParts(
        momentum=tree(scale * rng.standard_normal(4)),
        variance=tree(10.0 ** rng.uniform(-3, 1, 4)),
        prior_precision=tree(10.0 ** rng.uniform(-2, 2, 4)),
        shrink=jnp.asarray(rng.uniform(0, 0.1)),
        step_shrink=jnp.asarray(rng.uniform(0, 0.1)),
    )


# Compiled once for all examples.
shares_of = jax.jit(shares)

PARAMS = {"a": jnp.array([1.0, -2.0, 0.3]), "b": jnp.array(4.0)}


def literal_update(parts):
    """The composed update of one flat vector of weights, from its formula."""
    rows = [np.append(np.asarray(tree["a"]), float(tree["b"])) for tree in (*parts[:3], PARAMS)]
    momentum, variance, prior, weights = rows
    gain = 1 / (1 / variance + prior)
    return -(1 - float(parts.step_shrink)) * gain * momentum - float(parts.shrink) * weights


def literal_shares(leader, follower):
    """Mean move on swapping each part in, over all 24 orders, projected on the gap."""
    gap = literal_update(follower) - literal_update(leader)
    moved = dict.fromkeys(PARTS, 0.0)
    orders = list(itertools.permutations(PARTS))
    for order in orders:
        now = leader
        for part in order:
            new = now._replace(**{field: getattr(follower, field) for field in FIELDS[part]})
            moved[part] += (literal_update(new) - literal_update(now)) @ gap / len(orders)
            now = new
    return np.array([moved[part] for part in PARTS]) / (gap @ gap)


@pytest.mark.equation("CMP-1")
@pytest.mark.parametrize("seed", range(5))
def test_shares_are_the_mean_over_all_orders_of_swapping_one_part_at_a_time(seed):
    leader, follower = draw_parts(seed), draw_parts(seed + 100)
    found = shares_of(leader, follower, PARAMS)
    np.testing.assert_allclose(found, literal_shares(leader, follower), rtol=1e-10, atol=1e-12)


def test_two_parts_worked_by_hand():
    """One weight at 0, momentum 2 -> 3 and variance 1 -> 2, no prior and no decay.

    The update goes from -2 to -6. Momentum first: -2 -> -3 -> -6, last: -2 -> -4 -> -6, so it
    owns a mean of 1.5 of 4; variance owns 2.5.
    """

    def parts(momentum, variance):
        one = [jnp.array(x) for x in (momentum, variance, 0.0, 0.0, 0.0)]
        return UpdateParts(*one)

    found = shares(parts(2.0, 1.0), parts(3.0, 2.0), jnp.array(0.0))
    np.testing.assert_allclose(found, [0, 2.5 / 4, 1.5 / 4, 0], atol=1e-15)


def test_a_part_that_narrows_the_gap_has_a_negative_share():
    """Momentum 2 -> 6 (-2 -> -6) and a decay of one that pulls back by 2."""
    leader = UpdateParts(*[jnp.array(x) for x in (2.0, 1.0, 0.0, 0.0, 0.0)])
    follower = UpdateParts(*[jnp.array(x) for x in (6.0, 1.0, 0.0, 0.5, 0.0)])
    found = shares(leader, follower, jnp.array(-4.0))
    np.testing.assert_allclose(found, [-1, 0, 2, 0], atol=1e-15)


@hypothesis.given(
    seed=st.integers(0, 10**6),
    decade=st.integers(-100, 100),
    swapped=st.sets(st.sampled_from(PARTS)),
)
@hypothesis.settings(max_examples=60)
def test_shares_add_up_to_one_and_parts_that_agree_own_nothing(seed, decade, swapped):
    leader, other = draw_parts(seed, 10.0**decade), draw_parts(seed + 1, 10.0**decade)
    new = {field: getattr(other, field) for part in swapped for field in FIELDS[part]}
    found = np.asarray(shares_of(leader, leader._replace(**new), PARAMS))
    if np.isnan(found).all():  # the parts that differ are below rounding of the others
        return
    assert abs(found.sum() - 1) < 1e-10 * max(1, np.abs(found).max())
    for part, share in zip(PARTS, found, strict=True):
        assert part in swapped or share == 0


def test_no_gap_has_no_owner_nor_has_one_of_rounding():
    parts = draw_parts(0)
    assert np.isnan(shares_of(parts, parts, PARAMS)).all()
    rounded = parts._replace(shrink=parts.shrink * (1 + 1e-15))
    assert np.isnan(shares_of(parts, rounded, PARAMS)).all()
    small = parts._replace(shrink=parts.shrink * (1 + 1e-9))
    np.testing.assert_allclose(shares_of(parts, small, PARAMS), [1, 0, 0, 0], atol=1e-6)


SETTING = Setting(learning_rate=0.02, weight_decay=0.3, batch_size=4, num_steps=30)
COSINE = Setting(
    learning_rate=0.02, weight_decay=0.3, batch_size=4, num_steps=30, schedule="cosine"
)


def with_decay_after():
    made = {}
    for recipe in (adabayes, adabayes_fixed_point, steady_state):
        made[f"{recipe.__name__} after"] = NamedOptimizer(
            optimizer=recipe(0.02, 0.03, batch_size=4, weight_decay=0.2, decay_order="after"),
            parts=filter_parts(b1=0.9, decay_order="after"),
        )
    return made


TAKEN_APART = {
    **{f"{name} constant": named_optimizer(name, SETTING) for name in OPTIMIZERS},
    **{f"{name} cosine": named_optimizer(name, COSINE) for name in OPTIMIZERS},
    **with_decay_after(),
    "adabayes random walk": NamedOptimizer(
        optimizer=adabayes(0.02, np.inf, batch_size=4), parts=filter_parts(b1=0.9)
    ),
}
TAKEN_APART = {name: each for name, each in TAKEN_APART.items() if each.parts is not None}


@pytest.fixture(scope="module")
def proposals():
    """Every optimizer's update on one leader's run, with what its parts compose."""
    task = bowl_task(
        np.diag([100.0, 3.0, 0.0]), np.diag([30.0, 5.0, 0.0]), batch_size=4,
        optimum=np.array([1.0, -2.0, 0.5]),
    )  # fmt: skip

    def composed(task, view):
        return {
            name: (
                proposal.updates,
                compose(TAKEN_APART[name].parts(proposal.opt_state), view.params),
            )
            for name, proposal in view.followers.items()
        }

    share = gap_shares(
        named_optimizer("adamw", SETTING).parts,
        {name: each.parts for name, each in TAKEN_APART.items()},
    )
    followers = {name: each.optimizer for name, each in TAKEN_APART.items()}
    leader = named_optimizer("adamw", SETTING).optimizer
    start = jnp.array([3.0, 1.0, -2.0])
    run = jax.jit(
        lambda key, task: shadow(
            key, task, leader, followers, 30, params=start, record_every=1,
            measures={"composed": composed, "share": share},
        )
    )  # fmt: skip
    return run(jax.random.key(1), task).records


@pytest.mark.parametrize("name", TAKEN_APART)
def test_the_parts_compose_the_real_update(proposals, name):
    real, composed = proposals["composed"][name]
    assert np.abs(real).max() > 1e-4
    np.testing.assert_allclose(composed, real, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", TAKEN_APART)
def test_shares_of_real_updates_add_up_to_one(proposals, name):
    total = np.asarray(proposals["share"][name]).sum(axis=-1)
    same = [f"{each} constant" for each in ("adamw", "adamw_paper", "adamw_filter", "adamc")]
    if name in same:  # the leader's own steps
        assert np.isnan(total).all()
    else:  # at its first step the cosine schedule is still at 1
        start = 1 if name.replace("cosine", "constant") in same else 0
        # Shares that are large and cancel lose digits.
        np.testing.assert_allclose(total[start:], 1, rtol=1e-7)


def test_what_adamw_without_decay_lacks_is_decay(proposals):
    np.testing.assert_allclose(proposals["share"]["adam constant"], [[1, 0, 0, 0]] * 30, atol=1e-9)


def test_an_optimizer_without_parts_has_no_shares_and_takes_nobody_elses():
    setting = SETTING
    leader, fixed = (named_optimizer(name, setting) for name in ("adamw", "adabayes_fixed_point"))
    task = bowl_task(np.eye(2), np.eye(2), optimum=np.array([1.0, -2.0]), batch_size=4)
    followers = {"sgd": optax.sgd(0.1), "fixed": fixed.optimizer}
    parts = {"sgd": None, "fixed": fixed.parts}

    @jax.jit
    def run(key, task):
        return shadow(
            key, task, leader.optimizer, followers, 3, record_every=1,
            measures={
                "told": gap_shares(leader.parts, parts),
                "silent leader": gap_shares(None, parts),
            },
        )  # fmt: skip

    records = run(jax.random.key(0), task).records
    assert np.isnan(records["told"]["sgd"]).all()
    assert np.isfinite(records["told"]["fixed"]).all()
    assert np.isnan(records["silent leader"]["fixed"]).all()
