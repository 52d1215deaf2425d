"""How the variance gets there: against an integrated Riccati equation and the recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from bayesfilt.theory import (
    fixed_point_variance,
    retention,
    steady_state_variance,
    time_constant,
    transient_from_infinity,
    transient_from_zero,
    transient_variance,
    variance_memory,
    variance_step,
)


def integrated(initial, times, h, eta, sigma2):
    """The Riccati equation by a Runge-Kutta method, for 1/p where p starts infinite."""

    def fall(_, p):
        return eta**2 - eta**2 / sigma2 * p - h * p**2

    def rise_of_inverse(_, x):
        return h + eta**2 / sigma2 * x - eta**2 * x**2

    inverse = np.isinf(initial)
    solution = solve_ivp(
        rise_of_inverse if inverse else fall,
        (0, times[-1]),
        [0.0 if inverse else initial],
        t_eval=times,
        method="DOP853",
        rtol=1e-11,
        atol=1e-16,
    )
    return 1 / solution.y[0] if inverse else solution.y[0]


H, ETA = 40.0, 0.01
TIMES = np.array([0.5, 3.0, 11.0, 40.0, 200.0])


@pytest.mark.equation("RIC-2")
def test_check_A7_from_certainty_the_variance_rises_as_a_hyperbolic_tangent():
    ours = transient_from_zero(jnp.asarray(TIMES), jnp.float64(H), ETA)
    np.testing.assert_allclose(ours, integrated(0.0, TIMES, H, ETA, np.inf), rtol=1e-8)
    printed = ETA / np.sqrt(H) * np.tanh(ETA * np.sqrt(H) * TIMES)
    np.testing.assert_allclose(ours, printed, rtol=1e-14)


@pytest.mark.equation("RIC-2")
def test_check_A7_from_ignorance_the_variance_falls_as_a_hyperbolic_cotangent():
    ours = transient_from_infinity(jnp.asarray(TIMES), jnp.float64(H), ETA)
    np.testing.assert_allclose(ours, integrated(np.inf, TIMES, H, ETA, np.inf), rtol=1e-8)
    printed = ETA / np.sqrt(H) / np.tanh(ETA * np.sqrt(H) * TIMES)
    np.testing.assert_allclose(ours, printed, rtol=1e-14)


@pytest.mark.equation("RIC-6")
@pytest.mark.parametrize("initial", [0.0, 1e-4, 0.03, 2.0])
@pytest.mark.parametrize("sigma2", [0.03, 1e-3, np.inf])
@pytest.mark.parametrize("h", [H, 0.0, 2000.0])
def test_from_anywhere_the_variance_follows_the_riccati_equation(initial, sigma2, h):
    ours = transient_variance(initial, jnp.asarray(TIMES), jnp.float64(h), ETA, sigma2)
    np.testing.assert_allclose(ours, integrated(initial, TIMES, h, ETA, sigma2), rtol=1e-8)
    if h > 0 or np.isfinite(sigma2):
        in_the_end = transient_variance(initial, 1e6, jnp.float64(h), ETA, sigma2)
        settled = fixed_point_variance(jnp.float64(h), ETA, sigma2)
        np.testing.assert_allclose(in_the_end, settled, rtol=1e-12)


@pytest.mark.equation("RIC-2", "RIC-6")
def test_check_A7_the_recursion_follows_the_transient_when_the_gain_is_small():
    h, eta, sigma2 = 4.0, 1e-3, 0.05  # gains of 2e-3 in the end, and of 0.2 after one step
    for initial, curve in [
        (0.0, lambda t: transient_from_zero(t, jnp.float64(h), eta)),
        (sigma2, lambda t: transient_variance(sigma2, t, jnp.float64(h), eta, sigma2)),
    ]:
        prior = sigma2 if initial else jnp.inf
        variance, step_on = jnp.float64(initial), jax.jit(variance_step)
        for step in range(1, 1501):
            variance = step_on(variance, h, eta, prior)
            if step in (20, 100, 400, 1500):
                wanted = float(curve(jnp.float64(step)))
                assert float(variance) == pytest.approx(wanted, rel=0.02)


@pytest.mark.equation("RIC-3")
def test_check_A7_a_disturbance_of_the_variance_is_forgotten_in_the_time_constant():
    h, eta = jnp.float64(H), 1e-4
    steps = float(time_constant(h, eta))
    assert steps == pytest.approx(1 / (2 * 1e-4 * np.sqrt(40)), rel=1e-14)
    settled = steady_state_variance(h, eta, jnp.inf)
    disturbed = transient_variance(1.001 * settled, steps, h, eta, jnp.inf)
    kept = (disturbed / fixed_point_variance(h, eta, jnp.inf) - 1) / 0.001
    # The disturbance is relative to the exact root, a gain of 6e-4 below the closed form.
    start = 1.001 * settled / fixed_point_variance(h, eta, jnp.inf) - 1
    assert float(kept * 0.001 / start) == pytest.approx(np.exp(-1), rel=2e-3)
    per_step = variance_memory(settled, h, retention(eta, jnp.inf))
    assert float(per_step) == pytest.approx(np.exp(-1 / steps), rel=1e-6)


@pytest.mark.equation("RIC-2", "RIC-3", "RIC-6")
def test_without_information_the_clock_stands_still_but_nothing_breaks():
    zero = jnp.float64(0.0)
    assert float(transient_from_zero(7.0, zero, ETA)) == pytest.approx(7 * ETA**2, rel=1e-15)
    assert transient_from_infinity(7.0, zero, ETA) == jnp.inf
    assert transient_from_infinity(0.0, jnp.float64(H), ETA) == jnp.inf
    assert transient_from_zero(0.0, jnp.float64(H), ETA) == 0
    assert time_constant(zero, ETA) == jnp.inf
    assert transient_variance(0.4, 9.0, zero, 0.0, 1.0) == 0.4


@pytest.mark.equation("RIC-2", "RIC-6")
@pytest.mark.parametrize("h", [0.0, 1e-9, 40.0])
def test_the_slope_in_the_precision_exists_down_to_no_information(h):
    for curve in (
        lambda x: transient_from_zero(7.0, x, ETA),
        lambda x: transient_variance(0.4, 7.0, x, ETA, 0.5),
        lambda x: transient_variance(0.4, 7.0, x, ETA, jnp.inf),
    ):
        slope = float(jax.grad(curve)(jnp.float64(h)))
        step = 1e-4
        # Smooth in h through zero, so that a difference across zero means something.
        wanted = float(curve(jnp.float64(h + step)) - curve(jnp.float64(max(h - step, 0.0))))
        assert slope == pytest.approx(wanted / (h + step - max(h - step, 0.0)), rel=1e-3)
