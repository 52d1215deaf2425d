"""The numbers of a run of `bayesfilt`: the tables that the command printed, from what it wrote."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bayesfilt.commands.summary import from_dict, summary_lines, summary_table
from bayesfilt.records import Group
from bayesfilt.report.found import Run
from bayesfilt.report.sections import Table, Tone, flat, word

UNKNOWN = "What was found?"
QUESTIONS = {
    "demo": "How near to AdamW are the filters, update by update and as runs of their own?",
    "compare": "How near to AdamW are the filters, update by update and as runs of their own?",
    "infer": "Which state-space model does the recorded training prefer; does its mean shrink?",
    "recording": "Streams of some weights: what did their optima and gradients do?",
    "sweep": "Which cells of the grid are best?",
}

_BY = "final_test_loss"  # as `bayesfilt sweep show` has it


class Told(NamedTuple):
    """What a run says, besides its pictures."""

    question: str
    answer: str
    tone: Tone = "open"
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    groups: dict[str, Group] | None = None  # to be drawn, where the run has no record


def told_by(run: Run) -> Told:
    """Question, answer and tables of a run that is no experiment."""
    try:
        return _TELLERS.get(run.kind, _unknown)(run)
    except (LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        question = QUESTIONS.get(run.kind, UNKNOWN)
        return Told(question=question, answer=f"What it found cannot be read: {reason}")


def _comparison(run: Run) -> Told:
    tables, lines = [], []
    for task, found in run.summary.get("tasks", {}).items():
        summary = from_dict(found)
        columns, rows = summary_table(summary)
        tables.append(Table(title=task, columns=_plain(columns), rows=rows))
        lines += [f"{task}: {line}" for line in summary_lines(summary)]
    return Told(
        question=QUESTIONS["compare"],
        answer="The tables and figures say how near; nothing is judged here.",
        lines=lines,
        tables=tables,
    )


def _inference(run: Run) -> Told:
    found = run.summary
    verdicts = found["verdicts"]
    words = ", ".join(dict.fromkeys(f"{each['layer']}: {each['word']}" for each in verdicts))
    failed = [name for name, gate in found["gates"].items() if not gate["passes"]]
    rivals = ("name", "layer", "difference", "standard_error", "verdict")
    numbers = ("parameter", "layer", "median", "low", "high", "r_hat")
    reported = found["reported_model"]
    return Told(
        question=QUESTIONS["infer"],
        answer=f"{reported} is preferred. " + (f"Shrinks? {words}." if words else ""),
        lines=[
            *(each["sentence"] for each in verdicts),
            *(f"The sampling of {name} failed a gate." for name in failed),
        ],
        tables=[
            _table("Models compared (nats)", rivals, found["comparison"]["rivals"]),
            _table(f"Numbers of {reported} (90 %)", numbers, found["numbers"].get(reported, [])),
        ],
    )


def _recording(run: Run) -> Told:
    return Told(
        question=QUESTIONS["recording"],
        answer="Recorded; `bayesfilt infer` fits models to them.",
        tables=[Table("Recorded", ("what", "value"), flat(run.summary))],
    )


def _sweep(run: Run) -> Told:
    """Every chunk is verified and read, as `bayesfilt sweep show` does it."""
    from bayesfilt.commands.sweep_analysis import heatmap_groups
    from bayesfilt.commands.sweep_tables import results_table
    from bayesfilt.simulate.merged import tree_of
    from bayesfilt.simulate.store import read_store, take_stock

    store = read_store(run.folder)
    stock = take_stock(store)
    tree = tree_of(store, {key: [path] for key, path in stock.finished.items()})
    columns, rows = results_table(tree, _BY)
    done, wanted = len(stock.finished), len(store.chunks)
    on = "" if done == wanted else f" Not finished; it goes on with: {run.command_again}"
    return Told(
        question=QUESTIONS["sweep"],
        answer=f"{done} of {wanted} chunks are finished and whole.{on}",
        lines=stock.problems,
        tables=[Table("Best cells", _plain(columns), rows)],
        groups=heatmap_groups(tree, _BY) if done else {},
    )


def _unknown(run: Run) -> Told:
    tables = [Table("Summary", ("what", "value"), flat(run.summary))] if run.summary else []
    return Told(question=UNKNOWN, answer="The run does not say what it was for.", tables=tables)


_TELLERS = {
    "demo": _comparison,
    "compare": _comparison,
    "infer": _inference,
    "recording": _recording,
    "sweep": _sweep,
}


def _table(title: str, columns: tuple[str, ...], rows: Sequence[dict[str, Any]]) -> Table:
    cells = [[word(row.get(name)) for name in columns] for row in rows]
    names = tuple(name.replace("_", " ") for name in columns)
    return Table(title=title, columns=names, rows=cells)


def _plain(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(column.removesuffix(":").replace("\n", " ") for column in columns)
