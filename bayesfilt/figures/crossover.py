"""Figure (c): the measured gain of every weight against its RMS gradient, with the theory on top.

Draws the group `gains` of a comparison. The theory's curves are closed forms of the two
recorded scalars (drift scale, stationary variance), evaluated on a grid for the line's sake.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    draw_line,
    marker_size,
    numbers,
    plain,
    say,
    set_scale,
    style_handle,
    words,
)
from bayesfilt.figures.style import (
    LIMIT_COLOR,
    THEORY_COLOR,
    Dashes,
    LineStyle,
    optimizer_style,
    venue_style,
)
from bayesfilt.records import Group
from bayesfilt.theory.regimes import adam_variance, crossover_gradient, sgd_variance
from bayesfilt.theory.riccati import fixed_point_variance

_POINTS_PER_CURVE = 80
_NEAR = 30.0  # a limit within this factor of the weights is worth stretching the axes for


class _TheoryLine(NamedTuple):
    """One line of the theory: how it looks and is called."""

    label: str
    style: LineStyle
    width: float


def _theory(
    label: str, dashes: Dashes, *, color: str = LIMIT_COLOR, width: float = 0.8
) -> _TheoryLine:
    """A theory line without markers."""
    style = LineStyle(color=color, marker="", dashes=dashes)
    return _TheoryLine(label=label, style=style, width=width)


_FIXED_POINT = _theory("fixed point", (), color=THEORY_COLOR)
_SGD = _theory(r"SGD limit $\sigma^2$", (5, 1.5))
_ADAM = _theory(r"Adam limit $\eta/\sqrt{v}$", (1.2, 1.2))
_CROSSOVER = _theory(r"crossover $\eta/\sigma^2$", (6, 1.5, 1, 1.5), width=0.6)


@of_group
def crossover_figure(
    group: Group, venue: str = "neurips", snapshot: int | None = None
) -> VenueFigure:
    """Gain of every weight against its RMS gradient, one panel per optimizer.

    The gain is the factor on the summed gradient; a filter's is its posterior variance.
    On top: the fixed point, its SGD and Adam limits and the gradient at which they cross.
    A weight whose gradient is zero has no place on a logarithmic axis and stands as a small
    arrow at the left edge, at the height of its gain.

    Args:
        group: `gains` of the record: `optimizer`, `snapshot`, `rms_gradient` and `gain` over
            (optimizer, snapshot, weight), `drift_scale` and `stationary_variance` over
            (optimizer, snapshot); NaN where an optimizer has none.
        venue: name in `bayesfilt.figures.VENUES`.
        snapshot: index of the snapshot that is drawn; the middle one unless told, because a
            schedule may have taken the last one's drift scale to nothing.

    Returns:
        The figure, as wide as the venue's column.
    """
    names = words(group, "optimizer")
    steps = numbers(group, "snapshot", "snapshot")
    snapshot = len(steps) // 2 if snapshot is None else snapshot
    rms = numbers(group, "rms_gradient", "optimizer", "snapshot", "weight")[:, snapshot]
    gain = numbers(group, "gain", "optimizer", "snapshot", "weight")[:, snapshot]
    eta = numbers(group, "drift_scale", "optimizer", "snapshot")[:, snapshot]
    sigma2 = numbers(group, "stationary_variance", "optimizer", "snapshot")[:, snapshot]
    x_values, y_values = _framed(rms, gain, eta, sigma2)
    with venue_style(venue):
        columns = columns_that_fit(venue, len(names), 1.45)
        grid = Grid(venue, len(names), columns, panel_height=1.3)
        has_zeros = False
        for index, (axes, name) in enumerate(zip(grid.panels, names, strict=True)):
            grid.title(axes, plain(name))
            set_scale(axes, "x", x_values, scale="log")
            set_scale(axes, "y", y_values, scale="log")
            if not np.isfinite(gain[index]).any():
                say(axes, "not available")
                continue
            has_zeros |= _draw_weights(axes, rms[index], gain[index], name)
            _draw_theory(axes, float(eta[index]), float(sigma2[index]))
        grid.label_lowest(r"RMS gradient $\sqrt{v}$ of the summed loss (1/weight)")
        grid.label_leftmost(f"gain at step {steps[snapshot]:g}\n(weight²)")
        grid.place_legend(_handles(eta, sigma2, has_zeros))
        return grid.figure


def _framed(
    rms: np.ndarray, gain: np.ndarray, eta: np.ndarray, sigma2: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Numbers the axes must hold: every weight, and the crossover where it is near the weights."""
    inside = np.isfinite(rms) & np.isfinite(gain) & (gain > 0)
    x, y = rms[inside & (rms > 0)], gain[inside]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = eta / sigma2
    crossing = crossing[np.isfinite(crossing) & (crossing > 0)]
    if not y.size:
        return [x], [y]
    if not x.size:  # every gradient is zero: show where the theory would turn
        return [crossing, np.ones(1)], [y]
    near_x = crossing[(crossing > x.min() / _NEAR) & (crossing < x.max() * _NEAR)]
    near_y = sigma2[(sigma2 > y.min() / _NEAR) & (sigma2 < y.max() * _NEAR)]
    return [x, near_x], [y, near_y]


def _draw_weights(axes: Axes, rms: np.ndarray, gain: np.ndarray, name: str) -> bool:
    """A dot for each weight, an arrow at the edge where its gradient is zero; any arrows?"""
    style = optimizer_style(name)
    # Thousands of dots: pixels in the PDF too, or it opens slowly.
    axes.plot(
        rms, gain, linestyle="none", marker=".", markersize=marker_size(0.95), markeredgewidth=0,
        color=style.color, alpha=0.4, rasterized=True, label=name,
    )  # fmt: skip
    zero = (rms == 0) & np.isfinite(gain) & (gain > 0)
    if not zero.any():
        return False
    heights = np.unique(gain[zero])
    axes.plot(
        np.full(heights.shape, 0.03), heights, transform=axes.get_yaxis_transform(),
        linestyle="none", marker="<", markersize=marker_size(1.2), color=style.color, zorder=4,
        label=f"{name}: zero gradient",
    )  # fmt: skip
    return True


def _draw_theory(axes: Axes, eta: float, sigma2: float) -> None:
    """Fixed point, both limits and the crossover; those that exist for these two scalars."""
    if not (np.isfinite(eta) and eta > 0) or np.isnan(sigma2):
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ends = np.array([left, right])  # the limits are straight lines here
    _draw(axes, ends, _along(ends, lambda square: adam_variance(square, eta)), _ADAM)
    if np.isfinite(sigma2):
        _draw(axes, ends, _along(ends, lambda square: sgd_variance(square, sigma2)), _SGD)
        crossover = float(crossover_gradient(eta, sigma2))
        if left < crossover < right:
            _draw(axes, np.full(2, crossover), np.array([low, high]), _CROSSOVER)
    rms = np.geomspace(left, right, _POINTS_PER_CURVE)
    _draw(axes, rms, _fixed_point_along(left, right, eta, sigma2), _FIXED_POINT)
    axes.set(xlim=(left, right), ylim=(low, high))


@functools.lru_cache(maxsize=32)  # most panels of a figure share one curve
def _fixed_point_along(left: float, right: float, eta: float, sigma2: float) -> np.ndarray:
    """The fixed point on a grid between two RMS gradients."""
    rms = np.geomspace(left, right, _POINTS_PER_CURVE)
    return _along(rms, lambda square: fixed_point_variance(square, eta, sigma2))


def _along(rms: np.ndarray, formula: Callable[[float], Any]) -> np.ndarray:
    """A formula of the theory at every RMS gradient, one number at a time.

    The theory takes numbers or jax's arrays, and this floor does without jax.
    """
    return np.array([float(formula(float(each) ** 2)) for each in rms])


def _draw(axes: Axes, x: np.ndarray, values: np.ndarray, look: _TheoryLine) -> None:
    """One theory line, over the dots."""
    draw_line(axes, x, values, look.label, look.style, width=look.width).set_zorder(3)


def _handles(eta: np.ndarray, sigma2: np.ndarray, has_zeros: bool) -> list[Artist]:
    """Legend: the lines of the theory that some panel can show."""
    looks = []
    if np.any(np.isfinite(eta) & (eta > 0) & ~np.isnan(sigma2)):
        looks = [_FIXED_POINT, _ADAM]
        if np.isfinite(sigma2).any():
            looks = [_FIXED_POINT, _SGD, _ADAM, _CROSSOVER]
    handles: list[Artist] = [
        Line2D([], [], linestyle="none", marker=".", color=LIMIT_COLOR, label="one weight")
    ]
    handles += [style_handle(look.label, look.style, width=look.width) for look in looks]
    if has_zeros:
        handles.append(
            Line2D([], [], linestyle="none", marker="<", color=LIMIT_COLOR, label="zero gradient")
        )
    return handles
