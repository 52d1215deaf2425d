"""What a sweep comes to: a grid of cells, the distinct runs behind them, groups and chunks.

A *cell* is a place in the grid, a *run* is what has to be computed: cells with the same
configuration share one. Runs that compile to the same program make a *group*; a group is cut
into *chunks* of one width, which are executed, stored and resumed as a whole.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.simulate.chunks import MOST_STEPS
from bayesfilt.simulate.program import Carry, advance, start
from bayesfilt.simulate.sweep import NUMBER_AXES, Sweep, content_hash, sweep_hash
from bayesfilt.simulate.trajectory import training
from bayesfilt.tasks import Task, make_task

INVALID = -1  # in `run_of_cell`: this cell cannot be run

# The dimensions of the grid, in order; "draw" or the number axes stand where "numbers" does.
STRUCTURAL = ("task", "optimizer", "schedule", "batch_size", "num_steps")

_NAMED_AT_MOST = 3  # of the impossible cells, in a refusal


class Numbers(NamedTuple):
    """The hyperparameters that are arguments of the compiled program."""

    learning_rate: Any
    weight_decay: Any  # "lr_scaled" convention
    b1: Any
    b2: Any
    eps: Any


class Dimension(NamedTuple):
    """One axis of the grid of cells."""

    name: str  # of STRUCTURAL, of NUMBER_AXES, "draw" or "seed"
    values: tuple[Any, ...]  # words, floats or ints; the number of the draw
    drawn: dict[str, tuple[float, ...]]  # of "draw": each drawn axis, one value a draw


@dataclasses.dataclass(frozen=True)
class SweepGroup:
    """Runs of one compiled program: everything that numbers and seeds do not decide."""

    index: int  # in the plan
    task: str
    optimizer: str
    schedule: str
    batch_size: int
    num_steps: int
    subset: int | None
    label_noise: float
    dtype: str
    record_every: int  # steps from one record to the next
    full_trace: bool

    @property
    def title(self) -> str:
        """What distinguishes it, in one line."""
        return (
            f"{self.optimizer} on {self.task} ({self.schedule}, batch {self.batch_size},"
            f" {self.num_steps} steps)"
        )

    @property
    def configuration(self) -> dict[str, Any]:
        """What it contributes to the identity of a run: not how the run is recorded."""
        left_out = {"index", "record_every", "full_trace"}
        plain = dataclasses.asdict(self)
        return {name: value for name, value in plain.items() if name not in left_out}

    @property
    def record_steps(self) -> np.ndarray:
        """The steps that are recorded: 0, k, 2k, ..."""
        return np.arange(0, self.num_steps, self.record_every)


class PlannedRun(NamedTuple):
    """One distinct training run."""

    hash: str  # sha256 of its whole configuration, in hexadecimal
    group: int
    position: int  # among the runs of its group
    numbers: Numbers
    seed: int


class InvalidCells(NamedTuple):
    """One combination that cannot be run, whatever the seed, and why."""

    where: str
    reason: str
    num_cells: int


@dataclasses.dataclass(frozen=True)
class ChunkPlan:
    """Runs that are executed together and stored in one file."""

    group: int
    index: int  # among the chunks of its group
    width: int  # runs in the compiled program; those beyond `runs` are padding
    runs: tuple[PlannedRun, ...]


class Execution(NamedTuple):
    """How the chunks of a group are executed: measured once, then obeyed by every process."""

    width: int  # runs in a chunk: a power of two, at least 8
    num_devices: int  # local devices that share them
    steps_per_second: float  # of all runs together, measured
    bytes_per_run: int  # of memory while a chunk is executed


class SweepPlan(NamedTuple):
    """A sweep, spelled out."""

    sweep: Sweep
    hash: str  # of all that can change a number in the results
    dimensions: tuple[Dimension, ...]  # of the grid: STRUCTURAL, then the numbers, then "seed"
    groups: tuple[SweepGroup, ...]
    runs: tuple[PlannedRun, ...]  # distinct; those of a group stand together, in order
    run_of_cell: np.ndarray  # shaped like the grid: index into `runs`, or INVALID
    invalid: tuple[InvalidCells, ...]

    def runs_of(self, group: int) -> tuple[PlannedRun, ...]:
        """The distinct runs of one group, by position."""
        return tuple(run for run in self.runs if run.group == group)


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Spell a sweep out, and find out which of its cells can be run.

    A cell is tried by building its task and its optimizer from the very numbers.

    Raises:
        ValueError: a cell is impossible and `skip_invalid` is off, or no cell is left.
    """
    number_dimensions, points = _points(sweep)
    seeds = _seeds_of(sweep)
    structural = _structural(sweep)
    groups: list[SweepGroup] = []
    runs: dict[str, PlannedRun] = {}
    cells: list[str | None] = []
    invalid: list[InvalidCells] = []
    for chosen in itertools.product(*(dimension.values for dimension in structural)):
        group = _group(sweep, len(groups), *chosen)
        reasons = _impossible(group, points)
        invalid += _named(group, reasons, len(points), len(seeds))
        before = len(runs)
        for numbers in points:
            for seed in seeds:
                name = None if numbers in reasons else run_hash(group, numbers, seed)
                cells.append(name)
                if name is not None and name not in runs:
                    runs[name] = PlannedRun(
                        hash=name,
                        group=group.index,
                        position=len(runs) - before,
                        numbers=numbers,
                        seed=seed,
                    )
        if len(runs) > before:
            groups.append(group)
    _refuse(sweep, invalid, len(cells))
    dimensions = (*structural, *number_dimensions, Dimension("seed", seeds, {}))
    place = {name: index for index, name in enumerate(runs)}
    found = [INVALID if name is None else place[name] for name in cells]
    return SweepPlan(
        sweep=sweep,
        hash=sweep_hash(sweep),
        dimensions=dimensions,
        groups=tuple(groups),
        runs=tuple(runs.values()),
        run_of_cell=np.reshape(found, [len(dimension.values) for dimension in dimensions]),
        invalid=tuple(invalid),
    )


def chunks_of(plan: SweepPlan, group: int, width: int) -> tuple[ChunkPlan, ...]:
    """Cut the runs of one group into chunks of `width`; the last one may have fewer."""
    runs = plan.runs_of(group)
    return tuple(
        ChunkPlan(group=group, index=index, width=width, runs=tuple(part))
        for index, part in enumerate(itertools.batched(runs, width))
    )


def all_chunks(plan: SweepPlan, widths: Sequence[int]) -> tuple[ChunkPlan, ...]:
    """The chunks of every group, in order; shard i of n takes `[i::n]` of them."""
    cut = [chunks_of(plan, group.index, widths[group.index]) for group in plan.groups]
    return tuple(itertools.chain.from_iterable(cut))


def task_of(group: SweepGroup) -> Task:
    """Build what a group trains; equal groups get equal data, whatever their seeds."""
    return make_task(
        group.task,
        batch_size=group.batch_size,
        dtype=group.dtype,
        subset=group.subset,
        label_noise=group.label_noise,
        num_steps=group.num_steps,
    )


def optimizer_of(group: SweepGroup, numbers: Numbers) -> optax.GradientTransformation:
    """Build a group's optimizer; traced numbers are for the compiled program."""
    setting = Setting(
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        batch_size=group.batch_size,
        num_steps=group.num_steps,
        schedule=group.schedule,
        b1=numbers.b1,
        b2=numbers.b2,
        eps=numbers.eps,
    )
    return named_optimizer(group.optimizer, setting).optimizer


def run_hash(group: SweepGroup, numbers: Numbers, seed: int) -> str:
    """The identity of a run: the sha256 of its whole configuration, in hexadecimal."""
    return content_hash({**group.configuration, **numbers._asdict(), "seed": seed})


def record_spacing(num_steps: int, record_points: int) -> int:
    """Steps from one record to the next, for about `record_points` of them.

    A spacing near the wanted one that divides the run is preferred, so that all pieces of the
    run have one length; none is longer than a piece may be.
    """
    wanted = min(max(1.0, num_steps / record_points), MOST_STEPS)
    near = range(math.ceil(wanted / 1.5), min(math.floor(wanted * 1.5), MOST_STEPS) + 1)
    dividing = [spacing for spacing in near if num_steps % spacing == 0]
    return min(dividing, key=lambda spacing: abs(math.log(spacing / wanted)), default=round(wanted))


def _structural(sweep: Sweep) -> tuple[Dimension, ...]:
    values = (sweep.tasks, sweep.optimizers, sweep.schedules, sweep.batch_sizes, sweep.num_steps)
    return tuple(Dimension(name, many, {}) for name, many in zip(STRUCTURAL, values, strict=True))


def _points(sweep: Sweep) -> tuple[tuple[Dimension, ...], list[Numbers]]:
    """The dimensions of the numbers, and every combination in the order of the grid."""
    axes = sweep.axes()
    drawn = {name: axis.values for name, axis in axes.items() if axis.drawn}
    dimensions = [
        Dimension(name, axis.values, {}) for name, axis in axes.items() if name not in drawn
    ]
    if drawn:
        count = len(next(iter(drawn.values())))
        dimensions.append(Dimension("draw", tuple(range(count)), drawn))
    points = []
    for chosen in itertools.product(*(dimension.values for dimension in dimensions)):
        at = dict(zip((dimension.name for dimension in dimensions), chosen, strict=True))
        if drawn:
            at |= {name: values[at["draw"]] for name, values in drawn.items()}
        points.append(Numbers(**{name: at[name] for name in NUMBER_AXES}))
    return tuple(dimensions), points


def _seeds_of(sweep: Sweep) -> tuple[int, ...]:
    assert isinstance(sweep.seeds, tuple), "Sweep settles its seeds when it is made"
    return sweep.seeds


def _group(
    sweep: Sweep,
    index: int,
    task: str,
    optimizer: str,
    schedule: str,
    batch_size: int,
    num_steps: int,
) -> SweepGroup:
    return SweepGroup(
        index=index,
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=batch_size,
        num_steps=num_steps,
        subset=sweep.subset,
        label_noise=sweep.label_noise,
        dtype=sweep.dtype,
        record_every=record_spacing(num_steps, sweep.record_points),
        full_trace=sweep.full_trace,
    )


def _impossible(group: SweepGroup, points: list[Numbers]) -> dict[Numbers, str]:
    """Why each combination of numbers that cannot be run cannot."""
    try:
        task = task_of(group)
        _check_traced(group, task)
    except ValueError as error:
        return dict.fromkeys(points, str(error).rstrip("."))
    reasons = {}
    for numbers in dict.fromkeys(points):
        try:
            _require_held(group, numbers)
            optimizer_of(group, numbers)
        except ValueError as error:
            reasons[numbers] = str(error).rstrip(".")
    return reasons


def _require_held(group: SweepGroup, numbers: Numbers) -> None:
    """Refuse a number that the program would see as 0, as infinity, or as a memory of 1."""
    for name, value in numbers._asdict().items():
        with np.errstate(over="ignore"):
            held = float(np.asarray(value, group.dtype))
        special = (0.0, math.inf, -math.inf, *([1.0] if name in ("b1", "b2") else []))
        if held in special and held != value:
            raise ValueError(f"{group.dtype} cannot hold {name}={value!r}: it would be {held:g}")


def _check_traced(group: SweepGroup, task: Task) -> None:
    """Refuse an optimizer that asks what a hyperparameter is: arguments have no value yet."""

    def first_step(seed, numbers: Numbers, task: Task) -> Carry:
        program = training(optimizer_of(group, numbers))
        carry = start(program, jax.random.key(seed), task, None)
        return advance(program, task, carry, 1)[0]

    number = jax.ShapeDtypeStruct((), group.dtype)
    try:
        jax.eval_shape(first_step, np.uint32(0), Numbers(*[number] * len(NUMBER_AXES)), task)
    except jax.errors.ConcretizationTypeError as error:
        raise ValueError(
            f"{group.optimizer} cannot be swept: it needs its numbers before it is compiled."
        ) from error


def _named(
    group: SweepGroup, reasons: dict[Numbers, str], num_points: int, num_seeds: int
) -> Iterator[InvalidCells]:
    """Impossible cells as they are reported; a group that is impossible as a whole is one."""
    if len(set(reasons.values())) == 1 and len(reasons) == num_points > 1:
        reason = next(iter(reasons.values()))
        num_cells = num_points * num_seeds
        yield InvalidCells(where=group.title, reason=reason, num_cells=num_cells)
        return
    for numbers, reason in reasons.items():
        spelled = ", ".join(f"{name}={value:g}" for name, value in numbers._asdict().items())
        where = f"{group.title} at {spelled}"
        yield InvalidCells(where=where, reason=reason, num_cells=num_seeds)


def _refuse(sweep: Sweep, invalid: list[InvalidCells], num_cells: int) -> None:
    """Refuse impossible cells by name, unless they may be skipped and some are left."""
    num_invalid = sum(each.num_cells for each in invalid)
    if not invalid or (sweep.skip_invalid and num_invalid < num_cells):
        return
    named = "; ".join(f"{each.where}: {each.reason}" for each in invalid[:_NAMED_AT_MOST])
    more = len(invalid) - _NAMED_AT_MOST
    tail = f"; and {more} more" if more > 0 else ""
    hint = " Pass skip_invalid to leave them out." if num_invalid < num_cells else ""
    raise ValueError(
        f"plan_sweep needs cells that can be run, {num_invalid} of {num_cells} cannot:"
        f" {named}{tail}.{hint}"
    )
