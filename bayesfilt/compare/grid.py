"""Where a grid of runs is best, and how sure that is: medians over seeds, paired bootstrap.

A grid is an array whose last axis is the seed; the others are hyperparameters. A run that
diverged has NaN and counts as infinitely bad: leaving it out would reward a setting that
fails on the hard seeds. All seeds are resampled together in every cell, because the same seed
means the same first weights and minibatches everywhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least, require_fraction

Errors = Float[np.ndarray, "... seeds"]


class Interval(NamedTuple):
    """An estimate and the bootstrap percentiles around it."""

    estimate: float
    low: float
    high: float


class BestCell(NamedTuple):
    """The cell of the lowest median error."""

    cell: tuple[int, ...]
    error: Interval  # of that cell's median, the cell held fixed
    # Fraction of the resamples in which each cell is the best one: where the optimum may be.
    chosen: Float[np.ndarray, "..."]


class Ridge(NamedTuple):
    """The best decay for every learning rate; NaN where the grid does not hold it."""

    log_decay: Float[np.ndarray, " rates"]  # natural logarithm, between the grid's points
    at_edge: Bool[np.ndarray, " rates"]  # the lowest error stands at the first or last decay


def median_over_seeds(errors: Errors) -> Float[np.ndarray, "..."]:
    """Median over the last axis, a diverged run being infinitely bad.

    Raises:
        ValueError: no seeds.
    """
    errors = np.asarray(errors, float)
    if not errors.ndim or not errors.shape[-1]:
        raise ValueError(f"a grid needs seeds along its last axis, got shape {errors.shape}.")
    ordered = np.sort(np.where(np.isnan(errors), np.inf, errors), axis=-1)
    count = ordered.shape[-1]
    low, high = ordered[..., (count - 1) // 2], ordered[..., count // 2]
    # Not (low + high)/2 everywhere: the mean of inf and inf is fine, its difference is not.
    return np.where(low == high, low, 0.5 * low + 0.5 * high)


def resampled_seeds(
    key: PRNGKeyArray, num_seeds: int, num_resamples: int
) -> Int[np.ndarray, "resamples seeds"]:
    """Draw seeds with replacement, the same for every cell."""
    require_at_least("resampled_seeds", "num_resamples", num_resamples, 1)
    return np.asarray(jax.random.randint(key, (num_resamples, num_seeds), 0, num_seeds))


def bootstrap(
    key: PRNGKeyArray,
    statistic: Callable[[Errors], float],
    errors: Errors,
    *,
    level: float = 0.9,
    num_resamples: int = 1000,
) -> Interval:
    """Percentile interval of any number that is made of a grid.

    Args:
        key: draws the seeds.
        statistic: grid -> number; NaN says that it does not exist for this resample.
        errors: seeds last.
        level: probability between the two percentiles.
        num_resamples: of the seeds.

    Returns:
        The statistic of the grid itself between its percentiles. NaN bounds if it
        exists for fewer than `level` of the resamples.
    """
    require_fraction("bootstrap", "level", level)
    draws = resampled_seeds(key, np.shape(errors)[-1], num_resamples)
    values = np.array([statistic(errors[..., draw]) for draw in draws])
    low, high = percentiles(values, level)
    return Interval(estimate=float(statistic(errors)), low=low, high=high)


def percentiles(values: Float[np.ndarray, " resamples"], level: float) -> tuple[float, float]:
    """Both ends of the central `level` of the values; NaN if too many of them are NaN."""
    known = values[~np.isnan(values)]
    if len(known) < level * len(values):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # By rank, never between two values: inf - inf is not a number.
    low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def best_cell(
    key: PRNGKeyArray, errors: Errors, *, level: float = 0.9, num_resamples: int = 1000
) -> BestCell:
    """Find the cell of the lowest median error; ties go to the first.

    Raises:
        ValueError: an empty grid, or one in which more than half of the runs of every cell
            diverged.
    """
    errors = np.asarray(errors, float)
    medians = median_over_seeds(errors)
    if not medians.size or not np.isfinite(medians).any():
        raise ValueError("best_cell needs a cell with a finite median error, got none.")
    cell = tuple(int(i) for i in np.unravel_index(np.argmin(medians), medians.shape))
    chosen = np.zeros(medians.size)
    values = []
    for draw in resampled_seeds(key, errors.shape[-1], num_resamples):
        resampled = median_over_seeds(errors[..., draw])
        chosen[np.argmin(resampled)] += 1
        values.append(resampled[cell])
    low, high = percentiles(np.array(values), level)
    return BestCell(
        cell=cell,
        error=Interval(estimate=float(medians[cell]), low=low, high=high),
        chosen=(chosen / num_resamples).reshape(medians.shape),
    )


def ridge(
    errors: Float[np.ndarray, "rates decays seeds"], decays: Float[np.ndarray, " decays"]
) -> Ridge:
    """The best decay at each learning rate, by a parabola through the three lowest points [GRID-1].

    The parabola is of log error against log decay and goes through the lowest point and its
    two neighbours. Where the lowest point is the first or last, the optimum may lie outside
    the grid: NaN, and `at_edge` says so. A decay of 0 has no logarithm and is left out.

    Args:
        errors: learning rate, decay, seed.
        decays: ascending.

    Returns:
        A `Ridge`.

    Raises:
        ValueError: decays that are not ascending or do not fit the grid.
    """
    decays = np.asarray(decays, float)
    medians = median_over_seeds(errors)
    if medians.ndim != 2 or medians.shape[1:] != decays.shape:
        raise ValueError(
            f"ridge needs errors (rates, {len(decays)} decays, seeds), got {np.shape(errors)}."
        )
    if np.any(np.diff(decays) <= 0) or np.any(decays < 0):
        raise ValueError(f"ridge needs ascending decays >= 0, got {decays.tolist()}.")
    positive = decays > 0
    log_decay = np.log(decays[positive])
    with np.errstate(divide="ignore"):
        heights = np.log(medians[:, positive])
    found = [_lowest_of_parabola(log_decay, row) for row in heights]
    return Ridge(
        log_decay=np.array([place for place, _ in found], float),
        at_edge=np.array([edge for _, edge in found], bool),
    )


def _lowest_of_parabola(x: np.ndarray, y: np.ndarray) -> tuple[float, bool]:
    """Where the parabola through the lowest point and its neighbours is lowest; at the edge."""
    if not np.isfinite(y).any():
        return float("nan"), False
    i = int(np.argmin(y))
    if i in (0, len(y) - 1):
        return float("nan"), True
    if not np.isfinite(y[i - 1 : i + 2]).all():  # a neighbour diverged: no parabola
        return float(x[i]), False
    left, right = (y[i] - y[i - 1]) / (x[i] - x[i - 1]), (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    curvature = (right - left) / (x[i + 1] - x[i - 1])
    if curvature == 0:  # a flat bottom
        return float(x[i]), False
    middle = 0.5 * (x[i - 1] + x[i])
    return float(middle - 0.5 * left / curvature), False
