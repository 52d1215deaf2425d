r"""Curvature of a whole layer as two small matrices, and the basis in which it is diagonal.

A layer's weights W are a matrix, one row an output and one column an input, and so is its
gradient g. Kronecker factors say that g is correlated along rows and along columns separately,

    E[g_ik g_jl] = G_ij A_kl,   G [rows, rows],   A [columns, columns],

the matrix A ⊗ G on the columns of W stacked. With G = U diag(γ) Uᵀ and A = V diag(α) Vᵀ it is
diagonal for Uᵀ W V: each pair of eigenvectors is a weight of its own, of precision γᵢαⱼ. So the
filter of a layer is the scalar filter, once per pair. Its variance is a function of the
product γᵢαⱼ which is not itself a product (but in its loud and quiet limits), hence no
Kronecker product of two matrices: it is kept per pair.

Everything here works on stacks of matrices too, with leading axes. People write factors by
hand, so the functions that take them check concrete ones; traced ones pass.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.checks import require_semidefinite
from bayesfilt.theory.ornstein_uhlenbeck import PerWeight


class KroneckerFactors(NamedTuple):
    """Curvature A ⊗ G of one layer; both symmetric and positive semidefinite.

    Only the product of the two has a meaning: (c G, A/c) is the same curvature. Zeros say
    that nothing was observed. The product has the units 1/weight².
    """

    rows: Float[Array, "*batch rows rows"]  # G, between the outputs
    columns: Float[Array, "*batch columns columns"]  # A, between the inputs


class JointBasis(NamedTuple):
    """Two orthogonal matrices: the axes along which a layer's weights are independent.

    The columns of `rows` are U, those of `columns` are V. Pair (i, j) is the direction uᵢvⱼᵀ.
    """

    rows: Float[Array, "*batch rows rows"]
    columns: Float[Array, "*batch columns columns"]


def gradient_factors(
    row_moment: Float[Array, "*batch rows rows"],
    column_moment: Float[Array, "*batch columns columns"],
) -> KroneckerFactors:
    """Factors from gradients alone, A ⊗ G = E[gᵀg] ⊗ E[g gᵀ]/tr E[g gᵀ] [KRON-1].

    No activations are needed. The trace is that of the mean-square gradient, E|g|², and where
    the gradients do have Kronecker factors these are the ones. Zero where all gradients are.

    Args:
        row_moment: E[g gᵀ], of gradients of the *summed* loss; 1/weight².
        column_moment: E[gᵀg], of the same gradients.
    """
    size = jnp.trace(row_moment, axis1=-2, axis2=-1)[..., None, None]
    silent = size == 0
    normalised = jnp.where(silent, 0, row_moment / jnp.where(silent, 1, size))
    return KroneckerFactors(rows=normalised, columns=column_moment)


def joint_basis(factors: KroneckerFactors) -> JointBasis:
    """Eigenvectors U of G and V of A: the axes of the curvature A ⊗ G [KRON-2].

    In ascending order of the eigenvalues. Where those repeat, any basis of their space serves,
    and the derivative of the eigenvectors does not exist: derivatives take the basis as given.

    Raises:
        ValueError: a concrete factor that is not square, finite, symmetric and semidefinite.
    """
    rows, columns = _checked("joint_basis", factors)
    return JointBasis(rows=_eigenvectors(rows), columns=_eigenvectors(columns))


def pair_precision(
    factors: KroneckerFactors, basis: JointBasis
) -> Float[Array, "*batch rows columns"]:
    """Precision of each pair of basis vectors, (uᵢᵀG uᵢ)(vⱼᵀA vⱼ) [KRON-2].

    In the factors' own basis, γᵢαⱼ, and then it is all of A ⊗ G. In another one it is the
    diagonal only: of all matrices diagonal there, the nearest to A ⊗ G (Frobenius).

    Args:
        factors: G and A of one layer, or with leading axes; their product 1/weight².
        basis: of the same sizes; one for all leading axes will do.

    Raises:
        ValueError: a concrete factor as in `joint_basis`; sizes that are not those of the basis.
    """
    sides = (basis.rows.shape[-1], basis.columns.shape[-1])
    rows, columns = _checked("pair_precision", factors, sides=sides)
    along_rows, along_columns = _along(rows, basis.rows), _along(columns, basis.columns)
    return along_rows[..., :, None] * along_columns[..., None, :]


def to_basis(
    weights: Float[Array, "*batch rows columns"], basis: JointBasis
) -> Float[Array, "*batch rows columns"]:
    """Weights, or their gradient, along each pair of basis vectors, Uᵀ W V [KRON-2].

    A rotation: lengths, and the density of anything Gaussian, stay what they are.
    """
    return _product(jnp.swapaxes(basis.rows, -1, -2), weights, basis.columns)


def from_basis(
    pairs: Float[Array, "*batch rows columns"], basis: JointBasis
) -> Float[Array, "*batch rows columns"]:
    """The weights whose coordinates along the pairs are these, U x Vᵀ [KRON-2]."""
    return _product(basis.rows, pairs, jnp.swapaxes(basis.columns, -1, -2))


def reexpressed_variance(
    variance: Float[Array, "*batch rows columns"], old: JointBasis, new: JointBasis
) -> Float[Array, "*batch rows columns"]:
    """Variance of each pair of another basis, Σₖₗ (u'ᵢ·uₖ)² v_kl (v'ⱼ·vₗ)² [KRON-3].

    The exact variance of every new pair, but the pairs are correlated now and that is dropped:
    what is kept is the covariance diagonal in the new basis that is nearest to the old one
    (Frobenius). Exact altogether if the new axes are the old ones in another order, or where
    the variance is equal over the space they turn in. The sum of the variances is kept.
    """
    rows, columns = _shares(old.rows, new.rows), _shares(old.columns, new.columns)
    return _product(rows, variance, jnp.swapaxes(columns, -1, -2))


def marginal_variance(
    variance: Float[Array, "*batch rows columns"], basis: JointBasis
) -> Float[Array, "*batch rows columns"]:
    """Variance of each single weight, from that of the pairs, Σᵢⱼ Uₖᵢ² v_ij Vₗⱼ² [KRON-3]."""
    columns = jnp.swapaxes(jnp.square(basis.columns), -1, -2)
    return _product(jnp.square(basis.rows), variance, columns)


def whitened_step(
    gradient: Float[Array, "*batch rows columns"],
    factors: KroneckerFactors,
    drift_scale: PerWeight,
) -> Float[Array, "*batch rows columns"]:
    """Step of the settled filter, η G^(-1/2) g A^(-1/2): the gradient whitened [KRON-4].

    The *small gain* limit with an isotropic drift and no prior: each pair has the variance
    η/√(γᵢαⱼ), Adam's, and a drift equal in all directions is equal along all pairs.

    Args:
        gradient: of the *summed* loss; 1/weight.
        factors: G and A, positive definite, their product in 1/weight².
        drift_scale: η, one number; units of a weight.

    Raises:
        ValueError: a concrete factor as in `joint_basis`, or a singular one.
    """
    _checked("whitened_step", factors, definite=True)
    basis = joint_basis(factors)
    root = jnp.sqrt(pair_precision(factors, basis))
    return from_basis(drift_scale * to_basis(gradient, basis) / root, basis)


def _product(first: Array, *others: Array) -> Array:
    """Matrix product with all its digits: on a GPU, float32 would be cut to ten bits or so, and a
    variance that is re-expressed again and again would no longer keep its sum.
    """
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), others, first)


def _shares(old: Array, new: Array) -> Array:
    """How much of each new axis lies along each old one: squares that add up to 1.

    They do so but for rounding, which is divided out: it would not average out over thousands of
    changes (in float32, 1e-3 of the variance in ten thousand).
    """
    squares = jnp.square(_product(jnp.swapaxes(new, -1, -2), old))
    return squares / jnp.sum(squares, axis=-1, keepdims=True)


def _eigenvectors(factor: Array) -> Array:
    return jnp.linalg.eigh(jax.lax.stop_gradient(factor)).eigenvectors


def _along(factor: Array, axes: Array) -> Array:
    """The form uᵀFu for every column u; what rounding takes below zero is zero."""
    form = jnp.sum(axes * _product(factor, axes), axis=-2)
    rounded = (form < 0) & (form >= -_rounding(factor) * jnp.max(jnp.abs(form), initial=0))
    return jnp.where(rounded, 0, form)


def _rounding(factor: Array) -> float:
    """What a product of matrices of this size may lose, relative to its largest number."""
    return 10 * factor.shape[-1] * float(jnp.finfo(factor.dtype).eps)


def _checked(
    owner: str,
    factors: KroneckerFactors,
    *,
    sides: tuple[int | None, int | None] = (None, None),
    definite: bool = False,
) -> tuple[Array, Array]:
    """Both factors, at least float32; refuse one that is no curvature of this size."""
    checked = []
    for (name, factor), side in zip(factors._asdict().items(), sides, strict=True):
        require_semidefinite(owner, f"{name} factor", factor, dim=side, definite=definite)
        factor = jnp.asarray(factor)
        checked.append(factor.astype(jnp.promote_types(factor.dtype, jnp.float32)))
    return checked[0], checked[1]
