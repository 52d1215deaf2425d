import dataclasses
import gc
import json
from pathlib import Path
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays

from bayesfilt import records
from bayesfilt.records import (
    Record,
    Variable,
    pack_record,
    read_record,
    to_datatree,
    unpack_settings,
    unpack_values,
    variable,
    write_record,
)

FREE = {
    "step": variable("step", [0, 10, 20], units="days", description="not a date"),
    "run": variable("run", ["adamw", "filtre à pas égal"]),
    "loss": variable(
        ("run", "step"), np.array([[1.5, np.nan, np.inf], [1e-300, 0, -1]]), units="nat"
    ),
    "kept": variable("step", [True, False, True]),
    "since": variable("step", [0.5, 1, 2], units="days since 2000-01-01"),
    "small": variable("step", np.arange(3, dtype=np.float32)),
    "diverged_at": variable((), -1),
    "nothing": variable(("none", "step"), np.zeros((0, 3))),
}
CONFIG = {"learning_rate": 1e-3, "stationary_variance": np.inf, "mask": None, "tied": True}
RECORD = Record(
    groups={"digits-mlp/free": FREE, "digits-cnn/free": FREE, "validity": {}},
    attributes={"config": CONFIG, "tasks": ["a", "b"], "seed": 3, "done": True, "note": "Ω"},
)


def assert_equal(one: Record, other: Record) -> None:
    assert one.attributes == other.attributes
    assert {k: type(v) for k, v in one.attributes.items()} == {
        k: type(v) for k, v in other.attributes.items()
    }
    assert one.groups.keys() == other.groups.keys()
    for name, group in one.groups.items():
        assert group.keys() == other.groups[name].keys()
        for key, item in group.items():
            twin = other.groups[name][key]
            assert item.dims == twin.dims
            assert item.attributes == twin.attributes
            assert item.values.dtype.kind == twin.values.dtype.kind
            if item.values.dtype.kind != "U":
                assert item.values.dtype == twin.values.dtype
            np.testing.assert_array_equal(item.values, twin.values)


@pytest.fixture(params=["record.nc", "record.npz"])
def kind(request, monkeypatch):
    """Run the test with netCDF, and again where its libraries are missing."""
    if request.param == "record.npz":
        monkeypatch.setattr(records, "_missing_for_netcdf", lambda: "xarray h5netcdf")
    return request.param


def test_what_is_read_is_what_was_written(tmp_path, kind):
    path = write_record(RECORD, tmp_path)
    assert path == tmp_path / kind
    assert_equal(read_record(path), RECORD)
    assert_equal(read_record(tmp_path), RECORD)


def test_a_path_may_hold_spaces_and_any_script(tmp_path, kind):
    folder = tmp_path / "läuft 2 – 実験"
    write_record(RECORD, folder)
    assert_equal(read_record(folder), RECORD)


WORDS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["C"]), max_size=8)
NAMES = st.from_regex(r"[a-z][a-z0-9_ .é-]{0,8}", fullmatch=True)
SETTINGS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
ARRAYS = arrays.arrays(
    st.sampled_from(["float64", "float32", "int64", "int32", "uint8", "bool", "uint64"]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@pytest.mark.filterwarnings("error")
@hypothesis.given(
    values=st.dictionaries(NAMES, ARRAYS, max_size=3),
    words=st.lists(WORDS, max_size=3),
    attributes=st.dictionaries(NAMES.filter(lambda name: name != "dtype"), SETTINGS, max_size=3),
)
@hypothesis.settings(max_examples=60)
def test_any_array_and_any_setting_comes_back(tmp_path_factory, values, words, attributes):
    group = {
        f"x{key}": variable(tuple(f"{key}{n}" for n in range(array.ndim)), array, **attributes)
        for key, array in values.items()
    }
    group["words"] = variable("word", np.array(words, dtype=str))
    record = Record(groups={"a/b": group}, attributes=attributes)
    folder = tmp_path_factory.mktemp("any")
    assert_equal(read_record(write_record(record, folder)), record)
    packed = records._from_npz(records._to_npz(record))
    assert_equal(packed, record)
    packed = pack_record(record)
    assert packed.suffix == ".nc"
    assert unpack_settings(bytes(packed.data), "any.nc") == attributes
    values = unpack_values(bytes(packed.data), "any.nc", "a/b")
    assert values.keys() == group.keys()
    for key, item in group.items():
        np.testing.assert_array_equal(values[key], item.values, strict=bool(item.values.size))


@pytest.mark.parametrize("word", ["", "a\0b", "a\0", "\ud800", "two\nlines", "[1]", "ü" * 70_000])
def test_any_word_comes_back(tmp_path, kind, word):
    write_record(Record(groups={}, attributes={"word": word}), tmp_path)
    assert read_record(tmp_path).attributes == {"word": word}


def test_sixteen_bit_floats_are_kept_as_float32(tmp_path, kind):
    half = variable("weight", jnp.array([1.0, -2.5], dtype=jnp.bfloat16))
    write_record(Record(groups={"free": {"w": half}}, attributes={}), tmp_path)
    values = read_record(tmp_path).groups["free"]["w"].values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [1.0, -2.5])


def test_settings_may_be_dataclasses_named_tuples_paths_and_arrays(tmp_path, kind):
    @dataclasses.dataclass(frozen=True)
    class Config:
        out: Path
        rates: tuple[float, ...]

    class Point(NamedTuple):
        x: object

    settings = {"config": Config(Path("runs/a"), (1.0, 2.0)), "point": Point(jnp.ones(2))}
    write_record(Record(groups={}, attributes=settings), tmp_path)
    read = read_record(tmp_path).attributes
    assert read == {"config": {"out": "runs/a", "rates": [1.0, 2.0]}, "point": {"x": [1.0, 1.0]}}


def test_the_file_is_plain_netcdf_for_everybody_else(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = write_record(RECORD, tmp_path)
    with xarray.open_datatree(path, engine="h5netcdf", decode_timedelta=False) as tree:
        loss = tree["digits-mlp/free"]["loss"]
        assert loss.sel(run="adamw", step=0) == 1.5
        assert loss.attrs["units"] == "nat"
        assert json.loads(tree.attrs["config"])["learning_rate"] == 1e-3
        assert tree.attrs["done"] == 1
        assert tree.attrs == to_datatree(RECORD).attrs


def test_an_older_record_of_the_other_kind_does_not_stay_behind(tmp_path, monkeypatch):
    write_record(RECORD, tmp_path)
    monkeypatch.setattr(records, "_missing_for_netcdf", lambda: "h5py")
    newer = Record(groups={}, attributes={"seed": 4})
    write_record(newer, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["record.npz"]
    assert_equal(read_record(tmp_path), newer)


def test_the_values_of_one_group_are_read_without_the_rest(kind):
    packed = pack_record(RECORD)
    assert packed.suffix == Path(kind).suffix
    assert unpack_settings(bytes(packed.data), "record") == RECORD.attributes
    values = unpack_values(bytes(packed.data), "record", "digits-mlp/free")
    assert {key: array.dtype.kind for key, array in values.items()} == {
        key: item.values.dtype.kind for key, item in FREE.items()
    }
    for key, item in FREE.items():
        np.testing.assert_array_equal(values[key], item.values)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no file", bytes])
def test_values_of_a_damaged_file_or_a_missing_group_are_refused_in_one_line(kind, damage):
    data = damage(bytes(pack_record(RECORD).data))
    with pytest.raises(ValueError, match=r"x\.file .*") as caught:
        unpack_values(data, "x.file", "nowhere")
    assert "\n" not in str(caught.value)


# Faults: one line that names the file and what is wrong with it.


def damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {
        "cut in half": data[:middle],
        "one byte short": data[:-1],
        "a header only": data[:16],
        "the end wiped": data[:-500] + bytes(500),
        "a byte flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
        "empty": b"",
        "foreign": b"step,loss\n0,1.5\n",
    }


BIG = Record(
    groups={"free": {"x": variable("n", np.random.default_rng(0).normal(size=5_000))}},
    attributes={},
)


@pytest.mark.parametrize("fault", damaged(b"ab").keys())
def test_a_damaged_file_is_named_and_never_gives_numbers(tmp_path, kind, fault):
    path = write_record(BIG, tmp_path)
    path.write_bytes(damaged(path.read_bytes())[fault])
    with pytest.raises(ValueError, match="record") as caught:
        read_record(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_is_told_in_one_line_however_many_the_library_needs(tmp_path, kind, monkeypatch):
    def fail(data):
        raise OSError("bad block\nat 7\n")

    path = write_record(BIG, tmp_path)
    monkeypatch.setattr(records, "_from_netcdf", fail)
    monkeypatch.setattr(records, "_from_npz", fail)
    with pytest.raises(ValueError) as caught:
        read_record(tmp_path)
    assert str(caught.value) == f"{path} cannot be read as a record: bad block"


def test_netcdf_and_npz_of_other_programs_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.nc", "w") as file:
        file["x"] = np.arange(3)
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    for name in ("other.nc", "other.npz"):
        with pytest.raises(ValueError, match=f"{name} .* not written by bayesfilt"):
            read_record(tmp_path / name)


def test_a_pickle_is_never_opened(tmp_path):
    np.savez(tmp_path / "record.npz", **{"record.json": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_record(tmp_path)


def test_a_record_of_a_newer_bayesfilt_says_so(tmp_path, kind, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(records, "SCHEMA_VERSION", records.SCHEMA_VERSION + 1)
        write_record(RECORD, tmp_path)
    with pytest.raises(ValueError, match="schema 2 .* up to 1: a newer bayesfilt"):
        read_record(tmp_path)


def test_a_netcdf_record_without_its_libraries_says_what_to_install(tmp_path, monkeypatch):
    write_record(RECORD, tmp_path)
    monkeypatch.setattr(records, "_missing_for_netcdf", lambda: "h5netcdf")
    with pytest.raises(ValueError, match="pip install h5netcdf"):
        read_record(tmp_path)


def test_a_folder_without_a_record_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No record.nc or record.npz in"):
        read_record(tmp_path)


def group_of(**variables: Variable) -> Record:
    return Record(groups={"free": variables}, attributes={})


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (
            group_of(a=variable("step", [1, 2]), b=variable("step", [1, 2, 3])),
            "'step' is 2 long in 'a' and 3 in 'b'",
        ),
        (group_of(step=variable(("run", "step"), [[1]])), "named like a dimension"),
        (group_of(**{"a/b": variable((), 1)}), "plain name, got 'a/b'"),
        (group_of(a=variable((), 1, dtype="bool")), "'dtype'"),
        (group_of(a=variable((), 1, note=object())), "cannot store"),
        (Record(groups={"": {}}, attributes={}), "got ''"),
        (Record(groups={"a//b": {}}, attributes={}), "got 'a//b'"),
        (Record(groups={"a": {}, "a/b": {}}, attributes={}), "'a/b' lies inside group 'a'"),
        (Record(groups={}, attributes={"f": len}), "cannot store"),
        (Record(groups={}, attributes={"z": 1j}), "cannot store"),
    ],
)
def test_what_is_no_record_is_refused_before_anything_is_written(tmp_path, kind, record, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        write_record(record, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dims", "values", "complaint"),
    [
        ("step", [[1.0]], "2 dimensions"),
        (("a", "a"), [[1.0]], "one name for each"),
        ("step", [1j], "complex128"),
        ("step", [None], "object"),
        ("step", [b"bytes"], "S5"),
    ],
)
def test_a_variable_needs_a_name_for_each_dimension_and_storable_values(dims, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        variable(dims, values)


def test_packed_bytes_outlive_their_buffer_even_as_garbage():
    """A view into xarray's buffer, in a cycle that is collected, ended the process."""
    packed = pack_record(Record(groups={"free": FREE}, attributes={}))
    assert type(packed.data) is bytes
    cycle: list = [packed]
    cycle.append(cycle)
    del packed, cycle
    gc.collect()
