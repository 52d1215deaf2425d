"""Do gradients tell when the learning rate is right?

Claim: gradients of successive minibatches are uncorrelated at the best learning rate, positively
correlated below it, where the weights lag behind their optima, and negatively above.
Source: the innovations of a filter are white if and only if its gain is optimal (Kailath).
Refuted by: a lag-one autocorrelation that crosses zero more than a factor of two away from the
learning rate of the lowest training loss, or nowhere.
AdamW without momentum, whose gain the theory is about, at constant rates; the loss is the mean of
the minibatches of the window, each before it is learnt from. Early and late in training, because
a steady state, which the theory is about, may never come.
The control is the matched world, where the best rate is the drift scale.
Cost of PAPER: 135 runs of 2,900 steps: under 3 minutes on two cores that others were using as well.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import (
    ChosenWeights,
    Interval,
    chosen_weights,
    lag_one_autocorrelation,
    summed_gradient,
)
from bayesfilt.figures import VenueFigure, whiteness_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate.probes import minibatch_loss
from bayesfilt.tasks import Task
from experiments.contract import Result, Verdict, margin_of, spelled, with_enough_seeds, within
from experiments.coordinates import (
    AdamW,
    Matched,
    choice_of,
    interval_over_seeds,
    matched_task,
    task_of,
    world_name,
)
from experiments.grids import Axes, Problem, quick_problem, seeds_from
from experiments.watching import Window, watch, watcher

CLAIM = "Gradients are white in time at the best learning rate."
SETTLES = ("P22",)
CAPTION = (
    "Lag-one autocorrelation of gradients (above) and training loss (below) against the "
    "learning rate, early and late in training, with 90 % bootstrap intervals; a column a "
    "world."
)

MATCHED = "matched world"
MOMENTS = ("early", "late")
_BAND = (-1.0, 1.0)  # logarithms to base 2: one step of the grid


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    rates: str = "log:4.8828125e-4:0.125:9"
    weight_decay: float = 0.01  # "lr_scaled"
    moments: tuple[int, int] = (100, 2_500)  # steps taken before each window
    window: int = 400
    per_matrix: int = 128
    matched: Matched = Matched()
    matched_rates: str = "log:0.000625:0.16:9"


PAPER = Config(problems=(Problem(label_noise=0.0), Problem()))
QUICK = Config(
    problems=(quick_problem(),),
    rates="log:0.001:0.01:2",
    moments=(5, 40),
    window=15,
    per_matrix=16,
    matched=Matched(weights=8),
    matched_rates="log:0.003:0.03:2",
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Watch gradients at every learning rate, in windows of consecutive steps."""
    groups = {}
    seeds_key, world_key = jax.random.split(key)
    for problem in config.problems:
        seeds = seeds_from(seeds_key, problem.num_seeds)
        tasks = [task_of(problem)] * len(seeds)
        chosen = choice_of(tasks[0], config.per_matrix)
        rates = _rates(config.rates)
        world = world_name(problem)
        groups[world] = _watched(config, tasks, chosen, config.weight_decay, rates, seeds)
    seeds = seeds_from(seeds_key, config.problems[0].num_seeds)
    matched, last = config.matched, config.moments[-1] + config.window
    tasks = [matched_task(matched, jax.random.fold_in(world_key, seed), last) for seed in seeds]
    every = chosen_weights(tasks[0].init_params(world_key), range(matched.weights))
    rates = _rates(config.matched_rates)
    groups[MATCHED] = _watched(config, tasks, every, matched.weight_decay, rates, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Where the autocorrelation crosses zero, world by world; the control late only."""
    verdicts = []
    for world, group in _control_first(result):
        for index, moment in enumerate(MOMENTS):
            if world != MATCHED:
                found = _white_at_best(f"{world}, {moment}", group, index)
            elif index == len(MOMENTS) - 1:  # its filters must have forgotten their start
                found = _white_at_best(f"control, {world}", group, index)
            else:
                continue
            verdicts += with_enough_seeds([found], group["loss"].values.shape[-1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Autocorrelation and training loss against the learning rate, a column a world."""
    worlds = _control_first(result)
    drawn: Group = {
        "world": variable("world", [name for name, _ in worlds]),
        "moment": variable("moment", list(MOMENTS)),
        "learning_rate": variable(
            ("world", "rate"), np.stack([group["learning_rate"].values for _, group in worlds])
        ),
    }
    for name in ("autocorrelation", "loss"):
        found = np.array(
            [
                [[_middle(row, name) for row in moment] for moment in group[name].values]
                for _, group in worlds
            ]
        )
        for column, ending in enumerate(("", "_low", "_high")):
            drawn[f"{name}{ending}"] = variable(("world", "moment", "rate"), found[..., column])
    return whiteness_figure(drawn, venue)


def best_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate of the lowest loss, median over seeds; losses over (rates, seeds)."""
    medians = np.median(np.where(np.isnan(losses), np.inf, losses), axis=1)
    return float(rates[np.argmin(medians)])


def crossing_rate(rates: np.ndarray, correlation: np.ndarray) -> float:
    """Where the correlation first falls through zero, by a line over the logarithm of the rate.

    Infinite where it is positive at all rates, 0 where it begins negative, NaN of nothing.
    """
    known = np.isfinite(correlation)
    rates, correlation = rates[known], correlation[known]
    if not rates.size:
        return float("nan")
    below = np.flatnonzero(correlation <= 0)
    if not below.size:
        return float("inf")
    first = int(below[0])
    if first == 0:
        return 0.0
    high, low = correlation[first - 1], correlation[first]
    share = high / (high - low)
    return float(np.exp(np.log(rates[first - 1 : first + 1]) @ np.array([1 - share, share])))


def _watched(
    config: Config,
    tasks: Sequence[Task],
    chosen: ChosenWeights,
    weight_decay: float,
    rates: np.ndarray,
    seeds: Sequence[int],
) -> Group:
    """Autocorrelation, mean over weights, and loss of one world, by window, rate and seed."""
    probes = {"gradient": summed_gradient(chosen), "loss": minibatch_loss}
    adamw = AdamW(weight_decay, tasks[0].batch_size, b1=0.0)
    seen = watch(
        watcher(adamw.builder(), probes),
        [task for _ in rates for task in tasks],
        np.repeat(rates, len(seeds)).tolist(),
        list(seeds) * len(rates),
        [Window(begin=begin, spacing=1, count=config.window) for begin in config.moments],
    )
    shape = (len(rates), len(seeds), len(config.moments), config.window)
    gradient = seen["gradient"].reshape(*shape, -1)
    by_weight = lag_one_autocorrelation(gradient).value
    live = np.isfinite(by_weight)
    # A weight without a gradient has no correlation; a run that diverged has none at all.
    mean = np.where(live, by_weight, 0).sum(axis=-1) / np.where(
        live.any(axis=-1), live.sum(axis=-1), np.nan
    )
    dims = ("moment", "learning_rate", "seed")
    loss = seen["loss"].reshape(shape).mean(axis=-1)
    return {
        "moment": variable("moment", list(MOMENTS)),
        "step": variable("moment", np.array(config.moments), units="steps"),
        "learning_rate": variable("learning_rate", rates),
        "autocorrelation": variable(dims, np.moveaxis(mean, -1, 0), units="1"),
        "loss": variable(dims, np.moveaxis(loss, -1, 0), units="nats"),
    }


def _rates(words: str) -> np.ndarray:
    return Axes(rates=words, decays="0").values()[0]


def _control_first(result: Result) -> list[tuple[str, Group]]:
    return sorted(result.groups.items(), key=lambda item: item[0] != MATCHED)


def _white_at_best(where: str, group: Group, moment: int) -> Verdict:
    rates = group["learning_rate"].values
    correlation, loss = (group[name].values[moment] for name in ("autocorrelation", "loss"))

    def gap(runs: np.ndarray) -> float:
        """Logarithm to base 2, from the best rate to the crossing."""
        crossing = crossing_rate(rates, runs[0].mean(axis=1))
        with np.errstate(divide="ignore"):
            return float(np.log2(crossing) - np.log2(best_rate(rates, runs[1])))

    found = interval_over_seeds(gap, np.stack([correlation, loss]))
    best = best_rate(rates, loss)
    here = correlation[int(np.argmin(np.abs(rates - best)))].mean()
    edge = best in (rates[0], rates[-1])
    return Verdict(
        claim=f"{where}: gradients are white at the learning rate of the lowest training loss",
        measured=f"crossing at 2^{spelled(found)} times the best rate {best:.2g}, where the"
        f" autocorrelation is {here:.2g}{'; at the edge of the grid' if edge else ''}",
        expected="2^0",
        tolerance="a factor of two, one step of the grid; 90 % bootstrap over seeds; undecided"
        " where the best rate is at the edge of the grid",
        holds=None if edge else within(found, *_BAND),
        margin=margin_of(found, *_BAND),
    )


def _middle(row: np.ndarray, name: str) -> Interval:
    """Over seeds, as the verdict takes it: the mean correlation, the median loss."""
    return interval_over_seeds(
        lambda runs: float(np.mean(runs) if name == "autocorrelation" else np.median(runs)), row
    )
