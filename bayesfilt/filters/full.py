r"""The full filter: the optima of all weights together, with their covariance.

A gradient g is one noisy look at the whole vector w* of optima,

    g ~ N(H (taken_at - w*), H),

where the matrix H is its curvature and its noise, as h is for one weight. So the gain is the
posterior covariance itself, and a step multiplies the gradient by a matrix: where the drift is
the same in all directions it whitens, where it follows H⁻¹ it is the natural gradient
(`theory.matrix_riccati`). The weights' covariance is what the diagonal filter leaves out; it
is the surer for it than it may be.

Memory is the square of the number of weights, time the cube: for small problems and as the
standard that the cheaper filters are measured by.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bayesfilt.checks import require_semidefinite
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Innovation
from bayesfilt.filters.diagonal import (
    initial_belief,
    like_leaf,
    predicted_mean,
    require_like,
    require_transition,
)
from bayesfilt.theory.matrix_riccati import conditioned_with_step
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck, exact_shrink, process_variance
from bayesfilt.theory.riccati import relaxed_variance
from bayesfilt.theory.semidefinite import on_its_range, symmetrised


def full_filter(
    transition: OrnsteinUhlenbeck, drift_shape: Float[Array, "n n"] | None = None
) -> "FullFilter":
    """Exact filter for optima that drift together and are seen together.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (no decay). One number each for all weights;
            both may be traced, and are then not checked.
        drift_shape: S, symmetric positive semidefinite, a pure number for each pair of the
            raveled weights. One step adds the covariance q S, with q the transition's process
            variance (η² for a random walk), and the optima spread to σ² S for ever. None: the
            identity, every weight alike and independent. For the natural gradient, H⁻¹ in some
            unit of variance.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood and whose
        precision is one matrix H over the raveled weights, not a tree.

    Raises:
        ValueError: a concrete number is out of range; numbers that differ between weights; a
            concrete shape that is not symmetric positive semidefinite.
    """
    owner = "full_filter"
    for name, value in transition._asdict().items():
        if not callable(value) and jnp.ndim(value):
            raise ValueError(
                f"{owner} needs one {name} for all weights, got shape {jnp.shape(value)}."
            )
    require_transition(owner, transition)
    if drift_shape is not None:
        require_semidefinite(owner, "drift_shape", drift_shape)
    return FullFilter(transition=transition, drift_shape=drift_shape)


class FullBelief(NamedTuple):
    """A Gaussian belief about the optima of all weights together.

    `mean` is a tree like the weights, each leaf at least float32; `covariance` is over the
    weights raveled in the tree's order, in the widest type of them, weight².
    """

    mean: PyTree[Float[Array, "..."]]
    covariance: Float[Array, "*steps n n"]

    @property
    def variance(self) -> PyTree[Float[Array, "..."]]:
        """Marginal variance of each weight's optimum, a tree like the mean; weight²."""
        return unraveled(jnp.diagonal(self.covariance, axis1=-2, axis2=-1), self.mean)


class FullFilter(NamedTuple):
    """Mean and covariance of all weights; built, and its numbers checked, by `full_filter`."""

    transition: OrnsteinUhlenbeck
    drift_shape: Float[Array, "n n"] | None

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> FullBelief:
        """Believe `mean`, by default with the covariance that the drift has for ever.

        Args:
            mean: the weights to begin with, a tree of floating arrays.
            variance: one number >= 0 for every weight, a tree like `mean` of independent
                variances, or a whole covariance [n, n]; weight². 0 means known perfectly.

        Raises:
            ValueError: no variance although the stationary one is infinite; a concrete variance
                that is negative, infinite or NaN; a concrete covariance that is not symmetric
                positive semidefinite; a drift shape of another size than the weights; a leaf
                of integers or complex numbers.
        """
        return initial_full_belief("full_filter", self, mean, variance)

    def predict(self, belief: FullBelief) -> FullBelief:
        """Let all optima drift one step."""
        shrink, growth, rate = full_drift(self, belief)
        return FullBelief(
            mean=jax.tree.map(lambda m: predicted_mean(m, like_leaf(m, shrink)), belief.mean),
            covariance=relaxed_variance(belief.covariance, growth, rate),
        )

    def condition(
        self,
        belief: FullBelief,
        gradient: PyTree,
        precision: Float[Array, "..."],
        taken_at: PyTree | None = None,
    ) -> FullBelief:
        """Absorb one gradient, worth the matrix `precision` and taken at `taken_at`."""
        surprise = full_surprise(belief, gradient, precision, taken_at)
        covariance, moved = conditioned_with_step(belief.covariance, precision, surprise)
        step = unraveled(moved, belief.mean)
        return FullBelief(mean=jax.tree.map(jnp.subtract, belief.mean, step), covariance=covariance)

    def innovation(
        self,
        belief: FullBelief,
        gradient: PyTree,
        precision: Float[Array, "..."],
        taken_at: PyTree | None = None,
    ) -> Innovation:
        """Compare a gradient with what `belief` expects; both parts are of the raveled weights."""
        return Innovation(
            mean=full_surprise(belief, gradient, precision, taken_at),
            variance=innovation_covariance(belief.covariance, precision),
        )

    def log_density(self, innovation: Innovation) -> Float[Array, ""]:
        """Log density of the whole innovation, in nats."""
        return full_log_density(innovation.mean, innovation.variance)


def full_drift(kalman: FullFilter, belief: FullBelief) -> tuple[Array, Array, Array]:
    """Shrink s, covariance q S added in a step, and rate q/σ² at which the covariance relaxes."""
    growth = process_variance(*kalman.transition)
    rate = growth / kalman.transition.stationary_variance  # 1 - a², with all its digits
    shape = (
        jnp.eye(belief.covariance.shape[-1]) if kalman.drift_shape is None else kalman.drift_shape
    )
    numbers = (exact_shrink(*kalman.transition), growth * shape, rate)
    shrink, added, rate = (like_leaf(belief.covariance, number) for number in numbers)
    return shrink, added, rate


def full_surprise(
    belief: FullBelief, gradient: PyTree, precision: Float[Array, "..."], taken_at: PyTree | None
) -> Float[Array, " n"]:
    """Gradient of the raveled weights, re-based to the mean, g + H (mean - taken_at) [MAT-9].

    A weight whose row of H is 0 was not observed, and counts as 0 whatever its gradient is. The
    model's gradients lie in the range of H; that a given one does is not checked.

    Raises:
        ValueError: the gradient or the place is no tree like the mean, or the precision no
            matrix of all weights; a concrete one that is not symmetric or is indefinite. One
            that holds NaN or infinity is a failure, and shows.
    """
    require_like(belief.mean, gradient=gradient)
    wanted = belief.covariance.shape
    if jnp.shape(precision) != wanted:
        raise ValueError(
            f"A belief about {wanted[-1]} weights needs a precision of shape {wanted}, "
            f"got {jnp.shape(precision)}."
        )
    require_semidefinite("full_filter", "precision", precision, finite=False)
    observed = jnp.where(jnp.all(precision == 0, axis=1), 0, raveled(gradient))
    if taken_at is None:
        return observed
    require_like(belief.mean, taken_at=taken_at)
    return observed + precision @ (raveled(belief.mean) - raveled(taken_at))


def innovation_covariance(
    covariance: Float[Array, "n n"], precision: Float[Array, "n n"]
) -> Float[Array, "n n"]:
    """Covariance of the surprise in a gradient, H + H P H [MAT-9].

    Args:
        covariance: P of the belief before the gradient; weight².
        precision: H; 1/weight².
    """
    return symmetrised(precision + precision @ covariance @ precision)


def full_log_density(
    surprise: Float[Array, " n"], covariance: Float[Array, "n n"]
) -> Float[Array, ""]:
    """Log density of N(0, covariance) at `surprise`, in nats, on the covariance's range [MAT-9].

    A gradient of singular H varies in the range of H only. Its density is with respect to
    lengths there, with the product of the eigenvalues above 0 in place of the determinant, so
    log likelihoods compare where the range is the same. A surprise outside the range is ruled out
    by the model and gives no meaningful number. 0 where the covariance is 0: nothing was
    observed. In float64 where that is switched on; NaN for an indefinite covariance.
    """
    part = on_its_range(covariance)
    whitened = (part.whitener @ surprise).astype(float)
    normaliser = part.log_volume + 0.5 * math.log(2 * math.pi) * part.rank
    return -0.5 * jnp.sum(whitened**2) - normaliser.astype(float)


def initial_full_belief(
    owner: str, kalman: FullFilter, mean: Params, variance: PyTree | Scalar | None
) -> FullBelief:
    """Belief before the first gradient; `FullFilter.init` says what the arguments are."""
    shape = kalman.drift_shape
    whole = _is_covariance(mean, variance)
    diagonal = initial_belief(owner, kalman.transition, mean, 0.0 if whole else variance)
    spread = raveled(diagonal.variance)
    covariance = jnp.diag(spread)
    if shape is not None and jnp.shape(shape) != covariance.shape:
        raise ValueError(
            f"{owner} needs a drift_shape of shape {covariance.shape} for {spread.size} weights, "
            f"got {jnp.shape(shape)}."
        )
    if whole:
        require_semidefinite(f"{owner}.init", "variance", variance)
        covariance = like_leaf(covariance, variance)
    elif variance is None and shape is not None:
        covariance = like_leaf(covariance, kalman.transition.stationary_variance * shape)
    return FullBelief(mean=diagonal.mean, covariance=covariance)


def raveled(tree: PyTree) -> Float[Array, " n"]:
    """All leaves in one vector, of the widest type among them."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0)


def unraveled(vector: Float[Array, "*steps n"], like: PyTree) -> PyTree:
    """Tree like `like`, leaf by leaf in its type, out of a vector or a stack of them."""
    leading, leaves, start = vector.ndim - 1, [], 0
    for leaf in jax.tree.leaves(like):
        size = math.prod(leaf.shape[leading:])
        part = vector[..., start : start + size]
        part = part.reshape(vector.shape[:-1] + leaf.shape[leading:])
        leaves.append(part.astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _is_covariance(mean: Params, variance: Any) -> bool:
    """Whether `variance` is a matrix over the raveled weights, not a tree like them."""
    if variance is None or not jax.tree_util.all_leaves([variance]):
        return False
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(mean))
    return jnp.shape(variance) == (size, size)
