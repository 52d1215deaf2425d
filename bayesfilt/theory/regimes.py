r"""Which optimizer the filter behaves like, weight by weight.

Two thresholds divide the root-mean-square (summed) gradient of a weight. Below η/σ² the drift
forgets faster than gradients inform: the variance stays at σ², an SGD step. From there to 1/η
drift balances information: η/|g|, an Adam step. Above 1/η one gradient outweighs all before it:
1/g², a mean-square step, which only the exact steady state knows of. When η > σ the thresholds
have crossed and no Adam regime is left: SGD turns into mean-square at 1/σ, between the two.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from bayesfilt.theory.ornstein_uhlenbeck import PerWeight, Result

REGIMES = ("sgd", "adam", "mean_square")


def crossover_gradient(drift_scale: PerWeight, stationary_variance: PerWeight) -> Result:
    """RMS summed gradient at which SGD steps turn into Adam steps, η/σ² [REG-1].

    There the fixed point is 2/(1 + √5) = 0.618 of σ². Units 1/weight; 0 for a random walk.
    """
    return jnp.divide(drift_scale, stationary_variance)


def information_per_step(
    precision: PerWeight, drift_scale: PerWeight, stationary_variance: PerWeight
) -> Result:
    """How much one gradient says beside what the drift destroys, hσ⁴/η² [REG-2].

    A pure number: quiet (SGD) well below one, loud (Adam) well above. The size of the data set
    is not in it. Infinite for a random walk, unless h = 0.
    """
    # Nothing times infinity: without a gradient there is no information, whatever the prior.
    unknowable = (precision == 0) & jnp.isinf(stationary_variance)
    ratio = jnp.where(unknowable, 0.0, stationary_variance) / drift_scale
    return precision * ratio * ratio


def sgd_variance(mean_square_gradient: PerWeight, stationary_variance: PerWeight) -> Result:
    """Variance where gradients are quiet, σ² whatever the gradient [REG-3]."""
    return jnp.zeros_like(mean_square_gradient) + stationary_variance


def adam_variance(mean_square_gradient: PerWeight, drift_scale: PerWeight) -> Result:
    """Variance where gradients are loud, η/√g², infinite at g = 0 [REG-3].

    True between the two thresholds, several times away from either.
    """
    silent = mean_square_gradient == 0
    settled = drift_scale / jnp.sqrt(jnp.where(silent, 1.0, mean_square_gradient))
    return jnp.where(silent, jnp.inf, settled)


def mean_square_variance(mean_square_gradient: PerWeight) -> Result:
    """Variance where one gradient outweighs the past, 1/g², infinite at g = 0 [REG-3].

    The exact steady state well above η|g| = 1. `fixed_point_variance` never gets there.
    """
    silent = mean_square_gradient == 0
    return jnp.where(silent, jnp.inf, 1 / jnp.where(silent, 1.0, mean_square_gradient))


def regime(
    mean_square_gradient: PerWeight,
    drift_scale: PerWeight,
    stationary_variance: PerWeight,
) -> Int[Array, "*#dims"]:
    """Index into `REGIMES` of each weight, by its RMS gradient [REG-1].

    Below η/σ² "sgd", from there to 1/η "adam", above "mean_square". A label, not a formula:
    within a factor of a few of a threshold two regimes mix.
    """
    rms = jnp.sqrt(mean_square_gradient)
    quiet = rms < crossover_gradient(drift_scale, stationary_variance)
    overwhelming = rms * drift_scale > 1
    return jnp.where(quiet, 0, jnp.where(overwhelming, 2, 1))
