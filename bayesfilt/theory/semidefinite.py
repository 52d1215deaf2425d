r"""Symmetric positive semidefinite matrices: their roots, and their range.

A covariance may be singular: what is known perfectly has no variance, and a gradient whose
curvature has a null space says nothing there. Such a matrix has no inverse and its Gaussian no
density, except on its range; `on_its_range` is all that is needed there.

Everything is dense and costs the cube of the dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float


class OnItsRange(NamedTuple):
    """A semidefinite matrix S where it is not zero; made by `on_its_range`."""

    root: Float[Array, "dim dim"]  # R with R Rᵀ = S
    whitener: Float[Array, "dim dim"]  # W with S Wᵀ W S = S: WᵀW x solves S y = x in the range
    log_volume: Float[Array, ""]  # half the log of the product of the eigenvalues above 0
    rank: Float[Array, ""]


def symmetric_root(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Symmetric root of a positive semidefinite matrix; rounding below 0 counts as 0."""
    values, basis = jnp.linalg.eigh(matrix)
    return (basis * jnp.sqrt(jnp.maximum(values, 0))) @ basis.T


def inverse_root(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Symmetric root of the inverse of a positive definite matrix; NaN or inf for any other."""
    values, basis = jnp.linalg.eigh(matrix)
    return (basis / jnp.sqrt(values)) @ basis.T


def symmetrised(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Mean of a matrix and its transpose: equal to the last bit across the diagonal."""
    return 0.5 * (matrix + matrix.T)


def on_its_range(matrix: Float[Array, "dim dim"]) -> OnItsRange:
    """Root, whitener and volume of a semidefinite matrix on its range [MAT-8].

    The range is what is left when every coordinate has been scaled to unit variance and
    directions below rounding (8 dim eps) are dropped, so a precision of 1e-12 beside one of
    1e12 counts. An indefinite matrix gives NaN.

    Derivatives are exact, to any order, for changes that leave the range where it is: the basis
    found here is any basis of it, and is held fixed. So eigenvalues that coincide do no harm.
    """
    dim = matrix.shape[0]
    held = jax.lax.stop_gradient(matrix)
    diagonal = jnp.diagonal(held)
    scale = 1 / jnp.sqrt(jnp.where(diagonal == 0, 1, diagonal))
    values, basis = jnp.linalg.eigh(scale[:, None] * held * scale)
    seen = ~(jnp.abs(values) <= 8 * dim * jnp.finfo(matrix.dtype).eps)  # NaN is seen
    identity = jnp.eye(dim, dtype=matrix.dtype)
    basis = jnp.where(jnp.all(seen), identity, basis)  # the root is then Cholesky's, continuous
    to_basis = basis * scale[:, None]
    core = to_basis.T @ matrix @ to_basis
    lower = jnp.linalg.cholesky(jnp.where(seen & seen[:, None], core, identity))
    # The scaling stretches the range, by its determinant over that of what it does to the rest.
    rest = jnp.where(seen | seen[:, None], identity, to_basis.T @ to_basis)
    stretch = jnp.sum(jnp.log(scale)) - _half_log_determinant(jnp.linalg.cholesky(rest))
    return OnItsRange(
        root=(basis / scale[:, None]) @ jnp.where(seen, lower, 0),
        whitener=solve_triangular(lower, jnp.where(seen[:, None], to_basis.T, 0), lower=True),
        log_volume=_half_log_determinant(lower) - stretch,
        rank=jnp.sum(seen, dtype=matrix.dtype),
    )


def _half_log_determinant(lower: Float[Array, "dim dim"]) -> Float[Array, ""]:
    """Half the log determinant of the matrix with this triangular root."""
    return jnp.sum(jnp.log(jnp.diagonal(lower)))
