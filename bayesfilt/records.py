"""Results <-> files: labelled arrays in, one netCDF or npz file out, and back.

A record is groups of variables ("free" -> loss(run, step)) and settings. On disk it is
`record.nc`, which xarray opens as a DataTree, or `record.npz` where xarray, h5netcdf or h5py
are missing. Nothing is ever pickled. What is read equals what was written, but for tuples,
which come back as lists, and 16-bit floats, which are kept as float32.
"""

import dataclasses
import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesfilt.atomic_files import require_whole_hdf5, write_bytes_atomically

if TYPE_CHECKING:
    import xarray

SCHEMA_VERSION = 1
NETCDF_NAME, NPZ_NAME = "record.nc", "record.npz"

_SCHEMA = "bayesfilt_schema"
_AS_JSON = "json_attributes"  # names of the attributes that are JSON strings in the file
_NPZ_INDEX = "record.json"
# netCDF and xarray use these themselves: an attribute of that name would change the values.
_RESERVED = {_SCHEMA, _AS_JSON, "dtype", "coordinates", "scale_factor", "add_offset"}
_RESERVED |= {"_FillValue", "missing_value", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}


class Variable(NamedTuple):
    """One labelled array. Attributes: "units" and "description" at least."""

    dims: tuple[str, ...]
    values: np.ndarray
    attributes: dict[str, Any]


type Group = dict[str, Variable]
"""Variables by name; one named like its only dimension is that dimension's coordinate."""


class Record(NamedTuple):
    """What a run found. A group's name may be a path: "digits-mlp/free"."""

    groups: dict[str, Group]
    attributes: dict[str, Any]


def variable(dims: str | tuple[str, ...], values: Any, /, **attributes: Any) -> Variable:
    """Label an array (numpy's, jax's, a list of numbers or of words) with its dimensions."""
    dims = (dims,) if isinstance(dims, str) else tuple(dims)
    array = np.asarray(values)
    if array.dtype.name in ("float16", "bfloat16"):  # netCDF has neither; float32 holds both
        array = array.astype(np.float32)
    storable = array.dtype.kind in "biuU" or array.dtype in (np.float32, np.float64)
    if not storable:
        raise ValueError(f"variable needs numbers, bools or words, got dtype {array.dtype}.")
    if len(set(dims)) != array.ndim or len(dims) != array.ndim:
        raise ValueError(
            f"variable needs one name for each of {array.ndim} dimensions"
            f" (shape {array.shape}), got {dims}."
        )
    return Variable(dims=dims, values=array, attributes=attributes)


def write_record(record: Record, folder: str | Path) -> Path:
    """Write `record.nc` (or `record.npz`) into `folder`, wholly or not at all.

    Raises:
        ValueError: the groups, names, shapes or attributes do not make a record.
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    packed = pack_record(record)
    folder = Path(folder)
    name, other = (NETCDF_NAME, NPZ_NAME) if packed.suffix == ".nc" else (NPZ_NAME, NETCDF_NAME)
    path = write_bytes_atomically(folder / name, packed.data)
    # An older record of the other kind would be read instead.
    (folder / other).unlink(missing_ok=True)
    return path


class PackedRecord(NamedTuple):
    """A record as the bytes of its file, and the suffix of the kind of file they are."""

    data: bytes
    suffix: str  # ".nc" or ".npz"


def pack_record(record: Record) -> PackedRecord:
    """The file of a record, in memory: HDF5 on a full disk fails late, unclearly, and at exit.

    Raises:
        ValueError: the groups, names, shapes or attributes do not make a record.
    """
    _check(record)
    if _missing_for_netcdf():
        return PackedRecord(data=_to_npz(record), suffix=".npz")
    return PackedRecord(data=_to_netcdf(record), suffix=".nc")


def read_record(path: str | Path) -> Record:
    """Read the record in a file, or in a run directory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, damaged, foreign or of a newer bayesfilt.
    """
    path = Path(path)
    file = _record_in(path) if path.is_dir() else path
    return unpack_record(file.read_bytes(), file)


def unpack_record(data: bytes, file: str | Path) -> Record:
    """The record in the bytes of `file`, which is named where they are none.

    Raises:
        ValueError: the bytes are truncated, damaged, foreign or of a newer bayesfilt.
    """
    if data.startswith(b"\x89HDF"):
        unpack = _from_netcdf
        if missing := _missing_for_netcdf():
            raise ValueError(f"Reading {file} needs {missing}: pip install {missing}")
    elif data.startswith(b"PK"):
        unpack = _from_npz
    else:
        what = "neither netCDF4 nor npz" if data else "empty"
        raise ValueError(f"{file} is not a record: it is {what}.")
    try:
        return unpack(data)
    except Exception as error:
        raise ValueError(_unreadable(file, error)) from error


def unpack_settings(data: bytes, file: str | Path) -> dict[str, Any]:
    """A record's attributes alone, much sooner than all of it; refuses as `unpack_record`."""
    return _unpack_part(data, file, None)[0]


def unpack_values(data: bytes, file: str | Path, group: str) -> dict[str, np.ndarray]:
    """One group's values without labels, much sooner than all of it; refuses a missing group."""
    return _unpack_part(data, file, group)[1]


def to_datatree(record: Record) -> "xarray.DataTree":
    """The record as the DataTree that its netCDF file holds, with encoded attributes.

    Settings that netCDF cannot hold are JSON strings there: `json.loads(tree.attrs["config"])`.
    """
    import xarray

    datasets = {
        name: xarray.Dataset(
            {
                key: xarray.Variable(item.dims, item.values, _encode(item.attributes))
                for key, item in group.items()
            }
        )
        for name, group in record.groups.items()
    }
    attributes = {**_encode(record.attributes), _SCHEMA: SCHEMA_VERSION}
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **datasets})


def as_plain(value: Any) -> Any:
    """What JSON can hold of `value`: dicts, lists, words, numbers, bools and None."""
    if hasattr(value, "tolist"):  # numpy's and jax's arrays and scalars
        value = value.tolist()
    elif hasattr(value, "_asdict"):  # a NamedTuple
        value = value._asdict()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: as_plain(getattr(value, field.name)) for field in fields}
    raise ValueError(f"cannot store {value!r}: a {type(value).__name__} is no setting.")


def _check(record: Record) -> None:
    """Refuse what one of the two kinds of file could not hold or would not give back."""
    for name, group in record.groups.items():
        if not all(part.strip(".") for part in name.split("/")):
            raise ValueError(f"A group needs a name like 'free' or 'task/free', got {name!r}.")
        above = [other for other in record.groups if name.startswith(f"{other}/")]
        if above:  # DataTree would hand the coordinates of `above` down into `name`
            raise ValueError(f"Group {name!r} lies inside group {above[0]!r}; put it beside.")
        _check_group(name, group)
    _encode(record.attributes)


def _check_group(name: str, group: Group) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for key, item in group.items():
        if not key.strip(".") or "/" in key:
            raise ValueError(f"A variable of group {name!r} needs a plain name, got {key!r}.")
        if key in item.dims and item.dims != (key,):
            raise ValueError(
                f"{name}/{key} is named like a dimension and needs that one alone, got {item.dims}."
            )
        if reserved := _RESERVED & item.attributes.keys():
            raise ValueError(f"{name}/{key}: netCDF keeps the attribute name {min(reserved)!r}.")
        _encode(item.attributes)
        for dim, size in zip(item.dims, item.values.shape, strict=True):
            known, where = sizes.setdefault(dim, (size, key))
            if size != known:
                raise ValueError(
                    f"Group {name!r}: dimension {dim!r} is {known} long in {where!r}"
                    f" and {size} in {key!r}."
                )


def _encode(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as netCDF knows them: words, numbers, bools as 0/1, the rest JSON strings."""
    encoded, as_json = {}, []
    for name, value in attributes.items():
        if not name or "/" in name:
            raise ValueError(f"An attribute needs a plain name, got {name!r}.")
        value = as_plain(value)
        if isinstance(value, bool):
            value = np.int8(value)  # the only int8: that is how it is known again
        elif not _fits_netcdf(value):
            value = json.dumps(value)
            as_json.append(name)
        encoded[name] = value
    return {**encoded, _AS_JSON: json.dumps(as_json)} if as_json else encoded


def _fits_netcdf(value: Any) -> bool:
    if isinstance(value, str):  # HDF5 ends a string at NUL, and wants UTF-8
        return "\0" not in value and value.encode("utf-8", "ignore").decode() == value
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _decode(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    as_json = set(json.loads(attributes.get(_AS_JSON, "[]")))
    decoded = {}
    for name, value in attributes.items():
        if name in as_json:
            decoded[name] = json.loads(value)
        elif isinstance(value, np.generic) and value.dtype == np.int8:
            decoded[name] = bool(value)
        elif name != _AS_JSON:
            decoded[name] = value.item() if isinstance(value, np.generic) else value
    return decoded


def _to_netcdf(record: Record) -> bytes:
    encoding = {
        f"/{name}": {key: _packing(item) for key, item in group.items()}
        for name, group in record.groups.items()
    }
    tree = to_datatree(record)
    written = tree.to_netcdf(None, engine="h5netcdf", encoding=encoding)
    try:
        return bytes(written)
    finally:
        # A view that ends among garbage may outlive the buffer that it looks into: SystemError.
        if isinstance(written, memoryview):
            written.release()


def _packing(item: Variable) -> dict[str, Any]:
    # No fill value: NaN is a finding here, never "missing".
    plain: dict[str, Any] = {"_FillValue": None}
    if item.values.dtype.kind == "U" or item.values.size < 2 or not item.dims:
        return plain
    return {**plain, "zlib": True, "complevel": 4, "shuffle": True}  # and with a checksum


def _from_netcdf(data: bytes) -> Record:
    import xarray

    require_whole_hdf5(data)
    # "days" in `units` is no reason to make dates.
    tree = xarray.open_datatree(
        io.BytesIO(data),
        engine="h5netcdf",
        decode_times=False,
        phony_dims="sort",  # another program's HDF5 opens without a warning, and is refused below
    )
    with tree:
        attributes = _decode(tree.attrs)
        _check_schema(attributes.pop(_SCHEMA, None))
        groups = {
            node.path.lstrip("/"): {
                str(key): variable(
                    tuple(map(str, item.dims)), _words(item.values), **_decode(item.attrs)
                )
                for key, item in node.to_dataset().variables.items()
            }
            for node in tree.subtree
            if node.is_leaf and not node.is_root
        }
    return Record(groups=groups, attributes=attributes)


def _unpack_part(
    data: bytes, file: str | Path, group: str | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attributes, and the values of one group, without xarray between."""
    if not data.startswith(b"\x89HDF") or _missing_for_netcdf():
        record = unpack_record(data, file)
        if group is not None and group not in record.groups:
            raise ValueError(f"{file} has no group {group!r}.")
        found = record.groups[group] if group is not None else {}
        return record.attributes, {key: item.values for key, item in found.items()}
    import h5netcdf

    try:
        with h5netcdf.File(io.BytesIO(data), "r", decode_vlen_strings=True) as opened:
            attributes = _decode(opened.attrs)
            _check_schema(attributes.pop(_SCHEMA, None))
            variables = opened[group].variables if group is not None else {}
            return attributes, {key: _as_written(item) for key, item in variables.items()}
    except Exception as error:
        raise ValueError(_unreadable(file, error)) from error


def _unreadable(file: str | Path, error: Exception) -> str:
    """A damaged file may raise anything inside HDF5 or zip; in one line, what it was."""
    # A KeyError prints its message in quotes; every other error as it is.
    reason = str(error.args[0] if error.args else type(error).__name__).splitlines()[0]
    return f"{file} cannot be read as a record: {reason}"


def _as_written(item: Any) -> np.ndarray:
    """A variable of h5netcdf's as xarray would give it: words as words, bools as bools."""
    values = _words(np.asarray(item[...]))
    return values.astype(bool) if item.attrs.get("dtype") == "bool" else values


def _words(values: np.ndarray) -> np.ndarray:
    # h5netcdf and older xarray hand words over as Python objects.
    return values.astype(str) if values.dtype.kind in "OT" else values


def _to_npz(record: Record) -> bytes:
    index = {
        _SCHEMA: SCHEMA_VERSION,
        "attributes": as_plain(record.attributes),
        "groups": {
            name: {
                key: {"dims": item.dims, "attributes": as_plain(item.attributes)}
                for key, item in group.items()
            }
            for name, group in record.groups.items()
        },
    }
    arrays = {
        f"{name}/{key}": item.values
        for name, group in record.groups.items()
        for key, item in group.items()
    }
    # As bytes: a numpy string would be four times as long and lose its last NULs.
    arrays[_NPZ_INDEX] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _from_npz(data: bytes) -> Record:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        index = json.loads(bytes(arrays[_NPZ_INDEX])) if _NPZ_INDEX in arrays else {}
        _check_schema(index.get(_SCHEMA))
        groups = {
            name: {
                key: variable(tuple(item["dims"]), arrays[f"{name}/{key}"], **item["attributes"])
                for key, item in group.items()
            }
            for name, group in index["groups"].items()
        }
    return Record(groups=groups, attributes=index["attributes"])


def _check_schema(version: int | None) -> None:
    if version is None:
        raise ValueError("it was not written by bayesfilt.")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"it has record schema {version} and this bayesfilt knows up to {SCHEMA_VERSION}:"
            " a newer bayesfilt wrote it."
        )


def _missing_for_netcdf() -> str:
    """The libraries that netCDF needs and that are not there, by name."""
    needed = ("xarray", "h5netcdf", "h5py")
    return " ".join(name for name in needed if importlib.util.find_spec(name) is None)


def _record_in(folder: Path) -> Path:
    for name in (NETCDF_NAME, NPZ_NAME):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"No {NETCDF_NAME} or {NPZ_NAME} in {folder}.")
