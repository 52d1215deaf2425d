"""The recursive filter as a gradient transformation: AdaBayes without its decay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import like, scalar_dtype, zeros_at_least_float32
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
from bayesfilt.theory import conditioned_variance, process_variance, relaxed_variance


class ScaleByKalmanState(NamedTuple):
    """Carried by `scale_by_kalman`."""

    step: Int[Array, ""]
    first_moment: Params  # running mean of summed gradients, not debiased
    variance: Params  # posterior variance of each weight's optimum
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum; weight^2."""
        return self.variance


def scale_by_kalman(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float = 0.9,
) -> optax.GradientTransformation:
    r"""Multiply the gradients' running mean by the filter's posterior variance [OPT-2].

    Each step predicts, $p \leftarrow a^2 p + q$, then conditions on a gradient g worth g²:
    $p \leftarrow 1/(1/p + g^2)$. That the precision is g² is a named choice, not a law.

    The variance starts at $\sigma^2$. A random walk, $\sigma^2 = \infty$, has no stationary
    variance; its optimum is taken to start where the weights do, at variance 0, and the step
    warms up by itself. Where a schedule takes $\sigma^2$ to 0 nothing drifts any more.

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight².
        b1: Memory of the running mean of gradients, in [0, 1).

    Returns:
        A transformation of *summed* gradients; it scales and does not change their sign.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    require_positive("scale_by_kalman", "drift_scale", drift_scale)
    require_positive("scale_by_kalman", "stationary_variance", stationary_variance, infinite=True)
    require_fraction("scale_by_kalman", "b1", b1)

    def init(params):
        require_real_weights(params)
        step, dtype = jnp.zeros((), jnp.int32), scalar_dtype(params)
        sigma2 = value_at(stationary_variance, step, dtype)
        first = jnp.where(jnp.isinf(sigma2), 0, sigma2)
        zeros = zeros_at_least_float32(params)
        return ScaleByKalmanState(
            step=step,
            first_moment=zeros,
            variance=jax.tree.map(lambda zero: zero + first.astype(zero.dtype), zeros),
            drift_scale=value_at(drift_scale, step, dtype),
            stationary_variance=sigma2,
        )

    def update(updates, state, params=None):
        del params
        dtype = state.drift_scale.dtype
        transition = (drift_scale, stationary_variance)
        growth, rate = scalars_at(growth_and_rate, transition, state.step, dtype)
        step = next_step(state.step)
        (debias,) = once_per_step(debias_factor(b1, step, dtype))

        def filtered(variance, gradient):
            kind = variance.dtype
            predicted = relaxed_variance(variance, like(growth, kind), like(rate, kind))
            return conditioned_variance(predicted, jnp.square(like(gradient, kind)))

        first_moment = running_mean(b1, state.first_moment, updates)
        variance = jax.tree.map(filtered, state.variance, updates)
        scaled = jax.tree.map(
            lambda p, m, g: like(p * (m * like(debias, m.dtype)), g.dtype),
            variance,
            first_moment,
            updates,
        )
        return scaled, ScaleByKalmanState(
            step=step,
            first_moment=first_moment,
            variance=variance,
            drift_scale=value_at(drift_scale, state.step, dtype),
            stationary_variance=value_at(stationary_variance, state.step, dtype),
        )

    return optax.GradientTransformation(init, update)


def growth_and_rate(
    eta: Float[Array, ""], sigma2: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Process variance q, and the rate q/sigma^2 at which the variance relaxes.

    Both are 0 once a schedule has taken sigma^2 to 0: nothing drifts any more.
    """
    drifts = sigma2 != 0  # NaN is a failure, and shows
    growth = process_variance(eta, jnp.where(drifts, sigma2, 1))
    growth = jnp.where(drifts, growth, 0)
    return growth, growth / jnp.where(drifts, sigma2, 1)
