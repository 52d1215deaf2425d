"""Do weights migrate from Adam's regime to SGD's as training goes on?

Claim: gradients shrink during training, so that weight after weight falls below the crossover and
the filter ends as SGD; with a decay that is tied to the prior nearly every weight stays with Adam.
Source: Aitchison (2020), "Adam early, SGD late"; P4; the dictionary (DICT-1) for the tied decay.
Refuted by: a fraction of weights in Adam's regime, B sqrt(v) sigma^2/eta > 1, that does not fall
(released settings) or falls below 0.95 (tied).
The released settings are lr 1e-3 and lr_sgd 0.1 beside mean-loss gradients, sigma^2 = 0.1/B: the
crossover is an RMS mean-loss gradient of 0.01 at any batch size. Decay 5e-5 per step, as released.
Rates are constant: the released schedule multiplies both and leaves the crossover alone. Tied means
sigma^2 = lr/(2 wd), wd = 0.01, PyTorch's default; 0.1 is drawn as well. A recursive filter takes
Adam's steps only when its variance, which starts at sigma^2, has followed. A first draft told the
regime by the variance; since then it is told by gradients, and the variance by a verdict of its
own, as the recursive filter's starts at sigma^2 whatever the gradients are. Weights that never had
a gradient (behind border pixels that are always 0, dead units) say nothing of migration and are
left out. Whether a gradient falls is the premise, and judged by itself: with wrong labels to learn
by heart it need not.
Cost of PAPER: 40 runs of 3000 steps, about 30 s of CPU time.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from bayesfilt.compare import layers_of, median_over_seeds
from bayesfilt.compare.layers import flat, sums_by_layer
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.aliases import adabayes, adabayes_fixed_point
from bayesfilt.optimizers.belief_report import filter_state, posterior_variance
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks import Task
from bayesfilt.theory import crossover_gradient
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import task_of
from experiments.grids import Problem, seeds_from
from experiments.many_runs import ManyRuns, Numbers, train_many
from experiments.panels import Panel, Series, panels_group
from experiments.tuned_cells import medians_with_intervals, over_seeds
from experiments.watched_squares import watch_squares, watched_squares

CLAIM = "Weights migrate from Adam's regime to SGD's as their gradients shrink."
SETTLES = ("P4",)
CAPTION = (
    "Fraction of the weights with gradients that are in Adam's regime during training, all layers"
    " together and by layer, medians and 90 % intervals over seeds (by its steps: whose variance is"
    " below that of the crossover); and RMS mean-loss gradients of"
    " all weights at four moments, as a fraction in each quarter of a decade, the crossover as an"
    " upright line."
)

RELEASED, RECURSION = "released, fixed point", "released, recursive"
# 2/(1 + sqrt 5): at the crossover the fixed point's variance is this fraction of sigma^2.
AT_CROSSOVER = 2 / (1 + 5**0.5)
EDGES = np.linspace(-6, 1, 29)  # of log10 of the RMS mean-loss gradient
TIED = "tied to wd "
_LEAST_FALL = 0.1  # of all weights
_MOMENTS = ("early", "after a third", "after two thirds", "at the end")
_TIED_STAYS = 0.95  # nearly every weight, as the dictionary implies
_MEMORY = 0.999
_TOLERANCE = "90 % bootstrap over paired seeds"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    drift_scale: float = 1e-3  # lr of the released code
    sgd_rate: float = 0.1  # lr_sgd, beside mean-loss gradients
    shrink: float = 5e-5  # weight_drift, per step
    tied: tuple[float, ...] = (0.01, 0.1)  # wd of sigma^2 = lr/(2 wd), decay lr wd per step
    early: float = 0.05  # of the run: gradients are still of their first size
    records: int = 60


PAPER = Config(
    problems=(
        Problem(subset=None, label_noise=0.0, num_steps=3_000, num_seeds=5),
        Problem(num_steps=3_000, num_seeds=5),
    )
)
QUICK = Config(problems=(Problem(num_steps=60, num_seeds=2),), tied=(0.01,))


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train with each setting and count regimes at every record."""
    groups = {}
    for problem in config.problems:
        seeds = seeds_from(key, problem.num_seeds)
        groups |= _watched(config, problem, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """The premise, the migration, its mechanism, and the tied decay."""
    verdicts = []
    for task, members in itertools.groupby(result.groups.items(), lambda item: _task(item[0])):
        found = []
        for name, group in members:
            found += _judged(task, name.partition("/")[2], group)
        seeds = result.groups[f"{task}/{RELEASED}"]["loud"].values.shape[0]
        verdicts += with_enough_seeds(found, seeds)
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Fractions in time, by setting and by layer, and gradients at four moments."""
    panels = []
    for task in dict.fromkeys(_task(name) for name in result.groups):
        released = result.groups[f"{task}/{RELEASED}"]
        settings = [
            _course(name.partition("/")[2], group, -1)
            for name, group in result.groups.items()
            if _task(name) == task
        ]
        recursive = result.groups[f"{task}/{RECURSION}"]
        settings.append(_course("recursive, by its steps", recursive, -1, "small_steps"))
        layers = released["layer"].values.tolist()
        by_layer = [_course(f"layer {layer}", released, at) for at, layer in enumerate(layers[:-1])]
        panels += [
            _fraction_panel(task, settings),
            _fraction_panel("by layer, as released", by_layer),
            _gradient_panel(released),
        ]
    return panels_figure(panels_group(panels), venue)


def regimes(task: Task, view: StepView) -> dict[str, Array]:
    """Fraction of each layer's live weights in Adam's regime, and a histogram of their gradients.

    A weight is in Adam's regime where B sqrt(v) sigma^2/eta > 1, with Adam's own v; and it takes
    smaller steps than SGD where its variance is below that of the crossover, which for the fixed
    point is the same, and for the recursive filter comes later.
    """
    state: Any = filter_state(view.opt_state)
    variance = flat(posterior_variance(view.opt_state))
    square = flat(watched_squares(view.opt_state)[0])
    live = square > 0
    layers = layers_of(view.params)
    rms = jnp.sqrt(square / (1 - _MEMORY ** (view.step + 1.0)))
    bound = crossover_gradient(state.drift_scale, state.stationary_variance) / task.batch_size
    small = variance < AT_CROSSOVER * state.stationary_variance
    counted = jnp.stack([live & (rms > bound), live & small, live]).astype(jnp.float32)
    loud, steps, every = sums_by_layer(layers, counted)
    place = jnp.searchsorted(jnp.asarray(EDGES[1:-1], rms.dtype), jnp.log10(rms))
    share = jnp.zeros(len(EDGES) - 1).at[place].add(live.astype(rms.dtype)) / jnp.sum(live)
    return {
        "loud": loud / every,
        "small_steps": steps / every,
        "live": every,
        "gradient": jnp.nanmedian(jnp.where(live, rms, jnp.nan)),
        "share": share,
    }


def _watched(config: Config, problem: Problem, seeds: tuple[int, ...]) -> dict[str, Group]:
    """The fixed point at every setting as one program, then the recursion as released."""
    task, batch, rate = task_of(problem), problem.batch_size, config.drift_scale

    def watching(alias: Any) -> Any:
        def build(numbers: Numbers) -> optax.GradientTransformation:
            filtered = alias(
                rate, numbers["variance"], batch_size=batch, weight_decay=numbers["shrink"]
            )
            return optax.chain(watch_squares((_MEMORY,)), filtered)

        return build

    def train(alias: Any, cells: dict[str, np.ndarray]) -> ManyRuns:
        return train_many(
            task,
            watching(alias),
            cells,
            seeds,
            problem.num_steps,
            probes={"regimes": regimes},
            record_every=max(1, problem.num_steps // config.records),
        )

    released = (config.sgd_rate / batch, config.shrink)
    tied = [(rate / (2 * decay), rate * decay) for decay in config.tied]
    variances, shrinks = np.array([released, *tied]).T
    fixed = train(adabayes_fixed_point, {"variance": variances, "shrink": shrinks})
    recursive = train(adabayes, {"variance": variances[:1], "shrink": shrinks[:1]})
    layers = layers_of(task.init_params(jax.random.key(0))).names
    names = [RELEASED, *(f"{TIED}{decay:g}" for decay in config.tied)]
    runs = [(name, fixed, place) for place, name in enumerate(names)] + [(RECURSION, recursive, 0)]
    return {
        f"{problem.name}/{name}": _group(config, problem, layers, found, place, float(variance))
        for (name, found, place), variance in zip(runs, [*variances, variances[0]], strict=True)
    }


def _group(
    config: Config,
    problem: Problem,
    layers: tuple[str, ...],
    runs: ManyRuns,
    place: int,
    variance: float,
) -> Group:
    seen = {name: values[place] for name, values in runs.records["regimes"].items()}
    crossover = float(crossover_gradient(config.drift_scale, variance)) / problem.batch_size
    early = int(np.searchsorted(runs.step, config.early * problem.num_steps))
    return {
        "step": variable("step", runs.step, units="steps"),
        "layer": variable("layer", list(layers)),
        "loud": variable(("seed", "step", "layer"), seen["loud"], units="1"),
        "small_steps": variable(("seed", "step", "layer"), seen["small_steps"], units="1"),
        "live": variable(("seed", "step", "layer"), seen["live"], units="weights"),
        "gradient": variable(("seed", "step"), seen["gradient"], units="1/weight"),
        "share": variable(("seed", "step", "bin"), seen["share"], units="1"),
        "crossover": variable((), np.array(crossover), units="1/weight"),
        "early": variable((), np.array(early)),
    }


def _judged(task: str, setting: str, group: Group) -> list[Verdict]:
    where = f"{task}, {setting}"
    if setting == RELEASED:
        return [_gradients_shrink(where, group), *_migrates(where, group)]
    if setting == RECURSION:
        return [_steps_follow(where, group), *_migrates(where, group)]
    return [_stays_loud(where, group)] if setting == f"{TIED}0.01" else []


def _gradients_shrink(where: str, group: Group) -> Verdict:
    early = int(group["early"].values)
    return judged(
        f"{where}: the RMS gradient of the median weight is smaller at the end than early",
        over_seeds(
            lambda drawn: float(median_over_seeds(drawn[-1] - drawn[early])),
            np.log(group["gradient"].values.T),
        ),
        high=0.0,
        tolerance=_TOLERANCE,
        unit="(log ratio)",
    )


def _migrates(where: str, group: Group) -> list[Verdict]:
    loud, early = _seeds_last(group, "loud"), int(group["early"].values)

    def change(drawn: np.ndarray) -> np.ndarray:
        """Of each layer's fraction, all of them last."""
        return median_over_seeds(drawn[-1] - drawn[early])

    return [
        judged(
            f"{where}: the fraction of weights in Adam's regime falls by more than a tenth from"
            " early to the end",
            over_seeds(lambda drawn: float(change(drawn)[-1]), loud),
            high=-_LEAST_FALL,
            tolerance=f"{_TOLERANCE}; fewer weights would be no migration",
        ),
        judged(
            f"{where}: in every layer the fraction of weights in Adam's regime falls",
            over_seeds(lambda drawn: float(change(drawn)[:-1].max()), loud),
            high=0.0,
            tolerance=f"{_TOLERANCE}; of the layer in which it falls least",
        ),
        judged(
            f"{where}: most weights are in SGD's regime at the end",
            over_seeds(lambda drawn: float(median_over_seeds(drawn[-1, -1])), loud),
            high=0.5,
            unit="of the weights in Adam's",
            tolerance=_TOLERANCE,
        ),
    ]


def _steps_follow(where: str, group: Group) -> Verdict:
    return judged(
        f"{where}: at the end as many weights take Adam's steps as are in Adam's regime, to a"
        " tenth of all",
        over_seeds(
            lambda steps, regime: float(median_over_seeds((steps - regime)[-1, -1])),
            _seeds_last(group, "small_steps"),
            _seeds_last(group, "loud"),
        ),
        low=-_LEAST_FALL,
        high=_LEAST_FALL,
        tolerance=_TOLERANCE,
    )


def _stays_loud(where: str, group: Group) -> Verdict:
    early = int(group["early"].values)
    return judged(
        f"{where}: more than 95 % of the weights are in Adam's regime throughout",
        over_seeds(
            lambda drawn: float(median_over_seeds(drawn[early:, -1]).min()),
            _seeds_last(group, "loud"),
        ),
        low=_TIED_STAYS,
        tolerance=_TOLERANCE,
    )


def _seeds_last(group: Group, name: str) -> np.ndarray:
    """Fractions as (steps, layers, seeds)."""
    return np.moveaxis(group[name].values, 0, -1)


def _task(name: str) -> str:
    return name.partition("/")[0]


def _course(label: str, group: Group, layer: int, name: str = "loud") -> Series:
    fraction = _seeds_last(group, name)[:, layer]
    return Series(label, group["step"].values, *medians_with_intervals(fraction))


def _fraction_panel(title: str, series: list[Series]) -> Panel:
    return Panel(
        title,
        "step",
        "fraction in Adam's regime",
        series,
        x_scale="linear",
        y_scale="linear",
    )


def _gradient_panel(group: Group) -> Panel:
    """Distribution of RMS gradients at four moments, mean over seeds."""
    middles = 10 ** (0.5 * (EDGES[1:] + EDGES[:-1]))
    share, step = group["share"].values.mean(axis=0), group["step"].values
    early, last = int(group["early"].values), len(step) - 1
    places = np.unique(np.linspace(early, last, 4).round().astype(int))
    series = [Series(_MOMENTS[turn], middles, share[place]) for turn, place in enumerate(places)]
    crossover = float(group["crossover"].values)
    series.append(Series("crossover", [crossover] * 2, [0.0, float(share.max())], kind="law"))
    return Panel(
        "gradients, as released",
        "RMS mean-loss gradient",
        "fraction of weights",
        series,
        x_scale="log",
        y_scale="linear",
    )
