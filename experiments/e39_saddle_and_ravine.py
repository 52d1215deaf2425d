"""Does Adam solve saddle points, and do oscillating directions cancel in its momentum?

Claim: Adam does not solve saddle points: on one without noise it stays; near one its steps of fixed
size leave sooner than SGD's, and noise lets all leave. In a ravine the step per gradient is smaller
across, where gradients change sign, than along the floor; with gradients of signal-to-noise ratio s
Adam's mean step is s/√(1 + s²) learning rates.
Source: course notes (ledger 2.8, 2.9): "Adam solves the problem of saddle points"; "oscillating
directions cancel in m, consistent ones dominate"; for the mean step Balles and Hennig (2018).
Refuted by: an escape from the saddle without noise; an SGD or momentum that is as fast at its own
best rate; a step per gradient across the ravine that is as large as along it; another mean step.
An escape is the last step above a tenth of the saddle's height, so that to run away is no escape;
every optimizer has as many rates, in factors of two, and the one that is fastest in the median: for
steps of a length, one that fits the way to the minima. That nobody leaves the exact saddle without
noise is true by construction: it is the counterexample to the sentence as it is written.
Cost of PAPER: 1,260 runs of 1,000 steps of 2 weights and 80 of other surfaces, about 12 s of CPU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Record, variable
from bayesfilt.tasks import bowl_task, ravine_task, saddle_task
from experiments.contract import (
    Result,
    Verdict,
    judged,
    with_enough_seeds,
    within,
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.panels import Panel, Series, panels_group
from experiments.small_surfaces import (
    along_and_across,
    best_escape,
    escape_step,
    mean_step,
    simulated,
    sooner,
)

CLAIM = "Adam stays on a saddle without noise, and leaves its neighbourhood in steps of fixed size."
SETTLES = ("2.8", "2.9")
CAPTION = (
    "Steps until an optimizer at its best rate has left a saddle for good; the mean step of Adam by"
    " signal-to-noise ratio; step per gradient along a ravine's floor over that across it."
)
DTYPE = "float64"

_LAW = 0.05  # of a learning rate: how far the mean step may be from the law

EXACT, NEAR, NEARER = "on the saddle", "1e-3 from it", "1e-6 from it"
NOISY = ", noise"
# start spread, variance of one example's gradient noise
_WORLDS = {
    EXACT: (0.0, 0.0),
    NEAR: (1e-3, 0.0),
    NEARER: (1e-6, 0.0),
    EXACT + NOISY: (0.0, 1e-4),
    NEAR + NOISY: (1e-3, 1e-4),
}


# Optimizer, and the largest of its rates: steps of a gradient, and steps of a length. Across the
# pass SGD diverges at 2, and with momentum at 3.8: two rates of each are beyond.
_OPTIMIZERS: dict[str, tuple[Callable[[Any], optax.GradientTransformation], float]] = {
    "sgd": (optax.sgd, 7.6),
    "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 15.2),
    "rmsprop": (
        lambda rate: optax.rmsprop(rate, decay=0.999, eps_in_sqrt=False, bias_correction=True),
        1.0,
    ),
    "adam": (optax.adam, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    optimizers: tuple[str, ...] = tuple(_OPTIMIZERS)
    num_rates: int = 7
    num_seeds: int = 9
    num_steps: int = 1_000
    up: float = 1.0  # curvature across the pass
    down: float = 0.1  # minus the curvature along it
    ratios: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # signal to noise
    stream_steps: int = 4_000  # the first half is not counted
    # Of the gradient: SGD is stable in the ravine. Of the length: far from a step across it.
    ravine_rate: float = 1e-3
    ravine_length: float = 1e-2
    ravine_steps: int = 300
    ravine_skip: int = 100  # first steps, down to the floor


PAPER = Config()
QUICK = Config(
    optimizers=("sgd", "adam"),
    num_rates=3,
    num_seeds=3,
    num_steps=200,
    ratios=(0.1, 1.0, 10.0),
    stream_steps=400,
    ravine_steps=120,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Escapes of every optimizer from every start; steps in the stream and in the ravine."""
    seeds = np.array(seeds_from(key, config.num_seeds), np.uint32)
    groups = {f"saddle/{name}": _escapes(config, name, seeds) for name in config.optimizers}
    groups["stream"] = _stream(config, seeds)
    groups["ravine"] = _ravine(config, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def _escapes(config: Config, name: str, seeds: np.ndarray) -> dict:
    make, largest = _OPTIMIZERS[name]
    rates = largest * 2.0 ** -np.arange(config.num_rates)[::-1]
    tasks = [
        saddle_task(
            batch_size=1,
            up=config.up,
            down=config.down,
            start_spread=spread,
            gradient_noise=noise,
            dtype="float64",
        )
        for spread, noise in _WORLDS.values()
    ]
    probes = {"height": lambda task, view: task.expected_loss(view.params)}
    height = simulated(make, tasks, rates, seeds, config.num_steps, probes)["height"]
    saddle = float(tasks[0].expected_loss(jnp.zeros(2)))
    return {
        "world": variable("world", list(_WORLDS)),
        "rate": variable("rate", rates),
        "escape": variable(("world", "rate", "seed"), escape_step(height, saddle), units="steps"),
    }


def _stream(config: Config, seeds: np.ndarray) -> dict:
    """Adam on a slope that does not end: mean step of weights by signal-to-noise ratio."""
    ratios = np.array(config.ratios)
    flat = 1e-12  # a curvature so small that the gradient stays 1
    task = bowl_task(
        flat * np.eye(len(ratios)),
        np.diag(1 / ratios**2),
        batch_size=1,
        optimum=np.full(len(ratios), -1 / flat),
        dtype="float64",
    )
    rate = 1e-3
    seen = simulated(
        optax.adam,
        [task],
        np.array([rate]),
        seeds,
        config.stream_steps,
        {"step": lambda task, view: -view.updates},
    )["step"][0, 0]
    mean = seen[:, config.stream_steps // 2 :].mean(axis=1) / rate
    return {
        "ratio": variable("ratio", ratios, units="1"),
        "mean_step": variable(("ratio", "seed"), mean.T, units="learning rates"),
    }


def _ravine(config: Config, seeds: np.ndarray) -> dict:
    """Root mean square step over that of the gradient, along the floor and across it."""
    task = ravine_task(batch_size=1, gradient_noise=1e-4, dtype="float64")

    found = {}
    for name in config.optimizers:
        rate = config.ravine_rate if name in ("sgd", "momentum") else config.ravine_length
        seen = simulated(
            _OPTIMIZERS[name][0],
            [task],
            np.array([rate]),
            seeds,
            config.ravine_steps,
            {"both": along_and_across},
        )["both"]
        sizes = {
            what: np.sqrt((values[0, 0, :, config.ravine_skip :] ** 2).mean(axis=1))
            for what, values in seen.items()
        }
        found[name] = sizes["step"] / sizes["gradient"]
    ratio = np.stack([found[name][:, 0] / found[name][:, 1] for name in config.optimizers])
    return {
        "optimizer": variable("optimizer", list(config.optimizers)),
        "floor_over_wall": variable(("optimizer", "seed"), ratio, units="1"),
    }


def check(result: Result) -> list[Verdict]:
    """Who leaves the saddle, and when; the mean step; the ravine."""
    names = result.attributes["config"]["optimizers"]
    stays = all(np.isinf(_escape(result, name)[_world(result, EXACT)]).all() for name in names)
    found = [
        Verdict(
            claim="On a saddle without noise Adam stays, as every optimizer does",
            measured="no run left" if stays else "some run left",
            expected="no run leaves",
            tolerance="none: a gradient of zero is exact",
            holds=stays,
        ),
        *(
            _faster(result, f"Near a saddle without noise Adam is away sooner than {words}", other)
            for other, words in (
                ("sgd", "SGD at its own best rate"),
                ("momentum", "SGD with momentum at its own best rate"),
            )
            if other in names
        ),
        *_of_nearness_and_noise(result),
        _mean_step(result),
        *_of_the_ravine(result),
    ]
    num_seeds = result.groups["stream"]["mean_step"].values.shape[-1]
    return with_enough_seeds(found, num_seeds)


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Escapes by start, mean steps with their law, the ravine."""
    names = result.attributes["config"]["optimizers"]
    stream, ravine = result.groups["stream"], result.groups["ravine"]
    ratio = stream["ratio"].values
    worlds = [name for name in _WORLDS if name != EXACT]
    escapes = [
        _drawn(
            name,
            [
                interval_over_seeds(best_escape, _escape(result, name)[_world(result, world)])
                for world in worlds
            ],
            np.arange(len(worlds)) + 0.12 * (turn - 1.5),
        )
        for turn, name in enumerate(names)
    ]
    fine = np.geomspace(ratio[0], ratio[-1], 50)
    steps = [interval_over_seeds(_median, row) for row in stream["mean_step"].values]
    across = [interval_over_seeds(_median, row) for row in ravine["floor_over_wall"].values]
    panels = [
        Panel(
            title="leaving a saddle",
            x_label="",
            y_label="steps, at the best rate",
            series=escapes,
            y_scale="log",
            places=["1e-3\naway", "1e-6\naway", "on it,\nnoise", "1e-3,\nnoise"],
        ),
        Panel(
            title="Adam's mean step",
            x_label="signal-to-noise ratio s",
            y_label="learning rates",
            series=[
                _drawn("adam", steps, ratio),
                Series("s/√(1 + s²)", fine, mean_step(fine), kind="law"),
            ],
            x_scale="log",
            y_scale="linear",
        ),
        Panel(
            title="ravine: step per gradient",
            x_label="",
            y_label="floor over wall",
            series=[_drawn("floor over wall", across, np.arange(len(names)))],
            y_scale="log",
            guide=1.0,
            places=[_SHORT[name] for name in names],
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _escape(result: Result, name: str) -> np.ndarray:
    return result.groups[f"saddle/{name}"]["escape"].values


def _world(result: Result, name: str) -> int:
    group = next(group for key, group in result.groups.items() if key.startswith("saddle/"))
    return [str(each) for each in group["world"].values].index(name)


def _faster(result: Result, claim: str, other: str) -> Verdict:
    near = _world(result, NEAR)
    return sooner(claim, _escape(result, "adam")[near], _escape(result, other)[near], 0.0)


def _of_nearness_and_noise(result: Result) -> list[Verdict]:
    """A start a thousand times nearer; noise."""
    adam, sgd = _escape(result, "adam"), _escape(result, "sgd")
    near, nearer = _world(result, NEAR), _world(result, NEARER)
    exact, noisy = _world(result, EXACT + NOISY), _world(result, NEAR + NOISY)
    left = [np.isfinite(each[exact]).any(axis=0).all() for each in (adam, sgd)]
    return [
        sooner(
            "A start a thousand times nearer costs SGD more than a tenth of its steps",
            sgd[near],
            sgd[nearer],
            -float(np.log(1.1)),
        ),
        sooner(
            "A start a thousand times nearer costs Adam less than a tenth of its steps",
            adam[nearer],
            adam[near],
            float(np.log(1.1)),
        ),
        sooner(
            "Noise makes SGD leave the neighbourhood of a saddle sooner", sgd[noisy], sgd[near], 0.0
        ),
        Verdict(
            claim="With noise Adam and SGD both leave a saddle they start on",
            measured=f"all of Adam's runs: {left[0]}, all of SGD's: {left[1]}",
            expected="True of both",
            tolerance="at one rate at least, in every seed",
            holds=bool(all(left)),
        ),
    ]


def _mean_step(result: Result) -> Verdict:
    stream = result.groups["stream"]
    law = mean_step(stream["ratio"].values)

    def farthest(steps: np.ndarray) -> float:
        return float(np.max(np.abs(np.median(steps, axis=-1) - law)))

    return judged(
        "Adam's mean step is s/√(1 + s²) learning rates at a signal-to-noise ratio s",
        interval_over_seeds(farthest, stream["mean_step"].values),
        high=_LAW,
        tolerance="largest difference over ratios; 90 % bootstrap over seeds",
        unit="learning rates",
    )


def _of_the_ravine(result: Result) -> list[Verdict]:
    """Step per gradient along the floor over that across it, by what is averaged."""
    group = result.groups["ravine"]
    found = {
        str(name): interval_over_seeds(_median, row)
        for name, row in zip(
            group["optimizer"].values, group["floor_over_wall"].values, strict=True
        )
    }
    control = found["sgd"]
    verdicts = [
        Verdict(
            claim="Control: SGD steps as far per gradient along the ravine's floor as across it",
            measured=f"{control.estimate:.6g}",
            expected="1",
            tolerance="a millionth: true by construction",
            holds=within(control, 1 - 1e-6, 1 + 1e-6),
        )
    ]
    for name, words in (("momentum", "Momentum"), ("adam", "Adam")):
        if name in found:
            verdicts.append(
                judged(
                    f"{words} steps farther per gradient along the ravine's floor than across it",
                    found[name],
                    low=1.0,
                    tolerance="root mean squares over the run; 90 % bootstrap over seeds",
                )
            )
    if "adam" in found and "rmsprop" in found:
        rows = dict(zip(group["optimizer"].values, group["floor_over_wall"].values, strict=True))
        verdicts.append(
            judged(
                "Adam favours the ravine's floor more than RMSprop, which does not average",
                interval_over_seeds(_median, rows["adam"] / rows["rmsprop"]),
                low=1.0,
                tolerance="ratio of the two; 90 % bootstrap over paired seeds",
            )
        )
    return verdicts


_SHORT = {"sgd": "SGD", "momentum": "mom.", "rmsprop": "RMS", "adam": "Adam"}


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def _drawn(name: str, found: list[Interval], x: np.ndarray) -> Series:
    columns = (np.array([each[end] for each in found]) for end in range(3))
    return Series(
        name, x, *(np.where(np.isfinite(each), each, np.nan) for each in columns), kind="points"
    )
