"""The fixed point of the filter as a gradient transformation: AdaBayes-FP without its decay."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.settled import SettledState, StepFormula, scale_by_settled_variance
from bayesfilt.theory import fixed_point_from_epsilon, fixed_point_variance, large_epsilon


class ScaleByFixedPointState(SettledState):
    """Carried by `scale_by_fixed_point`."""

    def formula(
        self, mean_square_gradient: Array, drift_scale: Array, stationary_variance: Array
    ) -> Array:
        """Variance as a function of the debiased mean-square gradient, edges included."""
        return fixed_point_variance(mean_square_gradient, drift_scale, stationary_variance)


def scale_by_fixed_point(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps_root: float = 0.0,
) -> optax.GradientTransformation:
    """Multiply the gradients' running mean by the filter's fixed-point variance [OPT-3].

    The mean square of the summed gradient, debiased, stands for the precision. First order
    in the gain: where drift_scale times the RMS gradient nears 1, the exact filter takes
    much smaller steps (see `scale_by_steady_state`).

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
        ScaleByFixedPointState,
        StepFormula(once=rate_and_half_epsilon, per_weight=fixed_point_from_epsilon),
        drift_scale,
        stationary_variance,
        b1=b1,
        b2=b2,
        eps_root=eps_root,
    )


def rate_and_half_epsilon(
    eta: Float[Array, ""], sigma2: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The fixed point's scalars: eta, and half of eta/sigma^2 (infinite once sigma^2 is 0)."""
    drifts = sigma2 != 0  # NaN is a failure, and shows
    return eta, jnp.where(drifts, 0.5 * large_epsilon(eta, jnp.where(drifts, sigma2, 1)), jnp.inf)
