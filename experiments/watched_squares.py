"""Mean squares of gradients, carried beside any optimizer for probes to look at."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.moments import running_mean


class WatchedSquares(NamedTuple):
    """Carried by `watch_squares`: one running mean a memory, not debiased."""

    mean_squares: tuple[Params, ...]


def watch_squares(memories: tuple[float, ...]) -> optax.GradientTransformation:
    """Change nothing, and remember the mean square of the gradients with every memory b2."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return WatchedSquares(mean_squares=(zeros,) * len(memories))

    def update(updates, state, params=None):
        del params
        squares = jax.tree.map(jnp.square, updates)
        kept = zip(memories, state.mean_squares, strict=True)
        return updates, WatchedSquares(
            mean_squares=tuple(running_mean(b2, old, squares) for b2, old in kept)
        )

    return optax.GradientTransformation(init, update)


def watched_squares(opt_state: Any) -> tuple[Params, ...]:
    """What `watch_squares` has in the state of a chain."""
    return only_state(WatchedSquares, opt_state).mean_squares
