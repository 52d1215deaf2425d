"""Best cells of grids, chosen on some seeds and judged on the others.

The lowest of many medians is lower than what that cell does on other seeds, and the more so the
more cells there are: grids of different sizes can only be compared out of sample.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayesfilt.compare import Interval, bootstrap, median_over_seeds
from bayesfilt.records import Record
from experiments.contract import Verdict, check_key, judged, not_judged

_RESAMPLES = 300
_WORTH = "; a tenth, 0.095, is what a recipe must be worth"


@dataclasses.dataclass(frozen=True)
class Cells:
    """Runs of one recipe over (learning rate, decay, seed); NaN where they diverged."""

    rates: Sequence[float]
    decays: Sequence[float]
    test_error: Float[np.ndarray, "rates decays seeds"]
    training_loss: Float[np.ndarray, "rates decays seeds"]

    def with_decays(self, decays: Sequence[float]) -> "Cells":
        """Only these decays.

        Raises:
            ValueError: one that the grid does not have.
        """
        places = [list(self.decays).index(decay) for decay in decays]
        return Cells(
            rates=self.rates,
            decays=list(decays),
            test_error=self.test_error[:, places],
            training_loss=self.training_loss[:, places],
        )

    def with_highest_rate(self) -> "Cells":
        """Only the last learning rate."""
        return Cells(
            rates=self.rates[-1:],
            decays=self.decays,
            test_error=self.test_error[-1:],
            training_loss=self.training_loss[-1:],
        )


class _Chosen(NamedTuple):
    values: Float[np.ndarray, " seeds"]  # of the chosen cell, on the seeds that judge
    at_edge: bool  # of several learning rates


def cells_of_record(record: Record, name: str) -> Cells:
    """The cells in group `name`."""
    group = record.groups[name]
    return Cells(
        rates=group["rate"].values.tolist(),
        decays=group["decay"].values.tolist(),
        test_error=group["test_error"].values,
        training_loss=group["training_loss"].values,
    )


def chosen_and_judged(
    claim: str,
    first: Cells,
    second: Cells,
    field: str,
    *,
    low: float = -float("inf"),
    high: float = float("inf"),
) -> Verdict:
    """Whether the log ratio of two best cells, first over second, lies in a band.

    Every second seed chooses the cells, the others judge them. Not judged where the cell that
    loses is at the edge of its learning rates, or, where they are the same, either is.

    Args:
        claim: in words.
        first: a recipe.
        second: another one, with the same seeds.
        field: "test_error" or "training_loss".
        low: end of the band.
        high: end of the band.
    """
    one, other = _chosen(first, field), _chosen(second, field)
    pair = np.stack([one.values, other.values])
    found = bootstrap(check_key(), _log_ratio, pair, num_resamples=_RESAMPLES)
    worth = "" if {low, high} <= {-float("inf"), 0.0, float("inf")} else _WORTH
    verdict = judged(
        claim,
        found,
        low=low,
        high=high,
        tolerance="log ratio of medians, cells chosen on other seeds; 90 % bootstrap over paired"
        f" seeds{worth}",
    )
    if _loser_at_edge(found, one, other):
        return not_judged(verdict, "with the loser's best rate at the edge of its rates")
    return verdict


def _loser_at_edge(found: Interval, one: _Chosen, other: _Chosen) -> bool:
    if found.high < 0:
        return other.at_edge
    return one.at_edge if found.low > 0 else one.at_edge or other.at_edge


def _log_ratio(pair: np.ndarray) -> float:
    first, second = median_over_seeds(pair)
    known = 0 < first < np.inf and 0 < second < np.inf
    return float(np.log(first / second)) if known else float("nan")


def _chosen(cells: Cells, field: str) -> _Chosen:
    values = getattr(cells, field)
    medians = median_over_seeds(values[..., 1::2])
    rate, decay = np.unravel_index(np.argmin(medians), medians.shape)
    edge = len(cells.rates) > 1 and rate in (0, len(cells.rates) - 1)
    return _Chosen(values=values[rate, decay, ::2], at_edge=bool(edge))


def time_constant(cells: Cells, test_error: np.ndarray) -> float:
    """1/(lr wd) in steps of the cell of the lowest median error; NaN at the edge of the decays."""
    medians = median_over_seeds(test_error)
    rate, decay = np.unravel_index(np.argmin(medians), medians.shape)
    if decay in (0, len(cells.decays) - 1):
        return float("nan")
    return 1 / (cells.rates[int(rate)] * cells.decays[int(decay)])


def regret(test_error: np.ndarray) -> float:
    """Mean log error over learning rates above that of the best, each at its best decay."""
    lowest = np.log(np.min(median_over_seeds(test_error), axis=1))
    return float(np.mean(lowest) - np.min(lowest))


def lowest_median(values: np.ndarray) -> float:
    """Of the cells, over seeds, which are last."""
    return float(np.min(median_over_seeds(values)))
