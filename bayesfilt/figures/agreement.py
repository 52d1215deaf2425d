"""Figure (b): how far each follower's update agrees with the leader's, over time, per layer.

Draws the group `shadow` of a comparison. Followers are teacher-forced: at every step they see
the leader's weights and gradients and say what they would have done. So nothing here is chaos,
and two updates that differ do so because the formulas differ.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from bayesfilt.figures.layout import (
    Facets,
    Grid,
    VenueFigure,
    columns_that_fit,
    of_group,
    place_legend_above,
)
from bayesfilt.figures.panels import (
    draw_line,
    guide,
    is_available,
    numbers,
    optimizer_handles,
    plain,
    say,
    set_scale,
    step_axis,
    style_handle,
    words,
)
from bayesfilt.figures.style import PART_STYLES, optimizer_style, venue_style
from bayesfilt.records import Group


class _Measure(NamedTuple):
    """One row of panels."""

    name: str
    label: str
    agreed: float  # the number two equal updates give


MEASURES = (
    _Measure("cosine", "cosine", 1.0),
    _Measure("relative_error", "relative\nerror", 0.0),
    _Measure("log_size_ratio", "log size\nratio", 0.0),
    _Measure("sign_agreement", "sign\nagreement", 1.0),
)


@of_group
def agreement_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Four measures of update agreement (rows) in every layer (columns), a line per follower.

    Each row has one scale; a thin line marks full agreement. Where the layers do not fit side
    by side, the four rows are repeated below for the next layers.

    Args:
        group: `shadow` of the record: `step`, `follower`, `layer` and the four measures over
            (follower, layer, step).
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    followers, layers = words(group, "follower"), words(group, "layer")
    with venue_style(venue):
        facets = Facets(
            venue,
            rows=[measure.label for measure in MEASURES],
            columns=[plain(layer) for layer in layers],
            horizontal="step",
            least_width=1.0,
            panel_height=0.82,
        )
        for (row, layer), axes in facets.panels.items():
            _draw_measure(axes, group, MEASURES[row], layer, followers)
        place_legend_above(facets.figure, optimizer_handles(followers))
        return facets.figure


def _draw_measure(
    axes: Axes, group: Group, measure: _Measure, layer: int, followers: list[str]
) -> None:
    """One measure in one layer; the scale is that of the measure in all layers."""
    steps = numbers(group, "step", "step")
    step_axis(axes, steps)
    if not is_available(group, measure.name):
        say(axes, "not available")
        return
    values = numbers(group, measure.name, "follower", "layer", "step")
    if not set_scale(axes, "y", [values, np.array([measure.agreed])]):
        guide(axes, measure.agreed)
    if measure.agreed == 1.0:  # and no number can be above it
        axes.set_ylim(top=1.0 + 0.05 * (1.0 - axes.get_ylim()[0]))
    for index, name in enumerate(followers):
        draw_line(
            axes,
            steps,
            values[index, layer],
            name,
            optimizer_style(name),
            turn=index,
            turns=len(followers),
            width=0.85,
        )


@of_group
def shares_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Share of each follower's gap owed to decay, variance, momentum and eps, over time.

    The shares of a follower add up to 1; a part that narrows the gap has a negative share.
    Followers that do not expose their parts have an empty panel that says so.

    Args:
        group: `shadow` of the record: `step`, `follower`, `part` and `share` over
            (follower, part, step); NaN where not available.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    followers, parts = words(group, "follower"), words(group, "part")
    steps, share = (
        numbers(group, "step", "step"),
        numbers(group, "share", "follower", "part", "step"),
    )
    with venue_style(venue):
        columns = columns_that_fit(venue, len(followers), 1.4)
        grid = Grid(venue, len(followers), columns, panel_height=1.15)
        for index, (axes, name) in enumerate(zip(grid.panels, followers, strict=True)):
            grid.title(axes, plain(name))
            step_axis(axes, steps)
            set_scale(axes, "y", [share, np.array([0.0, 1.0])], scale="linear")
            if not np.isfinite(share[index]).any():
                say(axes, "not available")
                continue
            guide(axes, 0.0)
            guide(axes, 1.0)
            for turn, part in enumerate(parts):
                draw_line(
                    axes,
                    steps,
                    share[index, turn],
                    part,
                    PART_STYLES[part],
                    turn=turn,
                    turns=len(parts),
                    width=0.85,
                )
        grid.label_lowest("step")
        grid.label_leftmost("share of the gap")
        handles = [style_handle(part, PART_STYLES[part]) for part in parts]
        grid.place_legend(handles)
        return grid.figure
