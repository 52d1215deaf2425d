"""Sweeps for tests: small ones, and chunks whose numbers cost no training."""

from pathlib import Path

import numpy as np

from bayesfilt.records import Record
from bayesfilt.simulate.chunk_record import chunk_record
from bayesfilt.simulate.store import Store, key_of, open_store, write_chunk
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import ChunkOutcome, Summary
from bayesfilt.simulate.sweep_plan import ChunkPlan, Execution, PlannedRun, SweepPlan

WIDTH = 8

# Two optimizers, three rates of which one is impossible for the second, two lengths, five seeds.
GRID = Sweep(
    optimizers=("adamw", "adabayes"),
    tasks=("bowl",),
    batch_sizes=(4,),
    num_steps=(12, 20),
    learning_rate="1e-2,1e-1,1e3",
    seeds=5,
    record_points=4,
    skip_invalid=True,
)


def execution(width: int = WIDTH, num_devices: int = 1) -> Execution:
    return Execution(
        width=width, num_devices=num_devices, steps_per_second=1e3, bytes_per_run=1_000
    )


def executions(plan: SweepPlan, width: int = WIDTH) -> list[Execution]:
    return [execution(width) for _ in plan.groups]


def numbers_of(run: PlannedRun, count: int) -> np.ndarray:
    """Made-up results that only this run has."""
    stream = np.random.RandomState(int(run.hash[:8], 16))
    return stream.standard_normal(count).astype(np.float32)


def made_up(plan: SweepPlan, chunk: ChunkPlan, *, seconds: float = 1.0) -> Record:
    """The record of a chunk that nobody has trained."""
    records = len(plan.groups[chunk.group].record_steps)
    found = np.stack([numbers_of(run, 2 + records) for run in chunk.runs])
    outcome = ChunkOutcome(
        chunk=chunk,
        num_devices=1,
        executed_width=chunk.width,
        summary=Summary(
            diverged_at=np.array([run.seed - 1 for run in chunk.runs], np.int32),
            last_finite_loss=found[:, 0],
            final={"test_loss": found[:, 1]},
        ),
        records={"loss": found[:, 2:]},
        trace={},
        seconds=seconds,
    )
    return chunk_record(plan, outcome)


def filled_store(
    folder: Path, plan: SweepPlan, *, part: slice = slice(None), seconds: float = 1.0
) -> Store:
    """A folder with some of its chunks finished."""
    store = open_store(folder, plan, lambda: executions(plan))
    for chunk in store.chunks[part]:
        write_chunk(store, key_of(chunk), made_up(plan, chunk, seconds=seconds))
    return store
