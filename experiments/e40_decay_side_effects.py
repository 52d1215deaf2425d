"""What else do weight decay and schedules do, and which of their recipes hold?

Claim: decay can lower the training loss; biases may decay or not; the right decay is found by its
time constant 1/(lr wd), and not by its name; AdamW gains from a schedule; a constant rate ends on a
noise floor that goes like the rate, and has a best rate above zero where the target drifts.
Source: ledger 1.5, 2.13, 3.2, 3.5, 3.8, 3.11, 4.2, 4.7 (notes and blogs on optimizers); for the
training loss D'Angelo et al. and Zhang et al.; for the best rate √(q/R) check B1.
Refuted by: no decay with a lower training loss than none; another test error with decayed biases; a
decay of 0.01 or 0.001 as good as the best, a best time constant out of 1 to 50 epochs; a constant
rate as good as a cosine; a cyclical rate that needs as much tuning; another floor or best rate.
All recipes have the same learning rates; the best cell is chosen on some seeds, judged on others;
the side that loses must not have it at the edge of its rates. With nine seeds and rates this far
apart most comparisons of networks are undecided; all are of one small network and 1,000 steps.
Cost of PAPER: 675 runs of 1,000 steps in float32 and small bowls, about 75 s of CPU time.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.zoo import Setting
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import tracking_task
from bayesfilt.theory import OrnsteinUhlenbeck
from experiments.chosen_cells import (
    Cells,
    cells_of_record,
    chosen_and_judged,
    lowest_median,
    regret,
    time_constant,
)
from experiments.contract import (
    Result,
    Verdict,
    is_the_one,
    judged,
    margin_of,
    spelled,
    with_enough_seeds,
)
from experiments.coordinates import interval_over_seeds, task_of
from experiments.grids import Problem, quick_problem, seeds_from
from experiments.interval_columns import columns
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group
from experiments.small_surfaces import best_rate, floor_power, simulated

CLAIM = "Decay and schedules work by time constants and noise, not by the numbers of a recipe."
SETTLES = ("1.5", "2.13", "3.2", "3.5", "3.8", "3.11", "4.2", "4.7")
CAPTION = (
    "Training loss and test error by decay, test error by learning rate, mask and schedule, each at"
    " the best of the other number; distance of SGD from a target at rest and from one that drifts."
)

_TENTH = float(np.log(1.1))  # of an error: what it takes to be worth a recipe
_EPOCHS = (1.0, 50.0)  # of the best time constant, as ledger 3.5 has it
_FACTOR = 0.5  # of log2 of the best rate: half of a factor of two on either side
_EVERYWHERE, _NO_BIAS, _NOT_LAST = "all weights", "no biases", "not the last bias"
_CONSTANT, _COSINE, _CYCLICAL = "constant", "cosine", "cyclical"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem(num_steps=1_000, num_seeds=9)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    decays: tuple[float, ...] = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0)  # "lr_scaled"
    some_decays: tuple[float, ...] = (0.1, 1.0)  # with masks and schedules
    masks: tuple[str, ...] = (_NO_BIAS, _NOT_LAST)
    schedules: tuple[str, ...] = (_COSINE, _CYCLICAL)
    bowl_rates: tuple[float, ...] = tuple(0.01 * 2.0 ** np.arange(-3, 4))
    drift_scale: float = 0.01  # per step; with precision 1 the best rate, sqrt(q/R)
    bowl_weights: int = 64
    bowl_steps: int = 6_000  # the first half is not counted


PAPER = Config()
QUICK = Config(
    problem=dataclasses.replace(quick_problem(), num_steps=40),
    rates=(3e-3, 1e-2),
    decays=(0.0, 0.01, 0.1),
    some_decays=(0.1,),
    masks=(),
    schedules=(_COSINE,),
    bowl_rates=(0.005, 0.01, 0.02),
    bowl_weights=16,
    bowl_steps=800,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train all recipes from the same seeds; follow targets at rest and drifting."""
    seeds = seeds_from(key, config.problem.num_seeds)
    recipes = [(_EVERYWHERE, _CONSTANT, config.decays)]
    recipes += [(mask, _CONSTANT, config.some_decays) for mask in config.masks]
    recipes += [(_EVERYWHERE, schedule, config.some_decays) for schedule in config.schedules]
    groups = {
        f"{mask}/{schedule}": _trained(config, mask, schedule, decays, seeds)
        for mask, schedule, decays in recipes
    }
    groups["targets"] = _followed(config, seeds, key)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def decayed(mask: str, params: Any) -> Any:
    """True where a weight decays."""
    last = max(params)

    def decays(path: Any, leaf: Any) -> bool:
        if leaf.ndim > 1 or mask == _EVERYWHERE:
            return True
        return mask == _NOT_LAST and path[0].key != last

    return jax.tree_util.tree_map_with_path(decays, params)


def _trained(
    config: Config, mask: str, schedule: str, decays: tuple[float, ...], seeds: tuple[int, ...]
) -> Group:
    problem = config.problem

    def optimizer(numbers: Any) -> optax.GradientTransformation:
        setting = Setting(
            batch_size=problem.batch_size,
            num_steps=problem.num_steps,
            schedule=schedule,
            **numbers,
        )
        return optax.adamw(
            setting.scheduled(setting.learning_rate),
            weight_decay=setting.weight_decay,
            mask=lambda params: decayed(mask, params),
        )

    rates, wide = np.meshgrid(config.rates, decays, indexing="ij")
    seen = train_many(
        task_of(problem),
        optimizer,
        {"learning_rate": rates.ravel(), "weight_decay": wide.ravel()},
        seeds,
        problem.num_steps,
    )
    shape = (*rates.shape, len(seeds))
    dims = ("rate", "decay", "seed")
    return {
        "rate": variable("rate", np.array(config.rates)),
        "decay": variable("decay", np.array(decays)),
        "test_error": variable(dims, 1 - seen.final["test_accuracy"].reshape(shape)),
        "training_loss": variable(dims, seen.final["training_loss"].reshape(shape), units="nats"),
    }


def _followed(config: Config, seeds: tuple[int, ...], key: PRNGKeyArray) -> Group:
    """Mean squared distance of SGD from targets at rest and from drifting ones."""
    drifts = (1e-9 * config.drift_scale, config.drift_scale)
    tasks = [
        tracking_task(
            key,
            OrnsteinUhlenbeck(drift_scale=drift, stationary_variance=float("inf")),
            np.ones(config.bowl_weights),
            config.bowl_steps,
            batch_size=1,
            dtype="float32",
        )
        for drift in drifts
    ]
    rates = np.array(config.bowl_rates, np.float32)
    found = simulated(
        optax.sgd,
        tasks,
        rates,
        np.array(seeds, np.uint32),
        config.bowl_steps,
        {"away": lambda task, view: ((view.params - task.optimum[view.step]) ** 2).mean()},
    )["away"]
    late = found[..., config.bowl_steps // 2 :].astype(np.float64).mean(axis=-1)
    return {
        "target": variable("target", ["at rest", "drifting"]),
        "rate": variable("rate", rates.astype(np.float64)),
        "distance": variable(("target", "rate", "seed"), late, units="weight^2"),
    }


def check(result: Result) -> list[Verdict]:
    """Training loss, masks, decay by name and by time, schedules, floors."""
    config = result.attributes["config"]
    everywhere = cells_of_record(result, f"{_EVERYWHERE}/{_CONSTANT}")
    some = everywhere.with_decays(config["some_decays"])
    found = [
        *_of_decay(everywhere, config),
        *_of_masks(result, some, config["masks"]),
        *_of_schedules(result, some, config["schedules"]),
        *_of_targets(result.groups["targets"], config["drift_scale"]),
    ]
    return with_enough_seeds(found, everywhere.test_error.shape[-1])


def _of_decay(cells: Cells, config: dict) -> list[Verdict]:
    """The training loss; decays by name; the time constant of the best."""
    positive = cells.with_decays([decay for decay in cells.decays if decay > 0])
    without = cells.with_decays([0.0])
    epoch = config["problem"]["subset"] / config["problem"]["batch_size"]
    verdicts = [
        chosen_and_judged(
            f"The training loss with a decay is lower than without any, {where}",
            some,
            none,
            "training_loss",
            high=0.0,
        )
        for where, some, none in (
            ("each at its best rate", positive, without),
            ("at the highest rate", positive.with_highest_rate(), without.with_highest_rate()),
        )
    ]
    for name in (0.01, 0.001):
        if name in cells.decays:
            verdicts.append(
                chosen_and_judged(
                    f"The best decay errs less than decay {name:g} by name, by more than a tenth",
                    positive,
                    cells.with_decays([name]),
                    "test_error",
                    high=-_TENTH,
                )
            )
    verdicts.append(
        judged(
            "The best decay has a time constant 1/(lr wd) of 1 to 50 epochs",
            interval_over_seeds(
                lambda error: time_constant(positive, error) / epoch, positive.test_error
            ),
            low=_EPOCHS[0],
            high=_EPOCHS[1],
            unit="epochs",
        )
    )
    return verdicts


def _of_masks(result: Result, everywhere: Cells, masks: list[str]) -> list[Verdict]:
    who = {_NO_BIAS: "Biases", _NOT_LAST: "Output biases"}
    return [
        chosen_and_judged(
            f"{who[mask]} without decay change the test error by less than a tenth",
            cells_of_record(result, f"{mask}/{_CONSTANT}"),
            everywhere,
            "test_error",
            low=-_TENTH,
            high=_TENTH,
        )
        for mask in masks
    ]


def _of_schedules(result: Result, constant: Cells, schedules: list[str]) -> list[Verdict]:
    cells = {name: cells_of_record(result, f"{_EVERYWHERE}/{name}") for name in schedules}
    verdicts = []
    if _COSINE in cells:
        verdicts.append(
            chosen_and_judged(
                "AdamW with a cosine errs less than at a constant rate, each at its best rate",
                cells[_COSINE],
                constant,
                "test_error",
                high=0.0,
            )
        )
    if _CYCLICAL in cells and _COSINE in cells:
        cyclical = cells[_CYCLICAL]
        verdicts.append(
            chosen_and_judged(
                "AdamW with a cyclical rate errs at most a tenth more than with a cosine",
                cyclical,
                cells[_COSINE],
                "test_error",
                high=_TENTH,
            )
        )
        pair = np.stack([cyclical.test_error, constant.test_error])
        verdicts.append(
            judged(
                "A cyclical rate loses less by a wrong learning rate than a constant one",
                interval_over_seeds(lambda both: regret(both[0]) - regret(both[1]), pair),
                high=0.0,
                tolerance="difference of the mean log error over rates above the best rate's;"
                " 90 % bootstrap over paired seeds",
            )
        )
    return verdicts


def _of_targets(group: Group, drift_scale: float) -> list[Verdict]:
    """The floor's power; the best rate under drift, with R = 1."""
    rates = group["rate"].values
    rest, drifting = group["distance"].values
    power = interval_over_seeds(lambda distance: floor_power(rates, distance), rest)
    wide = Interval(power.estimate, power.low - 0.1, power.high + 0.1)
    return [
        Verdict(
            claim="With a target at rest the noise floor of SGD is proportional to its rate",
            measured=f"power {spelled(power)}",
            expected="1, not 0.5 or 2",
            tolerance="90 % bootstrap over seeds, widened by 0.1",
            holds=is_the_one(wide, 1.0, [0.0, 0.5, 2.0]),
            margin=margin_of(power, 0.9, 1.1),
        ),
        judged(
            "With a drifting target SGD has a best rate, and it is √(q/R)",
            interval_over_seeds(
                lambda distance: float(np.log2(best_rate(rates, distance) / drift_scale)), drifting
            ),
            low=-_FACTOR,
            high=_FACTOR,
            tolerance="log2 of the rate over √(q/R); 90 % bootstrap over seeds",
        ),
    ]


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Decay, masks, schedules and targets."""
    config = result.attributes["config"]
    everywhere = cells_of_record(result, f"{_EVERYWHERE}/{_CONSTANT}")
    some = everywhere.with_decays(config["some_decays"])
    masks = {_EVERYWHERE: some} | {
        mask: cells_of_record(result, f"{mask}/{_CONSTANT}") for mask in config["masks"]
    }
    schedules = {_CONSTANT: some} | {
        name: cells_of_record(result, f"{_EVERYWHERE}/{name}") for name in config["schedules"]
    }
    group = result.groups["targets"]
    rates = group["rate"].values
    targets = [
        _with_interval(f"target {name}", rates, values, np.median)
        for name, values in zip(group["target"].values, group["distance"].values, strict=True)
    ]
    targets += [
        Series("(K² + q)/2K", rates, (rates**2 + drift**2) / (2 * rates), kind="law")
        for drift in (0.0, config["drift_scale"])
    ]
    panels = [
        _by_decay("training loss", "nats", everywhere, "training_loss"),
        _by_decay("decay", "test error", everywhere, "test_error"),
        _by_rate("what decays", masks),
        _by_rate("schedules", schedules),
        Panel(
            title="SGD after a target",
            x_label="learning rate K",
            y_label="mean squared distance",
            series=targets,
            x_scale="log",
            y_scale="log",
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _by_decay(title: str, label: str, cells: Cells, field: str) -> Panel:
    """At the rate of the lowest median; no decay at all stands a decade below the least."""
    decays = np.array(cells.decays)
    places = np.where(decays > 0, decays, decays[decays > 0].min() / 10)
    values = np.moveaxis(getattr(cells, field), 1, 0)
    return Panel(
        title=title,
        x_label="decay (leftmost: none)",
        y_label=label,
        series=[_with_interval("adamw", places, values, lowest_median)],
        x_scale="log",
        y_scale="linear",
    )


def _by_rate(title: str, recipes: dict[str, Cells]) -> Panel:
    return Panel(
        title=title,
        x_label="learning rate",
        y_label="test error",
        series=[
            _with_interval(name, cells.rates, cells.test_error, lowest_median)
            for name, cells in recipes.items()
        ],
        x_scale="log",
        y_scale="linear",
    )


def _with_interval(
    name: str, x: Any, rows: np.ndarray, statistic: Callable[[np.ndarray], Any]
) -> Series:
    found = [interval_over_seeds(lambda row: float(statistic(row)), row) for row in rows]
    return Series(name, x, *columns(found), kind="line")
