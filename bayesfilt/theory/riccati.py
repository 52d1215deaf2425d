r"""The variance of the scalar filter: its recursion, where it settles, and how fast.

One step is: the optimum drifts (the variance moves towards σ²), then one gradient worth the
precision h arrives (the variance falls). The two are elementwise, one pair of numbers for each
weight; h has the units 1/weight², of the *summed* loss. The recursion is algebra and holds for
any gain v h. Whatever is marked *small gain* has a differential equation in place of the
recursion, and is good to a relative error of the order of the gain.
"""

import jax
import jax.numpy as jnp

from bayesfilt.theory import ornstein_uhlenbeck as drift
from bayesfilt.theory.ornstein_uhlenbeck import PerWeight, Result


def predicted_variance(
    variance: PerWeight, retention: PerWeight, process_variance: PerWeight
) -> Result:
    """Variance after the optimum has drifted one step, a²v + q [KF-3].

    For any linear transition. In float32 a rounds to one below a decay of 3e-8; for an
    Ornstein-Uhlenbeck drift `drifted_variance` keeps those digits.

    Args:
        variance: v >= 0, before the drift; weight².
        retention: a, fraction of the optimum kept; a pure number.
        process_variance: q >= 0, variance added; weight².
    """
    return jnp.square(retention) * variance + process_variance


def drifted_variance(
    variance: PerWeight, drift_scale: PerWeight, stationary_variance: PerWeight
) -> Result:
    """Variance after one exact step of drift, a²v + q = v + (q - (1 - a²) v) [KF-3].

    The second form moves v towards σ² and holds it there for ever, in any precision; for a
    random walk it adds η² per step without end. Units of a weight squared.
    """
    pinned = stationary_variance == 0
    growth = drift.process_variance(drift_scale, stationary_variance)
    rate = growth / jnp.where(pinned, 1.0, stationary_variance)
    kept = jnp.square(drift.retention(drift_scale, stationary_variance))
    return jnp.where(pinned, kept * variance, relaxed_variance(variance, growth, rate))


def relaxed_variance(variance: PerWeight, growth: PerWeight, rate: PerWeight) -> Result:
    """Core of the drift, v + (q - r v), for a q and an r = 1 - a² worked out once [KF-3].

    For loops over many weights and steps. Not a²v + q: in float32 a² keeps few digits of a slow
    drift, and a weight without gradients would settle away from its stationary variance.

    Args:
        variance: v of the conditioned belief; weight².
        growth: q, `process_variance`; weight².
        rate: r = 1 - a² = q/σ², in [0, 1]; 0 for a random walk.
    """
    return jnp.add(variance, growth - rate * variance)


def conditioned_variance(variance: PerWeight, precision: PerWeight) -> Result:
    """Variance after a gradient worth `precision` has been seen, v/(1 + v h) [KF-1].

    That is, 1/v grows by h. For a finite variance; zero stays zero.

    Args:
        variance: v >= 0, before the gradient; weight².
        precision: h >= 0; 1/weight².
    """
    return variance / (1 + jnp.multiply(variance, precision))


def variance_step(
    variance: PerWeight,
    precision: PerWeight,
    drift_scale: PerWeight,
    stationary_variance: PerWeight,
) -> Result:
    """Posterior variance from the last one: drift, then condition [RIC-0].

    Exact for the model, at any gain. The gradient itself is not needed, only what it is worth.
    """
    prior = drifted_variance(variance, drift_scale, stationary_variance)
    return conditioned_variance(prior, precision)


def steady_state_variance(
    precision: PerWeight, drift_scale: PerWeight, stationary_variance: PerWeight
) -> Result:
    r"""Posterior variance the recursion settles on, exactly [RIC-1].

    The positive root of h a² p² + (h q + 1 - a²) p - q = 0. Because 1 - a² = q/σ², it is

        p = 2√q / (√q c + √(q c² + 4 a² h)),   c = h + 1/σ².

    True for any gain: quiet gradients give σ², loud ones η/√h, and those so loud that each one
    outweighs all before it (√h above 1/η) give 1/h.

    Args:
        precision: h >= 0, what each gradient adds to 1/variance; 1/weight².
        drift_scale: η >= 0; units of a weight.
        stationary_variance: σ² >= 0, inf for a random walk; weight².

    Returns:
        Variance just after a gradient, in [0, σ²] to rounding. It is σ² itself where there is
        neither information nor drift, and for a random walk without information.
    """
    pinned = stationary_variance == 0
    prior = jnp.where(pinned, 1.0, stationary_variance)
    kept = drift.retention(drift_scale, prior)
    move = drift.process_deviation(drift_scale, prior)
    certainty = precision + 1 / prior
    # Everything is divided by one size before it is squared, so that nothing overflows or
    # vanishes. The size cancels, hence it has no derivative.
    size = jax.lax.stop_gradient(
        jnp.maximum(jnp.minimum(move, 1.0) * certainty, 2 * kept * jnp.sqrt(precision))
    )
    unmoved = size == 0
    size = jnp.where(unmoved, 1.0, size)
    linear = move * (certainty / size)
    square = jnp.square(linear) + jnp.square(2 * kept) * (precision / size) / size
    settled = 2 * (move / size) / (linear + jnp.sqrt(jnp.where(unmoved, 1.0, square)))
    return jnp.where(unmoved | pinned, stationary_variance, settled)


def fixed_point_variance(
    mean_square_gradient: PerWeight, drift_scale: PerWeight, stationary_variance: PerWeight
) -> Result:
    r"""Closed form of AdaBayes, η/(e/2 + √(e²/4 + g²)) with e = η/σ² [FP-1].

    Steady state of the *small gain* recursion, 1/p = 1/2σ² + √(1/4σ⁴ + g²/η²), written so that
    neither g²/η² nor 1/σ⁴ is formed. Quiet gradients give σ² (an SGD step), loud ones η/|g| (an
    Adam step). First order in the gain p g², which is η|g| when loud: trust it well below one.
    Near η|g| = 1 it leaves the exact root, `steady_state_variance`, and far above it is η|g|
    times too large.

    Args:
        mean_square_gradient: g² >= 0, of the *summed* loss; 1/weight².
        drift_scale: η >= 0; units of a weight.
        stationary_variance: σ² >= 0, inf for a random walk; weight².

    Returns:
        Variance of each weight, in [0, σ²] to rounding; also its learning rate.

    Source: Aitchison, NeurIPS 2020, eq. 21; his released code has the same root.
    """
    pinned = stationary_variance == 0
    half = 0.5 * (drift_scale / jnp.where(pinned, 1.0, stationary_variance))
    silent = jnp.square(half) + mean_square_gradient == 0
    seen = jnp.where(silent, 1.0, mean_square_gradient)
    settled = fixed_point_from_epsilon(seen, drift_scale, half)
    return jnp.where(silent | pinned, stationary_variance, settled)


def fixed_point_from_epsilon(
    mean_square_gradient: PerWeight, drift_scale: PerWeight, half_epsilon: PerWeight
) -> Result:
    """The fixed point's core, η/(e/2 + √(e²/4 + g²)), for an e worked out once [FP-1].

    For loops over many weights: nothing in it but what differs from weight to weight. It has no
    edge cases, so e/2 and g² must not both be 0.
    """
    # Not jnp.square: of a known number it would be an operation for every weight array.
    return drift_scale / (half_epsilon + jnp.sqrt(half_epsilon**2 + mean_square_gradient))


def steady_state_from_scalars(
    precision: PerWeight, prior_precision: PerWeight, stiffness: PerWeight
) -> Result:
    """The exact root's core, 2/(c + √(c² + k h)), c = h + 1/σ², k = 4a²/q [RIC-1].

    For loops over many weights, with 1/σ² and k worked out once. It has no edge cases: h and 1/σ²
    must not both be 0, and c² must stay within range (in float32, h below 1e19), beyond which it
    is 0 where `steady_state_variance` is 1/h.
    """
    certainty = precision + prior_precision
    return 2 / (certainty + jnp.sqrt(jnp.square(certainty) + stiffness * precision))


def large_epsilon(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """The eps that makes Adam resemble the fixed point, e = η/σ² in summed units [FP-2].

    Adam's factor η/(e + |g|) has the same two limits, and is smaller by at most a fifth, at
    |g| = 2e/3. Beside mean gradients divide it by the batch size. Units 1/weight.
    """
    return jnp.divide(drift_scale, stationary_variance)


def transient_from_zero(time: PerWeight, precision: PerWeight, drift_scale: PerWeight) -> Result:
    """Variance `time` steps after certainty, (η/√h) tanh(η√h t) [RIC-2].

    A natural warm-up: η²t at first, η/√h in the end. *Small gain*, σ² = inf.
    """
    return transient_variance(0.0, time, precision, drift_scale, jnp.inf)


def transient_from_infinity(
    time: PerWeight, precision: PerWeight, drift_scale: PerWeight
) -> Result:
    """Variance `time` steps after total ignorance, (η/√h) coth(η√h t) [RIC-2].

    Falls as 1/(h t), an average over all gradients so far, then rests at η/√h. *Small gain*,
    σ² = inf. Infinite at time 0 and where h = 0.
    """
    absorbed = precision * (2 * _half_time(time, precision, drift_scale, jnp.inf))
    ignorant = absorbed == 0
    return jnp.where(ignorant, jnp.inf, 1 / jnp.where(ignorant, 1.0, absorbed))


def transient_variance(
    initial_variance: PerWeight,
    time: PerWeight,
    precision: PerWeight,
    drift_scale: PerWeight,
    stationary_variance: PerWeight,
) -> Result:
    r"""Variance `time` steps after `initial_variance`, at constant precision [RIC-6].

    Solves dp/dt = η² - (η²/σ²) p - h p², the *small gain* limit of the recursion:

        p(t) = (p₀(1 - βT) + 2η²T) / (1 + (β + 2 h p₀)T),   T = tanh(κt/2)/κ,

    with β = η²/σ² and κ = √(β² + 4hη²), for finite p₀ and σ² > 0. It ends on
    `fixed_point_variance`.
    """
    forgetting = 2 * drift.decay_per_step(drift_scale, stationary_variance)
    half_time = _half_time(time, precision, drift_scale, stationary_variance)
    remembered = initial_variance * (1 - forgetting * half_time)
    drifted = 2 * jnp.square(drift_scale) * half_time
    lost = (forgetting + precision * (2 * initial_variance)) * half_time
    return (remembered + drifted) / (1 + lost)


def time_constant(precision: PerWeight, drift_scale: PerWeight) -> Result:
    """Steps in which the variance forgets a disturbance, 1/(2η√h) [RIC-3].

    *Small gain*, loud gradients (σ² = inf). Adam's memory of g² is 1/(1 - b2) steps for every
    weight; this is the filter's, one for each. Infinite where h = 0.
    """
    silent = precision == 0
    rate = 2 * drift_scale * jnp.sqrt(jnp.where(silent, 1.0, precision))
    return jnp.where(silent, jnp.inf, 1 / rate)


def static_variance(prior_variance: PerWeight, total_precision: PerWeight) -> Result:
    """Variance when the optimum never moves, 1/(1/σ² + Σh) [RIC-4].

    Falls as 1/t, as natural gradient does, or AdaGrad without its root: the root in Adam is
    owed to drift. Exact. Infinite for an infinite prior and no information.
    """
    known = prior_variance == 0
    certainty = 1 / jnp.where(known, 1.0, prior_variance) + total_precision
    ignorant = certainty == 0
    return jnp.where(ignorant | known, prior_variance, 1 / jnp.where(ignorant, 1.0, certainty))


def variance_memory(variance: PerWeight, precision: PerWeight, retention: PerWeight) -> Result:
    """Share of a disturbance of the variance left one step later, a²(1 - p h)² [RIC-5].

    The filter's own b2, different for each weight: about 1 - 2η√h when gradients are loud.

    Args:
        variance: p, the *posterior* variance of this step; weight².
        precision: h, what this step's gradient was worth; 1/weight².
        retention: a, fraction of the optimum kept by the drift before it.
    """
    return jnp.square(retention * (1 - variance * precision))


def _half_time(
    time: PerWeight,
    precision: PerWeight,
    drift_scale: PerWeight,
    stationary_variance: PerWeight,
) -> Result:
    """tanh(κt/2)/κ with κ = √(β² + 4hη²), which is t/2 while κt is small."""
    forgetting = drift.decay_per_step(drift_scale, stationary_variance)  # β/2
    rate_squared = jnp.square(forgetting) + precision * jnp.square(drift_scale)  # (κ/2)²
    still = rate_squared == 0
    rate = jnp.sqrt(jnp.where(still, 1.0, rate_squared))
    angle = jnp.where(still, 0.0, rate * time)
    # tanh is odd: its second term is a third of the cube, its third below rounding here.
    small = angle < jnp.finfo(angle.dtype).eps ** 0.25
    series = 0.5 * time * (1 - rate_squared * jnp.square(jnp.where(small, time, 0.0)) / 3)
    return jnp.where(small, series, 0.5 * jnp.tanh(angle) / rate)
