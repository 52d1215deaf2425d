"""The filters of the 2018 papers under the names these gave them: BRMSprop and BAdam.

Their text could not be read beyond the abstracts; what stands here is our derivation
(`paper_notes/derivations/velocity.md`).
"""

import optax

from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.aliases import adabayes
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.scale_by_velocity import scale_by_velocity
from bayesfilt.optimizers.units import sum_over_batch
from bayesfilt.optimizers.weight_decay import DecayOrder, Mask


def brmsprop(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The recursive filter of each gradient by itself: `adabayes` with b1 = 0.

    Without a running mean in the gradient's place every step is the filter's own. That this is
    the BRMSprop of Aitchison (2018) is reconstructed from its abstract.

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight^2.
        batch_size: Examples whose mean loss is differentiated; required.
        weight_decay: None: tied, to first order, eta^2/(2 sigma^2) per step. A number or
            schedule: the per-step shrink itself.
        decay_order: "before": (1-s) w + p g. "after": (1-s)(w + p g), the exact filter.
        mask: Tree of bools or function of the weights; True = decays.

    Returns:
        An optax optimizer of mean-loss gradients; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit.
    """
    return adabayes(
        drift_scale,
        stationary_variance,
        batch_size=batch_size,
        b1=0.0,
        weight_decay=weight_decay,
        decay_order=decay_order,
        mask=mask,
    )


def badam(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    velocity_shrink: Scalar = 0.1,
    velocity_drift_scale: ScalarOrSchedule | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The velocity filter as an optimizer: momentum, look-ahead and decay from one model.

    Each optimum has a velocity. The weights you hold are the filter's predicted mean, so the
    gradient is taken where Nesterov takes it; the gradient moves the weight directly (RMSprop's
    part) and through the velocity (Adam's). A gradient counts with precision g^2. With
    `velocity_shrink=1` and `velocity_drift_scale=0` it is `brmsprop` decayed "after", exactly.

    Args:
        drift_scale: eta > 0 or a schedule: deviation of each optimum's own move per step,
            velocity apart; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight^2.
        batch_size: Examples whose mean loss is differentiated; required.
        velocity_shrink: c in [0, 1], fraction of the velocity forgotten per step; 1 - c is
            Adam's b1.
        velocity_drift_scale: kappa >= 0 or a schedule: deviation of the velocity's move per
            step; weight per step. None: c * eta. A shake of the velocity moves the optimum by
            kappa/c before it is forgotten, so that then both sources of drift carry it equally
            far, and neither RMSprop's part of the step nor Adam's vanishes.
        weight_decay: None: tied, and exact, 1 - exp(-eta^2/(2 sigma^2)) per step; the other
            recipes tie to first order. A number or schedule: the per-step shrink itself.
        mask: Tree of bools or function of the weights; True = decays.

    Returns:
        An optax optimizer of mean-loss gradients; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_velocity(
            drift_scale,
            stationary_variance,
            velocity_shrink=velocity_shrink,
            velocity_drift_scale=velocity_drift_scale,
            weight_decay=weight_decay,
            mask=mask,
        ),
    )
