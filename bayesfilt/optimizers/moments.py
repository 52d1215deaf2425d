"""Running means of gradients, and the scalars of a step.

What is the same for every weight (debiasing factors, schedules, retention) is computed once
per step and kept behind a barrier: fused into the pass over the weights, a power or an
exponential would be taken again for every element (6x slower on CPU).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from bayesfilt.custom_types import Params, Scalar

ScalarOrSchedule = optax.ScalarOrSchedule


def value_at(value: ScalarOrSchedule, step: ArrayLike, dtype: jnp.dtype) -> Float[Array, ""]:
    """A number, or a schedule's value at `step` (0 for the first step), never below 0.

    Rates, scales and shrinks are not negative, but a schedule that ends at 0 can round below
    it: optax's linear one ends at -1e-17 in float64.
    """
    number = jnp.asarray(value(step) if callable(value) else value, dtype)
    return jnp.maximum(number, 0)


def debias_factor(decay: Scalar, step: ArrayLike, dtype: jnp.dtype) -> Float[Array, ""]:
    """1 / (1 - decay^step): undoes the pull of a running mean's start at 0 [OPT-1]."""
    decay = jnp.asarray(decay, dtype)
    return 1 / (1 - decay ** jnp.asarray(step, dtype))


def once_per_step(*scalars: Array) -> tuple[Array, ...]:
    """Keep scalars out of the fused pass over the weights."""
    return jax.lax.optimization_barrier(scalars)


def running_mean(decay: Scalar, old: Params, new: Params) -> Params:
    """Blend leaf by leaf, decay * old + (1 - decay) * new, in the old leaf's dtype [OPT-1]."""
    fresh = 1 - decay

    def blend(before, value):
        kind = before.dtype
        return jnp.asarray(decay, kind) * before + jnp.asarray(fresh, kind) * value.astype(kind)

    return jax.tree.map(blend, old, new)


def zeros_at_least_float32(params: Params) -> Params:
    """Zeros like the weights, in at least float32: where running means start."""

    def zeros(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32))

    return jax.tree.map(zeros, params)


def next_step(step: Int[Array, ""]) -> Int[Array, ""]:
    """One more step, without wrapping round."""
    return jnp.asarray(optax.safe_increment(step))
