"""Figures of inferred models: how much the optimum's mean shrinks, and which model predicts best.

Draw the groups `shrink` and `comparison` of an inference. A model keeps its colour in both, and
one whose sampling failed a gate is drawn thin and dotted and named so, never as if it had not.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    line_width,
    marker_size,
    numbers,
    plain,
    power_of_ten,
    say,
    set_scale,
    words,
)
from bayesfilt.figures.style import (
    GUIDE_COLOR,
    LIMIT_COLOR,
    NOISE_COLOR,
    THEORY_COLOR,
    LineStyle,
    model_style,
    venue_style,
)
from bayesfilt.records import Group

_SET_DECAY = LineStyle(color=THEORY_COLOR, marker="", dashes=())
_IMPLIED_DECAY = LineStyle(color=LIMIT_COLOR, marker="", dashes=(4, 1.5))
_NEGLIGIBLE = LineStyle(color=LIMIT_COLOR, marker="", dashes=(1, 1.2))
_FAILED_DASHES = (1, 1)
_CLEAR = 2.0  # standard errors by which a refuted model has lost
_LINEAR_WITHIN = 10.0  # of a difference in log density; beyond it the axis is logarithmic


@of_group
def shrink_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Posterior of the shrink per step in each layer, over its prior, beside two decays.

    The upright lines are the decay that was set, learning rate times weight decay; the decay that
    the theory ties to the learning rate eta, eta^2 / (2 sigma^2) at the inferred sigma^2; and,
    thin, the shrink below which the window could not tell it from none. Dots and bars at the
    bottom are medians and 90 % intervals. A decay of zero has no place on the axis and is named in
    the legend.

    Args:
        group: `shrink` of the record: `model`, `layer`, `shrink` (a grid), `density` and
            `prior_density` over (model, layer, shrink), both for a factor of ten; `low`,
            `median` and `high` over (model, layer), `failed` over model, `implied_decay` over
            layer, `set_decay` and `negligible`.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    models, layers = words(group, "model"), words(group, "layer")
    failed = numbers(group, "failed", "model") > 0
    density = numbers(group, "density", "model", "layer", "shrink")
    set_decay = float(numbers(group, "set_decay"))
    implied = numbers(group, "implied_decay", "layer")
    negligible = float(numbers(group, "negligible"))
    with venue_style(venue):
        grid = Grid(venue, len(layers), columns_that_fit(venue, len(layers), 1.6), 1.5)
        for index, axes in enumerate(grid.panels):
            grid.title(axes, plain(layers[index]))
            _draw_shrink(axes, group, index, models, failed)
            _upright(axes, set_decay, _SET_DECAY)
            _upright(axes, implied[index], _IMPLIED_DECAY)
            _upright(axes, negligible, _NEGLIGIBLE)
        grid.label_lowest("shrink of the optimum's mean per step")
        for axes in grid.leftmost:
            axes.set_ylabel("density (per factor of ten)")
        drawn = [each for each, own in zip(models, density, strict=True) if np.isfinite(own).any()]
        lost = {name for name, bad in zip(models, failed, strict=True) if bad}
        grid.place_legend(_shrink_handles(drawn, lost, set_decay, implied, negligible))
        return grid.figure


def _draw_shrink(
    axes: Axes, group: Group, layer: int, models: Sequence[str], failed: np.ndarray
) -> None:
    """One layer: the prior as an area, a curve and an interval for each model."""
    shrink = numbers(group, "shrink", "shrink")
    density = numbers(group, "density", "model", "layer", "shrink")[:, layer]
    prior = numbers(group, "prior_density", "model", "layer", "shrink")[:, layer]
    low, median, high = (
        numbers(group, name, "model", "layer")[:, layer] for name in ("low", "median", "high")
    )
    set_scale(axes, "x", [shrink], scale="log")
    known = density[np.isfinite(density)]
    if not known.size:
        axes.set_yticks([])
        say(axes, "not available")
        return
    top = 1.05 * float(known.max())
    room = 0.07 * top  # below zero, an interval for each model
    axes.set_ylim(-room * (len(models) + 1), top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.axhline(0, color=GUIDE_COLOR, linewidth=line_width(0.6), zorder=0.9)
    broadest = np.nanmax(np.where(np.isfinite(prior), prior, 0.0), axis=0)
    axes.fill_between(shrink, broadest, color=NOISE_COLOR, linewidth=0, alpha=0.6, zorder=0.8)
    for index, name in enumerate(models):
        if not np.isfinite(density[index]).any():
            continue
        style = model_style(name)
        dashes = (0, _FAILED_DASHES) if failed[index] else "solid"
        width = line_width(0.7 if failed[index] else 1.2)
        axes.plot(
            shrink, density[index], color=style.color, linestyle=dashes, linewidth=width, label=name
        )
        height = -room * (index + 1)
        axes.plot(
            [low[index], high[index]], [height] * 2, color=style.color, linestyle=dashes,
            linewidth=width, label=f"{name}: 90 %",
        )  # fmt: skip
        axes.plot(
            median[index], height, color=style.color, marker=style.marker,
            markersize=marker_size(0.9), label=f"{name}: median",
        )  # fmt: skip


def _upright(axes: Axes, value: float, style: LineStyle) -> None:
    """A decay as an upright line; the axis stretches to hold it."""
    if not (np.isfinite(value) and value > 0):
        return
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, value / 2), max(high, value * 2))
    axes.axvline(
        value, color=style.color, linestyle=style.linestyle, linewidth=line_width(0.9), zorder=1.5
    )


def _shrink_handles(
    models: Sequence[str],
    failed: set[str],
    set_decay: float,
    implied: np.ndarray,
    negligible: float,
) -> list[Artist]:
    """Legend: models, prior, and the two decays with what can be said of them in a number."""
    handles: list[Artist] = [_model_handle(name, failed=name in failed) for name in models]
    handles.append(Patch(color=NOISE_COLOR, alpha=0.6, linewidth=0, label="prior"))
    if np.isfinite(set_decay):
        off = "" if set_decay > 0 else ", off this axis"
        label = rf"learning rate $\times$ weight decay = {power_of_ten(set_decay)}{off}"
        handles.append(_plain_line(label, _SET_DECAY))
    if (np.isfinite(implied) & (implied > 0)).any():
        handles.append(
            _plain_line(r"$\eta^2/2\sigma^2$ with $\eta$ the learning rate", _IMPLIED_DECAY)
        )
    if np.isfinite(negligible):
        handles.append(_plain_line("counts as none below", _NEGLIGIBLE))
    return handles


@of_group
def comparison_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """How much worse each model predicts the next step than the best one, all layers and each.

    Bars are two standard errors of the difference. A model whose bar does not reach zero is
    refuted and stands open; one whose sampling failed a gate is a cross.

    Args:
        group: `comparison` of the record: `model`, `layer` ("all" first), `difference` and
            `standard_error` over (model, layer), in nats over all steps and weights;
            `refuted`, `failed` and `reported` over model, `weight` (of the stack) over model.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    models, layers = words(group, "model"), words(group, "layer")
    difference = numbers(group, "difference", "model", "layer")
    error = numbers(group, "standard_error", "model", "layer")
    looks = {name: numbers(group, name, "model") > 0 for name in ("refuted", "failed", "reported")}
    with venue_style(venue):
        columns = columns_that_fit(venue, len(layers), 1.35)
        grid = Grid(venue, len(layers), columns, panel_height=0.35 + 0.17 * len(models))
        for index, axes in enumerate(grid.panels):
            grid.title(axes, "all layers" if layers[index] == "all" else plain(layers[index]))
            _frame_differences(axes, difference[:, index], error[:, index], len(models))
            for place, name in enumerate(models):
                _draw_difference(
                    axes, place, name, difference[place, index], error[place, index],
                    refuted=bool(looks["refuted"][place]), failed=bool(looks["failed"][place]),
                )  # fmt: skip
            axes.set_yticks(range(len(models)))
            # Numbers are told apart by size, words need the room of the left column.
            axes.set_yticklabels([])
        weights = numbers(group, "weight", "model")
        for axes in grid.leftmost:
            axes.set_yticklabels(_model_ticks(models, weights, looks["reported"]))
        grid.figure.supxlabel("log predictive density minus the best model's (nats)")
        grid.place_legend(_difference_handles(looks))
        return grid.figure


def _frame_differences(axes: Axes, values: np.ndarray, errors: np.ndarray, count: int) -> None:
    """Axes of one panel: models downwards; nats, logarithmic far from zero where that is needed."""
    reach = np.concatenate([values - _CLEAR * errors, values + _CLEAR * errors, np.zeros(1)])
    reach = reach[np.isfinite(reach)]
    low, high = float(reach.min()), float(reach.max())
    if max(abs(low), high) > 10 * _LINEAR_WITHIN:
        axes.set_xscale("symlog", linthresh=_LINEAR_WITHIN)
        least = 10.0 ** np.ceil(np.log10(max(-low, _LINEAR_WITHIN)))
        most = 10.0 ** np.ceil(np.log10(max(high, _LINEAR_WITHIN)))
        axes.set_xlim(-least, most)
        ticks = [-least, -_LINEAR_WITHIN, 0.0] + ([most] if most > _LINEAR_WITHIN else [])
        axes.set_xticks(ticks)
        axes.set_xticks([], minor=True)
    else:
        room = 0.06 * (high - low) or 1.0
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.axvline(0, color=GUIDE_COLOR, linewidth=line_width(0.6), zorder=0.9)
    axes.set_ylim(count - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _draw_difference(
    axes: Axes,
    place: int,
    name: str,
    value: float,
    error: float,
    *,
    refuted: bool,
    failed: bool,
) -> None:
    """One model: a marker that says what became of it, and two standard errors."""
    style = model_style(name)
    bar = [value - _CLEAR * error, value + _CLEAR * error]
    axes.plot(bar, [place] * 2, color=style.color, linewidth=line_width(1.2), label=f"{name}: 2 SE")
    axes.plot(
        value, place, linestyle="none", color=style.color, marker="x" if failed else style.marker,
        markerfacecolor="white" if refuted else style.color,
        markersize=marker_size(1.3), markeredgewidth=line_width(0.9), label=name,
    )  # fmt: skip


def _model_ticks(models: Sequence[str], weights: np.ndarray, reported: np.ndarray) -> list[str]:
    """Names at the left edge, with the share of the stack and a mark on the reported model."""
    ticks = []
    for name, weight, chosen in zip(models, weights, reported, strict=True):
        share = f" ({weight:.0%})" if np.isfinite(weight) else ""
        ticks.append(f"{'→ ' if chosen else ''}{plain(name)}{share}")
    return ticks


def _difference_handles(looks: dict[str, np.ndarray]) -> list[Artist]:
    """Legend: what open, full and crossed markers mean."""

    def mark(label: str, marker: str, face: str) -> Artist:
        return Line2D(
            [], [], linestyle="none", marker=marker, color=LIMIT_COLOR, markerfacecolor=face,
            markersize=marker_size(1.3), markeredgewidth=line_width(0.9), label=label,
        )  # fmt: skip

    handles = []
    if not (looks["refuted"] | looks["failed"]).all():
        handles.append(mark("not refuted", "o", LIMIT_COLOR))
    if looks["refuted"].any():
        handles.append(
            mark("refuted: worse than the best by more than 2 standard errors", "o", "white")
        )
    if looks["failed"].any():
        handles.append(mark("sampling failed its gates: do not trust", "x", LIMIT_COLOR))
    handles.append(Patch(alpha=0, label="(share of the stack), → reported"))
    return handles


def _model_handle(name: str, *, failed: bool) -> Line2D:
    """Legend entry of a model's curve."""
    style = model_style(name)
    label = plain(name) + (": FAILED ITS GATES" if failed else "")
    return Line2D(
        [], [], color=style.color, marker=style.marker, label=label,
        linestyle=(0, _FAILED_DASHES) if failed else "solid",
        linewidth=line_width(0.7 if failed else 1.2),
    )  # fmt: skip


def _plain_line(label: str, style: LineStyle) -> Line2D:
    return Line2D(
        [], [], color=style.color, linestyle=style.linestyle, linewidth=line_width(0.9), label=label
    )
