"""Decay inferred from recorded training against what it is compared with, a panel a reading.

Draws the group `inferred_decay`: on the line both are equal, in the grey band they are near.
"""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    line_width,
    marker_size,
    numbers,
    power_of_ten,
    say,
    set_scale,
    words,
)
from bayesfilt.figures.style import LIMIT_COLOR, NOISE_COLOR, THEORY_COLOR, venue_style
from bayesfilt.records import Group

# A colour and a marker a learning rate, a filling a layer; further ones begin again.
_RATES = (("#0a4690", "o"), ("#22804f", "s"), ("#dc5a22", "^"), ("#451a6e", "D"), ("#e6b73f", "v"))
_FILLINGS = ("full", "none", "left", "right", "top")
_BELOW, _ABOVE = 7, 6  # matplotlib's carets, down and up
_BAND = 0.35


@of_group
def inferred_decay_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Inferred decay per step against a reference, a marker a learning rate, decay and layer.

    Whiskers reach from the lowest to the highest seed. A bound is a caret: the decay is there or
    further down (up). What is not known at all has no marker.

    Args:
        group: `reading` and `layer` (words), `learning_rate`; `reference` over (learning_rate,
            weight_decay), its description the label; `decay`, `decay_low`, `decay_high` over
            (reading, layer, learning_rate, weight_decay), and so `edge`, below 0 where `decay` is
            an upper bound, above 0 where it is a lower one; `near`, a factor.
        venue: name in `bayesfilt.figures.VENUES`.
    """
    readings, layers = words(group, "reading"), words(group, "layer")
    rates = numbers(group, "learning_rate", "learning_rate")
    reference = numbers(group, "reference", "learning_rate", "weight_decay")
    where = ("reading", "layer", "learning_rate", "weight_decay")
    names = ("decay", "decay_low", "decay_high", "edge")
    decay, low, high, edge = (numbers(group, name, *where) for name in names)
    near = float(numbers(group, "near"))
    with venue_style(venue):
        columns = columns_that_fit(venue, len(readings), 1.6)
        grid = Grid(venue, len(readings), columns, panel_height=1.6)
        for index, (axes, reading) in enumerate(zip(grid.panels, readings, strict=True)):
            set_scale(axes, "x", [reference], scale="log")
            set_scale(axes, "y", [decay, low, high, reference], scale="log")
            _draw_reference(axes, near)
            _draw_found(axes, reference, decay[index], low[index], high[index], edge[index])
            grid.title(axes, reading)
            if not np.isfinite(decay[index]).any():
                say(axes, "not known")
        grid.label_lowest(str(group["reference"].attributes["description"]))
        grid.label_leftmost("inferred decay per step")
        grid.place_legend(_handles(rates, layers, near, edge[np.isfinite(decay)]))
        return grid.figure


def _draw_reference(axes: Axes, near: float) -> None:
    """The line of equal numbers, and the band around it."""
    ends = np.array(axes.get_xlim())
    axes.fill_between(
        ends, ends / near, ends * near, color=NOISE_COLOR, alpha=_BAND, linewidth=0, zorder=0.5
    )
    axes.plot(
        ends, ends, color=THEORY_COLOR, linewidth=line_width(0.7), zorder=0.9, label="equal"
    )  # fmt: skip


def _draw_found(
    axes: Axes,
    reference: np.ndarray,
    decay: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    edge: np.ndarray,
) -> None:
    """Markers with whiskers; layers stand a little apart, so that none hides another."""
    for layer in range(len(decay)):
        apart = 1.06 ** (layer - 0.5 * (len(decay) - 1))
        for rate in range(len(reference)):
            color, marker = _RATES[rate % len(_RATES)]
            x = reference[rate] * apart
            known = np.isfinite(decay[layer, rate]) & np.isfinite(x)
            axes.vlines(
                x[known], low[layer, rate][known], high[layer, rate][known], color=color,
                linewidth=line_width(0.6), zorder=2,
            )  # fmt: skip
            for side, shape in ((0, marker), (-1, _BELOW), (1, _ABOVE)):
                here = known & (np.sign(edge[layer, rate]) == side)
                axes.plot(
                    x[here], decay[layer, rate][here], linestyle="none", marker=shape,
                    fillstyle=_FILLINGS[layer % len(_FILLINGS)], markersize=marker_size(0.9),
                    color=color, label=f"rate {rate}, layer {layer}, side {side}", zorder=3,
                )  # fmt: skip


def _handles(rates: np.ndarray, layers: list[str], near: float, edges: np.ndarray) -> list[Artist]:
    """Legend: learning rates, layers, the bounds that are there, the line and the band."""
    handles: list[Artist] = [
        Line2D(
            [], [], linestyle="none", marker=marker, color=color,
            label=f"learning rate {power_of_ten(rate)}",
        )
        for rate, (color, marker) in zip(rates, _cycled(len(rates)), strict=True)
    ]  # fmt: skip
    handles += [
        Line2D(
            [], [], linestyle="none", marker="o", color=LIMIT_COLOR,
            fillstyle=_FILLINGS[index % len(_FILLINGS)], label=layer,
        )
        for index, layer in enumerate(layers)
    ]  # fmt: skip
    bounds = {
        -1: Line2D([], [], linestyle="none", marker=_BELOW, color=LIMIT_COLOR, label="or below"),
        1: Line2D([], [], linestyle="none", marker=_ABOVE, color=LIMIT_COLOR, label="or above"),
    }
    handles += [each for side, each in bounds.items() if (np.sign(edges) == side).any()]
    handles.append(Line2D([], [], color=THEORY_COLOR, linewidth=line_width(0.7), label="equal"))
    handles.append(
        Patch(color=NOISE_COLOR, alpha=_BAND, linewidth=0, label=f"within a factor of {near:g}")
    )
    return handles


def _cycled(count: int) -> list[tuple[str, str]]:
    return [_RATES[index % len(_RATES)] for index in range(count)]
