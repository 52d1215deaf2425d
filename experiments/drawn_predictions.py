"""Predictions averaged over drawn weights: their loss and calibration, and Fisher information."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.tasks import Examples

BINS = 15
_LUCKY = 20  # sets of labels drawn for the floor
_LABELS_SEED = 0  # the same held-out labels for all


def calibration_error(
    probabilities: Float[Array, "examples classes"], right: Float[Array, " examples"]
) -> Float[Array, ""]:
    """Mean distance of accuracy from confidence over equal bins of confidence, by their share."""
    confidence = jnp.max(probabilities, axis=-1)
    place = jnp.clip((confidence * BINS).astype(int), 0, BINS - 1)
    gaps = jnp.zeros(BINS).at[place].add(confidence - right)
    return jnp.sum(jnp.abs(gaps)) / len(right)


def noisy_labels(share: float, examples: Examples) -> Examples:
    """Held-out examples whose labels are wrong as often as those trained on, by the same law."""
    wrong_key, class_key = jax.random.split(jax.random.key(_LABELS_SEED))
    wrong = jax.random.uniform(wrong_key, examples.labels.shape) < share
    others = jax.random.randint(class_key, examples.labels.shape, 1, 10)
    return Examples(
        inputs=examples.inputs,
        labels=jnp.where(wrong, (examples.labels + others) % 10, examples.labels),
    )


def diagonal_fisher(task: Any, params: Any) -> Float[Array, " weights"]:
    """Gauss-Newton Fisher information of one example, mean over the training set; 1/weight^2."""
    flat, rebuild = ravel_pytree(params)

    def one(inputs: Array) -> Array:
        def logits(vector: Array) -> Array:
            return task.network.apply(rebuild(vector), inputs[None])[0]

        p = jax.nn.softmax(logits(flat))
        slopes = jax.jacrev(logits)(flat)
        return p @ slopes**2 - (p @ slopes) ** 2

    def add(total: Array, inputs: Array) -> tuple[Array, None]:
        return total + one(inputs), None

    inputs = task.train.inputs
    return jax.lax.scan(add, jnp.zeros_like(flat), inputs)[0] / len(inputs)


def predictive(
    key: PRNGKeyArray, task: Any, params: Any, variance: Array, num_draws: int
) -> Float[Array, "examples classes"]:
    """Mean probability of every class over weights drawn around the trained ones."""
    flat, rebuild = ravel_pytree(params)

    def add(total: Array, draw_key: PRNGKeyArray) -> tuple[Array, None]:
        noise = jax.random.normal(draw_key, flat.shape, flat.dtype)
        drawn = (flat + jnp.sqrt(variance) * noise).astype(flat.dtype)
        return total + jnp.exp(task.log_probabilities(rebuild(drawn))), None

    start = jnp.exp(task.log_probabilities(params)) * 0
    return jax.lax.scan(add, start, jax.random.split(key, num_draws))[0] / num_draws


def loss_and_calibration(
    key: PRNGKeyArray, task: Any, params: Any, variance: Array, draws: int
) -> tuple[Array, Array, Array]:
    """Loss, calibration error and its floor, each on both halves of the held-out examples."""
    probabilities = predictive(key, task, params, variance, draws)
    labels = task.test.labels
    right = (jnp.argmax(probabilities, axis=-1) == labels).astype(float)
    chosen = jnp.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0]
    lost = -jnp.log(jnp.maximum(chosen, 1e-12))
    confidence = jnp.max(probabilities, axis=-1)
    found = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        shares = jax.random.uniform(jax.random.fold_in(key, 1), (_LUCKY, confidence[half].size))
        luck = jax.vmap(lambda share, half=half: calibration_error(
            probabilities[half], (share < confidence[half]).astype(float)
        ))(shares)  # fmt: skip
        error = calibration_error(probabilities[half], right[half])
        found.append((jnp.mean(lost[half]), error, jnp.mean(luck)))
    columns = zip(*found, strict=True)
    return tuple(jnp.stack(column) for column in columns)  # pyright: ignore[reportReturnType]
