"""Floor 8: figures draw records and compute nothing.

Every function takes one group of a record and a venue, and returns a matplotlib figure:

    figure = training_figure(record.groups["free"], venue="icml")
    save_figure(figure, "figures", "training")

`draw_all` does that for every group of a record; `redraw` draws what `save_figure` has stored
beside a figure; `svg_text` makes a figure part of a page. An optimizer keeps its colour, marker and
dashes in all of them. No global matplotlib setting is read or changed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bayesfilt.figures.agreement import agreement_figure, shares_figure
from bayesfilt.figures.crossover import crossover_figure
from bayesfilt.figures.curves import (
    anytime_figure,
    budgets_figure,
    learning_curves_figure,
    matched_loss_figure,
)
from bayesfilt.figures.decay import decay_figure
from bayesfilt.figures.drawn import GROUP_NAME, LARGEST_TABLE, drawn_table
from bayesfilt.figures.gains import gains_figure, regimes_figure
from bayesfilt.figures.heatmaps import heatmap_figure
from bayesfilt.figures.inference import comparison_figure, shrink_figure
from bayesfilt.figures.inferred_decay import inferred_decay_figure
from bayesfilt.figures.instruments import belief_figure, instruments_figure
from bayesfilt.figures.layout import Drawn, VenueFigure
from bayesfilt.figures.observation import (
    believed_figure,
    drift_figure,
    noise_over_curvature_figure,
    whiteness_figure,
)
from bayesfilt.figures.panels_figure import panels_figure
from bayesfilt.figures.save import save_figure
from bayesfilt.figures.streams import calibration_figure, streams_figure
from bayesfilt.figures.style import VENUES, optimizer_style, rc_params, venue_named
from bayesfilt.figures.svg import svg_text
from bayesfilt.figures.training import training_figure
from bayesfilt.figures.validity import validity_figure
from bayesfilt.records import Group, Record

__all__ = [
    "Drawing",
    "Drawn",
    "FIGURES",
    "VENUES",
    "VenueFigure",
    "agreement_figure",
    "anytime_figure",
    "belief_figure",
    "believed_figure",
    "budgets_figure",
    "calibration_figure",
    "comparison_figure",
    "crossover_figure",
    "decay_figure",
    "draw_all",
    "drawings_of",
    "drawn_table",
    "drift_figure",
    "gains_figure",
    "heatmap_figure",
    "inferred_decay_figure",
    "instruments_figure",
    "learning_curves_figure",
    "matched_loss_figure",
    "noise_over_curvature_figure",
    "optimizer_style",
    "panels_figure",
    "rc_params",
    "redraw",
    "regimes_figure",
    "save_figure",
    "shares_figure",
    "shrink_figure",
    "streams_figure",
    "svg_text",
    "training_figure",
    "validity_figure",
    "venue_named",
    "whiteness_figure",
]


class Drawing(NamedTuple):
    """A figure that can be drawn, and the group of a record it needs."""

    draw: Callable[[Group, str], VenueFigure]
    group: str


FIGURES = {
    "training": Drawing(draw=training_figure, group="free"),
    "agreement": Drawing(draw=agreement_figure, group="shadow"),
    "shares": Drawing(draw=shares_figure, group="shadow"),
    "crossover": Drawing(draw=crossover_figure, group="gains"),
    "gains": Drawing(draw=gains_figure, group="gains"),
    "regimes": Drawing(draw=regimes_figure, group="gains"),
    "decay": Drawing(draw=decay_figure, group="decay"),
    "validity": Drawing(draw=validity_figure, group="validity"),
    "heatmaps": Drawing(draw=heatmap_figure, group="heatmaps"),
    "anytime": Drawing(draw=anytime_figure, group="anytime"),
    "curves": Drawing(draw=learning_curves_figure, group="curves"),
    "matched": Drawing(draw=matched_loss_figure, group="matched"),
    "budgets": Drawing(draw=budgets_figure, group="budgets"),
    "streams": Drawing(draw=streams_figure, group="foretold"),
    "shrink": Drawing(draw=shrink_figure, group="shrink"),
    "comparison": Drawing(draw=comparison_figure, group="comparison"),
    "calibration": Drawing(draw=calibration_figure, group="calibration"),
    "instruments": Drawing(draw=instruments_figure, group="instruments"),
    "belief": Drawing(draw=belief_figure, group="instruments"),
    "panels": Drawing(draw=panels_figure, group="panels"),
    "inferred-decay": Drawing(draw=inferred_decay_figure, group="inferred_decay"),
}


# By the name that is stored with what they drew.
_BY_NAME = {
    name: found
    for name, found in globals().copy().items()
    if name.endswith("_figure") and name != "save_figure"
}


def drawings_of(record: Record) -> Iterator[tuple[str, Group, Drawing]]:
    """Every figure that `record` has the group for: its file's name, the group, how to draw it.

    Groups of a task ("digits-mlp/free") give names with the task in front
    ("digits-mlp-training").
    """
    for path, group in record.groups.items():
        task, _, leaf = path.strip("/").rpartition("/")
        for name, drawing in FIGURES.items():
            if drawing.group == leaf:
                yield (f"{task}-{name}".replace("/", "-") if task else name), group, drawing


def draw_all(record: Record, folder: str | Path, venue: str = "neurips") -> list[Path]:
    """Draw every figure that `record` has the groups for; write each as PNG and PDF.

    What is drawn stands beside each (`save_figure`), unless it is so much that the record itself
    is the better place to look for it.

    Returns:
        Paths of all pictures, in the order they were written.

    Raises:
        ValueError: an unknown venue, or a record without a single group that can be drawn.
    """
    venue_named(venue)
    paths: list[Path] = []
    for name, group, drawing in drawings_of(record):
        is_short = sum(item.values.size for item in group.values()) <= LARGEST_TABLE
        paths += save_figure(drawing.draw(group, venue), folder, name, data=is_short)
    if not paths:
        needed = ", ".join(sorted({drawing.group for drawing in FIGURES.values()}))
        found = ", ".join(record.groups) or "none"
        raise ValueError(f"draw_all needs a record with one of {needed}; it has {found}.")
    return paths


def redraw(record: Record, venue: str = "neurips") -> VenueFigure:
    """Draw what `save_figure` stored beside a figure, for another venue perhaps.

    Raises:
        ValueError: an unknown venue, or a record that is not of a figure.
    """
    venue_named(venue)
    by, options = record.attributes.get("drawn_by"), record.attributes.get("options", {})
    if by not in _BY_NAME or GROUP_NAME not in record.groups or not isinstance(options, dict):
        raise ValueError(
            f"redraw needs what was stored beside a figure, got one drawn by {by!r} with groups"
            f" {', '.join(record.groups) or 'none'}."
        )
    return _BY_NAME[by](record.groups[GROUP_NAME], venue, **options)
