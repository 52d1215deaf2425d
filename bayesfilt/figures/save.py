"""A figure becomes two files, PNG and PDF: whole or not there, and equal bytes for equal data."""

from pathlib import Path

from matplotlib.figure import Figure

from bayesfilt.atomic_files import write_atomically

# Matplotlib would write its version and the time of day: two runs of one record would differ.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def save_figure(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write `figure` to `folder` as `name`.png (300 dots per inch) and `name`.pdf.

    Each file is written under a temporary name and then renamed. The folder is made if need be.

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
    return png, pdf


def _save(figure: Figure, path: Path, kind: str) -> Path:
    """Write one file of the pair."""
    return write_atomically(
        path,
        lambda temporary: figure.savefig(
            temporary, format=kind, dpi=300, metadata=_METADATA[kind], bbox_inches=None
        ),
    )
