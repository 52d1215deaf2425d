"""Is the variance of a gradient the curvature of the loss?

Claim: the filter's observation model, g ~ N(h (w - w*), h), whose noise R is its curvature H. It
is what makes a filter's gain its posterior variance: K = P H/(H² P + R) is P only if R = H.
Source: the Fisher identity as Aitchison (2020) uses it.
Refuted by: a median of R/H over weights that is not 1 to a quarter, early, in the middle or late
in training; a slope of log R on log H that is not 1.
It holds exactly where labels are drawn from the network's own predictions (a control), so for a
world's labels as far as the network predicts their frequencies: digits that it learns by heart
and digits with wrong labels are different worlds.
R and H are of the summed loss of minibatches drawn with replacement, measured on all training
data, without error: both are proportional to the batch size, so that their ratio knows none. Along
one weight of a ReLU network every logit is piecewise linear and the exact curvature is
the Gauss-Newton one; layer normalisation parts them.
Cost of PAPER: 25 runs of 3,000 steps, and 15,000 times the curvature and the noise of a weight:
under 4 minutes on two cores that others were using as well.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import (
    ChosenWeights,
    chosen_weights,
    ggn_diagonal,
    hessian_diagonal,
    log_slope,
    noise_over_examples,
    noise_over_minibatches,
    whole_data,
)
from bayesfilt.figures import VenueFigure, noise_over_curvature_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import Probe, StepView
from bayesfilt.tasks import Task
from bayesfilt.tasks.supervised import Examples
from experiments.contract import Result, Verdict, margin_of, spelled, with_enough_seeds, within
from experiments.coordinates import (
    MOMENTS,
    AdamW,
    Matched,
    choice_of,
    interval_over_seeds,
    layers_of_choice,
    matched_task,
    middle_of,
    task_of,
    world_name,
)
from experiments.grids import Problem, quick_problem, seeds_from
from experiments.watching import Window, watch, watcher

CLAIM = "The variance of a weight's gradient is its curvature (R = H)."
SETTLES = ("P24",)
CAPTION = (
    "Variance of a weight's gradient over its curvature against the curvature, a panel a "
    "world, a dot a weight, a colour a moment of training; lines are medians, and 1 is what "
    "the filter assumes. A caret is a weight beyond the axes."
)

MATCHED = "matched world"
_EARLY, _LATE = 0, 2  # among MOMENTS
CURVATURES = {"gauss_newton": "Gauss-Newton", "curvature": "exact"}
# A quarter of the gain is less than one step of any grid of learning rates.
_BAND, _CONTROL_BAND = 1.25, 1.1
_SLOPES = (0.9, 1.1)  # that count as 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    moments: tuple[int, int, int] = (30, 300, 3_000)  # steps taken: early, middle, late
    learning_rate: float = 0.002  # AdamW's, constant
    weight_decay: float = 0.01  # "lr_scaled"
    per_matrix: int = 128
    label_sets: int = 8  # drawn from the network, for the first control
    matched: Matched = Matched(weights=64, precisions=(1.0, 1e3))  # the second control
    minibatches: int = 400  # from which its noise is estimated


PAPER = Config(
    problems=(
        Problem(subset=None, label_noise=0.0),
        Problem(subset=None),
        Problem(),
        Problem(task="digits-layernorm", subset=None, label_noise=0.0),
    )
)
QUICK = Config(
    problems=(quick_problem(),),
    moments=(5, 20, 50),
    per_matrix=12,
    label_sets=2,
    matched=Matched(weights=16),
    minibatches=50,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Noise and both curvatures of some weights at three moments of every run."""
    groups = {}
    seeds_key, world_key, minibatch_key = jax.random.split(key, 3)
    for problem in config.problems:
        task = task_of(problem)
        chosen = choice_of(task, config.per_matrix)
        probes = {
            "noise": noise_over_examples(chosen, whole_data),
            "own_label_noise": own_label_noise(chosen, config.label_sets),
            "curvature": hessian_diagonal(chosen, whole_data),
            "gauss_newton": ggn_diagonal(chosen, whole_data),
        }
        seeds = seeds_from(seeds_key, problem.num_seeds)
        tasks = [task] * len(seeds)
        groups[world_name(problem)] = _watched(config, tasks, chosen, probes, seeds)
    seeds = seeds_from(seeds_key, config.problems[0].num_seeds)
    last = config.moments[-1] + 1
    tasks = [
        matched_task(config.matched, jax.random.fold_in(world_key, seed), last) for seed in seeds
    ]
    every = chosen_weights(tasks[0].optimum[0], range(config.matched.weights))
    probes = {
        "noise": noise_of_each_run(minibatch_key, every, config.minibatches),
        "gauss_newton": hessian_diagonal(every, whole_data),
    }
    groups[MATCHED] = _watched(config, tasks, every, probes, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def own_label_noise(chosen: ChosenWeights, label_sets: int) -> Probe:
    """Probe: noise of the summed gradient, were the labels drawn from the network's predictions."""

    def probe(task: Any, view: StepView) -> Float[Array, " weights"]:
        inputs = task.train.inputs
        key = jax.random.fold_in(jax.random.key(0), view.step)
        logits = task.network.apply(view.params, inputs)
        labels = jax.random.categorical(key, logits, shape=(label_sets, len(inputs)))
        drawn = Examples(inputs=jnp.concatenate([inputs] * label_sets), labels=labels.ravel())
        return noise_over_examples(chosen, lambda task, step: drawn)(task, view)

    return probe


def noise_of_each_run(key: PRNGKeyArray, chosen: ChosenWeights, minibatches: int) -> Probe:
    """Probe: noise over minibatches that no other run draws; its weights tell a run apart."""

    def probe(task: Any, view: StepView) -> Float[Array, " weights"]:
        mark = jax.lax.bitcast_convert_type(view.params[-1], jnp.uint32)
        return noise_over_minibatches(jax.random.fold_in(key, mark), chosen, minibatches)(
            task, view
        )

    return probe


def check(result: Result) -> list[Verdict]:
    """R/H, and R against H from weight to weight, world by world and moment by moment."""
    matched = result.groups[MATCHED]
    found = [_is_one(f"control, {MATCHED}", matched, _LATE, control=True)]
    verdicts = with_enough_seeds(found, matched["noise"].values.shape[1])
    for world, group in _worlds(result):
        # Early, while predictions are wide: later a few drawn labels hold most of the variance.
        found = [_is_one(f"control, {world}", group, _EARLY, noise="own_label_noise", control=True)]
        exact, gauss_newton = (group[kind].values for kind in ("curvature", "gauss_newton"))
        same = np.allclose(exact, gauss_newton, rtol=1e-3, atol=1e-3 * np.median(gauss_newton))
        for index, moment in enumerate(MOMENTS):
            where = f"{world}, {moment}"
            kinds = CURVATURES if not same else {"gauss_newton": "exact and Gauss-Newton"}
            found += [_is_one(where, group, index, kind, words) for kind, words in kinds.items()]
            found.append(_goes_with(where, group, index))
        verdicts += with_enough_seeds(found, group["noise"].values.shape[1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """R/H of every weight against its H, a panel a world, a colour a moment."""
    names = [MATCHED, *(name for name, _ in _worlds(result))]
    most = max(result.groups[name]["noise"].values[0].size for name in names)

    def points(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(MOMENTS), -1)
        return np.pad(flat, ((0, 0), (0, most - flat.shape[1])), constant_values=np.nan)

    curvature = [points(result.groups[name]["gauss_newton"].values) for name in names]
    noise = [points(result.groups[name]["noise"].values) for name in names]
    medians = [
        [middle_of(ratio_of(result.groups[name], index, "gauss_newton")) for index in range(3)]
        for name in names
    ]
    group = {
        "world": variable("world", names),
        "moment": variable("moment", list(MOMENTS)),
        "curvature": variable(("world", "moment", "weight"), np.stack(curvature)),
        "noise": variable(("world", "moment", "weight"), np.stack(noise)),
        "median_ratio": variable(("world", "moment"), np.array(medians)),
    }
    return noise_over_curvature_figure(group, venue)


def ratio_of(group: Group, moment: int, kind: str, noise: str = "noise") -> np.ndarray:
    """R/H over (weights, seeds): infinite without positive curvature, NaN of dead weights.

    A dead weight has no gradient at all: there is nothing to be seen, and nothing noisy.
    """
    variance, curvature = (group[name].values[moment].T for name in (noise, kind))
    positive = curvature > 0
    ratio = np.where(positive, variance, np.inf) / np.where(positive, curvature, 1)
    return np.where(variance > 0, ratio, np.nan)


def exponent_of(group: Group, moment: int) -> np.ndarray:
    """Slope of log R on log H of the weights of each seed, last axis seeds."""
    noise, curvature = (group[name].values[moment] for name in ("noise", "gauss_newton"))
    return np.array([log_slope(r, h).slope for r, h in zip(noise, curvature, strict=True)])


def _watched(
    config: Config,
    tasks: Sequence[Task],
    chosen: ChosenWeights,
    probes: Mapping[str, Probe],
    seeds: Sequence[int],
) -> Group:
    """The group of one world."""
    adamw = AdamW(config.weight_decay, tasks[0].batch_size)
    program = watcher(adamw.builder(), probes)
    windows = [Window(begin=moment, spacing=1, count=1) for moment in config.moments]
    seen = watch(program, tasks, [config.learning_rate] * len(seeds), seeds, windows)
    dims = ("moment", "seed", "weight")
    measured = {
        name: variable(dims, np.swapaxes(values, 0, 1), units="1/weight^2, summed loss")
        for name, values in seen.items()
    }
    return {
        "moment": variable("moment", list(MOMENTS)),
        "step": variable("moment", np.array(config.moments), units="steps"),
        "layer": variable("weight", layers_of_choice(chosen)),
        **measured,
    }


def _worlds(result: Result) -> list[tuple[str, Group]]:
    return [item for item in result.groups.items() if item[0] != MATCHED]


def _is_one(
    where: str,
    group: Group,
    moment: int,
    kind: str = "gauss_newton",
    curvature: str = "exact",
    *,
    noise: str = "noise",
    control: bool = False,
) -> Verdict:
    ratio = ratio_of(group, moment, kind, noise)
    found = interval_over_seeds(middle_of, ratio)
    layer = group["layer"].values
    names = dict.fromkeys(layer.tolist())
    by_layer = ", ".join(f"{name} {middle_of(ratio[layer == name]):.2g}" for name in names)
    known = ratio[~np.isnan(ratio)]
    measured = f"median {spelled(found)} ({by_layer})"
    if np.isinf(known).any():
        measured += f"; {np.isinf(known).mean():.0%} have no positive curvature"
    band = _CONTROL_BAND if control else _BAND
    what = " of labels drawn from its predictions" if noise == "own_label_noise" else ""
    return Verdict(
        claim=f"{where}: R{what} = H, {curvature} curvature",
        measured=measured,
        expected="1",
        tolerance=f"a factor of {band:g}: a learning rate is not known better; 90 % bootstrap over"
        " seeds, undecided where it crosses that factor",
        holds=within(found, 1 / band, band),
        margin=margin_of(found, 1 / band, band),
    )


def _goes_with(where: str, group: Group, moment: int) -> Verdict:
    slopes = exponent_of(group, moment)
    found = interval_over_seeds(middle_of, slopes)
    noise, curvature = (group[name].values[moment] for name in ("noise", "gauss_newton"))
    live = (noise > 0) & (curvature > 0)
    together = np.corrcoef(np.log(noise[live]), np.log(curvature[live]))[0, 1]
    return Verdict(
        claim=f"{where}: R is proportional to H from weight to weight",
        measured=f"slope of log R on log H {spelled(found)}, correlation {together:.2f}",
        expected="slope 1",
        tolerance="a tenth: over the two or three powers of ten that H spans it comes to the"
        " factor above; 90 % bootstrap over seeds",
        holds=within(found, *_SLOPES),
        margin=margin_of(found, *_SLOPES),
    )
