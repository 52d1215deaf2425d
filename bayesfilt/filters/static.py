r"""The static filter: every weight has one optimum, and it never moves.

What is known is then never forgotten. The precisions add up, 1/p = 1/v + Σh, and all gradients so
far count alike: natural gradient with a step that falls as 1/t, or AdaGrad without its root. It
shows what the drift of the other filters is good for: the root in Adam, a floor under the step and
weight decay all come from a transition, and this filter has none.
"""

from typing import NamedTuple

import jax
from jaxtyping import PyTree

from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation
from bayesfilt.filters.diagonal import (
    conditioned_belief,
    expected_innovation,
    given_belief,
    log_density,
)


def static_filter() -> "StaticFilter":
    """Exact filter for optima that stay where they are; it has no numbers to choose.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.
    """
    return StaticFilter()


class StaticFilter(NamedTuple):
    """Mean and variance per weight, without a transition; built by `static_filter`."""

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, which must be given: finite, one number or a tree."""
        return given_belief("static_filter", mean, variance)

    def predict(self, belief: Belief) -> Belief:
        """Return `belief` as it is: nothing drifts."""
        return belief

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
