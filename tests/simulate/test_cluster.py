"""A sweep on a cluster has the bits of one in this process, whatever happens to the workers."""

import json
import logging
import os
import signal
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from bayesfilt import provenance
from bayesfilt.simulate import cluster, cluster_worker
from bayesfilt.simulate.chunk_record import LIBRARIES
from bayesfilt.simulate.cluster import run_on_cluster
from bayesfilt.simulate.cluster_connection import introduced
from bayesfilt.simulate.run_sweep import Shard, run_sweep
from bayesfilt.simulate.store import finished_file, key_of, open_store, take_stock
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_plan import plan_sweep
from tests.simulate.sweeps import GRID, executions, filled_store
from tests.simulate.test_run_sweep import assert_same_bits, results

SMALL = Sweep(
    tasks=("bowl",),
    batch_sizes=(4,),
    num_steps=(20,),
    learning_rate="1e-2,1e-1,1e30",
    weight_decay=0.0,
    seeds=9,
    record_points=5,
)
NUM_CHUNKS = 4

WORKER = """
import importlib, os, signal
import bayesfilt
from bayesfilt.simulate import cluster_worker
room = importlib.import_module("bayesfilt.simulate.run_sweep")

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Workers:
    """Two worker processes, and a way to change what one of them does."""

    def __init__(self, address, client):
        self.address = address
        self._client = client

    def addresses(self) -> list[str]:
        return sorted(self._client.nthreads())

    def pids(self) -> dict[str, int]:
        return self._client.run(os.getpid)

    def do(self, code: str, *addresses: str) -> None:
        self._client.run(exec, WORKER + code, {}, workers=list(addresses) or None)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    scratch = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        with (
            distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                local_directory=str(scratch),
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as started,
            distributed.Client(started, set_as_default=False) as client,
        ):
            yield Workers(started.scheduler_address, client)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The numbers of the sweep in this process, eight runs a chunk on one device."""
    folder = begun(tmp_path_factory.mktemp("here"))
    assert run_sweep(SMALL, folder).finished == NUM_CHUNKS
    return results(folder)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begun(folder: Path) -> Path:
    """A folder whose manifest says: eight runs a chunk, on one device."""
    plan = plan_sweep(SMALL)
    open_store(folder, plan, lambda: executions(plan))
    return folder


def terms(**changed) -> dict:
    return {**cluster._terms("auto", 1, local=False), **changed}


def test_two_workers_make_the_bits_of_one_process_and_only_plain_values_travel(
    two_workers, here, tmp_path, monkeypatch
):
    import distributed

    submit, answer, travelled = distributed.Client.submit, cluster._answer, []

    def seen(client, function, *arguments, **options):
        assert getattr(sys.modules[function.__module__], function.__qualname__) is function
        travelled.append(json.dumps(arguments))
        return submit(client, function, *arguments, **options)

    def answered(future):
        travelled.append(json.dumps(answer(future)))
        return answer(future)

    progress = []
    monkeypatch.setattr(distributed.Client, "submit", seen)
    monkeypatch.setattr(cluster, "_answer", answered)
    outcome = run_on_cluster(
        SMALL, begun(tmp_path), scheduler=two_workers.address, on_progress=progress.append
    )
    assert (outcome.wanted, outcome.finished, outcome.computed) == (NUM_CHUNKS,) * 3
    assert (outcome.notes, outcome.interrupted) == ((), False)
    assert_same_bits(tmp_path, here)
    assert len(travelled) == 2 * (1 + NUM_CHUNKS)  # a worker's device, then the chunks
    assert [now.doing for now in progress] == ["waiting for a worker"] + ["2 workers"] * 5
    assert [now.completed for now in progress[1:]] == [0, *np.cumsum([8, 8, 8, 3]) * 20] or (
        sorted(np.diff([now.completed for now in progress[1:]])) == [60, 160, 160, 160]
    )


def test_the_chunks_of_a_worker_that_is_killed_are_made_by_another(two_workers, here, tmp_path):
    doomed, other = two_workers.addresses()
    pids = two_workers.pids()
    two_workers.do("room.write_chunk = die", doomed)
    outcome = run_on_cluster(SMALL, begun(tmp_path), scheduler=two_workers.address)
    assert (outcome.finished, outcome.computed, outcome.notes) == (NUM_CHUNKS, NUM_CHUNKS, ())
    assert_same_bits(tmp_path, here)
    assert pids[doomed] not in two_workers.pids().values()
    assert two_workers.pids()[other] == pids[other]


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_goes_on(two_workers, here, tmp_path):
    def stop(now):
        if now.completed > 3 * 20:  # beyond the shard's
            signal.raise_signal(signal.SIGINT)

    folder = begun(tmp_path)
    shard = run_on_cluster(SMALL, folder, scheduler=two_workers.address, shard=Shard(3, 4))
    assert (shard.wanted, shard.computed) == (1, 1)
    stopped = run_on_cluster(SMALL, folder, scheduler=two_workers.address, on_progress=stop)
    assert stopped.interrupted
    assert stopped.finished == 1 + stopped.computed > 1
    assert stopped.finished <= len(take_stock(stopped.store).finished)
    outcome = run_on_cluster(SMALL, folder, scheduler=two_workers.address)
    assert (outcome.finished, outcome.interrupted) == (NUM_CHUNKS, False)
    assert_same_bits(folder, here)


def test_a_worker_with_another_version_is_refused_before_it_works(two_workers, tmp_path):
    odd = two_workers.addresses()[0]
    two_workers.do("bayesfilt.__version__ = '0.0.1'", odd)
    with pytest.raises(ValueError) as caught:
        run_on_cluster(SMALL, tmp_path / "sweep", scheduler=two_workers.address)
    two_workers.do(f"bayesfilt.__version__ = {provenance.versions()['bayesfilt']!r}", odd)
    assert str(caught.value) == (
        f"The worker at {odd} is refused: it has bayesfilt 0.0.1 instead of"
        f" {provenance.versions()['bayesfilt']}; the same versions are needed everywhere."
    )
    assert not (tmp_path / "sweep").exists()


def test_a_file_that_is_not_as_promised_is_asked_for_again_and_then_given_up(
    two_workers, tmp_path, monkeypatch
):
    folder = begun(tmp_path)
    problem_with, seen = cluster._problem_with, []

    def wrong_at_first(store, chunk, answer):
        seen.append(key_of(chunk))
        return "Nothing there." if seen.count(key_of(chunk)) < times else ""

    monkeypatch.setattr(cluster, "_problem_with", wrong_at_first)
    times = 3
    outcome = run_on_cluster(SMALL, folder, scheduler=two_workers.address)
    assert (outcome.finished, outcome.notes) == (NUM_CHUNKS, ("Nothing there.",))
    assert len(seen) == 3 * NUM_CHUNKS
    monkeypatch.setattr(cluster, "_problem_with", problem_with)
    for path in (folder / "chunks").iterdir():
        path.unlink()
    two_workers.do("cluster_worker.sha256_of = lambda path: 'a lie'")
    with pytest.raises(OSError, match="is not what the worker wrote. Do driver and workers share"):
        run_on_cluster(SMALL, folder, scheduler=two_workers.address)


def test_what_dask_gives_up_is_one_line():
    exceptions = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

    class Lost:
        def __init__(self, error):
            self.error = error

        def result(self):
            raise self.error

        def nthreads(self):
            raise self.error

    killed = exceptions.KilledWorker("make_chunk-1", None, 3)
    with pytest.raises(OSError, match="^One task was lost with 4 workers, one after another.*mem"):
        cluster._answer(Lost(killed))
    for lost in (
        lambda: cluster._answer(Lost(CancelledError())),
        lambda: cluster._crew(Lost(TimeoutError())),
    ):
        with pytest.raises(ConnectionError, match="^The scheduler is gone; the finished chunks"):
            lost()


class Introducing:
    """A client whose workers say this."""

    def __init__(self, workers, threads=1):
        self.workers, self.threads = workers, threads

    def run(self, function, on_error):
        assert (function, on_error) == (cluster_worker.introduce, "return")
        return self.workers

    def nthreads(self):
        return dict.fromkeys(self.workers, self.threads)


def test_a_worker_is_refused_by_the_first_thing_that_differs():
    me = cluster_worker.introduce()
    assert json.loads(json.dumps(me)) == me
    assert set(me["versions"]) == set(LIBRARIES)
    assert introduced(Introducing({"tcp://a:1": me})) == {"tcp://a:1": me}
    older = {**me, "versions": {**me["versions"], "jax": "0.11.0", "optax": None}}
    with pytest.raises(ValueError, match="at b is refused: it has jax 0.11.0.*, optax None"):
        introduced(Introducing({"a": me, "b": older}))
    with pytest.raises(ValueError, match="at c is refused: it has no such bayesfilt as.*Module"):
        introduced(Introducing({"c": ModuleNotFoundError("No module named 'bayesfilt'")}))
    with pytest.raises(ValueError, match="at d runs 4 tasks at once.*--nthreads 1"):
        introduced(Introducing({"d": me}, threads=4))


def test_a_worker_that_comes_late_is_refused_all_the_same(tmp_path):
    versions = {**terms()["versions"], "jaxlib": "9.9"}
    answer = cluster_worker.make_chunk(terms(versions=versions), str(tmp_path), "", 0, 0)
    (text,) = answer.values()
    assert list(answer) == [cluster_worker.REFUSED]
    assert "instead of 9.9" in text and f"process {os.getpid()}: it has jaxlib" in text


def test_a_worker_that_does_not_see_the_folder_or_its_sweep_says_so(tmp_path):
    answer = cluster_worker.make_chunk(terms(), str(tmp_path / "none"), "", 0, 0)
    assert f"No manifest.json of a sweep in {tmp_path / 'none'}." in answer[cluster_worker.FAILED]
    answer = cluster_worker.make_chunk(terms(), str(begun(tmp_path)), "another", 0, 0)
    assert "is the folder of another sweep here" in answer[cluster_worker.REFUSED]
    answer = cluster_worker.device(terms(platform="gpu"))
    assert "and not on gpu" in answer[cluster_worker.REFUSED]


def test_a_worker_measures_with_its_share_of_the_memory(monkeypatch):
    asked = {}

    def measured(group, runs, **options):
        asked.update(options, runs=len(runs))
        return executions(plan_sweep(SMALL))[0]

    monkeypatch.setattr(cluster_worker, "measure_execution", measured)
    monkeypatch.setattr(cluster_worker, "free_memory", lambda: 1_000)
    settings = json.loads(json.dumps(cluster.dataclasses.asdict(SMALL)))
    answer = cluster_worker.measure(terms(), settings, 0, None, 4)
    assert answer == {
        "width": 8, "num_devices": 1, "steps_per_second": 1e3, "bytes_per_run": 1_000,
    }  # fmt: skip
    assert asked == {"width": None, "memory": 250, "runs": 27}


@pytest.mark.parametrize(
    ("workers", "devices"),
    [
        ([("a", range(8))], 8),
        ([("a", range(8))] * 2, 4),
        ([("a", range(8))] * 3, 2),  # a power of two
        ([("a", range(12))] * 6, 2),  # a sum of sixths is 1, not a little less
        ([("a", range(2))] * 5, 1),
        ([("a", range(4)), ("a", range(4, 8))], 4),  # two jobs, each with cores of its own
        ([("a", range(8)), ("b", range(8))], 8),
        ([("a", range(8)), ("b", range(2))], 2),  # equal bits everywhere: the fewest decides
    ],
)
def test_a_worker_makes_devices_of_its_share_of_the_cores(tmp_path, workers, devices):
    said = [{"host": host, "cores": list(cores)} for host, cores in workers]
    assert cluster._cpu_devices(tmp_path, said) == devices


def test_the_manifest_decides_on_the_devices_where_there_is_one(tmp_path):
    said = [{"host": "a", "cores": list(range(8))}]
    assert cluster._cpu_devices(begun(tmp_path), said) == 1
    assert cluster._neighbours([*said, *said, {"host": "b"}]) == 2


def test_only_a_whole_file_of_the_chunk_that_was_asked_for_counts(tmp_path):
    store = filled_store(tmp_path / "sweep", plan_sweep(GRID))
    chunk, other = store.chunks[:2]
    path, foreign = (finished_file(store, key_of(each)) for each in (chunk, other))
    assert path is not None and foreign is not None
    whole = {"name": path.name, "checksum": cluster_worker.sha256_of(path)}
    assert cluster._problem_with(store, chunk, whole) == ""
    outside = f"../../../elsewhere/{path.name}"  # only the name counts
    assert cluster._problem_with(store, chunk, {**whole, "name": outside}) == ""
    assert "what the worker wrote" in cluster._problem_with(store, chunk, whole | {"checksum": "0"})
    another = {**whole, "name": foreign.name}
    assert "which was asked for" in cluster._problem_with(store, chunk, another)
    path.write_bytes(path.read_bytes()[:-1])
    assert "corrupt or truncated" in cluster._problem_with(store, chunk, whole)
    path.unlink()
    assert "cannot be read" in cluster._problem_with(store, chunk, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either the address of a scheduler or a number of workers, got scheduler=None"),
        ({"scheduler": "tcp://a:1", "workers": 2}, "workers=2"),
        ({"workers": 0}, "number of workers >= 1"),
        ({"workers": 2, "platform": "gpu"}, "one process uses all GPUs"),
        ({"workers": 2, "platform": "tpu"}, "got 'tpu'"),
        ({"scheduler": "tcp://a:1", "timeout": 0.0}, "timeout"),
    ],
)
def test_a_bad_choice_of_cluster_is_refused_at_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_on_cluster(SMALL, tmp_path / "sweep", **options)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (
            "tcp://127.0.0.1:9",
            ConnectionError,
            "No Dask scheduler answers at tcp://127.0.0.1:9 wit",
        ),
        ("nonsense", ValueError, "like tcp://HOST:8786; got 'nonsense'"),
        ("gopher://there:70", ValueError, "like tcp://HOST:8786; got 'gopher"),
    ],
)
def test_a_scheduler_that_cannot_be_reached_is_one_line_soon(tmp_path, address, error, message):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(error, match=message) as caught:
        run_on_cluster(SMALL, tmp_path / "sweep", scheduler=address, timeout=0.3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_without_the_extra_its_name_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bayesfilt\[cluster\]'"):
        run_on_cluster(SMALL, tmp_path / "sweep", workers=1)
