r"""The Ornstein-Uhlenbeck filter: optima that are drawn back to a mean of any value.

    w*' = w* - s (w* - μ) + noise

The diagonal filter is this with μ = 0, where the pull is weight decay. With another μ the pull is
towards what was trained before (fine-tuning), or towards an initialisation, or towards a value that
is itself to be inferred: μ is a number of the filter, so likelihoods have a derivative in it.
"""

from typing import NamedTuple

import jax
from jaxtyping import PyTree

from bayesfilt.checks import require_finite
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation
from bayesfilt.filters.diagonal import (
    PerWeight,
    conditioned_belief,
    expected_innovation,
    initial_belief,
    log_density,
    predicted_belief,
    require_every,
    require_transition,
    spread_over,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck


def ornstein_uhlenbeck_filter(
    transition: OrnsteinUhlenbeck, *, towards: PyTree | PerWeight = 0.0
) -> "OrnsteinUhlenbeckFilter":
    """Exact filter for optima that follow `transition` around the mean `towards`.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (nothing then pulls). Scalars, or arrays that
            broadcast against every leaf.
        towards: μ, finite, units of a weight: a number or an array that broadcasts against
            every leaf, or a tree like the weights. With 0 this filter is `diagonal_filter` bit
            for bit.

    All may be traced, and are then not checked.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_transition("ornstein_uhlenbeck_filter", transition)
    require_every(require_finite, "ornstein_uhlenbeck_filter", "towards", towards)
    return OrnsteinUhlenbeckFilter(transition=transition, towards=towards)


class OrnsteinUhlenbeckFilter(NamedTuple):
    """Mean and variance per weight; built, and its numbers checked, by the factory.

    `towards` is kept as it was given. Every `predict` spreads it over the weights: a number costs
    nothing there, and one number still fits weights of any shape.
    """

    transition: OrnsteinUhlenbeck
    towards: PyTree | PerWeight = 0.0

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, by default the stationary variance.

        Raises:
            ValueError: a `towards` that does not fit `mean`, and what `initial_belief` refuses.
        """
        owner = "ornstein_uhlenbeck_filter"
        belief = initial_belief(owner, self.transition, mean, variance)
        spread_over(owner, "towards", belief.mean, self.towards)  # to refuse it here already
        return belief

    def predict(self, belief: Belief) -> Belief:
        """Let every optimum drift one step, and be drawn towards its mean."""
        towards = spread_over("ornstein_uhlenbeck_filter", "towards", belief.mean, self.towards)
        return predicted_belief(self.transition, belief, towards)

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
