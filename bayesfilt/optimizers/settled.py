"""Gradient transformations whose variance has settled: a formula of the mean-square gradient.

The fixed point and the exact steady state differ in one line, the formula; everything
around it is here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_non_negative, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, like, scalar_dtype, zeros_at_least_float32
from bayesfilt.optimizers.moments import (
    ScalarOrSchedule,
    debias_factor,
    next_step,
    once_per_step,
    running_mean,
    scalars_at,
    value_at,
)
from bayesfilt.optimizers.units import require_real_weights


class SettledState(NamedTuple):
    """Moments and the step's scalars; each transformation's own state adds its formula."""

    step: Int[Array, ""]  # gradients seen so far
    first_moment: Params  # running mean of summed gradients, not debiased
    mean_square_gradient: Params  # running mean of their squares, not debiased
    debias: Float[Array, ""]  # what makes the mean square unbiased
    eps_root: Float[Array, ""]
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]

    def formula(
        self, mean_square_gradient: Array, drift_scale: Array, stationary_variance: Array
    ) -> Array:
        """Variance as a function of the debiased mean-square gradient, edges included."""
        raise TypeError("SettledState is a base: its subclasses bring the formula.")

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum; weight²; σ² before any gradient."""
        return self._variance(self.stationary_variance)

    def variance_without_prior(self) -> Params:
        """The variance that an infinite σ² would give; infinite where no gradient was seen."""
        return self._variance(jnp.full_like(self.stationary_variance, jnp.inf))

    def _variance(self, stationary_variance: Float[Array, ""]) -> Params:
        def variance(mean_square):
            scalars = (self.debias, self.eps_root, self.drift_scale, stationary_variance)
            debias, eps_root, eta, sigma2 = (scalar.astype(mean_square.dtype) for scalar in scalars)
            return self.formula(mean_square * debias + eps_root, eta, sigma2)

        return jax.tree.map(variance, self.mean_square_gradient)


class StepFormula(NamedTuple):
    """The same formula split for the pass over the weights, where every operation counts."""

    once: Callable[[Array, Array], tuple[Array, ...]]  # (eta, sigma^2) -> the step's scalars
    per_weight: Callable[..., Array]  # (mean square > 0, *scalars) -> variance


def scale_by_settled_variance(
    make_state: type[SettledState],
    formula: StepFormula,
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
        step, dtype = jnp.zeros((), jnp.int32), scalar_dtype(params)
        return make_state(
            step=step,
            first_moment=zeros_at_least_float32(params),
            mean_square_gradient=zeros_at_least_float32(params),
            debias=jnp.ones((), dtype),
            eps_root=jnp.asarray(eps_root, dtype),
            drift_scale=value_at(drift_scale, step, dtype),
            stationary_variance=value_at(stationary_variance, step, dtype),
        )

    def update(updates, state, params=None):
        del params
        dtype = state.drift_scale.dtype
        step = next_step(state.step)
        debias, first_debias = once_per_step(
            debias_factor(b2, step, dtype), debias_factor(b1, step, dtype)
        )
        transition = (drift_scale, stationary_variance)
        scalars = scalars_at(formula.once, transition, state.step, dtype)
        tiny = smallest_square(updates)
        (floor,) = scalars_at(lambda eps: (eps + tiny,), [eps_root], state.step, dtype)
        squares = jax.tree.map(lambda g: jnp.square(at_least_float32(g)), updates)
        first_moment = running_mean(b1, state.first_moment, updates)
        mean_square = running_mean(b2, state.mean_square_gradient, squares)

        def scaled(square, moment, gradient):
            kind = square.dtype
            mean_square = square * like(debias, kind) + like(floor, kind)
            variance = formula.per_weight(mean_square, *(like(x, kind) for x in scalars))
            return like(variance * (moment * like(first_debias, kind)), gradient.dtype)

        scaled_updates = jax.tree.map(scaled, mean_square, first_moment, updates)
        return scaled_updates, make_state(
            step=step,
            first_moment=first_moment,
            mean_square_gradient=mean_square,
            debias=debias,
            eps_root=jnp.asarray(eps_root, dtype),
            drift_scale=value_at(drift_scale, state.step, dtype),
            stationary_variance=value_at(stationary_variance, state.step, dtype),
        )

    return optax.GradientTransformation(init, update)


def smallest_square(updates: Params) -> float:
    """The least that keeps a mean square above zero in the leaves' types.

    A weight without any gradient and without a prior has an infinite variance and a momentum of
    zero. With its square at the smallest normal number its step is 0, not NaN, and a gradient
    whose square has vanished from the running mean moves its weight by a few dozen drift
    scales at most.
    """
    widths = (at_least_float32(leaf).dtype for leaf in jax.tree.leaves(updates))
    return max((float(jnp.finfo(width).tiny) for width in widths), default=0.0)
