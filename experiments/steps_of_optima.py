"""Do measured optima go on as they went? Correlation of their steps, its memory, and forecasts.

An optimum with a velocity, seen with an error of variance m,

    w*' = w* + u + N(0, q)    u' = (1 - c) u + ...    seen: w* + N(0, m),

has steps whose autocovariances are U (1 - c)^k from the second lag on, U the velocity's variance.
At lag one m is taken off, for an error makes a step there and one back; at lag zero 2 m + q are put
on. So a velocity is looked for at lag two and its forgetting from there on, and what is negative
at lag one alone is an error of measurement or a way back.

Paths are (..., steps, weights) with NaN where an optimum was not found; results lose the steps.
"""

import numpy as np
from jaxtyping import Float

# Of the steps' correlations, from the first that errors of measurement leave alone.
FIRST, LAST = 2, 5
FARTHEST = 20  # lag at which correlations are still looked at
_LEAST_VALID = 0.9  # of the steps: an optimum that comes and goes has steps of its own
_LEAST_ROWS = 8  # of a regression on three columns, and of its test


def found_throughout(
    paths: Float[np.ndarray, "... steps weights"],
) -> Float[np.ndarray, "... steps weights"]:
    """The same, NaN throughout where an optimum was found at too few steps, or never moved."""
    known = np.isfinite(paths)
    some = np.where(known, paths, 0.0)
    moves = np.any(known & (some != some[..., :1, :]), axis=-2, keepdims=True)
    return np.where((known.mean(axis=-2, keepdims=True) >= _LEAST_VALID) & moves, paths, np.nan)


def step_correlation(
    paths: Float[np.ndarray, "... steps weights"], lag: int
) -> Float[np.ndarray, "... weights"]:
    """Correlation of each weight's steps with those `lag` later, about zero; NaN of none.

    About zero: a random walk has no mean step, and one direction for long is a velocity too. Both
    sums are means over the steps that are known.
    """
    steps = np.diff(found_throughout(paths), axis=-2)
    count = steps.shape[-2] - lag
    product = steps[..., :count, :] * steps[..., lag:, :]
    return _mean(product, axis=-2) / _mean(steps**2, axis=-2)


def mean_correlation(
    paths: Float[np.ndarray, "... steps weights"], lag: int
) -> Float[np.ndarray, "..."]:
    """The same, averaged over the weights."""
    return _mean(step_correlation(paths, lag), axis=-1)


def mean_over_lags(
    paths: Float[np.ndarray, "... steps weights"],
) -> Float[np.ndarray, "..."]:
    """The same, averaged over the lags from two on as well: one number a run."""
    last = min(FARTHEST, paths.shape[-2] // 2)
    return np.mean([mean_correlation(paths, lag) for lag in range(FIRST, last + 1)], axis=0)


def forgetting(paths: Float[np.ndarray, "... steps weights"]) -> Float[np.ndarray, "..."]:
    """Share c of the velocity that is lost in one step; 1 where nothing goes on, or it turns back.

    From correlations at lags 2 to 5, averaged over the weights: the sum of the later three over
    that of the earlier three is 1 - c, whatever the error of measurement. Between 0 and 1.
    """
    rows = np.stack([mean_correlation(paths, lag) for lag in range(FIRST, LAST + 1)])
    before, after = rows[:-1].sum(axis=0), rows[1:].sum(axis=0)
    kept = np.where(before > 0, after, 0.0) / np.where(before > 0, before, 1.0)
    return np.where(np.isfinite(before), 1 - np.clip(kept, 0.0, 1.0), np.nan)


def autoregression(path: Float[np.ndarray, " steps"], order: int) -> Float[np.ndarray, " numbers"]:
    """Least squares of a path on a constant and its `order` last values, the nearest first.

    NaN where too few rows are known.
    """
    target, columns = _rows(path, order, order)
    if len(target) < _LEAST_ROWS:
        return np.full(order + 1, np.nan)
    return np.linalg.lstsq(columns, target, rcond=None)[0]


def gain_of_second(path: Float[np.ndarray, " steps"]) -> float:
    """What the last step tells of the next, beside where the optimum is; of one weight.

    AR(1) and AR(2) are fitted to the first half of the path and foretell the second, step by step.

    Returns:
        Logarithm of AR(2)'s mean square error over AR(1)'s: below 0 where the last step helps,
        be it that it comes again or that it is taken back.
    """
    middle = len(path) // 2
    errors = []
    for order in (1, 2):
        numbers = autoregression(path[:middle], order)
        target, columns = _rows(path[middle:], order, 2)
        if len(target) < _LEAST_ROWS:
            return np.nan
        errors.append(np.mean((target - columns @ numbers) ** 2))
    return float(np.log(errors[1] / errors[0])) if min(errors) > 0 else np.nan


def gains_of_second(
    paths: Float[np.ndarray, "seeds steps weights"],
) -> Float[np.ndarray, " seeds"]:
    """Median over the weights of AR(2)'s log error over AR(1)'s, one number a run."""
    whole = found_throughout(paths)
    gains = np.array([[gain_of_second(path) for path in run.T] for run in whole])
    return np.array([np.median(row[np.isfinite(row)]) if _any(row) else np.nan for row in gains])


def _rows(path: np.ndarray, order: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """What is to be foretold from place `first` on, and from what; where all of it is known."""
    target = path[first:]
    behind = [path[first - lag : len(path) - lag] for lag in range(1, order + 1)]
    columns = np.stack([np.ones_like(target), *behind], axis=1)
    known = np.isfinite(target) & np.isfinite(columns).all(axis=1)
    return target[known], columns[known]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Of what is not NaN; NaN of nothing, without a warning."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _any(row: np.ndarray) -> bool:
    return bool(np.isfinite(row).any())
