"""The fixed point of the filter as a gradient transformation: AdaBayes-FP without its decay."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.settled import scale_by_settled_variance, settled_variance
from bayesfilt.theory import fixed_point_variance


class ScaleByFixedPointState(NamedTuple):
    """Carried by `scale_by_fixed_point`."""

    count: Int[Array, ""]
    first_moment: Params  # running mean of summed gradients, not debiased
    mean_square_gradient: Params  # running mean of their squares, not debiased
    debias: Float[Array, ""]  # what makes the mean square unbiased
    eps_root: Float[Array, ""]
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum; weight^2; sigma^2 before any gradient."""
        return settled_variance(self, fixed_point_variance, self.stationary_variance)

    def variance_without_prior(self) -> Params:
        """The variance that an infinite sigma^2 would give; infinite where no gradient was seen."""
        infinite = jnp.full_like(self.stationary_variance, jnp.inf)
        return settled_variance(self, fixed_point_variance, infinite)


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
        fixed_point_variance,
        drift_scale,
        stationary_variance,
        b1=b1,
        b2=b2,
        eps_root=eps_root,
    )
