"""Do optimizers whose memory of gradients never fades recover later when the world changes?

Claim: AdaGrad is a filter whose process variance falls like 1/t, and so it tracks too slowly after
a change, the more so the later it comes; AMSGrad, whose variance never grows, does likewise. Times
of recovery after a switch of labels are ordered AdaGrad > AMSGrad > Adam, and AdaBayes' is Adam's.
Source: P37, from eta_t = lr/sqrt(t) of AdaGrad's step.
Refuted by: a recovery of AdaGrad in the world of jumps that does not go with the root of the age
(for large ages; the exact filter says how soon), or an interval on the wrong side of another's.
Digits: at the switch each class takes the name of the next. A run has recovered when its accuracy
on the test set is back at 9/10 of what it was; time not seen counts as the time that was left.
Rates are chosen from grids of equal size by the test loss of the second half before the switch,
which rewards no tracking, or by the loss of the whole run. All at a constant rate: a schedule that
ends makes every one of them slow. AdaBayes' decay is fixed and small, the others have none. Rates
were 6 and seeds 8 at first, too few to tell.
The law 1/t of the world of jumps follows from AdaGrad's own rule where gradients have a steady
size: a yes there says that this is so, not that networks are like it.
Cost of PAPER: 384 runs of 2,250 steps and 48 runs of the world of jumps: 90 s of CPU time
(estimated from 43 s of half as many).
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import make_task
from experiments.changing_digits import current, switching_digits
from experiments.contract import (
    INTERVAL,
    Result,
    Verdict,
    judged,
    not_judged,
    with_enough_seeds,
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import Axes, seeds_from
from experiments.jump_world import JumpWorld, first_below, jump_group, predicted_recoveries
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "After a change AdaGrad recovers last, AMSGrad next, Adam and AdaBayes first."
SETTLES = ("P37",)
CAPTION = (
    "Recovery times in a world whose optima jump, against the age at the jump (grey: the exact"
    " filter with process variance lr^2/t), and test accuracy of digits around the switch of labels"
    " at the rates chosen, medians over seeds; bars and bands are 90 % intervals over seeds."
)

OPTIMIZERS = ("adagrad", "amsgrad", "adam", "adabayes")
CHOICES = {"before the switch": "before", "for the whole run": "whole"}
_BACK = 0.9  # of the accuracy before
_ALIKE = 1.25  # a quarter: less than a step of any grid of rates
_ORDER = {
    ("adagrad", "amsgrad"): ("later than", {"low": 1.0}),
    ("amsgrad", "adam"): ("later than", {"low": 1.0}),
    ("adabayes", "adam"): ("as soon as", {"low": 1 / _ALIKE, "high": _ALIKE}),
}
_SHOWN = 240  # steps after the switch that the figure shows
# Looks of the optimizers among themselves: the house's own are alike for two of these.
_NAMES = {"adagrad": "AdaGrad", "amsgrad": "AMSGrad", "adam": "Adam", "adabayes": "AdaBayes"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    optimizers: tuple[str, ...] = OPTIMIZERS  # that learn the digits
    rates: str = "log:3e-4:1e-1:8"  # a factor of 2.3 apart
    adagrad_rates: str = "log:3e-3:1:8"
    weight_decay: float = 0.01  # of AdaBayes, "lr_scaled"
    subset: int | None = None  # training examples; None: all 1297
    batch_size: int = 32
    switch_at: int = 1_500  # steps
    num_steps: int = 2_250
    record_every: int = 20
    num_seeds: int = 12  # runs in sixteens compile once
    jumps: JumpWorld = JumpWorld()


PAPER = Config()
QUICK = Config(
    optimizers=("amsgrad", "adam"),
    rates="log:3e-3:3e-2:2",
    adagrad_rates="log:3e-2:3e-1:2",
    subset=300,
    switch_at=100,
    num_steps=200,
    num_seeds=2,
    jumps=JumpWorld(ages=(100, 200), after=200, weights=32),
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train every optimizer through the switch, and through the jumps."""
    seeds = seeds_from(key, config.num_seeds)
    jumps = jump_group(config.jumps, OPTIMIZERS, seeds, predicted_recoveries(config.jumps))
    groups = {name: _trained(config, name, seeds) for name in config.optimizers}
    return Record(
        groups={"jumps": jumps, **groups}, attributes={"config": dataclasses.asdict(config)}
    )


def check(result: Result) -> list[Verdict]:
    """The law in the world of jumps, then the order among the digits, choice by choice."""
    verdicts = _jump_verdicts(result.groups["jumps"])
    for words, choice in CHOICES.items():
        for (first, second), (relation, band) in _ORDER.items():
            if first in result.groups and second in result.groups:
                claim = f"digits, rates tuned {words}: {first} recovers {relation} {second}"
                verdicts.append(_compared(result, claim, first, second, choice, **band))
    verdicts.append(_at_one_rate(result))
    return with_enough_seeds(verdicts, result.groups["adam"]["accuracy"].values.shape[1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Recovery against age, quiet and loud, and accuracy around the switch."""
    jumps = result.groups["jumps"]
    panels = [_jump_panel(jumps, start) for start in jumps["start"].values]
    panels += [_accuracy_panel(result, words) for words in CHOICES]
    return panels_figure(panels_group(panels), venue)


def recovery_times(
    step: np.ndarray, accuracy: Float[np.ndarray, "... records"], switch_at: int
) -> Float[np.ndarray, "..."]:
    """Steps from the switch until `_BACK` of the accuracy before; all that were left if never."""
    new = step >= switch_at
    before = accuracy[..., ~new][..., -5:].mean(axis=-1)
    spacing, left = float(step[1] - step[0]), float(step[-1] - switch_at)

    def one(course: np.ndarray, goal: float) -> float:
        found = first_below(-course, -goal) * spacing
        return found if np.isfinite(found) else left

    after = accuracy[..., new].reshape(-1, int(new.sum()))
    goals = (_BACK * before).ravel()
    times = [one(course, goal) for course, goal in zip(after, goals, strict=True)]
    return np.reshape(times, before.shape)


def chosen_rate(group: Group, choice: str, draw: np.ndarray) -> int:
    """Place of the rate with the lowest median loss of some seeds."""
    losses = group[f"loss_{choice}"].values[:, draw]
    return int(np.argmin(np.median(np.where(np.isnan(losses), np.inf, losses), axis=1)))


def _trained(config: Config, name: str, seeds: tuple[int, ...]) -> Group:
    """Accuracy and loss of one optimizer at every rate, from every seed."""
    words = config.adagrad_rates if name == "adagrad" else config.rates
    rates = Axes(rates=words, decays="0").values()[0]
    base: Any = make_task("digits-mlp", batch_size=config.batch_size, subset=config.subset)

    def optimizer_of(numbers):
        setting = Setting(
            learning_rate=numbers["rate"],
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            num_steps=config.num_steps,
        )
        return named_optimizer(name, setting).optimizer

    runs = train_many(
        switching_digits(base, config.switch_at),
        optimizer_of,
        {"rate": rates},
        seeds,
        config.num_steps,
        probes={"now": current},
        record_every=config.record_every,
    )
    accuracy, loss = (runs.records["now"][each] for each in ("test_accuracy", "test_loss"))
    tuning = (runs.step >= config.switch_at // 2) & (runs.step < config.switch_at)
    cells = ("rate", "seed")
    return {
        "rate": variable("rate", rates),
        "step": variable("step", runs.step, units="steps"),
        "accuracy": variable((*cells, "step"), accuracy, units="1"),
        "loss_before": variable(cells, loss[..., tuning].mean(axis=-1), units="nats"),
        "loss_whole": variable(cells, loss.mean(axis=-1), units="nats"),
        "recovery": variable(
            cells, recovery_times(runs.step, accuracy, config.switch_at), units="steps"
        ),
    }


def _at_one_rate(result: Result) -> Verdict:
    """AMSGrad beside Adam at the rate that Adam chooses: what the maximum alone does."""
    groups = [result.groups[name] for name in ("amsgrad", "adam")]

    def ratio(draw: np.ndarray) -> float:
        rate = chosen_rate(groups[1], "before", draw)
        first, second = (np.log(group["recovery"].values[rate, draw]).mean() for group in groups)
        return float(np.exp(first - second))

    every = np.arange(groups[1]["recovery"].values.shape[1])
    return judged(
        "digits, at the rate tuned for adam before the switch: amsgrad recovers later than adam",
        interval_over_seeds(ratio, every),
        low=1.0,
        unit="times as long",
    )


def _jump_verdicts(jumps: Group) -> list[Verdict]:
    recovery = dict(zip(jumps["optimizer"].values, jumps["recovery"].values, strict=True))
    log_age = np.log(jumps["age"].values)
    predicted = jumps["predicted"].values

    def slope(times: np.ndarray) -> float:
        return float(np.polyfit(log_age, np.log(times.mean(axis=-1)), 1)[0])

    def farthest(times: np.ndarray) -> float:
        return float(np.max(np.abs(times.mean(axis=-1) / predicted - 1)))

    def longer(pair: np.ndarray) -> float:  # at the greatest age
        return float(pair[0, -1].mean() / pair[1, -1].mean())

    quiet, loud = ({name: recovery[name][start] for name in OPTIMIZERS} for start in (0, 1))
    return [
        judged(
            "jumps: AdaGrad's recovery time goes with the root of the age at the jump",
            interval_over_seeds(slope, quiet["adagrad"]),
            low=0.4,
            high=0.6,
            tolerance=f"{INTERVAL}; slopes 0 of a constant and 1 of a faster fall are far",
        ),
        judged(
            "jumps: AdaGrad recovers as the exact filter with process variance lr^2/t does",
            interval_over_seeds(farthest, quiet["adagrad"]),
            high=0.1,
            tolerance=f"{INTERVAL}; a tenth at the worst age: three times the gain, up to which"
            " AdaGrad and the filter agree",
        ),
        judged(
            "jumps: Adam's recovery time does not depend on the age",
            interval_over_seeds(slope, quiet["adam"]),
            low=-0.1,
            high=0.1,
            tolerance=f"{INTERVAL}; a fifth of AdaGrad's slope",
        ),
        judged(
            "jumps: after a loud start AMSGrad recovers later than Adam",
            interval_over_seeds(longer, np.stack([loud["amsgrad"], loud["adam"]])),
            low=_ALIKE,
            tolerance=f"{INTERVAL}; at the greatest age, by more than what counts as alike",
        ),
        judged(
            "jumps: AdaBayes recovers as soon as Adam",
            interval_over_seeds(longer, np.stack([quiet["adabayes"], quiet["adam"]])),
            low=1 / _ALIKE,
            high=_ALIKE,
            tolerance=f"{INTERVAL}; a quarter",
        ),
    ]


def _compared(
    result: Result, claim: str, first: str, second: str, choice: str, **band: float
) -> Verdict:
    """Ratio of two recovery times, geometric means, each at the rate its own seeds choose."""
    groups = [result.groups[name] for name in (first, second)]

    def ratio(draw: np.ndarray) -> float:
        logs = [
            np.log(group["recovery"].values[chosen_rate(group, choice, draw), draw]).mean()
            for group in groups
        ]
        return float(np.exp(logs[0] - logs[1]))

    every = np.arange(groups[0]["recovery"].values.shape[1])
    verdict = judged(
        claim,
        interval_over_seeds(ratio, every),
        tolerance=f"{INTERVAL}, which choose the rate again; alike is within a quarter",
        unit="times as long",
        **band,
    )
    for name, group in zip((first, second), groups, strict=True):
        if chosen_rate(group, choice, every) in (0, group["rate"].values.size - 1):
            verdict = not_judged(verdict, f"as the rate of {name} is at the edge of its grid")
    return verdict


def _jump_panel(jumps: Group, start: str) -> Panel:
    index = list(jumps["start"].values).index(start)
    series = []
    for name, times in zip(jumps["optimizer"].values, jumps["recovery"].values, strict=True):
        found = [interval_over_seeds(lambda each: float(each.mean()), row) for row in times[index]]
        y, low, high = np.array(found).T
        series.append(Series(_NAMES[name], jumps["age"].values, y, low, high))
    law = Series(
        "filter, variance ~ 1/t", jumps["age"].values, jumps["predicted"].values, kind="law"
    )
    return Panel(
        f"jumps, {start} start",
        "age at the jump (steps)",
        "recovery time (steps)",
        [*series, *([law] if start == "quiet" else [])],
        x_scale="log",
        y_scale="log",
    )


def _accuracy_panel(result: Result, words: str) -> Panel:
    config = result.attributes["config"]
    series = []
    for name in result.attributes["config"]["optimizers"]:
        group = result.groups[name]
        every = np.arange(group["recovery"].values.shape[1])
        step = group["step"].values - config["switch_at"]
        shown = (step >= -_SHOWN // 4) & (step <= _SHOWN)
        runs = group["accuracy"].values[chosen_rate(group, CHOICES[words], every)][:, shown]
        low, middle, high = np.nanquantile(runs, [0.05, 0.5, 0.95], axis=0)
        series.append(Series(_NAMES[name], step[shown], middle, low, high))
    return Panel(
        f"digits, tuned {words}",
        "steps after the switch",
        "test accuracy",
        series,
        x_scale="linear",
        y_scale="linear",
    )
