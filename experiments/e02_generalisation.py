"""Does decoupled decay generalise better, or does it only fit the training data better?

Claim: AdamW ends with a lower test error than Adam with L2, and its test error is lower even among
runs of equal training loss; in the first half of training the two curves coincide.
Source: Loshchilov and Hutter (2019), figure 3 (12 values of L2 against 7 of the decay, one
learning rate, 1800 epochs).
Refuted by: an error at matched training loss that is not lower; curves that part early.
Cost of PAPER: 1,248 runs of the MLP (3.7 million steps) and 390 of the CNN (0.4 million).
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import (
    Course,
    Interval,
    course_group,
    error_at_matched_loss,
    matched_group,
    median_over_seeds,
)
from bayesfilt.figures import VenueFigure, learning_curves_figure, matched_loss_figure
from bayesfilt.records import Record
from experiments.contract import INTERVAL, Result, Verdict, check_key, judged, with_enough_seeds
from experiments.grids import (
    Axes,
    Grid,
    Problem,
    cells_of,
    difference,
    grid_from,
    grid_group,
    lower_error,
    quick_problem,
    seeds_from,
    train_grid,
)

CLAIM = "At equal training loss AdamW has a lower test error than Adam with L2."
SETTLES = ("0.3", "0.7")
CAPTION = (
    "Test error of every run against its training loss, a marker a run; lines are medians at "
    "equal training loss."
)

OPTIMIZERS = ("adamw", "adam_l2")
_COINCIDE = 0.1  # of log error: curves that differ by less than 10 % are one line in a figure


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    schedule: str = "cosine"
    adamw: Axes = Axes(rates="0.001,0.003,0.01", decays="log:1e-3:10:13")
    adam_l2: Axes = Axes(rates="0.001,0.003,0.01", decays="log:1e-5:0.1:13")


PAPER = Config(
    problems=(
        Problem(num_seeds=8),
        Problem(subset=None, label_noise=0.0, num_seeds=8),
        Problem(task="digits-cnn", num_steps=1_000),
    )
)
QUICK = Config(
    problems=(quick_problem(),),
    adamw=Axes(rates="0.003,0.01", decays="log:0.01:1:3"),
    adam_l2=Axes(rates="0.003,0.01", decays="log:1e-4:1e-2:3"),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train both optimizers at a few rates and many decays."""
    groups = {}
    keys = jax.random.split(key, len(config.problems))
    for problem, problem_key in zip(config.problems, keys, strict=True):
        seeds = seeds_from(problem_key, problem.num_seeds)
        for optimizer in OPTIMIZERS:
            axes = getattr(config, optimizer)
            grid = train_grid(problem, optimizer, config.schedule, axes, seeds)
            groups[f"{problem.name}/{optimizer}"] = grid_group(grid)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Three parts, problem by problem."""
    verdicts = []
    for problem in _problems(result):
        decoupled, penalised = (grid_from(result, f"{problem}/{each}") for each in OPTIMIZERS)
        found = [
            lower_error(
                f"{problem}: AdamW's best test error is below that of Adam + L2",
                ("AdamW", decoupled),
                ("Adam + L2", penalised),
                rates=False,
            ),
            _at_matched_loss(problem, decoupled, penalised),
            _first_half(problem, decoupled, penalised),
        ]
        verdicts += with_enough_seeds(found, decoupled.test_error.shape[-1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Test error against training loss of every run of the first problem."""
    problem = _problems(result)[0]
    grids = [grid_from(result, f"{problem}/{each}") for each in OPTIMIZERS]
    losses = [_flat(grid.training_loss) for grid in grids]
    errors = [_flat(grid.test_error) for grid in grids]
    known = np.concatenate([each[np.isfinite(each) & (each > 0)] for each in losses])
    edges = np.geomspace(known.min(), known.max(), 9)
    return matched_loss_figure(matched_group(OPTIMIZERS, losses, errors, edges), venue)


def plot_curves(result: Result, venue: str = "neurips") -> VenueFigure:
    """Learning curves of each optimizer's best cell, of the first problem."""
    problem = _problems(result)[0]
    grids = {each: grid_from(result, f"{problem}/{each}") for each in OPTIMIZERS}
    quantities = {
        name: [Course(each, cells_of(getattr(grid, field))) for each, grid in grids.items()]
        for name, field in (
            ("test_error", "test_error_course"),
            ("loss", "loss_course"),
            ("test_loss", "test_loss_course"),
        )
    }
    step = next(iter(grids.values())).step
    group = course_group(check_key(), step, quantities, chosen_by="test_error")
    return learning_curves_figure(group, venue)


def log_error_at_half(grid: Grid) -> float:
    """Logarithm of the best cell's median test error in the middle of the run."""
    best = np.argmin(median_over_seeds(grid.test_error))
    middle = int(np.searchsorted(grid.step, grid.step[-1] / 2))
    error = median_over_seeds(cells_of(grid.test_error_course)[best, :, middle])
    return float(np.log(error)) if 0 < error < np.inf else float("nan")


def _at_matched_loss(problem: str, decoupled: Grid, penalised: Grid) -> Verdict:
    losses = _flat(decoupled.training_loss), _flat(penalised.training_loss)
    errors = _flat(decoupled.test_error), _flat(penalised.test_error)
    try:
        matched = error_at_matched_loss(check_key(), losses, errors, num_resamples=200)
        gap, bins = matched.overall, int(np.isfinite(matched.difference).sum())
    except ValueError:  # the losses of the two do not overlap
        gap, bins = Interval(float("nan"), float("nan"), float("nan")), 0
    return judged(
        f"{problem}: at equal training loss AdamW's test error is lower",
        gap,
        high=0.0,
        unit=f"of test error, mean of {bins} bins",
    )


def _first_half(problem: str, decoupled: Grid, penalised: Grid) -> Verdict:
    gap = difference(log_error_at_half, decoupled, penalised)
    return judged(
        f"{problem}: half-way the test errors of the best settings coincide",
        gap,
        low=-_COINCIDE,
        high=_COINCIDE,
        tolerance=f"{INTERVAL}; one line in a figure",
        unit="of log error",
    )


def _flat(values: np.ndarray) -> np.ndarray:
    """(cells, seeds)."""
    return values.reshape(-1, values.shape[-1])


def _problems(result: Result) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in result.groups))
