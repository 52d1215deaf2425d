"""Does decay beside a direction-preserving step make every layer turn as predicted, and pay?

Claim: decoupled decay and a step that turns weights without stretching them belong together: every
normalised layer then turns by arccos(1 - lr wd), about sqrt(2 lr wd), a step, with momentum and in
a network, nearer to the prediction and more alike than under AdamW; layers keep a size; and test
errors fall.
Source: ledger 1.15, which names ND-Adam (Zhang et al., 2017); P34; Kosson et al. (2023). The
angle is Pythagoras: `experiments.turning_adam`.
Refuted by: angles off by more than 5 % of noise or 10 % in the network, or no nearer to what is
predicted than AdamW's; paces no more alike; sizes that still move by 5 %; errors no lower.
Where the size has settled, the angle of a step at right angles is an identity: what can fail is
that it settles, and that biases, which Adam trains, do not spoil it. AdamW's own law has the
momentum's factor sqrt((1 - b1)/(1 + b1)). "Held" is the zoo's `normalized` on the layers in front
of a normalisation, its angle per step given as sqrt(2 lr wd): decay applied to a norm that is kept
would do nothing else. In noise it turns like AdamW. Its angle in the network has no law, as it goes
with how much gradients agree. All three have the same grid of rate and decay; how cells are chosen
without using an image twice: `experiments.equal_budgets`.
Chosen after results: a first version took its moments of the direction's gradient r g, as
`normalized` does, so that a layer that had shrunk was not pushed harder, and sizes fell for as long
as the mean square remembered louder gradients. Two grids had bests at their edges and were shifted.
Angles had also been judged where decay was too slow to settle a size, or killed the network: such
cells are left out by `settling`, `largest` and `experiments.living_cells`.
Cost of PAPER: 300 runs of the network for 1,500 steps, 60 of noise for 2,500.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks.data import load_digits, take_subset, with_label_noise
from bayesfilt.tasks.networks import LayerNormMlp
from bayesfilt.tasks.supervised import Supervised, supervised_task
from bayesfilt.theory import rotation_per_step
from experiments.contract import INTERVAL, Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.equal_budgets import (
    Search,
    compared,
    interval_of,
    log_error,
    much_better,
    pooled,
    searched,
)
from experiments.grids import seeds_from
from experiments.interval_columns import columns, medians
from experiments.layer_sizes import late, layer_probe, median_of
from experiments.living_cells import living
from experiments.many_runs import ManyRuns, train_many
from experiments.noise_worlds import noise_world
from experiments.panels import Panel, Series, panels_group
from experiments.turning_adam import KINDS, turning_adam

CLAIM = "Decay and direction-preserving steps together make all layers turn as predicted, and pay."
SETTLES = ("1.15", "P34")
CAPTION = (
    "Angle a step of every normalised layer, measured against predicted, in noise and in the"
    " network; the first layer's length in time at the slowest decay; and test errors at the cells"
    " that the other half of the test set chose. AdamW; a step at right angles to the weights, with"
    " decay; and such a step with norms that are held. Medians over seeds, 90 % intervals."
)

NOISE, NETWORK = "noise across the weights", "layernorm network"
_SHORT = {NOISE: "noise", NETWORK: "network"}
NAMES = {"adamw": "AdamW", "free": "right angle + decay", "held": "norm held"}
BANDS = {NOISE: 0.05, NETWORK: 0.10}  # of small steps; of a network's pace
SETTLED = 0.05  # relative change of a size from the third quarter to the last
_SEARCH = "search"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    # Of both worlds.
    record_every: int = 5
    settling: float = 6.0  # a cell counts where lr wd times half of its steps is more
    largest: float = 0.012  # lr wd of these cells at most; the network dies of 0.03
    # Of noise.
    noise: tuple[float, ...] = (0.1, 1.0, 10.0)  # deviation of the gradient by layer
    noise_weights: int = 256
    noise_rate: float = 1e-2
    noise_shrinks: tuple[float, ...] = (5e-3, 1e-2)  # lr wd
    noise_b1s: tuple[float, ...] = (0.0, 0.9)
    noise_steps: int = 2_500
    noise_seeds: int = 5
    # Of the network.
    sizes: tuple[int, ...] = (64, 64, 64, 10)
    subset: int = 300  # training examples
    label_noise: float = 0.2  # fraction of their labels made wrong
    batch_size: int = 32
    b1: float = 0.9
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    decays: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)  # "lr_scaled"
    num_steps: int = 1_500
    num_seeds: int = 5


PAPER = Config()
QUICK = Config(
    settling=1.0,
    largest=0.05,
    noise_weights=32,
    noise_shrinks=(2e-2,),
    noise_b1s=(0.9,),
    noise_steps=200,
    noise_seeds=2,
    sizes=(64, 16, 16, 10),
    rates=(1e-2,),
    decays=(0.1, 2.0),
    num_steps=160,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Turn both worlds with every kind of step, and search for each kind's lowest error."""
    search, network = _searched(config, seeds_from(key, config.num_seeds))
    groups = {
        NOISE: _noise(config, seeds_from(key, config.noise_seeds)),
        NETWORK: network,
        _SEARCH: search,
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Angles, sameness and sizes of noise and in the network; then the errors."""
    search, verdicts = result.groups[_SEARCH], []
    noise, network = result.groups[NOISE], living(result.groups[NETWORK], search)
    turning = {NOISE: noise} | ({NETWORK: network} if network["kind"].values.size else {})
    for world, group in turning.items():
        verdicts += [_angle(world, group, b1) for b1 in sorted(set(group["b1"].values.tolist()))]
        verdicts.append(_settles(world, group))
        verdicts += [_held(noise)] if world == NOISE else [_nearer(group), _more_alike(group)]
    verdicts = with_enough_seeds(verdicts, noise["angle"].values.shape[-1])
    errors = []
    for kind, words in (("free", "decay beside a step at right angles"), ("held", "a held norm")):
        pair = _of_search(search, kind), _of_search(search, "adamw")
        errors += [
            compared(f"{NETWORK}: {words} errs less than AdamW", *pair, high=0.0),
            much_better(f"{NETWORK}: {words} errs less by more than a tenth than AdamW", *pair),
        ]
    return verdicts + with_enough_seeds(errors, search["even"].values.shape[1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Angles, sizes and errors."""
    search = result.groups[_SEARCH]
    network = living(result.groups[NETWORK], search)
    panels = [_angles_panel(NOISE, result.groups[NOISE])]
    if network["kind"].values.size:
        panels += [_angles_panel(NETWORK, network), _lengths_panel(network)]
    panels.append(_errors_panel(search))
    return panels_figure(panels_group(panels), venue)


def predicted_angle(kind: str, shrink: float, b1: float) -> float:
    """Radians a step: of a step at right angles from Pythagoras, else that of noise [EQ-4]."""
    return float(np.arccos(1 - shrink) if kind == "free" else rotation_per_step(shrink, b1))


def _network(config: Config) -> Supervised:
    subset_key, label_key = jax.random.split(jax.random.key(0))
    dataset = take_subset(subset_key, load_digits(), config.subset)
    dataset = with_label_noise(label_key, dataset, config.label_noise)
    return supervised_task(dataset, LayerNormMlp(config.sizes), batch_size=config.batch_size)


def _noise(config: Config, seeds: tuple[int, ...]) -> Group:
    """Layers that feel noise across their weights, under every kind of step."""
    layers = [f"layer_{index}" for index in range(len(config.noise))]
    world = noise_world(noise=config.noise, width=config.noise_weights, only_direction=True)
    cells = itertools.product(range(len(KINDS)), [config.noise_rate], config.noise_shrinks)
    cells = [(*cell, b1) for cell in cells for b1 in config.noise_b1s]
    kind, rate, shrink, b1 = np.array(cells, float).T
    settings = {"kind": kind, "rate": rate, "decay": shrink / rate, "b1": b1}
    runs = train_many(
        world,
        lambda numbers: turning_adam(numbers, layers),
        settings,
        seeds,
        config.noise_steps,
        probes={"layers": layer_probe(world)},
        record_every=config.record_every,
        final=lambda task, params: {},
    )
    return _turning(config, settings, runs, len(layers), config.noise_steps)


def _searched(config: Config, seeds: tuple[int, ...]) -> tuple[Group, Group]:
    """Errors of all cells of the network, and the turning of its layers there."""
    task = _network(config)
    # The layers in front of a normalisation.
    layers = [f"dense_{index}" for index in range(len(config.sizes) - 2)]
    search = Search(
        optimizer_of=lambda numbers: turning_adam(numbers, layers),
        axes={
            "kind": range(len(KINDS)),
            "rate": config.rates,
            "decay": config.decays,
            "b1": (config.b1,),
        },
    )
    group, runs = searched(
        task, search, seeds, config.num_steps, probes={"layers": layer_probe(task)},
        record_every=config.record_every,
    )  # fmt: skip
    settings = {name: group[name].values for name in search.axes}
    return group, _turning(config, settings, runs, len(layers), config.num_steps)


def _turning(
    config: Config,
    settings: Mapping[str, np.ndarray],
    runs: ManyRuns,
    num_layers: int,
    num_steps: int,
) -> Group:
    """Angles in the last half of the layers that turn, which come first, and their lengths.

    Only of cells where decay has had time to settle the size, and does not take more of a layer
    than a small step.
    """
    half = num_steps // 2
    shrink = settings["rate"] * settings["decay"]
    kept = (shrink * half >= config.settling) & (shrink <= config.largest)
    place = ("setting", "layer", "seed")

    def layers(name: str, begin: float, end: float = np.inf) -> np.ndarray:
        return late(runs, name, begin, end)[kept, :num_layers]

    expected = [
        predicted_angle(KINDS[int(kind)], each, b1)
        for kind, each, b1 in np.stack([settings["kind"], shrink, settings["b1"]], 1).tolist()
    ]
    course = np.median(runs.records["layers"]["length"][kept, ..., 0], axis=1)
    return {
        "kind": variable("setting", settings["kind"][kept]),
        "shrink": variable("setting", shrink[kept], units="1/step"),
        "rate": variable("setting", settings["rate"][kept], units="1"),
        "b1": variable("setting", settings["b1"][kept]),
        "predicted_angle": variable("setting", np.array(expected)[kept], units="rad"),
        "angle": variable(place, layers("angle", half), units="rad"),
        "third_length": variable(place, layers("length", half, 1.5 * half), units="1"),
        "last_length": variable(place, layers("length", 1.5 * half), units="1"),
        "step": variable("step", runs.step, units="steps"),
        "length": variable(("setting", "step"), course, units="1"),
    }


def _of_search(group: Group, kind: str) -> Group:
    return pooled([group], lambda each: each["kind"].values == KINDS.index(kind))


def _of_kind(group: Group, kind: str, b1: float | None = None) -> np.ndarray:
    found = group["kind"].values == KINDS.index(kind)
    return found if b1 is None else found & (group["b1"].values == b1)


def _distance(
    angles: Float[np.ndarray, "settings layers seeds"], expected: np.ndarray
) -> np.ndarray:
    """Of every setting's and layer's median angle from what is expected, in logarithms."""
    return np.abs(np.log(median_of(angles) / expected[:, None]))


def _off(group: Group, chosen: np.ndarray) -> Interval:
    """The largest relative distance from the prediction."""
    expected = group["predicted_angle"].values[chosen]
    return interval_over_seeds(
        lambda drawn: float(np.expm1(np.max(_distance(drawn, expected)))),
        group["angle"].values[chosen],
    )


_FURTHEST = "the layer and setting that are furthest off, as a fraction; 90 % bootstrap over seeds"


def _angle(world: str, group: Group, b1: float) -> Verdict:
    return judged(
        f"{world}: decay beside a step at right angles, with b1 = {b1:g}, turns layers by"
        " arccos(1 - lr wd) a step",
        _off(group, _of_kind(group, "free", b1)),
        high=BANDS[world],
        tolerance=_FURTHEST,
    )


def _held(group: Group) -> Verdict:
    return judged(
        f"{NOISE}: control, a held norm told to turn by sqrt(2 lr wd) turns as AdamW's law has it",
        _off(group, _of_kind(group, "held")),
        high=BANDS[NOISE],
        tolerance=_FURTHEST,
    )


def _settles(world: str, group: Group) -> Verdict:
    chosen = _of_kind(group, "free")
    both = np.stack([group[f"{name}_length"].values[chosen] for name in ("third", "last")])

    def moved(drawn: np.ndarray) -> float:
        third, last = median_of(drawn)
        return float(np.expm1(np.max(np.abs(np.log(last / third)))))

    return judged(
        f"{world}: under decay beside a step at right angles, the size of layers settles",
        interval_over_seeds(moved, both),
        high=SETTLED,
        tolerance="largest relative change from the third quarter of the run to the last;"
        " 90 % bootstrap over seeds",
    )


def _nearer(group: Group) -> Verdict:
    """Both against their own law, over the same shrinks."""
    pair = [_of_kind(group, kind) for kind in ("free", "adamw")]
    expected = [group["predicted_angle"].values[chosen] for chosen in pair]

    def gap(drawn: np.ndarray) -> float:
        return float(
            np.mean(_distance(drawn[0], expected[0])) - np.mean(_distance(drawn[1], expected[1]))
        )

    return judged(
        f"{NETWORK}: decay beside a step at right angles turns layers nearer to its law than AdamW"
        " to its own",
        interval_over_seeds(gap, np.stack([group["angle"].values[chosen] for chosen in pair])),
        high=0.0,
        tolerance=f"mean distance of log angles, minus AdamW's; {INTERVAL}",
    )


def _more_alike(group: Group) -> Verdict:
    pair = np.stack([group["angle"].values[_of_kind(group, kind)] for kind in ("free", "adamw")])

    def gap(drawn: np.ndarray) -> float:
        spread = np.ptp(np.log(median_of(drawn)), axis=-1).mean(axis=-1)
        return float(spread[0] - spread[1])

    return judged(
        f"{NETWORK}: paces of layers are more alike under decay beside a step at right angles than"
        " under AdamW",
        interval_over_seeds(gap, pair),
        high=0.0,
        tolerance=f"log of the fastest over the slowest layer, minus AdamW's; {INTERVAL}",
    )


def _angles_panel(world: str, group: Group) -> Panel:
    series = []
    for kind, name in NAMES.items():
        chosen = _of_kind(group, kind)
        values = group["angle"].values[chosen]
        expected = np.repeat(group["predicted_angle"].values[chosen], values.shape[1])
        bars = medians(values.reshape(-1, values.shape[-1]))
        series.append(Series(name, expected, *bars, "points"))
    every = group["predicted_angle"].values
    ends = np.array([every.min(), every.max()])
    series.append(Series("as predicted", ends, ends, kind="law"))
    return Panel(
        f"Angle, {_SHORT[world]}", "predicted (rad/step)", "measured (rad/step)", series,
        "log", "log",
    )  # fmt: skip


def _lengths_panel(group: Group) -> Panel:
    """At the slowest decay, of the first layer and the last that turn."""
    slow = group["shrink"].values == group["shrink"].values.min()
    series = []
    for kind, name in NAMES.items():
        place = np.flatnonzero(slow & _of_kind(group, kind))[0]
        course = group["length"].values[place]
        series.append(Series(name, group["step"].values, course / course[-1]))
    return Panel(
        "Length of the first layer", "step", "over the last", series, "linear", "log", guide=1.0
    )


def _errors_panel(search: Group) -> Panel:
    found = [_of_search(search, kind) for kind in NAMES]
    bars = columns(
        [
            interval_of(each, lambda draw, each=each: 100 * float(np.exp(log_error(each, draw))))
            for each in found
        ]
    )
    return Panel(
        "Test error, each at its best", "", "test error (%)",
        [Series("best cell", np.arange(len(found)), *bars, "points")],
        "linear", "linear", places=["AdamW", "right angle", "held"],
    )  # fmt: skip
