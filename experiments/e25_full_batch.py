"""Do gradients that agree in time take weights to 1/wd, and where does that begin?

Claim: a weight whose gradients agree ends at 1/wd under AdamW, not at the prior deviation
sqrt(lr/(2 wd)) of noise; the two are equal where SNR^2 = lr wd/2 (SNR: mean of the gradient over
its deviation). So full-batch AdamW takes the largest weight to 1/wd, at any learning rate.
Source: P33, check C5; Xie and Li (2024): full-batch AdamW, if it converges under rates that
fall but have an endless sum, ends at a KKT point of the least loss with no weight above 1/wd.
Refuted by: a crossing that is off by more than a quarter in SNR, or does not move as the root of
lr wd; with a rate that falls to 0, a largest weight that is not within 10 % of 1/wd, whose size
depends on lr, or a gradient that does not stand against every weight at that border (KKT); sizes of
minibatches that do not go as those of noise, which the stochastic theory says they are.
World one is noise with a mean, a layer for each SNR: the control, where the algebra alone is at
stake. World two is the MLP on 100 digits with right labels; eps is 1e-30, as gradients of a
separated set become tiny, and 1e-8 would end the pull. At constant rates weights were seen above
1/wd: steps of Adam may exceed lr for a while (b2 remembers longer than b1). That stands as verdicts
of its own, and is not against the theorem, which is about runs that converge. It is judged where
rate and decay fall as the square of what is left of the run, over eight memories 1/(lr wd) or more.
These runs were added after the others were seen. They have larger decays, as with 0.5 to 2 and b2
0.999 the loss still fell when the run ended, and b2 0.99, as a theorem about endless runs holds for
any b2 but 0.999 forgets too slowly for this length. Weights of pixels that are always 0 are left
out.
Cost of PAPER: 90 runs of the MLP on all data and 45 on minibatches, for 6,000 steps, 20 of noise:
about 55 s of CPU time.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare.layers import flat
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks import Task
from bayesfilt.tasks.data import load_digits, take_subset
from bayesfilt.tasks.supervised import supervised_task
from experiments.contract import INTERVAL, Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.interval_columns import medians
from experiments.layer_sizes import late, layer_probe, median_of
from experiments.many_runs import ManyRuns, train_many
from experiments.noise_with_a_mean import (
    B1,
    both_limits,
    crossing_panel,
    crossing_verdict,
    sizes_panel,
)
from experiments.noise_worlds import WholeData, noise_world
from experiments.panels import Panel, Series, panels_group
from experiments.size_laws import AGREEING, AXES, NOISY, size_goes_as

CLAIM = "Gradients that agree take weights to 1/wd; noise wins below SNR^2 = lr wd/2."
SETTLES = ("P33", "P12")
CAPTION = (
    "Size of weights against the signal-to-noise ratio of their gradients, over 1/wd (grey: both"
    " limits together); where mean and noise are equal; and the largest weight of the MLP over"
    " 1/wd: all data with a rate that falls to 0, all data and minibatches at constant rates."
    " Medians over seeds, 90 % bootstrap intervals."
)

NOISE = "noise with a mean"
FALLING, WHOLE, MINI = "all data, falling rate", "all data", "minibatches"
LEVEL_BAND = 0.10  # of 1/wd
PULL_BAND = 0.05  # of the same: a mean over all gradients, where the level is one weight's
EPS = 1e-30


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    snr: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
    noise_rates: tuple[float, ...] = (2e-3, 2e-2)
    noise_decays: tuple[float, ...] = (0.5, 2.0)  # "lr_scaled"
    noise_weights: int = 256  # of each SNR
    noise_steps: int = 6_000  # the longest memory is 1,000 steps
    rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2)  # constant ones
    decays: tuple[float, ...] = (0.5, 1.0, 2.0)
    falling_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)  # the first ones
    falling_decays: tuple[float, ...] = (6.0, 12.0, 24.0)  # so large that the loss stays finite
    b2: float = 0.999
    falling_b2: float = 0.99
    num_steps: int = 6_000  # the longest memory is 400 steps, of falling rates 167
    late: float = 0.8  # share of a run after which sizes are taken
    last: float = 0.98  # the same, where rates fall
    subset: int = 100  # training examples
    batch_size: int = 16
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
    falling_rates=(2e-2,),
    falling_decays=(6.0, 12.0),
    num_steps=100,
    last=0.9,
    subset=50,
    record_every=5,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Noise of every SNR; the MLP on all data with both rates, and on minibatches."""
    seeds = seeds_from(key, config.num_seeds)
    subset_key = jax.random.split(jax.random.key(0))[0]  # as `make_task` draws it
    dataset = take_subset(subset_key, load_digits(), config.subset)
    task = supervised_task(dataset, "mlp", batch_size=config.batch_size)
    constant = _cells(config.rates, config.decays, b2=config.b2)
    falling = _cells(config.falling_rates, config.falling_decays, b2=config.falling_b2, falls=1.0)
    every = {name: np.concatenate([constant[name], falling[name]]) for name in constant}
    whole = _trained(config, WholeData(task), every, seeds, config.num_steps)
    mini = _trained(config, task, constant, seeds, config.num_steps)
    begin, last = (int(share * config.num_steps) for share in (config.late, config.last))
    count = len(constant["learning_rate"])
    groups = {
        NOISE: _noise(config, seeds),
        FALLING: _digits(falling, whole, last, slice(count, None)),
        WHOLE: _digits(constant, whole, begin, slice(count)),
        MINI: _digits(constant, mini, begin, slice(None)),
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Both limits and the crossing of noise; level and exponents of the network."""
    noise, falling, whole, mini = (result.groups[name] for name in (NOISE, FALLING, WHOLE, MINI))
    annealed, constant = "Full batch, rate falling to 0", "Full batch at a constant rate"
    verdicts = [both_limits(noise), crossing_verdict(noise)]
    verdicts += [
        _level(annealed, falling),
        _pull(annealed, falling),
        _goes_as_limit(annealed, falling),
    ]
    verdicts += [_level(constant, whole), _bound(constant, whole), _goes_as_limit(constant, whole)]
    rms = mini["rms"].values
    verdicts += [
        size_goes_as(
            "Minibatches: the size of weights goes with the root of lr/wd, as of noise.",
            mini,
            rms,
            NOISY,
        ),
        size_goes_as(
            "Minibatches: the size of weights goes with 1/wd at any lr, as of gradients that"
            " agree.",
            mini,
            rms,
            AGREEING,
        ),
    ]
    return with_enough_seeds(verdicts, noise["rms"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Sizes by SNR, the crossing, and the largest weights."""
    noise = result.groups[NOISE]
    panels = [sizes_panel(noise), crossing_panel(noise)]
    panels += [_largest_panel(name, result.groups[name]) for name in (FALLING, WHOLE, MINI)]
    return panels_figure(panels_group(panels), venue)


def _adamw(numbers: Any, num_steps: int) -> optax.GradientTransformation:
    """Decay is a factor on the rate, so that both fall together."""

    def rate(step: Any) -> Any:
        left = 1 - jnp.asarray(step) / num_steps
        return numbers["learning_rate"] * jnp.where(numbers["falls"] > 0, left**2, 1.0)

    return optax.adamw(rate, b1=B1, b2=numbers["b2"], weight_decay=numbers["weight_decay"], eps=EPS)


def _cells(
    rates: tuple[float, ...], decays: tuple[float, ...], *, b2: float, falls: float = 0.0
) -> dict[str, np.ndarray]:
    cells = np.array([(rate, decay, b2, falls) for rate in rates for decay in decays])
    return dict(zip((*AXES, "b2", "falls"), cells.T, strict=True))


def pull(task: Task, view: StepView) -> Float[Array, ""]:
    """How far the gradient stands against the weights: -<w, g> over the sum of |g|.

    Where no weight is above a limit, it is that limit if each gradient that is not 0 pushes a
    weight at the limit outwards, as the KKT conditions have it, and less otherwise.
    """
    del task
    weight, gradient = flat(view.params), flat(view.gradient)
    return -jnp.vdot(weight, gradient) / jnp.sum(jnp.abs(gradient))


def _trained(
    config: Config, task: Any, cells: dict[str, np.ndarray], seeds: tuple[int, ...], steps: int
) -> ManyRuns:
    """Every cell from every seed, with the sizes of its layers."""
    return train_many(
        task,
        lambda numbers: _adamw(numbers, steps),
        cells,
        seeds,
        steps,
        probes={"layers": layer_probe(task), "pull": pull},
        record_every=config.record_every,
        final=lambda task, params: {},
    )


def _noise(config: Config, seeds: tuple[int, ...]) -> Group:
    world = noise_world(
        noise=(1.0,) * len(config.snr), signal=config.snr, width=config.noise_weights
    )
    cells = _cells(config.noise_rates, config.noise_decays, b2=config.b2)
    runs = _trained(config, world, cells, seeds, config.noise_steps)
    begin = int(config.late * config.noise_steps)
    rms, mean = (late(runs, name, begin) for name in ("rms", "mean"))
    place = ("cell", "layer", "seed")
    deviation = np.sqrt(np.maximum(np.square(rms) - np.square(mean), 0))
    return {
        **{name: variable("cell", values, units="1") for name, values in cells.items()},
        "snr": variable("layer", np.array(config.snr), units="1"),
        "rms": variable(place, rms, units="weight"),
        "mean": variable(place, mean, units="weight"),
        "deviation": variable(place, deviation, units="weight"),
    }


def _digits(cells: dict[str, np.ndarray], runs: ManyRuns, begin: int, which: slice) -> Group:
    """Late sizes of some of the runs: of the largest weight, and of the network as a whole."""
    largest = late(runs, "largest", begin)[which].max(axis=1)
    rms = np.sqrt(np.mean(np.square(late(runs, "rms", begin)[which]), axis=1))
    middle = late(runs, "largest", 0.45 * runs.step[-1], 0.55 * runs.step[-1])[which].max(axis=1)
    pulled = runs.records["pull"][which][:, :, runs.step >= begin].mean(axis=-1)
    sizes = {"largest": largest, "largest_halfway": middle, "rms": rms, "pull": pulled}
    return {
        **{name: variable("cell", values, units="1") for name, values in cells.items()},
        **{
            name: variable(("cell", "seed"), values, units="weight")
            for name, values in sizes.items()
        },
    }


def _furthest_from_limit(group: Group) -> Callable[[np.ndarray], float]:
    """Of numbers by cell and seed: how far that of some cell is from 1/wd, as a fraction."""
    decay = group["weight_decay"].values
    return lambda drawn: float(np.max(np.abs(median_of(drawn) * decay - 1)))


def _level(where: str, group: Group) -> Verdict:
    decay, off = group["weight_decay"].values, _furthest_from_limit(group)
    noise = np.sqrt(group["learning_rate"].values * decay / 2)
    halfway = off(group["largest_halfway"].values)
    return judged(
        f"{where}: the largest weight ends at 1/wd.",
        interval_over_seeds(off, group["largest"].values),
        high=LEVEL_BAND,
        unit=f"({halfway:.2g} halfway)",
        tolerance="the setting that is furthest off, as a fraction; the prior deviation would be"
        f" {noise.min():.2g} to {noise.max():.2g} of 1/wd; 90 % bootstrap over seeds",
    )


def _pull(where: str, group: Group) -> Verdict:
    return judged(
        f"{where}: gradients push outwards only where weights are at 1/wd (KKT).",
        interval_over_seeds(_furthest_from_limit(group), group["pull"].values),
        high=PULL_BAND,
        tolerance="-wd <w, g> over the sum of |g|, its distance from 1 in the setting that is"
        f" furthest off; {INTERVAL}",
    )


def _goes_as_limit(where: str, group: Group) -> Verdict:
    claim = f"{where}: the largest weight goes with 1/wd, at any lr."
    return size_goes_as(claim, group, group["largest"].values, AGREEING)


def _bound(where: str, group: Group) -> Verdict:
    """The constraint itself: it holds whether or not a weight reaches it."""
    decay = group["weight_decay"].values

    def largest(drawn: np.ndarray) -> float:
        return float(np.max(median_of(drawn) * decay))

    return judged(
        f"{where}: no weight ends above 1/wd.",
        interval_over_seeds(largest, group["largest"].values),
        high=1 + 0.1 * LEVEL_BAND,
        tolerance="largest weight over 1/wd, of all settings; a hundredth for what is still"
        " decaying; 90 % bootstrap over seeds",
    )


def _largest_panel(world: str, group: Group) -> Panel:
    """Largest weight over 1/wd by learning rate, a line a decay; what noise alone would give."""
    series = []
    for decay in np.unique(group["weight_decay"].values):
        here = group["weight_decay"].values == decay
        bars = (part * decay for part in medians(group["largest"].values[here]))
        series.append(Series(f"wd {decay:g}", group[AXES[0]].values[here], *bars))
    label = "first learning rate" if world == FALLING else "learning rate"
    return Panel(f"MLP, {world}", label, "largest weight x wd", series, "log", "linear", guide=1.0)
