"""Does the size of weights stay put under a schedule if, and only if, decay goes as lr^2?

Claim: while the learning rate is annealed by a factor s, the root mean square of the weights stays
where the shrink goes as s^2 (AdamC; the filter at a fixed prior), falls as sqrt(s) where it goes as
s (torch, optax, and the paper: its convention differs in the base alone), and as s where the shrink
is constant (AdaBayes-FP as released). So in front of a normalisation, whose gradient goes as one
over the size, the gradient grows late in training under torch's decay and not under s^2.
Source: P14, 2.6.4, 2.9 (vi); Defazio (2025), Chou (2025).
Refuted by: an exponent of the size in s that is off by more than 1/8; a late rise that is not
larger under torch's decay, or that stays under s^2.
The schedule holds until sizes are in equilibrium, anneals along a cosine to a tenth, and holds
there. The laws need memories 1/(2 lr wd) that are short against the run: a slow decay is run as
well, where none of the laws may show, and only the recursion of the second moments of weight and
momentum is left (of noise, its first size known). Pure noise is a control; the recursion was judged
of the variance alone and at every record at first, with momentum and in tenths of the run, on four
times as many weights, since. The network learns on while its gradients are compared: the fair
comparison is between decays.
Cost of PAPER: 60 runs of two networks for 5,000 steps, 30 of noise: about 60 s of CPU time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.weight_decay import decay_to_zero
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks.named import make_task
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
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.layer_sizes import layer_names, layer_probe, median_of
from experiments.many_runs import train_many
from experiments.noise_worlds import noise_world
from experiments.panels import Panel, Series, panels_group

CLAIM = "Weights keep their size under a schedule if and only if the decay goes as lr^2."
SETTLES = ("P14",)
CAPTION = (
    "Size of the weights over training, over that before the annealing begins, for three ways in"
    " which the shrink goes with the schedule's factor s (grey: the law of each); and the gradient"
    " norm of the normalised layer. Last panel: noise with a memory longer than the run. Medians"
    " over seeds, 90 % bootstrap bands."
)

NOISE, NORMALISED, PLAIN = "pure noise", "digits-layernorm", "digits-mlp"
DECAYS = {0: "constant shrink", 1: "shrink as s (torch)", 2: "shrink as s² (AdamC)"}
SLOPE_BAND = 0.125  # a quarter of the way between laws, which are 1/2 apart
RECURSION_BAND = 0.05  # of log size, 5 %: the noise of Adam's mean square is left out of it
_PARTS = 10  # of a run, in which the recursion is judged
FEW = 1.25  # a gradient norm that is a quarter larger is called grown


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    tasks: tuple[str, ...] = (NORMALISED, PLAIN)
    learning_rate: float = 1e-2
    decay: float = 1.0  # "lr_scaled": memory 1/(lr wd) of 100 steps
    slow_decay: float = 0.01  # memory of 10,000 steps
    end: float = 0.1  # of the factor s
    hold: int = 1_000  # steps at s = 1, and again at the end
    anneal: int = 3_000
    noise_weights: int = 2_048
    subset: int = 300  # training examples
    label_noise: float = 0.2  # fraction of their labels made wrong
    batch_size: int = 32
    record_every: int = 25
    num_seeds: int = 5

    @property
    def num_steps(self) -> int:
        """Of a run."""
        return 2 * self.hold + self.anneal


PAPER = Config()
QUICK = Config(
    tasks=(NORMALISED,),
    learning_rate=4e-2,
    hold=60,
    anneal=100,
    noise_weights=64,
    record_every=5,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train every world under every decay, fast and slow."""
    seeds = seeds_from(key, config.num_seeds)
    groups = {NOISE: _courses(config, noise_world(width=config.noise_weights), seeds)}
    for name in config.tasks:
        task = make_task(
            name,
            batch_size=config.batch_size,
            subset=config.subset,
            label_noise=config.label_noise,
        )
        groups[name] = _courses(config, task, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Exponents in every world, the limit of their validity, and the late gradient."""
    verdicts = [_recursion(result.groups[NOISE]), _too_slow(result.groups[NOISE])]
    for world, layer, where in _layers(result):
        verdicts += [_exponent(where, result.groups[world], layer, power) for power in DECAYS]
    normalised = result.groups[NORMALISED]
    verdicts += [_rises(normalised), _does_not_rise(normalised), _removed(normalised)]
    return with_enough_seeds(verdicts, result.groups[NOISE]["rms"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Sizes and gradients over training."""
    panels = [_sizes_panel(result.groups[NOISE], 0, "Pure noise")]
    for world, layer, where in _layers(result):
        if world != NOISE:
            panels.append(_sizes_panel(result.groups[world], layer, where))
    normalised = result.groups[NORMALISED]
    gradient = _relative(normalised, "gradient", 0)
    panels.insert(
        2, _course_panel("Gradient of that layer", "gradient norm / before", normalised, gradient)
    )
    panels.append(_sizes_panel(result.groups[NOISE], 0, "Noise, slow decay", slow=True))
    return panels_figure(panels_group(panels), venue)


def annealed(config: Config, step: Any) -> Array:
    """The schedule's factor s: 1, a cosine down to `end`, and `end`."""
    share = jnp.clip((jnp.asarray(step) - config.hold) / config.anneal, 0, 1)
    return config.end + (1 - config.end) * 0.5 * (1 + jnp.cos(jnp.pi * share))


def scheduled_adamw(config: Config, numbers: Any) -> optax.GradientTransformation:
    """Adam at lr s, and a shrink lr wd s^power beside it: AdamW at power 1, AdamC at 2."""

    def rate(step):
        return config.learning_rate * annealed(config, step)

    def shrink(step):
        base = config.learning_rate * numbers["decay"]
        return base * annealed(config, step) ** numbers["power"]

    return optax.chain(optax.adam(rate), decay_to_zero(shrink))


def recursion(
    config: Config, power: float, decay: float, first: float, b1: float = 0.9
) -> Float[np.ndarray, " steps"]:
    """Size of a weight of pure noise before every step: w' = (1 - shrink) w - lr m', exactly.

    Moments of weight and momentum, m' = b1 m + (1 - b1) u, with Adam's correction of its bias.
    """
    factor = np.asarray(annealed(config, np.arange(config.num_steps)), float)
    kept = 1 - config.learning_rate * decay * factor**power
    size = np.empty(config.num_steps)
    square, across, momentum = first**2, 0.0, 0.0  # of w, of w m, and of m
    for step in range(config.num_steps):
        size[step] = np.sqrt(square)
        pushed = config.learning_rate * factor[step] / (1 - b1 ** (step + 1))
        momentum = b1**2 * momentum + (1 - b1) ** 2
        shrunk = kept[step] * b1 * across
        square = kept[step] ** 2 * square - 2 * pushed * shrunk + pushed**2 * momentum
        across = shrunk - pushed * momentum
    return size


def _courses(config: Config, task: Any, seeds: tuple[int, ...]) -> Group:
    """Sizes and gradients of one world over training."""
    decays = (config.decay, config.slow_decay)
    cells = np.array([(power, decay) for decay in decays for power in DECAYS], float)
    runs = train_many(
        task,
        lambda numbers: scheduled_adamw(config, numbers),
        {"power": cells[:, 0], "decay": cells[:, 1]},
        seeds,
        config.num_steps,
        probes={"layers": layer_probe(task)},
        record_every=config.record_every,
        final=lambda task, params: {},
    )
    factor = np.asarray(annealed(config, runs.step), float)
    place = ("cell", "step", "layer", "seed")
    recorded = {
        name: variable(place, np.moveaxis(runs.records["layers"][name], 1, -1), units=units)
        for name, units in (("rms", "weight"), ("gradient", "1/weight"))
    }
    expected = np.stack([recursion(config, power, decay, 0.1)[runs.step] for power, decay in cells])
    return {
        "power": variable("cell", cells[:, 0], units="1"),
        "slow": variable("cell", (cells[:, 1] == config.slow_decay).astype(float), units="1"),
        "step": variable("step", runs.step, units="steps"),
        "factor": variable("step", factor, units="1"),
        "layer": variable("layer", list(layer_names(task))),
        "recursion": variable(("cell", "step"), expected, units="weight"),
        **recorded,
    }


def _cell(group: Group, power: int, *, slow: bool = False) -> int:
    found = (group["power"].values == power) & (group["slow"].values == float(slow))
    return int(np.flatnonzero(found)[0])


def _moments(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Records in equilibrium before the annealing, and those at its end, as masks."""
    factor, step = group["factor"].values, group["step"].values
    start = step[factor >= factor.max()].max()
    at_end = factor <= factor.min() * 1.001
    # The second half of either: what came before has to be forgotten.
    return (
        (step <= start) & (step >= 0.5 * start),
        at_end & (step >= 0.5 * (step[at_end].min() + step.max())),
    )


def _change(
    group: Group, name: str, cell: int, layer: int, moments: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, " seeds"]:
    """Log of a root mean square at the end over that before the annealing."""
    squares = np.square(group[name].values[cell, :, layer])
    before, after = (squares[moment].mean(axis=0) for moment in moments)
    return 0.5 * np.log(after / before)


def _median(values: np.ndarray) -> Interval:
    return interval_over_seeds(lambda drawn: float(median_of(drawn)), values)


def _exponent(where: str, group: Group, layer: int, power: int) -> Verdict:
    log_factor = np.log(group["factor"].values.min() / group["factor"].values.max())
    change = _change(group, "rms", _cell(group, power), layer, _moments(group))
    law = law_of(power)
    words = {
        0: "under a constant shrink, the size of weights falls as s",
        1: "under torch's decay, the size of weights falls as the root of s",
        2: "with decay as lr^2, the size of weights stays",
    }
    return judged(
        f"{where}: {words[power]}.",
        _median(change / log_factor),
        low=law - SLOPE_BAND,
        high=law + SLOPE_BAND,
        tolerance="exponent of s, from before the annealing to its end; a quarter of the way to"
        " the next law; 90 % bootstrap over paired seeds",
    )


def law_of(power: float) -> float:
    """Exponent of the equilibrium size in s: of lr s/sqrt(2 lr wd s^power)."""
    return 1 - power / 2


def _recursion(group: Group) -> Verdict:
    """Whether the recursion says how large noise makes the weights, in every tenth of the run."""
    measured, expected = (
        np.square(group["rms"].values[:, :, 0]),
        np.square(group["recursion"].values),
    )
    parts = np.array_split(np.arange(measured.shape[1]), _PARTS)
    known = np.stack([expected[:, part].mean(axis=1) for part in parts])
    seen = np.stack([measured[:, part].mean(axis=1) for part in parts])

    def furthest(drawn: np.ndarray) -> float:
        # The mean of squares over seeds, as all weights are alike: their number is the accuracy.
        return float(np.max(np.abs(0.5 * np.log(drawn.mean(axis=-1) / known))))

    return judged(
        "Pure noise: throughout the run and for every decay, the recursion of the second moments"
        " gives the size.",
        interval_over_seeds(furthest, seen),
        high=RECURSION_BAND,
        tolerance="largest log ratio of any tenth of the run; the noise of the mean square is left"
        " out; 90 % bootstrap over seeds",
    )


def _too_slow(group: Group) -> Verdict:
    """The law's stated limit: none of it shows where the memory is longer than the run."""
    log_factor = np.log(group["factor"].values.min())
    moments = _moments(group)
    found = {
        power: _median(
            _change(group, "rms", _cell(group, power, slow=True), 0, moments) / log_factor
        )
        for power in (0, 1)
    }
    bounds = {power: 0.5 * law_of(power) for power in found}
    parts = [below(found[power], bound) for power, bound in bounds.items()]
    margins = [margin_of(found[power], -np.inf, bound) for power, bound in bounds.items()]
    return Verdict(
        claim="Pure noise: where the memory is longer than the run, the size does not follow the"
        " schedule under any decay.",
        measured=f"exponents {spelled(found[0])} under a constant shrink, {spelled(found[1])}"
        " under torch's",
        expected=f"below {bounds[0]:g} and {bounds[1]:g}, half of the laws'",
        tolerance="90 % bootstrap over seeds",
        holds=all_of(*parts),
        margin=margin_of_all(margins, parts),
    )


def _grown(group: Group, power: int) -> Float[np.ndarray, " seeds"]:
    return _change(group, "gradient", _cell(group, power), 0, _moments(group))


def _rises(group: Group) -> Verdict:
    return judged(
        "Normalised layer: under torch's decay its gradient grows while the rate is annealed.",
        _median(_grown(group, 1)),
        low=np.log(FEW),
        tolerance=f"log ratio of norms, at least {FEW:g} times; 90 % bootstrap over seeds",
    )


def _does_not_rise(group: Group) -> Verdict:
    return judged(
        "Normalised layer: with decay as lr^2 its gradient does not grow.",
        _median(_grown(group, 2)),
        high=np.log(FEW),
        tolerance=f"log ratio of norms, below {FEW:g} times; 90 % bootstrap over seeds",
    )


def _removed(group: Group) -> Verdict:
    return judged(
        "Normalised layer: the gradient grows more under torch's decay than with decay as lr^2.",
        _median(_grown(group, 1) - _grown(group, 2)),
        low=np.log(FEW),
        tolerance=f"difference of log ratios, at least a factor of {FEW:g}; the law: one over the"
        " root of the last s; 90 % bootstrap over paired seeds",
    )


def _layers(result: Result) -> list[tuple[str, int, str]]:
    """World, index and words of the first layer of every world."""
    words = {NOISE: "Pure noise", NORMALISED: "Normalised layer", PLAIN: "Layer without a norm"}
    return [(world, 0, words[world]) for world in result.groups]


def _relative(group: Group, name: str, layer: int, *, slow: bool = False) -> dict[int, np.ndarray]:
    """Courses over their level before the annealing, by power: (step, seed)."""
    before, _ = _moments(group)
    found = {}
    for power in DECAYS:
        course = group[name].values[_cell(group, power, slow=slow), :, layer]
        found[power] = course / np.sqrt(np.square(course[before]).mean(axis=0))
    return found


def _sizes_panel(group: Group, layer: int, title: str, *, slow: bool = False) -> Panel:
    panel = _course_panel(title, "size / before", group, _relative(group, "rms", layer, slow=slow))
    factor, step = group["factor"].values, group["step"].values
    laws = [
        Series(f"s to the {law_of(power):g}", step, factor ** law_of(power), kind="law")
        for power in DECAYS
    ]
    return panel._replace(series=[*panel.series, *laws])


def _course_panel(title: str, label: str, group: Group, courses: dict[int, np.ndarray]) -> Panel:
    shown = slice(None, None, max(1, len(group["step"].values) // 40))
    series = []
    for power, course in courses.items():
        found = [_median(row) for row in course[shown]]
        middle, low, high = np.array(found).T
        series.append(Series(DECAYS[power], group["step"].values[shown], middle, low, high))
    return Panel(title, "step", label, series, x_scale="linear", y_scale="log")
