"""Does the filter warm up and cool down by itself, and do the two matter?

Claim: AdaBayes' learning rate rises from certainty as a tanh and falls from ignorance as a coth,
in steps of 1/(eta sqrt h) for a weight of precision h. When the drift is annealed it cannot fall
faster than gradients teach, so that it ends with larger steps than its fixed point.
Source: derived for this project (checks A7 and A9); predictions P6 and P7.
Refuted by: other shapes or times; last steps that are no larger; on a network, a loss that differs
because of the lag, or Adam with a linear warm-up that the filter's own warm-up does not match.
Limits: P6 and P7 are consequences of the recursion; what is measured is the released recursion with
noisy squares in place of h. What the lag and the warm-up do to a loss is open in the theory: "yes"
there means that they cost nothing. A control at constant rate shows what else divides the two
optimizers, and AdaBayes differs from Adam in its memory of squares as well: a "no" to the filter's
own warm-up is not the warm-up's alone. Networks were run first with eta_sgd 0.1 and drift scales of
1e-3 to 3e-2, where nearly every weight is in SGD's regime and verdicts were yes or not judged; the
"no"s came with eta_sgd 1. Only the drift scale is tuned, by the loss that is reported, as often for
all. The two powers of the lag were derived for this experiment by scaling: the filter falls
behind once the schedule halves in fewer steps than the memory 1/(eta(t) sqrt h), s steps before the
end, with s^2 = T/(eta sqrt h) for a line to zero and s^3 ~ T^2/(eta sqrt h) for a cosine.
Cost of PAPER: 13,000 fed steps, 294 runs of the MLP of 1,200 steps: a minute or two.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import median_over_seeds
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record
from experiments.contract import INTERVAL, Result, Verdict, judged, not_judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.fed_transients import (
    AHEAD,
    COLD,
    COSINE,
    LINE,
    WARM,
    annealed_group,
    half_times,
    starts_group,
)
from experiments.grids import seeds_from
from experiments.logarithms import geometric_mean, power_of
from experiments.panels import Panel, Series, panels_group
from experiments.scheduled_filters import train_variants

CLAIM = "The filter warms up and cools down by itself, at the pace of its own gradients."
SETTLES = ("P6", "P7")
CAPTION = (
    "Learning rate of AdaBayes over its settled one from a cold and a warm start, laws in grey;"
    " last steps of AdaBayes over those of its fixed point when the drift is annealed; losses of a"
    " network against the drift scale. Medians and ranges over seeds."
)

POWERS = {LINE: 1 / 2, COSINE: 4 / 3}
HALF_RISE = float(np.arctanh(0.5))  # of tanh to half, and of coth from infinity to twice

_TIME = 0.05  # of 0.549: a tenth, the rival is the law without its root
_SHAPE = 0.05  # root mean square of log(measured/law): gains are up to 0.1
_POWER = 0.15  # the scaling holds for long schedules only
_LOSS = 0.05  # of a log loss: less is no reason to choose an optimizer
_DRAWN = ("adabayes, cosine", "fixed point, cosine", "adabayes, cold start", "adam")
_LONG = 30.0  # memories, from which a schedule counts as long


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    drift_scale: float = 1e-3
    precisions: tuple[float, float, int] = (1.0, 1e4, 5)  # gains of 0.001 to 0.1
    first_variance: float = 1.0  # of the warm start, 1,000 times the settled one at least
    transient_steps: int = 3_000
    annealed_steps: int = 10_000
    copies: int = 32  # of each weight, averaged
    fed_seeds: int = 8
    drift_scales: tuple[float, float, int] = (3e-4, 0.1, 6)  # of the networks
    eta_sgd: float = 1.0  # a tenth of it keeps every weight of the network in SGD's regime
    steps: int = 1_200
    warm_up: int = 120  # steps of the explicit one
    seeds: int = 7


PAPER = Config()
QUICK = Config(
    precisions=(1e2, 1e4, 2), transient_steps=300, annealed_steps=4_000, copies=4, fed_seeds=3,
    drift_scales=(3e-3, 1e-2, 2), steps=40, warm_up=5, seeds=3,
)  # fmt: skip


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Feed the filter from both starts and through both schedules; train networks."""
    fed_key, seeds_key = jax.random.split(key)
    seeds = seeds_from(seeds_key, config.seeds)
    groups = {
        "starts": starts_group(config, fed_key),
        "annealed": annealed_group(config, fed_key),
        "networks": train_variants(config, seeds),
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Times and shapes of the transients, the lag, and what both do on a network."""
    config = result.attributes["config"]
    fed = [*_start_verdicts(result), *_lag_verdicts(result)]
    trained = _network_verdicts(result.groups["networks"])
    return [
        *with_enough_seeds(fed, config["fed_seeds"]),
        *with_enough_seeds(trained, config["seeds"]),
    ]


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Transients, the lag by schedule, and losses."""
    starts, annealed = result.groups["starts"], result.groups["annealed"]
    panels = [_start_panel(starts, place, start) for place, start in enumerate((COLD, WARM))]
    lag = []
    for place, schedule in enumerate(POWERS):
        values = annealed["last_factor"].values[place]
        lag.append(_with_range(schedule, annealed["memories"].values, values))
    panels.append(Panel("Annealing lag", "schedule (memories)", "last steps over fixed point", lag))
    networks = result.groups["networks"]
    for loss in ("training_loss", "test_loss"):
        lines = [
            _with_range(name, networks["drift_scale"].values, networks[loss].values[place])
            for place, name in enumerate(networks["optimizer"].values.tolist())
            if name in _DRAWN
        ]
        panels.append(
            Panel(loss.replace("_", " ").capitalize(), "drift scale (weight)", "loss (nats)", lines)
        )
    return panels_figure(panels_group(panels), venue)


def _start_verdicts(result: Result) -> list[Verdict]:
    group, eta = result.groups["starts"], result.attributes["config"]["drift_scale"]
    precision, verdicts = group["precision"].values, []
    memory = 1 / (eta * np.sqrt(precision))
    for place, start in enumerate((COLD, WARM)):
        rates, law = group["learning_rate"].values[place], group["law"].values[place]

        def scaled(each: np.ndarray, start: str = start) -> float:
            return geometric_mean(half_times(each.mean(axis=-1), start) / memory)

        def power(each: np.ndarray, start: str = start) -> float:
            return power_of(precision, half_times(each.mean(axis=-1), start))

        def shape(each: np.ndarray, law: np.ndarray = law) -> float:
            gap = np.log(each.mean(axis=-1)[4:] / law[4:])  # one square is no precision
            return float(np.sqrt(np.mean(np.square(gap))))

        word = "half" if start == COLD else "twice"
        verdicts += [
            judged(
                f"{start}: {word} the settled rate is reached in 0.549/(eta sqrt h) steps",
                interval_over_seeds(scaled, rates),
                low=HALF_RISE - _TIME,
                high=HALF_RISE + _TIME,
                unit="memories",
            ),
            judged(
                f"{start}: the time to {word} the settled rate goes as h to the power -1/2",
                interval_over_seeds(power, rates),
                low=-0.5 - _TIME,
                high=-0.5 + _TIME,
            ),
            judged(
                f"{start}: the learning rate follows its closed form at every step",
                interval_over_seeds(shape, rates),
                high=_SHAPE,
                unit="root mean square of log(measured/law)",
            ),
        ]
    return verdicts


def _lag_verdicts(result: Result) -> list[Verdict]:
    group = result.groups["annealed"]
    long = group["memories"].values >= _LONG
    verdicts = []
    for place, (schedule, power) in enumerate(POWERS.items()):
        factor = group["last_factor"].values[place][long]
        behind = group["memories_behind"].values[place][long]
        memories = group["memories"].values[long]
        verdicts += [
            judged(
                f"{schedule}: AdaBayes takes larger steps in the last 1/(eta sqrt h) than its fixed"
                " point",
                interval_over_seeds(lambda each: float(each.mean(axis=-1).min()), factor),
                low=1.0,
                unit="times the fixed point's, least over h",
            ),
            judged(
                f"{schedule}: that factor goes as the length in memories to the power {power:.3g}",
                interval_over_seeds(
                    lambda each, memories=memories: power_of(memories, each.mean(axis=-1)), factor
                ),
                low=power - _POWER,
                high=power + _POWER,
            ),
            judged(
                f"{schedule}: the lag is confined to about the last 1/(eta sqrt h) steps",
                interval_over_seeds(lambda each: float(np.median(each.mean(axis=-1))), behind),
                high=2.0,
                tolerance=f"{INTERVAL}; twice the time that the claim names",
                unit=f"memories with steps above {AHEAD:g} times the fixed point's",
            ),
        ]
    return verdicts


def _network_verdicts(group: Group) -> list[Verdict]:
    names = group["optimizer"].values.tolist()

    def ratio(first: str, second: str, loss: str, claim: str, high: float, low: float) -> Verdict:
        pair = np.stack([group[loss].values[names.index(each)] for each in (first, second)])
        found = interval_over_seeds(lambda each: _best(each[0])[0] - _best(each[1])[0], pair)
        made = judged(claim, found, low=low, high=high, unit="log ratio of best median losses")
        if any(_best(each)[1] for each in pair):
            return not_judged(made, "where the best drift scale is at the edge of its grid")
        return made

    variance = group["last_variance"].values
    pair = np.stack(
        [variance[names.index(f"{each}, cosine")] for each in ("adabayes", "fixed point")]
    )
    verdicts = [
        judged(
            "digits-mlp, cosine: AdaBayes' last steps are larger than its fixed point's",
            interval_over_seeds(lambda each: float(np.median(each[0] / each[1])), pair),
            low=1.0,
            unit="times, median over weights, drift scales and seeds",
        )
    ]
    for loss in ("training_loss", "test_loss"):
        word = loss.replace("_", " ")
        claim = f"digits-mlp, cosine: AdaBayes has the {word} of its fixed point"
        verdicts.append(
            ratio("adabayes, cosine", "fixed point, cosine", loss, claim, _LOSS, -_LOSS)
        )
        verdicts.append(_owed_to_lag(group, loss, word))
    return [
        *verdicts,
        ratio(
            "adam, linear warm-up",
            "adam",
            "test_loss",
            "digits-mlp: an explicit linear warm-up costs Adam no test loss",
            _LOSS,
            -float("inf"),
        ),
        ratio(
            "adabayes, cold start",
            "adam, linear warm-up",
            "test_loss",
            "digits-mlp: the filter with its own warm-up is as good as Adam with an explicit one",
            _LOSS,
            -float("inf"),
        ),
    ]


def _owed_to_lag(group: Group, loss: str, word: str) -> Verdict:
    """How much more the two optimizers differ under a cosine than at a constant rate."""
    names = group["optimizer"].values.tolist()
    runs = np.stack(
        [
            group[loss].values[names.index(f"{name}, {schedule}")]
            for schedule in ("cosine", "constant")
            for name in ("adabayes", "fixed point")
        ]
    )

    def more(each: np.ndarray) -> float:
        annealed, annealed_fixed, constant, constant_fixed = (_best(one)[0] for one in each)
        return (annealed - annealed_fixed) - (constant - constant_fixed)

    made = judged(
        f"digits-mlp: the annealing lag makes no difference to the {word}",
        interval_over_seeds(more, runs),
        low=-_LOSS,
        high=_LOSS,
        unit="log ratio of best median losses, cosine less constant",
    )
    if any(_best(each)[1] for each in runs):
        return not_judged(made, "where the best drift scale is at the edge of its grid")
    return made


def _best(losses: Float[np.ndarray, "scales seeds"]) -> tuple[float, bool]:
    """Logarithm of the lowest median loss, and whether it is at the edge of its grid."""
    medians = median_over_seeds(losses)
    place = int(np.argmin(medians))
    lowest = medians[place]
    known = np.isfinite(lowest) and lowest > 0
    return (float(np.log(lowest)) if known else float("nan")), place in (0, len(medians) - 1)


def _with_range(name: str, x: np.ndarray, values: np.ndarray) -> Series:
    """Median over seeds, which are last, between the least and the largest."""
    low, high = values.min(axis=-1), values.max(axis=-1)
    return Series(name, x, median_over_seeds(values), low=low, high=high)


def _start_panel(group: Group, place: int, start: str) -> Panel:
    """The loudest weight and the quietest, over what each settles at."""
    rates, law = group["learning_rate"].values[place], group["law"].values[place]
    steps = np.unique(np.geomspace(1, len(law), 60).astype(int)) - 1
    series = []
    for weight in (0, -1):
        final = law[-1, weight]
        name = f"AdaBayes, h = {group['precision'].values[weight]:g}"
        series.append(_with_range(name, steps + 1.0, rates[steps, weight] / final))
        series.append(Series("tanh, coth", steps + 1.0, law[steps, weight] / final, kind="law"))
    return Panel(start.capitalize(), "steps", "rate / settled rate", series)
