"""Figures of a run, drawn again as SVG, each with its data."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

from bayesfilt.figures import VenueFigure, drawings_of, drawn_table, redraw, svg_text
from bayesfilt.records import Group, Record, read_record
from bayesfilt.report.found import Run
from bayesfilt.report.sections import Download, Picture
from bayesfilt.run_directory import FIGURES_NAME

_RECORDS = (".nc", ".npz")
_LARGEST_PLAIN = 200_000  # bytes of a table that the page carries as it is; longer ones packed
_LARGEST = 2_000_000  # and of a packed one, beyond which it is left where it lies

# What another program, or another version, has put into a record may break a figure anywhere.
_UNDRAWABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def pictures_of(
    run: Run, anchor: str, venue: str, groups: dict[str, Group] | None, problems: list[str]
) -> list[Picture]:
    """Every figure of a run; what cannot be drawn is added to `problems`, a line each.

    Args:
        run: where the figures or their groups are.
        anchor: the section's, with which inner names begin.
        venue: that they are drawn for.
        groups: to be drawn in place of a record's.
        problems: takes what went wrong.
    """
    if run.kind == "experiment":
        return list(_stored(run, anchor, venue, problems))
    record = Record(groups=groups, attributes={}) if groups is not None else run.record
    if record is None:
        return []
    return list(_of_record(record, anchor, venue, problems))


def _of_record(record: Record, anchor: str, venue: str, problems: list[str]) -> Iterator[Picture]:
    for name, group, drawing in drawings_of(record):
        said = (drawing.draw.__doc__ or "").strip().partition("\n")[0]

        def draw(group: Group = group, draw: Callable[..., VenueFigure] = drawing.draw):
            return draw(group, venue)

        picture = _drawn(name, f"{name}: {said}", anchor, draw, problems)
        if picture is not None:
            yield picture


def _stored(run: Run, anchor: str, venue: str, problems: list[str]) -> Iterator[Picture]:
    """An experiment's figures: from what is stored beside each, or else its PNG."""
    folder = run.folder / FIGURES_NAME
    about = run.summary.get("experiment")
    captions = about.get("captions", {}) if isinstance(about, dict) else {}
    names = {path.stem for path in _files(folder) if path.suffix in (".png", *_RECORDS)}
    for name in sorted(names, key=lambda each: (len(each), each)):
        caption = str(captions.get(name, name)) if isinstance(captions, dict) else name
        file = next(
            (folder / f"{name}{end}" for end in _RECORDS if _is_file(folder, name, end)), None
        )
        picture = None
        if file is not None:

            def draw(file: Path = file) -> VenueFigure:
                return redraw(read_record(file), venue)

            picture = _drawn(name, caption, anchor, draw, problems)
        if picture is None and _is_file(folder, name, ".png"):
            png = (folder / f"{name}.png").read_bytes()
            picture = Picture(name=name, caption=caption, png=png)
        if picture is not None:
            yield picture


def _drawn(
    name: str, caption: str, anchor: str, draw: Callable[[], VenueFigure], problems: list[str]
) -> Picture | None:
    try:
        figure = draw()
        svg = svg_text(figure, f"{anchor}-{_letters(name)}", title=caption)
    except _UNDRAWABLE as error:
        reason = (
            f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        )
        problems.append(f"The figure {name} cannot be drawn from this record: {reason}")
        return None
    data = _download(name, figure)
    if data is None:
        caption += " Its data are too long for this page and lie in the run's folder."
    return Picture(name=name, caption=caption, svg=svg, data=data)


def _download(name: str, figure: VenueFigure) -> Download | None:
    table = None if figure.drawn is None else drawn_table(figure.drawn)
    if table is None:
        return None
    data = table.encode()
    if len(data) <= _LARGEST_PLAIN:
        return Download(name=f"{name}.csv", data=data, media_type="text/csv;charset=utf-8")
    packed = gzip.compress(data, mtime=0)
    if len(packed) > _LARGEST:
        return None
    return Download(name=f"{name}.csv.gz", data=packed, media_type="application/gzip")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def _is_file(folder: Path, name: str, end: str) -> bool:
    return (folder / f"{name}{end}").is_file()


def _letters(name: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in name)
