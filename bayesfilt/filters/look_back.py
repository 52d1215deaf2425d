"""What an optimum was, given where it went: one step backwards in time.

A filter knows at each step what the gradients up to there say. How an optimum moves to the
next step is linear and Gaussian, so the other way round is too: given where it is one step
*later*, the optimum is Gaussian around

    conditioned mean + gain (later - predicted mean)

with a gain and a covariance `left` that no later gradient changes. `look_back` makes that of a
filter and what it believes after a gradient; `smoother` walks back with it. A filter of your own
joins with `look_back.register(YourFilter)`.

Only sums of terms >= 0 make a covariance here, and where there is no variance to divide by, nothing
is passed back: optima that are known, or do not drift, are safe.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from bayesfilt.filters.belief import AnyBelief, Belief, Filter
from bayesfilt.filters.diagonal import DiagonalFilter, PerWeight, like_leaf
from bayesfilt.filters.full import FullBelief, FullFilter, full_drift, raveled, unraveled
from bayesfilt.filters.noise_ratio import NoiseRatioFilter
from bayesfilt.filters.ornstein_uhlenbeck import OrnsteinUhlenbeckFilter
from bayesfilt.filters.random_walk import RandomWalkFilter
from bayesfilt.filters.static import StaticFilter
from bayesfilt.theory.ornstein_uhlenbeck import exact_shrink, process_variance
from bayesfilt.theory.semidefinite import on_its_range, symmetrised


class PosteriorPath(NamedTuple):
    """One draw of the latent: the optimum of every weight, and its velocity if it has one."""

    optimum: PyTree[Float[Array, "..."]]
    velocity: PyTree[Float[Array, "..."]] | None


@runtime_checkable
class LookBack(Protocol):
    """One step backwards: what is left to know of an optimum once its successor is known."""

    def given(self, later: PosteriorPath) -> AnyBelief:
        """Belief about this step if the next one is known to be `later`."""
        ...

    def smoothed(self, later: AnyBelief) -> tuple[AnyBelief, PyTree]:
        """Belief about this step from one about the next, and the covariance of the two optima."""
        ...


@functools.singledispatch
def look_back(filter: Filter, conditioned: AnyBelief) -> LookBack:
    """Step backwards from the next optimum to the one that `conditioned` is about.

    Raises:
        ValueError: a filter whose belief is not what its model says (the steady-state filter),
            or an unknown one.
    """
    del conditioned
    known = ", ".join(sorted(kind.__name__ for kind in look_back.registry if kind is not object))
    raise ValueError(f"Looking back is known for {known}; got a {type(filter).__name__}.")


@functools.singledispatch
def draw_latent(belief: AnyBelief, key: PRNGKeyArray) -> PosteriorPath:
    """One optimum for every weight, drawn from a belief."""
    known = ", ".join(sorted(kind.__name__ for kind in draw_latent.registry if kind is not object))
    raise ValueError(f"Drawing is known for {known}; got a {type(belief).__name__}.")


# One number per weight.


def backward_gain(variance: PerWeight, predicted_variance: PerWeight, shrink: PerWeight) -> Array:
    """Share of a later surprise that belongs to this step, (1 - s) v/v' [SM-1].

    Args:
        variance: v of the conditioned belief; weight².
        predicted_variance: v' one step later; weight². Where it is 0 so is the gain.
        shrink: s in [0, 1], of the drift.
    """
    return (1 - shrink) * ratio(variance, predicted_variance)


def variance_left(variance: PerWeight, predicted_variance: PerWeight, growth: PerWeight) -> Array:
    """Variance of the optimum if it is known where it went, v q/v' [SM-1].

    Equal to v - J²v' with J the backward gain, and without the difference.

    Args:
        variance: v of the conditioned belief; weight².
        predicted_variance: v' = (1 - s)² v + q, one step later; weight².
        growth: q >= 0, variance that the drift adds; weight².
    """
    return growth * ratio(variance, predicted_variance)


class DiagonalLookBack(NamedTuple):
    """One step backwards, each weight by itself; trees like the weights."""

    mean: PyTree[Float[Array, "..."]]  # of the conditioned belief
    predicted_mean: PyTree[Float[Array, "..."]]
    gain: PyTree[Float[Array, "..."]]
    left: PyTree[Float[Array, "..."]]

    def given(self, later: PosteriorPath) -> Belief:
        """Belief about this step if the next optimum is known."""
        mean = jax.tree.map(_moved_mean, self.mean, self.gain, later.optimum, self.predicted_mean)
        return Belief(mean=mean, variance=self.left)

    def smoothed(self, later: Belief) -> tuple[Belief, PyTree]:
        """Belief about this step given all gradients, and its covariance with the next."""
        mean = jax.tree.map(_moved_mean, self.mean, self.gain, later.mean, self.predicted_mean)
        lag = jax.tree.map(jnp.multiply, self.gain, later.variance)
        variance = jax.tree.map(lambda left, j, c: left + j * c, self.left, self.gain, lag)
        return Belief(mean=mean, variance=variance), lag


def diagonal_look_back(
    filter: Filter, conditioned: Belief, shrink: PerWeight, growth: PerWeight
) -> DiagonalLookBack:
    """Step backwards for any filter of one number per weight, w*' = (1 - s) w* + c + N(0, q)."""
    predicted = filter.predict(conditioned)

    def gain(variance: Array, later: Array) -> Array:
        return backward_gain(variance, later, like_leaf(variance, shrink))

    def left(variance: Array, later: Array) -> Array:
        return variance_left(variance, later, like_leaf(variance, growth))

    return DiagonalLookBack(
        mean=conditioned.mean,
        predicted_mean=predicted.mean,
        gain=jax.tree.map(gain, conditioned.variance, predicted.variance),
        left=jax.tree.map(left, conditioned.variance, predicted.variance),
    )


@look_back.register(DiagonalFilter)
@look_back.register(OrnsteinUhlenbeckFilter)
@look_back.register(NoiseRatioFilter)
def _(
    filter: DiagonalFilter | OrnsteinUhlenbeckFilter | NoiseRatioFilter, conditioned: Belief
) -> DiagonalLookBack:
    shrink, growth = exact_shrink(*filter.transition), process_variance(*filter.transition)
    return diagonal_look_back(filter, conditioned, shrink, growth)


@look_back.register
def _(filter: RandomWalkFilter, conditioned: Belief) -> DiagonalLookBack:
    return diagonal_look_back(filter, conditioned, 0.0, jnp.square(filter.drift_scale))


@look_back.register
def _(filter: StaticFilter, conditioned: Belief) -> DiagonalLookBack:
    return diagonal_look_back(filter, conditioned, 0.0, 0.0)


@draw_latent.register
def _(belief: Belief, key: PRNGKeyArray) -> PosteriorPath:
    (noise,) = noise_like(belief.mean, key, count=1)
    optimum = jax.tree.map(drawn, belief.mean, belief.variance, noise)
    return PosteriorPath(optimum=optimum, velocity=None)


# All weights together.


class FullLookBack(NamedTuple):
    """One step backwards for all weights together: J = (1 - s) P P'⁻¹ on the range of P' [SM-3].

    What is left is (I - (1 - s) J) P (I - (1 - s) J)ᵀ + J Q Jᵀ.
    """

    mean: PyTree[Float[Array, "..."]]  # of the conditioned belief
    predicted_mean: PyTree[Float[Array, "..."]]
    gain: Float[Array, "n n"]
    left: Float[Array, "n n"]

    def given(self, later: PosteriorPath) -> FullBelief:
        """Belief about this step if the next optima are known."""
        return FullBelief(mean=self._moved(later.optimum), covariance=self.left)

    def smoothed(self, later: FullBelief) -> tuple[FullBelief, Array]:
        """Belief about this step given all gradients, and its covariance with the next."""
        lag = self.gain @ later.covariance
        covariance = self.left + symmetrised(lag @ self.gain.T)
        return FullBelief(mean=self._moved(later.mean), covariance=covariance), lag

    def _moved(self, later: PyTree) -> PyTree:
        surprise = raveled(later) - raveled(self.predicted_mean)
        return unraveled(raveled(self.mean) + self.gain @ surprise, self.mean)


@look_back.register
def _(filter: FullFilter, conditioned: FullBelief) -> FullLookBack:
    covariance, predicted = conditioned.covariance, filter.predict(conditioned)
    shrink, added, _ = full_drift(filter, conditioned)
    whitener = on_its_range(predicted.covariance).whitener
    gain = (1 - shrink) * covariance @ whitener.T @ whitener
    rest = jnp.eye(covariance.shape[0], dtype=covariance.dtype) - (1 - shrink) * gain
    return FullLookBack(
        mean=conditioned.mean,
        predicted_mean=predicted.mean,
        gain=gain,
        left=symmetrised(rest @ covariance @ rest.T + gain @ added @ gain.T),
    )


@draw_latent.register
def _(belief: FullBelief, key: PRNGKeyArray) -> PosteriorPath:
    root = on_its_range(belief.covariance).root
    noise = jax.random.normal(key, root.shape[:1], root.dtype)
    away = unraveled(root @ noise, belief.mean)
    return PosteriorPath(optimum=jax.tree.map(jnp.add, belief.mean, away), velocity=None)


def ratio(one: PerWeight, other: PerWeight) -> Array:
    """A quotient, 0 where there is nothing to divide by; its derivative is finite there too."""
    nothing = jnp.equal(other, 0)
    return jnp.where(nothing, 0, one / jnp.where(nothing, 1, other))


def _moved_mean(mean: Array, gain: Array, later: Array, predicted: Array) -> Array:
    """Mean of this step for a later optimum, m + J (later - predicted)."""
    return mean + gain * (later - predicted)


def drawn(mean: Array, variance: Array, noise: Array) -> Array:
    """A number from N(mean, variance); the derivative by a variance of 0 is left out."""
    certain = variance == 0
    return mean + jnp.where(certain, 0, jnp.sqrt(jnp.where(certain, 1, variance))) * noise


def noise_like(tree: PyTree, key: PRNGKeyArray, count: int) -> list[PyTree]:
    """Independent standard normal numbers, `count` trees of them."""
    vector = raveled(tree)
    return [unraveled(z, tree) for z in jax.random.normal(key, (count, vector.size), vector.dtype)]
