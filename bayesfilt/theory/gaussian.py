r"""Conditioning a Gaussian on a gradient whose noise need not match its curvature.

The filters of this project assume a gradient g ~ N(h (w - w*), h): curvature and noise variance
are one number, and then the best multiplier of the gradient *is* the posterior variance. Here
the two are apart, g ~ N(C (w - w*), R), which is what a real network has, so that the assumption
can be doubted: when R is not C, the best multiplier is not the posterior variance. The dense forms
take matrices and are meant for checks and small problems: they cost the cube of the dimension.
"""

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Float

from bayesfilt.theory.ornstein_uhlenbeck import PerWeight, Result


def gain(variance: PerWeight, precision: PerWeight) -> Result:
    """Fraction of the surprise that is absorbed, v h/(1 + v h) [KF-7].

    Args:
        variance: v >= 0, of the *predicted* belief; weight².
        precision: h >= 0; 1/weight².

    Returns:
        A pure number in [0, 1]: the posterior variance times h. Small gain means well below one.
    """
    information = jnp.multiply(variance, precision)
    # The quotient is formed from the smaller side, so that an overflow reads as a gain of one.
    loud = information > 1
    inverse = 1 / jnp.where(loud, information, 1.0)
    quiet = jnp.where(loud, 0.0, information)
    return jnp.where(loud, 1 / (1 + inverse), quiet / (1 + quiet))


def kalman_multiplier(
    variance: PerWeight, curvature: PerWeight, noise_variance: PerWeight
) -> Result:
    """Best multiplier of a gradient of any noise, v c/(c² v + R) [KF-7].

    The mean should move by minus this times the gradient. It is the posterior variance
    v/(1 + v c) if and only if R = c.

    Args:
        variance: v >= 0, of the predicted belief; weight².
        curvature: c, change of the expected gradient per unit of weight; 1/weight².
        noise_variance: R > 0, variance of the gradient around its expectation; 1/weight².
    """
    signal = jnp.multiply(variance, curvature)
    return signal / (curvature * signal + noise_variance)


def condition_dense(
    mean: Float[Array, " dim"],
    covariance: Float[Array, "dim dim"],
    gradient: Float[Array, " dim"],
    curvature: Float[Array, "dim dim"],
    noise_covariance: Float[Array, "dim dim"],
) -> tuple[Float[Array, " dim"], Float[Array, "dim dim"]]:
    """Mean and covariance of the optimum after a gradient taken at `mean` [KF-7].

    The multiplier is K = P C (C P C + R)⁻¹ for a symmetric curvature C; the covariance is
    (I - K C) P (I - K C)ᵀ + K R Kᵀ, which rounding cannot make indefinite. With R = C the
    multiplier is the new covariance, as for one weight.
    """
    seen = curvature @ covariance
    multiplier = cho_solve(cho_factor(seen @ curvature + noise_covariance), seen).T
    rest = jnp.eye(mean.shape[0], dtype=covariance.dtype) - multiplier @ curvature
    remaining = rest @ covariance @ rest.T + multiplier @ noise_covariance @ multiplier.T
    return mean - multiplier @ gradient, remaining


def log_density_dense(
    value: Float[Array, " dim"],
    mean: Float[Array, " dim"],
    covariance: Float[Array, "dim dim"],
) -> Float[Array, ""]:
    """Log density of N(mean, covariance) at `value`, in nats [KF-6].

    For a positive definite covariance; NaN otherwise.
    """
    root = jnp.linalg.cholesky(covariance)
    whitened = solve_triangular(root, value - mean, lower=True)
    log_volume = jnp.sum(jnp.log(jnp.diagonal(root)))
    return -0.5 * (jnp.sum(whitened**2) + value.shape[0] * jnp.log(2 * jnp.pi)) - log_volume
