"""The power of the mean square that trains best, each power with its own learning rate.

Of grids in a record, `WORLD/eps=EPS/power=POWER`, made by `train_powers`.
"""

from collections.abc import Sequence

import numpy as np

from bayesfilt.compare import Interval, median_over_seeds
from bayesfilt.records import Group
from experiments.contract import (
    Result,
    Verdict,
    is_the_one,
    margin_of_the_one,
    not_judged,
    spelled,
)
from experiments.coordinates import interval_over_seeds, widened
from experiments.grids import Axes, Problem, grid_from, grid_group, train_grid

# Normalisers with a name.
NAMED = {"the mean square": 1.0, "the root": 0.5}
METRICS = {"training_loss": "training loss", "test_error": "test error"}


def train_powers(
    problem: Problem,
    seeds: Sequence[int],
    *,
    powers: Sequence[float],
    eps: Sequence[float],
    rates: str,
    typical_gradient: float,
) -> dict[str, Group]:
    """A grid over learning rates for every power and everything added to the root.

    Args:
        problem: what is trained.
        seeds: the same for all.
        powers: p of v^-p; 1/2 is Adam's.
        eps: added to the root of the mean square.
        rates: of Adam; a power has each times typical_gradient^(2p - 1), in its own units.
        typical_gradient: root mean square, of the mean loss.
    """
    groups = {}
    adams = Axes(rates=rates, decays="0").values()[0]
    for power in powers:
        own = tuple((adams * typical_gradient ** (2 * power - 1)).tolist())
        for each in eps:
            name = f"power_adam:power={power:g}"
            axes = Axes(rates=own, decays="0")
            grid = train_grid(problem, name, "constant", axes, seeds, eps=each)
            groups[f"eps={each:g}/power={power:g}"] = grid_group(grid)
    return groups


def sweeps_of(result: Result, world: str) -> dict[str, list[float]]:
    """Powers by what is added to the root."""
    found: dict[str, list[float]] = {}
    for name in result.groups:
        of, _, rest = name.partition("/")
        eps, _, power = rest.partition("/power=")
        if of == world and power:
            found.setdefault(eps, []).append(float(power))
    return found


def best_power(
    errors: Sequence[np.ndarray], powers: Sequence[float]
) -> tuple[Interval, list[float]]:
    """The power whose best learning rate errs least, and those whose best is at an edge.

    Args:
        errors: of each power, (rates, seeds).
        powers: in the same order.
    """
    stacked = np.stack(errors)

    def best(runs: np.ndarray) -> float:
        lowest = median_over_seeds(runs).min(axis=1)
        return float(powers[int(np.argmin(lowest))]) if np.isfinite(lowest).any() else float("nan")

    rates = median_over_seeds(stacked).argmin(axis=1)
    last = stacked.shape[1] - 1
    edges = [power for power, rate in zip(powers, rates, strict=True) if rate in (0, last)]
    return interval_over_seeds(best, stacked), edges


def power_verdicts(
    result: Result,
    world: str,
    eps: str,
    powers: list[float],
    metric: str,
    predicted: Interval,
) -> list[Verdict]:
    """Whether a named power trains best, and whether the predicted one does."""
    errors = [_errors(result, world, eps, power, metric) for power in powers]
    found, edges = best_power(errors, powers)
    where = f"{world}, {eps}, {METRICS[metric]}"
    measured = f"best power {spelled(found)}"
    if edges:
        measured += "; best learning rate at the edge for " + ", ".join(f"{p:g}" for p in edges)
    verdicts = [
        _chosen(
            f"{where}: {name} (p = {power:g}) trains best",
            measured,
            (found, power, [other for other in powers if other != power]),
            expected=f"{power:g}",
            tolerance="90 % bootstrap over paired seeds; undecided if it holds another's",
        )
        for name, power in NAMED.items()
        if power in powers
    ]
    gap = Interval(
        estimate=found.estimate - predicted.estimate,
        low=found.low - predicted.high,
        high=found.high - predicted.low,
    )
    verdicts.append(
        _chosen(
            f"{where}: the power that trains best is the one that the drift predicts",
            f"{measured}; predicted {spelled(predicted)}",
            (widened(gap, _step(powers) / 2), 0.0, [-0.5, 0.5]),
            expected="no difference",
            tolerance="half a step of the powers and both intervals; undecided if that leaves room"
            " for a power 1/2 away",
        )
    )
    if any(power != found.estimate for power in edges):
        why = "where a power that loses has its best learning rate at the edge of its grid"
        return [not_judged(each, why) for each in verdicts]
    return verdicts


def _chosen(
    claim: str,
    measured: str,
    choice: tuple[Interval, float, list[float]],
    *,
    expected: str,
    tolerance: str,
) -> Verdict:
    """Whether a number is the claimed one and no rival; `choice` as `is_the_one` takes it."""
    return Verdict(
        claim=claim,
        measured=measured,
        expected=expected,
        tolerance=tolerance,
        holds=is_the_one(*choice),
        margin=margin_of_the_one(*choice),
    )


def lowest_with_interval(
    result: Result, world: str, eps: str, power: float, metric: str
) -> Interval:
    """At the best learning rate, the rate chosen anew in every resample."""
    errors = _errors(result, world, eps, power, metric)
    return interval_over_seeds(lambda runs: float(median_over_seeds(runs).min()), errors)


def _errors(result: Result, world: str, eps: str, power: float, metric: str) -> np.ndarray:
    """(rates, seeds) of one power."""
    return getattr(grid_from(result, f"{world}/{eps}/power={power:g}"), metric)[:, 0]


def _step(powers: list[float]) -> float:
    return float(np.diff(powers).min()) if len(powers) > 1 else 0.0
