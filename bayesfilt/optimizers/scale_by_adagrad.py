"""AdaGrad as everybody means it: epsilon outside the root, the sum of squares from 0.

optax's `scale_by_rss` starts the sum at 0.1 and puts epsilon inside the root.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bayesfilt.checks import require_non_negative
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, zeros_at_least_float32
from bayesfilt.optimizers.units import require_real_weights


class ScaleByAdagradState(NamedTuple):
    """Carried by `scale_by_adagrad`."""

    sum_of_squares: Params  # of all gradients so far


def scale_by_adagrad(*, eps: float = 1e-10) -> optax.GradientTransformation:
    """Divide each gradient by the root of the sum of all squares so far [AW-2].

    The filter's reading: a process variance that falls like 1/t.

    Args:
        eps: Added outside the root; >= 0, units of the gradient.

    Raises:
        ValueError: A negative eps; weights that are not real.
    """
    require_non_negative("scale_by_adagrad", "eps", eps)

    def init(params):
        require_real_weights(params)
        return ScaleByAdagradState(sum_of_squares=zeros_at_least_float32(params))

    def update(updates, state, params=None):
        del params
        total = jax.tree.map(
            lambda old, g: old + jnp.square(at_least_float32(g)), state.sum_of_squares, updates
        )

        def scaled(gradient, squares):
            root = jnp.sqrt(squares)
            # No gradient yet and no epsilon: no step.
            safe = jnp.where(root + eps > 0, root + eps, 1)
            return (at_least_float32(gradient) / safe).astype(gradient.dtype)

        return jax.tree.map(scaled, updates, total), ScaleByAdagradState(sum_of_squares=total)

    return optax.GradientTransformation(init, update)
