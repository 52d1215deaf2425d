"""What `demo` and `compare` share: make the studies, keep what was done, say what was found."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesfilt.commands.console import note, progress_bar, say
from bayesfilt.commands.jax_setup import Dtype
from bayesfilt.commands.summary import as_dict, show_summary, summarise
from bayesfilt.compare import run_study
from bayesfilt.compare.study import contest_of
from bayesfilt.figures import draw_all
from bayesfilt.optimizers.zoo import Setting
from bayesfilt.records import Group, Record, write_record
from bayesfilt.run_directory import (
    FIGURES_NAME,
    open_run_directory,
    write_manifest,
    write_summary,
)
from bayesfilt.tasks import Task

if TYPE_CHECKING:
    from rich.progress import Progress

_OF_NO_TASK = {"validity"}


class Study(NamedTuple):
    """One task, and who is compared on it at which setting."""

    task_name: str
    task: Task
    setting: Setting
    followers: tuple[str, ...]
    record_every: int

    @property
    def title(self) -> str:
        """What distinguishes it, in one line."""
        at = self.setting
        return (
            f"{self.task_name}: {at.num_steps} steps, learning rate {at.learning_rate:g}"
            f" ({at.schedule}), weight decay {at.weight_decay:g}"
        )


class Order(NamedTuple):
    """Everything that a run directory is made from."""

    out: Path
    force: bool
    config: Any  # every number that can change the result
    seed: int
    dtype: Dtype
    studies: Sequence[Study]


class Outcome(NamedTuple):
    """What came of an order."""

    records: dict[str, Record]  # of the tasks that got anywhere
    cut_short: str  # where Ctrl-C came, in words; empty: it did not
    seconds: float


def carry_out(order: Order) -> int:
    """Make every study of an order, write and draw them, print the tables.

    Ctrl-C keeps what is done: the steps made so far become the record, and are drawn.

    Returns:
        The exit code: 0, or 2 if Ctrl-C came.

    Raises:
        ValueError: a follower that does not exist or that the setting cannot have, or a
            folder that is not empty: before anything is computed.
        CannotWriteError: the folder cannot be written.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
    """
    for study in order.studies:
        contest_of("adamw", study.followers, study.setting)
    with _folder_of_the_run(order) as folder:
        outcome = _make(order)
        try:
            _keep(order, outcome, folder)
        except KeyboardInterrupt:
            note(f"interrupted while writing: what stands in {folder} is whole, the rest is not.")
            return 2
    if outcome.cut_short:
        note(f"interrupted {outcome.cut_short}; what was done until then is kept.")
        return 2
    return 0


@contextlib.contextmanager
def _folder_of_the_run(order: Order) -> Iterator[Path]:
    """The run directory, which goes away again if nothing was ever written into it."""
    folder = open_run_directory(order.out, force=order.force)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it is not empty: a run
            folder.rmdir()


def _make(order: Order) -> Outcome:
    """The studies one after the other, until they are done or Ctrl-C comes."""
    started, cut_short = time.perf_counter(), ""
    records: dict[str, Record] = {}
    with progress_bar() as progress:
        for study in order.studies:
            try:
                record = _make_one(study, order.seed, progress)
            except KeyboardInterrupt:
                if not records:
                    raise
                cut_short = f"before the first steps of {study.task_name}"
                break
            records[study.task_name] = record
            if record.attributes.get("interrupted"):
                done, wanted = record.attributes["completed_steps"], study.setting.num_steps
                cut_short = f"after {done} of {wanted} steps of {study.task_name}"
                break
    return Outcome(records=records, cut_short=cut_short, seconds=time.perf_counter() - started)


def _make_one(study: Study, seed: int, progress: "Progress") -> Record:
    import jax

    steps = study.setting.num_steps
    bar = progress.add_task(f"{study.task_name}: compiling", total=steps)

    def show(completed: int, total: int) -> None:
        progress.update(bar, description=study.task_name, completed=completed, total=total)

    return run_study(
        jax.random.key(seed),
        study.task,
        study.setting,
        study.followers,
        steps,
        record_every=study.record_every,
        on_progress=show,
    )


def _keep(order: Order, outcome: Outcome, folder: Path) -> None:
    """Write the numbers first, then draw; say where everything is."""
    record = joined(outcome.records, order.config)
    path = write_record(record, folder)
    interrupted = bool(outcome.cut_short)
    write_manifest(
        folder,
        order.config,
        seed=order.seed,
        dtype=order.dtype,
        wall_time_seconds=outcome.seconds,
        interrupted=interrupted,
    )
    summaries = {task: summarise(found.groups) for task, found in outcome.records.items()}
    write_summary(
        folder,
        {
            "interrupted": interrupted,
            "tasks": {task: as_dict(summary) for task, summary in summaries.items()},
        },
    )
    for study in order.studies:
        if study.task_name in summaries:
            show_summary(study.title, summaries[study.task_name])
    say(f"Record   {path}")
    with progress_bar() as progress:
        progress.add_task("drawing", total=None)
        figures = draw_all(record, folder / FIGURES_NAME)
    say(f"Figures  {folder / FIGURES_NAME}: {len(figures) // 2}, each as PNG and PDF")


def joined(records: dict[str, Record], config: Any) -> Record:
    """One record of all tasks; where there are several, a group bears its task's name.

    The validity map says nothing of a task and stands there once.
    """
    attributes = {
        "config": config,
        "tasks": list(records),
        "studies": {task: record.attributes for task, record in records.items()},
    }
    if len(records) == 1:
        (record,) = records.values()
        return Record(groups=record.groups, attributes=attributes)
    groups: dict[str, Group] = {}
    for task, record in records.items():
        for name, group in record.groups.items():
            groups[name if name in _OF_NO_TASK else f"{task}/{name}"] = group
    return Record(groups=groups, attributes=attributes)
