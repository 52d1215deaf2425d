"""Adam with another exponent: the family of normalisers that a root is one member of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_non_negative
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.optimizers.dtypes import (
    at_least_float32,
    like,
    scalar_dtype,
    zeros_at_least_float32,
)
from bayesfilt.optimizers.moments import debias_factor, next_step, once_per_step, running_mean
from bayesfilt.optimizers.units import require_real_weights


class ScaleByPowerState(NamedTuple):
    """Carried by `scale_by_power`."""

    step: Int[Array, ""]
    first_moment: Params  # running mean of gradients, not debiased
    mean_square_gradient: Params  # running mean of their squares, not debiased


def scale_by_power(
    power: Scalar = 0.5, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    r"""Divide debiased momentum by a power of the mean square, m/(√v + eps)²ᵖ [AW-3].

    0 is momentum SGD (of averaged gradients), 1/2 is Adam, 1 the mean-square normaliser. If the
    drift variance of the optima goes like the mean-square gradient to the power alpha, the best
    constant-gain tracker has p = (1 - alpha)/2: which p a network likes says how its optima
    drift.

    Args:
        power: p >= 0. The learning rate has units of weight times gradient^(2p - 1).
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps: Added to the root; >= 0, units of the gradient whatever the power.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    require_non_negative("scale_by_power", "power", power)
    require_fraction("scale_by_power", "b1", b1)
    require_fraction("scale_by_power", "b2", b2)
    require_non_negative("scale_by_power", "eps", eps)

    def init(params):
        require_real_weights(params)
        return ScaleByPowerState(
            step=jnp.zeros((), jnp.int32),
            first_moment=zeros_at_least_float32(params),
            mean_square_gradient=zeros_at_least_float32(params),
        )

    def update(updates, state, params=None):
        del params
        step, dtype = next_step(state.step), scalar_dtype(updates)
        first, second = once_per_step(
            debias_factor(b1, step, dtype), debias_factor(b2, step, dtype)
        )
        squares = jax.tree.map(lambda g: jnp.square(at_least_float32(g)), updates)
        state = ScaleByPowerState(
            step=step,
            first_moment=running_mean(b1, state.first_moment, updates),
            mean_square_gradient=running_mean(b2, state.mean_square_gradient, squares),
        )

        def scaled(gradient, moment, mean_square):
            kind = moment.dtype
            root = jnp.sqrt(mean_square * like(second, kind)) + like(jnp.asarray(eps), kind)
            divisor = powered(root, like(jnp.asarray(power), kind))
            return like(moment * like(first, kind) / divisor, gradient.dtype)

        return jax.tree.map(scaled, updates, state.first_moment, state.mean_square_gradient), state

    return optax.GradientTransformation(init, update)


def powered(root: Float[Array, " *dims"], power: Float[Array, ""]) -> Float[Array, " *dims"]:
    """The normaliser root^(2p); 1 where the root is 0: no gradient yet and no epsilon, no step."""
    silent = root == 0
    return jnp.where(silent, 1, jnp.where(silent, 1, root) ** (2 * power))
