"""Figures of the gains over time: their distribution, and the fraction of weights in each regime.

Draw the group `gains` of a comparison, as `crossover.py` does for a single snapshot.
"""

import numpy as np

from bayesfilt.figures.layout import (
    Facets,
    Grid,
    VenueFigure,
    columns_that_fit,
    of_group,
    place_legend_above,
    spread,
)
from bayesfilt.figures.panels import (
    draw_line,
    numbers,
    optimizer_handles,
    plain,
    say,
    set_scale,
    step_axis,
    words,
)
from bayesfilt.figures.style import optimizer_style, venue_style
from bayesfilt.records import Group

_REGIME_LABELS = {"sgd": "SGD-like", "adam": "Adam-like", "mean_square": "mean-square"}
_MOST_SNAPSHOTS = 6


@of_group
def gains_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Histogram of log10 posterior variance, an outline per optimizer and a panel per snapshot.

    At most six snapshots are drawn, evenly spread from the first to the last.

    Args:
        group: `gains` of the record: `optimizer`, `snapshot`, `log10_gain_bin` (centres) and
            `gain_count` over (optimizer, snapshot, log10_gain_bin).
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    names = words(group, "optimizer")
    steps = numbers(group, "snapshot", "snapshot")
    bins = numbers(group, "log10_gain_bin", "log10_gain_bin")
    count = numbers(group, "gain_count", "optimizer", "snapshot", "log10_gain_bin")
    shown = spread(len(steps), _MOST_SNAPSHOTS)
    filled = bins[np.nan_to_num(count[:, shown]).any(axis=(0, 1))]
    with venue_style(venue):
        columns = columns_that_fit(venue, len(shown), 1.45)
        grid = Grid(venue, len(shown), columns, panel_height=1.1)
        for axes, snapshot in zip(grid.panels, shown, strict=True):
            grid.title(axes, f"step {steps[snapshot]:g}")
            set_scale(axes, "y", [count[:, shown], np.ones(1)], scale="log")
            axes.set_yscale("log", nonpositive="clip")  # outlines fall to the floor
            set_scale(axes, "x", [filled if filled.size else bins], scale="linear")
            if not np.isfinite(count[:, snapshot]).any():
                say(axes, "not available")
                continue
            for turn, name in enumerate(names):
                line = draw_line(
                    axes, bins, count[turn, snapshot], name, optimizer_style(name),
                    turn=turn, turns=len(names),
                )  # fmt: skip
                line.set_drawstyle("steps-mid")
                # Markers on the outline's hills, not along its empty bins.
                hills = np.flatnonzero(np.nan_to_num(count[turn, snapshot]) > 0)
                line.set_markevery(hills[turn :: 2 * len(names)].tolist())
        grid.label_lowest(r"$\log_{10}$ gain (posterior variance, weight²)")
        grid.label_leftmost("weights")
        grid.place_legend(optimizer_handles(_drawn(names, count[:, shown])))
        return grid.figure


@of_group
def regimes_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Fraction of weights in each regime (rows) of every layer (columns) over time.

    Where the layers do not fit side by side, the rows are repeated below for the next layers.

    Args:
        group: `gains` of the record: `optimizer`, `layer`, `regime`, `snapshot` and
            `regime_fraction` over (optimizer, layer, regime, snapshot).
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    names, layers, regimes = (words(group, each) for each in ("optimizer", "layer", "regime"))
    steps = numbers(group, "snapshot", "snapshot")
    fraction = numbers(group, "regime_fraction", "optimizer", "layer", "regime", "snapshot")
    with venue_style(venue):
        facets = Facets(
            venue,
            rows=[_REGIME_LABELS.get(regime, regime) for regime in regimes],
            columns=[plain(layer) for layer in layers],
            horizontal="step",
            least_width=1.0,
            panel_height=0.8,
        )
        for (row, layer), axes in facets.panels.items():
            step_axis(axes, steps)
            axes.set_ylim(-0.05, 1.05)
            for turn, name in enumerate(names):
                draw_line(
                    axes, steps, fraction[turn, layer, row], name, optimizer_style(name),
                    turn=turn, turns=len(names),
                )  # fmt: skip
        facets.figure.supylabel("fraction of weights")
        place_legend_above(facets.figure, optimizer_handles(_drawn(names, fraction)))
        return facets.figure


def _drawn(names: list[str], values: np.ndarray) -> list[str]:
    """Optimizers with anything to draw; all of them where none has."""
    drawn = [name for name, own in zip(names, values, strict=True) if np.isfinite(own).any()]
    return drawn or names
