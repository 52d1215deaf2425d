r"""The Kronecker-factored filter: the weights of a layer are correlated, along rows and columns.

The exact Kalman filter of a layer whose curvature is A ⊗ G, without ever forming that matrix.
Along the pairs of eigenvectors uᵢ of G and vⱼ of A the weights are independent
(`theory.kronecker`), and a drift that is equal for all weights is equal for all pairs. So the
filter is the diagonal one in rotated coordinates: rotate the gradient, absorb it pair by pair,
rotate the step back.

**The belief holds the bases,** because they are what its variances mean, and a precision is
given per pair: `theory.pair_precision(factors, basis)`, in the shape of the weights. That, and
not the factors themselves, so that no eigenvectors are found inside a stream: they cost more
than all the rest, their order and signs are arbitrary, and where eigenvalues repeat they have
no derivative. And a precision per pair may be any that is diagonal there, not a product only.

As long as the curvature keeps its eigenvectors, whatever its eigenvalues do, this is the
filter with the full matrix. When they turn, `change_bases` re-expresses the belief, by the
nearest one without correlations between the new pairs: approximate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation, innovation_variance, rebased_gradient
from bayesfilt.filters.diagonal import (
    initial_belief,
    like_leaf,
    log_density,
    predicted_belief,
    require_like,
    require_transition,
)
from bayesfilt.theory.kronecker import (
    JointBasis,
    from_basis,
    marginal_variance,
    reexpressed_variance,
    to_basis,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from bayesfilt.theory.riccati import conditioned_variance


def kronecker_filter(transition: OrnsteinUhlenbeck) -> "KroneckerFilter":
    """Exact filter for layers whose curvature has Kronecker factors with known eigenvectors.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (no decay). Two scalars: a drift that
            differs from weight to weight would correlate the pairs. Traced, they are not
            checked.

    Returns:
        A `Filter` of trees of matrices, whose gradients are of the *summed* negative log
        likelihood and whose precision is one number >= 0 for each pair of basis vectors.

    Raises:
        ValueError: a concrete number is out of range; an array in place of a scalar.
    """
    require_transition("kronecker_filter", transition)
    for name, value in transition._asdict().items():
        if jnp.ndim(value) > 0:
            raise ValueError(
                f"kronecker_filter needs one {name} for all weights, got shape {jnp.shape(value)}."
            )
    return KroneckerFilter(transition=transition)


class KroneckerBelief(NamedTuple):
    """A Gaussian belief about every layer's optimum, in the layer's own bases.

    Trees like the weights, each leaf a matrix [rows, columns] of at least float32. Every belief
    carries its bases: a stream filtered with keep="all" stores them at every step, rows² +
    columns² numbers a layer beside twice rows times columns.
    """

    mean: PyTree[Float[Array, "... rows columns"]]  # of the weights; units of a weight
    pair_variance: PyTree[Float[Array, "... rows columns"]]  # of each pair; weight²
    bases: PyTree  # a `JointBasis` for each leaf

    @property
    def variance(self) -> PyTree[Float[Array, "... rows columns"]]:
        """Variance of each single weight, whatever the others are; weight²."""
        return jax.tree.map(marginal_variance, self.pair_variance, self.bases)


class KroneckerFilter(NamedTuple):
    """One variance per pair of eigenvectors; built, and checked, by `kronecker_filter`."""

    transition: OrnsteinUhlenbeck

    def init(
        self, mean: Params, variance: PyTree | Scalar | None = None, bases: PyTree | None = None
    ) -> KroneckerBelief:
        """Believe `mean` with independent pairs, by default of the stationary variance.

        Args:
            mean: the weights to begin with, a tree of floating matrices.
            variance: of each pair, one number >= 0 or a tree like `mean`; weight².
            bases: a `JointBasis` for each leaf, as `theory.joint_basis` finds it. By default
                the weights' own axes: the diagonal filter, until `change_bases`.

        Raises:
            ValueError: a leaf that is no matrix; bases that are not orthogonal matrices of its
                sizes; no variance although the stationary one is infinite; a concrete variance
                that is negative, infinite or NaN; a leaf of integers or complex numbers.
        """
        return initial_kronecker_belief("kronecker_filter", self.transition, mean, variance, bases)

    def predict(self, belief: KroneckerBelief) -> KroneckerBelief:
        """Let every optimum drift one step, as far along every pair."""
        moved = predicted_belief(
            self.transition, Belief(mean=belief.mean, variance=belief.pair_variance)
        )
        return KroneckerBelief(mean=moved.mean, pair_variance=moved.variance, bases=belief.bases)

    def condition(
        self,
        belief: KroneckerBelief,
        gradient: PyTree,
        precision: PyTree,
        taken_at: PyTree | None = None,
    ) -> KroneckerBelief:
        """Absorb one gradient, worth `precision` along each pair and taken at `taken_at`."""
        surprise = _surprise_along_pairs(belief, gradient, precision, taken_at)
        variance = jax.tree.map(conditioned_variance, belief.pair_variance, precision)

        def moved(mean: Array, variance: Array, surprise: Array, basis: JointBasis) -> Array:
            return mean - from_basis(variance * surprise, basis)

        return KroneckerBelief(
            mean=jax.tree.map(moved, belief.mean, variance, surprise, belief.bases),
            pair_variance=variance,
            bases=belief.bases,
        )

    def innovation(
        self,
        belief: KroneckerBelief,
        gradient: PyTree,
        precision: PyTree,
        taken_at: PyTree | None = None,
    ) -> Innovation:
        """Compare a gradient, pair by pair, with what `belief` expects of it."""
        return Innovation(
            mean=_surprise_along_pairs(belief, gradient, precision, taken_at),
            variance=jax.tree.map(innovation_variance, belief.pair_variance, precision),
        )

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of each pair's innovation, in nats; a rotation does not change their sum."""
        return jax.tree.map(log_density, innovation.mean, innovation.variance)


def change_bases(belief: KroneckerBelief, bases: PyTree) -> KroneckerBelief:
    """Believe the same of the same weights, in other bases: exact means, nearest variances.

    The variance of every new pair is exact; correlations between them are dropped, also where
    they would come back in the next change. See `theory.reexpressed_variance`.

    Args:
        belief: in any bases.
        bases: a `JointBasis` for each leaf.

    Raises:
        ValueError: bases that are not orthogonal matrices of the layers' sizes.
    """
    bases = _fitting_bases("change_bases", belief.mean, bases)
    return KroneckerBelief(
        mean=belief.mean,
        pair_variance=jax.tree.map(reexpressed_variance, belief.pair_variance, belief.bases, bases),
        bases=bases,
    )


def initial_kronecker_belief(
    owner: str,
    transition: OrnsteinUhlenbeck,
    mean: Params,
    variance: PyTree | Scalar | None,
    bases: PyTree | None,
) -> KroneckerBelief:
    """Belief before the first gradient; `KroneckerFilter.init` says what the arguments are."""
    start = initial_belief(owner, transition, mean, variance)
    for leaf in jax.tree.leaves(start.mean):
        if leaf.ndim != 2:
            raise ValueError(f"{owner}.init needs matrices of weights, got shape {leaf.shape}.")
    if bases is None:
        bases = jax.tree.map(own_axes, start.mean)
    return KroneckerBelief(
        mean=start.mean,
        pair_variance=start.variance,
        bases=_fitting_bases(f"{owner}.init", start.mean, bases),
    )


def own_axes(weights: Float[Array, "rows columns"]) -> JointBasis:
    """Basis in which a pair is a single weight, in the weights' floating type."""
    rows, columns = weights.shape
    return JointBasis(
        rows=jnp.eye(rows, dtype=weights.dtype), columns=jnp.eye(columns, dtype=weights.dtype)
    )


def _surprise_along_pairs(
    belief: KroneckerBelief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None
) -> PyTree:
    """Gradient of every leaf along its pairs, re-based to the belief's mean."""
    require_like(belief.mean, gradient=gradient, precision=precision)

    def surprise(mean: Array, basis: JointBasis, gradient: Array, precision: Array) -> Array:
        return rebased_gradient(to_basis(gradient, basis), precision, mean, None)

    def rebased(
        mean: Array, basis: JointBasis, gradient: Array, precision: Array, place: Array
    ) -> Array:
        away = to_basis(mean - place, basis)  # before the rotation, which has rounding of its own
        return rebased_gradient(to_basis(gradient, basis), precision, away, jnp.zeros_like(away))

    if taken_at is None:
        return jax.tree.map(surprise, belief.mean, belief.bases, gradient, precision)
    require_like(belief.mean, taken_at=taken_at)
    return jax.tree.map(rebased, belief.mean, belief.bases, gradient, precision, taken_at)


def _fitting_bases(owner: str, mean: PyTree, bases: PyTree) -> PyTree:
    """Return the bases in the types of the weights; refuse those that do not fit them."""
    outline = jax.tree.structure(mean)
    found, came = jax.tree.flatten(bases, is_leaf=_is_basis)
    if came != outline or not all(map(_is_basis, found)):
        raise ValueError(f"{owner} needs a JointBasis for each leaf of {outline}, got {came}.")
    return outline.unflatten(
        [
            _fitting_basis(owner, leaf, basis)
            for leaf, basis in zip(jax.tree.leaves(mean), found, strict=True)
        ]
    )


def _is_basis(node: Any) -> bool:
    return isinstance(node, JointBasis)


def _fitting_basis(owner: str, leaf: Array, basis: JointBasis) -> JointBasis:
    shapes = tuple(jnp.shape(axes) for axes in basis)
    wanted = tuple((side, side) for side in leaf.shape[-2:])
    if shapes != wanted:
        raise ValueError(f"{owner} needs bases of shapes {wanted}, got {shapes}.")
    for name, axes in basis._asdict().items():
        if isinstance(axes, Tracer) or not axes.size:
            continue
        with jax.ensure_compile_time_eval():
            axes = like_leaf(leaf, axes)
            away = float(jnp.max(jnp.abs(axes.T @ axes - jnp.eye(len(axes), dtype=axes.dtype))))
            rounding = float(jnp.sqrt(jnp.finfo(axes.dtype).eps))
        if not away <= rounding:
            raise ValueError(
                f"{owner} needs orthogonal bases, got {name} whose products are {away:g} away."
            )
    return JointBasis(*(like_leaf(leaf, axes) for axes in basis))
