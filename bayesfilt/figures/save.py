"""A figure becomes files, PNG and PDF, and what it shows two more: equal bytes for equal data.

    shares.png, shares.pdf      the figure
    shares.csv, shares.nc       what is drawn: a table, and a record (`bayesfilt.figures.drawn`)

Each is whole or not there.
"""

from pathlib import Path

from matplotlib.figure import Figure

from bayesfilt.atomic_files import write_atomically, write_bytes_atomically, write_text_atomically
from bayesfilt.figures.drawn import drawn_record, drawn_table
from bayesfilt.figures.layout import VenueFigure
from bayesfilt.records import pack_record

# Matplotlib would write its version and the time of day: two runs of one record would differ.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def save_figure(
    figure: Figure, folder: str | Path, name: str, *, data: bool = True
) -> tuple[Path, Path]:
    """Write `figure` to `folder` as `name`.png (300 dots per inch) and `name`.pdf.

    Each file is written under a temporary name and then renamed. The folder is made if need be.

    Args:
        figure: what is to be written.
        folder: where.
        name: of all files.
        data: write what is drawn beside it: `name`.csv (unless it were too long to be read) and
            `name`.nc (.npz where a library of netCDF is missing). Figures that ArviZ drew, and
            others that do not show one group, have none.

    Returns:
        Paths of the PNG and of the PDF.

    Raises:
        ValueError: `name` is empty or would leave the folder.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"save_figure needs a bare file name, got {name!r}.")
    folder = Path(folder)
    png = _save(figure, folder / f"{name}.png", "png")
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")  # the PDF keeps the places found for the PNG
    try:
        pdf = _save(figure, folder / f"{name}.pdf", "pdf")
    finally:
        figure.set_layout_engine(engine)
    files = _data_files(figure) if data else {}
    for suffix, content in files.items():
        if isinstance(content, str):
            write_text_atomically(folder / f"{name}{suffix}", content)
        else:
            write_bytes_atomically(folder / f"{name}{suffix}", content)
    for suffix in {".csv", ".nc", ".npz"} - files.keys():  # of an earlier figure of this name
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return png, pdf


def _data_files(figure: Figure) -> dict[str, str | bytes]:
    """What stands beside the figure, by the end of its name."""
    if not isinstance(figure, VenueFigure) or figure.drawn is None:
        return {}
    table = drawn_table(figure.drawn)
    packed = pack_record(drawn_record(figure.drawn, figure.venue))
    return {**({} if table is None else {".csv": table}), packed.suffix: bytes(packed.data)}


def _save(figure: Figure, path: Path, kind: str) -> Path:
    """Write one file of the pair."""
    return write_atomically(
        path,
        lambda temporary: figure.savefig(
            temporary, format=kind, dpi=300, metadata=_METADATA[kind], bbox_inches=None
        ),
    )
