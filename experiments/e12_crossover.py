"""Where does SGD turn into Adam, and does the batch size move that place?

Claim: for the filter and for its fixed point the crossover is at an RMS mean gradient of
eta_Adam/eta_SGD; there the variance is 0.618 of its prior; far below the step is SGD's, far above
Adam's. The batch size does not move it as long as the prior is eta_SGD/B; a fixed prior makes it
move as 1/B.
Source: Aitchison (2020), eq. 21 and the released defaults; checks A4 and A5; predictions P3 and P5.
Refuted by: steps whose two asymptotes meet elsewhere, or move with B; another share than 0.618.
Limits: the fixed point has this by construction (a test of units and code); that the recursion has
it too, fed with noisy squares, is a result. With a fixed prior all batch sizes see the same summed
gradients, so that its power is -1 by construction, for both. Gradients are independent normal
numbers. The crossover is read off the steps: the loud asymptote (rate times gradient) over the
quiet one (rate). The grid of gradients is centred on the predicted place, the reading is not.
"0.618 and the golden ratio" of ledger row 2.3 is this number and nothing about when to switch
optimizers.
Cost of PAPER: 2 optimizers, 14 settings, 31 gradients, 5 seeds, 30,000 steps: half a minute.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Group, Record, variable
from bayesfilt.theory import crossover_gradient, fixed_point_variance
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.fed_gradients import normal_gradients, settled_learning_rate
from experiments.logarithms import geometric_mean, power_of
from experiments.panels import Panel, Series, panels_group

CLAIM = "SGD turns into Adam at a mean gradient of eta_Adam/eta_SGD, whatever the batch size."
SETTLES = ("P3", "P5")
CAPTION = (
    "Left: learning rate on the mean gradient against the size of that gradient, for the smallest"
    " and the largest batch. Right: crossover read off the steps against the batch size, with a"
    " prior that goes as 1/B and with a fixed one; laws in grey, ranges over seeds."
)
DTYPE = "float64"

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adabayes": adabayes,
    "adabayes_fixed_point": adabayes_fixed_point,
}
SCALED, FIXED = "prior eta_SGD/B", "fixed prior"
SHARE = 2 / (1 + 5**0.5)

_PLACE = 0.15  # of the crossover and of Adam's limit: eta g = 0.15 at the loudest gradient
_SHARE = 0.03  # of 0.618: a crossover 10 % away would be 0.59 or 0.645
_QUIET = 0.05
_SLOPE = 0.05  # the rivals are 0 and -1
_REASONS = {
    _PLACE: "the room is the filter's departure from its first order at the loudest gradient",
    _SHARE: "a crossover a tenth away would have 0.59 or 0.645",
    _QUIET: "a thirtieth of the crossover's gradient leaves 0.1 %, noise the rest",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    eta_adam: float = 1e-3  # the released defaults
    eta_sgd: float = 0.1
    batch_sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    fixed_at: int = 64  # batch size whose prior the fixed one is
    decades: float = 1.5  # of gradients, on either side of the crossover
    points: int = 31  # odd: one is at the crossover
    num_steps: int = 30_000  # five times the longest memory, at B = 8; the second half is averaged
    seeds: int = 5


PAPER = Config()
QUICK = Config(batch_sizes=(64, 256), points=7, num_steps=1_500, seeds=3)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Feed both optimizers with gradients of every size, at every batch size."""
    keys = jax.random.split(key, config.seeds)
    groups = {
        f"{name}/{prior}": _fed(config, name, prior, keys)
        for name in OPTIMIZERS
        for prior in (SCALED, FIXED)
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Place, share, both limits, and how the place moves with the batch size."""
    config, verdicts = result.attributes["config"], []
    eta, eta_sgd = config["eta_adam"], config["eta_sgd"]
    for name in OPTIMIZERS:
        group = result.groups[f"{name}/{SCALED}"]
        gradient = group["gradient"].values
        rate = group["learning_rate"].values  # (batches, gradients, seeds)
        middle = gradient.shape[1] // 2
        asked: list[tuple[str, Callable[[np.ndarray], float], float, float, str]] = [
            (
                f"{name}: SGD turns into Adam at the mean gradient eta_Adam/eta_SGD",
                lambda each, g=gradient: geometric_mean(crossing(g, each) / (eta / eta_sgd)),
                1.0,
                _PLACE,
                "times that gradient",
            ),
            (
                f"{name}: at the mean gradient eta_Adam/eta_SGD the variance is 0.618 of its prior",
                lambda each, m=middle: geometric_mean(each[:, m].mean(axis=-1) / eta_sgd),
                SHARE,
                _SHARE,
                "of the prior",
            ),
            (
                f"{name}: 30 times below the crossover the step is SGD's",
                lambda each: geometric_mean(each[:, 0].mean(axis=-1) / eta_sgd),
                1.0,
                _QUIET,
                "times eta_SGD",
            ),
            (
                f"{name}: 30 times above the crossover the step is Adam's",
                lambda each, g=gradient: geometric_mean(each[:, -1].mean(axis=-1) * g[:, -1] / eta),
                1.0,
                _PLACE,
                "times eta_Adam over the gradient",
            ),
        ]
        verdicts += [
            _judged(claim, of, rate, due, room, unit, _REASONS[room])
            for claim, of, due, room, unit in asked
        ]
        for prior, due in ((SCALED, 0.0), (FIXED, -1.0)):
            group = result.groups[f"{name}/{prior}"]
            verdicts.append(
                _judged(
                    f"{name}: with a {prior} the crossover goes as the batch size to the power"
                    f" {due:g}",
                    _slope(group["batch_size"].values, group["gradient"].values),
                    group["learning_rate"].values,
                    due,
                    _SLOPE,
                    "",
                    "a twentieth of the way to the rival",
                )
            )
    return with_enough_seeds(verdicts, config["seeds"])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Learning rate against gradient; crossover against batch size."""
    rates, places = [], []
    for name in OPTIMIZERS:
        group = result.groups[f"{name}/{SCALED}"]
        for batch in (0, -1):
            values = group["learning_rate"].values[batch]
            size = int(group["batch_size"].values[batch])
            label = f"{name}, B = {size}"
            x = group["gradient"].values[batch]
            y, low, high = (at(values, axis=-1) for at in (np.median, np.min, np.max))
            rates.append(Series(name=label, x=x, y=y, low=low, high=high))
    group = result.groups[f"adabayes/{SCALED}"]
    law = group["law"].values[0]
    rates.append(Series("closed form", group["gradient"].values[0], law, kind="law"))
    for name in OPTIMIZERS:
        for prior in (SCALED, FIXED):
            group = result.groups[f"{name}/{prior}"]
            places.append(_places(f"{name}, {prior}", group))
    for prior in (SCALED, FIXED):
        group = result.groups[f"adabayes/{prior}"]
        x, y = group["batch_size"].values, group["predicted"].values
        places.append(Series("predicted crossover", x, y, kind="law"))
    panels = [
        Panel("Steps", "RMS mean gradient (1/weight)", "rate on mean gradient (weight²)", rates),
        Panel("Crossover", "batch size B (examples)", "RMS mean gradient (1/weight)", places),
    ]
    return panels_figure(panels_group(panels), venue)


def crossing(
    gradient: Float[np.ndarray, "batches gradients"],
    rate: Float[np.ndarray, "batches gradients seeds"],
) -> Float[np.ndarray, " batches"]:
    """The gradient at which the loud asymptote of the steps meets the quiet one.

    A rate that is constant below and goes as one over the gradient above has its corner where
    rate times gradient at the loudest equals the rate at the quietest times the gradient.
    """
    mean = rate.mean(axis=-1)
    return mean[:, -1] * gradient[:, -1] / mean[:, 0]


def _fed(config: Config, name: str, prior: str, keys: PRNGKeyArray) -> Group:
    batch = np.array(config.batch_sizes)
    divisor = batch if prior == SCALED else np.full_like(batch, config.fixed_at)
    variance = config.eta_sgd / divisor
    # Of the summed gradient, hence of the mean gradient divided by B.
    predicted = np.asarray(crossover_gradient(config.eta_adam, jnp.asarray(variance))) / batch
    spread = np.geomspace(10**-config.decades, 10**config.decades, config.points)
    gradient = predicted[:, None] * spread
    rates = _settled(
        name, config.eta_adam, jnp.asarray(variance), jnp.asarray(batch, float),
        jnp.asarray(gradient), keys, num_steps=config.num_steps,
    )  # fmt: skip
    summed = np.square(batch[:, None] * gradient)
    law = fixed_point_variance(jnp.asarray(summed), config.eta_adam, jnp.asarray(variance)[:, None])
    cells = ("batch", "size")
    return {
        "batch_size": variable("batch", batch, units="examples"),
        "predicted": variable("batch", predicted, units="1/weight, mean gradient"),
        "gradient": variable(cells, gradient, units="1/weight, mean gradient"),
        "learning_rate": variable((*cells, "seed"), np.asarray(rates), units="weight²"),
        "law": variable(cells, np.asarray(law) * batch[:, None], units="weight²"),
    }


@functools.partial(jax.jit, static_argnames=("name", "num_steps"))
def _settled(
    name: str,
    eta: float,
    variance: Float[Array, " batches"],
    batch: Float[Array, " batches"],
    gradient: Float[Array, "batches gradients"],
    keys: PRNGKeyArray,
    *,
    num_steps: int,
) -> Float[Array, "batches gradients seeds"]:
    """Settled learning rates; the same draws at every batch size."""

    def one(key, variance, batch, gradient):
        optimizer = OPTIMIZERS[name](eta, variance, batch_size=batch, b1=0.0, weight_decay=0.0)
        return settled_learning_rate(optimizer, normal_gradients(key, gradient), num_steps)

    batches = jax.vmap(one, in_axes=(None, 0, 0, 0))
    return jax.vmap(batches, in_axes=(0, None, None, None), out_axes=-1)(
        keys, variance, batch, gradient
    )


def _slope(batch: np.ndarray, gradient: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda rate: power_of(batch, crossing(gradient, rate))


def _judged(
    claim: str,
    statistic: Callable[[np.ndarray], float],
    rate: np.ndarray,
    due: float,
    room: float,
    unit: str,
    reason: str,
) -> Verdict:
    return judged(
        claim,
        interval_over_seeds(statistic, rate),
        low=due - room,
        high=due + room,
        tolerance=f"90 % bootstrap over seeds; {reason}",
        unit=unit,
    )


def _places(name: str, group: Group) -> Series:
    rate, gradient = group["learning_rate"].values, group["gradient"].values
    by_seed = np.stack(
        [crossing(gradient, rate[..., [seed]]) for seed in range(rate.shape[-1])], axis=-1
    )
    return Series(
        name=name,
        x=group["batch_size"].values,
        y=crossing(gradient, rate),
        low=by_seed.min(axis=-1),
        high=by_seed.max(axis=-1),
    )
