"""A finished chunk with its names: dimensions, units and descriptions are decided here."""

from typing import Any

import numpy as np

from bayesfilt import provenance
from bayesfilt.records import Group, Record, Variable, variable
from bayesfilt.simulate.sweep_chunk import ChunkOutcome
from bayesfilt.simulate.sweep_plan import NUMBER_AXES, SweepPlan

RUNS = "runs"  # the group that holds one row a run

# Units and description of what has a known name; a task may evaluate other things too.
_KNOWN = {
    "loss": ("nats", "mean loss of the minibatch, before the step"),
    "test_loss": ("nats", "loss on the held-out examples"),
    "test_accuracy": ("1", "fraction of the held-out examples classified right"),
    "training_loss": ("nats", "loss on all training examples"),
    "weight_rms": ("weight", "root mean square of all weights"),
    "update_rms": ("weight", "root mean square of the step's update, decay included"),
}
_UNITS_OF_NUMBERS = {"weight_decay": "1 (convention lr_scaled)"}
# What the bits of a result depend on, beside the sweep and the width.
LIBRARIES = ("bayesfilt", "jax", "jaxlib", "optax")


def chunk_record(plan: SweepPlan, outcome: ChunkOutcome) -> Record:
    """What a chunk's file holds: one row a run, and how the chunk was executed."""
    chunk = outcome.chunk
    group = plan.groups[chunk.group]
    versions = provenance.versions()
    return Record(
        groups={RUNS: {**_identity(outcome), **_ends(outcome), **_course(plan, outcome)}},
        attributes={
            "sweep_hash": plan.hash,
            "group": chunk.group,
            "chunk": chunk.index,
            "configuration": group.configuration,
            "width": chunk.width,
            "executed_width": outcome.executed_width,
            "halved": outcome.executed_width < chunk.width,
            "num_devices": outcome.num_devices,
            "dtype": group.dtype,
            "versions": {name: versions[name] for name in LIBRARIES},
            "wall_time_seconds": outcome.seconds,
        },
    )


def _identity(outcome: ChunkOutcome) -> Group:
    """Which runs they are."""
    runs = outcome.chunk.runs
    identity = {
        "hash": variable(
            "run", [run.hash for run in runs], description="sha256 of the run's configuration"
        ),
        "seed": variable("run", np.array([run.seed for run in runs], np.int64)),
    }
    for name in NUMBER_AXES:
        values = np.array([getattr(run.numbers, name) for run in runs], np.float64)
        identity[name] = variable("run", values, units=_UNITS_OF_NUMBERS.get(name, "1"))
    return identity


def _ends(outcome: ChunkOutcome) -> Group:
    """How each run ended."""
    summary = outcome.summary
    ends = {
        "diverged_at": variable(
            "run", summary.diverged_at, units="steps",
            description="first step with a number that is not finite; -1: none",
        ),
        "last_finite_loss": variable(
            "run", summary.last_finite_loss, units="nats",
            description="mean loss of the last minibatch for which it was finite",
        ),
    }  # fmt: skip
    for name, values in summary.final.items():
        ends[f"final_{name}"] = _described("run", name, values, "after the last step")
    return ends


def _course(plan: SweepPlan, outcome: ChunkOutcome) -> Group:
    """What was recorded on the way: now and then, and if asked for at every step."""
    group = plan.groups[outcome.chunk.group]
    course = {"step": variable("record", group.record_steps, units="steps")}
    for name, values in outcome.records.items():
        course[name] = _described(("run", "record"), name, values, "at the recorded steps")
    for name, values in outcome.trace.items():
        course[f"trace_{name}"] = _described(("run", "trace_step"), name, values, "at every step")
    return course


def _described(dims: str | tuple[str, ...], name: str, values: Any, when: str) -> Variable:
    units, what = _KNOWN.get(name, ("", f"{name}, as the task evaluates it"))
    return variable(dims, values, units=units, description=f"{what}; {when}")
