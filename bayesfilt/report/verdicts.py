"""An experiment's verdicts in words: yes, no or not judged, and which stand near a threshold."""

from collections.abc import Sequence
from typing import Any

from bayesfilt.report.found import Run
from bayesfilt.report.sections import Counts, Table, Tone, word

HOLDS = {True: "yes", False: "no", None: "not judged"}

_COLUMNS = ("claim", "holds", "measured", "expected", "tolerance")
_MARKS = {True: "yes", False: "no", None: "open"}


def verdicts_of(run: Run) -> list[dict[str, Any]]:
    """The verdicts of a summary; what is none is left out."""
    found = run.summary.get("verdicts")
    if not isinstance(found, list):
        return []
    return [
        each
        for each in found
        if isinstance(each, dict) and "claim" in each and each.get("holds") in HOLDS
    ]


def counted(verdicts: Sequence[dict[str, Any]]) -> Counts:
    """How many there are of each word."""
    words = [each["holds"] for each in verdicts]
    return Counts(
        yes=sum(each is True for each in words),
        no=sum(each is False for each in words),
        not_judged=sum(each is None for each in words),
        near=sum(_is_near(each) for each in verdicts),
    )


def answer(counts: Counts) -> tuple[str, Tone]:
    """What the verdicts say together."""
    if not counts.yes and not counts.no:
        return f"Not judged: {counts.spelled()}.", "open"
    far = ", as far as it is judged" if counts.not_judged else ""
    if not counts.no:
        return f"Yes{far}: {counts.spelled()}.", "yes"
    if not counts.yes:
        return f"No{far}: {counts.spelled()}.", "no"
    return f"In part: {counts.spelled()}.", "part"


def verdict_table(verdicts: Sequence[dict[str, Any]]) -> Table:
    """A row a verdict."""
    rows = [
        (
            word(each["claim"]),
            HOLDS[each["holds"]] + (" (near the threshold)" if _is_near(each) else ""),
            *(word(each.get(name)) for name in _COLUMNS[2:]),
        )
        for each in verdicts
    ]
    marks = [_MARKS[each["holds"]] for each in verdicts]
    return Table(title="Verdicts", columns=_COLUMNS, rows=rows, marks=marks)


def _is_near(verdict: dict[str, Any]) -> bool:
    return verdict["holds"] is not None and verdict.get("near") is True
