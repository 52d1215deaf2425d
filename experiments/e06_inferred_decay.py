"""Is the decay inferred from one run near the decay that a sweep finds best?

Claim: the filter's tie. The drift of one run's optima says eta^2/(2 sigma^2), and that is how much
a weight should decay per step; so no sweep would be needed.
Source: the tied decay of Aitchison (2020), lam* = eta^2/(2 sigma^2); P10.
Refuted by: a factor between the two whose interval lies outside 1/2 to 2, at a learning rate.
The run that is recorded has a decay of its own, AdamW's default, and nothing of the sweep. Windows,
models and controls are those of e05: a reading whose control fails is not judged.
Cost of PAPER: 195 runs of the MLP (0.6 million steps) and 15 runs of which 32 weights are recorded
384 times each: about 2 minutes on two quiet cores (estimated; 8 on busy ones).
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval, bootstrap, ridge
from bayesfilt.figures import VenueFigure, inferred_decay_figure
from bayesfilt.records import Group, Record, variable
from experiments.contract import (
    Result,
    Verdict,
    check_key,
    margin_of,
    not_judged,
    spelled,
    with_enough_seeds,
    within,
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
from experiments.readings import (
    READINGS,
    median_seed,
    middle,
    named,
    plotted,
    read,
    readings_of,
)
from experiments.recorded import Window, record_runs

CLAIM = "The decay inferred from the drift of one run is near the best decay of a sweep."
SETTLES = ("P10",)
CAPTION = (
    "Decay per step inferred from one run against the best of a sweep, a panel a reading of "
    "the same runs, a marker a learning rate and layer; whiskers reach from the lowest to the "
    "highest seed. A caret is a bound: the decay is there or further its way."
)
DTYPE = "float64"  # of the likelihoods; the runs are trained in float32

# Stated beforehand: the grid of the sweep has steps of 2.15.
NEAR = 2.0
# Decays of the control, over the middle of what a window can tell.
_KNOWN = (0.25, 1.0, 4.0)
_INTERVAL = "90 % bootstrap over paired seeds"
_RESAMPLES = 300


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem()
    adamw: Axes = Axes(rates=(0.001, 0.002, 0.004), decays="log:0.003:30:13")
    schedule: str = "constant"
    recorded_decay: float = 0.01  # AdamW's default, "lr_scaled"
    per_layer: int = 16
    readings: tuple[str, ...] = tuple(READINGS)
    slow_part: Window = Window(begin=1_200, spacing=8, count=192)
    every_step: Window = Window(begin=2_736, spacing=1, count=192)

    def windows(self) -> dict[str, Window]:
        """In the order of time; they end about when the runs of the sweep do."""
        return {"slow part": self.slow_part, "every step": self.every_step}


PAPER = Config()
QUICK = Config(
    problem=dataclasses.replace(quick_problem(), num_seeds=4),
    adamw=Axes(rates=(0.002, 0.008), decays="log:0.1:10:3"),
    per_layer=6,
    schedule="cosine",  # as the other experiments' QUICK, whose compiled program it shares
    readings=("slow_part/to_a_mean",),
    slow_part=Window(begin=20, spacing=3, count=16),
    every_step=Window(begin=92, spacing=1, count=4),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Sweep the decay at every learning rate, and record one decay's runs from the same seeds."""
    seed_key, control_key = jax.random.split(key)
    seeds = seeds_from(seed_key, config.problem.num_seeds)
    swept = train_grid(config.problem, "adamw", config.schedule, config.adamw, seeds)
    layers, recorded = record_runs(
        config.problem,
        swept.rates.tolist(),
        [config.recorded_decay],
        seeds,
        config.windows(),
        config.per_layer,
    )
    known = np.broadcast_to(np.reshape(_KNOWN, (-1, 1, 1)), (len(_KNOWN), len(swept.rates), 1))
    found = read(control_key, config.readings, recorded, config.windows(), known)
    shared = {
        "learning_rate": variable("learning_rate", swept.rates),
        "weight_decay": variable("weight_decay", [config.recorded_decay], units="1 (lr_scaled)"),
        "layer": variable("layer", list(layers)),
    }
    return Record(
        groups={
            "sweep": grid_group(swept),
            **{name: {**shared, **group} for name, group in found.items()},
        },
        attributes={"config": dataclasses.asdict(config)},
    )


def check(result: Result) -> list[Verdict]:
    """Each reading's control, then its decay against the sweep's at every learning rate."""
    swept = grid_from(result, "sweep")
    verdicts = []
    for reading in readings_of(result):
        group = result.groups[reading]
        control = _control(reading, group)
        found = [
            _near(reading, group, index, swept.test_error[index], swept.decays)
            for index in range(len(swept.rates))
        ]
        if control.holds is not True:
            found = [not_judged(each, "as the control does not hold") for each in found]
        verdicts += with_enough_seeds([control, *found], swept.test_error.shape[-1])
    return verdicts


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Inferred decay against the sweep's best, a panel a reading."""
    swept = grid_from(result, "sweep")
    best = [
        rate * np.exp(ridge(errors[None], swept.decays).log_decay[0])
        for rate, errors in zip(swept.rates, swept.test_error, strict=True)
    ]
    description = "best decay per step of a sweep"
    return inferred_decay_figure(
        plotted(result, np.reshape(best, (-1, 1)), description, NEAR), venue
    )


def factor(
    inferred: Float[np.ndarray, "layers seeds"],
    rate: float,
    errors: Float[np.ndarray, "decays seeds"],
    decays: np.ndarray,
) -> Interval:
    """Inferred decay over the best of the sweep; seeds of both are drawn together.

    NaN where the sweep does not hold its best, or most layers' decays are not known.
    """
    both = np.concatenate([errors, inferred])

    def of_seeds(drawn: np.ndarray) -> float:
        line, fits = drawn[: len(decays)], drawn[len(decays) :]
        best = np.exp(ridge(line[None], decays).log_decay[0])
        return middle(median_seed(fits)) / (rate * best)

    return bootstrap(check_key(), of_seeds, both, num_resamples=_RESAMPLES)


def _near(
    reading: str, group: Group, index: int, errors: np.ndarray, decays: np.ndarray
) -> Verdict:
    rate = float(group["learning_rate"].values[index])
    inferred = group["decay"].values[index, 0].T
    found = factor(inferred, rate, errors, decays)
    best = np.exp(ridge(errors[None], decays).log_decay[0])
    return Verdict(
        claim=f"{named(reading)}: at learning rate {rate:g} the inferred decay is near the best",
        measured=f"factor {spelled(found)}: {middle(median_seed(inferred)):.2g} per step against"
        f" {rate * best:.2g}, a weight decay of {best:.2g}",
        expected=f"1/{NEAR:g} to {NEAR:g}",
        tolerance=f"{_INTERVAL}; the sweep's steps are of 2.15",
        holds=within(found, 1 / NEAR, NEAR),
        margin=margin_of(found, 1 / NEAR, NEAR),
    )


def _control(reading: str, group: Group) -> Verdict:
    truth = group["control_truth"].values[..., None, None]
    relative = np.moveaxis(group["control_decay"].values / truth, 3, -1)
    found = bootstrap(
        check_key(), lambda drawn: middle(median_seed(drawn)), relative, num_resamples=_RESAMPLES
    )
    return Verdict(
        claim=f"{named(reading)}: control, known decays come back",
        measured=f"factor {spelled(found)}, the median cell",
        expected=f"1/{NEAR:g} to {NEAR:g}",
        tolerance=_INTERVAL,
        holds=within(found, 1 / NEAR, NEAR),
        margin=margin_of(found, 1 / NEAR, NEAR),
    )
