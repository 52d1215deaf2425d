"""Runs with some of their weights watched, at a few steps far apart or in windows of many.

Instruments cost far more than a step does, so between two looks a run goes on unseen. Runs are
dealt out to the devices and made one after the other on each: a Newton search that is
vectorised over runs takes as long as its slowest.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Int

from bayesfilt.simulate import Probe, StepView
from bayesfilt.simulate.program import NEVER, Carry, blank_if, start
from bayesfilt.simulate.trajectory import training, training_step
from bayesfilt.tasks import Task

# What is read off the optimizer's state as it was before the step.
Held = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Window:
    """Looks at a run: so many, so many steps apart, from a step on."""

    begin: int
    spacing: int
    count: int


def gaps_of(windows: Sequence[Window]) -> Int[np.ndarray, " looks"]:
    """Steps that are taken unseen before each look; windows in order, one after the other.

    Raises:
        ValueError: a window begins before the last one has ended.
    """
    looks = [
        window.begin + window.spacing * index for window in windows for index in range(window.count)
    ]
    gaps = np.diff([-1, *looks]) - 1
    if (gaps < 0).any():
        raise ValueError(f"gaps_of needs windows one after the other, got {list(windows)}.")
    return gaps.astype(np.int32)


def watcher(
    optimizer_of: Callable[[Any], optax.GradientTransformation],
    probes: Mapping[str, Probe],
    held: Mapping[str, Held] | None = None,
) -> Wrapped:
    """A compiled program for `watch`: make it once for all tasks of one shape.

    Args:
        optimizer_of: number of a run (such as its learning rate) -> its optimizer.
        probes: of the steps that are looked at, by name.
        held: likewise, of the state that the optimizer came to that step with.
    """

    def one(run: tuple[Task, Any, Int[Array, ""]], gaps: Int[Array, " looks"]) -> Any:
        task, number, seed = run
        optimizer = optax.with_extra_args_support(optimizer_of(number))

        def step(carry: Carry) -> tuple[Carry, StepView]:
            return training_step(optimizer, task, carry)

        def look(carry: Carry, gap: Int[Array, ""]) -> tuple[Carry, Any]:
            carry = jax.lax.fori_loop(0, gap, lambda _, each: step(each)[0], carry)
            before = {name: read(carry.opt_state) for name, read in (held or {}).items()}
            carry, view = step(carry)
            seen = {name: probe(task, view) for name, probe in probes.items()} | before
            return carry, blank_if(carry.diverged_at != NEVER, seen)

        begun = start(training(optimizer, {}), jax.random.key(seed), task, None)
        return jax.lax.scan(look, begun, gaps)[1]

    def some(runs: Any, gaps: Int[Array, " looks"]) -> Any:
        return jax.lax.map(lambda run: one(run, gaps), runs)

    devices = jax.local_devices()
    each, shared = PartitionSpec("runs"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            some,
            mesh=Mesh(np.asarray(devices), ("runs",)),
            in_specs=(each, shared),
            out_specs=each,
            check_vma=False,
        )
    )


def watch(
    program: Wrapped,
    tasks: Sequence[Task],
    numbers: Sequence[float] | np.ndarray,
    seeds: Sequence[int],
    windows: Sequence[Window],
) -> Any:
    """Train one run a task, number (or row of them) and seed; (runs, looks, ...), in float64.

    A run that diverges is NaN from there on.
    """
    count = len(seeds)
    devices = jax.local_device_count()
    dealt = np.arange(-(-count // devices) * devices) % count
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(tasks[run] for run in dealt.tolist())
    )
    runs = (
        stacked,
        jnp.asarray(np.asarray(numbers, np.float32)[dealt]),
        jnp.asarray(np.asarray(seeds, np.uint32)[dealt]),
    )
    seen = program(runs, jnp.asarray(gaps_of(windows)))
    return jax.tree.map(lambda leaf: _wide(np.asarray(leaf)[:count]), seen)


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype.kind == "f" else values
