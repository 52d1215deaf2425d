"""Curves of a sweep: what each optimizer's best setting reached, when, and at which training loss.

Draws the groups `anytime`, `curves`, `matched` and `budgets` of a record. Shading is the
bootstrap interval over seeds that the record holds.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bayesfilt.figures.layout import Grid, VenueFigure, columns_that_fit, of_group
from bayesfilt.figures.panels import (
    draw_line,
    is_available,
    line_width,
    marker_size,
    numbers,
    optimizer_handles,
    say,
    set_scale,
    step_axis,
    style_handle,
    words,
)
from bayesfilt.figures.style import LIMIT_COLOR, LineStyle, optimizer_style, venue_style
from bayesfilt.records import Group


class _Quantity(NamedTuple):
    """What one panel of the learning curves shows."""

    name: str
    label: str


_QUANTITIES = (
    _Quantity("loss", "minibatch loss (nats)"),
    _Quantity("test_loss", "test loss (nats)"),
    _Quantity("test_error", "test error"),
)
_SHADING = 0.18  # opacity of an interval
_ENVELOPE_WIDTH, _RESTART_WIDTH = 0.45, 0.7
_RESTART = LineStyle(color=LIMIT_COLOR, marker="", dashes=(1, 1.5))
_LAWS = (
    LineStyle(color="#8f8f8f", marker="", dashes=(4, 1.5)),
    LineStyle(color="#8f8f8f", marker="", dashes=(1.2, 1.2)),
    LineStyle(color="#8f8f8f", marker="", dashes=()),
)


@of_group
def anytime_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Test error against steps: the setting that ends best, and the best one at that very step.

    Args:
        group: `anytime` of the record: `optimizer`, `step`, and `test_error`, `test_error_low`,
            `test_error_high`, `test_error_envelope` over (optimizer, step); where there,
            `restart`, the steps at which a schedule begins again.
        venue: name in `bayesfilt.figures.VENUES`.
    """
    names = words(group, "optimizer")
    with venue_style(venue):
        grid = Grid(venue, 1, 1, panel_height=2.1)
        (axes,) = grid.panels
        _draw_curves(axes, group, "test_error", names)
        axes.set(xlabel="step", ylabel="test error")
        envelope = numbers(group, "test_error_envelope", "optimizer", "step")
        for name, values in zip(names, envelope, strict=True):
            style = optimizer_style(name)
            axes.plot(
                numbers(group, "step", "step"), values, color=style.color,
                linewidth=line_width(_ENVELOPE_WIDTH), label=f"{name}: envelope",
            )  # fmt: skip
        handles = [*optimizer_handles(names), _interval_handle()]
        handles.append(
            Line2D(
                [], [], color=LIMIT_COLOR, linewidth=line_width(_ENVELOPE_WIDTH),
                label="best setting at that step",
            )
        )  # fmt: skip
        if "restart" in group:
            for step in numbers(group, "restart", "restart"):
                axes.axvline(
                    step, color=_RESTART.color, linestyle=_RESTART.linestyle,
                    linewidth=line_width(_RESTART_WIDTH), label="restart", zorder=0.9,
                )  # fmt: skip
            handles.append(style_handle("restart", _RESTART, width=_RESTART_WIDTH))
        grid.place_legend(handles)
        return grid.figure


@of_group
def learning_curves_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Minibatch loss, test loss and test error against steps, of each optimizer's best setting.

    A quantity that is missing, or NaN throughout, has no panel.

    Args:
        group: `curves` of the record: `optimizer`, `step`, and for each quantity (`loss`,
            `test_loss`, `test_error`) itself, `_low` and `_high` over (optimizer, step).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    names = words(group, "optimizer")
    shown = [each for each in _QUANTITIES if is_available(group, each.name)] or [_QUANTITIES[0]]
    with venue_style(venue):
        columns = columns_that_fit(venue, len(shown), 1.5)
        grid = Grid(venue, len(shown), columns, panel_height=1.4)
        for axes, quantity in zip(grid.panels, shown, strict=True):
            axes.set_ylabel(quantity.label)
            _draw_curves(axes, group, quantity.name, names)
        grid.label_lowest("step")
        grid.place_legend([*optimizer_handles(names), _interval_handle()])
        return grid.figure


@of_group
def matched_loss_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Test error of every run against its training loss; lines are medians at equal loss.

    Runs whose loss is zero or unknown have no place on the axis and are counted in words.

    Args:
        group: `matched` of the record: `optimizer`, `training_loss` and `test_error` over
            (optimizer, run), `bin_loss` over bin, `bin_error` over (optimizer, bin).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    names = words(group, "optimizer")
    losses = numbers(group, "training_loss", "optimizer", "run")
    errors = numbers(group, "test_error", "optimizer", "run")
    bins, medians = (
        numbers(group, "bin_loss", "bin"),
        numbers(group, "bin_error", "optimizer", "bin"),
    )
    with venue_style(venue):
        grid = Grid(venue, 1, 1, panel_height=2.3)
        (axes,) = grid.panels
        set_scale(axes, "x", [losses])
        set_scale(axes, "y", [errors])
        axes.set(xlabel="training loss (nats)", ylabel="test error")
        for index, name in enumerate(names):
            style = optimizer_style(name)
            axes.plot(
                losses[index], errors[index], linestyle="none", marker=style.marker,
                color=style.color, markersize=marker_size(0.8), markeredgewidth=0, alpha=0.5,
                label=f"{name}: runs", zorder=1.8,
            )  # fmt: skip
            known = np.isfinite(medians[index])
            draw_line(axes, bins[known], medians[index][known], name, style, width=1.5)
        absent = int(np.sum(~((losses > 0) & np.isfinite(losses) & np.isfinite(errors))))
        if absent:
            axes.set_title(f"without {absent} runs that diverged or fit without any loss")
        grid.place_legend(optimizer_handles(names))
        return grid.figure


@of_group
def budgets_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Best shrink per step against the length of the run, with the laws that predict it.

    A budget whose best decay the grid does not hold has no marker.

    Args:
        group: `budgets` of the record: `task`, `budget` (steps), `best`, `best_low` and
            `best_high` over (task, budget), `law` (words) and `predicted` over
            (task, law, budget).
        venue: name in `bayesfilt.figures.VENUES`.
    """
    tasks, laws = words(group, "task"), words(group, "law")
    budgets = numbers(group, "budget", "budget")
    best, low, high = (
        numbers(group, f"best{ending}", "task", "budget") for ending in ("", "_low", "_high")
    )
    predicted = numbers(group, "predicted", "task", "law", "budget")
    style = optimizer_style("adamw")
    with venue_style(venue):
        columns = columns_that_fit(venue, len(tasks), 1.6)
        grid = Grid(venue, len(tasks), columns, panel_height=1.7)
        for index, (axes, task) in enumerate(zip(grid.panels, tasks, strict=True)):
            set_scale(axes, "x", [budgets], scale="log")
            axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
            axes.tick_params(which="minor", bottom=False)
            set_scale(axes, "y", [best, low, high, predicted], scale="log")
            grid.title(axes, task)
            for turn, law in enumerate(laws):
                axes.plot(
                    budgets, predicted[index, turn], label=law, color=_LAWS[turn].color,
                    linestyle=_LAWS[turn].linestyle, zorder=1.5,
                )  # fmt: skip
            known = np.isfinite(best[index])
            if not known.any():
                say(axes, "not inside the grid")
            axes.vlines(
                budgets[known], low[index][known], high[index][known], color=style.color, zorder=2.5
            )
            axes.plot(
                budgets[known], best[index][known], linestyle="none", marker=style.marker,
                color=style.color, markersize=marker_size(1.3), label="measured", zorder=3,
            )  # fmt: skip
        grid.label_lowest("length of the run (steps)")
        grid.label_leftmost("best shrink per step")
        grid.place_legend(_budget_handles(laws, style))
        return grid.figure


def _draw_curves(axes: Axes, group: Group, name: str, optimizers: list[str]) -> None:
    """A line an optimizer with its interval; the axes belong to what is finite."""
    steps = numbers(group, "step", "step")
    values, low, high = (
        numbers(group, f"{name}{ending}", "optimizer", "step") for ending in ("", "_low", "_high")
    )
    step_axis(axes, steps)
    set_scale(axes, "y", [values], scale="log")
    for index, optimizer in enumerate(optimizers):
        style = optimizer_style(optimizer)
        known = np.isfinite(low[index]) & np.isfinite(high[index])
        axes.fill_between(
            steps, low[index], high[index], where=known, color=style.color, alpha=_SHADING,
            linewidth=0, label=f"{optimizer}: interval",
        )  # fmt: skip
        draw_line(axes, steps, values[index], optimizer, style, turn=index, turns=len(optimizers))


def _interval_handle() -> Patch:
    return Patch(color=LIMIT_COLOR, alpha=_SHADING, linewidth=0, label="interval over seeds")


def _budget_handles(laws: list[str], style: LineStyle) -> list[Artist]:
    handles: list[Artist] = [
        Line2D(
            [], [], color=style.color, marker=style.marker, markersize=marker_size(1.3),
            label="measured, interval over seeds",
        )
    ]  # fmt: skip
    handles += [style_handle(law, look) for law, look in zip(laws, _LAWS, strict=False)]
    return handles
