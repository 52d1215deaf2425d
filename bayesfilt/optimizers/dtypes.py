"""Which type a number has: weights keep theirs, moments and scalars are at least float32.

A running mean of squares in bfloat16 gets stuck, and an average of float64 gradients must not be
kept in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bayesfilt.custom_types import Params


def at_least_float32(leaf: Any) -> Array:
    """The leaf in its own dtype, or in float32 where that is narrower."""
    leaf = jnp.asarray(leaf)
    return like(leaf, jnp.promote_types(leaf.dtype, jnp.float32))


def like(number: Any, dtype: Any) -> Any:
    """An array or scalar in this dtype; itself where that is so, for a thousand casts add up.

    Python's numbers take the type of what they meet.
    """
    if isinstance(number, float) or number.dtype == dtype:
        return number
    return number.astype(dtype)


def scalar_dtype(tree: Params) -> jnp.dtype:
    """The widest float among the leaves, at least float32: the dtype of a step's scalars."""
    return jnp.result_type(jnp.float32, *(jnp.asarray(x).dtype for x in jax.tree.leaves(tree)))


def zeros_at_least_float32(params: Params) -> Params:
    """Zeros like the weights, in at least float32: where running means start."""

    def zeros(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32))

    return jax.tree.map(zeros, params)
