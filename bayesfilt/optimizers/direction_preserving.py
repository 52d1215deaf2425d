"""Weights that turn and do not grow: every output unit's incoming vector keeps its norm.

Our reading of direction-preserving methods, from the geometry. For a unit with incoming vector
w = r n, |n| = 1, one step is

    g' = r (g - (n.g) n)                        gradient with respect to the direction
    m = b1 m + (1-b1) g',   v = b2 v + (1-b2) |g'|^2          one second moment per vector
    t = m/(1-b1^k) without its part along n     momentum, in today's tangent space
    angle = learning_rate |t| / (sqrt(v/(1-b2^k)) + eps)
    n <- cos(angle) n - sin(angle) t/|t|        along the great circle

and r stays what it was at the start. The learning rate is an angle per step. If the loss does
not see the norms, runs from w and from 2w are one run: nothing here depends on r.

The filter has no reading of this. Decoupled decay keeps norms in equilibrium only (EQ-1), and
there turns each vector by a constant angle per step (EQ-4): what is imposed here, exactly.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from bayesfilt.checks import require_fraction, require_non_negative, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import like, scalar_dtype
from bayesfilt.optimizers.moments import (
    ScalarOrSchedule,
    debias_factor,
    next_step,
    once_per_step,
    running_mean,
    scalars_at,
)
from bayesfilt.optimizers.widened import widened


class TurnVectorsState(NamedTuple):
    """Carried by `turn_vectors`: matrices with one incoming vector a row."""

    step: Int[Array, ""]
    first_moment: Params  # running mean of the directions' gradients, not debiased
    mean_square_gradient: Params  # running mean of their squared norms, not debiased; one column
    norm: Params  # of each vector at the start; units of a weight; one column


def normalized(
    learning_rate: ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    output_axis: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Adam on directions: incoming weight vectors turn and keep their initial norm.

    Leaves without incoming vectors of two weights or more (biases, scales, single numbers) are
    trained by Adam at the same learning rate. Nothing decays: on a sphere there is nothing to.

    Args:
        learning_rate: Radians per step where gradients agree, above 0, or a schedule.
        b1: Memory of the running mean of gradients, in [0, 1).
        b2: Memory of the running mean of their squared norms, in [0, 1).
        eps: Added outside the root; >= 0. For directions in units of gradient times weight.
        output_axis: Axis of a leaf that counts output units; the others are the incoming
            vector. 0 for equinox and torch, -1 for layers that multiply from the left.

    Returns:
        An optax optimizer of mean-loss gradients; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; at `init`, weights that are not real, or an
            incoming vector of norm 0, which has no direction.
    """
    for name, number in (("b1", b1), ("b2", b2)):
        require_fraction("normalized", name, number)
    require_positive("normalized", "learning_rate", learning_rate)
    require_non_negative("normalized", "eps", eps)

    def kinds(params):
        return jax.tree.map(
            lambda leaf: "turned" if has_vectors(leaf, output_axis) else "plain", params
        )

    turned = turn_vectors(learning_rate, b1=b1, b2=b2, eps=eps, output_axis=output_axis)
    plain = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
    return widened(optax.partition({"turned": turned, "plain": plain}, kinds))


def has_vectors(leaf: Any, output_axis: int) -> bool:
    """Whether every output unit of this leaf has two incoming weights or more."""
    shape = jnp.shape(leaf)
    if len(shape) < 2:
        return False
    if not -len(shape) <= output_axis < len(shape):
        raise ValueError(
            f"normalized needs an output_axis of every leaf, got {output_axis} for {list(shape)}."
        )
    outputs = output_axis % len(shape)
    return math.prod(length for axis, length in enumerate(shape) if axis != outputs) > 1


def turn_vectors(
    learning_rate: ScalarOrSchedule, *, b1: float, b2: float, eps: float, output_axis: int
) -> optax.GradientTransformation:
    """Turn the incoming vectors of leaves of at least float32; `normalized` says how."""

    def rows(leaf):
        outputs_first = jnp.moveaxis(leaf, output_axis, 0)
        return outputs_first.reshape(len(outputs_first), math.prod(outputs_first.shape[1:]))

    def unrows(flat, leaf):
        shape = jnp.moveaxis(leaf, output_axis, 0).shape
        return jnp.moveaxis(flat.reshape(shape), 0, output_axis)

    def init(params):
        vectors = jax.tree.map(rows, params)
        norms = jax.tree.map(norm, vectors)
        _require_directions(norms)
        return TurnVectorsState(
            step=jnp.zeros((), jnp.int32),
            first_moment=jax.tree.map(jnp.zeros_like, vectors),
            mean_square_gradient=jax.tree.map(jnp.zeros_like, norms),
            norm=norms,
        )

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("normalized needs the weights: call update(updates, state, params).")
        dtype = scalar_dtype(params)
        (rate,) = scalars_at(lambda number: (number,), [learning_rate], state.step, dtype)
        step = next_step(state.step)
        first, second = once_per_step(
            debias_factor(b1, step, dtype), debias_factor(b2, step, dtype)
        )
        vectors, gradients = jax.tree.map(rows, params), jax.tree.map(rows, updates)
        gradients = jax.tree.map(direction_gradient, vectors, gradients)
        squares = jax.tree.map(lambda g: jnp.square(norm(g)), gradients)
        state = TurnVectorsState(
            step=step,
            first_moment=running_mean(b1, state.first_moment, gradients),
            mean_square_gradient=running_mean(b2, state.mean_square_gradient, squares),
            norm=state.norm,
        )

        def moved(leaf, vector, moment, square, kept):
            kind = vector.dtype
            direction = vector / norm(vector)
            against = tangent_part(moment * like(first, kind), direction)
            root = jnp.sqrt(square * like(second, kind)) + like(jnp.asarray(eps), kind)
            angle = like(rate, kind) * norm(against) / jnp.where(root > 0, root, 1)
            return unrows(kept * turned(direction, against, angle), leaf) - leaf

        moments = (state.first_moment, state.mean_square_gradient, state.norm)
        return jax.tree.map(moved, params, vectors, *moments), state

    return optax.GradientTransformation(init, update)


def norm(vectors: Float[Array, "outputs incoming"]) -> Float[Array, "outputs 1"]:
    """Length of each row."""
    return jnp.sqrt(jnp.sum(jnp.square(vectors), axis=1, keepdims=True))


def tangent_part(
    vectors: Float[Array, "outputs incoming"], directions: Float[Array, "outputs incoming"]
) -> Float[Array, "outputs incoming"]:
    """What of each vector does not lie along its direction, x - (n.x) n [DP-1].

    Args:
        vectors: x, one a row.
        directions: n, of length 1.
    """
    return vectors - jnp.sum(directions * vectors, axis=1, keepdims=True) * directions


def direction_gradient(
    vectors: Float[Array, "outputs incoming"], gradients: Float[Array, "outputs incoming"]
) -> Float[Array, "outputs incoming"]:
    """Gradient with respect to the directions of vectors w = r n, r (g - (n.g) n) [DP-1].

    Units of the loss per radian: it does not depend on r where the loss does not.
    """
    size = norm(vectors)
    return size * tangent_part(gradients, vectors / size)


def turned(
    directions: Float[Array, "outputs incoming"],
    against: Float[Array, "outputs incoming"],
    angle: Float[Array, "outputs 1"],
) -> Float[Array, "outputs incoming"]:
    """Directions after a turn away from `against`, cos(a) n - sin(a) t/|t| [DP-2].

    Args:
        directions: n, of length 1.
        against: t, tangent at n; where it is 0 nothing turns.
        angle: a, in radians.
    """
    size = norm(against)
    moved = jnp.cos(angle) * directions - jnp.sin(angle) * against / jnp.where(size > 0, size, 1)
    return jnp.where(size == 0, directions, moved / norm(moved))


def _require_directions(norms: Params) -> None:
    """Refuse a vector that is known to have no length, naming the first leaf with one."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(norms):
        if isinstance(leaf, Tracer):
            continue
        if bool(jnp.any(leaf == 0)):
            raise ValueError(
                "normalized needs incoming vectors with a direction, got one of norm 0 at "
                f"params{jax.tree_util.keystr(path)}."
            )
