"""Do the optima of a network's weights have a velocity?

Claim: the optimum of a weight, given all others, goes on as it went (P30), so that momentum has
something to foretell: AR(2) foretells it better than AR(1), and the share of the velocity that is
forgotten in a step is 1 - b1, as the filter with a velocity reads Adam's momentum.
Source: checks E5 and E6; reconstruction of BAdam (Aitchison 2018) from its abstract.
Refuted by: steps of the optima that are not correlated, or that go back where momentum is off, for
then there is nothing that momentum could have found; AR(2) that foretells no better; a forgetting
that is another.
Optima move because the other weights move, so that momentum makes a velocity by itself: a running
mean of gradients that are white has steps that correlate as b1^k. What momentum is good for
must be there when it is off, and that is what is judged against e34's worlds.
A minibatch's optimum has an error, and an error makes steps that go back. These are optima of all
training data, found to a thousandth of a weight where a middling step is of 0.02 to 0.4; and a
velocity is looked for at lag two and later, where such an error does nothing. The controls are
worlds of e34 with errors and without, of as many seeds and steps; where one of them comes out wrong
nothing is judged.
Chosen after the first look, at two seeds and other weights: AdamW with b1 = 0.5, and correlations
from lag two on. After the first PAPER: the worlds that a velocity must match are compared by its
correlations, not by what AR(2) gains, which eight weights do not fix; a slow velocity among them;
32 weights a control, because eight left the forgetting undecided with errors in half of the seeds
that were tried. Weights without a gradient at the start are not watched, and an optimum beyond the
trust region is left out: the verdicts say how many. A velocity kept far longer than the 128 steps
of a window is not seen.
Cost of PAPER: 35 runs of the MLP and 72,000 coordinate optima: about 100 s of CPU time.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval, coordinate_optimum, whole_data
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import power_adam
from bayesfilt.records import Group, Record, variable
from experiments.contract import (
    INTERVAL,
    Result,
    Verdict,
    judged,
    not_judged,
    with_enough_seeds,
)
from experiments.coordinates import choice_of, interval_over_seeds, middle_of, task_of
from experiments.grids import Problem, quick_problem, seeds_from
from experiments.interval_columns import medians
from experiments.panels import Panel, Series, panels_group
from experiments.steps_of_optima import (
    FARTHEST,
    forgetting,
    found_throughout,
    gains_of_second,
    mean_correlation,
    mean_over_lags,
)
from experiments.velocity_worlds import optimum_paths
from experiments.watching import Window, watch, watcher

CLAIM = "The optima of a network's weights have a velocity."
SETTLES = ("P30",)
CAPTION = (
    "Correlation of an optimum's steps with its steps so many later, mean over weights, under AdamW"
    " at the lower learning rate early and late in training, and in worlds of known optima; and"
    " what AR(2) gains over AR(1), by b1 and learning rate (0.1: SGD). Intervals: 90 % bootstrap"
    " over seeds."
)

MOMENTS = ("early", "late")
POWERS = {"AdamW": 0.5, "SGD": 0.0}  # of the mean square of the gradient
# Reach and loss per step of the velocity, and error of measurement; as `optimum_paths` has them.
WORLDS = {
    "random walk": (0.0, 0.1, 0.0),
    "random walk with errors": (0.0, 0.1, 1.0),
    "weak velocity": (4.0, 0.1, 0.0),
    "slow velocity": (4.0, 0.01, 0.0),
    "strong velocity": (20.0, 0.1, 0.0),
    "strong velocity with errors": (20.0, 0.1, 0.5),
}
# What a tracker's error is lower by where optima have this velocity (e34). One that carries as
# far as the drift, a quarter of these, is worth less than 1 %.
_WORTH = {"weak velocity": "3 %", "slow velocity": "12 %"}
_DRAWN = ("random walk with errors", "weak velocity")  # more would share colours with the networks
_RELATED = 0.1  # correlation; its square is what AR(2) then gains, a hundredth
_SEEN = 0.02  # correlation, mean over lags 2 to 20: a slow velocity's is 0.07
_BETTER = 0.05  # of log square error
_FACTOR = 1.5  # of the forgetting, either way
_MEANING = f"{INTERVAL}, of the mean over weights"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem()
    # Optimizer, learning rate on the mean-loss gradient, b1.
    settings: tuple[tuple[str, float, float], ...] = (
        ("AdamW", 1e-3, 0.0), ("AdamW", 1e-3, 0.5), ("AdamW", 1e-3, 0.9),
        ("AdamW", 4e-3, 0.0), ("AdamW", 4e-3, 0.9), ("SGD", 0.1, 0.0), ("SGD", 0.1, 0.9),
    )  # fmt: skip
    moments: tuple[int, int] = (50, 800)  # steps taken before each window
    window: int = 128
    per_matrix: int = 4
    trust_radius: float = 10.0  # of the search for an optimum; units of a weight
    shrink: float = 1e-5  # weight decay, per step
    known: int = 32  # optima of every control


PAPER = Config()
QUICK = Config(
    problem=quick_problem(),
    settings=(("AdamW", 1e-3, 0.0), ("AdamW", 1e-3, 0.9)),
    moments=(2, 30),
    window=20,
    per_matrix=2,
    known=4,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Find the optima of some weights at every step of two windows; draw the controls."""
    seed_key, world_key = jax.random.split(key)
    seeds = seeds_from(seed_key, config.problem.num_seeds)
    network = _watched(config, seeds)
    shape = (len(seeds), config.window, config.known)
    paths = [
        optimum_paths(world, *numbers, shape)
        for world, numbers in zip(
            jax.random.split(world_key, len(WORLDS)), WORLDS.values(), strict=True
        )
    ]
    controls = {
        "world": variable("world", list(WORLDS)),
        "optimum": variable(
            ("world", "seed", "step", "weight"), np.stack(paths), units="root of drift variance"
        ),
    }
    return Record(
        groups={"network": network, "controls": controls},
        attributes={"config": dataclasses.asdict(config)},
    )


def check(result: Result) -> list[Verdict]:
    """The controls; then what optima do with momentum and without."""
    network = result.groups["network"]
    controls = _controls(result)
    found = [
        verdict
        for place in range(len(network["b1"].values))
        for moment in range(len(MOMENTS))
        for verdict in _of_setting(network, place, moment)
    ]
    found += [_enough(result, name) for name in _WORTH]
    if any(each.holds is not True for each in controls):
        found = [not_judged(each, "as a control has not come out right") for each in found]
    return with_enough_seeds([*controls, *found], network["optimum"].values.shape[2])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Correlation against the lag, in the network and in the controls, and AR(2)'s gain."""
    network, worlds = result.groups["network"], result.groups["controls"]
    rates, b1 = network["learning_rate"].values, network["b1"].values
    low = [place for place in range(len(b1)) if _names(network)[place] == "AdamW"]
    low = [place for place in low if rates[place] == min(rates[other] for other in low)]
    panels = [
        _lag_panel(
            f"AdamW, {moment}",
            {f"b1 = {b1[place]:g}": _paths(network, place, row) for place in low},
        )
        for row, moment in enumerate(MOMENTS)
    ]
    panels.append(
        _lag_panel(
            "known optima",
            {name: worlds["optimum"].values[list(WORLDS).index(name)] for name in _DRAWN},
        )
    )
    words = [f"{b1[place]:g}\n{f'{rate:g}'.lstrip('0')}" for place, rate in enumerate(rates)]
    gains = [
        Series(
            moment,
            np.arange(len(words)) + 0.15 * row,  # beside each other
            *medians(
                np.stack(
                    [gains_of_second(_paths(network, place, row)) for place in range(len(words))]
                )
            ),
            kind="points",
        )
        for row, moment in enumerate(MOMENTS)
    ]
    panels.append(
        Panel(
            "forecasts",
            "b1 and learning rate",
            "log error, AR(2) / AR(1)",
            gains,
            y_scale="linear",
            guide=0.0,
            places=words,
        )
    )
    return panels_figure(panels_group(panels), venue)


def optimizer_of(shrink: float, numbers: Any) -> optax.GradientTransformation:
    """With this learning rate, b1, and power of the mean square; traced, so that all share one."""
    rate, b1, power = numbers
    return power_adam(rate, power=power, b1=b1, weight_decay=shrink / rate)


def _watched(config: Config, seeds: Sequence[int]) -> Group:
    """Optima of some weights at every step of the windows, for every setting and seed."""
    task = task_of(config.problem)
    chosen = choice_of(task, config.per_matrix, touched=True)
    probe = coordinate_optimum(chosen, whole_data, trust_radius=config.trust_radius)
    count = len(config.settings)
    numbers = [(rate, b1, POWERS[name]) for name, rate, b1 in config.settings]
    seen = watch(
        watcher(
            functools.partial(optimizer_of, config.shrink),
            {"optimum": lambda task, view: probe(task, view).optimum},
        ),
        [task] * (count * len(seeds)),
        np.repeat(numbers, len(seeds), axis=0),
        list(seeds) * count,
        [Window(begin=begin, spacing=1, count=config.window) for begin in config.moments],
    )
    shape = (count, len(seeds), len(MOMENTS), config.window, -1)
    return {
        "optimizer": variable("setting", [name for name, _, _ in config.settings]),
        "learning_rate": variable("setting", np.array(numbers)[:, 0], units="weight"),
        "b1": variable("setting", np.array(numbers)[:, 1], units="1"),
        "moment": variable("moment", list(MOMENTS)),
        "begin": variable("moment", np.array(config.moments), units="steps"),
        "optimum": variable(
            ("setting", "moment", "seed", "step", "weight"),
            np.swapaxes(seen["optimum"].reshape(shape), 1, 2),
            units="weight; NaN: not found",
        ),
    }


def _names(network: Group) -> list[str]:
    return [str(name) for name in network["optimizer"].values]


def _paths(network: Group, place: int, moment: int) -> np.ndarray:
    """Optima of one setting and window, (seeds, steps, weights)."""
    return network["optimum"].values[place, moment]


def _middle(values: np.ndarray) -> Interval:
    """Of one number a run: their median."""
    return interval_over_seeds(middle_of, values)


def _controls(result: Result) -> list[Verdict]:
    """The answers that were built in."""
    group = result.groups["controls"]
    worlds = {
        str(name): paths
        for name, paths in zip(group["world"].values, group["optimum"].values, strict=True)
    }
    lags = {
        name: [mean_correlation(paths, lag) for lag in (1, 2)] for name, paths in worlds.items()
    }
    verdicts = [
        judged(
            "Control, random walk: steps are not correlated.",
            _middle(lags["random walk"][0]),
            low=-_RELATED,
            high=_RELATED,
            tolerance=_MEANING,
        ),
        judged(
            "Control, random walk measured with errors: steps go back at lag one.",
            _middle(lags["random walk with errors"][0]),
            high=-_RELATED,
            tolerance=_MEANING,
        ),
        judged(
            "Control, random walk measured with errors: no velocity at lag two.",
            _middle(lags["random walk with errors"][1]),
            high=_RELATED,
            tolerance=_MEANING,
        ),
    ]
    verdicts += [
        judged(
            f"Control, {name}: it is seen at lags 2 to {FARTHEST}.",
            _middle(mean_over_lags(worlds[name])),
            low=_SEEN,
            tolerance=_MEANING,
        )
        for name in _WORTH
    ]
    verdicts.append(_foretells("Control, strong velocity", worlds["strong velocity"]))
    for name in ("strong velocity", "strong velocity with errors"):
        verdicts.append(_forgets(f"Control, {name}", worlds[name], WORLDS[name][1]))
    return verdicts


def _of_setting(network: Group, place: int, moment: int) -> list[Verdict]:
    """Without momentum, correlations; with it, forecasts and forgetting."""
    paths, b1 = _paths(network, place, moment), float(network["b1"].values[place])
    where = (
        f"{_names(network)[place]} at {network['learning_rate'].values[place]:g}, b1 = {b1:g},"
        f" {MOMENTS[moment]}"
    )
    if b1 > 0:
        return [_foretells(where, paths), _forgets(where, paths, 1 - b1)]
    return [
        judged(
            f"{where}: steps of the optima are not correlated, as in a random walk.",
            _middle(mean_correlation(paths, 1)),
            low=-_RELATED,
            high=_RELATED,
            tolerance=f"at lag one; {_MEANING}; {_lost(paths)}",
        ),
        judged(
            f"{where}: optima have a velocity.",
            _middle(mean_correlation(paths, 2)),
            low=_RELATED,
            tolerance=f"correlation of steps at lag two, which errors of measurement leave alone;"
            f" {_MEANING}; {_lost(paths)}",
        ),
        _foretells(where, paths),
    ]


def _foretells(where: str, paths: np.ndarray) -> Verdict:
    return judged(
        f"{where}: AR(2) foretells the optimum a twentieth better than AR(1).",
        _middle(gains_of_second(paths)),
        high=-_BETTER,
        tolerance=f"log ratio of square errors in the second half of the window, fitted to the"
        f" first, median over weights; {INTERVAL}; {_lost(paths)}",
    )


def _forgets(where: str, paths: np.ndarray, expected: float) -> Verdict:
    return judged(
        f"{where}: the velocity loses {expected:.2g} of itself in a step.",
        _middle(forgetting(paths)),
        low=expected / _FACTOR,
        high=expected * _FACTOR,
        tolerance=f"a factor of {_FACTOR:g}, from correlations at lags 2 to 5; {INTERVAL};"
        f" {_lost(paths)}",
    )


def _enough(result: Result, name: str) -> Verdict:
    """The velocity of where there is most of it without momentum, beside that of a world."""
    network, worlds = result.groups["network"], result.groups["controls"]
    world = worlds["optimum"].values[[str(each) for each in worlds["world"].values].index(name)]
    found = [
        mean_over_lags(_paths(network, place, moment))
        for place, b1 in enumerate(network["b1"].values)
        for moment in range(len(MOMENTS))
        if b1 == 0
    ]
    return judged(
        f"Without momentum, optima have somewhere as much as the {name} that is worth"
        f" {_WORTH[name]} of a tracker's error.",
        interval_over_seeds(_highest_over_first, np.stack([mean_over_lags(world), *found])),
        low=0.0,
        tolerance=f"correlation of steps, mean of lags 2 to {FARTHEST}, highest of {len(found)}"
        f" places less that of such a world; {INTERVAL}",
    )


def _highest_over_first(rows: np.ndarray) -> float:
    found = [middle_of(row) for row in rows]
    return float(np.max(found[1:]) - found[0])


def _lost(paths: np.ndarray) -> str:
    lost = 1 - np.isfinite(found_throughout(paths)).any(axis=-2).mean()
    return f"{lost:.0%} of the weights lost"


def _lag_panel(title: str, worlds: dict[str, np.ndarray]) -> Panel:
    """Correlation of steps against the lag."""
    longest = min(paths.shape[-2] for paths in worlds.values())
    lags = np.arange(1, min(FARTHEST, longest // 2) + 1)
    series = [
        Series(name, lags, *medians(np.stack([mean_correlation(paths, int(lag)) for lag in lags])))
        for name, paths in worlds.items()
    ]
    return Panel(
        title, "steps between", "correlation of steps", series, x_scale="linear", y_scale="linear",
        guide=0.0,
    )  # fmt: skip
