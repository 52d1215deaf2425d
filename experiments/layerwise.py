"""Networks of a chosen width on digits, and optimizers with a rate and a decay for each layer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bayesfilt.tasks import Mlp, Supervised, supervised_task
from bayesfilt.tasks.data import load_digits, take_subset, with_label_noise

type ByLayer = Mapping[str, Any]
"""A scalar, which may be traced, by the name of a layer; a layer without one has 0."""


@dataclasses.dataclass(frozen=True)
class Digits:
    """What examples a network is trained on."""

    subset: int | None = 300  # training examples; None: all 1297
    label_noise: float = 0.2  # fraction of the training labels made wrong
    batch_size: int = 32


def mlp_task(digits: Digits, hidden: tuple[int, ...]) -> Supervised:
    """An MLP with these hidden widths on digits; the same data for every network."""
    subset_key, label_key = jax.random.split(jax.random.key(0))
    dataset = load_digits()
    if digits.subset is not None:
        dataset = take_subset(subset_key, dataset, digits.subset)
    if digits.label_noise:
        dataset = with_label_noise(label_key, dataset, digits.label_noise)
    network = Mlp(sizes=(64, *hidden, 10))
    return supervised_task(dataset, network, batch_size=digits.batch_size, dtype="float32")


def fan_ins(task: Supervised) -> dict[str, int]:
    """Inputs of a unit, layer by layer."""
    params = jax.eval_shape(task.init_params, jax.random.key(0))
    return {name: layer.weight.shape[1] for name, layer in params.items()}


def adamw_by_layer(rates: ByLayer, shrinks: ByLayer) -> optax.GradientTransformation:
    """AdamW at constant rates; weights shrink by their layer's fraction a step, biases do not."""
    return optax.chain(optax.scale_by_adam(), _stepped(rates, shrinks))


def sgd_by_layer(rates: ByLayer) -> optax.GradientTransformation:
    """Plain gradient descent on the mean loss, a layer's weights and biases at its rate."""
    return _stepped(rates, {})


def _stepped(rates: ByLayer, shrinks: ByLayer) -> optax.GradientTransformation:
    """Add -rate u - shrink w to a weight w, with the numbers of its layer."""

    def update(updates, state, params=None):
        def step(path, direction, weight):
            layer, is_bias = path[0].key, path[-1].name == "bias"
            rate = jnp.asarray(rates.get(layer, 0.0), weight.dtype)
            shrink = jnp.asarray(0.0 if is_bias else shrinks.get(layer, 0.0), weight.dtype)
            return -rate * direction - shrink * weight

        return jax.tree_util.tree_map_with_path(step, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
