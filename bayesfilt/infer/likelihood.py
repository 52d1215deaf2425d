"""The likelihood of recorded streams under a state-space model, the optima integrated out.

An exact filter walks along the streams, all side by side, and says before every step what it
expects (`predictions`). What was observed is scored by that (`step_log_densities`); the sum is the
log likelihood. Every density is that of the observed quantity itself, a gradient or an optimum, so
that all models of one kind of stream are compared in the same units.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bayesfilt.infer.belief_path import Looks, predicted_path
from bayesfilt.infer.state_space import FREE_NOISE, Model, Numbers, require_fit
from bayesfilt.infer.streams import Streams


class Predictions(NamedTuple):
    """What the model expects of each step, given all earlier ones; of the observed quantity.

    Units: of a gradient of the summed loss, 1/weight, or of a weight; and their squares.
    """

    mean: Float[Array, "streams steps"]
    variance: Float[Array, "streams steps"]


class Record(NamedTuple):
    """Streams with the steps first, 0 wherever nothing was seen."""

    observed: Float[Array, "*steps streams"]
    precision: Float[Array, "*steps streams"]  # of gradients; 1 for optima
    taken_at: Float[Array, "*steps streams"]
    seen: Bool[Array, "*steps streams"]


def log_likelihood(model: Model, numbers: Numbers, streams: Streams) -> Float[Array, " streams"]:
    """Log likelihood of every stream, in nats, ∑ log p(y_t | y_<t), exactly [INF-1].

    Differentiable in the numbers, with a derivative that costs about as much again; under vmap
    too. In the streams' own floating type. A stream that the numbers make impossible is -inf or
    NaN, never an exception.

    Args:
        model: static.
        numbers: of `parameter_names(model, streams.kind)`, one for each stream.
        streams: as `check_streams` gives them.

    Raises:
        ValueError: a noise that this kind of stream does not have.
    """
    return jnp.sum(_scored(model, numbers, streams), axis=0)


def step_log_densities(
    model: Model, numbers: Numbers, streams: Streams
) -> Float[Array, "streams steps"]:
    """Log density of each observation given all earlier ones, in nats; 0 where nothing was seen.

    Arguments as for `log_likelihood`, which is their sum.
    """
    return _scored(model, numbers, streams).T


def predictions(model: Model, numbers: Numbers, streams: Streams) -> Predictions:
    """Mean and variance of each observation given all earlier ones.

    Arguments as for `log_likelihood`. Where nothing was seen, an optimum is predicted as anywhere
    else; of a gradient without a known curvature nothing can be said: 0 and 0.
    """
    record = record_of(streams)
    expected = _expected_path(model, numbers, streams, record)
    return Predictions(mean=expected.mean.T, variance=expected.variance.T)


def record_of(streams: Streams) -> Record:
    """Streams as the recursions read them."""
    seen = seen_steps(streams)

    def hide(field: Array) -> Array:
        return jnp.where(seen, field, 0).T

    return Record(
        observed=hide(streams.observed),
        precision=hide(streams.precision),
        taken_at=hide(streams.taken_at),
        seen=seen.T,
    )


def seen_steps(streams: Streams) -> Bool[Array, "streams steps"]:
    """Whether a step says anything: it is valid, and a gradient has a curvature above 0."""
    return streams.valid & (streams.precision > 0) if streams.kind == "gradient" else streams.valid


def noise_number(model: Model, numbers: Numbers, kind: str) -> Float[Array, " *streams"]:
    """Noise ratio r of gradients, 1 if matched; or variance R of measured optima, 0 if none."""
    if model.noise == "free":
        return numbers[FREE_NOISE[kind]]
    return jnp.asarray(1.0 if kind == "gradient" else 0.0)


def looks_of(model: Model, numbers: Numbers, kind: str, record: Record) -> Looks:
    """Every observation as a look at the optimum [KF-8]."""
    if model.noise == "none":
        exact, place = record.seen, record.observed
        worth = pull = jnp.zeros_like(place)
    elif kind == "gradient":
        exact = place = None
        worth, pull = record.precision, record.precision * record.taken_at - record.observed
        if model.noise == "free":
            worth, pull = worth / numbers["noise_ratio"], pull / numbers["noise_ratio"]
    else:
        exact = place = None
        variance = numbers["measurement_variance"]
        worth, pull = jnp.where(record.seen, 1 / variance, 0), record.observed / variance
    if model.transition == "l2":  # the prior is looked at once more, at every step
        worth = worth + numbers["penalty"]
    return Looks(worth=worth, pull=pull, exact=exact, place=place)


def expected(
    model: Model, numbers: Numbers, kind: str, record: Record, mean: Array, variance: Array
) -> Predictions:
    """What is expected of an observation where the optimum has this mean and variance [KF-6]."""
    noise = noise_number(model, numbers, kind).astype(mean.dtype)
    if kind == "optimum":
        return Predictions(mean=mean, variance=variance + noise)
    h = record.precision
    return Predictions(mean=h * (record.taken_at - mean), variance=h * (noise + h * variance))


def student_t_log_density(
    surprise: Float[Array, " *dims"],
    variance: Float[Array, " *dims"],
    degrees_of_freedom: Float[Array, " *#dims"],
) -> Float[Array, " *dims"]:
    """Log density of Student's t with mean 0 and the given *variance*, for nu > 2 [INF-2].

    Its scale is √(variance (nu - 2)/nu); for nu → ∞ it is N(0, variance).
    """
    nu = degrees_of_freedom
    normaliser = jax.lax.lgamma(0.5 * (nu + 1)) - jax.lax.lgamma(0.5 * nu)
    spread = (nu - 2) * variance
    tail = -0.5 * (nu + 1) * jnp.log1p(jnp.square(surprise) / spread)
    return normaliser - 0.5 * jnp.log(math.pi * spread) + tail


def _expected_path(model: Model, numbers: Numbers, streams: Streams, record: Record) -> Predictions:
    """Predictions with the steps first."""
    require_fit(model, streams.kind)
    path = predicted_path(model, numbers, looks_of(model, numbers, streams.kind, record))
    return expected(model, numbers, streams.kind, record, *path)


def _scored(model: Model, numbers: Numbers, streams: Streams) -> Float[Array, "steps streams"]:
    """Log densities with the steps first."""
    record = record_of(streams)
    foreseen = _expected_path(model, numbers, streams, record)
    surprise = jnp.where(record.seen, record.observed - foreseen.mean, 0)
    variance = jnp.where(record.seen, foreseen.variance, 1)  # before the log, for its derivative
    if model.tails == "student_t":
        terms = student_t_log_density(surprise, variance, numbers["degrees_of_freedom"])
    else:
        squared = jnp.square(surprise) / variance
        terms = -0.5 * (math.log(2 * math.pi) + jnp.log(variance) + squared)
    return jnp.where(record.seen, terms, 0)
