"""AdamW, and decay beside a step that turns weights without stretching them, as one optimizer.

For a unit with incoming vector w = r n of N weights, a direction-preserving step goes along t, the
momentum of the gradient without its part along n, over the root of the running mean of its squared
norm: |t| is about 1 where gradients agree. There are two ways to let decay join it.

    "held"    the norm is kept, and the angle imposed: |t| sqrt(2 lr wd). So does the zoo's
              `normalized`, with this rate; what is left for decay is to say the angle.
    "free"    w <- (1 - lr wd) w - lr sqrt(N) t: as long a step as Adam's, at a right angle to w.
              Whatever t is, r'^2 = (1 - lr wd)^2 r^2 + |step|^2, so that where r has settled the
              vector turns by arccos(1 - lr wd), about sqrt(2 lr wd), a step; with momentum and
              with gradients that agree, too, where AdamW's steps stand at other angles.

All other weights (biases, the last layer) are trained by AdamW under either. One optimizer with
switches stands for all three, so that they share a program.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.optimizers.direction_preserving import (
    norm,
    tangent_part,
    turned,
)
from experiments.many_runs import Numbers

KINDS = ("adamw", "free", "held")
_B2, _EPS = 0.999, 1e-8  # Adam's own

type Vectors = dict[str, Float[Array, "units incoming"]]


class TurningState(NamedTuple):
    """Adam's moments of all weights, and those of the vectors that turn, by layer."""

    adam: optax.OptState
    first_moment: Vectors
    mean_square: dict[str, Float[Array, "units 1"]]
    norm: dict[str, Float[Array, "units 1"]]  # at the start


def turning_adam(numbers: Numbers, layers: Sequence[str]) -> optax.GradientTransformation:
    """AdamW, or a direction-preserving step with decay for the matrices of these layers.

    Args:
        numbers: `kind` (place in `KINDS`), `rate`, `decay` ("lr_scaled") and `b1`; may be traced.
        layers: keys of the weights whose matrix, or whole array, turns.
    """
    adam = optax.scale_by_adam(b1=numbers["b1"], b2=_B2, eps=_EPS)
    rate, b1, kind = numbers["rate"], numbers["b1"], numbers["kind"]
    shrink = rate * numbers["decay"]

    def across(vector, gradient):
        return tangent_part(gradient, vector / norm(vector))

    def init(params):
        vectors = _vectors(params, layers)
        norms = jax.tree.map(norm, vectors)
        return TurningState(
            adam=adam.init(params),
            first_moment=jax.tree.map(jnp.zeros_like, vectors),
            mean_square=jax.tree.map(jnp.zeros_like, norms),
            norm=norms,
        )

    def update(updates, state, params=None):
        vectors = _vectors(params, layers)
        gradients = jax.tree.map(across, vectors, _vectors(updates, layers))
        first = optax.tree.update_moment(gradients, state.first_moment, b1, 1)
        squares = jax.tree.map(norm, gradients)
        second = optax.tree.update_moment(squares, state.mean_square, _B2, 2)
        scaled, adam_state = adam.update(updates, state.adam)
        count = cast(optax.ScaleByAdamState, adam_state).count
        state = TurningState(
            adam=adam_state, first_moment=first, mean_square=second, norm=state.norm
        )

        def moved(vector, moment, square, kept):
            direction = vector / norm(vector)
            root = jnp.sqrt(square / (1 - _B2**count)) + _EPS
            against = across(vector, moment / (1 - b1**count)) / root
            free = -shrink * vector - rate * jnp.sqrt(vector.shape[1]) * against
            angle = jnp.sqrt(2 * shrink) * norm(against)
            held = kept * turned(direction, against, angle) - vector
            return jnp.where(kind == KINDS.index("held"), held, free)

        moves = jax.tree.map(moved, vectors, first, second, state.norm)

        def chosen(path, step, weight):
            plain = -rate * step - shrink * weight
            layer = path[0].key
            if layer not in layers or _is_bias(path):
                return plain
            move = moves[layer].reshape(weight.shape)
            return jnp.where(kind == KINDS.index("adamw"), plain, move)

        return jax.tree_util.tree_map_with_path(chosen, scaled, params), state

    return optax.GradientTransformation(init, update)


def _is_bias(path: Any) -> bool:
    return getattr(path[-1], "name", "") == "bias"


def _vectors(tree: Any, layers: Sequence[str]) -> Vectors:
    """The incoming vectors of these layers, one a row; a layer that is one array is one vector."""
    found = {name: getattr(tree[name], "weight", tree[name]) for name in layers}
    return {name: leaf if leaf.ndim > 1 else leaf[None] for name, leaf in found.items()}
