"""Do normalised layers turn by sqrt(2 lr wd) a step, all at one pace, and only under decay?

Claim: where the loss sees the direction of a layer's weights alone, decay and gradient balance at
|g|/|w| = sqrt(2 wd/lr) under SGD, and the layer turns by sqrt(2 lr wd) a step; under AdamW too,
times sqrt((1 - b1)/(1 + b1)) with momentum. So all layers turn alike under AdamW. Under Adam with
L2 those with the larger gradients turn more slowly (as the gradient to the power -1/3).
Source: P34; Kosson et al. (2023), Defazio (2025); the power by the same balance.
Refuted by: ratios or angles off by more than 5 % of noise or 10 % in the network; layers that turn
at paces more than 10 % apart under AdamW; or less than that under L2.
World one is noise across the weights, its layers' gradients a hundredfold apart: a control, where
only the approximations of small steps can fail. World two is an MLP with two normalised layers (a
matrix with its bias), at right angles to their gradients, which is measured. The coefficient of L2
is the one of a grid whose mean angle is nearest to AdamW's; steps of the network's grid are tens,
so that the two turn alike to a factor of three at best. One optimizer with switches stands for all,
so that they share a program; its parts are optax's. SGD's decay was lowered after a first run, in
which the faster one had taken the network's gains to 0.
Cost of PAPER: 50 runs of the network for 4,000 steps, 45 of noise: about 45 s of CPU time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks.data import load_digits, take_subset, with_label_noise
from bayesfilt.tasks.networks import LayerNormMlp
from bayesfilt.tasks.supervised import Supervised, supervised_task
from bayesfilt.theory import rotation_per_step
from experiments.contract import INTERVAL, Result, Verdict, judged, not_judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.interval_columns import medians
from experiments.layer_sizes import (
    late,
    layer_probe,
    median_of,
    power_law,
)
from experiments.logarithms import geometric_mean
from experiments.many_runs import train_many
from experiments.noise_worlds import noise_world
from experiments.panels import Panel, Series, panels_group
from experiments.switched_adam import KINDS, Switches, switched

CLAIM = "Normalised layers turn by sqrt(2 lr wd) a step, alike under AdamW and not under L2."
SETTLES = ("P34",)
CAPTION = (
    "Angle a step, measured against predicted, of every normalised layer, in noise and in the"
    " network (grey: as predicted); the balance of gradient and weights under SGD; and angles by"
    " layer under AdamW and under Adam with L2. Medians over seeds, 90 % bootstrap intervals."
)

NOISE, NETWORK = "noise across the weights", "layernorm network"
_SHORT = {NOISE: "noise", NETWORK: "network"}
BANDS = {NOISE: 0.05, NETWORK: 0.10}  # of small steps; of a network's pace
ALIKE = 1.1  # layers' paces nearer than this are one pace
POWER, POWER_BAND = -1 / 3, 1 / 12  # of the angle in the gradient, under L2; a quarter of it
ALIVE = 0.99  # share of steps with a gradient at all
RIGHT_ANGLE = 0.02  # cosine of gradient and weights


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    shrinks: tuple[float, ...] = (2e-3, 8e-3)  # lr wd of AdamW
    # Of SGD less: at this rate, 8e-3 takes the gains to 0, and the network with them.
    sgd_shrinks: tuple[float, ...] = (1e-3, 2e-3)
    sgd_rate: float = 0.5
    adam_rate: float = 1e-2
    b1s: tuple[float, ...] = (0.0, 0.9)  # of AdamW
    noise: tuple[float, ...] = (0.1, 1.0, 10.0)  # deviation of the gradient by layer
    noise_weights: int = 256
    noise_l2: tuple[float, ...] = (0.05, 0.2, 0.8)
    sizes: tuple[int, ...] = (64, 64, 64, 10)
    network_l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    subset: int = 300  # training examples
    label_noise: float = 0.2  # fraction of their labels made wrong
    batch_size: int = 32
    num_steps: int = 4_000
    begin: int = 2_500  # of what counts as late
    record_every: int = 5
    num_seeds: int = 5


PAPER = Config()
QUICK = Config(
    shrinks=(2e-2,),
    sgd_shrinks=(2e-2,),
    b1s=(0.0,),
    noise_weights=32,
    noise_l2=(0.2,),
    network_l2=(1e-2,),
    sizes=(64, 16, 16, 10),
    num_steps=150,
    begin=100,
    record_every=10,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train both worlds with every optimizer; keep late angles, ratios and cosines."""
    seeds = seeds_from(key, config.num_seeds)
    noise = noise_world(noise=config.noise, width=config.noise_weights, only_direction=True)
    groups = {
        NOISE: _turning(config, noise, len(config.noise), config.noise_l2, seeds),
        NETWORK: _turning(
            config, _network(config), len(config.sizes) - 2, config.network_l2, seeds
        ),
    }
    groups[NOISE]["noise"] = variable("layer", np.array(config.noise), units="1")
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Balance, angle and sameness, of noise and in the network."""
    verdicts = [_right_angle(result.groups[NETWORK])]
    for world, group in result.groups.items():
        verdicts += [
            _balance(world, group),
            _angle(world, group, "sgdw", 0.0),
            *(_angle(world, group, "adamw", b1) for b1 in _momenta(group)),
            _alike(world, group, "adamw"),
            _alike(world, group, "adam_l2"),
            _more_alike(world, group),
        ]
    verdicts.append(_power(result.groups[NOISE]))
    return with_enough_seeds(verdicts, result.groups[NOISE]["angle"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Angles and balance, measured against predicted; angles by layer."""
    panels = [_angles_panel(world, group) for world, group in result.groups.items()]
    panels.append(_balance_panel(result))
    panels += [_layers_panel(world, group) for world, group in result.groups.items()]
    return panels_figure(panels_group(panels), venue)


def _network(config: Config) -> Supervised:
    subset_key, label_key = jax.random.split(jax.random.key(0))
    dataset = take_subset(subset_key, load_digits(), config.subset)
    dataset = with_label_noise(label_key, dataset, config.label_noise)
    return supervised_task(dataset, LayerNormMlp(config.sizes), batch_size=config.batch_size)


def _settings(config: Config, l2s: tuple[float, ...]) -> dict[str, np.ndarray]:
    sgd, adam = config.sgd_rate, config.adam_rate
    found = [Switches(0.0, sgd, shrink / sgd, 0.0, 0.0) for shrink in config.sgd_shrinks]
    found += [
        Switches(1.0, adam, shrink / adam, 0.0, b1)
        for b1 in config.b1s
        for shrink in config.shrinks
    ]
    found += [Switches(2.0, adam, 0.0, l2, config.b1s[-1]) for l2 in l2s]
    return dict(zip(Switches._fields, np.array(found).T, strict=True))


def _turning(
    config: Config, task: Any, num_layers: int, l2s: tuple[float, ...], seeds: tuple[int, ...]
) -> Group:
    """Late numbers of the normalised layers of one world, which come first."""
    settings = _settings(config, l2s)
    runs = train_many(
        task,
        switched,
        settings,
        seeds,
        config.num_steps,
        probes={"layers": layer_probe(task)},
        record_every=config.record_every,
        final=lambda task, params: {},
    )
    place = ("setting", "layer", "seed")

    def layers(name: str) -> Float[np.ndarray, "settings layers seeds"]:
        return late(runs, name, config.begin)[:, :num_layers]

    shrink = settings["learning_rate"] * settings["weight_decay"]
    # SGD has no momentum here; L2 has no such law.
    angle = rotation_per_step(jnp.asarray(shrink), jnp.asarray(settings["b1"]))
    expected = np.array(angle, float)
    expected[settings["kind"] == KINDS.index("adam_l2")] = np.nan
    pushed = runs.records["layers"]["gradient"][:, :, runs.step >= config.begin, :num_layers] > 0
    ratio = late(runs, "gradient", config.begin) / late(runs, "length", config.begin)
    return {
        **{name: variable("setting", values, units="1") for name, values in settings.items()},
        "layer": variable("layer", [f"layer {index + 1}" for index in range(num_layers)]),
        "predicted_angle": variable("setting", expected, units="rad"),
        "angle": variable(place, layers("angle"), units="rad"),
        "ratio": variable(place, ratio[:, :num_layers], units="1/weight²"),
        "radial": variable(place, layers("radial"), units="1"),
        "pushed": variable(place, np.moveaxis(pushed.mean(axis=2), 1, -1), units="1"),
    }


def _of_kind(group: Group, kind: str, b1: float | None = None) -> np.ndarray:
    found = group["kind"].values == KINDS.index(kind)
    return found if b1 is None else found & (group["b1"].values == b1)


def _momenta(group: Group) -> list[float]:
    return sorted(set(group["b1"].values[_of_kind(group, "adamw")].tolist()))


def _worst(values: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance of any setting and layer from what is expected, as a fraction."""
    return float(np.max(np.abs(median_of(values) / expected[:, None] - 1)))


def _right_angle(group: Group) -> Verdict:
    return judged(
        f"{NETWORK}: control, gradients stand at right angles to the weights of a normalised"
        " layer.",
        interval_over_seeds(lambda drawn: float(np.max(median_of(drawn))), group["radial"].values),
        high=RIGHT_ANGLE,
        tolerance="largest cosine (rms over steps) of all optimizers and layers; 90 % bootstrap",
    )


def _if_alive(verdict: Verdict, group: Group, chosen: np.ndarray) -> Verdict:
    """Not judged where gradients are exactly 0: the network has decayed to a constant."""
    if np.min(median_of(group["pushed"].values[chosen])) < ALIVE:
        return not_judged(verdict, "as gradients have vanished: decay has killed the network")
    return verdict


def _balance(world: str, group: Group) -> Verdict:
    chosen = _of_kind(group, "sgdw")
    expected = _predicted_ratio(group)[chosen]
    verdict = judged(
        f"{world}: under SGD, gradients and weights balance at |g|/|w| = sqrt(2 wd/lr).",
        interval_over_seeds(lambda drawn: _worst(drawn, expected), group["ratio"].values[chosen]),
        high=BANDS[world],
        tolerance="the layer and setting that are furthest off, as a fraction; 90 % bootstrap",
    )
    return _if_alive(verdict, group, chosen)


def _predicted_ratio(group: Group) -> Float[np.ndarray, " settings"]:
    return np.sqrt(2 * group["weight_decay"].values / group["learning_rate"].values)


def _angle(world: str, group: Group, kind: str, b1: float) -> Verdict:
    chosen = _of_kind(group, kind, b1)
    expected = group["predicted_angle"].values[chosen]
    name = {"sgdw": "SGD", "adamw": "AdamW"}[kind]
    law = "sqrt(2 lr wd)" + (" sqrt((1 - b1)/(1 + b1))" if b1 else "")
    verdict = judged(
        f"{world}: under {name}{f' with b1 = {b1:g}' if b1 else ''}, layers turn by {law} a step.",
        interval_over_seeds(lambda drawn: _worst(drawn, expected), group["angle"].values[chosen]),
        high=BANDS[world],
        tolerance="the layer and setting that are furthest off, as a fraction; 90 % bootstrap",
    )
    return _if_alive(verdict, group, chosen)


def _matched(group: Group) -> int:
    """The setting of L2 whose mean angle is nearest to that of AdamW at the middle shrink."""
    mean = np.log(median_of(group["angle"].values)).mean(axis=1)
    distance = np.abs(mean - mean[_of_adamw(group)])
    return int(np.argmin(np.where(_of_kind(group, "adam_l2"), distance, np.inf)))


def _mean_angle(group: Group, setting: int) -> float:
    return geometric_mean(median_of(group["angle"].values[setting]))


def _of_adamw(group: Group) -> int:
    """The setting of AdamW that L2 is compared with: its last momentum, its fastest decay."""
    return int(np.flatnonzero(_of_kind(group, "adamw", _momenta(group)[-1]))[-1])


def _alike(world: str, group: Group, kind: str) -> Verdict:
    setting = _of_adamw(group) if kind == "adamw" else _matched(group)

    def apart(drawn: np.ndarray) -> float:
        middle = median_of(drawn)
        return float(np.max(middle) / np.min(middle))

    found = interval_over_seeds(apart, group["angle"].values[setting])
    if kind == "adamw":
        return judged(
            f"{world}: under AdamW, all normalised layers turn at one pace.",
            found,
            high=ALIKE,
            tolerance="fastest over slowest layer; 90 % bootstrap over seeds",
        )
    return judged(
        f"{world}: under Adam with L2, normalised layers turn at different paces.",
        found,
        low=ALIKE,
        tolerance=f"fastest over slowest layer, at L2 {group['l2'].values[setting]:g}, whose mean"
        " angle is nearest to AdamW's; 90 % bootstrap over seeds",
    )


def _more_alike(world: str, group: Group) -> Verdict:
    """The comparison itself: both may differ from one pace."""

    def gap(drawn: np.ndarray) -> float:
        paces = np.log(median_of(drawn))
        return float(np.ptp(paces[0]) - np.ptp(paces[1]))

    both = group["angle"].values[[_of_adamw(group), _matched(group)]]
    return judged(
        f"{world}: paces of normalised layers are nearer to each other under AdamW than under L2.",
        interval_over_seeds(gap, both),
        high=0.0,
        tolerance="log of fastest over slowest layer, AdamW minus L2, whose mean angle is"
        f" {_mean_angle(group, _matched(group)) / _mean_angle(group, _of_adamw(group)):.2g} times"
        f" AdamW's; {INTERVAL}",
    )


def _power(group: Group) -> Verdict:
    noise = {"noise": group["noise"].values}
    found = interval_over_seeds(
        lambda drawn: power_law(median_of(drawn), noise)["noise"],
        group["angle"].values[_matched(group)],
    )
    return judged(
        f"{NOISE}: under Adam with L2, the angle goes with the gradient to the power -1/3.",
        found,
        low=POWER - POWER_BAND,
        high=POWER + POWER_BAND,
        tolerance="a quarter of the way to no dependence; 90 % bootstrap over seeds",
    )


def _words(group: Group) -> dict[str, np.ndarray]:
    """Legend and settings of what has a law."""
    found = {"SGD with decay": _of_kind(group, "sgdw")}
    for b1 in _momenta(group):
        found[f"AdamW, b1 = {b1:g}"] = _of_kind(group, "adamw", b1)
    return found


def _angles_panel(world: str, group: Group) -> Panel:
    series = []
    for name, chosen in _words(group).items():
        values = group["angle"].values[chosen]
        expected = np.repeat(group["predicted_angle"].values[chosen], values.shape[1])
        bars = medians(values.reshape(-1, values.shape[-1]))
        series.append(Series(name, expected, *bars, "points"))
    ends = np.nanmin(group["predicted_angle"].values), np.nanmax(group["predicted_angle"].values)
    series.append(Series("as predicted", ends, ends, kind="law"))
    return Panel(
        f"Angle, {_SHORT[world]}",
        "predicted (rad/step)",
        "measured (rad/step)",
        series,
        "log",
        "log",
    )


def _balance_panel(result: Result) -> Panel:
    series, all_expected = [], []
    for world, group in result.groups.items():
        chosen = _of_kind(group, "sgdw")
        values = group["ratio"].values[chosen]
        expected = np.repeat(_predicted_ratio(group)[chosen], values.shape[1])
        bars = medians(values.reshape(-1, values.shape[-1]))
        series.append(Series(f"SGD, {_SHORT[world]}", expected, *bars, "points"))
        all_expected.append(expected)
    ends = np.array([np.min(all_expected[0]), np.max(all_expected[0])])
    series.append(Series("as predicted", ends, ends, kind="law"))
    return Panel("Balance under SGD", "sqrt(2 wd/lr)", "|g| / |w|", series, "log", "log")


def _layers_panel(world: str, group: Group) -> Panel:
    series = []
    for name, setting in (("AdamW", _of_adamw(group)), ("Adam with L2", _matched(group))):
        bars = medians(group["angle"].values[setting])
        series.append(Series(name, np.arange(len(bars[0])), *bars, "line"))
    return Panel(
        f"Paces, {_SHORT[world]}",
        "layer, by gradient" if world == NOISE else "layer",
        "angle (rad/step)",
        series,
        y_scale="log",
        places=[str(word).removeprefix("layer ") for word in group["layer"].values],
    )
