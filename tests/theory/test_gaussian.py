"""Conditioning on gradients: against joint Gaussians worked out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bayesfilt.theory import (
    condition_dense,
    conditioned_variance,
    gain,
    kalman_multiplier,
    log_density_dense,
)


def a_positive_matrix(rng, dim):
    root = rng.standard_normal((dim, dim))
    return root @ root.T + 0.3 * np.eye(dim)


def conditioned_joint(mean, covariance, gradient, curvature, noise):
    """Posterior of w* from the joint Gaussian of (w*, g), with g = C (mean - w*) + noise."""
    cross = -covariance @ curvature  # Cov(w*, g)
    spread = curvature @ covariance @ curvature + noise
    weights = cross @ np.linalg.inv(spread)
    return mean + weights @ gradient, covariance - weights @ cross.T


@pytest.mark.equation("KF-7")
@pytest.mark.parametrize("matched", [True, False])
def test_conditioning_is_that_of_the_joint_gaussian(matched):
    rng = np.random.default_rng(5)
    covariance, curvature = a_positive_matrix(rng, 4), a_positive_matrix(rng, 4)
    noise = curvature if matched else a_positive_matrix(rng, 4)
    mean, gradient = rng.standard_normal(4), rng.standard_normal(4)
    ours = condition_dense(*map(jnp.asarray, (mean, covariance, gradient, curvature, noise)))
    wanted = conditioned_joint(mean, covariance, gradient, curvature, noise)
    np.testing.assert_allclose(ours[0], wanted[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours[1], wanted[1], rtol=1e-9, atol=1e-12)
    gradient_step = mean - wanted[1] @ gradient  # the posterior covariance as learning rate
    if matched:
        np.testing.assert_allclose(ours[0], gradient_step, rtol=1e-10, atol=1e-12)
    else:
        assert np.abs(np.asarray(ours[0]) - gradient_step).max() > 0.01


@pytest.mark.equation("KF-7", "KF-1")
def test_check_A1_the_multiplier_is_the_posterior_variance_only_where_noise_equals_curvature():
    v, c = jnp.asarray([0.1, 2.0, 30.0]), jnp.asarray([5.0, 0.2, 1.0])
    posterior = conditioned_variance(v, c)
    np.testing.assert_allclose(kalman_multiplier(v, c, c), posterior, rtol=1e-14)
    for factor in (0.5, 2.0):
        other = kalman_multiplier(v, c, factor * c)
        assert np.all(np.abs(np.asarray(other / posterior) - 1) > 0.01)


@pytest.mark.equation("KF-7")
def test_the_multiplier_is_the_best_one():
    v, c, r = 0.7, 3.0, 0.4
    best = float(kalman_multiplier(v, c, r))

    def squared_error(k):
        return (1 - k * c) ** 2 * v + k**2 * r

    for other in (0.99 * best, 1.01 * best):
        assert squared_error(other) > squared_error(best)
    one = jnp.ones((1, 1))
    mean, _ = condition_dense(jnp.zeros(1), v * one, jnp.ones(1), c * one, r * one)
    assert float(-mean[0]) == pytest.approx(best, rel=1e-14)


@pytest.mark.equation("KF-7", "KF-1")
def test_the_gain_is_the_posterior_variance_times_the_precision():
    v, h = jnp.asarray([0.0, 0.1, 2.0, 30.0]), jnp.asarray([5.0, 0.2, 0.0, 1e9])
    np.testing.assert_allclose(gain(v, h), conditioned_variance(v, h) * h, rtol=1e-14)


@pytest.mark.equation("KF-7")
def test_an_overwhelming_gradient_is_absorbed_whole_even_where_float32_overflows():
    v, h = jnp.float32(1e9), jnp.float32(3e38)
    assert gain(v, h) == 1
    assert all(map(jnp.isfinite, jax.grad(gain, argnums=(0, 1))(v, h)))


@pytest.mark.equation("KF-6")
def test_the_log_density_is_scipys():
    rng = np.random.default_rng(6)
    mean, value, covariance = (
        rng.standard_normal(3),
        rng.standard_normal(3),
        a_positive_matrix(rng, 3),
    )
    ours = log_density_dense(*map(jnp.asarray, (value, mean, covariance)))
    wanted = multivariate_normal(mean, covariance).logpdf(value)
    assert float(ours) == pytest.approx(wanted, rel=1e-12)
