"""What the experiments on single weights share: their worlds, and statistics over weights and seeds.

Numbers of weights stand in arrays with the seeds last, (..., weights, seeds), so that bootstraps
resample whole runs: the weights of one run are no independent witnesses.
"""

from collections.abc import Callable

import jax
import numpy as np

from bayesfilt.compare import ChosenWeights, Interval, bootstrap, chosen_weights
from bayesfilt.tasks import Task, make_task
from experiments.contract import check_key
from experiments.grids import Problem

EARLY, MIDDLE, LATE = MOMENTS = ("early", "middle", "late")

_RESAMPLES = 300
_WEIGHTS_SEED = 0  # the same weights in every world


def world_name(problem: Problem) -> str:
    """A problem as groups of a record and claims call it; wrong labels make another world."""
    return f"{problem.name}-noisy" if problem.label_noise else problem.name


def task_of(problem: Problem) -> Task:
    """What is trained, in float32."""
    return make_task(
        problem.task,
        batch_size=problem.batch_size,
        dtype="float32",
        subset=problem.subset,
        label_noise=problem.label_noise,
    )


def choice_of(task: Task, per_matrix: int) -> ChosenWeights:
    """So many weights of every matrix; biases are few, and more leaves to compile for."""
    params = jax.eval_shape(task.init_params, jax.random.key(0))
    shapes = jax.tree.leaves(params)
    ends = np.cumsum([leaf.size for leaf in shapes])
    keys = jax.random.split(jax.random.key(_WEIGHTS_SEED), len(shapes))
    index = [
        end - leaf.size + np.asarray(jax.random.permutation(key, leaf.size))[:per_matrix]
        for key, end, leaf in zip(keys, ends, shapes, strict=True)
        if leaf.ndim > 1
    ]
    return chosen_weights(params, np.concatenate(index))


def layers_of_choice(chosen: ChosenWeights) -> list[str]:
    """The layer of every chosen weight, in words."""
    return [chosen.layer_names[layer] for layer in chosen.layer]


def middle_of(values: np.ndarray) -> float:
    """Median of what is not NaN; infinite numbers count; NaN of nothing."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan")
    # Not np.median: halfway from a number to infinity it warns.
    return float(np.quantile(known, 0.5, method="inverted_cdf"))


def interval_over_seeds(statistic: Callable[[np.ndarray], float], values: np.ndarray) -> Interval:
    """A number made of an array with seeds last, and its 90 % bootstrap interval."""
    return bootstrap(check_key(), statistic, values, num_resamples=_RESAMPLES)


def within(interval: Interval, low: float, high: float) -> bool | None:
    """Whether a number lies in a band: None where its interval crosses an edge, or is unknown."""
    if low <= interval.low and interval.high <= high:
        return True
    outside = interval.high < low or interval.low > high
    return False if outside else None
