"""Type aliases shared by every floor."""

from typing import Any

from jaxtyping import Array, Float, PyTree

# A traced scalar must pass: vmap and grad put arrays where a user writes a number.
Scalar = float | Float[Array, ""]

# Weights, gradients and updates: trees of arrays with one structure, which the task chooses.
Params = PyTree[Any]
