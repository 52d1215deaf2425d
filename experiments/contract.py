"""What every experiment has, and what a verdict is.

A module `experiments/eNN_....py` has a docstring (claim, source, what would refute it, cost) and

    CLAIM                              one sentence
    SETTLES                            what it bears on: predictions P1-P40, rows of the ledger
    CAPTION                            what the figure shows, for the page under it
    Config                             frozen dataclass: every number that can change the result
    PAPER, QUICK                       a Config each; QUICK is the same code, in seconds
    DTYPE                              "float64" where the process needs it; else float32
    run(config, key) -> Result         numbers only: nothing is judged, written or drawn
    check(result) -> list[Verdict]     the claim taken apart, each part judged
    plot(result, venue) -> Figure      of the numbers, for a page of this width

A `Result` is a record: what is judged and drawn is what was stored. `experiments.__main__` does all
reading and writing.
"""

import difflib
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure
from bayesfilt.records import Record

type Result = Record

# Bootstraps of `check` and `plot` are a function of the record alone.
CHECK_SEED = 20_201

# A 90 % bootstrap interval of three seeds leaves out the truth one time in five.
FEWEST_SEEDS = 5

# An interval that clears its threshold by less than half of its half-width is near it.
NEAR = 0.5

INTERVAL = "90 % bootstrap over paired seeds"

_NAME = "e[0-9][0-9]_*.py"


class Verdict(NamedTuple):
    """Whether one part of a claim holds, and by how much."""

    claim: str
    measured: str  # with its interval
    expected: str
    tolerance: str  # and its reason
    holds: bool | None  # None: not judged, at this size or by these numbers
    # From the threshold to the near end of the interval, over the interval's half-width.
    margin: float | None = None

    @property
    def is_near(self) -> bool:
        """Whether a yes or no stands so close to its threshold that other seeds may undo it."""
        return self.holds is not None and self.margin is not None and self.margin < NEAR

    def plain(self) -> dict[str, Any]:
        """As summaries and tables keep it; a margin that is not known is none."""
        known = self.margin is not None and not np.isnan(self.margin)
        return {
            **self._asdict(),
            "margin": self.margin if known else None,
            "near": self.is_near,
        }


class Experiment(Protocol):
    """A module of this folder, as the type checker sees it."""

    CLAIM: str
    SETTLES: tuple[str, ...]
    CAPTION: str
    PAPER: Any
    QUICK: Any

    def run(self, config: Any, key: PRNGKeyArray) -> Result:
        """Make the numbers."""
        ...

    def check(self, result: Result) -> list[Verdict]:
        """Judge them."""
        ...

    def plot(self, result: Result, venue: str = "neurips") -> VenueFigure:
        """Draw them."""
        ...


def experiment_names() -> list[str]:
    """Every experiment of this folder, in order."""
    return sorted(path.stem for path in Path(__file__).parent.glob(_NAME))


def experiment_named(name: str) -> ModuleType:
    """Import the experiment called `name`; its number alone (`e01`) will do.

    Raises:
        ValueError: there is none; the nearest is offered.
    """
    known = experiment_names()
    found = [each for each in known if name in (each, each.partition("_")[0])]
    if not found:
        spellings = {part: each for each in known for part in (each, *each.split("_", maxsplit=1))}
        near = difflib.get_close_matches(name, spellings, n=1, cutoff=0.5)
        hint = f"Did you mean {spellings[near[0]]!r}? " if near else ""
        raise ValueError(
            f"There is no experiment {name!r}. {hint}`python -m experiments list` names all"
            f" {len(known)}."
        )
    return importlib.import_module(f"experiments.{found[0]}")


def docstring_part(module: ModuleType, word: str) -> str:
    """What a module's docstring says behind "word:", to the next such word, as one line."""
    _, _, rest = (module.__doc__ or "").partition(f"{word}:")
    lines = []
    for line in rest.strip().splitlines():
        if not line or re.match(r"[A-Z][a-zA-Z ]*:", line) and lines:
            break
        lines.append(line.strip())
    return " ".join(lines).rstrip(".")


def check_key() -> PRNGKeyArray:
    """The key of every bootstrap in `check` and `plot`."""
    return jax.random.key(CHECK_SEED)


def spelled(interval: Interval, digits: int = 3) -> str:
    """An estimate and its interval, as the tables show it."""
    estimate, low, high = (f"{value:.{digits}g}" for value in interval)
    return f"{estimate} ({low} to {high})"


def below(interval: Interval, bound: float) -> bool | None:
    """Whether a number is below `bound`: None where its interval holds the bound, or is unknown."""
    if interval.high < bound:
        return True
    return False if interval.low > bound else None


def within(interval: Interval, low: float, high: float) -> bool | None:
    """Whether a number lies in a band: None where its interval touches an edge, or is unknown."""
    if not interval.low <= interval.high:
        return None
    if (low < interval.low or np.isneginf(low)) and (interval.high < high or np.isposinf(high)):
        return True
    return False if interval.high < low or interval.low > high else None


def margin_of(interval: Interval, low: float, high: float) -> float:
    """How far an interval stays from the edges of a band, in its own half-widths.

    Inside the band or outside of it; 0 or less where it holds an edge, inf without a width.
    """
    if not interval.low <= interval.high:
        return float("nan")
    ways = [
        max(edge - interval.high, interval.low - edge) for edge in (low, high) if np.isfinite(edge)
    ]
    nearest = min(ways, default=float("inf"))
    if interval.low == interval.high:  # which may be infinite, and has no half-width then
        return float("inf") if nearest > 0 else 0.0
    return nearest / (0.5 * (interval.high - interval.low))


def judged(
    claim: str,
    interval: Interval,
    *,
    low: float = -float("inf"),
    high: float = float("inf"),
    tolerance: str = INTERVAL,
    unit: str = "",
) -> Verdict:
    """Whether a number lies in a band, which may be open on one side.

    Args:
        claim: in words.
        interval: of the number.
        low: end of the band.
        high: end of the band.
        tolerance: what the interval is, and why the band has this width.
        unit: of the number, written behind it.
    """
    if np.isneginf(low):
        expected = f"below {high:.3g}"
    else:
        expected = f"above {low:.3g}" if np.isposinf(high) else f"{low:.3g} to {high:.3g}"
    return Verdict(
        claim=claim,
        measured=spelled(interval) + (f" {unit}" if unit else ""),
        expected=expected,
        tolerance=f"{tolerance}; undecided where the interval holds an end",
        holds=within(interval, low, high),
        margin=margin_of(interval, low, high),
    )


def all_of(*parts: bool | None) -> bool | None:
    """No as soon as one part is no, yes if all of them are, else None."""
    if any(part is False for part in parts):
        return False
    return True if all(part is True for part in parts) else None


def margin_of_all(margins: Sequence[float], parts: Sequence[bool | None]) -> float:
    """Margin of `all_of`: a no is as clear as its clearest no, else the nearest part counts."""
    outside = [margin for margin, part in zip(margins, parts, strict=True) if part is False]
    return max(outside) if outside else min(margins)


def is_the_one(interval: Interval, claimed: float, rivals: Sequence[float]) -> bool | None:
    """Whether a number is the claimed one: yes, no, or None where it cannot be told.

    No as soon as the claimed one is outside. Yes needs an interval that holds no rival and is
    no wider than the way to the nearest: one that merely misses both neighbours has not chosen.
    """
    if not interval.low <= interval.high:
        return None
    if not interval.low <= claimed <= interval.high:
        return False
    ways = [abs(rival - claimed) for rival in rivals]
    if any(interval.low <= rival <= interval.high for rival in rivals):
        return None
    return True if interval.high - interval.low <= min(ways, default=float("inf")) else None


def margin_of_the_one(interval: Interval, claimed: float, rivals: Sequence[float]) -> float:
    """How far `is_the_one` is from another answer, in half-widths of the interval.

    A no: from the claimed value to the near end. Else the least of three ways: from the claimed
    value to the end behind which it would be outside, from an end to the nearest rival, and from
    the width to the widest that still chooses; 0 or less where the interval has not chosen.
    """
    if not interval.low <= claimed <= interval.high:
        return margin_of(interval, claimed, claimed)
    half = 0.5 * (interval.high - interval.low)
    nearest = min((abs(rival - claimed) for rival in rivals), default=float("inf"))
    if half == 0:
        return float("inf") if nearest > 0 else 0.0
    to_end = min(claimed - interval.low, interval.high - claimed) / half
    to_width = (nearest - 2 * half) / half
    return min(to_end, to_width, *(margin_of(interval, each, each) for each in rivals))


def not_judged(verdict: Verdict, why: str) -> Verdict:
    """The same verdict without a yes or no, the reason added to its tolerance."""
    return Verdict(
        claim=verdict.claim,
        measured=verdict.measured,
        expected=verdict.expected,
        tolerance=f"{verdict.tolerance}; not judged {why}",
        holds=None,
        margin=verdict.margin,
    )


def with_enough_seeds(verdicts: Sequence[Verdict], num_seeds: int) -> list[Verdict]:
    """The same verdicts, none of them judged where seeds are too few for their intervals."""
    if num_seeds >= FEWEST_SEEDS:
        return list(verdicts)
    why = f"with {num_seeds} seeds, fewer than {FEWEST_SEEDS}"
    return [not_judged(each, why) for each in verdicts]
