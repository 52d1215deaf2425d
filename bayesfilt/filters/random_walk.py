r"""The random-walk filter: every weight's optimum moves and forgets nothing.

The mean stays where the gradients have brought it, so there is no weight decay. The variance grows
by η² at every step, so the steps never die out: from any start they settle at Adam's, η/√h, as
long as the gain is small. It is the diagonal filter of an infinite stationary variance, with one
number less, and so it has no variance of its own to begin with.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from bayesfilt.checks import require_positive
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation
from bayesfilt.filters.diagonal import (
    PerWeight,
    conditioned_belief,
    expected_innovation,
    given_belief,
    like_leaf,
    log_density,
    require_every,
)


def random_walk_filter(drift_scale: PerWeight) -> "RandomWalkFilter":
    """Exact filter for optima that take independent steps, each weight by itself.

    Args:
        drift_scale: η, standard deviation of one step, finite and above 0; units of a weight. A
            scalar, or an array that broadcasts against every leaf; traced, it is not checked.
            `static_filter` is the filter without drift.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_every(require_positive, "random_walk_filter", "drift_scale", drift_scale)
    return RandomWalkFilter(drift_scale=drift_scale)


class RandomWalkFilter(NamedTuple):
    """Mean and variance per weight; built, and its number checked, by `random_walk_filter`."""

    drift_scale: PerWeight

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, which must be given: finite, one number or a tree."""
        return given_belief("random_walk_filter", mean, variance)

    def predict(self, belief: Belief) -> Belief:
        """Let every optimum take one step: means stay, variances grow by η²."""
        growth = jnp.square(self.drift_scale)

        def grow(variance: Array) -> Array:
            return variance + like_leaf(variance, growth)

        return Belief(mean=belief.mean, variance=jax.tree.map(grow, belief.variance))

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
