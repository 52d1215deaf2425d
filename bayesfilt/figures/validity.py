"""Figure (e): the validity map: where the closed forms agree with the exact steady state.

Draws the group `validity` of a comparison: five variances over eta sqrt(v), the gain of the
Adam regime, at several strengths of the prior. All are divided by eta squared.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from bayesfilt.figures.layout import Facets, VenueFigure, of_group, place_legend_above, spread
from bayesfilt.figures.panels import (
    draw_line,
    guide,
    numbers,
    power_of_ten,
    set_scale,
    style_handle,
)
from bayesfilt.figures.style import LineStyle, optimizer_style, venue_style
from bayesfilt.records import Group


class _Formula(NamedTuple):
    """One of the approximations, in the colour of the optimizer that takes its steps."""

    name: str
    label: str
    style: LineStyle


_FORMULAS = (
    _Formula("fixed_point", "fixed point", optimizer_style("adabayes_fixed_point")),
    _Formula("sgd", r"SGD limit $\sigma^2$", optimizer_style("sgd")),
    _Formula("adam", r"Adam limit $\eta/\sqrt{v}$", optimizer_style("adam")),
    _Formula("mean_square", r"mean-square limit $1/v$", optimizer_style("mean_square")),
)
_SGD = 1  # its place among them
_EXACT = _Formula("exact", "exact steady state", optimizer_style("exact"))
_EXACT_WIDTH = 2.8
_MOST_RATIOS = 4
_LEAST_ERROR = 1e-6  # below it two formulas agree for every purpose of training


@of_group
def validity_figure(group: Group, venue: str = "neurips") -> VenueFigure:
    """Variance by each formula (upper row) and its error against the exact root (lower row).

    One column for each prior ratio, at most four of them, evenly spread over those recorded.
    A thin line in the lower row marks an error of 10 %.

    Args:
        group: `validity` of the record: `rms_times_drift`, `prior_ratio`, `exact` and
            `fixed_point` over (prior_ratio, rms_times_drift), `adam` and `mean_square` over
            rms_times_drift, `sgd` over prior_ratio; all divided by the squared drift scale.
        venue: name in `bayesfilt.figures.VENUES`.

    Returns:
        The figure, as wide as the venue's column.
    """
    loudness = numbers(group, "rms_times_drift", "rms_times_drift")
    ratios = numbers(group, "prior_ratio", "prior_ratio")
    shown = spread(len(ratios), _MOST_RATIOS)
    exact = numbers(group, "exact", "prior_ratio", "rms_times_drift")[shown]
    formulas = _formulas_by_ratio(group, len(ratios), loudness.size)[:, shown]
    errors = np.abs(formulas / exact - 1)
    with venue_style(venue):
        facets = Facets(
            venue,
            rows=[r"variance $/\,\eta^2$", "relative error"],
            columns=[rf"$\eta^2/2\sigma^2$ = {power_of_ten(ratios[each])}" for each in shown],
            horizontal=r"$\eta\,\sqrt{v}$",
            least_width=1.15,
            panel_height=1.3,
        )
        for (row, column), axes in facets.panels.items():
            set_scale(axes, "x", [loudness])
            if row == 0:
                set_scale(axes, "y", [exact, formulas[_SGD]], scale="log")
                line = draw_line(
                    axes, loudness, exact[column], _EXACT.name, _without_marker(_EXACT),
                    width=_EXACT_WIDTH,
                )  # fmt: skip
                line.set_zorder(1.8)
                _draw_formulas(axes, loudness, formulas[:, column])
            else:
                axes.set_yscale("log", nonpositive="mask")
                axes.set_ylim(_LEAST_ERROR, 1e2)
                guide(axes, 0.1)
                _draw_formulas(axes, loudness, errors[:, column])
        handles = [style_handle(_EXACT.label, _without_marker(_EXACT), width=_EXACT_WIDTH)]
        handles += [style_handle(each.label, each.style) for each in _FORMULAS]
        place_legend_above(facets.figure, handles)
        return facets.figure


def _formulas_by_ratio(group: Group, num_ratios: int, num_points: int) -> np.ndarray:
    """Every formula over (prior ratio, eta sqrt(v)), in the order of `_FORMULAS`."""
    shape = (num_ratios, num_points)
    return np.stack(
        [
            numbers(group, "fixed_point", "prior_ratio", "rms_times_drift"),
            np.broadcast_to(numbers(group, "sgd", "prior_ratio")[:, None], shape),
            np.broadcast_to(numbers(group, "adam", "rms_times_drift"), shape),
            np.broadcast_to(numbers(group, "mean_square", "rms_times_drift"), shape),
        ]
    )


def _without_marker(formula: _Formula) -> LineStyle:
    """Style of a broad line below the others."""
    return LineStyle(color=formula.style.color, marker="", dashes=())


def _draw_formulas(axes: Axes, loudness: np.ndarray, values: np.ndarray) -> None:
    """One line for each formula, in the panel's limits."""
    for turn, formula in enumerate(_FORMULAS):
        draw_line(
            axes, loudness, values[turn], formula.name, formula.style,
            turn=turn, turns=len(_FORMULAS),
        )  # fmt: skip
