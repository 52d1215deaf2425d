"""The diagonal filter: every weight's optimum is an Ornstein-Uhlenbeck process of its own.

The exact Kalman filter of that model, one scalar per weight. It adapts: a weight that has
seen loud gradients is known well and learns slowly, a quiet one remembers its stationary
variance. `steady_state` is the same filter with the transient of the variance left out.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from bayesfilt.checks import concrete_number, require_non_negative, require_positive
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation, innovation_variance, rebased_gradient
from bayesfilt.theory.ornstein_uhlenbeck import (
    OrnsteinUhlenbeck,
    exact_shrink,
    process_variance,
)
from bayesfilt.theory.riccati import conditioned_variance, relaxed_variance

# One number for all weights, or an array that broadcasts against every leaf of them.
PerWeight = float | Float[Array, " *#dims"]


def diagonal_filter(transition: OrnsteinUhlenbeck) -> "DiagonalFilter":
    """Exact filter for optima that follow `transition`, each independent of the others.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (no decay). Scalars, or arrays that
            broadcast against every leaf; both may be traced, and are then not checked.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_transition("diagonal_filter", transition)
    return DiagonalFilter(transition=transition)


class DiagonalFilter(NamedTuple):
    """Mean and variance per weight; built, and its numbers checked, by `diagonal_filter`."""

    transition: OrnsteinUhlenbeck

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, by default the stationary variance."""
        return initial_belief("diagonal_filter", self.transition, mean, variance)

    def predict(self, belief: Belief) -> Belief:
        """Let every optimum drift one step."""
        return predicted_belief(self.transition, belief)

    def condition(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Belief:
        """Absorb one gradient, worth `precision` and taken at `taken_at`."""
        return conditioned_belief(belief, gradient, precision, taken_at)

    def innovation(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Innovation:
        """Compare a gradient with what `belief` expects of it."""
        return expected_innovation(belief, gradient, precision, taken_at)

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of each weight's innovation, in nats."""
        return jax.tree.map(log_density, innovation.mean, innovation.variance)


# What follows knows one belief per weight and nothing about how its variance came about; the
# other filters of that kind share it.


def require_transition(owner: str, transition: OrnsteinUhlenbeck) -> None:
    """Refuse concrete numbers out of range: 0 < drift scale < inf, 0 < stationary variance."""
    above_zero = functools.partial(require_positive, infinite=True)
    require_every(require_positive, owner, "drift_scale", transition.drift_scale)
    require_every(above_zero, owner, "stationary_variance", transition.stationary_variance)


def require_every(check: Callable[[str, str, Any], None], owner: str, name: str, tree: Any) -> None:
    """Refuse a tree of numbers and arrays with one that `check` refuses, and schedules."""
    for leaf in jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None):
        if callable(leaf):
            raise ValueError(f"{owner} needs a number for {name}, got a schedule.")
        for extreme in extremes(leaf):
            check(owner, name, extreme)


def initial_belief(
    owner: str, transition: OrnsteinUhlenbeck, mean: Params, variance: PyTree | Scalar | None
) -> Belief:
    """Belief before the first gradient, every leaf at least float32.

    Args:
        owner: the filter that asks, for messages.
        transition: whose stationary variance is the default variance.
        mean: the weights to begin with, a tree of floating arrays.
        variance: one number >= 0 for every weight, or a tree of arrays like `mean`; 0 means
            known perfectly. Weight².

    Raises:
        ValueError: no variance although the stationary variance is infinite; a concrete
            variance that is negative, infinite or NaN; a leaf of integers or complex numbers.
    """
    if variance is None:
        variance = transition.stationary_variance
        if concrete_number(extremes(variance)[1]) == math.inf:
            raise ValueError(
                f"{owner} has an infinite stationary_variance, so init needs a finite variance "
                f"to begin with, got variance=None."
            )
    return given_belief(owner, mean, variance)


def given_belief(owner: str, mean: Params, variance: PyTree | Scalar | None) -> Belief:
    """`initial_belief` where the model has no variance of its own to begin with.

    Raises:
        ValueError: no variance, and what `initial_belief` refuses.
    """
    if variance is None:
        raise ValueError(
            f"{owner} has no stationary variance and no diffuse start, so init needs a finite "
            f"variance to begin with, got variance=None."
        )
    require_every(require_non_negative, f"{owner}.init", "variance", variance)

    def start(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"{owner}.init needs real floating weights, got {leaf.dtype}.")
        return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))

    means = jax.tree.map(start, mean)
    return Belief(mean=means, variance=spread_over(f"{owner}.init", "variance", means, variance))


def spread_over(owner: str, name: str, weights: Params, value: PyTree | PerWeight) -> PyTree:
    """`value` as a tree like `weights`, in the shape and floating type of each leaf.

    Args:
        owner: who asks, for messages.
        name: of the value, for messages.
        weights: a tree of floating arrays.
        value: one number or array for all leaves, against each of which it broadcasts; or a
            tree like `weights` of such.

    Raises:
        ValueError: a tree unlike `weights`, or an array that does not broadcast.
    """
    if jax.tree_util.all_leaves([value]):
        value = jax.tree.map(lambda _: value, weights)
    wanted, got = jax.tree.structure(weights), jax.tree.structure(value)
    if got != wanted:
        raise ValueError(f"{owner} with weights {wanted} needs a {name} like them, got {got}.")

    def spread(leaf: Array, number: Any) -> Array:
        return jnp.broadcast_to(like_leaf(leaf, number), leaf.shape)

    return jax.tree.map(spread, weights, value)


def predicted_belief(
    transition: OrnsteinUhlenbeck, belief: Belief, towards: PyTree | None = None
) -> Belief:
    """Every optimum one step later: means shrink, variances relax towards the stationary one.

    Args:
        transition: numbers of the drift.
        belief: conditioned.
        towards: what means shrink to, a tree like the belief's mean; None for 0.
    """
    shrink = exact_shrink(*transition)
    growth = process_variance(*transition)
    rate = growth / transition.stationary_variance  # 1 - a², with all its digits

    def predict_mean(mean: Array, towards: PerWeight = 0.0) -> Array:
        return predicted_mean(mean, like_leaf(mean, shrink), towards)

    def predict_variance(variance: Array) -> Array:
        return relaxed_variance(variance, like_leaf(variance, growth), like_leaf(variance, rate))

    means = (belief.mean,) if towards is None else (belief.mean, towards)
    return Belief(
        mean=jax.tree.map(predict_mean, *means),
        variance=jax.tree.map(predict_variance, belief.variance),
    )


def predicted_mean(
    mean: Float[Array, " *dims"], shrink: PerWeight, towards: PerWeight = 0.0
) -> Float[Array, " *dims"]:
    """Mean of the optimum one step later, m - s (m - μ) [KF-4].

    Args:
        mean: m of the conditioned belief; units of a weight.
        shrink: s = 1 - retention, in [0, 1], as `theory.exact_shrink` gives it. Never formed
            from the retention: in float32 that loses a shrink below 6e-8 altogether.
        towards: μ, the mean of the optimum with no data, for ever; units of a weight. With 0
            the shrink is weight decay.
    """
    return mean - shrink * (mean - towards)


def conditioned_belief(
    belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None
) -> Belief:
    """Every belief after a gradient whose noise variance is its precision."""
    surprise = innovation_mean(belief, gradient, precision, taken_at)
    variance = jax.tree.map(conditioned_variance, belief.variance, precision)
    return Belief(
        mean=jax.tree.map(conditioned_mean, belief.mean, variance, surprise),
        variance=variance,
    )


def conditioned_mean(
    mean: Float[Array, " *dims"], variance: Float[Array, " *dims"], surprise: Float[Array, " *dims"]
) -> Float[Array, " *dims"]:
    """Mean after a gradient, m - v g: a gradient step with learning rate v [KF-2].

    Args:
        mean: m of the predicted belief; units of a weight.
        variance: v of the *conditioned* belief; weight².
        surprise: the gradient at `mean` (`rebased_gradient`), 1/weight; it points uphill in
            the negative log likelihood, so the mean moves against it.
    """
    return mean - variance * surprise


def innovation_mean(
    belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None
) -> PyTree:
    """Gradient of every leaf, re-based to the belief's mean.

    Raises:
        ValueError: an argument is not a tree like the belief's mean, leaf by leaf of one shape;
            broadcasting would otherwise quietly turn one belief into another.
    """
    require_like(belief.mean, gradient=gradient, precision=precision)
    if taken_at is None:
        return jax.tree.map(
            lambda g, h, m: rebased_gradient(g, h, m, None), gradient, precision, belief.mean
        )
    require_like(belief.mean, taken_at=taken_at)
    return jax.tree.map(rebased_gradient, gradient, precision, belief.mean, taken_at)


def require_like(mean: PyTree, **given: PyTree) -> None:
    """Refuse a tree that is not like the belief's mean, leaf by leaf of one shape."""
    for name, tree in given.items():
        for outline in (jax.tree.structure, leaf_shapes):
            wanted, got = outline(mean), outline(tree)
            if got != wanted:
                raise ValueError(f"A belief about {wanted} needs a {name} like it, got {got}.")


def expected_innovation(
    belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None
) -> Innovation:
    """Innovation of every leaf and its variance under `belief`."""
    return Innovation(
        mean=innovation_mean(belief, gradient, precision, taken_at),
        variance=jax.tree.map(innovation_variance, belief.variance, precision),
    )


def log_density(
    surprise: Float[Array, " *dims"], variance: Float[Array, " *dims"]
) -> Float[Array, " *dims"]:
    """Log density of N(0, variance) at `surprise`, in nats; 0 where the variance is 0 [KF-6].

    In float64 where that is switched on, whatever the arguments' type.

    A variance of 0 says that nothing was observed. A negative or NaN one gives NaN.
    """
    observed = variance != 0
    variance = jnp.where(observed, variance, 1)  # before the log, or its gradient is NaN
    # The log stays in the type it came in: its rounding averages out, and in a float64 scan it
    # would take most of the time. What does not average out is added up in float64.
    log_variance = jnp.log(variance).astype(float) + math.log(2 * math.pi)
    squared = surprise.astype(float) ** 2 / variance.astype(float)
    return jnp.where(observed, -0.5 * (log_variance + squared), 0)


def leaf_shapes(tree: PyTree) -> list[tuple[int, ...]]:
    """Shape of every leaf, in the order of the tree."""
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def like_leaf(leaf: Array, number: Any) -> Array:
    """`number` in the leaf's floating type: a float64 scalar must not widen a float32 belief."""
    return jnp.asarray(number).astype(leaf.dtype)


def extremes(value: Any) -> tuple[Any, Any]:
    """Smallest and largest number in an array, for checks; anything else as it is."""
    if value is None or isinstance(value, Tracer) or jnp.ndim(value) == 0 or jnp.size(value) == 0:
        return value, value
    with jax.ensure_compile_time_eval():
        return jnp.min(value), jnp.max(value)
