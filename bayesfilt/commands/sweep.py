"""`bayesfilt sweep plan | run | merge | show`: many training runs as one program."""

import contextlib
import dataclasses
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesfilt.commands.console import note, progress_bar, say
from bayesfilt.commands.jax_setup import Dtype, Platform, prepare_jax

if TYPE_CHECKING:
    from bayesfilt.simulate.run_sweep import SweepOutcome, SweepProgress
    from bayesfilt.simulate.sweep import Sweep as Axes

# What the flags below have in common with `simulate.sweep.Sweep` goes to it, and nothing else.
_NOT_OF_THE_SWEEP = {
    "config", "platform", "width", "out", "shard", "scheduler", "workers", "scheduler_timeout",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """The axes of a sweep, from flags, from a file, or from both: a flag goes first."""

    config: Path | None = None  # a TOML file with the names below: learning_rate = "log:1e-4:1:9"
    # Any of those that the help of `bayesfilt compare` names; without it, adamw.
    optimizers: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None  # without it, digits-mlp
    schedules: tuple[str, ...] | None = None  # of the learning rate; without it, constant
    batch_sizes: tuple[int, ...] | None = None  # without it, 64
    num_steps: tuple[int, ...] | None = None  # without it, 1000
    # 1e-3,1e-2 or log:LOW:HIGH:N or lin:LOW:HIGH:N or draw:LOW:HIGH:N (random, uniform in the
    # logarithm; all drawn axes together are one dimension). AdamW's; what other optimizers take
    # follows from it by the dictionary; without it, log:1e-4:1e-1:7.
    learning_rate: str | None = None
    weight_decay: str | None = None  # in the same way; without it, 0.1
    b1: str | None = None  # without it, 0.9
    b2: str | None = None  # without it, 0.999
    eps: str | None = None  # without it, 1e-8
    seeds: tuple[int, ...] | None = None  # one number: so many; several: these; without it, 3
    draw_seed: int | None = None  # of the random draws; without it, 0
    subset: int | None = None  # keep so many training examples
    label_noise: float | None = None  # fraction of the training labels made wrong; without it, 0.0
    dtype: Dtype | None = None  # without it, float32
    record_points: int | None = None  # about so many records of a run; without it, 20
    full_trace: bool = False  # keep loss and sizes at every step too; plan says how much that is
    skip_invalid: bool = False  # leave impossible cells out, and list them
    width: int | None = None  # runs in a chunk, a power of two >= 8; without it, measured
    platform: Platform = "auto"

    def sweep(self, *, elsewhere: bool = False) -> "Axes":
        """The sweep that is asked for, once jax is ready for it: to compute, or only to plan."""
        settings = self.settings()
        dtype = "float64" if settings.get("dtype") == "float64" else "float32"
        prepare_jax("cpu" if elsewhere else self.platform, dtype, split_cpu=not elsewhere)
        from bayesfilt.simulate.sweep import sweep_from

        return sweep_from(settings)

    def settings(self) -> dict[str, Any]:
        """What was set, by the names of a sweep; the file's part first."""
        names = [field.name for field in dataclasses.fields(self)]
        given = {name: getattr(self, name) for name in names if name not in _NOT_OF_THE_SWEEP}
        # A flag that is 0 was given: it equals False, and is not it.
        set_here = {
            name: value for name, value in given.items() if value is not None and value is not False
        }
        if self.seeds and len(self.seeds) == 1:
            set_here["seeds"] = self.seeds[0]
        return {**_read_config(self.config), **set_here}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(_Asked):
    """Say what a sweep comes to before anything is spent: runs, chunks, memory, storage, time."""

    def run(self) -> int:
        """Measure a little of every group, and print the plan."""
        sweep = self.sweep()
        from bayesfilt.commands.sweep_tables import show_plan
        from bayesfilt.simulate.run_sweep import measured
        from bayesfilt.simulate.sweep_plan import plan_sweep

        plan = plan_sweep(sweep)
        with _progress() as tell:
            executions = measured(plan, self.width, tell)
        show_plan(plan, executions)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(_Asked):
    """Make the runs of a sweep; the same command again goes on where it stopped."""

    out: Path  # folder of the sweep: new, empty, or that of the same sweep
    # i/n: only part i (from 0) of n. Shards may share a folder. With folders of their own they
    # need one --width, or a copy of one manifest.json, and `bayesfilt sweep merge` in the end.
    shard: str = "0/1"
    # tcp://HOST:8786 of a Dask scheduler that you trust: its workers make the chunks. They see
    # --out at the same path. --platform is theirs.
    scheduler: str | None = None
    workers: int | None = None  # start so many processes here, on the CPU, and have them do it
    scheduler_timeout: float = 30.0  # seconds until a scheduler that does not answer is given up

    def run(self) -> int:
        """Run what is missing, and print how far the sweep is."""
        on_cluster = self.scheduler is not None or self.workers is not None
        sweep = self.sweep(elsewhere=on_cluster)
        from bayesfilt.commands.sweep_tables import show_progress
        from bayesfilt.simulate.run_sweep import parse_shard, run_sweep

        shard = parse_shard(self.shard)
        run = self._on_cluster() if on_cluster else run_sweep
        with _progress() as tell:
            outcome = run(sweep, self.out, shard=shard, width=self.width, on_progress=tell)
        show_progress(outcome)
        if shard.parts > 1 and outcome.store.made_here and self.width is None:
            note(
                "the width of the chunks was measured here: shards in folders of their own need"
                f" a copy of {outcome.store.folder / 'manifest.json'} before they start."
            )
        return _how_it_ended(outcome)

    def _on_cluster(self) -> Callable[..., "SweepOutcome"]:
        """`run_sweep`, on the workers that are asked for."""
        import jax

        from bayesfilt.simulate.cluster import run_on_cluster

        if self.workers is None and self.platform != "cpu":
            # As `prepare_jax` does where there is a GPU; on a CPU it changes nothing.
            jax.config.update("jax_default_matmul_precision", "highest")
        return partial(
            run_on_cluster,
            scheduler=self.scheduler,
            workers=self.workers,
            platform=self.platform,
            timeout=self.scheduler_timeout,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merge:
    """Make one folder of shards that ran in folders of their own."""

    folders: tuple[Path, ...]  # of the shards
    out: Path  # folder of the whole sweep: new, empty, or an earlier merge of it
    netcdf: Path | None = None  # write all results into this one netCDF file too

    def run(self) -> int:
        """Check that nothing is missing and nothing disagrees; copy the chunks."""
        prepare_jax("cpu", "float32")
        from bayesfilt.simulate.merge_shards import merge_shards
        from bayesfilt.simulate.merged import write_netcdf

        merged = merge_shards(self.folders, self.out)
        for problem in merged.problems:
            note(f"warning: {problem}")
        say(f"Sweep    {self.out}: {merged.chunks} chunks of {len(self.folders)} folders")
        if self.netcdf is not None:
            say(f"Results  {write_netcdf(self.out, self.netcdf)}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show:
    """Say how far a sweep is and which cells are best."""

    folder: Path  # of the sweep
    by: str = "final_test_loss"  # lowest median over the seeds is best; highest of an accuracy
    # Draw learning rate x decay heatmaps into this folder; say how separable they are.
    figures: Path | None = None

    def run(self) -> int:
        """Verify every chunk, read the results, print a row for each optimizer."""
        prepare_jax("cpu", "float32")
        from bayesfilt.commands.sweep_analysis import analyse
        from bayesfilt.commands.sweep_tables import show_results
        from bayesfilt.simulate.merged import tree_of
        from bayesfilt.simulate.store import read_store, take_stock

        store = read_store(self.folder)
        stock = take_stock(store)
        for problem in stock.problems:
            note(f"warning: {problem}")
        whole = {key: [path] for key, path in stock.finished.items()}
        tree = tree_of(store, whole)
        show_results(store, stock, tree, self.by)
        if self.figures is not None:
            analyse(tree, self.by, self.figures)
        return 0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Make many training runs in one program: a grid of settings, each from several seeds."""

    action: Plan | Run | Merge | Show

    def run(self) -> int:
        """Plan, run, merge or show."""
        return self.action.run()


def _read_config(path: Path | None) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        ValueError: it is not TOML.
        OSError: it cannot be read.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except ValueError as error:  # of TOML, and of UTF-8
        raise ValueError(f"{path} is not a TOML file: {error}") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[["SweepProgress"], None]]:
    """A bar of the training steps of all runs together."""
    with progress_bar() as progress:
        bar = progress.add_task("planning", total=None)

        def tell(now: "SweepProgress") -> None:
            progress.update(bar, description=now.doing, completed=now.completed, total=now.total)

        yield tell


def _how_it_ended(outcome: "SweepOutcome") -> int:
    """Say what was found on the way, and how to go on after Ctrl-C; the exit code."""
    for each in outcome.notes:
        note(f"warning: {each}")
    if not outcome.interrupted:
        return 0
    note(
        f"interrupted with {outcome.finished} of {outcome.wanted} chunks finished; they are kept,"
        " and the same command goes on from there."
    )
    return 2
