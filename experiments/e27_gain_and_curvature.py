"""Is the best gain the same for every curvature, and does the drift set the best normaliser?

Claim: optima that wander by q a step, seen through gradients with noise R, are tracked best by the
constant gain sqrt(q/R), whatever the curvature H (P18), until the gain times H is near 1; and if
q goes with the mean-square gradient to the power alpha, the best normaliser is v^-(1-alpha)/2.
Source: derived for this project (checks B1 and B2); for LMS filters known since Eweda (1994).
Refuted by: a best gain that moves with H at small gain, or one that does not fall where sqrt(q/R) H
is 1; a best power that is not (1 - alpha)/2.
The recursion is run and its errors are counted: no formula of the theory is used but for what is
claimed. That worlds are linear and Gaussian is assumed, so a yes is about the derivation (and about
the library's normaliser, whose running mean is noisy and contains the signal), not about networks.
The powers are judged by the geometric mean of the weights' errors, in which no unit of a weight
counts, and by the excess loss, in which loud weights do; each power has its own best rate. The
first steps only fill the running mean, which was changed after alpha = -1 had failed without it: a
first square near zero made a step without bounds.
Cost of PAPER: 2,400 runs of 48 weights, 10 s of CPU time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.rivals import power_adam
from bayesfilt.records import Group, Record, variable
from experiments.contract import INTERVAL, Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.interval_columns import columns
from experiments.panels import Panel, Series, panels_group
from experiments.tracked_worlds import (
    DriftingWorld,
    Numbers,
    crossed,
    log_best,
    random_walk,
    slope_of_best,
    tracking_errors,
)

CLAIM = "The best gain depends on drift and noise and not on curvature."
SETTLES = ("P18", "P19")
CAPTION = (
    "Tracking error against gain for several curvatures (load: curvature times the claimed gain),"
    " the best gain of each, and the best power of the normaliser for laws of drift."
)

SMALL = 0.2  # gain times curvature up to which the law is claimed
_SLOPE = 0.1  # half width; the law of a matched filter, H^-1/2, is five times further away
_POWER = 0.1  # half width; the normalisers with a name are 0.5 apart
_FACTOR = 1.25  # of a learning rate; nobody sweeps in smaller steps


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    drift_scale: float = 0.01  # sqrt(q): the best gain at unit noise; weight
    # Curvatures, by what the claimed gain times them is.
    loads: tuple[float, ...] = (0.0125, 0.05, 0.2, 1.0, 4.0)
    gains: tuple[float, float, int] = (0.1, 4.0, 17)  # over the claimed one
    alphas: tuple[float, ...] = (-1.0, 0.0, 0.5, 1.0)
    powers: tuple[float, ...] = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    rates: tuple[float, float, int] = (0.2, 5.0, 9)  # over the claimed gain of a middling weight
    noise_range: float = 1e3  # of R over the weights, loudest over quietest
    load_range: tuple[float, float] = (0.02, 0.2)  # of the claimed gain times H over the weights
    b2: float = 0.999
    num_weights: int = 48
    num_seeds: int = 7
    num_steps: int = 6_000
    settling: int = 2_000  # steps


PAPER = Config()
QUICK = Config(
    loads=(0.05, 1.0),
    gains=(0.25, 4.0, 5),
    alphas=(0.0, 1.0),
    powers=(-0.25, 0.0, 0.25, 0.5, 0.75),
    rates=(0.25, 4.0, 5),
    num_weights=12,
    num_seeds=2,
    num_steps=400,
    settling=300,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Track worlds that differ in curvature, then worlds that differ in the law of their drift."""
    gain_key, power_key, load_key = jax.random.split(key, 3)
    return Record(
        groups={
            "gain": _gains(config, gain_key),
            "power": _powers(config, power_key, load_key),
        },
        attributes={"config": dataclasses.asdict(config)},
    )


def check(result: Result) -> list[Verdict]:
    """The best gain where it is small, where it is not, and the best powers."""
    gain, power = result.groups["gain"], result.groups["power"]
    errors = gain["error"].values
    verdicts = [*_small(gain), _breaks(gain)]
    for metric, words in METRICS.items():
        verdicts += _exponents(power, metric, words)
    return with_enough_seeds(verdicts, errors.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Errors against gain, best gains against curvature, errors against power, best powers."""
    gain, power = result.groups["gain"], result.groups["power"]
    loads, gains = gain["load"].values, gain["gain"].values
    medians = np.median(gain["error"].values, axis=-1)
    medians = np.where(medians < 1e3 * np.nanmin(medians), medians, np.nan)
    best = [_relative_best(gain, row) for row in range(len(loads))]
    law = np.geomspace(loads[0], loads[-1], 40)
    alphas = power["alpha"].values
    panels = [
        Panel(
            title="error and gain",
            x_label="gain / $\\sqrt{q/R}$",
            y_label="error / lowest error",
            series=[
                Series(f"load {load:g}", gains, row / np.nanmin(row))
                for load, row in zip(loads, medians, strict=True)
            ],
            x_scale="log",
            y_scale="log",
            guide=1.0,
        ),
        Panel(
            title="best gain",
            x_label="load, curvature x $\\sqrt{q/R}$",
            y_label="best gain / $\\sqrt{q/R}$",
            series=[
                Series("measured", loads, *columns(best)),
                Series("exact best gain", law, np.sqrt(1 + law**2 / 4) - law / 2, kind="law"),
            ],
            x_scale="log",
            y_scale="log",
            guide=1.0,
        ),
        Panel(
            title="best power",
            x_label="$\\alpha$ of the drift $q \\propto R^\\alpha$",
            y_label="best power of $v$",
            series=[
                *(
                    Series(words, alphas, *columns(_best_powers(power, metric)))
                    for metric, words in METRICS.items()
                ),
                Series("law (1 - alpha)/2", alphas, (1 - alphas) / 2, kind="law"),
            ],
        ),
    ]
    return panels_figure(panels_group(panels), venue)


METRICS = {"log_error": "mean log error", "log_loss": "log excess loss"}


def _gains(config: Config, key: PRNGKeyArray) -> Group:
    """Errors of constant gains in worlds of equal drift and noise, mean over the weights."""
    gains = np.geomspace(*config.gains)
    settings = crossed(load=config.loads, gain=gains)

    def world_of(setting: Numbers) -> DriftingWorld:
        drift = jnp.asarray(config.drift_scale)
        return random_walk(drift**2, jnp.ones(()), setting["load"] / drift)

    def optimizer_of(setting: Numbers) -> optax.GradientTransformation:
        return optax.sgd(setting["gain"] * config.drift_scale)

    errors = _tracked(config, key, world_of, optimizer_of, settings).mean(axis=-1)
    return {
        "load": variable("load", np.array(config.loads), units="1"),
        "gain": variable("gain", gains, units="sqrt(q/R)"),
        "error": variable(
            ("load", "gain", "seed"), errors.reshape(len(config.loads), len(gains), -1)
        ),
    }


def _powers(config: Config, key: PRNGKeyArray, load_key: PRNGKeyArray) -> Group:
    """Errors of every power and rate, in worlds whose drift follows the loudness by a power."""
    rates = np.geomspace(*config.rates)
    settings = crossed(alpha=config.alphas, power=config.powers, rate=rates)
    half = np.sqrt(config.noise_range)
    noise = jnp.asarray(np.geomspace(1 / half, half, config.num_weights))
    low, high = np.log(config.load_range)
    # Not in the order of the noise, so that curvature and loudness are unrelated.
    load = jnp.exp(jax.random.uniform(load_key, noise.shape, minval=low, maxval=high))

    def world_of(setting: Numbers) -> DriftingWorld:
        drift = config.drift_scale**2 * noise ** setting["alpha"]
        return random_walk(drift, noise, load * jnp.sqrt(noise / drift))

    def optimizer_of(setting: Numbers) -> optax.GradientTransformation:
        # The first steps only fill the running mean: a first square near zero would make a
        # step without bounds.
        def rate(step: Any) -> Any:
            return jnp.where(step < config.settling // 4, 0, setting["rate"] * config.drift_scale)

        return power_adam(rate, power=setting["power"], b1=0.0, b2=config.b2, eps=0.0)

    errors = _tracked(config, key, world_of, optimizer_of, settings)
    curvature = np.stack([
        np.asarray(load * jnp.sqrt(noise ** (1 - alpha)) / config.drift_scale)
        for alpha in config.alphas
    ])  # fmt: skip
    shape = (len(config.alphas), len(config.powers), len(rates), config.num_seeds)
    by_setting = errors.reshape(*shape, -1)
    with np.errstate(invalid="ignore"):
        losses = 0.5 * (curvature[:, None, None, None] * by_setting).sum(axis=-1)
        logs = {"log_error": np.log(by_setting).mean(axis=-1), "log_loss": np.log(losses)}
    dims = ("alpha", "power", "rate", "seed")
    return {
        "alpha": variable("alpha", np.array(config.alphas), units="1"),
        "power": variable("power", np.array(config.powers), units="1"),
        "rate": variable("rate", rates, units="sqrt(q/R)"),
        **{name: variable(dims, values, units="nats") for name, values in logs.items()},
    }


def _tracked(config: Config, key: PRNGKeyArray, world_of, optimizer_of, settings) -> np.ndarray:
    return tracking_errors(
        key,
        world_of,
        optimizer_of,
        settings,
        num_weights=config.num_weights,
        num_seeds=config.num_seeds,
        num_steps=config.num_steps,
        settling=config.settling,
    )


def _relative_best(gain: Group, row: int) -> Interval:
    """The best gain of one curvature over the claimed one, with its interval."""
    return interval_over_seeds(
        lambda drawn: float(np.exp(log_best(drawn, gain["gain"].values)[0])),
        gain["error"].values[row : row + 1],
    )


def _small(gain: Group) -> list[Verdict]:
    """Where gain times curvature is small: one slope for all, and the level of each."""
    loads = gain["load"].values
    small = np.flatnonzero(loads <= SMALL)
    verdicts = []
    if small.size > 1:
        slope = slope_of_best(gain["error"].values[small], gain["gain"].values, loads[small])
        verdicts.append(
            judged(
                "At small gain the best gain does not depend on the curvature (slope of its"
                " logarithm on that of H).",
                slope,
                low=-_SLOPE,
                high=_SLOPE,
                tolerance=f"{INTERVAL}; a gain that follows H as a matched posterior variance"
                " would has slope -0.5",
            )
        )
    return verdicts + [
        judged(
            f"The best gain is sqrt(q/R) where this times the curvature is {loads[row]:g}.",
            _relative_best(gain, int(row)),
            low=1 / _FACTOR,
            high=_FACTOR,
            tolerance=f"{INTERVAL}, in units of sqrt(q/R)",
        )
        for row in small
    ]


def _breaks(gain: Group) -> Verdict:
    """Where it is 1 or more: the best gain has fallen below the claimed one."""
    loads = gain["load"].values
    row = int(np.flatnonzero(loads >= 1)[0])
    return judged(
        f"The rule sqrt(q/R) breaks where it times the curvature is {loads[row]:g}: the best gain"
        " is lower.",
        _relative_best(gain, row),
        high=1 / _FACTOR,
        tolerance=f"{INTERVAL}, in units of sqrt(q/R)",
    )


def _best_powers(power: Group, metric: str) -> list[Interval]:
    """Of each law of drift, the power that errs least at its best rate, with its interval."""
    powers = power["power"].values

    def best(drawn: np.ndarray) -> float:
        """Of logarithms of errors, (powers, rates, seeds), each power at its best rate."""
        medians = np.median(np.where(np.isnan(drawn), np.inf, drawn), axis=-1)
        lowest = np.min(medians, axis=1)
        shifted = np.exp(lowest - np.min(lowest))  # powers may be negative, places may not
        place = log_best(shifted[None, :, None], np.exp(powers))
        return float(place[0])

    return [interval_over_seeds(best, values) for values in power[metric].values]


def _exponents(power: Group, metric: str, words: str) -> list[Verdict]:
    """The best power of every law of drift."""
    found = zip(power["alpha"].values, _best_powers(power, metric), strict=True)
    return [
        judged(
            f"By {words}, the best power of the mean square to divide by is {(1 - alpha) / 2:g}"
            f" where drift goes with its power {alpha:g}.",
            best,
            low=(1 - alpha) / 2 - _POWER,
            high=(1 - alpha) / 2 + _POWER,
        )
        for alpha, best in found
    ]
