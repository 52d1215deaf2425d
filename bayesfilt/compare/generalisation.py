"""Curves of a sweep: the error that could have been had at any time, and at equal training loss."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.compare.grid import Interval, median_over_seeds, percentiles, resampled_seeds


class Anytime(NamedTuple):
    """What an optimizer's best cell had reached at each recorded step."""

    error: Float[np.ndarray, " records"]  # median over seeds of the cell that is best at the end
    low: Float[np.ndarray, " records"]
    high: Float[np.ndarray, " records"]
    envelope: Float[np.ndarray, " records"]  # of the cell that is best at that very step


class MatchedLoss(NamedTuple):
    """Error of one optimizer minus another's, among runs of equal training loss."""

    edges: Float[np.ndarray, " edges"]  # of the bins of the training loss
    difference: Float[np.ndarray, " bins"]  # of medians; NaN where either has too few runs
    counts: Int[np.ndarray, "2 bins"]
    overall: Interval  # mean over the bins that both fill


def anytime(
    key: PRNGKeyArray,
    errors: Float[np.ndarray, "cells seeds records"],
    *,
    level: float = 0.9,
    num_resamples: int = 500,
) -> Anytime:
    """Curve of the cell that ends best, its interval, and the lower envelope of all cells.

    Args:
        key: draws the seeds.
        errors: of every cell, seed and recorded step; NaN after a run diverged.
        level: of the intervals, each step on its own.
        num_resamples: of the seeds.

    Raises:
        ValueError: no cell with a finite median at the last step.
    """
    by_record = np.moveaxis(np.asarray(errors, float), -1, 0)
    medians = median_over_seeds(by_record)
    if not np.isfinite(medians[-1]).any():
        raise ValueError("anytime needs a cell that ends with a finite median, got none.")
    best = int(np.argmin(medians[-1]))
    draws = resampled_seeds(key, by_record.shape[-1], num_resamples)
    resampled = np.stack([median_over_seeds(by_record[:, best, draw]) for draw in draws])
    bounds = np.array([percentiles(column, level) for column in resampled.T])
    return Anytime(
        error=medians[:, best],
        low=bounds[:, 0],
        high=bounds[:, 1],
        envelope=np.min(medians, axis=1),
    )


def error_at_matched_loss(
    key: PRNGKeyArray,
    losses: tuple[Float[np.ndarray, "cells seeds"], Float[np.ndarray, "cells seeds"]],
    errors: tuple[Float[np.ndarray, "cells seeds"], Float[np.ndarray, "cells seeds"]],
    *,
    num_bins: int = 8,
    fewest: int = 5,
    level: float = 0.9,
    num_resamples: int = 500,
) -> MatchedLoss:
    """Compare the errors of two optimizers among runs that fit the training data equally well.

    Runs are binned by the logarithm of their training loss, between the larger of the two
    smallest losses and the smaller of the two largest: where both optimizers have been.
    Below 0 means that the first generalises better at the same training loss.

    Args:
        key: draws the seeds; the same ones in both optimizers.
        losses: training loss > 0 of both.
        errors: test error of both.
        num_bins: equal in log loss.
        fewest: runs that each optimizer needs in a bin for the bin to count.
        level: of the interval.
        num_resamples: of the seeds.

    Raises:
        ValueError: arrays that do not fit, optimizers with other seeds, or whose training losses
            do not overlap.
    """
    require_at_least("error_at_matched_loss", "num_bins", num_bins, 1)
    pairs = [tuple(np.asarray(values, float) for values in pair) for pair in (losses, errors)]
    for loss, error in zip(*pairs, strict=True):
        if loss.shape != error.shape or loss.ndim != 2:
            raise ValueError(
                f"error_at_matched_loss needs losses and errors (cells, seeds), got {loss.shape}"
                f" and {error.shape}."
            )
    seeds = {loss.shape[1] for loss in pairs[0]}
    if len(seeds) != 1:
        raise ValueError(f"error_at_matched_loss needs the same seeds in both, got {seeds}.")
    edges = _common_edges(pairs[0], num_bins)

    def differences(draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        medians, counts = [], []
        for loss, error in zip(*pairs, strict=True):
            median, count = _medians_in_bins(loss[:, draw], error[:, draw], edges, fewest)
            medians.append(median)
            counts.append(count)
        return medians[0] - medians[1], np.stack(counts)

    def mean_of_known(values: np.ndarray) -> float:
        known = values[~np.isnan(values)]
        return float(np.mean(known)) if known.size else float("nan")

    all_seeds = np.arange(seeds.pop())
    difference, counts = differences(all_seeds)
    draws = resampled_seeds(key, len(all_seeds), num_resamples)
    low, high = percentiles(
        np.array([mean_of_known(differences(draw)[0]) for draw in draws]), level
    )
    return MatchedLoss(
        edges=edges,
        difference=difference,
        counts=counts,
        overall=Interval(estimate=mean_of_known(difference), low=low, high=high),
    )


def _common_edges(losses: tuple[np.ndarray, ...], num_bins: int) -> np.ndarray:
    """Bin edges over the range of training losses that both optimizers reach."""
    usable = [loss[np.isfinite(loss) & (loss > 0)] for loss in losses]
    if not all(loss.size for loss in usable):
        raise ValueError("error_at_matched_loss needs finite training losses > 0 of both.")
    low = max(np.min(loss) for loss in usable)
    high = min(np.max(loss) for loss in usable)
    if not low < high:
        raise ValueError(
            "error_at_matched_loss needs training losses that overlap, got"
            f" {', '.join(f'{np.min(loss):g} to {np.max(loss):g}' for loss in usable)}."
        )
    return np.geomspace(low, high, num_bins + 1)


def _medians_in_bins(
    loss: np.ndarray, error: np.ndarray, edges: np.ndarray, fewest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median error of the runs in each bin, NaN for fewer than `fewest`; and their number."""
    healthy = np.isfinite(loss) & np.isfinite(error)
    loss, error = loss[healthy], error[healthy]
    inside = (loss >= edges[0]) & (loss <= edges[-1])
    bins = np.clip(np.searchsorted(edges, loss[inside], side="right") - 1, 0, len(edges) - 2)
    groups = [error[inside][bins == number] for number in range(len(edges) - 1)]
    counts = np.array([len(group) for group in groups])
    medians = [np.median(group) if len(group) >= fewest else np.nan for group in groups]
    return np.array(medians), counts
