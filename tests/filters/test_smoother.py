"""The smoother and posterior sampling: the dense joint Gaussian, a library, and many draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

from bayesfilt.filters import (
    diagonal_filter,
    filter_stream,
    full_filter,
    noise_ratio_filter,
    ornstein_uhlenbeck_filter,
    random_walk_filter,
    sample_posterior,
    smooth_stream,
    static_filter,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from tests.filters.dense import DenseModel, block, posterior

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def dense_velocity(made, weight):
    """One weight of a moving world as a dense model of position and velocity."""
    move, noise = made.matrices
    gradient, precision, taken_at, valid = made.stream
    return DenseModel(
        np.array([made.mean[weight], 0.0]),
        np.diag([made.variance[weight], made.velocity_variance[weight]]),
        move,
        noise,
        np.array([[1.0, 0.0]]),
        gradient[:, [weight]],
        precision[:, [weight], None],
        taken_at[:, [weight]],
        valid,
    )


def smoothed_in_numpy(*stream):
    """What the smoother says, in arrays that are quick to look into."""
    return jax.tree.map(np.asarray, smooth_stream(*stream))


def start(made):
    kalman = diagonal_filter(made.transition)
    return kalman, kalman.init(made.mean, made.variance)


@pytest.mark.equation("SM-3", "SM-4")
@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("rank", [None, 1])
def test_the_full_smoother_is_the_dense_joint_gaussian(full_world, missing, rank):
    made = full_world(1, missing=missing, rank=rank)
    smoothed = smoothed_in_numpy(made.kalman, made.belief, made.stream)
    mean, covariance, _ = posterior(made.dense)
    for t in range(len(made.stream.valid)):
        assert_allclose(smoothed.belief.mean[t], block(made.dense, mean, t), **TIGHT)
        assert_allclose(smoothed.belief.covariance[t], block(made.dense, covariance, t), **TIGHT)
        lag = block(made.dense, covariance, t, t + 1)
        assert_allclose(smoothed.lag_covariance[t], lag, **TIGHT)
    last = filter_stream(made.kalman, made.belief, made.stream, keep="last").last
    jax.tree.map(lambda a, b: assert_allclose(a, b, **TIGHT), smoothed.last, last)


@pytest.mark.equation("SM-2", "SM-4")
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(
    "numbers",
    [(0.3, 1.7, 0.15, 0.2), (0.4, 0.6, 1.0, 0.3), (0.2, 2.0, 0.1, 0), (1e-3, 9.0, 0, 0.2)],
)
def test_the_velocity_smoother_is_the_dense_joint_gaussian(moving_world, missing, numbers):
    made = moving_world(2, steps=12, missing=missing, numbers=numbers)
    smoothed = smoothed_in_numpy(made.kalman, made.belief, made.stream)
    belief = smoothed.belief
    for weight in range(3):
        dense = dense_velocity(made, weight)
        mean, covariance, _ = posterior(dense)
        for t in range(12):
            m, s = block(dense, mean, t), block(dense, covariance, t)
            assert_allclose([belief.mean[t, weight], belief.velocity[t, weight]], m, **TIGHT)
            moments = [belief.variance, belief.covariance, belief.velocity_variance]
            ours = [x[t, weight] for x in moments]
            assert_allclose(ours, [s[0, 0], s[0, 1], s[1, 1]], **TIGHT)
            lag = block(dense, covariance, t, t + 1)[0, 0]
            assert_allclose(smoothed.lag_covariance[t, weight], lag, **TIGHT)


def library_smoother(made):
    """statsmodels' smoother of the same model; it sees the raw gradients."""
    eta, sigma2 = made.transition
    gradient, precision, taken_at, valid = made.stream
    weights = gradient.shape[1]
    kept = np.exp(-(eta**2) / (2 * sigma2))
    kalman = KalmanSmoother(k_endog=weights, k_states=weights, tolerance=0)
    kalman.bind(np.where(valid[:, None], gradient, np.nan))
    diagonal = np.eye(weights)[:, :, None]
    kalman["design"] = -diagonal * precision.T
    kalman["obs_intercept"] = (precision * taken_at).T
    kalman["obs_cov"] = diagonal * precision.T
    kalman["transition"] = kept * np.eye(weights)
    kalman["selection"] = np.eye(weights)
    kalman["state_cov"] = sigma2 * (1 - kept**2) * np.eye(weights)
    kalman.initialize_known(made.mean, np.diag(made.variance))
    return kalman.smooth()


@pytest.mark.equation("SM-1", "SM-4")
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_the_diagonal_smoother_is_that_of_a_library(world, missing):
    made = world(3, steps=12, missing=missing)
    smoothed = smoothed_in_numpy(*start(made), made.stream)
    book = library_smoother(made)
    assert_allclose(smoothed.belief.mean, book.smoothed_state.T, **TIGHT)
    variances = np.einsum("iit->ti", book.smoothed_state_cov)
    assert_allclose(smoothed.belief.variance, variances, **TIGHT)
    lags = np.einsum("iit->ti", book.smoothed_state_autocov)  # of t + 1 with t
    assert_allclose(smoothed.lag_covariance[:-1], lags[:-1], **TIGHT)


@pytest.mark.equation("SM-1")
def test_for_independent_weights_the_full_smoother_is_the_diagonal_one(world):
    made = world(4, steps=12, missing=0.2, stationary_variance=np.inf)
    stream = made.stream._replace(precision=jax.vmap(jnp.diag)(made.stream.precision))
    kalman = full_filter(made.transition, jnp.eye(3))
    ours = smooth_stream(kalman, kalman.init(made.mean, made.variance), stream)
    theirs = smooth_stream(*start(made), made.stream)
    assert_allclose(ours.belief.mean, theirs.belief.mean, **TIGHT)
    assert_allclose(ours.belief.variance, theirs.belief.variance, **TIGHT)
    lags = np.einsum("tii->ti", ours.lag_covariance)
    assert_allclose(lags, theirs.lag_covariance, **TIGHT)


def test_other_drifts_of_one_number_per_weight_are_smoothed_too(world):
    """Each against the diagonal smoother where it is that filter; a static optimum is one."""
    made = world(8, steps=12, missing=0.2)
    walk = made._replace(transition=OrnsteinUhlenbeck(0.3, np.inf))
    cases = [
        (ornstein_uhlenbeck_filter(made.transition), made),
        (noise_ratio_filter(made.transition, noise_ratio=1.0), made),
        (random_walk_filter(0.3), walk),
    ]
    for kalman, same in cases:
        ours = smooth_stream(kalman, kalman.init(made.mean, made.variance), made.stream)
        theirs = smooth_stream(*start(same), made.stream)
        jax.tree.map(lambda a, b: assert_allclose(a, b, **TIGHT), ours, theirs)
    still = static_filter()
    smoothed = smooth_stream(still, still.init(made.mean, made.variance), made.stream)
    for leaf in (*smoothed.belief, smoothed.lag_covariance):
        assert_allclose(leaf, np.broadcast_to(leaf[-1], (12, 3)), **TIGHT)


@pytest.mark.equation("SM-1", "SM-4")
@pytest.mark.parametrize(("towards", "ratio"), [(-3.0, 1.0), (0.0, 0.4)])
def test_a_drift_towards_a_mean_and_another_noise_are_smoothed_as_the_dense_gaussian(
    world, towards, ratio
):
    """Where the filters are not the diagonal one: μ shifts the world, r scales gradients and h."""
    made = world(9, steps=12, missing=0.2)
    gradient, precision, taken_at, valid = made.stream
    eta, sigma2 = made.transition
    kept = np.exp(-(eta**2) / (2 * sigma2))
    if ratio == 1:
        kalman = ornstein_uhlenbeck_filter(made.transition, towards=towards)
    else:
        kalman = noise_ratio_filter(made.transition, noise_ratio=ratio)
    belief = kalman.init(made.mean, made.variance)
    smoothed = smoothed_in_numpy(kalman, belief, made.stream)
    paths = np.asarray(many_paths(kalman, belief, made.stream, COUNT).optimum)
    for weight in range(3):
        model = DenseModel(
            np.array([made.mean[weight] - towards]),
            np.array([[made.variance[weight]]]),
            np.array([[kept]]),
            np.array([[sigma2 * (1 - kept**2)]]),
            np.array([[1.0]]),
            gradient[:, [weight]] / ratio,
            precision[:, [weight], None] / ratio,
            taken_at[:, [weight]] - towards,
            valid,
        )
        mean, covariance, _ = posterior(model)
        mean = mean + towards
        assert_allclose(smoothed.belief.mean[:, weight], mean[:12], **TIGHT)
        assert_allclose(smoothed.belief.variance[:, weight], np.diag(covariance)[:12], **TIGHT)
        assert_allclose(smoothed.lag_covariance[:, weight], np.diag(covariance, 1), **TIGHT)
        assert_draws(paths[:, :, weight], mean[:12], covariance[:12, :12])


def many_paths(kalman, belief, stream, count):
    keys = jax.random.split(jax.random.key(7), count)
    return jax.vmap(lambda key: sample_posterior(key, kalman, belief, stream))(keys)


def assert_draws(draws, mean, covariance):
    """Draws [count, size] have this mean and covariance, within five standard errors."""
    count, away = len(draws), draws - mean
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(away.mean(axis=0)) < 5 * deviation / np.sqrt(count)).all()
    spread = away.T @ away / count
    error = np.sqrt((np.outer(deviation, deviation) ** 2 + covariance**2) / count)
    assert (np.abs(spread - covariance) < 5 * error).all()


COUNT = 10_000


@pytest.mark.equation("SM-3", "SM-5")
def test_full_paths_have_the_joint_mean_and_covariance_in_time(full_world):
    made = full_world(5, rank=1, missing=0.3)
    paths = many_paths(made.kalman, made.belief, made.stream, COUNT)
    mean, covariance, _ = posterior(made.dense)
    draws = np.asarray(paths.optimum).reshape(COUNT, 36)
    assert_draws(draws, mean[:36], covariance[:36, :36])
    assert paths.velocity is None


@pytest.mark.equation("SM-2", "SM-5")
def test_velocity_paths_have_the_joint_mean_and_covariance_in_time(moving_world):
    made = moving_world(6, steps=12, missing=0.3)
    paths = many_paths(made.kalman, made.belief, made.stream, COUNT)
    for weight in range(3):
        mean, covariance, _ = posterior(dense_velocity(made, weight))
        both = np.stack([paths.optimum[..., weight], paths.velocity[..., weight]], axis=-1)
        assert_draws(both.reshape(COUNT, 24), mean[:24], covariance[:24, :24])


@pytest.mark.equation("SM-1", "SM-5")
def test_diagonal_paths_have_the_smoothers_moments_and_weights_are_independent(world):
    made = world(7, steps=12, missing=0.3)
    paths = np.asarray(many_paths(*start(made), made.stream, COUNT).optimum)
    smoothed = smoothed_in_numpy(*start(made), made.stream)
    for t in range(3):
        for weight in range(2):
            at = [t, t + 1], weight
            lag = smoothed.lag_covariance[t, weight]
            spread = np.diag(smoothed.belief.variance[at])
            spread[0, 1] = spread[1, 0] = lag
            assert_draws(paths[:, [t, t + 1], weight], smoothed.belief.mean[at], spread)
        moments = smoothed.belief.mean[t], np.diag(smoothed.belief.variance[t])
        assert_draws(paths[:, t], *moments)
