"""The one AdamW setting that leader and followers of a comparison share."""

import dataclasses

from bayesfilt.checks import (
    require_at_least,
    require_fraction,
    require_non_negative,
    require_positive,
)
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.weight_decay import convention_schedule
from bayesfilt.optimizers.zoo.schedules import Factors, schedule_factors, times
from bayesfilt.theory import (
    AdamWSettings,
    OrnsteinUhlenbeck,
    convention_shrink,
    transition_from_adamw,
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One AdamW setting, from which every named optimizer is built.

    The numbers may be traced, so that a setting can be mapped over; batch size and schedule are
    fixed. `schedule` is a name of `SCHEDULES`, its own numbers behind it: `step:drop=0.1`.

    Raises:
        ValueError: A number out of its range, an unknown schedule.
    """

    learning_rate: Scalar
    weight_decay: Scalar  # "lr_scaled" convention: torch's and optax's
    batch_size: int
    num_steps: int  # length of the schedule
    schedule: str = "constant"
    b1: float = 0.9  # these three may be traced, too
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        require_positive("Setting", "learning_rate", self.learning_rate)
        require_non_negative("Setting", "weight_decay", self.weight_decay)
        require_at_least("Setting", "batch_size", self.batch_size, 1)
        require_at_least("Setting", "num_steps", self.num_steps, 1)
        require_fraction("Setting", "b1", self.b1)
        require_fraction("Setting", "b2", self.b2)
        require_non_negative("Setting", "eps", self.eps)
        _ = self.factors  # an unknown schedule is refused here and not at the first step

    @property
    def transition(self) -> OrnsteinUhlenbeck:
        """The state transition whose tied decay is this setting's, at schedule factor 1."""
        return transition_from_adamw(self.learning_rate, self.weight_decay)

    @property
    def factors(self) -> Factors:
        """What the schedule multiplies."""
        return schedule_factors(self.schedule, self.num_steps)

    @property
    def factor(self) -> ScalarOrSchedule:
        """The schedule's factor on the learning rate: 1, or a function of the step."""
        return times(1.0, self.factors.learning_rate)

    def scheduled(self, value: Scalar) -> ScalarOrSchedule:
        """`value` times the schedule's factor on the learning rate."""
        return times(value, self.factors.learning_rate)

    @property
    def drift_scale(self) -> ScalarOrSchedule:
        """Eta of the transition through the schedule."""
        return self.scheduled(self.transition.drift_scale)

    @property
    def stationary_variance(self) -> ScalarOrSchedule:
        """sigma^2 of the transition; a schedule that weakens the decay widens it."""
        sigma2, factor = self.transition.stationary_variance, self.factors.decay
        return sigma2 if factor is None else lambda step: sigma2 / factor(step)

    def shrink(self, convention: str, base: Scalar | None = None) -> ScalarOrSchedule:
        """Decoupled decay per step, as a number or a function of the step.

        Args:
            convention: "none" or one of `theory.CONVENTIONS`.
            base: The shrink at factor 1; by default learning_rate * weight_decay.
        """
        factors, rate = self.factors, self.learning_rate
        if convention == "none":
            return 0.0
        if convention == "lr_scaled":
            number = self.weight_decay
        else:
            number = rate * self.weight_decay if base is None else base
        settings = AdamWSettings(learning_rate=rate, weight_decay=number)
        if factors.learning_rate is None:
            at_base = convention_shrink(settings, 1.0, convention=convention)
            return times(at_base, factors.decay)
        by_schedule = convention_schedule(settings, factors.learning_rate, convention=convention)
        return times(1.0, by_schedule, factors.decay)
