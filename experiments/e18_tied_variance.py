"""Is the variance that the best decay stands for the one the weights are first drawn with?

Claim: the best shrink per step is lr^2/(2 sigma^2), with sigma^2 the variance of the prior over a
weight: the same at every learning rate, about one over the fan-in, as first weights are drawn, and
in two layers of unequal fan-in in their ratio.
Source: the tied transition of Aitchison (2020), whose prior is read as the law of first weights
(P11); the slope is P10.
Refuted by: a tied variance lr^2/(2 lam*) that moves with the learning rate; one that lies outside
the variances in use, from the network's own 1/(3 fan-in) to He's 2/fan-in, a factor of six; decays
of two layers, searched apart, whose best ratio is not that of the fan-ins.
AdamW at constant rates, the shrink of all weights, at a fixed number of steps: a memory 1/lam
longer than the run does little, which draws the best shrink of low rates upwards, towards slope 0.
Both layers of the first network read 64 numbers, so that it has one prior. The second reads 64 and
16, and its biases do not decay. Intervals hold a quarter of the grid's step, which resampled seeds
do not show; the two layers' grid has steps of four, which is just the way from one law to the
other. One draw of data: the seeds are of weights and minibatches.
Cost of PAPER: 658 runs of two MLPs (1.0 million steps).
"""

import dataclasses

import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval, bootstrap
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Record, variable
from experiments.best_values import (
    Moving,
    best_intervals,
    grid_error,
    in_every,
    is_law,
    log_best_of_pair,
    log_heights,
    slope_of_best,
)
from experiments.contract import (
    INTERVAL,
    Result,
    Verdict,
    check_key,
    judged,
    not_judged,
    with_enough_seeds,
)
from experiments.coordinates import widened
from experiments.grids import (
    Axes,
    Problem,
    grid_from,
    grid_group,
    quick_problem,
    seeds_from,
    train_grid,
)
from experiments.layerwise import Digits, adamw_by_layer, fan_ins, mlp_task
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "The variance that the best decay is tied to is that of the first weights."
SETTLES = ("P11", "P10", "4.7")
CAPTION = (
    "Best shrink per step and the variance lr^2/(2 shrink) tied to it, over the learning rate,"
    " with 90 % bootstrap intervals; test error over the shrink; and the lowest test error at each"
    " ratio of the shrinks of two layers."
)

# Slope of log tied variance on log learning rate.
LAWS = {"prior": 0.0, "factor on the rate": 1.0, "decay apart from the rate": 2.0}
_RESAMPLES = 200
_HIDDEN = 64  # of the zoo's MLP, whose first weights are uniform within 1/sqrt(fan-in)


@dataclasses.dataclass(frozen=True)
class Layerwise:
    """Shrinks of two layers, searched apart."""

    width: int = 16  # fan-in of the second layer; of the first it is 64
    rate: float = 0.004
    lowest: float = 1e-5  # shrink per step
    factor: float = 4.0  # from a shrink to the next
    count: int = 7
    num_steps: int = 1_000
    data: Digits = Digits()


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem(num_steps=2_000, num_seeds=7, record_points=2)
    axes: Axes = Axes(rates="log:0.002:0.032:5", decays="log:0.015:15.36:9")
    layerwise: Layerwise = Layerwise()


PAPER = Config()
QUICK = Config(
    problem=quick_problem(),
    axes=Axes(rates="log:1e-3:0.1:3", decays="log:0.01:1:3"),
    layerwise=Layerwise(lowest=1e-4, factor=8.0, count=3, num_steps=60),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a grid of rates and decays, and one of the decays of two layers."""
    seeds = seeds_from(key, config.problem.num_seeds)
    grid = train_grid(config.problem, "adamw", "constant", config.axes, seeds)
    fan_in = np.array([64, _HIDDEN])
    prior = {
        "fan_in": variable("layer", fan_in, units="inputs"),
        "first_variance": variable("layer", 1 / (3 * fan_in)),
    }
    return Record(
        groups={
            "global": grid_group(grid),
            "prior": prior,
            "layerwise": _layerwise(config.layerwise, seeds),
        },
        attributes={"config": dataclasses.asdict(config)},
    )


def _layerwise(config: Layerwise, seeds: tuple[int, ...]) -> dict:
    task = mlp_task(config.data, (config.width,))
    shrinks = config.lowest * config.factor ** np.arange(config.count)
    layers = fan_ins(task)
    rates = dict.fromkeys(layers, config.rate)
    first, second = np.meshgrid(shrinks, shrinks, indexing="ij")
    runs = train_many(
        task,
        lambda numbers: adamw_by_layer(rates, {name: numbers[name] for name in layers}),
        dict(zip(layers, (first.ravel(), second.ravel()), strict=True)),
        seeds,
        config.num_steps,
    )
    errors = 1 - runs.final["test_accuracy"].reshape(*first.shape, -1)
    return {
        "first_shrink": variable("first_shrink", shrinks, units="1/step"),
        "second_shrink": variable("second_shrink", shrinks, units="1/step"),
        "fan_in": variable("layer", np.array(list(layers.values())), units="inputs"),
        "test_error": variable(("first_shrink", "second_shrink", "seed"), errors, units="1"),
    }


def check(result: Result) -> list[Verdict]:
    """Whether the tied variance stays, whether it is that of first weights, and layer by layer."""
    moving = _moving(result)
    shrink = slope_of_best(moving)
    slope = Interval(2 - shrink.estimate, 2 - shrink.high, 2 - shrink.low)
    verdicts = [
        is_law(
            "The variance that the best decay is tied to is the same at every learning rate",
            slope,
            "prior",
            LAWS,
            measured="slope of log tied variance on log rate",
        ),
        _among_first_variances(result),
        *_by_layer(result),
    ]
    return with_enough_seeds(verdicts, moving.errors.shape[-1])


def tied_variance(rate, shrink):
    """The prior's variance for which this shrink per step is the tied one, eta^2/(2 shrink)."""
    return np.square(rate) / (2 * np.asarray(shrink))


def tied_intervals(result: Result) -> list[Interval]:
    """The tied variance of the best shrink at every learning rate; NaN at an edge."""
    rates = np.exp(_moving(result).log_settings)
    # The highest shrink is the lowest variance.
    return [
        Interval(*tied_variance(rate, (best, high, low)).tolist())
        for rate, (best, low, high) in zip(rates, best_intervals(_moving(result)), strict=True)
    ]


def first_variances(result: Result) -> tuple[float, float]:
    """The lowest and highest variance that first weights are given: as drawn here, and He's."""
    prior = result.groups["prior"]
    return float(prior["first_variance"].values.min()), float(2 / prior["fan_in"].values.min())


def _among_first_variances(result: Result) -> Verdict:
    return in_every(
        "At every learning rate the best decay is tied to a variance that first weights have",
        tied_intervals(result),
        *first_variances(result),
        measured="from the lowest rate to the highest",
        tolerance="from the variance as drawn here to He's, which differ by six",
    )


def _by_layer(result: Result) -> list[Verdict]:
    group = result.groups["layerwise"]
    errors = group["test_error"].values
    fan_in = group["fan_in"].values
    shrinks = group["first_shrink"].values
    expected = float(np.log(fan_in[1] / fan_in[0]))
    ratio = bootstrap(
        check_key(),
        lambda drawn: log_ratio(drawn, shrinks),
        errors,
        num_resamples=_RESAMPLES,
    )
    # Two places on grids of one step, each with its own error.
    ratio = widened(ratio, 2**0.5 * grid_error(np.log(shrinks)))
    offset = round(expected / float(np.log(shrinks[1] / shrinks[0])))
    gain = bootstrap(
        check_key(),
        lambda drawn: lowest_on_line(drawn, offset) - lowest_on_line(drawn, 0, abs(offset)),
        errors,
        num_resamples=_RESAMPLES,
    )
    better = judged(
        "Shrinks of two layers in the ratio of their fan-ins err less than equal shrinks",
        gain,
        high=0.0,
        tolerance=f"{INTERVAL} of the log ratio of lowest errors, of as many cells each",
    )
    if offset == 0:
        better = not_judged(better, "as no shrinks of the grid have the ratio of the fan-ins")
    return [
        is_law(
            "The best shrinks of two layers, searched apart, are in the ratio of their fan-ins",
            ratio,
            "fan-ins",
            {"fan-ins": expected, "one decay for both": 0.0},
            measured="log of second shrink over first",
        ),
        better,
    ]


def log_ratio(errors: np.ndarray, shrinks: np.ndarray) -> float:
    """Logarithm of the second layer's best shrink over the first's; NaN at the grid's border."""
    first, second = log_best_of_pair(log_heights(errors), np.log(shrinks), np.log(shrinks))
    return second - first


def lowest_on_line(errors: np.ndarray, offset: int, left_out: int = 0) -> float:
    """Lowest log error where the second shrink stands `offset` steps above the first.

    Of a line that is longer than the one it is compared with, the first `left_out` are dropped.
    """
    heights = np.diagonal(log_heights(errors), offset)[left_out:]
    return float(np.min(heights))


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best shrink, its tied variance, the errors behind them, and the ratio of two layers."""
    moving = _moving(result)
    rates = np.exp(moving.log_settings)
    return panels_figure(
        panels_group(
            [
                _shrink_panel(result, moving, rates),
                _variance_panel(result, rates),
                _error_panel(moving, rates),
                _ratio_panel(result),
            ]
        ),
        venue,
    )


def _shrink_panel(result: Result, moving: Moving, rates: np.ndarray) -> Panel:
    best = best_intervals(moving)
    fan_in = float(result.groups["prior"]["fan_in"].values.min())
    relative = rates / np.exp(np.mean(np.log(rates)))
    middle = float(np.exp(np.nanmean(np.log(best[:, 0])))) if np.any(best[:, 0] > 0) else np.nan
    laws = [
        Series("tied to 1/fan-in", rates, 0.5 * fan_in * rates**2, kind="law"),
        Series("factor on the rate", rates, middle * relative, kind="law"),
        Series("apart from the rate", rates, np.full_like(rates, middle), kind="law"),
    ]
    found = Series("best decay", rates, *best.T)
    return Panel("Best shrink", "learning rate", "shrink per step", [*laws, found], "log", "log")


def _variance_panel(result: Result, rates: np.ndarray) -> Panel:
    tied = np.array(tied_intervals(result))
    prior = 1 / float(result.groups["prior"]["fan_in"].values.min())
    levels = {"tied to 1/fan-in": (prior,), "first weights: as drawn, He": first_variances(result)}
    laws = [
        Series(name, rates, np.full_like(rates, level), kind="law")
        for name, values in levels.items()
        for level in values
    ]
    found = Series("best decay", rates, *tied.T)
    return Panel("Tied variance", "learning rate", "variance", [*laws, found], "log", "log")


def _error_panel(moving: Moving, rates: np.ndarray) -> Panel:
    series = [
        Series(f"learning rate {rate:.3g}", np.exp(values), np.exp(log_heights(errors)))
        for rate, values, errors in zip(rates, moving.log_values, moving.errors, strict=True)
    ]
    return Panel("Errors", "shrink per step", "test error", series, "log", "log")


def _ratio_panel(result: Result) -> Panel:
    group = result.groups["layerwise"]
    errors, shrinks = group["test_error"].values, group["first_shrink"].values
    offsets = np.arange(2 - len(shrinks), len(shrinks) - 1)
    lowest = np.exp([lowest_on_line(errors, int(offset)) for offset in offsets])
    ratio = (shrinks[1] / shrinks[0]) ** offsets
    told = float(group["fan_in"].values[1] / group["fan_in"].values[0])
    at_told = float(np.interp(np.log(told), np.log(ratio), lowest))
    series = [
        Series("lowest at this ratio", ratio, lowest),
        Series("at the ratio of the fan-ins", [told], [at_told], kind="points"),
    ]
    return Panel(
        "Two layers", "second shrink / first shrink", "test error", series, "log", "linear"
    )


def _moving(result: Result) -> Moving:
    grid = grid_from(result, "global")
    return Moving(
        errors=grid.test_error,
        log_values=np.log(np.outer(grid.rates, grid.decays)),
        log_settings=np.log(grid.rates),
    )
