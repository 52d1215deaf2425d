"""Shards that ran in folders of their own, put together into one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayesfilt.atomic_files import write_bytes_atomically
from bayesfilt.records import unpack_values
from bayesfilt.run_directory import MANIFEST_NAME
from bayesfilt.simulate.chunk_record import RUNS
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

_NAMED_AT_MOST = 5  # of the missing chunks


class MergedShards(NamedTuple):
    """What was put together."""

    store: Store
    chunks: int
    problems: tuple[str, ...]  # files of the shards that were left out, each in one line


def merge_shards(folders: Sequence[str | Path], out: str | Path) -> MergedShards:
    """Copy the chunks of several folders of one sweep into one, byte by byte.

    Args:
        folders: of the shards; two may hold the same chunk if they agree on every number.
        out: the folder of the whole; new, empty, or one that holds part of this very sweep.

    Raises:
        ValueError: different sweeps or widths, a chunk that no folder has, or one on which two
            disagree: before anything is written.
        CannotWriteError: `out` cannot be written.
    """
    if not folders:
        raise ValueError("merge_shards needs at least one folder, got none.")
    earlier = [out] if (Path(out).expanduser() / MANIFEST_NAME).exists() else []
    stores = [read_store(folder) for folder in (*earlier, *folders)]
    first = stores[0]
    for store in stores[1:]:
        _require_same(first, store)
    found: dict[ChunkKey, tuple[Store, Path]] = {}
    problems: list[str] = []
    for store in stores:
        stock = take_stock(store)
        problems += stock.problems
        for key, path in stock.finished.items():
            if key in found:
                _require_equal(*found[key], store, path)
            found.setdefault(key, (store, path))
    _require_all(first, found)
    whole = open_store(out, first.plan, lambda: first.executions)
    _require_same(first, whole)
    for store, path in found.values():
        _copy(store, path, whole)
    return MergedShards(store=whole, chunks=len(found), problems=tuple(problems))


def _require_same(first: Store, other: Store) -> None:
    if first.plan.hash != other.plan.hash:
        raise ValueError(
            f"{first.folder} and {other.folder} hold different sweeps"
            f" ({first.plan.hash[:12]} and {other.plan.hash[:12]})."
        )
    for group, one, another in zip(
        first.plan.groups, first.executions, other.executions, strict=True
    ):
        if one.width != another.width:
            raise ValueError(
                f"{first.folder} and {other.folder} cut {group.title} into chunks of {one.width}"
                f" and of {another.width} runs: run the shards with one --width, or copy the"
                " manifest.json of the first into the other folders before they start."
            )


def _require_equal(one: Store, path: Path, other: Store, twin: Path) -> None:
    """Refuse two files of one chunk that differ in a number; how long it took may differ."""
    if path.name == twin.name:  # the same checksum
        return
    ours, theirs = _values(one, path), _values(other, twin)
    same = ours.keys() == theirs.keys() and all(
        values.dtype == theirs[name].dtype and values.tobytes() == theirs[name].tobytes()
        for name, values in ours.items()
    )
    if not same:
        raise ValueError(f"{path} and {twin} are the same chunk with different numbers.")


def _values(store: Store, path: Path) -> Mapping[str, np.ndarray]:
    return unpack_values(read_verified(store, path), path, RUNS)


def _require_all(first: Store, found: Mapping[ChunkKey, object]) -> None:
    wanted = [key_of(chunk) for chunk in first.chunks]
    missing = [str(key) for key in wanted if key not in found]
    if not missing:
        return
    named = ", ".join(missing[:_NAMED_AT_MOST])
    more = len(missing) - _NAMED_AT_MOST
    tail = f" and {more} more" if more > 0 else ""
    raise ValueError(
        f"The shards lack {len(missing)} of {len(wanted)} chunks ({named}{tail}): a folder is"
        " missing, or a shard is not finished; run it again."
    )


def _copy(store: Store, path: Path, whole: Store) -> None:
    target = whole.folder / CHUNKS_NAME / path.name
    if not store.folder.samefile(whole.folder):
        write_bytes_atomically(target, read_verified(store, path))
