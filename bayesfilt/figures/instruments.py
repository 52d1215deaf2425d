"""Figures of what was measured at single weights: noise and drift by curvature, and calibration.

Draw the group `instruments` of an inference. The theory needs noise variance = curvature (R = H);
a drift whose size does not depend on the curvature asks for a root normaliser, one that falls as
its inverse for a mean-square one.
"""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesfilt.figures.layout import Facets, VenueFigure, of_group, place_legend_above
from bayesfilt.figures.panels import (
    guide,
    line_width,
    marker_size,
    numbers,
    plain,
    say,
    set_scale,
    step_axis,
    words,
)
from bayesfilt.figures.style import LIMIT_COLOR, THEORY_COLOR, LineStyle, venue_style
from bayesfilt.records import Group

_WEIGHTS = "#00707c"
_EQUAL = LineStyle(color=THEORY_COLOR, marker="", dashes=())
_FIT = LineStyle(color="#cf5f2a", marker="", dashes=())
_ROOT = LineStyle(color=LIMIT_COLOR, marker="", dashes=(4, 1.5))
_MEAN_SQUARE = LineStyle(color=LIMIT_COLOR, marker="", dashes=(1.2, 1.2))


@of_group
def instruments_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Gradient-noise variance and drift variance of every weight against its curvature, by layer.

    Args:
        group: `instruments` of the record: `layer`; over weight `layer_of`, `curvature`,
            `noise_variance` (both of the summed loss, 1/weight^2) and `drift_variance` (weight^2
            per step); `drift_slope` and `drift_slope_error` over layer: of log drift variance
            on log curvature.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    layers = words(group, "layer")
    owner = np.array(words(group, "layer_of"))
    curvature, noise, drift = (
        numbers(group, name, "weight") for name in ("curvature", "noise_variance", "drift_variance")
    )
    slope, error = (numbers(group, name, "layer") for name in ("drift_slope", "drift_slope_error"))
    with venue_style(venue):
        facets = Facets(
            venue,
            rows=["noise variance R\n(1/weight²)", "drift variance\n(weight² per step)"],
            columns=[
                f"{plain(name)}\n{_slope_text(each, wide)}"
                for name, each, wide in zip(layers, slope, error, strict=True)
            ],
            horizontal="curvature H of the summed loss (1/weight²)",
            least_width=1.2,
            panel_height=1.25,
        )
        for (row, column), axes in facets.panels.items():
            own = owner == layers[column]
            values = noise if row == 0 else drift
            positive = curvature[curvature > 0]
            set_scale(axes, "x", [positive], scale="log", decades=8)
            framed = [values, positive] if row == 0 and positive.size else [values]
            set_scale(axes, "y", framed, scale="log", decades=8)
            _draw_weights(axes, curvature[own], values[own])
            if row == 0:
                _draw_power(axes, 1.0, (1.0, 1.0), _EQUAL)
            elif np.isfinite(slope[column]):
                _draw_slopes(axes, curvature[own], values[own], float(slope[column]))
        place_legend_above(facets.figure, _instrument_handles())
        return facets.figure


def _slope_text(slope: float, error: float) -> str:
    return f"drift slope {slope:.2f} ± {error:.2f}" if np.isfinite(slope) else "no drift slope"


def _draw_weights(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A dot for each weight whose numbers are both above zero."""
    if not ((x > 0) & (y > 0)).any():
        say(axes, "not available")
        return
    axes.plot(
        x, y, linestyle="none", marker=".", markersize=marker_size(1.2), markeredgewidth=0,
        color=_WEIGHTS, alpha=0.6, label="one weight",
    )  # fmt: skip


def _draw_slopes(axes: Axes, x: np.ndarray, y: np.ndarray, slope: float) -> None:
    """The slope that was found and the two that the theory asks about, through the middle."""
    known = (x > 0) & (y > 0)
    if not known.any():
        return
    middle = (float(np.median(x[known])), float(np.median(y[known])))
    _draw_power(axes, 0.0, middle, _ROOT)
    _draw_power(axes, -1.0, middle, _MEAN_SQUARE)
    _draw_power(axes, slope, middle, _FIT)


def _draw_power(axes: Axes, power: float, through: tuple[float, float], style: LineStyle) -> None:
    """A straight line on two logarithmic axes, in the panel's limits."""
    (left, right), limits = axes.get_xlim(), axes.get_ylim()
    ends = np.array([left, right])
    with np.errstate(over="ignore", under="ignore"):
        heights = through[1] * (ends / through[0]) ** power
    axes.plot(
        ends, heights, color=style.color, linestyle=style.linestyle, linewidth=line_width(0.9),
        zorder=3,
    )  # fmt: skip
    axes.set(xlim=(left, right), ylim=limits)


def _instrument_handles() -> list[Artist]:
    """Legend: dots, equality, the three slopes."""
    lines = {
        "R = H": _EQUAL,
        "fitted slope": _FIT,
        "slope 0: a root normaliser is best": _ROOT,
        "slope -1: a mean-square one": _MEAN_SQUARE,
    }
    dot = Line2D([], [], linestyle="none", marker=".", color=_WEIGHTS, label="one weight")
    return [dot, *(_handle(label, style) for label, style in lines.items())]


def _handle(label: str, style: LineStyle) -> Line2D:
    return Line2D(
        [], [], color=style.color, linestyle=style.linestyle, linewidth=line_width(0.9), label=label
    )


@of_group
def belief_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Whether the filter's belief about single weights is calibrated, over the window, by layer.

    Above, the squared distance of the optimum from the belief's mean over its variance; below, the
    squared innovation over what was expected of it. Both are 1 where the belief knows how much it
    knows, more where it is too sure. Lines are means over a layer's weights, bands the middle half
    of them.

    Args:
        group: `instruments` of the record: `layer`, `step`, and over (layer, step) `calibration`
            and `innovation` with `_low` and `_high`; attribute `variance` of `calibration`: whose.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    layers, steps = words(group, "layer"), numbers(group, "step", "step")
    quantities = ("calibration", "innovation")
    with venue_style(venue):
        facets = Facets(
            venue,
            rows=["(optimum - mean)²\n/ variance", "innovation²\n/ its variance"],
            columns=[plain(name) for name in layers],
            horizontal="step",
            least_width=1.2,
            panel_height=1.1,
        )
        for (row, column), axes in facets.panels.items():
            name = quantities[row]
            middle, low, high = (
                numbers(group, each, "layer", "step")
                for each in (name, f"{name}_low", f"{name}_high")
            )
            step_axis(axes, steps)
            set_scale(axes, "y", [middle, np.ones(1)], scale="log", decades=8)
            guide(axes, 1.0)
            if not np.isfinite(middle[column]).any():
                say(axes, "not available")
                continue
            limits = axes.get_ylim()
            axes.fill_between(
                steps, np.maximum(low[column], limits[0] / 10), high[column],
                color=_WEIGHTS, alpha=0.2, linewidth=0,
            )  # fmt: skip
            axes.plot(steps, middle[column], color=_WEIGHTS, linewidth=line_width(0.8), label=name)
            axes.set_ylim(limits)
        handles: list[Artist] = [
            Line2D([], [], color=_WEIGHTS, label="mean over the layer's weights"),
            Patch(color=_WEIGHTS, alpha=0.2, linewidth=0, label="middle half of them"),
            Patch(alpha=0, label=f"variance: {group['calibration'].attributes['variance']}"),
        ]
        place_legend_above(facets.figure, handles)
        return facets.figure
