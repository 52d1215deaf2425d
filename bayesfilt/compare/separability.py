r"""Whether learning rate and decay can be tuned one at a time, and how the best decay scales.

Near its best cell the logarithm of a grid's error is fitted by a quadratic in log learning
rate and log decay. A valley along an axis means that the two are separable in that
parametrisation of decay; an oblique one that they are not. Decay is either the factor `wd`
that is multiplied with the rate ("lr_scaled", torch and optax) or the per-step shrink
itself, lr wd ("paper"): log(shrink) = log(lr) + log(wd), so that one fit says both.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.checks import require_one_of
from bayesfilt.compare.grid import (
    Errors,
    Interval,
    bootstrap,
    median_over_seeds,
    ridge,
)

PARAMETRISATIONS = ("lr_scaled", "paper")

_COEFFICIENTS = 6  # of a quadratic in two variables


class Separability(NamedTuple):
    """How oblique the valley of a grid is, in one parametrisation of decay."""

    # M12/sqrt(M11 M22) of the quadratic's second derivatives M: 0, separable; +-1, only a
    # combination of the two matters. NaN where the surface has no valley in the grid.
    off_diagonal: Interval
    # Direction of the valley's floor, in degrees from the axis of the learning rate, (-90, 90]:
    # 0 and 90 lie along an axis; -45 says that learning rate times decay is what matters.
    ridge_angle: Interval


class DecaySlope(NamedTuple):
    """d log(best decay) / d log(learning rate), and the rates it rests on."""

    slope: Interval
    num_rates: int  # that are any good, and whose best decay lies inside the grid


def quadratic_fit(
    log_rates: Float[np.ndarray, " rates"],
    log_decays: Float[np.ndarray, " decays"],
    log_errors: Float[np.ndarray, "rates decays"],
    *,
    within: float = 2.0,
) -> Float[np.ndarray, "2 2"]:
    r"""Second derivatives of log error in (log lr, log decay) by least squares [GRID-2].

    Fitted to the cells whose error is at most `within` times the lowest; farther away the
    surface is a plateau or a cliff and no quadratic.

    Args:
        log_rates: natural logarithms.
        log_decays: natural logarithms, of decays above 0.
        log_errors: natural logarithms; infinite where runs diverged.
        within: factor on the lowest error, above 1.

    Returns:
        The symmetric matrix M; NaN if fewer than seven cells are near enough, or if they
        lie on lines that leave a coefficient undetermined.
    """
    rates, decays = np.meshgrid(log_rates, log_decays, indexing="ij")
    near = np.isfinite(log_errors)
    if near.any():
        near &= log_errors <= np.min(log_errors[near]) + np.log(within)
    undetermined = np.full((2, 2), np.nan)
    if near.sum() <= _COEFFICIENTS:
        return undetermined
    # About the cells' own middle, so that the columns are of one size.
    u, v = (grid[near] - np.mean(grid[near]) for grid in (rates, decays))
    design = np.stack([np.ones_like(u), u, v, 0.5 * u * u, u * v, 0.5 * v * v], axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design, log_errors[near], rcond=None)
    if rank < _COEFFICIENTS:
        return undetermined
    *_, uu, uv, vv = coefficients
    return np.array([[uu, uv], [uv, vv]])


def in_parametrisation(
    second_derivatives: Float[np.ndarray, "2 2"], parametrisation: str
) -> Float[np.ndarray, "2 2"]:
    r"""Second derivatives where decay is lr_scaled's wd, or paper's shrink lr wd [GRID-3].

    With log wd = log shrink - log lr: $M' = T^\top M T$, T = ((1, 0), (-1, 1)). Exact.

    Args:
        second_derivatives: M in (log lr, log wd).
        parametrisation: "lr_scaled" or "paper".
    """
    require_one_of("in_parametrisation", "parametrisations", parametrisation, PARAMETRISATIONS)
    if parametrisation == "lr_scaled":
        return second_derivatives
    to_scaled = np.array([[1.0, 0.0], [-1.0, 1.0]])
    return to_scaled.T @ second_derivatives @ to_scaled


def off_diagonal(second_derivatives: Float[np.ndarray, "2 2"]) -> float:
    """Correlation-like number of a valley, M12/sqrt(M11 M22); NaN if there is none [GRID-4]."""
    (uu, uv), (_, vv) = second_derivatives
    if not (uu > 0 and vv > 0 and uu * vv > uv * uv):  # no valley, or NaN
        return float("nan")
    return float(uv / np.sqrt(uu * vv))


def ridge_angle(second_derivatives: Float[np.ndarray, "2 2"]) -> float:
    """Direction in which the error rises least, degrees from the rate's axis [GRID-5].

    In (-90, 90]; NaN where the surface is undetermined or has no lowest point.
    """
    if np.isnan(off_diagonal(second_derivatives)):
        return float("nan")
    _, directions = np.linalg.eigh(second_derivatives)
    along_rate, along_decay = directions[:, 0]
    angle = np.degrees(np.arctan2(along_decay, along_rate))
    return float((angle + 90) % -180 + 90)


def separability(
    key: PRNGKeyArray,
    errors: Float[np.ndarray, "rates decays seeds"],
    rates: Float[np.ndarray, " rates"],
    decays: Float[np.ndarray, " decays"],
    *,
    parametrisation: str,
    within: float = 2.0,
    level: float = 0.9,
    num_resamples: int = 500,
) -> Separability:
    """Separability of a learning rate x decay grid, with paired bootstrap intervals.

    Args:
        key: draws the seeds of the bootstrap, the same for both numbers.
        errors: any positive error or loss; NaN where a run diverged.
        rates: learning rates, above 0.
        decays: weight decay in the "lr_scaled" convention, whichever parametrisation is
            asked for; a column of decay 0 is left out.
        parametrisation: "lr_scaled" or "paper".
        within: as in `quadratic_fit`.
        level: of the intervals.
        num_resamples: of the seeds.

    Raises:
        ValueError: rates or decays that do not fit the grid, an unknown parametrisation.
    """
    require_one_of("separability", "parametrisations", parametrisation, PARAMETRISATIONS)
    require_factor("separability", within)
    errors, log_rates, log_decays = positive_part("separability", errors, rates, decays)

    def fitted(grid: Errors) -> np.ndarray:
        with np.errstate(divide="ignore"):
            heights = np.log(median_over_seeds(grid))
        surface = quadratic_fit(log_rates, log_decays, heights, within=within)
        return in_parametrisation(surface, parametrisation)

    centre = ridge_angle(fitted(errors))

    def angle_near_centre(grid: Errors) -> float:
        # A direction has no sign: an angle of 89 is 2 degrees from one of -89, not 178.
        return centre + (ridge_angle(fitted(grid)) - centre + 90) % 180 - 90

    settings = {"level": level, "num_resamples": num_resamples}
    return Separability(
        off_diagonal=bootstrap(key, lambda grid: off_diagonal(fitted(grid)), errors, **settings),
        ridge_angle=bootstrap(key, angle_near_centre, errors, **settings),
    )


def decay_slope(
    key: PRNGKeyArray,
    errors: Float[np.ndarray, "rates decays seeds"],
    rates: Float[np.ndarray, " rates"],
    decays: Float[np.ndarray, " decays"],
    *,
    parametrisation: str,
    within: float = 2.0,
    level: float = 0.9,
    num_resamples: int = 500,
) -> DecaySlope:
    """Slope of log best decay on log learning rate, by least squares [GRID-6].

    Of the per-step shrink ("paper") the tied filter says 2, a constant lr wd 0, a constant wd 1;
    of wd ("lr_scaled") each is less by 1. Rates at which no decay is any good are left out: their
    best decay is chance, and chance looks like a constant wd.

    Args:
        key: draws the seeds of the bootstrap.
        errors: as for `separability`, like `rates` and `decays`.
        rates: learning rates, above 0.
        decays: in the "lr_scaled" convention.
        parametrisation: "lr_scaled" or "paper".
        within: rates count whose lowest error is at most so many times the grid's.
        level: of the interval.
        num_resamples: of the seeds.

    Returns:
        A slope of NaN where fewer than three such learning rates have their best decay inside
        the grid.

    Raises:
        ValueError: rates or decays that do not fit the grid, an unknown parametrisation.
    """
    require_one_of("decay_slope", "parametrisations", parametrisation, PARAMETRISATIONS)
    require_factor("decay_slope", within)
    errors, log_rates, log_decays = positive_part("decay_slope", errors, rates, decays)
    more = 1.0 if parametrisation == "paper" else 0.0

    def best_decays(grid: Errors) -> np.ndarray:
        lowest = np.min(median_over_seeds(grid), axis=1)
        best = ridge(grid, np.exp(log_decays)).log_decay
        return np.where(lowest <= within * np.min(lowest), best, np.nan)

    def slope(grid: Errors) -> float:
        best = best_decays(grid)
        known = ~np.isnan(best)
        if known.sum() < 3:
            return float("nan")
        return float(np.polyfit(log_rates[known], best[known], 1)[0]) + more

    inside = ~np.isnan(best_decays(errors))
    return DecaySlope(
        slope=bootstrap(key, slope, errors, level=level, num_resamples=num_resamples),
        num_rates=int(inside.sum()),
    )


def require_factor(owner: str, within: float) -> None:
    """Refuse a factor on the lowest error that no cell can be within.

    Raises:
        ValueError: below 1.
    """
    if not within >= 1:
        raise ValueError(f"{owner} needs within >= 1, got within={within!r}.")


def positive_part(
    owner: str, errors: Errors, rates: np.ndarray, decays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid without its column of decay 0, and the logarithms of its axes."""
    errors, rates, decays = (np.asarray(values, float) for values in (errors, rates, decays))
    if errors.ndim != 3 or errors.shape[:2] != (rates.size, decays.size):
        raise ValueError(
            f"{owner} needs errors ({rates.size} rates, {decays.size} decays, seeds),"
            f" got {errors.shape}."
        )
    if np.any(rates <= 0) or np.any(decays < 0):
        raise ValueError(f"{owner} needs rates > 0 and decays >= 0.")
    if np.any(errors < 0):
        raise ValueError(f"{owner} needs errors >= 0, got {np.nanmin(errors):g}.")
    positive = decays > 0
    return errors[:, positive], np.log(rates), np.log(decays[positive])
