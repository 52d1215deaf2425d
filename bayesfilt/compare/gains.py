"""The gain of every weight: how much of a gradient each optimizer takes, and in which regime.

The gain is the factor on the summed gradient's running mean, which for a filter is the
posterior variance of a weight's optimum and for AdamW learning_rate / (sqrt(v) + eps) over
the batch size. Against the RMS gradient it shows which law the optimizer follows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.compare.layers import Layers, sizes, sums_by_layer
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.optimizers.belief_report import filter_state
from bayesfilt.optimizers.moments import ScalarOrSchedule, debias_factor, value_at
from bayesfilt.optimizers.parts import PartsOf, UpdateParts
from bayesfilt.theory import REGIMES, OrnsteinUhlenbeck, regime

# Edges of the histogram; a gain beyond them counts in the outermost bin.
LOG10_GAIN_EDGES = np.linspace(-16, 8, 97)

# (optimizer state after the step, step) -> the transition whose filter takes such steps
TransitionOf = Callable[[Any, Array], OrnsteinUhlenbeck]


class Gains(NamedTuple):
    """One optimizer's gains at one step of the leader; NaN where it does not tell them."""

    gain: Float[Array, " weights"]  # weight^2, factor on the summed gradient
    drift_scale: Float[Array, ""]  # of the transition that the optimizer stands for
    stationary_variance: Float[Array, ""]
    regime_fraction: Float[Array, "layers regimes"]
    histogram: Float[Array, " bins"]  # weights in each bin of `LOG10_GAIN_EDGES`


def gain_of(parts: UpdateParts, batch_size: Scalar) -> Params:
    """Factor on the *summed* gradient, 1/(1/variance + prior precision)/batch_size [CMP-3].

    Infinite where there is neither gradient, prior nor epsilon. Units: weight^2.
    """

    def gain(variance, prior_precision):
        return 1 / (1 / variance + prior_precision) / batch_size

    return jax.tree.map(gain, parts.variance, parts.prior_precision)


def mean_square_of_sum(running: Params, b2: Scalar, count: Array, batch_size: Scalar) -> Params:
    """Mean square of the summed gradient from a running mean over mean-loss gradients.

    Args:
        running: Running mean of squares after `count` steps, not debiased.
        b2: Its memory.
        count: Steps in it, at least 1.
        batch_size: Examples in a minibatch.
    """

    def summed(values):
        return values * (debias_factor(b2, count, values.dtype) * batch_size**2)

    return jax.tree.map(summed, running)


def measure_gains(
    layers: Layers,
    mean_square_gradient: Float[Array, " weights"],
    gain: Float[Array, " weights"],
    transition: OrnsteinUhlenbeck,
) -> Gains:
    """Everything recorded of one optimizer's gains, from flat vectors.

    Args:
        layers: Of the weights.
        mean_square_gradient: Of the summed loss; 1/weight^2.
        gain: Of every weight; weight^2; NaN throughout if the optimizer does not tell it.
        transition: Drift scale and stationary variance that divide the regimes; NaN likewise.
    """
    eta, sigma2 = (jnp.asarray(x, gain.dtype) for x in transition)
    fractions = regime_fraction(layers, mean_square_gradient, eta, sigma2)
    return Gains(
        gain=gain,
        drift_scale=eta,
        stationary_variance=sigma2,
        regime_fraction=jnp.where(jnp.isnan(eta), jnp.nan, fractions),
        histogram=jnp.where(jnp.all(jnp.isnan(gain)), jnp.nan, gain_histogram(gain)),
    )


def regime_fraction(
    layers: Layers,
    mean_square_gradient: Float[Array, " weights"],
    drift_scale: Scalar,
    stationary_variance: Scalar,
) -> Float[Array, "layers regimes"]:
    """Fraction of each layer's weights whose gradient puts them in each of `theory.REGIMES`."""
    index = regime(mean_square_gradient, drift_scale, stationary_variance)
    here = jnp.stack([index == each for each in range(len(REGIMES))])
    count = sums_by_layer(layers, here.astype(mean_square_gradient.dtype))
    return (count / sizes(layers).astype(count.dtype)).T


def gain_histogram(gain: Float[Array, " weights"]) -> Float[Array, " bins"]:
    """Weights in each bin of log10 gain; a gain that is 0, infinite or NaN is in none."""
    counted = jnp.isfinite(gain) & (gain > 0)
    low, high = float(LOG10_GAIN_EDGES[0]), float(LOG10_GAIN_EDGES[-1])
    bins = len(LOG10_GAIN_EDGES) - 1
    place = (jnp.log10(jnp.where(counted, gain, 1)) - low) * (bins / (high - low))
    index = jnp.clip(place.astype(jnp.int32), 0, bins - 1)
    return jnp.zeros(bins, gain.dtype).at[index].add(counted.astype(gain.dtype))


def transition_of(parts_of: PartsOf, learning_rate: ScalarOrSchedule) -> TransitionOf:
    """How to read the transition that an optimizer stands for at a step.

    A filter's state has it. For another optimizer it is the dictionary's: the drift scale is
    the learning rate, and the stationary variance is the one whose decay is its shrink.

    Args:
        parts_of: How to take its update apart.
        learning_rate: What the dictionary calls the drift scale, a number or schedule.
    """

    def read(opt_state: Any, step: Array) -> OrnsteinUhlenbeck:
        try:
            state: Any = filter_state(opt_state)
            return OrnsteinUhlenbeck(
                drift_scale=state.drift_scale, stationary_variance=state.stationary_variance
            )
        except (ValueError, AttributeError):  # no filter, or one with other numbers
            pass
        shrink = parts_of(opt_state).shrink
        eta = value_at(learning_rate, step, shrink.dtype)
        decays = shrink > 0
        return OrnsteinUhlenbeck(
            drift_scale=eta,
            stationary_variance=jnp.where(
                decays, 0.5 * jnp.square(eta) / jnp.where(decays, shrink, 1), jnp.inf
            ),
        )

    return read


def sampled_weights(num_weights: int, most: int) -> np.ndarray:
    """Which weights to write down where all would be too many: a fixed random choice, sorted."""
    if num_weights <= most:
        return np.arange(num_weights)
    return np.sort(np.random.default_rng(0).choice(num_weights, size=most, replace=False))


def snapshot_records(num_records: int, most: int) -> np.ndarray:
    """Which records become snapshots: first and last, denser early, where the gains still move."""
    spaced = (num_records - 1) * np.linspace(0, 1, most) ** 2
    return np.unique(np.round(spaced).astype(int))
