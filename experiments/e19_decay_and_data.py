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
fixed steps need not mean epochs, and a shrink whose memory is longer than the run is none. After a
first run the grid was refined and seeds went from 9 to 15. Intervals hold a quarter of the grid's
step, which resampled seeds do not show. A seed draws the examples and their wrong labels as well,
so that intervals hold the luck of that.
Cost of PAPER: 945 runs of the MLP (1.4 million steps).
"""

import dataclasses

import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Record, variable
from bayesfilt.theory import normalised_weight_decay
from experiments.best_values import Moving, best_intervals, is_law, log_heights, slope_of_best
from experiments.contract import Result, Verdict, with_enough_seeds
from experiments.drawn_data import final_errors, shuffled_digits
from experiments.grids import seeds_from
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best decay remembers a fixed number of epochs, or of root steps, or ignores the data."
SETTLES = ("P15", "P16", "1.4")
CAPTION = (
    "Best shrink per step over the number of training examples, at a fixed number of epochs and of"
    " steps, with 90 % bootstrap intervals and the three laws; below, the test errors behind it."
)

# Of log best shrink on log examples.
EPOCHS, STEPS = "epochs", "steps"
DESIGNS = (EPOCHS, STEPS)
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
    rate: float = 0.004  # at the peak of the cosine
    lowest: float = 1.2e-4  # shrink per step, at the peak
    factor: float = 2.0  # from a shrink to the next
    count: int = 9
    label_noise: float = 0.2  # fraction of the training labels made wrong
    batch_size: int = 32
    num_seeds: int = 15

    def steps(self, design: str, examples: int) -> int:
        """Length of a run on so many examples."""
        if design == STEPS:
            return self.num_steps
        return round(self.num_steps * examples / self.meet_at)


PAPER = Config()
QUICK = Config(
    examples=(150, 300), meet_at=300, num_steps=60, lowest=1e-3, factor=6.0, count=3, num_seeds=3
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a line of decays for every number of examples, in both designs."""
    seeds = seeds_from(key, config.num_seeds)
    shuffled = shuffled_digits(seeds, config.label_noise, config.batch_size)
    shrinks = config.lowest * config.factor ** np.arange(config.count)
    wanted: dict[int, list[int]] = {}  # by length of the run: one compiled program each
    for examples in config.examples:
        for num_steps in {config.steps(design, examples) for design in DESIGNS}:
            wanted.setdefault(num_steps, []).append(examples)
    errors = {}
    for num_steps, sizes in wanted.items():
        settings = {
            "examples": np.repeat(sizes, config.count),
            "shrink": np.tile(shrinks, len(sizes)),
        }
        found = final_errors(
            shuffled, _adamw_of(config.rate, num_steps), settings, seeds, num_steps
        )
        for examples, lines in zip(sizes, np.split(found, len(sizes)), strict=True):
            errors[num_steps, examples] = lines
    groups = {}
    for design in DESIGNS:
        steps = [config.steps(design, examples) for examples in config.examples]
        lines = [errors[pair] for pair in zip(steps, config.examples, strict=True)]
        groups[design] = {
            "examples": variable("examples", np.array(config.examples)),
            "num_steps": variable("examples", np.array(steps), units="steps"),
            "shrink": variable("shrink", shrinks, units="1/step"),
            "test_error": variable(("examples", "shrink", "seed"), np.stack(lines), units="1"),
        }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def _adamw_of(rate: float, num_steps: int):
    schedule = optax.cosine_decay_schedule(rate, num_steps)
    return lambda numbers: optax.adamw(schedule, weight_decay=numbers["shrink"] / rate)


def law(name: str, examples: np.ndarray, steps: np.ndarray, batch_size: int) -> np.ndarray:
    """Shrink per step that a law gives to runs, up to a factor."""
    if name == "memory in epochs":
        return batch_size / examples
    if name == "normalised":
        epochs = steps * batch_size / examples
        pairs = zip(examples.tolist(), epochs.tolist(), strict=True)
        return np.array([normalised_weight_decay(1.0, batch_size, *pair) for pair in pairs])
    return np.ones(len(examples))


def law_slopes(result: Result, design: str) -> dict[str, float]:
    """What each law says of the slope of log best shrink on log examples."""
    found = {}
    for name in _WORDS:
        examples, shrinks = _law_line(result, design, name)
        slope = float(np.polyfit(np.log(examples), np.log(shrinks), 1)[0])
        found[name] = round(slope, 6) + 0.0  # no -0
    return found


def check(result: Result) -> list[Verdict]:
    """All laws, at fixed epochs and at fixed steps."""
    verdicts = []
    for design in DESIGNS:
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
    panels = [_best_panel(result, design) for design in DESIGNS]
    panels += [_error_panel(result, design) for design in DESIGNS]
    return panels_figure(panels_group(panels), venue)


def moving_of(result: Result, design: str) -> Moving:
    """Errors over the shrink, for every number of examples."""
    group = result.groups[design]
    errors = group["test_error"].values
    return Moving(
        errors=errors,
        log_values=np.tile(np.log(group["shrink"].values), (len(errors), 1)),
        log_settings=np.log(group["examples"].values),
    )


def _law_line(result: Result, design: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of examples, and a law's shrinks."""
    group = result.groups[design]
    examples, steps = (group[each].values.astype(float) for each in ("examples", "num_steps"))
    return examples, law(name, examples, steps, result.attributes["config"]["batch_size"])


def _best_panel(result: Result, design: str) -> Panel:
    moving = moving_of(result, design)
    examples, best = np.exp(moving.log_settings), best_intervals(moving)
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
