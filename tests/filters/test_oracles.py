"""The filters against computations that share nothing with them.

Three oracles: the literal twin (a loop from the textbook), the joint Gaussian of all optima and
all gradients conditioned at one stroke, and statsmodels' Kalman filter.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from bayesfilt.filters import (
    diagonal_filter,
    filter_stream,
    steady_state_filter,
    stream_log_likelihood,
)
from bayesfilt.filters.reference import reference_filter_stream

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def run(world, make_filter=diagonal_filter, taken_at="recorded"):
    """Filter a world: what is kept, and the log likelihood."""
    stream = world.stream if taken_at == "recorded" else world.stream._replace(taken_at=None)
    kalman = make_filter(world.transition)
    belief = kalman.init(world.mean, world.variance)
    likelihood = stream_log_likelihood(kalman, belief, stream, precision_from="curvature")
    return filter_stream(kalman, belief, stream), likelihood


def assert_same_as_twin(world, filtered, likelihood, **options):
    twin = reference_filter_stream(
        *options.pop("stream", world.stream),
        world.mean,
        world.variance,
        *world.transition,
        **options,
    )
    assert_allclose(filtered.predicted.mean, twin.predicted_mean, **TIGHT)
    assert_allclose(filtered.predicted.variance, twin.predicted_variance, **TIGHT)
    assert_allclose(filtered.conditioned.mean, twin.conditioned_mean, **TIGHT)
    assert_allclose(filtered.conditioned.variance, twin.conditioned_variance, **TIGHT)
    assert_allclose(filtered.innovation.mean, twin.innovation_mean, **TIGHT)
    assert_allclose(filtered.innovation.variance, twin.innovation_variance, **TIGHT)
    assert_allclose(filtered.last.mean, twin.last_mean, **TIGHT)
    assert_allclose(filtered.last.variance, twin.last_variance, **TIGHT)
    assert_allclose(likelihood, twin.log_likelihood, **TIGHT)


@pytest.mark.equation("KF-1")
@pytest.mark.equation("KF-2")
@pytest.mark.equation("KF-3")
@pytest.mark.equation("KF-4")
@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("stationary_variance", [1.7, np.inf])
def test_the_filter_is_its_literal_twin(world, missing, stationary_variance):
    made = world(1, missing=missing, stationary_variance=stationary_variance)
    assert_same_as_twin(made, *run(made))


def test_gradients_taken_at_the_mean_need_no_place(world):
    made = world(2, missing=0.2)
    at_mean = made.stream._replace(taken_at=None)
    assert_same_as_twin(made, *run(made, taken_at="mean"), stream=at_mean)


def test_the_steady_state_filter_is_its_literal_twin(world):
    made = world(3, missing=0.2)
    assert_same_as_twin(made, *run(made, steady_state_filter), settled=True)


def test_a_steady_random_walk_is_its_literal_twin(world):
    made = world(4, stationary_variance=np.inf)
    assert_same_as_twin(made, *run(made, steady_state_filter), settled=True)


def joint_gaussian(world, weight):
    """Mean and covariance of one weight's optima, one more than there are steps."""
    eta, sigma2 = world.transition
    steps = len(world.stream.valid)
    kept = np.exp(-(eta**2) / (2 * sigma2))
    variances = [world.variance[weight]]
    for _ in range(steps):
        variances.append(kept**2 * variances[-1] + sigma2 * (1 - kept**2))
    times = np.arange(steps + 1)
    earlier = np.minimum.outer(times, times)
    lag = np.abs(np.subtract.outer(times, times))
    return world.mean[weight] * kept**times, kept**lag * np.asarray(variances)[earlier]


def condition_densely(mean, covariance, design, observed, noise):
    """Mean and variance of all optima given `observed = design @ optima + noise`."""
    spread = design @ covariance @ design.T + np.diag(noise)
    gain = np.linalg.solve(spread, design @ covariance).T
    surprise = observed - design @ mean
    density = -0.5 * (
        surprise @ np.linalg.solve(spread, surprise)
        + np.linalg.slogdet(spread)[1]
        + len(observed) * np.log(2 * np.pi)
    )
    return mean + gain @ surprise, np.diag(covariance - gain @ design @ covariance), density


@pytest.mark.equation("KF-6")
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_filter_is_the_dense_joint_gaussian(world, missing):
    made = world(5, steps=25, missing=missing)
    filtered, likelihood = run(made)
    gradient, precision, taken_at, valid = made.stream
    total = 0.0
    for weight in range(len(made.mean)):
        mean, covariance = joint_gaussian(made, weight)
        h = precision[:, weight]
        # what a gradient says about the optimum: h taken_at - g = h w* + noise of variance h
        observed = h * taken_at[:, weight] - gradient[:, weight]
        design = np.eye(len(h), len(h) + 1) * h[:, None]
        for t in range(len(h) + 1):
            seen = valid & (np.arange(len(h)) < t)
            m, v, density = condition_densely(
                mean, covariance, design[seen], observed[seen], h[seen]
            )
            if t > 0:
                assert_allclose(filtered.conditioned.mean[t - 1, weight], m[t - 1], **TIGHT)
                assert_allclose(filtered.conditioned.variance[t - 1, weight], v[t - 1], **TIGHT)
            if t < len(h):
                assert_allclose(filtered.predicted.mean[t, weight], m[t], **TIGHT)
                assert_allclose(filtered.predicted.variance[t, weight], v[t], **TIGHT)
        assert_allclose(filtered.last.mean[weight], m[-1], **TIGHT)
        assert_allclose(filtered.last.variance[weight], v[-1], **TIGHT)
        total += density
    assert_allclose(likelihood, total, **TIGHT)


def textbook_filter(world):
    """statsmodels' filter of the same model; it sees the raw gradients."""
    eta, sigma2 = world.transition
    gradient, precision, taken_at, valid = world.stream
    steps, weights = gradient.shape
    kept = np.exp(-(eta**2) / (2 * sigma2))
    kalman = KalmanFilter(k_endog=weights, k_states=weights, tolerance=0)
    kalman.bind(np.where(valid[:, None] & (precision != 0), gradient, np.nan))
    diagonal = np.eye(weights)[:, :, None]
    kalman["design"] = -diagonal * precision.T
    kalman["obs_intercept"] = (precision * taken_at).T
    kalman["obs_cov"] = diagonal * precision.T
    kalman["transition"] = kept * np.eye(weights)
    kalman["selection"] = np.eye(weights)
    kalman["state_cov"] = sigma2 * (1 - kept**2) * np.eye(weights)
    kalman.initialize_known(world.mean, np.diag(world.variance))
    return kalman.filter()


def diagonals(covariances):
    return (
        np.diagonal(covariances).T if covariances.ndim == 2 else np.einsum("iit->ti", covariances)
    )


@pytest.mark.equation("KF-5")
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_the_filter_is_the_textbook_kalman_filter_of_a_library(world, missing):
    made = world(6, steps=60, missing=missing)
    filtered, likelihood = run(made)
    book = textbook_filter(made)
    assert_allclose(filtered.predicted.mean, book.predicted_state.T[:-1], **TIGHT)
    assert_allclose(filtered.last.mean, book.predicted_state.T[-1], **TIGHT)
    variances = diagonals(book.predicted_state_cov)
    assert_allclose(filtered.predicted.variance, variances[:-1], **TIGHT)
    assert_allclose(filtered.last.variance, variances[-1], **TIGHT)
    assert_allclose(filtered.conditioned.mean, book.filtered_state.T, **TIGHT)
    assert_allclose(filtered.conditioned.variance, diagonals(book.filtered_state_cov), **TIGHT)
    seen = made.stream.valid
    assert_allclose(filtered.innovation.mean[seen], book.forecasts_error.T[seen], **TIGHT)
    spread = diagonals(book.forecasts_error_cov)
    assert_allclose(filtered.innovation.variance[seen], spread[seen], **TIGHT)
    assert_allclose(likelihood, book.llf_obs.sum(), **TIGHT)


def test_a_weight_of_precision_zero_is_missing_for_a_library_too(world):
    made = world(7, steps=50, missing=0.2)
    precision = made.stream.precision.copy()
    precision[::3, 0] = 0.0
    precision[5:30, 2] = 0.0
    made = made._replace(stream=made.stream._replace(precision=precision))
    filtered, likelihood = run(made)
    book = textbook_filter(made)
    assert_allclose(filtered.conditioned.mean, book.filtered_state.T, **TIGHT)
    assert_allclose(filtered.conditioned.variance, diagonals(book.filtered_state_cov), **TIGHT)
    assert_allclose(likelihood, book.llf_obs.sum(), **TIGHT)
