"""SGD, AdamW and Adam with L2 as one optimizer with switches, so that they share a program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ("sgdw", "adamw", "adam_l2")


class Switches(NamedTuple):
    """One setting of the one optimizer."""

    kind: float  # place in `KINDS`
    learning_rate: float
    weight_decay: float
    l2: float
    b1: float


def switched(numbers: Any) -> optax.GradientTransformation:
    """SGD or Adam with decay beside it, or Adam with L2 in its gradient."""
    adam = optax.scale_by_adam(b1=numbers["b1"])
    is_sgd = numbers["kind"] == KINDS.index("sgdw")

    def update(updates, state, params=None):
        pushed = jax.tree.map(lambda g, w: g + numbers["l2"] * w, updates, params)
        scaled, state = adam.update(pushed, state)

        def step(scaled, plain, weight):
            move = jnp.where(is_sgd, plain, scaled) + numbers["weight_decay"] * weight
            return -numbers["learning_rate"] * move

        return jax.tree.map(step, scaled, pushed, params), state

    return optax.GradientTransformation(adam.init, update)
