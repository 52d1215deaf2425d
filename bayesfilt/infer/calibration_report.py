"""What a calibration says: coverage, uniformity, bias, and a verdict in words."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from bayesfilt.infer.calibration import Calibration

if TYPE_CHECKING:
    import xarray

BAND_SIMULATIONS = 2_000  # of uniform samples, to place the bands: their level to about 0.2 %
CORRELATED = 0.2  # autocorrelation of kept draws above which ranks are visibly not independent


class Coverage(NamedTuple):
    """How often central intervals of one probability held the truth, by quantity."""

    probability: float
    names: tuple[str, ...]
    covered: Float[np.ndarray, " quantities"]  # fraction of the simulations
    standard_error: Float[np.ndarray, " quantities"]  # binomial, of a fraction that is right


class Uniformity(NamedTuple):
    """Are the truths' places uniform? Empirical distribution against simultaneous bands."""

    names: tuple[str, ...]
    # How far the distribution leaves the diagonal, in units of the way to the band: above 1 it is
    # outside somewhere.
    excursion: Float[np.ndarray, " quantities"]
    p_value: Float[np.ndarray, " quantities"]  # of arviz's test of uniformity, "pot_c"
    probability: float  # that all distributions stay inside if all is right
    at: Float[np.ndarray, " points"]  # where the distributions are looked at, in [0, 1]
    distribution: Float[np.ndarray, "quantities points"]
    lower: Float[np.ndarray, " points"]
    upper: Float[np.ndarray, " points"]


class CalibrationVerdict(NamedTuple):
    """Whether the inference is calibrated, and in words what is not."""

    passes: bool
    failures: tuple[str, ...]  # why it does not pass
    notes: tuple[str, ...]  # what to know when reading it
    uniformity: Uniformity
    half: Coverage  # of 50 % intervals
    wide: Coverage  # of 90 % intervals


def coverage(calibration: Calibration, probability: float = 0.9) -> Coverage:
    """How often the central interval of this probability held the truth.

    The standard error is that of the fraction which a right inference would show, the root of
    p (1 - p) / simulations.
    """
    if not 0 < probability < 1:
        raise ValueError(f"coverage needs 0 < probability < 1, got {probability}.")
    inside = np.abs(calibration.places - 0.5) <= probability / 2
    error = math.sqrt(probability * (1 - probability) / calibration.num_simulations)
    return Coverage(
        probability=probability,
        names=calibration.names,
        covered=inside.mean(axis=0),
        standard_error=np.full(len(calibration.names), error),
    )


def uniformity(calibration: Calibration, probability: float = 0.99) -> Uniformity:
    """Empirical distributions of the truths' places, with simultaneous bands from arviz.

    Args:
        calibration: at least 20 simulations; fewer say nothing.
        probability: that every quantity stays inside its band at once if all is right, with
            Bonferroni's share for each of them.
    """
    from arviz_stats.base import array_stats
    from arviz_stats.ecdf_utils import ecdf_pit

    if calibration.num_simulations < 20:
        raise ValueError(
            f"uniformity needs at least 20 simulations, got {calibration.num_simulations}."
        )
    each = 1 - (1 - probability) / len(calibration.names)
    # A place that is not a number belongs to a fit that has failed: outside, at an end.
    places = np.nan_to_num(np.asarray(calibration.places, float), nan=0.0)
    at, _, lower, upper = ecdf_pit(places[:, 0], each, BAND_SIMULATIONS)
    found = np.stack([ecdf(column, at) for column in places.T])
    found[:, 0], found[:, -1] = 0, 1  # the bands are closed there
    away = np.where(found > at, found - at, at - found)
    room = np.where(found > at, upper - at, at - lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        excursion = np.where(away > 0, away / room, 0.0)
    return Uniformity(
        names=calibration.names,
        excursion=excursion.max(axis=1),
        p_value=np.asarray(array_stats.uniformity_test(places.T)[0]),
        probability=probability,
        at=at,
        distribution=found,
        lower=lower,
        upper=upper,
    )
