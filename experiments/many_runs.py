"""Many runs of any optimizer at once: every setting from every seed, as one compiled program.

For what `experiments.grids` cannot say: optimizers made on the spot, tasks that change, and
probes of weights, variances and steps. Numbers of a setting are traced, data are arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, PRNGKeyArray

from bayesfilt.simulate import Probe, simulate
from bayesfilt.tasks import Task

# Runs that one device vectorises over; wider is no faster on a CPU.
_WIDTH = 16
_WORLD = 0x776F  # folded into a seed's key for what the run's own world draws

type Numbers = Mapping[str, Array]
"""A setting: its numbers by name, each a scalar."""


class ManyRuns(NamedTuple):
    """What was seen of runs; floats are in float64, and NaN where a run has diverged."""

    step: Int[np.ndarray, " records"]
    records: dict[str, Any]  # by probe: arrays (settings, seeds, records, ...)
    final: dict[str, np.ndarray]  # numbers of the last weights: (settings, seeds)
    diverged: np.ndarray  # (settings, seeds)


def train_many(
    task: Task,
    optimizer_of: Callable[[Numbers], optax.GradientTransformation],
    settings: Mapping[str, Sequence[float] | np.ndarray],
    seeds: Sequence[int],
    num_steps: int,
    *,
    probes: Mapping[str, Probe] | None = None,
    record_every: int = 1,
    final: Callable[[Task, Any], dict[str, Array]] | None = None,
    world_of: Callable[[Task, Numbers, PRNGKeyArray], Task] | None = None,
) -> ManyRuns:
    """Train `task` with every setting from every seed; seeds are the same for all settings.

    Args:
        task: what is trained, by all runs.
        optimizer_of: numbers of one setting, traced -> its optimizer.
        settings: name -> numbers, one a setting; all of one length.
        seeds: of first weights and minibatches.
        num_steps: of each run.
        probes: as in `simulate`, recorded every `record_every` steps; none by default.
        record_every: steps between two records.
        final: (task, last weights) -> numbers; by default what the task evaluates, and the
            loss on all training examples where it has one.
        world_of: (task, numbers of the setting, the seed's key) -> the task that this run
            trains; by default all train the same.
    """
    count = {len(values) for values in settings.values()}
    if len(count) != 1:
        raise ValueError(f"train_many needs settings of one length, got lengths {sorted(count)}.")
    shape = (count.pop(), len(seeds))
    measure = final or _evaluated

    def one(task: Task, run: tuple[Numbers, Array]) -> Any:
        numbers, seed = run
        key = jax.random.key(seed)
        if world_of is not None:  # the world's draws are not those of weights and minibatches
            task = world_of(task, numbers, jax.random.fold_in(key, _WORLD))
        trajectory = simulate(
            key,
            task,
            optimizer_of(numbers),
            num_steps,
            probes=probes or {},
            record_every=record_every,
        )
        failed = trajectory.diverged_at >= 0
        last = measure(task, trajectory.params)
        last = {name: jnp.where(failed, jnp.nan, value) for name, value in last.items()}
        return trajectory.records, last, failed

    weights = jax.tree.leaves(jax.eval_shape(task.init_params, jax.random.key(0)))
    # A number wider than the weights would widen the moments in the middle of a run.
    numbers = {
        name: np.repeat(_as_wide_as(weights[0].dtype, values), shape[1])
        for name, values in settings.items()
    }
    records, last, failed = _on_all_devices(
        one, task, (numbers, np.tile(np.asarray(seeds, np.uint32), shape[0])), shape[0] * shape[1]
    )
    by_setting = jax.tree.map(lambda leaf: _wide(leaf).reshape(*shape, *leaf.shape[1:]), records)
    return ManyRuns(
        step=np.arange(0, num_steps, record_every),
        records=by_setting,
        final={name: _wide(leaf).reshape(shape) for name, leaf in last.items()},
        diverged=np.asarray(failed).reshape(shape),
    )


def _on_all_devices(one: Callable[[Any, Any], Any], shared: Any, runs: Any, count: int) -> Any:
    """`one(shared, run)` of all runs, which are dealt out to the devices; leading axis `count`."""
    devices = jax.local_devices()
    each = -(-count // len(devices))
    dealt = np.arange(each * len(devices)) % count

    def some(shared: Any, runs: Any) -> Any:
        return jax.lax.map(lambda run: one(shared, run), runs, batch_size=min(_WIDTH, each))

    program = jax.jit(
        jax.shard_map(
            some,
            mesh=Mesh(np.asarray(devices), ("runs",)),
            in_specs=(PartitionSpec(), PartitionSpec("runs")),
            out_specs=PartitionSpec("runs"),
            check_vma=False,
        )
    )
    found = program(shared, jax.tree.map(lambda leaf: jnp.asarray(leaf)[dealt], runs))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], found)


def _as_wide_as(dtype: np.dtype, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Fractions in the dtype of the weights; whole numbers and truths as they are."""
    found = np.asarray(values)
    return found.astype(dtype) if found.dtype.kind == "f" else found


def _evaluated(task: Task, params: Any) -> dict[str, Array]:
    found = dict(task.evaluate(params))
    loss = getattr(task, "training_loss", None)
    return found | ({"training_loss": loss(params)} if loss else {})


def _wide(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.float64) if values.dtype.kind == "f" else values
