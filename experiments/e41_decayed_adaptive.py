"""Does decoupling the decay do for AdaGrad and AMSGrad what it does for Adam?

Claim: decoupled decay instead of L2 lowers the test error of AdaGrad and AMSGrad as it does that of
Adam (a belief of the AdamW paper). Against it: the step of AdaGrad falls like 1/sqrt(t), so a
constant decay dominates late, unless it falls with the step.
Source: Loshchilov and Hutter (2019), section 5; ledger 1.14.
Refuted by: gains, as log ratios of test errors, that differ from Adam's by more than a tenth; a
decay over step that does not grow, or a scheduled one that errs more.
Each variant has 20 cells and the same seeds; see `experiments.equal_budgets` for how a cell is
chosen and reported. Rates are constant. The scheduled shrink is rate decay/sqrt(t): that decay and
AdaGrad's step then keep their ratio is so by construction where gradients keep their size; that
they keep it here, and what it does to the error, is not. Gradients shrink while a network learns
its examples by heart, and then the decay grows against any step whose mean square remembers longer:
Adam's, of 1000 steps, too. So (after a first run that showed it) the law is judged at the lowest
rate, and what happens at all rates beside Adam. AdamW's gain is the
control: where neither it nor the other gains anything, that they are alike is not judged (a change
after the PAPER run, which had said yes of two zeros).
Cost of PAPER: 2240 runs of 600 steps: 85 s of CPU time (estimated from 47 s of half as many).
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.weight_decay import DecayToZeroState, decay_to_zero
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate.probes import root_mean_square
from bayesfilt.tasks import make_task
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.equal_budgets import (
    Search,
    compared,
    interval_of,
    log_error,
    log_ratio,
    same_gain,
    searched,
)
from experiments.grids import Problem, seeds_from
from experiments.panels import Panel, Series, panels_group

CLAIM = "Decoupled decay does for AdaGrad and AMSGrad what it does for Adam."
SETTLES = ("1.14",)
CAPTION = (
    "Test error at the cells chosen on the other half of the test set, log ratio of the errors with"
    " decoupled decay and with L2, and size of the decay over that of the step in time, at the"
    " weakest decay (grey: slope 1/2; AMS: AMSGrad, AdaG: AdaGrad); means over seeds with 90 %"
    " intervals."
)

KINDS = ("l2", "decoupled", "scheduled")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One optimizer with one kind of decay."""

    optimizer: str  # of the zoo, without decay
    kind: str  # of KINDS
    rates: tuple[float, ...]
    decays: tuple[float, ...]  # coefficient of L2, or shrink over the rate

    @property
    def name(self) -> str:
        """As groups of the record are called."""
        return f"{self.optimizer}/{self.kind}"


_RATES, _ADAGRAD_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-3, 3e-3, 1e-2, 3e-2, 0.1)
_L2 = (0.0, 1e-3, 1e-2, 0.1)
VARIANTS = (
    Variant("adam", "l2", _RATES, _L2),
    Variant("adam", "decoupled", _RATES, (0.0, 0.1, 1.0, 10.0)),
    Variant("amsgrad", "l2", _RATES, _L2),
    Variant("amsgrad", "decoupled", _RATES, (0.0, 0.1, 1.0, 10.0)),
    Variant("adagrad", "l2", _ADAGRAD_RATES, _L2),
    Variant("adagrad", "decoupled", _ADAGRAD_RATES, (0.0, 0.01, 0.1, 1.0)),
    # In 600 steps 1/sqrt(t) has a mean of 1/12.
    Variant("adagrad", "scheduled", _ADAGRAD_RATES, (0.0, 0.1, 1.0, 5.0)),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    problem: Problem
    variants: tuple[Variant, ...] = VARIANTS
    record_every: int = 20
    first: int = 100  # step from which the slope of decay over step is taken


PAPER = Config(problem=Problem(num_steps=600, num_seeds=16))
QUICK = Config(
    problem=Problem(num_steps=60, num_seeds=2),
    variants=tuple(
        dataclasses.replace(each, rates=each.rates[3:], decays=each.decays[:2])
        for each in VARIANTS
        if each.optimizer == "adagrad" and each.kind != "scheduled"
    ),
    first=20,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Search with every variant."""
    problem = config.problem
    seeds = seeds_from(key, problem.num_seeds)
    task = make_task(
        problem.task,
        batch_size=problem.batch_size,
        subset=problem.subset,
        label_noise=problem.label_noise,
    )
    groups = {}
    for variant in config.variants:
        search = Search(
            optimizer_of=lambda numbers, variant=variant: decayed(
                variant.optimizer, variant.kind, numbers, problem
            ),
            axes={"rate": variant.rates, "decay": variant.decays},
        )
        probes = {} if variant.kind == "l2" else {"share": decay_over_step}
        group, runs = searched(
            task,
            search,
            seeds,
            problem.num_steps,
            probes=probes,
            record_every=config.record_every,
        )
        if probes:
            share = runs.records["share"][_weakest(group)]
            group["step"] = variable("step", runs.step, units="steps")
            group["share"] = variable(("weak", "seed", "step"), share, units="1")
        groups[variant.name] = group
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Gains beside Adam's, then what the decay does late in AdaGrad."""
    groups = result.groups
    verdicts = []
    for name in ("adam", "amsgrad", "adagrad"):
        if f"{name}/l2" in groups:
            verdicts.append(
                compared(
                    f"{name} errs less with decoupled decay than with L2",
                    groups[f"{name}/decoupled"], groups[f"{name}/l2"], high=0.0,
                )
            )  # fmt: skip
    for name in ("amsgrad", "adagrad"):
        if f"{name}/l2" in groups and "adam/l2" in groups:
            pairs = [(groups[f"{each}/l2"], groups[f"{each}/decoupled"]) for each in (name, "adam")]
            verdicts.append(
                same_gain(f"{name} gains as much by decoupling as adam", pairs[0], pairs[1])
            )
    verdicts += _late(result)
    if "adagrad/scheduled" in groups:
        verdicts.append(
            compared(
                "adagrad errs less with a decay that falls with its step than with a constant one",
                groups["adagrad/scheduled"], groups["adagrad/decoupled"], high=0.0,
            )
        )  # fmt: skip
    return with_enough_seeds(verdicts, result.attributes["config"]["problem"]["num_seeds"])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Errors, gains, and decay over step in time."""
    return panels_figure(
        panels_group([_error_panel(result), _gain_panel(result), _share_panel(result)]), venue
    )


def decayed(name: str, kind: str, numbers, problem: Problem) -> optax.GradientTransformation:
    """An optimizer of the zoo with L2 in its gradient, or with a shrink beside its step.

    Raises:
        ValueError: a kind that is none of KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"decayed needs a kind among {', '.join(KINDS)}, got {kind!r}.")
    rate, decay = numbers["rate"], numbers["decay"]
    setting = Setting(
        learning_rate=rate,
        weight_decay=0.0,
        batch_size=problem.batch_size,
        num_steps=problem.num_steps,
    )
    plain = named_optimizer(name, setting).optimizer
    if kind == "l2":
        return optax.chain(optax.add_decayed_weights(decay), plain)
    if kind == "decoupled":
        return optax.chain(plain, decay_to_zero(rate * decay))
    return optax.chain(plain, decay_to_zero(lambda step: rate * decay / jnp.sqrt(step + 1.0)))


def decay_over_step(task, view) -> Float[jax.Array, ""]:
    """Probe: root mean square of what the shrink takes, over that of the optimizer's own step."""
    del task
    (state,) = (each for each in view.opt_state if isinstance(each, DecayToZeroState))
    taken = jax.tree.map(lambda weight: state.shrink * weight, view.params)
    step = jax.tree.map(jnp.add, view.updates, taken)
    return root_mean_square(taken) / root_mean_square(step)


def share_slope(
    step: np.ndarray, share: Float[np.ndarray, "weak records seeds"], first: int
) -> float:
    """Slope of the logarithm of decay over step on that of time, mean over rates and seeds."""
    late = step >= first
    logs = np.log(share[:, late]).mean(axis=(0, 2))
    return float(np.polyfit(np.log(step[late] + 1.0), logs, 1)[0])


def _weakest(group: Group) -> np.ndarray:
    """Cells of the weakest decay that there is: the weights hardly feel it."""
    decays = group["decay"].values
    return decays == decays[decays > 0].min()


def _late(result: Result) -> list[Verdict]:
    """Decay over step at the lowest rate, where gradients keep their size, then at all rates."""
    claims = {
        "adagrad/decoupled": ("adagrad: a constant decay grows against the step like the root of"
                              " time, at the lowest rate", {"low": 0.25, "high": 0.75}),
        "adagrad/scheduled": ("adagrad: a decay that falls like 1/sqrt(t) keeps its share of the"
                              " step, at the lowest rate", {"low": -0.25, "high": 0.25}),
        "adam/decoupled": ("adam: a constant decay keeps its share of the step, at the lowest rate",
                           {"low": -0.25, "high": 0.25}),
    }  # fmt: skip
    groups, first = result.groups, result.attributes["config"]["first"]
    tolerance = "90 % bootstrap over paired seeds; half of the law's slope, 1/2"

    def slopes(name: str, places: slice, draw: np.ndarray) -> float:
        group = groups[name]
        share = np.moveaxis(group["share"].values, 1, -1)[places][..., draw]
        return share_slope(group["step"].values, share, first)

    def verdict(claim: str, name: str, statistic: Callable[[np.ndarray], float], **band: float):
        found = interval_of(groups[name], statistic)
        return judged(claim, found, unit="slope in time", tolerance=tolerance, **band)

    verdicts = [
        verdict(claim, name, lambda draw, name=name: slopes(name, slice(1), draw), **band)
        for name, (claim, band) in claims.items()
        if name in groups
    ]
    if "adam/decoupled" in groups:
        verdicts.append(
            verdict(
                "adagrad: a constant decay grows against the step faster than adam's, at all rates",
                "adagrad/decoupled",
                lambda draw: (
                    slopes("adagrad/decoupled", slice(None), draw)
                    - slopes("adam/decoupled", slice(None), draw)
                ),
                low=0.25,
            )
        )
    return verdicts


def _error_panel(result: Result) -> Panel:
    def percent(group: Group, _: Group) -> Interval:
        return interval_of(group, lambda draw: 100 * float(np.exp(log_error(group, draw))))

    return _points_panel(result, "error", "test error (%)", KINDS, percent, float("nan"))


def _gain_panel(result: Result) -> Panel:
    return _points_panel(result, "against L2", "log ratio of errors", KINDS[1:], log_ratio, 0.0)


def _points_panel(
    result: Result,
    title: str,
    label: str,
    kinds: Sequence[str],
    number: Callable[[Group, Group], Interval],
    guide: float,
) -> Panel:
    """A number of every variant, given its group and that of its optimizer with L2."""
    groups = result.groups
    names = [name for name in _NAME if f"{name}/l2" in groups]
    series = []
    for turn, kind in enumerate(kinds):
        places = [place for place, name in enumerate(names) if f"{name}/{kind}" in groups]
        if not places:
            continue
        found = [
            number(groups[f"{names[place]}/{kind}"], groups[f"{names[place]}/l2"])
            for place in places
        ]
        y, low, high = np.array(found).T
        beside = np.array(places) + 0.2 * (turn - 0.5 * (len(kinds) - 1))
        series.append(Series(_KIND[kind], beside, y, low, high, kind="points"))
    return Panel(
        title, "optimizer", label, series, x_scale="linear", y_scale="linear",
        guide=guide, places=[_PLACE[name] for name in names],
    )  # fmt: skip


def _share_panel(result: Result) -> Panel:
    series = []
    for name, group in result.groups.items():
        if "share" not in group:
            continue
        step = group["step"].values
        later = step > 0
        values = np.exp(np.log(group["share"].values[..., later]).mean(axis=0))
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
        optimizer, _, kind = name.partition("/")
        series.append(Series(f"{_NAME[optimizer]}, {_KIND[kind]}", step[later], middle, low, high))
        if name == "adagrad/decoupled":
            root = np.sqrt(step[later] / step[later][-1]) * middle[-1]
            series.append(Series("root of time", step[later], root, kind="law"))
    return Panel(
        "weakest decay", "step", "decay / step (rms)", series, x_scale="log", y_scale="log"
    )


_NAME = {"adam": "Adam", "amsgrad": "AMSGrad", "adagrad": "AdaGrad"}
_PLACE = {"adam": "Adam", "amsgrad": "AMS", "adagrad": "AdaG"}
_KIND = {"l2": "L2", "decoupled": "constant decay", "scheduled": "decay ~ 1/sqrt(t)"}
