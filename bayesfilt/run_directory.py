"""The folder of one run: who may write into it, and what it says about itself.

    runs/demo/record.nc       the numbers (bayesfilt.records)
    runs/demo/manifest.json   how they came about: config, seed, versions, commit, device, ...
    runs/demo/summary.json    the few that answer the question
    runs/demo/figures/        drawn from the record, and what is drawn as tables and records
    runs/demo/report.html     the page that `bayesfilt report` makes of it

Both JSON files are strict JSON: what JSON cannot say, inf and NaN, stands as "inf" and "nan".
"""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from bayesfilt import provenance
from bayesfilt.atomic_files import is_leftover, write_bytes_atomically, write_text_atomically
from bayesfilt.records import NETCDF_NAME, NPZ_NAME, as_plain

MANIFEST_NAME, SUMMARY_NAME, FIGURES_NAME = "manifest.json", "summary.json", "figures"
REPORT_NAME = "report.html"
MANIFEST_SCHEMA_VERSION = 1

_BESIDE_A_FIGURE = (".csv", ".nc", ".npz", ".caption.md")  # its name, and then this


def open_run_directory(path: str | Path, *, force: bool = False) -> Path:
    """Make the folder of a new run, empty and writable, before any work is spent on it.

    `force` takes away what an earlier run wrote there (record, manifest, summary, figures),
    and nothing else: a mistyped --out must not cost anybody a folder.

    Raises:
        ValueError: the path is a file, or a folder that is not empty and `force` is off.
        CannotWriteError: the folder cannot be made or written into.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a run needs a folder.")
    if not force and folder.is_dir() and not _is_empty(folder):
        raise ValueError(
            f"{folder} is not empty; name another folder, or pass --force (force=True)"
            " to replace an earlier run."
        )
    # A read-only folder should say so now, not after the run.
    write_bytes_atomically(folder / MANIFEST_NAME, b"").unlink()
    for file in _files_of_a_run(folder):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files may be among the figures
        (folder / FIGURES_NAME).rmdir()
    return folder


def write_manifest(
    folder: str | Path,
    config: Any,
    *,
    seed: int,
    dtype: str,
    wall_time_seconds: float,
    interrupted: bool = False,
) -> Path:
    """Write `manifest.json`: everything needed to make these numbers again.

    Args:
        folder: the run directory.
        config: a dataclass, a mapping, or anything made of them.
        seed: the seed of the run's key.
        dtype: dtype of the weights, "float64".
        wall_time_seconds: how long the run took, in seconds.
        interrupted: whether the run was stopped before its last step.
    """
    manifest = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        **provenance.here_and_now(),
        "config": config,
        "seed": seed,
        "dtype": str(dtype),
        "wall_time_seconds": wall_time_seconds,
        "interrupted": interrupted,
    }
    return write_text_atomically(Path(folder) / MANIFEST_NAME, strict_json(manifest))


def write_summary(folder: str | Path, summary: dict[str, Any]) -> Path:
    """Write `summary.json`: the few numbers that answer the question."""
    return write_text_atomically(Path(folder) / SUMMARY_NAME, strict_json(summary))


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read `manifest.json` back.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is truncated, foreign or of a newer bayesfilt.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["schema_version"])
        complete = version > MANIFEST_SCHEMA_VERSION or "config" in manifest
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the manifest of a run, or is truncated.") from error
    if not complete:
        raise ValueError(f"{path} is not the manifest of a run: it has no config.")
    if version > MANIFEST_SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema {version} and this bayesfilt knows up to"
            f" {MANIFEST_SCHEMA_VERSION}: a newer bayesfilt wrote it."
        )
    return manifest


def strict_json(content: dict[str, Any]) -> str:
    """The text of a JSON file that any program reads: inf and NaN stand as words."""
    plain = _strict(as_plain(content))
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """`value` with inf and NaN as words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return value


def _is_empty(folder: Path) -> bool:
    return all(is_leftover(entry) for entry in folder.iterdir())


def _files_of_a_run(folder: Path) -> list[Path]:
    names = (NETCDF_NAME, NPZ_NAME, MANIFEST_NAME, SUMMARY_NAME, REPORT_NAME)
    figures = folder / FIGURES_NAME
    drawn = [file for kind in ("*.png", "*.pdf") for file in figures.glob(kind)]
    drawn += [file.with_suffix(end) for file in figures.glob("*.png") for end in _BESIDE_A_FIGURE]
    left = [file for place in (folder, figures) for file in place.glob(".*") if is_leftover(file)]
    return [*(folder / name for name in names), *drawn, *left]
