"""Kronecker factors of the curvature of the digits network's layers, and what they leave out."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bayesfilt.theory import KroneckerFactors, overconfidence


def kronecker_factors(task: Any, params: Any) -> dict[str, KroneckerFactors]:
    """K-FAC of both layers of the MLP, with the true Fisher: G of outputs, A of inputs."""
    inputs = task.train.inputs.reshape(len(task.train.inputs), -1)
    first, last = params["dense_0"], params["dense_1"]
    before = inputs @ first.weight.T + first.bias
    hidden = jax.nn.relu(before)
    p = jax.nn.softmax(hidden @ last.weight.T + last.bias)
    of_logits = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    back = (before > 0)[:, None, :] * last.weight[None]  # (examples, logits, hidden)
    of_hidden = jnp.einsum("nab,nai,nbj->ij", of_logits, back, back) / len(inputs)
    return {
        "first layer": KroneckerFactors(rows=of_hidden, columns=inputs.T @ inputs / len(inputs)),
        "last layer": KroneckerFactors(
            rows=jnp.mean(of_logits, axis=0), columns=hidden.T @ hidden / len(inputs)
        ),
    }


def median_factor(factors: KroneckerFactors, damping: float) -> Array:
    """Of all weights of a layer; of a Kronecker product it is the product of its factors'."""
    sides = [
        overconfidence(side + damping * jnp.trace(side) / len(side) * jnp.eye(len(side)))
        for side in factors
    ]
    return jnp.median(sides[0][:, None] * sides[1][None, :])
