"""The few numbers of a study that answer its question: read off a record, not computed anew."""

import math
from typing import Any, NamedTuple

import numpy as np

from bayesfilt.commands.console import number, say, show_table
from bayesfilt.compare.decay_kept import decay_complaint
from bayesfilt.records import Group

NEVER = -1  # `diverged_at` of a run that stayed finite


class Row(NamedTuple):
    """One optimizer at the end of a study; None where it has no such number."""

    optimizer: str
    is_leader: bool
    diverged_at: int | None
    final_loss: float | None  # of the last recorded minibatch
    test_loss: float | None
    test_accuracy: float | None
    weight_distance: float | None  # from the leader, relative
    mean_cosine: float | None  # of its proposed updates with the leader's, over the steps
    biggest_share: str | None  # the part that most of the gap is owed to
    biggest_share_fraction: float | None
    decay_kept: float | None  # realised over intended shrink


class Summary(NamedTuple):
    """One task's table, and the noise floor that its distances are read against."""

    rows: list[Row]
    noise_weight_distance: float | None
    divergence_horizon: float | None


def summarise(groups: dict[str, Group]) -> Summary:
    """Read the summary off one task's groups; what is missing is None."""
    free, shadow = groups.get("free", {}), groups.get("shadow", {})
    names = [str(name) for name in free["run"].values] if "run" in free else []
    return Summary(
        rows=[_row(groups, free, shadow, index, name) for index, name in enumerate(names)],
        noise_weight_distance=_last(free, "noise_weight_distance"),
        divergence_horizon=_scalar(free, "divergence_horizon"),
    )


def show_summary(title: str, summary: Summary) -> None:
    """Print a row for each optimizer, and what rounding alone does in the last one."""
    columns, rows = summary_table(summary)
    show_table(title, columns, rows)
    for line in summary_lines(summary):
        say(line)


def summary_table(summary: Summary) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows as `show_table` takes them, and as a report has them."""
    columns = (
        "optimizer:",
        "final\nloss",
        "test\naccuracy",
        "weight\ndistance",
        "mean\ncosine",
        "gap owed\nmost to:",
        "decay\nkept",
    )
    rows = [_cells(row) for row in summary.rows]
    floor = number(summary.noise_weight_distance, 2)
    rows.append(["noise floor", "", "", floor, "", "", ""])
    return columns, rows


def summary_lines(summary: Summary) -> list[str]:
    """What is to be said besides: who diverged, where rounding begins, whose decay is not kept."""
    lines = []
    gone = [
        f"{row.optimizer} at step {row.diverged_at}"
        for row in summary.rows
        if row.diverged_at is not None
    ]
    if gone:
        lines.append(f"Diverged: {', '.join(gone)}.")
    if summary.divergence_horizon is not None:
        horizon = f"{summary.divergence_horizon:.0f}"
        lines.append(f"From step {horizon} on rounding alone makes another run.")
    complaint = decay_complaint({row.optimizer: row.decay_kept for row in summary.rows}, "float32")
    return lines if complaint is None else [*lines, complaint]


def from_dict(found: dict[str, Any]) -> Summary:
    """The summary that `as_dict` wrote.

    Raises:
        TypeError, LookupError: it is none.
    """
    return Summary(**{**found, "rows": [Row(**row) for row in found["rows"]]})


def as_dict(summary: Summary) -> dict[str, Any]:
    """The summary for `summary.json`."""
    return {**summary._asdict(), "rows": [row._asdict() for row in summary.rows]}


def _row(groups: dict[str, Group], free: Group, shadow: Group, index: int, name: str) -> Row:
    diverged_at = _scalar(free, "diverged_at", run=index)
    follower = _place(shadow, "follower", name)
    all_weights = _place(shadow, "layer", "all")
    # After the leader's divergence there is nothing to agree with; a mean of what came before
    # would read like agreement.
    leads_on = _scalar(free, "diverged_at", run=0) in (None, NEVER)
    part, fraction = _biggest_share(shadow, follower) if leads_on else (None, None)
    decay = groups.get("decay", {})
    return Row(
        optimizer=name,
        is_leader=index == 0,
        diverged_at=None if diverged_at in (None, NEVER) else int(diverged_at),
        final_loss=_last(free, "loss", run=index),
        test_loss=_last(free, "test_loss", run=index),
        test_accuracy=_last(free, "test_accuracy", run=index),
        weight_distance=_last(free, "weight_distance", run=index) if index else None,
        mean_cosine=_mean(_picked(shadow, "cosine", follower=follower, layer=all_weights))
        if leads_on
        else None,
        biggest_share=part,
        biggest_share_fraction=fraction,
        decay_kept=_scalar(decay, "decay_kept", optimizer=_place(decay, "optimizer", name)),
    )


def _cells(row: Row) -> list[str]:
    loss = number(row.final_loss)
    if row.diverged_at is not None:
        loss = "diverged"
    share = row.biggest_share or "-"
    if row.biggest_share_fraction is not None:
        share += f" {row.biggest_share_fraction:.0%}"
    return [
        row.optimizer + (" (leader)" if row.is_leader else ""),
        loss,
        "-" if row.test_accuracy is None else f"{row.test_accuracy:.1%}",
        number(row.weight_distance, 2),
        "-" if row.mean_cosine is None else f"{row.mean_cosine:.4f}",
        share,
        "-" if row.decay_kept is None else f"{row.decay_kept:.1%}",
    ]


def _biggest_share(shadow: Group, follower: int | None) -> tuple[str | None, float | None]:
    """The part with the largest mean share of the gap; the shares of one step sum to 1."""
    if "part" not in shadow:
        return None, None
    parts = [str(name) for name in shadow["part"].values]
    means = {
        name: mean
        for index, name in enumerate(parts)
        if (mean := _mean(_picked(shadow, "share", follower=follower, part=index))) is not None
    }
    if not means:
        return None, None
    biggest = max(means, key=lambda name: abs(means[name]))
    return biggest, means[biggest]


def _place(group: Group, coordinate: str, name: str) -> int | None:
    """Index of `name` along a coordinate; None where it is not."""
    names = [str(each) for each in group[coordinate].values] if coordinate in group else []
    return names.index(name) if name in names else None


def _picked(group: Group, variable: str, **at: int | None) -> np.ndarray | None:
    """Values of a variable at some indices; None where either is missing."""
    if variable not in group or None in at.values():
        return None
    values, dims = np.asarray(group[variable].values), group[variable].dims
    return values[tuple(at.get(dim, slice(None)) for dim in dims)]


def _scalar(group: Group, variable: str, **at: int | None) -> float | None:
    values = _picked(group, variable, **at)
    if values is None or values.size != 1 or not math.isfinite(float(values)):
        return None
    return float(values)


def _last(group: Group, variable: str, **at: int | None) -> float | None:
    """The number at the last record; None where it is none, as after a divergence."""
    values = _picked(group, variable, **at)
    if values is None or not values.size or not np.isfinite(values[-1]):
        return None
    return float(values[-1])


def _mean(values: np.ndarray | None) -> float | None:
    if values is None or not np.isfinite(values).any():
        return None
    return float(values[np.isfinite(values)].mean())
