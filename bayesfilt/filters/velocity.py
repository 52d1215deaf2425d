r"""The velocity filter: every weight's optimum has a velocity of its own, which is not seen.

The optimum w* moves by its velocity u*, forgets a little and is shaken; the velocity forgets
and is shaken too, and a gradient looks at the position alone:

    w*' = (1 - s) w* + u* + noise,   u*' = (1 - c) u* + noise,   g ~ N(h (taken_at - w*), h)

The exact Kalman filter of that model, two numbers per weight. What it does is momentum: the
weight the user holds, the *predicted* position, has already moved by the velocity (Nesterov's
look-ahead); a gradient moves the position directly and the velocity besides; the velocity
decays by c, so that 1 - c is the memory of the momentum, and the position by s.

A covariance of position and velocity is kept as three numbers that no rounding can make
impossible: the variance v of the position, the `coupling` β = covariance/v, and what is left of
the velocity's variance once the position is known. A gradient changes only the first.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bayesfilt.checks import concrete_number, require_non_negative, require_number
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation
from bayesfilt.filters.diagonal import (
    PerWeight,
    conditioned_mean,
    expected_innovation,
    extremes,
    initial_belief,
    innovation_mean,
    like_leaf,
    log_density,
    predicted_mean,
    require_transition,
)
from bayesfilt.theory.ornstein_uhlenbeck import (
    OrnsteinUhlenbeck,
    exact_shrink,
    process_variance,
)
from bayesfilt.theory.riccati import conditioned_variance, relaxed_variance


def velocity_filter(
    transition: OrnsteinUhlenbeck, *, velocity_shrink: PerWeight, velocity_drift_scale: PerWeight
) -> "VelocityFilter":
    """Exact filter for optima that follow `transition` and are carried along by a velocity.

    Args:
        transition: of the position, apart from its velocity: drift scale, finite and above 0,
            units of a weight; stationary variance above 0, weight², and infinity is legal (no
            decay). With a velocity the optimum spreads further than the stationary variance.
        velocity_shrink: c in [0, 1], fraction of the velocity forgotten per step; 1 - c is the
            memory of the momentum (Adam's b1). 0 never forgets, 1 is new at every step.
        velocity_drift_scale: standard deviation, finite and >= 0, of the velocity's random
            move in one step; units of a weight per step. With 0, and velocity_shrink=1, this
            is the diagonal filter.

    All are scalars, or arrays that broadcast against every leaf; traced, they are not checked.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_transition("velocity_filter", transition)
    _require_velocity("velocity_filter", velocity_shrink, velocity_drift_scale)
    return VelocityFilter(
        transition=transition,
        velocity_shrink=velocity_shrink,
        velocity_drift_scale=velocity_drift_scale,
    )


class VelocityBelief(NamedTuple):
    """A Gaussian belief about every weight's optimum and the velocity it moves with.

    Five trees shaped like the weights, each leaf at least float32. `mean` and `variance` are of
    the position alone, as in `Belief`.
    """

    mean: PyTree[Float[Array, "..."]]  # of the position; units of a weight
    velocity: PyTree[Float[Array, "..."]]  # mean of the velocity; weight per step
    variance: PyTree[Float[Array, "..."]]  # of the position; weight²
    coupling: PyTree[Float[Array, "..."]]  # β = covariance/variance; per step
    unexplained_variance: PyTree[Float[Array, "..."]]  # of the velocity, the position known

    @property
    def covariance(self) -> PyTree[Float[Array, "..."]]:
        """Covariance of position and velocity, weight² per step."""
        return jax.tree.map(jnp.multiply, self.coupling, self.variance)

    @property
    def velocity_variance(self) -> PyTree[Float[Array, "..."]]:
        """Variance of the velocity whatever the position is, weight² per step²."""
        explained = jax.tree.map(jnp.multiply, self.coupling, self.covariance)
        return jax.tree.map(jnp.add, explained, self.unexplained_variance)


class VelocityFilter(NamedTuple):
    """Position and velocity per weight; built, and its numbers checked, by `velocity_filter`."""

    transition: OrnsteinUhlenbeck
    velocity_shrink: PerWeight
    velocity_drift_scale: PerWeight

    def init(
        self,
        mean: Params,
        variance: PyTree | Scalar | None = None,
        velocity_variance: PyTree | Scalar | None = None,
    ) -> VelocityBelief:
        """Believe `mean` and a velocity of 0; by default as surely as the model itself does.

        Args:
            mean: the weights to begin with, a tree of floating arrays.
            variance: of the position, one number >= 0 or a tree like `mean`; weight². By default
                what the model spreads to for ever, velocity included.
            velocity_variance: of the velocity, likewise; weight² per step². If either is given,
                position and velocity are independent to begin with.

        Raises:
            ValueError: a default that is infinite; a concrete variance that is negative,
                infinite or NaN; a leaf of integers or complex numbers.
        """
        return initial_velocity_belief("velocity_filter", self, mean, variance, velocity_variance)

    def predict(self, belief: VelocityBelief) -> VelocityBelief:
        """Let every optimum move by its velocity and drift one step."""
        shrink = exact_shrink(*self.transition)
        growth = process_variance(*self.transition)
        rate = growth / self.transition.stationary_variance  # 1 - a², with all its digits
        velocity_growth = jnp.square(self.velocity_drift_scale)
        numbers = (shrink, growth, rate, self.velocity_shrink, velocity_growth)

        def look_ahead(mean: Array, velocity: Array) -> Array:
            return predicted_position(mean, velocity, like_leaf(mean, shrink))

        def slow_down(velocity: Array) -> Array:
            return predicted_mean(velocity, like_leaf(velocity, self.velocity_shrink))

        def predict_covariance(variance: Array, coupling: Array, unexplained: Array) -> Covariance:
            cast = (like_leaf(variance, number) for number in numbers)
            return predicted_covariance(Covariance(variance, coupling, unexplained), *cast)

        spread = jax.tree.map(
            predict_covariance, belief.variance, belief.coupling, belief.unexplained_variance
        )
        variance, coupling, unexplained = _transposed(belief.mean, spread)
        return VelocityBelief(
            mean=jax.tree.map(look_ahead, belief.mean, belief.velocity),
            velocity=jax.tree.map(slow_down, belief.velocity),
            variance=variance,
            coupling=coupling,
            unexplained_variance=unexplained,
        )

    def condition(
        self,
        belief: VelocityBelief,
        gradient: PyTree,
        precision: PyTree,
        taken_at: PyTree | None = None,
    ) -> VelocityBelief:
        """Absorb one gradient, worth `precision` and taken at `taken_at`."""
        surprise = innovation_mean(_position(belief), gradient, precision, taken_at)
        variance = jax.tree.map(conditioned_variance, belief.variance, precision)
        return VelocityBelief(
            mean=jax.tree.map(conditioned_mean, belief.mean, variance, surprise),
            velocity=jax.tree.map(
                conditioned_velocity, belief.velocity, belief.coupling, variance, surprise
            ),
            variance=variance,
            coupling=belief.coupling,
            unexplained_variance=belief.unexplained_variance,
        )

    def innovation(
        self,
        belief: VelocityBelief,
        gradient: PyTree,
        precision: PyTree,
        taken_at: PyTree | None = None,
    ) -> Innovation:
        """Compare a gradient with what `belief` expects of it; the velocity is not seen."""
        return expected_innovation(_position(belief), gradient, precision, taken_at)

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of each weight's innovation, in nats."""
        return jax.tree.map(log_density, innovation.mean, innovation.variance)


class Covariance(NamedTuple):
    """Covariance of position and velocity in three numbers, as in `VelocityBelief`."""

    variance: PerWeight
    coupling: PerWeight
    unexplained_variance: PerWeight


def predicted_position(
    mean: Float[Array, " *dims"], velocity: Float[Array, " *dims"], shrink: PerWeight
) -> Float[Array, " *dims"]:
    """Mean of the position one step later, m - s m + u: the look-ahead [VEL-1].

    Args:
        mean: m of the conditioned belief; units of a weight.
        velocity: u of the *conditioned* belief, not yet shrunk; weight per step.
        shrink: s of the position, in [0, 1], as `theory.exact_shrink` gives it.
    """
    return predicted_mean(mean, shrink) + velocity


def predicted_covariance(
    covariance: Covariance,
    shrink: PerWeight,
    growth: PerWeight,
    rate: PerWeight,
    velocity_shrink: PerWeight,
    velocity_growth: PerWeight,
) -> Covariance:
    r"""Covariance one step later, F S Fᵀ + Q in the three numbers (v, β, r) [VEL-2].

    With a = 1 - s and b = 1 - c,

        v' = (a + β)² v + r + q,   β' = b ((a + β) β v + r)/v',
        r' = κ² + b² (a² v r + q (β² v + r))/v'.

    A sum of terms >= 0 only, so it stays a covariance in any precision, and 0 <= β' <= b
    whenever β >= 0: the velocity's gain never exceeds b times the position's.

    Args:
        covariance: v, β and r of the conditioned belief; all >= 0.
        shrink: s in [0, 1], of the position.
        growth: q >= 0, variance the position's own noise adds; weight².
        rate: 1 - a² = s(2 - s), in [0, 1], with all its digits.
        velocity_shrink: c in [0, 1].
        velocity_growth: κ² >= 0, variance added to the velocity; weight² per step².
    """
    v, coupling, unexplained = covariance
    kept = 1 - shrink
    carried = coupling * v * (2 * kept + coupling) + unexplained  # what the velocity adds
    variance = relaxed_variance(v, growth + carried, rate)
    certain = variance == 0  # known, and unmoved: nothing to divide by
    divisor = jnp.where(certain, 1, variance)
    shared = (kept + coupling) * coupling * v + unexplained
    coupled = jnp.where(certain, 0, shared / divisor)
    total = coupling * coupling * v + unexplained
    left = (kept * kept) * (v / divisor) * unexplained + (growth / divisor) * total
    return Covariance(
        variance=variance,
        coupling=predicted_mean(coupled, velocity_shrink),
        unexplained_variance=relaxed_variance(
            left, velocity_growth, velocity_shrink * (2 - velocity_shrink)
        ),
    )


def conditioned_velocity(
    velocity: Float[Array, " *dims"],
    coupling: Float[Array, " *dims"],
    variance: Float[Array, " *dims"],
    surprise: Float[Array, " *dims"],
) -> Float[Array, " *dims"]:
    """Mean of the velocity after a gradient, u - β p g: the momentum's share of it [VEL-3].

    The gain β p is the conditioned covariance of position and velocity, as p is the conditioned
    variance. Exact for R = h.

    Args:
        velocity: u of the predicted belief; weight per step.
        coupling: β of either belief, a gradient does not change it; per step.
        variance: p of the position, of the *conditioned* belief; weight².
        surprise: the gradient at the mean (`rebased_gradient`), 1/weight.
    """
    return velocity - coupling * variance * surprise


def stationary_covariance(
    transition: OrnsteinUhlenbeck, velocity_shrink: PerWeight, velocity_drift_scale: PerWeight
) -> Covariance:
    r"""Covariance that no gradient has ever narrowed: S = F S Fᵀ + Q solved [VEL-4].

    With a = 1 - s, b = 1 - c, and V = κ²/(1 - b²) the velocity's own variance, the position's
    is σ² + w with w = V (1 + ab)/((1 - ab)(1 - a²)), the covariance b V/(1 - ab), and

        r = V (σ² + w (1 - b²)/(1 - a²b²))/(σ² + w).

    For finite σ² and c > 0; otherwise the optimum strays without end.

    Args:
        transition: of the position; σ² in weight².
        velocity_shrink: c in (0, 1].
        velocity_drift_scale: κ >= 0; weight per step.
    """
    shrink = exact_shrink(*transition)
    variance = transition.stationary_variance
    rate = process_variance(*transition) / variance
    velocity_rate = velocity_shrink * (2 - velocity_shrink)
    velocity_variance = stationary_velocity_variance(velocity_shrink, velocity_drift_scale)
    lost = shrink + (velocity_shrink - shrink * velocity_shrink)  # 1 - ab
    both = rate + (velocity_rate - rate * velocity_rate)  # 1 - a²b²
    still = velocity_variance == 0
    strayed = velocity_variance * (2 - lost) / (lost * jnp.where(still, 1, rate))
    spread = variance + strayed
    return Covariance(
        variance=spread,
        coupling=(1 - velocity_shrink) * velocity_variance / lost / spread,
        unexplained_variance=velocity_variance
        * (variance / spread + strayed / spread * (velocity_rate / both)),
    )


def stationary_velocity_variance(
    velocity_shrink: PerWeight, velocity_drift_scale: PerWeight
) -> Float[Array, " *dims"]:
    """Variance of the velocity with no data, for ever, κ²/(1 - (1 - c)²) [VEL-4].

    Infinite or NaN for c = 0. Units of a weight squared per step squared.
    """
    return jnp.square(velocity_drift_scale) / (velocity_shrink * (2 - velocity_shrink))


def initial_velocity_belief(
    owner: str,
    numbers: VelocityFilter,
    mean: Params,
    variance: PyTree | Scalar | None,
    velocity_variance: PyTree | Scalar | None,
) -> VelocityBelief:
    """Belief before the first gradient; `VelocityFilter.init` says what the arguments are."""
    transition, velocity_shrink, velocity_drift_scale = numbers
    endless = concrete_number(extremes(transition.stationary_variance)[1]) == math.inf
    forgets = concrete_number(extremes(velocity_shrink)[0]) != 0
    coupling: Any = 0.0
    if variance is None and (endless or not forgets):
        what = "an infinite stationary_variance" if endless else "velocity_shrink=0"
        raise ValueError(
            f"{owner} has {what}, so init needs a finite variance to begin with, got variance=None."
        )
    if velocity_variance is None and not forgets:
        wanted = "a finite velocity_variance to begin with, got velocity_variance=None"
        raise ValueError(f"{owner} has velocity_shrink=0, so init needs {wanted}.")
    for leaf in jax.tree.leaves(velocity_variance):
        for extreme in extremes(leaf):
            require_non_negative(f"{owner}.init", "velocity_variance", extreme)
    if variance is None:
        stationary = stationary_covariance(transition, velocity_shrink, velocity_drift_scale)
        variance = stationary.variance
        if velocity_variance is None:
            coupling, velocity_variance = stationary.coupling, stationary.unexplained_variance
    if velocity_variance is None:
        velocity_variance = stationary_velocity_variance(velocity_shrink, velocity_drift_scale)
    position = initial_belief(owner, transition, mean, variance)
    rest = jax.tree.map(jnp.zeros_like, position.mean)
    velocity = initial_belief(owner, transition, rest, velocity_variance)
    coupled = initial_belief(owner, transition, rest, coupling)
    return VelocityBelief(
        mean=position.mean,
        velocity=velocity.mean,
        variance=position.variance,
        coupling=coupled.variance,
        unexplained_variance=velocity.variance,
    )


def _require_velocity(owner: str, shrink: Any, drift_scale: Any) -> None:
    """Refuse concrete numbers out of range: 0 <= c <= 1, 0 <= κ < inf."""
    for name, value in (("velocity_shrink", shrink), ("velocity_drift_scale", drift_scale)):
        if callable(value):
            raise ValueError(f"{owner} needs a number for {name}, got a schedule.")
    for extreme in extremes(shrink):
        require_number(owner, "velocity_shrink", extreme)
        number = concrete_number(extreme)
        if number is not None and not 0 <= number <= 1:
            raise ValueError(
                f"{owner} needs 0 <= velocity_shrink <= 1, got velocity_shrink={number:g}."
            )
    for extreme in extremes(drift_scale):
        require_non_negative(owner, "velocity_drift_scale", extreme)


def _position(belief: VelocityBelief) -> Belief:
    """Believed of the position alone: all that a gradient can be compared with."""
    return Belief(mean=belief.mean, variance=belief.variance)


def _transposed(like: PyTree, spread: PyTree) -> list[PyTree]:
    """Three trees out of one tree of triples."""
    outline = jax.tree.structure(like)
    triples = outline.flatten_up_to(spread)
    return [outline.unflatten([triple[i] for triple in triples]) for i in range(3)]
