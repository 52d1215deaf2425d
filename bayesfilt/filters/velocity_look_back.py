"""One step backwards in time for the velocity filter: see `look_back`, in 2 x 2.

Every covariance is in the three numbers of `velocity`: variance v, coupling β and what is left of
the velocity's variance, r.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from bayesfilt.filters.diagonal import like_leaf
from bayesfilt.filters.look_back import (
    PosteriorPath,
    draw_latent,
    drawn,
    look_back,
    noise_like,
    ratio,
)
from bayesfilt.filters.velocity import Covariance, VelocityBelief, VelocityFilter
from bayesfilt.theory.ornstein_uhlenbeck import exact_shrink, process_variance


class Gain(NamedTuple):
    """A 2 x 2 matrix for each weight: (position, velocity) this step from those of the next."""

    position_position: Array
    position_velocity: Array
    velocity_position: Array
    velocity_velocity: Array


def velocity_backward_gain(
    now: Covariance, later: Covariance, shrink: Any, growth: Any, velocity_shrink: Any
) -> Gain:
    r"""Share of a later surprise that belongs to this step, J = S Fᵀ S'⁻¹ in 2 x 2 [SM-2].

    With u' = β'w' + ρ', the surprises in w' and in ρ' are independent, so that

        J = (cov(w, w')/v', cov(w, ρ')/r'; cov(u, w')/v', cov(u, ρ')/r') (1, 0; -β', 1),
        cov(w, ρ') = v b (βq - a r)/v',   cov(u, ρ') = β cov(w, ρ') + r b ((a + β) a v + q)/v'.

    Args:
        now: (v, β, r) of the conditioned belief.
        later: (v', β', r') of the predicted one.
        shrink: s = 1 - a of the position.
        growth: q >= 0, of the position; weight².
        velocity_shrink: c = 1 - b.
    """
    v, coupling, unexplained = now
    kept, velocity_kept = 1 - shrink, 1 - velocity_shrink
    pulled = kept + coupling
    by_position = ratio(v, later.variance)
    rest_by_position = ratio(unexplained, later.variance)
    whole = ratio(jnp.ones_like(v), later.unexplained_variance)
    with_position = pulled * by_position
    own = by_position * velocity_kept * (coupling * growth - kept * unexplained) * whole
    rest = rest_by_position * velocity_kept * (pulled * kept * v + growth) * whole
    velocity_own = coupling * own + rest
    return Gain(
        position_position=with_position - later.coupling * own,
        position_velocity=own,
        velocity_position=coupling * with_position
        + rest_by_position
        - later.coupling * velocity_own,
        velocity_velocity=velocity_own,
    )


def mapped_covariance(covariance: Covariance, matrix: Gain) -> Covariance:
    """Covariance of M z in the three numbers, for a 2 x 2 matrix M for each weight [SM-2].

    With α = M₀₀ + M₀₁β and γ = M₁₀ + M₁₁β: v' = α²v + M₀₁²r, β' = (αγv + M₀₁M₁₁r)/v' and
    r' = v r det(M)²/v', all without a difference of variances.
    """
    v, coupling, unexplained = covariance
    direct = matrix.position_position + matrix.position_velocity * coupling
    crossed = matrix.velocity_position + matrix.velocity_velocity * coupling
    variance = direct**2 * v + matrix.position_velocity**2 * unexplained
    shared = direct * crossed * v
    shared += matrix.position_velocity * matrix.velocity_velocity * unexplained
    determinant = matrix.position_position * matrix.velocity_velocity
    determinant -= matrix.position_velocity * matrix.velocity_position
    loose = crossed**2 * v + matrix.velocity_velocity**2 * unexplained
    rest = ratio(v, variance) * unexplained * determinant**2
    return Covariance(
        variance=variance,
        coupling=ratio(shared, variance),
        unexplained_variance=jnp.where(variance == 0, loose, rest),
    )


def summed_covariance(one: Covariance, other: Covariance) -> Covariance:
    """Covariance of a sum of independent pairs: r = r₁ + r₂ + (β₁ - β₂)² v₁v₂/v [SM-2]."""
    variance = one.variance + other.variance
    share = ratio(one.variance, variance)
    apart = (one.coupling - other.coupling) ** 2 * share * other.variance
    return Covariance(
        variance=variance,
        coupling=share * one.coupling + ratio(other.variance, variance) * other.coupling,
        unexplained_variance=one.unexplained_variance + other.unexplained_variance + apart,
    )


class VelocityLookBack(NamedTuple):
    """One step backwards for position and velocity; trees like the weights."""

    conditioned: VelocityBelief
    predicted: VelocityBelief
    gain: PyTree  # a `Gain` at each leaf
    left: PyTree  # a `Covariance` at each leaf

    def given(self, later: PosteriorPath) -> VelocityBelief:
        """Belief about this step if position and velocity of the next are known."""
        return self._around(later.optimum, later.velocity, self.left)

    def smoothed(self, later: VelocityBelief) -> tuple[VelocityBelief, PyTree]:
        """Belief about this step given all gradients; the optima's covariance with the next."""
        spread = _covariances(later)

        def widen(_: Array, gain: Gain, left: Covariance, beyond: Covariance) -> Covariance:
            return summed_covariance(left, mapped_covariance(beyond, gain))

        def lag(_: Array, gain: Gain, beyond: Covariance) -> Array:
            with_velocity = gain.position_velocity * beyond.coupling
            return (gain.position_position + with_velocity) * beyond.variance

        like = self.conditioned.mean
        whole = jax.tree.map(widen, like, self.gain, self.left, spread)
        lags = jax.tree.map(lag, like, self.gain, spread)
        return self._around(later.mean, later.velocity, whole), lags

    def _around(self, position: PyTree, velocity: PyTree, spread: PyTree) -> VelocityBelief:
        """Belief with the mean that belongs to this later position and velocity."""
        then, now = self.predicted, self.conditioned
        ahead = jax.tree.map(jnp.subtract, position, then.mean)
        faster = jax.tree.map(jnp.subtract, velocity, then.velocity)

        def place(mean: Array, gain: Gain, dw: Array, du: Array) -> Array:
            return mean + gain.position_position * dw + gain.position_velocity * du

        def speed(mean: Array, gain: Gain, dw: Array, du: Array) -> Array:
            return mean + gain.velocity_position * dw + gain.velocity_velocity * du

        outline = jax.tree.structure(now.mean)
        triples = outline.flatten_up_to(spread)
        variance, coupling, rest = (outline.unflatten([t[i] for t in triples]) for i in range(3))
        return VelocityBelief(
            mean=jax.tree.map(place, now.mean, self.gain, ahead, faster),
            velocity=jax.tree.map(speed, now.velocity, self.gain, ahead, faster),
            variance=variance,
            coupling=coupling,
            unexplained_variance=rest,
        )


@look_back.register
def _(filter: VelocityFilter, conditioned: VelocityBelief) -> VelocityLookBack:
    predicted = filter.predict(conditioned)
    growth = process_variance(*filter.transition)
    velocity_growth = jnp.square(filter.velocity_drift_scale)
    shrinks = (exact_shrink(*filter.transition), filter.velocity_shrink)

    def gain_of(leaf: Array, now: Covariance, later: Covariance) -> Gain:
        shrink, velocity_shrink = (like_leaf(leaf, number) for number in shrinks)
        return velocity_backward_gain(now, later, shrink, like_leaf(leaf, growth), velocity_shrink)

    def left_of(leaf: Array, gain: Gain, now: Covariance) -> Covariance:
        shrink, velocity_shrink = (like_leaf(leaf, number) for number in shrinks)
        noise = (jnp.zeros_like(leaf) + like_leaf(leaf, x) for x in (growth, 0, velocity_growth))
        shaken = mapped_covariance(Covariance(*noise), gain)
        return summed_covariance(
            mapped_covariance(now, _rest(gain, shrink, velocity_shrink)), shaken
        )

    now, later = _covariances(conditioned), _covariances(predicted)
    gain = jax.tree.map(gain_of, conditioned.mean, now, later)
    left = jax.tree.map(left_of, conditioned.mean, gain, now)
    return VelocityLookBack(conditioned=conditioned, predicted=predicted, gain=gain, left=left)


def _rest(gain: Gain, shrink: Array, velocity_shrink: Array) -> Gain:
    """I - J F: what of this step's position and velocity does not show in the next."""
    kept, velocity_kept = 1 - shrink, 1 - velocity_shrink
    return Gain(
        position_position=1 - gain.position_position * kept,
        position_velocity=-gain.position_position - gain.position_velocity * velocity_kept,
        velocity_position=-gain.velocity_position * kept,
        velocity_velocity=1 - gain.velocity_position - gain.velocity_velocity * velocity_kept,
    )


def _covariances(belief: VelocityBelief) -> PyTree:
    """A `Covariance` at each leaf."""
    spread = (belief.variance, belief.coupling, belief.unexplained_variance)
    return jax.tree.map(Covariance, *spread)


@draw_latent.register
def _(belief: VelocityBelief, key: PRNGKeyArray) -> PosteriorPath:
    for_position, for_velocity = noise_like(belief.mean, key, count=2)
    optimum = jax.tree.map(drawn, belief.mean, belief.variance, for_position)

    def at_position(velocity: Array, coupling: Array, away: Array) -> Array:
        return velocity + coupling * away

    away = jax.tree.map(jnp.subtract, optimum, belief.mean)
    expected = jax.tree.map(at_position, belief.velocity, belief.coupling, away)
    velocity = jax.tree.map(drawn, expected, belief.unexplained_variance, for_velocity)
    return PosteriorPath(optimum=optimum, velocity=velocity)
