"""What the experiments on single weights share: worlds, and statistics over weights and seeds.

Numbers of weights stand in arrays with the seeds last, (..., weights, seeds), so that bootstraps
resample whole runs: the weights of one run are no independent witnesses.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import ChosenWeights, Interval, bootstrap, chosen_weights, whole_data
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.tasks import Task, Tracking, make_task, tracking_task
from bayesfilt.theory import transition_from_adamw
from experiments.contract import check_key
from experiments.grids import Problem

MOMENTS = ("early", "middle", "late")

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


def choice_of(task: Task, per_matrix: int, *, touched: bool = False) -> ChosenWeights:
    """So many weights of every matrix; biases are few, and more leaves to compile for.

    Args:
        task: of the weights.
        per_matrix: how many.
        touched: only such as have a gradient at the start: a pixel that is always dark gives none.
    """
    params = task.init_params(jax.random.key(0))
    shapes = jax.tree.leaves(params)
    slopes = jax.jit(jax.grad(task.loss))(params, whole_data(task, 0)) if touched else params
    places = [
        np.flatnonzero(slope) if touched else np.arange(slope.size)
        for slope in jax.tree.leaves(slopes)
    ]
    ends = np.cumsum([leaf.size for leaf in shapes])
    keys = jax.random.split(jax.random.key(_WEIGHTS_SEED), len(shapes))
    index = [
        end - leaf.size + np.asarray(jax.random.permutation(key, some))[:per_matrix]
        for key, end, leaf, some in zip(keys, ends, shapes, places, strict=True)
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


def widened(found: Interval, by: float) -> Interval:
    """An interval with room for what is not meant to the last digit."""
    return Interval(estimate=found.estimate, low=found.low - by, high=found.high + by)


@dataclasses.dataclass(frozen=True)
class Matched:
    """The world that is the filter's own: its optima drift as AdamW's dictionary says."""

    drift_scale: float = 0.01  # eta, and the learning rate that is right
    weight_decay: float = 0.1  # "lr_scaled": sigma^2 = drift_scale/(2 weight_decay)
    weights: int = 48
    precisions: tuple[float, float] = (1.0, 100.0)  # of the first weight and the last


def matched_task(matched: Matched, key: PRNGKeyArray, num_steps: int) -> Tracking:
    """One such world of so many steps; R = H by construction, and the same drift for all."""
    return tracking_task(
        key,
        transition_from_adamw(matched.drift_scale, matched.weight_decay),
        np.geomspace(*matched.precisions, matched.weights),
        num_steps + 1,
        batch_size=32,
        dtype="float32",
    )


class AdamW(NamedTuple):
    """AdamW's numbers beside its learning rate, constant in time; others of the zoo follow them."""

    weight_decay: float
    batch_size: int
    b1: float = 0.9

    def setting(self, learning_rate: Any) -> Setting:
        """With this learning rate."""
        return Setting(
            learning_rate=learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            num_steps=1,  # a constant schedule has no length
            b1=self.b1,
        )

    def builder(self, name: str = "adamw") -> Callable[[Any], optax.GradientTransformation]:
        """Learning rate -> the optimizer of this name."""
        return lambda rate: named_optimizer(name, self.setting(rate)).optimizer
