"""Gradient transformations whose variance has settled: a formula of the mean-square gradient.

The fixed point and the exact steady state differ in one line, the formula; everything
around it is here.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_non_negative, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.moments import (
    ScalarOrSchedule,
    debias_factor,
    next_count,
    once_per_step,
    running_mean,
    value_at,
    zeros_at_least_float32,
)
from bayesfilt.optimizers.units import at_least_float32, require_real_weights, scalar_dtype

VarianceFormula = Callable[[Array, Float[Array, ""], Float[Array, ""]], Array]


class SettledState(Protocol):
    """The fields that both states have."""

    count: Int[Array, ""]
    first_moment: Params  # running mean of summed gradients, not debiased
    mean_square_gradient: Params  # running mean of their squares, not debiased
    debias: Float[Array, ""]  # what makes the mean square unbiased
    eps_root: Float[Array, ""]
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]


def settled_variance(
    state: SettledState, formula: VarianceFormula, stationary_variance: Float[Array, ""]
) -> Params:
    """The formula at the state's debiased mean-square gradient, leaf by leaf."""

    def variance(mean_square):
        scalars = (state.debias, state.eps_root, state.drift_scale, stationary_variance)
        debias, eps_root, eta, sigma2 = (scalar.astype(mean_square.dtype) for scalar in scalars)
        return formula(mean_square * debias + eps_root, eta, sigma2)

    return jax.tree.map(variance, state.mean_square_gradient)


def scale_by_settled_variance(
    make_state: Callable[..., SettledState],
    formula: VarianceFormula,
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float,
    b2: float,
    eps_root: float,
) -> optax.GradientTransformation:
    """Multiply the gradients' running mean by a variance that is a formula of <g²>."""
    owner = make_state.__name__.removesuffix("State")
    require_positive(owner, "drift_scale", drift_scale)
    require_positive(owner, "stationary_variance", stationary_variance, infinite=True)
    require_fraction(owner, "b1", b1)
    require_fraction(owner, "b2", b2)
    require_non_negative(owner, "eps_root", eps_root)

    def init(params):
        require_real_weights(params)
        count, dtype = jnp.zeros((), jnp.int32), scalar_dtype(params)
        return make_state(
            count=count,
            first_moment=zeros_at_least_float32(params),
            mean_square_gradient=zeros_at_least_float32(params),
            debias=jnp.ones((), dtype),
            eps_root=jnp.asarray(eps_root, dtype),
            drift_scale=value_at(drift_scale, count, dtype),
            stationary_variance=value_at(stationary_variance, count, dtype),
        )

    def update(updates, state, params=None):
        del params
        dtype = state.drift_scale.dtype
        count = next_count(state.count)
        eta, sigma2, debias, first_debias = once_per_step(
            value_at(drift_scale, state.count, dtype),
            value_at(stationary_variance, state.count, dtype),
            debias_factor(b2, count, dtype),
            debias_factor(b1, count, dtype),
        )
        squares = jax.tree.map(lambda g: jnp.square(at_least_float32(g)), updates)
        state = make_state(
            count=count,
            first_moment=running_mean(b1, state.first_moment, updates),
            mean_square_gradient=running_mean(b2, state.mean_square_gradient, squares),
            debias=debias,
            eps_root=jnp.asarray(eps_root, dtype),
            drift_scale=eta,
            stationary_variance=sigma2,
        )

        def step(variance, moment, gradient):
            # Infinite where nothing was ever observed and nothing is known beforehand:
            # no gradient, no step.
            gain = jnp.where(jnp.isinf(variance), 0, variance)
            return (gain * (moment * first_debias.astype(moment.dtype))).astype(gradient.dtype)

        variance = settled_variance(state, formula, sigma2)
        return jax.tree.map(step, variance, state.first_moment, updates), state

    return optax.GradientTransformation(init, update)
