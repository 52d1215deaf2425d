"""Following an optimum that walks: the best normaliser, and what gradients say of the step.

A weight follows by w' = w - K g with g = c (w - w*) + noise of variance R, while w* moves with
variance q per step. Noise and curvature are apart: nothing here needs them to be equal.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from bayesfilt.theory import (
    kalman_multiplier,
    optimal_learning_rate,
    steady_state_variance,
    tracking_error,
)


def followed(step, curvature, noise, drift):
    """Distances d and gradients g along many walks, long after the start."""
    rng = np.random.default_rng(21)
    distance, gradients, squares = np.zeros(WALKS), [], []
    for t in range(60 + STEPS):
        gradient = curvature * distance + np.sqrt(noise) * rng.standard_normal(WALKS)
        if t >= 60:
            gradients.append(gradient)
            squares.append(distance**2)
        distance = distance - step * gradient + np.sqrt(drift) * rng.standard_normal(WALKS)
    return np.array(gradients), np.array(squares)


WALKS, STEPS = 4_000, 200
CURVATURE, NOISE, DRIFT = 2.0, 5.0, 0.02


def best_step(curvature, noise, drift):
    """K of the Kalman filter at rest: a gradient is worth c²/R about w*."""
    settled = steady_state_variance(jnp.float64(curvature**2 / noise), np.sqrt(drift), jnp.inf)
    return float(kalman_multiplier(settled + drift, curvature, noise))


def correlation(gradients, lag):
    """Mean correlation of gradients `lag` steps apart, and its standard error over walks."""
    products = (gradients[:-lag] * gradients[lag:]).mean(axis=0) / (gradients**2).mean()
    return products.mean(), products.std() / np.sqrt(WALKS)


@pytest.mark.equation("EQ-6", "KF-7")
def test_check_B3_gradients_are_white_if_and_only_if_the_step_is_the_best():
    best = best_step(CURVATURE, NOISE, DRIFT)
    found = minimize_scalar(
        lambda k: float(tracking_error(k, CURVATURE, NOISE, DRIFT)), (best / 9, best, 3 * best)
    )
    assert found.x == pytest.approx(best, rel=1e-6)
    gradients, squares = followed(best, CURVATURE, NOISE, DRIFT)
    for lag in (1, 2, 3, 7):
        mean, standard_error = correlation(gradients, lag)
        assert abs(mean) < 4 * standard_error
    wanted = float(tracking_error(best, CURVATURE, NOISE, DRIFT))
    assert squares.mean() == pytest.approx(wanted, rel=0.02)


@pytest.mark.equation("EQ-6")
@pytest.mark.parametrize(("ratio", "sign"), [(0.5, 1), (0.8, 1), (1.25, -1), (2.0, -1)])
def test_check_B3_neighbouring_gradients_agree_when_the_step_is_too_small(ratio, sign):
    step = ratio * best_step(CURVATURE, NOISE, DRIFT)
    mean, standard_error = correlation(followed(step, CURVATURE, NOISE, DRIFT)[0], 1)
    assert sign * mean > 8 * standard_error
    # Of g = c d + n and d' = (1 - K c) d - K n + move: c ((1 - K c) c V - K R) over c² V + R.
    error = float(tracking_error(step, CURVATURE, NOISE, DRIFT))
    shared = CURVATURE * ((1 - step * CURVATURE) * CURVATURE * error - step * NOISE)
    wanted = shared / (CURVATURE**2 * error + NOISE)
    assert abs(mean - wanted) < 4 * standard_error


@pytest.mark.equation("EQ-6")
def test_check_B3_the_correlation_is_only_as_large_as_the_gain():
    noise, drift, ratio = 5.0, 1e-8, np.array([0.25, 0.5, 2.0, 4.0])
    best = float(optimal_learning_rate(noise, drift))
    step = jnp.asarray(ratio * best)
    error = np.asarray(tracking_error(step, CURVATURE, noise, drift))
    shared = CURVATURE * ((1 - ratio * best * CURVATURE) * CURVATURE * error - ratio * best * noise)
    small_gain = 0.5 * best * CURVATURE * (1 / ratio - ratio)
    np.testing.assert_allclose(shared / (CURVATURE**2 * error + noise), small_gain, rtol=2e-3)


@pytest.mark.equation("EQ-6")
@pytest.mark.parametrize(
    ("exponent", "normaliser"), [(-1.0, 1.0), (0.0, 0.5), (0.5, 0.25), (1.0, 0.0)]
)
def test_check_B2_drift_as_a_power_of_the_mean_square_gradient_sets_the_normalisers_power(
    exponent, normaliser
):
    rng = np.random.default_rng(22)
    mean_square = 10.0 ** np.linspace(-3, 3, 25)  # noise-dominated: E g² is R
    drift = 1e-12 * mean_square**exponent
    curvature = 10.0 ** rng.uniform(-1, 1, 25)  # any: it cancels
    best = []
    for c, noise, moves in zip(curvature, mean_square, drift, strict=True):

        def error(log_step, c=c, noise=noise, moves=moves):
            keep = (1 - np.exp(log_step) * c) ** 2
            return np.log((np.exp(2 * log_step) * noise + moves) / (1 - keep))

        guess = 0.5 * np.log(moves / noise)
        best.append(minimize_scalar(error, (guess - 1, guess + 1.5)).x)
    slope, intercept = np.polyfit(np.log(mean_square), best, 1)
    assert slope == pytest.approx(-normaliser, abs=2e-3)
    assert slope == pytest.approx(-(1 - exponent) / 2, abs=2e-3)
    assert np.exp(intercept) == pytest.approx(1e-6, rel=0.02)
    ours = optimal_learning_rate(jnp.asarray(mean_square), jnp.asarray(drift))
    np.testing.assert_allclose(np.exp(best), ours, rtol=0.01)
