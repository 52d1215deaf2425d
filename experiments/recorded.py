"""Recorded training as streams: AdamW over learning rates, decays and seeds, some weights watched.

Every run goes through the same windows of steps, whatever its decay. A window that grew with the
memory 1/(lr wd) would make whatever ails a short window look like a law of the decay.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Float, Int

from bayesfilt.compare import (
    ChosenWeights,
    chosen_weight,
    chosen_weights,
    coordinate_optimum,
    summed_gradient,
    whole_data,
)
from bayesfilt.custom_types import Params
from bayesfilt.infer import Streams
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.simulate import StepView
from bayesfilt.simulate.program import NEVER, Carry, blank_if, start
from bayesfilt.simulate.trajectory import training, training_step
from bayesfilt.tasks import Task, make_task
from experiments.grids import Problem

# A stream is used if it is valid at so large a part of its steps: an optimum that is not found
# is far away, and leaving those out would make the others' shrink too large.
LEAST_VALID = 0.9
# Of the search for an optimum, times its trust region of 2: optima vary by a hundred times more.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Window:
    """Records of a run: so many, so many steps apart, from a step on."""

    begin: int
    spacing: int
    count: int

    @property
    def end(self) -> int:
        """The first step that is not in it."""
        return self.begin + self.spacing * self.count


class Recorded(NamedTuple):
    """What was recorded in one window: (rates, decays, seeds, layers, weights, records)."""

    optimum: Float[np.ndarray, "..."]  # NaN where it was not found
    gradient: Float[np.ndarray, "..."]  # of the summed loss of the step's minibatch
    curvature: Float[np.ndarray, "..."]  # of such a loss, averaged over all examples
    weight: Float[np.ndarray, "..."]


def record_runs(
    problem: Problem,
    rates: Sequence[float],
    decays: Sequence[float],
    seeds: Sequence[int],
    windows: Mapping[str, Window],
    per_layer: int,
) -> tuple[tuple[str, ...], dict[str, Recorded]]:
    """Train AdamW at every learning rate and decay from every seed; names of layers, records.

    The same weights are watched in every run. A run that diverges is NaN from there on.

    Args:
        problem: what is trained, in float32; its number of steps is not asked for.
        rates: learning rates, constant.
        decays: in the "lr_scaled" convention.
        seeds: of the runs.
        windows: one after the other, by name.
        per_layer: weights of every layer.
    """
    world = _world(problem.task, problem.batch_size, problem.subset, problem.label_noise, per_layer)
    cells = np.array([(rate, decay, seed) for rate in rates for decay in decays for seed in seeds])
    found = _in_parallel(world, steps_between(windows), cells)
    shape = (len(rates), len(decays), len(seeds))
    ends = np.cumsum([window.count for window in windows.values()])

    def of_window(values: np.ndarray, end: int, count: int) -> np.ndarray:
        """(runs, records, weights) of one window, the weights layer by layer and records last."""
        records = values[:, end - count : end]
        split = records.reshape(*shape, count, -1, per_layer)
        return np.moveaxis(split, 3, -1).astype(np.float64)

    return world.chosen.layer_names, {
        name: Recorded(*(of_window(each, int(end), window.count) for each in found))
        for (name, window), end in zip(windows.items(), ends, strict=True)
    }


def streams_of(recorded: Recorded, kind: str) -> Streams:
    """Streams of one kind, every layer of every run side by side on a leading axis; float64."""
    flat = [np.reshape(each, (-1, *each.shape[-2:])) for each in recorded]
    optimum, gradient, curvature, weight = flat
    if kind == "optimum":
        valid = np.isfinite(optimum)
        observed, precision, taken_at = optimum, np.ones_like(optimum), np.zeros_like(optimum)
    else:
        valid = np.isfinite(gradient) & np.isfinite(curvature) & (curvature > 0)
        observed, precision, taken_at = gradient, curvature, weight
    valid &= valid.mean(axis=-1, keepdims=True) >= LEAST_VALID
    return Streams(
        **{
            name: jnp.asarray(np.where(valid, values, 0), jnp.float64)
            for name, values in (
                ("observed", observed), ("precision", precision), ("taken_at", taken_at)
            )
        },
        valid=jnp.asarray(valid),
        layer=jnp.zeros(observed.shape[:2], int),
        kind=kind,
        layer_names=("layer",),
    )  # fmt: skip


class _World(NamedTuple):
    """What all runs share."""

    task: Task
    chosen: ChosenWeights
    num_devices: int
    program: Wrapped  # (rates, decays, seeds), gaps, task -> Recorded


# Experiments that watch the same weights of the same task share the compiled program.
@functools.lru_cache(maxsize=4)
def _world(
    name: str, batch_size: int, subset: int | None, label_noise: float, per_layer: int
) -> _World:
    task = make_task(
        name, batch_size=batch_size, subset=subset, label_noise=label_noise, dtype="float32"
    )
    chosen = choose_matrices(task.init_params(jax.random.key(0)), per_layer)
    devices = jax.local_devices()
    runs, shared = PartitionSpec("runs"), PartitionSpec()

    def some(cells, gaps, task):
        """Runs of one device, one after the other: side by side they leave the cache."""
        return jax.lax.map(lambda cell: _run(chosen, gaps, task, *cell), cells)

    program = jax.shard_map(
        some,
        mesh=Mesh(np.asarray(devices), ("runs",)),
        in_specs=(runs, shared, shared),
        out_specs=runs,
        check_vma=False,
    )
    return _World(task=task, chosen=chosen, num_devices=len(devices), program=jax.jit(program))


def _in_parallel(world: _World, gaps: np.ndarray, cells: np.ndarray) -> Recorded:
    """All runs, dealt out to the devices; some twice where they do not come out even."""
    count, devices = len(cells), world.num_devices
    dealt = cells[np.arange(-(-count // devices) * devices) % count]
    rate, decay, seed = dealt.T
    arguments = jnp.float32(rate), jnp.float32(decay), jnp.uint32(seed)
    found = world.program(arguments, jnp.asarray(gaps), world.task)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], found)


def _run(chosen: ChosenWeights, gaps: Int[Array, " records"], task: Task, rate, decay, seed):
    """One run: the numbers of `Recorded`, (records, weights); `gaps` steps before each record."""
    setting = Setting(
        learning_rate=rate, weight_decay=decay, batch_size=task.batch_size, num_steps=1
    )
    optimizer = optax.with_extra_args_support(named_optimizer("adamw", setting).optimizer)
    find_optimum = coordinate_optimum(chosen, whole_data, tolerance=_TOLERANCE)
    find_gradient, find_weight = summed_gradient(chosen), chosen_weight(chosen)

    def step(carry: Carry) -> tuple[Carry, StepView]:
        return training_step(optimizer, task, carry)

    def record(carry: Carry, gap: Int[Array, ""]):
        carry = jax.lax.fori_loop(0, gap, lambda _, each: step(each)[0], carry)
        after, view = step(carry)
        found = find_optimum(task, view)
        shown = Recorded(
            optimum=found.optimum,
            gradient=find_gradient(task, view),
            curvature=found.curvature,
            weight=find_weight(task, view),
        )
        return after, blank_if(after.diverged_at != NEVER, shown)

    begun = start(training(optimizer, {}), jax.random.key(seed), task, None)
    return jax.lax.scan(record, begun, gaps)[1]


def steps_between(windows: Mapping[str, Window]) -> np.ndarray:
    """Steps that are taken unseen before each record."""
    gaps, done = [], 0
    for window in windows.values():
        first = [window.begin - done]
        gaps += first + [window.spacing - 1] * (window.count - 1)
        done = window.end - window.spacing + 1
    return np.array(gaps, np.int32)


def choose_matrices(params: Params, per_layer: int) -> ChosenWeights:
    """So many weights of every matrix: biases are few, and a leaf of their own to compile."""
    starts = np.cumsum([0, *(leaf.size for leaf in jax.tree.leaves(params))])
    keys = jax.random.split(jax.random.key(0), len(starts))
    index = [
        begin + np.asarray(jax.random.permutation(key, leaf.size))[:per_layer]
        for key, begin, leaf in zip(keys, starts, jax.tree.leaves(params), strict=False)
        if leaf.ndim > 1
    ]
    return chosen_weights(params, np.concatenate(index))
