"""What a sweep says about learning rate and decay: `bayesfilt sweep show --figures FOLDER`."""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bayesfilt.commands.console import note, number, say, show_table
from bayesfilt.commands.sweep_tables import is_accuracy
from bayesfilt.simulate.merged import FINISHED

if TYPE_CHECKING:
    import xarray

    from bayesfilt.compare import HeatmapPanel, Interval
    from bayesfilt.records import Group

_FEWEST = 3  # learning rates, and decays: a parabola needs as many
_GRID = ("learning_rate", "weight_decay", "seed")


class Panels(NamedTuple):
    """The grids of one task."""

    task: str
    panels: list["HeatmapPanel"]


def analyse(tree: "xarray.DataTree", by: str, folder: Path) -> None:
    """Print best cells, separability and slopes of every complete grid; draw their heatmaps.

    A grid is one optimizer under one schedule and one of everything else, over learning rates
    and decays above 0, three of each at least.

    Raises:
        ValueError: no grid is complete.
        CannotWriteError: the figures cannot be written.
    """
    from bayesfilt.figures import draw_all
    from bayesfilt.records import Record

    found = _grids(tree, by)
    if not found:
        raise ValueError(
            f"sweep show --figures needs a finished grid of {_FEWEST} learning rates or more and as"
            " many weight decays above 0, got none."
        )
    for each in found:
        _show_grids(each, by)
    files = draw_all(Record(groups=_heatmaps(found, by), attributes={}), folder)
    say(f"Figures  {folder}: {len(files) // 2}, each as PNG and PDF")


def heatmap_groups(tree: "xarray.DataTree", by: str) -> dict[str, "Group"]:
    """What `analyse` draws, as groups of a record; none where no grid is complete."""
    return _heatmaps(_grids(tree, by), by)


def _grids(tree: "xarray.DataTree", by: str) -> list[Panels]:
    return [each for each in map(_panels_of_task, *_nodes(tree, by)) if each.panels]


def _heatmaps(found: Sequence[Panels], by: str) -> dict[str, "Group"]:
    import jax

    from bayesfilt.compare.grid_record import heatmap_group

    key = jax.random.key(0)  # of the bootstrap: the same answer every time
    return {
        "heatmaps" if len(found) == 1 else f"{each.task}/heatmaps": heatmap_group(
            key, each.panels, error=_error(by)
        )
        for each in found
    }


def _nodes(tree: "xarray.DataTree", by: str) -> tuple[list[str], list["xarray.DataArray"]]:
    """Tasks that have this result, and the result with what is not finished left out by name."""
    names, arrays = [], []
    for task, node in tree.children.items():
        dataset = node.to_dataset()
        if by in dataset:
            finished = (dataset["status"] == FINISHED).reset_coords(drop=True)
            error = 1 - dataset[by] if is_accuracy(by) else dataset[by]
            names.append(str(task))
            arrays.append(error.assign_coords(finished=finished))
    return names, arrays


def _panels_of_task(task: str, errors: "xarray.DataArray") -> Panels:
    """A panel for every combination of what is neither on the axes of a heatmap nor a seed."""
    from bayesfilt.compare import HeatmapPanel

    panels: list[HeatmapPanel] = []
    if not {"learning_rate", "weight_decay"} <= set(errors.dims):
        note(f"{task}: random draws make no grid.")
        return Panels(task=task, panels=panels)
    errors = errors.sel(weight_decay=errors["weight_decay"] > 0).sortby(list(_GRID[:2]))
    if min(errors.sizes[name] for name in _GRID[:2]) < _FEWEST:
        return Panels(task=task, panels=panels)
    for title, grid in _combinations(errors):
        if not bool(grid["finished"].all()):
            note(f"{task}, {title}: not finished, or with cells that cannot be; left out.")
            continue
        panels.append(
            HeatmapPanel(
                title=title,
                rates=grid["learning_rate"].values,
                decays=grid["weight_decay"].values,
                errors=grid.transpose(*_GRID).values.astype(float),
            )
        )
    return Panels(task=task, panels=panels)


def _combinations(
    errors: "xarray.DataArray",
) -> Iterator[tuple[str, "xarray.DataArray"]]:
    """Every grid, titled by what tells it from the others."""
    others: Sequence[Hashable] = [name for name in errors.dims if name not in _GRID]
    told = [name for name in others if name == "optimizer" or errors.sizes[name] > 1]
    for places in np.ndindex(*(errors.sizes[name] for name in others)):
        grid = errors.isel(dict(zip(others, places, strict=True)))
        words = [_word(name, grid[name].item()) for name in told]
        yield ", ".join(words), grid


def _word(name: Hashable, value: object) -> str:
    return value if isinstance(value, str) else f"{name} {value:g}"


def _show_grids(found: Panels, by: str) -> None:
    """A row for each grid: its best cell, how separable it is, how the best decay scales."""
    import jax

    from bayesfilt.compare import best_cell, decay_slope, separability

    key = jax.random.key(0)
    columns = (
        "grid:", f"best median {_error(by)}\n(90 % interval)", "learning\nrate", "weight\ndecay",
        "off-diagonal\n(wd)", "off-diagonal\n(shrink)", "slope of the\nbest shrink",
    )  # fmt: skip
    rows = []
    for panel in found.panels:
        best = best_cell(key, panel.errors)
        grid = (panel.errors, panel.rates, panel.decays)
        oblique = [
            separability(key, *grid, parametrisation=name).off_diagonal
            for name in ("lr_scaled", "paper")
        ]
        slope = decay_slope(key, *grid, parametrisation="paper").slope
        rate, decay = panel.rates[best.cell[0]], panel.decays[best.cell[1]]
        rows.append([panel.title, _spelled(best.error), number(float(rate)), number(float(decay)),
                     *map(_spelled, oblique), _spelled(slope)])  # fmt: skip
    show_table(f"{found.task}: learning rate and decay", columns, rows)
    say("off-diagonal 0: learning rate and decay can be tuned apart; near 1 or -1: only together.")
    say("slope of log best shrink on log learning rate: tied filter 2, torch's factor 1, apart 0.")


def _error(by: str) -> str:
    """What is drawn of a result: an error, the lower the better."""
    return f"1 - {by}" if is_accuracy(by) else by


def _spelled(interval: "Interval") -> str:
    """`estimate (low to high)`, or a dash where the grid does not say."""
    if np.isnan(interval.estimate):
        return "-"
    low, high = (number(bound) for bound in (interval.low, interval.high))
    return f"{number(interval.estimate)} ({low} to {high})"
