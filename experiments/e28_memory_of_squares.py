"""Does Adam's memory of squares matter for more than the noise it leaves in them?

Claim: b2 only matters through the variance of v: noise in v is a change of the mean step, which
another learning rate undoes, and a memory 1/(1 - b2) far longer than the filter's own 1/gain is not
required. The rival: b1 = b2 is better, as Adam is then a mean over a deviation of innovations.
Source: P40; Orvieto and Gower (2025) for b1 = b2. The filter of 2020 says nothing of b2.
Refuted by: a loss that depends on b2 after the learning rate is tuned again; a short memory that
costs more than 5 %; no gain of b1 = b2 (refutes the rival).
Both Adam and the filter's fixed point, bias corrected, with one decay per step. How b2 changes
the mean step is measured on the same gradients: one optimizer carries a v of every memory beside
its own. That predicts the loss at one b2 from the curve of losses over rates at b2 = 0.999; the
prediction takes all that changes the mean step, the lag of v behind shrinking gradients too.
The grid of rates was moved, and the watched memories were added, after first results. Training
losses near zero scatter by more than 5 %, so that of them little can be told.
Cost of PAPER: 1160 runs of 800 steps, about 45 s of CPU time.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from bayesfilt.compare import median_over_seeds
from bayesfilt.compare.layers import flat
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.aliases import adabayes_fixed_point
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.moments import debias_factor
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks import Task
from experiments.contract import (
    Result,
    Verdict,
    all_of,
    judged,
    margin_of,
    not_judged,
    spelled,
    with_enough_seeds,
    within,
)
from experiments.coordinates import task_of
from experiments.grids import Problem, seeds_from
from experiments.many_runs import Numbers, train_many
from experiments.panels import Panel, Series, panels_group
from experiments.tuned_cells import (
    Cells,
    best_at_edge,
    cells_group,
    ends,
    joined,
    log_best,
    lower_best,
    medians_with_intervals,
    over_seeds,
    product,
)
from experiments.watched_squares import watch_squares, watched_squares

CLAIM = "The memory of squares only matters as another learning rate would."
SETTLES = ("P40",)
CAPTION = (
    "Test and training loss against the memory of squares 1/(1 - b2): at the rate that is best for"
    " b2 = 0.999, with the rate tuned again, and on the diagonal b1 = b2, with 90 % intervals over"
    " seeds. Last: mean step on the same gradients, relative to b2 = 0.999."
)

ADAM, FIXED = "adamw", "adabayes_fixed_point"
SPELLED = {ADAM: "AdamW", FIXED: "the fixed point"}
LOSSES = {"test_loss": "test loss", "training_loss": "training loss"}
USUAL = 0.999
# Of log loss: nobody would tune b2 for 5 %.
MARGIN = 0.05
_PRACTICAL = "90 % bootstrap over paired seeds; a margin of 5 %, for which nobody would tune b2"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem
    memories: tuple[float, ...] = (0.9, 0.97, 0.99, 0.997, 0.999, 0.9997)  # b2
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    diagonal: tuple[float, ...] = (0.7, 0.8, 0.9, 0.95, 0.97, 0.99)  # b1 = b2
    b1: float = 0.9  # beside the memories
    shrink: float = 1e-3  # decay per step
    sgd_rate: float = 1.0  # of the fixed point's prior, beside mean-loss gradients


PAPER = Config(problem=Problem(num_steps=800, num_seeds=8))
QUICK = Config(
    problem=Problem(num_steps=40, num_seeds=2),
    memories=(0.9, 0.999),
    rates=(4e-3, 8e-3),
    diagonal=(0.9, 0.95),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Both optimizers at every rate and memory, and all memories on the same gradients."""
    seeds = seeds_from(key, config.problem.num_seeds)
    task, batch, steps = (
        task_of(config.problem),
        config.problem.batch_size,
        config.problem.num_steps,
    )

    def adam(numbers: Numbers) -> optax.GradientTransformation:
        rate = numbers["rate"]
        memory: dict[str, Any] = {"b1": numbers["b1"], "b2": numbers["b2"]}
        return optax.adamw(rate, weight_decay=config.shrink / rate, **memory)

    def fixed_point(numbers: Numbers) -> optax.GradientTransformation:
        memory: dict[str, Any] = {"b1": numbers["b1"], "b2": numbers["b2"]}
        variance = config.sgd_rate / batch
        return adabayes_fixed_point(
            numbers["rate"], variance, batch_size=batch, weight_decay=config.shrink, **memory
        )

    cells = _cells(config)
    groups = {}
    for name, build in ((ADAM, adam), (FIXED, fixed_point)):
        groups[name] = cells_group(cells, ends(train_many(task, build, cells, seeds, steps)))
    groups["steps"] = _steps_of_memories(config, task, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Dependence on b2 as it is and after tuning, the prediction, short memories, the diagonal."""
    verdicts = []
    for name in SPELLED:
        for loss in LOSSES:
            verdicts += _dependence(result, name, loss)
        verdicts += [_short_is_enough(result, name), _predicted(result, name)]
    verdicts += [_diagonal(result, loss) for loss in LOSSES]
    seeds = result.groups[ADAM]["test_loss"].values.shape[-1]
    return with_enough_seeds(verdicts, seeds)


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Losses against memory, and the mean step."""
    panels = [_loss_panel(result, name, loss) for loss in LOSSES for name in SPELLED]
    group = result.groups["steps"]
    middle, low, high = medians_with_intervals(group["relative_step"].values)
    panels.append(
        Panel(
            "mean step, same gradients",
            "memory of squares (steps)",
            "relative to b2 = 0.999",
            [Series("AdamW's update", 1 / (1 - group["b2"].values), middle, low, high)],
            x_scale="log", y_scale="linear", guide=1.0,
        )
    )  # fmt: skip
    return panels_figure(panels_group(panels), venue)


def _cells(config: Config) -> dict[str, np.ndarray]:
    """Every rate with every memory, then with every b1 = b2."""
    beside = product(b2=config.memories, rate=config.rates)
    diagonal = product(b2=config.diagonal, rate=config.rates)
    return joined(
        {**beside, "b1": np.full(beside["b2"].size, config.b1)},
        {**diagonal, "b1": diagonal["b2"]},
    )


def _steps_of_memories(config: Config, task: Task, seeds: tuple[int, ...]) -> Group:
    """Mean |m|/sqrt(v) of each memory over weights and steps, over that of the usual one."""
    rate = config.rates[len(config.rates) // 2]

    def mean_steps(task: Task, view: StepView) -> dict[str, Array]:
        """Of every memory; and the fixed point's gain at the usual one, a geometric mean."""
        moment = flat(only_state(optax.ScaleByAdamState, view.opt_state).mu)
        squares = watched_squares(view.opt_state)
        steps, gains = [], []
        for b2, square in zip(config.memories, squares, strict=True):
            v = flat(square) * debias_factor(b2, view.step + 1, jnp.dtype("float32"))
            live = v > 0
            rms = jnp.sqrt(jnp.where(live, v, 1.0))
            steps.append(jnp.sum(jnp.abs(moment) / rms * live))
            gains.append(jnp.sum(jnp.log(rate * task.batch_size * rms) * live) / jnp.sum(live))
        return {"step": jnp.stack(steps), "log_gain": gains[usual]}

    usual = config.memories.index(USUAL)

    def build(numbers: Numbers) -> optax.GradientTransformation:
        adam = optax.adamw(numbers["rate"], b1=config.b1, weight_decay=config.shrink / rate)
        return optax.chain(watch_squares(config.memories), adam)

    runs = train_many(
        task,
        build,
        {"rate": np.array([rate])},
        seeds,
        config.problem.num_steps,
        probes={"memories": mean_steps},
    )
    seen = {name: values[0] for name, values in runs.records["memories"].items()}
    total = seen["step"].sum(axis=1).T  # (memories, seeds)
    return {
        "b2": variable("memory", np.array(config.memories)),
        "relative_step": variable(("memory", "seed"), total / total[usual], units="1"),
        # The time constant of the filter's variance is half of 1/gain.
        "own_memory": variable("seed", 0.5 * np.exp(-seen["log_gain"].mean(axis=1)), units="steps"),
    }


class Grid(NamedTuple):
    """The grid beside one b1: losses (memories, rates, seeds)."""

    memories: np.ndarray
    rates: np.ndarray
    values: Cells

    def usual(self) -> int:
        """Place of the usual memory."""
        return self.memories.tolist().index(USUAL)


def _grid(result: Result, name: str, loss: str) -> Grid:
    group, config = result.groups[name], result.attributes["config"]
    memories, rates = np.array(config["memories"]), np.array(config["rates"])
    count = memories.size * rates.size
    values = group[loss].values
    return Grid(memories, rates, values[:count].reshape(memories.size, rates.size, -1))


def log_medians(values: Cells) -> np.ndarray:
    """Logarithm of medians over seeds; NaN where they are infinite."""
    medians = median_over_seeds(values)
    return np.log(np.where((medians > 0) & np.isfinite(medians), medians, np.nan))


def _dependence(result: Result, name: str, loss: str) -> list[Verdict]:
    grid = _grid(result, name, loss)
    usual = grid.usual()
    at = int(np.argmin(median_over_seeds(grid.values[usual])))

    def fixed(values: Cells) -> float:
        return log_best(values[at : at + 1])

    where, word = SPELLED[name], LOSSES[loss]
    tuned = _stays(
        f"{where}: with the rate tuned again, the {word} stays within 5 % for every b2",
        grid,
        log_best,
    )
    if any(best_at_edge(values, grid.rates) for values in grid.values):
        tuned = not_judged(tuned, "as a best rate is at the edge of the grid")
    return [
        _stays(
            f"{where}: at the rate that is best for b2 = 0.999, the {word} stays within 5 % for"
            " every b2",
            grid,
            fixed,
        ),
        tuned,
    ]


def _stays(claim: str, grid: Grid, height: Callable[[Cells], float]) -> Verdict:
    """Whether a log loss stays near the usual memory's: yes if all do, no as soon as one leaves."""
    usual = grid.usual()
    gaps = {
        float(b2): over_seeds(
            lambda values, at=at: height(values[at]) - height(values[usual]), grid.values
        )
        for at, b2 in enumerate(grid.memories)
        if at != usual
    }
    b2, worst = max(gaps.items(), key=lambda item: abs(item[1].estimate))
    margins = {at: margin_of(gap, -MARGIN, MARGIN) for at, gap in gaps.items()}
    holds = all_of(*(within(gap, -MARGIN, MARGIN) for gap in gaps.values()))
    return Verdict(
        claim=claim,
        measured=f"log ratio to b2 = {USUAL:g} is largest at b2 = {b2:g}, {spelled(worst)}",
        expected=f"-{MARGIN:g} to {MARGIN:g}",
        tolerance=f"{_PRACTICAL}; yes if all are inside, no as soon as one is outside",
        holds=holds,
        # Of a yes the least clear gap, of a no the clearest.
        margin=margins[b2] if holds is False else min(margins.values()),
    )


def _short_is_enough(result: Result, name: str) -> Verdict:
    """The shortest memory, tuned, against the usual one, tuned."""
    grid = _grid(result, name, "test_loss")
    shortest, usual = grid.values[int(np.argmin(grid.memories))], grid.values[grid.usual()]
    found = lower_best(
        f"{SPELLED[name]}: with a memory of ten squares, shorter than the filter's own, the best"
        " test loss is at most 5 % above that with a thousand",
        shortest,
        usual,
        bound=MARGIN,
        first_at_edge=best_at_edge(shortest, grid.rates),
        second_at_edge=best_at_edge(usual, grid.rates),
        tolerance=_PRACTICAL,
    )
    own = float(np.median(result.groups["steps"]["own_memory"].values))
    if own > 1 / (1 - grid.memories.min()):
        return found
    return not_judged(found, f"as the filter's own memory is only {own:.2g} steps")


def changes(grid: Grid, values: Cells, relative_step: Cells) -> tuple[float, float]:
    """RMS change of the log loss with b2 at fixed rates, and what the mean step leaves of it.

    The prediction is the curve of log losses over rates at the usual memory, by lines between
    the rates, read at the rate times the relative step; beyond the rates nothing is predicted.
    """
    heights = log_medians(values)
    usual = grid.usual()
    places = np.log(grid.rates)
    shifted = places + np.log(np.median(relative_step, axis=-1))[:, None]
    inside = (shifted >= places[0]) & (shifted <= places[-1])
    inside[usual] = False
    predicted = np.interp(shifted, places, heights[usual])
    parts = heights - heights[usual], heights - predicted
    raw, left = (float(np.sqrt(np.nanmean(each[inside] ** 2))) for each in parts)
    return raw, left


def _predicted(result: Result, name: str) -> Verdict:
    grid = _grid(result, name, "training_loss")
    steps = result.groups["steps"]["relative_step"].values

    def share_left(values: Cells, relative_step: Cells) -> float:
        raw, left = changes(grid, values, relative_step)
        return left / raw

    raw, _ = changes(grid, grid.values, steps)
    found = judged(
        f"{SPELLED[name]}: the mean step explains more than half of how the training loss changes"
        " with b2 at fixed rates",
        over_seeds(share_left, grid.values, steps),
        high=0.5,
        unit=f"of the RMS change, {raw:.2g} of the log, is left",
        tolerance="90 % bootstrap over paired seeds; all rates and memories",
    )
    if raw < MARGIN:
        return not_judged(found, "as there is hardly a change to explain")
    return found


def _diagonal(result: Result, loss: str) -> Verdict:
    """As many cells for both."""
    group = result.groups[ADAM]
    grid = _grid(result, ADAM, loss)
    count = grid.memories.size * grid.rates.size
    values, rates = group[loss].values, group["rate"].values
    return lower_best(
        f"AdamW: the best {LOSSES[loss]} with b1 = b2 is below the best with b1 = 0.9 and any b2",
        values[count:],
        values[:count],
        first_at_edge=best_at_edge(values[count:], rates[count:], group["b2"].values[count:]),
        second_at_edge=best_at_edge(values[:count], rates[:count]),
    )


def _loss_panel(result: Result, name: str, loss: str) -> Panel:
    grid, group = _grid(result, name, loss), result.groups[name]
    at = int(np.argmin(median_over_seeds(grid.values[grid.usual()])))
    memory = 1 / (1 - grid.memories)
    count = grid.memories.size * grid.rates.size
    diagonal = np.unique(group["b2"].values[count:])
    along = group[loss].values[count:].reshape(diagonal.size, grid.rates.size, -1)
    tuned, equal = (
        np.exp([over_seeds(log_best, each) for each in values]).T for values in (grid.values, along)
    )
    series = [
        Series("rate best for b2 = 0.999", memory, *medians_with_intervals(grid.values[:, at])),
        Series("rate tuned at each b2", memory, *tuned),
        Series("b1 = b2, rate tuned", 1 / (1 - diagonal), *equal),
    ]
    return Panel(
        name,
        "memory of squares (steps)",
        f"{LOSSES[loss]} (nats)",
        series,
        x_scale="log",
        y_scale="linear",
    )
