"""Is the best learning rate proportional to how fast the world drifts, and does SGD then win?

Claim: the learning rate of a filter is the deviation of its optimum's step, eta = sqrt(q). Where
the images of digits turn by a random angle each step, the best rate goes with that angle (slope 1
in the deviation, 1/2 in the variance q); where they turn at constant speed, no walk of the optimum,
lag^2 + noise is least at speed^(2/3). Where drift dominates, SGD, tuned anew, beats AdamW, whose
mean square is stale.
Source: P39; "Adapt or Forget"; the slopes by `mean_square_error` of a scalar tracker here, whose
noise does not depend on the drift: in a network it may, as a higher loss has larger gradients.
Refuted by: slopes whose intervals leave out the claimed ones; a loss of SGD above AdamW's; no
gain from a fresh mean square (b2 = 0.9), if staleness is to be the reason.
Every run begins at weights that Adam has learnt on the first steps of the same path, the same for
all rates and optimizers, and its loss is counted after a burn-in: a low rate does not pay for the
way from random weights. The first versions began there: without wrong labels (separable classes
have no optimum at all), then with them and with slopes of 0.2 that said more of that way. With
the common start the rates were moved down by 3, and a walk of 0.25 degrees left out: it goes some
10 degrees in a run, so that one that hardly learns is as good, and its best rate was at the edge.
The control is a world that stands still: where its best rate is not well below that of the slowest
drift, the rate is not set by the drift, and no slope is judged.
Softmax regression on all digits, a fifth of the training labels wrong: with hidden units the best
answer to a fast drift would be one for every angle, which is another question (a linear one that is
best on average is the end of the slope, too). The loss is that of the test images as they stand
now. Every seed has its own path. As many rates for every optimizer; decay fixed and small; constant
rates. The slopes of AdamW are taken without momentum, which lags by itself; those of SGDW are not.
Slopes must be nearer to the law than to the other world's; this band, too, came after a first look.
The best rates flatten towards the fastest walk, where the law of a slow drift need not hold; slower
walks want longer runs than these. A no is about walks of 0.5 to 2 degrees.
Cost of PAPER: 1680 runs of 4,000 steps: 50 s of CPU time.
"""

import dataclasses

import jax
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval, bootstrap, median_over_seeds, ridge
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import load_digits, supervised_task, with_label_noise
from bayesfilt.tasks.networks import Mlp
from experiments.changing_digits import current, learnt_first, turned_by, turning_digits
from experiments.constant_gains import law_of
from experiments.contract import (
    INTERVAL,
    Result,
    Verdict,
    check_key,
    judged,
    not_judged,
    with_enough_seeds,
)
from experiments.grids import Axes, seeds_from
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best learning rate is proportional to the drift, and SGD wins where drift dominates."
SETTLES = ("P39",)
CAPTION = (
    "Best learning rate against the drift (grey: slopes 1 of a walk and 2/3 of a steady turn), loss"
    " on the current angle at the best rate relative to AdamW's, and loss against the rate at the"
    " fastest walk; medians with 90 % intervals over seeds."
)

_PLAIN, _STEADY = "adamw without momentum", "adamw without momentum, steady turn"
_FRESH = "adamw, b2 = 0.9"
_LOSS = 1.1  # a tenth of the loss: what may be lost without being worse
_RESAMPLES = 300
_LABELS = 0  # key of the wrong labels: the data do not change with the seed


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One optimizer in one kind of world."""

    name: str
    optimizer: str  # of the zoo
    rates: str
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.01  # "lr_scaled"; memories of thousands of steps
    wanders: bool = True


_ADAM_RATES, _SGD_RATES = "log:3e-4:0.1:8", "log:1.5e-3:0.5:8"

ENTRANTS = (
    Entrant("adamw", "adamw", _ADAM_RATES),
    Entrant(_PLAIN, "adamw", _ADAM_RATES, b1=0.0),
    Entrant(_STEADY, "adamw", _ADAM_RATES, b1=0.0, wanders=False),
    Entrant(_FRESH, "adamw", _ADAM_RATES, b2=0.9),
    Entrant("sgdw", "sgdw", _SGD_RATES, weight_decay=1e-3),
    Entrant("adabayes", "adabayes", _ADAM_RATES),
    Entrant("adabayes_fixed_point", "adabayes_fixed_point", _ADAM_RATES),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    entrants: tuple[Entrant, ...] = ENTRANTS
    # Deviation of a step in degrees; the first is the control.
    drifts: tuple[float, ...] = (0.0, 0.5, 0.8, 1.25, 2.0)
    speed: float = 0.1  # of a steady turn, as a fraction of the drift: degrees a step
    label_noise: float = 0.2  # of the training set
    batch_size: int = 8
    warm_up: int = 1_000  # steps of Adam before every run
    warm_rate: float = 0.02  # of it: near the best of the fast walks from random weights
    num_steps: int = 3_000
    burn_in: int = 1_000  # of which the loss is not counted
    record_every: int = 40
    num_seeds: int = 6


PAPER = Config()
QUICK = Config(
    entrants=tuple(
        dataclasses.replace(each, rates="log:0.01:0.1:3") for each in (*ENTRANTS[:3], ENTRANTS[4])
    ),
    drifts=(0.0, 0.5, 2.0),
    warm_up=20,
    num_steps=80,
    burn_in=40,
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train every entrant at every drift and rate; those of one optimizer together."""
    seeds = seeds_from(key, config.num_seeds)
    groups: dict[str, Group] = {}
    for optimizer in dict.fromkeys(each.optimizer for each in config.entrants):
        groups |= _trained(config, optimizer, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """The slopes, then who wins at the fastest walk."""
    groups = result.groups
    verdicts = [
        _slope_verdict("AdamW, walk: the best rate goes with the drift's deviation",
                       groups[_PLAIN], wanders=True),
        _slope_verdict("SGDW, walk: the best rate goes with the drift's deviation",
                       groups["sgdw"], wanders=True),
        _slope_verdict("AdamW, steady turn: the best rate goes with the speed to the power 2/3",
                       groups[_STEADY], wanders=False),
        _ratio_verdict("At the fastest walk SGDW, tuned anew, has a lower loss than AdamW",
                       groups, "sgdw", "adamw"),
        _growing(groups),
    ]  # fmt: skip
    rivals = {
        _FRESH: ("At the fastest walk a fresh mean square makes AdamW better", "adamw", 1.0),
        "adabayes": ("At the fastest walk AdaBayes is no worse than AdamW", "adamw", _LOSS),
        "adabayes_fixed_point": (
            "At the fastest walk AdaBayes at its fixed point is no worse than SGDW", "sgdw", _LOSS
        ),
    }  # fmt: skip
    for name, (claim, other, high) in rivals.items():
        if name in groups:
            verdicts.append(_ratio_verdict(claim, groups, name, other, high=high))
    return with_enough_seeds(verdicts, groups["adamw"]["loss"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best rates, relative losses, and the losses that they are the lowest of."""
    groups = result.groups
    panels = [
        _rate_panel(groups, "random walk", (_PLAIN, "sgdw"), wanders=True),
        _rate_panel(groups, "steady turn", (_STEADY,), wanders=False),
        _loss_panel(groups),
        _course_panel(groups),
    ]
    return panels_figure(panels_group(panels), venue)


def rate_slope(group: Group, losses: Float[np.ndarray, "drifts rates seeds"]) -> float:
    """Slope of the best rate on the drift, by parabolas; NaN where a best rate is at an edge."""
    drift = group["drift"].values
    best = ridge(losses[drift > 0], group["rate"].values).log_decay
    return float(np.polyfit(np.log(drift[drift > 0]), best, 1)[0])


def set_by_drift(group: Group) -> bool:
    """Whether the best rate without drift is at most half of that at the slowest drift."""
    places = np.argmin(median_over_seeds(group["loss"].values[:2]), axis=1)
    still, slowest = group["rate"].values[places]
    return bool(still <= 0.5 * slowest)


def _trained(config: Config, optimizer: str, seeds: tuple[int, ...]) -> dict[str, Group]:
    entrants = [each for each in config.entrants if each.optimizer == optimizer]
    rates = [Axes(rates=each.rates, decays="0").values()[0] for each in entrants]
    drifts = [np.array(config.drifts) * (1 if each.wanders else config.speed) for each in entrants]
    cells = [
        (drift, rate, each.b1, each.b2, each.weight_decay, float(each.wanders))
        for each, its_rates, its_drifts in zip(entrants, rates, drifts, strict=True)
        for drift in its_drifts
        for rate in its_rates
    ]
    names = ("drift", "rate", "b1", "b2", "weight_decay", "wanders")
    settings: dict[str, np.ndarray] = dict(zip(names, np.array(cells).T, strict=True))

    def optimizer_of(numbers):
        setting = Setting(
            learning_rate=numbers["rate"],
            weight_decay=numbers["weight_decay"],
            batch_size=config.batch_size,
            num_steps=config.num_steps,
            b1=numbers["b1"],
            b2=numbers["b2"],
        )
        own = {"learning_rate": numbers["rate"]} if optimizer == "sgdw" else {}
        return named_optimizer(optimizer, setting, **own).optimizer

    def world_of(task, numbers, key):
        path_key, learning_key = jax.random.split(key)
        turning = turned_by(task, path_key, numbers["drift"], numbers["wanders"])
        return learnt_first(turning, learning_key, optax.adam(config.warm_rate), config.warm_up)

    noisy = with_label_noise(jax.random.key(_LABELS), load_digits(), config.label_noise)
    base = supervised_task(noisy, Mlp((64, 10)), batch_size=config.batch_size)
    runs = train_many(
        turning_digits(base, config.warm_up + config.num_steps),
        optimizer_of,
        settings,
        seeds,
        config.num_steps,
        probes={"now": current},
        record_every=config.record_every,
        world_of=world_of,
    )
    loss = runs.records["now"]["test_loss"][..., runs.step >= config.burn_in].mean(axis=-1)
    found = np.split(loss, np.cumsum([len(config.drifts) * len(each) for each in rates])[:-1])
    return {
        each.name: {
            "drift": variable("drift", its_drifts, units="degrees/step"),
            "rate": variable("rate", its_rates, units="1"),
            "loss": variable(
                ("drift", "rate", "seed"),
                part.reshape(len(its_drifts), len(its_rates), -1),
                units="nats",
            ),
        }
        for each, its_drifts, its_rates, part in zip(entrants, drifts, rates, found, strict=True)
    }


def _slope_verdict(claim: str, group: Group, *, wanders: bool) -> Verdict:
    law, other = law_of(wanders=wanders), law_of(wanders=not wanders)
    slope = bootstrap(
        check_key(),
        lambda losses: rate_slope(group, losses),
        group["loss"].values,
        num_resamples=_RESAMPLES,
    )
    half = 0.5 * abs(law - other)
    verdict = judged(
        claim,
        slope,
        low=law - half,
        high=law + half,
        unit="slope",
        tolerance=f"{INTERVAL}; nearer to the law's {law:.2g} than to the other world's"
        f" {other:.2g}; not known where a best rate is at the edge of its grid",
    )
    if set_by_drift(group):
        return verdict
    return not_judged(
        verdict, "as the best rate without drift is no less than half of the slowest's"
    )


def _best_loss(losses: Float[np.ndarray, "rates seeds"]) -> float:
    return float(np.min(median_over_seeds(losses)))


def _at_edge(group: Group, drift: int) -> bool:
    medians = median_over_seeds(group["loss"].values[drift])
    return int(np.argmin(medians)) in (0, len(medians) - 1)


def _ratio(groups: dict[str, Group], first: str, second: str, drift: int) -> Interval:
    """Of the losses at the best rates of either, which every resample finds anew."""
    pair = [groups[name]["loss"].values[drift] for name in (first, second)]
    return bootstrap(
        check_key(),
        lambda draw: _best_loss(pair[0][:, draw]) / _best_loss(pair[1][:, draw]),
        np.arange(pair[0].shape[-1]),
        num_resamples=_RESAMPLES,
    )


def _ratio_verdict(
    claim: str, groups: dict[str, Group], first: str, second: str, *, high: float = 1.0
) -> Verdict:
    verdict = judged(claim, _ratio(groups, first, second, -1), high=high, unit="times the loss")
    for name in (first, second):
        if _at_edge(groups[name], -1):
            verdict = not_judged(verdict, f"as the best rate of {name} is at the edge of its grid")
    return verdict


def _growing(groups: dict[str, Group]) -> Verdict:
    """Whether the ratio of the losses falls from the slowest to the fastest walk."""
    pair = [groups[name]["loss"].values for name in ("sgdw", "adamw")]

    def change(draw: np.ndarray) -> float:
        slow, fast = (
            _best_loss(pair[0][drift][:, draw]) / _best_loss(pair[1][drift][:, draw])
            for drift in (1, -1)
        )
        return fast / slow

    every = np.arange(pair[0].shape[-1])
    verdict = judged(
        "SGDW stands better against AdamW at the fastest walk than at the slowest",
        bootstrap(check_key(), change, every, num_resamples=_RESAMPLES),
        high=1.0,
        unit="times the ratio of losses",
    )
    if any(_at_edge(groups[name], drift) for name in ("sgdw", "adamw") for drift in (1, -1)):
        verdict = not_judged(verdict, "as a best rate is at the edge of its grid")
    return verdict


def _rate_panel(
    groups: dict[str, Group], title: str, names: tuple[str, ...], *, wanders: bool
) -> Panel:
    series = []
    for name in names:
        group = groups[name]
        drift, losses = group["drift"].values[1:], group["loss"].values[1:]
        found = [
            bootstrap(
                check_key(),
                lambda drawn, rate=group["rate"].values: float(
                    np.exp(ridge(drawn[None], rate).log_decay[0])
                ),
                row,
                num_resamples=_RESAMPLES,
            )
            for row in losses
        ]
        y, low, high = np.array(found).T
        series.append(Series(_NAMES[name], drift, y, low, high))
        middle = np.nanmean(np.log(y)) if np.isfinite(y).any() else np.nan
        law = np.exp(middle + law_of(wanders=wanders) * (np.log(drift) - np.log(drift).mean()))
        series.append(Series("slope of a tracker", drift, law, kind="law"))
    what = "deviation" if wanders else "speed"
    return Panel(
        title, f"{what} (degrees/step)", "best learning rate", series, x_scale="log", y_scale="log"
    )


def _loss_panel(groups: dict[str, Group]) -> Panel:
    drift = groups["adamw"]["drift"].values[1:]
    series = []
    for name in groups:
        if name in ("adamw", _PLAIN, _STEADY):
            continue
        found = [_ratio(groups, name, "adamw", index + 1) for index in range(len(drift))]
        y, low, high = np.array(found).T
        series.append(Series(_NAMES[name], drift, y, low, high))
    return Panel(
        "at the best rates", "deviation (degrees/step)", "loss / AdamW's", series,
        x_scale="log", y_scale="linear", guide=1.0,
    )  # fmt: skip


def _course_panel(groups: dict[str, Group]) -> Panel:
    series = [
        Series(_NAMES[name], group["rate"].values, median_over_seeds(group["loss"].values[-1]))
        for name, group in groups.items()
        if name not in (_PLAIN, _STEADY)
    ]
    finite = [np.where(np.isfinite(each.y), each.y, np.nan) for each in series]
    series = [each._replace(y=y) for each, y in zip(series, finite, strict=True)]
    return Panel(
        "fastest walk", "learning rate", "loss (nats)", series, x_scale="log", y_scale="log"
    )


# Looks of the optimizers among themselves: the house's own are alike for two of these.
_NAMES = {
    "adamw": "AdamW",
    _PLAIN: "AdamW, b1 = 0",
    _STEADY: "AdamW, b1 = 0",
    _FRESH: "AdamW, b2 = 0.9",
    "sgdw": "SGDW",
    "adabayes": "AdaBayes",
    "adabayes_fixed_point": "fixed point",
}
