"""Do weights settle at the size of the filter's prior, sqrt(lr/(2 wd))?

Claim: under AdamW the root mean square of the weights becomes sqrt(lr/(2 wd)), the prior deviation
of the filter whose transition is that decay, whatever b1 and b2; of pure noise exactly.
Source: P12, P13, checks C1 and C2; Kosson et al. (2023) for normalised layers; the exact size
with momentum is that of an AR(2) process (`theory.equilibrium_rms_with_momentum`).
Refuted by: a size off by more than 4 % of pure noise, by more than 10 % in any cell of a network;
exponents of the learning rate and the decay that are not 1/2 and -1/2. The rival is 1/wd, exponents
0 and -1, which gradients that agree in time would give: it is judged as well.
Pure noise is a control: there the law can only fail if optax or the algebra is wrong. The level was
judged by the median cell at first, and by the one furthest off, which is stricter, after a first
run. Theory leaves layers in front of a loss that sees their length open; they are judged all the
same. The memories b1 and b2 are swept where 1/(1 - b1) is much shorter than 1/(lr wd), where the
law says they do not matter; the AR(2) formula is judged outside of that, too. Weights of pixels
that are always 0 are left out: they have no gradient, and decay to 0.
Cost of PAPER: 168 runs of two networks for 4,800 steps and 98 of noise: about 55 s of CPU time.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks.named import make_task
from bayesfilt.theory import equilibrium_rms_with_momentum
from experiments.contract import (
    Result,
    Verdict,
    all_of,
    below,
    judged,
    margin_of,
    margin_of_all,
    spelled,
    with_enough_seeds,
    within,
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.interval_columns import medians
from experiments.layer_sizes import (
    late,
    layer_names,
    layer_probe,
    median_of,
)
from experiments.many_runs import train_many
from experiments.noise_worlds import noise_world
from experiments.panels import Panel, Series, panels_group
from experiments.size_laws import AGREEING, AXES, NOISY, size_goes_as

CLAIM = "Weights settle at the filter's prior deviation, sqrt(lr/(2 wd)), whatever b1 and b2."
SETTLES = ("P12", "P13")
CAPTION = (
    "Size of the weights late in training against sqrt(lr/(2 wd)), of pure noise and by layer of"
    " two networks (line: the law); last, at one setting, for several memories of Adam, over the"
    " size at its defaults. Medians over seeds; bars: 90 % bootstrap intervals."
)

NOISE = "pure noise"
DEFAULT = (0.9, 0.999)  # b1, b2
NOISE_BAND = 0.04  # P13: "holds to 4 % for pure noise"
EXACT_BAND = 0.02  # of a formula that is exact; the runs measure to about 1 %
NETWORK_BAND = 0.10  # grids of decays have steps of 2: a size to 10 % is 20 % in lr/wd


_TITLES = {
    NOISE: "Pure noise",
    "digits-mlp": "Plain network",
    "digits-layernorm": "Normalised network",
}
_LAYERS = {
    ("digits-mlp", "dense_0"): "Plain network, first layer",
    ("digits-mlp", "dense_1"): "Plain network, last layer",
    ("digits-layernorm", "dense_0"): "Normalised network, first layer",
    ("digits-layernorm", "dense_1"): "Normalised network, last layer",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    tasks: tuple[str, ...] = ("digits-mlp", "digits-layernorm")
    rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2)
    decays: tuple[float, ...] = (0.5, 1.0, 2.0)  # "lr_scaled"
    betas: tuple[tuple[float, float], ...] = ((0.0, 0.999), (0.9, 0.99), (0.9, 0.95))
    # (lr, wd, b1): decay so fast that momentum is felt; of pure noise only
    felt: tuple[tuple[float, float, float], ...] = ((0.05, 1.0, 0.9), (5e-3, 1.0, 0.98))
    noise_weights: int = 1_024
    subset: int = 300  # training examples
    label_noise: float = 0.2  # fraction of their labels made wrong
    batch_size: int = 32
    num_steps: int = 4_800  # the longest memory 1/(lr wd) is 800 steps
    begin: int = 3_200  # of what counts as late
    record_every: int = 20
    num_seeds: int = 7


PAPER = Config()
QUICK = Config(
    tasks=("digits-layernorm",),
    rates=(2e-2, 8e-2),
    decays=(0.25, 1.0),
    betas=((0.0, 0.999),),
    felt=((0.2, 1.0, 0.9),),
    noise_weights=64,
    num_steps=120,
    begin=60,
    record_every=10,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train every world at every setting, and keep the late sizes."""
    seeds = seeds_from(key, config.num_seeds)
    groups = {NOISE: _sizes(config, noise_world(width=config.noise_weights), seeds, config.felt)}
    for name in config.tasks:
        task = make_task(
            name,
            batch_size=config.batch_size,
            subset=config.subset,
            label_noise=config.label_noise,
        )
        groups[name] = _sizes(config, task, seeds, ())
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Level, exponents and memories: of noise, then of every layer."""
    noise = result.groups[NOISE]
    verdicts = [_noise_level(noise), _noise_memories(noise), _exact(noise)]
    for world, layer, where in _layers(result):
        verdicts += _of_layer(where, result.groups[world], layer)
    return with_enough_seeds(verdicts, noise["rms"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Measured against predicted, a panel a world; sizes by memory."""
    panels = []
    for world, title in _TITLES.items():
        shown = [(index, words) for seen, index, words in _shown(result) if seen == world]
        if not shown:
            continue
        group = result.groups[world]
        plain = _grid(group)
        expected = _prior(group)[plain]
        series = [
            Series(words, expected, *medians(group["rms"].values[plain, index]), "points")
            for index, words in shown
        ]
        line = np.array([expected.min(), expected.max()])
        series.append(Series("sqrt(lr/(2 wd))", line, line, kind="law"))
        panels.append(Panel(title, "sqrt(lr/(2 wd))", "rms of weights", series, "log", "log"))
    return panels_figure(panels_group([*panels, _memory_panel(result)]), venue)


def _sizes(config: Config, task: Any, seeds: tuple[int, ...], felt: Any) -> Group:
    """Late sizes of one world."""
    cells = [(rate, decay, *DEFAULT) for rate in config.rates for decay in config.decays]
    middle = (config.rates[len(config.rates) // 2], config.decays[len(config.decays) // 2])
    cells += [(*middle, *betas) for betas in config.betas]
    cells += [(rate, decay, b1, 0.999) for rate, decay, b1 in felt]
    names = ("learning_rate", "weight_decay", "b1", "b2")
    settings: dict[str, np.ndarray] = dict(zip(names, np.array(cells).T, strict=True))
    runs = train_many(
        task,
        _adamw,
        settings,
        seeds,
        config.num_steps,
        probes={"layers": layer_probe(task)},
        record_every=config.record_every,
    )
    place = ("cell", "layer", "seed")
    kinds = ["grid"] * (len(config.rates) * len(config.decays))
    kinds += ["memory"] * len(config.betas) + ["felt"] * len(felt)
    accuracy = runs.final.get("test_accuracy", np.full(runs.diverged.shape, np.nan))
    return {
        **{name: variable("cell", values, units="1") for name, values in settings.items()},
        "kind": variable("cell", kinds),
        "middle": variable("cell", [float(cell[:2] == middle) for cell in cells], units="1"),
        "layer": variable("layer", list(layer_names(task))),
        "rms": variable(place, late(runs, "rms", config.begin), units="weight"),
        "update": variable(place, late(runs, "update", config.begin), units="weight"),
        "test_accuracy": variable(("cell", "seed"), accuracy, units="1"),
    }


def _adamw(numbers: Any) -> optax.GradientTransformation:
    return optax.adamw(
        numbers["learning_rate"],
        b1=numbers["b1"],
        b2=numbers["b2"],
        weight_decay=numbers["weight_decay"],
    )


def _shrink(group: Group) -> Float[np.ndarray, " cells"]:
    return group["learning_rate"].values * group["weight_decay"].values


def _prior(group: Group) -> Float[np.ndarray, " cells"]:
    """The filter's prior deviation, to first order as P12 has it."""
    return np.sqrt(group["learning_rate"].values / (2 * group["weight_decay"].values))


def _exact_size(group: Group) -> Float[np.ndarray, " cells"]:
    numbers = (group["learning_rate"].values, _shrink(group), group["b1"].values)
    return np.asarray(equilibrium_rms_with_momentum(*map(jnp.asarray, numbers)), float)


def _grid(group: Group) -> np.ndarray:
    return np.asarray(group["kind"].values) == "grid"


def _by_memory(group: Group) -> np.ndarray:
    """Cells of the middle setting: the default memories, then the others."""
    return (group["middle"].values == 1) & (np.asarray(group["kind"].values) != "felt")


def _worst(values: Float[np.ndarray, "cells seeds"], expected: np.ndarray) -> float:
    """Largest distance of a cell's median from what is expected, as a fraction; NaN of none."""
    if not len(expected):
        return float("nan")
    return float(np.max(np.abs(median_of(values) / expected - 1)))


def _spread(values: Float[np.ndarray, "cells seeds"]) -> float:
    """Largest distance of a cell from the first, as a fraction, seed by seed."""
    return float(np.max(np.abs(median_of(values / values[:1]) - 1)))


def _noise_level(group: Group) -> Verdict:
    # P13's 4 % are for decay that is slow over the memory of momentum.
    slow = _grid(group) & (_shrink(group) <= 0.05 * (1 - group["b1"].values))
    found = interval_over_seeds(
        functools.partial(_worst, expected=_prior(group)[slow]), group["rms"].values[slow, 0]
    )
    return judged(
        "Of pure noise, where 1/(lr wd) is at least 200 steps, weights settle at sqrt(lr/(2 wd)).",
        found,
        high=NOISE_BAND,
        tolerance="the cell that is furthest off, as a fraction; 90 % bootstrap over seeds",
    )


def _noise_memories(group: Group) -> Verdict:
    found = interval_over_seeds(_spread, group["rms"].values[_by_memory(group), 0])
    return judged(
        "Of pure noise, the size does not depend on b1 and b2.",
        found,
        high=NOISE_BAND,
        tolerance="the memory that is furthest from the default, as a fraction; 90 % bootstrap",
    )


def _exact(group: Group) -> Verdict:
    """The AR(2) size everywhere, and that the plain one fails where momentum is felt."""
    slow_mean_square = group["b2"].values >= DEFAULT[1]
    felt = np.asarray(group["kind"].values) == "felt"
    rms = group["rms"].values[:, 0]
    off, plain = (
        interval_over_seeds(functools.partial(_worst, expected=expected[cells]), rms[cells])
        for expected, cells in ((_exact_size(group), slow_mean_square), (_prior(group), felt))
    )
    parts = (below(off, EXACT_BAND), within(plain, NOISE_BAND, np.inf))
    margins = (margin_of(off, -np.inf, EXACT_BAND), margin_of(plain, NOISE_BAND, np.inf))
    return Verdict(
        claim="Of pure noise, the AR(2) formula gives the size even where momentum is felt, and"
        " sqrt(lr/(2 wd)) does not.",
        measured=f"furthest off: the formula {spelled(off)}, the root {spelled(plain)}",
        expected=f"below {EXACT_BAND:g}; above {NOISE_BAND:g}",
        tolerance="fractions; 90 % bootstrap over seeds",
        holds=all_of(*parts),
        margin=margin_of_all(margins, parts),
    )


def _of_layer(where: str, group: Group, layer: int) -> list[Verdict]:
    rms, plain = group["rms"].values[:, layer], _grid(group)
    expected = _prior(group)[plain]
    grid = {name: variable("cell", group[name].values[plain]) for name in AXES}
    level = interval_over_seeds(functools.partial(_worst, expected=expected), rms[plain])
    middle = float(np.median(median_of(rms[plain]) / expected))
    memories = interval_over_seeds(_spread, rms[_by_memory(group)])
    seeds = "90 % bootstrap over paired seeds"
    return [
        judged(
            f"{where}: weights settle at sqrt(lr/(2 wd)).",
            level,
            high=NETWORK_BAND,
            tolerance=f"the cell that is furthest off, as a fraction; the median cell has"
            f" {middle:.2f} times that size; {seeds}",
        ),
        size_goes_as(f"{where}: the size goes with the root of lr/wd.", grid, rms[plain], NOISY),
        size_goes_as(
            f"{where}: the size goes with 1/wd at any lr, as gradients that agree would have it.",
            grid,
            rms[plain],
            AGREEING,
        ),
        judged(
            f"{where}: the size does not depend on b1 and b2.",
            memories,
            high=NETWORK_BAND,
            tolerance=f"the memory furthest from the default, as a fraction; {seeds}",
        ),
    ]


def _layers(result: Result) -> list[tuple[str, int, str]]:
    """World, index and words of every layer of a network; a norm's gains are no such layer."""
    return [
        (world, index, _LAYERS[world, str(layer)])
        for world, group in result.groups.items()
        if world != NOISE
        for index, layer in enumerate(group["layer"].values)
        if (world, str(layer)) in _LAYERS
    ]


def _shown(result: Result) -> list[tuple[str, int, str]]:
    """What is drawn: noise, and every layer."""
    return [(NOISE, 0, "Independent noise"), *_layers(result)]


def _memory_panel(result: Result) -> Panel:
    """Sizes for all memories over those of the defaults."""
    series, words = [], []
    for world, index, name in _shown(result):
        group = result.groups[world]
        cells = _by_memory(group)
        memories = zip(group["b1"].values[cells], group["b2"].values[cells], strict=True)
        words = [f"{b1:g}\n{b2:g}" for b1, b2 in memories]
        rms = group["rms"].values[cells, index]
        series.append(Series(name, np.arange(len(words)), *medians(rms / rms[:1])))
    return Panel(
        "Memories at one setting",
        "b1 (above) and b2",
        "size / size at defaults",
        series,
        guide=1.0,
        places=words,
    )
