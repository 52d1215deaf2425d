"""Panels of lines and points, written down as one group of a record, which a figure draws.

What an experiment shows is a list of panels, each with its series; `panels_group` lays them out as
arrays, so that what is drawn is data that can be stored, and `panels_figure` draws it.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bayesfilt.records import Group, variable

Kind = Literal["line", "points", "law"]
Scale = Literal["auto", "log", "linear"]


class Series(NamedTuple):
    """One line, cloud of points, or law, of one panel.

    A name keeps its look in every panel; names of optimizers have the look they have everywhere.
    """

    name: str  # as the legend has it
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None  # of the interval around `y`
    high: ArrayLike | None = None
    kind: Kind = "line"  # a law is what theory says: thin and grey


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    x_label: str  # with its unit
    y_label: str
    series: Sequence[Series]
    x_scale: Scale = "auto"
    y_scale: Scale = "auto"
    guide: float = float("nan")  # a level that the reader compares with
    # Words for the places 0, 1, 2, ... of the horizontal axis, instead of numbers.
    places: Sequence[str] = ()


def panels_group(panels: Sequence[Panel]) -> Group:
    """The panels as arrays: shorter series end in NaN, and so do intervals that are not there.

    Raises:
        ValueError: no panel, or a series whose arrays are not of one length.
    """
    series = [(place, each) for place, panel in enumerate(panels) for each in panel.series]
    if not series:
        raise ValueError("panels_group needs a panel with a series, got none.")
    longest = max(np.size(each.x) for _, each in series)
    return {
        "panel": variable("panel", [panel.title for panel in panels]),
        "x_label": variable("panel", [panel.x_label for panel in panels]),
        "y_label": variable("panel", [panel.y_label for panel in panels]),
        "x_scale": variable("panel", [panel.x_scale for panel in panels]),
        "y_scale": variable("panel", [panel.y_scale for panel in panels]),
        "guide": variable("panel", [panel.guide for panel in panels]),
        "places": variable("panel", ["|".join(panel.places) for panel in panels]),
        "of_panel": variable("series", np.array([place for place, _ in series])),
        "name": variable("series", [each.name for _, each in series]),
        "kind": variable("series", [each.kind for _, each in series]),
        **{
            field: variable(
                ("series", "point"),
                np.stack([_filled(each, field, longest) for _, each in series]),
            )
            for field in ("x", "y", "low", "high")
        },
    }


def _filled(series: Series, field: str, longest: int) -> np.ndarray:
    values = getattr(series, field)
    count = np.size(series.x)
    found = np.full(count, np.nan) if values is None else np.ravel(np.asarray(values, float))
    if found.size != count:
        raise ValueError(
            f"series {series.name!r} needs {count} numbers in {field}, got {found.size}."
        )
    return np.concatenate([found, np.full(longest - count, np.nan)])
