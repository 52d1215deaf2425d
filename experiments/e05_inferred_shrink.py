"""Does the shrink inferred from recorded training follow the decay that was set?

Claims that exclude each other: the optimum of a weight, given the others, shrinks by the decay that
was set (lr wd: slope 1 in both); or by eta^2/(2 sigma^2) at a fixed sigma^2 (slope 2 in lr, 0 in
wd). And the drift of the optimum is as large as the learning rate (slope 1 of its deviation).
Source: the transition of Aitchison (2020), N((1 - eta^2/(2 sigma^2)) w, eta^2); P10, P21.
Refuted by: a slope whose interval leaves out the claimed one. Both laws may fail.
What is recorded are coordinate optima and gradients of some weights, in windows that are the same
for every decay. No law is judged by a fit whose control, drawn from the model with known decays
as noisy as those recorded, does not give both laws back. Where innovations of the fit are not
white, the transition is no Ornstein-Uhlenbeck process, and a decay is only the best there is.
Cost of PAPER: 45 runs of the MLP, 32 weights at 384 records each, and 18 fits of 90 layers: about
3 minutes on two quiet cores (estimated from 250 s of CPU time).
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval, bootstrap
from bayesfilt.compare.grid import percentiles, resampled_seeds
from bayesfilt.figures import VenueFigure, inferred_decay_figure
from bayesfilt.records import Group, Record, variable
from experiments.contract import (
    Result,
    Verdict,
    all_of,
    check_key,
    is_the_one,
    margin_of,
    margin_of_all,
    margin_of_the_one,
    not_judged,
    spelled,
    with_enough_seeds,
    within,
)
from experiments.grids import Axes, Problem, quick_problem, seeds_from
from experiments.readings import (
    READINGS,
    inside,
    median_seed,
    middle,
    named,
    plotted,
    read,
    readings_of,
)
from experiments.recorded import Window, record_runs

CLAIM = "The shrink inferred from recorded training is the decay that was set."
SETTLES = ("P10", "P21")
CAPTION = (
    "Inferred decay per step against learning rate times weight decay, a panel a reading of "
    "the same runs, a marker a learning rate, decay and layer; whiskers reach from the lowest "
    "to the highest seed. A caret is a bound: the decay is there or further its way."
)
DTYPE = "float64"  # of the likelihoods; the runs are trained in float32

# Slopes of log shrink on log learning rate and on log decay.
LAWS = {"the decay that was set": (1.0, 1.0), "the square of the learning rate": (2.0, 0.0)}
# A slope off by less does not take one law for another: they are 1 apart.
SLOPE_BAND = 0.25
# What the drift's slope in the learning rate would be if it did not go with it, or by its root.
_OTHER_DRIFTS = (0.0, 0.5)
# Grids of decays that anyone sweeps have steps of 2 or more.
NEAR = 2.0
# Innovations of a right model would be within 0.02: 16 weights at 192 steps, 5 seeds.
WHITE = 0.1
_INTERVAL = "90 % bootstrap over paired seeds"
_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem(num_steps=0)
    axes: Axes = Axes(rates="log:1e-3:8e-3:3", decays="log:0.5:4:3")
    per_layer: int = 16
    readings: tuple[str, ...] = tuple(READINGS)
    # The longest memory 1/(lr wd) is 2000 steps, the shortest 31.
    slow_part: Window = Window(begin=3_000, spacing=16, count=192)
    every_step: Window = Window(begin=6_072, spacing=1, count=192)

    def windows(self) -> dict[str, Window]:
        """In the order of time."""
        return {"slow part": self.slow_part, "every step": self.every_step}


PAPER = Config()
QUICK = Config(
    problem=dataclasses.replace(quick_problem(), num_steps=0, num_seeds=2),
    axes=Axes(rates="log:2e-3:8e-3:2", decays="log:0.5:4:2"),
    per_layer=6,
    readings=("slow_part/to_a_mean",),
    slow_part=Window(begin=20, spacing=3, count=16),
    every_step=Window(begin=92, spacing=1, count=4),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train and record the grid, fit every reading and its controls."""
    seed_key, control_key = jax.random.split(key)
    rates, decays = config.axes.values()
    seeds = seeds_from(seed_key, config.problem.num_seeds)
    layers, recorded = record_runs(
        config.problem,
        rates.tolist(),
        decays.tolist(),
        seeds,
        config.windows(),
        config.per_layer,
    )
    truths = np.stack([_law(rates, decays, *slopes) for slopes in LAWS.values()])
    shared = {
        "learning_rate": variable("learning_rate", rates),
        "weight_decay": variable("weight_decay", decays, units="1 (lr_scaled)"),
        "layer": variable("layer", list(layers)),
        "law": variable("law", list(LAWS)),
    }
    found = read(control_key, config.readings, recorded, config.windows(), truths)
    return Record(
        groups={name: {**shared, **group} for name, group in found.items()},
        attributes={"config": dataclasses.asdict(config)},
    )


def check(result: Result) -> list[Verdict]:
    """Control, whiteness, both laws, the decay itself and the drift, reading by reading."""
    verdicts = []
    for reading in readings_of(result):
        group = result.groups[reading]
        control = _control(reading, group)
        judged = [*_laws(reading, group), _is_the_decay(reading, group)]
        if READINGS[reading].window == "every step":  # what one step moves, and nothing else
            judged.append(_drift(reading, group))
        if control.holds is not True:
            judged = [not_judged(each, "as the control does not hold") for each in judged]
        verdicts += with_enough_seeds(
            [control, _white(reading, group), *judged], group["decay"].values.shape[2]
        )
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Inferred decay against the one that was set, a panel a reading."""
    decay = _set(result.groups[readings_of(result)[0]])
    return inferred_decay_figure(plotted(result, decay, "decay per step that was set", NEAR), venue)


def log_slopes(
    values: Float[np.ndarray, "rates decays layers seeds"], rates: np.ndarray, decays: np.ndarray
) -> tuple[float, float]:
    """Slopes of log of the median over seeds on log rate and log decay; every layer has a level.

    NaN where less than two thirds of the cells are known, in every layer.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        heights = np.log(median_seed(values))
    design = np.stack(np.meshgrid(np.log(rates), np.log(decays), indexing="ij"), axis=-1)
    rows, sides = [], []
    for layer in range(heights.shape[2]):
        known = np.isfinite(heights[..., layer])
        if known.mean() >= 2 / 3:
            rows.append(design[known] - design[known].mean(axis=0))
            sides.append(heights[known, layer] - heights[known, layer].mean())
    if not rows:
        return float("nan"), float("nan")
    matrix = np.concatenate(rows)
    if np.linalg.matrix_rank(matrix) < 2:
        return float("nan"), float("nan")
    slopes = np.linalg.lstsq(matrix, np.concatenate(sides), rcond=None)[0]
    return float(slopes[0]), float(slopes[1])


def slopes_with_intervals(
    values: np.ndarray, rates: np.ndarray, decays: np.ndarray
) -> tuple[Interval, Interval]:
    """`log_slopes` of (rates, decays, seeds, layers), each with its interval."""
    seeds_last = np.moveaxis(values, 2, -1)
    draws = resampled_seeds(check_key(), seeds_last.shape[-1], _RESAMPLES)
    found = np.array([log_slopes(seeds_last[..., draw], rates, decays) for draw in draws])
    both = zip(log_slopes(seeds_last, rates, decays), found.T, strict=True)
    rate, decay = (Interval(estimate, *percentiles(each, 0.9)) for estimate, each in both)
    return rate, decay


def _laws(reading: str, group: Group) -> list[Verdict]:
    decay = inside(group)
    slopes = slopes_with_intervals(decay, *_axes(group))
    known = np.isfinite(decay).mean()
    verdicts = []
    for law, values in LAWS.items():
        rivals = ([0.0, 3.0 - values[0]], [1.0 - values[1]])
        choices = list(zip(slopes, values, rivals, strict=True))
        parts = [is_the_one(*choice) for choice in choices]
        verdicts.append(
            Verdict(
                claim=f"{named(reading)}: the shrink goes with {law}",
                measured=f"slopes {spelled(slopes[0])} in the learning rate,"
                f" {spelled(slopes[1])} in the decay; known in {known:.0%} of the fits",
                expected=f"{values[0]:g} and {values[1]:g}",
                tolerance=f"{_INTERVAL}; undecided where it holds the other law's or 0, or is"
                " wider than the way to it",
                holds=all_of(*parts),
                margin=margin_of_all([margin_of_the_one(*choice) for choice in choices], parts),
            )
        )
    return verdicts


def _is_the_decay(reading: str, group: Group) -> Verdict:
    ratio = _ratio(group["decay"].values, _set(group))
    return Verdict(
        claim=f"{named(reading)}: the shrink is the decay that was set",
        measured=f"factor {spelled(ratio)}, the median cell; only bounded in"
        f" {np.mean(np.abs(group['edge'].values) == 1):.0%} of the fits",
        expected=f"1/{NEAR:g} to {NEAR:g}",
        tolerance=f"{_INTERVAL}; no grid of decays is finer; bounds count as they are, and those"
        " of the lookup lie outside",
        holds=within(ratio, 1 / NEAR, NEAR),
        margin=margin_of(ratio, 1 / NEAR, NEAR),
    )


def _drift(reading: str, group: Group) -> Verdict:
    rate, decay = slopes_with_intervals(group["process_deviation"].values, *_axes(group))
    return Verdict(
        claim=f"{named(reading)}: the drift of a step is proportional to the learning rate",
        measured=f"slopes {spelled(rate)} in the learning rate, {spelled(decay)} in the decay",
        expected="1 in the learning rate",
        tolerance=f"{_INTERVAL}; undecided where it holds 0 or 1/2, or is wider than the way to"
        " the nearest",
        holds=is_the_one(rate, 1.0, _OTHER_DRIFTS),
        margin=margin_of_the_one(rate, 1.0, _OTHER_DRIFTS),
    )


def _control(reading: str, group: Group) -> Verdict:
    """Whether known decays come back: their slopes, and their level."""
    said, bands = [], []
    found = zip(inside(group, "control_"), group["control_decay"].values, strict=True)
    for law, (known, values) in enumerate(found):
        truth = group["control_truth"].values[law]
        slopes = slopes_with_intervals(known, *_axes(group))
        ratio = _ratio(values, truth)
        said.append(f"{spelled(slopes[0])} and {spelled(slopes[1])}, level {spelled(ratio)}")
        bands.append((ratio, 1 / NEAR, NEAR))
        bands += [
            (slope, value - SLOPE_BAND, value + SLOPE_BAND)
            for slope, value in zip(slopes, list(LAWS.values())[law], strict=True)
        ]
    parts = [within(*band) for band in bands]
    return Verdict(
        claim=f"{named(reading)}: control, known decays come back",
        measured="slopes " + "; ".join(said),
        expected="1 and 1; 2 and 0; level 1",
        tolerance=f"{_INTERVAL} within {SLOPE_BAND:g} of the slopes, which are 1 apart, and the"
        f" level within a factor of {NEAR:g}",
        holds=all_of(*parts),
        margin=margin_of_all([margin_of(*band) for band in bands], parts),
    )


def _white(reading: str, group: Group) -> Verdict:
    values = np.moveaxis(group["autocorrelation"].values, 2, -1)
    found = bootstrap(
        check_key(), lambda drawn: middle(median_seed(drawn)), values, num_resamples=_RESAMPLES
    )
    return Verdict(
        claim=f"{named(reading)}: the drift is an Ornstein-Uhlenbeck process, step by step",
        measured=f"innovations' autocorrelation {spelled(found)}, the median cell",
        expected=f"{-WHITE:g} to {WHITE:g}",
        tolerance=f"{_INTERVAL}; of a right model it would be within a fifth of that",
        holds=within(found, -WHITE, WHITE),
        margin=margin_of(found, -WHITE, WHITE),
    )


def _ratio(values: np.ndarray, truth: Float[np.ndarray, "rates decays"]) -> Interval:
    """Factor between decays and what they should be, of the median cell."""
    relative = np.moveaxis(values / truth[:, :, None, None], 2, -1)
    return bootstrap(
        check_key(), lambda drawn: middle(median_seed(drawn)), relative, num_resamples=_RESAMPLES
    )


def _law(rates: np.ndarray, decays: np.ndarray, *slopes: float) -> np.ndarray:
    """Decays that follow a law, 1 in the middle of the grid; (rates, decays)."""
    along = [
        (axis / np.exp(np.mean(np.log(axis)))) ** slope
        for axis, slope in zip((rates, decays), slopes, strict=True)
    ]
    return np.outer(*along)


def _axes(group: Group) -> tuple[np.ndarray, np.ndarray]:
    return group["learning_rate"].values, group["weight_decay"].values


def _set(group: Group) -> Float[np.ndarray, "rates decays"]:
    return np.outer(*_axes(group))
