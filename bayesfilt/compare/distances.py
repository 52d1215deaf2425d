"""How far apart two runs are: in their weights, and in what they predict."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.compare.layers import flat, norm
from bayesfilt.custom_types import Params

# Below this a difference of log probabilities enters by its series.
_SMALL = 1e-3


def weight_distance(params: Params, reference: Params) -> Float[Array, ""]:
    """Distance of two weight vectors relative to the reference's length, |w - r| / |r|.

    0 where they are equal, also at r = 0; elsewhere infinite there. A pure number.
    """
    weights, origin = flat(params), flat(reference)
    difference = norm(weights - origin)
    return jnp.where(difference == 0, 0, difference / norm(origin))


def predictive_divergence(
    reference: Float[Array, "examples classes"], other: Float[Array, "examples classes"]
) -> Float[Array, ""]:
    r"""Mean Kullback-Leibler divergence of two predictions, $E[\sum_c r_c \log(r_c/p_c)]$ [CMP-2].

    Summed as $r_c (e^d - 1 - d)$ with $d = \log p_c - \log r_c$, whose terms are not negative:
    the plain sum rounds to ±1e-16 where two runs have hardly parted.

    Args:
        reference: Log probabilities r of the run that is the reference; each row sums to 1.
        other: Log probabilities p.

    Returns:
        Nats per example; exactly 0 for equal predictions, infinite where p excludes what r
        does not.
    """
    possible = reference > -jnp.inf
    difference = jnp.where(possible, other - jnp.where(possible, reference, 0), 0)
    probability = jnp.exp(reference)
    small = possible & (jnp.abs(difference) < _SMALL)
    near = jnp.where(small, difference, 0)
    series = 0.5 * jnp.square(near) * (1 + near / 3 * (1 + near / 4 * (1 + near / 5)))
    # Not r (exp(d) - 1 - d): exp(d) overflows where r is tiny.
    linear = jnp.where(probability > 0, probability * difference, 0)
    exact = jnp.exp(other) - probability - linear
    return jnp.mean(jnp.sum(jnp.where(small, probability * series, exact), axis=-1))


def log_probabilities(task: Any, params: Params) -> Float[Array, "examples classes"] | None:
    """Held-out predictions of a task that makes any, else None."""
    predict = getattr(task, "log_probabilities", None)
    return None if predict is None else predict(params)
