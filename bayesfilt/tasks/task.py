"""What is trained: the one protocol that every task keeps, and how a task is built.

A task is a frozen dataclass registered as a pytree. Its arrays are leaves, so a data set is an
*argument* of a compiled run (a captured data set would be folded into the program as a
constant, for seconds); everything else is static and hashable, so a task built twice
from the same settings runs the same compiled program. Checks live in the factories: a
pytree's constructor is also called with tracers.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Integer, PRNGKeyArray, PyTree

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Params

# What `sample_batch` draws and `loss` reads: a tree of arrays that only the task understands.
Batch = PyTree[Any]


class Task(Protocol):
    """Anything that can be trained: where it starts, what it draws, what it costs."""

    @property
    def batch_size(self) -> int:
        """Examples in one minibatch: summed gradient = `batch_size` * gradient of `loss`."""
        ...

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Weights before the first step."""
        ...

    def sample_batch(self, key: PRNGKeyArray, step: int | Integer[Array, ""]) -> Batch:
        """Draw a fresh minibatch; `step` lets a world change in time."""
        ...

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """*Mean* negative log likelihood over the minibatch."""
        ...

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Held-out numbers such as `test_loss`; empty if the task has none."""
        ...


def whole_batch_size(owner: str, batch_size: Any) -> int:
    """`batch_size` as a plain int (64.0 could not be the size of an array); refuse below 1."""
    require_at_least(owner, "batch_size", batch_size, 1)
    return int(batch_size)


def float_dtype(owner: str, dtype: DTypeLike | None) -> np.dtype:
    """The floating dtype asked for; None means JAX's own default at this moment.

    Raises:
        ValueError: `dtype` is not floating, or needs x64 while x64 is off (JAX would silently
            hand back float32).
    """
    wanted = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(f"{owner} needs a floating dtype, got dtype={wanted.name}.")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"{owner} needs jax_enable_x64 for dtype={wanted.name}, but x64 is off: call"
            " jax.config.update('jax_enable_x64', True) first."
        )
    return wanted
