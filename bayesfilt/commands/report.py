"""`bayesfilt report`: one HTML page of a run, or of a folder of runs."""

import dataclasses
from pathlib import Path

from bayesfilt.commands.console import note, say
from bayesfilt.commands.jax_setup import prepare_jax


@dataclasses.dataclass(frozen=True)
class Report:
    """Make one HTML page of a run or of a folder of runs: answers, figures, numbers, settings."""

    folder: Path  # of a run (demo, compare, sweep, infer, an experiment), or with runs in it
    out: Path | None = None  # the page; without it, report.html in the folder
    # Page that the figures are drawn for: neurips, icml, icml_wide, iclr, tmlr, jmlr or talk.
    # One column of icml is as wide as a phone.
    venue: str = "icml"
    force: bool = False  # replace a file that is no earlier report

    def run(self) -> int:
        """Read, draw, write; say what was not whole."""
        prepare_jax("cpu", "float32")  # a sweep's chunks are read as `sweep show` reads them
        from bayesfilt.report import write_report

        written = write_report(self.folder, self.out, venue=self.venue, force=self.force)
        for section in written.sections:
            for line in section.warnings:
                note(f"warning: {section.title}: {line}")
        count = len(written.sections)
        say(f"Report   {written.path}: {count} run{'s' * (count > 1)}")
        return 0
