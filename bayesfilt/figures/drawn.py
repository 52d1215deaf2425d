"""What a figure shows, as files: a table that anybody reads (CSV) and a record (netCDF or npz).

Of panels the table has a row a point; of any other group a row a number, beside its labels:

    variable,optimizer,step,value,units
    test_error,adamw,100,0.0421,fraction
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator

import numpy as np

from bayesfilt.figures.layout import Drawn
from bayesfilt.records import Group, Record, Variable

GROUP_NAME = "drawn"  # of the only group in such a record
# A table of more numbers is no longer read by anybody, and its record says the same.
LARGEST_TABLE = 200_000

_PANELS = ("panel", "series", "kind", "x", "place", "y", "low", "high", "x_label", "y_label")


def drawn_record(drawn: Drawn, venue: str) -> Record:
    """The group and how it is drawn, so that `bayesfilt.figures.redraw` can do so."""
    attributes = {"drawn_by": drawn.by, "options": drawn.options, "venue": venue}
    return Record(groups={GROUP_NAME: drawn.group}, attributes=attributes)


def drawn_table(drawn: Drawn) -> str | None:
    """The group as CSV; None where it holds too many numbers for a table."""
    if sum(item.values.size for item in drawn.group.values()) > LARGEST_TABLE:
        return None
    if drawn.by == "panels_figure":
        return _as_csv(_PANELS, _rows_of_panels(drawn.group))
    dims = list(dict.fromkeys(dim for item in drawn.group.values() for dim in item.dims))
    return _as_csv(["variable", *dims, "value", "units"], _rows_of_group(drawn.group, dims))


def _as_csv(header: Iterable[str], rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _rows_of_group(group: Group, dims: list[str]) -> Iterator[list[str]]:
    """Every number and word but the labels, which stand beside what they label."""
    labels = {dim: _labels(group[dim]) for dim in dims if dim in group}
    for name, item in group.items():
        if item.dims == (name,):
            continue
        units = str(item.attributes.get("units", ""))
        columns = [dims.index(dim) for dim in item.dims]
        own = [labels.get(dim) for dim in item.dims]
        for place, value in np.ndenumerate(item.values):
            at = [""] * len(dims)
            for column, known, index in zip(columns, own, place, strict=True):
                at[column] = str(index) if known is None else known[index]
            yield [name, *at, _word(value), units]


def _labels(coordinate: Variable) -> list[str]:
    return [_word(each) for each in coordinate.values]


def _rows_of_panels(group: Group) -> Iterator[list[str]]:
    """Every point of every series; the level of a panel's guide comes after its series."""
    words = {
        name: [str(each) for each in group[name].values]
        for name in ("panel", "x_label", "y_label", "places", "name", "kind")
    }
    of_panel = group["of_panel"].values.tolist()
    x, y, low, high = (group[name].values for name in ("x", "y", "low", "high"))
    for panel, title in enumerate(words["panel"]):
        axes = [words["x_label"][panel], words["y_label"][panel]]
        places = [word for word in words["places"][panel].split("|") if word]
        for series in (index for index, own in enumerate(of_panel) if own == panel):
            front = [title, words["name"][series], words["kind"][series]]
            for point in np.flatnonzero(np.isfinite(x[series])).tolist():
                place = _place(places, x[series, point])
                ends = [_known(values[series, point]) for values in (low, high)]
                numbers = [_word(x[series, point]), place, _word(y[series, point])]
                yield [*front, *numbers, *ends, *axes]
        level = group["guide"].values[panel]
        if np.isfinite(level):
            yield [title, "", "guide", "", "", _word(level), "", "", *axes]


def _place(places: list[str], x: float) -> str:
    """The word that stands at a number of the horizontal axis."""
    index = round(float(x))
    return places[index] if index == x and 0 <= index < len(places) else ""


def _known(value: float) -> str:
    return "" if math.isnan(value) else _word(value)


def _word(value: object) -> str:
    """A number as Python reads it back, and no longer than that."""
    if isinstance(value, np.floating):
        return str(value)  # of a float32 the few digits that it has
    return str(value.item() if isinstance(value, np.generic) else value)
