"""The folder of a sweep: what begins it, what it refuses, what it survives."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bayesfilt import atomic_files, provenance, records
from bayesfilt.atomic_files import CannotWriteError
from bayesfilt.records import unpack_values
from bayesfilt.simulate.merge_shards import merge_shards
from bayesfilt.simulate.store import (
    ChunkKey,
    finished_file,
    key_of,
    open_store,
    read_store,
    take_stock,
    write_chunk,
)
from bayesfilt.simulate.sweep_plan import plan_sweep
from tests.simulate.sweeps import GRID, WIDTH, execution, executions, filled_store, made_up


@pytest.fixture(scope="module")
def plan():
    return plan_sweep(GRID)


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    """A whole sweep; copy it before changing it."""
    return filled_store(tmp_path_factory.mktemp("whole"), plan)


@pytest.fixture
def store(finished, plan, tmp_path):
    """A copy of the whole sweep."""
    shutil.copytree(finished.folder, tmp_path / "sweep")
    return open_store(tmp_path / "sweep", plan, never)


def never():
    raise AssertionError("measured all the same")


def only_file(store, key):
    (path,) = (store.folder / "chunks").glob(f"{key}-*")
    return path


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_sweep_is_one_manifest_and_one_file_for_each_chunk(store):
    names = sorted(path.name for path in (store.folder / "chunks").iterdir())
    places = [name.rsplit("-", 1)[0] for name in names]
    assert places == [f"{group:02d}-{chunk:04d}" for group in range(4) for chunk in range(2)]
    for path in (store.folder / "chunks").iterdir():
        promised = path.stem.rsplit("-", 1)[1]
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(promised)
        assert len(promised) == 16
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["sweep_hash"] == store.plan.hash
    assert manifest["sweep"]["learning_rate"] == "1e-2,1e-1,1e3"
    assert [group["execution"]["width"] for group in manifest["groups"]] == [WIDTH] * 4
    assert [group["num_runs"] for group in manifest["groups"]] == [15, 15, 10, 10]
    assert sum(each["num_cells"] for each in manifest["invalid"]) == 10
    assert {"versions", "commit", "device", "flags", "written_at"} <= manifest.keys()


def test_who_comes_second_obeys_the_manifest_that_stands(plan, tmp_path):
    first = open_store(tmp_path, plan, lambda: executions(plan, 16))
    second = open_store(tmp_path, plan, never)
    assert first.made_here and not second.made_here
    assert [each.width for each in second.executions] == [16] * 4
    assert second.executions == first.executions == read_store(tmp_path).executions
    assert second.notes == ()


def test_of_many_processes_that_begin_at_once_all_obey_one(plan, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        widths = [8 * 2**power for power in range(8)]
        stores = list(
            pool.map(
                lambda width: open_store(tmp_path, plan, lambda: executions(plan, width)), widths
            )
        )
    assert sum(store.made_here for store in stores) == 1
    assert len({store.executions for store in stores}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_sweep_is_read_back_from_its_folder(store, plan):
    found = read_store(store.folder)
    assert found.plan.sweep == plan.sweep
    assert found.plan.runs == plan.runs
    np.testing.assert_array_equal(found.plan.run_of_cell, plan.run_of_cell)
    assert found.chunks == store.chunks


def test_a_sweep_in_float64_is_read_where_float64_is_off(tmp_path, float32_only):
    import jax

    with jax.enable_x64(True):
        exact = plan_sweep(dataclasses.replace(GRID, dtype="float64"))
    open_store(tmp_path, exact, lambda: executions(exact))
    assert read_store(tmp_path).plan.runs == exact.runs


# What is refused, in one line.


def test_another_sweep_is_refused(store):
    other = plan_sweep(dataclasses.replace(GRID, seeds=6))
    with pytest.raises(ValueError, match=r"holds another sweep .*name another folder") as caught:
        open_store(store.folder, other, never)
    assert str(store.folder) in one_line(caught)


def test_the_same_sweep_in_other_words_is_the_same(store):
    spelled = dataclasses.replace(GRID, learning_rate=(0.01, 0.1, 1000.0), seeds=(0, 1, 2, 3, 4))
    assert open_store(store.folder, plan_sweep(spelled), never).executions == store.executions


def change_manifest(store, **changes):
    path = store.folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


def broken(name, value):
    whole = {"width": 8, "num_devices": 1, "steps_per_second": 1.0, "bytes_per_run": 1}
    return {**whole, name: value}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema_version": 2}, "sweep schema 2 .* up to 1: a newer bayesfilt"),
        ({"kind": "study"}, "not the manifest of a sweep: it is that of a study"),
        ({"kind": None}, "not the manifest of a sweep, or is truncated"),
        ({"groups": None}, "lacks part of a sweep's manifest"),
        ({"groups": [{"execution": {"width": 8}}]}, "lacks part of a sweep's manifest"),
        ({"groups": []}, "has 0 groups, its sweep 4"),
        ({"groups": [{"execution": (0, 1, 1.0, 1)}] * 4}, "lacks part of a sweep's manifest"),
        ({"groups": [{"execution": broken("width", 0)}] * 4}, "width and .* >= 1, got width=0"),
        ({"groups": [{"execution": broken("width", "8")}] * 4}, ">= 1, got width='8'"),
        ({"groups": [{"execution": broken("num_devices", 0)}] * 4}, "num_devices=0"),
        ({"versions": None}, "lacks part of a sweep's manifest"),
        ({"sweep": None}, "lacks part of a sweep's manifest: sweep"),
        ({"sweep": []}, "lacks part of a sweep's manifest: sweep"),
        ({"sweep_hash": None}, "lacks part of a sweep's manifest: sweep_hash"),
        ({"sweep_hash": 5}, "lacks part of a sweep's manifest: sweep_hash"),
        ({"schema_version": "2"}, "whole number for its schema_version, got '2'"),
    ],
)
def test_a_manifest_that_cannot_be_obeyed_is_refused(store, plan, changes, complaint):
    change_manifest(store, **changes)
    with pytest.raises(ValueError, match=complaint) as caught:
        open_store(store.folder, plan, never)
    assert "manifest.json" in one_line(caught)
    with pytest.raises(ValueError, match=complaint):
        read_store(store.folder)


def test_a_manifest_that_was_changed_is_not_believed(store):
    manifest = json.loads((store.folder / "manifest.json").read_text())
    change_manifest(store, sweep={**manifest["sweep"], "b1": "0.5"})
    with pytest.raises(ValueError, match="was changed, or written by another bayesfilt"):
        read_store(store.folder)


@pytest.mark.parametrize("text", ["", '{"kind": "sw', "[]", "null"])
def test_a_truncated_manifest_is_named(store, plan, text):
    (store.folder / "manifest.json").write_text(text)
    for opening in (
        lambda: open_store(store.folder, plan, never),
        lambda: read_store(store.folder),
    ):
        with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of a sweep"):
            opening()


def test_a_folder_of_other_things_is_refused_and_left_alone(plan, tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        open_store(tmp_path, plan, never)
    with pytest.raises(FileNotFoundError, match=r"No manifest\.json of a sweep in"):
        read_store(tmp_path)
    with pytest.raises(ValueError, match="is a file; a sweep needs a folder"):
        open_store(tmp_path / "thesis.txt", plan, never)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_beginning_left_does_not_make_a_folder_full(plan, tmp_path):
    (tmp_path / ".0f3a.partial.json").write_text("half of")
    assert open_store(tmp_path, plan, lambda: executions(plan)).made_here


def test_what_killed_processes_left_is_taken_away_once_it_is_old(store, plan):
    names = (".0f3a.partial.json", "chunks/.1b.partial.nc", "chunks/.2c.partial.nc", ".hidden")
    files = [store.folder / name for name in names]
    for path in files:
        path.write_bytes(b"half of")
        os.utime(path, (0, 0))
    os.utime(files[2])  # a live process may be writing this one
    open_store(store.folder, plan, never)
    assert [path.exists() for path in files] == [False, False, True, True]
    assert len(take_stock(store).finished) == 8


def test_another_version_or_device_is_said(store, plan, monkeypatch):
    now = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: {**now, "jax": "99.0"})
    device = provenance.device()
    monkeypatch.setattr(provenance, "device", lambda: {**device, "platform": "abacus"})
    notes = open_store(store.folder, plan, never).notes
    assert [note.split(" and this is ")[1] for note in notes] == [
        "99.0: chunks agree up to rounding.",
        "abacus: chunks agree up to rounding.",
    ]
    assert f"begun with jax {now['jax']}" in notes[0]


# What is not a whole chunk of this sweep is reported, and does not count.


def cut_in_half(path, data):
    path.write_bytes(data[: len(data) // 2])


def flip_a_bit(path, data):
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])


def empty(path, data):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, empty])
def test_a_damaged_chunk_is_reported_and_made_anew(store, plan, damage):
    key = ChunkKey(group=1, chunk=0)
    path = only_file(store, key)
    good = path.read_bytes()
    damage(path, good)
    stock = take_stock(store)
    assert key not in stock.finished
    assert len(stock.finished) == 7
    (problem,) = stock.problems
    assert problem.startswith(f"{path} is corrupt or truncated")
    assert finished_file(store, key) is None
    chunk = next(chunk for chunk in store.chunks if key_of(chunk) == key)
    write_chunk(store, key, made_up(plan, chunk, seconds=2.0))
    assert take_stock(store).problems == ()
    assert len(take_stock(store).finished) == 8
    fresh = only_file(store, key)  # the damaged file is gone
    values, before = (unpack_values(data, "", "runs") for data in (fresh.read_bytes(), good))
    for name, found in values.items():
        np.testing.assert_array_equal(found, before[name])


def test_a_damaged_chunk_that_comes_out_byte_for_byte_is_whole_again(store, plan):
    chunk = store.chunks[0]
    path = only_file(store, key_of(chunk))
    path.write_bytes(b"")
    assert write_chunk(store, key_of(chunk), made_up(plan, chunk)) == path
    assert take_stock(store).problems == ()
    assert finished_file(store, key_of(chunk)) == path


def test_foreign_files_are_reported_and_left_alone(store, plan, tmp_path):
    other_plan = plan_sweep(dataclasses.replace(GRID, seeds=4))
    other = filled_store(tmp_path / "other", other_plan)
    wide = open_store(tmp_path / "wide", plan, lambda: executions(plan, 16))
    write_chunk(wide, key_of(wide.chunks[0]), made_up(plan, wide.chunks[0]))
    chunks = store.folder / "chunks"
    moved = only_file(store, "00-0000")
    foreign = {
        chunks / "notes.txt": b"mine",
        chunks / only_file(other, "00-0000").name: only_file(other, "00-0000").read_bytes(),
        chunks / moved.name.replace("00-0000", "02-0001"): moved.read_bytes(),
        chunks / moved.name.replace("00-0000", "07-0000"): moved.read_bytes(),
        chunks / only_file(wide, "00-0000").name: only_file(wide, "00-0000").read_bytes(),
        chunks / f"00-0001-{hashlib.sha256(b'x').hexdigest()[:16]}.nc": b"x",
    }
    for path, data in foreign.items():
        path.write_bytes(data)
    (chunks / ".0f3a.partial.nc").write_bytes(b"half of")  # somebody may be writing it
    stock = take_stock(store)
    assert len(stock.finished) == 8
    told = {path: [line for line in stock.problems if str(path) in line] for path in foreign}
    assert {len(lines) for lines in told.values()} == {1}
    assert len(stock.problems) == len(foreign)
    assert all("\n" not in line for line in stock.problems)
    for chunk in store.chunks:
        assert write_chunk(store, key_of(chunk), made_up(plan, chunk)) in stock.finished.values()
    assert {path: path.read_bytes() for path in foreign} == foreign


def test_of_two_processes_that_made_a_chunk_one_file_counts(store, plan):
    chunk, key = store.chunks[0], key_of(store.chunks[0])
    packed = records.pack_record(made_up(plan, chunk, seconds=9.0))
    name = f"{key}-{hashlib.sha256(packed.data).hexdigest()[:16]}.nc"
    (store.folder / "chunks" / name).write_bytes(packed.data)
    stock = take_stock(store)
    assert stock.problems == ()
    assert stock.finished[key] == finished_file(store, key)
    # Whoever is slower than the other does not write at all.
    assert write_chunk(store, key, made_up(plan, chunk, seconds=5.0)) == stock.finished[key]
    assert len(list((store.folder / "chunks").glob(f"{key}-*"))) == 2


def test_a_full_disk_is_one_line_and_keeps_what_stands(plan, tmp_path, monkeypatch):
    store = filled_store(tmp_path, plan, part=slice(3))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(CannotWriteError, match="No space left on device") as caught:
        write_chunk(store, key_of(store.chunks[3]), made_up(plan, store.chunks[3]))
    assert "02-" not in one_line(caught)
    assert len(take_stock(store).finished) == 3
    with pytest.raises(CannotWriteError, match=r"manifest\.json: No space left on device"):
        open_store(tmp_path / "new", plan, lambda: executions(plan))
    assert list((tmp_path / "new").iterdir()) == []


def test_chunks_are_npz_where_netcdf_cannot_be_written(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_missing_for_netcdf", lambda: "xarray h5netcdf")
    store = filled_store(tmp_path, plan)
    stock = take_stock(store)
    assert stock.problems == ()
    assert {path.suffix for path in stock.finished.values()} == {".npz"}
    assert len(stock.finished) == 8


# Shards in folders of their own.


@pytest.fixture(scope="module")
def shards(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return [filled_store(folder / str(i), plan, part=slice(i, None, 3)).folder for i in range(3)]


def test_merged_shards_are_the_whole_sweep_byte_for_byte(shards, finished, tmp_path):
    merged = merge_shards(shards, tmp_path / "whole")
    assert (merged.chunks, merged.problems) == (8, ())
    found = {path.name for path in (tmp_path / "whole" / "chunks").iterdir()}
    assert found == {path.name for path in (finished.folder / "chunks").iterdir()}
    assert take_stock(merged.store).problems == ()
    assert len(take_stock(merged.store).finished) == 8
    again = merge_shards(shards, tmp_path / "whole")  # the same command again
    assert again.chunks == 8
    assert {path.name for path in (tmp_path / "whole" / "chunks").iterdir()} == found


def test_a_missing_shard_is_one_line_and_nothing_is_written(shards, tmp_path):
    with pytest.raises(ValueError, match=r"lack 3 of 8 chunks \(00-0001, 02-0000, 03-0001\)"):
        merge_shards([shards[0], shards[2]], tmp_path / "whole")
    with pytest.raises(ValueError, match=r"at least one folder"):
        merge_shards([], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_missing_shard_may_stand_in_the_folder_of_the_whole(shards, tmp_path):
    shutil.copytree(shards[1], tmp_path / "whole")
    assert merge_shards([shards[0], shards[2]], tmp_path / "whole").chunks == 8


def test_a_damaged_chunk_of_a_shard_is_missing_and_reported(shards, tmp_path):
    shutil.copytree(shards[0], tmp_path / "0")
    shutil.copytree(shards[1], tmp_path / "spare")
    (tmp_path / "0" / "chunks" / "notes.txt").write_text("mine")
    merged = merge_shards([tmp_path / "0", *shards[1:], tmp_path / "spare"], tmp_path / "whole")
    assert merged.problems[0].startswith(f"{tmp_path / '0' / 'chunks' / 'notes.txt'} is foreign")
    path = next((tmp_path / "0" / "chunks").glob("00-0000-*"))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"lack 1 of 8 chunks \(00-0000\)"):
        merge_shards([tmp_path / "0", *shards[1:]], tmp_path / "other")


def test_a_chunk_in_two_shards_must_be_the_same(shards, plan, tmp_path):
    twin = filled_store(tmp_path / "twin", plan, part=slice(0, 1), seconds=7.0)
    assert merge_shards([*shards, twin.folder], tmp_path / "whole").chunks == 8
    chunk = twin.chunks[1]
    record = made_up(plan, chunk)
    record.groups["runs"]["last_finite_loss"].values[3] += 1e-7
    write_chunk(twin, key_of(chunk), record)
    with pytest.raises(ValueError, match="are the same chunk with different numbers") as caught:
        merge_shards([*shards, twin.folder], tmp_path / "other")
    assert "00-0001" in one_line(caught)
    assert not (tmp_path / "other").exists()


def test_shards_of_other_sweeps_or_widths_are_refused(shards, plan, tmp_path):
    other = plan_sweep(dataclasses.replace(GRID, seeds=4))
    stranger = open_store(tmp_path / "a", other, lambda: executions(other)).folder
    with pytest.raises(ValueError, match="hold different sweeps"):
        merge_shards([*shards, stranger], tmp_path / "whole")
    wide = [execution(), execution(16), execution(), execution()]
    other_width = open_store(tmp_path / "b", plan, lambda: wide).folder
    with pytest.raises(ValueError, match=r"into chunks of 8 and of 16 runs: .*one --width"):
        merge_shards([*shards, other_width], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
