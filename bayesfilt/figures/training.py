"""Figure (a): loss and accuracy of the leader and its followers, over the noise floor.

Draws the group `free` of a comparison: every optimizer trains on its own, from one start and on
one sequence of minibatches. Trajectories of any two programs part in the end, so each distance
is drawn over the distance between the leader and itself with its last bit perturbed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    draw_line,
    is_available,
    line_width,
    marker_size,
    numbers,
    plain,
    say,
    set_scale,
    step_axis,
    style_handle,
    words,
)
from bayesfilt.figures.style import (
    LIMIT_COLOR,
    NOISE_COLOR,
    LineStyle,
    optimizer_style,
    venue_style,
)
from bayesfilt.records import Group


class _Quantity(NamedTuple):
    """What one panel shows."""

    name: str
    label: str
    noise: str  # variable that holds the noise floor; "" where there is none
    is_distance: bool  # from the leader: zero for the leader itself, which is then not drawn
    is_noisy: bool = False  # drawn thin and without dashes


_QUANTITIES = (
    _Quantity("loss", "minibatch loss", "noise_loss_gap", False, is_noisy=True),
    _Quantity("test_loss", "test loss", "", False),
    _Quantity("test_accuracy", "test accuracy", "", False),
    _Quantity(
        "weight_distance", "weight distance\nfrom leader (relative)", "noise_weight_distance", True
    ),
    _Quantity(
        "predictive_kl", "predictive KL\nfrom leader (nats)", "noise_predictive_kl", True
    ),
)  # fmt: skip

_HORIZON = LineStyle(color=LIMIT_COLOR, marker="", dashes=(1, 1.5))
_HORIZON_WIDTH = 0.9


@of_group
def training_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Loss, accuracy and distance from the leader against steps, a line for each run.

    A quantity that is missing, or NaN throughout, has no panel. A run that diverged ends in a
    cross, is named with its step in the legend, and does not stretch the axes. A distance
    that is exactly zero cannot stand on a logarithmic axis and is named in its panel.

    Args:
        group: `free` of the record: `step`, `run` (the leader first), `loss` and, where there,
            `test_loss`, `test_accuracy`, `weight_distance`, `predictive_kl` over (run, step),
            `noise_*` over step, `divergence_horizon`, `diverged_at` over run (-1: never).
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    shown = [each for each in _QUANTITIES if is_available(group, each.name)]
    with venue_style(venue):
        shown = shown or [_QUANTITIES[0]]
        columns = columns_that_fit(venue, len(shown), 1.5)
        grid = Grid(venue, len(shown), columns, panel_height=1.2)
        runs = words(group, "run")
        diverged_at = _diverged_at(group, runs)
        for axes, quantity in zip(grid.panels, shown, strict=True):
            _draw_quantity(axes, group, quantity, runs, diverged_at)
        grid.label_lowest("step")
        grid.place_legend(_handles(group, runs, diverged_at))
        return grid.figure


def _diverged_at(group: Group, runs: Sequence[str]) -> list[int]:
    """Step at which each run diverged; -1 for never."""
    if "diverged_at" not in group:
        return [-1] * len(runs)
    return [int(step) for step in numbers(group, "diverged_at", "run")]


def _draw_quantity(
    axes: Axes,
    group: Group,
    quantity: _Quantity,
    runs: Sequence[str],
    diverged_at: Sequence[int],
) -> None:
    """Fill one panel: noise floor, one line for each run, divergence horizon."""
    steps = numbers(group, "step", "step")
    step_axis(axes, steps)
    axes.set_ylabel(quantity.label, linespacing=0.9)
    if quantity.name not in group:
        axes.set_yticks([])
        say(axes, "not available")
        return
    values = numbers(group, quantity.name, "run", "step")
    drawn = range(1 if quantity.is_distance else 0, len(runs))
    # A diverged run may reach 1e30: the axes belong to the others, if there are any.
    kept = [values[run] for run in drawn if diverged_at[run] < 0] or [values[run] for run in drawn]
    noise = None
    if quantity.noise and is_available(group, quantity.noise):
        noise = numbers(group, quantity.noise, "step")
    framed = [*kept, noise] if quantity.is_distance and noise is not None else kept
    is_log = set_scale(axes, "y", framed or [np.zeros(1)])
    thin = 0.5 if quantity.is_noisy else 1.0
    for run in drawn:
        style = optimizer_style(runs[run])
        draw_line(
            axes, steps, values[run], runs[run], style,
            turn=run, turns=len(runs), width=thin * (1.5 if run == 0 else 1.0),
            dashed=not quantity.is_noisy,
        )  # fmt: skip
        if diverged_at[run] >= 0:
            before = steps <= diverged_at[run]
            _cross_the_end(axes, steps[before], values[run, before], style.color)
    if noise is not None:
        _draw_noise(axes, steps, noise, None if quantity.is_distance else values[0])
    if quantity.is_distance:
        _draw_horizon(axes, group, steps)
        if is_log or not any(np.any(values[run] > 0) for run in drawn):
            _name_the_zeros(axes, values, runs, drawn)


def _cross_the_end(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    """Cross at the last number inside the panel before a run leaves it for good."""
    low, high = axes.get_ylim()
    inside = np.flatnonzero(np.isfinite(values) & (values >= low) & (values <= high))
    if inside.size:
        last = inside[-1]
        axes.plot(
            steps[last], values[last], marker="x", color=color, markeredgewidth=line_width(1.2),
            markersize=marker_size(1.8), clip_on=False, zorder=5,
        )  # fmt: skip


def _draw_noise(
    axes: Axes, steps: np.ndarray, noise: np.ndarray, around: np.ndarray | None
) -> None:
    """Shade what rounding alone can do: below the floor, or `around` the leader's own line."""
    low, high = axes.get_ylim()
    if around is None:
        bottom, top = np.full_like(noise, low), noise
    else:
        bottom, top = np.maximum(around - noise, low), around + noise
    axes.fill_between(
        steps, bottom, top, where=np.isfinite(bottom) & np.isfinite(top) & (top > low),
        color=NOISE_COLOR, linewidth=line_width(0.8), zorder=0.8,
    )  # fmt: skip
    axes.set_ylim(low, high)


def _horizon(group: Group) -> float:
    """Step from which rounding alone explains any distance; NaN where none was measured."""
    if "divergence_horizon" not in group:
        return float("nan")
    return float(numbers(group, "divergence_horizon"))


def _draw_horizon(axes: Axes, group: Group, steps: np.ndarray) -> None:
    """Dotted vertical line at the divergence horizon, if it lies within the run."""
    horizon = _horizon(group)
    if steps.min() < horizon <= steps.max():
        axes.axvline(
            horizon,
            color=_HORIZON.color,
            linestyle=_HORIZON.linestyle,
            linewidth=line_width(_HORIZON_WIDTH),
        )


def _name_the_zeros(
    axes: Axes, values: np.ndarray, runs: Sequence[str], drawn: Sequence[int]
) -> None:
    """Say which runs never left the leader: a logarithmic axis has no place for their zeros."""
    zero = [runs[run] for run in drawn if not np.any(np.nan_to_num(values[run]) != 0)]
    if zero:
        axes.text(
            0.04, 0.96, "exactly 0:\n" + plain("\n".join(zero)), transform=axes.transAxes,
            ha="left", va="top", fontsize="x-small", color="#333333",
        )  # fmt: skip


def _handles(group: Group, runs: Sequence[str], diverged_at: Sequence[int]) -> list[Artist]:
    """Legend: every run, then what the shading and the dotted line mean, if they are drawn."""
    handles: list[Artist] = []
    for index, (name, step) in enumerate(zip(runs, diverged_at, strict=True)):
        text = plain(name) + (" (leader)" if index == 0 else "")
        text += f"\n× diverged at step {step}" if step >= 0 else ""
        width = 1.5 if index == 0 else 1.0
        handles.append(style_handle(text, optimizer_style(name), width=width))
    if any(each.noise and is_available(group, each.noise) for each in _QUANTITIES):
        handles.append(Patch(color=NOISE_COLOR, label="noise floor"))
    steps = numbers(group, "step", "step")
    if steps.min() < _horizon(group) <= steps.max():
        handles.append(style_handle("divergence horizon", _HORIZON, width=_HORIZON_WIDTH))
    return handles
