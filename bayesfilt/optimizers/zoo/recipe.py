"""A recipe: what a name of the zoo stands for, and the function that builds it."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from bayesfilt.catalogue import Facts
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.parts import PartsOf
from bayesfilt.optimizers.weight_decay import decay_to_zero
from bayesfilt.optimizers.widened import widened


class NamedOptimizer(NamedTuple):
    """One entry of a comparison."""

    optimizer: optax.GradientTransformation
    parts: PartsOf | None  # how to take its update apart; None: not available


class Recipe(NamedTuple):
    """One member of the zoo."""

    facts: Facts
    build: Callable[..., NamedOptimizer]  # (setting, **its own numbers)


def stepping(optimizer: optax.GradientTransformation, shrink: ScalarOrSchedule) -> NamedOptimizer:
    """An optimizer whose update is not taken apart, with decoupled decay that it states."""
    whole = optax.chain(optimizer, decay_to_zero(shrink))
    return NamedOptimizer(optimizer=widened(whole), parts=None)
