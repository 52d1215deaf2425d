"""What the folder of an experiment holds: a finished run, one broken off, or one being made."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from bayesfilt.atomic_files import CannotWriteError
from bayesfilt.records import NETCDF_NAME, NPZ_NAME
from bayesfilt.run_directory import MANIFEST_NAME, SUMMARY_NAME, strict_json

try:
    import fcntl
except ImportError:  # Windows: two that make the same experiment both write it, whole
    fcntl = None


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a record and its verdicts, which are written last."""
    return _has_record(folder) and (folder / SUMMARY_NAME).is_file()


def stands(folder: Path, config: Any, seed: int) -> bool:
    """Whether a folder holds a finished run of this very config and seed."""
    return is_of(folder, config) and _manifest(folder).get("seed") == seed and is_finished(folder)


def is_of(folder: Path, config: Any) -> bool:
    """Whether a folder's manifest tells of a run with these settings."""
    return _manifest(folder).get("config") == json.loads(strict_json({"config": config}))["config"]


def reason(folder: Path, known: str) -> str:
    """Why a finished run is not the one that is asked for: `known`, or that nobody can tell."""
    return known if _manifest(folder) else "has no manifest that can be read"


def was_broken_off(folder: Path) -> bool:
    """Whether a folder holds the announcement of a run, and no numbers of it."""
    return _manifest(folder).get("interrupted") is True and not _has_record(folder)


def verdicts_of_the_run(folder: Path) -> list[dict[str, Any]] | None:
    """What the run itself wrote into its summary; None if that cannot be read."""
    found = _json(folder / SUMMARY_NAME).get("verdicts")
    return found if are_verdicts(found) else None


def are_verdicts(found: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether something that was read is a list of verdicts, each with a claim and an answer."""
    return isinstance(found, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("claim"), str)
        and any(each.get("holds") is answer for answer in (True, False, None))
        for each in found
    )


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Have a folder to oneself, until the end or the death of this process.

    Raises:
        BlockingIOError: another process has it.
        CannotWriteError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"Cannot write {folder}: {error.strerror or error}.") from error
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another process makes the experiment in {folder}.") from error
        except OSError:  # a disk without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _has_record(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (NETCDF_NAME, NPZ_NAME))


def _manifest(folder: Path) -> dict[str, Any]:
    return _json(folder / MANIFEST_NAME)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
