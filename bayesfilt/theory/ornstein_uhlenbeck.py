r"""The drift of an optimum: an Ornstein-Uhlenbeck process, seen once per training step.

Between two steps the optimum w* forgets a little of where it was and moves a little:

    w*' = a w* + noise,   noise ~ N(0, q)

Two numbers fix the process. The drift scale η is the standard deviation of one move (to first
order), in units of a weight. The stationary variance σ² is the spread of w* when it has drifted
for ever, in units of a weight squared; σ² = inf is a random walk, which has no such spread and
forgets nothing. Their ratio η²/2σ² is the decay per step, the tied weight decay.

The exact pair (a, q) keeps the variance at σ² to the last digit. The first-order pair
(1 - η²/2σ², η²) is what a weight-decay step does, and overshoots σ² by O(η²/σ²).
All functions take numbers, arrays or traced values, and keep their dtype.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

# One number for every weight, or an array that broadcasts against the weights.
PerWeight = float | Float[Array, "*#dims"]
Result = Float[Array, "*#dims"]


class OrnsteinUhlenbeck(NamedTuple):
    """How the optimum of a weight moves while the other weights are trained.

    A plain pair, unchecked: it is a pytree, and jit, vmap and grad rebuild it from whatever
    they carry. The factories that take one from a user do the checking.
    """

    drift_scale: PerWeight  # η > 0: deviation of one move, to first order; units of a weight
    stationary_variance: PerWeight  # σ² > 0, inf for a random walk; units of a weight squared


def decay_per_step(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """Rate at which the optimum forgets, η²/2σ² [OU-1].

    To first order it is the shrink of the mean per step, which is tied weight decay. Written as
    half the square of η/σ: η² alone leaves the range of float32 when η is below 1e-19.

    Returns:
        A number >= 0: 0 for a random walk (σ² = inf) and for an optimum at rest (η = 0), inf
        where σ² = 0 and η is not.
    """
    pinned = stationary_variance == 0
    deviation = jnp.sqrt(jnp.where(pinned, 1.0, stationary_variance))
    decay = 0.5 * jnp.square(drift_scale / deviation)
    return jnp.where(pinned, jnp.where(drift_scale == 0, 0.0, jnp.inf), decay)


def retention(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """Fraction of the optimum kept over one step, a = exp(-η²/2σ²) [OU-2].

    Exact for every η and σ². Below a decay of 3e-8 float32 rounds it to one: where the
    difference matters, carry `exact_shrink`.
    """
    return jnp.exp(-decay_per_step(drift_scale, stationary_variance))


def exact_shrink(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """What one step takes away, 1 - a = 1 - exp(-η²/2σ²), with all its digits [OU-2]."""
    return -jnp.expm1(-decay_per_step(drift_scale, stationary_variance))


def process_variance(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """Variance added in one step, q = σ²(1 - exp(-η²/σ²)) [OU-3].

    The partner of `retention`: a²σ² + q = σ². It is η² for a random walk and never above
    min(η², σ²). Units of a weight squared.
    """
    return jnp.square(process_deviation(drift_scale, stationary_variance))


def process_deviation(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """Standard deviation of one exact move, the root of q = σ²(1 - exp(-η²/σ²)) [OU-3].

    Equal to η times a factor in (0, 1], so it has a derivative at η = 0, where the square root
    of `process_variance` has none. Units of a weight.
    """
    pinned = stationary_variance == 0
    finite_decay = decay_per_step(drift_scale, jnp.where(pinned, 1.0, stationary_variance))
    deviation = drift_scale * jnp.sqrt(_mean_of_exponential(2 * finite_decay))
    return jnp.where(pinned, 0.0, deviation)


def first_order_retention(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """Fraction of the optimum kept, to first order, 1 - η²/2σ² [OU-4].

    The transition of the AdaBayes paper and of a weight-decay step. It is below the exact
    fraction by at most (η²/2σ²)²/2, and turns negative, which no drift can be, from
    η² = 2σ² on.
    """
    return 1 - decay_per_step(drift_scale, stationary_variance)


def linearised_stationary_variance(
    drift_scale: PerWeight, stationary_variance: PerWeight
) -> Result:
    """Spread the first-order pair really settles on, σ²/(1 - η²/4σ²) [OU-5].

    The pair keeps the fraction 1 - η²/2σ² and adds the variance η². Finite for η² < 4σ². Written
    as σ² + η²/4 / (1 - η²/4σ²), whose derivative exists for a random walk too.
    """
    decay = decay_per_step(drift_scale, stationary_variance)
    return stationary_variance + jnp.square(0.5 * drift_scale) / (1 - 0.5 * decay)


def _mean_of_exponential(rate: Result) -> Result:
    """Average of exp(-rate t) over 0 <= t <= 1, that is (1 - exp(-rate))/rate, also at zero."""
    small = rate < jnp.sqrt(jnp.finfo(jnp.result_type(rate)).eps)
    series = 1 - 0.5 * rate + jnp.square(jnp.where(small, rate, 0.0)) / 6
    away = jnp.where(small, 1.0, rate)
    return jnp.where(small, series, -jnp.expm1(-away) / away)
