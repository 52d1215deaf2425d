"""Where errors are lowest along one hyperparameter or two, and how that place moves.

The ridge of `bayesfilt.compare` goes through three points; with few seeds the place it finds jumps
by a step of the grid. Here a parabola is fitted to five points along each hyperparameter, and a
setting whose lowest error is at the edge of its grid has no best value (NaN), as there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayesfilt.compare import Interval, bootstrap, median_over_seeds
from experiments.contract import (
    Verdict,
    all_of,
    check_key,
    is_the_one,
    margin_of,
    margin_of_all,
    margin_of_the_one,
    spelled,
    within,
)
from experiments.coordinates import widened

# Of the grid's points, so many to each side of the lowest take part in a fit.
_EACH_SIDE = 2
# Of a grid's step, how sure a parabola is of the place between two points: seeds share the grid,
# so that resampling them does not show it. A place drawn anywhere within half a step has 0.29.
_GRID_ERROR = 0.25
_RESAMPLES = 200
_INTERVAL = "90 % bootstrap over paired seeds, widened by a quarter of the grid's step"


class Moving(NamedTuple):
    """Errors along a hyperparameter, for every setting of something else."""

    errors: Float[np.ndarray, "settings values seeds"]
    log_values: Float[np.ndarray, "settings values"]  # ascending, evenly spaced
    log_settings: Float[np.ndarray, " settings"]


def log_heights(errors: Float[np.ndarray, "... seeds"]) -> Float[np.ndarray, "..."]:
    """Logarithm of the median over seeds; infinite where half of the runs diverged."""
    with np.errstate(divide="ignore"):
        return np.log(median_over_seeds(errors))


def log_best(
    heights: Float[np.ndarray, " values"], log_values: Float[np.ndarray, " values"]
) -> float:
    """Where the parabola around the lowest point is lowest; NaN if that point is at the edge."""
    if not np.isfinite(heights).any():
        return float("nan")
    lowest = int(np.argmin(heights))
    if lowest in (0, len(heights) - 1):
        return float("nan")
    near = slice(max(lowest - _EACH_SIDE, 0), lowest + _EACH_SIDE + 1)
    x, y = log_values[near], heights[near]
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    middle = log_values[lowest]
    if x.size < 3:
        return float(middle)
    curvature, slope, _ = np.polyfit(x - middle, y, 2)
    if curvature <= 0:  # a flat bottom
        return float(middle)
    return float(np.clip(middle - 0.5 * slope / curvature, x[0], x[-1]))


def log_best_of_pair(
    heights: Float[np.ndarray, "firsts seconds"],
    log_first: Float[np.ndarray, " firsts"],
    log_second: Float[np.ndarray, " seconds"],
) -> tuple[float, float]:
    """The same of two hyperparameters at once; NaN if the lowest cell is on the grid's border."""
    if not np.isfinite(heights).any():
        return float("nan"), float("nan")
    place = np.unravel_index(np.argmin(heights), heights.shape)
    if any(at in (0, size - 1) for at, size in zip(place, heights.shape, strict=True)):
        return float("nan"), float("nan")
    windows = [slice(max(int(at) - _EACH_SIDE, 0), int(at) + _EACH_SIDE + 1) for at in place]
    near = heights[windows[0], windows[1]]
    axes = log_first - log_first[place[0]], log_second - log_second[place[1]]
    grids = np.meshgrid(axes[0][windows[0]], axes[1][windows[1]], indexing="ij")
    known = np.isfinite(near)
    u, v = (grid[known] for grid in grids)
    design = np.stack([np.ones_like(u), u, v, 0.5 * u * u, u * v, 0.5 * v * v], axis=1)
    _, du, dv, uu, uv, vv = np.linalg.lstsq(design, near[known], rcond=None)[0]
    shift = np.zeros(2)
    if known.sum() > design.shape[1] and uu > 0 and uu * vv > uv * uv:
        shift = -np.linalg.solve(np.array([[uu, uv], [uv, vv]]), np.array([du, dv]))
    u_best, v_best = (
        float(np.clip(move, grid.min(), grid.max()))
        for move, grid in zip(shift, grids, strict=True)
    )
    return float(log_first[place[0]]) + u_best, float(log_second[place[1]]) + v_best


def log_best_values(moving: Moving) -> Float[np.ndarray, " settings"]:
    """Logarithm of the best value of every setting."""
    return np.array(
        [
            log_best(row, values)
            for row, values in zip(log_heights(moving.errors), moving.log_values, strict=True)
        ]
    )


def best_intervals(moving: Moving) -> Float[np.ndarray, "settings 3"]:
    """The best value of every setting, and both ends of its interval, the grid's error added."""
    found = [
        bootstrap(
            check_key(),
            lambda drawn, values=values: log_best(log_heights(drawn), values),
            errors,
            num_resamples=_RESAMPLES,
        )
        for errors, values in zip(moving.errors, moving.log_values, strict=True)
    ]
    errors = [grid_error(values) for values in moving.log_values]
    return np.exp([widened(each, by) for each, by in zip(found, errors, strict=True)])


def grid_error(log_values: Float[np.ndarray, " values"]) -> float:
    """How far a best value may be off because values were tried at a distance."""
    return _GRID_ERROR * float(log_values[1] - log_values[0])


def slope_error(error: float, log_settings: Float[np.ndarray, " settings"]) -> float:
    """Error of a slope over settings whose values have such an error, each its own."""
    return error / float(np.sqrt(np.sum(np.square(log_settings - log_settings.mean()))))


def slope_of_best(moving: Moving) -> Interval:
    """Slope of log best value on log setting, the grid's error in its interval.

    NaN if more than one setting has no best value inside its grid.
    """
    needed = max(2, len(moving.log_settings) - 1)

    def slope(errors: np.ndarray) -> float:
        best = log_best_values(moving._replace(errors=errors))
        known = np.isfinite(best)
        if known.sum() < needed:
            return float("nan")
        return float(np.polyfit(moving.log_settings[known], best[known], 1)[0])

    found = bootstrap(check_key(), slope, moving.errors, num_resamples=_RESAMPLES)
    return widened(found, slope_error(grid_error(moving.log_values[0]), moving.log_settings))


def is_law(
    claim: str, found: Interval, law: str, laws: Mapping[str, float], *, measured: str
) -> Verdict:
    """Whether a number is what one law says, and no other's.

    Args:
        claim: in words.
        found: the number.
        law: of `laws`.
        laws: what each says of this number; those that say the same are no rivals.
        measured: what the number is.
    """
    value = laws[law]
    rivals = [each for each in laws.values() if each != value]
    return Verdict(
        claim=claim,
        measured=f"{measured} {spelled(found)}",
        expected=f"{value:.3g}; rivals {', '.join(f'{each:.3g}' for each in sorted(set(rivals)))}",
        tolerance=f"{_INTERVAL}; undecided if it holds a rival too, is wider than the way to it,"
        " or if too many best values are at the edge of their grid",
        holds=is_the_one(found, value, rivals),
        margin=margin_of_the_one(found, value, rivals),
    )


def in_every(
    claim: str,
    found: Sequence[Interval],
    low: float,
    high: float,
    *,
    measured: str,
    tolerance: str,
) -> Verdict:
    """Whether every one of some numbers lies in a band: no as soon as one is outside.

    Args:
        claim: in words.
        found: the numbers; NaN where a best value is at the edge of its grid.
        low: end of the band.
        high: end of the band.
        measured: what the numbers are.
        tolerance: why the band has this width.
    """
    parts = [within(each, low, high) for each in found]
    margins = [margin_of(each, low, high) for each in found]
    return Verdict(
        claim=claim,
        measured=f"{measured}: {'; '.join(map(spelled, found))}",
        expected=f"{low:.3g} to {high:.3g}",
        tolerance=f"{_INTERVAL}; {tolerance}; NaN where the best is at the edge of the grid",
        holds=all_of(*parts),
        margin=margin_of_all(margins, parts),
    )
