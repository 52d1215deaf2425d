"""An update taken apart: momentum, variance, prior and decay.

Every Adam-like step is -momentum / (1/variance + prior_precision) - shrink * weight. Two
optimizers that both have these parts can exchange them one at a time, which says what part
owes what share of the gap between them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.custom_types import Params, Scalar
from bayesfilt.optimizers.belief_report import filter_state, only_state
from bayesfilt.optimizers.dtypes import scalar_dtype
from bayesfilt.optimizers.moments import ScalarOrSchedule, debias_factor, value_at
from bayesfilt.optimizers.scale_by_kalman import ScaleByKalmanState
from bayesfilt.optimizers.settled import SettledState
from bayesfilt.optimizers.units import SumOverBatchState
from bayesfilt.optimizers.weight_decay import DecayToZeroState


class UpdateParts(NamedTuple):
    """The parts of one update, in mean-loss units; trees like the weights, but for `shrink`."""

    momentum: Params  # debiased running mean of mean-loss gradients
    variance: Params  # gain on it if there were no prior and no epsilon
    prior_precision: Params  # what the prior, or epsilon, adds to 1/gain
    shrink: Float[Array, ""]  # per-step decay
    step_shrink: Float[Array, ""]  # the shrink again where it also acts on the step, else 0


# (optimizer state after the step) -> its parts
PartsOf = Callable[[Any], UpdateParts]


def compose(parts: UpdateParts, params: Params) -> Params:
    """The update that the parts make [OPT-7]."""

    def update(momentum, variance, prior_precision, weight):
        inverse_gain = 1 / variance + prior_precision
        gain = jnp.where(inverse_gain > 0, 1 / jnp.where(inverse_gain > 0, inverse_gain, 1), 0)
        shrink, step_shrink = (x.astype(weight.dtype) for x in (parts.shrink, parts.step_shrink))
        return -(1 - step_shrink) * gain * momentum - shrink * weight

    return jax.tree.map(update, parts.momentum, parts.variance, parts.prior_precision, params)


def adam_parts(
    learning_rate: ScalarOrSchedule,
    shrink: ScalarOrSchedule,
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
) -> PartsOf:
    """Parts of optax's adam or adamw with these settings; epsilon is its prior.

    `shrink` is what one step takes of a weight, AdamW's learning_rate * weight_decay.
    """

    def parts_of(opt_state) -> UpdateParts:
        state = only_state(optax.ScaleByAdamState, opt_state)
        dtype = scalar_dtype(state.mu)
        rate = value_at(learning_rate, state.count - 1, dtype)
        first, second = (debias_factor(b, state.count, dtype) for b in (b1, b2))

        def gain(v):
            return rate.astype(v.dtype) / jnp.sqrt(v * second.astype(v.dtype))

        return UpdateParts(
            momentum=jax.tree.map(lambda m: m * first.astype(m.dtype), state.mu),
            variance=jax.tree.map(gain, state.nu),
            prior_precision=jax.tree.map(
                lambda v: jnp.full_like(v, eps) / rate.astype(v.dtype), state.nu
            ),
            shrink=value_at(shrink, state.count - 1, dtype),
            step_shrink=jnp.zeros((), dtype),
        )

    return parts_of


def filter_parts(*, b1: Scalar, decay_order: str = "before") -> PartsOf:
    """Parts of a filter's recipe built with this b1 and decay order.

    At a fixed point or steady state the prior's part is what it adds to the inverse of the
    gain that an infinite sigma^2 would give. The recursion mixes prior and data in one
    number, so all of its gain counts as variance and its prior part is 0.
    """

    def parts_of(opt_state) -> UpdateParts:
        batch_size = only_state(SumOverBatchState, opt_state).batch_size
        shrink = only_state(DecayToZeroState, opt_state).shrink
        state = filter_state(opt_state)
        if not isinstance(state, SettledState | ScaleByKalmanState):
            raise ValueError(f"filter_parts cannot take a {type(state).__name__} apart.")
        debias = debias_factor(b1, state.step, batch_size.dtype)
        gain, prior_precision = _variance_and_prior(state)
        return UpdateParts(
            momentum=jax.tree.map(
                lambda m: m * (debias / batch_size).astype(m.dtype), state.first_moment
            ),
            variance=jax.tree.map(lambda p: p * batch_size.astype(p.dtype), gain),
            prior_precision=jax.tree.map(lambda x: x / batch_size.astype(x.dtype), prior_precision),
            shrink=shrink,
            step_shrink=shrink if decay_order == "after" else jnp.zeros_like(shrink),
        )

    return parts_of


def _variance_and_prior(state: SettledState | ScaleByKalmanState) -> tuple[Params, Params]:
    """Variance without the prior, and what the prior adds to its inverse; summed units."""
    variance = state.posterior_variance()
    if isinstance(state, ScaleByKalmanState):
        return variance, jax.tree.map(jnp.zeros_like, variance)
    without_prior = state.variance_without_prior()

    def added(with_prior, without):
        # Both are infinite where there is neither data nor prior: nothing was added.
        nothing = jnp.isinf(with_prior)
        return jnp.where(nothing, 0, 1 / jnp.where(nothing, 1, with_prior) - 1 / without)

    return without_prior, jax.tree.map(added, variance, without_prior)
