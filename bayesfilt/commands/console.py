"""What a command says: tables on stdout, progress and errors on stderr."""

import contextlib
import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

# A file or a pipe has no width of its own; a table is made as wide as it needs to be.
_WIDTH_OF_A_PIPE = 160
_GAP = 2  # between two columns
_LEAST_WORDS = 12  # a column of words may be folded to this


def say(text: str, *, error: bool = False) -> None:
    """One line, as it is: no colour, no folding, so that a message can be searched for."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def note(text: str) -> None:
    """Something worth knowing that stops nothing."""
    say(f"bayesfilt: {text}", error=True)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a column whose name ends in a colon holds words, any other numbers.

    Words are folded where they must be, except in the first column; numbers never. Columns for
    which a terminal is too narrow follow below, beside the first column once more.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_OF_A_PIPE)
    # rich leaves with exit code 1 where nobody reads on; `say` leaves that to the caller.
    with console.capture() as captured:
        console.print(Text(title, style="bold"), soft_wrap=True)
        for place, kept in enumerate(columns_side_by_side(columns, rows, console.width)):
            if place:
                console.print()
            some = [[row[index] for index in kept] for row in rows]
            console.print(_table([columns[index] for index in kept], some))
    say(captured.get())


def columns_side_by_side(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """Which columns fit beside each other, the first one always among them."""

    def needed(index: int) -> int:
        head = columns[index].removesuffix(":").split("\n")
        longest = max(map(len, [*head, *(row[index] for row in rows)]))
        return min(longest, _LEAST_WORDS) if columns[index].endswith(":") and index else longest

    parts, room = [[0]], width - needed(0)
    for index in range(1, len(columns)):
        if needed(index) + _GAP > room and len(parts[-1]) > 1:
            parts.append([0])
            room = width - needed(0)
        parts[-1].append(index)
        room -= needed(index) + _GAP
    return parts


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        is_words = column.endswith(":")
        table.add_column(
            Text(column.removesuffix(":")),
            justify="left" if is_words else "right",
            overflow="fold",
            no_wrap=index == 0 or not is_words,
            vertical="bottom",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def show_list(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and what belongs to them; a terminal gets lines of its width."""
    from rich.console import Console

    console = Console()
    indent = max(len(label) for label, _ in rows) + 4
    say(title)
    for label, text in rows:
        line = f"  {label}".ljust(indent) + text
        if console.is_terminal:
            line = textwrap.fill(line, console.width, subsequent_indent=" " * indent)
        say(line)
    say("")


def number(value: float | None, digits: int = 3) -> str:
    """`value` with a few significant digits: 0.001, 1.2e-07, 12345; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    short = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in short and 1 <= abs(value) < 1e6 else short


@contextlib.contextmanager
def progress_bar() -> Iterator["Progress"]:
    """Bars with an estimate of the time left, on a terminal; silence elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        yield progress
