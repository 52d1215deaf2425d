"""Do gradients that agree in time take weights to 1/wd, and where does that begin?

Claim: a weight whose gradients agree ends at 1/wd under AdamW, not at the prior deviation
sqrt(lr/(2 wd)) of noise; the two are equal where SNR^2 = lr wd/2 (SNR: mean of the gradient over
its deviation). So full-batch AdamW takes the largest weight to 1/wd, at any learning rate.
Source: P33, 2.9 (vi); Xie and Li (2024): full-batch AdamW ends at a KKT point of the least loss
with no weight above 1/wd.
Refuted by: a crossing that is off by more than a quarter in SNR, or does not move as the root of
lr wd; a largest weight of a full-batch run that is not within 10 % of 1/wd, or whose size depends
on lr; the same of minibatches, which the stochastic theory says are noise.
World one is noise with a mean, a layer for each SNR: the control, where the algebra alone is at
stake. World two is the MLP on 100 digits with right labels, which it separates, so that the loss
always asks for larger weights; eps is 1e-30, as gradients of a separated set become tiny, and 1e-8
would end the pull. Rates are constant, and the theorem is about runs that converge: steps of Adam
may exceed lr for a while (b2 remembers longer than b1), and weights 1/wd with them; a no to the
bound says so, and does not contradict the theorem. Weights of pixels that are always 0 are left
out.
Cost of PAPER: 45 runs of the MLP on all data and 45 on minibatches, for 2,500 steps, 20 of noise:
about 45 s of CPU time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks.data import load_digits, take_subset
from bayesfilt.tasks.supervised import supervised_task
from bayesfilt.theory import equilibrium_rms_with_momentum
from experiments.contract import (
    Result,
    Verdict,
    all_of,
    judged,
    margin_of,
    spelled,
    with_enough_seeds,
    within,
)
from experiments.grids import seeds_from
from experiments.layer_sizes import (
    each_over_seeds,
    late,
    layer_probe,
    median_of,
    over_seeds,
    power_law,
)
from experiments.many_runs import train_many
from experiments.noise_worlds import WholeData, noise_world
from experiments.panels import Panel, Series, panels_group

CLAIM = "Gradients that agree take weights to 1/wd; noise wins below SNR^2 = lr wd/2."
SETTLES = ("P33", "P12")
CAPTION = (
    "Size of weights against the signal-to-noise ratio of their gradients, over 1/wd (grey: both"
    " limits together); where mean and noise are equal; and the largest weight of the MLP over"
    " 1/wd, of full batches and of minibatches. Medians over seeds, 90 % bootstrap intervals."
)

NOISE, WHOLE, MINI = "noise with a mean", "all data", "minibatches"
_B1 = 0.9  # Adam's momentum
AXES = ("learning_rate", "weight_decay")
AGREEING, NOISY = (0.0, -1.0), (0.5, -0.5)  # exponents in lr and wd
SLOPE_BAND = 0.125  # a quarter of the way from one law to the other
CROSSING_BAND = 0.25  # of SNR; its steps here are 2 to 3
LEVEL_BAND = 0.10  # of 1/wd
BOTH_BAND = 0.10  # of the size, at any SNR


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    snr: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
    noise_rates: tuple[float, ...] = (2e-3, 2e-2)
    noise_decays: tuple[float, ...] = (0.5, 2.0)  # "lr_scaled"
    noise_weights: int = 256  # of each SNR
    noise_steps: int = 6_000  # the longest memory is 1,000 steps
    rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2)
    decays: tuple[float, ...] = (0.5, 1.0, 2.0)
    num_steps: int = 2_500  # the longest memory is 400 steps
    late: float = 0.8  # share of a run after which sizes are taken
    subset: int = 100  # training examples
    batch_size: int = 16
    eps: float = 1e-30
    record_every: int = 20
    num_seeds: int = 5


PAPER = Config()
QUICK = Config(
    snr=(1e-2, 0.1, 1.0),
    noise_rates=(4e-2,),
    noise_weights=32,
    noise_steps=150,
    rates=(2e-2,),
    decays=(1.0, 2.0),
    num_steps=100,
    subset=50,
    record_every=5,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Noise of every SNR; the MLP on all data, and on minibatches."""
    seeds = seeds_from(key, config.num_seeds)
    subset_key = jax.random.split(jax.random.key(0))[0]  # as `make_task` draws it
    dataset = take_subset(subset_key, load_digits(), config.subset)
    task = supervised_task(dataset, "mlp", batch_size=config.batch_size)
    groups = {NOISE: _noise(config, seeds)}
    for name, world in ((WHOLE, WholeData(task)), (MINI, task)):
        groups[name] = _digits(config, world, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Both limits and the crossing of noise; level and exponents of the network."""
    noise, whole, mini = (result.groups[name] for name in (NOISE, WHOLE, MINI))
    verdicts = [
        _both_limits(noise),
        _crossing(noise),
        _level(whole),
        _bound(whole),
        _exponents("Full batch: the largest weight goes with 1/wd, at any lr.", whole, AGREEING),
        _exponents(
            "Minibatches: the size of weights goes with the root of lr/wd, as of noise.",
            mini,
            NOISY,
            name="rms",
        ),
        _exponents(
            "Minibatches: the size of weights goes with 1/wd at any lr, as of gradients that"
            " agree.",
            mini,
            AGREEING,
            name="rms",
        ),
    ]
    return with_enough_seeds(verdicts, noise["rms"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Sizes by SNR, the crossing, and the largest weights."""
    noise = result.groups[NOISE]
    panels = [_sizes_panel(noise), _crossing_panel(noise)]
    panels += [_largest_panel(name, result.groups[name]) for name in (WHOLE, MINI)]
    return panels_figure(panels_group(panels), venue)


def expected_size(
    snr: np.ndarray, learning_rate: np.ndarray, weight_decay: np.ndarray
) -> np.ndarray:
    """RMS of weights whose gradients have that mean over their deviation.

    Normalised gradients have the mean snr/sqrt(1 + snr^2) and the deviation 1/sqrt(1 + snr^2).
    """
    shrink = jnp.asarray(learning_rate * weight_decay)
    found = equilibrium_rms_with_momentum(jnp.asarray(learning_rate), shrink, _B1)
    of_noise = np.asarray(found, float)
    return np.sqrt((np.square(snr / weight_decay) + np.square(of_noise)) / (1 + np.square(snr)))


def expected_crossing(learning_rate: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
    """SNR at which mean and deviation of the weights are equal, sqrt(lr wd/2)."""
    return np.sqrt(learning_rate * weight_decay / 2)


def crossing(snr: Float[np.ndarray, " layers"], ratio: Float[np.ndarray, " layers"]) -> float:
    """SNR at which |mean|/deviation of the weights is 1, between the two SNRs around it.

    A line over logarithms. NaN where it does not rise through 1, or from its noise.
    """
    above = np.flatnonzero(ratio >= 1)
    if not above.size or above[0] == 0:
        return float("nan")
    first = int(above[0])
    low, high = np.log(ratio[first - 1 : first + 1])
    share = -low / (high - low)
    steps = np.log(snr[first - 1 : first + 1])
    return float(np.exp(steps @ np.array([1 - share, share])))


def _adamw(config: Config, numbers: Any) -> optax.GradientTransformation:
    return optax.adamw(
        numbers["learning_rate"], b1=_B1, weight_decay=numbers["weight_decay"], eps=config.eps
    )


def _cells(rates: tuple[float, ...], decays: tuple[float, ...]) -> dict[str, np.ndarray]:
    cells = np.array([(rate, decay) for rate in rates for decay in decays])
    return dict(zip(AXES, cells.T, strict=True))


def _sizes(
    config: Config, task: Any, cells: dict[str, np.ndarray], seeds: tuple[int, ...], steps: int
) -> dict[str, np.ndarray]:
    """Late numbers of every layer, (cells, layers, seeds)."""
    runs = train_many(
        task,
        lambda numbers: _adamw(config, numbers),
        cells,
        seeds,
        steps,
        probes={"layers": layer_probe(task)},
        record_every=config.record_every,
        final=lambda task, params: {},
    )
    begin = int(config.late * steps)
    return {name: late(runs, name, begin) for name in ("rms", "mean", "largest")}


def _noise(config: Config, seeds: tuple[int, ...]) -> Group:
    world = noise_world(
        noise=(1.0,) * len(config.snr), signal=config.snr, width=config.noise_weights
    )
    cells = _cells(config.noise_rates, config.noise_decays)
    found = _sizes(config, world, cells, seeds, config.noise_steps)
    place = ("cell", "layer", "seed")
    square = np.square(found["rms"]) - np.square(found["mean"])
    return {
        **{name: variable("cell", values, units="1") for name, values in cells.items()},
        "snr": variable("layer", np.array(config.snr), units="1"),
        "rms": variable(place, found["rms"], units="weight"),
        "mean": variable(place, found["mean"], units="weight"),
        "deviation": variable(place, np.sqrt(np.maximum(square, 0)), units="weight"),
    }


def _digits(config: Config, task: Any, seeds: tuple[int, ...]) -> Group:
    cells = _cells(config.rates, config.decays)
    found = _sizes(config, task, cells, seeds, config.num_steps)
    rms = np.sqrt(np.mean(np.square(found["rms"]), axis=1))
    return {
        **{name: variable("cell", values, units="1") for name, values in cells.items()},
        "largest": variable(("cell", "seed"), found["largest"].max(axis=1), units="weight"),
        "rms": variable(("cell", "seed"), rms, units="weight"),
    }


def _limits(group: Group) -> Float[np.ndarray, "cells layers"]:
    rate, decay = (group[name].values[:, None] for name in AXES)
    return expected_size(group["snr"].values[None], rate, decay)


def _both_limits(group: Group) -> Verdict:
    expected = _limits(group)

    def worst(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(median_of(drawn) / expected - 1)))

    return judged(
        "Noise with a mean: the size of weights is that of noise and that of 1/wd together, at any"
        " SNR.",
        over_seeds(worst, group["rms"].values),
        high=BOTH_BAND,
        tolerance="the SNR and setting that are furthest off, as a fraction; the noise of Adam's"
        " mean square is left out; 90 % bootstrap over seeds",
    )


def crossings(group: Group, mean: np.ndarray, deviation: np.ndarray) -> Float[np.ndarray, " cells"]:
    """Crossing of every setting, of medians over seeds."""
    ratio = median_of(mean) / median_of(deviation)
    return np.array([crossing(group["snr"].values, row) for row in ratio])


def _crossing(group: Group) -> Verdict:
    law = expected_crossing(*(group[name].values for name in AXES))

    def off(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(crossings(group, *drawn) / law - 1)))

    found = over_seeds(off, np.stack([group["mean"].values, group["deviation"].values]))
    each = crossings(group, group["mean"].values, group["deviation"].values)
    verdict = judged(
        "Noise with a mean: signal and noise are equal where SNR^2 = lr wd/2.",
        found,
        high=CROSSING_BAND,
        tolerance="the setting whose crossing is furthest off, as a fraction of SNR; 90 % bootstrap"
        " over seeds",
    )
    said = ", ".join(f"{seen:.2g} for {law:.2g}" for seen, law in zip(each, law, strict=True))
    return verdict._replace(measured=f"{verdict.measured}; crossings {said}")


def _level(group: Group) -> Verdict:
    decay = group["weight_decay"].values

    def furthest(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(median_of(drawn) * decay - 1)))

    noise = np.sqrt(group["learning_rate"].values * decay / 2)
    return judged(
        "Full batch: the largest weight ends at 1/wd.",
        over_seeds(furthest, group["largest"].values),
        high=LEVEL_BAND,
        tolerance="the setting that is furthest off, as a fraction; the prior deviation would be"
        f" {noise.min():.2g} to {noise.max():.2g} of 1/wd; 90 % bootstrap over seeds",
    )


def _bound(group: Group) -> Verdict:
    """The constraint itself: it holds whether or not a weight reaches it."""
    decay = group["weight_decay"].values
    return judged(
        "Full batch: no weight ends above 1/wd.",
        over_seeds(lambda drawn: float(np.max(median_of(drawn) * decay)), group["largest"].values),
        high=1 + 0.1 * LEVEL_BAND,
        tolerance="largest weight over 1/wd, of all settings; a hundredth for what is still"
        " decaying; 90 % bootstrap over seeds",
    )


def _exponents(
    claim: str, group: Group, law: tuple[float, float], *, name: str = "largest"
) -> Verdict:
    axes = {axis: group[axis].values for axis in AXES if len(np.unique(group[axis].values)) > 1}
    found = [
        over_seeds(
            lambda drawn, axis=axis: power_law(median_of(drawn), axes).get(axis, float("nan")),
            group[name].values,
        )
        for axis in AXES
    ]
    bands = [(exponent - SLOPE_BAND, exponent + SLOPE_BAND) for exponent in law]
    return Verdict(
        claim=claim,
        measured=f"exponents {spelled(found[0])} of the learning rate, {spelled(found[1])} of the"
        " decay",
        expected=f"{law[0]:g} and {law[1]:g}",
        tolerance=f"within {SLOPE_BAND:g} of both, a quarter of the way to the other law; 90 %"
        " bootstrap over paired seeds",
        holds=all_of(*(within(each, *band) for each, band in zip(found, bands, strict=True))),
        margin=min(margin_of(each, *band) for each, band in zip(found, bands, strict=True)),
    )


def _name(group: Group, cell: int) -> str:
    return f"lr {group[AXES[0]].values[cell]:g}, wd {group[AXES[1]].values[cell]:g}"


def _sizes_panel(group: Group) -> Panel:
    """Sizes over 1/wd by SNR, of the fastest and the slowest decay, with the law of each."""
    snr, expected = group["snr"].values, _limits(group)
    product = group[AXES[0]].values * group[AXES[1]].values
    series = []
    for cell in dict.fromkeys((int(np.argmin(product)), int(np.argmax(product)))):
        decay = group["weight_decay"].values[cell]
        middle, low, high = (part * decay for part in each_over_seeds(group["rms"].values[cell]))
        series.append(Series(_name(group, cell), snr, middle, low, high, "points"))
        series.append(Series("both together", snr, expected[cell] * decay, kind="law"))
    return Panel(NOISE, "SNR of the gradient", "rms of weights x wd", series, "log", "log")


def _crossing_panel(group: Group) -> Panel:
    law = expected_crossing(*(group[name].values for name in AXES))
    rows = [
        over_seeds(
            lambda drawn, cell=cell: float(crossings(group, *drawn)[cell]),
            np.stack([group["mean"].values, group["deviation"].values]),
        )
        for cell in range(len(law))
    ]
    middle, low, high = np.array(rows).T
    ends = np.array([law.min(), law.max()])
    return Panel(
        "Mean and noise are equal",
        "sqrt(lr wd/2)",
        "SNR at the crossing",
        [
            Series("crossing", law, middle, low, high, "points"),
            Series("as predicted", ends, ends, kind="law"),
        ],
        "log",
        "log",
    )


def _largest_panel(world: str, group: Group) -> Panel:
    """Largest weight over 1/wd by learning rate, a line a decay; what noise alone would give."""
    series = []
    for decay in np.unique(group["weight_decay"].values):
        here = group["weight_decay"].values == decay
        bars = (part * decay for part in each_over_seeds(group["largest"].values[here]))
        series.append(Series(f"wd {decay:g}", group[AXES[0]].values[here], *bars))
    return Panel(
        f"MLP, {world}",
        "learning rate",
        "largest weight x wd",
        series,
        "log",
        "linear",
        guide=1.0,
    )
