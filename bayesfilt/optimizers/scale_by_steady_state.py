"""The exact steady state of the filter as a gradient transformation."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.settled import SettledState, StepFormula, scale_by_settled_variance
from bayesfilt.theory import (
    process_variance,
    retention,
    steady_state_from_scalars,
    steady_state_variance,
)


class ScaleBySteadyStateState(SettledState):
    """Carried by `scale_by_steady_state`."""

    def formula(
        self, mean_square_gradient: Array, drift_scale: Array, stationary_variance: Array
    ) -> Array:
        """Variance as a function of the debiased mean-square gradient, edges included."""
        return steady_state_variance(mean_square_gradient, drift_scale, stationary_variance)


def scale_by_steady_state(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps_root: float = 0.0,
) -> optax.GradientTransformation:
    """Multiply the gradients' running mean by the filter's exact steady-state variance [OPT-4].

    Unlike the fixed point it holds at any gain: where drift_scale times the RMS gradient
    passes 1 the step turns from eta/|g| (Adam's) into 1/g^2 (the mean-square normaliser).

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight^2.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps_root: Added to the mean square, in units of the summed gradient squared; >= 0.

    Returns:
        A transformation of *summed* gradients; it scales and does not change their sign.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    return scale_by_settled_variance(
        ScaleBySteadyStateState,
        StepFormula(once=prior_precision_and_stiffness, per_weight=steady_state_from_scalars),
        drift_scale,
        stationary_variance,
        b1=b1,
        b2=b2,
        eps_root=eps_root,
    )


def prior_precision_and_stiffness(
    eta: Float[Array, ""], sigma2: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The steady state's scalars: 1/sigma^2, and 4 a^2/q (infinite once nothing drifts)."""
    drifts = sigma2 != 0  # NaN is a failure, and shows
    safe = jnp.where(drifts, sigma2, 1)
    growth = process_variance(eta, safe)
    moves = drifts & (growth > 0)
    stiffness = 4 * jnp.square(retention(eta, safe)) / jnp.where(moves, growth, 1)
    return jnp.where(drifts, 1 / safe, jnp.inf), jnp.where(moves, stiffness, jnp.inf)
