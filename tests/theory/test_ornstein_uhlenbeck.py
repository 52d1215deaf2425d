"""The drift: exact against decimals and simulated chains, first order against its own claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.theory import (
    decay_per_step,
    exact_shrink,
    first_order_retention,
    linearised_stationary_variance,
    process_deviation,
    process_variance,
    retention,
)
from tests.theory import oracles

DECAYS = [1e-12, 3e-9, 1e-6, 3e-4, 0.02, 0.3, 0.99]
EPS = {"float32": 1.2e-7, "float64": 2.3e-16}


def a_drift(decay, dtype, drift_scale=3e-3):
    """η and σ² of about this decay, as numbers of `dtype`."""
    return jnp.asarray(drift_scale, dtype), jnp.asarray(drift_scale**2 / (2 * decay), dtype)


@pytest.mark.equation("OU-1")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("decay", DECAYS)
def test_the_decay_is_half_the_drift_variance_over_the_stationary_one(decay, dtype):
    eta, sigma2 = a_drift(decay, dtype)
    wanted = oracles.decimal_decay(eta, sigma2)
    assert oracles.relative_error(decay_per_step(eta, sigma2), wanted) < 4 * EPS[dtype]


@pytest.mark.equation("OU-2")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("decay", DECAYS)
def test_shrink_and_retention_are_the_exponential_with_all_its_digits(decay, dtype):
    eta, sigma2 = a_drift(decay, dtype)
    kept = (-oracles.decimal_decay(eta, sigma2)).exp(oracles.CONTEXT)
    assert oracles.relative_error(retention(eta, sigma2), kept) < 4 * EPS[dtype]
    assert oracles.relative_error(exact_shrink(eta, sigma2), 1 - kept) < 5 * EPS[dtype]


@pytest.mark.equation("OU-3")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("decay", [*DECAYS, 1e-30, 5.0])
def test_the_process_variance_has_all_its_digits_at_every_decay(decay, dtype):
    eta, sigma2 = a_drift(decay, dtype)
    wanted = oracles.decimal_process_variance(eta, sigma2)
    # The school formula itself loses sixty digits' worth at a decay of 1e-30: thirty remain.
    assert oracles.relative_error(process_variance(eta, sigma2), wanted) < 6 * EPS[dtype]
    deviation = process_deviation(eta, sigma2)
    assert oracles.relative_error(deviation, wanted.sqrt(oracles.CONTEXT)) < 4 * EPS[dtype]


@pytest.mark.equation("OU-3")
def test_check_A2_a_chain_of_exact_steps_has_the_stationary_variance():
    eta, sigma2 = 1.0, 1.0  # a decay of one half: the first-order pair would give 4/3
    kept = float(retention(eta, sigma2))
    added = float(process_variance(eta, sigma2))
    variance, standard_error = simulated_chain(kept, added)
    assert abs(variance - sigma2) < 4 * standard_error


@pytest.mark.equation("OU-4", "OU-5")
def test_check_A2_a_chain_of_first_order_steps_overshoots_as_foretold():
    eta, sigma2 = 1.0, 1.0
    variance, standard_error = simulated_chain(float(first_order_retention(eta, sigma2)), eta**2)
    wanted = float(linearised_stationary_variance(eta, sigma2))
    assert wanted == pytest.approx(4 / 3, rel=1e-14)
    assert abs(variance - wanted) < 4 * standard_error
    assert abs(variance - sigma2) > 20 * standard_error


def simulated_chain(kept, added, chains=40_000, steps=40):
    """Second moment of w' = kept w + noise started far out on one side, and its standard error."""
    rng = np.random.default_rng(7)
    optimum = np.full(chains, 5.0)
    for _ in range(steps):
        optimum = kept * optimum + np.sqrt(added) * rng.standard_normal(chains)
    squares = optimum**2
    return squares.mean(), squares.std() / np.sqrt(chains)


@pytest.mark.equation("OU-2", "OU-3")
def test_two_exact_steps_are_one_step_of_twice_the_time():
    eta, sigma2 = 0.7, 1.3
    kept, added = retention(eta, sigma2), process_variance(eta, sigma2)
    longer = eta * np.sqrt(2)
    np.testing.assert_allclose(kept**2, retention(longer, sigma2), rtol=1e-14)
    np.testing.assert_allclose(
        kept**2 * added + added, process_variance(longer, sigma2), rtol=1e-14
    )


@pytest.mark.equation("OU-4")
def test_the_first_order_retention_is_short_by_half_the_squared_decay():
    eta, sigma2 = a_drift(1e-3, "float64")
    decay = float(decay_per_step(eta, sigma2))
    gap = float(retention(eta, sigma2) - first_order_retention(eta, sigma2))
    assert gap == pytest.approx(decay**2 / 2, rel=1e-3)


@pytest.mark.equation("OU-1", "OU-2", "OU-3", "OU-5")
def test_a_random_walk_forgets_nothing_and_adds_the_squared_drift_scale():
    assert decay_per_step(0.5, jnp.inf) == 0
    assert retention(0.5, jnp.inf) == 1
    assert exact_shrink(0.5, jnp.inf) == 0
    assert process_variance(0.5, jnp.inf) == 0.25
    assert linearised_stationary_variance(0.5, jnp.inf) == jnp.inf


@pytest.mark.equation("OU-1", "OU-3")
def test_a_schedule_that_ends_at_zero_leaves_a_drift_at_rest():
    for factors in [(0.0, 1.0), (0.0, 0.0)]:  # the author's schedule scales both numbers
        eta, sigma2 = 1e-3 * factors[0], 1e-2 * factors[1]
        assert decay_per_step(eta, sigma2) == 0
        assert process_variance(eta, sigma2) == 0
        assert retention(eta, sigma2) == 1
    assert retention(1e-3, 0.0) == 0
    assert process_variance(1e-3, 0.0) == 0


@pytest.mark.equation("OU-1", "OU-3")
@pytest.mark.parametrize("name", ["drift_scale", "stationary_variance"])
@pytest.mark.parametrize("at", [(0.3, 2.0), (0.3, np.inf), (0.0, 2.0), (1e-3, 1e8), (0.0, 0.0)])
def test_the_drift_has_derivatives_everywhere(name, at):
    which = ["drift_scale", "stationary_variance"].index(name)
    for function in (decay_per_step, retention, exact_shrink, process_variance, process_deviation):
        slope = float(jax.grad(function, argnums=which)(*map(jnp.float64, at)))
        assert np.isfinite(slope)
        if at == (0.3, np.inf) and name == "stationary_variance":
            assert slope == 0
        elif np.isfinite(at[which]) and at != (0.0, 0.0):
            assert slope == pytest.approx(*difference(function, at, which))


def difference(function, at, which):
    """Central difference, relative tolerance, and what rounding does to such a difference."""
    step = 1e-5 * at[which] or 1e-8
    low, high = list(at), list(at)
    high[which] += step
    low[which] -= step
    slope = (float(function(*high)) - float(function(*low))) / (2 * step)
    return slope, 1e-7, 1e-15 * float(function(*at)) / step + 1e-14
