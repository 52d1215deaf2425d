"""Recipes of the filters that know how weights hang together, as `aliases` has the others."""

import optax

from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.scale_by_full_kalman import scale_by_full_kalman
from bayesfilt.optimizers.units import sum_over_batch
from bayesfilt.optimizers.weight_decay import DecayOrder, Mask, transition_decay


def kalman_full(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    b1: float = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The filter with the covariance of all weights, for nets of at most 8192 of them.

    What `adabayes` is with one variance per weight. A full matrix in place of the diagonal makes
    its steps larger where weights can stand in for each other: each is then less certain than it
    looks by itself.

    Args:
        drift_scale: eta > 0 or a schedule: deviation of each optimum's move per step, in
            units of a weight.
        stationary_variance: sigma^2 > 0 or a schedule: prior variance of each optimum, weight^2.
            Infinity: no prior, no tied decay; the covariance then starts at 0 and warms up.
        batch_size: Examples whose mean loss is differentiated; required.
        b1: Memory of the running mean that stands in for the gradient, in [0, 1).
        weight_decay: None: tied, to first order, eta^2/(2 sigma^2) per step. A number or
            schedule: the per-step shrink itself.
        decay_order: "before": (1-s) w + P g. "after": (1-s)(w + P g), the exact filter.
        mask: Tree of bools or function of the weights; True = decays. It does not touch
            the covariance.

    Returns:
        An optax optimizer; `update` needs the weights. Its state costs the square of the number of
        weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit; more than
            8192 weights.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_full_kalman(drift_scale, stationary_variance, b1=b1),
        optax.scale(-1.0),
        transition_decay(drift_scale, stationary_variance, weight_decay, decay_order, mask),
    )
