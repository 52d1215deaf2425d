"""The validity map: where Adam, SGD and the fixed point are the filter, and where they are not.

Two pure numbers decide: eta * sqrt(v), a weight's RMS summed gradient times the drift scale, and
the prior ratio eta^2 / (2 sigma^2), its decay per step. Every variance is given in units of eta^2,
so the map has no other parameter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.checks import require_positive
from bayesfilt.theory import (
    adam_variance,
    fixed_point_variance,
    mean_square_variance,
    sgd_variance,
    steady_state_variance,
)

PRIOR_RATIOS = (1e-6, 1e-4, 1e-2, 0.5)
RMS_TIMES_DRIFT = np.geomspace(1e-6, 1e4, 121)


class ValidityMap(NamedTuple):
    """Variances over eta^2, by each formula."""

    rms_times_drift: np.ndarray  # (points,)
    prior_ratio: np.ndarray  # (ratios,)
    exact: np.ndarray  # (ratios, points): steady state of the recursion
    fixed_point: np.ndarray  # (ratios, points)
    adam: np.ndarray  # (points,)
    mean_square: np.ndarray  # (points,)
    sgd: np.ndarray  # (ratios,)


def validity_map(
    prior_ratios: Sequence[float] = PRIOR_RATIOS,
    rms_times_drift: Sequence[float] | np.ndarray = RMS_TIMES_DRIFT,
) -> ValidityMap:
    """Evaluate the exact steady state and what approximates it on a grid.

    Args:
        prior_ratios: eta^2 / (2 sigma^2) > 0, a row of the map each.
        rms_times_drift: eta * sqrt(v) > 0, v the mean square of the summed gradient.

    Raises:
        ValueError: A number that is not above zero.
    """
    for name, values in {"prior_ratios": prior_ratios, "rms_times_drift": rms_times_drift}.items():
        for value in values:
            require_positive("validity_map", name, value)
    ratio, rms = np.asarray(prior_ratios, float), np.asarray(rms_times_drift, float)
    formulas = _formulas(jnp.asarray(rms) ** 2, jnp.asarray(0.5 / ratio))
    return ValidityMap(
        rms_times_drift=rms,
        prior_ratio=ratio,
        **{name: np.asarray(values) for name, values in formulas.items()},
    )


@jax.jit
def _formulas(square: Float[Array, " points"], sigma2: Float[Array, " ratios"]) -> dict[str, Array]:
    """Every variance at drift scale 1, over (ratios, points) or one of them."""
    prior = sigma2[:, None]
    return {
        "exact": steady_state_variance(square, 1.0, prior),
        "fixed_point": fixed_point_variance(square, 1.0, prior),
        "adam": adam_variance(square, 1.0),
        "mean_square": mean_square_variance(square),
        "sgd": sgd_variance(jnp.zeros_like(sigma2), sigma2),
    }
