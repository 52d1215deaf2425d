"""Where things stand on the page: figures of a venue's width, grids of panels, legends.

A legend never covers data: it stands in an empty cell of the grid if it fits there, else above
all panels, and the figure grows by its height.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox

from bayesfilt.figures.style import VENUES, venue_style
from bayesfilt.records import Group

_LABEL_HEIGHT = 0.3  # inches at 8-point text for the horizontal label and its numbers
_PAGE_HEIGHT = 8.0  # likewise, for panels: a page of text less legend and caption


class Drawn(NamedTuple):
    """What a figure shows, and how it can be drawn again."""

    by: str  # name of the function, "heatmap_figure"
    group: Group
    options: dict[str, Any]  # of the function, besides group and venue


class VenueFigure(Figure):
    """A figure drawn in its venue's style even when it is drawn long after it was built.

    Matplotlib makes ticks while drawing, and reads global settings for them; hence `draw` and
    `savefig` enter the venue's context again. `drawn` is what it shows, where that is one group.
    """

    drawn: Drawn | None = None

    def __init__(self, venue: str, height: float) -> None:
        """Open an empty figure, as wide as the venue's column and `height` inches high."""
        super().__init__(figsize=(VENUES[venue].width, height), layout="constrained")
        self.venue = venue

    def draw(self, renderer: Any) -> None:
        """Draw in the venue's style."""
        with venue_style(self.venue):
            super().draw(renderer)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save in the venue's style."""
        with venue_style(self.venue):
            super().savefig(*args, **kwargs)


def of_group[**P](
    draw: Callable[Concatenate[Group, P], VenueFigure],
) -> Callable[Concatenate[Group, P], VenueFigure]:
    """Have the figures of a function carry the group that they show, to be stored beside them."""
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def drawing(group: Group, *args: P.args, **kwargs: P.kwargs) -> VenueFigure:
        figure = draw(group, *args, **kwargs)
        given = signature.bind(group, *args, **kwargs).arguments
        first, second = list(signature.parameters)[:2]
        options = {name: value for name, value in given.items() if name not in (first, second)}
        figure.drawn = Drawn(by=draw.__name__, group=group, options=options)
        return figure

    return drawing


class Grid:
    """Panels of one kind, row by row; cells that are left over end the first row.

    So the lowest row is always full, and horizontal labels stand in one line.
    """

    def __init__(self, venue: str, count: int, columns: int, panel_height: float) -> None:
        """Open `count` panels; `panel_height` in inches at 8-point text."""
        self.columns = columns
        rows = math.ceil(count / columns)
        height = (rows * panel_height + _LABEL_HEIGHT) * VENUES[venue].scale
        self.figure = VenueFigure(venue, height=height)
        cells = list(self.figure.subplots(rows, columns, squeeze=False).ravel())
        first = columns - (rows * columns - count)
        self.panels: list[Axes] = cells[:first] + cells[columns:]
        self.spare: list[Axes] = cells[first:columns]
        self.lowest: list[Axes] = cells[-columns:] if rows > 1 else self.panels
        self.leftmost: list[Axes] = cells[::columns]
        for axes in self.spare:
            axes.axis("off")

    def place_legend(self, handles: Sequence[Artist]) -> None:
        """Put a legend in the empty cells if it fits, else above all panels.

        Where it does not fit, the panel before the empty cells takes their room.
        """
        self.figure.align_ylabels()
        if self.spare and _legend_beside(self.figure, handles, self.spare):
            return
        if self.spare:
            last = self.panels[self.columns - len(self.spare) - 1]
            place = last.get_subplotspec()
            assert place is not None, "subplots have a place in a grid"
            last.set_subplotspec(place.get_gridspec()[0, place.colspan.start :])
        for cell in self.spare:
            cell.remove()
        place_legend_above(self.figure, handles)

    def label_lowest(self, text: str) -> None:
        """Write the horizontal label once, below the lowest panels; others lose their numbers."""
        self.figure.supxlabel(text)
        for axes in self.panels:
            axes.tick_params(labelbottom=axes in self.lowest)

    def label_leftmost(self, text: str) -> None:
        """Write the vertical label beside the leftmost panels only; others lose their numbers.

        For panels that share one vertical range.
        """
        for axes in self.panels:
            axes.tick_params(labelleft=axes in self.leftmost)
            if axes in self.leftmost:
                axes.set_ylabel(text, linespacing=0.95)

    def title(self, axes: Axes, text: str) -> None:
        """Write `text` above a panel, in as many lines as its width asks for."""
        axes.set_title(wrap(text, _letters(self.figure, self.columns)), linespacing=0.95)


class Facets:
    """A table of panels: a row for each quantity, a column for each layer (or the like).

    Where the columns do not fit side by side, all rows are repeated below for the next ones.
    """

    def __init__(
        self,
        venue: str,
        rows: Sequence[str],
        columns: Sequence[str],
        horizontal: str,
        *,
        least_width: float,
        panel_height: float,
    ) -> None:
        """Open the table; `horizontal` labels the shared horizontal axis, inches at 8 points."""
        across = columns_that_fit(venue, len(columns), least_width)
        blocks = math.ceil(len(columns) / across)
        height = min(blocks * len(rows) * panel_height, _PAGE_HEIGHT) + _LABEL_HEIGHT
        self.figure = VenueFigure(venue, height=height * VENUES[venue].scale)
        cells = self.figure.subplots(blocks * len(rows), across, squeeze=False)
        self.panels: dict[tuple[int, int], Axes] = {}
        for (down, right), axes in np.ndenumerate(cells):
            block, row = divmod(down, len(rows))
            column = block * across + right
            if column >= len(columns):
                axes.axis("off")
                continue
            self.panels[row, column] = axes
            if row == 0:
                title = wrap(str(columns[column]), _letters(self.figure, across))
                axes.set_title(title, linespacing=0.95)
            if right == 0:
                axes.set_ylabel(rows[row], linespacing=0.95)
            else:
                axes.tick_params(labelleft=False)
            axes.tick_params(labelbottom=row == len(rows) - 1)
        self.figure.supxlabel(horizontal)


def _letters(figure: VenueFigure, columns: int) -> int:
    """How many letters of a title stand above one of `columns` panels."""
    width, scale = VENUES[figure.venue]
    return max(8, int(15 * width / scale / columns))


def columns_that_fit(venue: str, count: int, least_width: float) -> int:
    """Columns for `count` panels of at least `least_width` inches (at 8-point text), evenly."""
    width, scale = VENUES[venue]
    most = max(1, min(count, int(width / scale / least_width)))
    return math.ceil(count / math.ceil(count / most))


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices out of `count`, evenly spaced, with the first and the last."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})


def wrap(text: str, letters: int) -> str:
    """`text` in lines of at most `letters`, cut after -, _, /, . or a blank where there is one.

    A text that holds a formula stays in one line.
    """
    if re.search(r"(?<!\\)\$", text):
        return text
    if "\n" in text:
        return "\n".join(wrap(line, letters) for line in text.split("\n"))
    lines = [""]
    for piece in re.findall(r"[^-_/. ]*[-_/. ]|[^-_/. ]+", text):
        if lines[-1] and len(lines[-1]) + len(piece) > letters:
            lines.append("")
        while len(piece) > letters:
            lines[-1], piece = piece[:letters], piece[letters:]
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _labels(handles: Sequence[Artist], letters: int) -> list[str]:
    """Texts of a legend, in lines of at most so many letters."""
    return [wrap(str(handle.get_label()), letters) for handle in handles]


def _legend_beside(
    figure: VenueFigure, handles: Sequence[Artist], spare: Sequence[Axes]
) -> Legend | None:
    """Legend in the middle of the room that empty cells leave; None where it would not fit."""
    engine = figure.get_layout_engine()
    assert engine is not None, "a VenueFigure is laid out by matplotlib"
    engine.execute(figure)
    gap = 0.1 * figure.dpi * VENUES[figure.venue].scale
    cell = spare[0].get_window_extent()
    taken = [axes.get_window_extent().x1 for axes in figure.axes if axes not in spare]
    left = max([edge for edge in taken if edge < cell.x0], default=0.0) + gap
    # A colour bar may stand to the right of all panels.
    beyond = [axes.get_window_extent().x0 for axes in figure.axes if axes not in spare]
    right = min([edge - gap for edge in beyond if edge > cell.x1], default=figure.bbox.x1)
    room = Bbox.from_extents(left, cell.y0, right, figure.bbox.y1)
    legend = figure.legend(
        handles,
        _labels(handles, 24),
        loc="center",
        bbox_to_anchor=room.transformed(figure.transFigure.inverted()),
    )
    legend.set_in_layout(False)
    size = legend.get_window_extent()
    if size.width <= room.width and size.height <= room.height:
        return legend
    legend.remove()
    return None


def place_legend_above(figure: VenueFigure, handles: Sequence[Artist]) -> Legend:
    """Put the widest legend that the figure can carry on top; the figure grows by its height."""
    figure.align_ylabels()
    limit = 0.98 * figure.bbox.width
    # First fewer columns; where even one is too wide, names broken into ever shorter lines.
    counts = {math.ceil(len(handles) / rows) for rows in range(1, len(handles) + 1)}
    attempts = [(columns, 1000) for columns in sorted(counts, reverse=True)]
    attempts += [(1, letters) for letters in range(60, 8, -6)]
    for columns, letters in attempts:
        texts = _labels(handles, letters)
        legend = figure.legend(handles, texts, loc="outside upper center", ncols=columns)
        taken = legend.get_window_extent()
        if taken.width <= limit:
            width, height = figure.get_size_inches()
            figure.set_size_inches(width, height + taken.height / figure.dpi)
            return legend
        legend.remove()
    raise ValueError(f"no legend fits the width of {figure.venue}: {_labels(handles, 1000)}.")
