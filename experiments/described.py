"""What an experiment says of itself, in words: for the page of its record and under its figures.

The page is made by `bayesfilt report`, which knows no experiments; so question, claim and captions
go into `summary.json` when an experiment runs.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from bayesfilt.figures import VENUES, VenueFigure
from bayesfilt.records import as_plain
from experiments.contract import Result, Verdict

_HOLDS = {True: "holds", False: "does not hold", None: "not judged"}


class Shown(NamedTuple):
    """One figure of an experiment."""

    name: str  # of its files
    caption: str
    draw: Callable[..., VenueFigure]


def figures_of(module: ModuleType) -> Iterator[Shown]:
    """`plot`, whose caption is the module's, and every `plot_...`, whose docstring is its own."""
    own = module.__name__.rpartition(".")[2]
    for name in sorted(vars(module)):
        if name == "plot":
            yield Shown(name=own, caption=module.CAPTION, draw=module.plot)
        elif name.startswith("plot_"):
            draw = getattr(module, name)
            said = (inspect.getdoc(draw) or "").partition("\n\n")[0].replace("\n", " ")
            title = own + name.removeprefix("plot").replace("_", "-")
            yield Shown(name=title, caption=said, draw=draw)


def question_of(module: ModuleType) -> str:
    """The first line of the module's docstring."""
    return (module.__doc__ or "").strip().partition("\n")[0]


def is_quick(module: ModuleType, result: Result) -> bool:
    """Whether a record was made with the settings of a quick trial."""
    config = as_plain(result.attributes.get("config"))
    return config == as_plain(module.QUICK) != as_plain(module.PAPER)


def words_of(module: ModuleType) -> dict[str, Any]:
    """What a module says of itself, whatever the record."""
    return {
        "name": module.__name__.rpartition(".")[2],
        "question": question_of(module),
        "claim": module.CLAIM,
        "settles": list(module.SETTLES),
        "captions": {each.name: each.caption for each in figures_of(module)},
    }


def described(module: ModuleType, result: Result, seed: int) -> dict[str, Any]:
    """What goes into the summary besides the verdicts."""
    about = words_of(module)
    words = ["python -m experiments run", about["name"]]
    words += ["--quick"] if is_quick(module, result) else []
    words += [f"--seed {seed}"] if seed else []
    return {**about, "command": " ".join(words)}


def caption_draft(
    module: ModuleType, result: Result, shown: Shown, verdicts: Sequence[Verdict], venue: str
) -> str:
    """A few sentences for the paper, made of the caption and of every verdict as it stands."""
    counts = {word: sum(each.holds is word for each in verdicts) for word in _HOLDS}
    seeds = seeds_of(as_plain(result.attributes.get("config")))
    many = f"{seeds} seeds a setting. " if seeds else ""
    name = module.__name__.rpartition(".")[2]
    small = is_quick(module, result)
    return "\n".join(
        [
            f"**{question_of(module)}** {shown.caption} {many}".strip(),
            "",
            *(["Settings of a quick trial: not for print.", ""] if small else []),
            f'The claim "{module.CLAIM.removesuffix(".")}" in {len(verdicts)} parts:'
            f" {counts[True]} hold, {counts[False]} do not, {counts[None]} not judged.",
            "",
            *(_sentence(each) for each in verdicts),
            "",
            f"For {venue}, {VENUES[venue].width:g} inches wide; drawn again from the record by",
            f"`python -m experiments plot {name}{' --quick' * small} --venue {venue}`.",
            "",
        ]
    )


def seeds_of(config: Any) -> str:
    """Numbers of seeds anywhere in a configuration: "5", "3 to 8", or nothing."""
    found = sorted(set(_seed_counts(config)))
    if not found:
        return ""
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _seed_counts(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for each in value:
            yield from _seed_counts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in ("num_seeds", "seeds") and isinstance(each, int):
                yield each
            else:
                yield from _seed_counts(each)


def _sentence(verdict: Verdict) -> str:
    near = ", near the threshold" if verdict.is_near else ""
    return (
        f"- {verdict.claim}: {_HOLDS[verdict.holds]}{near}. Measured {verdict.measured};"
        f" expected {verdict.expected} ({verdict.tolerance})."
    )
