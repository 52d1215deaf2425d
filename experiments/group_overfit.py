"""How much a group of weights overfits: what shrinking it does to losses, held out and trained on.

Shrink the weights w of a group by a small fraction f and a loss changes by -f w·dL/dw: its *pull*
on the loss, per unit of f. Weights that have learnt what holds in general have no pull on either
loss, or a negative one on both. Weights that have learnt the training set have a larger pull
on the loss that is held out than on the one they were trained on: the difference is by how much
the gap between the two grows with them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from bayesfilt.compare import layers_of
from bayesfilt.custom_types import Params
from bayesfilt.tasks import Task
from experiments.layer_sizes import live_weights

type Groups = Bool[Array, "groups weights"]


def live_matrices(task: Any) -> dict[str, np.ndarray]:
    """By layer, the places of the weights of its matrix that some example reaches."""
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    is_matrix = np.concatenate(
        [np.full(leaf.size, len(leaf.shape) > 1) for leaf in jax.tree.leaves(shapes)]
    )
    counted = np.flatnonzero(is_matrix & (live_weights(task) > 0))
    layers = layers_of(shapes)
    places = {
        name: counted[(counted >= start) & (counted < end)]
        for name, (start, end) in zip(layers.names[:-1], layers.bounds[:-1], strict=True)
    }
    return {name: found for name, found in places.items() if found.size}


def ranked_groups(
    values: Float[Array, " weights"], places: np.ndarray, num_groups: int
) -> Float[Array, "groups weights"]:
    """The weights at these places in equal groups, from those of the lowest value up; 1 or 0."""
    rank = jnp.argsort(jnp.argsort(values[places]))
    belongs = jax.nn.one_hot(rank * num_groups // len(places), num_groups, dtype=values.dtype)
    return jnp.zeros((num_groups, values.size), values.dtype).at[:, places].set(belongs.T)


def overfit_of(
    task: Task, params: Params, groups: Float[Array, "groups weights"], fraction: float
) -> dict[str, Float[Array, " groups"]]:
    """Pulls of groups of weights, and what a shrink of finite size does.

    Args:
        task: with a loss on all training examples, or data of which `loss` can be taken.
        params: at which everything is taken.
        groups: 1 for the weights of a group, else 0.
        fraction: by which a group is shrunk for `change`.

    Returns:
        `held` and `trained`, the pulls on both losses (nats); `square`, the sum of the squared
        weights; `change` of the held-out loss when the group alone is shrunk by the fraction.
    """
    weights, unravel = ravel_pytree(params)

    def held(flat):
        return task.evaluate(unravel(flat))["test_loss"]

    def trained(flat):
        return training_loss(task, unravel(flat))

    level, slope = jax.value_and_grad(held)(weights)
    pulls = jnp.stack([weights * slope, weights * jax.grad(trained)(weights), weights**2])
    sums = pulls @ groups.T
    shrunk = jax.lax.map(lambda group: held(weights * (1 - fraction * group)), groups)
    return {
        "held": sums[0],
        "trained": sums[1],
        "square": sums[2],
        "change": shrunk - level,
    }


def training_loss(task: Any, params: Params) -> Float[Array, ""]:
    """Mean loss over all that is trained on."""
    if hasattr(task, "training_loss"):
        return task.training_loss(params)
    return task.loss(params, task.data)
