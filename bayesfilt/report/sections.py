"""What the page says of one run, as words and pictures, before any of it is HTML."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Tone = Literal["yes", "no", "part", "open"]


class Counts(NamedTuple):
    """Verdicts by their word."""

    yes: int = 0
    no: int = 0
    not_judged: int = 0
    near: int = 0  # of the judged ones: other seeds may undo them

    def spelled(self) -> str:
        """In words."""
        found = f"{self.yes} yes, {self.no} no, {self.not_judged} not judged"
        return found + (f"; {self.near} near the threshold" if self.near else "")

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(one + two for one, two in zip(self, other, strict=True)))


class Table(NamedTuple):
    """Words in rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str] = ()  # a word a row that colours it: yes, no, open; or none at all


class Download(NamedTuple):
    """A file that the page carries."""

    name: str
    data: bytes
    media_type: str


class Picture(NamedTuple):
    """One figure, as SVG or, where it cannot be drawn again, as PNG."""

    name: str
    caption: str
    svg: str = ""
    png: bytes = b""
    data: Download | None = None


class Section(NamedTuple):
    """One run."""

    title: str
    kind: str
    question: str
    answer: str
    tone: Tone
    counts: Counts | None  # None: the run judges nothing
    lines: Sequence[str]  # what else is to be said, a paragraph each
    warnings: Sequence[str]
    pictures: Sequence[Picture]
    tables: Sequence[Table]
    settings: Sequence[Table]


def word(value: Any) -> str:
    """A setting or a number as a reader wants it; a dash for what is not there."""
    if value is None or value == "nan":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(word, value)) or "none"
    return str(value)


def flat(values: Any, above: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a table: `problem.num_steps`."""
    if isinstance(values, dict):
        items = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list) and any(isinstance(each, dict | list) for each in values):
        items = [(str(index), value) for index, value in enumerate(values)]
    else:
        return [(above, word(values))]
    rows: list[tuple[str, str]] = []
    for key, value in items:
        rows += flat(value, f"{above}.{key}" if above else key)
    return rows


def duration(seconds: Any) -> str:
    """Seconds as seconds, minutes or hours."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "-"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3_600:.3g} h"
