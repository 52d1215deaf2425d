"""Recipes that are no filter: what the filters are compared with, and what can refute them.

They take the gradient of the mean loss and its units; what decays, decays by a shrink that
stands in the state, so that the decay kept by any of them can be measured.
"""

from typing import Any

import jax.numpy as jnp
import optax

from bayesfilt.checks import require_fraction, require_non_negative, require_positive
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.moments import ScalarOrSchedule, value_at
from bayesfilt.optimizers.scale_by_adagrad import scale_by_adagrad
from bayesfilt.optimizers.scale_by_amsgrad import scale_by_amsgrad
from bayesfilt.optimizers.scale_by_power import scale_by_power
from bayesfilt.optimizers.weight_decay import Mask, convention_schedule, decay_to_zero
from bayesfilt.optimizers.widened import widened
from bayesfilt.theory import AdamWSettings


def power_adam(
    learning_rate: ScalarOrSchedule,
    *,
    power: Scalar = 0.5,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with (root mean square + eps)^(2 power) in the place of the root.

    Args:
        learning_rate: Above 0, or a schedule; its units depend on the power.
        power: p >= 0: 0 is momentum SGD, 1/2 AdamW, 1 the mean-square normaliser.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps: Added to the root mean square, in units of the mean-loss gradient; >= 0.
        weight_decay: The shrink per step is learning_rate * weight_decay, torch's convention.
        mask: Tree of bools or function of the weights; True = decays.

    Raises:
        ValueError: An argument out of range; weights or mask that do not fit.
    """
    scaled = scale_by_power(power, b1=b1, b2=b2, eps=eps)
    return _descending("power_adam", scaled, learning_rate, weight_decay, mask)


def amsgrad(
    learning_rate: ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad as torch has it, with decoupled decay; arguments as in `power_adam`."""
    scaled = scale_by_amsgrad(b1=b1, b2=b2, eps=eps)
    return _descending("amsgrad", scaled, learning_rate, weight_decay, mask)


def adagrad(
    learning_rate: ScalarOrSchedule,
    *,
    eps: float = 1e-10,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad as torch has it, with decoupled decay; arguments as in `power_adam`.

    Its steps fall like 1/sqrt(t), the decay does not: give a long run a schedule.
    """
    return _descending("adagrad", scale_by_adagrad(eps=eps), learning_rate, weight_decay, mask)


def adam_l2(
    learning_rate: ScalarOrSchedule,
    *,
    l2: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with an L2 penalty inside the gradient: torch's `Adam(weight_decay=l2)`.

    The penalty is normalised like the gradient it is part of, so it is no decay: a weight
    without any gradient moves towards 0 by about the learning rate per step, whatever `l2` is.

    Args:
        learning_rate: Above 0, or a schedule.
        l2: Coefficient of w in the gradient, of (l2/2)|w|^2 in the mean loss; >= 0.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps: Added outside the root; >= 0.
        mask: Tree of bools or function of the weights; True = penalised.

    Raises:
        ValueError: An argument out of range; weights that are not real.
    """
    require_positive("adam_l2", "learning_rate", learning_rate)
    require_non_negative("adam_l2", "l2", l2)
    return widened(
        optax.chain(
            optax.add_decayed_weights(l2, mask), optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
        )
    )


def adamc(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: Scalar,
    peak: Scalar | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam whose decay goes with the square of the learning rate, wd lr^2/peak [DICT-2].

    Defazio's correction (2025) of AdamW for normalised layers, applied to every weight that
    decays. It is the "filter" convention of a fixed stationary variance,
    sigma^2 = peak/(2 weight_decay), found from another side. At the peak, and for a constant
    learning rate, it is AdamW.

    Args:
        learning_rate: lr, above 0, or a schedule.
        weight_decay: wd >= 0; the shrink per step is peak * wd at the peak, as in torch.
        peak: Largest learning rate of a schedule, required for one. A number is its own peak.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of squared gradients, in [0, 1).
        eps: Added outside the root; >= 0.
        mask: Tree of bools or function of the weights; True = decays.

    Raises:
        ValueError: An argument out of range; a schedule without its peak; weights or mask that
            do not fit.
    """
    require_positive("adamc", "learning_rate", learning_rate)
    require_non_negative("adamc", "weight_decay", weight_decay)
    if peak is None and callable(learning_rate):
        raise ValueError("adamc needs the peak of a learning-rate schedule, got peak=None.")
    top: Any = learning_rate if peak is None else peak
    require_positive("adamc", "peak", top)
    at_peak = AdamWSettings(learning_rate=top, weight_decay=top * weight_decay)

    def factor(step):
        return value_at(learning_rate, step, jnp.result_type(float)) / top

    shrink = convention_schedule(at_peak, factor, convention="filter")
    return _with_decay(optax.adam(learning_rate, b1=b1, b2=b2, eps=eps), shrink, mask)


def sgdw(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum and decoupled decay, as Loshchilov and Hutter (2019) write it.

    m <- momentum m + lr g, then w <- w - m - s w: a schedule acts on a gradient when it
    arrives, and the memory of large steps outlives a drop of the learning rate.

    Args:
        learning_rate: lr, above 0, or a schedule: their alpha times the schedule's factor.
        momentum: Kept of the last step, in [0, 1); old gradients add up and are not averaged.
        weight_decay: s, the per-step shrink itself, not multiplied by the learning rate. They
            multiply it by the schedule's factor: hand in that product as a schedule.
        mask: Tree of bools or function of the weights; True = decays.

    Raises:
        ValueError: An argument out of range; weights or mask that do not fit.
    """
    require_positive("sgdw", "learning_rate", learning_rate)
    require_fraction("sgdw", "momentum", momentum)
    steps = optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))
    return _with_decay(steps, weight_decay, mask)


def _descending(
    owner: str,
    scaled: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    mask: Mask | None,
) -> optax.GradientTransformationExtraArgs:
    """Step down what is scaled, and decay by learning_rate * weight_decay."""
    require_positive(owner, "learning_rate", learning_rate)
    require_non_negative(owner, "weight_decay", weight_decay)
    steps = optax.chain(scaled, optax.scale_by_learning_rate(learning_rate))
    return _with_decay(steps, _product(learning_rate, weight_decay), mask)


def _with_decay(
    steps: optax.GradientTransformation, shrink: ScalarOrSchedule, mask: Mask | None
) -> optax.GradientTransformationExtraArgs:
    return widened(optax.chain(steps, decay_to_zero(shrink, mask=mask)))


def _product(left: ScalarOrSchedule, right: ScalarOrSchedule) -> ScalarOrSchedule:
    """Of two numbers, a number, so that a shrink out of range is refused at once."""
    if not (callable(left) or callable(right)):
        return left * right
    dtype = jnp.result_type(float)
    return lambda step: value_at(left, step, dtype) * value_at(right, step, dtype)
