"""What all panels do alike: read a group, choose a scale, draw one optimizer's line, label axes."""

from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, MaxNLocator, NullFormatter

from bayesfilt.figures.style import GUIDE_COLOR, LineStyle, optimizer_style
from bayesfilt.records import Group

MARKERS_PER_LINE = 5
_FEWEST_TICKS = 3
_TICK_STEPS = [1, 2, 2.5, 5, 10]
LOG_SPAN = 20.0  # numbers spanning less than this are drawn on a linear axis


def numbers(group: Group, name: str, *dims: str) -> np.ndarray:
    """Values of variable `name` as float64 with its axes in the order `dims`.

    Raises:
        ValueError: the group has no such variable, or it has other dimensions.
    """
    if name not in group:
        raise ValueError(f"a figure needs variable {name!r}; the group has {', '.join(group)}.")
    variable = group[name]
    if sorted(variable.dims) != sorted(dims):
        raise ValueError(f"a figure needs {name!r} over {dims}, got {tuple(variable.dims)}.")
    order = [variable.dims.index(dim) for dim in dims]
    return np.transpose(np.asarray(variable.values, dtype=np.float64), order)


def is_available(group: Group, name: str) -> bool:
    """Whether variable `name` is there and holds at least one finite number."""
    return name in group and bool(
        np.isfinite(np.asarray(group[name].values, dtype=np.float64)).any()
    )


def words(group: Group, name: str) -> list[str]:
    """Names along a coordinate such as `run` or `layer`."""
    if name not in group:
        raise ValueError(f"a figure needs coordinate {name!r}; the group has {', '.join(group)}.")
    return [str(word) for word in group[name].values]


def plain(text: str) -> str:
    """`text` with dollar signs escaped: a name is not a formula."""
    return text.replace("$", r"\$")


def power_of_ten(value: float) -> str:
    """`value` as mathtext with two significant digits: 1e-4 is $10^{-4}$, 0.5 is 0.5."""
    if not np.isfinite(value) or 0.1 <= abs(value) < 1e3 or value == 0:
        return f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    front = "" if digits == "1.0" else rf"{digits.removesuffix('.0')}\times"
    return rf"${front}10^{{{int(exponent)}}}$"


def wants_log(values: Iterable[np.ndarray]) -> bool:
    """Whether finite numbers are never negative and span more than a decade or so."""
    flat = _finite(values)
    positive = flat[flat > 0]
    if positive.size == 0 or (flat < 0).any():
        return False
    return bool(positive.max() > LOG_SPAN * positive.min())


def set_scale(
    axes: Axes,
    which: Literal["x", "y"],
    values: Iterable[np.ndarray],
    *,
    scale: Literal["auto", "log", "linear"] = "auto",
    decades: float = 600.0,
) -> bool:
    """Scale and limits of one axis from the numbers on it; returns whether it is logarithmic.

    "auto" is logarithmic where numbers span more than a decade or so and none is negative.
    Zeros have no place on a logarithmic axis and do not move its limits; without a positive
    number the axis stays linear. At most `decades` powers of ten are shown, counted from the
    middle of the numbers (in rank), so that a schedule's last steps do not fill the panel.
    """
    flat = _finite(values)
    positive = flat[flat > 0]
    is_log = positive.size > 0 and (scale == "log" or (scale == "auto" and wants_log([flat])))
    axis = axes.xaxis if which == "x" else axes.yaxis
    limits = (0.0, 1.0)
    if is_log:
        set_axis_scale = axes.set_xscale if which == "x" else axes.set_yscale
        set_axis_scale("log", nonpositive="mask")
        axis.set_minor_formatter(NullFormatter())
        limits = _log_limits(_near_middle(positive, decades))
    elif flat.size:
        axis.set_major_locator(MaxNLocator(nbins=4, steps=_TICK_STEPS))
        limits = _linear_limits(flat)
    if which == "x":
        axes.set_xlim(*limits)
    else:
        axes.set_ylim(*limits)
    return is_log


def _finite(values: Iterable[np.ndarray]) -> np.ndarray:
    """All finite numbers in `values`, flat."""
    flat = np.concatenate([np.ravel(np.asarray(each, dtype=np.float64)) for each in values])
    return flat[np.isfinite(flat)]


def _near_middle(positive: np.ndarray, decades: float) -> np.ndarray:
    """Numbers at most `decades` powers of ten away from the middle one."""
    distance = np.log10(positive) - np.log10(np.sort(positive)[positive.size // 2])
    return positive[np.abs(distance) <= decades]


def _log_limits(positive: np.ndarray) -> tuple[float, float]:
    """Ends of a logarithmic axis: a margin on both sides and at least two powers of ten."""
    low, high = np.log10(positive.min()), np.log10(positive.max())
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    if np.floor(high) - np.ceil(low) < 1:
        low, high = _reach_two_powers(low, high)
    return float(10.0 ** max(low, -300.0)), float(10.0 ** min(high, 300.0))


def keep_to_numbers(axes: Axes, which: Literal["x", "y"], values: Iterable[np.ndarray]) -> None:
    """End a logarithmic axis at its numbers, with ticks between the powers, where few are in it.

    For panels that would stand half empty if their axes went on to the next powers of ten.
    """
    flat = _finite(values)
    low, high = np.log10(flat[flat > 0].min()), np.log10(flat[flat > 0].max())
    margin = max(0.06 * (high - low), 0.02)
    low, high = low - margin, high + margin
    if np.floor(high) - np.ceil(low) >= 1:
        return
    powers = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
    places = np.outer(powers, (1, 2, 5)).ravel()
    if np.sum((places >= 10**low) & (places <= 10**high)) < _FEWEST_TICKS:
        places = MaxNLocator(nbins=3, steps=_TICK_STEPS).tick_values(10**low, 10**high)
    places = places[(places >= 10**low) & (places <= 10**high)]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(10**low, 10**high)
    axis.set_major_locator(FixedLocator(places.tolist()))
    axis.set_major_formatter(FixedFormatter([_tick(place) for place in places]))


def _tick(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else power_of_ten(value)


def _reach_two_powers(low: float, high: float) -> tuple[float, float]:
    """The least wider range (in log10) that holds two whole numbers, so that two ticks show."""
    lower, upper = float(np.floor(low)), float(np.ceil(high))
    if lower == upper:  # a single power of ten
        return lower - 1, upper + 1
    if upper - lower == 1 or low - lower == upper - high:
        return lower, upper
    return (lower, high) if low - lower < upper - high else (low, upper)


def _linear_limits(flat: np.ndarray) -> tuple[float, float]:
    """Ends of a linear axis: a margin, and never so close that only rounding is seen."""
    low, high = float(flat.min()), float(flat.max())
    least = 0.2 * max(abs(low), abs(high)) or 1.0
    middle, span = 0.5 * (low + high), max(high - low, least)
    bottom = middle - 0.55 * span
    if low >= 0:
        bottom = max(bottom, -0.05 * span)  # what is never negative needs no room below zero
    return bottom, middle + 0.55 * span


def step_axis(axes: Axes, steps: np.ndarray) -> None:
    """Make `axes` run over training steps: whole numbers, thousands as k."""
    low, high = float(np.min(steps)), float(np.max(steps))
    room = 0.02 * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def draw_line(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    name: str,
    style: LineStyle,
    *,
    turn: int = 0,
    turns: int = 1,
    width: float = 1.0,
    dashed: bool = True,
) -> Line2D:
    """One line with a few markers; `turn` of `turns` lines staggers them, so that none hides.

    `width` is a multiple of the venue's line width; `dashed=False` draws jumpy numbers solid,
    because dashes cannot be told from jumps. The line's label is `name`.
    """
    if len(x) <= 2 * MARKERS_PER_LINE:
        every = (0, 1)
    else:
        stride = len(x) // MARKERS_PER_LINE
        every = (turn * stride // max(turns, 1), stride)
    (line,) = axes.plot(
        x,
        values,
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle if dashed else "solid",
        markevery=every,
        markeredgecolor="white",
        label=name,
    )
    line.set_linewidth(line_width(width))
    return line


def style_handle(name: str, style: LineStyle, *, width: float = 1.0) -> Line2D:
    """Legend entry of a line drawn by `draw_line`."""
    handle = Line2D(
        [],
        [],
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle,
        markeredgecolor="white",
        label=name,
    )
    handle.set_linewidth(line_width(width))
    return handle


def optimizer_handles(names: Sequence[str]) -> list[Line2D]:
    """Legend entries of optimizers, in their own styles."""
    return [style_handle(plain(name), optimizer_style(name)) for name in names]


def line_width(multiple: float) -> float:
    """Width in points of a line so many times as wide as the venue's; inside its style."""
    return multiple * matplotlib.rcParams["lines.linewidth"]


def marker_size(multiple: float) -> float:
    """Size in points of a marker so many times as large as the venue's; inside its style."""
    return multiple * matplotlib.rcParams["lines.markersize"]


def guide(axes: Axes, value: float) -> None:
    """Thin horizontal line at a number the reader compares with, behind the data."""
    axes.axhline(value, color=GUIDE_COLOR, linewidth=line_width(0.6), zorder=0.9)


def say(axes: Axes, text: str) -> None:
    """Words in the middle of a panel that has nothing to draw."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555"
    )  # fmt: skip
