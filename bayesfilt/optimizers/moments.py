"""Running means of gradients, and the scalars of a step.

What is the same for every weight (debiasing factors, schedules, retention) is computed once
per step and kept behind a barrier: fused into the pass over the weights, a power or an
exponential would be taken again for every element (6x slower on CPU).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from bayesfilt.custom_types import Params, Scalar
from bayesfilt.optimizers.dtypes import like

ScalarOrSchedule = optax.ScalarOrSchedule


def value_at(value: ScalarOrSchedule, step: ArrayLike, dtype: jnp.dtype) -> Float[Array, ""]:
    """A number, or a schedule's value at `step` (0 for the first step), never below 0.

    Rates, scales and shrinks are not negative, but a schedule that ends at 0 can round below
    it: optax's linear one ends at -1e-17 in float64.
    """
    number = jnp.asarray(value(step) if callable(value) else value, dtype)
    return jnp.maximum(number, 0)


def scalars_at(
    formula: Callable[..., tuple[Array, ...]],
    values: Sequence[ScalarOrSchedule],
    step: ArrayLike,
    dtype: jnp.dtype,
) -> tuple[Any, ...]:
    """The formula of numbers or schedules at `step`, worked out once for all weights.

    Known numbers become Python's, constants of the program; others are kept out of the fused
    pass.
    """
    if any(callable(value) or isinstance(value, Tracer) for value in values):
        return once_per_step(*formula(*(value_at(value, step, dtype) for value in values)))
    with jax.ensure_compile_time_eval():
        scalars = formula(*(value_at(value, 0, dtype) for value in values))
        return tuple(float(scalar) for scalar in scalars)


def debias_factor(decay: Scalar, step: ArrayLike, dtype: jnp.dtype) -> Float[Array, ""]:
    """1 / (1 - decay^step): undoes the pull of a running mean's start at 0 [OPT-1]."""
    decay = jnp.asarray(decay, dtype)
    return 1 / (1 - decay ** jnp.asarray(step, dtype))


def once_per_step(*scalars: Array) -> tuple[Array, ...]:
    """Keep scalars out of the fused pass over the weights."""
    return jax.lax.optimization_barrier(scalars)


def running_mean(decay: Scalar, old: Params, new: Params) -> Params:
    """Blend leaf by leaf, decay * old + (1 - decay) * new, in the old leaf's dtype [OPT-1]."""
    kept, fresh = _known_or_traced(decay), _known_or_traced(1 - decay)

    def blend(before, value):
        kind = before.dtype
        return like(kept, kind) * before + like(fresh, kind) * like(value, kind)

    return jax.tree.map(blend, old, new)


def next_step(step: Int[Array, ""]) -> Int[Array, ""]:
    """One more step, without wrapping round."""
    return jnp.asarray(optax.safe_increment(step))


def _known_or_traced(number: Scalar) -> Any:
    """A known number as Python's, a constant of the program; a traced one as it is."""
    return number if isinstance(number, Tracer) else float(number)
