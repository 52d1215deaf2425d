"""The decay of the transition under which recorded streams are likeliest, one for each layer.

The likelihood is `bayesfilt.infer`'s. A layer's streams share the decay per step, and how loud
their noise is; each stream has a deviation of its own, at its best, and a resting place of its own,
integrated out: places that are estimated bias a decay upward by some 4 over the length of the
window, however many streams share it. Neither needs a search: the log likelihood is quadratic
in the place, and all variances of a stream scale together.

A stream that shrinks to zero starts anywhere, and only what it does from there on counts: recorded
weights are on their way, and a start that were taken for a draw of the stationary law would fix
that law, and with it the decay, whatever the weights do later.

The decay is looked up on a grid and on finer ones, so that nothing can fail to converge. Where the
best is the grid's first or last, the window does not hold the answer, but a bound of it.
"""

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.infer import Model, Streams, draw_streams, log_likelihood, predictions

_DROP = 1.353  # half of chi-square's 90 % quantile, one degree of freedom
_AROUND = np.linspace(-1, 1, 9)  # where the later looks are, around the one before
_ANYWHERE = 1e6  # variance of a start that says nothing, over the stationary one
FEWEST_STREAMS = 4  # a layer with fewer that can be used has no fit


class Fitted(NamedTuple):
    """What the streams of one layer are likeliest under; a leading axis for many layers."""

    decay: Float[Array, "*many"]  # eta^2/(2 sigma^2), of one step of the streams
    low: Float[Array, "*many"]  # where the log likelihood is 1.35 below its highest,
    high: Float[Array, "*many"]  # as if streams were independent; NaN at an edge
    edge: Float[Array, "*many"]  # -1: the decay is the lowest there is, or less; 1: the highest
    deviation: Float[Array, "*many"]  # sigma of the median stream; units of a weight
    noise: Float[Array, "*many"]  # variance of a look at the optimum over that of the optimum
    autocorrelation: Float[Array, "*many"]  # of the innovations, one step apart; 0: as modelled
    streams: Float[Array, "*many"]  # how many could be used


class Profile(NamedTuple):
    """A stream at its likeliest scale and place."""

    log_likelihood: Float[Array, " streams"]  # nats, place integrated out, but for a constant
    scale: Float[Array, " streams"]  # stationary variance; units of a weight squared
    place: Float[Array, " streams"]  # where the optimum rests; 0 for a model that shrinks to it


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where the best decay, and the best noise, are looked for."""

    lowest: float  # decay of one step of the streams
    highest: float = 3.0
    count: int = 32
    noises: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # geometric


@partial(jax.jit, static_argnames=("model", "lookup"))
def fit_layers(model: Model, lookup: Lookup, streams: Streams) -> Fitted:
    """Fit many layers, each on its own: `fit_layer` over the streams' leading axis."""
    return jax.lax.map(partial(fit_layer, model, lookup), streams)


def fit_layer(model: Model, lookup: Lookup, streams: Streams) -> Fitted:
    """Find the decay that all streams share.

    Args:
        model: "shrinking_walk", "ornstein_uhlenbeck" or "nonzero_mean"; not of Student's t.
        lookup: where to look. A noise is the variance of one look at the optimum, at the stream's
            mean curvature, over the variance of the optimum.
        streams: of one layer; float64. One without a valid step is left out.
    """
    used = jnp.any(streams.valid, axis=1)
    decays = jnp.geomspace(lookup.lowest, lookup.highest, lookup.count)
    free = model.noise == "free"
    noises = jnp.asarray(lookup.noises if free else (0.0,))
    step, noise_step = decays[1] / decays[0], lookup.noises[1] / lookup.noises[0]

    def look(decays: Array, noises: Array) -> tuple[Profile, Array]:
        """Profiles, and their sums, at (decays, noises)."""
        at = partial(best_scale, model, streams)
        found = jax.lax.map(lambda decay: jax.vmap(partial(at, decay))(noises), decays)
        return found, jnp.sum(jnp.where(used, found.log_likelihood, 0), axis=-1)

    def look_around(best: tuple[Array, Array], width: Array):
        """The same around the best so far: a noise that is off by 2 shifts the decay by as much."""
        decays = best[0] * step ** (3 * width * _AROUND)
        noises = best[1] * noise_step ** (width * (_AROUND if free else _AROUND[:1]))
        found, total = look(decays, noises)
        row, column = jnp.unravel_index(jnp.argmax(total), total.shape)
        scale, place = found.scale[row, column], found.place[row, column]
        return (decays[row], noises[column]), (decays, total, scale, place)

    _, total = look(decays, noises)
    row, column = jnp.unravel_index(jnp.argmax(total), total.shape)
    best, looks = jax.lax.scan(look_around, (decays[row], noises[column]), jnp.array([1.0, 0.25]))
    decays, total, scale, place = jax.tree.map(lambda each: each[-1], looks)
    decay, noise = best
    numbers = numbers_at(model, streams, decay, noise, scale, place)
    found = jnp.stack(
        [
            *_decay_between(lookup, decays, jax.vmap(_height)(total)),
            jnp.nanmedian(jnp.where(used, jnp.sqrt(scale), jnp.nan)),
            noise,
            _autocorrelation(model, numbers, streams),
        ]
    )
    known = jnp.sum(used) >= FEWEST_STREAMS
    return Fitted(*jnp.where(known, found, jnp.nan), streams=jnp.sum(used) * 1.0)


def best_scale(model: Model, streams: Streams, decay, noise) -> Profile:
    """Each stream at its likeliest scale and place, under a decay per step and a noise."""
    count = jnp.sum(streams.valid, axis=1)
    ones = jnp.ones(streams.observed.shape[0], streams.observed.dtype)

    def at(scale: Array, place: Array) -> Array:
        numbers = numbers_at(model, streams, decay, noise, scale * ones, place * ones)
        return log_likelihood(model, numbers, streams)

    # log likelihood = constant - count/2 log(scale) - square/(2 scale)
    shrinks_to_zero = model.transition != "nonzero_mean"
    places = jnp.array([0.0, 0.0] if shrinks_to_zero else [0.0, 0.0, 1.0, -1.0])
    scales = jnp.ones_like(places).at[1].set(4.0)
    here, wide, *others = jax.vmap(at)(scales, places)
    square = (here - wide - count * math.log(2.0)) * -8 / 3
    constant = here + square / 2
    place, information, freedom = 0 * ones, ones, count
    if model.transition == "shrinking_walk":
        freedom = count - 1  # the first says nothing: its variance does not count as a scale's
    if not shrinks_to_zero:
        # square = its lowest + information (place - best place)^2; a flat prior of the place
        up, down = others
        information = 2 * here - up - down
        place = 0.5 * (up - down) / information
        square = square - information * place**2
        freedom = count - 1
    scale = square / freedom
    terms = constant - 0.5 * freedom * (jnp.log(scale) + 1) - 0.5 * jnp.log(information)
    return Profile(log_likelihood=terms, scale=scale, place=place)


def numbers_at(
    model: Model, streams: Streams, decay, noise, scale: Array, place: Array, start=None
) -> dict[str, Array]:
    """The model's numbers, one for each stream, from those that are looked up.

    Args:
        model: as in `fit_layer`.
        streams: whose mean curvature turns a look's variance into a ratio of gradient noise.
        decay: of one step of the streams.
        noise: variance of a look at the optimum over `scale`.
        scale: stationary variance.
        place: where the optimum rests.
        start: variance of where it begins, of a model that has one; None: anywhere.
    """
    numbers = {
        "stationary_variance": scale,
        "drift_scale": jnp.sqrt(2 * decay * scale),
    }
    if model.transition == "nonzero_mean":
        numbers["towards"] = place
    if model.transition == "shrinking_walk":
        if start is None:  # as wide at the first step that was seen, however late that is
            first = jnp.argmax(streams.valid, axis=1)
            start = _ANYWHERE * scale * jnp.exp(2 * decay * first)
        numbers["initial_variance"] = start
    if model.noise == "free" and streams.kind == "optimum":
        numbers["measurement_variance"] = noise * scale
    elif model.noise == "free":
        seen = jnp.maximum(jnp.sum(streams.valid, axis=1), 1)
        curvature = jnp.sum(jnp.where(streams.valid, streams.precision, 0), axis=1) / seen
        # Of a stream that is not used any positive number will do.
        numbers["noise_ratio"] = jnp.where(curvature > 0, noise * scale * curvature, 1.0)
    return numbers


@partial(jax.jit, static_argnames="model")
def draw_layers(
    key: PRNGKeyArray,
    model: Model,
    decay: Float[Array, " many"],
    noise: Float[Array, " many"],
    deviation: Float[Array, " many"],
    streams: Streams,
) -> Streams:
    """Layers drawn from the model with known numbers, seen where and as sharply as `streams`.

    A stream that may start anywhere starts as far out as the recorded one does.
    """

    def one(key, decay, noise, deviation, streams: Streams) -> Streams:
        seen = jnp.maximum(jnp.sum(streams.valid, axis=1), 1)
        where = streams.observed if streams.kind == "optimum" else streams.taken_at
        place = jnp.sum(jnp.where(streams.valid, where, 0), axis=1) / seen
        scale = jnp.full_like(place, 1.0) * deviation**2
        first = jnp.argmax(streams.valid, axis=1)[:, None]
        begun = jnp.take_along_axis(jnp.where(streams.valid, where, 0), first, axis=1)[:, 0]
        numbers = numbers_at(model, streams, decay, noise, scale, place, start=begun**2)
        return draw_streams(key, model, numbers, streams)

    return jax.vmap(one)(jax.random.split(key, len(decay)), decay, noise, deviation, streams)


def _autocorrelation(model: Model, numbers: dict[str, Array], streams: Streams) -> Array:
    """Lag-1 autocorrelation of the innovations, over all streams: 0 if the model is right."""
    expected = predictions(model, numbers, streams)
    surprise = (streams.observed - expected.mean) / jnp.sqrt(expected.variance)
    surprise = jnp.where(streams.valid, surprise, 0)
    return jnp.sum(surprise[:, 1:] * surprise[:, :-1]) / jnp.sum(surprise**2)


def _height(values: Array) -> Array:
    """Highest of the parabola through the highest value and its neighbours; of few, the highest."""
    if len(values) < 3:
        return jnp.max(values)
    middle = jnp.clip(jnp.argmax(values), 1, len(values) - 2)
    left, high, right = values[middle - 1], values[middle], values[middle + 1]
    bend = 2 * high - left - right
    rise = (right - left) ** 2 / (8 * bend)
    return jnp.where(high >= jnp.maximum(left, right), high + jnp.nan_to_num(rise), values.max())


def _decay_between(
    lookup: Lookup, decays: Array, heights: Array
) -> tuple[Array, Array, Array, Array]:
    """Best decay, by a parabola in its logarithm, where that is `_DROP` lower, and which edge."""
    logs = jnp.log(decays)
    middle = jnp.clip(jnp.argmax(heights), 1, len(decays) - 2)
    left, high, right = heights[middle - 1], heights[middle], heights[middle + 1]
    bend = 2 * high - left - right
    spacing = logs[1] - logs[0]
    best = logs[middle] + 0.5 * spacing * jnp.clip((right - left) / bend, -1, 1)
    found = jnp.clip(jnp.exp(best), lookup.lowest, lookup.highest)
    edge = 1.0 * (found >= lookup.highest) - (found <= lookup.lowest)
    reach = jnp.where(edge == 0, spacing * jnp.sqrt(2 * _DROP / bend), jnp.nan)
    return found, jnp.exp(best - reach), jnp.exp(best + reach), edge
