"""Panels of lines, points and laws, as an experiment wrote them down.

A name keeps its look in every panel: names of optimizers have the one they have everywhere,
others get theirs in the order in which they come.
"""

import itertools
import textwrap
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    draw_line,
    guide,
    keep_to_numbers,
    line_width,
    marker_size,
    numbers,
    plain,
    say,
    set_scale,
    style_handle,
    words,
)
from bayesfilt.figures.style import (
    VENUES,
    LineStyle,
    known_optimizers,
    optimizer_style,
    venue_style,
)
from bayesfilt.records import Group

_OTHERS = (
    LineStyle(color="#0a4690", marker="o", dashes=()),
    LineStyle(color="#dc5a22", marker="^", dashes=(5, 1.2)),
    LineStyle(color="#22804f", marker="s", dashes=(3.5, 1.2, 1.2, 1.2)),
    LineStyle(color="#a51243", marker="D", dashes=(1.6, 0.9)),
    LineStyle(color="#56b4e9", marker="v", dashes=(7, 1.5, 2, 1.5)),
    LineStyle(color="#e6b73f", marker="P", dashes=(2, 1)),
    LineStyle(color="#451a6e", marker="X", dashes=(6, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
_LAWS = (
    LineStyle(color="#8f8f8f", marker="", dashes=(4, 1.5)),
    LineStyle(color="#8f8f8f", marker="", dashes=(1.2, 1.2)),
    LineStyle(color="#8f8f8f", marker="", dashes=()),
    LineStyle(color="#555555", marker="", dashes=(7, 1.5, 1.2, 1.5)),
)
_SHADING = 0.18
_MANY = 8  # points from which an interval is a band and no longer a bar
_MANY_POINTS = 60  # of a cloud, from which its markers are small
_LEAST_WIDTH, _HEIGHT = 1.55, 1.45  # of a panel; inches at 8-point text
_LETTERS_UP = 24  # of a label beside a panel of that height
_LETTERS_ACROSS = 18  # of a label below it, an inch of the page


@of_group
def panels_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Every panel with its series; bars and bands are the intervals that the group holds.

    Args:
        group: `panel` and over it `x_label`, `y_label`, `x_scale`, `y_scale`, `guide` (NaN: none)
            and `places` (words between bars, or none); over `series`, `of_panel`, `name`, `kind`
            (line, points or law); over (series, point), `x`, `y`, `low`, `high`, NaN where a
            series has ended or has no interval.
        venue: name in `bayesfilt.figures.VENUES`.
    """
    titles = words(group, "panel")
    looks = _looks(words(group, "name"), words(group, "kind"))
    with venue_style(venue):
        columns = columns_that_fit(venue, len(titles), _LEAST_WIDTH)
        width, scale = VENUES[venue]
        grid = Grid(venue, len(titles), columns, _HEIGHT)
        for index, (axes, title) in enumerate(zip(grid.panels, titles, strict=True)):
            grid.title(axes, plain(title) if "$" not in title else title)
            _draw_panel(axes, group, index, looks, int(_LETTERS_ACROSS * width / scale / columns))
        grid.place_legend(_handles(group, looks))
        return grid.figure


def _looks(names: list[str], kinds: list[str]) -> dict[str, LineStyle]:
    """A style a name; no two names look alike, and none like an optimizer that is there."""
    looks: dict[str, LineStyle] = {}
    taken = [optimizer_style(name) for name in names if name in known_optimizers()]
    others, laws = _other_looks(taken), 0
    for name, kind in zip(names, kinds, strict=True):
        if name in looks:
            continue
        if kind == "law":
            looks[name] = _LAWS[laws % len(_LAWS)]
            laws += 1
        elif name in known_optimizers():
            looks[name] = optimizer_style(name)
        else:
            looks[name] = next(others)
    return looks


def _other_looks(taken: list[LineStyle]) -> Iterator[LineStyle]:
    """Free colours first; then all of them again, each time with other markers and dashes."""
    count = len(_OTHERS)
    colors = {look.color for look in taken}
    pairs = {(look.color, look.marker) for look in taken}
    yield from (look for look in _OTHERS if look.color not in colors)
    for turn in itertools.count(1):
        for index, look in enumerate(_OTHERS):
            marker = _OTHERS[(index + 3 * turn) % count].marker
            dashes = _OTHERS[(index + 2 * turn) % count].dashes
            if (look.color, marker) not in pairs:
                yield look._replace(marker=marker, dashes=dashes)


def _label(text: str, letters: int) -> str:
    """An axis label in lines that are no longer than the axis, with thin raised numbers."""
    if "$" in text:
        return text
    return textwrap.fill(text, letters, break_long_words=False, break_on_hyphens=False).replace(
        "²", "$^2$"
    )


def _draw_panel(
    axes: Axes, group: Group, index: int, looks: dict[str, LineStyle], letters: int
) -> None:
    here = np.flatnonzero(numbers(group, "of_panel", "series") == index)
    x, y, low, high = (
        numbers(group, field, "series", "point")[here] for field in ("x", "y", "low", "high")
    )
    level = float(numbers(group, "guide", "panel")[index])
    axes.set_xlabel(_label(words(group, "x_label")[index], letters), linespacing=0.95)
    axes.set_ylabel(_label(words(group, "y_label")[index], _LETTERS_UP), linespacing=0.95)
    upright = [y, low, high, level]
    if set_scale(axes, "y", upright, scale=words(group, "y_scale")[index]):  # pyright: ignore[reportArgumentType]
        keep_to_numbers(axes, "y", upright)
    places = [word for word in words(group, "places")[index].split("|") if word]
    if places:  # which stand side by side, whatever their numbers
        axes.set_xticks(range(len(places)), places)
        axes.set_xlim(-0.5, len(places) - 0.5)
        needed = len(places) * (1 + max(len(line) for word in places for line in word.split("\n")))
        size = float(matplotlib.rcParams["xtick.labelsize"])
        axes.tick_params(axis="x", labelsize=size * min(1.0, max(letters / needed, 0.7)))
    elif set_scale(axes, "x", [x], scale=words(group, "x_scale")[index]):  # pyright: ignore[reportArgumentType]
        keep_to_numbers(axes, "x", [x])
    if np.isfinite(level):
        guide(axes, level)
    if not np.isfinite(y).any():
        say(axes, "not known")
    kinds, names = words(group, "kind"), words(group, "name")
    for turn, series in enumerate(here.tolist()):
        known = np.isfinite(x[turn])
        _draw_series(
            axes, names[series], kinds[series], looks[names[series]], turn, len(here),
            *(values[turn][known] for values in (x, y, low, high)),
        )  # fmt: skip


def _draw_series(
    axes: Axes,
    name: str,
    kind: str,
    look: LineStyle,
    turn: int,
    turns: int,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """One series with its intervals."""
    if kind == "law":
        axes.plot(
            x, y, color=look.color, linestyle=look.linestyle, linewidth=line_width(0.8),
            zorder=1.5, label=name,
        )  # fmt: skip
        return
    if kind == "points":
        axes.plot(
            x, y, color=look.color, marker=look.marker, linestyle="none",
            markersize=marker_size(0.8 if len(x) > _MANY_POINTS else 1.2),
            markeredgecolor="white", label=name, zorder=2.6,
        )  # fmt: skip
    else:
        draw_line(axes, x, y, name, look, turn=turn, turns=turns)
    if kind == "line" and len(x) > _MANY:
        axes.fill_between(x, low, high, color=look.color, alpha=_SHADING, linewidth=0)
    else:
        axes.vlines(x, low, high, color=look.color, linewidth=line_width(0.8), zorder=2.4)


def _handles(group: Group, looks: dict[str, LineStyle]) -> list[Artist]:
    """Legend: every name once, points without a line."""
    kinds = dict(zip(words(group, "name"), words(group, "kind"), strict=True))
    handles: list[Artist] = []
    for name, look in looks.items():
        if kinds[name] == "points":
            handles.append(
                Line2D(
                    [], [], linestyle="none", marker=look.marker, color=look.color,
                    markeredgecolor="white", label=plain(name),
                )
            )  # fmt: skip
        else:
            handles.append(style_handle(plain(name), look))
    return handles
