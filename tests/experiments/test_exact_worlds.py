"""Verdicts of the exact worlds can be yes and no, and turn when the theory is broken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Record, variable
from bayesfilt.theory import (
    fixed_point_variance,
    steady_state_variance,
    tracking_error,
)
from experiments import (
    e11_gain_is_variance,
    e12_crossover,
)
from experiments.fed_gradients import learning_rates, normal_gradients, settled_learning_rate

_VERDICTS = {}  # of a result, which must not change once it is judged


def holds(module, result, words):
    """What holds of the one verdict whose claim has these words."""
    if id(result) not in _VERDICTS:
        _VERDICTS[id(result)] = result, module.check(result)
    (found,) = [each for each in _VERDICTS[id(result)][1] if words in each.claim]
    return found.holds


def noisy(values, spread=0.01, seeds=6):
    """Numbers with seeds last, a little apart from each other."""
    draws = np.random.default_rng(0).normal(size=(*np.shape(values), seeds))
    return np.asarray(values)[..., None] * np.exp(spread * draws)


def record_of(config, **groups):
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


# What feeds them all.


@pytest.mark.parametrize("made", [adabayes, adabayes_fixed_point])
def test_the_learning_rate_is_the_step_over_the_gradient(made):
    optimizer = made(0.01, 0.1, batch_size=4, b1=0.0, weight_decay=0.0)
    rms = jnp.geomspace(0.1, 10, 4)
    gradient_at = normal_gradients(jax.random.key(1), rms)
    rates = jax.jit(lambda: learning_rates(optimizer, gradient_at, 6))()
    weights = jnp.zeros(4)

    def step(state, index):
        update, state = optimizer.update(gradient_at(index), state, weights)
        return state, -update / gradient_at(index)

    steps = jax.jit(lambda: jax.lax.scan(step, optimizer.init(weights), jnp.arange(6))[1])()
    np.testing.assert_allclose(rates, steps, rtol=1e-6)
    last = jax.jit(lambda: settled_learning_rate(optimizer, gradient_at, 6))()
    np.testing.assert_allclose(last, rates[3:].mean(axis=0), rtol=1e-6)


def test_the_filter_that_is_fed_is_the_recursion_written_out():
    eta, prior, size = 0.02, 0.3, 8
    optimizer = adabayes(eta, prior, batch_size=size, b1=0.0, weight_decay=0.0)
    gradient_at = normal_gradients(jax.random.key(2), jnp.array([0.5]))
    variance, rates = prior, jax.jit(lambda: learning_rates(optimizer, gradient_at, 20))()
    seen = np.asarray(jax.jit(jax.vmap(gradient_at))(jnp.arange(20)))
    for rate, gradient in zip(np.asarray(rates), seen[:, 0], strict=True):
        kept = np.exp(-(eta**2) / prior)
        variance = kept * variance + prior * (1 - kept)
        variance = 1 / (1 / variance + (size * gradient) ** 2)
        np.testing.assert_allclose(rate[0], size * variance, rtol=1e-6)


# e11


def errors_ahead(factor, precision, ratio, eta):
    """Tracking errors of random walks by the closed form, before a gradient."""
    factor, precision, noise = map(
        jnp.asarray, np.broadcast_arrays(factor, precision, ratio * precision)
    )
    return np.asarray(tracking_error(factor, precision, noise, eta**2))


def gain_result(mutate=lambda groups: None, copies=8):
    """The search and the slopes as the closed forms have them."""
    config = dataclasses.replace(e11_gain_is_variance.PAPER, copies=copies)
    precision, ratios = np.geomspace(1.0, 100.0, 5), np.array([0.25, 1.0, 4.0])
    eta = 1e-3
    believed = np.asarray(steady_state_variance(jnp.asarray(precision), eta, jnp.inf))
    factor = believed[:, None] * 2.0 ** (np.arange(-9, 10) / 3)
    # As it is just after a gradient; the closed form is before one.
    bare = errors_ahead(factor, precision[:, None], ratios[:, None, None], eta) - eta**2
    curvature = np.geomspace(0.01, 100, 9)
    claimed = np.stack([eta / np.sqrt(curvature), 1 / (1000 * curvature)])
    groups = {
        "search": {
            "precision": variable("precision", precision),
            "noise_ratio": variable("noise_ratio", ratios),
            "factor": variable(("precision", "grid"), factor),
            "error": variable(
                ("noise_ratio", "precision", "grid", "copy"),
                bare[..., None] * noisy(np.ones(()), seeds=copies),
            ),
        },
        "slopes": {
            "precision": variable("curvature", curvature),
            "squared_error": variable(
                ("world", "curvature", "slope_copy"), noisy(claimed, seeds=copies)
            ),
            "claimed": variable(("world", "curvature"), claimed),
        },
    }
    mutate(groups)
    return record_of(config, **groups)


def scaled(group, name, by):
    """Change a variable of a group in place."""

    def change(groups):
        groups[group][name].values[...] = groups[group][name].values * by

    return change


def test_the_best_gain_is_the_variance_and_is_not_once_it_is_off_by_a_factor():
    words = "the best learning rate is 1 times"
    assert holds(e11_gain_is_variance, gain_result(), words) is True
    for factor in (0.5, 2.0):
        result = gain_result(scaled("search", "factor", factor))
        assert holds(e11_gain_is_variance, result, words) is False
    assert holds(e11_gain_is_variance, gain_result(copies=3), words) is None


def test_where_noise_is_not_curvature_the_best_gain_is_another():
    good = gain_result()
    for words in ("is 4 times", "is 0.25 times"):
        assert holds(e11_gain_is_variance, good, words) is True
    matched = gain_result()
    errors = matched.groups["search"]["error"].values
    errors[2] = errors[1]  # as if the noise did not matter
    assert holds(e11_gain_is_variance, matched, "is 0.25 times") is False
    assert holds(e11_gain_is_variance, matched, "R = 4 H: believing") is False


def test_a_best_factor_at_the_edge_is_not_judged():
    result = gain_result(scaled("search", "error", 1.0))
    result.groups["search"]["error"].values[...] = np.linspace(1, 2, 19)[:, None]
    assert holds(e11_gain_is_variance, result, "the best learning rate is 1 times") is None


@pytest.mark.parametrize(("world", "power"), [("optima drift", -0.5), ("optima rest", -1.0)])
def test_the_slopes_are_told_apart(world, power):
    words = f"{world}: the measured error goes as"
    assert holds(e11_gain_is_variance, gain_result(), words) is True
    bend = np.geomspace(0.01, 100, 9)[:, None] ** (-1.5 - 2 * power)  # to the other world's power
    assert (
        holds(e11_gain_is_variance, gain_result(scaled("slopes", "squared_error", bend)), words)
        is False
    )
    off = gain_result(scaled("slopes", "squared_error", 1.5))
    assert holds(e11_gain_is_variance, off, f"{world}: the measured error is that") is False


def test_simulated_errors_are_those_of_the_closed_form():
    precision, eta = np.array([4.0, 400.0]), 0.02
    factor = np.array([[0.005, 0.02], [0.0005, 0.002]])
    noise = np.array([1.0, 4.0])
    found = e11_gain_is_variance.tracking_errors(
        jax.random.key(0),
        jnp.broadcast_to(jnp.asarray(factor)[None, ..., None], (2, 2, 2, 1)),
        jnp.asarray(precision)[:, None, None],
        jnp.asarray(noise)[:, None, None, None],
        jnp.asarray(1.0),
        jnp.asarray(eta),
        jnp.zeros(64),
        warm_up=400,
        num_steps=1_600,
    ).mean(axis=-1)
    ahead = errors_ahead(factor, precision[:, None], noise[:, None, None], eta)
    np.testing.assert_allclose(found, ahead - eta**2, rtol=0.05)


def test_a_filter_with_a_wrong_variance_is_worse_than_it_claims(monkeypatch):
    config = dataclasses.replace(
        e11_gain_is_variance.QUICK,
        slope_copies=400,
        slope_steps=400,
        slope_precisions=(4.0, 400.0, 3),
    )

    def error_over_claimed(steps):  # another number of steps is traced anew
        longer = dataclasses.replace(config, slope_steps=steps)
        group = e11_gain_is_variance._slopes(longer, jax.random.key(0))
        measured = group["squared_error"].values[0].mean(axis=-1)
        return np.log(measured / group["claimed"].values[0]).mean()

    assert abs(error_over_claimed(400)) < 0.1
    true = e11_gain_is_variance.variance_step
    monkeypatch.setattr(
        e11_gain_is_variance, "variance_step", lambda p, h, eta, prior: true(p, h, 4 * eta, prior)
    )
    assert error_over_claimed(401) > 0.3


# e12


@pytest.fixture(scope="module")
def small_crossover():
    return dataclasses.replace(
        e12_crossover.QUICK, batch_sizes=(64, 256), points=3, num_steps=3_000, seeds=5
    )


CROSSOVER = (
    "adabayes_fixed_point: SGD turns into Adam",
    "adabayes: SGD turns into Adam",
    "adabayes: at the mean gradient",
    "adabayes: 30 times below",
    "adabayes: 30 times above",
    "adabayes: with a prior eta_SGD/B",
    "adabayes: with a fixed prior",
)


def test_the_crossover_is_found_where_it_should_be(small_crossover):
    config = dataclasses.replace(small_crossover, num_steps=8_000)
    result = e12_crossover.run(config, jax.random.key(0))
    for words in CROSSOVER:
        assert holds(e12_crossover, result, words) is True, words


def test_an_optimizer_that_forgets_the_batch_size_is_found_out(small_crossover, monkeypatch):
    def mean_units(name):
        made = {"adabayes": adabayes, "adabayes_fixed_point": adabayes_fixed_point}[name]
        return lambda eta, prior, *, batch_size, **rest: made(eta, prior, batch_size=1, **rest)

    monkeypatch.setattr(
        e12_crossover, "OPTIMIZERS", {name: mean_units(name) for name in e12_crossover.OPTIMIZERS}
    )
    config = dataclasses.replace(small_crossover, num_steps=300)
    result = e12_crossover.run(config, jax.random.key(0))
    for words in ("SGD turns into Adam", "at the mean gradient", "30 times below"):
        assert holds(e12_crossover, result, f"adabayes_fixed_point: {words}") is False
    assert holds(e12_crossover, result, "adabayes_fixed_point: with a prior eta") is False


def test_the_corner_of_two_asymptotes_is_theirs():
    gradient = np.geomspace(1e-4, 1e4, 9)[None]
    rate = np.asarray(fixed_point_variance(jnp.asarray(gradient**2), 2.0, 4.0))[..., None]
    np.testing.assert_allclose(e12_crossover.crossing(gradient, rate), 0.5, rtol=1e-3)
