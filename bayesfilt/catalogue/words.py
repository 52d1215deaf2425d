"""A name with numbers of its own, as it is written: `step:drop=0.1,first=0.5`."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from bayesfilt.catalogue.facts import Facts


class NamedNumbers(NamedTuple):
    """What was asked for."""

    facts: Facts
    numbers: dict[str, Any]  # all of its own, the defaults included


def name_and_numbers(
    kind: str, word: str, known: Iterable[Facts], given: dict[str, Any] | None = None
) -> NamedNumbers:
    """Look a word up, and fill in the numbers that it leaves out.

    Args:
        kind: "optimizers" or "schedules", for the message.
        word: `name` or `name:number=value,...`.
        known: What there is.
        given: Numbers given apart from the word; they may be traced.

    Raises:
        ValueError: An unknown name or number (the nearest is offered), a number twice, or
            something that is no number.
    """
    from bayesfilt.checks import require_one_of  # waits for numpy, which help does not need

    name, colon, listed = str(word).partition(":")
    rows = {facts.name: facts for facts in known}
    require_one_of("the zoo", kind, name, rows)
    own = rows[name].defaults
    numbers = _numbers(word, listed) if colon else {}
    for number, value in (given or {}).items():
        if number in numbers:
            raise ValueError(f"{word} has {number} already, got {number}={value!r} too.")
        numbers[number] = value
    for number in numbers:
        if not own:
            raise ValueError(f"{name} has no numbers of its own, got {number!r}.")
        require_one_of(name, "numbers", number, own)
    return NamedNumbers(facts=rows[name], numbers={**own, **numbers})


def canonical(kind: str, word: str, known: Iterable[Facts]) -> str:
    """The one spelling of a name and the numbers given with it: `power_adam:power=0.75`.

    Raises:
        ValueError: As `name_and_numbers`.
    """
    facts, _ = name_and_numbers(kind, word, known)
    _, colon, listed = word.partition(":")
    given = _numbers(word, listed) if colon else {}
    told = [f"{name}={given[name]!r}" for name in facts.defaults if name in given]
    return f"{facts.name}:{','.join(told)}" if told else facts.name


def _numbers(word: str, listed: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for item in listed.split(","):
        number, _, value = (part.strip() for part in item.partition("="))
        if number in numbers:
            raise ValueError(f"{word} has {number} twice.")
        try:
            numbers[number] = float(value)
        except ValueError:
            raise ValueError(
                f"a name's numbers are written name:number=value,number=value; got {word!r}."
            ) from None
    return numbers
