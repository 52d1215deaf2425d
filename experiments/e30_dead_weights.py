"""What happens to weights that no gradient reaches, and does any weight become exactly zero?

Claim: weights of inputs that are always zero (found in the data: border pixels of the digits) lose
about one learning rate per step under Adam + L2, whatever the coefficient, and the fraction lr wd
of themselves under AdamW. Neither makes a weight exactly zero.
Source: check D5; a blog says of L2 that "some weights become zero", so that they drop out.
Refuted by: a rate that is not lr, or depends on the coefficient, or falls with the weight; a
decline under AdamW that is not exponential at lr wd; a weight that is exactly zero in a network
that learns.
That AdamW's decline is exponential is true by construction; measured are float32 and the code.
Adam remembers squared gradients for 1/(1 - b2) steps. A weight that needs fewer steps than that to
reach zero is divided by what its penalty was, and not by what it is; so both memories are judged
(the short one was 0.99 at first, and is 0.9 as that is short beside the way to zero). Zeros of dead
and of live inputs are judged apart since one dead weight of one run was seen to end on zero.
Cost of PAPER: 60 runs of 1,500 steps in float32, about 30 s of CPU time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record
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
from experiments.falling_weights import dead_inputs, falling_numbers
from experiments.grids import Problem, quick_problem, seeds_from
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "Without a gradient Adam + L2 takes one learning rate per step, AdamW a fraction."
SETTLES = ("P27", "3.1", "3.6")
CAPTION = (
    "Median size of the weights of dead inputs, over their first size, and its laws in grey; the"
    " first rate by coefficient; weights that end within one learning rate of zero."
)

_ABOUT = 0.1  # "about lr per step" is within a tenth
_WHATEVER = 1.05  # largest over smallest rate, for coefficients that span decades
_EXACT = 0.01  # float32 rounds every step of a slow decay
_FEW = 0.05  # of the live weights: more of them near zero would be no matter of dead inputs
_LEARNT = 0.5  # test error: above it the coefficient has erased the network
_UNDERFLOW = 104  # -log of the smallest float32 above zero: time constants until it is lost


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem = Problem(num_steps=1_500)
    record_every: int = 5
    rate: float = 3e-4
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean loss
    slow_rate: float = 1e-4  # once more at the middle coefficient
    short_memory: float = 0.9  # b2, likewise; elsewhere 0.999
    decays: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0)
    # More than `_UNDERFLOW` time constants in a run: dead weights are lost to rounding.
    lost: tuple[float, float] = (3e-3, 30.0)  # learning rate, decay


PAPER = Config()
QUICK = Config(
    problem=dataclasses.replace(quick_problem(), num_steps=400), l2=(1e-3, 1e-2), decays=(0.0, 10.0)
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train with either optimizer, and follow the weights that no gradient reaches."""
    middle = config.l2[len(config.l2) // 2]
    penalised = [(config.rate, l2, 0.999) for l2 in config.l2]
    penalised += [(config.slow_rate, middle, 0.999), (config.rate, middle, config.short_memory)]
    decoupled = [(config.rate, decay, 0.999) for decay in config.decays]
    decoupled.append((*config.lost, 0.999))
    groups = {
        "adam_l2": _followed(config, "adam_l2", penalised, key),
        "adamw": _followed(config, "adamw", decoupled, key),
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Rates and shapes of both declines; who is zero at the end, and who is near it."""
    penalised, decoupled = result.groups["adam_l2"], result.groups["adamw"]
    found = [*_of_the_penalty(penalised), *_of_decay(decoupled), *_zeros(penalised, decoupled)]
    return with_enough_seeds(found, penalised["first_rate"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Courses of both, rates by coefficient, ends near zero."""
    config = result.attributes["config"]
    penalised, decoupled = result.groups["adam_l2"], result.groups["adamw"]
    scan = len(config["l2"])
    rates = [interval_over_seeds(np.median, row) for row in penalised["first_rate"].values[:scan]]
    near = {
        name: [interval_over_seeds(np.median, row) for row in penalised[field].values[:scan]]
        for name, field in (("dead inputs", "near_zero_dead"), ("live inputs", "near_zero_live"))
    }
    panels = [
        Panel(
            title="Adam + L2",
            x_label="step",
            y_label="size / first size",
            series=_courses(penalised, "coefficient", "L2", range(scan))
            + _courses(penalised, "coefficient", "short memory, L2", [scan + 1])
            + [_straight_line(penalised, config["rate"])],
            x_scale="linear",
            y_scale="linear",
        ),
        Panel(
            title="AdamW",
            x_label="step",
            y_label="size / first size",
            series=_courses(decoupled, "coefficient", "decay", range(len(config["decays"])))
            + _exponentials(decoupled, config),
            x_scale="linear",
            y_scale="linear",
        ),
        Panel(
            title="first rate",
            x_label="L2 coefficient",
            y_label="learning rates per step",
            series=[_with_interval("dead inputs", config["l2"], rates)],
            x_scale="log",
            y_scale="linear",
            guide=1.0,
        ),
        Panel(
            title="near zero at the end",
            x_label="L2 coefficient",
            y_label="share of the weights",
            series=[_with_interval(name, config["l2"], each) for name, each in near.items()],
            x_scale="log",
            y_scale="linear",
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _followed(
    config: Config, name: str, settings: list[tuple[float, float, float]], key: PRNGKeyArray
) -> Group:
    """Numbers of the dead weights by setting and seed."""
    problem = config.problem
    task: Any = task_of(problem)
    dead = dead_inputs(np.asarray(task.train.inputs))
    columns = {"dead": np.flatnonzero(dead), "live": np.flatnonzero(~dead)}

    def optimizer(numbers):
        setting = Setting(batch_size=problem.batch_size, num_steps=1, **numbers)
        return named_optimizer(name, setting).optimizer

    def weights_of(params, which):
        return params["dense_0"].weight[:, columns[which]].ravel()

    def ends(task, params):
        return {
            f"{what}_{which}": jnp.mean(test(weights_of(params, which)), dtype=jnp.float32)
            for which in columns
            for what, test in (
                ("exactly_zero", lambda w: w == 0),
                ("near_zero", lambda w: jnp.abs(w) < config.rate),
            )
        } | {"test_error": 1 - task.evaluate(params)["test_accuracy"]}

    rate, coefficient, b2 = np.array(settings).T
    seen = train_many(
        task,
        optimizer,
        {"learning_rate": rate, "weight_decay": coefficient, "b2": b2},
        seeds_from(key, problem.num_seeds),
        problem.num_steps,
        probes={"dead": lambda task, view: weights_of(view.params, "dead")},
        record_every=config.record_every,
        final=ends,
    )
    return falling_numbers(
        seen.step, seen.records["dead"], seen.final, settings, len(columns["dead"])
    )


def _of_the_penalty(group: Group) -> list[Verdict]:
    """The rate at first, what it depends on, and whether it falls with the weight."""
    rates = group["first_rate"].values
    decades = (group["b2"].values == group["b2"].values[0]) & (
        group["learning_rate"].values == group["learning_rate"].values[0]
    )
    spread = interval_over_seeds(
        lambda rows: float(np.max(np.median(rows, -1)) / np.min(np.median(rows, -1))),
        rates[decades],
    )
    verdicts = [
        judged(
            f"Adam + L2 first takes one learning rate per step from a dead weight, {where}",
            interval_over_seeds(lambda rows: float(np.median(rows)), rates[place]),
            low=1 - _ABOUT,
            high=1 + _ABOUT,
            unit="learning rates",
        )
        for where, place in _named(group)
    ]
    verdicts.append(
        judged(
            "Adam + L2 takes as much per step from a dead weight whatever the coefficient",
            spread,
            high=_WHATEVER,
            tolerance="ratio of the largest to the smallest median rate; 90 % bootstrap over seeds",
        )
    )
    return verdicts + [
        _shape(f"The decline under Adam + L2 is a straight line, {where}", group, place, 0.0, 1.0)
        for where, place in _named(group)
        if "rate" not in where
    ]


def _named(group: Group) -> list[tuple[str, int]]:
    """The settings that are judged one by one: the middle coefficient, slower, less memory."""
    count = len(group["b2"].values)
    b2, rate = group["b2"].values, group["learning_rate"].values
    return [
        (f"b2 {b2[0]:g}", (count - 2) // 2),
        (f"b2 {b2[0]:g} and learning rate {rate[count - 2]:g}", count - 2),
        (f"b2 {b2[count - 1]:g}", count - 1),
    ]


def _shape(claim: str, group: Group, place: int, claimed: float, rival: float) -> Verdict:
    found = interval_over_seeds(
        lambda rows: float(np.median(rows)), group["exponent"].values[place]
    )
    # What is exact has no width; a tenth on either side is the same shape.
    wide = Interval(found.estimate, found.low - _ABOUT, found.high + _ABOUT)
    return Verdict(
        claim=claim,
        measured=f"rate goes like size^{spelled(found)}",
        expected=f"size^{claimed:g}, not size^{rival:g}",
        tolerance=f"90 % bootstrap over seeds, widened by {_ABOUT:g}",
        holds=is_the_one(wide, claimed, [rival]),
        margin=margin_of(found, claimed - _ABOUT, claimed + _ABOUT),
    )


def _of_decay(group: Group) -> list[Verdict]:
    """No decay, no move; else the fraction lr wd per step."""
    decay, rate = group["coefficient"].values, group["learning_rate"].values
    whole = (decay > 0) & group["whole"].values.all(axis=-1)
    relative = group["lost_per_step"].values[whole] / (rate * decay)[whole][:, None]
    farthest = interval_over_seeds(
        lambda rows: float(np.max(np.abs(np.median(rows, axis=-1) - 1))), relative
    )
    moved = float(group["largest_move"].values[decay == 0].max())
    return [
        Verdict(
            claim="Control: without decay no weight of a dead input moves at all under Adam",
            measured=f"largest move {moved:g} among {int(group['dead_inputs'].values)} dead inputs",
            expected="0",
            tolerance="none: a gradient of zero is exact",
            holds=bool(moved == 0) if group["dead_inputs"].values > 0 else None,
        ),
        judged(
            "AdamW takes the fraction lr wd per step from a dead weight",
            farthest,
            high=_EXACT,
            tolerance="largest relative error of the rate over decays; float32 rounds every step",
        ),
    ]


def learns(group: Group) -> np.ndarray:
    """Which settings leave a network that has learnt anything."""
    return np.median(group["test_error"].values, axis=-1) < _LEARNT


def _zeros(penalised: Group, decoupled: Group) -> list[Verdict]:
    """Who is exactly zero, and who is near it."""
    constants = decoupled["learning_rate"].values * decoupled["coefficient"].values
    constants = constants * float(decoupled["step"].values[-1])
    lost = decoupled["exactly_zero_dead"].values[constants > _UNDERFLOW]
    zeros = {
        which: max(
            float(group[f"exactly_zero_{which}"].values[learns(group)].max(initial=0))
            for group in (penalised, decoupled)
        )
        for which in ("dead", "live")
    }
    any_learns = learns(penalised).any() and learns(decoupled).any()
    return [
        *(
            Verdict(
                claim="Neither L2 in Adam nor decay makes any first-layer weight of"
                f" {which} inputs exactly zero in a network that learns",
                measured=f"largest share of zeros {share:.3g}",
                expected="0",
                tolerance=f"none; settings with a median test error below {_LEARNT:g}; the run"
                " with the most zeros at its end",
                holds=share == 0 if any_learns else None,
            )
            for which, share in zeros.items()
        ),
        Verdict(
            claim=f"Decay makes dead weights exactly zero by underflow, after {_UNDERFLOW} time"
            " constants",
            measured=f"share of zeros {float(lost.min()) if lost.size else float('nan'):.3g} after"
            f" {float(constants.max()):.3g} time constants",
            expected="above 0.99",
            tolerance="smallest share over seeds; the first size is no matter",
            holds=bool(lost.min() > 0.99) if lost.size else None,
        ),
        *_near_zero(penalised, decoupled),
    ]


def _near_zero(penalised: Group, decoupled: Group) -> list[Verdict]:
    """Shares of weights within one learning rate of zero, where the network learns."""
    scan = np.flatnonzero(learns(penalised)[:-2])
    dead, live = (penalised[f"near_zero_{which}"].values[scan] for which in ("dead", "live"))
    without = decoupled["near_zero_live"].values[decoupled["coefficient"].values == 0]
    if not scan.size:  # undecided: no coefficient leaves a network
        dead = live = np.full_like(without, np.nan)
    return [
        judged(
            "Under Adam + L2 most weights of dead inputs end within one learning rate of zero",
            interval_over_seeds(lambda rows: float(np.min(np.median(rows, axis=-1))), dead),
            low=0.5,
            tolerance="share of them at the coefficient where it is smallest; bootstrap over seeds",
        ),
        judged(
            "Only weights of dead inputs end near zero under Adam + L2, live ones no more often"
            " than without it",
            interval_over_seeds(
                lambda rows: float(np.max(np.median(rows, axis=-1))), live - without
            ),
            high=_FEW,
            tolerance="largest excess share of the live weights of the first layer over"
            " coefficients that leave a network; bootstrap over paired seeds",
        ),
    ]


def _courses(group: Group, field: str, word: str, places) -> list[Series]:
    courses = np.median(group["course"].values, axis=1)
    return [
        Series(f"{word} {group[field].values[place]:g}", group["step"].values, courses[place])
        for place in places
    ]


def _straight_line(group: Group, rate: float) -> Series:
    step, first = group["step"].values, float(np.median(group["first_size"].values[0]))
    return Series(
        "one learning rate per step", step, np.maximum(1 - rate * step / first, 0), kind="law"
    )


def _exponentials(group: Group, config: dict) -> list[Series]:
    step = group["step"].values
    return [
        Series("exponential at lr wd", step, np.exp(-config["rate"] * decay * step), kind="law")
        for decay in config["decays"]
        if decay > 0
    ]


def _with_interval(name: str, x, found: list[Interval]) -> Series:
    return Series(
        name, x, *(np.array([each[place] for each in found]) for place in range(3)), kind="line"
    )
