"""Carry a sweep out: plan, open the folder, measure, execute what is missing, write.

Every chunk is written when it is finished. Killed at any moment and called again, the sweep
goes on where it stopped, and its results are those of a sweep that was never killed.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import jax

from bayesfilt.simulate.chunk_record import chunk_record
from bayesfilt.simulate.store import (
    Store,
    finished_file,
    key_of,
    open_store,
    take_stock,
    write_chunk,
)
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import ChunkProgram, build_program, execute_chunk
from bayesfilt.simulate.sweep_plan import (
    ChunkPlan,
    Execution,
    SweepGroup,
    SweepPlan,
    plan_sweep,
)
from bayesfilt.simulate.sweep_width import largest_power_of_two, measure_execution


class Shard(NamedTuple):
    """One part of a sweep: every `parts`-th chunk, from number `part` on."""

    part: int  # from 0
    parts: int


WHOLE = Shard(part=0, parts=1)


class SweepProgress(NamedTuple):
    """How far a call of `run_sweep` has come."""

    doing: str  # in words
    completed: int  # training steps of all runs together, those found finished too
    total: int  # of this shard


Progress = Callable[[SweepProgress], None]


class SweepOutcome(NamedTuple):
    """What a call of `run_sweep` came to."""

    store: Store
    wanted: int  # chunks of this shard
    finished: int  # of these, how many stand now
    computed: int  # of these, how many this call made
    notes: tuple[str, ...]  # what was found wrong or different, each in one line
    interrupted: bool  # Ctrl-C came


def parse_shard(text: str) -> Shard:
    """Read `i/n`: part i, counted from 0, of n.

    Raises:
        ValueError: it is not of that form, or i is not below n.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    shard = Shard(part=int(found[1]), parts=int(found[2])) if found else WHOLE
    if found is None or shard.part >= shard.parts:
        raise ValueError(f"A shard is i/n with i from 0 to n - 1, like 0/4; got {text!r}.")
    return shard


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    *,
    shard: Shard = WHOLE,
    width: int | None = None,
    on_progress: Progress | None = None,
) -> SweepOutcome:
    """Make the runs of a sweep that its folder does not hold yet.

    Any number of processes may work in one folder, on shards or all on the whole.

    Args:
        sweep: what to run.
        folder: new, empty, or that of the same sweep.
        shard: the part to run. Shards in folders of their own need the same `width`.
        width: runs in a chunk; by default measured. Where the folder has a manifest, its
            widths hold.
        on_progress: called after each piece of a chunk.

    Returns:
        A `SweepOutcome`. Ctrl-C (KeyboardInterrupt) ends it with `interrupted=True`; the
        finished chunks stand. Before there is a manifest nothing is kept, and it is raised.

    Raises:
        ValueError: a cell that cannot be run, or a folder of something else.
        CannotWriteError: the folder cannot be written; what stands in it stays.
        jax.errors.JaxRuntimeError: not even one run fits into memory.
    """
    plan = plan_sweep(sweep)
    tell = on_progress or (lambda progress: None)
    store = open_store(folder, plan, lambda: measured(plan, width, tell))

    def make(work: Work, missing: list[ChunkPlan]) -> None:
        for group, chunks in _in_order(missing, shuffled=not store.made_here):
            work.make(group, chunks)

    return carry_out(store, shard, make, tell)


def carry_out(
    store: Store,
    shard: Shard,
    make: Callable[["Work", list[ChunkPlan]], None],
    tell: Progress,
) -> SweepOutcome:
    """Find out what a shard lacks, and have `make` make it, here or elsewhere."""
    stock = take_stock(store)
    mine = store.chunks[shard.part :: shard.parts]
    work = Work(store, mine, tell)
    work.count([chunk for chunk in mine if key_of(chunk) in stock.finished])
    missing = [chunk for chunk in mine if key_of(chunk) not in stock.finished]
    interrupted = False
    try:
        make(work, missing)
    except KeyboardInterrupt:
        interrupted = True
    return SweepOutcome(
        store=store,
        wanted=len(mine),
        finished=work.finished,
        computed=work.computed,
        notes=tuple(dict.fromkeys((*store.notes, *stock.problems, *work.notes))),
        interrupted=interrupted,
    )


def measured(plan: SweepPlan, width: int | None, tell: Progress) -> tuple[Execution, ...]:
    """How each group is executed best, found out by executing some of it."""
    executions = []
    for group in plan.groups:
        tell(SweepProgress(doing=f"measuring {group.title}", completed=0, total=1))
        executions.append(measure_execution(group, plan.runs_of(group.index), width=width))
    return tuple(executions)


class Work:
    """Makes chunks, and keeps count."""

    def __init__(
        self,
        store: Store,
        mine: Sequence[ChunkPlan],
        tell: Progress,
        build: Callable[[SweepGroup, int], ChunkProgram] | None = None,
    ):
        self.finished, self.computed = 0, 0
        self.notes: list[str] = []
        self._store, self._tell = store, tell
        self._build = build or build_program
        self._completed, self._total = 0, sum(map(self._steps, mine))

    def count(self, chunks: Sequence[ChunkPlan]) -> None:
        """Add chunks that stand now."""
        self.finished += len(chunks)
        self._completed += sum(map(self._steps, chunks))

    def show(self, doing: str, more: int = 0) -> None:
        """Tell what is being done, with so many steps beyond those of finished chunks."""
        self._tell(SweepProgress(doing, self._completed + more, self._total))

    def make(self, index: int, chunks: Sequence[ChunkPlan]) -> None:
        """Execute and write chunks of one group, but for those another process has made."""
        group = self._store.plan.groups[index]
        program = self._build(group, self._devices(index))

        def show(completed: int, _: int) -> None:
            self.show(group.title, completed)

        for chunk in chunks:
            key = key_of(chunk)
            if finished_file(self._store, key):
                self.count([chunk])
                continue
            show(0, 0)
            outcome = execute_chunk(program, chunk, on_progress=show)
            write_chunk(self._store, key, chunk_record(self._store.plan, outcome))
            if outcome.executed_width < chunk.width:
                self.notes.append(
                    f"chunk {key}: memory held {outcome.executed_width} runs at once instead of"
                    f" {chunk.width}; its results agree with the others' up to rounding."
                )
            self.computed += 1
            self.count([chunk])

    def _steps(self, chunk: ChunkPlan) -> int:
        return len(chunk.runs) * self._store.plan.groups[chunk.group].num_steps

    def _devices(self, index: int) -> int:
        """As many devices as the manifest says, or as there are."""
        wanted, there = self._store.executions[index].num_devices, jax.local_device_count()
        if there < wanted:
            there = largest_power_of_two(there)  # they share the runs equally
            self.notes.append(
                f"the sweep was begun on {wanted} devices and goes on with {there}: chunks agree"
                " up to rounding."
            )
        return min(wanted, there)


def _in_order(
    chunks: Sequence[ChunkPlan], *, shuffled: bool
) -> Iterator[tuple[int, list[ChunkPlan]]]:
    """The chunks group by group.

    Processes that work side by side should not make the same chunk at the same time: whoever
    finds a manifest goes about it in an order of its own.
    """
    groups = [(index, list(some)) for index, some in groupby(chunks, lambda chunk: chunk.group)]
    if shuffled:
        own = random.Random()
        own.shuffle(groups)
        for _, some in groups:
            own.shuffle(some)
    yield from groups
