"""The loud limit: optimizers that divide by the root of a mean square."""

import math
from typing import Any

import optax

from bayesfilt.checks import concrete_number, require_fraction, require_positive
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.direction_preserving import normalized as normalized_of
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.parts import adam_parts
from bayesfilt.optimizers.rivals import adagrad as adagrad_of
from bayesfilt.optimizers.rivals import adam_l2 as adam_l2_of
from bayesfilt.optimizers.rivals import adamc as adamc_of
from bayesfilt.optimizers.rivals import amsgrad as amsgrad_of
from bayesfilt.optimizers.rivals import power_adam as power_adam_of
from bayesfilt.optimizers.weight_decay import decay_to_zero
from bayesfilt.optimizers.widened import widened
from bayesfilt.optimizers.zoo.recipe import NamedOptimizer, stepping
from bayesfilt.optimizers.zoo.schedules import times
from bayesfilt.optimizers.zoo.setting import Setting
from bayesfilt.theory import large_epsilon


def rmsprop(setting: Setting, *, b2: Scalar) -> NamedOptimizer:
    """RMSprop with epsilon outside the root, as torch has it."""
    require_fraction("rmsprop", "b2", b2)
    rate = setting.scheduled(setting.learning_rate)
    made = optax.rmsprop(rate, decay=b2, eps=setting.eps, eps_in_sqrt=False)
    return stepping(made, 0.0)


def adam(setting: Setting) -> NamedOptimizer:
    """Adam without any decay."""
    return _adamw(setting, 0.0, "none", setting.eps)


def adamw(setting: Setting) -> NamedOptimizer:
    """AdamW as optax and torch have it."""
    return _adamw(setting, setting.weight_decay, "lr_scaled", setting.eps)


def adam_large_eps(setting: Setting) -> NamedOptimizer:
    """AdamW with the prior for its epsilon, in units of the mean-loss gradient."""
    eps = large_epsilon(*setting.transition) / setting.batch_size + setting.eps
    return _adamw(setting, setting.weight_decay, "lr_scaled", eps)


def adamw_paper(setting: Setting, *, weight_decay: Scalar | None) -> NamedOptimizer:
    """AdamW whose number for the decay is the shrink, linear in the schedule."""
    return _adam_and_shrink(setting, "adamw_paper", "paper", weight_decay)


def adamw_filter(setting: Setting, *, weight_decay: Scalar | None) -> NamedOptimizer:
    """AdamW whose number for the decay is the shrink, quadratic in the schedule."""
    return _adam_and_shrink(setting, "adamw_filter", "filter", weight_decay)


def nadam(setting: Setting) -> NamedOptimizer:
    """NAdam, from optax."""
    return _nadam(setting, "none")


def nadamw(setting: Setting) -> NamedOptimizer:
    """NAdamW, from optax."""
    return _nadam(setting, "lr_scaled")


def adam_l2(setting: Setting) -> NamedOptimizer:
    """Adam with the setting's weight decay as the coefficient of an L2 penalty."""
    rate, memory = setting.scheduled(setting.learning_rate), _memory(setting, setting.eps)
    return NamedOptimizer(
        optimizer=adam_l2_of(rate, l2=setting.weight_decay, **memory),
        parts=adam_parts(rate, 0.0, **memory),
    )


def adamc(setting: Setting) -> NamedOptimizer:
    """Adam with a decay that goes with the square of the learning rate."""
    shrink, rate = setting.shrink("filter"), setting.scheduled(setting.learning_rate)
    if setting.factors.decay is not None:
        return _adam_beside(setting, shrink, setting.eps)
    memory = _memory(setting, setting.eps)
    made = adamc_of(rate, weight_decay=setting.weight_decay, peak=setting.learning_rate, **memory)
    return NamedOptimizer(optimizer=made, parts=adam_parts(rate, shrink, **memory))


def power_adam(setting: Setting, *, power: Scalar, learning_rate: Scalar | None) -> NamedOptimizer:
    """Adam with another power of the mean square; the decay is the setting's own."""
    rate = own_rate("power_adam", setting, learning_rate)
    # The recipe multiplies its decay by its own rate, whose units go with the power.
    decay = setting.weight_decay * (setting.learning_rate / rate)
    made = power_adam_of(
        setting.scheduled(rate),
        power=power,
        weight_decay=times(decay, setting.factors.decay),
        **_memory(setting, setting.eps),
    )
    return NamedOptimizer(optimizer=made, parts=None)


def adagrad(setting: Setting, *, learning_rate: Scalar | None, eps: float) -> NamedOptimizer:
    """AdaGrad as torch has it."""
    rate = own_rate("adagrad", setting, learning_rate)
    return NamedOptimizer(optimizer=adagrad_of(setting.scheduled(rate), eps=eps), parts=None)


def amsgrad(setting: Setting) -> NamedOptimizer:
    """AMSGrad as torch has it."""
    rate = setting.scheduled(setting.learning_rate)
    made = amsgrad_of(rate, **_memory(setting, setting.eps))
    return NamedOptimizer(optimizer=made, parts=None)


def normalized(setting: Setting, *, output_axis: float) -> NamedOptimizer:
    """Adam on the directions of every unit's incoming weights."""
    axis = concrete_number(output_axis)
    if axis is None or not math.isfinite(axis) or axis % 1 != 0:
        raise ValueError(f"normalized needs a whole output_axis, got output_axis={output_axis!r}.")
    rate, memory = setting.scheduled(setting.learning_rate), _memory(setting, setting.eps)
    made = normalized_of(rate, output_axis=int(axis), **memory)
    return NamedOptimizer(optimizer=made, parts=None)


def amsgrad_optax(setting: Setting) -> NamedOptimizer:
    """AMSGrad as optax has it: the maximum is of the mean square after its bias correction."""
    rate = setting.scheduled(setting.learning_rate)
    return stepping(optax.amsgrad(rate, **_memory(setting, setting.eps)), 0.0)


def adagrad_optax(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """AdaGrad as optax has it: the sum begins at 0.1, epsilon stands inside the root."""
    rate = own_rate("adagrad_optax", setting, learning_rate)
    return stepping(optax.adagrad(setting.scheduled(rate)), 0.0)


def own_rate(owner: str, setting: Setting, learning_rate: Scalar | None) -> Scalar:
    """The learning rate that an optimizer was given, else the setting's."""
    if learning_rate is None:
        return setting.learning_rate
    require_positive(owner, "learning_rate", learning_rate)
    return learning_rate


def _adamw(setting: Setting, weight_decay: Scalar, convention: str, eps: Scalar) -> NamedOptimizer:
    """AdamW from optax; where the schedule has the decay apart, Adam with the decay beside it."""
    if setting.factors.decay is not None:
        return _adam_beside(setting, setting.shrink(convention), eps)
    rate, memory = setting.scheduled(setting.learning_rate), _memory(setting, eps)
    return NamedOptimizer(
        optimizer=widened(optax.adamw(rate, weight_decay=weight_decay, **memory)),
        parts=adam_parts(rate, setting.shrink(convention), **memory),
    )


def _adam_and_shrink(
    setting: Setting, owner: str, convention: str, weight_decay: Scalar | None
) -> NamedOptimizer:
    if weight_decay is not None:
        require_fraction(owner, "weight_decay", weight_decay)
    return _adam_beside(setting, setting.shrink(convention, weight_decay), setting.eps)


def _adam_beside(setting: Setting, shrink: ScalarOrSchedule, eps: Scalar) -> NamedOptimizer:
    """Adam, and a shrink that need not follow its learning rate."""
    rate, memory = setting.scheduled(setting.learning_rate), _memory(setting, eps)
    return NamedOptimizer(
        optimizer=widened(optax.chain(optax.adam(rate, **memory), decay_to_zero(shrink))),
        parts=adam_parts(rate, shrink, **memory),
    )


def _memory(setting: Setting, eps: Any) -> dict[str, Any]:
    return {"b1": setting.b1, "b2": setting.b2, "eps": eps}


def _nadam(setting: Setting, convention: str) -> NamedOptimizer:
    rate = setting.scheduled(setting.learning_rate)
    made = optax.nadam(rate, **_memory(setting, setting.eps))
    return stepping(made, setting.shrink(convention))
