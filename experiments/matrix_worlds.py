"""Worlds of many weights that are seen together, and filters in them whose errors are counted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.filters import DiagonalFilter, FullFilter


class Counts(NamedTuple):
    """How much is simulated."""

    num_worlds: int  # independent ones a seed
    num_seeds: int
    settling: int  # steps before those that count
    num_steps: int


def counted_errors(
    key: PRNGKeyArray, curvature: Array, moves: Array, step: Any, belief: Any, counts: Counts
) -> Float[np.ndarray, "seeds weights weights"]:
    """Covariance of a filter's errors when the gradient is taken, counted in many worlds.

    Args:
        key: of all random numbers.
        curvature: H, curvature and noise of the summed gradient.
        moves: matrix that makes one step of drift out of independent normal numbers.
        step: (belief, gradient) -> belief about the next optimum, as `in_worlds` makes it.
        belief: of the filter to begin with, about an optimum at 0.
        counts: of what is simulated.
    """
    noise = jnp.linalg.cholesky(curvature)
    shape = (counts.num_worlds, len(curvature))

    def one_seed(seed_key: PRNGKeyArray) -> Array:
        def one(carry: tuple, index: Array) -> tuple[tuple, None]:
            beliefs, optimum, total = carry
            looked, moved = jax.random.normal(jax.random.fold_in(seed_key, index), (2, *shape))
            distance = beliefs.mean - optimum
            total = total + (index >= counts.settling) * distance.T @ distance
            beliefs = step(beliefs, distance @ curvature + looked @ noise.T)
            return (beliefs, optimum + moved @ moves.T, total), None

        start = (belief._replace(mean=jnp.zeros(shape)), jnp.zeros(shape), jnp.zeros(moves.shape))
        steps = jnp.arange(counts.settling + counts.num_steps)
        return jax.lax.scan(one, start, steps)[0][-1]

    totals = jax.jit(lambda keys: jax.lax.map(one_seed, keys))(
        jax.random.split(key, counts.num_seeds)
    )
    return np.asarray(totals) / (counts.num_steps * counts.num_worlds)


def in_worlds(known: FullFilter | DiagonalFilter, precision: Array) -> tuple[Any, Any]:
    """A step of a filter in many worlds, of which it is equally sure, and its first belief."""
    kalman: Any = known
    first = kalman.init(jnp.zeros(len(precision)), jnp.zeros_like(precision))
    axes = type(first)(0, None)  # means of their own, one variance

    def one(belief: Any, gradient: Array) -> Any:
        return kalman.predict(kalman.condition(belief, gradient, precision))

    return jax.vmap(one, in_axes=(axes, 0), out_axes=axes), first
