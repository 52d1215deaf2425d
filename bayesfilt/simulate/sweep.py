"""A sweep is data: which runs are asked for, in words that a file or a command line can hold.

Two kinds of axes. A *structural* axis (optimizer, task, schedule, batch size, number of steps)
changes the compiled program; a *number* (learning rate, weight decay, b1, b2, eps) and the seed
are arguments of it, so that a grid of any size compiles once for each structural combination.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayesfilt.catalogue import OPTIMIZER_FACTS, SCHEDULE_FACTS, Facts, canonical
from bayesfilt.checks import (
    require_at_least,
    require_fraction,
    require_number,
    require_one_of,
)
from bayesfilt.tasks import TASK_NAMES

NUMBER_AXES = ("learning_rate", "weight_decay", "b1", "b2", "eps")
DTYPES = ("float32", "float64")

# "1e-4,1e-3" | "log:1e-4:1e-1:9" | "lin:0:0.3:4" | "draw:1e-4:1e-1:20", a number, or numbers.
AxisSpec = str | float | tuple[float, ...]

_RANGES = ("log", "lin", "draw")
_DIGITS = 12  # kept of a computed value: two machines that differ in the last bit agree


class AxisValues(NamedTuple):
    """One number axis, spelled out."""

    values: tuple[float, ...]
    drawn: bool  # at random: all drawn axes of a sweep vary together, as one dimension "draw"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Every combination of these axes, each from every seed.

    A number axis is a text or numbers: a list `1e-4,1e-3`, a range `log:1e-4:1e-1:9` or
    `lin:0:0.3:4` with both ends, several of these joined by commas, or random draws
    `draw:1e-4:1e-1:20`, uniform in the logarithm. Values that are named twice count once.

    Raises:
        ValueError: an axis without a value, a name that does not exist (the nearest is offered),
            drawn axes of unequal length, a number out of its range.
    """

    optimizers: tuple[str, ...] = ("adamw",)
    tasks: tuple[str, ...] = ("digits-mlp",)
    schedules: tuple[str, ...] = ("constant",)
    batch_sizes: tuple[int, ...] = (64,)
    num_steps: tuple[int, ...] = (1_000,)
    learning_rate: AxisSpec = "log:1e-4:1e-1:7"
    weight_decay: AxisSpec = "0.1"  # "lr_scaled" convention: torch's and optax's
    b1: AxisSpec = "0.9"
    b2: AxisSpec = "0.999"
    eps: AxisSpec = "1e-8"
    seeds: int | tuple[int, ...] = 3  # a number n means 0, ..., n - 1
    draw_seed: int = 0  # of the random draws of numbers
    subset: int | None = None  # training examples kept; None: all
    label_noise: float = 0.0  # fraction of the training labels made wrong
    dtype: str = "float32"
    record_points: int = 20  # about so many records of a run, evenly spaced
    full_trace: bool = False  # loss, size of weights and of updates at *every* step as well
    skip_invalid: bool = False  # leave impossible cells out, instead of refusing the sweep

    def __post_init__(self) -> None:
        """Check at once, and bring every axis to a tuple without repeats."""
        self._settle("optimizers", _named("optimizers", self.optimizers, OPTIMIZER_FACTS))
        self._settle("tasks", _words("tasks", self.tasks, TASK_NAMES))
        self._settle("schedules", _named("schedules", self.schedules, SCHEDULE_FACTS))
        self._settle("batch_sizes", _whole_numbers("batch_sizes", self.batch_sizes, 1))
        self._settle("num_steps", _whole_numbers("num_steps", self.num_steps, 1))
        self._settle("seeds", _seeds(self.seeds))
        for name in ("subset", "label_noise", "record_points", "draw_seed"):
            if isinstance(value := getattr(self, name), list | tuple):
                raise ValueError(f"Sweep needs one {name} for all runs, got {name}={value!r}.")
        for name in ("full_trace", "skip_invalid"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"Sweep needs true or false for {name}, got {value!r}.")
        require_at_least("Sweep", "draw_seed", self.draw_seed, 0)
        for name in NUMBER_AXES:
            spec = getattr(self, name)
            self._settle(name, spec.strip() if isinstance(spec, str) else _numbers(name, spec))
        _require_axes_that_count(self.optimizers, self.axes())
        counts = {name: len(axis.values) for name, axis in self.axes().items() if axis.drawn}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise ValueError(f"Sweep needs as many draws of every drawn axis, got {listed}.")
        if self.subset is not None:
            require_at_least("Sweep", "subset", self.subset, 1)
        require_fraction("Sweep", "label_noise", self.label_noise)
        require_one_of("Sweep", "dtypes", self.dtype, DTYPES)
        require_at_least("Sweep", "record_points", self.record_points, 1)

    def axes(self) -> dict[str, AxisValues]:
        """The number axes, spelled out; equal sweeps give equal numbers on every machine."""
        return {
            name: parse_axis(name, getattr(self, name), draw_seed=self.draw_seed)
            for name in NUMBER_AXES
        }

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def sweep_from(settings: Mapping[str, Any]) -> Sweep:
    """The sweep that a TOML table or a manifest describes; lists may stand for tuples.

    Raises:
        ValueError: a key that is no axis and no setting (the nearest is offered), or a bad value.
    """
    known = [field.name for field in dataclasses.fields(Sweep)]
    for key in settings:
        require_one_of("Sweep", "axes and settings", key, known)
        _require_kind(key, settings[key])
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    return Sweep(**given)


def _require_kind(name: str, value: Any) -> None:
    """Refuse what a file can say and an axis or a setting of this name cannot be."""
    many = value if isinstance(value, list | tuple) else [value]
    if name in ("full_trace", "skip_invalid"):
        wanted, fits = "true or false", isinstance(value, bool)
    elif name in ("optimizers", "tasks", "schedules", "dtype"):
        wanted, fits = "words", all(isinstance(each, str) for each in many)
    else:
        wanted = "numbers or a text"
        # None is a subset's; any other axis refuses it itself.
        fits = {type(each) for each in many} <= {int, float, str, type(None)}
    if not fits:
        raise ValueError(f"Sweep needs {wanted} for {name}, got {value!r}.")


def sweep_hash(sweep: Sweep) -> str:
    """The sha256 of all that can change a number in the results; `skip_invalid` cannot.

    Axes count by their values: `1e-3,1e-2` and `log:0.001:0.01:2` are the same sweep.
    """
    plain = dataclasses.asdict(sweep)
    axes = sweep.axes()
    plain |= {name: [axis.drawn, *axis.values] for name, axis in axes.items()}
    del plain["skip_invalid"], plain["draw_seed"]
    return content_hash(plain)


def content_hash(plain: Any) -> str:
    """The sha256, in hexadecimal, of a value's canonical JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_axis(name: str, spec: AxisSpec, *, draw_seed: int = 0) -> AxisValues:
    """Spell out one number axis.

    Args:
        name: of the axis; each has its own stream of random draws, whatever the others are.
        spec: as in `Sweep`.
        draw_seed: of the random draws.

    Raises:
        ValueError: the text cannot be read, or the axis is empty.
    """
    if not isinstance(spec, str):
        return AxisValues(values=_numbers(name, spec), drawn=False)
    pieces = [piece.strip() for piece in spec.split(",")]
    if not all(pieces):
        raise ValueError(f"Sweep needs values between the commas of {name}, got {name}={spec!r}.")
    if any(piece.startswith("draw:") for piece in pieces):
        if len(pieces) > 1:
            raise ValueError(f"Sweep needs draws of {name} alone, got {name}={spec!r}.")
        return AxisValues(values=_drawn(name, pieces[0], draw_seed), drawn=True)
    values = [value for piece in pieces for value in _piece(name, piece)]
    return AxisValues(values=_numbers(name, values), drawn=False)


def _piece(name: str, piece: str) -> Iterable[float]:
    """A number, or the numbers of a range."""
    if ":" not in piece:
        return [_number(name, piece)]
    kind, low, high, count = _range(name, piece, 2)
    spread = np.geomspace if kind == "log" else np.linspace
    return [_rounded(value) for value in spread(low, high, count)]


def _drawn(name: str, piece: str, draw_seed: int) -> tuple[float, ...]:
    """Random numbers, uniform in the logarithm; repeats stay, each is a draw."""
    _, low, high, count = _range(name, piece, 1)
    # RandomState's streams are frozen for ever, which newer generators do not promise.
    stream = np.random.RandomState([draw_seed, NUMBER_AXES.index(name)])
    logs = math.log(low) + stream.random_sample(count) * (math.log(high) - math.log(low))
    return tuple(_rounded(value) for value in np.exp(logs))


def _range(name: str, piece: str, least: int) -> tuple[str, float, float, int]:
    """Kind, ends and number of points of `log:1e-4:1e-1:9`."""
    parts = piece.split(":")
    wanted = f"Sweep needs {name} like '1e-3,1e-2' or 'log:1e-4:1e-1:9' ({', '.join(_RANGES)})"
    if parts[0] not in _RANGES or len(parts) != 4:
        raise ValueError(f"{wanted}, got {piece!r}.")
    kind, low, high = parts[0], _number(name, parts[1]), _number(name, parts[2])
    if not parts[3].strip().isdecimal() or int(parts[3]) < least:
        raise ValueError(f"{wanted} with at least {least} points, got {piece!r}.")
    if low > high or (kind != "lin" and low <= 0):
        above = "" if kind == "lin" else "0 < "
        raise ValueError(f"{wanted} with {above}low <= high, got {piece!r}.")
    return kind, low, high, int(parts[3])


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"Sweep needs finite numbers for {name}, got {text!r}.")
    return value


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    """Finite floats without repeats, in the order given."""
    many = list(values) if isinstance(values, Iterable) else [values]
    _require_some(name, many)
    for value in many:
        require_number("Sweep", name, value)
        if not math.isfinite(value):
            raise ValueError(f"Sweep needs finite numbers for {name}, got {value}.")
    return tuple(dict.fromkeys(float(value) for value in many))


def _whole_numbers(name: str, values: Any, least: int) -> tuple[int, ...]:
    many = list(values) if isinstance(values, Iterable) else [values]
    _require_some(name, many)
    for value in many:
        require_at_least("Sweep", name, value, least)
    return tuple(dict.fromkeys(int(value) for value in many))


def _seeds(seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, Iterable):
        chosen = _whole_numbers("seeds", seeds, 0)
    else:
        require_at_least("Sweep", "number of seeds", seeds, 1)
        chosen = tuple(range(int(seeds)))
    if max(chosen) >= 2**32:
        raise ValueError(f"Sweep needs seeds below 2**32, got {max(chosen)}.")
    return chosen


def _words(name: str, values: Any, known: Iterable[str]) -> tuple[str, ...]:
    """Known names without repeats."""
    many = [values] if isinstance(values, str) else list(values)
    _require_some(name, many)
    for value in many:
        require_one_of("Sweep", name, value, known)
    return tuple(dict.fromkeys(many))


def _named(name: str, values: Any, known: Sequence[Facts]) -> tuple[str, ...]:
    """Names of the zoo with their own numbers, each in one spelling, without repeats."""
    many = [values] if isinstance(values, str) else list(values)
    _require_some(name, many)
    names = [facts.name for facts in known]
    for value in many:
        if str(value).partition(":")[0] not in names:
            require_one_of("Sweep", name, value, names)
    return tuple(dict.fromkeys(canonical(name, value, known) for value in many))


def _require_axes_that_count(optimizers: Iterable[str], axes: Mapping[str, AxisValues]) -> None:
    """Refuse an axis beside an optimizer with that very number of its own: which one is meant?"""
    for word in optimizers:
        own = {item.partition("=")[0] for item in word.partition(":")[2].split(",")}
        for name, axis in axes.items():
            if name in own and len(axis.values) > 1:
                raise ValueError(
                    f"Sweep has {len(axis.values)} values of {name}, and {word!r} has one of its"
                    f" own: give {name} one value, or the name none."
                )


def _require_some(name: str, values: list[Any]) -> None:
    if not values:
        raise ValueError(f"Sweep needs at least one value for {name}, got none.")
