"""Are large weights penalised less, or weights with large gradients?

Claim: under Adam + L2 the share of a weight that is lost per step goes like 1/|g|, g being past
gradients, and does not depend on |w|; under AdamW it depends on neither.
Source: Loshchilov and Hutter (2019), section 1; a blog retells it as "weights with a large absolute
value are regularised less" (ledger 0.9).
Refuted by: a power of |g| under Adam + L2 that is not -1; a power of |w| that is not 0; any power
under AdamW.
Four groups of weights, large and small with loud and quiet gradients, start at their optima; runs
with and without the penalty see the same noise, and their difference is what it took. The penalty
is itself a part of the gradient: weak, it is small beside the noise of every group; strong, it is
the louder part for large weights with quiet gradients. Both are judged. Momentum SGD with L2 is the
control: no divisor, no power. AdamW's powers are zero by construction.
Cost of PAPER: 54 runs of 150 steps of 256 weights in float64, under 10 s of CPU time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import TwoGroups, two_groups_task
from experiments.contract import (
    Result,
    Verdict,
    is_the_one,
    margin_of,
    spelled,
    with_enough_seeds,
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "L2 in Adam spares weights with large gradients, not large weights."
SETTLES = ("P29", "0.9")
CAPTION = (
    "Share of the weights lost per step in four groups of weights, and the powers of |w| and |g|"
    " with which it goes, by optimizer."
)
DTYPE = "float64"

_BAND = 0.1  # a power within a tenth is that power
WEAK, STRONG, DECAY, MOMENTUM = "Adam + weak L2", "Adam + strong L2", "AdamW", "momentum + L2"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    weights: tuple[float, float] = (0.1, 10.0)  # sizes
    gradients: tuple[float, float] = (0.1, 1.0)  # deviations of one example's gradient
    group_size: int = 64
    batch_size: int = 16
    learning_rate: float = 1e-4
    num_steps: int = 150  # short of the time in which curvature pulls a weight back
    weak_l2: float = 1e-5
    strong_l2: float = 1e-1
    weight_decay: float = 0.1  # "lr_scaled"
    num_seeds: int = 9


PAPER = Config()
QUICK = Config(num_seeds=3, num_steps=50, group_size=32)

# The zoo's name, and the setting's coefficient, of each; 0 beside it is the run without.
_OPTIMIZERS = {
    WEAK: ("adam_l2", "weak_l2"),
    STRONG: ("adam_l2", "strong_l2"),
    DECAY: ("adamw", "weight_decay"),
    MOMENTUM: ("momentum_l2:learning_rate=0.0001", "strong_l2"),
}


def four_groups(config: Config) -> TwoGroups:
    """Sizes and gradients in all four combinations; a group is named by its two places."""
    quiet, loud = config.gradients
    tasks = {
        order: two_groups_task(
            batch_size=config.batch_size,
            group_size=config.group_size,
            large_weight=config.weights[1 - order],
            small_weight=config.weights[order],
            quiet_gradient=quiet,
            loud_gradient=loud,
            dtype="float64",
        )
        for order in (0, 1)
    }

    def merged(field: str) -> dict:
        of = {order: getattr(task, field) for order, task in tasks.items()}
        return {
            _name(1, 0): of[0]["large_weights"],
            _name(0, 1): of[0]["small_weights"],
            _name(0, 0): of[1]["large_weights"],
            _name(1, 1): of[1]["small_weights"],
        }

    return TwoGroups(
        optimum=merged("optimum"),
        curvature=merged("curvature"),
        noise_scale=merged("noise_scale"),
        batch_size=config.batch_size,
    )


def run(config: Config, key: PRNGKeyArray) -> Result:
    """What penalty or decay took from every group, against runs without, on the same noise."""
    task = four_groups(config)
    seeds = seeds_from(key, config.num_seeds)
    taken = {}
    for name in dict.fromkeys(name for name, _ in _OPTIMIZERS.values()):
        words = [word for word, (each, _) in _OPTIMIZERS.items() if each == name]
        coefficients = [0.0, *(getattr(config, _OPTIMIZERS[word][1]) for word in words)]
        seen = train_many(
            task,
            lambda numbers, name=name: (
                named_optimizer(
                    name,
                    Setting(
                        learning_rate=config.learning_rate,
                        batch_size=config.batch_size,
                        num_steps=1,
                        weight_decay=numbers["weight_decay"],
                    ),
                ).optimizer
            ),
            {"weight_decay": np.array(coefficients)},
            seeds,
            config.num_steps,
            final=_left,
        )
        for place, word in enumerate(words, start=1):
            taken[word] = {
                group: (left[0] - left[place]) / config.num_steps
                for group, left in seen.final.items()
            }
    shares = np.array(
        [[[taken[word][_name(w, g)] for g in (0, 1)] for w in (0, 1)] for word in _OPTIMIZERS]
    )
    group: Group = {
        "optimizer": variable("optimizer", list(_OPTIMIZERS)),
        "weight": variable("weight", np.array(config.weights), units="weight"),
        "gradient": variable("gradient", np.array(config.gradients), units="1/weight"),
        "share": variable(("optimizer", "weight", "gradient", "seed"), shares, units="1/step"),
    }
    return Record(groups={"groups": group}, attributes={"config": dataclasses.asdict(config)})


def _left(task: Any, params: Any) -> dict[str, Any]:
    """What is left of every group's weights."""
    return {
        group: jnp.sum(params[group] * optimum) / jnp.sum(optimum**2)
        for group, optimum in task.optimum.items()
    }


def power(shares: np.ndarray, values: np.ndarray, axis: int) -> float:
    """Mean power of |w| (axis 0) or |g| (axis 1) in shares (weight, gradient, seed).

    From medians over seeds; NaN where one of them is not positive.
    """
    middle = np.moveaxis(np.median(shares, axis=-1), axis, 0)
    if np.any(middle <= 0):
        return float("nan")
    return float(np.mean(np.log(middle[1] / middle[0])) / np.log(values[1] / values[0]))


def check(result: Result) -> list[Verdict]:
    """Both powers of every optimizer."""
    group = result.groups["groups"]
    verdicts = []
    for name, size, gradient in (
        (WEAK, 0.0, -1.0),
        (STRONG, 0.0, -1.0),
        (DECAY, 0.0, 0.0),
        (MOMENTUM, 0.0, 0.0),
    ):
        of_size, of_gradient = _powers(group, name)
        verdicts += [
            _is_the_power(f"{name}: the share lost goes {_how(size, '|w|')}", of_size, size),
            _is_the_power(
                f"{name}: the share lost goes {_how(gradient, '|g|')}", of_gradient, gradient
            ),
        ]
    return with_enough_seeds(verdicts, group["share"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Shares of the four groups; powers."""
    group = result.groups["groups"]
    names = [str(name) for name in group["optimizer"].values]
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    words = ["small\nquiet", "small\nloud", "large\nquiet", "large\nloud"]
    shares = [
        _drawn(
            name,
            [interval_over_seeds(_middle, group["share"].values[place][cell]) for cell in cells],
            0.12 * (place - 1.5),
        )
        for place, name in enumerate(names)
    ]
    powers = [_powers(group, name) for name in names]
    both = [
        _drawn(f"power of {of}", [each[which] for each in powers], 0.2 * which - 0.1)
        for which, of in enumerate(("|w|", "|g|"))
    ]
    panels = [
        Panel(
            title="four groups",
            x_label="",
            y_label="share lost per step",
            series=shares,
            y_scale="log",
            places=words,
        ),
        Panel(
            title="powers in the share",
            x_label="",
            y_label="power",
            series=both,
            y_scale="linear",
            guide=0.0,
            places=["weak\nL2", "strong\nL2", "decay,\nAdamW", "mom.\n+ L2"],
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _name(weight: int, gradient: int) -> str:
    return f"{('small', 'large')[weight]}_{('quiet', 'loud')[gradient]}"


def _how(power: float, of: str) -> str:
    return f"like 1/{of}" if power == -1 else f"with no power of {of}"


def _powers(group: Group, name: str) -> tuple[Interval, Interval]:
    """Of |w| and of |g|, with intervals."""
    place = [str(each) for each in group["optimizer"].values].index(name)
    shares = group["share"].values[place]

    def of(values: np.ndarray, axis: int) -> Interval:
        return interval_over_seeds(lambda drawn: power(drawn, values, axis), shares)

    return of(group["weight"].values, 0), of(group["gradient"].values, 1)


def _is_the_power(claim: str, found: Interval, claimed: float) -> Verdict:
    rivals = [rival for rival in (0.0, -0.5, -1.0) if rival != claimed]
    wide = Interval(found.estimate, found.low - _BAND, found.high + _BAND)
    return Verdict(
        claim=claim,
        measured=f"power {spelled(found)}",
        expected=f"{claimed:g}, not {' or '.join(f'{rival:g}' for rival in rivals)}",
        tolerance=f"90 % bootstrap over paired seeds, widened by {_BAND:g}",
        holds=is_the_one(wide, claimed, rivals),
        margin=margin_of(found, claimed - _BAND, claimed + _BAND),
    )


def _middle(values: np.ndarray) -> float:
    return float(np.median(values))


def _drawn(name: str, found: list[Interval], beside: float) -> Series:
    """Points a little beside their places, so that series do not cover each other."""
    return Series(
        name,
        np.arange(len(found)) + beside,
        *(np.array([each[end] for each in found]) for end in range(3)),
        kind="points",
    )
