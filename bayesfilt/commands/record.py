"""What `infer --task` does first: train, and write down the streams of some weights."""

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesfilt.catalogue import OPTIMIZER_FACTS, name_and_numbers
from bayesfilt.checks import require_at_least
from bayesfilt.commands.console import note, progress_bar, say
from bayesfilt.records import NETCDF_NAME, NPZ_NAME, as_plain, write_record
from bayesfilt.run_directory import (
    open_run_directory,
    read_manifest,
    write_manifest,
    write_summary,
)

if TYPE_CHECKING:
    from bayesfilt.commands.infer import Infer
    from bayesfilt.compare.streams import StreamRecord


def record_run(command: "Infer") -> int:
    """Make the run directory of a recorded run; the exit code.

    Raises:
        ValueError: a setting that cannot be, or a folder that is not empty.
        KeyboardInterrupt: Ctrl-C before a single step was recorded.
    """
    asked = command.recording()
    made = _prepared(command, asked)
    config = {"task": command.task, **asked, "seed": command.seed}
    if not command.force and _stands_already(command.folder, config):
        say(f"Streams  {command.folder}: recorded before, by the same command")
        return 0
    folder = open_run_directory(command.folder, force=command.force)
    began = time.perf_counter()
    try:
        streams = _record(command, asked, made)
    except BaseException:
        _leave_no_empty_folder(folder)
        raise
    cut_short = len(streams.step) < asked["num_steps"]
    from bayesfilt.compare.streams import streams_to_record

    path = write_record(streams_to_record(streams), folder)
    write_manifest(
        folder,
        config,
        seed=command.seed,
        dtype="float64",
        wall_time_seconds=time.perf_counter() - began,
        interrupted=cut_short,
    )
    write_summary(folder, _summary(streams, cut_short))
    steps, weights = streams.weight.shape
    say(f"Streams  {path}: {weights} weights, {steps} steps after {asked['warm_up_steps']}")
    if cut_short:
        note(
            f"interrupted after {steps} of {asked['num_steps']} recorded steps; they are kept, and"
            f" `bayesfilt infer {command.folder}` fits models to them."
        )
        return 2
    return 0


def _stands_already(folder: Path, config: dict[str, Any]) -> bool:
    """Whether this very recording is there, whole: what was interrupted were the fits."""
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        return False  # what stands there instead is refused when the folder is opened
    same = manifest["config"] == as_plain(config)
    return (
        same
        and manifest.get("interrupted") is False
        and any((folder / name).is_file() for name in (NETCDF_NAME, NPZ_NAME))
    )


def _prepared(command: "Infer", asked: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Task, optimizer and the chosen weights: whatever is wrong with them shows here."""
    import jax

    from bayesfilt import tasks
    from bayesfilt.compare.chosen_weights import choose_weights
    from bayesfilt.optimizers.zoo import Setting, named_optimizer

    require_at_least("infer", "num_steps", asked["num_steps"], 2)
    require_at_least("infer", "warm_up_steps", asked["warm_up_steps"], 0)
    total = asked["warm_up_steps"] + asked["num_steps"]
    setting = Setting(
        learning_rate=asked["learning_rate"],
        weight_decay=asked["weight_decay"],
        batch_size=asked["batch_size"],
        num_steps=total,
    )
    optimizer = named_optimizer(asked["optimizer"], setting).optimizer
    task = tasks.make_task(
        str(command.task),
        batch_size=asked["batch_size"],
        dtype="float64",
        subset=asked["subset"],
        label_noise=asked["label_noise"],
        num_steps=total,
    )
    key = jax.random.key(command.seed)
    weights_key = jax.random.fold_in(key, 1)
    params = task.init_params(key)  # only their shapes matter
    chosen = choose_weights(weights_key, params, per_layer=asked["weights_per_layer"])
    return task, optimizer, chosen


def _record(command: "Infer", asked: dict[str, Any], made: tuple[Any, Any, Any]) -> "StreamRecord":
    import jax

    from bayesfilt.compare.record_streams import record_streams

    task, optimizer, chosen = made
    names = ("optimizer", "learning_rate", "weight_decay", "batch_size")
    facts, _ = name_and_numbers("optimizers", asked["optimizer"], OPTIMIZER_FACTS)
    with progress_bar() as progress:
        bar = progress.add_task(f"{command.task}: compiling", total=None)

        def show(completed: int, total: int) -> None:
            progress.update(
                bar, description=f"recording {command.task}", completed=completed, total=total
            )

        return record_streams(
            jax.random.key(command.seed),
            task,
            optimizer,
            asked["num_steps"],
            chosen=chosen,
            warm_up_steps=asked["warm_up_steps"],
            settings={
                "task": command.task,
                **{name: asked[name] for name in names},
                "decay": facts.decay,  # what of it acts on a weight without a gradient
            },
            clipped=False,
            on_progress=show,
        )


def _summary(streams: "StreamRecord", cut_short: bool) -> dict[str, Any]:
    """How much of what was asked for is there."""
    valid = streams.optimum_valid
    return {
        "interrupted": cut_short,
        "diverged_at": streams.diverged_at if streams.diverged_at >= 0 else None,
        "weights": streams.weight.shape[1],
        "steps": streams.weight.shape[0],
        "valid_optima": None if valid is None else float(valid.mean()),
    }


def _leave_no_empty_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
