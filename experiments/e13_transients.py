"""Does the filter warm up and cool down by itself, and do the two matter?

Claim: AdaBayes' learning rate rises from certainty as a tanh and falls from ignorance as a coth,
in steps of 1/(eta sqrt h) for a weight of precision h. When the drift is annealed it cannot fall
faster than gradients teach, so that it ends with larger steps than its fixed point.
Source: theory 2.5, "transient" and "annealing lag"; predictions P6 and P7.
Refuted by: other shapes or times; last steps that are no larger; on a network, a loss that differs
because of the lag, or Adam with a linear warm-up that the filter's own warm-up does not match.
Limits: P6 and P7 are consequences of the recursion; what is measured is the released recursion with
noisy squares in place of h. What the lag and the warm-up do to a loss is open in the theory: "yes"
there means that they cost nothing. A control at constant rate shows what else divides the two
optimizers. The two powers of the lag were derived for this experiment by scaling: the filter falls
behind once the schedule halves in fewer steps than the memory 1/(eta(t) sqrt h), s steps before the
end, with s^2 = T/(eta sqrt h) for a line to zero and s^3 ~ T^2/(eta sqrt h) for a cosine.
Cost of PAPER: 13,000 fed steps, 294 runs of the MLP of 1,200 steps: a minute or two.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import median_over_seeds
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Group, Record, variable
from bayesfilt.theory import transient_from_zero, transient_variance
from experiments.contract import Result, Verdict, judged, not_judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.fed_gradients import learning_rates, normal_gradients
from experiments.grids import seeds_from
from experiments.logarithms import geometric_mean, power_of
from experiments.panels import Panel, Series, panels_group
from experiments.scheduled_filters import train_variants

CLAIM = "The filter warms up and cools down by itself, at the pace of its own gradients."
SETTLES = ("P6", "P7")
CAPTION = (
    "Learning rate of AdaBayes over its settled one from a cold and a warm start, laws in grey;"
    " last steps of AdaBayes over those of its fixed point when the drift is annealed; losses of a"
    " network against the drift scale, medians and ranges over seeds."
)

COLD, WARM = "cold start", "warm start"
LINE, COSINE = "line", "cosine"
POWERS = {LINE: 1 / 2, COSINE: 4 / 3}
HALF_RISE = float(np.arctanh(0.5))  # of tanh to half, and of coth from infinity to twice

_TIME = 0.05  # of 0.549: a tenth, the rival is the law without its root
_SHAPE = 0.05  # root mean square of log(measured/law): gains are up to 0.1
_POWER = 0.15  # the scaling holds for long schedules only
_LOSS = 0.05  # of a log loss: less is no reason to choose an optimizer
_AHEAD = 1.5  # times the fixed point's steps: then the filter is behind its schedule
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
        "starts": _starts(config, fed_key),
        "annealed": _annealed(config, fed_key),
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


def time_to(course: Float[np.ndarray, " steps"], level: float) -> float:
    """Steps until a course first crosses a level, by a line between two steps; NaN if never."""
    side = course > level
    crossed = np.flatnonzero(side != side[0])
    if not crossed.size:
        return float("nan")
    after = int(crossed[0])
    before, beyond = course[after - 1], course[after]
    return float(after + (level - before) / (beyond - before))  # index i is step i + 1


def half_times(course: Float[np.ndarray, "steps precisions"], start: str) -> np.ndarray:
    """Steps to half the settled rate from a cold start, to twice of it from a warm one."""
    settled = course[-len(course) // 10 :].mean(axis=0)
    factor = 0.5 if start == COLD else 2.0
    return np.array([time_to(each, factor * last) for each, last in zip(course.T, settled)])  # noqa: B905


def steps_behind(factor: Float[np.ndarray, " steps"]) -> float:
    """Steps before the end from which on the filter's steps stay well above the fixed point's."""
    held = np.flatnonzero(factor < _AHEAD)
    return float(len(factor) - 1 - held[-1]) if held.size else float(len(factor))


def _starts(config: Config, key: PRNGKeyArray) -> Group:
    precision = np.geomspace(*config.precisions)
    step = jnp.arange(1, config.transient_steps + 1.0)[:, None]
    courses, laws = [], []
    for stationary in (jnp.inf, config.first_variance):
        optimizer = adabayes(config.drift_scale, stationary, batch_size=1, b1=0.0, weight_decay=0.0)
        courses.append(
            _averaged(config, optimizer, jnp.asarray(precision), key, config.transient_steps)
        )
    eta, first = config.drift_scale, config.first_variance
    laws = [
        transient_from_zero(step, jnp.asarray(precision), eta),
        transient_variance(first, step, jnp.asarray(precision), eta, first),
    ]
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "learning_rate": variable(
            ("start", "step", "precision", "seed"), np.stack(courses).astype(float), units="weight²"
        ),
        "law": variable(
            ("start", "step", "precision"), np.stack(laws).astype(float), units="weight²"
        ),
    }


def _annealed(config: Config, key: PRNGKeyArray) -> Group:
    """The rate of AdaBayes over that of the fixed point, through both schedules."""
    precision, steps = np.geomspace(*config.precisions), config.annealed_steps
    schedules = {
        LINE: optax.linear_schedule(config.drift_scale, 0.0, steps),
        COSINE: optax.cosine_decay_schedule(config.drift_scale, steps),
    }
    memory = 1 / (config.drift_scale * np.sqrt(precision))
    last = np.arange(steps)[:, None] >= steps - memory
    factors, behind = [], []
    for name in POWERS:
        rates = [
            _averaged(
                config,
                made(
                    schedules[name], config.first_variance, batch_size=1, b1=0.0, weight_decay=0.0
                ),
                jnp.asarray(precision),
                key,
                steps,
            ).astype(float)
            for made in (adabayes, adabayes_fixed_point)
        ]
        sums = [(rate * last[..., None]).sum(axis=0) for rate in rates]
        factors.append(sums[0] / sums[1])
        course = rates[0] / rates[1]
        behind.append([[steps_behind(each) for each in row] for row in np.moveaxis(course, 0, -1)])
    cells = ("schedule", "precision", "seed")
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "memories": variable("precision", steps / memory, units="1"),
        "last_factor": variable(cells, np.stack(factors), units="1"),
        "memories_behind": variable(cells, np.array(behind) / memory[:, None], units="1"),
    }


def _averaged(
    config: Config,
    optimizer: optax.GradientTransformation,
    precision: Float[Array, " precisions"],
    key: PRNGKeyArray,
    num_steps: int,
) -> Float[np.ndarray, "steps precisions seeds"]:
    """Learning rates, harmonic mean over copies: what gradients add is precision."""

    @functools.partial(jax.jit, static_argnames="steps")
    def fed(key: PRNGKeyArray, steps: int) -> Array:
        shape = (precision.size, config.fed_seeds, config.copies)
        rms = jnp.broadcast_to(jnp.sqrt(precision)[:, None, None], shape)
        rates = learning_rates(optimizer, normal_gradients(key, rms), steps)
        return 1 / jnp.mean(1 / rates, axis=-1)

    return np.asarray(fed(key, num_steps))


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
                unit=f"memories with steps above {_AHEAD:g} times the fixed point's",
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
            "digits-mlp: the filter's own warm-up is as good as Adam's explicit one",
            _LOSS,
            -_LOSS,
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
