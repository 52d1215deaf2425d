"""Recorded training as streams: AdamW over learning rates, decays and seeds, some weights watched.

Every run goes through the same windows of steps, whatever its decay. A window that grew with the
memory 1/(lr wd) would make whatever ails a short window look like a law of the decay.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from bayesfilt.compare import (
    ChosenWeights,
    choose_weights,
    chosen_weight,
    coordinate_optimum,
    summed_gradient,
    whole_data,
)
from bayesfilt.infer import Streams
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.simulate.program import advance, start
from bayesfilt.simulate.trajectory import training
from bayesfilt.tasks import Task, make_task
from experiments.grids import Problem

# A stream is used if it is valid at so large a part of its steps: an optimum that is not found
# is far away, and leaving those out would make the others' shrink too large.
LEAST_VALID = 0.9


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
        problem: what is trained; its number of steps is not asked for.
        rates: learning rates, constant.
        decays: in the "lr_scaled" convention.
        seeds: of the runs.
        windows: one after the other, by name.
        per_layer: weights of every layer.
    """
    task = make_task(
        problem.task,
        batch_size=problem.batch_size,
        subset=problem.subset,
        label_noise=problem.label_noise,
        dtype="float32",
    )
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    chosen = choose_weights(jax.random.key(0), shapes, per_layer=per_layer)
    cells = np.array([(r, d, s) for r in rates for d in decays for s in seeds])
    found = _in_parallel(chosen, dict(windows), task, cells)
    layers = len(chosen.layer_names)
    shape = (len(rates), len(decays), len(seeds))

    def by_layer(values: np.ndarray) -> np.ndarray:
        """(runs, records, weights), the weights layer by layer."""
        split = values.reshape(*shape, values.shape[1], layers, per_layer)
        return np.moveaxis(split, 3, -1).astype(np.float64)

    return chosen.layer_names, {
        name: Recorded(*(by_layer(each) for each in found[name])) for name in windows
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


def _in_parallel(
    chosen: ChosenWeights, windows: dict[str, Window], task: Task, cells: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """All runs, dealt out to the devices; on each one after the other, as the cache likes it."""
    count = len(cells)
    devices = min(jax.local_device_count(), count)
    padded = np.concatenate([cells, cells[: -count % devices]])
    mesh = Mesh(np.asarray(jax.local_devices()[:devices]), ("runs",))
    runs, shared = PartitionSpec("runs"), PartitionSpec()

    def some(rates, decays, seeds, task):
        return jax.lax.map(
            lambda cell: _run(chosen, windows, task, *cell), (rates, decays, seeds)
        )

    program = jax.jit(
        jax.shard_map(
            some, mesh=mesh, in_specs=(runs, runs, runs, shared), out_specs=runs, check_vma=False
        )
    )
    rates, decays = (jnp.asarray(padded[:, column], jnp.float32) for column in (0, 1))
    found = program(rates, decays, jnp.asarray(padded[:, 2], jnp.uint32), task)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], found)


def _run(chosen: ChosenWeights, windows: dict[str, Window], task: Task, rate, decay, seed):
    """One run through all windows: per window the four numbers of `Recorded`, (records, weights)."""
    setting = Setting(
        learning_rate=rate, weight_decay=decay, batch_size=task.batch_size, num_steps=1
    )
    optimizer = named_optimizer("adamw", setting).optimizer
    probes = {
        "optimum": coordinate_optimum(chosen, whole_data),
        "gradient": summed_gradient(chosen),
        "weight": chosen_weight(chosen),
    }
    carry = start(training(optimizer, {}), jax.random.key(seed), task, None)
    found, done = {}, 0
    for name, window in windows.items():
        wait = window.begin - done
        if wait:
            carry, _ = advance(training(optimizer, {}, wait), task, carry, wait)
        watched = training(optimizer, probes, window.spacing)
        carry, (_, records) = advance(watched, task, carry, window.end - window.begin)
        optimum = records["optimum"]
        found[name] = (optimum.optimum, records["gradient"], optimum.curvature, records["weight"])
        done = window.end
    return found
