"""The layers of a tree of weights: what a comparison is broken down by.

A layer is a top-level key of the tree ("dense_0"). Where there is only one such key, as in
`{"params": {"Dense_0": ..., "Dense_1": ...}}`, the keys below it are the layers. Any pytree
works; the last layer is always "all", every weight pooled.

Comparisons are made on flat vectors. The leaves of one key are neighbours in a flattened tree,
so a layer is a range of the vector.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32

ALL = "all"


class Layers(NamedTuple):
    """Names, and the range of the flat vector of weights that each layer is."""

    names: tuple[str, ...]  # the last one is "all"
    bounds: tuple[tuple[int, int], ...]  # from, to


def layers_of(params: Params) -> Layers:
    """Find the layers of a tree of weights.

    Raises:
        ValueError: A tree without a single leaf.
    """
    found = jax.tree_util.tree_leaves_with_path(params)
    if not found:
        raise ValueError("a comparison needs at least one array of weights, got an empty tree.")
    depth = _depth_of_layers([path for path, _ in found])
    ends: dict[str, int] = {}
    total = 0
    for path, leaf in found:
        total += np.size(leaf)
        if depth:  # a bare array has no key: it is all there is
            ends[_name(path[:depth])] = total
    starts = [0, *ends.values()]
    bounds = zip(starts, ends.values(), strict=False)
    return Layers(names=(*ends, ALL), bounds=(*bounds, (0, total)))


def sums_by_layer(
    layers: Layers, terms: Float[Array, "*terms weights"]
) -> Float[Array, "*terms layers"]:
    """Sum over the weights of each layer, in the order of `layers.names`.

    Whatever is summed is stacked first: one reduction for each layer compiles in less time
    than one for each layer and quantity.
    """
    return jnp.stack([terms[..., start:end].sum(axis=-1) for start, end in layers.bounds], axis=-1)


def sizes(layers: Layers) -> Float[np.ndarray, " layers"]:
    """Weights in each layer."""
    return np.array([float(end - start) for start, end in layers.bounds])


def flat(tree: Params) -> Float[Array, " weights"]:
    """Every number of a tree in one vector, at least float32."""
    return jnp.concatenate([at_least_float32(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def scaled(vector: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """A vector over its largest finite entry, and that entry: squares of it stay in range."""
    largest = jnp.max(jnp.where(jnp.isfinite(vector), jnp.abs(vector), 0), initial=0)
    return vector / jnp.where(largest == 0, 1, largest), largest


def norm(vector: Float[Array, " weights"]) -> Float[Array, ""]:
    """Euclidean length, without overflow or underflow of the squares; 0 of an empty vector."""
    unit, largest = scaled(vector)
    return largest * jnp.sqrt(jnp.sum(jnp.square(unit)))


def _depth_of_layers(paths: list[tuple]) -> int:
    """How many keys of a path name its layer: more than one only below a lonely key."""
    longest = max(len(path) for path in paths)
    for depth in range(1, longest):
        if len({_name(path[:depth]) for path in paths}) > 1:
            return depth
    return min(longest, 1)  # no branching above the leaves, or 0 for a bare array


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
