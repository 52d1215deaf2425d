"""Schedules: factors on the learning rate, 1 at its base, from a name and its numbers.

`step -> factor`, for a step or an array of them, 0 being the first. optax's own are used where
it has them.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.catalogue import SCHEDULE_FACTS, Facts, name_and_numbers
from bayesfilt.checks import (
    require_at_least,
    require_fraction,
    require_non_negative,
    require_number,
    require_positive,
)

_LAST_STEP = 2**31 - 1
_ROUNDING = 1e-12


class Factors(NamedTuple):
    """What a schedule multiplies; None: it leaves that alone."""

    learning_rate: optax.Schedule | None = None
    decay: optax.Schedule | None = None  # beyond what the learning rate's factor does to it
    # Stands last in a chain and scales the whole step by what the losses say.
    metric: optax.GradientTransformationExtraArgs | None = None


class ScheduleRecipe(NamedTuple):
    """A named schedule."""

    facts: Facts
    build: Callable[..., Factors]  # (num_steps, **its own numbers)


class Periods(NamedTuple):
    """Where each period of a schedule with restarts begins, and how long it is; in steps."""

    start: tuple[int, ...]
    length: tuple[int, ...]


def schedule_factors(word: str, num_steps: int) -> Factors:
    """What the schedule called `word` (`name:number=value,...`) makes of a run.

    Raises:
        ValueError: An unknown name or number, or a number out of its range.
    """
    facts, numbers = name_and_numbers("schedules", word, SCHEDULE_FACTS)
    return SCHEDULES[facts.name].build(num_steps, **numbers)


def constant(num_steps: int) -> Factors:
    """No schedule."""
    del num_steps
    return Factors()


def step(num_steps: int, *, drop: float, first: float, second: float, third: float) -> Factors:
    """Down by the factor `drop` at three fractions of the run."""
    require_positive("step", "drop", drop)
    _require_at_most_one("step", "drop", drop)
    if not 0 <= first <= second <= third <= 1:
        raise ValueError(
            "step needs 0 <= first <= second <= third <= 1, fractions of the run, got"
            f" {first:g}, {second:g}, {third:g}."
        )
    scales: dict[int, float] = {}
    for fraction in (first, second, third):
        # The first step at or after that fraction; 0.7 * 10 is a rounding above 7.
        at = math.ceil(fraction * num_steps * (1 - _ROUNDING))
        scales[at] = scales.get(at, 1.0) * drop
    return Factors(learning_rate=optax.piecewise_constant_schedule(1.0, scales))


def exponential(num_steps: int, *, end: float) -> Factors:
    """Down by one factor per step, to `end` at the end of the run."""
    require_positive("exponential", "end", end)
    _require_at_most_one("exponential", "end", end)
    return Factors(learning_rate=optax.exponential_decay(1.0, num_steps, end))


def cosine(num_steps: int, *, end: float) -> Factors:
    """Down along half a cosine, to `end` at the end of the run."""
    require_fraction("cosine", "end", end)
    return Factors(learning_rate=optax.cosine_decay_schedule(1.0, num_steps, alpha=end))


def warm_restarts(num_steps: int, *, T_0: float | None, T_mult: float) -> Factors:
    """A cosine to 0 in every period, and back to 1 where the next begins."""
    periods = restart_periods("warm_restarts", num_steps, T_0, T_mult)
    return Factors(learning_rate=_cosine_in_each(periods))


def normalised_decay(num_steps: int, *, T_0: float | None, T_mult: float) -> Factors:
    """Warm restarts, and a decay like 1/sqrt(steps of the current period), 1 in the first.

    The setting's weight decay is the first period's: `theory.normalised_weight_decay` makes it.
    """
    periods = restart_periods("normalised_decay", num_steps, T_0, T_mult)
    weaker = [math.sqrt(periods.length[0] / length) for length in periods.length]
    return Factors(
        learning_rate=_cosine_in_each(periods),
        decay=lambda step: jnp.asarray(weaker)[_current(periods, step)],
    )


def cyclical(num_steps: int, *, low: float, half_cycle: float | None) -> Factors:
    """Up from `low` to 1 in `half_cycle` steps, down again in as many, and so on."""
    half = max(1, num_steps // 8) if half_cycle is None else half_cycle
    require_non_negative("cyclical", "low", low)
    _require_at_most_one("cyclical", "low", low)
    require_at_least("cyclical", "half_cycle", half, 1)

    def factor(step):
        return 1 - (1 - low) * jnp.abs(jnp.mod(jnp.asarray(step) / half, 2) - 1)

    return Factors(learning_rate=factor)


def reduce_on_plateau(
    num_steps: int, *, factor: float, patience: float, window: float, cooldown: float
) -> Factors:
    """Smaller steps once the mean loss of a window has had no new best for a while."""
    del num_steps
    require_positive("reduce_on_plateau", "factor", factor)
    if factor >= 1:
        raise ValueError(f"reduce_on_plateau needs factor < 1, got factor={factor:g}.")
    for name, value, least in (("patience", patience, 1), ("window", window, 1)):
        require_at_least("reduce_on_plateau", name, value, least)
    require_at_least("reduce_on_plateau", "cooldown", cooldown, 0)
    for name, value in (("patience", patience), ("window", window), ("cooldown", cooldown)):
        if value > _LAST_STEP:  # optax counts in int32
            raise ValueError(f"reduce_on_plateau needs {name} < 2^31, got {name}={value:g}.")
    rule = optax.contrib.reduce_on_plateau(
        factor=factor,
        patience=int(patience),
        accumulation_size=int(window),
        cooldown=int(cooldown),
    )

    def update(updates, state, params=None, *, value=None, **extra):
        if value is None:
            raise ValueError(
                "reduce_on_plateau needs a metric: call update(updates, state, params, value=loss)."
            )
        require_number("reduce_on_plateau", "value", value)
        if jnp.shape(value):
            raise ValueError(
                f"reduce_on_plateau needs one number for value, got shape {jnp.shape(value)}."
            )
        return rule.update(updates, state, params, value=value, **extra)

    return Factors(metric=optax.GradientTransformationExtraArgs(rule.init, update))


def _require_at_most_one(owner: str, name: str, value: float) -> None:
    """Refuse a factor above 1, the learning rate's base."""
    if value > 1:
        raise ValueError(f"{owner} needs {name} <= 1, the base of the rate, got {name}={value:g}.")


def restart_periods(owner: str, num_steps: int, T_0: float | None, T_mult: float) -> Periods:
    """Periods of T_0, T_0 T_mult, T_0 T_mult², ... steps, enough for the run.

    A T_mult that is not whole makes ends of periods that are not; they are rounded.

    Raises:
        ValueError: T_0 below 1 or not whole, T_mult below 1.
    """
    first = -(-num_steps // 15) if T_0 is None else T_0  # 15 = 1 + 2 + 4 + 8
    require_at_least(owner, "T_0", first, 1)
    require_number(owner, "T_mult", T_mult)
    if not 1 <= T_mult < float("inf"):
        raise ValueError(f"{owner} needs a finite T_mult >= 1, got T_mult={T_mult:g}.")
    starts, length = [0.0], float(first)
    while starts[-1] <= num_steps:
        starts.append(starts[-1] + length)
        length *= T_mult
    if starts[-1] > _LAST_STEP:  # the step counter is an int32, too
        raise ValueError(
            f"{owner} needs periods that end within 2^31 - 1 steps, got T_0={first:g},"
            f" T_mult={T_mult:g}."
        )
    ends = tuple(round(start) for start in starts)
    return Periods(start=ends[:-1], length=tuple(b - a for a, b in itertools.pairwise(ends)))


def _cosine_in_each(periods: Periods) -> optax.Schedule:
    whole = optax.cosine_decay_schedule(1.0, 1)

    def factor(step):
        period = _current(periods, step)
        start, length = (jnp.asarray(each)[period] for each in periods)
        return jnp.asarray(whole((step - start) / length))

    return factor


def _current(periods: Periods, step: Any) -> Array:
    """Index of the period that a step is in."""
    return jnp.searchsorted(jnp.asarray(periods.start), step, side="right") - 1


def times(value: Any, *factors: optax.Schedule | None) -> float | Float[Array, ""] | optax.Schedule:
    """A number times some factors: still a number where there are none."""
    known = [factor for factor in factors if factor is not None]
    if not known:
        return value

    def scheduled(step):
        product = value
        for factor in known:
            product = product * factor(step)
        return product

    return scheduled


_BUILDERS = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "warm_restarts": warm_restarts,
    "cyclical": cyclical,
    "reduce_on_plateau": reduce_on_plateau,
    "normalised_decay": normalised_decay,
}

SCHEDULES: dict[str, ScheduleRecipe] = {
    facts.name: ScheduleRecipe(facts=facts, build=_BUILDERS[facts.name]) for facts in SCHEDULE_FACTS
}
