"""`bayesfilt map`: the dictionary filter <-> AdamW, in numbers and name by name."""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

from bayesfilt.commands.console import number, say, show_table
from bayesfilt.commands.explain import explain, list_all
from bayesfilt.commands.jax_setup import Platform, prepare_jax

if TYPE_CHECKING:
    from bayesfilt.theory import OrnsteinUhlenbeck

Convention = Literal["lr_scaled", "paper", "filter"]

_ADAMW = ["--learning-rate", "--weight-decay"]
_FILTER = ["--drift-scale", "--stationary-variance"]
_B1 = 0.9  # Adam's default; momentum hardly moves what is printed


@dataclasses.dataclass(frozen=True)
class Map:
    """Translate AdamW settings into the filter's and back; without any, list all names.

    The names are optimizers and schedules, each with what it is as a filter.
    """

    # Say everything about these names: what they are as a filter, how exactly, their decay,
    # their own numbers, sources and equations.
    explain: tuple[str, ...] = ()
    learning_rate: float | None = None  # AdamW's, at its base; wants --weight-decay
    weight_decay: float | None = None  # AdamW's, in the --convention
    # What --weight-decay means: lr_scaled (torch, optax), paper (Loshchilov and Hutter: the
    # shrink itself) or filter (the shrink too, but quadratic in the schedule).
    convention: Convention = "lr_scaled"
    drift_scale: float | None = None  # the filter's eta; wants --stationary-variance
    stationary_variance: float | None = None  # the filter's sigma^2 (summed loss); may be inf
    batch_size: int | None = None  # adds the units of the mean gradient
    num_examples: int | None = None  # in the training set; adds epochs, wants --batch-size
    platform: Platform = "cpu"  # a handful of numbers: a GPU only takes longer to start

    def run(self) -> int:
        """List or explain names; or print the transition, conventions, time scales, regimes."""
        given = self._numbers_given()
        if self.explain or not given:
            if given:
                raise ValueError(f"map needs --explain or numbers, got both: {' '.join(given)}.")
            explain(self.explain) if self.explain else list_all()
            return 0
        self._check(given)
        prepare_jax(self.platform, "float64")
        transition = self._transition()
        _show_dictionary(transition, self.batch_size)
        _show_time_scales(transition, self._steps_per_epoch())
        _show_regimes(transition, self.batch_size)
        if self.batch_size is None:
            say("--batch-size adds the units of the mean gradient.")
        return 0

    def _numbers_given(self) -> list[str]:
        """The options that hold a number, of those that are there."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(self)
            if field.default is None and getattr(self, field.name) is not None
        ]

    def _check(self, given: list[str]) -> None:
        either = [name for name in given if name not in ("--batch-size", "--num-examples")]
        if either not in (_ADAMW, _FILTER):
            raise ValueError(
                f"map needs {' and '.join(_ADAMW)}, or {' and '.join(_FILTER)};"
                f" got {' '.join(either) or 'neither'}."
            )
        for name, value in (("batch-size", self.batch_size), ("num-examples", self.num_examples)):
            if value is not None and value < 1:
                raise ValueError(f"map needs --{name} >= 1, got {value}.")
        if self.num_examples is not None and self.batch_size is None:
            raise ValueError("map needs --batch-size to turn --num-examples into epochs.")

    def _transition(self) -> "OrnsteinUhlenbeck":
        from bayesfilt.theory import OrnsteinUhlenbeck, transition_from_adamw

        if self.learning_rate is not None and self.weight_decay is not None:
            return transition_from_adamw(
                self.learning_rate, self.weight_decay, convention=self.convention
            )
        assert self.drift_scale is not None and self.stationary_variance is not None
        return OrnsteinUhlenbeck(
            drift_scale=self.drift_scale, stationary_variance=self.stationary_variance
        )

    def _steps_per_epoch(self) -> float | None:
        if self.num_examples is None or self.batch_size is None:
            return None
        return self.num_examples / self.batch_size


def _show_dictionary(transition: "OrnsteinUhlenbeck", batch_size: int | None) -> None:
    from bayesfilt.theory import CONVENTIONS, adamw_from_transition, exact_shrink, large_epsilon

    decay = {
        name: float(adamw_from_transition(transition, convention=name).weight_decay)
        for name in CONVENTIONS
    }
    eta, sigma2 = float(transition.drift_scale), float(transition.stationary_variance)
    rows = [
        ("drift_scale", eta, "filter (eta): the optimum's move per step"),
        ("stationary_variance", sigma2, "filter (sigma^2): prior, of the summed loss"),
        ("shrink per step", decay["filter"], "tied, first order: eta^2 / (2 sigma^2)"),
        ("exact shrink", float(exact_shrink(eta, sigma2)), "1 - retention"),
        ("learning_rate", eta, "AdamW"),
        ("weight_decay", decay["lr_scaled"], "AdamW, lr_scaled: torch, optax"),
        ("weight_decay", decay["paper"], "AdamW, paper: Loshchilov and Hutter"),
        ("weight_decay", decay["filter"], "AdamW, filter: quadratic in the schedule"),
    ]
    epsilon = float(large_epsilon(eta, sigma2))
    if batch_size is None:
        rows += [("large eps", epsilon, "eps that makes Adam resemble it, summed loss")]
    else:
        rows += [
            ("large eps", epsilon / batch_size, "eps that makes Adam resemble it, mean loss"),
            ("SGD learning rate", sigma2 * batch_size, "the limit of quiet gradients, mean loss"),
        ]
    cells = [(name, number(value, 6), meaning) for name, value, meaning in rows]
    show_table("One optimizer, two names", ("setting:", "value", "meaning:"), cells)


def _show_time_scales(transition: "OrnsteinUhlenbeck", steps_per_epoch: float | None) -> None:
    from bayesfilt.theory import (
        decay_per_step,
        ema_timescale,
        equilibrium_rms,
        equilibrium_rms_with_momentum,
        rotation_per_step,
    )

    eta = float(transition.drift_scale)
    shrink = float(decay_per_step(*transition))
    timescale = float(ema_timescale(shrink))
    rows = [("memory of the prior (EMA timescale), 1/shrink", timescale, "steps")]
    if steps_per_epoch is not None:
        rows += [("the same", timescale / steps_per_epoch, "epochs")]
    rows += [
        ("equilibrium reached after about 1/(2 shrink)", 0.5 * timescale, "steps"),
        ("equilibrium RMS of a weight, pure noise", float(equilibrium_rms(eta, shrink)), "weight"),
        (
            f"the same with b1 = {_B1}",
            float(equilibrium_rms_with_momentum(eta, shrink, _B1)),
            "weight",
        ),
        ("rotation of a layer", math.degrees(float(rotation_per_step(shrink))), "degrees/step"),
        (
            f"the same with b1 = {_B1}",
            math.degrees(float(rotation_per_step(shrink, _B1))),
            "degrees/step",
        ),
    ]
    cells = [(name, number(value, 4), unit) for name, value, unit in rows]
    show_table("Time scales and equilibrium", ("quantity:", "value", "unit:"), cells)


def _show_regimes(transition: "OrnsteinUhlenbeck", batch_size: int | None) -> None:
    """A row for each decade about the two thresholds, and for the thresholds themselves."""
    from bayesfilt.theory import REGIMES, crossover_gradient, regime

    crossover = float(crossover_gradient(*transition))
    overwhelming = 1 / float(transition.drift_scale)
    rows = []
    for rms in _gradients_worth_a_row(crossover, overwhelming):
        name = REGIMES[int(regime(rms**2, *transition))]
        mark = " *" if rms in (crossover, overwhelming) else ""
        rows.append([name + mark, *map(number, _regime_row(transition, rms, batch_size))])
    columns = ["regime:", "RMS grad.\nsummed", "variance"]
    if batch_size is not None:
        columns += ["RMS grad.\nmean", "learning\nrate"]
    columns += ["tracking\ntime", "variance\nmemory"]
    show_table("Regimes: exact steady state by RMS gradient; times in steps", columns, rows)
    say(
        f"* thresholds of the summed gradient: eta/sigma^2 = {number(crossover)},"
        f" 1/eta = {number(overwhelming)}"
    )


def _regime_row(transition: "OrnsteinUhlenbeck", rms: float, batch_size: int | None) -> list[float]:
    """What holds where the summed gradient of a weight is `rms`, in the table's order."""
    from bayesfilt.theory import retention, steady_state_variance, variance_memory

    precision = rms**2
    variance = float(steady_state_variance(precision, *transition))
    kept = float(variance_memory(variance, precision, float(retention(*transition))))
    in_mean_units = [] if batch_size is None else [rms / batch_size, variance * batch_size]
    tracking_time = 1 / (variance * precision)
    memory = -1 / math.log(kept) if 0 < kept < 1 else math.inf * (kept == 1)
    return [rms, variance, *in_mean_units, tracking_time, memory]


def _gradients_worth_a_row(crossover: float, overwhelming: float) -> list[float]:
    """Decades about both thresholds; a random walk has no crossover, and more of the other."""
    powers = (-1, 0, 1) if crossover else (-4, -3, -2, -1, 0, 1)
    around = [crossover * 10.0**power for power in (-2, -1, 0, 1, 2)] if crossover else []
    return sorted({*around, *(overwhelming * 10.0**power for power in powers)})
