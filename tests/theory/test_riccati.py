"""Where the variance settles: against the iterated recursion, and against its own limits."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from bayesfilt.theory import (
    conditioned_variance,
    drifted_variance,
    fixed_point_from_epsilon,
    fixed_point_variance,
    large_epsilon,
    predicted_variance,
    process_deviation,
    process_variance,
    retention,
    static_variance,
    steady_state_from_scalars,
    steady_state_variance,
    variance_memory,
    variance_step,
)
from tests.theory import oracles

# (h, η, σ²): gains from 1e-3 to nearly one, decays from 1e-5 to 4.5, quiet and loud.
WORLDS = [
    (25.0, 1e-3, 1e-2),
    (1e4, 1e-3, 1e-2),
    (1e8, 1e-3, 1e-2),
    (0.5, 0.3, 0.1),
    (3.0, 0.3, 0.01),
    (1e-6, 0.1, 1.0),
    (0.0, 0.1, 1.0),
    (40.0, 0.01, 5.0),
]


@pytest.mark.equation("RIC-1")
@pytest.mark.parametrize("world", WORLDS)
def test_the_exact_root_is_where_the_recursion_settles(world):
    h, eta, sigma2 = world
    ours = float(steady_state_variance(jnp.float64(h), eta, sigma2))
    for start in (0.0, sigma2, 40 * sigma2):
        settled = oracles.iterated_variance(start, h, eta, sigma2, steps=150_000)
        assert ours == pytest.approx(settled, rel=1e-12)


@pytest.mark.equation("RIC-1")
def test_the_exact_root_of_a_random_walk_is_where_its_recursion_settles():
    h, eta, variance = 40.0, 0.01, 1.0
    for _ in range(5_000):
        variance = 1 / (1 / (variance + eta**2) + h)
    ours = float(steady_state_variance(jnp.float64(h), eta, jnp.inf))
    assert ours == pytest.approx(variance, rel=1e-12)


@pytest.mark.equation("RIC-0", "KF-1", "KF-3")
def test_a_step_is_the_textbook_step():
    rng = np.random.default_rng(3)
    variance, precision = rng.exponential(size=50), 10.0 ** rng.uniform(-4, 6, 50)
    eta, sigma2 = 0.4, 0.9
    kept, added = np.exp(-(eta**2) / (2 * sigma2)), sigma2 * (1 - np.exp(-(eta**2) / sigma2))
    prior = kept**2 * variance + added
    wanted = prior - prior**2 / (prior + 1 / precision)  # observing w* itself with noise 1/h
    v, h = jnp.asarray(variance), jnp.asarray(precision)
    # The textbook's difference loses as many digits as the gradient teaches.
    lost = 1e-15 * (1 + precision * prior).max()
    np.testing.assert_allclose(variance_step(v, h, eta, sigma2), wanted, rtol=lost)
    np.testing.assert_allclose(drifted_variance(v, eta, sigma2), prior, rtol=1e-14)
    np.testing.assert_allclose(predicted_variance(v, kept, added), prior, rtol=1e-14)
    np.testing.assert_allclose(conditioned_variance(jnp.asarray(prior), h), wanted, rtol=lost)


@pytest.mark.equation("KF-3")
@pytest.mark.parametrize("decay", [1e-12, 1e-8, 2.5e-8, 1e-7, 1e-4, 0.3])
@pytest.mark.parametrize("sigma2", [1.0, 1.9, 3e-4])
def test_the_stationary_variance_is_kept_for_ever_in_float32(decay, sigma2):
    variance = jnp.float32(sigma2)
    eta = jnp.float32(np.sqrt(2 * decay * sigma2))
    for _ in range(50):
        variance = drifted_variance(variance, eta, jnp.float32(sigma2))
    assert variance == jnp.float32(sigma2)


@pytest.mark.equation("KF-3")
def test_without_gradients_the_variance_of_a_random_walk_grows_by_the_drift():
    variance = drifted_variance(jnp.float64(0.0), 0.3, jnp.inf)
    assert float(variance) == pytest.approx(0.09, rel=1e-15)
    assert float(drifted_variance(variance, 0.3, jnp.inf)) == pytest.approx(0.18, rel=1e-15)


@pytest.mark.equation("KF-3")
def test_a_prior_of_no_width_leaves_no_variance_unless_nothing_drifts():
    assert drifted_variance(jnp.float64(0.4), 0.1, 0.0) == 0
    assert drifted_variance(jnp.float64(0.4), 0.0, 0.0) == 0.4


@pytest.mark.equation("RIC-1", "FP-1")
def test_check_A3_the_fixed_point_is_the_exact_root_to_first_order_in_the_gain():
    eta, sigma2 = 1e-3, 1e-2
    h = jnp.asarray(10.0 ** np.linspace(-4, 8, 400))
    exact = np.asarray(steady_state_variance(h, eta, sigma2))
    closed = np.asarray(fixed_point_variance(h, eta, sigma2))
    gain = exact * np.asarray(h)
    error = np.abs(closed / exact - 1)
    assert 0.025 < error[gain < 0.05].max() < 0.95**-0.5 - 1
    # The error is the gain's size, neither larger nor of higher order: halved with the gain.
    small = (gain > 1e-4) & (gain < 1e-1)
    assert (error[small] / gain[small]).max() < 0.6
    loud = error[(gain > 1e-2) & (gain < 1e-1)] / gain[(gain > 1e-2) & (gain < 1e-1)]
    assert loud.min() > 0.4
    # Once each gradient outweighs the past the closed form is η|g| times too large.
    loudest = closed[-1] / exact[-1]
    assert loudest == pytest.approx(eta * np.sqrt(h[-1]), rel=0.1)


@pytest.mark.equation("FP-1")
@pytest.mark.parametrize("world", [w for w in WORLDS if w[0] > 0])
def test_the_stable_form_is_the_printed_one(world):
    g2, eta, sigma2 = world
    ours = fixed_point_variance(jnp.float64(g2), eta, sigma2)
    assert oracles.relative_error(ours, oracles.decimal_fixed_point(g2, eta, sigma2)) < 1e-15
    assert float(ours) == pytest.approx(
        1 / ((1 / (2 * sigma2)) * (1 + np.sqrt(1 + 4 * sigma2**2 * g2 / eta**2))), rel=1e-14
    )


@pytest.mark.equation("FP-1", "RIC-1")
@pytest.mark.parametrize("sigma2", [1e-2, np.inf])
def test_the_cores_for_loops_are_the_formulas_away_from_their_edges(sigma2):
    h, eta = jnp.asarray(10.0 ** np.linspace(-8, 12, 81)), 1e-3
    closed = fixed_point_from_epsilon(h, eta, 0.5 * eta / sigma2)
    printed = 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + np.asarray(h) / eta**2))
    np.testing.assert_allclose(closed, printed, rtol=1e-14)
    stiffness = 4 * retention(eta, sigma2) ** 2 / process_variance(eta, sigma2)
    exact = steady_state_from_scalars(h, 1 / sigma2, stiffness)
    np.testing.assert_allclose(exact, steady_state_variance(h, eta, sigma2), rtol=1e-14)


@pytest.mark.equation("FP-1", "RIC-1")
@pytest.mark.parametrize("settled", [fixed_point_variance, steady_state_variance])
def test_check_A4_quiet_gradients_give_the_stationary_variance_and_loud_ones_adams_step(settled):
    eta, sigma2 = 1e-4, 1e-2
    quiet = float(settled(jnp.float64((1e-6 * eta / sigma2) ** 2), eta, sigma2))
    assert quiet == pytest.approx(sigma2, rel=1e-10)
    rms = 1e2 * eta / sigma2  # a hundred times the crossover; the gain is still 1e-4
    loud = float(settled(jnp.float64(rms**2), eta, sigma2))
    assert loud == pytest.approx(eta / rms, rel=0.01)
    walk = float(settled(jnp.float64(rms**2), eta, jnp.inf))
    assert walk == pytest.approx(eta / rms, rel=1e-4)


@pytest.mark.equation("RIC-1")
def test_overwhelming_gradients_leave_only_their_own_variance():
    h = 1e12
    ours = float(steady_state_variance(jnp.float64(h), 1e-3, 1e-2))
    assert ours == pytest.approx(1 / h, rel=2e-6)


@pytest.mark.equation("FP-1", "RIC-1")
@pytest.mark.parametrize("settled", [fixed_point_variance, steady_state_variance])
def test_the_degenerate_corners_have_the_values_that_continuity_gives(settled):
    zero, some = jnp.float64(0.0), jnp.float64(2.0)
    assert settled(zero, 0.1, jnp.inf) == jnp.inf  # a random walk nobody looks at
    assert settled(zero, 0.0, 0.3) == 0.3  # neither drift nor information
    assert settled(some, 0.0, 0.3) == 0  # known in the end
    assert settled(some, 0.1, 0.0) == 0  # nowhere to go
    assert settled(some, 0.0, 0.0) == 0
    assert settled(zero, 0.0, 0.0) == 0
    assert float(settled(zero, 0.1, 0.3)) == pytest.approx(0.3, rel=1e-15)


@pytest.mark.equation("FP-2")
def test_check_A11_adam_with_the_large_epsilon_is_never_a_fifth_from_the_fixed_point():
    eta, sigma2 = 1e-3, 1e-2
    eps = float(large_epsilon(eta, sigma2))
    rms = eps * 10.0 ** np.linspace(-8, 8, 4001)
    adam = eta / (rms + eps)
    ratio = adam / np.asarray(fixed_point_variance(jnp.asarray(rms**2), eta, sigma2))
    assert ratio.min() == pytest.approx(0.8, abs=1e-5)
    assert rms[ratio.argmin()] == pytest.approx(2 * eps / 3, rel=0.01)
    assert ratio.max() <= 1 + 1e-12
    np.testing.assert_allclose(ratio[[0, -1]], 1, rtol=1e-6)


@pytest.mark.equation("RIC-4", "RIC-0")
def test_check_A6_an_optimum_at_rest_is_known_ever_better():
    sigma2, h = 0.7, np.array([3.0, 0.0, 11.0, 0.4])
    variance = jnp.float64(sigma2)
    for step, precision in enumerate(h):
        variance = variance_step(variance, jnp.float64(precision), 0.0, sigma2)
        wanted = float(static_variance(sigma2, jnp.float64(h[: step + 1].sum())))
        assert float(variance) == pytest.approx(wanted, rel=1e-14)
        assert wanted == pytest.approx(1 / (1 / 0.7 + h[: step + 1].sum()), rel=1e-14)


@pytest.mark.equation("RIC-4")
def test_static_variance_at_its_corners():
    assert static_variance(jnp.inf, jnp.float64(4.0)) == 0.25
    assert static_variance(jnp.inf, jnp.float64(0.0)) == jnp.inf
    assert static_variance(0.0, jnp.float64(4.0)) == 0


@pytest.mark.equation("RIC-4")
def test_check_A9_when_the_drift_stops_the_step_can_fall_no_faster_than_one_over_time():
    h, eta, steps = 100.0, 1e-3, 500
    start = float(steady_state_variance(jnp.float64(h), eta, jnp.inf))
    variance = jnp.float64(start)
    for _ in range(steps):
        variance = variance_step(variance, jnp.float64(h), 0.0, jnp.inf)
    lag = float(static_variance(start, jnp.float64(h * steps)))
    assert float(variance) == pytest.approx(lag, rel=1e-12)
    assert fixed_point_variance(jnp.float64(h), 1e-12, jnp.inf) < 1e-6 * lag  # it falls at once


@pytest.mark.equation("FP-1", "RIC-0")
def test_check_A8_drift_that_fades_as_one_over_time_makes_adagrad():
    g2, eta, steps = 4.0, 1e-2, 20_000
    adagrad = eta / np.sqrt(g2 * steps)
    closed = fixed_point_variance(jnp.float64(g2), eta / np.sqrt(steps), jnp.inf)
    assert float(closed) == pytest.approx(adagrad, rel=1e-12)
    variance = 1.0
    for step in range(1, steps + 1):
        variance = 1 / (1 / (variance + eta**2 / step) + g2)
    # The recursion lags behind, by a tenth here, as dp/dt = η²/t - h p² does from p = inf.
    z = 2 * eta * np.sqrt(g2 * steps)
    assert variance / adagrad == pytest.approx(ive(0, z) / ive(1, z), rel=1e-3)


@pytest.mark.equation("RIC-5")
@pytest.mark.parametrize("world", WORLDS)
def test_check_A10_the_variance_remembers_as_its_derivative_says(world):
    h, eta, sigma2 = world
    before, step = 0.6 * sigma2, 1e-5 * sigma2
    after = oracles.iterated_variance(before, h, eta, sigma2, steps=1)
    up = oracles.iterated_variance(before + step, h, eta, sigma2, steps=1)
    down = oracles.iterated_variance(before - step, h, eta, sigma2, steps=1)
    ours = variance_memory(jnp.float64(after), jnp.float64(h), retention(eta, sigma2))
    noise = 1e-15 * after / step
    assert float(ours) == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=noise)


@pytest.mark.equation("RIC-5")
def test_check_A10_the_filters_own_b2_is_one_less_two_gains():
    h, eta = jnp.float64(1e4), 1e-5
    settled = steady_state_variance(h, eta, jnp.inf)
    ours = float(variance_memory(settled, h, 1.0))
    assert 1 - ours == pytest.approx(2 * eta * np.sqrt(1e4), rel=2e-3)


@pytest.mark.equation("OU-3", "RIC-1")
def test_a_steady_state_is_kept_by_one_more_step():
    h = jnp.asarray(10.0 ** np.linspace(-6, 12, 60))
    for eta, sigma2 in [(1e-3, 1e-2), (0.5, 0.3), (1e-2, jnp.inf)]:
        settled = steady_state_variance(h, eta, sigma2)
        np.testing.assert_allclose(variance_step(settled, h, eta, sigma2), settled, rtol=1e-13)
        # Harvey: what the drift adds is what the gradient takes away.
        prior = drifted_variance(settled, eta, sigma2)
        kept = retention(eta, sigma2) ** 2
        taken = prior - settled
        gained = process_variance(eta, sigma2) - (1 - kept) * settled
        np.testing.assert_allclose(taken, gained, rtol=1e-9, atol=1e-12 * float(prior.max()))


@pytest.mark.equation("RIC-1", "FP-1")
@pytest.mark.parametrize("sigma2", [1e-2, np.inf])
def test_the_exact_root_is_the_fixed_point_of_a_precision_inflated_by_the_gain(sigma2):
    eta = 1e-3
    h = jnp.asarray(10.0 ** np.linspace(-2, 8, 40))
    exact = steady_state_variance(h, eta, sigma2)
    inflated = h / (1 - exact * h)
    same = fixed_point_variance(inflated, process_deviation(eta, sigma2), sigma2)
    np.testing.assert_allclose(same, exact, rtol=1e-12)
    # Hence the error of the closed form is at most that of the loud limit, (1 - gain)^(-1/2),
    # and that of the first-order drift, half the decay.
    ratio = np.asarray(fixed_point_variance(h, eta, sigma2) / exact)
    decay = 0.0 if np.isinf(sigma2) else eta**2 / (2 * sigma2)
    assert np.all(ratio >= 1 - 1e-14)
    assert np.all(ratio <= (1 - np.asarray(exact * h)) ** -0.5 * (1 + decay + 1e-12))


@pytest.mark.equation("RIC-1", "FP-1")
def test_where_the_drift_weighs_one_gradient_the_gain_is_the_golden_fraction_too():
    eta = 1e-3
    h = jnp.float64(eta**-2)
    gain = float(steady_state_variance(h, eta, jnp.inf) * h)
    assert gain == pytest.approx(0.6180339887498949, rel=1e-13)
    assert float(fixed_point_variance(h, eta, jnp.inf) * h) == pytest.approx(1.0, rel=1e-13)
