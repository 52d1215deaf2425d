"""A regression some of whose inputs mean nothing: their weights can only remember the noise."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.tasks import Task, custom_task


@dataclasses.dataclass(frozen=True)
class Regression:
    """Labels are the sum of the meaningful inputs and noise; all inputs are independent, N(0, 1).

    In an endless held-out set the loss is half of |w - truth|^2 + deviation^2, so that a weight w
    of an input without a meaning adds w^2/2 to it, and has the pull w^2.
    """

    meaningful: int  # inputs
    meaningless: int
    examples: int  # to train on
    held_out: int
    deviation: float  # of the labels' noise

    def task(self, batch_size: int) -> Task:
        """With data from a fixed key, for `world_of` to replace."""
        train_key, test_key = jax.random.split(jax.random.key(0))
        return custom_task(
            {"layer": jnp.zeros(self.meaningful + self.meaningless)},
            half_square,
            self._draw(train_key, self.examples),
            batch_size=batch_size,
            test_data=self._draw(test_key, self.held_out),
        )

    def world_of(self, task: Any, numbers: Any, key: PRNGKeyArray) -> Any:
        """The same task with data of its own, as `train_many` asks for it."""
        del numbers
        train_key, test_key = jax.random.split(key)
        return dataclasses.replace(
            task,
            data=self._draw(train_key, self.examples),
            test_data=self._draw(test_key, self.held_out),
        )

    def kinds(self) -> Float[Array, "2 weights"]:
        """Which weights are of inputs with a meaning, and which of inputs without one; 1 or 0."""
        means = self._truth()
        return jnp.stack([means, 1 - means])

    def _truth(self) -> Float[Array, " weights"]:
        return jnp.repeat(jnp.array([1.0, 0.0]), jnp.array([self.meaningful, self.meaningless]),
                          total_repeat_length=self.meaningful + self.meaningless)  # fmt: skip

    def _draw(self, key: PRNGKeyArray, examples: int) -> dict[str, Array]:
        inputs_key, noise_key = jax.random.split(key)
        truth = self._truth()
        inputs = jax.random.normal(inputs_key, (examples, truth.size))
        noise = self.deviation * jax.random.normal(noise_key, (examples,))
        return {"inputs": inputs, "labels": inputs @ truth + noise}


def half_square(params: Any, batch: Any) -> Float[Array, ""]:
    """Mean over the batch of half of the squared error."""
    return 0.5 * jnp.mean(jnp.square(batch["inputs"] @ params["layer"] - batch["labels"]))
