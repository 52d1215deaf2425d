"""What an exact filter believes before every step of recorded streams, all streams side by side.

The recursion is that of `bayesfilt.filters`, equation by equation, and is tested against each of
them. It is written once more here for the sake of its derivative: a sampler asks for that tens of
thousands of times, and reverse-mode differentiation of a loop keeps every intermediate number of
every step. For the filters with one mean and one variance a weight the derivative has a short
recursion of its own that runs backwards and needs nothing but the beliefs [INF-4]. The velocity
filter, with five numbers a weight, is differentiated as it stands.

Everything here is [steps, streams]. A look at the optimum is told by what it adds to 1/variance,
`worth`, and to mean/variance, `pull`: for a gradient g of noise variance r h, taken at w, they are
h/r and (h w - g)/r [KF-8]; for an optimum y measured with variance R, 1/R and y/R.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bayesfilt.filters.belief import Belief
from bayesfilt.filters.diagonal import predicted_mean
from bayesfilt.filters.velocity import VelocityBelief, VelocityFilter
from bayesfilt.infer.state_space import Model, Numbers
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck, exact_shrink, process_variance
from bayesfilt.theory.riccati import conditioned_variance, relaxed_variance


class Looks(NamedTuple):
    """Looks at the optimum, of one step or with a leading axis of steps."""

    worth: Float[Array, "..."]  # precision, 0 where nothing was seen; 1/weight²
    pull: Float[Array, "..."]  # worth times where the optimum was seen; 1/weight
    exact: Bool[Array, "..."] | None = None  # where it was seen without any error ...
    place: Float[Array, "..."] | None = None  # ... and where that was; 0 elsewhere


class Drift(NamedTuple):
    """How an optimum moves in a step, w' = w - shrink w + offset + noise; one for each stream."""

    shrink: Float[Array, " streams"]  # 1 - a
    rate: Float[Array, " streams"]  # 1 - a², with all its digits
    growth: Float[Array, " streams"]  # variance of the noise; weight²
    offset: Float[Array, " streams"]  # shrink times what it is drawn to; weight


def predicted_path(
    model: Model, numbers: Numbers, looks: Looks
) -> tuple[Float[Array, "steps streams"], Float[Array, "steps streams"]]:
    """Mean and variance of the optimum before each step, given all earlier looks."""
    if model.transition != "velocity":
        start = first_belief(model, numbers)
        return _scalar_path(drift_of(model, numbers), start, looks)

    def step(belief: VelocityBelief, look: Looks):
        return next_belief(model, numbers, belief, look), (belief.mean, belief.variance)

    _, path = jax.lax.scan(step, first_belief(model, numbers), looks)
    return path


def first_belief(model: Model, numbers: Numbers) -> Any:
    """What is believed before the first look, of every stream.

    A model with an `initial_variance` v starts from N(0, v): 0 is where weights come from, and
    nothing of the streams is used, because they are scored from their first step on. The others
    start from the stationary law of their transition.
    """
    if model.transition == "velocity":
        return _velocity_filter(numbers).init(jnp.zeros_like(numbers["drift_scale"]))
    variance = start_variance(numbers)
    mean = numbers["towards"] if model.transition == "nonzero_mean" else jnp.zeros_like(variance)
    return Belief(mean=mean, variance=variance)


def start_variance(numbers: Numbers) -> Float[Array, " streams"]:
    """Variance of the optimum before the first look; of every transition but a velocity."""
    own = "initial_variance" in numbers
    return numbers["initial_variance" if own else "stationary_variance"]


def next_belief(model: Model, numbers: Numbers, belief: Any, look: Looks) -> Any:
    """What is believed before the next step, after one look at this one."""
    if model.transition != "velocity":
        return _next_scalar(drift_of(model, numbers), belief, look)
    filter = _velocity_filter(numbers)
    nothing = jnp.zeros_like(look.pull)
    conditioned = filter.condition(belief, -look.pull, look.worth, nothing)
    if look.exact is not None and look.place is not None:
        mean = jnp.where(look.exact, look.place, conditioned.mean)
        conditioned = VelocityBelief(
            mean=mean,
            velocity=conditioned.velocity + belief.coupling * (mean - conditioned.mean),
            variance=jnp.where(look.exact, 0, conditioned.variance),
            coupling=conditioned.coupling,
            unexplained_variance=conditioned.unexplained_variance,
        )
    return filter.predict(conditioned)


def drift_of(model: Model, numbers: Numbers) -> Drift:
    """Exact one-step drift of a model's optima, but for a velocity."""
    if "stationary_variance" not in numbers:
        nothing = jnp.zeros_like(numbers["initial_variance"])
        move = numbers.get("drift_scale", nothing)
        return Drift(shrink=nothing, rate=nothing, growth=jnp.square(move), offset=nothing)
    pair = numbers["drift_scale"], numbers["stationary_variance"]
    shrink, growth = exact_shrink(*pair), process_variance(*pair)
    return Drift(
        shrink=shrink,
        rate=growth / numbers["stationary_variance"],
        growth=growth,
        offset=shrink * numbers.get("towards", jnp.zeros_like(shrink)),
    )


def _velocity_filter(numbers: Numbers) -> VelocityFilter:
    return VelocityFilter(
        transition=OrnsteinUhlenbeck(
            drift_scale=numbers["drift_scale"], stationary_variance=numbers["stationary_variance"]
        ),
        velocity_shrink=numbers["velocity_shrink"],
        velocity_drift_scale=numbers["velocity_drift_scale"],
    )


def _next_scalar(drift: Drift, belief: Belief, look: Looks) -> Belief:
    """Condition and predict, one mean and variance a stream [KF-1, KF-2, KF-3, KF-4]."""
    mean, variance = _conditioned(belief.mean, belief.variance, look)[:2]
    return Belief(
        mean=predicted_mean(mean, drift.shrink) + drift.offset,
        variance=relaxed_variance(variance, drift.growth, drift.rate),
    )


def _conditioned(mean: Array, variance: Array, look: Looks) -> tuple[Array, Array, Array]:
    """Mean and variance after a look, and the share of the old mean that is left in the new."""
    after = conditioned_variance(variance, look.worth)
    left = 1 / (1 + variance * look.worth)
    if look.exact is None or look.place is None:
        return left * mean + after * look.pull, after, left
    after, left = jnp.where(look.exact, 0, after), jnp.where(look.exact, 0, left)
    return left * mean + after * look.pull + look.place, after, left


def _walked(drift: Drift, start: Belief, looks: Looks) -> tuple[Array, Array]:
    """`predicted_path` where a belief is one mean and one variance."""

    def step(belief: Belief, look: Looks):
        return _next_scalar(drift, belief, look), (belief.mean, belief.variance)

    return jax.lax.scan(step, start, looks)[1]


_scalar_path = jax.custom_vjp(_walked)  # with the derivative below; backwards, or forwards over it


def _scalar_path_kept(drift: Drift, start: Belief, looks: Looks):
    path = _walked(drift, start, looks)  # not itself again: a Hessian goes forwards through this
    return path, (drift, looks, path)


def _scalar_path_pulled_back(kept, cotangents):
    r"""Derivative of a function of the path in all that the path is made of [INF-4].

    With x the share of the mean that is left, p and m⁺ the conditioned variance and mean, b the
    pull, w the worth, and M and N the derivatives in the mean and variance before the next step,
    those before this step have

        M ← M̄ + (1 - s) x M,   N ← N̄ + (1 - ρ) x² N + (1 - s) x² (b - w m) M.
    """
    drift, looks, (mean, variance) = kept
    after_mean, after, left = _conditioned(mean, variance, looks)
    kept_mean, kept_variance = 1 - drift.shrink, 1 - drift.rate
    rates = (
        kept_mean * left,
        kept_variance * left**2,
        kept_mean * left**2 * (looks.pull - looks.worth * mean),
    )

    def step(later, now):
        (of_mean, of_variance), (mean_bar, variance_bar, same, spread, shift) = later, now
        earlier = (
            mean_bar + same * of_mean,
            variance_bar + spread * of_variance + shift * of_mean,
        )
        return earlier, later

    nothing = jnp.zeros(mean.shape[1:], mean.dtype)
    first, (of_mean, of_variance) = jax.lax.scan(
        step, (nothing, nothing), (*cotangents, *rates), reverse=True
    )
    of_drift = Drift(
        shrink=-jnp.sum(after_mean * of_mean, axis=0),
        rate=-jnp.sum(after * of_variance, axis=0),
        growth=jnp.sum(of_variance, axis=0),
        offset=jnp.sum(of_mean, axis=0),
    )
    pulled = kept_mean * after * of_mean
    of_looks = Looks(
        worth=-pulled * after_mean - kept_variance * after**2 * of_variance,
        pull=pulled,
        exact=None,
        place=None if looks.place is None else kept_mean * of_mean,
    )
    return of_drift, Belief(mean=first[0], variance=first[1]), of_looks


_scalar_path.defvjp(_scalar_path_kept, _scalar_path_pulled_back)
