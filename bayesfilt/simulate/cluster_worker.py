"""What the workers of a cluster are asked to do: plain values in, plain values out.

Numbers never travel: a worker reads the sweep from the manifest in
the shared folder, writes the files of its chunks there, and answers with a name and a checksum.
"""

import functools
import hashlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, Final

import jax

from bayesfilt import provenance
from bayesfilt.cpu_devices import make_cpu_devices, usable_cores
from bayesfilt.simulate.chunk_record import LIBRARIES
from bayesfilt.simulate.run_sweep import Work
from bayesfilt.simulate.store import finished_file, key_of, planned, read_store
from bayesfilt.simulate.sweep import sweep_from
from bayesfilt.simulate.sweep_chunk import ChunkProgram, build_program, is_out_of_memory
from bayesfilt.simulate.sweep_plan import SweepGroup
from bayesfilt.simulate.sweep_width import free_memory, measure_execution

# The driver's `Terms`, as they travel: versions, settings of jax, platform, number of devices.
PlainTerms = Mapping[str, Any]

REFUSED: Final = "refused"  # key of an answer that is a ValueError, in one line
FAILED: Final = "failed"  # of one that is an OSError, or a lack of memory

# One chunk at a time has all devices and all settings of the process. And it has them in a
# thread of its own: in that of a Dask task xarray would lock each file through the scheduler.
_ALONE = ThreadPoolExecutor(1, "bayesfilt")


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the driver; Dask calls this where it preloads the module."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def introduce() -> dict[str, Any]:
    """Who this worker is; jax is imported and starts nothing."""
    versions = provenance.versions()
    return {
        "versions": {name: versions[name] for name in LIBRARIES},
        "host": socket.gethostname(),
        "cores": list(usable_cores()),
    }


def difference_of_versions(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What a worker has and the driver has not, in words; nothing if they agree."""
    return ", ".join(
        f"{name} {found.get(name)} instead of {version}"
        for name, version in wanted.items()
        if found.get(name) != version
    )


def _answering[**P](
    function: Callable[Concatenate[PlainTerms, P], dict[str, Any]],
) -> Callable[Concatenate[PlainTerms, P], dict[str, Any]]:
    """Prepare jax, call `function` alone, and turn what it may raise into a plain answer."""

    def answer(terms: PlainTerms, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        me = f"The worker on {socket.gethostname()}, process {os.getpid()}"
        try:
            _prepare_jax(terms)
            return function(terms, *args, **kwargs)
        except ValueError as error:
            return {REFUSED: f"{me}: {error}"}
        except OSError as error:
            return {FAILED: f"{me}: {error}"}
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return {FAILED: f"{me}: memory does not suffice for a single run."}

    @functools.wraps(function)
    def in_turn(terms: PlainTerms, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        return _ALONE.submit(answer, terms, *args, **kwargs).result()

    return in_turn


@_answering
def device(terms: PlainTerms) -> dict[str, Any]:
    """What this worker computes on."""
    del terms
    return provenance.device()


@_answering
def measure(
    terms: PlainTerms,
    settings: Mapping[str, Any],
    group: int,
    width: int | None,
    neighbours: int,
) -> dict[str, Any]:
    """Measure how a group of the sweep with these settings is executed best.

    Args:
        terms: of the driver.
        settings: the sweep's.
        group: number of it in the plan.
        width: of a chunk, if it is settled.
        neighbours: workers that share this machine's memory, this one included.
    """
    del terms
    plan = planned(sweep_from(settings))
    shared = neighbours if jax.default_backend() == "cpu" else 1
    return measure_execution(
        plan.groups[group], plan.runs_of(group), width=width, memory=free_memory() // shared
    )._asdict()


@_answering
def make_chunk(
    terms: PlainTerms, folder: str, sweep_hash: str, group: int, chunk: int
) -> dict[str, Any]:
    """Make one chunk and write its file, unless it stands.

    Args:
        terms: of the driver.
        folder: of the sweep, the same for driver and workers.
        sweep_hash: of the sweep the driver means.
        group: number of the chunk's group.
        chunk: number of the chunk in it.

    Returns:
        The file's "name", the sha256 of its bytes as "checksum", whether it was "computed" now,
        and "notes"; or why not.
    """
    del terms
    store = read_store(folder)
    if store.plan.hash != sweep_hash:
        raise ValueError(f"{folder} is the folder of another sweep here than on the driver.")
    (wanted,) = [each for each in store.chunks if key_of(each) == (group, chunk)]
    work = Work(store, [wanted], lambda progress: None, _program)
    work.make(group, [wanted])
    path = finished_file(store, key_of(wanted))
    if path is None:
        raise OSError(f"the chunk {key_of(wanted)} that was just written to {folder} is not there.")
    return {
        "name": path.name,
        "checksum": sha256_of(path),
        "computed": bool(work.computed),
        "notes": [*store.notes, *work.notes],
    }


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=1)
def _program(group: SweepGroup, num_devices: int) -> ChunkProgram:
    """The program of the group that this process is at, compiled once for all its chunks."""
    return build_program(group, num_devices)


def _prepare_jax(terms: PlainTerms) -> None:
    """Bring jax to the driver's settings; the first call decides on the devices.

    Raises:
        ValueError: other versions than the driver's, or no device of the platform.
    """
    found = introduce()["versions"]
    if different := difference_of_versions(terms["versions"], found):
        raise ValueError(f"it has {different}: the same versions are needed everywhere.")
    platform = terms["platform"]
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    make_cpu_devices(terms["cpu_devices"])
    for name, value in terms["jax_settings"].items():
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)
    if platform != "auto" and jax.default_backend() != platform:
        raise ValueError(f"jax runs on {jax.default_backend()} there, and not on {platform}.")
