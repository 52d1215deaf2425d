"""The full filter as a gradient transformation: the covariance of all weights, for small nets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.filters.full import raveled, unraveled
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
from bayesfilt.optimizers.scale_by_kalman import growth_and_rate
from bayesfilt.optimizers.units import require_real_weights
from bayesfilt.theory import conditioned_on_gradient, relaxed_variance

MOST_WEIGHTS = 8192  # a covariance of 256 MiB in float32, read and written at every step


class ScaleByFullKalmanState(NamedTuple):
    """Carried by `scale_by_full_kalman`."""

    step: Int[Array, ""]
    first_moment: Params  # running mean of summed gradients, not debiased
    covariance: Float[Array, "n n"]  # of the optima of all weights, raveled in the tree's order
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]

    def posterior_variance(self) -> Params:
        """Marginal posterior variance of each weight's optimum; weight^2."""
        return unraveled(jnp.diagonal(self.covariance), self.first_moment)


def scale_by_full_kalman(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float = 0.9,
) -> optax.GradientTransformation:
    r"""Multiply the gradients' running mean by the posterior covariance of all weights [MAT-10].

    Each step predicts, $P \leftarrow a^2 P + q I$, then conditions on a gradient g worth the
    matrix $g g^T$: $P \leftarrow P - P g g^T P / (1 + g^T P g)$. That the precision is
    $g g^T$ is a named choice, not a law: the matrix whose diagonal is the g² of `scale_by_kalman`.
    The two are one where no gradient has two weights in it, on a single weight above all.

    The covariance starts at $\sigma^2 I$, or at 0 for $\sigma^2 = \infty$, as there. In float32 it
    is good while a gradient's gain $g^T P g$ stays below 1e6 or so: where $\sigma^2$ is very loose,
    use float64.

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight; the same in all directions.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight².
        b1: Memory of the running mean of gradients, in [0, 1).

    Returns:
        A transformation of *summed* gradients; memory and time per step are the square of the
        number of weights. It scales and turns, and does not change the sign.

    Raises:
        ValueError: A number outside its range; weights that are not real; more than 8192 weights.
    """
    owner = "scale_by_full_kalman"
    require_positive(owner, "drift_scale", drift_scale)
    require_positive(owner, "stationary_variance", stationary_variance, infinite=True)
    require_fraction(owner, "b1", b1)

    def init(params):
        require_real_weights(params)
        step, dtype = jnp.zeros((), jnp.int32), scalar_dtype(params)
        zeros = zeros_at_least_float32(params)
        _require_few_weights(owner, sum(leaf.size for leaf in jax.tree.leaves(zeros)), dtype)
        sigma2 = value_at(stationary_variance, step, dtype)
        first = jnp.where(jnp.isinf(sigma2), 0, sigma2)
        return ScaleByFullKalmanState(
            step=step,
            first_moment=zeros,
            covariance=jnp.diag(jnp.full_like(raveled(zeros), first, dtype)),
            drift_scale=value_at(drift_scale, step, dtype),
            stationary_variance=sigma2,
        )

    def update(updates, state, params=None):
        del params
        kind, dtype = state.covariance.dtype, state.drift_scale.dtype
        transition = (drift_scale, stationary_variance)
        growth, rate = scalars_at(growth_and_rate, transition, state.step, dtype)
        step = next_step(state.step)
        (debias,) = once_per_step(debias_factor(b1, step, dtype))
        first_moment = running_mean(b1, state.first_moment, updates)
        added = like(growth, kind) * jnp.eye(state.covariance.shape[0], dtype=kind)
        predicted = relaxed_variance(state.covariance, added, like(rate, kind))
        covariance = conditioned_on_gradient(predicted, like(raveled(updates), kind))
        momentum = like(raveled(first_moment), kind) * like(debias, kind)
        return unraveled(covariance @ momentum, updates), ScaleByFullKalmanState(
            step=step,
            first_moment=first_moment,
            covariance=covariance,
            drift_scale=value_at(drift_scale, state.step, dtype),
            stationary_variance=value_at(stationary_variance, state.step, dtype),
        )

    return optax.GradientTransformation(init, update)


def _require_few_weights(owner: str, weights: int, dtype: jnp.dtype) -> None:
    """Refuse a covariance that is too large, saying how large it would be."""
    if weights > MOST_WEIGHTS:
        size = weights**2 * dtype.itemsize / 2**20
        raise ValueError(
            f"{owner} keeps a covariance of all pairs of at most {MOST_WEIGHTS} weights, "
            f"got {weights}, which would need {size:.0f} MiB."
        )
