"""Is a warm restart a pulse of process noise, to which AdaBayes answers late?

Claim: when the drift scale jumps up, AdaBayes' learning rate relaxes to its new level in
1/(2 eta sqrt h) steps, each weight in its own time; that of the fixed point jumps at once.
Source: the memory (check A10) and the transient (check A7); prediction P38.
Refuted by: other times, or times that do not depend on h; on a network, weights that relax at a
pace that is not that of their own gradients.
Limits: the jump of the fixed point is so by construction. 1/(2 eta sqrt h) is the time of a small
jump, and the last part of a large one: from next to nothing, as at a restart, the rate rises as a
tanh and is within 1/e of its level after 0.745/(eta sqrt h) steps, 1.49 times as many (1.42 times
from a tenth). Both are judged.
On the network h, the mean squared gradient of a bin of weights, falls 20 to 50 times in the window,
as labels are learnt: there is no level to relax to. So the distance is from the moving level of the
fixed point, and the time due is that in which eta sqrt(h), summed over the steps, is what tanh
needs. That was chosen after the answers were seen: with one h a weight, the mean over the window,
800 steps said yes, and 2,000 said no (2.7 times too long, whatever the weight), as the last level
was the slowest's. The bins' times span a factor of three, so that their power is known roughly.
Cost of PAPER: 8,000 fed steps; 7 runs of the MLP of 2,600 steps; half a minute.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import (
    choose_weights,
    chosen_posterior_variance,
    summed_gradient,
)
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import make_task
from bayesfilt.theory import time_constant, transient_variance
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.fed_gradients import learning_rates, normal_gradients
from experiments.grids import seeds_from
from experiments.logarithms import geometric_mean, power_of
from experiments.many_runs import Numbers, train_many
from experiments.panels import Panel, Series, panels_group
from experiments.relaxations import LEFT, RISE, own_times, relaxation_time

CLAIM = "A warm restart is a pulse of process noise, to which AdaBayes answers in 1/(2 eta sqrt h)."
SETTLES = ("P38",)
CAPTION = (
    "First two: learning rate after a tenfold jump of the drift scale, over its new level, for the"
    " loudest and the quietest weight; steps until it is within 1/e of that level. Last two: the"
    " same on digits-mlp after a warm restart, from the moving level, weights in bins of like"
    " precision; and how this precision falls. Laws in grey; ranges over seeds."
)

SMALL, LARGE = "small jump", "large jump"
ADABAYES, FIXED_POINT = "adabayes", "adabayes_fixed_point"
_TIME = 0.15  # of the time constant, gains are up to 0.05
_POWER = 0.05  # the rivals of -1/2 are 0 and -1
_NETWORK_POWER = 0.25  # half of the way to 0, a memory that all weights share
_NETWORK_TIME = 1.5  # factor either way: a rival memory without the 2 would be off by 2


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    drift_scale: float = 1e-3  # after the jump
    jumps: tuple[float, float] = (1.2, 10.0)  # small and large: after over before
    precisions: tuple[float, float, int] = (4.0, 2.5e3, 5)  # gains of 0.002 to 0.05
    settle: int = 6_000  # steps before the jump
    window: int = 2_500  # and after it
    copies: int = 64  # of each weight, averaged
    fed_seeds: int = 8
    network_rate: float = 5e-3
    first_period: int = 600  # steps; then the restart
    next_period: int = 20_000  # of which only the window is run: the drift hardly falls in it
    network_window: int = 2_000
    smoothed: int = 51  # steps over which the precision of a bin is a mean
    per_layer: int = 300
    bins: int = 6
    eta_sgd: float = 1.0
    seeds: int = 7


PAPER = Config()
QUICK = Config(
    precisions=(1e2, 2.5e3, 2), settle=500, window=300, copies=8, fed_seeds=3,
    first_period=20, next_period=200, network_window=40, smoothed=5, per_layer=20, bins=2, seeds=3,
)  # fmt: skip


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Feed both optimizers through a jump; restart a network."""
    fed_key, seeds_key = jax.random.split(key)
    groups = {"fed": _fed(config, fed_key), "network": _network(config, seeds_key)}
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Times of small and large jumps, the fixed point's jump, and a network's times."""
    config, group = result.attributes["config"], result.groups["fed"]
    precision, rate = group["precision"].values, group["learning_rate"].values
    constant = np.asarray(time_constant(jnp.asarray(precision), config["drift_scale"]), float)
    asked: list[tuple[str, Callable[[np.ndarray], float], np.ndarray, float, float]] = [
        (
            "small jump: AdaBayes' learning rate relaxes in 1/(2 eta sqrt h) steps",
            lambda each: geometric_mean(times(each) / constant),
            rate[0, 0],
            1 - _TIME,
            1 + _TIME,
        ),
        (
            "large jump: AdaBayes' learning rate relaxes in 1.42/(2 eta sqrt h) steps, as tanh",
            lambda each: geometric_mean(times(each) / constant),
            rate[0, 1],
            (1 - _TIME) * group["large_time"].values.item(),
            (1 + _TIME) * group["large_time"].values.item(),
        ),
        (
            "large jump: the time goes as the weight's own precision to the power -1/2",
            lambda each: power_of(precision, times(each)),
            rate[0, 1],
            -0.5 - _POWER,
            -0.5 + _POWER,
        ),
        (
            "large jump: the fixed point is at its new level at once",
            lambda each: float(first_share(each).mean()),
            rate[1, 1],
            1 - _POWER,
            1 + _POWER,
        ),
        (
            "large jump: AdaBayes has hardly moved after the first step",
            lambda each: float(first_share(each).max()),
            rate[0, 1],
            -float("inf"),
            0.1,
        ),
    ]
    fed = [
        judged(claim, interval_over_seeds(of, x), low=low, high=high)
        for claim, of, x, low, high in asked
    ]
    return [
        *with_enough_seeds(fed, config["fed_seeds"]),
        *with_enough_seeds(_network_verdicts(result.groups["network"]), config["seeds"]),
    ]


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Courses after the jump, times against precision, times on the network."""
    group, network = result.groups["fed"], result.groups["network"]
    precision, rate = group["precision"].values, group["learning_rate"].values
    courses, found = [], []
    steps = np.unique(np.geomspace(1, rate.shape[2] - 1, 50).astype(int))
    for place, name in enumerate((ADABAYES, FIXED_POINT)):
        for weight in (0, -1):
            level = rate[place, 1, -len(rate[place, 1]) // 4 :, weight].mean()
            values = rate[place, 1][steps, weight] / level
            courses.append(_range(f"{name}, h = {precision[weight]:g}", steps, values))
    for weight in (0, -1):
        law = group["law"].values[steps, weight] / group["law"].values[-1, weight]
        courses.append(Series("closed form", steps, law, kind="law"))
    for jump, name in enumerate((SMALL, LARGE)):
        by_seed = np.stack([times(one[..., None]) for one in np.moveaxis(rate[0, jump], -1, 0)], -1)
        found.append(_range(f"AdaBayes, {name}", precision, by_seed))
    eta = result.attributes["config"]["drift_scale"]
    constant = np.asarray(time_constant(jnp.asarray(precision), eta), float)
    found.append(Series("1/(2 eta sqrt h)", precision, constant, kind="law"))
    predicted, measured = network["predicted"].values, network["measured"].values
    seen = np.isfinite(predicted) & np.isfinite(measured)
    cloud = Series("bins of weights of a run", predicted[seen], measured[seen], kind="points")
    edge = np.sort(predicted[seen])[[0, -1]] if seen.any() else np.array([1.0, 10.0])
    panels = [
        Panel("After the jump", "steps", "rate / new level", courses),
        Panel("Time to relax", "precision h (1/weight²)", "steps to within 1/e", found),
        Panel(
            "On a network", "steps due by eta sqrt(h)", "steps to within 1/e",
            [cloud, Series("equal", edge, edge, kind="law")], x_scale="log", y_scale="log",
        ),
        _precision_panel(network["precision"].values),
    ]  # fmt: skip
    return panels_figure(panels_group(panels), venue)


def times(rate: Float[np.ndarray, "steps precisions seeds"]) -> Float[np.ndarray, " precisions"]:
    """Relaxation times of the mean courses."""
    return np.array([relaxation_time(course) for course in rate.mean(axis=-1).T])


def first_share(rate: Float[np.ndarray, "steps precisions seeds"]) -> np.ndarray:
    """Share of the way that is made at the first step after the jump, by precision."""
    mean = rate.mean(axis=-1)
    level = mean[-len(mean) // 4 :].mean(axis=0)
    return (mean[1] - mean[0]) / (level - mean[0])


def _fed(config: Config, key: PRNGKeyArray) -> Group:
    precision, eta = np.geomspace(*config.precisions), config.drift_scale
    rates = [
        [_course(config, made, jump, jnp.asarray(precision), key) for jump in config.jumps]
        for made in (adabayes, adabayes_fixed_point)
    ]
    steps = jnp.arange(config.window + 1.0)[:, None]
    h = jnp.asarray(precision)
    law = transient_variance(eta / config.jumps[1] / jnp.sqrt(h), steps, h, eta, jnp.inf)
    # In time constants, of the law itself: the start is a tenth and not nothing.
    start = 1 / config.jumps[1]
    large = 2 * (np.arctanh(1 - LEFT * (1 - start)) - np.arctanh(start))
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "learning_rate": variable(
            ("optimizer", "jump", "step", "precision", "seed"), np.array(rates), units="weight²"
        ),
        "law": variable(("step", "precision"), np.asarray(law, float), units="weight²"),
        "large_time": variable((), large, units="1/(2 eta sqrt h)"),
    }


def _course(
    config: Config, made: Callable, jump: float, precision: Float[Array, " precisions"],
    key: PRNGKeyArray,
) -> np.ndarray:  # fmt: skip
    """Learning rates from the last step before the jump on, mean over copies."""

    def drift_scale(step: Array) -> Array:
        return config.drift_scale * jnp.where(step < config.settle, 1 / jump, 1.0)

    optimizer = made(drift_scale, jnp.inf, batch_size=1, b1=0.0, weight_decay=0.0)

    @functools.partial(jax.jit, static_argnames="num_steps")
    def fed(key: PRNGKeyArray, num_steps: int) -> Array:
        shape = (precision.size, config.fed_seeds, config.copies)
        rms = jnp.broadcast_to(jnp.sqrt(precision)[:, None, None], shape)
        rates = learning_rates(optimizer, normal_gradients(key, rms), num_steps)
        return rates[config.settle - 1 :].mean(axis=-1)

    return np.asarray(fed(key, config.settle + config.window), float)


def _network(config: Config, key: PRNGKeyArray) -> Group:
    """AdaBayes through one restart: measured and predicted times of bins of weights, by seed."""
    task = make_task("digits-mlp", batch_size=32, dtype="float32", subset=300, label_noise=0.2)
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    chosen = choose_weights(jax.random.key(0), shapes, per_layer=config.per_layer)
    prior = config.eta_sgd / task.batch_size

    def optimizer_of(numbers: Numbers) -> optax.GradientTransformation:
        factor = optax.join_schedules(
            [optax.cosine_decay_schedule(1.0, steps) for steps in (
                config.first_period, config.next_period)],
            [config.first_period],
        )  # fmt: skip
        return adabayes(
            lambda step: numbers["drift_scale"] * factor(step),
            prior,
            batch_size=task.batch_size,
            weight_decay=0.0,
        )

    runs = train_many(
        task,
        optimizer_of,
        {"drift_scale": np.array([config.network_rate], np.float32)},
        seeds_from(key, config.seeds),
        config.first_period + config.network_window,
        probes={"variance": chosen_posterior_variance(chosen), "gradient": summed_gradient(chosen)},
    )
    variance, gradient = (runs.records[name][0] for name in ("variance", "gradient"))
    after = slice(config.first_period - 1, None)
    binned = [
        binned_times(config, variance[seed, after], gradient[seed, after], prior)
        for seed in range(config.seeds)
    ]
    measured, predicted, precision = (np.stack(each, axis=-1) for each in zip(*binned, strict=True))
    return {
        "measured": variable(("bin", "seed"), measured, units="steps"),
        "predicted": variable(("bin", "seed"), predicted, units="steps"),
        "precision": variable(("bin", "step", "seed"), precision, units="1/weight²"),
    }


def binned_times(
    config: Config,
    variance: Float[np.ndarray, "steps weights"],
    gradient: Float[np.ndarray, "steps weights"],
    prior: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times to within 1/e, measured and due, and precision, of bins of weights of like precision.

    Entry 0 is the last step before the restart. Weights that cannot relax within a third of the
    window, or are near their prior, are left out; NaN where a bin is empty.
    """
    squares = np.asarray(gradient[1:], float) ** 2
    with np.errstate(divide="ignore"):
        due = RISE / (config.network_rate * np.sqrt(squares.mean(axis=0)))
    fit = np.flatnonzero(due < config.network_window / 3)
    parts = np.array_split(fit[np.argsort(due[fit])], config.bins)
    measured, predicted = np.full(config.bins, np.nan), np.full(config.bins, np.nan)
    precision = np.full((config.bins, len(squares) + 1 - config.smoothed), np.nan)
    mean_of = np.full(config.smoothed, 1 / config.smoothed)
    for place, part in enumerate(parts):
        if not part.size:
            continue
        precision[place] = np.convolve(squares[:, part].mean(axis=1), mean_of, "valid")
        measured[place], predicted[place] = own_times(
            variance[:, part].mean(axis=1), precision[place], config.network_rate, prior
        )
    return measured, predicted, precision


def _network_verdicts(group: Group) -> list[Verdict]:
    both = np.stack([group["measured"].values, group["predicted"].values])

    def power(each: np.ndarray) -> float:
        known = np.isfinite(each).all(axis=0)
        return power_of(each[1][known], each[0][known]) if known.sum() > 2 else float("nan")

    def factor(each: np.ndarray) -> float:
        known = np.isfinite(each).all(axis=0)
        return geometric_mean(each[0][known] / each[1][known]) if known.any() else float("nan")

    return [
        judged(
            "digits-mlp: after a restart weights relax in the time of their own gradients",
            interval_over_seeds(factor, both),
            low=1 / _NETWORK_TIME,
            high=_NETWORK_TIME,
            unit="times the steps due",
            tolerance="90 % bootstrap over seeds; without the 2 of 1/(2 eta sqrt h) it would be 2",
        ),
        judged(
            "digits-mlp: that time goes as 1/(eta sqrt h) from bin to bin",
            interval_over_seeds(power, both),
            low=1 - 2 * _NETWORK_POWER,
            high=1 + 2 * _NETWORK_POWER,
            unit="power of the time due",
            tolerance="90 % bootstrap over seeds; half of the way to 0, a memory shared by all",
        ),
    ]


def _precision_panel(precision: Float[np.ndarray, "bins steps seeds"]) -> Panel:
    """Of the loudest and the quietest bin that there is, every twentieth step."""
    steps = np.arange(precision.shape[1])[::20]
    known = np.flatnonzero(np.isfinite(precision).all(axis=(1, 2)))
    shown = {"loudest bin": known[:1], "quietest bin": known[-1:]}
    series = [
        _range(name, steps + 1, precision[place[0], steps])
        for name, place in shown.items()
        if place.size
    ]
    empty = [Series("no bin", steps + 1, np.full(steps.size, np.nan))]
    return Panel(
        "On a network", "steps after the restart", "precision h (1/weight²)", series or empty,
        x_scale="linear", y_scale="log",
    )  # fmt: skip


def _range(name: str, x: np.ndarray, values: Float[np.ndarray, "places seeds"]) -> Series:
    """Mean over seeds between the least and the largest."""
    return Series(name, x, values.mean(axis=-1), low=values.min(axis=-1), high=values.max(axis=-1))
