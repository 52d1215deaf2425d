"""The likelihood of recorded streams under a state-space model, the optima integrated out.

An exact filter walks along the streams, all side by side, and says before every step what it
expects: `predictions`. What was observed is scored by that, `step_log_densities`; their sum is the
log likelihood. So every density is that of the observed quantity itself (a gradient, or an optimum)
and models of one kind of stream are compared in the same units.

A noise other than the filters' own goes through them as [KF-8] has it: a gradient whose noise
variance is r h is, to a filter, the gradient g/r worth h/r, and an optimum y measured with variance
R is the gradient 0 at y worth 1/R. An optimum that is measured exactly leaves a variance of 0.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.filters.belief import AnyBelief, Belief, Filter
from bayesfilt.filters.ornstein_uhlenbeck import OrnsteinUhlenbeckFilter
from bayesfilt.filters.random_walk import RandomWalkFilter
from bayesfilt.filters.static import StaticFilter
from bayesfilt.filters.velocity import VelocityBelief, VelocityFilter
from bayesfilt.infer.state_space import Model, Numbers, require_fit
from bayesfilt.infer.streams import Streams
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck


class Predictions(NamedTuple):
    """What the model expects of each step, given all earlier ones; of the observed quantity."""

    mean: Float[Array, "streams steps"]
    variance: Float[Array, "streams steps"]


class Look(NamedTuple):
    """One observation as a filter takes it."""

    gradient: Float[Array, "..."]
    precision: Float[Array, "..."]  # 0 where nothing was seen
    taken_at: Float[Array, "..."]
    seen: Float[Array, "..."]


def log_likelihood(model: Model, numbers: Numbers, streams: Streams) -> Float[Array, " streams"]:
    """Log likelihood of every stream, in nats: the sum of its steps' log densities [INF-1]."""
    return jnp.sum(step_log_densities(model, numbers, streams), axis=1)


def step_log_densities(
    model: Model, numbers: Numbers, streams: Streams
) -> Float[Array, "streams steps"]:
    """Log density of each observation given all earlier ones, in nats; 0 where nothing was seen."""
    expected = predictions(model, numbers, streams)
    seen = seen_steps(streams)
    surprise = jnp.where(seen, streams.observed - expected.mean, 0)
    variance = jnp.where(seen, expected.variance, 1)
    if model.tails == "student_t":
        terms = student_t_log_density(surprise, variance, numbers["degrees_of_freedom"][:, None])
    else:
        terms = -0.5 * (math.log(2 * math.pi) + jnp.log(variance) + surprise**2 / variance)
    return jnp.where(seen, terms, 0)


def student_t_log_density(surprise, variance, degrees_of_freedom) -> Float[Array, "..."]:
    """Log density of Student's t with mean 0 and the given *variance*, for nu > 2 [INF-2]."""
    nu = degrees_of_freedom
    normaliser = jax.lax.lgamma(0.5 * (nu + 1)) - jax.lax.lgamma(0.5 * nu)
    spread = (nu - 2) * variance
    return (
        normaliser
        - 0.5 * jnp.log(math.pi * spread)
        - 0.5 * (nu + 1) * jnp.log1p(surprise**2 / spread)
    )


def predictions(model: Model, numbers: Numbers, streams: Streams) -> Predictions:
    """One-step-ahead mean and variance of the observed quantity, before each step."""
    require_fit(model, streams.kind)
    return expected(model, numbers, streams, *predicted_beliefs(model, numbers, streams))


def expected(
    model: Model, numbers: Numbers, streams: Streams, mean: Array, variance: Array
) -> Predictions:
    """What is expected of every observation where the optimum has this mean and variance."""
    noise = noise_number(model, numbers, streams)
    if streams.kind == "optimum":
        return Predictions(mean=mean, variance=variance + noise)
    seen = seen_steps(streams)
    precision = jnp.where(seen, streams.precision, 0)
    place = jnp.where(seen, streams.taken_at, 0)
    return Predictions(
        mean=precision * (place - mean), variance=precision * (noise + precision * variance)
    )


def seen_steps(streams: Streams) -> Array:
    """Whether a step says anything: valid, and for a gradient of a positive curvature."""
    return streams.valid & (streams.precision > 0) if streams.kind == "gradient" else streams.valid


def noise_number(model: Model, numbers: Numbers, streams: Streams) -> Array:
    """Noise ratio r of gradients, or measurement variance R of optima; [streams, 1]."""
    if model.noise == "free":
        name = "noise_ratio" if streams.kind == "gradient" else "measurement_variance"
        return numbers[name][:, None]
    fixed = 1.0 if streams.kind == "gradient" else 0.0
    return jnp.full((streams.observed.shape[0], 1), fixed, streams.observed.dtype)


def predicted_beliefs(model: Model, numbers: Numbers, streams: Streams) -> tuple[Array, Array]:
    """Mean and variance of the optimum before each step, [streams, steps] each."""
    filter, belief = filter_and_start(model, numbers, streams)

    def step(predicted: AnyBelief, look: Look):
        after = next_belief(model, numbers, filter, predicted, look)
        return after, (predicted.mean, predicted.variance)

    looks = jax.tree.map(jnp.transpose, looks_of(model, numbers, streams))
    _, path = jax.lax.scan(step, belief, looks)
    return path[0].T, path[1].T


def next_belief(
    model: Model, numbers: Numbers, filter: Filter, predicted: AnyBelief, look: Look
) -> AnyBelief:
    """What is believed before the next step, after one look at this one."""
    if model.noise == "none":
        conditioned = seen_exactly(predicted, look)
    else:
        conditioned = filter.condition(predicted, look.gradient, look.precision, look.taken_at)
    if model.transition == "l2":  # one more look at the prior, as an L2 penalty has it
        penalty = numbers["penalty"]
        nothing = jnp.zeros_like(penalty)
        conditioned = filter.condition(conditioned, nothing, penalty, nothing)
    return filter.predict(conditioned)


def looks_of(model: Model, numbers: Numbers, streams: Streams) -> Look:
    """Every observation as a gradient whose noise variance is its precision."""
    seen = seen_steps(streams)
    observed = jnp.where(seen, streams.observed, 0)
    noise = noise_number(model, numbers, streams)
    if streams.kind == "gradient":
        return Look(
            gradient=observed / noise,
            precision=jnp.where(seen, streams.precision, 0) / noise,
            taken_at=jnp.where(seen, streams.taken_at, 0),
            seen=seen,
        )
    worth = jnp.ones_like(noise) if model.noise == "none" else 1 / noise
    return Look(
        gradient=jnp.zeros_like(observed),
        precision=jnp.where(seen, worth, 0),
        taken_at=observed,
        seen=seen,
    )


def seen_exactly(belief: AnyBelief, look: Look) -> AnyBelief:
    """Belief after an optimum was measured without error: there, with a variance of 0."""
    mean = jnp.where(look.seen, look.taken_at, belief.mean)
    variance = jnp.where(look.seen, 0, belief.variance)
    if isinstance(belief, VelocityBelief):
        return VelocityBelief(
            mean=mean,
            velocity=belief.velocity + belief.coupling * (mean - belief.mean),
            variance=variance,
            coupling=belief.coupling,
            unexplained_variance=belief.unexplained_variance,
        )
    return Belief(mean=mean, variance=variance)


def filter_and_start(model: Model, numbers: Numbers, streams: Streams) -> tuple[Filter, AnyBelief]:
    """The model's filter, and what it believes before the first observation.

    A transition with a stationary law starts from it. The others start from N(0, v) with the
    model's own `initial_variance`: never from the data, which are scored from the first step on.
    """
    rest = jnp.zeros(streams.observed.shape[0], streams.observed.dtype)
    if model.transition == "static":
        still = StaticFilter()
        return still, still.init(rest, numbers["initial_variance"])
    if model.transition in ("random_walk", "l2"):
        walk = RandomWalkFilter(drift_scale=numbers["drift_scale"])
        return walk, walk.init(rest, numbers["initial_variance"])
    transition = OrnsteinUhlenbeck(
        drift_scale=numbers["drift_scale"], stationary_variance=numbers["stationary_variance"]
    )
    if model.transition == "velocity":
        carried = VelocityFilter(
            transition=transition,
            velocity_shrink=numbers["velocity_shrink"],
            velocity_drift_scale=numbers["velocity_drift_scale"],
        )
        return carried, carried.init(rest)
    towards = numbers["towards"] if model.transition == "nonzero_mean" else rest
    drawn = OrnsteinUhlenbeckFilter(transition=transition, towards=towards)
    return drawn, drawn.init(towards)
