"""Is AdaBayes an Adam whose memory of squared gradients is each weight's own?

Claim: the filter's variance forgets one loud gradient by the share 2 eta sqrt h per step, the fixed
point by 1 - b2 whatever the weight. So the variance of loud weights is noisier under AdaBayes than
under its fixed point, that of quiet weights smoother; they change places where the memories agree.
Source: derived for this project (check A10); prediction P8; for the noise, first order in it:
squares of normal gradients vary by 2 h^2, hence the relative variances are eta sqrt h/2 and
(1 - b2)/4.
Refuted by: another rate, or none that depends on h; loud weights whose variance is no noisier.
Limits: the fixed point's memory is b2 by construction. On the network both optimizers are fed with
gradients that AdamW left behind; those have heavy tails and are no stationary noise, so that only
which of the two is noisier is judged; the course of log p is freed of its line over the window. The
quietest weights have not settled when the window begins and are left out. The network's part was
run three times; in the first, of 1,500 steps, quiet weights looked noisier, and they do in this
one. A slow change of h, or a start that is not forgotten, can make them look so; so the gradients
of the window are fed in random order as well, over and over and for 24,000 steps, which leaves
neither: a "no" there is the law's (of heavy tails, which it leaves out), a "no" in their own order
alone is the run's. Both verdicts on random order were added after the "no" was seen.
Cost of PAPER: 30,000 fed steps; 5 runs of the MLP of 8,000 steps; half a minute.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import choose_weights, summed_gradient
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import make_task
from bayesfilt.theory import time_constant
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import AdamW, interval_over_seeds
from experiments.fed_gradients import learning_rates, normal_gradients
from experiments.grids import seeds_from
from experiments.logarithms import geometric_mean, power_of
from experiments.many_runs import Numbers, train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "AdaBayes is Adam with a memory of squared gradients that is each weight's own."
SETTLES = ("P8",)
CAPTION = (
    "First: share of one loud gradient that the variance forgets per step. Second: noise of the"
    " variance, for normal gradients. Third: the same on digits-mlp, AdaBayes over its fixed point,"
    " a point a weight. Laws in grey; ranges over seeds."
)

NETWORK, SHUFFLED = "network", "shuffled"
_WORLDS = {NETWORK: "digits-mlp", SHUFFLED: "digits-mlp, gradients in random order"}
ADABAYES, FIXED_POINT = "adabayes", "adabayes_fixed_point"

_RATE = 0.1  # of the predicted rate: gains are up to 0.05
_POWER = 0.05  # the rival is 0, or 1/2
_NOISE_POWER = 0.05  # the rival of 1/4 is 0
_PLACE = 1.5  # times the place where the memories agree; the next power of ten is far
_CLEAR = 2.0  # a weight this far from that place is loud or quiet
_SETTLED = 0.2  # quieter ones remember the start still: a memory of over 5,000 steps


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    drift_scale: float = 5e-3
    b2: float = 0.999
    precisions: tuple[float, float, int] = (2.5e-3, 1e2, 9)  # gains of 0.00025 to 0.05
    settle: int = 10_000  # steps, five memories of the quietest weight
    window: int = 20_000  # of the noise, after that
    spike: float = 3.0  # times the root mean square
    follow: int = 2  # memories over which the spike is followed
    copies: int = 8
    fed_seeds: int = 8
    network_rate: float = 3e-3
    network_decay: float = 1.0  # "lr_scaled"; strong, so that wrong labels go on making noise
    network_steps: int = 8_000
    network_window: int = 4_000  # the last ones
    shuffled_steps: int = 24_000  # five memories of the quietest weight that is judged
    per_layer: int = 100
    eta_sgd: float = 0.1
    seeds: int = 5


PAPER = Config()
QUICK = Config(
    precisions=(1.0, 1e2, 2), settle=600, window=600, copies=4, fed_seeds=3,
    network_steps=60, network_window=30, shuffled_steps=90, per_layer=10, seeds=3,
)  # fmt: skip


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Feed both optimizers with and without a spike, and with a network's gradients."""
    fed_key, seeds_key = jax.random.split(key)
    groups = {"fed": _fed(config, fed_key), **_network(config, seeds_key)}
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Memories, noise, and where one noise passes the other."""
    config, group = result.attributes["config"], result.groups["fed"]
    precision, rate, noise = (group[name].values for name in ("precision", "rate", "noise"))
    due = 1 / np.asarray(time_constant(jnp.asarray(precision), config["drift_scale"]), float)
    memory = 1 - config["b2"]
    asked: list[tuple[str, Callable[[np.ndarray], float], np.ndarray, float, float]] = [
        (
            "AdaBayes forgets a loud gradient by the share 2 eta sqrt h per step",
            lambda each: geometric_mean(each.mean(axis=-1) / due),
            rate[0],
            1 - _RATE,
            1 + _RATE,
        ),
        (
            "AdaBayes' forgetting goes as the square root of the weight's own precision",
            lambda each: power_of(precision, each.mean(axis=-1)),
            rate[0],
            0.5 - _POWER,
            0.5 + _POWER,
        ),
        (
            "the fixed point forgets a loud gradient by the share 1 - b2 per step",
            lambda each: geometric_mean(each.mean(axis=-1) / memory),
            rate[1],
            1 - _RATE,
            1 + _RATE,
        ),
        (
            "the fixed point's forgetting is the same for all weights",
            lambda each: power_of(precision, each.mean(axis=-1)),
            rate[1],
            -_POWER,
            _POWER,
        ),
        (
            "the noise of AdaBayes' variance goes as the precision to the power 1/4",
            lambda each: power_of(precision, each.mean(axis=-1)),
            noise[0],
            0.25 - _NOISE_POWER,
            0.25 + _NOISE_POWER,
        ),
        (
            "the two are equally noisy where the two memories agree",
            lambda each: same_noise(due / memory, each.mean(axis=-1)),
            noise,
            1 / _PLACE,
            _PLACE,
        ),
    ]
    verdicts = [
        judged(claim, interval_over_seeds(of, x), low=low, high=high)
        for claim, of, x, low, high in asked
    ]
    return [
        *with_enough_seeds(verdicts, config["fed_seeds"]),
        *with_enough_seeds(
            [each for world in _WORLDS for each in _network_verdicts(result, world)],
            config["seeds"],
        ),
    ]


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Rates and noises of the fed weights; ratios of noises of the network's."""
    config, group, network = (
        result.attributes["config"], result.groups["fed"], result.groups[NETWORK],
    )  # fmt: skip
    precision = group["precision"].values
    memory = 1 / np.asarray(time_constant(jnp.asarray(precision), config["drift_scale"]), float)
    fixed = np.full_like(memory, 1 - config["b2"])
    rates = [_line(name, precision, group["rate"].values[place]) for place, name in _NAMES]
    rates += [Series("law of AdaBayes", precision, memory, kind="law")]
    rates += [Series("law of the fixed point", precision, fixed, kind="law")]
    noises = [_line(name, precision, group["noise"].values[place]) for place, name in _NAMES]
    noises += [Series("law of AdaBayes", precision, np.sqrt(memory / 4), kind="law")]
    noises += [Series("law of the fixed point", precision, np.sqrt(fixed / 4), kind="law")]
    x, ratio = network["memory_ratio"].values, network["noise_ratio"].values
    known = np.isfinite(ratio) & (x > _SETTLED)
    cloud = Series("weights of digits-mlp", x[known], ratio[known], kind="points")
    panels = [
        Panel("One loud gradient", "precision h (1/weight²)", "share forgotten per step", rates),
        Panel("Noise", "precision h (1/weight²)", "deviation of log variance", noises),
        Panel(
            "On a network", "2 eta rms(g) / (1 - b2)", "noise over fixed point's", [cloud],
            x_scale="log", y_scale="log", guide=1.0,
        ),
    ]  # fmt: skip
    return panels_figure(panels_group(panels), venue)


_NAMES = ((0, ADABAYES), (1, FIXED_POINT))


def forgetting(gap: Float[np.ndarray, "steps ..."], steps: int) -> np.ndarray:
    """Share lost per step by a gap that was made at step 0: 1 - exp(slope of its logarithm)."""
    place = np.arange(steps) - (steps - 1) / 2
    logs = np.log(gap[:steps])
    return -np.expm1(np.tensordot(place, logs, axes=(0, 0)) / np.sum(place**2))


def noise_of(log_rate: Float[np.ndarray, "steps ..."]) -> np.ndarray:
    """Standard deviation in time, without what is a line."""
    place = np.arange(len(log_rate)) - (len(log_rate) - 1) / 2
    slope = np.tensordot(place, log_rate, axes=(0, 0)) / np.sum(place**2)
    rest = log_rate - log_rate.mean(axis=0) - place.reshape(-1, *[1] * slope.ndim) * slope
    return rest.std(axis=0)


def same_noise(memory_ratio: np.ndarray, noise: Float[np.ndarray, "2 precisions"]) -> float:
    """Ratio of memories at which both noises are equal, by a line over logarithms; NaN if none."""
    gap = np.log(noise[0] / noise[1])
    slope, level = np.polyfit(np.log(memory_ratio), gap, 1)
    return float(np.exp(-level / slope)) if slope > 0 else float("nan")


def _made(name: str, config: Config, prior: float, batch_size: int, drift_scale: float):
    plain = {"batch_size": batch_size, "b1": 0.0, "weight_decay": 0.0}
    if name == ADABAYES:
        return adabayes(drift_scale, prior, **plain)
    return adabayes_fixed_point(drift_scale, prior, b2=config.b2, **plain)


def _fed(config: Config, key: PRNGKeyArray) -> Group:
    precision = np.geomspace(*config.precisions)
    memory = np.asarray(time_constant(jnp.asarray(precision), config.drift_scale), float)
    rates, noises = [], []
    for _, name in _NAMES:
        plain, spiked = _courses(config, name, jnp.asarray(precision), key)
        after = slice(config.settle, None)
        noise = noise_of(np.log(plain[after]))
        noises.append(noise.mean(axis=-1))
        # Mean over copies first: a single copy's memory is as uneven as its gradients.
        gap = np.abs(np.log(spiked[after] / plain[after])).mean(axis=-1)
        own = memory if name == ADABAYES else np.full_like(memory, 1 / (1 - config.b2))
        steps = np.clip(config.follow * own, 10, config.window).astype(int)
        rates.append(
            np.stack([forgetting(gap[:, index], int(steps[index])) for index in range(len(steps))])
        )
    cells = ("optimizer", "precision", "seed")
    return {
        "optimizer": variable("optimizer", [name for _, name in _NAMES]),
        "precision": variable("precision", precision, units="1/weight²"),
        "rate": variable(cells, np.stack(rates), units="1/step"),
        "noise": variable(cells, np.stack(noises), units="1, standard deviation of log variance"),
    }


def _courses(
    config: Config, name: str, precision: Float[Array, " precisions"], key: PRNGKeyArray
) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates over (steps, precisions, seeds, copies), without and with a spike."""

    @functools.partial(jax.jit, static_argnames="num_steps")
    def fed(key: PRNGKeyArray, spike: Array, num_steps: int) -> Array:
        shape = (precision.size, config.fed_seeds, config.copies)
        rms = jnp.broadcast_to(jnp.sqrt(precision)[:, None, None], shape)
        drawn = normal_gradients(key, rms)

        def gradient_at(step: Array) -> Array:
            return jnp.where(step == config.settle, spike * rms, drawn(step))

        optimizer = _made(name, config, jnp.inf, 1, config.drift_scale)
        return learning_rates(optimizer, gradient_at, num_steps)

    steps = config.settle + config.window
    plain, spiked = (
        np.asarray(fed(key, jnp.asarray(spike), steps)) for spike in (1.0, config.spike)
    )
    return plain, spiked


def _network(config: Config, key: PRNGKeyArray) -> dict[str, Group]:
    """Both optimizers fed with the gradients of a run of AdamW, in their order and in none."""
    task = make_task("digits-mlp", batch_size=32, dtype="float32", subset=300, label_noise=0.2)
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    chosen = choose_weights(jax.random.key(0), shapes, per_layer=config.per_layer)
    leader = AdamW(weight_decay=config.network_decay, batch_size=task.batch_size)

    def optimizer_of(numbers: Numbers):
        return leader.builder()(numbers["learning_rate"])

    seeds = seeds_from(key, config.seeds)
    runs = train_many(
        task,
        optimizer_of,
        {"learning_rate": np.array([config.network_rate], np.float32)},
        seeds,
        config.network_steps,
        probes={"gradient": summed_gradient(chosen)},
    )
    gradient = np.moveaxis(runs.records["gradient"][0], 1, 0)  # (steps, seeds, weights)
    window = gradient[-config.network_window :]
    # A random order has no slow change of h, and a long run has forgotten its start.
    order = jax.random.permutation(key, config.shuffled_steps) % len(window)
    return {
        NETWORK: _noise_ratios(config, gradient, task.batch_size),
        SHUFFLED: _noise_ratios(config, window[np.asarray(order)], task.batch_size),
    }


def _noise_ratios(
    config: Config, gradient: Float[np.ndarray, "steps seeds weights"], batch_size: int
) -> Group:
    """Noise of AdaBayes' variance over that of the fixed point's, a weight each."""
    noises = []
    for _, name in _NAMES:
        optimizer = _made(name, config, config.eta_sgd / batch_size, 1, config.network_rate)
        fed = jax.jit(lambda given, made=optimizer: _rates_of(made, given))
        course = np.asarray(fed(jnp.asarray(gradient))[-config.network_window :], float)
        noises.append(noise_of(np.log(course)))
    rms = np.sqrt(np.mean(np.square(gradient[-config.network_window :]), axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(rms > 0, noises[0] / noises[1], np.nan)
    return {
        "memory_ratio": variable(
            ("seed", "weight"), 2 * config.network_rate * rms / (1 - config.b2), units="1"
        ),
        "noise_ratio": variable(("seed", "weight"), ratio, units="1"),
    }


def _rates_of(optimizer, gradient: Float[Array, "steps ..."]) -> Array:
    return learning_rates(optimizer, lambda step: gradient[step], len(gradient))


def _network_verdicts(result: Result, world: str) -> list[Verdict]:
    group = result.groups[world]
    both = np.stack([group[name].values.T for name in ("memory_ratio", "noise_ratio")])

    def typical(each: np.ndarray, loud: bool) -> float:
        place, ratio = each
        there = place > _CLEAR if loud else (place < 1 / _CLEAR) & (place > _SETTLED)
        known = there & np.isfinite(ratio)
        return float(np.median(ratio[known])) if known.any() else float("nan")

    return [
        judged(
            f"{_WORLDS[world]}: the variance of {word} weights is {than} under AdaBayes than under"
            " its fixed point",
            interval_over_seeds(lambda each, loud=loud: typical(each, loud), both),
            low=1.0 if loud else -float("inf"),
            high=float("inf") if loud else 1.0,
            unit="times the noise of the fixed point's, median over weights",
        )
        for word, loud, than in (("loud", True, "noisier"), ("quiet", False, "smoother"))
    ]


def _line(name: str, x: np.ndarray, values: Float[np.ndarray, "precisions seeds"]) -> Series:
    low, high = values.min(axis=-1), values.max(axis=-1)
    return Series(name, x, values.mean(axis=-1), low=low, high=high)
