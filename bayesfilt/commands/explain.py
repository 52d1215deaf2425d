"""What `bayesfilt map` says of the zoo's names: everything in the catalogue, and how to use it."""

from collections.abc import Sequence

from bayesfilt.catalogue import (
    DECAYS,
    OPTIMIZER_FACTS,
    SCHEDULE_FACTS,
    STATUSES,
    Facts,
    equation_says,
    name_and_numbers,
    reference,
)
from bayesfilt.commands.console import number, say, show_list

_OPTION = {
    **{facts.name: "followers" for facts in OPTIMIZER_FACTS},
    **{facts.name: "schedule" for facts in SCHEDULE_FACTS},
}
_NEEDS_METRIC = "reduce_on_plateau"


def list_all() -> None:
    """One line for each name: what it is as a filter, and how exactly."""
    for title, rows in (("Optimizers", OPTIMIZER_FACTS), ("Schedules", SCHEDULE_FACTS)):
        say(f"{title}: name, how exact its reading as a filter is, the reading")
        for facts in rows:
            say(f"  {facts.name:<20}  {facts.status:<11}  {facts.reading}")
        say("")
    say("`bayesfilt map --explain NAME` says more of one;")
    say("`bayesfilt map --learning-rate 1e-3 --weight-decay 0.1` translates numbers.")


def explain(names: Sequence[str]) -> None:
    """Everything known of these names.

    Raises:
        ValueError: A name that the zoo does not have; the nearest is offered.
    """
    everything = (*OPTIMIZER_FACTS, *SCHEDULE_FACTS)
    found = [name_and_numbers("names", name, everything).facts for name in names]
    for facts in found:
        show_list(facts.name, _rows(facts))


def _rows(facts: Facts) -> list[tuple[str, str]]:
    option = _OPTION[facts.name]
    rows = [
        ("as a filter", facts.reading),
        ("status", f"{facts.status}: {STATUSES[facts.status]}"),
        ("because", facts.reason),
    ]
    if option == "followers":
        lost = f"{facts.decay}: a weight without gradient loses {DECAYS[facts.decay]}"
        rows += [("weight decay", lost)]
    for own in facts.numbers:
        default = "" if own.default is None else f"; by default {number(own.default)}"
        rows += [(own.name, f"a number: {own.meaning}{default}")]
    rows += [("source", reference(key)) for key in facts.sources]
    rows += [("equation", f"{tag}: {equation_says(tag)}") for tag in facts.tags]
    if facts.name == _NEEDS_METRIC:
        return [*rows, ("in Python", "its update wants value=loss; simulate hands it over")]
    return [*rows, ("to compare", f"bayesfilt compare --{option} {_example(facts)} --out FOLDER")]


def _example(facts: Facts) -> str:
    given = [own for own in facts.numbers if own.default is not None]
    return f"{facts.name}:{given[0].name}={number(given[0].default)}" if given else facts.name
