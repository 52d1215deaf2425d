"""What each draw of the posterior says of each step before it saw it.

All draws times all streams times all steps are soon gigabytes, so sums are kept: per step within
a layer (what leaves the future out) and per stream (what leaves a stream out).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from bayesfilt.infer.likelihood import predictions, step_log_densities
from bayesfilt.infer.models import numbers_of
from bayesfilt.infer.state_space import Model
from bayesfilt.infer.streams import Streams


class Pointwise(NamedTuple):
    """Sequential log densities log p(y_t | y_<t) of draws, and what was foreseen."""

    per_step: Float[Array, "draws layers steps"]  # summed over the streams of a layer
    per_stream: Float[Array, "draws streams"]  # summed over the steps
    every: Float[Array, "draws streams steps"] | None  # unsummed, if asked for
    one_step_mean: Float[Array, "streams steps"]  # of the draws' mixture
    one_step_variance: Float[Array, "streams steps"]  # of the draws' mixture


def pointwise(
    model: Model, draws: Mapping[str, ArrayLike], streams: Streams, *, every: bool = False
) -> Pointwise:
    """Run the filter once for each draw.

    Args:
        model: the model the draws are of.
        draws: its deterministic sites, [draws, ...].
        streams: the data that the draws were conditioned on, or others of the same layers.
        every: whether the densities that are summed are wanted too.

    Returns:
        `Pointwise`. A step that is not valid counts 0. The one-step variance is the mean of the
        draws' own variances plus the variance of their means.
    """
    return _program(model, every)(draws, streams)


@functools.lru_cache(maxsize=64)
def _program(model: Model, every: bool) -> Callable[..., Any]:
    def one_draw(carry, draw, streams: Streams):
        count, mean, spread, variance = carry
        numbers = numbers_of(model, draw, streams)
        densities = step_log_densities(model, numbers, streams)
        foreseen = predictions(model, numbers, streams)
        by_layer = jax.ops.segment_sum(densities, streams.layer, len(streams.layer_names))
        # Welford's running mean and sum of squares: no difference of large numbers.
        away = foreseen.mean - mean
        mean = mean + away / (count + 1)
        spread = spread + away * (foreseen.mean - mean)
        carry = (count + 1, mean, spread, variance + foreseen.variance)
        return carry, (by_layer, densities.sum(axis=1), densities if every else None)

    def all_draws(draws, streams: Streams) -> Pointwise:
        nothing = jnp.zeros_like(streams.observed)
        start = (jnp.zeros((), nothing.dtype), nothing, nothing, nothing)
        end, (per_step, per_stream, unsummed) = jax.lax.scan(
            lambda carry, draw: one_draw(carry, draw, streams), start, draws
        )
        count, mean, spread, variance = end
        return Pointwise(
            per_step=per_step,
            per_stream=per_stream,
            every=unsummed,
            one_step_mean=mean,
            one_step_variance=(spread + variance) / count,
        )

    return jax.jit(all_draws)


def evenly(num_draws: int, most: int) -> np.ndarray:
    """Indices of at most `most` draws, evenly spread over a chain, its last among them."""
    return np.unique(np.linspace(num_draws - 1, 0, min(most, num_draws)).round().astype(int))
