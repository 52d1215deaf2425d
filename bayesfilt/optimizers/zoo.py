"""Named optimizers: what a name on the command line stands for.

Leader and followers of a comparison share one AdamW setting. The filters get theirs from
the dictionary filter <-> AdamW, so each is "the same optimizer" as far as the theory can say.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import optax

from bayesfilt.checks import (
    require_at_least,
    require_fraction,
    require_non_negative,
    require_one_of,
    require_positive,
)
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.aliases import adabayes, adabayes_fixed_point, steady_state
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.parts import PartsOf, adam_parts, filter_parts
from bayesfilt.optimizers.weight_decay import decay_to_zero
from bayesfilt.theory import OrnsteinUhlenbeck, large_epsilon, transition_from_adamw

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One AdamW setting, from which every named optimizer is built."""

    learning_rate: float
    weight_decay: float  # "lr_scaled" convention: torch's and optax's
    batch_size: int
    num_steps: int  # length of the schedule
    schedule: str = "constant"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        require_positive("Setting", "learning_rate", self.learning_rate)
        require_non_negative("Setting", "weight_decay", self.weight_decay)
        require_at_least("Setting", "batch_size", self.batch_size, 1)
        require_at_least("Setting", "num_steps", self.num_steps, 1)
        require_one_of("Setting", "schedule", self.schedule, SCHEDULES)
        require_fraction("Setting", "b1", self.b1)
        require_fraction("Setting", "b2", self.b2)
        require_non_negative("Setting", "eps", self.eps)

    @property
    def transition(self) -> OrnsteinUhlenbeck:
        """The state transition whose tied decay is this setting's, at schedule factor 1."""
        return transition_from_adamw(self.learning_rate, self.weight_decay)

    @property
    def factor(self) -> ScalarOrSchedule:
        """The schedule's factor on the learning rate: 1, or a function of the step."""
        if self.schedule == "constant":
            return 1.0
        return optax.cosine_decay_schedule(1.0, self.num_steps)

    def scheduled(self, value: Scalar) -> ScalarOrSchedule:
        """`value` times the schedule's factor."""
        factor = self.factor
        return (lambda step: value * factor(step)) if callable(factor) else value


class NamedOptimizer(NamedTuple):
    """One entry of a comparison."""

    optimizer: optax.GradientTransformation
    parts: PartsOf | None  # how to take its update apart; None: not available


def named_optimizer(name: str, setting: Setting) -> NamedOptimizer:
    """Build the optimizer of this name for a setting.

    Raises:
        ValueError: An unknown name; the names that exist are listed, the nearest offered.
    """
    require_one_of("the zoo", "optimizers", name, OPTIMIZERS)
    return OPTIMIZERS[name](setting)


def _adamw(setting: Setting) -> NamedOptimizer:
    return _adam(setting, weight_decay=setting.weight_decay, eps=setting.eps)


def _adam_without_decay(setting: Setting) -> NamedOptimizer:
    return _adam(setting, weight_decay=0.0, eps=setting.eps)


def _adam_large_eps(setting: Setting) -> NamedOptimizer:
    # The fixed point's own epsilon, in units of the mean-loss gradient.
    eps = float(large_epsilon(*setting.transition)) / setting.batch_size
    return _adam(setting, weight_decay=setting.weight_decay, eps=eps + setting.eps)


def _adam(setting: Setting, *, weight_decay: float, eps: float) -> NamedOptimizer:
    rate = setting.scheduled(setting.learning_rate)
    b1, b2 = setting.b1, setting.b2
    return NamedOptimizer(
        optimizer=optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay),
        parts=adam_parts(rate, weight_decay, b1=b1, b2=b2, eps=eps),
    )


def _adabayes(setting: Setting) -> NamedOptimizer:
    eta, sigma2 = setting.transition
    return NamedOptimizer(
        optimizer=adabayes(
            setting.scheduled(eta), sigma2, batch_size=setting.batch_size, b1=setting.b1
        ),
        parts=filter_parts(b1=setting.b1),
    )


def _fixed_point(setting: Setting) -> NamedOptimizer:
    return _settled(setting, adabayes_fixed_point)


def _steady_state(setting: Setting) -> NamedOptimizer:
    return _settled(setting, steady_state)


def _settled(setting: Setting, recipe: Callable) -> NamedOptimizer:
    eta, sigma2 = setting.transition
    optimizer = recipe(
        setting.scheduled(eta),
        sigma2,
        batch_size=setting.batch_size,
        b1=setting.b1,
        b2=setting.b2,
    )
    return NamedOptimizer(optimizer=optimizer, parts=filter_parts(b1=setting.b1))


def _sgdw(setting: Setting) -> NamedOptimizer:
    """The quiet limit: SGD at rate sigma^2 * batch_size on the same debiased momentum."""
    sigma2 = setting.transition.stationary_variance
    if math.isinf(sigma2):
        raise ValueError("sgdw needs weight_decay > 0: its rate is the prior variance, got 0.")
    shrink = setting.learning_rate * setting.weight_decay
    return NamedOptimizer(
        optimizer=optax.chain(
            optax.ema(setting.b1, debias=True),
            optax.scale_by_learning_rate(setting.scheduled(sigma2 * setting.batch_size)),
            decay_to_zero(setting.scheduled(shrink)),
        ),
        parts=None,
    )


OPTIMIZERS: dict[str, Callable[[Setting], NamedOptimizer]] = {
    "adamw": _adamw,
    "adam": _adam_without_decay,
    "adam_large_eps": _adam_large_eps,
    "adabayes": _adabayes,
    "adabayes_fixed_point": _fixed_point,
    "steady_state": _steady_state,
    "sgdw": _sgdw,
}
