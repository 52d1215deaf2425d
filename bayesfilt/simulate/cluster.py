"""The chunks of `run_sweep`, made by the workers of a Dask cluster.

What travels is plain: importable functions, names, numbers, settings. Each worker writes the
files of its chunks into the shared folder itself and answers with a file's name and checksum,
which the driver verifies before it counts the chunk. So a lost worker costs its chunks at hand,
which Dask deals to others, and a lost driver or scheduler costs nothing that was written.

How wide a chunk is and on how many devices it runs is measured on the workers, not on the
driver, which may be a login node; the manifest keeps it. Equal widths, devices and kinds of
processor give equal bits, wherever a chunk is made.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from bayesfilt import provenance
from bayesfilt.checks import require_at_least, require_one_of, require_positive
from bayesfilt.simulate import cluster_worker
from bayesfilt.simulate.cluster_connection import connected, introduced, needed_versions
from bayesfilt.simulate.cluster_worker import FAILED, REFUSED
from bayesfilt.simulate.run_sweep import (
    WHOLE,
    Progress,
    Shard,
    SweepOutcome,
    SweepProgress,
    Work,
    carry_out,
)
from bayesfilt.simulate.store import (
    CHUNKS_NAME,
    ChunkKey,
    Store,
    key_of,
    open_store,
    read_store,
    read_verified,
    take_stock,
)
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_plan import ChunkPlan, Execution, SweepPlan, plan_sweep
from bayesfilt.simulate.sweep_width import largest_power_of_two

if TYPE_CHECKING:
    from distributed import Future

WorkerPlatform = Literal["auto", "cpu", "gpu"]
CONNECT_SECONDS = 30.0

_GONE = "The scheduler is gone; the finished chunks stand."
_ATTEMPTS = 3  # at a chunk whose file is not found as promised

# A local cluster's processes are of this machine and this user: they may share its cache.
_CACHE_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def run_on_cluster(
    sweep: Sweep,
    folder: str | Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    platform: WorkerPlatform = "auto",
    timeout: float = CONNECT_SECONDS,
    shard: Shard = WHOLE,
    width: int | None = None,
    on_progress: Progress | None = None,
) -> SweepOutcome:
    """Have a cluster make the runs of a sweep that its folder does not hold yet.

    Only for schedulers that you trust: whoever controls one can run code as you. A script that
    starts `workers` needs `if __name__ == "__main__":`, because each of them imports it.

    Args:
        sweep: as for `run_sweep`.
        folder: as for `run_sweep`; driver and workers see it at the same path.
        scheduler: address of a running Dask scheduler, "tcp://HOST:8786". Its workers run one
            task at a time (`--nthreads 1`) and have this process's bayesfilt and jax. Until the
            first has come, this waits.
        workers: or start so many processes here, which share the cores.
        platform: what the workers compute on; "auto": what jax finds there. Those that are
            started here compute on the CPU.
        timeout: seconds until a scheduler that does not answer is given up.
        shard: as for `run_sweep`.
        width: as for `run_sweep`.
        on_progress: called after each chunk.

    Returns:
        As `run_sweep`. After Ctrl-C the workers of a scheduler still finish the chunks at hand.

    Raises:
        ModuleNotFoundError: the extra `cluster` is not installed.
        ValueError: as for `run_sweep`; a worker with other versions; none or both of `scheduler`
            and `workers`.
        OSError: the scheduler cannot be reached, or a worker cannot read or write the folder.
    """
    _require_choice(scheduler, workers, platform, timeout)
    plan = plan_sweep(sweep)
    folder = Path(folder).expanduser().absolute()
    tell = on_progress or (lambda progress: None)
    with connected(scheduler, workers, timeout) as client:
        tell(SweepProgress(doing="waiting for a worker", completed=0, total=1))
        client.wait_for_workers(1)
        found = introduced(client)
        local = scheduler is None
        terms = _terms("cpu" if local else platform, _cpu_devices(folder, found.values()), local)
        device = _answer(client.submit(cluster_worker.device, terms, pure=False))
        measure = partial(_measured, client, terms, plan, width, _neighbours(found.values()), tell)
        store = open_store(folder, plan, measure, device=device)
        outcome = carry_out(store, shard, partial(_deal_out, client, terms, store), tell)
    return _recounted(outcome, shard) if outcome.interrupted else outcome


def _recounted(outcome: SweepOutcome, shard: Shard) -> SweepOutcome:
    """With what the workers have still finished while they were told to stop."""
    stands = take_stock(outcome.store).finished
    mine = outcome.store.chunks[shard.part :: shard.parts]
    finished = sum(key_of(chunk) in stands for chunk in mine)
    computed = outcome.computed + finished - outcome.finished
    return outcome._replace(finished=finished, computed=computed)


def _require_choice(
    scheduler: str | None, workers: int | None, platform: str, timeout: float
) -> None:
    if (scheduler is None) == (workers is None):
        raise ValueError(
            "run_on_cluster needs either the address of a scheduler or a number of workers, got"
            f" scheduler={scheduler}, workers={workers}."
        )
    require_one_of("run_on_cluster", "platforms", platform, ("auto", "cpu", "gpu"))
    require_positive("run_on_cluster", "timeout", timeout)
    if workers is None:
        return
    require_at_least("run_on_cluster", "number of workers", workers, 1)
    if platform == "gpu":
        raise ValueError(
            "run_on_cluster starts workers for the CPU only: one process uses all GPUs of a"
            " machine, so leave the number of workers out."
        )


def _terms(platform: str, cpu_devices: int, local: bool) -> dict[str, Any]:
    """What every worker must have or be brought to, before it computes."""
    names = (*provenance.TELLING_SETTINGS, *(_CACHE_SETTINGS if local else ()))
    return {
        "versions": needed_versions(),
        "platform": platform,
        "cpu_devices": cpu_devices,
        "jax_settings": {name: getattr(jax.config, name) for name in names},
    }


def _cpu_devices(folder: Path, workers: Iterable[Mapping[str, Any]]) -> int:
    """Devices that a worker makes of its CPU: what the manifest asks for, or its cores.

    A core that several workers may use is shared by them, and the worker with the fewest
    decides: chunks are to be equal wherever they are made.
    """
    with contextlib.suppress(FileNotFoundError):
        return max(execution.num_devices for execution in read_store(folder).executions)
    workers = list(workers)
    claims = Counter((worker["host"], core) for worker in workers for core in worker["cores"])
    shares = [
        sum(Fraction(1, claims[worker["host"], core]) for core in worker["cores"])
        for worker in workers
    ]
    return largest_power_of_two(max(1, int(min(shares))))


def _neighbours(workers: Iterable[Mapping[str, Any]]) -> int:
    """Workers on the machine that has the most."""
    return max(Counter(worker["host"] for worker in workers).values())


def _measured(
    client: Any,
    terms: Mapping[str, Any],
    plan: SweepPlan,
    width: int | None,
    neighbours: int,
    tell: Progress,
) -> list[Execution]:
    """How each group is executed best, by a worker's word."""
    settings = dataclasses.asdict(plan.sweep)
    measure = partial(client.submit, cluster_worker.measure, terms, settings, pure=False)
    futures = [measure(group.index, width, neighbours) for group in plan.groups]
    executions = []
    for group, future in zip(plan.groups, futures, strict=True):
        tell(SweepProgress(doing=f"measuring {group.title}", completed=0, total=1))
        executions.append(Execution(**_answer(future)))
    return executions


def _deal_out(
    client: Any,
    terms: Mapping[str, Any],
    store: Store,
    work: Work,
    missing: list[ChunkPlan],
) -> None:
    """Have the workers make what is missing; count what is verified."""
    from distributed import as_completed

    def submitted(chunk: ChunkPlan) -> "Future":
        name = str(store.folder), store.plan.hash, *key_of(chunk)
        return client.submit(cluster_worker.make_chunk, terms, *name, pure=False)

    attempts: Counter[ChunkKey] = Counter()
    at_hand = {submitted(chunk): chunk for chunk in missing}
    arriving = as_completed(list(at_hand), loop=client.loop)
    work.show(_crew(client))
    try:
        for future in arriving:
            chunk = at_hand.pop(future)
            answer = _answer(future)
            if problem := _problem_with(store, chunk, answer):
                attempts[key_of(chunk)] += 1
                if attempts[key_of(chunk)] == _ATTEMPTS:
                    raise OSError(f"{problem} Do driver and workers share {store.folder}?")
                work.notes.append(problem)
                again = submitted(chunk)
                at_hand[again] = chunk
                arriving.add(again)
                continue
            work.notes += answer["notes"]
            work.computed += answer["computed"]
            work.count([chunk])
            work.show(_crew(client))
    finally:
        with contextlib.suppress(OSError):  # of a scheduler that is gone
            client.cancel(list(at_hand))


def _problem_with(store: Store, chunk: ChunkPlan, answer: Mapping[str, Any]) -> str:
    """Why the file that a worker promises does not count; nothing if it does."""
    path = store.folder / CHUNKS_NAME / Path(answer["name"]).name
    try:
        read_verified(store, path)
        if not path.name.startswith(f"{key_of(chunk)}-"):
            raise ValueError(f"{path} is not chunk {key_of(chunk)}, which was asked for.")
        if cluster_worker.sha256_of(path) != answer["checksum"]:
            raise ValueError(f"{path} is not what the worker wrote.")
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _answer(future: "Future") -> dict[str, Any]:
    """What a worker answers.

    Raises:
        ValueError: the worker refuses.
        OSError: it failed; Dask gave the task up; the scheduler is gone.
    """
    from distributed import KilledWorker

    try:
        answer = future.result()
    except KilledWorker as error:
        raise ChildProcessError(
            f"One task was lost with {error.allowed_failures + 1} workers, one after another, and"
            " is given up: was there too little memory?"
        ) from error
    except CancelledError as error:
        raise ConnectionError(_GONE) from error
    if refused := answer.get(REFUSED):
        raise ValueError(refused)
    if failed := answer.get(FAILED):
        raise OSError(failed)
    return answer


def _crew(client: Any) -> str:
    """How many workers there are, in words."""
    try:
        count = len(client.nthreads())
    except OSError as error:
        raise ConnectionError(_GONE) from error
    return f"{count} worker{'' if count == 1 else 's'}"
