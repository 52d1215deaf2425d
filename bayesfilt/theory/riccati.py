r"""The variance of the scalar filter: its recursion, where it settles, and how fast.

One step is: the optimum drifts (the variance grows towards σ²), then one gradient worth the
precision h arrives (the variance falls). Both h and the variance are per weight and elementwise;
h has the units 1/weight², of the *summed* loss. The exact recursion is algebra and holds for any
gain v h; everything marked *small gain* replaces a difference equation by a differential one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.custom_types import Scalar
from bayesfilt.theory.ornstein_uhlenbeck import (
    decay_per_step,
    process_deviation,
    process_variance,
    retention,
)

Variances = Float[Array, " *dims"]


def predicted_variance(
    variance: Variances, retention: Scalar, process_variance: Scalar
) -> Variances:
    """Variance after the optimum has drifted one step, a²v + q [KF-3].

    For any linear transition. In float32 a rounds to one below a decay of 1e-8; for an
    Ornstein-Uhlenbeck drift `drifted_variance` keeps those digits.
    """
    return jnp.square(retention) * variance + process_variance


def drifted_variance(
    variance: Variances, drift_scale: Scalar, stationary_variance: Scalar
) -> Variances:
    """Variance after one exact step of drift, a²v + q = v + q(1 - v/σ²) [KF-3].

    The second form moves v towards σ² and holds it there for ever, in any precision; for a
    random walk it adds η² per step without end.
    """
    growth = process_variance(drift_scale, stationary_variance)
    pinned = stationary_variance == 0
    filled = variance / jnp.where(pinned, 1.0, stationary_variance)
    kept = jnp.square(retention(drift_scale, stationary_variance))
    return jnp.where(pinned, kept * variance, variance + growth * (1 - filled))


def conditioned_variance(variance: Variances, precision: Variances) -> Variances:
    """Variance after a gradient worth `precision` has been seen, v/(1 + v h) [KF-1].

    That is, 1/v grows by h. For a finite variance; zero stays zero.
    """
    return variance / (1 + variance * precision)


def variance_step(
    variance: Variances, precision: Variances, drift_scale: Scalar, stationary_variance: Scalar
) -> Variances:
    """One step of the variance recursion: drift, then condition [RIC-0].

    Exact for the model; from posterior variance to posterior variance. It does not look at
    the gradient, only at what the gradient is worth.
    """
    prior = drifted_variance(variance, drift_scale, stationary_variance)
    return conditioned_variance(prior, precision)


def steady_state_variance(
    precision: Variances, drift_scale: Scalar, stationary_variance: Scalar
) -> Variances:
    r"""Posterior variance the recursion settles on, exactly [RIC-1].

    The positive root of h a² p² + (h q + 1 - a²) p - q = 0. Because 1 - a² = q/σ², it is

        p = 2√q / (√q c + √(q c² + 4 a² h)),   c = h + 1/σ².

    True for any gain: quiet gradients give σ², loud ones η/√h, and gradients so loud that each
    one outweighs the past (√h above 1/η) give 1/h.

    Args:
        precision: h >= 0, what each gradient adds to 1/variance; 1/weight².
        drift_scale: η >= 0; units of a weight.
        stationary_variance: σ² >= 0, inf for a random walk; weight².

    Returns:
        Variance just after a gradient, in [0, σ²]. No information and no drift, or a random
        walk without information, give σ² itself.
    """
    pinned = stationary_variance == 0
    prior = jnp.where(pinned, 1.0, stationary_variance)
    kept = retention(drift_scale, prior)
    move = process_deviation(drift_scale, prior)
    certainty = precision + 1 / prior
    # Every term is divided by one size before it is squared, so that nothing overflows or
    # vanishes. The size cancels, hence it has no derivative.
    size = jax.lax.stop_gradient(
        jnp.maximum(jnp.minimum(move, 1.0) * certainty, 2 * kept * jnp.sqrt(precision))
    )
    unmoved = size == 0
    size = jnp.where(unmoved, 1.0, size)
    linear = move * (certainty / size)
    root = jnp.square(linear) + jnp.square(2 * kept) * (precision / size) / size
    settled = 2 * (move / size) / (linear + jnp.sqrt(jnp.where(unmoved, 1.0, root)))
    return jnp.where(pinned, 0.0, jnp.where(unmoved, prior, settled))


def fixed_point_variance(
    mean_square_gradient: Variances, drift_scale: Scalar, stationary_variance: Scalar
) -> Variances:
    r"""Closed form of AdaBayes, η/(e/2 + √(e²/4 + g²)) with e = η/σ² [FP-1].

    The steady state of the *small gain* recursion, 1/p = 1/2σ² + √(1/4σ⁴ + g²/η²), written so
    that neither g²/η² nor 1/σ⁴ is formed. Quiet gradients give σ² (an SGD step), loud ones η/|g|
    (an Adam step). First order in the gain p g² (which is η|g| when loud): trust it well
    below one. It exceeds the exact root, `steady_state_variance`, once η|g| nears one.

    Args:
        mean_square_gradient: g² >= 0, of the *summed* loss; 1/weight².
        drift_scale: η >= 0; units of a weight.
        stationary_variance: σ² >= 0, inf for a random walk; weight².

    Returns:
        Variance of each weight, in [0, σ²]; also its learning rate.

    Source: Aitchison, NeurIPS 2020, eq. 21, as his released code computes it.
    """
    pinned = stationary_variance == 0
    prior = jnp.where(pinned, 1.0, stationary_variance)
    half = 0.5 * (drift_scale / prior)
    square = jnp.square(half) + mean_square_gradient
    silent = square == 0
    settled = drift_scale / jnp.where(silent, 1.0, half + jnp.sqrt(jnp.where(silent, 1.0, square)))
    return jnp.where(pinned, 0.0, jnp.where(silent, prior, settled))


def large_epsilon(drift_scale: Scalar, stationary_variance: Scalar) -> Float[Array, ""]:
    """The eps that makes Adam resemble the fixed point, η/σ² in summed units [FP-2].

    Adam's gain η/(eps + |g|) has the same two limits and is never more than 20 % from the fixed
    point. Divide by the batch size for an eps beside mean gradients. Units 1/weight.
    """
    return drift_scale / stationary_variance


def transient_from_zero(
    time: Variances, precision: Variances, drift_scale: Scalar
) -> Variances:
    """Variance `time` steps after certainty, (η/√h) tanh(η√h t) [RIC-2].

    A natural warm-up: η²t at first, η/√h in the end. *Small gain*, σ² = inf.
    """
    return transient_variance(0.0, time, precision, drift_scale, jnp.inf)


def transient_from_infinity(
    time: Variances, precision: Variances, drift_scale: Scalar
) -> Variances:
    """Variance `time` steps after total ignorance, (η/√h) coth(η√h t) [RIC-2].

    Falls as 1/(h t) (an average of all gradients so far), then rests at η/√h. *Small gain*,
    σ² = inf; infinite at time 0 and where h = 0.
    """
    absorbed = 2 * precision * _half_time(time, precision, drift_scale, jnp.inf)
    ignorant = absorbed == 0
    return jnp.where(ignorant, jnp.inf, 1 / jnp.where(ignorant, 1.0, absorbed))


def transient_variance(
    initial_variance: Variances,
    time: Variances,
    precision: Variances,
    drift_scale: Scalar,
    stationary_variance: Scalar,
) -> Variances:
    r"""Variance `time` steps after `initial_variance`, at constant precision [RIC-6].

    Solves dp/dt = η² - (η²/σ²) p - h p², the *small gain* limit of the recursion:

        p(t) = (p₀(1 - βT) + 2η²T) / (1 + (β + 2 h p₀)T),   T = tanh(κt/2)/κ,

    with β = η²/σ² and κ = √(β² + 4hη²). It ends on `fixed_point_variance`.
    """
    forget = 2 * decay_per_step(drift_scale, stationary_variance)
    half_time = _half_time(time, precision, drift_scale, stationary_variance)
    drift = 2 * jnp.square(drift_scale) * half_time
    remembered = initial_variance * (1 - forget * half_time)
    return (remembered + drift) / (1 + (forget + 2 * precision * initial_variance) * half_time)


def time_constant(precision: Variances, drift_scale: Scalar) -> Variances:
    """Steps in which the variance forgets a disturbance, 1/(2η√h) [RIC-3].

    *Small gain*, loud gradients (σ² = inf). Adam's own memory of g² is 1/(1 - b2) steps for
    every weight; this is the filter's, one per weight. Infinite where h = 0.
    """
    silent = precision == 0
    rate = 2 * drift_scale * jnp.sqrt(jnp.where(silent, 1.0, precision))
    return jnp.where(silent, jnp.inf, 1 / rate)


def static_variance(prior_variance: Scalar, total_precision: Variances) -> Variances:
    """Variance when the optimum never moves, 1/(1/σ² + Σh) [RIC-4].

    Falls as 1/t: natural gradient, AdaGrad without its root. The root in Adam is owed to drift.
    """
    pinned = prior_variance == 0
    certainty = 1 / jnp.where(pinned, 1.0, prior_variance) + total_precision
    ignorant = certainty == 0
    settled = jnp.where(ignorant, jnp.inf, 1 / jnp.where(ignorant, 1.0, certainty))
    return jnp.where(pinned, 0.0, settled)


def variance_memory(variance: Variances, precision: Variances, retention: Scalar) -> Variances:
    """Share of a disturbance of the variance left one step later, a²(1 - p h)² [RIC-5].

    The filter's own b2, different for each weight: about 1 - 2η√h when gradients are loud.

    Args:
        variance: p, the *posterior* variance of this step; weight².
        precision: h, what this step's gradient was worth; 1/weight².
        retention: a, fraction of the optimum kept by the drift before it.
    """
    return jnp.square(retention * (1 - variance * precision))


def _half_time(
    time: Variances, precision: Variances, drift_scale: Scalar, stationary_variance: Scalar
) -> Variances:
    """tanh(κt/2)/κ, which is t/2 while κt is small; κ = √(β² + 4hη²), β = η²/σ²."""
    forget = decay_per_step(drift_scale, stationary_variance)  # β/2
    rate_squared = jnp.square(forget) + precision * jnp.square(drift_scale)  # (κ/2)²
    still = rate_squared == 0
    rate = jnp.sqrt(jnp.where(still, 1.0, rate_squared))
    angle = rate * time
    small = angle < jnp.finfo(jnp.result_type(angle)).eps ** 0.25
    series = 0.5 * time * (1 - rate_squared * jnp.square(jnp.where(small, time, 0.0)) / 3)
    return jnp.where(still | small, series, 0.5 * jnp.tanh(angle) / rate)
