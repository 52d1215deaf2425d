"""Recipes: optimizers as chains of the transformations next to this file.

They take the gradient of the mean loss, like any optax optimizer, and the batch size that
turns it into the summed gradient of the filter.
"""

import optax

from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.scale_by_fixed_point import scale_by_fixed_point
from bayesfilt.optimizers.scale_by_kalman import scale_by_kalman
from bayesfilt.optimizers.scale_by_steady_state import scale_by_steady_state
from bayesfilt.optimizers.units import sum_over_batch
from bayesfilt.optimizers.weight_decay import DecayOrder, Mask, transition_decay


def adabayes(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    b1: float = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The recursive Bayesian filter of Aitchison (2020) as an optimizer.

    Args:
        drift_scale: eta > 0 or a schedule: deviation of each optimum's move per step, in
            units of a weight; Adam's learning rate where gradients are loud.
        stationary_variance: sigma^2 > 0 or a schedule: prior variance of each optimum, weight^2;
            times batch_size, SGD's learning rate where gradients are quiet. Infinity: no prior,
            no tied decay; the variance then starts at 0 and warms up.
        batch_size: Examples whose mean loss is differentiated; required, because a wrong one
            changes the regime silently.
        b1: Memory of the running mean that stands in for the gradient, in [0, 1).
        weight_decay: None: tied, to first order, eta^2/(2 sigma^2) per step. A number or
            schedule: the per-step shrink itself; `1 - retention` makes the exact filter.
        decay_order: "before": (1-s) w + p g, AdamW's order. "after": (1-s)(w + p g), the
            exact filter, whose predicted mean is the weight you hold.
        mask: Tree of bools or function of the weights; True = decays. It does not touch
            the variance.

    Returns:
        An optax optimizer; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_kalman(drift_scale, stationary_variance, b1=b1),
        optax.scale(-1.0),
        transition_decay(drift_scale, stationary_variance, weight_decay, decay_order, mask),
    )


def adabayes_fixed_point(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    b1: float = 0.9,
    b2: float = 0.999,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The filter at its fixed point: Adam with a prior, Aitchison's AdaBayes-FP (2020).

    With `stationary_variance=inf` and a given `weight_decay` it is AdamW without epsilon; with
    quiet gradients it is SGD with learning rate `stationary_variance * batch_size`.

    Args:
        drift_scale: eta > 0 or a schedule: Adam's learning rate where gradients are loud.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight^2.
        batch_size: Examples whose mean loss is differentiated; required.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps_root: Added to the mean square of the *summed* gradient, inside the root; >= 0.
        weight_decay: None: tied, eta^2/(2 sigma^2) per step; a number or schedule: the
            per-step shrink itself.
        decay_order: "before": (1-s) w + p g; "after": (1-s)(w + p g).
        mask: Tree of bools or function of the weights; True = decays.

    Returns:
        An optax optimizer; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_fixed_point(drift_scale, stationary_variance, b1=b1, b2=b2, eps_root=eps_root),
        optax.scale(-1.0),
        transition_decay(drift_scale, stationary_variance, weight_decay, decay_order, mask),
    )


def steady_state(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    b1: float = 0.9,
    b2: float = 0.999,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The filter at its exact steady state; arguments as in `adabayes_fixed_point`.

    It differs from the fixed point where drift_scale times the RMS summed gradient is not
    small: there the exact filter's step falls like 1/g^2, not eta/|g|.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_steady_state(drift_scale, stationary_variance, b1=b1, b2=b2, eps_root=eps_root),
        optax.scale(-1.0),
        transition_decay(drift_scale, stationary_variance, weight_decay, decay_order, mask),
    )
