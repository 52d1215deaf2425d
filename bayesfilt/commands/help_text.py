"""Help made from the catalogue, which a comment beside an option cannot be."""

from collections.abc import Callable, Iterable

from bayesfilt.catalogue import Facts


def helped[Command](**options: str) -> Callable[[type[Command]], type[Command]]:
    """Give options of a command their help: tyro reads it from the class's docstring."""

    def add(command: type[Command]) -> type[Command]:
        lines = [f"    {name}: {text}" for name, text in options.items()]
        command.__doc__ = "\n".join([f"{command.__doc__}\n", "Attributes:", *lines])
        return command

    return add


def any_of(known: Iterable[Facts]) -> str:
    """The names in a row, and those with numbers of their own marked."""
    names = [facts.name + "*" * bool(facts.numbers) for facts in known]
    return (
        f"Any of {', '.join(names)}; those with a * take numbers of their own, as"
        " name:number=value,number=value. `bayesfilt map --explain NAME` says which."
    )
