"""What experiments on single weights find: noise and curvature, drift, calibration, whiteness.

Every function draws one group of numbers that an experiment has prepared; intervals are those
it holds.
"""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesfilt.figures.layout import (
    Grid,
    VenueFigure,
    columns_that_fit,
    of_group,
    place_legend_above,
    wrap,
)
from bayesfilt.figures.panels import (
    guide,
    marker_size,
    numbers,
    optimizer_handles,
    plain,
    set_scale,
    style_handle,
    words,
)
from bayesfilt.figures.style import LIMIT_COLOR, VENUES, LineStyle, optimizer_style, venue_style
from bayesfilt.records import Group

# Early, middle and late in training, wherever they are told apart: dark to light.
MOMENT_STYLES = (
    LineStyle(color="#0a4690", marker="o", dashes=()),
    LineStyle(color="#22804f", marker="s", dashes=(5, 1.2)),
    LineStyle(color="#dc5a22", marker="^", dashes=(1.2, 1.2)),
)
_LAWS = (
    LineStyle(color="#8f8f8f", marker="", dashes=(4, 1.5)),
    LineStyle(color="#8f8f8f", marker="", dashes=(1.2, 1.2)),
)
_FLOORS = (
    LineStyle(color="#882255", marker="D", dashes=()),
    LineStyle(color="#c77fb5", marker="P", dashes=(2, 1)),
)
_SHADING = 0.18
_CLOUD = 0.35  # opacity of a cloud of weights
_CARETS = (4, 5, 6, 7)  # matplotlib's, their tips to the left, right, up and down
_BEYOND = "beyond the axes"


@of_group
def noise_over_curvature_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """R/H of every weight against its H, one panel a world; lines are medians.

    A weight without noise or without positive curvature has no place on the axes. Those far from
    all others, which would squeeze them, are carets at the edge that they lie beyond.

    Args:
        group: `world`, `moment` (words), `curvature` and `noise` over (world, moment, weight),
            `median_ratio` over (world, moment).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    worlds, moments = words(group, "world"), words(group, "moment")
    curvature = numbers(group, "curvature", "world", "moment", "weight")
    noise = numbers(group, "noise", "world", "moment", "weight")
    medians = numbers(group, "median_ratio", "world", "moment")
    drawn = (noise > 0) & (curvature > 0)
    ratio = np.where(drawn, noise, np.nan) / np.where(drawn, curvature, 1)
    with venue_style(venue):
        grid = Grid(venue, len(worlds), columns_that_fit(venue, len(worlds), 1.5), 1.35)
        for index, (axes, world) in enumerate(zip(grid.panels, worlds, strict=True)):
            grid.title(axes, world)
            set_scale(axes, "x", [_inner(curvature[drawn])], scale="log")
            set_scale(axes, "y", [_inner(ratio)], scale="log")
            guide(axes, 1.0)
            for place, style in enumerate(_by_moment(moments)):
                _cloud(axes, curvature[index, place], ratio[index, place], style)
                _median_line(axes, medians[index, place], style)
        grid.label_lowest("curvature H (summed loss)")
        grid.label_leftmost("noise over curvature R/H")
        grid.place_legend([*_moment_handles(moments, ", median"), *_beyond_handles(grid.panels)])
        return grid.figure


@of_group
def drift_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Drift against curvature with the laws (first row), training loss by power (second).

    The laws go through the middle of the weights. The shaded powers are those that the drift
    predicts; a vertical bar is the interval of the loss at the best learning rate. What lies beyond
    the axes, as a loss of 0 does, is a caret at their edge.

    Args:
        group: `world`, `moment`, `law`, `floor` (words), `curvature` and `drift` over
            (world, moment, weight), `law_slope` over law, `power`; `loss`, `loss_low` and
            `loss_high` over (world, floor, power); `predicted`, `predicted_low` and
            `predicted_high` over world.
        venue: name in `bayesfilt.figures.VENUES`.
    """
    worlds, moments, laws = words(group, "world"), words(group, "moment"), words(group, "law")
    with venue_style(venue):
        panels = _two_rows(venue, worlds)
        for index in range(len(worlds)):
            _draw_drift(panels[0, index], group, index)
            _draw_powers(panels[1, index], group, index)
        figure = panels[0, 0].figure
        assert isinstance(figure, VenueFigure)
        handles = _moment_handles(moments, "")
        handles += [style_handle(law, style) for law, style in zip(laws, _LAWS, strict=False)]
        handles += [
            style_handle(f"loss, {floor}", style)
            for floor, style in zip(words(group, "floor"), _FLOORS, strict=False)
        ]
        handles.append(Patch(color=LIMIT_COLOR, alpha=_SHADING, linewidth=0, label="predicted"))
        place_legend_above(figure, [*handles, *_beyond_handles(list(panels.values()))])
        return figure


def _two_rows(venue: str, worlds: list[str]) -> dict[tuple[int, ...], Axes]:
    """Panels of two kinds, a column a world."""
    width, scale = VENUES[venue]
    figure = VenueFigure(venue, height=3.4 * scale)
    cells = figure.subplots(2, len(worlds), squeeze=False)
    letters = max(8, int(15 * width / scale / len(worlds)))
    for axes, world in zip(cells[0], worlds, strict=True):
        axes.set_title(wrap(plain(world), letters), linespacing=0.95)
    return dict(np.ndenumerate(cells))


def _draw_drift(axes: Axes, group: Group, index: int) -> None:
    curvature = numbers(group, "curvature", "world", "moment", "weight")
    drift = numbers(group, "drift", "world", "moment", "weight")
    drawn = (curvature > 0) & (drift > 0)
    set_scale(axes, "x", [_inner(curvature[drawn])], scale="log")
    set_scale(axes, "y", [_inner(drift[drawn])], scale="log")
    for place, style in enumerate(MOMENT_STYLES):
        _cloud(axes, curvature[index, place], drift[index, place], style)
    axes.set_xlabel("curvature H")
    if index == 0:
        axes.set_ylabel("drift variance q\n(weight² per step)", linespacing=0.95)
    here = drawn[index]
    if not here.any():
        return
    middle = [np.exp(np.median(np.log(each[index][here]))) for each in (curvature, drift)]
    ends = np.array(axes.get_xlim())
    for slope, style in zip(numbers(group, "law_slope", "law"), _LAWS, strict=False):
        axes.plot(
            ends, middle[1] * (ends / middle[0]) ** slope, color=style.color,
            linestyle=style.linestyle, zorder=2.5, scalex=False, scaley=False,
        )  # fmt: skip


def _draw_powers(axes: Axes, group: Group, index: int) -> None:
    power = numbers(group, "power", "power")
    loss, low, high = (
        numbers(group, f"loss{ending}", "world", "floor", "power")
        for ending in ("", "_low", "_high")
    )
    set_scale(axes, "x", [power], scale="linear")
    set_scale(axes, "y", [loss, low, high], scale="log", decades=4.0)
    for place, style in enumerate(_FLOORS[: loss.shape[1]]):
        ends = [np.clip(each[index, place], *axes.get_ylim()) for each in (low, high)]
        axes.vlines(power, *ends, color=style.color, zorder=2.5)
        here = loss[index, place]
        inside = np.clip(here, *axes.get_ylim()) == here
        axes.plot(
            power, np.clip(here, *axes.get_ylim()), color=style.color, marker=style.marker,
            linestyle=style.linestyle, markevery=inside, zorder=2.6,
        )  # fmt: skip
        _beyond(axes, power, here, style, size=1.1)
    ends = [numbers(group, f"predicted_{end}", "world")[index] for end in ("low", "high")]
    if np.isfinite(ends).all():
        axes.axvspan(*ends, color=LIMIT_COLOR, alpha=_SHADING, linewidth=0, zorder=0.8)
    axes.set_xlabel("power p")
    if index == 0:
        axes.set_ylabel("training loss at the\nbest learning rate (nats)", linespacing=0.95)


@of_group
def believed_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Calibration (first row) and normalised innovations (second) by moment, a column a world.

    Bars are intervals; a level that is not finite has no marker. Calibrated is 1.

    Args:
        group: `world`, `optimizer`, `moment` (words); `calibration` and `innovation`, and with
            `_low` and `_high` their intervals, over (world, optimizer, moment).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    worlds, moments = words(group, "world"), words(group, "moment")
    optimizers = words(group, "optimizer")
    labels = {"calibration": "(w* − μ)² / p", "innovation": "g² / (h² p + h)"}
    with venue_style(venue):
        panels = _two_rows(venue, worlds)
        for (row, index), axes in panels.items():
            name = list(labels)[row]
            _draw_levels(axes, group, name, index)
            axes.set_xticks(range(len(moments)), moments, fontsize="x-small")
            axes.set_xlim(-0.5, len(moments) - 0.5)
            if index == 0:
                axes.set_ylabel(labels[name])
        figure = panels[0, 0].figure
        assert isinstance(figure, VenueFigure)
        place_legend_above(figure, optimizer_handles(optimizers))
        return figure


@of_group
def whiteness_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Autocorrelation (first row) and training loss (second) by learning rate, a column a world.

    Args:
        group: `world`, `moment` (words), `learning_rate` over (world, rate); `autocorrelation`
            and `loss`, and with `_low` and `_high` their intervals, over (world, moment, rate).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    worlds, moments = words(group, "world"), words(group, "moment")
    labels = {
        "autocorrelation": "lag-one autocorrelation\nof gradients",
        "loss": "training loss (nats)",
    }
    rates = numbers(group, "learning_rate", "world", "rate")
    with venue_style(venue):
        panels = _two_rows(venue, worlds)
        for (row, index), axes in panels.items():
            name = list(labels)[row]
            values, low, high = _with_interval(group, name, "world", "moment", "rate")
            set_scale(axes, "x", [rates[index]], scale="log")
            upright = [each[index] for each in (values, low, high)]
            set_scale(axes, "y", upright, scale="linear" if row == 0 else "auto")
            if row == 0:
                guide(axes, 0.0)
            for place, style in enumerate(_by_moment(moments)):
                axes.vlines(rates[index], low[index, place], high[index, place], color=style.color)
                axes.plot(
                    rates[index], values[index, place], color=style.color, marker=style.marker,
                    linestyle=style.linestyle,
                )  # fmt: skip
            if row == 1:
                axes.set_xlabel("learning rate")
            if index == 0:
                axes.set_ylabel(labels[name], linespacing=0.95)
        figure = panels[0, 0].figure
        assert isinstance(figure, VenueFigure)
        handles = [
            style_handle(name, style)
            for name, style in zip(moments, _by_moment(moments), strict=True)
        ]
        place_legend_above(figure, handles)
        return figure


def _draw_levels(axes: Axes, group: Group, name: str, index: int) -> None:
    """Markers side by side for the optimizers, with their intervals."""
    optimizers = words(group, "optimizer")
    values, low, high = _with_interval(group, name, "world", "optimizer", "moment")
    set_scale(axes, "y", [values, low, high, np.ones(1)], scale="log")
    guide(axes, 1.0)
    for place, optimizer in enumerate(optimizers):
        style = optimizer_style(optimizer)
        x = np.arange(values.shape[-1]) + 0.22 * (place - (len(optimizers) - 1) / 2)
        known = np.isfinite(low[index, place]) & np.isfinite(high[index, place])
        axes.vlines(
            x[known], low[index, place][known], high[index, place][known], color=style.color
        )
        axes.plot(
            x, values[index, place], linestyle="none", marker=style.marker, color=style.color,
            markersize=marker_size(0.9),
        )  # fmt: skip


def _with_interval(group: Group, name: str, *dims: str) -> list[np.ndarray]:
    return [numbers(group, f"{name}{ending}", *dims) for ending in ("", "_low", "_high")]


def _by_moment(moments: list[str]) -> list[LineStyle]:
    """The style of every moment, the last one always that of late."""
    return [*MOMENT_STYLES[: len(moments) - 1], MOMENT_STYLES[-1]]


def _inner(values: np.ndarray) -> np.ndarray:
    """All but the outermost weights in a thousand, which would squeeze the others."""
    known = values[np.isfinite(values)]
    if not known.size:
        return known
    low, high = np.quantile(known, [0.001, 0.999])
    return known[(known >= low) & (known <= high)]


def _cloud(axes: Axes, x: np.ndarray, y: np.ndarray, style: LineStyle) -> None:
    """One dot a weight; thousands of them, so a page holds them as an image."""
    axes.plot(
        x, y, linestyle="none", marker=style.marker, color=style.color, alpha=_CLOUD,
        markersize=marker_size(0.45), markeredgewidth=0, rasterized=True, zorder=1.5,
    )  # fmt: skip
    _beyond(axes, x, y, style)


def _beyond(
    axes: Axes, x: np.ndarray, y: np.ndarray, style: LineStyle, *, size: float = 0.7
) -> None:
    """A caret at the edge of the axes for every point that lies beyond it; NaN has none."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    above, below = y > top, y < bottom
    level = (y >= bottom) & (y <= top)
    sides = zip(_CARETS, (level & (x < left), level & (x > right), above, below), strict=True)
    for caret, there in sides:
        if there.any():
            axes.plot(
                np.clip(x[there], left, right), np.clip(y[there], bottom, top), linestyle="none",
                marker=caret, color=style.color, markersize=marker_size(size), markeredgewidth=0,
                label=_BEYOND, zorder=2.7,
            )  # fmt: skip


def _beyond_handles(panels: list[Axes]) -> list[Artist]:
    """Legend entry of the carets, where there are any."""
    if not any(line.get_label() == _BEYOND for axes in panels for line in axes.lines):
        return []
    return [
        Line2D(
            [], [], linestyle="none", marker=_CARETS[2], color=LIMIT_COLOR,
            markersize=marker_size(0.8), label=_BEYOND,
        )
    ]  # fmt: skip


def _median_line(axes: Axes, value: float, style: LineStyle) -> None:
    axes.axhline(value, color=style.color, linestyle=style.linestyle, zorder=2.5)


def _moment_handles(moments: list[str], line: str) -> list[Artist]:
    handles: list[Artist] = []
    for name, style in zip(moments, _by_moment(moments), strict=True):
        handles.append(
            Line2D(
                [], [], color=style.color, marker=style.marker, linestyle=style.linestyle,
                markersize=marker_size(0.8), label=f"{name}: weights{line}",
            )
        )  # fmt: skip
    return handles
