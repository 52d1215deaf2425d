"""A world in which optima stand still and jump once, at different ages, seen by real optimizers.

Every weight has its own optimum and gradients h (w - w*) + sqrt(h) noise. Groups of weights differ
in the step at which their optima jump, and in how far from them they start: near (quiet) or far
(loud early gradients). How long the mean distance takes to fall to 1/e of the jump is its recovery.
The exact filter says how long it must be for a process variance that falls like a power of time.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, variable
from bayesfilt.tasks import Tracking
from bayesfilt.theory import conditioned_variance, predicted_variance
from experiments.many_runs import train_many

STARTS = ("quiet", "loud")
_LEFT = np.exp(-1.0)  # what is left of the jump when a group counts as recovered


@dataclasses.dataclass(frozen=True)
class JumpWorld:
    """Every number of the world, h = 1: lengths are in units of the gradient's noise."""

    ages: tuple[int, ...] = (500, 1_000, 2_000, 4_000)  # steps before the jump
    after: int = 800  # steps after the last jump
    weights: int = 128  # in each group
    jump: float = 1.0
    loud_start: float = 10.0  # distance of the loud groups' first weights
    rate: float = 0.03  # of all but AdaGrad: its gain, as h = 1
    adagrad_rate: float = 1.0  # the gain at step t is this over the root of t
    b2: float = 0.998  # shorter than the ages: Adam can forget its start
    weight_decay: float = 3e-4  # of AdaBayes: a prior deviation of 7, a shrink of 1e-5 a step

    @property
    def num_steps(self) -> int:
        """Until the last group has had time to recover."""
        return max(self.ages) + self.after


def jump_group(
    world: JumpWorld, optimizers: Sequence[str], seeds: Sequence[int], predicted: np.ndarray
) -> Group:
    """Recovery of every optimizer, start and age, beside what the filter says of AdaGrad's."""
    found = np.stack([recoveries(world, name, seeds) for name in optimizers])
    dims = ("optimizer", "start", "age", "seed")
    return {
        "optimizer": variable("optimizer", list(optimizers)),
        "start": variable("start", list(STARTS)),
        "age": variable("age", np.array(world.ages), units="steps"),
        "recovery": variable(dims, found, units="steps"),
        "predicted": variable("age", predicted, units="steps"),
    }


def jumping_task(world: JumpWorld) -> Tracking:
    """Optima of all groups: starts outermost, then ages, then weights."""
    step = np.arange(world.num_steps)[:, None]
    jumps = np.repeat(np.tile(world.ages, len(STARTS)), world.weights)
    first = np.repeat((0.0, world.loud_start), len(world.ages) * world.weights)
    path = first + world.jump * (step >= jumps)
    return Tracking(
        optimum=jnp.asarray(path, jnp.result_type(float)),
        precision=jnp.ones(path.shape[1]),
        batch_size=1,
    )


def recoveries(
    world: JumpWorld, name: str, seeds: Sequence[int]
) -> Float[np.ndarray, "starts ages seeds"]:
    """Steps until 1/e of the jump is left, for one optimizer; NaN where it never is."""
    shape = (len(STARTS), len(world.ages), world.weights)

    def optimizer_of(numbers):
        setting = Setting(
            learning_rate=numbers["rate"],
            weight_decay=world.weight_decay,
            batch_size=1,
            num_steps=world.num_steps,
            b1=0.0,
            b2=world.b2,
        )
        return named_optimizer(name, setting).optimizer

    def distance(task, view):
        away = task.optimum[view.step] - view.params
        return jnp.mean(away.reshape(shape), axis=-1) / world.jump

    rate = world.adagrad_rate if name == "adagrad" else world.rate
    runs = train_many(
        jumping_task(world),
        optimizer_of,
        {"rate": [rate]},
        seeds,
        world.num_steps,
        probes={"distance": distance},
    )
    left = runs.records["distance"][0]  # (seeds, steps, starts, ages)
    found = [
        [[first_below(seed[age:, start, place], _LEFT) for seed in left]
         for place, age in enumerate(world.ages)]
        for start in range(len(STARTS))
    ]  # fmt: skip
    return np.array(found)


def first_below(course: Float[np.ndarray, " steps"], level: float) -> float:
    """Where a course first falls to a level, by a line between records; NaN if it never does."""
    there = np.flatnonzero(course <= level)
    if not there.size:
        return float("nan")
    last = int(there[0])
    if last == 0:
        return 0.0
    before, after = course[last - 1], course[last]
    return float(last - 1 + (before - level) / (before - after))


def predicted_recoveries(
    world: JumpWorld, power: float = 1.0, ages: Sequence[int] | None = None
) -> Float[np.ndarray, " ages"]:
    """Recovery of the exact filter whose process variance is adagrad_rate^2 / step^power, h = 1.

    What is left of a jump is the product of 1 - gain; the gain of the filter, whose precision
    is 1, is the variance after each gradient. It begins at its steady state.
    """
    process = world.adagrad_rate**2 / jnp.arange(1.0, world.num_steps + 1) ** power

    def step(variance, growth):
        variance = conditioned_variance(predicted_variance(variance, 1.0, growth), 1.0)
        return variance, variance

    first = jnp.asarray(world.adagrad_rate, process.dtype)
    kept = 1 - np.asarray(jax.lax.scan(step, first, process)[1], np.float64)
    left = np.cumsum(np.log(kept))
    return np.array(
        [
            first_below(np.exp(np.r_[0.0, left[age:] - left[age - 1]]), _LEFT)
            for age in ages or world.ages
        ]
    )
