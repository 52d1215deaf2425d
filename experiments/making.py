"""One experiment from its settings to its folder: numbers, then verdicts, then figures."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesfilt.commands.console import say
from bayesfilt.commands.jax_setup import Dtype, prepare_jax
from bayesfilt.records import write_record
from bayesfilt.run_directory import MANIFEST_NAME, open_run_directory, write_manifest
from experiments.contract import Result, Verdict
from experiments.run_folder import taken
from experiments.written import draw, write_words


def make(
    module: ModuleType, config: Any, folder: Path, *, seed: int, venue: str, force: bool
) -> tuple[float, Sequence[Verdict]]:
    """Run one experiment in a folder that no other process writes into meanwhile.

    Returns:
        The seconds that the numbers took, and the verdicts.

    Raises:
        BlockingIOError: another process makes this experiment there.
        ValueError: the folder holds a run and `force` is off, or the numbers cannot be made.
    """
    with taken(folder):
        open_run_directory(folder, force=force)
        quick = config is module.QUICK
        prepare(module, split_cpu=not quick)
        say(f"{module.__name__.rpartition('.')[2]}: {module.CLAIM}")
        with _cheap_compiling() if quick else contextlib.nullcontext():
            result, times = _run(module, config, folder, seed)
        verdicts = module.check(result)
        write_words(module, result, verdicts, folder, times)
        draw(module, result, verdicts, folder, venue)
    return times["seconds"], verdicts


def prepare(module: ModuleType, *, split_cpu: bool = True) -> None:
    """Have this process compute as the experiment wants it, whatever it did before.

    What is over in seconds is not split among the cores: each would compile it for itself.
    """
    prepare_jax("auto", _dtype(module), split_cpu=split_cpu)


@contextlib.contextmanager
def _cheap_compiling() -> Iterator[None]:
    """Let XLA optimise little: most of what a QUICK costs is compiling."""
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _run(
    module: ModuleType, config: Any, folder: Path, seed: int
) -> tuple[Result, dict[str, float]]:
    """The record, stored with its manifest; and the seconds, of the clock and of all cores."""
    import jax

    # Should the process be killed, the manifest tells that a run had begun.
    how: dict[str, Any] = {"seed": seed, "dtype": _dtype(module)}
    write_manifest(folder, config, **how, wall_time_seconds=0.0, interrupted=True)
    begun, worked = time.perf_counter(), time.process_time()
    try:
        result = module.run(config, jax.random.key(seed))
    except BaseException:
        with contextlib.suppress(OSError):  # nothing stays of a run that never was
            (folder / MANIFEST_NAME).unlink()
            folder.rmdir()
        raise
    seconds, core_seconds = time.perf_counter() - begun, time.process_time() - worked
    write_record(result, folder)
    write_manifest(folder, config, **how, wall_time_seconds=seconds)
    return result, {"seconds": seconds, "core_seconds": core_seconds}


def _dtype(module: ModuleType) -> Dtype:
    return module.DTYPE if hasattr(module, "DTYPE") else "float32"
