"""Execution of one chunk of a sweep: many runs as one compiled, sharded program.

Numbers and seeds are arguments of the program and the data set is one that all runs share, so
every chunk of a group is executed by the same compiled code. Each local device takes an equal
share of the runs and never talks to another; a host loop over pieces of at most a thousand
steps is what Ctrl-C and progress need.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Float, Int

from bayesfilt.simulate import probes
from bayesfilt.simulate.chunks import MOST_STEPS
from bayesfilt.simulate.program import NEVER, Carry, Program, advance, blank_if, start
from bayesfilt.simulate.sweep_plan import (
    ChunkPlan,
    Numbers,
    PlannedRun,
    SweepGroup,
    optimizer_of,
    task_of,
)
from bayesfilt.simulate.trajectory import training
from bayesfilt.tasks import Supervised, Task

# What a record holds ("evaluation" stands for the task's own names), and what a full trace does.
RECORDED = {
    "loss": probes.minibatch_loss,
    "weight_rms": probes.weight_rms,
    "evaluation": probes.evaluation,
}
TRACED = {
    "loss": probes.minibatch_loss,
    "weight_rms": probes.weight_rms,
    "update_rms": probes.update_rms,
}

_RUNS, _SHARED = PartitionSpec("runs"), PartitionSpec()


class Summary(NamedTuple):
    """How a run ended."""

    diverged_at: Int[Array, ""]  # the step; -1: never
    last_finite_loss: Float[Array, ""]  # of the minibatches
    final: dict[str, Float[Array, ""]]  # at the last weights; NaN for a run that diverged


class ChunkProgram(NamedTuple):
    """The compiled code of a group, for any number of runs that its devices can share."""

    group: SweepGroup
    num_devices: int
    task: Task  # with its data on every device
    begin: Wrapped  # (seeds, numbers, task) -> carries
    # (numbers, task, carries, num_steps=) -> carries, (steps, records); the carries are donated
    go_on: Wrapped
    finish: Wrapped  # (task, carries) -> Summary


class ChunkOutcome(NamedTuple):
    """What the runs of a chunk left; arrays have a leading axis of runs, without padding."""

    chunk: ChunkPlan
    num_devices: int
    executed_width: int  # the chunk's, or what memory allowed: a power of two below it
    summary: Summary
    records: dict[str, np.ndarray]  # (runs, records)
    trace: dict[str, np.ndarray]  # (runs, steps); empty unless asked for
    seconds: float


def build_program(group: SweepGroup, num_devices: int = 1) -> ChunkProgram:
    """Build the task, put it on the devices, and wrap the code of one run for many.

    Args:
        group: what the runs have in common.
        num_devices: local devices that share the runs equally.
    """
    mesh = Mesh(np.asarray(jax.local_devices()[:num_devices]), ("runs",))
    share = partial(jax.shard_map, mesh=mesh, out_specs=_RUNS, check_vma=False)

    def begin(seed, numbers: Numbers, task: Task) -> Carry:
        program = training(optimizer_of(group, numbers))
        return start(program, jax.random.key(seed), task, None)

    def go_on(numbers: Numbers, task: Task, carry: Carry, num_steps: int):
        return _advance(group, optimizer_of(group, numbers), task, carry, num_steps)

    def all_go_on(numbers, task, carries, num_steps: int):
        each = jax.vmap(partial(go_on, num_steps=num_steps), in_axes=(0, None, 0))
        return share(each, in_specs=(_RUNS, _SHARED, _RUNS))(numbers, task, carries)

    each_begins = jax.vmap(begin, in_axes=(0, 0, None))
    each_ends = jax.vmap(_summary, in_axes=(None, 0))
    return ChunkProgram(
        group=group,
        num_devices=num_devices,
        task=jax.device_put(task_of(group), NamedSharding(mesh, _SHARED)),
        begin=jax.jit(share(each_begins, in_specs=(_RUNS, _RUNS, _SHARED))),
        go_on=jax.jit(all_go_on, static_argnames="num_steps", donate_argnames="carries"),
        finish=jax.jit(share(each_ends, in_specs=(_SHARED, _RUNS))),
    )


def execute_chunk(
    program: ChunkProgram,
    chunk: ChunkPlan,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ChunkOutcome:
    """Train the runs of a chunk, from their first step to their last.

    Where memory does not suffice the width is halved, again and again if need be, and the runs
    are made in several passes; they are then equal to rounding, not to the last bit.

    Args:
        program: of the chunk's group; a program can execute any number of chunks.
        chunk: runs of that group.
        on_progress: called after each piece with (completed, all) steps of all runs together.

    Raises:
        jax.errors.JaxRuntimeError: not even one run fits into memory, or the device failed.
    """
    begun = time.perf_counter()
    total = len(chunk.runs) * program.group.num_steps

    def tell(steps: int) -> None:
        if on_progress is not None:
            on_progress(steps, total)

    width, parts = _in_passes(program, chunk.runs, chunk.width, tell)
    summary, records, trace = jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)
    return ChunkOutcome(
        chunk=chunk,
        num_devices=program.num_devices,
        executed_width=width,
        summary=summary,
        records=records,
        trace=trace,
        seconds=time.perf_counter() - begun,
    )


def arguments(
    group: SweepGroup, runs: Sequence[PlannedRun], width: int
) -> tuple[np.ndarray, Numbers]:
    """Seeds and numbers as the compiled program takes them, padded with copies of the last run."""
    padded = [*runs, *[runs[-1]] * (width - len(runs))]
    columns = zip(*(run.numbers for run in padded), strict=True)
    numbers = Numbers(*(np.asarray(column, group.dtype) for column in columns))
    return np.asarray([run.seed for run in padded], np.uint32), numbers


def pieces_of(group: SweepGroup) -> list[int]:
    """Steps between two looks of the host: few lengths, because each is compiled once.

    Whole recording blocks, at most a thousand steps, of one length where that is not much
    shorter; what is left of the last block comes by itself.
    """
    blocks, rest = divmod(group.num_steps, group.record_every)
    most = max(1, MOST_STEPS // group.record_every)
    even = max(count for count in range(1, most + 1) if blocks % count == 0)
    count = even if 2 * even >= most else most
    lengths = [min(count, blocks - first) for first in range(0, blocks, count)]
    return [length * group.record_every for length in lengths] + ([rest] if rest else [])


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device says that it has no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _advance(
    group: SweepGroup,
    optimizer: optax.GradientTransformation,
    task: Task,
    carry: Carry,
    num_steps: int,
) -> tuple[Carry, tuple[Any, dict[str, Any]]]:
    """Go on with one run, by whole recording blocks or by less than one."""
    spacing = min(group.record_every, num_steps)
    if not group.full_trace:
        return advance(training(optimizer, RECORDED, spacing), task, carry, num_steps)
    return advance(_tracing(optimizer, spacing), task, carry, num_steps // spacing)


def _tracing(optimizer: optax.GradientTransformation, spacing: int) -> Program:
    """A program whose step is a block of training steps, each of which is recorded."""
    every_step = training(optimizer, TRACED, record_every=1)

    def step(task: Task, carry: Carry):
        params = carry.params
        carry, (_, trace) = advance(every_step, task, carry, spacing)
        return carry, (params, trace)

    def record(task: Task, shown):
        params, trace = shown
        first = {name: trace[name][0] for name in RECORDED if name in trace}
        return {**first, "evaluation": dict(task.evaluate(params)), "trace": trace}

    return Program(init_state=optimizer.init, step=step, record=record, record_every=1)


def _summary(task: Task, carry: Carry) -> Summary:
    """How one run ended."""
    final = {**task.evaluate(carry.params), "weight_rms": probes.root_mean_square(carry.params)}
    if isinstance(task, Supervised):
        final["training_loss"] = task.training_loss(carry.params)
    return Summary(
        diverged_at=carry.diverged_at,
        last_finite_loss=carry.last_loss,
        final=blank_if(carry.diverged_at != NEVER, final),
    )


def _in_passes(
    program: ChunkProgram,
    runs: tuple[PlannedRun, ...],
    width: int,
    tell: Callable[[int], None],
) -> tuple[int, list[Any]]:
    """Execute `runs`, `width` at once or as many as memory holds; the last width and the parts."""
    parts: list[Any] = []
    done = 0
    while done < len(runs):
        now = runs[done : done + width]
        before = done * program.group.num_steps
        try:
            part = _in_one_pass(program, now, width, lambda steps, b=before: tell(b + steps))
        except jax.errors.JaxRuntimeError as error:
            if width == 1 or not is_out_of_memory(error):
                raise
            part = None  # what the failed pass held is freed with its exception, here
        if part is not None:
            parts.append(part)
            done += len(now)
            continue
        width //= 2
        if width < program.num_devices:
            program = build_program(program.group, width)
    return width, parts


def _in_one_pass(
    program: ChunkProgram,
    runs: tuple[PlannedRun, ...],
    width: int,
    tell: Callable[[int], None],
) -> tuple[Summary, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Train `runs` together, padded to `width`; the padding is cut off again."""
    seeds, numbers = arguments(program.group, runs, width)
    carries = program.begin(seeds, numbers, program.task)
    kept: list[Any] = []
    completed = 0
    for length in pieces_of(program.group):
        carries, (_, records) = program.go_on(numbers, program.task, carries, num_steps=length)
        kept.append(_by_step(jax.device_get(records)))
        completed += length
        tell(completed * len(runs))
    summary = jax.device_get(program.finish(program.task, carries))
    records, trace = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *kept)
    return jax.tree.map(lambda array: array[: len(runs)], (summary, records, trace))


def _by_step(records: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Flat records, and the trace with its (runs, blocks, steps of a block) as (runs, steps)."""
    evaluation, trace = records.pop("evaluation"), records.pop("trace", {})
    flat = {name: values.reshape(len(values), -1) for name, values in trace.items()}
    return {**records, **evaluation}, flat
