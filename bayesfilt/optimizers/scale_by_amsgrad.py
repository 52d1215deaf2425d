"""AMSGrad as everybody means it: the maximum is taken before the bias correction.

optax's `scale_by_amsgrad` takes the maximum of the corrected second moment, which is largest
at the first step and so freezes early noise; torch and the paper's pseudo-code do this.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from bayesfilt.checks import require_fraction, require_non_negative
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, scalar_dtype, zeros_at_least_float32
from bayesfilt.optimizers.moments import (
    debias_factor,
    next_step,
    once_per_step,
    running_mean,
)
from bayesfilt.optimizers.units import require_real_weights


class ScaleByAmsgradState(NamedTuple):
    """Carried by `scale_by_amsgrad`."""

    step: Int[Array, ""]
    first_moment: Params  # running mean of gradients, not debiased
    mean_square_gradient: Params  # running mean of their squares, not debiased
    largest_mean_square: Params  # the largest it has ever been


def scale_by_amsgrad(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Divide debiased momentum by the root of the largest mean square so far [AW-1].

    Args:
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps: Added outside the root; >= 0, units of the gradient.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    require_fraction("scale_by_amsgrad", "b1", b1)
    require_fraction("scale_by_amsgrad", "b2", b2)
    require_non_negative("scale_by_amsgrad", "eps", eps)

    def init(params):
        require_real_weights(params)
        return ScaleByAmsgradState(
            step=jnp.zeros((), jnp.int32),
            first_moment=zeros_at_least_float32(params),
            mean_square_gradient=zeros_at_least_float32(params),
            largest_mean_square=zeros_at_least_float32(params),
        )

    def update(updates, state, params=None):
        del params
        step, dtype = next_step(state.step), scalar_dtype(updates)
        first, second = once_per_step(
            debias_factor(b1, step, dtype), debias_factor(b2, step, dtype)
        )
        squares = jax.tree.map(lambda g: jnp.square(at_least_float32(g)), updates)
        mean_square = running_mean(b2, state.mean_square_gradient, squares)
        state = ScaleByAmsgradState(
            step=step,
            first_moment=running_mean(b1, state.first_moment, updates),
            mean_square_gradient=mean_square,
            largest_mean_square=jax.tree.map(jnp.maximum, state.largest_mean_square, mean_square),
        )

        def scaled(gradient, moment, largest):
            root = jnp.sqrt(largest * second.astype(largest.dtype))
            return (moment * first.astype(moment.dtype) / (root + eps)).astype(gradient.dtype)

        return jax.tree.map(scaled, updates, state.first_moment, state.largest_mean_square), state

    return optax.GradientTransformation(init, update)
