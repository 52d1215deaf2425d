"""Real optimizers fed with gradients that are known beforehand: what their learning rates do.

No network, and nothing is trained: an optimizer sees gradients of a known size, and what it says
of itself by `effective_learning_rate` is written down. At b1 = 0 that is the step over the
gradient (a test holds it to that).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.optimizers import effective_learning_rate

type GradientAt = Callable[[Array], Array]
"""Step -> gradient of the mean loss, one number a weight."""


def learning_rates(
    optimizer: optax.GradientTransformation, gradient_at: GradientAt, num_steps: int
) -> Float[Array, "steps ..."]:
    """The factor on the mean gradient after every step; weights stand at 0 throughout."""
    params = _weights(gradient_at)

    def step(state, index):
        state = optimizer.update(gradient_at(index), state, params)[1]
        return state, effective_learning_rate(state)

    return jax.lax.scan(step, optimizer.init(params), jnp.arange(num_steps))[1]


def settled_learning_rate(
    optimizer: optax.GradientTransformation, gradient_at: GradientAt, num_steps: int
) -> Float[Array, "..."]:
    """The same, mean over the second half of the steps."""
    params = _weights(gradient_at)
    first = num_steps // 2

    def step(index, carry):
        state, total = carry
        state = optimizer.update(gradient_at(index), state, params)[1]
        return state, total + jnp.where(index < first, 0.0, effective_learning_rate(state))

    carry = (optimizer.init(params), jnp.zeros_like(params))
    return jax.lax.fori_loop(0, num_steps, step, carry)[1] / (num_steps - first)


def normal_gradients(key: PRNGKeyArray, rms: Array) -> GradientAt:
    """Independent normal gradients, mean 0, with this root mean square for each weight."""

    def gradient_at(step):
        return rms * jax.random.normal(jax.random.fold_in(key, step), rms.shape, rms.dtype)

    return gradient_at


def _weights(gradient_at: GradientAt) -> Array:
    return jnp.zeros_like(gradient_at(jnp.zeros((), jnp.int32)))
