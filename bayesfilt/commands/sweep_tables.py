"""What `bayesfilt sweep` prints: a plan, how far a sweep is, what it found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesfilt.checks import require_one_of
from bayesfilt.commands.console import number, say, show_table
from bayesfilt.simulate import NEVER
from bayesfilt.simulate.merged import FINISHED, IMPOSSIBLE
from bayesfilt.simulate.run_sweep import SweepOutcome
from bayesfilt.simulate.store import Stock, Store
from bayesfilt.simulate.sweep_chunk import build_program
from bayesfilt.simulate.sweep_plan import Execution, SweepPlan, all_chunks
from bayesfilt.simulate.sweep_width import stored_bytes_per_run

if TYPE_CHECKING:
    import xarray

_BYTES_OF_A_FILE = 50_000  # HDF5's own, measured; the labels of some fifteen variables


def show_plan(plan: SweepPlan, executions: Sequence[Execution]) -> None:
    """A row for each group; then what it comes to in runs, storage, memory and time."""
    columns = ("group:", "runs", "chunks", "width", "devices", "steps/s", "memory", "time")
    chunks = all_chunks(plan, [execution.width for execution in executions])
    rows, seconds, stored = [], 0.0, 0
    for group, execution in zip(plan.groups, executions, strict=True):
        runs = len(plan.runs_of(group.index))
        own = sum(chunk.group == group.index for chunk in chunks)
        # The padding of the last chunk takes its time too.
        takes = own * execution.width * group.num_steps / execution.steps_per_second
        memory = execution.width * execution.bytes_per_run
        cells = (runs, own, execution.width, execution.num_devices)
        rows.append([group.title, *map(str, cells), number(execution.steps_per_second),
                     _bytes(memory), _duration(takes)])  # fmt: skip
        seconds += takes
        program = build_program(group, execution.num_devices)
        stored += runs * stored_bytes_per_run(program) + own * _BYTES_OF_A_FILE
    show_table(f"Sweep {plan.hash[:12]}", columns, rows)
    show_skipped(plan)
    say(f"Cells    {plan.run_of_cell.size}, behind them {len(plan.runs)} distinct runs")
    say(f"Chunks   {len(chunks)}, a file each")
    say(f"Storage  about {_bytes(stored)}")
    say(f"Memory   about {_bytes(_most_memory(executions))} at a time")
    say(f"Time     about {_duration(seconds)} at the measured speed, and compiling")


def show_skipped(plan: SweepPlan) -> None:
    """The impossible cells by name."""
    for each in plan.invalid:
        say(f"Left out {each.num_cells} cells: {each.where}: {each.reason}")


def show_progress(outcome: SweepOutcome) -> None:
    """How much of a sweep, or of a shard, stands."""
    show_skipped(outcome.store.plan)
    say(
        f"Sweep    {outcome.store.folder}: {outcome.finished} of {outcome.wanted} chunks,"
        f" {outcome.computed} of them made now"
    )


def show_results(store: Store, stock: Stock, tree: "xarray.DataTree", by: str) -> None:
    """A row for each task and optimizer: how far it is, what diverged, its best cell.

    Raises:
        ValueError: there are results, and none called `by`.
    """
    columns, rows = results_table(tree, by)
    show_table(f"Sweep {store.plan.hash[:12]}", columns, rows)
    show_skipped(store.plan)
    say(f"Chunks   {len(stock.finished)} of {len(store.chunks)} finished and whole")


def results_table(tree: "xarray.DataTree", by: str) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows of `show_results`.

    Raises:
        ValueError: there are results, and none called `by`.
    """
    known = sorted({str(name) for node in tree.children.values() for name in _ends_in(node)})
    if known:
        require_one_of("sweep show", "results", by, known)
    columns = ("task:", "optimizer:", "runs", "done", "diverged", f"best median\n{by}", "at:")
    rows = []
    for task in tree.children:
        node = tree.children[task].to_dataset()
        for optimizer in node["optimizer"].values:
            here = node.sel(optimizer=optimizer)
            rows.append([task, str(optimizer), *_counts(here), *_best(here, by)])
    return columns, rows


def _ends_in(node: "xarray.DataTree") -> list[str]:
    """The numbers of a task with one value a run."""
    return [
        str(name)
        for name, found in node.data_vars.items()
        if found.dtype.kind == "f" and not {"step", "trace_step"} & set(found.dims)
    ]


def is_accuracy(by: str) -> bool:
    """Whether more of it is better."""
    return by.endswith("accuracy")


def _counts(here: "xarray.Dataset") -> list[str]:
    possible = (here["status"] != IMPOSSIBLE).sum()
    done = here["status"] == FINISHED
    diverged = (here["diverged_at"] != NEVER).where(done, False).sum() if done.any() else 0
    return [str(int(each)) for each in (possible, done.sum(), diverged)]


def _best(here: "xarray.Dataset", by: str) -> list[str]:
    """The best median over the seeds, and where; a cell with a diverged run has none."""
    if by not in here:
        return ["-", "-"]
    medians = here[by].median("seed", skipna=False)
    if not np.isfinite(medians).any():
        return ["-", "-"]
    # An accuracy is the better the higher, all else the lower.
    best = medians.isel(medians.argmax(...) if is_accuracy(by) else medians.argmin(...))
    names = [name for name in medians.dims if medians.sizes[name] > 1]
    at = [f"{name} {_word(best[name].item())}" for name in names]
    return [number(float(best)), ", ".join(map(str, at)) or "the only cell"]


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _most_memory(executions: Sequence[Execution]) -> int:
    return max(each.width * each.bytes_per_run for each in executions)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{number(count)} {unit}"
        count /= 1_000
    return f"{number(count)} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(seconds, 2)} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{number(seconds / 3_600)} h"
