"""How does the best decay go with the number of training examples?

Claims that exclude each other, of the best shrink per step: its memory is so many epochs whatever
their length (one over the number of examples, also at a fixed number of steps); it falls like one
over the root of the number of steps (normalised decay); it knows neither (the filter, whose
eta^2/(2 sigma^2) has the learning rate in it and nothing of the data).
Source: Wang and Aitchison (2025), tau_epoch; Loshchilov and Hutter (2019), appendix B.1; the tied
decay of Aitchison (2020). P15, P16.
Refuted by: a slope of log best shrink on log examples whose interval leaves out the claimed one, at
a fixed number of epochs (-1, -1/2, 0) or of steps (-1, 0, 0). At fixed epochs examples and steps
grow together; at fixed steps the runs differ in nothing but the examples. How the best shrink goes
with the steps alone is e04.
AdamW under a cosine at one learning rate. More examples need less of any regulariser: a slope at
fixed steps need not mean epochs, and a shrink whose memory is longer than the run is none.
One nested draw of the data, with new wrong labels at each size: the seeds are of first weights and
minibatches, so that the intervals do not hold the luck of the draw.
Cost of PAPER: 567 runs of the MLP (0.8 million steps).
"""

import dataclasses

import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Record, variable
from bayesfilt.theory import normalised_weight_decay
from experiments.best_values import Moving, best_intervals, is_law, log_heights, slope_of_best
from experiments.contract import Result, Verdict, with_enough_seeds
from experiments.grids import (
    Axes,
    Grid,
    Problem,
    grid_from,
    grid_group,
    quick_problem,
    seeds_from,
    train_grid,
)
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best decay remembers a fixed number of epochs, or of root steps, or ignores the data."
SETTLES = ("P15", "P16", "1.4", "3.5")
CAPTION = (
    "Best shrink per step over the number of training examples, at a fixed number of epochs and of"
    " steps, with 90 % bootstrap intervals and the three laws; below, the test errors behind it."
)

# Of log best shrink on log examples.
EPOCHS, STEPS = "epochs", "steps"
_WORDS = {
    "memory in epochs": "remembers a fixed number of epochs",
    "normalised": "falls like one over the root of the number of steps",
    "filter": "does not know of the number of examples",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    examples: tuple[int, ...] = (150, 300, 600, 1_200)
    # Where both designs meet: as many epochs as these steps are at this number of examples.
    meet_at: int = 600
    num_steps: int = 1_500
    problem: Problem = Problem(num_seeds=9, record_points=2)
    adamw: Axes = Axes(rates="0.004", decays="log:0.03:30.72:9")
    schedule: str = "cosine"

    def steps(self, design: str, examples: int) -> int:
        """Length of a run on so many examples."""
        if design == STEPS:
            return self.num_steps
        return round(self.num_steps * examples / self.meet_at)


PAPER = Config()
QUICK = Config(
    examples=(150, 300),
    meet_at=300,
    num_steps=60,
    problem=quick_problem(),
    adamw=Axes(rates="0.01", decays="log:0.1:10:3"),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a line of decays for every number of examples, in both designs."""
    seeds = seeds_from(key, config.problem.num_seeds)
    groups = {}
    for examples in config.examples:
        trained: dict[int, Grid] = {}
        for design in (EPOCHS, STEPS):
            num_steps = config.steps(design, examples)
            if num_steps not in trained:
                problem = dataclasses.replace(config.problem, subset=examples, num_steps=num_steps)
                trained[num_steps] = train_grid(
                    problem, "adamw", config.schedule, config.adamw, seeds
                )
            group = grid_group(trained[num_steps])
            group["num_steps"] = variable((), np.array(num_steps), units="steps")
            groups[f"{design}/{examples}"] = group
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def law(name: str, examples: np.ndarray, steps: np.ndarray, batch_size: int) -> np.ndarray:
    """Shrink per step that a law gives to runs, up to a factor."""
    if name == "memory in epochs":
        return batch_size / examples
    if name == "normalised":
        return np.asarray(
            normalised_weight_decay(1.0, batch_size, examples, steps * batch_size / examples)
        )
    return np.ones(len(examples))


def law_slopes(result: Result, design: str) -> dict[str, float]:
    """What each law says of the slope of log best shrink on log examples."""
    return {
        name: round(float(np.polyfit(*np.log(_law_line(result, design, name)), 1)[0]), 6)
        for name in _WORDS
    }


def check(result: Result) -> list[Verdict]:
    """All laws, at fixed epochs and at fixed steps."""
    verdicts = []
    for design in (EPOCHS, STEPS):
        moving = moving_of(result, design)
        slope = slope_of_best(moving)
        laws = law_slopes(result, design)
        found = [
            is_law(
                f"At a fixed number of {design} the best shrink {words}",
                slope,
                name,
                laws,
                measured="slope on log examples",
            )
            for name, words in _WORDS.items()
        ]
        verdicts += with_enough_seeds(found, moving.errors.shape[-1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best shrink over the number of examples, and the errors of every decay; both designs."""
    panels = [_best_panel(result, design) for design in (EPOCHS, STEPS)]
    panels += [_error_panel(result, design) for design in (EPOCHS, STEPS)]
    return panels_figure(panels_group(panels), venue)


def moving_of(result: Result, design: str) -> Moving:
    """Errors over the shrink, for every number of examples."""
    examples = _examples(result)
    grids = [grid_from(result, f"{design}/{each:.0f}") for each in examples]
    return Moving(
        errors=np.stack([grid.test_error[0] for grid in grids]),
        log_values=np.stack([np.log(grid.rates[0] * grid.decays) for grid in grids]),
        log_settings=np.log(examples),
    )


def _law_line(result: Result, design: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of examples, and a law's shrinks."""
    examples = _examples(result)
    groups = [result.groups[f"{design}/{each:.0f}"] for each in examples]
    steps = np.array([float(group["num_steps"].values) for group in groups])
    batch_size = result.attributes["config"]["problem"]["batch_size"]
    return examples, law(name, examples, steps, batch_size)


def _best_panel(result: Result, design: str) -> Panel:
    examples, best = _examples(result), best_intervals(moving_of(result, design))
    known = best[np.isfinite(best[:, 0]), 0]
    middle = float(np.exp(np.mean(np.log(known)))) if known.size else float("nan")
    laws = []
    for name in _WORDS:
        line = _law_line(result, design, name)[1]
        through = middle * line / np.exp(np.mean(np.log(line)))
        laws.append(Series(name, examples, through, kind="law"))
    return Panel(
        f"Best shrink, fixed {design}",
        "training examples",
        "shrink per step",
        [*laws, Series("best decay", examples, *best.T)],
        "log",
        "log",
    )


def _error_panel(result: Result, design: str) -> Panel:
    moving = moving_of(result, design)
    series = [
        Series(f"{examples:.0f} examples", np.exp(values), np.exp(log_heights(errors)))
        for examples, values, errors in zip(
            np.exp(moving.log_settings), moving.log_values, moving.errors, strict=True
        )
    ]
    return Panel(f"Errors, fixed {design}", "shrink per step", "test error", series, "log", "log")


def _examples(result: Result) -> np.ndarray:
    """Numbers of training examples, ascending."""
    found = {int(name.partition("/")[2]) for name in result.groups}
    return np.array(sorted(found), float)
