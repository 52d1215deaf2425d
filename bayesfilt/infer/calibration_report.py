"""What a calibration says: coverage, uniformity, bias, and a verdict in words."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

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
    inside: Bool[np.ndarray, " quantities"]  # whether the distribution stays in its band
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
    from arviz_stats.base.array import array_stats
    from arviz_stats.ecdf_utils import compute_ecdf, ecdf_pit

    if calibration.num_simulations < 20:
        raise ValueError(
            f"uniformity needs at least 20 simulations, got {calibration.num_simulations}."
        )
    each = 1 - (1 - probability) / len(calibration.names)
    # A place that is not a number belongs to a fit that has failed: outside, at an end.
    places = np.nan_to_num(np.asarray(calibration.places, float), nan=0.0)
    at, _, lower, upper = ecdf_pit(places[:, 0], each, BAND_SIMULATIONS)
    found = np.stack([compute_ecdf(column, at) for column in places.T])
    found[:, 0], found[:, -1] = 0, 1  # the bands are closed there
    return Uniformity(
        names=calibration.names,
        inside=((found >= lower) & (found <= upper)).all(axis=1),
        p_value=np.asarray(array_stats.uniformity_test(places.T)[0]),
        probability=probability,
        at=at,
        distribution=found,
        lower=lower,
        upper=upper,
    )


def judge(calibration: Calibration, probability: float = 0.99) -> CalibrationVerdict:
    """Is the inference calibrated? It is unless a distribution of places leaves its band.

    Diverged fits, and fits whose numbers are not finite, are in there like all others; they are
    reported, and one that is not finite fails the calibration.

    Args:
        calibration: what `calibrate` returned.
        probability: that a right inference passes.
    """
    bands = uniformity(calibration, probability)
    failures = [
        f"{name}: truths lie {_lean(calibration.places[:, column])} "
        f"(outside the {probability:.0%} band, p = {bands.p_value[column]:.1g})."
        for column, name in enumerate(bands.names)
        if not bands.inside[column]
    ]
    total = calibration.num_simulations
    broken = int((~calibration.finite).sum())
    if broken:
        failures.append(f"{broken} of {total} simulations gave numbers that are not finite.")
    return CalibrationVerdict(
        passes=not failures,
        failures=tuple(failures),
        notes=tuple(_notes(calibration)),
        uniformity=bands,
        half=coverage(calibration, 0.5),
        wide=coverage(calibration, 0.9),
    )


def standard_scores(calibration: Calibration) -> Float[np.ndarray, "simulations quantities"]:
    """(truth - posterior mean) / posterior deviation of every fit: about 0 and 1 if all is right.

    A mean away from 0 is a bias, in the fits' own deviations; the mean over simulations has a
    standard error of about 1/root of their number. Heavy tails where a posterior is skewed.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return (calibration.truths - calibration.means) / calibration.deviations


def calibration_lines(calibration: Calibration, verdict: CalibrationVerdict) -> list[str]:
    """The verdict as a small table: a line a quantity, then what failed and what to know."""
    scores = standard_scores(calibration)
    width = max(map(len, calibration.names))
    lines = [f"{'':{width}}   50 %   90 %  (s.e.)   bias      p"]
    for column, name in enumerate(calibration.names):
        lines.append(
            f"{name:{width}} {100 * verdict.half.covered[column]:6.1f} "
            f"{100 * verdict.wide.covered[column]:6.1f} "
            f"{100 * verdict.wide.standard_error[column]:7.1f} "
            f"{np.nanmedian(scores[:, column]):+6.2f} {verdict.uniformity.p_value[column]:6.1g}"
        )
    lines.append("calibrated" if verdict.passes else "NOT calibrated")
    return [*lines, *verdict.failures, *verdict.notes]


def calibration_tree(calibration: Calibration) -> "xarray.DataTree":
    """Places of the truths as a DataTree with the group that arviz's `plot_ecdf_pit` reads."""
    import xarray

    columns = dict(zip(calibration.names, calibration.places.T, strict=True))
    places = xarray.Dataset({name: (("chain", "draw"), v[None]) for name, v in columns.items()})
    return xarray.DataTree.from_dict({f"{calibration.kind}_sbc": places})


def _lean(places: Float[np.ndarray, " simulations"]) -> str:
    """Where the truths lie, in words: what shape of histogram a reader would see."""
    middle, size = np.mean(places), len(places)
    outer = np.mean(np.abs(places - 0.5) > 0.25)
    if abs(middle - 0.5) > 3 * math.sqrt(1 / 12 / size):
        return (
            "low in the posterior, which is too high"
            if middle < 0.5
            else ("high in the posterior, which is too low")
        )
    if abs(outer - 0.5) > 3 * math.sqrt(0.25 / size):
        return (
            "too often at its ends, it is too narrow"
            if outer > 0.5
            else ("too often in its middle, it is too wide")
        )
    return "unevenly in the posterior"


def _notes(calibration: Calibration) -> list[str]:
    """What a reader of the ranks should know."""
    total, notes = calibration.num_simulations, []
    diverged = int(calibration.diverged.sum())
    if diverged:
        notes.append(
            f"{diverged} of {total} simulations had divergent transitions "
            f"({int(calibration.divergences.sum())} in all); they are counted, not dropped."
        )
    correlated = np.nanmean(calibration.autocorrelation, axis=0)
    for name, value in zip(calibration.names, correlated, strict=True):
        if value > CORRELATED:
            notes.append(
                f"{name}: kept draws have an autocorrelation of {value:.2f}, so ranks are not "
                f"quite uniform even if all is right: thin more."
            )
    return notes
