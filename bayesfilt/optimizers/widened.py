"""Other people's transformations with moments of ours: in at least float32, whatever the weights.

optax keeps Adam's mean square in the type of the weights, and in bfloat16 it gets stuck.
"""

from typing import Any

import jax
import optax

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, like
from bayesfilt.optimizers.units import require_real_weights


def widened(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Show a transformation weights and gradients of at least float32; round what it makes.

    Each update has its gradient's dtype. In float32 and float64 nothing changes.

    Raises:
        ValueError: Weights that are not real.
    """
    inner = optax.with_extra_args_support(transformation)

    def init(params):
        require_real_weights(params)
        return inner.init(wide(params))

    def update(updates, state, params=None, **extra_args: Any):
        seen = None if params is None else wide(params)
        made, state = inner.update(wide(updates), state, seen, **extra_args)
        return jax.tree.map(lambda step, g: like(step, g.dtype), made, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def wide(tree: Params) -> Params:
    """Every leaf in at least float32."""
    return jax.tree.map(at_least_float32, tree)
