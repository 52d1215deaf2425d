"""From the mean-loss gradients of a training loop to the summed ones of the filter, once.

The filter's algebra holds for gradients of the *summed* negative log likelihood of a
minibatch; every JAX training loop has the gradient of the *mean* loss. This is the one
place where the batch size enters, and the place where a gradient meets its weight: shapes
and types are checked here, and leaves below float32 are widened, because a running mean of
squares in bfloat16 gets stuck.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.optimizers.dtypes import at_least_float32, like, scalar_dtype
from bayesfilt.optimizers.moments import scalars_at


class SumOverBatchState(NamedTuple):
    """Carried by `sum_over_batch`."""

    batch_size: Float[Array, ""]


def sum_over_batch(batch_size: Scalar) -> optax.GradientTransformation:
    """Turn a mean-loss gradient into a summed-loss one, in at least float32.

    Args:
        batch_size: Examples in the minibatch whose mean loss was differentiated; >= 1.

    Raises:
        ValueError: `batch_size` below 1 or not whole; at `init`, integer or complex weights;
            at `update`, a gradient whose structure, shape or dtype is not its weight's.
    """
    require_at_least("sum_over_batch", "batch_size", batch_size, 1)

    def init(params):
        require_real_weights(params)
        return SumOverBatchState(batch_size=jnp.asarray(batch_size, scalar_dtype(params)))

    def update(updates, state, params=None):
        if params is not None:
            require_matching_gradient(updates, params)

        def summed(gradient):
            wide = at_least_float32(gradient)
            return wide * like(size, wide.dtype)

        (size,) = scalars_at(lambda number: (number,), [batch_size], 0, state.batch_size.dtype)
        return jax.tree.map(summed, updates), state

    return optax.GradientTransformation(init, update)


def require_real_weights(params: Params) -> None:
    """Refuse integer and complex leaves, naming the first."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"bayesfilt optimizers need real floating-point weights, got dtype {dtype} "
                f"at params{jax.tree_util.keystr(path)}."
            )


def require_matching_gradient(gradient: Params, params: Params) -> None:
    """Refuse a gradient that does not fit its weights, naming the first misfit."""
    if jax.tree.structure(gradient) != jax.tree.structure(params):
        raise ValueError(
            "a gradient must have the structure of its weights, got "
            f"{jax.tree.structure(gradient)} for {jax.tree.structure(params)}."
        )
    paths = jax.tree_util.tree_leaves_with_path(params)
    for (path, weight), leaf in zip(paths, jax.tree.leaves(gradient), strict=True):
        wanted, came = jnp.asarray(weight), jnp.asarray(leaf)
        if (wanted.shape, wanted.dtype) != (came.shape, came.dtype):
            raise ValueError(
                f"the gradient of params{jax.tree_util.keystr(path)} must be "
                f"{wanted.dtype}{list(wanted.shape)} like its weight, "
                f"got {came.dtype}{list(came.shape)}."
            )
