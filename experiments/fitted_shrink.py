"""The decay of the transition under which recorded streams are likeliest, one for each layer.

The likelihood is `bayesfilt.infer`'s. A layer's streams share the decay per step, and how loud
their noise is; each stream has a deviation of its own, at its best, and a resting place of its own,
integrated out: places that are estimated bias a shrink upward by some 4 over the length of the
window, however many streams share it. Neither needs a search: the log likelihood is quadratic
in the place, and all variances of a stream scale together.

The decay is looked up on a grid, so that nothing can fail to converge. Where the best is the
grid's first or last, the window does not hold the answer, and it is NaN.
"""

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.infer import Model, Streams, log_likelihood

_DROP = 1.353  # half of chi-square's 90 % quantile, one degree of freedom
_FEWEST_STEPS = 20  # a stream with fewer valid steps is left out


class Fitted(NamedTuple):
    """What the streams of one layer are likeliest under; a leading axis for many layers."""

    decay: Float[Array, "*many"]  # eta^2/(2 sigma^2), of one step of the streams; NaN at an edge
    low: Float[Array, "*many"]  # where the log likelihood is 1.35 below its highest,
    high: Float[Array, "*many"]  # as if streams were independent
    deviation: Float[Array, "*many"]  # sigma of the median stream; units of a weight
    noise: Float[Array, "*many"]  # of the median stream: noise ratio, or measurement variance
    streams: Float[Array, "*many"]  # how many had enough valid steps


class Profile(NamedTuple):
    """A stream at its likeliest scale, its place integrated out."""

    log_likelihood: Float[Array, " streams"]  # in nats, but for a constant of the stream
    scale: Float[Array, " streams"]  # stationary variance; units of a weight squared


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where the best decay and the best noise are looked for."""

    lowest: float  # decay of one step of the streams
    highest: float
    count: int = 40
    # Variance of one look at the optimum over the variance of the optimum.
    noises: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def fit_layer(model: Model, lookup: Lookup, streams: Streams) -> Fitted:
    """Find the decay that all of the streams share; pure, so that layers and runs can be mapped.

    Args:
        model: "ornstein_uhlenbeck" or "nonzero_mean"; not of Student's t.
        lookup: where to look.
        streams: of one layer; float64.
    """
    enough = jnp.sum(streams.valid, axis=1) >= _FEWEST_STEPS
    decays = jnp.geomspace(lookup.lowest, lookup.highest, lookup.count)
    noises = jnp.asarray(lookup.noises if model.noise == "free" else (0.0,))
    at = partial(best_scale, model, streams)
    profile = jax.lax.map(lambda decay: jax.vmap(partial(at, decay))(noises), decays)
    total = jnp.sum(jnp.where(enough, profile.log_likelihood, 0), axis=-1)
    row, column = jnp.unravel_index(jnp.argmax(total), total.shape)
    known = jnp.any(enough)
    found = [jnp.where(known, jnp.exp(each), jnp.nan) for each in _peak(decays, total.max(axis=1))]

    def median(values):
        return jnp.nanmedian(jnp.where(enough, values, jnp.nan))

    scale = profile.scale[row, column]
    return Fitted(
        *found,
        deviation=median(jnp.sqrt(scale)),
        noise=median(_noise_number(streams, noises[column] * scale)),
        streams=jnp.sum(enough),
    )


def best_scale(model: Model, streams: Streams, decay, noise) -> Profile:
    """Each stream at its likeliest scale, under a decay per step and a noise [INF-?]."""
    count = jnp.sum(streams.valid, axis=1)
    ones = jnp.ones(streams.observed.shape[0], streams.observed.dtype)

    def at(scale: float, place: float) -> Array:
        numbers = {
            "stationary_variance": scale * ones,
            "drift_scale": jnp.sqrt(2 * decay * scale) * ones,
        }
        if model.noise == "free":
            name = "noise_ratio" if streams.kind == "gradient" else "measurement_variance"
            numbers[name] = _noise_number(streams, noise * scale * ones)
        if model.transition == "nonzero_mean":
            numbers["towards"] = place * ones
        return log_likelihood(model, numbers, streams)

    # log likelihood = constant - count/2 log(scale) - square/(2 scale)
    here = at(1.0, 0.0)
    square = (here - at(4.0, 0.0) - count * math.log(2.0)) * -8 / 3
    constant = here + square / 2
    freedom, information = count, ones
    if model.transition == "nonzero_mean":
        up, down = at(1.0, 1.0), at(1.0, -1.0)
        information = 2 * here - up - down
        square = square - (0.5 * (up - down)) ** 2 / information
        freedom = count - 1
    scale = square / freedom
    terms = constant - 0.5 * freedom * (jnp.log(scale) + 1) - 0.5 * jnp.log(information)
    return Profile(log_likelihood=terms, scale=scale)


def _noise_number(streams: Streams, variance: Array) -> Array:
    """The model's noise number for which a look at the optimum has this variance."""
    if streams.kind == "optimum":
        return variance
    seen = jnp.maximum(jnp.sum(streams.valid, axis=1), 1)
    return variance * jnp.sum(jnp.where(streams.valid, streams.precision, 0), axis=1) / seen


def _peak(decays: Array, heights: Array) -> tuple[Array, Array, Array]:
    """Best decay, and where heights are `_DROP` lower around it, by a parabola in its logarithm."""
    logs = jnp.log(decays)
    top = jnp.argmax(heights)
    inside = (top > 0) & (top < len(decays) - 1)
    middle = jnp.clip(top, 1, len(decays) - 2)
    left, high, right = heights[middle - 1], heights[middle], heights[middle + 1]
    bend = 2 * high - left - right
    spacing = logs[1] - logs[0]
    best = jnp.where(inside, logs[middle] + 0.5 * spacing * (right - left) / bend, jnp.nan)
    reach = spacing * jnp.sqrt(2 * _DROP / bend)
    return best, best - reach, best + reach
