"""The steady-state filter: the diagonal filter whose variance has always just settled.

At every gradient it holds the variance that the diagonal filter would reach if it saw this
precision for ever: the exact root of the recursion, not the first-order fixed point of
AdaBayes. So it needs no memory of past precisions and it cannot lag behind one that changes,
which is also how it can be wrong: the diagonal filter is optimal while the variance moves.
At a constant precision the two agree after the transient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation
from bayesfilt.filters.diagonal import (
    conditioned_mean,
    expected_innovation,
    initial_belief,
    innovation_mean,
    log_density,
    predicted_belief,
    require_transition,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from bayesfilt.theory.riccati import steady_state_variance


def steady_state_filter(transition: OrnsteinUhlenbeck) -> "SteadyStateFilter":
    """Filter whose variance is the settled one for each gradient's own precision.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (no decay). Scalars, or arrays that
            broadcast against every leaf; both may be traced, and are then not checked.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_transition("steady_state_filter", transition)
    return SteadyStateFilter(transition=transition)


class SteadyStateFilter(NamedTuple):
    """Mean and settled variance per weight; built by `steady_state_filter`."""

    transition: OrnsteinUhlenbeck

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, by default the stationary variance.

        The variance counts for the first innovation only; the first gradient replaces it.
        """
        return initial_belief("steady_state_filter", self.transition, mean, variance)

    def predict(self, belief: Belief) -> Belief:
        """Let every optimum drift one step."""
        return predicted_belief(self.transition, belief)

    def condition(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Belief:
        """Absorb one gradient with the settled variance of its precision.

        Where the precision is 0 nothing was observed, and the variance stays what it was: it
        does not jump to the stationary one, the settled variance of seeing nothing for ever.
        """

        def settle(variance: Array, precision: Array) -> Array:
            settled = steady_state_variance(precision, *self.transition)
            return jnp.where(precision == 0, variance, settled.astype(variance.dtype))

        surprise = innovation_mean(belief, gradient, precision, taken_at)
        variance = jax.tree.map(settle, belief.variance, precision)
        return Belief(
            mean=jax.tree.map(conditioned_mean, belief.mean, variance, surprise),
            variance=variance,
        )

    def innovation(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Innovation:
        """Compare a gradient with what `belief` expects of it."""
        return expected_innovation(belief, gradient, precision, taken_at)

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of each weight's innovation, in nats."""
        return jax.tree.map(log_density, innovation.mean, innovation.variance)
