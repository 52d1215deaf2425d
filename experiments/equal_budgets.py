"""Optimizers searched with as many cells each; one half of the test set chooses, the other reports.

The digits have no held-out images beside their test set. So its even images choose the cell of a
search and its odd ones say how well that cell does, and the other way round; the error is the mean
of both. Seeds are paired and resampled, and each resample chooses anew; the images are not
resampled, so that intervals say what other seeds would do, on these images. A run that diverged
errs like a guess.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bayesfilt.compare import Interval, bootstrap
from bayesfilt.custom_types import Params
from bayesfilt.records import Group, variable
from bayesfilt.simulate.probes import Probe
from bayesfilt.tasks import Task
from experiments.contract import INTERVAL, Verdict, check_key, judged, not_judged
from experiments.many_runs import ManyRuns, Numbers, train_many

_GUESS = 0.9  # error of a guess among ten classes
_RESAMPLES = 300
_TENTH = float(np.log(1.1))
_HALVES = ("even", "odd")


class Search(NamedTuple):
    """Cells of one optimizer: every combination of the values of its axes."""

    optimizer_of: Callable[[Numbers], optax.GradientTransformation]
    # "rate" is open at both ends, "kind" at none, all others upwards.
    axes: Mapping[str, Sequence[float]]


def searched(
    task: Task,
    search: Search,
    seeds: Sequence[int],
    num_steps: int,
    *,
    probes: Mapping[str, Probe] | None = None,
    record_every: int = 1,
) -> tuple[Group, ManyRuns]:
    """Train every cell from every seed: its errors as a group of a record, and the runs."""
    cells = np.array(list(itertools.product(*search.axes.values())))
    settings = dict(zip(search.axes, cells.T, strict=True))
    runs = train_many(
        task,
        search.optimizer_of,
        settings,
        seeds,
        num_steps,
        probes=probes,
        record_every=record_every,
        final=error_by_half,
    )
    errors = {
        half: variable(("cell", "seed"), np.nan_to_num(runs.final[half], nan=_GUESS), units="1")
        for half in _HALVES
    }
    axes = {name: variable("cell", values) for name, values in settings.items()}
    edge = variable("cell", _on_edge(settings))
    return {**errors, **axes, "edge": edge}, runs


def error_by_half(task: Task, params: Params) -> dict[str, Float[Array, ""]]:
    """Fraction of wrong classes among the even and the odd images of the test set."""
    wrong = jnp.argmax(task.log_probabilities(params), axis=-1) != task.test.labels  # pyright: ignore[reportAttributeAccessIssue]
    return {half: jnp.mean(wrong[place::2]) for place, half in enumerate(_HALVES)}


def pooled(groups: Sequence[Group], where: Callable[[Group], np.ndarray] | None = None) -> Group:
    """One search made of the cells of several, or of those for which `where` is true."""
    kept = [np.ones(len(each["edge"].values), bool) if where is None else where(each)
            for each in groups]  # fmt: skip

    def joined(name: str) -> np.ndarray:
        return np.concatenate(
            [each[name].values[keep] for each, keep in zip(groups, kept, strict=True)]
        )

    return {
        "edge": variable("cell", joined("edge")),
        **{half: variable(("cell", "seed"), joined(half), units="1") for half in _HALVES},
    }


def undecayed(group: Group) -> np.ndarray:
    """Which cells have no decay."""
    return group["decay"].values == 0


def log_error(group: Group, draw: np.ndarray) -> float:
    """Logarithm of the error over some seeds, each half choosing the cell for the other."""
    even, odd = (group[half].values[:, draw].mean(axis=1) for half in _HALVES)
    return float(np.log(0.5 * (even[np.argmin(odd)] + odd[np.argmin(even)])))


def interval_of(group: Group, statistic: Callable[[np.ndarray], float]) -> Interval:
    """Of a number made of a draw of the seeds that `group` has."""
    every = np.arange(group["even"].values.shape[1])
    return bootstrap(check_key(), statistic, every, num_resamples=_RESAMPLES)


def log_ratio(first: Group, second: Group) -> Interval:
    """Of the errors of two searches, the first's over the second's, with the same seeds."""
    return interval_of(first, lambda draw: log_error(first, draw) - log_error(second, draw))


def chosen_at_edge(group: Group) -> bool:
    """Whether either half chooses a cell at an open edge, so that a wider grid might be better."""
    return any(
        bool(group["edge"].values[np.argmin(group[half].values.mean(axis=1))]) for half in _HALVES
    )


def compared(
    claim: str, first: Group, second: Group, *, low: float = -np.inf, high: float = np.inf
) -> Verdict:
    """Whether the log ratio of two errors lies in a band.

    Not judged where a wider grid might change the answer: where a search whose lower error would
    take the ratio out of the band, or into it, has chosen a cell at an open edge of its grid.
    """
    ratio = log_ratio(first, second)
    verdict = judged(
        claim, ratio, low=low, high=high, unit="log ratio of errors",
        tolerance=f"{INTERVAL}, which choose the cells anew",
    )  # fmt: skip
    # The first's wider grid can only lower the ratio, the second's only raise it.
    inside = verdict.holds is True
    threats = {
        "first": (first, np.isfinite(low) if inside else ratio.low > high),
        "second": (second, np.isfinite(high) if inside else ratio.high < low),
    }
    for name, (group, is_threat) in threats.items():
        if verdict.holds is not None and is_threat and chosen_at_edge(group):
            verdict = not_judged(verdict, f"as the {name} one's cell is at the edge of its grid")
    return verdict


def no_worse(claim: str, first: Group, second: Group) -> Verdict:
    """Whether the first errs at most a tenth more than the second."""
    return compared(claim, first, second, high=_TENTH)


def much_better(claim: str, first: Group, second: Group) -> Verdict:
    """Whether the first errs less than the second by more than a tenth of the error."""
    return compared(claim, first, second, high=-_TENTH)


def same_gain(
    claim: str,
    first: tuple[Group, Group],
    second: tuple[Group, Group],
    *,
    band: float = _TENTH,
    if_none: bool = False,
) -> Verdict:
    """Whether two gains, each the log ratio of a pair of errors (without, with), are alike.

    Not judged where neither is a gain: two zeros are alike, and say nothing; unless it is asked
    for just that, `if_none`.
    """

    def gain(pair: tuple[Group, Group], draw: np.ndarray) -> float:
        return log_error(pair[0], draw) - log_error(pair[1], draw)

    gap = interval_of(first[0], lambda draw: gain(first, draw) - gain(second, draw))
    verdict = judged(
        claim, gap, low=-band, high=band, unit="gap of the log ratios",
        tolerance=f"{INTERVAL}; a tenth of the error",
    )  # fmt: skip
    if any(chosen_at_edge(each) for each in (*first, *second)):
        return not_judged(verdict, "as a cell at the edge of its grid was chosen")
    if if_none:
        return verdict
    gains = [
        interval_of(pair[0], lambda draw, pair=pair: gain(pair, draw)) for pair in (first, second)
    ]
    if not any(each.low > 0 for each in gains):
        return not_judged(verdict, "as neither gains anything that other seeds would not undo")
    return verdict


def _on_edge(settings: Mapping[str, np.ndarray]) -> np.ndarray:
    """Cells with the highest value of any searched axis, or the lowest rate."""
    edge = np.zeros(len(next(iter(settings.values()))), bool)
    for name, values in settings.items():
        if np.ptp(values) > 0 and name != "kind":
            edge |= (values == values.max()) | ((name == "rate") & (values == values.min()))
    return edge
