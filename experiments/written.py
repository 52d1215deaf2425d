"""What an experiment writes besides its record: verdicts and words, figures and their captions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesfilt.atomic_files import write_text_atomically
from bayesfilt.commands.console import say
from bayesfilt.figures import save_figure
from bayesfilt.run_directory import FIGURES_NAME, SUMMARY_NAME, read_manifest, write_summary
from experiments.contract import Result, Verdict
from experiments.described import caption_draft, described, figures_of, words_of


def write_words(
    module: ModuleType,
    result: Result,
    verdicts: Sequence[Verdict],
    folder: Path,
    numbers: Mapping[str, Any],
) -> Path:
    """Write the summary: the verdicts, other numbers of the run, and what a page says besides."""
    about = described(module, result, read_manifest(folder)["seed"])
    judged = [each.plain() for each in verdicts]
    return write_summary(folder, {**numbers, "verdicts": judged, "experiment": about})


def draw(
    module: ModuleType, result: Result, verdicts: Sequence[Verdict], folder: Path, venue: str
) -> None:
    """The experiment's figures, each with what it shows and the draft of its caption."""
    for each in figures_of(module):
        png, _ = save_figure(each.draw(result, venue), folder / FIGURES_NAME, each.name)
        draft = caption_draft(module, result, each, verdicts, venue)
        write_text_atomically(png.with_suffix(".caption.md"), draft)
        say(f"Figure  {png} (and .pdf; .csv, .nc: what it shows; .caption.md)")


def is_described(module: ModuleType, folder: Path) -> bool:
    """Whether a record's summary says what a page wants to know, as the module has it today."""
    try:
        about = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))["experiment"]
        same = all(about[key] == value for key, value in words_of(module).items())
    except (OSError, ValueError, LookupError, TypeError):
        return False
    drawn = (folder / FIGURES_NAME / f"{each.name}.png" for each in figures_of(module))
    return same and all(path.is_file() for path in drawn)


def write_again(module: ModuleType, result: Result, folder: Path, venue: str = "neurips") -> None:
    """Judge and draw a record made by older code, and write down what that code did not.

    Raises:
        ValueError: the record cannot be judged or drawn.
    """
    try:
        before = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    verdicts = module.check(result)
    write_words(module, result, verdicts, folder, before if isinstance(before, dict) else {})
    draw(module, result, verdicts, folder, venue)
