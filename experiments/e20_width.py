"""Does the best decay of a layer go with its width as the filter's prior has it?

Claim: with a prior variance of one over the fan-in, the best shrink per step of a layer is
rate^2 fan-in/2: in proportion to the width at a fixed rate, and to one over the width where the
rate goes with one over the width (muP), which is a constant weight decay.
Source: P35. Against it: Wang and Aitchison (2025), where the memory in epochs is what counts, so
that the shrink does not go with the width and under muP weight decay is in proportion to it.
Refuted by: a slope of log best shrink on log width whose interval leaves out 1 at a fixed rate, or
-1 under muP; a best shrink that stands for no variance that first weights are given, which lie
between 1/3 and 2 over the fan-in. The two laws exclude each other in both designs. That a constant
weight decay is best says the same as the filter under muP, and the same as the follow-up at a
fixed rate: only both designs together single out the filter.
AdamW at constant rates on an MLP with two hidden layers. What varies is the shrink of the two
matrices that read a hidden layer; that of the first, which reads 64 pixels at any width, is the
filter's own, and biases do not decay. Only rates follow muP, first weights are the library's. After
a first run the grid was given one more shrink, as a best one was the last, and the verdicts on the
level were added. Intervals hold a quarter of the grid's step, which resampled seeds do not show.
Where a memory 1/shrink is longer than the run, decay does little: not judged at the edge of a grid.
Cost of PAPER: 560 runs of four MLPs (0.9 million steps).
"""

import dataclasses

import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Record, variable
from experiments.best_values import (
    Moving,
    best_intervals,
    in_every,
    is_law,
    log_heights,
    slope_of_best,
)
from experiments.contract import Result, Verdict, with_enough_seeds
from experiments.grids import seeds_from
from experiments.layerwise import Digits, adamw_by_layer, fan_ins, mlp_task
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best shrink of a layer is the square of its rate times half of its fan-in."
SETTLES = ("P35",)
CAPTION = (
    "Best shrink per step of the matrices that read a hidden layer, over its width, at a fixed rate"
    " and at a rate in proportion to one over the width, with 90 % bootstrap intervals and both"
    " laws, the filter's at its own level; below, the test errors behind it."
)

DESIGNS = {"fixed": "at a fixed rate", "muP": "with a rate of one over the width"}
_WORDS = {
    "filter": "goes with the width as the square of the rate times the fan-in",
    "memory": "does not go with the width",
}
# Best shrinks over the filter's: of variances from the library's own 1/(3 fan-in) to He's.
_LEVELS = (0.5, 3.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    widths: tuple[int, ...] = (16, 32, 64, 128)
    base_width: int = 32  # where both designs have the same rate
    rate: float = 0.008
    lowest: float = 1e-5  # shrink per step
    factor: float = 2.8  # from a shrink to the next
    count: int = 10
    num_steps: int = 1_600
    num_seeds: int = 7
    data: Digits = Digits()

    def rate_of(self, design: str, width: int) -> float:
        """Of the layers that read a hidden layer."""
        return self.rate * (self.base_width / width if design == "muP" else 1.0)


PAPER = Config()
QUICK = Config(
    widths=(8, 16), base_width=8, lowest=1e-3, factor=8.0, count=3, num_steps=40, num_seeds=3
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a line of shrinks for every width, at both rates."""
    seeds = seeds_from(key, config.num_seeds)
    shrinks = config.lowest * config.factor ** np.arange(config.count)
    errors: dict[str, list[np.ndarray]] = {design: [] for design in DESIGNS}
    for width in config.widths:
        rates = [config.rate_of(design, width) for design in DESIGNS]
        settings = {
            "rate": np.repeat(rates, config.count),
            "shrink": np.tile(shrinks, len(rates)),
        }
        task = mlp_task(config.data, (width, width))
        runs = train_many(task, _optimizer_of(config, task), settings, seeds, config.num_steps)
        found = np.split(1 - runs.final["test_accuracy"], len(rates))
        for design, lines in zip(DESIGNS, found, strict=True):
            errors[design].append(lines)
    groups = {
        design: {
            "width": variable("width", np.array(config.widths), units="inputs"),
            "rate": variable(
                "width", np.array([config.rate_of(design, width) for width in config.widths])
            ),
            "shrink": variable("shrink", shrinks, units="1/step"),
            "test_error": variable(("width", "shrink", "seed"), np.stack(lines), units="1"),
        }
        for design, lines in errors.items()
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def _optimizer_of(config: Config, task):
    """Rate and shrink of the layers that read a hidden one; the first has the filter's own."""
    first, *others = fan_ins(task)
    fan_in = fan_ins(task)[first]

    def made(numbers):
        return adamw_by_layer(
            {first: config.rate, **dict.fromkeys(others, numbers["rate"])},
            {
                first: filter_shrink(config.rate, fan_in),
                **dict.fromkeys(others, numbers["shrink"]),
            },
        )

    return made


def filter_shrink(rate, fan_in):
    """The tied shrink per step, rate^2/(2 variance), of a prior variance of one over the fan-in."""
    return rate**2 * fan_in / 2


def law_slopes(result: Result, design: str) -> dict[str, float]:
    """What each law says of the slope of log best shrink on log width."""
    group = result.groups[design]
    width, rate = (group[each].values.astype(float) for each in ("width", "rate"))
    slope = np.polyfit(np.log(width), np.log(filter_shrink(rate, width)), 1)[0]
    return {"filter": round(float(slope), 6), "memory": 0.0}


def check(result: Result) -> list[Verdict]:
    """Both laws, at a fixed rate and under muP."""
    verdicts = []
    for design, where in DESIGNS.items():
        moving = moving_of(result, design)
        slope = slope_of_best(moving)
        laws = law_slopes(result, design)
        found = [
            is_law(
                f"The best shrink of a hidden layer {words}, {where}",
                slope,
                name,
                laws,
                measured="slope on log width",
            )
            for name, words in _WORDS.items()
        ]
        found.append(_level(result, design))
        verdicts += with_enough_seeds(found, moving.errors.shape[-1])
    return verdicts


def _level(result: Result, design: str) -> Verdict:
    """Whether the best shrinks stand for variances that first weights are given."""
    group = result.groups[design]
    width, rate = (group[each].values.astype(float) for each in ("width", "rate"))
    told = filter_shrink(rate, width)
    relative = best_intervals(moving_of(result, design)) / told[:, None]
    found = [Interval(*row) for row in relative.tolist()]
    return in_every(
        f"At every width the best shrink stands for a variance of first weights, {DESIGNS[design]}",
        found,
        *_LEVELS,
        measured="times rate^2 fan-in/2, from the narrowest to the widest",
        tolerance="the laws of first weights in use have variances of 1/3 to 2 over the fan-in",
    )


def moving_of(result: Result, design: str) -> Moving:
    """Errors over the shrink, for every width."""
    group = result.groups[design]
    errors = group["test_error"].values
    return Moving(
        errors=errors,
        log_values=np.tile(np.log(group["shrink"].values), (len(errors), 1)),
        log_settings=np.log(group["width"].values),
    )


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best shrink over the width, and the errors of every shrink; both designs."""
    panels = [_best_panel(result, design) for design in DESIGNS]
    panels += [_error_panel(result, design) for design in DESIGNS]
    return panels_figure(panels_group(panels), venue)


def _best_panel(result: Result, design: str) -> Panel:
    group = result.groups[design]
    width, rate = (group[each].values.astype(float) for each in ("width", "rate"))
    best = best_intervals(moving_of(result, design))
    known = best[np.isfinite(best[:, 0]), 0]
    middle = float(np.exp(np.mean(np.log(known)))) if known.size else float("nan")
    series = [
        Series("filter: rate^2 fan-in/2", width, filter_shrink(rate, width), kind="law"),
        Series("same memory", width, np.full_like(width, middle), kind="law"),
        Series("best decay", width, *best.T),
    ]
    title = f"Best shrink, {_TITLES[design]}"
    return Panel(title, "width", "shrink per step", series, "log", "log")


def _error_panel(result: Result, design: str) -> Panel:
    moving = moving_of(result, design)
    series = [
        Series(f"width {width:.0f}", np.exp(values), np.exp(log_heights(errors)))
        for width, values, errors in zip(
            np.exp(moving.log_settings), moving.log_values, moving.errors, strict=True
        )
    ]
    title = f"Errors, {_TITLES[design]}"
    return Panel(title, "shrink per step", "test error", series, "log", "log")


_TITLES = {"fixed": "fixed rate", "muP": "muP rate"}
