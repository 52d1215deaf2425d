"""All chunks of a sweep as one labelled tree, read only where it is touched.

One node for each task; every axis of the sweep is a named dimension, however short, so that
code written for one sweep works on the next. Nothing but a few labels is read until values
are asked for, and then only the chunks that hold them.
"""

import contextlib
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesfilt.atomic_files import write_bytes_atomically
from bayesfilt.records import Variable, as_plain, unpack_record, unpack_values
from bayesfilt.simulate.chunk_record import RUNS
from bayesfilt.simulate.store import ChunkKey, Store, listed_chunks, read_store, read_verified
from bayesfilt.simulate.sweep_plan import INVALID, Dimension, SweepGroup, SweepPlan

if TYPE_CHECKING:
    import xarray

FINISHED, MISSING, IMPOSSIBLE = "finished", "missing", "impossible"

_NO_COUNT = -1  # of a variable of whole numbers, where there is no run
_MOST_BYTES_KEPT = 256 * 2**20  # of chunks that were read, against reading them again
# Dimensions of a chunk's variables behind "run", and what they are called in the tree.
_LATER_DIMS = {"record": "step", "trace_step": "trace_step"}
# They are coordinates of the tree, or names for what `hash` tells better.
_NOT_SHOWN = {"learning_rate", "weight_decay", "b1", "b2", "eps", "seed", "hash", *_LATER_DIMS}


def merge(folder: str | Path) -> "xarray.DataTree":
    """The results of a sweep, finished or not, as one lazy `xarray.DataTree`.

    Every variable has the dimensions optimizer, schedule, batch_size, num_steps, the number
    axes (drawn ones: draw) and seed; recorded ones have step too, the union of the steps that
    any run recorded. Cells without a run, and steps that a run did not record, are NaN (-1 for
    whole numbers); `status` says "finished", "missing" or "impossible". A chunk is verified when
    it is read: one that turns out corrupt or foreign is a ValueError then, in one line.

    Raises:
        FileNotFoundError, ValueError: there is no sweep in the folder, or it cannot be read.
        ModuleNotFoundError: xarray is missing.
    """
    store = read_store(folder)
    return tree_of(store, listed_chunks(store))


def tree_of(store: Store, files: Mapping[ChunkKey, Sequence[Path]]) -> "xarray.DataTree":
    """The tree over some files of an open store; a chunk may have several, of which one counts."""
    import xarray

    reader = _Reader(store, files)
    tasks = store.plan.dimensions[0]
    nodes = {
        str(task): _task_node(store, reader, place, str(task))
        for place, task in enumerate(tasks.values)
    }
    attributes = {
        "sweep": json.dumps(as_plain(store.plan.sweep)),
        "sweep_hash": store.plan.hash,
        "finished_chunks": len(files),
        "chunks": len(store.chunks),
    }
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes), **nodes})


def write_netcdf(folder: str | Path, path: str | Path) -> Path:
    """Write all results of a sweep into one netCDF file, for programs that know no chunks.

    Raises:
        ValueError: a chunk is corrupt or foreign.
        CannotWriteError: the file cannot be written.
    """
    packed = merge(folder).to_netcdf(None, engine="h5netcdf")
    return write_bytes_atomically(Path(path).expanduser(), packed)


class _Reader:
    """Reads chunks when they are needed, verifies them, and keeps some for the next time."""

    def __init__(self, store: Store, files: Mapping[ChunkKey, Sequence[Path]]):
        self.files = files
        self._store = store
        self._kept: OrderedDict[ChunkKey, dict[str, np.ndarray]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # whoever computes with the tree may use threads

    def values(self, key: ChunkKey) -> dict[str, np.ndarray]:
        """Every variable of a finished chunk.

        Raises:
            ValueError: its file is corrupt or foreign, or was taken away meanwhile.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            path, data = self._read(key)
            values = self._kept[key] = unpack_values(data, path, RUNS)
            self._bytes += _size(values)
            while self._bytes > _MOST_BYTES_KEPT and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
            return values

    def labels(self, group: int) -> dict[str, Variable]:
        """The variables of a group that are shown, as its first chunk has them."""
        first = next((key for key in self.files if key.group == group), None)
        if first is None:
            return {}
        path, data = self._read(first)
        items = unpack_record(data, path).groups[RUNS].items()
        return {name: item for name, item in items if _is_shown(name, item)}

    def _read(self, key: ChunkKey) -> tuple[Path, bytes]:
        """The first sound one of a chunk's files; two processes may have made one each."""
        *others, last = self.files[key]
        for path in others:
            with contextlib.suppress(ValueError):
                return path, read_verified(self._store, path)
        return last, read_verified(self._store, last)


def _size(values: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in values.values())


def _is_shown(name: str, item: Variable) -> bool:
    return "run" in item.dims and name not in _NOT_SHOWN


class _Places(NamedTuple):
    """Where each cell of one task is to be found, and how its records are laid out."""

    cells: np.ndarray  # of the task's grid: index of the run in the plan, or INVALID
    groups: np.ndarray  # of every run of the plan ...
    chunks: np.ndarray  # ... its chunk within the group ...
    rows: np.ndarray  # ... and its row within the chunk
    reader: _Reader


def _task_node(store: Store, reader: _Reader, place: int, task: str) -> "xarray.Dataset":
    import xarray

    plan = store.plan
    places = _places(store, reader, place)
    dims = tuple(dimension.name for dimension in plan.dimensions[1:])
    groups = [group for group in plan.groups if group.task == task]
    variables = {"status": _status(dims, places, plan)}
    # One chunk of each group is opened for the names, kinds and units of its variables.
    known: dict[str, tuple[Variable, dict[int, SweepGroup]]] = {}
    for group in groups:
        for name, item in reader.labels(group.index).items():
            known.setdefault(name, (item, {}))[1][group.index] = group
    labels = {"step": _union_of_steps(groups), "trace_step": _longest_trace(groups)}
    for name, (item, having) in known.items():
        later = tuple(_LATER_DIMS[dim] for dim in item.dims[1:])
        lazy = _lazy_array(places, name, item, [labels[dim] for dim in later], having)
        variables[name] = xarray.Variable((*dims, *later), lazy, as_plain(item.attributes))
    coordinates = _coordinates(plan.dimensions[1:])
    used = {dim for item, _ in known.values() for dim in item.dims[1:]}
    for dim in used:
        name = _LATER_DIMS[dim]
        described = {"units": "steps", "description": "0 is the first; before it was taken"}
        coordinates[name] = xarray.Variable(name, labels[name], described)
    return xarray.Dataset(variables, coordinates)


def _places(store: Store, reader: _Reader, place: int) -> _Places:
    runs = store.plan.runs
    groups = np.array([run.group for run in runs])
    positions = np.array([run.position for run in runs])
    widths = np.array([execution.width for execution in store.executions])[groups]
    return _Places(
        cells=store.plan.run_of_cell[place],
        groups=groups,
        chunks=positions // widths,
        rows=positions % widths,
        reader=reader,
    )


def _status(dims: tuple[str, ...], places: _Places, plan: SweepPlan) -> "xarray.Variable":
    import xarray

    keys = map(ChunkKey, places.groups.tolist(), places.chunks.tolist())
    there = np.array([key in places.reader.files for key in keys])
    status = np.where(there, FINISHED, MISSING)[places.cells]
    status = np.where(places.cells == INVALID, IMPOSSIBLE, status)
    reasons = [f"{each.where}: {each.reason}" for each in plan.invalid]
    description = "whether the cell's run is there; an impossible one has none"
    attributes = {"description": description, "impossible": json.dumps(reasons)}
    return xarray.Variable(dims, status, attributes)


def _coordinates(dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    import xarray

    coordinates = {each.name: xarray.Variable(each.name, list(each.values)) for each in dimensions}
    for each in dimensions:
        for name, values in each.drawn.items():
            coordinates[name] = xarray.Variable(each.name, list(values))
    return coordinates


def _union_of_steps(groups: list[SweepGroup]) -> np.ndarray:
    return np.unique(np.concatenate([group.record_steps for group in groups] or [[]]))


def _longest_trace(groups: list[SweepGroup]) -> np.ndarray:
    return np.arange(max((group.num_steps for group in groups), default=0))


def _own_steps(group: SweepGroup, dim: str) -> np.ndarray:
    return group.record_steps if dim == "record" else np.arange(group.num_steps)


def _lazy_array(
    places: _Places,
    name: str,
    item: Variable,
    labels: list[np.ndarray],
    groups: dict[int, SweepGroup],
) -> Any:
    """One variable over all cells of a task, as xarray's lazily indexed array."""
    from xarray.core.indexing import LazilyIndexedArray

    # Where in the tree's dimension the records of each group stand; one later dimension at most.
    stands = {
        index: np.searchsorted(labels[0], _own_steps(group, item.dims[1])) if labels else None
        for index, group in groups.items()
    }
    is_count = item.values.dtype.kind in "iu"
    blank = _NO_COUNT if is_count else np.nan
    shape = places.cells.shape + tuple(len(label) for label in labels)

    def read(key: tuple[Any, ...]) -> np.ndarray:
        """The values at an orthogonal index: integers, slices and vectors, one a dimension."""
        cells, dropped = places.cells, 0
        for axis, index in enumerate(key[: cells.ndim]):
            cells = cells[(slice(None),) * (axis - dropped) + (index,)]
            dropped += np.ndim(index) == 0 and not isinstance(index, slice)
        full = np.full(cells.shape + shape[places.cells.ndim :], blank, item.values.dtype)
        _fill(full, np.asarray(cells), places, name, stands)
        return full[(..., key[-1])] if labels else full

    return LazilyIndexedArray(_backend_array()(shape, item.values.dtype, read))


def _fill(
    full: np.ndarray,
    cells: np.ndarray,
    places: _Places,
    name: str,
    stands: dict[int, np.ndarray | None],
) -> None:
    """Put the values of these cells into `full`, chunk by chunk."""
    asked = np.unique(cells[cells != INVALID])
    by_chunk = np.stack([places.groups[asked], places.chunks[asked]], axis=-1)
    for group, chunk in np.unique(by_chunk, axis=0).tolist():
        key = ChunkKey(group=group, chunk=chunk)
        if key not in places.reader.files or group not in stands:
            continue
        values = places.reader.values(key)[name]
        inside = (places.groups[cells] == group) & (places.chunks[cells] == chunk)
        inside &= cells != INVALID
        rows = places.rows[cells[inside]]
        where = stands[group]
        if where is None:
            full[inside] = values[rows]
        else:
            block = full[inside]
            block[:, where] = values[rows]
            full[inside] = block


@functools.cache
def _backend_array() -> Any:
    """A class of xarray's, made when it is needed first: xarray takes long to import."""
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class FromChunks(BackendArray):
        """Values that `read` fetches for an orthogonal index."""

        def __init__(self, shape, dtype, read):
            self.shape, self.dtype, self._read = shape, dtype, read

        def __getitem__(self, key):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )

    return FromChunks
