"""Figures of recorded streams: what was observed, what a model foretold, and how well it knew.

Draw the groups `foretold` and `calibration` of an inference.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group, spread
from bayesfilt.figures.panels import (
    draw_line,
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
from bayesfilt.figures.style import NOISE_COLOR, THEORY_COLOR, LineStyle, model_style, venue_style
from bayesfilt.records import Group

_MOST_PANELS = 6
_DEVIATIONS = 1.645  # a normal's 90 % lie within so many standard deviations
_FAILED = ": FAILED ITS GATES"


@of_group
def streams_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Some streams of every layer over the band in which one model expected the next value.

    Dots are what was observed, gaps steps that were not valid. The line is the model's mean for
    the next step given all steps before, the band 90 % of its distribution.

    Args:
        group: `foretold` of the record: `step`, `stream` (names), `layer_of` over stream,
            `observed`, `one_step_mean`, `one_step_deviation` over (stream, step), NaN where not
            valid; attribute `label` of `observed`, `model` and `failed` of `one_step_mean`.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    steps = numbers(group, "step", "step")
    names, layers = words(group, "stream"), words(group, "layer_of")
    observed, mean, deviation = (
        numbers(group, name, "stream", "step")
        for name in ("observed", "one_step_mean", "one_step_deviation")
    )
    shown = _a_few_of_each(layers)
    foretold = group["one_step_mean"].attributes
    model = str(foretold["model"])
    style = model_style(model)
    with venue_style(venue):
        grid = Grid(venue, len(shown), columns_that_fit(venue, len(shown), 1.6), 1.15)
        for axes, index in zip(grid.panels, shown, strict=True):
            grid.title(axes, plain(f"{layers[index]}, weight {names[index]}"))
            step_axis(axes, steps)
            band = [mean[index] + sign * _DEVIATIONS * deviation[index] for sign in (-1, 1)]
            _frame(axes, observed[index], band)
            axes.fill_between(steps, *band, color=style.color, alpha=0.22, linewidth=0)
            axes.plot(steps, mean[index], color=style.color, linewidth=line_width(0.7), label=model)
            axes.plot(
                steps, observed[index], linestyle="none", marker=".", color=THEORY_COLOR,
                markersize=marker_size(0.5), markeredgewidth=0, label="observed",
            )  # fmt: skip
        grid.label_lowest("step")
        label = str(group["observed"].attributes["label"])
        for axes in grid.leftmost:
            axes.set_ylabel(label, linespacing=0.95)
        marked = plain(model) + (_FAILED if foretold["failed"] else "")
        grid.place_legend(_stream_handles(marked, style))
        return grid.figure


def _a_few_of_each(layers: Sequence[str]) -> list[int]:
    """Streams that are drawn: as many of every layer as there is room for, evenly spread."""
    known = list(dict.fromkeys(layers))
    chosen = [known[index] for index in spread(len(known), _MOST_PANELS)]
    each = max(1, _MOST_PANELS // len(chosen))
    shown = []
    for layer in chosen:
        own = [index for index, name in enumerate(layers) if name == layer]
        shown += [own[index] for index in spread(len(own), each)]
    return shown


def _frame(axes: Axes, observed: np.ndarray, band: Sequence[np.ndarray]) -> None:
    """Limits that hold what was observed, and the band where it is not far wider.

    At its first step a model may know next to nothing: its band must not fill the panel.
    """
    values = np.concatenate(
        [observed, *(np.where(np.isfinite(observed), each, np.nan) for each in band)]
    )
    values = values[np.isfinite(values)]
    if not values.size:
        axes.set_yticks([])
        say(axes, "no valid step")
        return
    low, high = np.quantile(values, [0.01, 0.99])
    seen = observed[np.isfinite(observed)]
    set_scale(axes, "y", [np.array([low, high]), seen], scale="linear")
    if high > low:
        room = 0.06 * (max(high, seen.max()) - min(low, seen.min()))
        axes.set_ylim(min(low, seen.min()) - room, max(high, seen.max()) + room)


def _stream_handles(model: str, style: LineStyle) -> list[Artist]:
    """Legend: dots, line and band."""
    return [
        Line2D([], [], linestyle="none", marker=".", color=THEORY_COLOR, label="observed"),
        Line2D([], [], color=style.color, label=f"{model}: mean of the next step"),
        Patch(color=style.color, alpha=0.22, linewidth=0, label="90 % of its distribution"),
    ]


@of_group
def calibration_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Whether the models' next-step distributions hold: their ranks, and what they left over.

    Left, how the share of observations below each predicted quantile exceeds what it should be;
    inside the grey band nothing is amiss. Right, the correlation of standardised innovations
    with those so many steps before; a right model leaves none.

    Args:
        group: `calibration` of the record: `model`, `failed` over model, `probability` (a grid),
            `ecdf_difference` over (model, probability), `band_low` and `band_high` over
            probability, `lag`, `autocorrelation` over (model, lag), `autocorrelation_band`.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    models = words(group, "model")
    failed = numbers(group, "failed", "model") > 0
    with venue_style(venue):
        grid = Grid(venue, 2, columns_that_fit(venue, 2, 1.6), 1.5)
        ranks, leftover = grid.panels
        _draw_ranks(ranks, group, models, failed)
        _draw_autocorrelation(leftover, group, models, failed)
        handles: list[Artist] = [
            _handle(name, failed=bool(bad)) for name, bad in zip(models, failed, strict=True)
        ]
        handles.append(
            Patch(color=NOISE_COLOR, alpha=0.6, linewidth=0, label="95 % if nothing is amiss")
        )
        grid.place_legend(handles)
        return grid.figure


def _draw_ranks(axes: Axes, group: Group, models: Sequence[str], failed: np.ndarray) -> None:
    """Empirical minus uniform distribution of the probability integral transforms."""
    probability = numbers(group, "probability", "probability")
    low, high = (numbers(group, name, "probability") for name in ("band_low", "band_high"))
    difference = numbers(group, "ecdf_difference", "model", "probability")
    axes.fill_between(probability, low, high, color=NOISE_COLOR, alpha=0.6, linewidth=0)
    guide(axes, 0.0)
    set_scale(axes, "y", [low, high, difference], scale="linear")
    axes.set_xlim(0, 1)
    axes.set_xlabel("predicted probability of a smaller value")
    axes.set_ylabel("share of smaller values\nminus that", linespacing=0.95)
    _draw_models(axes, probability, difference, models, failed)


def _draw_autocorrelation(
    axes: Axes, group: Group, models: Sequence[str], failed: np.ndarray
) -> None:
    """Autocorrelation of the standardised innovations, lag by lag."""
    lag = numbers(group, "lag", "lag")
    correlation = numbers(group, "autocorrelation", "model", "lag")
    band = float(numbers(group, "autocorrelation_band"))
    axes.axhspan(-band, band, color=NOISE_COLOR, alpha=0.6, linewidth=0)
    guide(axes, 0.0)
    set_scale(axes, "y", [np.array([-band, band]), correlation], scale="linear")
    step_axis(axes, lag)
    axes.set_xlabel("lag (steps)")
    axes.set_ylabel("autocorrelation\nof innovations", linespacing=0.95)
    _draw_models(axes, lag, correlation, models, failed)


def _draw_models(
    axes: Axes, x: np.ndarray, values: np.ndarray, models: Sequence[str], failed: np.ndarray
) -> None:
    """A line for each model; thin and dotted where its sampling failed."""
    for turn, name in enumerate(models):
        line = draw_line(
            axes, x, values[turn], name, model_style(name),
            turn=turn, turns=len(models), dashed=False,
        )  # fmt: skip
        if failed[turn]:
            line.set(linestyle=(0, (1, 1)), linewidth=line_width(0.7))


def _handle(name: str, *, failed: bool) -> Line2D:
    style = model_style(name)
    return Line2D(
        [], [], color=style.color, marker=style.marker, markeredgecolor="white",
        linestyle=(0, (1, 1)) if failed else "solid",
        linewidth=line_width(0.7 if failed else 1.0),
        label=plain(name) + (_FAILED if failed else ""),
    )  # fmt: skip
