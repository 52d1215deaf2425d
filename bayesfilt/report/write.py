"""From a folder to its page."""

from pathlib import Path
from typing import NamedTuple

from bayesfilt.atomic_files import write_text_atomically
from bayesfilt.figures import venue_named
from bayesfilt.report.found import Run, find_runs
from bayesfilt.report.page import GENERATOR, page
from bayesfilt.report.pictures import pictures_of
from bayesfilt.report.run_tables import QUESTIONS, UNKNOWN, told_by
from bayesfilt.report.sections import Section, Table, duration, flat, word
from bayesfilt.report.verdicts import answer, counted, verdict_table, verdicts_of
from bayesfilt.run_directory import REPORT_NAME

NARROW = "icml"  # one column of it is as wide as a phone, with letters that can be read there


class Written(NamedTuple):
    """A page that was written."""

    path: Path
    sections: tuple[Section, ...]


def write_report(
    folder: str | Path, out: str | Path | None = None, *, venue: str = NARROW, force: bool = False
) -> Written:
    """Write the page of a run, or of all runs in a folder.

    Args:
        folder: of the run or the runs.
        out: the page's file; without it, `report.html` in the folder. An earlier report is
            replaced.
        venue: page that the figures are drawn for: a narrow one is read on a phone.
        force: replace a file that is no report.

    Raises:
        ValueError: an unknown venue, a folder without a run, a file that is no report.
        CannotWriteError: the page cannot be written.
    """
    venue_named(venue)
    runs = find_runs(folder)
    place = Path(folder).expanduser()
    place = place if place.is_dir() else place.parent
    path = place / REPORT_NAME if out is None else Path(out).expanduser()
    _require_own_place(path, force=force)
    sections = tuple(_section(run, f"r{index}", venue) for index, run in enumerate(runs, 1))
    write_text_atomically(path, page(place.resolve().name or "runs", sections))
    return Written(path=path, sections=sections)


def _require_own_place(path: Path, *, force: bool) -> None:
    """A mistyped --out must not cost anybody a file."""
    if path.is_dir():
        raise ValueError(f"report needs a file to write, got the folder {path}.")
    if force or not path.exists():
        return
    with path.open("rb") as file:
        if GENERATOR.encode() not in file.read(2_000):
            raise ValueError(f"{path} is no earlier report; pass --force to replace it.")


def _section(run: Run, anchor: str, venue: str) -> Section:
    warnings = _warnings(run)
    if run.kind == "experiment":
        return _of_experiment(run, anchor, venue, warnings)
    told = told_by(run) if run.summary or run.kind == "sweep" else None
    groups = None if told is None else told.groups
    pictures = pictures_of(run, anchor, venue, groups, warnings)
    question = QUESTIONS.get(run.kind, UNKNOWN) if told is None else told.question
    return Section(
        title=run.name,
        kind=run.kind,
        question=question,
        answer="Not finished." if told is None else told.answer,
        tone="open" if told is None else told.tone,
        counts=None,
        lines=() if told is None else told.lines,
        warnings=warnings,
        pictures=pictures,
        tables=() if told is None else told.tables,
        settings=_settings(run),
    )


def _of_experiment(run: Run, anchor: str, venue: str, warnings: list[str]) -> Section:
    about = run.summary.get("experiment")
    about = about if isinstance(about, dict) else {}
    verdicts = verdicts_of(run)
    counts = counted(verdicts)
    unjudged = "Not judged." if run.is_finished else "Not finished."
    words, tone = answer(counts) if verdicts else (unjudged, "open")
    claim = f"{about['claim']} " if "claim" in about else ""  # verdicts answer it, not the question
    if run.summary and not about:
        warnings.append(
            "An older version made this run, without question and captions: `python -m experiments"
            " report` judges and draws it again, from its record alone, and makes the page."
        )
    settles = about.get("settles")
    lines = [f"Bears on: {word(settles)}."] if settles else []
    return Section(
        title=run.name,
        kind=run.kind,
        question=str(about.get("question", run.folder.name)),
        answer=f"{claim}{words}",
        tone=tone,
        counts=counts if verdicts else None,
        lines=lines,
        warnings=warnings,
        pictures=pictures_of(run, anchor, venue, None, warnings),
        tables=[verdict_table(verdicts)] if verdicts else [],
        settings=_settings(run, about),
    )


def _warnings(run: Run) -> list[str]:
    """What is not whole about a run, and what to do."""
    again = run.command_again
    how = f"Make it again with: {again}" if again else "Run it again, with --force."
    found = [f"{problem.removesuffix('.')}. {how}" for problem in run.problems]
    if not run.problems and not run.is_finished:
        missing = "no record" if run.record is None else "no summary"
        missing = missing if run.manifest else "no manifest"
        found.append(f"Not finished: {missing}. {how}")
    if run.manifest.get("interrupted") is True and run.record is not None:
        found.append("Interrupted: what was done until then is shown.")
    return found


def _settings(run: Run, about: dict | None = None) -> list[Table]:
    """How it was made: command, machine, versions, and every setting."""
    manifest = run.manifest
    if not manifest:
        return []
    device, commit = manifest.get("device"), manifest.get("commit")
    device = device if isinstance(device, dict) else {}
    changed = " and changes that were not committed" if manifest.get("dirty") else ""
    command = (about or {}).get("command") or run.command
    made = [
        ("command", word(command)),
        ("seed", word(manifest.get("seed"))),
        ("wall time", duration(manifest.get("wall_time_seconds"))),
        ("device", ", ".join(word(device[key]) for key in sorted(device) if key in _OF_DEVICE)),
        ("cores", word(device.get("cpu_count"))),
        ("dtype", word(manifest.get("dtype"))),
        ("commit", f"{word(commit)}{changed}"),
        ("written at", word(manifest.get("written_at"))),
    ]
    config = manifest.get("config", manifest.get("sweep", {}))
    columns = ("what", "value")
    versions = flat(manifest.get("versions", {})) + flat(manifest.get("flags", {}))
    return [
        Table("How it was made", columns, made),
        Table("Settings", columns, flat(config)),
        Table("Versions and flags", columns, versions),
    ]


_OF_DEVICE = ("kind", "machine", "platform", "system")
