"""How does the best decay go with the length of the run?

Claims that exclude each other: the best shrink per step falls like one over the root of the number
of steps (normalised decay), and it does not depend on it (the filter's shrink is eta^2/(2 sigma^2),
which knows no budget).
Source: Loshchilov and Hutter (2019), appendix B.1 and supplement 3; the tied decay of the filter.
Refuted by: a slope of log best shrink on log steps whose interval leaves out -1/2, or 0.
A slope of 0 does not single the filter out: a decay that follows the size of the data set and not
the number of steps (Wang and Aitchison, 2025) has it as well.
Cost of PAPER: 702 runs of the MLP (3.7 million steps).
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval, best_decay_with_interval, bootstrap, ridge
from bayesfilt.figures import VenueFigure, budgets_figure
from bayesfilt.records import Record, variable
from experiments.contract import (
    Result,
    Verdict,
    check_key,
    is_the_one,
    margin_of_the_one,
    spelled,
    with_enough_seeds,
)
from experiments.grids import (
    Axes,
    Problem,
    grid_from,
    grid_group,
    quick_problem,
    seeds_from,
    train_grid,
)

CLAIM = "The best decay falls like the root of the budget (normalised), or ignores it (filter)."
SETTLES = ("P15", "1.4")
CAPTION = (
    "Best shrink per step against the length of the run with 90 % bootstrap intervals, a "
    "panel a problem; the laws go through the middle budget. None is shown where the best is at an"
    " edge of the grid."
)

LAWS = {"normalised decay": -0.5, "filter": 0.0}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problems: tuple[Problem, ...]
    budgets: tuple[int, ...] = (750, 3_000, 12_000)
    adamw: Axes = Axes(rates="0.004", decays="log:0.003:30:13")
    schedule: str = "cosine"


PAPER = Config(problems=(Problem(num_seeds=9), Problem(subset=None, label_noise=0.0, num_seeds=9)))
QUICK = Config(
    problems=(quick_problem(),),
    budgets=(30, 60),
    adamw=Axes(rates="0.01", decays="log:0.1:10:3"),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a line of decays at one learning rate, for every budget."""
    groups = {}
    keys = jax.random.split(key, len(config.problems))
    for problem, problem_key in zip(config.problems, keys, strict=True):
        seeds = seeds_from(problem_key, problem.num_seeds)
        for budget in config.budgets:
            lasting = dataclasses.replace(problem, num_steps=budget)
            grid = train_grid(lasting, "adamw", config.schedule, config.adamw, seeds)
            groups[f"{problem.name}/{budget}"] = grid_group(grid)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Both laws, problem by problem."""
    verdicts = []
    for problem, budgets in _budgets(result).items():
        slope = budget_slope(result, problem, budgets)
        errors, decays = _lines(result, problem, budgets)
        num_known = np.isfinite(ridge(errors, decays).log_decay).sum()
        for law, value in LAWS.items():
            rival = next(other for name, other in LAWS.items() if name != law)
            verdicts += with_enough_seeds(
                [
                    Verdict(
                        claim=f"{problem}: the best shrink follows the law of the {law}",
                        measured=f"slope on log steps {spelled(slope)} from {num_known} of"
                        f" {len(budgets)} budgets",
                        expected=f"{value:g}",
                        tolerance="90 % bootstrap over seeds; undecided if it holds"
                        f" {rival:g} too, or is wider than the way to it",
                        holds=is_the_one(slope, value, [rival]),
                        margin=margin_of_the_one(slope, value, [rival]),
                    )
                ],
                errors.shape[-1],
            )
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best shrink per step against the budget, with both laws through the middle budget."""
    found = _budgets(result)
    budgets = np.array(next(iter(found.values())))
    best = np.stack(
        [
            [_best_shrink(result, problem, budget) for budget in budgets.tolist()]
            for problem in found
        ]
    )
    middle = np.array([_middle(line[:, 0]) for line in best])
    laws = np.stack([(budgets / np.median(budgets)) ** slope for slope in LAWS.values()])
    group = {
        "task": variable("task", list(found)),
        "budget": variable("budget", budgets, units="steps"),
        "law": variable("law", [f"{name}: slope {slope:g}" for name, slope in LAWS.items()]),
        "best": variable(("task", "budget"), best[..., 0]),
        "best_low": variable(("task", "budget"), best[..., 1]),
        "best_high": variable(("task", "budget"), best[..., 2]),
        "predicted": variable(("task", "law", "budget"), middle[:, None, None] * laws),
    }
    return budgets_figure(group, venue)


def budget_slope(result: Result, problem: str, budgets: list[int]) -> Interval:
    """Slope of log best shrink on log steps; NaN where too few budgets have theirs in the grid."""
    errors, decays = _lines(result, problem, budgets)

    def slope(lines: np.ndarray) -> float:
        best = ridge(lines, decays).log_decay
        known = np.isfinite(best)
        if known.sum() < max(2, len(budgets) - 1):
            return float("nan")
        return float(np.polyfit(np.log(np.array(budgets))[known], best[known], 1)[0])

    return bootstrap(check_key(), slope, errors, num_resamples=300)


def _lines(
    result: Result, problem: str, budgets: list[int]
) -> tuple[Float[np.ndarray, "budgets decays seeds"], Float[np.ndarray, " decays"]]:
    """Test errors of all budgets at the one learning rate, and the decays of each."""
    grids = [grid_from(result, f"{problem}/{budget}") for budget in budgets]
    return np.stack([grid.test_error[0] for grid in grids]), grids[0].decays


def _best_shrink(result: Result, problem: str, budget: int) -> np.ndarray:
    grid = grid_from(result, f"{problem}/{budget}")
    found = best_decay_with_interval(
        check_key(), grid.test_error[0], grid.decays, num_resamples=200
    )
    return found * grid.rates[0]


def _middle(line: np.ndarray) -> float:
    """Where the laws' lines stand: through the middle of what was found."""
    known = line[np.isfinite(line)]
    return float(np.exp(np.mean(np.log(known)))) if known.size else float("nan")


def _budgets(result: Result) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in result.groups:
        problem, _, budget = name.partition("/")
        found.setdefault(problem, []).append(int(budget))
    return found
