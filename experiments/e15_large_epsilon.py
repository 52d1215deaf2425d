"""Does Adam with a large epsilon do all that the filter's passage from Adam to SGD does?

Claim: the filter takes Adam's steps where gradients are loud and SGD's where they are quiet, which
adds something to Adam. The rival: Adam whose epsilon is eta_Adam/eta_SGD, beside mean-loss
gradients, has both limits as well, so that the passage adds nothing beyond epsilon.
Source: Aitchison (2020), Adam and SGD as two regimes; P9; Choi et al. (2019), that a tuned
epsilon lets Adam include SGD; Wilson et al. (2017), that adaptive methods generalise worse.
Refuted by: a best cell of the filter that is no better than the best one of Adam with epsilon, on
the same grid and seeds, with the same decay per step (refutes the filter's passage); gaps above
the margin, in the best cell or cell by cell (refutes the rival).
That the gains differ by at most a fifth is algebra, and only a control here. Every optimizer has as
many cells; plain AdamW and SGDW spend theirs on a finer grid of their one rate. The best cell is
chosen by test loss, which flatters all alike. Grids were widened twice where a first run had a best
cell at an edge: of the recursive filter, and of the fixed point on the normalised network. In the
second widening cells of one regime alone, where the two cannot differ, left the comparison cell by
cell, which had counted them. Trained twice with the drift scale changed in the sixth digit, the
fixed point also says what rounding alone makes of a cell.
Cost of PAPER: 2800 runs of 800 steps, about 100 s of CPU time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from bayesfilt.compare import median_over_seeds
from bayesfilt.compare.layers import flat
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.aliases import adabayes, adabayes_fixed_point
from bayesfilt.optimizers.belief_report import filter_state
from bayesfilt.optimizers.rivals import sgdw
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks import Task
from bayesfilt.theory import adam_variance, crossover_gradient, fixed_point_variance, large_epsilon
from experiments.contract import Result, Verdict, judged, not_judged, with_enough_seeds
from experiments.coordinates import task_of
from experiments.grids import Problem, seeds_from
from experiments.many_runs import Numbers, train_many
from experiments.panels import Panel, Series, panels_group
from experiments.tuned_cells import (
    Cells,
    best_at_edge,
    cell_gaps,
    cells_group,
    ends,
    gap_of_best,
    joined,
    log_best,
    lower_best,
    medians_with_intervals,
    over_seeds,
    product,
)

CLAIM = "The filter's passage from Adam to SGD adds something that Adam's epsilon does not."
SETTLES = ("P9", "1.2", "1.16")
CAPTION = (
    "First: gain of the fixed point over that of Adam with epsilon eta_Adam/eta_SGD. Then, a panel"
    " a task: test loss against the learning rate eta_Adam at the best eta_SGD of each (SGDW:"
    " against its own rate), median and 90 % interval over seeds; and the log ratio of the fixed"
    " point's test loss to its rival's in every cell, against the fraction of quiet weights. Last:"
    " the best cells of the fixed point (FP), the recursive filter, Adam with epsilon (eps), AdamW"
    " and SGDW."
)

FIXED, TWIN, RECURSION = "adabayes_fixed_point", "fixed point once more", "adabayes"
EPSILON, ADAMW, SGDW = "adam_large_eps", "adamw", "sgdw"
SPELLED = {FIXED: "the fixed point", RECURSION: "the recursive filter"}

# Of log loss: who tunes a network would not change the optimizer for 5 %.
MARGIN = 0.05
MIXED = 0.1  # of weights in the rarer regime: with fewer, both are Adam, or both SGD
# The root leaves between Adam's gain and the fixed point's at most 5/4, at |g| = 2 eps/3.
LARGEST_RATIO = 1.25
_PRACTICAL = "a margin of 5 % of the loss, for which nobody would change the optimizer"
_TINY_EPSILON = 1e-8
_NUDGE = 1e-6  # relative change of the twin's drift scale


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    adam_rates: tuple[float, ...] = (2.5e-4, 1e-3, 4e-3, 1.6e-2, 6.4e-2)  # eta_Adam, of a weight
    # eta_SGD, beside mean-loss gradients
    sgd_rates: tuple[float, ...] = (0.00625, 0.025, 0.1, 0.4, 1.6)
    shrink: float = 1e-3  # decay per step, the same for all; memory 1000 steps
    adamw_rates: tuple[float, float] = (5e-4, 6.4e-2)  # lowest and highest of as many cells
    sgdw_rates: tuple[float, float] = (0.025, 3.2)

    @property
    def cells(self) -> int:
        """Of every optimizer."""
        return len(self.adam_rates) * len(self.sgd_rates)


PAPER = Config(
    problems=(
        Problem(num_steps=800, num_seeds=8),
        Problem(task="digits-layernorm", num_steps=800, num_seeds=8),
    )
)
QUICK = Config(
    problems=(Problem(num_steps=40, num_seeds=2),), adam_rates=(4e-3, 1.6e-2), sgd_rates=(0.1, 0.4)
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Gains over all gradient sizes, and the grids of every optimizer on every task."""
    groups = {"gains": gain_ratios()}
    for problem in config.problems:
        seeds = seeds_from(key, problem.num_seeds)
        groups |= _trained(config, problem, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """The gains, then on every task what the passage, epsilon and a prior are worth."""
    ratio = result.groups["gains"]["ratio"].values
    lowest, highest = float(ratio.min()), float(ratio.max())
    verdicts = [
        Verdict(
            claim="With epsilon eta_Adam/eta_SGD, Adam's gain is nowhere above the fixed point's"
            " and nowhere more than a fifth below it",
            measured=f"the fixed point's over Adam's from {lowest:.4g} to {highest:.4g}",
            expected=f"1 to {LARGEST_RATIO:g}",
            tolerance="1e-5, rounding; algebra, so only a control",
            holds=lowest >= 1 - 1e-5 and highest <= LARGEST_RATIO + 1e-5,
        )
    ]
    for task in _tasks(result):
        seeds = result.groups[f"{task}/{FIXED}"]["test_loss"].values.shape[-1]
        found = [*_something_beyond_epsilon(result, task), *_worth_of_a_prior(result, task)]
        verdicts += with_enough_seeds(found, seeds)
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Gains, losses at the best SGD rate, and gaps cell by cell."""
    gains = result.groups["gains"]
    panels = [
        Panel(
            "gain, fixed point over Adam",
            "RMS gradient over the crossover's",
            "ratio of gains",
            [Series("same epsilon, by algebra", gains["relative_gradient"].values,
                    gains["ratio"].values, kind="law")],
            x_scale="log", y_scale="linear", guide=LARGEST_RATIO,
        )
    ]  # fmt: skip
    for task in _tasks(result):
        panels += [_loss_panel(result, task), _gap_panel(result, task)]
    panels.append(_best_panel(result))
    return panels_figure(panels_group(panels), venue)


def gain_ratios() -> Group:
    """The fixed point's gain over that of Adam with epsilon, far to both sides of the crossover."""
    relative = np.geomspace(1e-4, 1e4, 801)
    eta, sigma2 = 1e-3, 1e-2
    rms = jnp.asarray(relative * crossover_gradient(eta, sigma2))
    # Adam's gain eta/(|g| + eps), from its own law without epsilon.
    adam = 1 / (1 / adam_variance(rms**2, eta) + large_epsilon(eta, sigma2) / eta)
    return {
        "relative_gradient": variable("point", relative, units="1"),
        "ratio": variable(
            "point", np.asarray(fixed_point_variance(rms**2, eta, sigma2) / adam), units="1"
        ),
    }


def quiet_fraction(task: Task, view: StepView) -> Array:
    """Fraction of the weights with a gradient whose RMS is below the crossover."""
    del task
    state: Any = filter_state(view.opt_state)
    square = flat(state.mean_square_gradient) * state.debias
    live = square > 0
    bound = crossover_gradient(state.drift_scale, state.stationary_variance)
    return jnp.sum(live & (jnp.sqrt(square) < bound)) / jnp.sum(live)


def _trained(config: Config, problem: Problem, seeds: tuple[int, ...]) -> dict[str, Group]:
    """Four programs: the fixed point and its twin, the recursion, Adam of any epsilon, SGDW."""
    task, batch = task_of(problem), problem.batch_size
    grid = product(drift_scale=config.adam_rates, sgd_rate=config.sgd_rates)
    count = config.cells

    def bayes(alias: Any) -> Any:
        def build(numbers: Numbers) -> optax.GradientTransformation:
            variance = numbers["sgd_rate"] / batch
            return alias(
                numbers["drift_scale"], variance, batch_size=batch, weight_decay=config.shrink
            )

        return build

    def adam(numbers: Numbers) -> optax.GradientTransformation:
        rate = numbers["drift_scale"]
        return optax.adamw(rate, eps=numbers["eps"], weight_decay=config.shrink / rate)

    def heavy_ball(numbers: Numbers) -> optax.GradientTransformation:
        # Old gradients add up here: a tenth of the rate moves as far as their mean does.
        return sgdw(0.1 * numbers["sgd_rate"], momentum=0.9, weight_decay=config.shrink)

    def train(build: Any, cells: dict[str, np.ndarray], **options: Any) -> Any:
        return train_many(task, build, cells, seeds, problem.num_steps, **options)

    twin = {**grid, "drift_scale": grid["drift_scale"] * (1 + _NUDGE)}
    plain = {"drift_scale": np.geomspace(*config.adamw_rates, count)}
    # Beside mean-loss gradients; the batch size cancels.
    summed = (jnp.asarray(grid["drift_scale"]), jnp.asarray(grid["sgd_rate"] / batch))
    eps = np.asarray(large_epsilon(*summed), float) / batch
    rivals = joined(
        {"drift_scale": grid["drift_scale"], "eps": eps},
        {**plain, "eps": np.full(count, _TINY_EPSILON)},
    )
    quiet = {"sgd_rate": np.geomspace(*config.sgdw_rates, count)}
    fixed = train(
        bayes(adabayes_fixed_point), joined(grid, twin),
        probes={"quiet": quiet_fraction},
    )  # fmt: skip
    recursion, rival = train(bayes(adabayes), grid), train(adam, rivals)
    first, second = slice(count), slice(count, None)
    found = {
        FIXED: cells_group(grid, ends(fixed, first)),
        TWIN: cells_group(twin, ends(fixed, second)),
        RECURSION: cells_group(grid, ends(recursion)),
        EPSILON: cells_group({**grid, "eps": eps}, ends(rival, first)),
        ADAMW: cells_group(plain, ends(rival, second)),
        SGDW: cells_group(quiet, ends(train(heavy_ball, quiet))),
    }
    half = problem.num_steps // 2  # when the moments have long been filled
    found[FIXED]["quiet"] = variable(("cell", "seed"), fixed.records["quiet"][:count, :, half])
    return {f"{problem.name}/{name}": group for name, group in found.items()}


def _something_beyond_epsilon(result: Result, task: str) -> list[Verdict]:
    rival = _values(result, task, EPSILON)
    verdicts = []
    for name, spelled in SPELLED.items():
        ours = _values(result, task, name)
        edges = _at_edge(result, task, name), _at_edge(result, task, EPSILON)
        tolerance = f"90 % bootstrap over paired seeds; {_PRACTICAL}"
        same = judged(
            f"{task}: the best test losses of {spelled} and of Adam with epsilon are within"
            " 5 % of each other",
            gap_of_best(ours, rival), low=-MARGIN, high=MARGIN, unit="(log ratio)",
            tolerance=tolerance,
        )  # fmt: skip
        verdicts += [
            lower_best(
                f"{task}: the best test loss of {spelled} is more than 5 % below that of Adam with"
                " epsilon",
                ours, rival, bound=-MARGIN, first_at_edge=edges[0], second_at_edge=edges[1],
                tolerance=tolerance,
            ),
            not_judged(same, "as a best cell is at the edge of its grid") if any(edges) else same,
        ]  # fmt: skip
    verdicts += [
        _cell_by_cell(result, task, "test_loss", "test loss"),
        _cell_by_cell(result, task, "training_loss", "training loss"),
    ]
    quiet = median_over_seeds(result.groups[f"{task}/{FIXED}"]["quiet"].values)
    if quiet.min() < 0.25 and quiet.max() > 0.75:
        return verdicts
    return [not_judged(each, "as the grid has not both regimes") for each in verdicts]


def _cell_by_cell(result: Result, task: str, name: str, spelled: str) -> Verdict:
    quiet = median_over_seeds(result.groups[f"{task}/{FIXED}"]["quiet"].values)
    mixed = (quiet > MIXED) & (quiet < 1 - MIXED)
    fixed, rival, twin = (
        _values(result, task, each, name)[mixed] for each in (FIXED, EPSILON, TWIN)
    )

    def typical(first: Cells, second: Cells) -> float:
        """Gap of the middle cell, whatever its sign."""
        gaps = np.abs(cell_gaps(first, second))
        return float(np.nanmedian(gaps)) if np.isfinite(gaps).any() else float("nan")

    alone = typical(fixed, twin)
    most = np.nanmax(np.abs(cell_gaps(fixed, rival)), initial=0)
    return judged(
        f"{task}: cell by cell, the {spelled} of the fixed point and of Adam with epsilon differ by"
        " less than 5 %, in the median cell of both regimes",
        over_seeds(typical, fixed, rival),
        high=MARGIN,
        unit=f"of the log; {alone:.2g} by rounding alone, at most {most:.2g} in one of"
        f" {len(fixed)} cells",
        tolerance=f"90 % bootstrap over paired seeds; {_PRACTICAL}; cells with {100 * MIXED:g} % to"
        f" {100 * (1 - MIXED):g} % of quiet weights",
    )


def _worth_of_a_prior(result: Result, task: str) -> list[Verdict]:
    """Against plain AdamW and SGDW, each with as many cells."""
    words = {**SPELLED, EPSILON: "Adam with a tuned epsilon"}
    rivals = {ADAMW: "plain AdamW", SGDW: "SGDW"}
    verdicts = [
        lower_best(
            f"{task}: the best test loss of {spelled} is below that of {other}",
            _values(result, task, name),
            _values(result, task, rival),
            first_at_edge=_at_edge(result, task, name),
            second_at_edge=_at_edge(result, task, rival),
        )
        for name, spelled in words.items()
        for rival, other in rivals.items()
    ]
    verdicts.append(
        lower_best(
            f"{task}: Adam with a tuned epsilon errs at most 5 % more than SGDW, in test error",
            _values(result, task, EPSILON, "test_error"),
            _values(result, task, SGDW, "test_error"),
            bound=MARGIN,
            first_at_edge=_at_edge(result, task, EPSILON, "test_error"),
        )
    )
    return verdicts


def _at_edge(result: Result, task: str, name: str, measure: str = "test_loss") -> bool:
    """At an end of the rates behind which something else may be.

    Beyond the highest SGD rate is Adam at its own rate, and beyond the highest of Adam's is SGD.
    """
    group = result.groups[f"{task}/{name}"]
    values = group[measure].values
    rates = [group[rate].values for rate in ("drift_scale", "sgd_rate") if rate in group]
    if name in (ADAMW, SGDW):
        return best_at_edge(values, *rates)
    best = int(np.argmin(median_over_seeds(values)))
    lowest, highest = ([rate[best] == end(rate) for rate in rates] for end in (np.min, np.max))
    return any(lowest) or all(highest)


def _values(result: Result, task: str, name: str, measure: str = "test_loss") -> Cells:
    return result.groups[f"{task}/{name}"][measure].values


def _tasks(result: Result) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in result.groups if "/" in name))


def _loss_panel(result: Result, task: str) -> Panel:
    series = []
    for name in (FIXED, RECURSION, EPSILON, ADAMW, SGDW):
        group = result.groups[f"{task}/{name}"]
        middle, low, high = medians_with_intervals(group["test_loss"].values)
        rate = group["sgd_rate" if name == SGDW else "drift_scale"].values
        # Several cells at one rate: the best of them.
        best = [
            min(np.flatnonzero(rate == each), key=lambda cell: np.nan_to_num(middle[cell], nan=1e9))
            for each in np.unique(rate)
        ]
        series.append(Series(name, np.unique(rate), middle[best], low[best], high[best]))
    return Panel(task, "learning rate", "test loss (nats)", series, x_scale="log", y_scale="linear")


def _gap_panel(result: Result, task: str) -> Panel:
    fixed = result.groups[f"{task}/{FIXED}"]
    quiet = median_over_seeds(fixed["quiet"].values)
    ours = fixed["test_loss"].values
    series = [
        Series(label, quiet, cell_gaps(ours, _values(result, task, name)), kind="points")
        for label, name in (("against Adam with epsilon", EPSILON), ("against its twin", TWIN))
    ]
    return Panel(
        f"{task}, by cell",
        "fraction of quiet weights",
        "log ratio of test losses",
        series,
        x_scale="linear",
        y_scale="linear",
        guide=0.0,
    )


def _best_panel(result: Result) -> Panel:
    names = (FIXED, RECURSION, EPSILON, ADAMW, SGDW)
    series = []
    for task in _tasks(result):
        found = [over_seeds(log_best, _values(result, task, name)) for name in names]
        series.append(Series(task, np.arange(len(names)), *np.exp(np.array(found)).T))
    return Panel(
        "best cell of each",
        "",
        "test loss (nats)",
        series,
        y_scale="linear",
        places=("FP", "filter", "eps", "Adam", "SGD"),
    )
