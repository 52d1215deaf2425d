r"""The Kronecker-factored filter as a gradient transformation: each layer in its own axes.

An optimizer never sees activations, so the axes come from gradients: the eigenvectors of
running means of g gᵀ and gᵀg. Along the pairs of them runs the same recursion that `adabayes`
runs for single weights.

What is a gradient worth along a pair? Two readings offer themselves. The factors say γᵢαⱼ, the
product of their eigenvalues. The gradient itself says (uᵢᵀ g vⱼ)², as g² does in `adabayes`. Here
it is the second. If gradients have Kronecker factors and are mostly noise, its mean *is* γᵢαⱼ, and
the settled step is the whitened one, η G^(-1/2) g A^(-1/2). If they have none, it is still
the exact mean square along each pair, and the product is not. The two part widely where gradients
repeat themselves: for a constant g = Σ sₖ uₖvₖᵀ, the product says sᵢ²sⱼ²/|g|², so that the step
along pair k, η|g|/sₖ, grows without bound where the gradient vanishes; the square gives η along
every pair, the orthogonal factor of g. And directions that first show between two
refreshes of the axes are damped at once by their own square, but have a product of nearly 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import concrete_number, require_at_least, require_fraction
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.kronecker import own_axes
from bayesfilt.optimizers.dtypes import like
from bayesfilt.optimizers.moments import ScalarOrSchedule, running_mean
from bayesfilt.optimizers.scale_by_kalman import ScaleByKalmanState, scale_by_kalman
from bayesfilt.theory import (
    JointBasis,
    gradient_factors,
    joint_basis,
    marginal_variance,
    reexpressed_variance,
)
from bayesfilt.theory.kronecker import from_basis, to_basis


class LayerAxes(NamedTuple):
    """What is known of the axes of one layer, whose weights are read as a matrix."""

    row_moment: Float[Array, "rows rows"]  # running mean of g gᵀ, not debiased
    column_moment: Float[Array, "columns columns"]  # running mean of gᵀg, not debiased
    basis: JointBasis  # eigenvectors of the two at the last refresh


class ScaleByKroneckerState(NamedTuple):
    """Carried by `scale_by_kronecker`; trees like the weights, in their shapes.

    Where a leaf has `layers`, its first moment and variance are along the pairs of axes.
    """

    step: Int[Array, ""]
    first_moment: Params  # running mean of summed gradients, not debiased
    variance: Params
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]
    layers: Params  # `LayerAxes` of each factored leaf, None for the others

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum, whatever the others are; weight²."""

        def marginal(variance: Array, axes: LayerAxes | None) -> Array:
            if axes is None:
                return variance
            return marginal_variance(_as_matrix(variance), axes.basis).reshape(variance.shape)

        return jax.tree.map(marginal, self.variance, self.layers)


def scale_by_kronecker(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    basis_every: Scalar = 10,
    max_dimension: int = 1024,
) -> optax.GradientTransformation:
    r"""Multiply each layer's running mean by its filter's posterior variance, in its axes [KRON-5].

    Per layer, with U and V the eigenvectors of the running means of g gᵀ and gᵀg: rotate,
    $x = U^T g V$; run the recursion of `scale_by_kalman` on x, where each pair's gradient is
    worth x²; rotate the scaled momentum back. When the axes are refreshed the momentum turns with
    them exactly, the variance by the nearest one that is diagonal in the new axes.

    A leaf of 2 to 4 dimensions is a layer: a matrix of its first dimension (the outputs, in
    equinox's dense and convolution layers and so in `tasks.networks`) by all others (the
    inputs). A matrix with a single row or column is a vector. Vectors, numbers and layers with a
    side above `max_dimension` fall back to the diagonal recursion. Rotating a layer's inputs or
    outputs rotates its steps; Adam's it does not.

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight².
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running means that the axes come from, in [0, 1).
        basis_every: Steps from one refresh of the axes to the next, >= 1; the first step is
            one. A refresh costs two eigendecompositions per layer.
        max_dimension: Longest side of a layer with axes of its own, >= 1. It decides shapes, so
            it must be known at `init`: name it static in `optax.inject_hyperparams`.

    Returns:
        A transformation of *summed* gradients; it scales and does not change their sign.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    require_fraction("scale_by_kronecker", "b2", b2)
    require_at_least("scale_by_kronecker", "basis_every", basis_every, 1)
    require_at_least("scale_by_kronecker", "max_dimension", max_dimension, 1)
    along_pairs = scale_by_kalman(drift_scale, stationary_variance, b1=b1)

    def init(params):
        longest = concrete_number(max_dimension)
        if longest is None:
            raise ValueError(
                "scale_by_kronecker needs to know max_dimension at init, got a traced number: "
                "name it static."
            )
        start: Any = along_pairs.init(params)
        layers = jax.tree.map(lambda zero: _first_axes(zero, longest), start.first_moment)
        return _with_layers(start, layers)

    def update(updates, state, params=None):
        del params
        layers = jax.tree.map(
            lambda gradient, axes: _observed(gradient, axes, b2), updates, state.layers
        )
        turned = (layers, state.first_moment, state.variance)
        if jax.tree.leaves(layers):
            due = state.step % jnp.asarray(basis_every, state.step.dtype) == 0
            turned = jax.lax.cond(due, _refreshed, _as_they_were, *turned)
        layers, first_moment, variance = turned
        before: Any = ScaleByKalmanState(
            step=state.step,
            first_moment=first_moment,
            variance=variance,
            drift_scale=state.drift_scale,
            stationary_variance=state.stationary_variance,
        )
        after: Any
        scaled, after = along_pairs.update(jax.tree.map(_rotated, updates, layers), before)
        scaled = jax.tree.map(_rotated_back, scaled, updates, layers)
        return scaled, _with_layers(after, layers)

    return optax.GradientTransformation(init, update)


def _with_layers(state: ScaleByKalmanState, layers: Params) -> ScaleByKroneckerState:
    """State of the recursion with the axes it runs in."""
    return ScaleByKroneckerState(
        step=state.step,
        first_moment=state.first_moment,
        variance=state.variance,
        drift_scale=state.drift_scale,
        stationary_variance=state.stationary_variance,
        layers=layers,
    )


def _first_axes(zero: Array, longest: float) -> LayerAxes | None:
    """The weights' own axes before any gradient; None for a leaf that is no layer."""
    if not 2 <= zero.ndim <= 4 or not zero.size:
        return None
    matrix = _as_matrix(zero)
    if min(matrix.shape) < 2 or max(matrix.shape) > longest:
        return None
    basis = own_axes(matrix)
    return LayerAxes(
        row_moment=jnp.zeros_like(basis.rows),
        column_moment=jnp.zeros_like(basis.columns),
        basis=basis,
    )


def _observed(gradient: Array, axes: LayerAxes | None, b2: Scalar) -> LayerAxes | None:
    """The running means that the axes come from, with one gradient more."""
    if axes is None:
        return None
    matrix = like(_as_matrix(gradient), axes.row_moment.dtype)
    rows = jnp.matmul(matrix, matrix.T, precision="highest")
    columns = jnp.matmul(matrix.T, matrix, precision="highest")
    return LayerAxes(
        row_moment=running_mean(b2, axes.row_moment, rows),
        column_moment=running_mean(b2, axes.column_moment, columns),
        basis=axes.basis,
    )


def _refreshed(layers: Params, first_moment: Params, variance: Params) -> tuple:
    """Axes from the running means of now, and momentum and variance turned into them."""

    def refresh(zero: Array, axes: LayerAxes | None) -> LayerAxes | None:
        del zero
        if axes is None:
            return None
        factors = gradient_factors(axes.row_moment, axes.column_moment)
        return LayerAxes(
            row_moment=axes.row_moment,
            column_moment=axes.column_moment,
            basis=joint_basis(factors),
        )

    def turn(moment: Array, old: LayerAxes | None, new: LayerAxes | None) -> Array:
        if old is None or new is None:
            return moment
        weights = from_basis(_as_matrix(moment), old.basis)
        return to_basis(weights, new.basis).reshape(moment.shape)

    def reexpress(variance: Array, old: LayerAxes | None, new: LayerAxes | None) -> Array:
        if old is None or new is None:
            return variance
        pairs = reexpressed_variance(_as_matrix(variance), old.basis, new.basis)
        return pairs.reshape(variance.shape)

    after = jax.tree.map(refresh, first_moment, layers)
    return (
        after,
        jax.tree.map(turn, first_moment, layers, after),
        jax.tree.map(reexpress, variance, layers, after),
    )


def _as_they_were(*turned: Params) -> tuple:
    """No refresh. Not a lambda: outside jit, each new function would be compiled anew."""
    return turned


def _rotated(gradient: Array, axes: LayerAxes | None) -> Array:
    """A leaf's gradient along its pairs of axes, in the leaf's shape."""
    if axes is None:
        return gradient
    matrix = like(_as_matrix(gradient), axes.row_moment.dtype)
    return to_basis(matrix, axes.basis).reshape(gradient.shape)


def _rotated_back(scaled: Array, gradient: Array, axes: LayerAxes | None) -> Array:
    """A leaf's step from its steps along the pairs, in the gradient's type."""
    if axes is None:
        return scaled
    weights = from_basis(_as_matrix(scaled), axes.basis)
    return like(weights.reshape(scaled.shape), gradient.dtype)


def _as_matrix(leaf: Array) -> Float[Array, "rows columns"]:
    """First dimension (outputs) by all others (inputs), as equinox shapes its layers."""
    return leaf.reshape(leaf.shape[0], -1)
