"""How does the drift of a weight's optimum go with its curvature, and which normaliser trains best?

Claims that exclude each other: drift variance falls as 1/H, as the theory's own coupling of the
weights has it, and then the best normaliser is the mean square of the gradient; or it is the same
for all weights, as the filter assumes, and then it is its root, Adam's. In between, drift
q ~ (E g²)^alpha wants the normaliser v^-p with p = (1 - alpha)/2.
Source: differences of the coordinate optimum of Aitchison (2020) for a Hessian of like
correlations; the optimal small gain √(q/R) of a tracker.
Refuted by: a slope of log q on log H whose interval leaves out -1, or 0; a power that trains best,
each with its own learning rate, that is not 1, not 1/2, or not the predicted one.
Curvature and noise are those of all training data, from which minibatches are drawn, so the
abscissa has no error of measurement; that of q is the ordinate's. An optimum that is not found
within the trust region is left out, and how many are is said. E g² stands for R: the mean
gradient adds a hundredth to it.
The final loss of a network that learns its data by heart is no error of tracking, which is what
the predicted power is best for: that both agree is a hint, that they do not a refutation. A loss
of exactly 0 is that of logits beyond float32 (the test loss has then blown up): below every axis.
Cost of PAPER: 1,920 runs of the MLP (5.8 million steps) and 200,000 coordinate optima:
about 6 minutes on two quiet cores, estimated (19 on two that a dozen processes were using).
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import (
    ChosenWeights,
    Interval,
    chosen_weights,
    coordinate_optimum,
    drift_variance,
    hessian_diagonal,
    log_slope,
    noise_over_examples,
    whole_data,
)
from bayesfilt.figures import VenueFigure, drift_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import Probe
from bayesfilt.tasks import Task, bowl_task
from experiments.contract import (
    Result,
    Verdict,
    is_the_one,
    margin_of,
    margin_of_the_one,
    spelled,
    with_enough_seeds,
    within,
)
from experiments.coordinates import (
    MOMENTS,
    AdamW,
    Matched,
    choice_of,
    interval_over_seeds,
    layers_of_choice,
    matched_task,
    task_of,
    widened,
    world_name,
)
from experiments.grids import Problem, quick_problem, seeds_from
from experiments.power_sweep import (
    METRICS,
    lowest_with_interval,
    power_verdicts,
    sweeps_of,
    train_powers,
)
from experiments.watching import Window, watch, watcher

CLAIM = "Drift falls as one over curvature (mean square), or knows no curvature (root)."
SETTLES = ("P19", "P20")
CAPTION = (
    "Above, the variance of the drift of each weight's optimum against the weight's "
    "curvature, with both laws through the middle of the weights; below, training loss at the "
    "best learning rate of every power of the normaliser with 90 % bootstrap intervals, the "
    "powers that the drift predicts shaded. A column a world; a caret at an edge is what "
    "lies beyond it, such as a loss of 0."
)

# Slope of log drift variance on log curvature.
LAWS = {"as one over curvature": -1.0, "whatever the curvature": 0.0}
COUPLED, UNIFORM = "coupled quadratic", "matched world"
_CONTROLS = {COUPLED: -1.0, UNIFORM: 0.0}
_LATE = 2  # among MOMENTS
_ABOUT = 0.1  # of a slope
_LEAST_VALID = 0.9  # of a window's steps: an optimum that comes and goes has a drift of its own


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    moments: tuple[int, int, int] = (30, 300, 2_900)  # steps taken before each window
    window: int = 60
    learning_rate: float = 0.002  # AdamW's, constant, while its optima are watched
    weight_decay: float = 0.01  # "lr_scaled"
    per_matrix: int = 32
    trust_radius: float = 10.0  # of the search for an optimum; units of a weight
    matched: Matched = Matched()  # and as many weights for the other control
    powers: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    # Learning rates of Adam; a power p has each times typical_gradient^(2p - 1), in its own units.
    rates: str = "log:1.52587890625e-5:0.5:16"
    typical_gradient: float = 0.03  # root mean square, of the mean loss
    # Added to the root mean square: nothing, and what bounds the steps of silent weights.
    eps: tuple[float, ...] = (1e-8, 1e-3)


PAPER = Config(problems=(Problem(label_noise=0.0), Problem()))
QUICK = Config(
    problems=(quick_problem(),),
    moments=(4, 20, 40),
    window=8,
    per_matrix=8,
    matched=Matched(weights=8),
    powers=(0.5, 1.0),
    rates="log:0.001:0.1:3",
    eps=(1e-3,),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Watch the optima of some weights, and train with every power of the mean square."""
    groups = {}
    seeds_key, world_key = jax.random.split(key)
    for problem in config.problems:
        seeds = seeds_from(seeds_key, problem.num_seeds)
        task = task_of(problem)
        chosen = choice_of(task, config.per_matrix)
        noise = noise_over_examples(chosen, whole_data)
        world = world_name(problem)
        groups[f"{world}/drift"] = _watched(config, [task] * len(seeds), chosen, noise, seeds)
        sweep = train_powers(
            problem,
            seeds,
            powers=config.powers,
            eps=config.eps,
            rates=config.rates,
            typical_gradient=config.typical_gradient,
        )
        groups |= {f"{world}/{name}": group for name, group in sweep.items()}
    seeds = seeds_from(seeds_key, config.problems[0].num_seeds)
    last = config.moments[-1] + config.window
    for name, world in {
        COUPLED: lambda key: coupled_task(config.matched.weights, key),
        UNIFORM: lambda key: matched_task(config.matched, key, last),
    }.items():
        tasks = [world(jax.random.fold_in(world_key, seed)) for seed in seeds]
        every = chosen_weights(tasks[0].init_params(world_key), range(config.matched.weights))
        noise = hessian_diagonal(every, whole_data)  # by construction
        groups[f"{name}/drift"] = _watched(config, tasks, every, noise, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def coupled_task(size: int, key: PRNGKeyArray) -> Task:
    """A bowl of weights with like correlations, whose curvatures span two powers of ten."""
    white = np.asarray(jax.random.normal(key, (4 * size, size)), np.float64)
    correlation = np.corrcoef(white.T)
    scale = np.sqrt(np.geomspace(0.01, 1.0, size))
    curvature = correlation * scale * scale[:, None]
    return bowl_task(
        curvature,
        curvature,
        batch_size=32,
        optimum=np.zeros(size),
        dtype="float32",
    )


def check(result: Result) -> list[Verdict]:
    """The controls, the law of the drift at three moments, and the power that trains best."""
    verdicts = []
    for name, slope in _CONTROLS.items():
        group = result.groups[f"{name}/drift"]
        found = exponent(group, _LATE, "curvature")
        control = Verdict(
            claim=f"control, {name}: the slope is the one that was built in",
            measured=f"slope of log q on log H {spelled(found)}",
            expected=f"{slope:g}",
            tolerance="a tenth: correlations are alike, not equal; 90 % bootstrap over seeds",
            holds=within(found, slope - _ABOUT, slope + _ABOUT),
            margin=margin_of(found, slope - _ABOUT, slope + _ABOUT),
        )
        verdicts += with_enough_seeds([control], group["drift"].values.shape[1])
    for world in _worlds(result):
        group = result.groups[f"{world}/drift"]
        found = [
            each for index, moment in enumerate(MOMENTS)
            for each in _laws(f"{world}, {moment}", group, index)
        ]  # fmt: skip
        predicted = predicted_power(group)
        for eps, powers in sweeps_of(result, world).items():
            for metric in METRICS:
                found += power_verdicts(result, world, eps, powers, metric, predicted)
        verdicts += with_enough_seeds(found, group["drift"].values.shape[1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Drift against curvature with both laws (above); training loss by power (below)."""
    worlds = _worlds(result)
    drifts = [result.groups[f"{world}/drift"] for world in worlds]
    sweeps = [sweeps_of(result, world) for world in worlds]
    floors = list(sweeps[0])
    powers = sweeps[0][floors[0]]
    lines = np.array(
        [
            [
                [
                    lowest_with_interval(result, world, eps, power, "training_loss")
                    for power in powers
                ]
                for eps in floors
            ]
            for world in worlds
        ]
    )
    flat = ("world", "moment", "weight")
    predicted = np.array([predicted_power(group) for group in drifts])
    group = {
        "world": variable("world", worlds),
        "moment": variable("moment", list(MOMENTS)),
        "curvature": variable(flat, np.stack([_flat(each, "curvature") for each in drifts])),
        "drift": variable(flat, np.stack([_flat(each, "drift") for each in drifts])),
        "law": variable("law", [f"{name}: slope {slope:g}" for name, slope in LAWS.items()]),
        "law_slope": variable("law", list(LAWS.values())),
        "floor": variable("floor", floors),
        "power": variable("power", powers),
        "loss": variable(("world", "floor", "power"), lines[..., 0]),
        "loss_low": variable(("world", "floor", "power"), lines[..., 1]),
        "loss_high": variable(("world", "floor", "power"), lines[..., 2]),
        "predicted": variable("world", predicted[:, 0]),
        "predicted_low": variable("world", predicted[:, 1]),
        "predicted_high": variable("world", predicted[:, 2]),
    }
    return drift_figure(group, venue)


def exponent(group: Group, moment: int, of: str) -> Interval:
    """Slope of log drift variance on the logarithm of `of`, over the weights of all seeds."""
    drift, along = (group[name].values[moment].T for name in ("drift", of))
    pairs = np.stack([drift, along])
    return interval_over_seeds(lambda runs: log_slope(runs[0], runs[1]).slope, pairs)


def predicted_power(group: Group) -> Interval:
    """The normaliser that the drift asks for, late in training: p = (1 - alpha)/2."""
    alpha = exponent(group, _LATE, "noise")
    return Interval(
        estimate=(1 - alpha.estimate) / 2, low=(1 - alpha.high) / 2, high=(1 - alpha.low) / 2
    )


def _watched(
    config: Config,
    tasks: Sequence[Task],
    chosen: ChosenWeights,
    noise: Probe,
    seeds: Sequence[int],
) -> Group:
    """Drift variance, mean curvature and mean noise of every window of one world."""
    probes = {
        "optimum": coordinate_optimum(chosen, whole_data, trust_radius=config.trust_radius),
        "noise": noise,
    }

    adamw = AdamW(config.weight_decay, tasks[0].batch_size)
    program = watcher(adamw.builder(), probes)
    windows = [Window(begin=begin, spacing=1, count=config.window) for begin in config.moments]
    seen = watch(program, tasks, [config.learning_rate] * len(seeds), seeds, windows)
    shape = (len(seeds), len(windows), config.window, -1)
    optimum = seen["optimum"].optimum.reshape(shape)
    valid = np.isfinite(optimum).mean(axis=2)
    drift = np.where(valid >= _LEAST_VALID, drift_variance(optimum).value, np.nan)
    measured = {
        "drift": drift,
        "valid": valid,
        "curvature": seen["optimum"].curvature.reshape(shape).mean(axis=2),
        "noise": seen["noise"].reshape(shape).mean(axis=2),
    }
    units = {"drift": "weight^2 per step", "valid": "1"}
    return {
        "moment": variable("moment", list(MOMENTS)),
        "step": variable("moment", np.array(config.moments), units="steps"),
        "layer": variable("weight", layers_of_choice(chosen)),
        **{
            name: variable(
                ("moment", "seed", "weight"),
                np.swapaxes(values, 0, 1),
                units=units.get(name, "1/weight^2, summed loss"),
            )
            for name, values in measured.items()
        },
    }


def _laws(where: str, group: Group, moment: int) -> list[Verdict]:
    found = exponent(group, moment, "curvature")
    layer = group["layer"].values
    drift, curvature = (group[name].values[moment] for name in ("drift", "curvature"))
    slopes = ", ".join(
        f"{name} {log_slope(drift[:, layer == name], curvature[:, layer == name]).slope:.2g}"
        for name in dict.fromkeys(layer.tolist())
    )
    live = group["noise"].values[moment] > 0
    lost = 1 - np.isfinite(drift[live]).mean()
    verdicts = []
    for law, slope in LAWS.items():
        rival = next(other for other in LAWS.values() if other != slope)
        verdicts.append(
            Verdict(
                claim=f"{where}: the drift of an optimum goes {law}",
                measured=f"slope of log q on log H {spelled(found)} ({slopes}); {lost:.0%} lost",
                expected=f"{slope:g}",
                tolerance="a tenth, and 90 % bootstrap over seeds; undecided if they hold"
                f" {rival:g} too, or are wider than the way to it",
                holds=is_the_one(widened(found, _ABOUT), slope, [rival]),
                margin=margin_of_the_one(widened(found, _ABOUT), slope, [rival]),
            )
        )
    return verdicts


def _worlds(result: Result) -> list[str]:
    names = dict.fromkeys(name.partition("/")[0] for name in result.groups)
    return [name for name in names if name not in _CONTROLS]


def _flat(group: Group, name: str) -> np.ndarray:
    return group[name].values.reshape(len(MOMENTS), -1)
