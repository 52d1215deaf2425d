"""Figure (d): where decay acts: shrink per step, the conventions, and the memory it leaves.

Draws the group `decay` of a comparison. "Decoupled weight decay" means three things: its shrink
follows the schedule (paper), the learning rate (lr_scaled), or the learning rate's square
(filter). They part as soon as the learning rate changes.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    draw_line,
    guide,
    is_available,
    marker_size,
    numbers,
    optimizer_handles,
    say,
    set_scale,
    step_axis,
    style_handle,
    words,
)
from bayesfilt.figures.style import CONVENTION_STYLES, LIMIT_COLOR, optimizer_style, venue_style
from bayesfilt.records import Group

_CONVENTION_WIDTHS = {"lr_scaled": 4.5, "paper": 2.5, "filter": 2.5}
_DECADES = 3.0  # a schedule that ends at zero would otherwise fill the panel with its last steps


@of_group
def decay_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Realised shrink per step over the conventions, EMA timescale, and share of decay kept.

    Lines are the realised shrink, circles the intended one, broad greys the conventions. Three
    powers of ten around the middle are shown. In the third panel 1 means that a float32 run
    without gradients decays as asked; an optimizer that was not measured has no marker there.

    Args:
        group: `decay` of the record: `step`, `optimizer`, `convention`, `realised_shrink`,
            `intended_shrink` and `ema_timescale` over (optimizer, step), `convention_shrink`
            over (convention, step), `decay_kept` over optimizer.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    names, conventions = words(group, "optimizer"), words(group, "convention")
    with venue_style(venue):
        columns = columns_that_fit(venue, 3, 1.6)
        grid = Grid(venue, 3, columns, panel_height=1.35)
        shrink, timescale, kept = grid.panels
        _draw_shrink(shrink, group, names, conventions)
        _draw_timescale(timescale, group, names)
        _draw_kept(kept, group, names)
        for axes in (shrink, timescale):
            axes.set_xlabel("step")
        grid.place_legend(_handles(names, conventions))
        return grid.figure


def _draw_shrink(axes: Axes, group: Group, names: list[str], conventions: list[str]) -> None:
    """Shrink per step: conventions (broad, grey), realised (lines), intended (circles)."""
    axes.set_ylabel("shrink per step")
    steps = numbers(group, "step", "step")
    realised = numbers(group, "realised_shrink", "optimizer", "step")
    intended = numbers(group, "intended_shrink", "optimizer", "step")
    convention = numbers(group, "convention_shrink", "convention", "step")
    step_axis(axes, steps)
    set_scale(axes, "y", [realised, intended, convention], decades=_DECADES)
    for index, name in enumerate(conventions):
        style, width = CONVENTION_STYLES[name], _CONVENTION_WIDTHS[name]
        draw_line(axes, steps, convention[index], name, style, width=width)
    for index, name in enumerate(names):
        style = optimizer_style(name)
        draw_line(axes, steps, realised[index], name, style, turn=index, turns=len(names))
        # Circles around the line, halfway between its markers.
        stride = max(1, len(steps) // 5)
        start = (index * stride // len(names) + stride // 2) % stride
        axes.plot(
            steps,
            intended[index],
            markevery=(start, stride),
            label=f"{name}: intended",
            **_circles(style.color),
        )


def _circles(color: str) -> dict[str, Any]:
    """Look of the intended shrink: open circles, large enough to stand around a line."""
    return {
        "linestyle": "none",
        "marker": "o",
        "markerfacecolor": "none",
        "markersize": marker_size(1.5),
        "color": color,
    }


def _draw_timescale(axes: Axes, group: Group, names: list[str]) -> None:
    """Steps over which a weight averages its past updates; none where nothing decays."""
    axes.set_ylabel("EMA timescale (steps)")
    steps = numbers(group, "step", "step")
    step_axis(axes, steps)
    timescale = numbers(group, "ema_timescale", "optimizer", "step")
    if not np.isfinite(timescale).any():
        axes.set_yticks([])
        say(axes, "infinite" if np.isinf(timescale).any() else "not available")
        return
    set_scale(axes, "y", [timescale], decades=_DECADES)
    for index, name in enumerate(names):
        style = optimizer_style(name)
        draw_line(axes, steps, timescale[index], name, style, turn=index, turns=len(names))


def _draw_kept(axes: Axes, group: Group, names: list[str]) -> None:
    """Realised over intended decay of a float32 run with zero gradients, a marker each."""
    axes.set(xlabel="optimizer", xticks=[])
    axes.set_ylabel("decay kept in float32\n(realised / intended)", linespacing=0.95)
    axes.set_xlim(-0.7, len(names) - 0.3)
    if not is_available(group, "decay_kept"):
        axes.set_yticks([])
        say(axes, "not available")
        return
    kept = numbers(group, "decay_kept", "optimizer")
    set_scale(axes, "y", [kept, np.ones(1)], scale="linear")
    guide(axes, 1.0)
    for index, name in enumerate(names):
        style = optimizer_style(name)
        axes.plot(
            index, kept[index], linestyle="none", marker=style.marker, color=style.color,
            markersize=marker_size(1.5), label=name,
        )  # fmt: skip


def _handles(names: list[str], conventions: list[str]) -> list[Artist]:
    """Legend: optimizers, what the broad line means, the conventions."""
    handles: list[Artist] = [*optimizer_handles(names)]
    handles.append(Line2D([], [], label="intended", **_circles(LIMIT_COLOR)))
    handles += [
        style_handle(f"convention: {name}", CONVENTION_STYLES[name], width=_CONVENTION_WIDTHS[name])
        for name in conventions
    ]
    return handles
