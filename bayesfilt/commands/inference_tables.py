"""What `bayesfilt infer` prints: gates, numbers, who foretells best, checks, and the verdict."""

import math
from typing import Any

import numpy as np

from bayesfilt.commands.console import number, say, show_table
from bayesfilt.compare.layers import ALL
from bayesfilt.infer.comparison import Comparison
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.identifiability import Identifiability
from bayesfilt.infer.inference_record import Findings, reported_model
from bayesfilt.infer.posterior_summary import posterior_rows
from bayesfilt.infer.verdict import (
    CANNOT_TELL,
    DOES_NOT_SHRINK,
    SHRINKS,
    TRANSITIONS_JUDGED,
)
from bayesfilt.records import Group

_IN_WORDS = {
    SHRINKS: "shrinks",
    DOES_NOT_SHRINK: "does not shrink",
    CANNOT_TELL: "may or may not shrink: cannot tell",
}
_SURPRISING = 0.05  # a p-value below this is pointed at


def show_findings(findings: Findings) -> None:
    """Print everything in the order in which it should be read; the verdict comes last."""
    _show_gates(findings)
    _show_numbers(findings)
    _show_comparison(findings)
    _show_checks(findings)
    _show_verdict(findings)


def show_instruments(group: Group) -> None:
    """A row for each layer: is R = H, does the drift fall with the curvature, is it calibrated?"""
    columns = (
        "layer:", "weights", "R / H\n(median)", "drift slope\non H", "standard\nerror",
        "drift slope\non R", "standard\nerror", "gradients'\nlag 1", "calibration\nearly",
        "middle", "late",
    )  # fmt: skip
    owner = group["layer_of"].values
    rows = []
    for index, layer in enumerate(group["layer"].values):
        own = owner == layer
        curvature = group["curvature"].values[own]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(curvature > 0, group["noise_variance"].values[own] / curvature, np.nan)
        names = ("drift_slope", "drift_slope_error", "drift_slope_on_noise")
        slopes = [group[name].values[index] for name in (*names, "drift_slope_on_noise_error")]
        course = np.array_split(group["calibration"].values[index], 3)
        values = (
            _middle(ratio), *slopes, _middle(group["gradient_autocorrelation"].values[own]),
            *map(_middle, course),
        )  # fmt: skip
        rows.append([str(layer), str(own.sum()), *(number(float(value), 2) for value in values)])
    show_table("Instruments (R / H and calibration are 1 in the theory)", columns, rows)


def _middle(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def as_dict(findings: Findings) -> dict[str, Any]:
    """The findings for `summary.json`."""
    comparison = findings.comparison
    return {
        "reported_model": comparison.preferred(),
        "verdicts": [
            {**verdict._asdict(), "sentence": verdict.sentence} for verdict in findings.verdicts
        ],
        "gates": {
            name: {"passes": fit.gates.passes, "failures": list(fit.gates.failures)}
            for name, fit in all_fits(findings).items()
        },
        "comparison": {
            "method": comparison.method,
            "scored": comparison.num_scored,
            "rivals": [rival._asdict() for rival in comparison.rivals],
        },
        "numbers": {name: posterior_rows(fit) for name, fit in findings.fits.items()},
        "calibration": {
            name: [check._asdict() for check in checks]
            for name, checks in findings.calibration.items()
        },
        "identifiability": {
            name: {
                "statements": list(learned.statements),
                "contraction": [
                    {"number": key[0], "layer": key[1], "value": value}
                    for key, value in _by_number(learned).items()
                ],
            }
            for name, learned in findings.learned.items()
        },
        "replicates": [
            {**check._asdict(), "p_value": check.p_value} for check in findings.replicates
        ],
    }


def all_fits(findings: Findings) -> dict[str, Fit]:
    """The fits to the whole window and, where there are such, those to its first steps."""
    first = findings.foretelling
    held = (
        {f"{name}, first steps": fit for name, fit in first.items()} if _holds_out(findings) else {}
    )
    return {**findings.fits, **held}


def _holds_out(findings: Findings) -> bool:
    return findings.foretelling is not findings.fits


def _show_gates(findings: Findings) -> None:
    columns = (
        "fit:",
        "r-hat",
        "ESS\nbulk",
        "ESS\ntails",
        "diver-\ngences",
        "Pareto\nk",
        "time",
        "gates:",
    )
    rows, failed = [], {}
    for name, fit in all_fits(findings).items():
        gates = fit.gates
        values = (gates.r_hat, gates.ess_bulk, gates.ess_tail, gates.divergences, gates.pareto_k)
        verdict = "passed" if gates.passes else "FAILED"
        rows.append(
            [name, *(number(value, 4) for value in values), f"{fit.seconds:.0f} s", verdict]
        )
        if not gates.passes:
            failed[name] = gates.failures
    show_table("Sampling", columns, rows)
    for name, failures in failed.items():
        say(f"{name} FAILED its gates: {'; '.join(failures)}.")
    if failed:
        say("Nothing can be trusted of a fit that failed; more --warmup and --samples may help.\n")


def _show_numbers(findings: Findings) -> None:
    """The numbers of the reported model and of the shrinking one, and what is weak of them."""
    columns = (
        "model:",
        "layer:",
        "number:",
        "median",
        "5 %",
        "95 %",
        "r-hat",
        "ESS",
        "con-\ntraction",
    )
    rows = []
    for name, learned in findings.learned.items():
        contraction = _by_number(learned)
        for row in posterior_rows(findings.fits[name]):
            cells = (row["median"], row["low"], row["high"])
            rows.append(
                [
                    name,
                    row["layer"],
                    row["parameter"],
                    *(number(value) for value in cells),
                    number(row["r_hat"], 4),
                    number(row["ess_bulk"], 3),
                    number(contraction.get((row["parameter"], row["layer"])), 2),
                ]
            )
    title = "Numbers (units of a weight; contraction 1: the streams settle it, 0: the prior does)"
    show_table(title, columns, rows)
    for name, learned in findings.learned.items():
        for statement in learned.statements:
            say(f"{name}: {statement}")


def _by_number(learned: Identifiability) -> dict[tuple[str, str], float]:
    """Contraction by number and layer."""
    names, values = learned.contraction
    return {
        (name, layer): float(values[place, column])
        for place, name in enumerate(names)
        for column, layer in enumerate(learned.layer_names)
    }


def _show_comparison(findings: Findings) -> None:
    comparison = findings.comparison
    columns = (
        "model:",
        "log pred.\ndensity",
        "to the\nbest",
        "standard\nerror",
        "share of\nthe stack",
        "verdict:",
    )
    rows = [
        [
            rival.name,
            number(rival.log_predictive, 6),
            number(rival.difference, 4),
            number(rival.standard_error, 2),
            "-" if math.isnan(rival.stacking_weight) else f"{rival.stacking_weight:.0%}",
            rival.verdict if rival.verdict != "not ranked" else "not ranked: a gate failed",
        ]
        for rival in comparison.of_layer(ALL)
    ]
    what = "held-out steps" if _holds_out(findings) else "left-out weights"
    show_table(f"Models on {comparison.num_scored} {what} (nats)", columns, rows)
    _explain_the_stack(comparison)
    layers = [name for name in findings.streams.layer_names if comparison.of_layer(name)]
    if len(layers) > 1:
        chosen = [f"{layer}: {comparison.preferred(layer) or 'none'}" for layer in layers]
        say(f"Preferred in each layer: {', '.join(chosen)}.")


def _explain_the_stack(comparison: Comparison) -> None:
    """Why the largest share of the stack is not the best model's, where it is not."""
    ranked = [row for row in comparison.of_layer(ALL) if not math.isnan(row.stacking_weight)]
    largest = max(ranked, key=lambda row: row.stacking_weight, default=None)
    if largest is not None and largest is not ranked[0]:
        say(
            f"The stack is a mixture: {largest.name} has the largest share because it adds most to"
            f" the others, not because it is better than {ranked[0].name} alone."
        )


def _show_checks(findings: Findings) -> None:
    columns = (
        "model:",
        "layer:",
        "innovation^2 /\nits variance",
        "standard\nerror",
        "uniform ranks\np-value",
    )
    rows = [
        [
            name,
            check.layer,
            number(check.nis),
            number(check.nis_standard_error, 2),
            number(check.uniformity_p_value, 2),
        ]
        for name, checks in findings.calibration.items()
        for check in checks
    ]
    if rows:
        show_table("Calibration of the next-step predictions (1 is calibrated)", columns, rows)
    odd = [check for check in findings.replicates if check.p_value < _SURPRISING]
    if findings.replicates:
        name = reported_model(findings.comparison)
        mark = "" if findings.fits[name].gates.passes else " (which failed its gates)"
        say(
            f"Data drawn from {name}{mark} differ from the recorded in {len(odd)} of"
            f" {len(findings.replicates)} checks (p < {_SURPRISING:g}):"
        )
        for check in odd:
            say(
                f"  {check.layer}: {check.name} {number(check.observed)}, drawn"
                f" {number(check.low)} to {number(check.high)}"
            )


def _show_verdict(findings: Findings) -> None:
    say("")
    if not findings.verdicts:
        say(f"No verdict on the shrink: no {' or '.join(TRANSITIONS_JUDGED)} among --models.")
        return
    columns = (
        "layer:", "verdict:", "shrink\nper step", "5 %", "95 %", "none\nbelow", "lr*wd\n(set)",
        "eta^2/2 sigma^2\n(eta inferred)", "eta^2/2 sigma^2\n(eta = lr)", "relaxation\ntimes",
        "over a random\nwalk (nats)", "standard\nerror",
    )  # fmt: skip
    rows = []
    for verdict, tied in zip(findings.verdicts, findings.tied_to_rate, strict=True):
        low, middle, high = verdict.shrink
        inferred = None if verdict.tied_decay is None else verdict.tied_decay[1]
        values = (
            middle, low, high, verdict.negligible, verdict.decay_set, inferred, float(tied),
            verdict.relaxation_times, verdict.difference, verdict.standard_error,
        )  # fmt: skip
        rows.append([verdict.layer, verdict.word, *(number(value) for value in values)])
    show_table("Does the transition's mean shrink?", columns, rows)
    for verdict in findings.verdicts:
        why = f" ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
        say(f"In {verdict.layer} the mean of the transition {_IN_WORDS[verdict.word]}{why}.")
    say("")
