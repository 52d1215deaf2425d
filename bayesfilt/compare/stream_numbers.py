"""What streams say of the filter's assumptions: drift, whiteness, calibration, power laws.

NumPy in and out, in float64; axes [..., steps, weights], and results lose the steps. `valid`
says which entries count; one that is not finite never does. Everything is in the units of the
summed minibatch loss.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from bayesfilt.checks import require_fraction
from bayesfilt.filters.belief import innovation_variance
from bayesfilt.theory import OrnsteinUhlenbeck, drifted_variance

# Half of a standard normal's squares are below this.
_MEDIAN_OF_SQUARE = 0.4549364231195725


class Estimate(NamedTuple):
    """A number with its standard error, and how many terms it was made of."""

    value: Float[np.ndarray, "..."]
    standard_error: Float[np.ndarray, "..."]
    num_terms: Float[np.ndarray, "..."]


class Slope(NamedTuple):
    """A straight line through the logarithms of two quantities."""

    slope: float
    standard_error: float  # allows for scatter that differs from point to point
    intercept: float  # log y at log x = 0
    num_points: int


def drift_variance(
    optimum: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    shrink: ArrayLike = 0.0,
    robust: bool = False,
) -> Estimate:
    """Variance q that a step adds to the optimum, mean of (w*(t+1) - (1 - s) w*(t))² [INST-5].

    Only pairs of neighbouring valid steps count; no mean is taken off, for the model has none.
    Without the shrink s the result is too large by a fraction s/2 of an Ornstein-Uhlenbeck
    optimum's own q, which is below 1 % for s < 0.02; give s (1 - retention) where it is larger.
    A measurement error of variance m in w* adds 2 m. The standard error takes pairs as
    independent.

    Args:
        optimum: w*, [..., steps, weights].
        valid: Which of them count; by default all that are finite.
        shrink: s in [0, 1), a number or one a weight.
        robust: From the median of the squares instead, as if moves were Gaussian: jumps of the
            optimum (a kink crossed, another minimum) do not count. Its error is 1.65 times larger.

    Returns:
        weight^2; NaN where no pair counts.
    """
    _check_shrink(shrink)
    values, good = _masked(optimum, valid)
    moves = values[..., 1:, :] - (1 - np.asarray(shrink, float)) * values[..., :-1, :]
    paired = good[..., 1:, :] & good[..., :-1, :]
    square = np.where(paired, moves**2, np.nan)
    if not robust:
        return _mean(square)
    count = paired.sum(axis=-2).astype(float)
    middle = _nan_if_none(np.nanmedian, square, count) / _MEDIAN_OF_SQUARE
    # The median of squares of n Gaussians has this many times the relative variance 1/n.
    return Estimate(
        value=middle, standard_error=middle * np.sqrt(5.442 / _some(count)), num_terms=count
    )


def lag_one_autocorrelation(values: ArrayLike, valid: ArrayLike | None = None) -> Estimate:
    """Correlation of neighbours in time, Σ x(t) x(t+1) / Σ ½(x(t)² + x(t+1)²) [INST-6].

    About zero, not about the mean: the filter expects innovations (gradients at its own mean) of
    zero, and one sign for long is the very lag that is looked for. Of gradients > 0 means a gain
    that is too small, < 0 one that is too large; it is of the order of the gain. Sums are
    over pairs of valid neighbours. The standard error is that of white values, of any sizes.
    """
    x, good = _masked(values, valid)
    paired = good[..., 1:, :] & good[..., :-1, :]
    before, behind = (np.where(paired, part, 0) for part in (x[..., :-1, :], x[..., 1:, :]))
    product, power = before * behind, 0.5 * (before**2 + behind**2)
    total = power.sum(axis=-2)
    total = np.where(total > 0, total, np.nan)
    return Estimate(
        value=product.sum(axis=-2) / total,
        standard_error=np.sqrt((product**2).sum(axis=-2)) / total,
        num_terms=paired.sum(axis=-2).astype(float),
    )


def held_variance(
    posterior_variance: ArrayLike, transition: OrnsteinUhlenbeck
) -> Float[np.ndarray, "*runs steps weights"]:
    """Variance that each weight was held with: the posterior of the step *before*, drifted.

    A recorded posterior is after the step's gradient, which must not judge itself. The first step
    has none before it: NaN.

    Args:
        posterior_variance: As recorded, [..., steps, weights]; weight^2.
        transition: Of the filter, constant over the window.
    """
    after = np.asarray(posterior_variance, float)
    eta, sigma2 = (jnp.asarray(number, float) for number in transition)
    drifted = np.asarray(drifted_variance(jnp.asarray(after[..., :-1, :]), eta, sigma2), float)
    return np.concatenate([np.full_like(after[..., :1, :], np.nan), drifted], axis=-2)


def normalised_innovation_squared(
    gradient: ArrayLike,
    curvature: ArrayLike,
    variance: ArrayLike,
    noise_variance: ArrayLike | None = None,
) -> Float[np.ndarray, "..."]:
    """Surprise over what was expected, g² / (R + h² p) [INST-7].

    1 on average if the filter is right. h must not come from the same gradient: g²/(g⁴ p + g²)
    is below 1 whatever happens. Take `ggn` or `curvature`.

    Args:
        gradient: g, summed, at the weight the filter holds.
        curvature: h of the summed minibatch loss, from elsewhere.
        variance: p that the weight was held with (`held_variance`); weight^2.
        noise_variance: R of the summed gradient; by default h (the Fisher identity).

    Returns:
        NaN where nothing was to be expected (h or R <= 0) or a number is NaN.
    """
    r = curvature if noise_variance is None else noise_variance
    given = (np.asarray(each, float) for each in (gradient, curvature, variance, r))
    g, h, p, noise = np.broadcast_arrays(*given)
    usable = (h > 0) & (noise > 0)
    ratio = np.where(usable, noise, 1) / np.where(usable, h, 1)
    expected = np.asarray(innovation_variance(*(jnp.asarray(each) for each in (p, h, ratio))))
    return np.where(usable, g**2, np.nan) / np.where(usable, expected, 1)


def calibration(
    weight: ArrayLike, optimum: ArrayLike, variance: ArrayLike, valid: ArrayLike | None = None
) -> Float[np.ndarray, "..."]:
    """How far the optimum is over how far it should be, (w* - w)² / p [INST-8].

    1 on average if the filter is calibrated. The weight is the filter's mean before the step's
    gradient, so p is the variance it was held with (`held_variance`); the posterior after that
    gradient is smaller by the factor 1 - gain, and 1 / (1 - gain) would come out.

    Returns:
        NaN where the optimum is not valid or the variance not positive.
    """
    found, good = _masked(optimum, valid)
    p = np.asarray(variance, float)
    usable = good & (p > 0)
    return np.where(usable, (found - np.asarray(weight, float)) ** 2, np.nan) / np.where(
        usable, p, 1
    )


def noise_over_curvature(
    noise_variance: ArrayLike, curvature: ArrayLike
) -> Float[np.ndarray, "..."]:
    """R / H, 1 where the Fisher identity holds [INST-9].

    NaN where the curvature is not positive: the ratio means nothing there.
    """
    noise, h = np.asarray(noise_variance, float), np.asarray(curvature, float)
    return np.where(h > 0, noise, np.nan) / np.where(h > 0, h, 1)


def mean_over_steps(values: ArrayLike, valid: ArrayLike | None = None) -> Estimate:
    """Mean over the steps that count, its error as if they were independent."""
    numbers, good = _masked(values, valid)
    return _mean(np.where(good, numbers, np.nan))


def log_slope(y: ArrayLike, x: ArrayLike) -> Slope:
    """Exponent of a power law y ~ x^slope, least squares of log y on log x [INST-10].

    Points that are not finite and positive in both are left out (a drift of 0 has no logarithm).
    The standard error is White's, with n/(n - 2). Errors in x draw the slope towards zero.

    Args:
        y: Such as `drift_variance(...).value`; any shape, like x.
        x: Such as the mean curvature or noise variance of the same weights.

    Returns:
        NaN slope and error for fewer than 3 points or where all x are equal.

    Raises:
        ValueError: Shapes that differ.
    """
    above, along = np.asarray(y, float).ravel(), np.asarray(x, float).ravel()
    if np.shape(y) != np.shape(x):
        raise ValueError(
            f"log_slope needs as many y as x, got shapes {np.shape(y)} and {np.shape(x)}."
        )
    usable = np.isfinite(above) & np.isfinite(along) & (above > 0) & (along > 0)
    log_y, log_x = np.log(above[usable]), np.log(along[usable])
    count = len(log_x)
    away = log_x - log_x.mean() if count else log_x
    spread = float(np.sum(away**2))
    if count < 3 or spread <= 1e-24 * count:
        nan = float("nan")
        return Slope(slope=nan, standard_error=nan, intercept=nan, num_points=count)
    slope = float(away @ log_y / spread)
    intercept = float(log_y.mean() - slope * log_x.mean())
    left = log_y - intercept - slope * log_x
    error = np.sqrt(np.sum((away * left) ** 2) * count / (count - 2)) / spread
    return Slope(slope=slope, standard_error=float(error), intercept=intercept, num_points=count)


def _check_shrink(shrink: ArrayLike) -> None:
    for number in np.ravel(np.asarray(shrink, float)):
        require_fraction("drift_variance", "shrink", number)


def _masked(
    values: ArrayLike, valid: ArrayLike | None
) -> tuple[Float[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Numbers in float64, 0 where they do not count, and which count."""
    numbers = np.asarray(values, float)
    good = np.isfinite(numbers)
    if valid is not None:
        good = good & np.asarray(valid, bool)
    return np.where(good, numbers, 0), good


def _mean(values: Float[np.ndarray, "..."]) -> Estimate:
    """Of what is not NaN along the steps."""
    good = ~np.isnan(values)
    count = good.sum(axis=-2).astype(float)
    some = _some(count)
    mean = np.where(good, values, 0).sum(axis=-2) / some
    around = np.where(good, values - mean[..., None, :], 0)
    variance = (around**2).sum(axis=-2) / np.where(count > 1, count - 1, np.nan)
    return Estimate(value=mean, standard_error=np.sqrt(variance / some), num_terms=count)


def _some(count: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(count > 0, count, np.nan)


def _nan_if_none(reduce, values, count):
    """`reduce` over the steps where there is a value; NumPy would warn of the others."""
    filled = np.where((count > 0)[..., None, :], values, 0)
    return np.where(count > 0, reduce(filled, axis=-2), np.nan)
