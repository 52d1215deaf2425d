r"""The covariance of the full filter: its recursion, where it settles, and its two famous limits.

All weights are seen at once. The optima drift together, with covariance Q a step, and a gradient
is worth a matrix H: its curvature and, by assumption, its noise. As for one weight, 1/variance
grows by the precision; only the numbers are matrices, P⁻¹ -> P⁻¹ + H.

Where a drift is small against what one gradient tells, the covariance settles on the solution
of P H P = Q. Which optimizer that is depends on Q alone: equal drift in all directions gives
P = η H^(-1/2), which whitens the gradient (a matrix RMSprop); drift along what the gradients
leave open, Q = c² H⁻¹, gives P = c H⁻¹, the natural gradient.

H, P and Q are symmetric positive semidefinite; H of the *summed* loss, 1/weight².
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.checks import concrete_number, require_semidefinite
from bayesfilt.custom_types import Scalar
from bayesfilt.theory.riccati import steady_state_variance
from bayesfilt.theory.semidefinite import (
    inverse_root,
    on_its_range,
    symmetric_root,
    symmetrised,
)

Matrix = Float[Array, "dim dim"]
Vector = Float[Array, " dim"]


def conditioned_covariance(covariance: Matrix, precision: Matrix) -> Matrix:
    """Covariance after a gradient worth a matrix, P (I + H P)⁻¹: P⁻¹ grows by H [MAT-1].

    With a root R of H, the gradient is Rᵀw* seen through unit noise, so neither matrix is
    inverted and both may be singular. The result goes through Joseph's form, (I - W Rᵀ) P
    (I - W Rᵀ)ᵀ + W Wᵀ with W = P R (I + Rᵀ P R)⁻¹, a sum of two covariances: rounding leaves it
    semidefinite to eps, in units of each weight's own deviation. In float32 good for gains H P
    up to 1e6 or so.

    Args:
        covariance: P of the predicted belief; weight².
        precision: H; 1/weight². Zero changes nothing. Derivatives by H are those within its
            range, as in `on_its_range`.
    """
    return conditioned_with_step(covariance, precision, jnp.zeros_like(precision[0]))[0]


def conditioned_with_step(
    covariance: Matrix, precision: Matrix, surprise: Vector
) -> tuple[Matrix, Vector]:
    """`conditioned_covariance`, and its product with a gradient from the range of H [MAT-1].

    The step is W z with g = R z, and not the covariance times g: that is rounded to eps of the
    covariance *before* the gradient, and loud gains multiply the error from step to step until the
    mean is lost (in float32 from a gain of 1e8 on, for singular H).

    Args:
        covariance: P of the predicted belief; weight².
        precision: H; 1/weight².
        surprise: g, in the range of H; what is outside of it is left out. 1/weight.
    """
    units = _units(covariance)
    part = on_its_range(precision * units)
    prior, root = covariance / units, part.root
    unit = jnp.sqrt(jnp.diagonal(units))
    identity = jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    seen = prior @ root
    multiplier = jnp.linalg.solve(identity + root.T @ seen, seen.T).T
    rest = identity - multiplier @ root.T
    remaining = rest @ prior @ rest.T + multiplier @ multiplier.T
    step = unit * (multiplier @ (part.whitener @ (unit * surprise)))
    return symmetrised(remaining) * units, step


def conditioned_on_gradient(covariance: Matrix, gradient: Vector) -> Matrix:
    """Covariance after a gradient worth its own square, P - P g gᵀ P/(1 + gᵀ P g) [MAT-2].

    The precision g gᵀ has rank one and costs the square of the dimension. On one weight, and for
    a gradient that is zero on all weights but one, it is p/(1 + p g²) at any gain. Rounding
    leaves an error of eps P: it matters from gᵀ P g about 1/eps on (1e7 in float32), where
    `conditioned_covariance` of g gᵀ is no better, because P itself cannot be stored.

    Args:
        covariance: P of the predicted belief; weight².
        gradient: g of the *summed* loss; 1/weight.
    """
    largest = jnp.max(jnp.abs(gradient), initial=0)
    # A loud gradient is divided by its size before it is squared; the size cancels.
    loudest = jnp.finfo(covariance.dtype).tiny ** -0.5
    size = jax.lax.stop_gradient(jnp.clip(largest, 1, loudest))
    direction = gradient / size
    noise = 1 / jnp.square(size)
    seen = covariance @ direction
    variance = jnp.diagonal(covariance)
    explained = seen * (seen / jnp.where(variance == 0, 1, variance))
    # Of one weight no more can be explained than of the whole (Cauchy-Schwarz). Held to that
    # where it is a matter of rounding, no variance turns negative.
    spread = jnp.maximum(direction @ seen, jnp.max(explained, initial=0))
    unexplained = spread - explained
    # A remainder of rounding is none, or it would be all that a loud gradient leaves of the weight.
    rounding = 8 * jnp.finfo(spread.dtype).eps * spread
    unexplained = jnp.where(unexplained <= rounding, 0, unexplained)
    total = noise + spread
    learned = seen / jnp.sqrt(total)
    remaining = covariance - learned * learned[:, None]
    kept = variance * ((noise + unexplained) / total)
    return jnp.fill_diagonal(remaining, kept, inplace=False)


def matrix_steady_state(
    precision: Matrix,
    drift_scale: Scalar,
    stationary_variance: Scalar,
    drift_shape: Matrix | None = None,
) -> Matrix:
    r"""Posterior covariance the recursion settles on, S^½ p(S^½ H S^½) S^½, exactly [MAT-3].

    Here p is the steady state of one weight (RIC-1), applied to the eigenvalues, and S the shape
    of the drift: its covariance per step is q S, and σ² S for ever. Exact at any gain.

    Args:
        precision: H; 1/weight². May be singular if the stationary variance is finite.
        drift_scale: η > 0; units of a weight.
        stationary_variance: σ² > 0, inf for a random walk; weight².
        drift_shape: S, a pure number for each pair of weights; None for the identity.

    Raises:
        ValueError: a concrete matrix that is not symmetric positive semidefinite or of another
            shape; a random walk with a singular precision, which settles nowhere.
    """
    owner = "matrix_steady_state"
    endless = concrete_number(stationary_variance) == float("inf")
    require_semidefinite(owner, "precision", precision, definite=endless)
    root = jnp.eye(precision.shape[0], dtype=precision.dtype)
    if drift_shape is not None:
        require_semidefinite(owner, "drift_shape", drift_shape, dim=precision.shape[0])
        root = symmetric_root(drift_shape)
    values, basis = jnp.linalg.eigh(symmetrised(root @ precision @ root))
    settled = steady_state_variance(jnp.maximum(values, 0), drift_scale, stationary_variance)
    turned = root @ basis
    return symmetrised((turned * settled) @ turned.T)


def slow_drift_covariance(curvature: Matrix, process_covariance: Matrix) -> Matrix:
    r"""Covariance under a slow drift, P = H^-½ (H^½ Q H^½)^½ H^-½: P H P = Q [MAT-4].

    The geometric mean of Q and H⁻¹. First order in the gain: the recursion settles on
    P H P = Q - P H Q, so it holds while the eigenvalues of P H are well below one; and for no
    decay, σ² = inf.

    Args:
        curvature: H, positive definite; 1/weight².
        process_covariance: Q, positive semidefinite, of one step of drift; weight².

    Raises:
        ValueError: a concrete matrix that is not symmetric, of another shape, indefinite, or a
            curvature that is singular.
    """
    owner = "slow_drift_covariance"
    require_semidefinite(owner, "curvature", curvature, definite=True)
    require_semidefinite(owner, "process_covariance", process_covariance, dim=curvature.shape[0])
    root, inverse = symmetric_root(curvature), inverse_root(curvature)
    return symmetrised(inverse @ symmetric_root(root @ process_covariance @ root) @ inverse)


def whitening_covariance(curvature: Matrix, drift_scale: Scalar) -> Matrix:
    r"""Covariance where all directions drift alike, η H^-½: a whitened step [MAT-5].

    `slow_drift_covariance` for Q = η² I: the gradient's covariance H becomes η² I in the step.
    RMSprop is its diagonal approximation. Small gain η H^½, σ² = inf.

    Args:
        curvature: H, positive definite; 1/weight².
        drift_scale: η > 0, deviation of one move in every direction; units of a weight.

    Raises:
        ValueError: a concrete curvature that is not symmetric positive definite.
    """
    require_semidefinite("whitening_covariance", "curvature", curvature, definite=True)
    return drift_scale * inverse_root(curvature)


def natural_gradient_covariance(curvature: Matrix, drift_ratio: Scalar) -> Matrix:
    r"""Covariance where the drift follows the curvature, c H⁻¹: the natural gradient [MAT-6].

    `slow_drift_covariance` for Q = c² H⁻¹: what gradients hardly see drifts most. Small gain c,
    which is the same in all directions; σ² = inf.

    Args:
        curvature: H, positive definite; 1/weight².
        drift_ratio: c > 0, deviation of one move over that of what one gradient leaves open; a
            pure number.

    Raises:
        ValueError: a concrete curvature that is not symmetric positive definite.
    """
    require_semidefinite("natural_gradient_covariance", "curvature", curvature, definite=True)
    root = inverse_root(curvature)
    return drift_ratio * symmetrised(root @ root)


def overconfidence(curvature: Matrix) -> Vector:
    r"""How much surer the factorised filter is than it may be, (H^-½)ᵢᵢ Hᵢᵢ^½ >= 1 [MAT-7].

    The variance of each weight in the full filter over that in a filter of this weight alone,
    which takes Hᵢᵢ for all that a gradient says and forgets that the other weights are not known
    either. So its steps are too small; equal drift in all directions, small gain, σ² = inf. (The
    inequality holds at any gain and σ², because the scalar steady state is convex in h.)

    Args:
        curvature: H, positive definite; 1/weight².

    Raises:
        ValueError: a concrete curvature that is not symmetric positive definite.
    """
    require_semidefinite("overconfidence", "curvature", curvature, definite=True)
    return jnp.diagonal(inverse_root(curvature)) * jnp.sqrt(jnp.diagonal(curvature))


def _units(covariance: Matrix) -> Matrix:
    """Unit of each entry: the powers of two next to the deviations, which cost no digit."""
    variance = jax.lax.stop_gradient(jnp.diagonal(covariance))
    _, exponent = jnp.frexp(jnp.sqrt(jnp.where(variance > 0, variance, 1)))
    unit = jnp.ldexp(jnp.ones_like(variance), exponent)
    return unit * unit[:, None]
