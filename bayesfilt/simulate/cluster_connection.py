"""A Dask scheduler to talk to, found or started, and workers that may be trusted with bits."""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bayesfilt import provenance
from bayesfilt.simulate import cluster_worker
from bayesfilt.simulate.chunk_record import LIBRARIES
from bayesfilt.simulate.cluster_worker import difference_of_versions

# Dask types its methods as if each were awaited: a client is `Any` here.


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int | None, timeout: float) -> Iterator[Any]:
    """A client of a running scheduler, or of one that is started with its workers.

    Raises:
        ModuleNotFoundError: there is no dask.distributed.
        ConnectionError: no scheduler answers at the address.
        ValueError: it is no address.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A cluster needs dask.distributed, the extra `cluster`:"
            " pip install 'bayesfilt[cluster]'."
        ) from error
    from distributed.utils import silence_logging_cmgr

    with contextlib.ExitStack() as stack:
        # What matters is said by us, in one line.
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        if scheduler is None:
            scheduler = stack.enter_context(_local_cluster(workers or 1))
        else:
            _require_scheduler(scheduler, timeout)
        try:
            client = Client(scheduler, timeout=timeout, set_as_default=False)
        except OSError as error:
            raise ConnectionError(_silence(scheduler, timeout)) from error
        yield stack.enter_context(client)


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[str]:
    """Address of a scheduler of this machine, with worker processes of one thread each."""
    import distributed

    start: Any = distributed.LocalCluster
    with (
        tempfile.TemporaryDirectory(prefix="bayesfilt-", ignore_cleanup_errors=True) as scratch,
        start(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=scratch,
            preload=[cluster_worker.__name__],
            memory_limit=0,  # the width is chosen by what is free; Dask holds no data of ours
            silence_logs=logging.CRITICAL,  # in the workers
        ) as cluster,
    ):
        yield cluster.scheduler_address


def _require_scheduler(address: str, timeout: float) -> None:
    """Try once: a `Client` that fails to connect complains again when it is collected."""
    from distributed.comm.core import connect

    async def knock() -> None:
        comm = await connect(address, timeout=timeout)
        await comm.close()

    with ThreadPoolExecutor(1) as other:  # in a notebook this thread has a running loop
        try:
            other.submit(asyncio.run, knock()).result()
        except OSError as error:
            raise ConnectionError(_silence(address, timeout)) from error
        except ValueError as error:
            raise ValueError(
                f"A scheduler's address is like tcp://HOST:8786; got {address!r}: {error}."
            ) from error


def _silence(address: str, timeout: float) -> str:
    return f"No Dask scheduler answers at {address} within {timeout:g} s."


def introduced(client: Any) -> dict[str, dict[str, Any]]:
    """What the workers that are there say of themselves, by address.

    Raises:
        ValueError: one has other versions than this process, or runs several tasks at once.
    """
    found = client.run(cluster_worker.introduce, on_error="return")
    wanted = needed_versions()
    for address, worker in found.items():
        if isinstance(worker, BaseException):
            raise ValueError(
                f"The worker at {address} is refused: it has no such bayesfilt as"
                f" {wanted['bayesfilt']} ({type(worker).__name__}: {worker})."
            ) from worker
        if different := difference_of_versions(wanted, worker["versions"]):
            raise ValueError(
                f"The worker at {address} is refused: it has {different}; the same versions are"
                " needed everywhere."
            )
    for address, threads in client.nthreads().items():
        if threads != 1:
            raise ValueError(
                f"The worker at {address} runs {threads} tasks at once, and a chunk takes the"
                " whole process: start it with --nthreads 1."
            )
    return found


def needed_versions() -> dict[str, str | None]:
    """This process's, of all that the bits of a result depend on."""
    versions = provenance.versions()
    return {name: versions[name] for name in LIBRARIES}
