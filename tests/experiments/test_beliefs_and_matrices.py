"""Sampling the belief, momentum, and matrices: right numbers, and verdicts that can be no."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bayesfilt.records import Record, variable
from bayesfilt.tasks import make_task
from bayesfilt.theory import steady_state_variance
from experiments import e29_sampling_the_belief as belief
from experiments import e34_momentum as momentum
from experiments import e35_matrix as matrix
from experiments.drawn_predictions import (
    BINS,
    calibration_error,
    diagonal_fisher,
    noisy_labels,
)
from experiments.layer_curvature import kronecker_factors, median_factor
from experiments.matrix_worlds import Counts, counted_errors, in_worlds
from experiments.velocity_worlds import filter_steps

SEEDS = 5
SHAKE = 1 + 1e-3 * np.random.default_rng(0).standard_normal(SEEDS)


def holds(module, result, words):
    """The one verdict whose claim has these words."""
    (found,) = [each for each in module.check(result) if words in each.claim]
    return found.holds


def test_calibration_error_is_that_of_a_slow_loop():
    draws = np.random.default_rng(1)
    probabilities = draws.dirichlet(np.ones(4), size=200)
    right = (draws.uniform(size=200) < 0.6).astype(float)
    confidence = probabilities.max(axis=1)
    wanted = 0.0
    for low in range(BINS):
        inside = (confidence >= low / BINS) & (confidence < (low + 1) / BINS)
        if inside.any():
            gap = abs(confidence[inside].mean() - right[inside].mean())
            wanted += inside.mean() * gap
    found = calibration_error(jnp.asarray(probabilities), jnp.asarray(right))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def lone_example():
    """A task of one training example, and weights."""
    task = make_task("digits-mlp", batch_size=1, dtype="float32", subset=1)
    return task, task.init_params(jax.random.key(3))


def test_of_one_example_the_fisher_diagonal_is_that_of_its_kronecker_factors(lone_example):
    task, params = lone_example
    _, rebuild = ravel_pytree(params)
    diagonal = rebuild(diagonal_fisher(task, params))
    factors = kronecker_factors(task, params)
    for name, layer in (("first layer", "dense_0"), ("last layer", "dense_1")):
        rows, columns = (np.diag(np.asarray(side)) for side in factors[name])
        np.testing.assert_allclose(
            diagonal[layer].weight, np.outer(rows, columns), rtol=1e-3, atol=1e-8
        )
        np.testing.assert_allclose(diagonal[layer].bias, rows, rtol=1e-3, atol=1e-8)


def test_independent_weights_have_no_factor_of_overconfidence(lone_example):
    factors = kronecker_factors(*lone_example)["last layer"]
    alike = type(factors)(rows=jnp.eye(3), columns=2 * jnp.eye(4))
    np.testing.assert_allclose(median_factor(alike, 0.01), 1.0, rtol=1e-5)
    bound = type(factors)(rows=jnp.eye(3), columns=jnp.full((4, 4), 0.9) + 0.1 * jnp.eye(4))
    assert median_factor(bound, 0.0) > 1.5


def test_held_out_labels_are_wrong_as_often_as_asked_and_never_by_chance_right():
    task: Any = make_task("digits-mlp", batch_size=1, dtype="float32", subset=10)
    found = noisy_labels(0.3, task.test)
    share = np.mean(np.asarray(found.labels != task.test.labels))
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / len(task.test.labels))
    assert set(np.unique(found.labels)) <= set(range(10))


ETA, BATCH = 1e-3, 32


def beliefs(power=-0.5, level=1.0, worse=0.1, grows=True):
    """Variances that follow a power of the Fisher information, and losses."""
    fisher = np.geomspace(1e-4, 1e-1, 60)[:, None] * SHAKE
    groups = {}
    for size in (300, 1200):
        middle = 10**-2.5
        law = ETA / np.sqrt(BATCH * middle) * (fisher / middle) ** power
        if not grows:
            law = law * 300 / size
        losses = np.stack([SHAKE, SHAKE + worse, SHAKE + worse, SHAKE * 1.0])
        groups[str(size)] = {
            "variance": variable(("weight", "seed"), level * law),
            "fisher": variable(("weight", "seed"), fisher),
            "size": variable((), np.array(size)),
            "loss": variable(("method", "seed"), losses),
            "calibration": variable(("method", "seed"), losses),
            "at_edge": variable(("method", "seed"), np.zeros((4, SEEDS), bool)),
        }
    attributes = {"config": {"drift_scale": ETA, "batch_size": BATCH}}
    return Record(groups=groups, attributes=attributes)


def test_the_belief_is_no_posterior_and_a_posterior_would_turn_it():
    slope, ratio = "N = 300: the filter's variance goes with", "N = 300: the filter's variance over"
    assert holds(belief, beliefs(), slope) is True
    assert holds(belief, beliefs(), ratio) is True
    assert holds(belief, beliefs(power=-1.0), slope) is False
    assert holds(belief, beliefs(power=0.0), slope) is False
    assert holds(belief, beliefs(level=4.0), ratio) is False
    assert holds(belief, beliefs(), "at least 1.5 times larger at N = 1200") is True
    assert holds(belief, beliefs(grows=False), "at least 1.5 times larger at N = 1200") is False


def test_predictions_from_the_belief_can_be_worse_and_better_than_laplace():
    words = "N = 300: the held-out loss of predictions drawn from the belief is higher"
    assert holds(belief, beliefs(), words) is True
    assert holds(belief, beliefs(worse=-0.1), words) is False
    edge = beliefs()
    edge.groups["300"]["at_edge"].values[2] = True
    assert (
        holds(belief, edge, "N = 300: the held-out loss of predictions drawn from the belief, best")
        is None
    )


def momenta(useful_walk=0.0, useful=0.03, filtered=0.065, network=0.0, filters=-0.1):
    """Errors by how much momentum and the velocity filter lower them, in logs."""
    rates, b1 = np.array([0.5, 1.0, 2.0]), np.array([0.0, 0.9])
    valley = np.array([1.2, 1.0, 1.2])[:, None] * SHAKE
    means = np.stack([np.stack([valley, valley * np.exp(-g)]) for g in (useful_walk, useful)])
    worlds = {
        "share": variable("world", np.array([0.0, 1.0])),
        "shrink": variable("world", np.array([0.1, 0.1])),
        "b1": variable("b1", b1),
        "rate": variable("rate", rates),
        "running_mean": variable(("world", "b1", "rate", "seed"), means),
        "nesterov": variable(("world", "b1", "rate", "seed"), means * np.exp(useful - 0.06)),
        "filter": variable(("world", "seed"), np.stack([SHAKE, SHAKE * np.exp(-filtered)])),
    }
    gaps = np.exp([0.0, network, 0.0, filters])[:, None, None]
    digits = {
        "optimizer": variable("optimizer", list(momentum.NETWORK)),
        "learning_rate": variable("learning_rate", rates),
    }
    digits = {
        **digits,
        **{
            name: variable(("optimizer", "learning_rate", "seed"), gaps * valley)
            for name in momentum.METRICS
        },
    }
    return Record(groups={"worlds": worlds, "digits": digits}, attributes={})


@pytest.mark.parametrize(
    ("words", "mutant"),
    [
        ("Optima that wander", {"useful_walk": 0.05}),
        (": a running mean of gradients lowers", {"useful": 0.0}),
        ("a hundredth below the best", {"filtered": 0.0}),
        ("Nesterov's momentum", {"filtered": 0.1}),
        ("momentum does not lower Adam's training loss", {"network": -0.2}),
        ("a lower held-out loss than the one without", {"filters": 0.1}),
        ("no higher training loss than Adam with momentum", {"filters": 0.1}),
    ],
)
def test_every_verdict_on_momentum_holds_and_is_turned(words, mutant):
    assert holds(momentum, momenta(), words) is True
    assert holds(momentum, momenta(**mutant), words) is False


def test_momentum_is_not_judged_where_there_is_nothing_to_gain_or_its_grid_ends():
    assert holds(momentum, momenta(filtered=0.0), "Nesterov's momentum") is None
    ends = momenta(useful=0.0)
    means = ends.groups["worlds"]["running_mean"].values
    means[1, 1] *= np.array([1.0, 1.2, 1.4])[:, None] / np.array([1.2, 1.0, 1.2])[:, None]
    assert holds(momentum, ends, ": a running mean of gradients lowers") is None


def test_the_velocity_filter_as_an_optimizer_makes_the_errors_that_it_expects():
    config = dataclasses.replace(
        momentum.QUICK, worlds=((2.0, 0.1),), momenta=(0.0,), rates=(1.0, 1.0, 1), num_weights=64,
        num_steps=2_000, settling=300,
    )  # fmt: skip
    found = momentum._worlds(config, jax.random.key(0))["filter"].values.mean()
    steps = filter_steps(0.1, jnp.asarray(2.0), config.gain**2)
    weights = jnp.zeros(1)
    state: Any = steps.init(weights)
    update = jax.jit(steps.update)
    for _ in range(300):
        _, state = update(jnp.zeros(1), state, weights)
    np.testing.assert_allclose(found, state.variance[0], rtol=0.1)


def matrices(isotropic=0.5, following=1.0, grows=2.0, layer=3.0):
    """Errors that follow powers of H, and a factorised filter that is too sure."""
    values, powers = np.geomspace(1, 300, 6), np.linspace(0, 1.5, 7)
    groups = {}
    for name, power in zip(matrix.DRIFTS, (isotropic, following), strict=True):
        swept = 1 + (powers - power) ** 2
        groups[f"world/{name}"] = {
            "eigenvalue": variable("eigenvalue", values),
            "error": variable(("eigenvalue", "seed"), values[:, None] ** -power * SHAKE),
            "power": variable("power", powers),
            "swept": variable(("power", "seed"), swept[:, None] * SHAKE),
        }
    law = np.array([1.0, 2.0])
    groups["factorised"] = {
        "correlation": variable("correlation", np.array([0.0, 0.9])),
        "claimed": variable("correlation", np.ones(2)),
        "real": variable(("correlation", "seed"), np.array([[1.0], [grows]]) * SHAKE),
        "full": variable(("correlation", "seed"), np.array([[1.0], [grows]]) * SHAKE),
        "law": variable("correlation", law),
    }
    groups["layers"] = {
        "layer": variable("layer", ["first layer"]),
        "damping": variable("damping", np.array([0.01])),
        "factor": variable(("layer", "damping", "seed"), layer * SHAKE[None, None]),
    }
    return Record(groups=groups, attributes={"config": {"world_seeds": SEEDS}})


@pytest.mark.parametrize(
    ("words", "mutant"),
    [
        ("all directions alike: the full filter", {"isotropic": 1.0}),
        ("all directions alike: the constant gain", {"isotropic": 0.75}),
        ("drift like 1/H: the full filter", {"following": 0.5}),
        ("drift like 1/H: the constant gain", {"following": 0.5}),
        ("the more so the more", {"grows": 1.0}),
        ("At a correlation of 0.9", {"grows": 3.0}),
        ("first layer of a trained network", {"layer": 1.0}),
    ],
)
def test_every_verdict_on_matrices_holds_and_is_turned(words, mutant):
    assert holds(matrix, matrices(), words) is True
    assert holds(matrix, matrices(**mutant), words) is False


def test_counted_errors_of_a_lone_weight_are_the_steady_state():
    from bayesfilt.filters import diagonal_filter
    from bayesfilt.theory import OrnsteinUhlenbeck

    transition = OrnsteinUhlenbeck(drift_scale=0.05, stationary_variance=jnp.inf)
    step, first = in_worlds(diagonal_filter(transition), jnp.full(2, 4.0))
    counts = Counts(num_worlds=64, num_seeds=1, settling=100, num_steps=400)
    found = counted_errors(
        jax.random.key(0), 4 * jnp.eye(2), 0.05 * jnp.eye(2), step, first, counts
    )
    wanted = float(steady_state_variance(jnp.asarray(4.0), *transition)) + 0.05**2
    np.testing.assert_allclose(np.diag(found[0]), wanted, rtol=0.1)
    assert abs(found[0, 0, 1]) < 0.1 * wanted
