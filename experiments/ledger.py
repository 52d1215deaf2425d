"""The ledger of claims: what each says, whether it holds, what is right, and what settles it.

Rows stand in claims.toml. A row is settled by verdicts of experiments (`part`), by numerical
checks of the notes, by tests, or by reading; where it names verdicts, its own is derived from them,
or must agree with them. `paper_notes/claims.md` is written from both.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.verdict_table import HOLDS, Entry, counted, is_near

CLAIMS_PATH = Path(__file__).parent / "claims.toml"
PAGE_PATH = Path(__file__).parents[1] / "paper_notes" / "claims.md"
VERDICTS = ("true", "false", "conditional", "open")

_FEW = 4  # verdicts that are quoted word by word

_KINDS = {
    "0": "A blog entry on the AdamW paper",
    "1": "An excerpt of the AdamW paper",
    "2": "Lecture notes on optimizers",
    "3": "A tutorial on weight decay and the decay of the learning rate",
    "4": "A page of questions and answers",
    "P": "Predictions of the theory",
}


class Part(NamedTuple):
    """Verdicts of an experiment that bear on a claim."""

    experiment: str
    claims: str  # a regular expression, found in the claims of those verdicts
    supports: bool = True  # whether yes there speaks for the claim, or against it


class Claim(NamedTuple):
    """A row of the ledger."""

    id: str
    source: str
    statement: str
    correct: str
    verdict: str | None  # None: derived from the parts
    parts: tuple[Part, ...]
    checks: tuple[str, ...]  # letters of paper_notes/checks.md
    tests: tuple[str, ...]
    reading: tuple[str, ...]  # keys of references.bib


def read_claims(path: Path = CLAIMS_PATH) -> list[Claim]:
    """All rows, in their order."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    return [_claim(row) for row in rows]


def verdict_of(claim: Claim, entries: Mapping[str, Entry]) -> str:
    """Whether a claim holds: its own word if it has one, else what its parts say together.

    Raises:
        ValueError: a part that the verdicts of record do not have, or a word that its parts
            contradict.
    """
    for_it, against, unsure = (0, 0, 0)
    for part in claim.parts:
        for verdict in _found(claim, part, entries):
            holds = verdict["holds"]
            unsure += holds is None
            for_it += holds is part.supports
            against += holds is (not part.supports)
    if claim.verdict is None:
        return _together(for_it, against, unsure)
    agrees = {
        "true": not against and (for_it or not claim.parts),
        "false": not for_it and (against or not claim.parts),
        "conditional": True,
        "open": not for_it and not against,
    }
    if not agrees.get(claim.verdict, False):
        raise ValueError(
            f"claim {claim.id} is said to be {claim.verdict}, but of its verdicts {for_it} speak"
            f" for it, {against} against it and {unsure} are not judged."
        )
    return claim.verdict


def ledger_text(claims: Sequence[Claim], entries: Mapping[str, Entry]) -> str:
    """claims.md: a table a source."""
    verdicts = {claim.id: verdict_of(claim, entries) for claim in claims}
    counts = ", ".join(
        f"{sum(each == word for each in verdicts.values())} {word}" for word in VERDICTS
    )
    lines = [
        "# Claims",
        "",
        "What the source notes and both papers claim, whether it holds, what is right, and what"
        " settles it.",
        "Written by `python -m experiments table` from `experiments/claims.toml` and"
        " `experiments/verdicts.json`; do not edit by hand.",
        "",
        f"{len(claims)} claims: {counts}. *Conditional*: it holds under conditions, or some of what"
        " it says holds. *Open*: not settled here.",
        "Where experiments settle it, true and false are said of what was tried: worlds made of the"
        " model, and small networks on the handwritten digits.",
        "An experiment's verdict is quoted with what it measured; ~ marks one near its threshold.",
        "",
    ]
    for kind, title in _KINDS.items():
        rows = [claim for claim in claims if claim.id.startswith(kind)]
        lines += [
            f"## {title}",
            "",
            "| # | claim | verdict | what is right | settled by |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(claim, verdicts[claim.id], entries) for claim in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(
        id=row["id"],
        source=row["source"],
        statement=row["statement"],
        correct=row["correct"],
        verdict=row.get("verdict"),
        parts=tuple(Part(**part) for part in row.get("part", ())),
        checks=tuple(row.get("checks", ())),
        tests=tuple(row.get("tests", ())),
        reading=tuple(row.get("reading", ())),
    )


def _together(for_it: int, against: int, unsure: int) -> str:
    if for_it and not against and not unsure:
        return "true"
    if against and not for_it:
        return "false"
    return "conditional" if for_it else "open"


def _found(claim: Claim, part: Part, entries: Mapping[str, Entry]) -> list[Mapping[str, Any]]:
    verdicts = entries.get(part.experiment, {}).get("verdicts", ())
    found = [each for each in verdicts if re.search(part.claims, each["claim"])]
    if not found:
        raise ValueError(
            f"claim {claim.id} names verdicts that {part.experiment} does not have:"
            f" {part.claims!r}."
        )
    return found


def _row(claim: Claim, verdict: str, entries: Mapping[str, Entry]) -> str:
    settled = [_quoted(part, _found(claim, part, entries)) for part in claim.parts]
    if claim.checks:
        settled.append("checks " + ", ".join(claim.checks))
    settled += [f"`{test}`" for test in claim.tests]
    settled += [f"[{key}]" for key in claim.reading]
    cells = (claim.id, claim.statement, verdict, claim.correct, "; ".join(settled))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _quoted(part: Part, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts word by word if they are few, else how many say what."""
    name = part.experiment.partition("_")[0]
    link = f"[{name}](../experiments/README.md#{part.experiment})"
    against = "" if part.supports else " (yes speaks against the claim)"
    if len(verdicts) > _FEW:
        return f"{link}{against}: of {len(verdicts)} verdicts {counted(verdicts)}"
    said = (
        f"{each['claim'].rstrip('.')}: {HOLDS[each['holds']]}{' ~' * is_near(each)}"
        f" ({each['measured']})"
        for each in verdicts
    )
    return f"{link}{against}: " + "; ".join(said)
