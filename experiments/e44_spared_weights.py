"""Do the weights that L2 spares overfit?

Claim: as L2 in Adam takes less of weights with loud gradients (e32), these overfit more: more than
the quiet ones, and more than they would under AdamW.
Source: ledger 0.10, a blog's reading of Loshchilov and Hutter (2019).
Refuted by: under L2, a loudest quarter of weights whose pull on the gap between held-out and
training loss is no larger than the quietest quarter's; one that is no larger than under AdamW at
the same training loss; a held-out loss that rises when the loudest quarter shrinks.
Pulls are those of `experiments.group_overfit`, at the last weights; quarters are by Adam's mean
square (the penalty's gradient is in it, as it is in what spares), within every matrix, and summed
over both matrices. Biases and weights that no example reaches are left out. Strength is matched by
the training loss (AdamW's pulls, interpolated between its coefficients), and by each one's best
held-out loss. A mean shrink is no match: under L2 it is that of the quietest weights alone. At the
lower rate the network fits its wrong labels half, at the higher one wholly when nothing shrinks
it. A first look at both rates, with fewer seeds, came before the verdicts were written: it had the
quietest quarter overfit most at the lower rate. That the comparison with AdamW is made at the
weakest and strongest coefficients as well came after the PAPER run, where their mean was nothing,
of two signs. Held-out labels are right, a fifth of those trained
on are wrong, so that a pull on the held-out loss is mostly negative: larger outputs pay.
The control is a regression with inputs that mean nothing: its held-out loss must fall by f |w|^2
when their weights shrink by the small fraction f.
Cost of PAPER: 132 runs of the network for 1,500 steps and 6 small ones.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import Probe, StepView
from bayesfilt.tasks import Task, make_task
from experiments.contract import (
    INTERVAL,
    Result,
    Verdict,
    judged,
    not_judged,
    with_enough_seeds,
)
from experiments.coordinates import interval_over_seeds
from experiments.equal_loss import matched
from experiments.grids import seeds_from
from experiments.group_overfit import live_matrices, overfit_of, ranked_groups
from experiments.interval_columns import columns
from experiments.many_runs import ManyRuns, train_many
from experiments.meaningless_inputs import Regression
from experiments.panels import Panel, Series, panels_group

CLAIM = "Weights that L2 spares, those with loud gradients, overfit more."
SETTLES = ("0.10",)
CAPTION = (
    "By quarter of the weights, from those with the quietest gradients to those with the loudest:"
    " how much the gap between held-out and training loss grows with them, under Adam with L2 and"
    " under AdamW at the same training loss (means over L2's coefficients); and the share of all"
    " squared weights that is theirs. Means over seeds, 90 % bootstrap intervals."
)

QUARTERS = ("quietest", "second", "third", "loudest")
CONTROL = "control"
_BAND = 0.1  # of the control's known answer
_NUMBERS = ("held", "trained", "square", "change")


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    rates: tuple[float, ...] = (1e-3, 5e-3)
    l2: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    weight_decay: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)  # "lr_scaled", of AdamW
    subset: int = 300  # training examples
    label_noise: float = 0.2  # fraction of their labels made wrong
    batch_size: int = 32
    num_steps: int = 1_500
    num_seeds: int = 6
    fraction: float = 0.1  # by which a group is shrunk
    # Of the control.
    meaningful: int = 10  # inputs of each kind
    meaningless: int = 30
    examples: int = 60
    held_out: int = 4_000
    deviation: float = 1.0  # of the labels' noise
    control_steps: int = 600


PAPER = Config()
QUICK = Config(
    rates=(5e-3,), l2=(1e-3, 3e-2), weight_decay=(0.0, 1.0), num_steps=60, num_seeds=2,
    held_out=400, control_steps=60,
)  # fmt: skip


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train with every coefficient, and take the pulls of quarters of the last weights."""
    task = make_task(
        "digits-mlp",
        batch_size=config.batch_size,
        subset=config.subset,
        label_noise=config.label_noise,
        dtype="float32",
    )
    seeds = seeds_from(key, config.num_seeds)
    found = {
        name: _trained(config, task, name, coefficients, seeds)
        for name, coefficients in (("adam_l2", config.l2), ("adamw", config.weight_decay))
    }
    groups = {
        f"{rate:g}/{name}": _group(config, runs, rate, coefficients)
        for name, (runs, coefficients) in found.items()
        for rate in config.rates
    }
    groups[CONTROL] = _control(config, seeds)
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """The control; then, at every rate, what L2 spares and whether that overfits."""
    verdicts = _known_answer(result.groups[CONTROL])
    for rate in result.attributes["config"]["rates"]:
        verdicts += _at_rate(f"rate {rate:g}", *_pair(result, rate))
    return with_enough_seeds(verdicts, result.groups[CONTROL]["held"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Pulls and sizes by quarter, at every rate."""
    panels = []
    for rate in result.attributes["config"]["rates"]:
        l2, adamw = _pair(result, rate)
        panels.append(_quarters_panel(f"Overfitting, rate {rate:g}", "gap's pull (nats)",
                                      l2, adamw, _gap))  # fmt: skip
        panels.append(_quarters_panel(f"Size, rate {rate:g}", "share of squared weights",
                                      l2, adamw, _share))  # fmt: skip
    return panels_figure(panels_group(panels), venue)


def _trained(
    config: Config, task: Task, name: str, coefficients: tuple[float, ...], seeds: tuple[int, ...]
) -> tuple[ManyRuns, tuple[float, ...]]:
    cells = np.array([(rate, each) for rate in config.rates for each in coefficients])

    def optimizer_of(numbers: Any) -> optax.GradientTransformation:
        setting = Setting(
            learning_rate=numbers["rate"],
            weight_decay=numbers["coefficient"],
            batch_size=config.batch_size,
            num_steps=config.num_steps,
        )
        return named_optimizer(name, setting).optimizer

    # One step more than is counted: the last record is of the weights before it.
    runs = train_many(
        task,
        optimizer_of,
        {"rate": cells[:, 0], "coefficient": cells[:, 1]},
        seeds,
        config.num_steps + 1,
        probes={"quarters": quarters_probe(task, config.fraction)},
        record_every=config.num_steps,
    )
    return runs, coefficients


def quarters_probe(task: Task, fraction: float) -> Probe:
    """Pulls of the quarters of every matrix's weights, by Adam's mean square, layer by layer."""
    places = live_matrices(task)

    def probe(task: Task, view: StepView) -> dict[str, Float[Array, " groups"]]:
        state = only_state(optax.ScaleByAdamState, view.opt_state)
        mean_square = ravel_pytree(state.nu)[0]
        quarters = [ranked_groups(mean_square, each, len(QUARTERS)) for each in places.values()]
        return overfit_of(task, view.params, jnp.concatenate(quarters), fraction)

    return probe


def _group(config: Config, runs: ManyRuns, rate: float, coefficients: tuple[float, ...]) -> Group:
    """The runs at one rate; numbers of quarters summed over the layers."""
    begin = config.rates.index(rate) * len(coefficients)
    here = slice(begin, begin + len(coefficients))
    last = {name: runs.records["quarters"][name][here, :, -1] for name in _NUMBERS}
    summed = {
        name: values.reshape(*values.shape[:2], -1, len(QUARTERS)).sum(axis=2)
        for name, values in last.items()
    }
    return {
        "coefficient": variable("coefficient", np.array(coefficients), units="1"),
        "quarter": variable("quarter", list(QUARTERS)),
        **{
            name: variable(("coefficient", "quarter", "seed"), np.moveaxis(values, 1, -1))
            for name, values in summed.items()
        },
        **{
            name: variable(("coefficient", "seed"), runs.final[name][here], units="nats")
            for name in ("test_loss", "training_loss")
        },
    }


def _control(config: Config, seeds: tuple[int, ...]) -> Group:
    """Pulls of the two kinds of weights of a regression, which Adam has trained."""
    made = Regression(
        meaningful=config.meaningful,
        meaningless=config.meaningless,
        examples=config.examples,
        held_out=config.held_out,
        deviation=config.deviation,
    )
    runs = train_many(
        made.task(config.batch_size),
        lambda numbers: optax.adam(numbers["rate"]),
        {"rate": [1e-2]},
        seeds,
        config.control_steps,
        final=lambda task, params: {
            f"{name}_{place}": value
            for name, values in overfit_of(task, params, made.kinds(), config.fraction).items()
            for place, value in enumerate(values)
        },
        world_of=made.world_of,
    )
    return {
        "kind": variable("kind", ["meaning", "memory"]),
        **{
            name: variable(
                ("kind", "seed"), np.stack([runs.final[f"{name}_{place}"][0] for place in range(2)])
            )
            for name in _NUMBERS
        },
    }


def _known_answer(group: Group) -> list[Verdict]:
    square = group["square"].values
    meaning, memory = (group["held"].values - group["trained"].values) / square
    ratio = group["held"].values[1] / square[1]
    return [
        judged(
            f"{CONTROL}: weights of inputs that mean nothing pull the held-out loss up by their"
            " squares",
            interval_over_seeds(_mean, ratio),
            low=1 - _BAND,
            high=1 + _BAND,
            tolerance="pull over squared size, 1 in an endless held-out set; 90 % bootstrap over"
            " seeds",
        ),
        judged(
            f"{CONTROL}: they overfit more than those of inputs with a meaning",
            interval_over_seeds(_mean, memory - meaning),
            low=0.0,
            tolerance=f"difference of the gap's pulls over squared sizes; {INTERVAL}",
        ),
    ]


def _pair(result: Result, rate: float) -> tuple[Group, Group]:
    l2, adamw = (result.groups[f"{rate:g}/{name}"] for name in ("adam_l2", "adamw"))
    return l2, adamw


def _gap(group: Group) -> Float[np.ndarray, "coefficients quarters seeds"]:
    """Pulls on the held-out loss minus those on the training loss."""
    return group["held"].values - group["trained"].values


def _share(group: Group) -> Float[np.ndarray, "coefficients quarters seeds"]:
    """Of the squared weights."""
    square = group["square"].values
    return square / square.sum(axis=1, keepdims=True)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def _best(group: Group) -> int:
    """The coefficient of the lowest held-out loss."""
    return int(np.argmin(group["test_loss"].values.mean(axis=-1)))


def _over_draws(statistic: Any, group: Group) -> Any:
    every = np.arange(group["test_loss"].values.shape[-1])
    return interval_over_seeds(statistic, every)


def _at_rate(where: str, l2: Group, adamw: Group) -> list[Verdict]:
    def of_pair(numbers: Any, contrast: Any, which: slice = slice(None)) -> Any:
        return _over_draws(
            lambda draw: float(contrast(*matched(l2, adamw, numbers, draw, which))), l2
        )

    equal = "at equal training loss, mean over coefficients"

    def per_square(group: Group) -> np.ndarray:
        return _gap(group) / group["square"].values

    def change(group: Group) -> np.ndarray:
        return group["change"].values

    return [
        judged(
            f"{where}: control, L2 spares the loudest quarter: it holds more of the squared weights"
            " than under AdamW",
            of_pair(_share, lambda ours, theirs: np.log(ours[-1] / theirs[-1])),
            low=0.0,
            tolerance=f"log ratio of shares {equal}; {INTERVAL}",
        ),
        judged(
            f"{where}: under L2 the loudest quarter overfits more than the quietest",
            of_pair(_gap, lambda ours, theirs: ours[-1] - ours[0]),
            low=0.0,
            tolerance=f"nats, difference of the gap's pulls, mean over coefficients; {INTERVAL}",
        ),
        judged(
            f"{where}: for its size, too, the loudest quarter overfits more than the quietest under"
            " L2",
            of_pair(per_square, lambda ours, theirs: ours[-1] - ours[0]),
            low=0.0,
            tolerance=f"the same per squared weight; {INTERVAL}",
        ),
        judged(
            f"{where}: under L2 the loudest quarter overfits more than under AdamW",
            of_pair(_gap, lambda ours, theirs: ours[-1] - theirs[-1]),
            low=0.0,
            tolerance=f"nats, difference of the gap's pulls {equal}; {INTERVAL}",
        ),
        judged(
            f"{where}: the loudest quarter's lead in overfitting over the quietest is larger under"
            " L2 than under AdamW",
            of_pair(_gap, lambda ours, theirs: (ours[-1] - ours[0]) - (theirs[-1] - theirs[0])),
            low=0.0,
            tolerance=f"nats, difference of the differences {equal}; {INTERVAL}",
        ),
        *(
            judged(
                f"{where}: at L2's {word} coefficient the loudest quarter overfits more than under"
                " AdamW",
                of_pair(_gap, lambda ours, theirs: ours[-1] - theirs[-1], which),
                low=0.0,
                tolerance="nats, the loudest quarter's gap's pull minus AdamW's at equal training"
                f" loss; {INTERVAL}",
            )
            for word, which in (("weakest", slice(1)), ("strongest", slice(-1, None)))
        ),
        _at_best(where, l2, adamw),
        judged(
            f"{where}: under L2 the held-out loss falls as the loudest quarter shrinks by a tenth",
            of_pair(change, lambda ours, theirs: ours[-1]),
            high=0.0,
            tolerance=f"nats, mean over coefficients; {INTERVAL}",
        ),
    ]


def _at_best(where: str, l2: Group, adamw: Group) -> Verdict:
    """As users would have them: at coefficients that need not fit the training set alike."""
    places = [_best(group) for group in (l2, adamw)]
    pulls = [_gap(group)[place, -1] for group, place in zip((l2, adamw), places, strict=True)]
    verdict = judged(
        f"{where}: each at its best coefficient, the loudest quarter overfits more under L2",
        interval_over_seeds(_mean, pulls[0] - pulls[1]),
        low=0.0,
        tolerance=f"nats, L2 {l2['coefficient'].values[places[0]]:g} minus AdamW"
        f" {adamw['coefficient'].values[places[1]]:g}, of the lowest held-out losses; {INTERVAL}",
    )
    # The lowest of AdamW is none at all.
    ends = (0, len(l2["coefficient"].values) - 1), (len(adamw["coefficient"].values) - 1,)
    if any(place in end for place, end in zip(places, ends, strict=True)):
        return not_judged(verdict, "with a best coefficient at the edge of its grid")
    return verdict


def _quarters_panel(title: str, label: str, l2: Group, adamw: Group, numbers: Any) -> Panel:
    series = []
    for side, name in enumerate(("Adam with L2", "AdamW")):
        found = [
            _over_draws(
                lambda draw, side=side, place=place: float(
                    matched(l2, adamw, numbers, draw)[side][place]
                ),
                l2,
            )
            for place in range(len(QUARTERS))
        ]
        places = np.arange(len(QUARTERS)) + 0.1 * side
        series.append(Series(name, places, *columns(found), "points"))
    return Panel(
        title, "quarter, by gradient", label, series, "linear", "linear",
        guide=0.0 if numbers is _gap else 0.25, places=list(QUARTERS),
    )  # fmt: skip
