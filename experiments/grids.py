"""Grids of training runs in memory, by the sweep's engine, and back out of a record.

The axes are the same for all optimizers: the learning rate on the mean-loss gradient, and the
decay as a factor on it ("lr_scaled"). What Adam calls `weight_decay` is for `adam_l2` and
`momentum_l2` the coefficient of L2.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from bayesfilt.compare import Interval, median_over_seeds
from bayesfilt.compare.grid import percentiles, resampled_seeds
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate.sweep import AxisSpec, parse_axis
from bayesfilt.simulate.sweep_chunk import ChunkOutcome, build_program, execute_chunk
from bayesfilt.simulate.sweep_plan import (
    ChunkPlan,
    Numbers,
    PlannedRun,
    SweepGroup,
    record_spacing,
    run_hash,
)
from experiments.contract import Verdict, below, check_key, margin_of, spelled

_WIDTHS = (32, 64)  # runs at once, few or many; wider is no faster on two cores
# The zoo derives their learning rate from the prior variance.
_QUIET, _QUIET_L2 = ("sgdw",), ("sgd_l2", "momentum_l2")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained, for how long and how often."""

    task: str = "digits-mlp"
    subset: int | None = 300  # training examples; None: all 1297
    label_noise: float = 0.2  # fraction of the training labels made wrong
    batch_size: int = 32
    num_steps: int = 3_000
    num_seeds: int = 5
    record_points: int = 30

    @property
    def name(self) -> str:
        """As groups of the record begin."""
        return self.task if self.subset is None else f"{self.task}-{self.subset}"


def quick_problem() -> Problem:
    """What every QUICK trains, so that they share compiled programs."""
    return Problem(num_steps=60, num_seeds=3, record_points=15)


@dataclasses.dataclass(frozen=True)
class Axes:
    """Learning rates and decays of one optimizer's grid, in the words of a sweep's axes."""

    rates: AxisSpec
    decays: AxisSpec

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Both, spelled out."""
        rates = parse_axis("learning_rate", self.rates).values
        return np.array(rates), np.array(parse_axis("weight_decay", self.decays).values)


class Grid(NamedTuple):
    """The runs of one optimizer over learning rate, decay and seed; NaN where they diverged."""

    rates: Float[np.ndarray, " rates"]
    decays: Float[np.ndarray, " decays"]
    step: Int[np.ndarray, " records"]
    test_error: Float[np.ndarray, "rates decays seeds"]  # at the end
    training_loss: Float[np.ndarray, "rates decays seeds"]
    loss_course: Float[np.ndarray, "rates decays seeds records"]  # of minibatches
    test_loss_course: Float[np.ndarray, "rates decays seeds records"]
    test_error_course: Float[np.ndarray, "rates decays seeds records"]


def seeds_from(key: PRNGKeyArray, count: int) -> tuple[int, ...]:
    """Distinct seeds, the same for every optimizer: the runs are paired."""
    drawn = jax.random.choice(key, 2**20, (count,), replace=False)
    return tuple(int(seed) for seed in drawn)


def train_grid(
    problem: Problem,
    optimizer: str,
    schedule: str,
    axes: Axes,
    seeds: Sequence[int],
    *,
    eps: float = 1e-8,
) -> Grid:
    """Train every cell of a grid from every seed, as one compiled program.

    Args:
        problem: what is trained.
        optimizer: of the zoo, with its own numbers behind its name.
        schedule: of the learning rate.
        axes: of the grid.
        seeds: the same for every optimizer that is compared.
        eps: what the optimizer adds to a root; an argument of the compiled program.

    Raises:
        ValueError: a name that does not exist, or numbers that the optimizer cannot have.
    """
    rates, decays = axes.values()
    group = _group(problem, optimizer, schedule)
    cells = [_numbers(group, rate, decay, eps) for rate in rates for decay in decays]
    runs = [
        PlannedRun(hash=run_hash(group, cell, seed), group=0, position=0, numbers=cell, seed=seed)
        for cell in cells
        for seed in seeds
    ]
    outcomes = _execute(group, runs)
    shape = (len(rates), len(decays), len(seeds))

    def final(name: str) -> np.ndarray:
        found = np.concatenate([each.summary.final[name] for each in outcomes])
        return found.astype(np.float64).reshape(shape)

    def course(name: str) -> np.ndarray:
        found = np.concatenate([each.records[name] for each in outcomes]).astype(np.float64)
        return found.reshape(*shape, -1)

    return Grid(
        rates=rates,
        decays=decays,
        step=group.record_steps,
        test_error=1 - final("test_accuracy"),
        training_loss=final("training_loss"),
        loss_course=course("loss"),
        test_loss_course=course("test_loss"),
        test_error_course=1 - course("test_accuracy"),
    )


def grid_group(grid: Grid) -> Group:
    """A grid as a group of a record."""
    cells = ("learning_rate", "weight_decay", "seed")
    number = {"units": "1"}
    return {
        "learning_rate": variable("learning_rate", grid.rates, **number),
        "weight_decay": variable("weight_decay", grid.decays, units="1 (lr_scaled)"),
        "step": variable("step", grid.step, units="steps"),
        "test_error": variable(cells, grid.test_error, **number),
        "training_loss": variable(cells, grid.training_loss, units="nats"),
        "loss_course": variable((*cells, "step"), grid.loss_course, units="nats"),
        "test_loss_course": variable((*cells, "step"), grid.test_loss_course, units="nats"),
        "test_error_course": variable((*cells, "step"), grid.test_error_course, **number),
    }


def grid_from(record: Record, name: str) -> Grid:
    """The grid in group `name` of a record.

    Raises:
        ValueError: the group is not there, or something in it.
    """
    group = record.groups.get(name, {})
    where = {**dict(zip(Grid._fields, Grid._fields, strict=True)), **_AXES_OF_RECORD}
    missing = [each for each in where.values() if each not in group]
    if missing:
        what = f"no {', '.join(missing)} in group {name!r}" if group else f"no group {name!r}"
        raise ValueError(f"The record has {what}: it is not whole, or not of this experiment.")
    return Grid(**{field: group[each].values for field, each in where.items()})


def difference(statistic, first: Grid, second: Grid, *, level: float = 0.9) -> Interval:
    """A number of one grid minus that of another, with a paired bootstrap interval.

    Args:
        statistic: Grid -> number; NaN where it does not exist.
        first: minus `second`; they have the same seeds, which are resampled together.
        second: another grid.
        level: of the interval.
    """
    draws = resampled_seeds(check_key(), first.test_error.shape[-1], 200)
    values = [
        statistic(of_seeds(first, draw)) - statistic(of_seeds(second, draw)) for draw in draws
    ]
    low, high = percentiles(np.array(values), level)
    return Interval(estimate=float(statistic(first) - statistic(second)), low=low, high=high)


def of_seeds(grid: Grid, seeds: np.ndarray) -> Grid:
    """The same grid with some of its seeds, repeated or left out."""
    return Grid(
        rates=grid.rates,
        decays=grid.decays,
        step=grid.step,
        test_error=grid.test_error[:, :, seeds],
        training_loss=grid.training_loss[:, :, seeds],
        loss_course=grid.loss_course[:, :, seeds],
        test_loss_course=grid.test_loss_course[:, :, seeds],
        test_error_course=grid.test_error_course[:, :, seeds],
    )


def lowest_log_error(grid: Grid) -> float:
    """Logarithm of the median test error of the best cell; NaN if every cell diverged."""
    lowest = float(np.min(median_over_seeds(grid.test_error)))
    return float(np.log(lowest)) if 0 < lowest < np.inf else float("nan")


def best_at_edge(grid: Grid, *, rates: bool = True) -> bool:
    """Whether the best cell has the highest decay, or the lowest or highest of several rates.

    A wider grid might then hold a better one. The lowest decay is no such edge: what is next
    to it is no decay at all.

    Args:
        grid: its best cell is that of the lowest median error.
        rates: whether the rates were searched, and not given.
    """
    medians = median_over_seeds(grid.test_error)
    if not np.isfinite(medians).any():
        return False
    rate, decay = np.unravel_index(np.argmin(medians), medians.shape)
    if grid.decays.size > 1 and decay == grid.decays.size - 1:
        return True
    return rates and grid.rates.size > 1 and rate in (0, grid.rates.size - 1)


def lower_error(
    claim: str,
    first: tuple[str, Grid],
    second: tuple[str, Grid],
    *,
    bound: float = 0.0,
    rates: bool = True,
) -> Verdict:
    """Whether the best cell of one grid errs less than that of another, by a log ratio.

    Not judged where the one that loses has its best cell at the edge of its grid.

    Args:
        claim: in words.
        first: its name and grid.
        second: with the same seeds.
        bound: that the log ratio should be below.
        rates: whether the rates were searched, and not given.
    """
    gap = difference(lowest_log_error, first[1], second[1])
    holds = below(gap, bound)
    measured = f"log ratio {spelled(gap)}"
    for (name, grid), lost in ((first, False), (second, True)):
        if best_at_edge(grid, rates=rates):
            measured += f"; best cell of {name} at the edge of its grid"
            holds = None if holds is lost else holds
    return Verdict(
        claim=claim,
        measured=measured,
        expected="below 0" if bound == 0 else f"below {bound:g}",
        tolerance="90 % bootstrap over paired seeds; undecided where it holds the bound, or where"
        " the loser's best cell is at the edge of its grid",
        holds=holds,
        margin=margin_of(gap, -float("inf"), bound),
    )


def cells_of(course: Float[np.ndarray, "rates decays seeds records"]) -> np.ndarray:
    """A course with its cells along one axis: (cells, seeds, records)."""
    return course.reshape(-1, *course.shape[2:])


def _group(problem: Problem, optimizer: str, schedule: str) -> SweepGroup:
    return SweepGroup(
        index=0,
        task=problem.task,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=problem.batch_size,
        num_steps=problem.num_steps,
        subset=problem.subset,
        label_noise=problem.label_noise,
        dtype="float32",
        record_every=record_spacing(problem.num_steps, problem.record_points),
        full_trace=False,
    )


def _numbers(group: SweepGroup, rate: float, decay: float, eps: float = 1e-8) -> Numbers:
    """A cell's numbers as the zoo takes them.

    The zoo gives the quiet optimizers the rate sigma^2 batch_size = lr batch_size/(2 wd) and the
    shrink lr wd: here the setting (lr, wd) is found from the rate and the shrink that are wanted.
    """
    if group.optimizer in _QUIET:
        shrink, ratio = rate * decay, 2 * rate / group.batch_size
        rate, decay = float(np.sqrt(shrink * ratio)), float(np.sqrt(shrink / ratio))
    elif group.optimizer in _QUIET_L2:  # the setting's decay is the coefficient itself
        rate = 2 * rate * decay / group.batch_size
    return Numbers(learning_rate=float(rate), weight_decay=float(decay), b1=0.9, b2=0.999, eps=eps)


# What the axes of a grid are called in a record.
_AXES_OF_RECORD = {"rates": "learning_rate", "decays": "weight_decay"}

# Experiments that train the same thing on other cells share the compiled program.
_program = functools.lru_cache(maxsize=16)(build_program)


def _execute(group: SweepGroup, runs: list[PlannedRun]) -> list[ChunkOutcome]:
    width = _WIDTHS[len(runs) > _WIDTHS[0]]
    devices = 2 ** (min(width, jax.local_device_count()).bit_length() - 1)
    program = _program(group, devices)
    return [
        execute_chunk(program, ChunkPlan(group=0, index=index, width=width, runs=tuple(part)))
        for index, part in enumerate(itertools.batched(runs, width))
    ]
