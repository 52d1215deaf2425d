"""Intervals as columns of a panel's series: estimates, low ends, high ends."""

from collections.abc import Sequence

import numpy as np

from bayesfilt.compare import Interval
from experiments.coordinates import interval_over_seeds

type Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def columns(found: Sequence[Interval]) -> Columns:
    """Estimates, low ends and high ends of one interval a point."""
    estimate, low, high = np.array(found).T
    return estimate, low, high


def medians(rows: np.ndarray) -> Columns:
    """Medians over seeds and their intervals, of (points, seeds)."""
    return columns(
        [interval_over_seeds(lambda drawn: float(np.median(drawn)), row) for row in rows]
    )
