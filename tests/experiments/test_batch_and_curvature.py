"""Tracked worlds, the batch rule and the best gain: right numbers, and verdicts that can be no."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.records import Record, variable
from bayesfilt.theory import OrnsteinUhlenbeck, optimal_learning_rate, tracking_error
from experiments import e26_batch_rule as batch
from experiments import e27_gain_and_curvature as gain
from experiments.tracked_worlds import (
    DriftingWorld,
    crossed,
    log_best,
    random_walk,
    slope_of_best,
    tracking_errors,
)

SEEDS = 5


def holds(module, result, words):
    """The one verdict whose claim has these words."""
    (found,) = [each for each in module.check(result) if words in each.claim]
    return found.holds


def shaken(shape, size=1e-3):
    return 1 + size * np.random.default_rng(0).standard_normal(shape)


def test_tracked_errors_are_those_of_the_formula():
    gains = np.array([0.005, 0.02, 0.08])
    found = tracking_errors(
        jax.random.key(0),
        lambda setting: random_walk(jnp.asarray(1e-4), jnp.asarray(2.0), jnp.asarray(4.0)),
        lambda setting: optax.sgd(setting["gain"]),
        {"gain": gains},
        num_weights=64,
        num_seeds=2,
        num_steps=3_000,
        settling=500,
    )
    wanted = tracking_error(jnp.asarray(gains), 4.0, 2.0, 1e-4)
    assert found.shape == (3, 2, 64)
    # 128 weights over 3000 steps, of which some 60 are independent: 2 %.
    np.testing.assert_allclose(found.mean(axis=(1, 2)), wanted, rtol=0.06)


def test_a_velocity_moves_the_optimum_like_a_slow_loop():
    """Without any step of the optimizer the error is the mean square of the path itself."""
    numbers = DriftingWorld(*(jnp.asarray(x) for x in (0.01, 1.0, 1.0, 0.9, 0.8, 0.04)))
    found = tracking_errors(
        jax.random.key(1),
        lambda setting: numbers,
        lambda setting: optax.sgd(setting["gain"]),
        {"gain": np.zeros(1)},
        num_weights=3,
        num_seeds=1,
        num_steps=4,
        settling=2,
    )
    seed_key = jax.random.split(jax.random.key(1), 1)[0]
    optimum, velocity, total = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(6):
        normal = np.asarray(jax.random.normal(jax.random.fold_in(seed_key, step), (3, 3)))
        if step >= 2:
            total += optimum**2 / 4
        optimum = 0.9 * optimum + velocity + 0.1 * normal[1]
        velocity = 0.8 * velocity + 0.2 * normal[2]
    np.testing.assert_allclose(found[0, 0], total, rtol=1e-5)


def test_settings_are_crossed_with_the_last_axis_fastest():
    found = crossed(a=[1, 2], b=[10, 20, 30])
    assert found["a"].tolist() == [1, 1, 1, 2, 2, 2]
    assert found["b"].tolist() == [10, 20, 30, 10, 20, 30]


def valleys(best, places, seeds=SEEDS):
    """Errors of rows whose lowest places these are, (rows, places, seeds)."""
    height = (np.log(places) - np.log(np.asarray(best))[:, None]) ** 2
    return np.exp(height)[..., None] * shaken((*height.shape, seeds))


def test_the_slope_of_the_best_place_comes_back_and_an_edge_has_none():
    rows, places = np.array([1.0, 2.0, 4.0]), np.geomspace(0.1, 20, 9)
    found = slope_of_best(valleys(0.7 * rows**1.5, places), places, rows)
    np.testing.assert_allclose(found.estimate, 1.5, atol=0.01)
    edge = valleys([1.0, 2.0, 100.0], places)
    assert np.isnan(log_best(edge, places)).tolist() == [False, False, True]
    assert np.isnan(slope_of_best(edge, places, rows).low)


def gains_record(exponent=0.0, falls=True, power=lambda alpha: (1 - alpha) / 2):
    """Best gains that go with curvature by an exponent, and best powers of some law."""
    loads, gains = np.array([0.0125, 0.05, 0.2, 1.0]), np.geomspace(0.1, 4, 17)
    best = (loads / 0.05) ** exponent
    if falls:
        best = best * np.where(loads >= 1, 0.6, 1)
    alphas, powers = np.array([-1.0, 0.0, 0.5, 1.0]), np.linspace(-0.25, 1.25, 7)
    away = np.abs(powers - np.array([power(alpha) for alpha in alphas])[:, None])
    heights = (away**2)[:, :, None, None] + 0.1 * np.array([1, 0, 1])[:, None]
    heights = heights + 1e-3 * (shaken((*heights.shape[:3], SEEDS), 1.0) - 1)
    dims = ("alpha", "power", "rate", "seed")
    return Record(
        groups={
            "gain": {
                "load": variable("load", loads),
                "gain": variable("gain", gains),
                "error": variable(("load", "gain", "seed"), valleys(best, gains)),
            },
            "power": {
                "alpha": variable("alpha", alphas),
                "power": variable("power", powers),
                "rate": variable("rate", np.array([0.5, 1.0, 2.0])),
                **{name: variable(dims, heights) for name in gain.METRICS},
            },
        },
        attributes={},
    )


def test_the_best_gain_holds_and_is_turned_by_a_gain_that_follows_the_curvature():
    slope, level = "does not depend on the curvature", "times the curvature is 0.2"
    assert holds(gain, gains_record(), slope) is True
    assert holds(gain, gains_record(), level) is True
    matched = gains_record(exponent=-0.5)
    assert holds(gain, matched, slope) is False
    assert holds(gain, matched, level) is False


def test_the_break_at_a_gain_of_one_can_be_missed():
    words = "The rule sqrt(q/R) breaks"
    assert holds(gain, gains_record(), words) is True
    assert holds(gain, gains_record(falls=False), words) is False


@pytest.mark.parametrize("law", [lambda a: 0.5, lambda a: (1 + a) / 2, lambda a: 1 - a])
def test_the_exponent_law_is_turned_by_another_law(law):
    good, other = gains_record(), gains_record(power=law)
    words = "By mean log error, the best power of the mean square to divide by is 0 "
    assert holds(gain, good, words) is True
    turned = [each.holds for each in gain.check(other) if "By " in each.claim]
    assert False in turned
    assert all(each.holds for each in gain.check(good) if "By " in each.claim)


def test_the_counted_best_gain_is_that_of_the_theory():
    config = dataclasses.replace(
        gain.QUICK, loads=(0.05,), gains=(0.3, 3.0, 7), num_seeds=3, num_steps=3_000, num_weights=48
    )
    group = gain._gains(config, jax.random.key(0))
    found = np.exp(log_best(group["error"].values, group["gain"].values)[0]) * config.drift_scale
    wanted = float(optimal_learning_rate(1.0, config.drift_scale**2))
    np.testing.assert_allclose(found, wanted, rtol=0.1)


def batches(adam=0.5, sgd=1.0, places=None):
    sizes = np.array([8, 32, 128])
    places = np.geomspace(0.05, 40, 12) if places is None else places
    groups = {}
    for name, slope in (("adam", adam), ("sgd", sgd)):
        found = valleys((sizes / 8.0) ** slope, places)
        groups[f"digits/{name}"] = {
            "batch_size": variable("batch_size", sizes),
            "place": variable("place", places),
            "leaning": variable("batch_size", np.ones(3)),
            "training_loss": variable(("batch_size", "place", "seed"), found),
            "test_loss": variable(("batch_size", "place", "seed"), found),
        }
    return Record(groups=groups, attributes={})


def test_the_batch_rule_holds_and_is_turned_by_another_slope():
    adam = "by training loss: the best Adam rate"
    sgd = "by held-out loss: the best SGD rate"
    assert holds(batch, batches(), adam) is True
    assert holds(batch, batches(), sgd) is True
    assert holds(batch, batches(adam=1.0), adam) is False
    assert holds(batch, batches(adam=0.0), adam) is False
    assert holds(batch, batches(sgd=0.5), sgd) is False


def test_the_batch_rule_is_not_judged_at_the_edge_of_a_grid():
    narrow = np.geomspace(0.05, 3, 7)
    (found,) = [
        each
        for each in batch.check(batches(places=narrow))
        if "training loss: the best A" in each.claim
    ]
    assert found.holds is None
    assert "at batch size 128" in found.tolerance


TINY = dataclasses.replace(
    batch.QUICK,
    batch_sizes=(8, 32),
    loud=(0.02, 400.0),
    places=(0.2, 5.0, 7),
    num_weights=64,
    world_seeds=SEEDS,
    num_steps=800,
    settling=300,
)


def test_the_exact_world_follows_the_rule_and_a_drift_per_step_does_not(monkeypatch):
    words = "Exact loud world: the best Adam rate"

    def found():
        groups = batch._exact(TINY, jax.random.key(0))
        return holds(batch, Record(groups=groups, attributes={}), words)

    assert found() is True

    def per_step(transition, ratio):
        return OrnsteinUhlenbeck(transition.drift_scale * ratio**0, transition.stationary_variance)

    monkeypatch.setattr(batch, "transition_at_batch_size", per_step)
    assert found() is False
