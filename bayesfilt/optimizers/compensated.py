"""Weights with the digits that their type drops: what rounding takes, the next step gives back.

In float32 a weight near 1 cannot lose 1e-8 of itself, and in bfloat16 not 1e-3: a decay of that
size, or a small step, is rounded away at every step for ever. Here the state keeps the rounding
error of every weight (Kahan's and Neumaier's summation), so that weight + residual follows the
sum that was meant.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.dtypes import at_least_float32, like, zeros_at_least_float32
from bayesfilt.optimizers.units import require_real_weights
from bayesfilt.optimizers.widened import wide


class CompensatedState(NamedTuple):
    """Carried by `compensated`."""

    residual: Params  # what each weight's type could not hold; at least float32
    inner: optax.OptState


def compensated(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Make an optimizer's steps add up as if the weights had twice their digits [DEC-1].

    The optimizer sees weights, residuals included, and gradients in at least float32. Its step
    plus the residual goes out, and what `optax.apply_updates` will drop of that stays behind.
    So this must be the outermost transformation, every update must be applied, and once.

    Costs one more array like the weights. In float64 it changes the last digit at most.

    Args:
        optimizer: Any optax optimizer, a whole one: its updates are steps.

    Returns:
        An optax optimizer; `update` needs the weights. `compensated_weights` reads the sum.

    Raises:
        ValueError: Weights that are not real; `update` without them.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        require_real_weights(params)
        return CompensatedState(
            residual=zeros_at_least_float32(params), inner=inner.init(wide(params))
        )

    def update(updates, state, params=None, **extra_args: Any):
        if params is None:
            raise ValueError("compensated needs the weights: call update(updates, state, params).")
        seen = jax.tree.map(jnp.add, wide(params), state.residual)
        steps, inner_state = inner.update(wide(updates), state.inner, seen, **extra_args)
        # Worked out once: a second copy, contracted otherwise, would round otherwise.
        wanted = jax.lax.optimization_barrier(jax.tree.map(jnp.add, state.residual, steps))
        made = jax.tree.map(_rounded_like, wanted, params)
        after = jax.tree.map(_rounded_like, optax.apply_updates(params, made), params)
        residual = jax.tree.map(left_over, wide(params), wanted, wide(after))
        return made, CompensatedState(residual=residual, inner=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def left_over(weight: Array, step: Array, after: Array) -> Array:
    """What `after` lacks of weight + step, both roundings included [DEC-1].

    Knuth's two-sum, exact whichever of the two is larger, and then the narrower type's rounding.

    Args:
        weight: Before the step, in at least float32.
        step: Meant to be added to it.
        after: The weight that came of it, in any narrower type's numbers.
    """
    total = weight + step
    added = total - weight
    error = (weight - (total - added)) + (step - added)
    return (total - after) + error


def compensated_weights(params: Params, opt_state: Any) -> Params:
    """The weights with the digits their type dropped: in float64 where that is switched on.

    Without float64 they come in at least float32, which adds nothing to weights of that type.

    Raises:
        ValueError: No `compensated` in the state, or more than one.
    """
    residual = only_state(CompensatedState, opt_state).residual
    return jax.tree.map(
        lambda weight, rest: jnp.asarray(weight).astype(float) + rest.astype(float),
        params,
        residual,
    )


def full_weights(params: Params, opt_state: Any) -> Params:
    """`compensated_weights` where the optimizer is a compensated one, else the weights."""
    try:
        return compensated_weights(params, opt_state)
    except ValueError:
        return params


def _rounded_like(number: Array, weight: Array) -> Array:
    """In the weight's type, and rounded to it: a mere cast may be skipped by the compiler."""
    dtype = jnp.asarray(weight).dtype
    if number.dtype != dtype or dtype != at_least_float32(weight).dtype:
        kind = jnp.finfo(dtype)
        number = jax.lax.reduce_precision(number, kind.nexp, kind.nmant)
    return like(number, dtype)
