"""Heatmaps: median error over learning rate and decay, with the optimum and its valley marked.

Draws the group `heatmaps` of a record. All panels share one colour scale. A valley along an axis
means that learning rate and decay can be tuned one at a time, in the parametrisation drawn.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from bayesfilt.checks import require_one_of
from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    is_available,
    line_width,
    marker_size,
    numbers,
    plain,
    words,
)
from bayesfilt.figures.style import venue_style
from bayesfilt.records import Group

# What stands on the vertical axis.
DECAY_LABELS = {
    "lr_scaled": "weight decay",
    "paper": "shrink per step\n(learning rate × weight decay)",
}

_COLORS = "viridis"
_DIVERGED_COLOR = "#d9d9d9"
_HATCH = "xxxx"
_REGION_COLOR = "#ff3b30"
_MARK_COLOR, _RIM_COLOR = "#ffffff", "#000000"
_TERM, _ANGLE = "\N{GREEK SMALL LETTER RHO}", "\N{ANGLE}"
# Of a decay that is carried to another rate: by parametrisation.
_PRICES = {"paper": "shrink", "lr_scaled": "factor"}
_NO_VALLEY, _NO_PRICE = "no valley\nin the grid", "unknown"


@of_group
def heatmap_figure(
    group: Group, venue: str = "neurips", parametrisation: str = "lr_scaled"
) -> VenueFigure:
    """One panel a grid: median error as colour, best cell, valley, bootstrap region, divergence.

    A cell most of whose seeds diverged has no colour but a hatch; one some of whose seeds did
    bears a dot. In the "paper" parametrisation the same cells are drawn sheared, because
    log shrink = log learning rate + log weight decay. Below a panel's name stand the
    off-diagonal term and the angle of its valley in this parametrisation, with their intervals;
    where there is no valley, what a decay costs that is carried to another learning rate.

    Args:
        group: `heatmaps` of the record, as `compare.heatmap_group` makes it.
        venue: name in `bayesfilt.figures.VENUES`.
        parametrisation: of decay on the vertical axis, one of `DECAY_LABELS`.

    Raises:
        ValueError: an unknown venue or parametrisation, a group that lacks a variable.
    """
    require_one_of("heatmap_figure", "parametrisations", parametrisation, DECAY_LABELS)
    titles = words(group, "panel")
    with venue_style(venue):
        columns = columns_that_fit(venue, len(titles), 1.35)
        grid = Grid(venue, len(titles), columns, panel_height=1.75)
        lowest, highest = _shared_range(numbers(group, "median_error", "panel", "rate", "decay"))
        norm = LogNorm(lowest, highest)
        for index, (axes, title) in enumerate(zip(grid.panels, titles, strict=True)):
            _draw_cells(axes, group, index, parametrisation, norm)
            _draw_marks(axes, group, index, parametrisation)
            grid.title(axes, plain(title))
            # Numbers are never broken into lines.
            below = _separability(group, index, parametrisation)
            axes.set_title(f"{axes.get_title()}\n{below}", linespacing=0.95, fontsize="small")
        bar = grid.figure.colorbar(
            ScalarMappable(norm=norm, cmap=_COLORS), ax=grid.panels, aspect=30, pad=0.02
        )
        bar.set_label(f"median {group['median_error'].attributes.get('description', 'error')}")
        _plain_colour_ticks(bar, lowest, highest)
        _share_axes(grid, group, parametrisation)
        said = "\n".join(axes.get_title() for axes in grid.panels)
        grid.place_legend(_handles(group, said))
        return grid.figure


def _shared_range(medians: np.ndarray) -> tuple[float, float]:
    """Ends of the one logarithmic colour scale: the lowest and highest median of all panels."""
    known = medians[np.isfinite(medians) & (medians > 0)]
    low, high = (known.min(), known.max()) if known.size else (0.1, 1.0)
    return float(low), float(high if high > low else 1.1 * low)


def _corners(
    rates: np.ndarray, decays: np.ndarray, parametrisation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the corners of all cells, in the units of the axes."""
    x, y = np.meshgrid(_edges(rates), _edges(decays), indexing="ij")
    return x, x * y if parametrisation == "paper" else y


def _edges(values: np.ndarray) -> np.ndarray:
    """Ends of the cells around logarithmically spaced values."""
    logs = np.log(values)
    if logs.size == 1:
        return np.exp(np.array([logs[0] - 0.5, logs[0] + 0.5]))
    between = 0.5 * (logs[1:] + logs[:-1])
    ends = [1.5 * logs[0] - 0.5 * logs[1]], between, [1.5 * logs[-1] - 0.5 * logs[-2]]
    return np.exp(np.concatenate(ends))


def _quads(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The four corners of every cell: (rate, decay, 4, 2)."""
    points = np.stack([x, y], axis=-1)
    around = [points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]]
    return np.stack(around, axis=2)


def _draw_cells(axes: Axes, group: Group, index: int, parametrisation: str, norm: LogNorm) -> None:
    """Colour every cell, hatch the diverged ones; set the axes to hold exactly the grid."""
    rates = numbers(group, "learning_rate", "panel", "rate")[index]
    decays = numbers(group, "weight_decay", "panel", "decay")[index]
    medians = numbers(group, "median_error", "panel", "rate", "decay")[index]
    x, y = _corners(rates, decays, parametrisation)
    quads = _quads(x, y)
    healthy = np.isfinite(medians)
    cells = PolyCollection(list(quads[healthy]), cmap=_COLORS, norm=norm, edgecolors="face")
    # An error of 0 has no logarithm: it wears the colour of the lowest one there is.
    cells.set_array(np.maximum(medians[healthy], norm.vmin or 0.0))
    cells.set_linewidth(line_width(0.2))
    axes.add_collection(cells, autolim=False)
    if not healthy.all():
        axes.add_collection(PolyCollection(list(quads[~healthy]), **_hatched()), autolim=False)
    axes.set(xscale="log", yscale="log", xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    axes.grid(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _hatched() -> dict[str, Any]:
    return {
        "facecolors": _DIVERGED_COLOR,
        "edgecolors": "#8a8a8a",
        "hatch": _HATCH,
        "linewidth": 0.0,
    }


def _draw_marks(axes: Axes, group: Group, index: int, parametrisation: str) -> None:
    """Outline the region, draw the valley, mark the best cell and cells that diverged in part."""
    rates = numbers(group, "learning_rate", "panel", "rate")[index]
    decays = numbers(group, "weight_decay", "panel", "decay")[index]
    factor = rates if parametrisation == "paper" else np.ones_like(rates)
    x, y = _corners(rates, decays, parametrisation)
    region = numbers(group, "region", "panel", "rate", "decay")[index] > 0
    outline = LineCollection(
        _outline(region, x, y), colors=_REGION_COLOR, linewidths=line_width(1.4), zorder=3,
        capstyle="round", label="region",
    )  # fmt: skip
    axes.add_collection(outline, autolim=False)
    partly = numbers(group, "diverged", "panel", "rate", "decay")[index]
    medians = numbers(group, "median_error", "panel", "rate", "decay")[index]
    row, column = np.nonzero((partly > 0) & np.isfinite(medians))
    axes.plot(rates[row], factor[row] * decays[column], **_dots(), label="partly diverged")
    valley = factor * numbers(group, "ridge", "panel", "rate")[index]
    for width, color, name in ((2.2, _RIM_COLOR, "_rim"), (1.2, _MARK_COLOR, "valley")):
        axes.plot(
            rates, valley, color=color, linewidth=line_width(width), label=name, zorder=4,
            marker="o", markersize=marker_size(0.4 * width), markeredgewidth=0,
        )  # fmt: skip
    rate, decay = numbers(group, "best_cell", "panel", "axis")[index].astype(int)
    axes.plot(rates[rate], factor[rate] * decays[decay], **_star(), label="best", zorder=5)


def _star() -> dict[str, Any]:
    return {
        "marker": "*", "markersize": marker_size(2.4), "markerfacecolor": _MARK_COLOR,
        "markeredgecolor": _RIM_COLOR, "markeredgewidth": line_width(0.7), "linestyle": "none",
    }  # fmt: skip


def _dots() -> dict[str, Any]:
    return {
        "marker": "x", "markersize": marker_size(0.9), "color": _MARK_COLOR,
        "markeredgewidth": line_width(0.7), "linestyle": "none", "zorder": 3.5,
    }  # fmt: skip


def _outline(region: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Sides of the cells inside that have no cell inside beyond them."""
    padded = np.pad(region, 1)
    sides = []
    for (row, column), inside in np.ndenumerate(region):
        if not inside:
            continue
        corners = _quads(x, y)[row, column]
        beyond = (
            padded[row + 1, column],  # lower decay
            padded[row + 2, column + 1],  # higher rate
            padded[row + 1, column + 2],  # higher decay
            padded[row, column + 1],  # lower rate
        )
        for side, taken in enumerate(beyond):
            if not taken:
                sides.append(corners[[side, (side + 1) % 4]])
    return sides


def _separability(group: Group, index: int, parametrisation: str) -> str:
    """Two short lines: of the valley, or of the price of carrying a decay where there is none."""
    term = _interval(group, "off_diagonal", index, parametrisation, ".2f")
    if term:
        angle = _interval(group, "ridge_angle", index, parametrisation, ".0f")
        return f"{_TERM} {term}\n{_ANGLE} {angle}"
    prices = {
        name: _interval(group, "carried_regret", index, each, ".2f")
        for each, name in _PRICES.items()
    }
    if not any(prices.values()):
        return _NO_VALLEY
    return "\n".join(f"{name} {price or _NO_PRICE}" for name, price in prices.items())


def _interval(group: Group, name: str, index: int, parametrisation: str, form: str) -> str:
    """A panel's number with its interval; empty where it does not exist or was not asked for."""
    if not is_available(group, name):
        return ""
    column = words(group, "parametrisation").index(parametrisation)
    values = [
        numbers(group, f"{name}{ending}", "panel", "parametrisation")[index, column]
        for ending in ("", "_low", "_high")
    ]
    if np.isnan(values[0]):
        return ""
    estimate, low, high = (_number(value, form) for value in values)
    return estimate if np.isnan(values[1]) else f"{estimate} ({low}, {high})"


def _number(value: float, form: str) -> str:
    """`value` with a proper minus sign, and none before a zero."""
    text = f"{value:{form}}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _plain_colour_ticks(bar: Any, lowest: float, highest: float) -> None:
    """A few round numbers, because a range of less than a decade has no power of ten."""
    round_ones = np.outer(10.0 ** np.arange(-6, 4), [1, 2, 3, 5]).ravel()
    inside = [tick for tick in round_ones if lowest <= tick <= highest]
    bar.ax.minorticks_off()
    ticks = inside if len(inside) > 1 else [lowest, highest]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])


def _share_axes(grid: Grid, group: Group, parametrisation: str) -> None:
    """Label both directions once; numbers stay at inner panels whose axes differ."""
    rates = numbers(group, "learning_rate", "panel", "rate")
    decays = numbers(group, "weight_decay", "panel", "decay")
    same_rates = bool(np.all(rates == rates[0]))
    grid.figure.supxlabel("learning rate")
    grid.figure.supylabel(DECAY_LABELS[parametrisation], linespacing=0.95, multialignment="center")
    if same_rates:
        for axes in grid.panels:
            axes.tick_params(labelbottom=axes in grid.lowest)
    if same_rates and bool(np.all(decays == decays[0])):
        for axes in grid.panels:
            axes.tick_params(labelleft=axes in grid.leftmost)


def _handles(group: Group, said: str) -> list[Artist]:
    """Legend: what the marks and the signs in what is said mean; only those that are there."""
    medians = numbers(group, "median_error", "panel", "rate", "decay")
    partly = numbers(group, "diverged", "panel", "rate", "decay")
    handles: list[Artist] = [
        Line2D([], [], **_star(), label="best cell"),
        Line2D([], [], color=_REGION_COLOR, linewidth=line_width(1.4), label="may be the best"),
        Line2D(
            [], [], color=_MARK_COLOR, linewidth=line_width(1.2), label="best decay at each rate",
            marker="o", markersize=marker_size(0.8), markeredgecolor=_RIM_COLOR,
            path_effects=_rim(),
        ),
    ]  # fmt: skip
    if np.isinf(medians).any():
        handles.append(
            Patch(facecolor=_DIVERGED_COLOR, edgecolor="#8a8a8a", hatch=_HATCH, label="diverged")
        )
    if ((partly > 0) & np.isfinite(medians)).any():
        cross: dict[str, Any] = {**_dots(), "color": _RIM_COLOR}
        handles.append(Line2D([], [], **cross, label="some seeds diverged"))
    return handles + [Line2D([], [], linestyle="none", label=each) for each in _meanings(said)]


def _meanings(said: str) -> list[str]:
    """What the signs below the panels' names mean; only those that stand there."""
    meanings = []
    if _TERM in said:
        meanings += [f"{_TERM}: off-diagonal term", f"{_ANGLE}: angle of the valley (degrees)"]
    if any(f"\n{name} " in said for name in _PRICES.values()):
        names = ", ".join(_PRICES.values())
        meanings.append(f"{names}: log error added by a decay carried as such")
    return meanings


def _rim() -> list[Any]:
    """A black rim, so that a white line is seen on white paper."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=line_width(2.2), foreground=_RIM_COLOR), Normal()]
