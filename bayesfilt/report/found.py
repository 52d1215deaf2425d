"""Runs in a folder, and what each of them says of itself; what cannot be read is said, not raised.

demo, compare, infer, recording    folders of `bayesfilt`
sweep                              a folder of `bayesfilt sweep run`
experiment                         a folder of `python -m experiments`
unknown                            numbers without a manifest or summary that tells
"""

import difflib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bayesfilt.records import NETCDF_NAME, NPZ_NAME, Record, read_record
from bayesfilt.run_directory import FIGURES_NAME, MANIFEST_NAME, SUMMARY_NAME, read_manifest

_FILES = (MANIFEST_NAME, SUMMARY_NAME, NETCDF_NAME, NPZ_NAME)
_NO_RUNS_IN = {FIGURES_NAME, "fits", "chunks"}
_DEPTH = 3  # folders below the one that was named
_MOST = 500  # runs on one page


class Run(NamedTuple):
    """One run directory."""

    folder: Path
    name: str  # below the folder that was named
    kind: str
    manifest: dict[str, Any]  # empty where there is none that can be read
    summary: dict[str, Any]  # likewise
    record: Record | None
    problems: tuple[str, ...]  # files that are there and cannot be read, each in one line

    @property
    def is_finished(self) -> bool:
        """Whether everything is there that the command writes."""
        return not self.problems and (
            self.kind == "sweep" or bool(self.summary and self.manifest and self.record)
        )

    @property
    def command(self) -> str | None:
        """What was typed to make it, as it can be typed here; None where nobody knows."""
        words = self.manifest.get("command")
        if not isinstance(words, list) or not words:
            return None
        program, *rest = map(str, words)
        home = Path(program).parent.name
        if home == "experiments":
            program = "python -m experiments"
        elif home == "bayesfilt" or Path(program).name == "bayesfilt":
            program = "bayesfilt"
        return " ".join([program, shlex.join(rest)]).strip()

    @property
    def command_again(self) -> str | None:
        """The same, with what it needs to replace or to finish this run."""
        if self.command is None:
            return None
        by_all = self.kind == "experiment" and self.manifest["command"][1:2] == ["all"]
        if by_all and self.problems:  # `all` takes what is there for finished
            name, quick = self.folder.name.removesuffix("-quick"), self.folder.name[-6:] == "-quick"
            words = ["run", name, *["--quick"] * quick, "--out", str(self.folder.parent), "--force"]
            return f"python -m experiments {shlex.join(words)}"
        goes_on = self.kind == "sweep" or by_all or "--force" in self.command
        return self.command if goes_on else f"{self.command} --force"


def find_runs(path: str | Path) -> list[Run]:
    """The run in a folder, and those in the folders below it.

    Raises:
        ValueError: there is no such folder, or no run in it; what there is instead is said.
    """
    root = Path(path).expanduser()
    if root.is_file() and root.name in _FILES:
        root = root.parent
    if not root.exists():
        raise ValueError(f"there is no {path}.{_nearest(root)}")
    if not root.is_dir():
        raise ValueError(f"report needs the folder of a run, got the file {path}.")
    folders = list(_run_folders(root, _DEPTH))
    if not folders:
        raise ValueError(
            f"{path} holds no run: a run has {MANIFEST_NAME} and {NETCDF_NAME}."
            " `bayesfilt demo`, `compare`, `infer`, `sweep run` and `python -m experiments run`"
            " make one."
        )
    if len(folders) > _MOST:
        raise ValueError(f"{path} holds {len(folders)} runs; a page of {_MOST} is the longest.")
    return [_read(folder, root) for folder in folders]


def is_run(folder: Path) -> bool:
    """Whether a folder has a file that runs have."""
    return any((folder / name).is_file() for name in _FILES)


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    if not depth:
        return
    for below in sorted(folder.iterdir()):
        hidden = below.name.startswith(".") or below.name in _NO_RUNS_IN
        if below.is_dir() and not below.is_symlink() and not hidden:
            yield from _run_folders(below, depth - 1)


def _nearest(path: Path) -> str:
    """What stands where something was looked for."""
    there = path.parent
    while not there.is_dir():
        there = there.parent
    names = sorted(each.name for each in there.iterdir() if each.is_dir())
    if near := difflib.get_close_matches(path.name, names, n=1):
        return f" Did you mean {there / near[0]}?"
    runs = [name for name in names if is_run(there / name)]
    return f" In {there} there are the runs {', '.join(runs[:8])}." if runs else ""


def _read(folder: Path, root: Path) -> Run:
    problems: list[str] = []
    manifest = _manifest(folder, problems)
    summary = _json(folder / SUMMARY_NAME, problems)
    kind = _kind(manifest, summary)
    record = None
    if kind != "sweep":
        try:
            record = read_record(folder)
        except FileNotFoundError:
            pass  # not there yet
        except (ValueError, OSError) as error:
            problems.append(" ".join(str(error).split()))
    name = root.resolve().name if folder == root else folder.relative_to(root).as_posix()
    return Run(
        folder=folder,
        name=name,
        kind=kind,
        manifest=manifest,
        summary=summary,
        record=record,
        problems=tuple(problems),
    )


def _manifest(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    found = _json(path, problems)
    if not found or found.get("kind") == "sweep":
        return found
    try:
        return read_manifest(folder)
    except (ValueError, OSError) as error:
        problems.append(" ".join(str(error).split()))
        return {}


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    """What a file says; nothing where it is not there, or is no JSON object (which is noted)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        problems.append(f"{path} cannot be read: it is truncated, or not of a run.")
        return {}
    return found


def _kind(manifest: dict[str, Any], summary: dict[str, Any]) -> str:
    words = manifest.get("command")
    words = [str(each) for each in words] if isinstance(words, list) else []
    if manifest.get("kind") == "sweep":
        return "sweep"
    judged = isinstance(summary.get("verdicts"), list) and "reported_model" not in summary
    if "experiment" in summary or judged or (words and "experiments" in Path(words[0]).parts[-2:]):
        return "experiment"
    if "reported_model" in summary:
        return "infer"
    if "valid_optima" in summary:
        return "recording"
    if "tasks" in summary:
        return "demo" if "demo" in words[1:2] else "compare"
    return next((each for each in words[1:2] if each in ("demo", "compare", "infer")), "unknown")
