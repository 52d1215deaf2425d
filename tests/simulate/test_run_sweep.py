"""A sweep that is interrupted, killed, damaged or shared gives the bits of one that is not."""

import errno
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesfilt import atomic_files
from bayesfilt.atomic_files import CannotWriteError
from bayesfilt.records import unpack_settings, unpack_values
from bayesfilt.simulate.merge_shards import merge_shards
from bayesfilt.simulate.run_sweep import Shard, parse_shard, run_sweep
from bayesfilt.simulate.store import read_store, take_stock
from bayesfilt.simulate.sweep import Sweep
from tests.simulate.sweeps import execution

room = importlib.import_module("bayesfilt.simulate.run_sweep")

# Twenty-seven runs: at eight a chunk, four chunks, of which the last is padded.
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


@functools.cache
def build_once(group, num_devices=1):
    """A group's program is the same for every test: compile it once."""
    return build_program(group, num_devices)


build_program = room.build_program


@pytest.fixture(autouse=True)
def _ready(monkeypatch):
    """Chunks of eight runs on one device, unless told; and Ctrl-C is heard."""
    monkeypatch.setattr(room, "build_program", build_once)
    monkeypatch.setattr(room, "measure_execution", lambda *_, width: execution(width or 8))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def results(folder) -> dict[str, dict[str, np.ndarray]]:
    """The numbers of every verified chunk."""
    stock = take_stock(read_store(folder))
    assert stock.problems == ()
    return {
        str(key): unpack_values(path.read_bytes(), path, "runs")
        for key, path in sorted(stock.finished.items())
    }


def assert_same_bits(folder, wanted) -> None:
    found = results(folder)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key].keys() == values.keys()
        for name, array in values.items():
            assert found[key][name].dtype == array.dtype
            assert found[key][name].tobytes() == array.tobytes(), (key, name)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The numbers of a sweep that nothing happened to."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "build_program", build_once)
        patch.setattr(room, "measure_execution", lambda *_, width: execution())
        outcome = run_sweep(SMALL, folder)
    assert (outcome.wanted, outcome.finished, outcome.computed) == (NUM_CHUNKS,) * 3
    assert (outcome.notes, outcome.interrupted) == ((), False)
    return results(folder)


def test_the_numbers_are_those_of_training(uninterrupted):
    first = uninterrupted["00-0000"]
    assert first["learning_rate"].tolist() == [0.01] * 8
    assert first["loss"].shape == (8, 5)
    assert np.isfinite(first["final_test_loss"]).all()
    assert (first["diverged_at"] == -1).all()
    assert len(set(first["last_finite_loss"].tolist())) == 8
    last = uninterrupted["00-0003"]
    assert last["seed"].tolist() == [6, 7, 8]
    assert (last["diverged_at"] > 0).all()
    assert np.isnan(last["final_test_loss"]).all()
    assert np.isfinite(last["last_finite_loss"]).all()


def stop_at(moment: int):
    """Ctrl-C at the `moment`-th sign of life."""
    seen = []

    def progress(now):
        seen.append(now)
        if len(seen) == moment:
            signal.raise_signal(signal.SIGINT)

    return progress


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_goes_on(uninterrupted, tmp_path):
    # Before the first chunk (one sign is of measuring); before the first is written; between
    # two; before the second of that call is written.
    kept = []
    for moment in (2, 2, 3, 4):
        outcome = run_sweep(SMALL, tmp_path, on_progress=stop_at(moment))
        kept.append((outcome.interrupted, outcome.finished, outcome.computed))
        assert len(take_stock(outcome.store).finished) == outcome.finished
    assert kept == [(True, 0, 0), (True, 0, 0), (True, 1, 1), (True, 2, 1)]
    outcome = run_sweep(SMALL, tmp_path)
    assert (outcome.finished, outcome.interrupted) == (NUM_CHUNKS, False)
    assert outcome.computed == 2
    assert_same_bits(tmp_path, uninterrupted)


def test_ctrl_c_while_measuring_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(SMALL, tmp_path / "sweep", on_progress=stop_at(1))
    assert not (tmp_path / "sweep").exists()


def test_a_finished_sweep_is_not_run_again(uninterrupted, tmp_path, monkeypatch):
    run_sweep(SMALL, tmp_path)
    monkeypatch.setattr(room, "execute_chunk", None)
    outcome = run_sweep(SMALL, tmp_path)
    assert (outcome.finished, outcome.computed) == (NUM_CHUNKS, 0)


def test_a_corrupt_a_truncated_and_a_foreign_chunk_are_reported_and_recomputed(
    uninterrupted, tmp_path
):
    run_sweep(SMALL, tmp_path)
    first, second, _, last = sorted((tmp_path / "chunks").iterdir())
    data = first.read_bytes()
    first.write_bytes(data[:3000] + bytes([data[3000] ^ 4]) + data[3001:])
    second.write_bytes(second.read_bytes()[:-1])
    foreign = last.rename(last.with_name(last.name.replace("00-0003", "00-0007")))
    outcome = run_sweep(SMALL, tmp_path)
    assert (outcome.finished, outcome.computed) == (NUM_CHUNKS, 3)
    assert [note.split(" is ")[1].split(":")[0] for note in outcome.notes] == [
        "corrupt or truncated", "corrupt or truncated", "foreign",
    ]  # fmt: skip
    assert foreign.exists()
    foreign.unlink()
    assert_same_bits(tmp_path, uninterrupted)


def test_the_width_of_the_manifest_holds_for_everybody_after(tmp_path, monkeypatch):
    def measured_again(*_, **__):
        raise AssertionError("measured again")

    run_sweep(SMALL, tmp_path, width=16, shard=Shard(0, 2))
    monkeypatch.setattr(room, "measure_execution", measured_again)
    outcome = run_sweep(SMALL, tmp_path, width=8)
    assert [each.width for each in outcome.store.executions] == [16]
    assert (outcome.wanted, outcome.computed) == (2, 1)
    for path in (tmp_path / "chunks").iterdir():
        settings = unpack_settings(path.read_bytes(), path)
        assert (settings["width"], settings["halved"]) == (16, False)


def test_shards_in_folders_of_their_own_make_the_unsharded_sweep(uninterrupted, tmp_path):
    for index in range(3):
        outcome = run_sweep(SMALL, tmp_path / str(index), shard=Shard(index, 3))
        assert outcome.finished == outcome.wanted == (2 if index == 0 else 1)
    merge_shards([tmp_path / str(index) for index in range(3)], tmp_path / "whole")
    assert_same_bits(tmp_path / "whole", uninterrupted)


def test_a_full_disk_costs_one_chunk(uninterrupted, tmp_path, monkeypatch):
    sync, written = atomic_files._sync, []

    def full_at_the_third(file):
        written.append(file)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "_sync", full_at_the_third)
        with pytest.raises(CannotWriteError, match="No space left on device") as caught:
            run_sweep(SMALL, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(results(tmp_path)) == 1  # the first of the three was the manifest
    assert run_sweep(SMALL, tmp_path).computed == NUM_CHUNKS - 1
    assert_same_bits(tmp_path, uninterrupted)


def test_progress_counts_the_steps_of_all_runs(tmp_path):
    seen = []
    run_sweep(SMALL, tmp_path, shard=Shard(0, 2))
    run_sweep(SMALL, tmp_path, on_progress=seen.append)
    steps = [now.completed for now in seen]
    assert steps == sorted(steps)
    assert {now.total for now in seen} == {27 * 20}
    assert steps[0] == 2 * 8 * 20  # chunks 0 and 2 stood
    assert steps[-1] == 27 * 20


def test_fewer_devices_than_at_the_beginning_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "measure_execution", lambda *_, width: execution(num_devices=2**20))
    outcome = run_sweep(SMALL, tmp_path)
    assert outcome.finished == NUM_CHUNKS
    assert len(outcome.notes) == 1
    assert "was begun on 1048576 devices and goes on with" in outcome.notes[0]


def test_a_chunk_that_memory_made_narrower_says_so(tmp_path, monkeypatch):
    def narrow(program, chunk, **options):
        outcome = execute_chunk(program, chunk, **options)
        return outcome._replace(executed_width=4) if chunk.index % 2 else outcome

    execute_chunk = room.execute_chunk
    monkeypatch.setattr(room, "execute_chunk", narrow)
    outcome = run_sweep(SMALL, tmp_path)
    assert len(outcome.notes) == 2
    assert "memory held 4 runs at once instead of 8" in outcome.notes[0]
    halved = [
        unpack_settings(path.read_bytes(), path)["halved"]
        for path in sorted((tmp_path / "chunks").iterdir())
    ]
    assert halved == [False, True, False, True]


@pytest.mark.parametrize("text", ["", "1", "3/3", "1/0", "-1/3", "1/3/5", "a/b", "1.0/3"])
def test_a_shard_is_one_number_below_another(text):
    with pytest.raises(ValueError, match="like 0/4; got"):
        parse_shard(text)
    assert parse_shard(" 2/3 ") == Shard(part=2, parts=3)


# Processes that are killed, and two side by side. One interpreter imports everything and
# forks for each of them, before jax starts.

FORKING = """
import importlib, os, signal, sys, time, traceback
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from bayesfilt import atomic_files
from tests.simulate.sweeps import execution
from tests.simulate.test_run_sweep import SMALL, room

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at(moment):
    "Arrange for death at a moment."
    if moment == "before the manifest has its name":
        atomic_files.os.link = die
    elif moment == "once the manifest stands":
        room.take_stock = die
    elif moment == "in the middle of a chunk":
        return lambda now: now.completed % 540 and die()
    elif moment == "before a chunk has its name":
        atomic_files.os.replace = die
    elif moment == "once a chunk stands":
        atomic_files._sync_folder = die

def child(folder, moment, ready):
    room.measure_execution = lambda *_, width: execution()
    if moment == "together":
        open(f"{folder}-{os.getpid()}", "w").close()
        while sum(name.startswith("shared-") for name in os.listdir(ready)) < 2:
            time.sleep(0.01)
    outcome = room.run_sweep(SMALL, folder, on_progress=at(moment))
    print(moment, outcome.finished, outcome.computed, *outcome.notes, sep="|", flush=True)

def fork(*arguments):
    pid = os.fork()
    if pid:
        return pid
    try:
        child(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

_, _, ready, *moments = sys.argv
for moment in moments:
    print(moment, wait(fork(f"{ready}/killed", moment, ready)), sep="|", flush=True)
print(*[wait(pid) for pid in [fork(f"{ready}/shared", "together", ready) for _ in range(2)]])
"""
MOMENTS = (
    "before the manifest has its name",
    "once the manifest stands",
    "in the middle of a chunk",
    "before a chunk has its name",
    "once a chunk stands",
    "never",
)


@pytest.fixture(scope="module")
def forked(tmp_path_factory) -> tuple[Path, list[str]]:
    """Sweeps in "killed" and "shared", and what their processes said."""
    folder = tmp_path_factory.mktemp("forked")
    done = subprocess.run(
        [sys.executable, "-c", FORKING, folder / "cache", folder, *MOMENTS],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


@pytest.mark.slow  # Ctrl-C, damaged chunks and a full disk are above; killed workers, of a cluster
def test_killed_at_any_moment_and_run_again_a_sweep_gives_the_same_bits(uninterrupted, forked):
    folder, said = forked[0] / "killed", forked[1][: len(MOMENTS) + 1]
    *killed, finished, ended = [line.split("|") for line in said]
    assert killed == [[moment, str(-signal.SIGKILL)] for moment in MOMENTS[:-1]]
    assert ended == ["never", "0"]
    computed = int(finished[2])
    assert finished == ["never", str(NUM_CHUNKS), str(computed)]
    assert 0 < computed < NUM_CHUNKS
    assert_same_bits(folder, uninterrupted)
    # Whatever the dead left has a name that nobody mistakes for a result.
    left = [path.name for path in folder.rglob(".*")]
    assert left and all(".partial" in name for name in left)


@pytest.mark.slow  # two workers of a cluster in one folder: test_cluster
def test_two_processes_in_one_folder_lose_nothing(uninterrupted, forked):
    folder, (*told, codes) = forked[0] / "shared", forked[1][len(MOMENTS) + 1 :]
    assert codes == "0 0"
    assert [line.split("|")[:2] for line in told] == [["together", str(NUM_CHUNKS)]] * 2
    assert sum(int(line.split("|")[2]) for line in told) >= NUM_CHUNKS
    assert_same_bits(folder, uninterrupted)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [group["num_runs"] for group in manifest["groups"]] == [27]
