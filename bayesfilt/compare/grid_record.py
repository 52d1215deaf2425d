"""What grids of runs come to, with names and units: the groups that heatmaps and curves draw."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from bayesfilt.checks import require_fraction
from bayesfilt.compare.carried_decay import SHRINK_POWERS, Surface, carried_regret
from bayesfilt.compare.generalisation import anytime
from bayesfilt.compare.grid import (
    BestCell,
    Interval,
    best_cell,
    median_over_seeds,
    percentiles,
    resampled_seeds,
    ridge,
)
from bayesfilt.compare.separability import PARAMETRISATIONS, Separability, separability
from bayesfilt.records import Group, variable


class HeatmapPanel(NamedTuple):
    """One grid of a row of heatmaps."""

    title: str
    rates: Float[np.ndarray, " rates"]  # learning rates, ascending
    decays: Float[np.ndarray, " decays"]  # above 0, ascending; "lr_scaled" convention
    errors: Float[np.ndarray, "rates decays seeds"]  # NaN where a run diverged


class Course(NamedTuple):
    """A quantity of every cell of one optimizer's grid, at the recorded steps."""

    name: str
    errors: Float[np.ndarray, "cells seeds records"]  # NaN from where a run diverged


def chosen_region(chosen: Float[np.ndarray, "..."], level: float = 0.9) -> Bool[np.ndarray, "..."]:
    """The fewest cells that hold the best one in `level` of the resamples.

    Args:
        chosen: fraction of the resamples in which each cell is the best, as in `BestCell`.
        level: in [0, 1).
    """
    require_fraction("chosen_region", "level", level)
    flat = np.ravel(chosen)
    order = np.argsort(-flat, kind="stable")
    held = np.cumsum(flat[order])
    count = int(np.searchsorted(held, level - 1e-12)) + 1
    inside = np.zeros(flat.size, bool)
    inside[order[:count]] = True
    return inside.reshape(np.shape(chosen))


def heatmap_group(
    key: PRNGKeyArray,
    panels: Sequence[HeatmapPanel],
    *,
    error: str = "test error",
    level: float = 0.9,
    num_resamples: int = 500,
) -> Group:
    """Everything a row of heatmaps shows, for grids of one shape.

    Args:
        key: draws the seeds of the bootstraps.
        panels: at least one.
        error: what the errors are, for the colour bar.
        level: of the intervals and the region.
        num_resamples: of the seeds.

    Raises:
        ValueError: no panel, grids of several shapes, a decay of 0, a grid that diverged in
            every cell.
    """
    shapes = {np.shape(panel.errors) for panel in panels}
    if len(shapes) != 1:
        raise ValueError(f"heatmap_group needs grids of one shape, got {sorted(shapes)}.")
    if any(np.min(panel.decays) <= 0 for panel in panels):
        raise ValueError("heatmap_group needs decays > 0: 0 has no place on a logarithmic axis.")
    keys = jax.random.split(key, len(panels))
    settings = {"level": level, "num_resamples": num_resamples}
    best = [
        best_cell(each, panel.errors, **settings) for each, panel in zip(keys, panels, strict=True)
    ]
    return {
        "panel": variable("panel", [panel.title for panel in panels]),
        "parametrisation": variable("parametrisation", PARAMETRISATIONS),
        "learning_rate": variable(("panel", "rate"), _stack(panel.rates for panel in panels)),
        "weight_decay": variable(
            ("panel", "decay"), _stack(panel.decays for panel in panels), units="1 (lr_scaled)"
        ),
        **_cells(panels, best, error, level),
        "ridge": variable(
            ("panel", "rate"),
            _stack(np.exp(ridge(panel.errors, panel.decays).log_decay) for panel in panels),
            description="best decay for each learning rate; NaN where the grid does not hold it",
        ),
        "best_cell": variable(("panel", "axis"), np.array([each.cell for each in best])),
        **_separabilities(keys, panels, settings),
        **_prices(keys, panels, settings),
    }


def course_group(
    key: PRNGKeyArray,
    steps: np.ndarray,
    quantities: Mapping[str, Sequence[Course]],
    *,
    chosen_by: str,
    level: float = 0.9,
    num_resamples: int = 500,
) -> Group:
    """Curves of each optimizer's cell that ends best, with intervals over seeds.

    Args:
        key: draws the seeds.
        steps: recorded, in steps.
        quantities: name -> one `Course` an optimizer, in one order.
        chosen_by: the quantity whose last median says which cell is the best.
        level: of the intervals, each step on its own.
        num_resamples: of the seeds.

    Returns:
        For every quantity q: `q`, `q_low`, `q_high` of that cell, and `q_envelope`, the
        lowest median of all cells at that very step; over (optimizer, step).
    """
    names = [course.name for course in quantities[chosen_by]]
    best = [_last_best(course.errors) for course in quantities[chosen_by]]
    group: Group = {"optimizer": variable("optimizer", names), "step": variable("step", steps)}
    both = ("optimizer", "step")
    for name, courses in quantities.items():
        keys = jax.random.split(key, len(courses))
        curves = [
            anytime(each, course.errors[cell : cell + 1], level=level, num_resamples=num_resamples)
            for each, course, cell in zip(keys, courses, best, strict=True)
        ]
        group[name] = variable(both, _stack(curve.error for curve in curves))
        group[f"{name}_low"] = variable(both, _stack(curve.low for curve in curves))
        group[f"{name}_high"] = variable(both, _stack(curve.high for curve in curves))
        lowest = [_envelope(course.errors) for course in courses]
        group[f"{name}_envelope"] = variable(both, _stack(lowest))
    return group


def matched_group(
    names: Sequence[str],
    losses: Sequence[Float[np.ndarray, "cells seeds"]],
    errors: Sequence[Float[np.ndarray, "cells seeds"]],
    edges: Float[np.ndarray, " edges"],
) -> Group:
    """Test error against training loss, a point a run, and the median in bins of equal loss.

    Args:
        names: of the optimizers.
        losses: of each: training loss of every run; NaN where one diverged.
        errors: of each: test error of the same runs.
        edges: of the bins, ascending.
    """
    both = ("optimizer", "run")
    flat_losses = _stack(np.ravel(each) for each in losses)
    flat_errors = _stack(np.ravel(each) for each in errors)
    medians = np.full((len(names), len(edges) - 1), np.nan)
    for row, (loss, error) in enumerate(zip(flat_losses, flat_errors, strict=True)):
        for column, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            inside = (loss >= low) & (loss <= high) & np.isfinite(error)
            if inside.any():
                medians[row, column] = np.median(error[inside])
    return {
        "optimizer": variable("optimizer", list(names)),
        "training_loss": variable(both, flat_losses, units="nats"),
        "test_error": variable(both, flat_errors),
        "bin_loss": variable("bin", np.sqrt(edges[1:] * edges[:-1]), units="nats"),
        "bin_error": variable(("optimizer", "bin"), medians),
    }


def best_decay_with_interval(
    key: PRNGKeyArray,
    errors: Float[np.ndarray, "decays seeds"],
    decays: Float[np.ndarray, " decays"],
    *,
    level: float = 0.9,
    num_resamples: int = 500,
) -> Float[np.ndarray, "3"]:
    """The best decay of a line of runs between its bootstrap percentiles: (estimate, low, high).

    NaN where the grid does not hold it, or loses it in too many of the resamples.
    """

    def best(line: np.ndarray) -> float:
        return float(np.exp(ridge(line[None], decays).log_decay[0]))

    draws = resampled_seeds(key, np.shape(errors)[-1], num_resamples)
    low, high = percentiles(np.array([best(errors[..., draw]) for draw in draws]), level)
    return np.array([best(np.asarray(errors, float)), low, high])


def _cells(
    panels: Sequence[HeatmapPanel], best: Sequence[BestCell], error: str, level: float
) -> Group:
    """What is known of every cell."""
    grid = ("panel", "rate", "decay")
    return {
        "median_error": variable(
            grid, _stack(median_over_seeds(panel.errors) for panel in panels), description=error
        ),
        "diverged": variable(
            grid,
            _stack(np.mean(~np.isfinite(panel.errors), axis=-1) for panel in panels),
            description="fraction of the seeds that diverged",
        ),
        "chosen": variable(
            grid,
            _stack(each.chosen for each in best),
            description="fraction of the resamples of the seeds in which the cell is the best",
        ),
        "region": variable(
            grid,
            _stack(chosen_region(each.chosen, level) for each in best),
            description=f"fewest cells that hold the best one in {level:.0%} of the resamples",
        ),
    }


def _separabilities(
    keys: PRNGKeyArray, panels: Sequence[HeatmapPanel], settings: dict[str, Any]
) -> Group:
    """Both numbers of every panel in both parametrisations, with their intervals."""
    found = [
        [
            separability(
                each, panel.errors, panel.rates, panel.decays, parametrisation=name, **settings
            )
            for name in PARAMETRISATIONS
        ]
        for each, panel in zip(keys, panels, strict=True)
    ]
    group: Group = {}
    for field in Separability._fields:
        group |= _intervals(field, [[getattr(one, field) for one in row] for row in found])
    return group


def _prices(keys: PRNGKeyArray, panels: Sequence[HeatmapPanel], settings: dict[str, Any]) -> Group:
    """What a decay costs that is carried to another rate, as either parametrisation has it."""
    found = [
        [
            carried_regret(
                each,
                Surface(panel.errors, panel.rates, panel.decays, SHRINK_POWERS[name]),
                **settings,
            ).regret
            for name in PARAMETRISATIONS
        ]
        for each, panel in zip(keys, panels, strict=True)
    ]
    return _intervals("carried_regret", found)


def _intervals(name: str, found: Sequence[Sequence[Interval]]) -> Group:
    """An interval of every panel in every parametrisation, as three variables."""
    group: Group = {}
    for place, ending in enumerate(("", "_low", "_high")):
        values = np.array([[one[place] for one in row] for row in found])
        group[f"{name}{ending}"] = variable(("panel", "parametrisation"), values)
    return group


def _last_best(errors: Float[np.ndarray, "cells seeds records"]) -> int:
    return int(np.argmin(median_over_seeds(errors[..., -1])))


def _envelope(errors: Float[np.ndarray, "cells seeds records"]) -> np.ndarray:
    return np.min(median_over_seeds(np.moveaxis(errors, -1, 0)), axis=-1)


def _stack(arrays: Iterable[Any]) -> np.ndarray:
    return np.stack([np.asarray(each) for each in arrays])
