"""Is momentum of use only where optima have a velocity?

Claim: a running mean of gradients does not help to track optima that wander, once the rate is tuned
(P30); it helps where they have a velocity, and there the velocity filter is best, whose step has a
direct part and a look-ahead: less error than the best constant gain.
Source: checks E5 and E6; reconstruction of BAdam (Aitchison 2018) from its abstract.
Refuted by: momentum that lowers the error of wandering optima; none that lowers it with a velocity;
and on digits, momentum that lowers the loss, or a velocity filter that does not.
That no tracker beats a constant gain on a random walk, or the velocity filter in its own world, is
a theorem (Kalman); what is open is by how much, and whether plain Nesterov gets the same. The
velocity is forgotten in 10 steps (b1 = 0.9) or in 100 (a world added after the first had said no),
sooner or later than the 20 of the tracking, and carries the optimum as far as the drift does or
four times as far (judged after both had said no at the first reach: the gain goes from 0.4 to 12 %
with it). The theory notes have 6 to 7 % and not in which world: this can be had, and is not judged.
Every tracker has its best rate, and momentum its best b1: the price of tuning is not counted.
On digits a running mean also steadies steps that are too large for the curvature, which the scalar
theory leaves out; that their optima have no velocity unless momentum makes it is e43's, so that a
no there says that this theory of momentum does not explain it. The filter's velocity there has
one pair of numbers, those of b1 = 0.9, which are not tuned; the grid of rates was moved once.
Cost of PAPER: 9,000 tracked runs and 196 runs of the MLP: about 45 s of CPU time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from bayesfilt.compare import median_over_seeds
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import badam, power_adam
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import make_task
from experiments.contract import INTERVAL, Result, Verdict, judged, not_judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.interval_columns import columns, medians
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group
from experiments.tracked_worlds import DriftingWorld, Numbers, crossed, tracking_errors
from experiments.velocity_worlds import (
    constant_at_edge,
    filter_steps,
    lowest,
    momentum_at_edge,
    names_of,
    over_constant,
    worlds_of,
)

CLAIM = "Momentum is of use only where optima have a velocity."
SETTLES = ("P30",)
CAPTION = (
    "Error of running-mean momentum at its best rate against b1, over that of no momentum; error of"
    " the best of each tracker by the velocity's reach and memory; and losses on digits against the"
    " learning rate."
)

TRACKERS = ("running mean", "Nesterov", "velocity filter")
NETWORK = {  # name -> (running mean's b1, velocity's shrink, its drift over the position's)
    "adam": (0.0, 1.0, 0.0),
    "adam, momentum": (0.9, 1.0, 0.0),
    "brmsprop": (0.0, 1.0, 0.0),
    "badam": (0.0, 0.1, 0.1),
}
METRICS = {"training_loss": "training loss", "test_loss": "held-out loss"}
_SMALL = 0.01  # of log error: nobody would pay a second copy of the weights for less
_LOG = f"{INTERVAL}, of log errors at their best rates; a hundredth is worth no second copy"
_USEFUL = 0.05  # of log loss of a network, whose seeds differ by more


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    # How far the velocity carries an optimum in the long run, over how far its own drift does;
    # and the velocity's loss per step: its memory is shorter and longer than the tracking time.
    worlds: tuple[tuple[float, float], ...] = (
        (0.0, 0.1), (1.0, 0.1), (2.0, 0.1), (4.0, 0.1), (1.0, 0.01), (2.0, 0.01), (4.0, 0.01)
    )  # fmt: skip
    gain: float = 0.05  # drift scale times root of the precision: tracking takes 20 steps
    momenta: tuple[float, ...] = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)
    rates: tuple[float, float, int] = (0.25, 4.0, 13)  # over the best for all that drifts
    num_weights: int = 48
    world_seeds: int = 7
    num_steps: int = 8_000
    settling: int = 1_000
    # Digits, 300 of them with wrong labels.
    subset: int = 300
    label_noise: float = 0.2
    batch_size: int = 32
    training_steps: int = 1_500
    learning_rates: tuple[float, float, int] = (5e-4, 6.4e-2, 8)  # drift scale, for the filters
    stationary_variance: float = 0.1  # of the filters; weight^2
    weight_decay: float = 1e-5  # shrink per step
    num_seeds: int = 7


PAPER = Config()
QUICK = Config(
    worlds=((0.0, 0.1), (1.0, 0.1)),
    momenta=(0.0, 0.9),
    rates=(0.25, 4.0, 5),
    num_weights=16,
    world_seeds=2,
    num_steps=300,
    settling=100,
    training_steps=40,
    learning_rates=(1e-3, 1e-2, 2),
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Track worlds with more and more velocity, then train digits."""
    world_key, seed_key = jax.random.split(key)
    return Record(
        groups={
            "worlds": _worlds(config, world_key),
            "digits": _digits(config, seeds_from(seed_key, config.num_seeds)),
        },
        attributes={"config": dataclasses.asdict(config)},
    )


def check(result: Result) -> list[Verdict]:
    """Without a velocity, with one, and on digits."""
    worlds, digits = result.groups["worlds"], result.groups["digits"]
    verdicts = with_enough_seeds(_in_worlds(worlds), worlds["filter"].values.shape[-1])
    found = [
        verdict
        for metric in METRICS
        for verdict in (
            _on_digits(
                digits, metric, "adam", "adam, momentum",
                "momentum does not lower Adam's {metric} by a twentieth", low=-_USEFUL,
            ),
            _on_digits(
                digits, metric, "brmsprop", "badam",
                "the filter with a velocity has a lower {metric} than the one without", high=0.0,
            ),
            _on_digits(
                digits, metric, "adam, momentum", "badam",
                "the filter with a velocity has no higher {metric} than Adam with momentum",
                high=_USEFUL,
            ),
        )
    ]  # fmt: skip
    return verdicts + with_enough_seeds(found, digits["training_loss"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Errors against b1 and against the velocity, and losses against the learning rate."""
    worlds, digits = result.groups["worlds"], result.groups["digits"]
    momenta, names = worlds["b1"].values, names_of(worlds)
    by_momentum = [
        Series(
            name,
            momenta,
            *columns(
                [over_constant(worlds, "running_mean", row, only=b1) for b1 in range(momenta.size)]
            ),
        )
        for row, name in enumerate(names)
        if worlds["share"].values[row] <= 1
    ]
    by_tracker = [
        Series(
            name,
            np.arange(len(names)),
            *columns([over_constant(worlds, field, row) for row in range(len(names))]),
            kind="points",
        )
        for name, field in zip(TRACKERS, ("running_mean", "nesterov", "filter"), strict=True)
    ]
    places = [f"{share:g}/{1 / shrink:g}" for share, shrink in worlds_of(worlds)]
    panels = [
        Panel("running mean", "b1", "error / no momentum", by_momentum, guide=1.0),
        Panel(
            "best of each", "velocity's reach / steps", "error / best constant gain", by_tracker,
            places=places, guide=1.0,
        ),
    ]  # fmt: skip
    rates = digits["learning_rate"].values
    for metric, label in METRICS.items():
        series = [
            Series(str(name), rates, *medians(digits[metric].values[index]))
            for index, name in enumerate(digits["optimizer"].values)
        ]
        title = "digits"
        panels.append(
            Panel(title, "learning rate", f"{label}, nats", series, x_scale="log", y_scale="log")
        )
    return panels_figure(panels_group(panels), venue)


def _worlds(config: Config, key: PRNGKeyArray) -> Group:
    """Errors of constant gains with a running mean, of Nesterov's, and of the velocity filter."""
    rates, kinds = np.geomspace(*config.rates), np.array(config.worlds)
    crossing = crossed(world=np.arange(len(kinds)), b1=config.momenta, rate=rates)
    share, shrink = kinds[crossing.pop("world").astype(int)].T
    settings = {**crossing, "share": share, "shrink": shrink}
    precision = config.gain**2  # of a drift scale of 1

    def world_of(setting: Numbers) -> DriftingWorld:
        one = jnp.ones(())
        shaken = jnp.square(setting["share"] * setting["shrink"])
        kept = 1 - setting["shrink"]
        return DriftingWorld(one, precision * one, precision * one, one, kept, shaken)

    def rate_of(setting: Numbers) -> Array:
        return setting["rate"] * jnp.sqrt((1 + setting["share"] ** 2) / precision)

    def running_mean(setting: Numbers) -> optax.GradientTransformation:
        b1: Any = setting["b1"]
        return power_adam(rate_of(setting), power=0.0, b1=b1, b2=0.0)

    def nesterov(setting: Numbers) -> optax.GradientTransformation:
        b1 = setting["b1"]
        return optax.chain(
            optax.trace(b1, nesterov=True), optax.scale(-rate_of(setting) * (1 - b1))
        )

    def filtered(setting: Numbers) -> optax.GradientTransformation:
        return filter_steps(setting["shrink"], setting["share"], precision)

    def tracked(optimizer_of: Any, settings: dict[str, np.ndarray]) -> np.ndarray:
        return tracking_errors(
            key,
            world_of,
            optimizer_of,
            settings,
            num_weights=config.num_weights,
            num_seeds=config.world_seeds,
            num_steps=config.num_steps,
            settling=config.settling,
        ).mean(axis=-1)

    alone: dict[str, Any] = dict(zip(("share", "shrink"), kinds.T, strict=True))
    dims = ("world", "b1", "rate", "seed")
    shape = (len(kinds), len(config.momenta), len(rates), config.world_seeds)
    unit = {"units": "variance of a move"}
    return {
        "share": variable("world", alone["share"], units="1"),
        "shrink": variable("world", alone["shrink"], units="1"),
        "b1": variable("b1", np.array(config.momenta), units="1"),
        "rate": variable("rate", rates, units="1"),
        "running_mean": variable(dims, tracked(running_mean, settings).reshape(shape), **unit),
        "nesterov": variable(dims, tracked(nesterov, settings).reshape(shape), **unit),
        "filter": variable(("world", "seed"), tracked(filtered, alone), **unit),
    }


def _digits(config: Config, seeds: Sequence[int]) -> Group:
    """Losses over optimizer, learning rate and seed."""
    task = make_task(
        "digits-mlp",
        batch_size=config.batch_size,
        dtype="float32",
        subset=config.subset,
        label_noise=config.label_noise,
    )
    rates = np.geomspace(*config.learning_rates)

    def adam(numbers: Numbers) -> optax.GradientTransformation:
        decay, b1 = config.weight_decay / numbers["rate"], numbers["b1"]
        return power_adam(numbers["rate"], power=0.5, b1=b1, weight_decay=decay)  # pyright: ignore[reportArgumentType]

    def filtered(numbers: Numbers) -> optax.GradientTransformation:
        return badam(
            numbers["rate"],
            config.stationary_variance,
            batch_size=config.batch_size,
            velocity_shrink=numbers["shrink"],
            velocity_drift_scale=numbers["moved"] * numbers["rate"],
            weight_decay=config.weight_decay,
        )

    found: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for optimizer_of, names in ((adam, list(NETWORK)[:2]), (filtered, list(NETWORK)[2:])):
        columns = np.repeat([NETWORK[name] for name in names], len(rates), axis=0).T
        settings: dict[str, Any] = dict(zip(("b1", "shrink", "moved"), columns, strict=True))
        settings["rate"] = np.tile(rates, len(names))
        runs = train_many(task, optimizer_of, settings, seeds, config.training_steps)
        for metric in METRICS:
            found[metric].append(runs.final[metric].reshape(len(names), len(rates), -1))
    dims = ("optimizer", "learning_rate", "seed")
    return {
        "optimizer": variable("optimizer", list(NETWORK)),
        "learning_rate": variable("learning_rate", rates, units="weight"),
        **{
            metric: variable(dims, np.concatenate(values), units="nats")
            for metric, values in found.items()
        },
    }


def _in_worlds(worlds: Group) -> list[Verdict]:
    """A random walk, and velocities that carry as far as the drift."""
    verdicts = []
    for row, (share, shrink) in enumerate(worlds_of(worlds)):
        if share == 0:
            found = [
                judged(
                    "Optima that wander: no running mean of gradients lowers the error by a"
                    " hundredth.",
                    over_constant(worlds, "running_mean", row, log=True),
                    low=-_SMALL,
                    tolerance=_LOG,
                )
            ]
        elif share in (1, worlds["share"].values.max()):
            reach = "as far" if share == 1 else f"{share:g} times as far"
            where = f"A velocity of {1 / shrink:g} steps that carries {reach} as the drift"
            found = _with_velocity(worlds, row, where)
        else:
            continue
        if constant_at_edge(worlds, row):
            why = "as the best constant gain is at the edge of its grid"
            found = [not_judged(each, why) for each in found]
        verdicts += found
    return verdicts


def _with_velocity(worlds: Group, row: int, where: str) -> list[Verdict]:
    """Momentum, the filter and Nesterov; the last only where there is something to be had."""
    gap = over_constant(worlds, "filter", row, log=True)
    nesterov = worlds["nesterov"].values[row].reshape(-1, worlds["nesterov"].values.shape[-1])
    both = np.concatenate([worlds["filter"].values[row][None], nesterov])
    over_filter = interval_over_seeds(lambda drawn: lowest(drawn[1:]) - lowest(drawn[:1]), both)
    alike = judged(
        f"{where}: Nesterov's momentum with the best rate and b1 comes within a hundredth of the"
        " velocity filter.",
        over_filter,
        high=_SMALL,
        tolerance=_LOG,
    )
    if alike.holds is False and momentum_at_edge(worlds, "nesterov", row):
        alike = not_judged(alike, "as Nesterov's best is at the edge of its grid")
    if not gap.high < -_SMALL:
        alike = not_judged(alike, "as the filter itself gains no hundredth")
    lowers = judged(
        f"{where}: a running mean of gradients lowers the error by a hundredth.",
        over_constant(worlds, "running_mean", row, log=True),
        high=-_SMALL,
        tolerance=_LOG,
    )
    if lowers.holds is False and momentum_at_edge(worlds, "running_mean", row):
        lowers = not_judged(lowers, "as its best is at the edge of its grid")
    return [
        lowers,
        judged(
            f"{where}: the velocity filter's error is a hundredth below the best constant gain's.",
            gap,
            high=-_SMALL,
            tolerance=_LOG,
        ),
        alike,
    ]


def _on_digits(
    digits: Group, metric: str, first: str, second: str, words: str, **band: Any
) -> Verdict:
    """Log of the second's lowest loss over the first's, each at its best learning rate."""
    names = [str(name) for name in digits["optimizer"].values]
    rows = [digits[metric].values[names.index(name)] for name in (first, second)]
    count = len(rows[0])
    gap = interval_over_seeds(
        lambda drawn: lowest(drawn[count:]) - lowest(drawn[:count]), np.concatenate(rows)
    )
    verdict = judged(
        f"Digits: {words.format(metric=METRICS[metric])}, each at its best rate.",
        gap,
        tolerance=f"{INTERVAL}, of the log ratio of losses",
        **band,
    )
    edges = [
        name
        for name, row in zip((first, second), rows, strict=True)
        if np.argmin(median_over_seeds(row)) in (0, count - 1)
    ]
    if edges:
        return not_judged(verdict, f"as the best of {' and '.join(edges)} is at the grid's edge")
    return verdict
