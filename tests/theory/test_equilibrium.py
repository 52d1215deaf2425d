"""Long runs: against simulated weights, impulse responses and the filter itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

from bayesfilt.theory import (
    OrnsteinUhlenbeck,
    decay_per_step,
    ema_timescale,
    equilibrium_rms,
    equilibrium_rms_with_momentum,
    fixed_point_variance,
    information_per_step,
    optimal_learning_rate,
    predicted_variance,
    rotation_per_step,
    steady_state_variance,
    tracking_error,
    transition_at_batch_size,
    transition_from_adamw,
)


def impulse_response(eta, shrink, b1, steps):
    """What one unit of gradient leaves in the weight, step by step, decay before the step."""
    impulse = np.zeros(steps)
    impulse[0] = 1
    momentum = lfilter([1 - b1], [1, -b1], impulse)
    return lfilter([-eta], [1, -(1 - shrink)], momentum)


@pytest.mark.equation("EQ-1", "EQ-2")
@pytest.mark.parametrize("shrink", [0.3, 0.02, 1e-3])
@pytest.mark.parametrize("b1", [0.0, 0.9, 0.99])
def test_check_C2_noise_alone_gives_the_weight_the_size_of_its_impulse_response(shrink, b1):
    eta = 3e-3
    response = impulse_response(eta, shrink, b1, steps=int(30 / min(shrink, 1 - b1)))
    ours = float(equilibrium_rms_with_momentum(eta, shrink, b1))
    assert ours == pytest.approx(np.sqrt(np.sum(response**2)), rel=1e-12)
    if b1 == 0:
        assert float(equilibrium_rms(eta, shrink)) == pytest.approx(ours, rel=1e-14)


@pytest.mark.equation("EQ-1")
def test_check_C1_the_equilibrium_of_adamw_is_the_prior_of_its_filter():
    drift = transition_from_adamw(1e-3, 0.1)
    rms = equilibrium_rms(drift.drift_scale, decay_per_step(*drift))
    assert float(rms) == pytest.approx(np.sqrt(drift.stationary_variance), rel=1e-4)
    assert float(rms) == pytest.approx(np.sqrt(1e-3 / 0.2), rel=1e-4)


@pytest.mark.equation("EQ-2")
def test_check_C2_momentum_hardly_changes_the_equilibrium():
    plain = float(equilibrium_rms(1e-3, 1e-4))
    for b1 in (0.0, 0.5, 0.9, 0.99):
        assert float(equilibrium_rms_with_momentum(1e-3, 1e-4, b1)) == pytest.approx(
            plain, rel=1e-4 / (1 - b1)
        )


@pytest.mark.equation("EQ-3")
def test_check_C4_a_weight_is_a_running_mean_of_its_updates_over_weight_decay():
    rng = np.random.default_rng(2)
    learning_rate, weight_decay = 0.01, 2.0
    updates = rng.standard_normal(400) + 0.3
    weight = 5.0
    for update in updates:
        weight -= learning_rate * (update + weight_decay * weight)
    steps = float(ema_timescale(learning_rate * weight_decay))
    assert steps == pytest.approx(50, rel=1e-14)
    weights = (1 - 1 / steps) ** np.arange(399, -1, -1) / steps
    average = np.sum(weights * -updates / weight_decay) + (1 - 1 / steps) ** 400 * 5.0
    assert weight == pytest.approx(average, rel=1e-12)
    assert ema_timescale(0.0) == jnp.inf


@pytest.mark.equation("EQ-4")
@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_check_F2b_a_layer_turns_by_the_angle_between_two_steps_of_its_noise(b1):
    shrink, width, steps = 0.02, 60_000, 400
    rng = np.random.default_rng(4)
    weight, momentum = np.zeros(width), np.zeros(width)
    for _ in range(steps):
        before = weight
        momentum = b1 * momentum + (1 - b1) * rng.standard_normal(width)
        weight = (1 - shrink) * weight - momentum
    cosine = before @ weight / np.linalg.norm(before) / np.linalg.norm(weight)
    angle = float(rotation_per_step(shrink, b1))
    assert np.arccos(cosine) == pytest.approx(angle, rel=4 * width**-0.5)
    assert angle == pytest.approx(np.sqrt(2 * shrink * (1 - b1) / (1 + b1)), rel=0.02)


@pytest.mark.equation("EQ-4")
def test_check_F2b_the_turn_is_the_arc_cosine_of_the_correlation():
    for shrink, b1 in [(0.3, 0.0), (0.02, 0.9), (0.9, 0.5)]:
        response = impulse_response(1.0, shrink, b1, steps=3000)
        correlation = response[1:] @ response[:-1] / (response @ response)
        ours = float(rotation_per_step(shrink, b1))
        assert ours == pytest.approx(np.arccos(correlation), rel=1e-10)


@pytest.mark.equation("EQ-5")
@pytest.mark.parametrize("mean_square_per_example", [1e-9, 1e-3, 1e2])
def test_check_F1_a_larger_batch_scales_sgd_linearly_and_adam_by_the_root(mean_square_per_example):
    batch_size, ratio = 32, 4.0
    drift = OrnsteinUhlenbeck(drift_scale=1e-4, stationary_variance=2e-3)
    larger = transition_at_batch_size(drift, ratio)
    g2 = jnp.float64(mean_square_per_example * batch_size)  # noise-dominated: sums, not squares
    before = fixed_point_variance(g2, *drift) * batch_size
    after = fixed_point_variance(g2 * ratio, *larger) * batch_size * ratio
    assert float(after / before) == pytest.approx(ratio, rel=1e-12)
    assert float(decay_per_step(*larger) / decay_per_step(*drift)) == pytest.approx(
        ratio, rel=1e-12
    )
    np.testing.assert_allclose(
        information_per_step(g2 * ratio, *larger), information_per_step(g2, *drift), rtol=1e-12
    )
    assert float(larger.drift_scale) == pytest.approx(2 * drift.drift_scale, rel=1e-14)


@pytest.mark.equation("EQ-6")
def test_check_B4_tracking_a_random_walk_costs_what_the_formula_says():
    learning_rate, curvature, noise, drift = 0.05, 4.0, 9.0, 0.02
    rng = np.random.default_rng(8)
    distance = np.full(40_000, 3.0)
    for _ in range(120):
        gradient = curvature * distance + np.sqrt(noise) * rng.standard_normal(40_000)
        distance = distance - learning_rate * gradient
        distance = distance + np.sqrt(drift) * rng.standard_normal(40_000)
    squares = distance**2
    wanted = float(tracking_error(learning_rate, curvature, noise, drift))
    assert abs(squares.mean() - wanted) < 4 * squares.std() / np.sqrt(40_000)


@pytest.mark.equation("EQ-6", "RIC-1", "KF-3")
def test_check_B5_the_filters_own_step_leaves_the_error_the_filter_believes_in():
    h, eta = jnp.asarray([0.1, 10.0, 1e4]), 0.03
    settled = steady_state_variance(h, eta, jnp.inf)
    believed = predicted_variance(settled, 1.0, eta**2)  # the held weight is the predicted mean
    np.testing.assert_allclose(tracking_error(settled, h, h, eta**2), believed, rtol=1e-12)


@pytest.mark.equation("EQ-6")
@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0])
def test_check_B1_the_best_small_step_is_the_same_for_every_curvature(curvature):
    noise, drift = 9.0, 1e-8
    best = float(optimal_learning_rate(noise, drift))
    rates = best * 10.0 ** np.linspace(-1, 1, 20_001)
    errors = np.asarray(tracking_error(jnp.asarray(rates), curvature, noise, drift))
    assert rates[errors.argmin()] == pytest.approx(best, rel=1e-3)


@pytest.mark.equation("EQ-6")
def test_an_unstable_step_tracks_nothing():
    errors = tracking_error(jnp.asarray([0.49, 0.5, 0.7]), 4.0, 1.0, 1.0)
    assert np.isfinite(errors[0]) and np.all(np.isinf(errors[1:]))
    slope = jax.grad(lambda k: tracking_error(k, 4.0, 1.0, 1.0))(jnp.float64(0.7))
    assert jnp.isfinite(slope)
