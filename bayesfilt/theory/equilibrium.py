r"""What a long run looks like: time scales, the size of weights, rotation, batch size, tracking.

Here `shrink` is the fraction of a weight taken away per step, whatever convention it came from:
`learning_rate * weight_decay` in torch and optax, η²/2σ² in the tied filter. *Pure noise* means
that the normalised gradients are independent in time, with mean 0 and variance 1.
"""

import jax.numpy as jnp

from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck, PerWeight, Result


def equilibrium_rms(drift_scale: PerWeight, shrink: PerWeight) -> Result:
    """RMS size of a weight driven by pure noise, η/√(2s - s²) [EQ-1].

    Of w' = (1 - s) w - η u, exactly, for 0 < s < 1; η/√(2s) to first order. With the tied shrink
    s = η²/2σ² it is σ: the prior of the filter is the equilibrium of the optimizer. Reached
    after some 1/(2s) steps. Gradients that agree in time give 1/weight_decay instead.

    Args:
        drift_scale: η, Adam's learning rate; units of a weight.
        shrink: s, a pure number.
    """
    return drift_scale / jnp.sqrt(shrink * (2 - shrink))


def equilibrium_rms_with_momentum(
    drift_scale: PerWeight, shrink: PerWeight, b1: PerWeight
) -> Result:
    r"""RMS size of a weight driven by a running mean of pure noise [EQ-2].

    Of w' = (1 - s) w - η m, m' = b1 m + (1 - b1) u, whose power spectrum has two poles:

        η √((1-b)/(1+b)) √((1 + a b)/((1 - a²)(1 - a b))),   a = 1 - s, b = b1.

    Exact. It differs from `equilibrium_rms` by O(s/(1 - b1)): momentum hardly matters.
    """
    kept = 1 - shrink
    memory = (1 - b1) / (1 + b1) * (1 + kept * b1) / (1 - kept * b1)
    return equilibrium_rms(drift_scale, shrink) * jnp.sqrt(memory)


def ema_timescale(shrink: PerWeight) -> Result:
    """Steps over which a weight averages its own updates, 1/s [EQ-3].

    Under AdamW a weight is a running mean of -update/weight_decay, not of earlier weights,
    with this memory. Infinite without decay. Divide by the steps in an epoch for epochs.
    """
    still = jnp.equal(shrink, 0)
    return jnp.where(still, jnp.inf, 1 / jnp.where(still, 1.0, shrink))


def rotation_per_step(shrink: PerWeight, b1: PerWeight = 0.0) -> Result:
    """Angle a layer's weight vector turns in one step at equilibrium, about √(2s) [EQ-4].

    Of the pure-noise process of `equilibrium_rms_with_momentum`, for a layer of many weights:
    the cosine is the correlation of a weight with itself one step on, (a + b)/(1 + a b).
    To first order √(2s (1-b)/(1+b)). Units: radians.
    """
    sine_squared = 0.5 * shrink * (1 - b1) / (1 + (1 - shrink) * b1)
    return 2 * jnp.arcsin(jnp.sqrt(sine_squared))


def transition_at_batch_size(transition: OrnsteinUhlenbeck, ratio: PerWeight) -> OrnsteinUhlenbeck:
    """Drift per step when the batch is `ratio` times larger, η√k and the same σ² [EQ-5].

    If the optimum drifts a fixed amount per *example*, the tied shrink goes as k, and the factor
    on the mean gradient as k in every regime: linear scaling of SGD's learning rate, square-root
    scaling of Adam's. The regime of each weight stays. It stops where one step of the larger
    batch is no longer small, the critical batch size.

    Args:
        transition: the drift at the old batch size.
        ratio: k > 0, new batch size over old.
    """
    return OrnsteinUhlenbeck(
        drift_scale=transition.drift_scale * jnp.sqrt(ratio),
        stationary_variance=transition.stationary_variance,
    )


def tracking_error(
    learning_rate: PerWeight,
    curvature: PerWeight,
    noise_variance: PerWeight,
    drift_variance: PerWeight,
) -> Result:
    """Mean squared distance from an optimum that drifts, (K²R + q)/(2Kc - K²c²) [EQ-6].

    Of a weight that follows a random walk by plain gradient steps K, in equilibrium and exactly:
    its distance obeys d' = (1 - K c) d - K n + move. Infinite at and above K c = 2, where the
    steps are unstable.

    Args:
        learning_rate: K > 0, factor on the summed gradient; weight².
        curvature: c > 0; 1/weight².
        noise_variance: R, of the summed gradient; 1/weight².
        drift_variance: q, of one move of the optimum; weight².
    """
    step = jnp.multiply(learning_rate, curvature)
    stable = (step > 0) & (step < 2)
    contraction = step * (2 - jnp.where(stable, step, 1.0))
    noise = jnp.square(learning_rate) * noise_variance + drift_variance
    return jnp.where(stable, noise / jnp.where(stable, contraction, 1.0), jnp.inf)


def optimal_learning_rate(noise_variance: PerWeight, drift_variance: PerWeight) -> Result:
    """Constant factor that tracks a random walk best, √(q/R), whatever the curvature [EQ-6].

    *Small gain*: K c well below one, where the curvature cancels. So a root-mean-square
    normaliser needs noise-dominated gradients and equal drift, not g² equal to the curvature.
    """
    return jnp.sqrt(jnp.divide(drift_variance, noise_variance))
