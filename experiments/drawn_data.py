"""Runs on the first examples of a shuffled training set, each seed with a shuffle of its own.

`many_runs` trains all runs on one draw of the data. Here a seed also draws which examples are kept
and which labels are wrong, so that intervals over seeds hold the luck of that draw; the number of
examples is an argument of the compiled program.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from bayesfilt.simulate import simulate
from bayesfilt.tasks import Supervised, supervised_task
from bayesfilt.tasks.data import load_digits, take_subset, with_label_noise
from bayesfilt.tasks.supervised import Examples

# Runs that are vectorised; wider is no faster on a CPU.
_WIDTH = 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FirstExamples:
    """Another task's training on the first `count` of its examples only."""

    whole: Supervised
    count: Int[Array, ""]

    @property
    def batch_size(self) -> int:
        """Examples in a minibatch."""
        return self.whole.batch_size

    def init_params(self, key: PRNGKeyArray) -> Any:
        """Weights before the first step."""
        return self.whole.init_params(key)

    def sample_batch(self, key: PRNGKeyArray, step) -> Examples:
        """Draw examples, of those that count, with replacement."""
        del step
        bits = jax.random.bits(key, (self.batch_size,), jnp.uint32)
        chosen = bits % self.count.astype(jnp.uint32)
        return jax.tree.map(lambda array: array[chosen], self.whole.train)

    def loss(self, params: Any, batch: Examples) -> Array:
        """Mean cross entropy over the minibatch, in nats."""
        return self.whole.loss(params, batch)

    def evaluate(self, params: Any) -> dict[str, Array]:
        """Of the held-out examples."""
        return self.whole.evaluate(params)


def shuffled_digits(seeds: Sequence[int], label_noise: float, batch_size: int) -> Supervised:
    """The zoo's MLP on digits; training examples and their noise have a leading axis of seeds."""
    drawn = []
    for seed in seeds:
        order_key, label_key = jax.random.split(jax.random.key(seed))
        digits = load_digits()
        shuffled = take_subset(order_key, digits, len(digits.train_labels))
        noisy = with_label_noise(label_key, shuffled, label_noise) if label_noise else shuffled
        task = supervised_task(noisy, "mlp", batch_size=batch_size, dtype="float32")
        drawn.append(task)
    train = jax.tree.map(lambda *arrays: jnp.stack(arrays), *(task.train for task in drawn))
    return dataclasses.replace(drawn[0], train=train)


def final_errors(
    shuffled: Supervised,
    optimizer_of: Callable[[Mapping[str, Array]], optax.GradientTransformation],
    settings: Mapping[str, np.ndarray],
    seeds: Sequence[int],
    num_steps: int,
) -> np.ndarray:
    """Test errors at the end, (settings, seeds); NaN where a run has diverged.

    Args:
        shuffled: from `shuffled_digits` with the same seeds.
        optimizer_of: numbers of one setting, traced -> its optimizer.
        settings: name -> numbers, one a setting; `examples` is the number that are trained on.
        seeds: of the data, first weights and minibatches.
        num_steps: of each run.
    """
    count = len(settings["examples"])

    def one(task: Supervised, run: Any) -> Array:
        numbers, place, seed = run
        own = dataclasses.replace(task, train=jax.tree.map(lambda each: each[place], task.train))
        trajectory = simulate(
            jax.random.key(seed),
            FirstExamples(whole=own, count=numbers["examples"]),
            optimizer_of(numbers),
            num_steps,
            probes={},
            record_every=num_steps,
        )
        error = 1 - own.evaluate(trajectory.params)["test_accuracy"]
        return jnp.where(trajectory.diverged_at >= 0, jnp.nan, error)

    runs = (
        {name: jnp.repeat(jnp.asarray(values), len(seeds)) for name, values in settings.items()},
        jnp.tile(jnp.arange(len(seeds)), count),
        jnp.tile(jnp.asarray(seeds, jnp.uint32), count),
    )
    program = jax.jit(
        lambda task, runs: jax.lax.map(lambda run: one(task, run), runs, batch_size=_WIDTH)
    )
    return np.asarray(program(shuffled, runs), float).reshape(count, len(seeds))
