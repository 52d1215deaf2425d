r"""What it costs to tune one at a time: a decay chosen at one learning rate, used at another.

A valley needs a surface that has one; this price is defined on a plateau too. Every seed is scored
with decays that were chosen by the others, because a choice that is scored on the errors that made
it looks better than it is. A carried and a chosen decay are scored alike, so that a surface on
which rate and decay are separable costs nothing on average, however noisy it is.

Heights are means of log error over seeds and no medians: errors that are counts of few mistakes
have ties in every median, and ties would have to go to some decay. A diverged run counts as the
worst of its grid, which is the least that it can cost; an error of 0 as half of the least above 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_fraction
from bayesfilt.compare.grid import Errors, Interval, percentiles, resampled_seeds
from bayesfilt.compare.separability import PARAMETRISATIONS, positive_part, require_factor

# A decay that is held fixed shrinks the weights, per step, as this power of the learning rate.
SHRINK_POWERS: dict[str, float] = dict(zip(PARAMETRISATIONS, (1.0, 0.0), strict=True))

_FEWEST_RATES = 3
_ROUNDING = 1e-9  # of log decay: a decay carried to the last one of the grid is inside


class Surface(NamedTuple):
    """A grid, and by which power of the learning rate its shrink follows when it is carried."""

    errors: Float[np.ndarray, "rates decays seeds"]  # above or at 0; NaN where a run diverged
    rates: Float[np.ndarray, " rates"]  # above 0
    decays: Float[np.ndarray, " decays"]  # "lr_scaled" convention; 0 is left out
    # 0: the shrink itself is carried; 1: weight decay as PyTorch has it; 2: the tied filter's.
    power: float


class Carried(NamedTuple):
    """Mean price of carrying decays, as log of error over that of the decay chosen there."""

    regret: Interval
    num_pairs: float  # of learning rates, from one to another, per seed that is scored


class CarriedGap(NamedTuple):
    """How the prices on two surfaces differ."""

    gap: Interval  # of `regrets`, the first minus the second
    regrets: tuple[float, float]  # over the pairs that both surfaces have
    num_pairs: float


class _Costs(NamedTuple):
    cost: Float[np.ndarray, "resamples seeds rates rates"]  # of the seed left out, [from, to]
    counts: Bool[np.ndarray, "resamples seeds rates rates"]


def carried_regret(
    key: PRNGKeyArray,
    surface: Surface,
    *,
    within: float = 2.0,
    level: float = 0.9,
    num_resamples: int = 500,
) -> Carried:
    """Mean price of carrying a decay between the learning rates that are any good.

    Args:
        key: draws the seeds of the bootstrap.
        surface: the grid, and how its decay is carried.
        within: rates count whose lowest error is at most so many times the grid's.
        level: of the interval.
        num_resamples: of the seeds.

    Returns:
        NaN with one seed, where all runs are lost, fewer than three rates count, or every pair
        of them leaves the grid.

    Raises:
        ValueError: rates or decays that do not fit the grid.
    """
    weights = _seed_weights(key, np.shape(surface.errors)[-1], level, num_resamples)
    costs = _costs(surface, weights, within)
    return _summary(costs.cost, costs.counts, weights, level)


def carried_gap(
    key: PRNGKeyArray,
    first: Surface,
    second: Surface,
    *,
    within: float = 2.0,
    level: float = 0.9,
    num_resamples: int = 500,
) -> CarriedGap:
    """Price on one surface minus that on another, over the pairs of rates that both have.

    Two optimizers with one power, or one grid with two powers. Pairs that count for one alone
    are left out: a grid that is good at more rates carries its decays farther.

    Args:
        key: draws the seeds, the same for both.
        first: minus `second`.
        second: with the same learning rates and seeds.
        within: as in `carried_regret`.
        level: of the interval.
        num_resamples: of the seeds.

    Raises:
        ValueError: grids that do not fit, other rates or seeds.
    """
    same = np.shape(first.rates) == np.shape(second.rates)
    if not same or not np.allclose(first.rates, second.rates, rtol=1e-9, atol=0):
        raise ValueError("carried_gap needs surfaces of the same learning rates.")
    seeds = [np.shape(each.errors)[-1] for each in (first, second)]
    if seeds[0] != seeds[1]:
        raise ValueError(f"carried_gap needs surfaces of the same seeds, got {seeds} of them.")
    weights = _seed_weights(key, seeds[0], level, num_resamples)
    one, other = (_costs(each, weights, within) for each in (first, second))
    common = one.counts & other.counts
    gap, *alone = (
        _summary(cost, common, weights, level)
        for cost in (one.cost - other.cost, one.cost, other.cost)
    )
    return CarriedGap(
        gap=gap.regret,
        regrets=(alone[0].regret.estimate, alone[1].regret.estimate),
        num_pairs=gap.num_pairs,
    )


def carried_costs(
    surface: Surface, weights: Int[np.ndarray, "resamples seeds"], *, within: float = 2.0
) -> Float[np.ndarray, "resamples seeds rates rates"]:
    r"""Cost h(x', y + (p-1)(x'-x)) - h(x', y') of a carried decay, of every pair and seed [GRID-7].

    Here x is log lr, y(x) the log wd chosen at x and h the log error of the seed left out,
    linear between the grid's decays; p is the power. 0 where h = f(x) + g(y - (p-1) x).

    Args:
        surface: the grid, and how its decay is carried.
        weights: how often each seed is in a resample.
        within: rates count whose lowest error is at most so many times the grid's.

    Returns:
        From the rate of the first axis to that of the second, of each seed scored with decays
        that the others chose; NaN where a pair does not count or leaves the grid.
    """
    found = _costs(surface, weights, within)
    return np.where(found.counts, found.cost, np.nan)


def _costs(surface: Surface, weights: np.ndarray, within: float) -> _Costs:
    require_factor("carried_regret", within)
    errors, x, y = positive_part("carried_regret", surface.errors, surface.rates, surface.decays)
    if not y.size or np.any(np.diff(y) <= 0):
        raise ValueError(f"carried_regret needs ascending decays, got {np.exp(y).tolist()}.")
    heights = np.moveaxis(_heights(errors), -1, 0)  # (seeds, rates, decays)
    others, known = _of_the_others(heights, weights)
    chosen, lowest = np.argmin(others, axis=-1), np.min(others, axis=-1)
    good = known[..., None] & (lowest <= lowest.min(axis=-1, keepdims=True) + np.log(within))
    good &= good.sum(axis=-1, keepdims=True) >= _FEWEST_RATES
    pairs = good[..., :, None] & good[..., None, :] & ~np.eye(x.size, dtype=bool)
    place = y[chosen][..., None] + (surface.power - 1) * (x - x[:, None])
    inside = (place >= y[0] - _ROUNDING) & (place <= y[-1] + _ROUNDING)
    at = np.interp(place, y, np.arange(y.size))
    return _Costs(
        cost=_at(heights, at) - _at(heights, chosen[:, :, None, :]), counts=pairs & inside
    )


def _at(heights: Float[np.ndarray, "seeds rates decays"], place: np.ndarray) -> np.ndarray:
    """Heights, linear between decays, at places (resamples, seeds, ..., rates)."""
    below = np.floor(place).astype(int)
    above, part = np.minimum(below + 1, heights.shape[-1] - 1), place - below
    seed, rate = np.arange(heights.shape[0])[:, None, None], np.arange(heights.shape[1])
    return (1 - part) * heights[seed, rate, below] + part * heights[seed, rate, above]


def _heights(errors: Errors) -> Float[np.ndarray, "rates decays seeds"]:
    """Log errors, with a number for runs that have none; NaN everywhere if all are lost."""
    usable = np.isfinite(errors) & (errors > 0)
    if not usable.any():
        return np.full(errors.shape, np.nan)
    least, worst = errors[usable].min(), errors[usable].max()
    return np.log(np.where(usable, errors, np.where(errors == 0, 0.5 * least, worst)))


def _of_the_others(
    heights: Float[np.ndarray, "seeds rates decays"], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean height over the other seeds of a resample, and whether there are any, and any known."""
    without = weights[:, None, :] * (1 - np.eye(weights.shape[1], dtype=int))
    count = without.sum(axis=-1)
    mean = np.einsum("bks,srd->bkrd", without, heights) / np.maximum(count, 1)[..., None, None]
    return mean, (count > 0) & (weights > 0) & np.isfinite(heights).all()


def _seed_weights(
    key: PRNGKeyArray, num_seeds: int, level: float, num_resamples: int
) -> np.ndarray:
    """Every seed once, then how often each is drawn."""
    require_fraction("carried_regret", "level", level)
    draws = resampled_seeds(key, num_seeds, num_resamples)
    drawn = (draws[..., None] == np.arange(num_seeds)).sum(axis=1)
    return np.concatenate([np.ones((1, num_seeds), int), drawn])


def _summary(cost: np.ndarray, counts: np.ndarray, weights: np.ndarray, level: float) -> Carried:
    """Mean over pairs and scored seeds, of all seeds between percentiles of the resamples."""
    share = counts * weights[..., None, None]
    total = share.sum(axis=(1, 2, 3))
    summed = np.sum(np.where(counts, cost, 0.0) * share, axis=(1, 2, 3))
    means = np.where(total > 0, summed / np.maximum(total, 1), np.nan)
    low, high = percentiles(means[1:], level)
    return Carried(
        regret=Interval(estimate=float(means[0]), low=low, high=high),
        num_pairs=float(total[0] / weights.shape[1]),
    )
