"""What is read off streams, on series whose numbers are known."""

import numpy as np
import pytest

from bayesfilt.compare import (
    calibration,
    drift_variance,
    held_variance,
    lag_one_autocorrelation,
    log_slope,
    mean_over_steps,
    noise_over_curvature,
    normalised_innovation_squared,
)
from bayesfilt.theory import OrnsteinUhlenbeck, exact_shrink, process_variance

STEPS, WEIGHTS = 4_000, 3


def autoregression(kept, process_deviation, seed=0):
    """x(t+1) = kept x(t) + noise, by a loop, from its stationary law."""
    rng = np.random.RandomState(seed)
    start = process_deviation / np.sqrt(1 - kept**2)
    values = [start * rng.standard_normal(WEIGHTS)]
    for _ in range(STEPS - 1):
        values.append(kept * values[-1] + process_deviation * rng.standard_normal(WEIGHTS))
    return np.array(values)


# Drift.


@pytest.mark.equation("INST-5")
def test_the_drift_variance_of_an_ornstein_uhlenbeck_optimum_is_its_process_variance():
    transition = OrnsteinUhlenbeck(0.05, 0.01)
    q, shrink = (float(f(*transition)) for f in (process_variance, exact_shrink))
    assert shrink > 0.1  # so strong that leaving it out shows
    path = autoregression(1 - shrink, np.sqrt(q))
    found = drift_variance(path, shrink=shrink)
    assert np.all(np.abs(found.value - q) < 4 * found.standard_error)
    np.testing.assert_allclose(found.standard_error, q * np.sqrt(2 / STEPS), rtol=0.15)
    # E (x' - x)² = 2 q / (2 - s): too large by s/2 and a little.
    plain = drift_variance(path)
    assert np.all(np.abs(plain.value * (2 - shrink) / 2 - q) < 4 * plain.standard_error)


def test_only_neighbours_that_are_both_valid_make_a_move():
    path = np.array([[0.0], [1.0], [100.0], [3.0], [5.0], [np.nan], [6.0]])
    valid = np.array([[True], [True], [False], [True], [True], [True], [True]])
    found = drift_variance(path, valid)
    np.testing.assert_array_equal(found.num_terms, [2])
    np.testing.assert_allclose(found.value, [(1.0 + 4.0) / 2])
    np.testing.assert_allclose(found.standard_error, [np.std([1.0, 4.0], ddof=1) / np.sqrt(2)])


def test_a_stream_without_a_pair_has_no_drift_and_one_that_stands_still_has_zero():
    path = np.stack([np.full(9, np.nan), np.full(9, 0.3), np.arange(9.0)], axis=1)
    valid = np.ones((9, 3), bool)
    valid[1::2, 2] = False
    for robust in (False, True):
        found = drift_variance(path, valid, robust=robust)
        np.testing.assert_array_equal(found.num_terms, [0, 8, 0])
        np.testing.assert_array_equal(found.value, [np.nan, 0, np.nan])


def test_the_robust_drift_ignores_jumps_and_agrees_without_them():
    path = np.cumsum(0.02 * np.random.RandomState(1).standard_normal((STEPS, WEIGHTS)), axis=0)
    calm = drift_variance(path, robust=True)
    assert np.all(np.abs(calm.value - 4e-4) < 4 * calm.standard_error)
    jumpy = path + 5.0 * (np.arange(STEPS)[:, None] >= 1_000)
    assert np.all(drift_variance(jumpy).value > 5e-3)
    assert np.all(np.abs(drift_variance(jumpy, robust=True).value - 4e-4) < 4 * calm.standard_error)
    np.testing.assert_allclose(calm.standard_error, calm.value * 2.333 / np.sqrt(STEPS), rtol=0.01)


def test_the_robust_drift_leaves_out_what_is_not_valid():
    path = np.cumsum(0.02 * np.random.RandomState(1).standard_normal((STEPS, 1)), axis=0)
    valid = np.random.RandomState(2).rand(STEPS, 1) < 0.7
    holes = np.where(valid, path, 77.0)
    found = drift_variance(holes, valid, robust=True)
    assert np.all(np.abs(found.value - 4e-4) < 4 * found.standard_error)
    np.testing.assert_array_equal(found.num_terms, (valid[1:] & valid[:-1]).sum(axis=0))


@pytest.mark.parametrize("shrink", [-0.1, 1.0, np.nan, [0.0, 2.0]])
def test_a_shrink_is_a_fraction(shrink):
    with pytest.raises(ValueError, match="drift_variance needs 0 <= shrink < 1"):
        drift_variance(np.zeros((5, 2)), shrink=shrink)


# Whiteness.


@pytest.mark.equation("INST-6")
@pytest.mark.parametrize("kept", [-0.3, 0.0, 0.6])
def test_the_autocorrelation_of_an_autoregression_is_what_it_keeps(kept):
    found = lag_one_autocorrelation(autoregression(kept, 2.0))
    assert np.all(np.abs(found.value - kept) < 4 / np.sqrt(STEPS))
    np.testing.assert_array_equal(found.num_terms, STEPS - 1)


def test_the_error_of_the_autocorrelation_of_white_values_is_right_though_their_size_changes():
    size = np.exp(2 * np.sin(np.arange(400) / 20.0))[:, None]
    white = size * np.random.RandomState(0).standard_normal((2_000, 400, 1))
    found = lag_one_autocorrelation(white)
    scaled = found.value / found.standard_error
    assert found.value.shape == (2_000, 1)
    assert abs(scaled.std() - 1) < 0.08
    assert abs(scaled.mean()) < 4 / np.sqrt(2_000)
    assert found.standard_error.mean() > 1.3 / np.sqrt(400)  # the textbook's would be too small


def test_a_mean_that_is_not_zero_counts_as_autocorrelation():
    assert lag_one_autocorrelation(np.full((50, 1), 3.0)).value == pytest.approx(1)


def test_pairs_with_a_missing_value_do_not_count():
    values = np.array([[1.0], [2.0], [np.nan], [5.0], [-5.0], [9.0]])
    valid = np.array([[True], [True], [True], [True], [True], [False]])
    found = lag_one_autocorrelation(values, valid)
    assert found.num_terms == 2
    assert found.value == pytest.approx((1 * 2 - 25) / (0.5 * (1 + 4) + 25))
    assert np.isnan(lag_one_autocorrelation(np.zeros((9, 1))).value).all()


# Filters judged.


def kalman_run(precision, transition, drift_factor=1.0, noise_factor=1.0, seed=0):
    """A textbook scalar filter on its own model, step by step in NumPy; as `record_streams` would.

    Truth drifts with `drift_factor` times q, and is seen with `noise_factor` times the noise.
    """
    rng = np.random.RandomState(seed)
    q, shrink = (float(f(*transition)) for f in (process_variance, exact_shrink))
    kept, sigma2 = 1 - shrink, transition.stationary_variance
    optimum, mean, variance = (
        np.sqrt(sigma2) * rng.standard_normal(WEIGHTS),
        np.zeros(WEIGHTS),
        sigma2,
    )
    names = ("optimum", "weight", "gradient", "posterior")
    log = {name: [] for name in names}
    for _ in range(STEPS):
        noise = np.sqrt(noise_factor * precision) * rng.standard_normal(WEIGHTS)
        gradient = precision * (mean - optimum) + noise
        posterior = 1 / (1 / variance + precision)
        for name, value in zip(names, (optimum, mean, gradient, posterior), strict=True):
            log[name].append(np.broadcast_to(value, WEIGHTS))
        mean = kept * (mean - posterior * gradient)
        variance = kept**2 * posterior + q
        optimum = kept * optimum + np.sqrt(drift_factor * q) * rng.standard_normal(WEIGHTS)
    return {name: np.array(values) for name, values in log.items()}


LOUD = OrnsteinUhlenbeck(0.1, 0.05)  # with precision 100 its gain is about 0.6


@pytest.mark.equation("INST-7", "INST-8")
def test_a_filter_on_its_own_model_is_calibrated_and_its_innovations_as_large_as_expected():
    run = kalman_run(100.0, LOUD)
    variance = held_variance(run["posterior"], LOUD)
    assert np.isnan(variance[0]).all()
    z2 = mean_over_steps(calibration(run["weight"], run["optimum"], variance))
    nis = mean_over_steps(normalised_innovation_squared(run["gradient"], 100.0, variance))
    np.testing.assert_array_equal(nis.num_terms, STEPS - 1)
    error = np.sqrt(2 / STEPS)
    assert np.all(np.abs(nis.value - 1) < 4 * error)
    assert np.all(np.abs(z2.value - 1) < 8 * error)  # neighbours are alike
    # Judged by the posterior after the gradient it would look far too sure: by 1/(1 - gain).
    gain = 100.0 * run["posterior"][-1, 0]
    late = mean_over_steps(calibration(run["weight"], run["optimum"], run["posterior"])).value
    np.testing.assert_allclose(late * (1 - gain), 1, atol=8 * error)
    assert gain > 0.5


def test_a_filter_that_thinks_too_little_drift_or_noise_shows_it():
    for drift_factor, noise_factor in ((4.0, 1.0), (1.0, 3.0)):
        run = kalman_run(100.0, LOUD, drift_factor, noise_factor)
        variance = held_variance(run["posterior"], LOUD)
        nis = mean_over_steps(normalised_innovation_squared(run["gradient"], 100.0, variance))
        assert np.all(nis.value > 1.3)
    told = normalised_innovation_squared(run["gradient"], 100.0, variance, noise_variance=300.0)
    wrong = calibration(run["weight"], run["optimum"], variance)
    assert np.all(mean_over_steps(wrong).value > 1.3)
    assert np.all(mean_over_steps(told).value < nis.value)


def test_what_cannot_be_judged_is_not_a_number():
    assert np.isnan(normalised_innovation_squared(1.0, 0.0, 1.0))
    assert np.isnan(normalised_innovation_squared(1.0, -2.0, 1.0))
    assert np.isnan(normalised_innovation_squared(1.0, 2.0, 1.0, noise_variance=0.0))
    assert np.isnan(calibration(1.0, np.nan, 1.0))
    assert np.isnan(calibration(1.0, 2.0, 0.0))
    assert np.isnan(calibration(1.0, 2.0, 1.0, valid=False))
    assert normalised_innovation_squared(3.0, 2.0, 0.5, noise_variance=7.0) == 9 / (7 + 4 * 0.5)


@pytest.mark.equation("INST-9")
def test_the_fisher_ratio_is_noise_over_curvature_where_that_is_positive():
    found = noise_over_curvature([3.0, 1.0, 0.0, np.nan], [2.0, 0.0, 4.0, 1.0])
    np.testing.assert_array_equal(found, [1.5, np.nan, 0.0, np.nan])
    assert np.isnan(noise_over_curvature(1.0, -1.0))


def test_float32_records_are_averaged_in_float64():
    path = (1e4 + 1e-2 * np.arange(STEPS)[:, None]).astype(np.float32)
    assert drift_variance(path).value.dtype == np.float64
    assert held_variance(np.ones((3, 1), np.float32), LOUD).dtype == np.float64


@pytest.mark.usefixtures("float32_only")
def test_without_x64_the_numbers_are_right_to_float32():
    found = held_variance(np.full((2, 1), 0.02), OrnsteinUhlenbeck(0.1, np.inf))
    np.testing.assert_allclose(found[1], 0.03, rtol=1e-6)
    assert normalised_innovation_squared(3.0, 2.0, 0.5) == pytest.approx(9 / 4)


# Power laws.


@pytest.mark.equation("INST-10")
def test_the_slope_of_a_power_law_is_its_exponent():
    rng = np.random.RandomState(0)
    errors, x = [], np.ones(60)
    for _ in range(400):
        x = np.exp(rng.standard_normal(60))
        noise = rng.standard_normal(60) * (0.2 + 0.4 * np.abs(np.log(x)))  # not the same everywhere
        found = log_slope(3.0 * x**-0.7 * np.exp(noise), x)
        errors.append((found.slope + 0.7) / found.standard_error)
    assert abs(np.mean(errors)) < 4 / np.sqrt(400)
    assert 0.9 < np.std(errors) < 1.25
    exact = log_slope(3.0 * x**-0.7, x)
    assert (exact.slope, exact.intercept) == pytest.approx((-0.7, np.log(3.0)))
    assert exact.standard_error < 1e-12


def test_points_without_a_logarithm_are_left_out_and_too_few_have_no_slope():
    x = np.array([1.0, 2.0, 4.0, 8.0, 0.0, 3.0, -1.0, np.nan])
    y = np.array([1.0, 4.0, 16.0, 64.0, 5.0, 0.0, 2.0, 2.0])
    found = log_slope(y, x)
    assert found.num_points == 4
    assert found.slope == pytest.approx(2)
    assert np.isnan(log_slope(y[:2], x[:2]).slope)
    assert np.isnan(log_slope(y[:4], np.full(4, 2.0)).slope)
    assert log_slope([], []).num_points == 0
    with pytest.raises(ValueError, match=r"got shapes \(4,\) and \(3,\)"):
        log_slope(y[:4], x[:3])


def test_a_batch_of_runs_is_judged_run_by_run():
    paths = np.stack([autoregression(0.5, 1.0, seed) for seed in range(2)])
    both = drift_variance(paths, shrink=0.5)
    alone = drift_variance(paths[1], shrink=0.5)
    assert both.value.shape == (2, WEIGHTS)
    np.testing.assert_array_equal(both.value[1], alone.value)
    held = held_variance(np.broadcast_to(np.arange(1.0, 4)[:, None], (2, 3, 1)), LOUD)
    assert held.shape == (2, 3, 1)
    assert np.isnan(held[:, 0]).all()


def test_the_variance_held_with_is_the_posterior_of_the_step_before_drifted():
    after = np.array([[0.01], [0.02], [0.05], [0.03]])
    kept, growth = 1 - exact_shrink(*LOUD), process_variance(*LOUD)
    held = held_variance(after, LOUD)
    assert np.isnan(held[0, 0])
    np.testing.assert_allclose(held[1:], kept**2 * after[:-1] + growth, rtol=1e-6)
