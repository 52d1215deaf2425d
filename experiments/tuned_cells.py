"""Cells of a grid that any optimizer may have, and what the best of them is worth.

A cell is one setting, trained from the same seeds as all others. Optimizers are compared by the
cell of the lowest median loss, chosen again in every resample of the seeds, so that the luck of the
choice is in the interval; as many cells for each is an equal budget.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from bayesfilt.compare import Interval, median_over_seeds
from bayesfilt.compare.grid import percentiles, resampled_seeds
from bayesfilt.records import Group, variable
from experiments.contract import Verdict, below, check_key, margin_of, not_judged, spelled
from experiments.many_runs import ManyRuns

type Cells = Float[np.ndarray, "*cells seeds"]

UNITS = {"test_loss": "nats", "training_loss": "nats", "test_error": "1"}
_RESAMPLES = 200


def product(**axes: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
    """Every combination of some numbers, the last axis fastest: name -> one number a cell."""
    grids = np.meshgrid(*(np.asarray(each, float) for each in axes.values()), indexing="ij")
    return {name: grid.ravel() for name, grid in zip(axes, grids, strict=True)}


def joined(*settings: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The cells of several grids with the same names, one after the other."""
    return {name: np.concatenate([each[name] for each in settings]) for name in settings[0]}


def ends(runs: ManyRuns, cells: slice = slice(None)) -> dict[str, Cells]:
    """What runs of digits came to: (cells, seeds), NaN where they diverged."""
    final = {name: values[cells] for name, values in runs.final.items()}
    return {
        "test_loss": final["test_loss"],
        "training_loss": final["training_loss"],
        "test_error": 1 - final["test_accuracy"],
    }


def cells_group(settings: Mapping[str, np.ndarray], found: Mapping[str, Cells]) -> Group:
    """Settings and what they came to, as a group of a record."""
    return {
        **{name: variable("cell", values) for name, values in settings.items()},
        **{
            name: variable(("cell", "seed"), values, units=UNITS[name])
            for name, values in found.items()
        },
    }


def over_seeds(statistic: Callable[..., float], *values: np.ndarray) -> Interval:
    """A number of arrays that share their seeds, last axis, with its 90 % paired bootstrap."""
    return Interval(float(statistic(*values)), *percentiles(resampled(statistic, *values), 0.9))


def resampled(statistic: Callable[..., float], *values: np.ndarray) -> np.ndarray:
    """The number in every resample of the seeds, which all arrays share."""
    draws = resampled_seeds(check_key(), values[0].shape[-1], _RESAMPLES)
    return np.array([statistic(*(each[..., draw] for each in values)) for draw in draws])


def log_best(values: Cells) -> float:
    """Logarithm of the lowest median over seeds; NaN where every cell diverged or is 0."""
    lowest = float(np.min(median_over_seeds(values)))
    return float(np.log(lowest)) if 0 < lowest < np.inf else float("nan")


def best_cell_of(values: Cells) -> int:
    """Index of the cell of the lowest median."""
    return int(np.argmin(median_over_seeds(values)))


def gap_of_best(first: Cells, second: Cells) -> Interval:
    """Log ratio of the best cell of one grid to that of another.

    To the fifth digit: numbers of runs are in float32, and a tie must be one.
    """
    gap = over_seeds(lambda one, other: log_best(one) - log_best(other), first, second)
    return Interval(*(round(value, 5) for value in gap))


def cell_gaps(first: Cells, second: Cells) -> Float[np.ndarray, " cells"]:
    """Median over seeds of the log ratio in each cell; NaN where half of the runs diverged."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(first) - np.log(second)
    known = np.isfinite(ratio).mean(axis=-1) > 0.5
    return np.where(known, np.nanmedian(np.where(known[:, None], ratio, 0.0), axis=-1), np.nan)


def best_at_edge(values: Cells, *axes: np.ndarray) -> bool:
    """Whether the best cell has the lowest or highest number of an axis; one number is no axis."""
    best = best_cell_of(values)
    return any(axis[best] in (axis.min(), axis.max()) for axis in axes if axis.min() < axis.max())


def lower_best(
    claim: str,
    first: Cells,
    second: Cells,
    *,
    bound: float = 0.0,
    first_at_edge: bool = False,
    second_at_edge: bool = False,
    tolerance: str = "90 % bootstrap over paired seeds",
) -> Verdict:
    """Whether the best cell of one grid is lower than that of another, by a log ratio.

    Not judged where the one that loses has its best cell at the edge of its grid.
    """
    gap = gap_of_best(first, second)
    found = Verdict(
        claim=claim,
        measured=f"{spelled(gap)} (log ratio)",
        expected=f"below {bound:g}",
        tolerance=f"{tolerance}; undecided where the interval holds the bound",
        holds=below(gap, bound),
        margin=margin_of(gap, -float("inf"), bound),
    )
    if (found.holds is True and second_at_edge) or (found.holds is False and first_at_edge):
        return not_judged(found, "as the loser's best cell is at the edge of its grid")
    return found


def medians_with_intervals(values: Cells) -> Float[np.ndarray, "3 cells"]:
    """Median over seeds of each cell, and the ends of its interval."""
    draws: Int[np.ndarray, "resamples seeds"] = resampled_seeds(
        check_key(), values.shape[-1], _RESAMPLES
    )
    drawn = np.stack([median_over_seeds(values[..., draw]) for draw in draws])
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0, method="inverted_cdf")
    found = np.stack([median_over_seeds(values), low, high])
    return np.where(np.isfinite(found), found, np.nan)
