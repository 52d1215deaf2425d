"""Some of the weights, one at a time: which were chosen, and how a loss looks along each.

A choice is made once, outside the compiled run, so its numbers are NumPy's and static: a probe
closes over it. Along a coordinate only one leaf of the weights differs from the others, and
coordinates are taken leaf by leaf and a few at once, so that what they share stays shared and
what they do not stays in the cache.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.compare.layers import layers_of
from bayesfilt.custom_types import Params

# Coordinates measured side by side: more no longer fit the cache (64 at once cost 4 times more).
_AT_ONCE = 8


class ChosenWeights(NamedTuple):
    """Coordinates of a tree of weights; static, so hand it to a probe and not through `jit`."""

    # (weights,): place in the raveled tree, increasing
    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    layer: np.ndarray  # (weights,): index into `layer_names`
    layer_names: tuple[str, ...]


class Line(NamedTuple):
    """All weights along one coordinate, the others held where they are."""

    leaf: Float[Array, " size"]  # the leaf that the coordinate is in, flat
    direction: Float[Array, " size"]  # 1 at the coordinate
    rebuild: Callable[[Array], Params]  # flat leaf -> all weights

    def at(self, move: Float[Array, ""]) -> Params:
        """All weights, this one `move` further."""
        return self.rebuild(self.leaf + move * self.direction)

    def slope(self, function: Callable[[Params], Any]) -> tuple[Any, Any]:
        """Value and derivative along the coordinate, where the weight is now (forward mode)."""
        return jax.jvp(lambda leaf: function(self.rebuild(leaf)), (self.leaf,), (self.direction,))


class _Lanes(NamedTuple):
    """Searches side by side, and what those that ended have found."""

    task: Int[Array, " lanes"]  # which coordinate each lane is at
    following: Int[Array, ""]  # the first that no lane has taken
    states: Any
    results: Any


def choose_weights(
    key: PRNGKeyArray, params: Params, *, per_layer: int | None = None, total: int | None = None
) -> ChosenWeights:
    """A random choice without repeats: so many of each layer, or so many in all.

    Args:
        key: Of the choice.
        params: The weights, or their shapes (`jax.eval_shape(task.init_params, key)`).
        per_layer: Weights of every layer; a layer with fewer gives all it has.
        total: Weights in all, shared equally among the layers as far as they have them.

    Raises:
        ValueError: Not exactly one of the two numbers, one below 1, or no weights.
    """
    owner = "choose_weights"
    if (per_layer is None) == (total is None):
        raise ValueError(
            f"{owner} needs either per_layer or total, got per_layer={per_layer} and total={total}."
        )
    names, bounds = _layers(params)
    sizes = np.array([end - start for start, end in bounds])
    if per_layer is not None:
        require_at_least(owner, "per_layer", per_layer, 1)
        counts = np.minimum(sizes, int(per_layer))
    else:
        require_at_least(owner, "total", total, 1)
        counts = _equal_shares(sizes, int(total or 0))
    keys = jax.random.split(key, len(names))
    index = [
        start
        + np.sort(np.asarray(jax.random.permutation(keys[place], end - start))[: counts[place]])
        for place, (start, end) in enumerate(bounds)
    ]
    return _chosen(names, bounds, np.concatenate(index))


def chosen_weights(params: Params, index: Sequence[int] | np.ndarray) -> ChosenWeights:
    """These coordinates of the raveled tree, in increasing order.

    Raises:
        ValueError: No index, one that is not whole, repeated, or outside the tree.
    """
    owner = "chosen_weights"
    names, bounds = _layers(params)
    given, most = np.asarray(index), bounds[-1][1]
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise ValueError(
            f"{owner} needs a list of at least one whole index, got {given.dtype} of shape"
            f" {given.shape}."
        )
    wrong = given[(given < 0) | (given >= most)]
    if wrong.size:
        raise ValueError(f"{owner} needs 0 <= index < {most}, got {wrong[0]}.")
    if len(np.unique(given)) < len(given):
        raise ValueError(f"{owner} needs each index once, got {len(given)} with repeats.")
    return _chosen(names, bounds, np.sort(given))


def pick(chosen: ChosenWeights, tree: Params) -> Float[Array, " weights"]:
    """The chosen numbers of a tree like the weights, in the order of `chosen.index`."""
    leaves = jax.tree.leaves(tree)
    parts = [leaves[leaf].ravel()[within] for leaf, within in _by_leaf(chosen, leaves)]
    return jnp.concatenate(parts)


def along_each(chosen: ChosenWeights, params: Params, measure: Callable[[Line], Any]) -> Any:
    """`measure(line)` for the line through every chosen coordinate; results get an axis of weights.

    The work of one coordinate is that of `measure`; `_AT_ONCE` of them are vectorised.
    """

    def of_leaf(line_at: Callable[[Array], Line], within: np.ndarray) -> Any:
        return jax.lax.map(
            lambda place: measure(line_at(place)),
            jnp.asarray(within),
            batch_size=min(_AT_ONCE, len(within)),
        )

    return _leaf_by_leaf(chosen, params, of_leaf)


def search_each[State](
    chosen: ChosenWeights,
    params: Params,
    start: State,
    look: Callable[[Line, State], State],
    going: Callable[[State], Bool[Array, ""]],
) -> State:
    """Along every chosen coordinate, `look` once and then while `going`; the last states.

    Searches differ in length. `_AT_ONCE` of them are vectorised, and a search that has ended
    makes room for the next coordinate instead of waiting for its neighbours: the work is that of
    the mean length, not of the longest.

    Args:
        chosen: Which weights.
        params: The weights.
        start: Of every search; a tree of arrays.
        look: One evaluation, line and state to state.
        going: Whether a search needs another one.
    """

    def of_leaf(line_at: Callable[[Array], Line], within: np.ndarray) -> State:
        places, num = jnp.asarray(within), len(within)
        lanes = min(_AT_ONCE, num)

        def several(count: int) -> State:
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), start)

        def look_at_all(loop: _Lanes) -> _Lanes:
            # An idle lane's task is `num`, beyond the end: it looks at the last coordinate, and
            # what it finds is dropped.
            place = places[jnp.minimum(loop.task, num - 1)]
            states = jax.vmap(lambda place, state: look(line_at(place), state))(place, loop.states)
            ended = ~jax.vmap(going)(states)
            following = loop.following + jnp.cumsum(ended)
            return _Lanes(
                task=jnp.where(ended, jnp.minimum(following - 1, num), loop.task),
                following=following[-1],
                states=jax.tree.map(
                    lambda fresh, state: jax.vmap(jnp.where)(ended, fresh, state),
                    several(lanes),
                    states,
                ),
                results=jax.tree.map(
                    lambda results, state: results.at[loop.task].set(state, mode="drop"),
                    loop.results,
                    states,
                ),
            )

        begin = _Lanes(
            task=jnp.arange(lanes),
            following=jnp.asarray(lanes),
            states=several(lanes),
            results=several(num),
        )
        return jax.lax.while_loop(lambda loop: jnp.any(loop.task < num), look_at_all, begin).results

    return _leaf_by_leaf(chosen, params, of_leaf)


def _leaf_by_leaf(
    chosen: ChosenWeights,
    params: Params,
    of_leaf: Callable[[Callable[[Array], Line], np.ndarray], Any],
) -> Any:
    """Results of each leaf, from its lines by place and the places chosen, one after another."""
    leaves, structure = jax.tree.flatten(params)

    def lines_of(leaf: int) -> Callable[[Array], Line]:
        flat = leaves[leaf].ravel()

        def rebuild(values: Array) -> Params:
            new = values.reshape(leaves[leaf].shape)
            return jax.tree.unflatten(structure, [*leaves[:leaf], new, *leaves[leaf + 1 :]])

        def line_at(place: Array) -> Line:
            direction = (jnp.arange(flat.size) == place).astype(flat.dtype)
            return Line(leaf=flat, direction=direction, rebuild=rebuild)

        return line_at

    parts = [of_leaf(lines_of(leaf), within) for leaf, within in _by_leaf(chosen, leaves)]
    return jax.tree.map(lambda *each: jnp.concatenate(each), *parts)


def _by_leaf(chosen: ChosenWeights, leaves: Sequence[Any]) -> list[tuple[int, np.ndarray]]:
    """Leaf by leaf, the chosen places within it; index increases, so the order is kept."""
    ends = np.cumsum([leaf.size for leaf in leaves])
    if chosen.index[-1] >= ends[-1]:
        raise ValueError(
            f"a choice of weights up to place {chosen.index[-1]} needs a tree that long, got"
            f" {ends[-1]} numbers."
        )
    owner = np.searchsorted(ends, chosen.index, side="right")
    starts = np.concatenate([[0], ends])
    return [(int(leaf), chosen.index[owner == leaf] - starts[leaf]) for leaf in np.unique(owner)]


def _layers(params: Params) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names and ranges of the layers; of a bare array, which has none, the whole of it.

    Layers without a weight stay: the names are those of every other comparison.
    """
    layers = layers_of(params)
    pooled = len(layers.names) == 1
    names = layers.names if pooled else layers.names[:-1]
    bounds = layers.bounds if pooled else layers.bounds[:-1]
    if not bounds[-1][1]:
        raise ValueError("a choice of weights needs at least one, got a tree of none.")
    return names, bounds


def _chosen(
    names: tuple[str, ...], bounds: tuple[tuple[int, int], ...], index: np.ndarray
) -> ChosenWeights:
    layer = np.searchsorted([end for _, end in bounds], index, side="right")
    return ChosenWeights(
        index=index.astype(np.int64), layer=layer.astype(np.int64), layer_names=names
    )


def _equal_shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """Weights of each layer: equal shares, what a small layer lacks goes to the others."""
    counts = np.zeros_like(sizes)
    left, order = min(total, int(sizes.sum())), np.argsort(sizes, kind="stable")
    for done, place in enumerate(order):
        counts[place] = min(sizes[place], left // (len(order) - done))
        left -= counts[place]
    return counts
