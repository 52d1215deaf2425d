"""Worlds for equilibria: weights that feel noise and nothing else, and data seen all at once.

In a world of noise the laws of the size of weights hold without a network, so that what fails
in a network is the network's doing. All are tasks that `simulate` and `train_many` take.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.custom_types import Params
from bayesfilt.tasks.supervised import Examples, Supervised


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class NoiseWorld:
    """Layers whose gradients are a constant plus white noise, whatever the weights.

    With `only_direction` the loss sees each layer's direction and not its length: the gradient
    is that noise across the weights, over their length, as in front of a normalisation.
    """

    noise: Float[Array, " layers"]  # deviation of the gradient; 1/weight
    signal: Float[Array, " layers"]  # mean of the gradient over that deviation
    start: Float[Array, ""]  # rms of the first weights
    width: int = dataclasses.field(metadata={"static": True})  # weights of a layer
    only_direction: bool = dataclasses.field(default=False, metadata={"static": True})
    batch_size: int = dataclasses.field(default=1, metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Gaussian weights, "layer_0", "layer_1", ..."""
        return self._layers(self.start * self._normal(key))

    def sample_batch(self, key: PRNGKeyArray, step: Any) -> Params:
        """Draw the gradient, before it is turned across the weights."""
        del step
        drawn = self.signal[:, None] + self._normal(key)
        return self._layers(self.noise[:, None] * drawn)

    def loss(self, params: Params, batch: Params) -> Float[Array, ""]:
        """What has the batch for its gradient: linear in the weights, or in their direction."""
        seen = {
            name: weights / jnp.linalg.norm(weights) if self.only_direction else weights
            for name, weights in params.items()
        }
        return jnp.sum(jnp.stack([jnp.vdot(batch[name], seen[name]) for name in seen]))

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Nothing is learnt here."""
        del params
        return {}

    def _normal(self, key: PRNGKeyArray) -> Float[Array, "layers width"]:
        return jax.random.normal(key, (len(self.noise), self.width))

    def _layers(self, values: Float[Array, "layers width"]) -> Params:
        return {f"layer_{index}": row for index, row in enumerate(values)}


def noise_world(
    *,
    noise: tuple[float, ...] = (1.0,),
    signal: tuple[float, ...] | None = None,
    start: float = 0.1,
    width: int,
    only_direction: bool = False,
) -> NoiseWorld:
    """One layer for each deviation of the noise; at most ten, so that names keep their order."""
    if not 1 <= len(noise) <= 10:
        raise ValueError(f"noise_world needs 1 to 10 layers, got {len(noise)}.")
    return NoiseWorld(
        noise=jnp.asarray(noise),
        signal=jnp.zeros(len(noise)) if signal is None else jnp.asarray(signal),
        start=jnp.asarray(start),
        width=width,
        only_direction=only_direction,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WholeData:
    """A supervised task whose every minibatch is all of its training data."""

    task: Supervised

    @property
    def batch_size(self) -> int:
        """All examples."""
        return len(self.task.train.labels)

    def init_params(self, key: PRNGKeyArray) -> Params:
        """As the task draws them."""
        return self.task.init_params(key)

    def sample_batch(self, key: PRNGKeyArray, step: Any) -> Examples:
        """Every example once."""
        del key, step
        return self.task.train

    def loss(self, params: Params, batch: Examples) -> Float[Array, ""]:
        """Mean over the examples."""
        return self.task.loss(params, batch)

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """As the task does."""
        return self.task.evaluate(params)

    def training_loss(self, params: Params) -> Float[Array, ""]:
        """What `loss` is, too."""
        return self.task.training_loss(params)
