"""The folder of a sweep: one manifest, and one file for each finished chunk.

    runs/grid/manifest.json                      the sweep, and how its chunks are executed
    runs/grid/chunks/00-0003-9f86d081884c7d65.nc chunk 3 of group 0

A chunk is complete or absent, and its name carries the first 16 hexadecimal digits of the
sha256 of its bytes (`sha256sum` tells the same): one rename makes it finished and verifiable.
Nothing is ever changed in place, so any number of processes may work in one folder.
"""

import contextlib
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bayesfilt import provenance
from bayesfilt.atomic_files import (
    create_bytes_exclusively,
    is_leftover,
    write_bytes_atomically,
)
from bayesfilt.records import Record, pack_record, unpack_settings
from bayesfilt.run_directory import MANIFEST_NAME, strict_json
from bayesfilt.simulate.chunk_record import LIBRARIES
from bayesfilt.simulate.sweep import Sweep, sweep_from
from bayesfilt.simulate.sweep_plan import (
    ChunkPlan,
    Execution,
    SweepPlan,
    all_chunks,
    plan_sweep,
)

CHUNKS_NAME = "chunks"
STORE_SCHEMA_VERSION = 1

_KIND = "sweep"
_CHUNK_NAME = re.compile(r"(\d{2,})-(\d{4,})-([0-9a-f]{16})\.(?:nc|npz)")
_CHECKSUM_DIGITS = 16
_OLD_SECONDS = 3_600  # nobody takes so long to write one file


class ChunkKey(NamedTuple):
    """Which chunk of a sweep."""

    group: int
    chunk: int  # among those of the group

    def __str__(self) -> str:
        """As its file's name begins."""
        return f"{self.group:02d}-{self.chunk:04d}"


class Store(NamedTuple):
    """The folder of one sweep, opened."""

    folder: Path
    plan: SweepPlan
    executions: tuple[Execution, ...]  # one a group, as the manifest has them
    made_here: bool  # by this very call; otherwise it stood there, or another process was faster
    notes: tuple[str, ...]  # what differs now from how the sweep was begun

    @property
    def chunks(self) -> tuple[ChunkPlan, ...]:
        """All chunks of the sweep, in order; shard i of n is `[i::n]`."""
        return all_chunks(self.plan, [execution.width for execution in self.executions])


class Stock(NamedTuple):
    """What a folder holds of its sweep."""

    finished: dict[ChunkKey, Path]  # every byte verified
    problems: tuple[str, ...]  # files that are corrupt or foreign, each in one line


def key_of(chunk: ChunkPlan) -> ChunkKey:
    """The key of a planned chunk."""
    return ChunkKey(group=chunk.group, chunk=chunk.index)


def open_store(
    folder: str | Path,
    plan: SweepPlan,
    decide: Callable[[], Sequence[Execution]],
    *,
    device: dict[str, Any] | None = None,
) -> Store:
    """Begin the folder of a sweep, or go on with it.

    Args:
        folder: made if it is missing; a folder of other things is refused.
        plan: of the sweep.
        decide: how each group is to be executed; called only where no manifest says so yet.
            Of several processes that begin at the same time one writes the manifest, and
            all obey what stands there.
        device: what computes the chunks, as `provenance.device` says it; None: this process's.

    Raises:
        ValueError: the folder holds something else, another sweep, or a newer bayesfilt's.
        CannotWriteError: the folder cannot be made or written into.
    """
    folder = Path(folder).expanduser()
    device = device or provenance.device()
    made_here = False
    if not (folder / MANIFEST_NAME).exists():
        _refuse_other_things(folder)
        content = strict_json(_manifest(plan, tuple(decide()), device)).encode()
        made_here = create_bytes_exclusively(folder / MANIFEST_NAME, content)
    _remove_leftovers(folder)
    manifest = read_sweep_manifest(folder)
    if manifest["sweep_hash"] != plan.hash:
        raise ValueError(
            f"{folder} holds another sweep ({manifest['sweep_hash'][:12]}, this is"
            f" {plan.hash[:12]}): name another folder."
        )
    return _store(folder, plan, manifest, device, made_here=made_here)


def read_store(folder: str | Path) -> Store:
    """Open a sweep's folder for reading: the manifest says which sweep it is.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is damaged, not of a sweep, or of a newer bayesfilt.
    """
    folder = Path(folder).expanduser()
    manifest = read_sweep_manifest(folder)
    plan = planned(sweep_from(manifest["sweep"]))
    if plan.hash != manifest["sweep_hash"]:
        raise ValueError(
            f"{folder / MANIFEST_NAME} was changed, or written by another bayesfilt"
            f" ({manifest['versions'].get('bayesfilt')}): its sweep is not the one it names."
        )
    return _store(folder, plan, manifest, provenance.device(), made_here=False)


def read_sweep_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a sweep.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, not of a sweep, or of a newer bayesfilt.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"No {MANIFEST_NAME} of a sweep in {folder}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        kind, version = manifest["kind"], manifest["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the manifest of a sweep, or is truncated.") from error
    if kind != _KIND:
        raise ValueError(f"{path} is not the manifest of a sweep: it is that of a {kind}.")
    if not isinstance(version, int):
        raise ValueError(f"{path} needs a whole number for its schema_version, got {version!r}.")
    if version > STORE_SCHEMA_VERSION:
        raise ValueError(
            f"{path} has sweep schema {version} and this bayesfilt knows up to"
            f" {STORE_SCHEMA_VERSION}: a newer bayesfilt wrote it."
        )
    kinds = {"sweep": dict, "sweep_hash": str, "groups": list, "versions": dict, "device": dict}
    for name, wanted in kinds.items():
        if not isinstance(manifest.get(name), wanted):
            raise ValueError(f"{path} lacks part of a sweep's manifest: {name}.")
    return manifest


def listed_chunks(store: Store) -> dict[ChunkKey, list[Path]]:
    """The files of every chunk, by their names alone; nothing is opened or verified."""
    listed: dict[ChunkKey, list[Path]] = {}
    for path in _files(store.folder, "*"):
        if _CHUNK_NAME.fullmatch(path.name):
            listed.setdefault(_parts_of(path).key, []).append(path)
    return listed


def take_stock(store: Store) -> Stock:
    """Open every file among the chunks, and verify it."""
    wanted = {key_of(chunk) for chunk in store.chunks}
    finished: dict[ChunkKey, Path] = {}
    problems = []
    for path in _files(store.folder, "*"):
        try:
            read_verified(store, path)
            key = _parts_of(path).key
            if key not in wanted:
                raise ValueError(f"{path} is foreign: the sweep has no chunk {key}.")
            finished.setdefault(key, path)  # two processes may both have made it
        except ValueError as error:
            problems.append(str(error))
    return Stock(finished=finished, problems=tuple(problems))


def finished_file(store: Store, key: ChunkKey) -> Path | None:
    """The verified file of one chunk; None while it is not finished."""
    for path in _files(store.folder, f"{key}-*"):
        with contextlib.suppress(ValueError):
            read_verified(store, path)
            return path
    return None


def read_verified(store: Store, path: Path) -> bytes:
    """The bytes of a chunk, after making sure that they are whole and of this sweep.

    Raises:
        ValueError: they are corrupt, truncated or foreign; or the file cannot be read.
    """
    named = _parts_of(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    if checksum(data) != named.checksum:
        raise ValueError(
            f"{path} is corrupt or truncated: its bytes are not those that its name promises."
        )
    settings = unpack_settings(data, path)
    if settings.get("sweep_hash") != store.plan.hash:
        raise ValueError(f"{path} is foreign: a chunk of another sweep.")
    if (settings.get("group"), settings.get("chunk")) != named.key:
        raise ValueError(f"{path} is foreign: a chunk of another place in the sweep.")
    width = settings.get("width")
    if named.key.group >= len(store.executions) or width != store.executions[named.key.group].width:
        raise ValueError(f"{path} is foreign: {width} runs wide, and not as the manifest says.")
    return data


def write_chunk(store: Store, key: ChunkKey, record: Record) -> Path:
    """Store a finished chunk; if another process was faster, its file stays the one.

    A corrupt file of this chunk is taken away once the new one stands.

    Raises:
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    if stands := finished_file(store, key):
        return stands
    packed = pack_record(record)
    name = f"{key}-{checksum(packed.data)}{packed.suffix}"
    path = write_bytes_atomically(store.folder / CHUNKS_NAME / name, packed.data)
    for other in listed_chunks(store).get(key, []):
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            if checksum(other.read_bytes()) != _parts_of(other).checksum:
                other.unlink()
    return path


def checksum(data: bytes | memoryview) -> str:
    """The part of the sha256 of a chunk's bytes that its name carries."""
    return hashlib.sha256(data).hexdigest()[:_CHECKSUM_DIGITS]


@functools.lru_cache(maxsize=2)
def planned(sweep: Sweep) -> SweepPlan:
    """The plan of a sweep that is read; the shards of one sweep share it."""
    with jax.enable_x64(True):  # reading a float64 sweep must not need it of the process
        return plan_sweep(sweep)


def _manifest(
    plan: SweepPlan, executions: tuple[Execution, ...], device: dict[str, Any]
) -> dict[str, Any]:
    groups = [
        {
            "title": group.title,
            "num_runs": len(plan.runs_of(group.index)),
            "execution": executions[group.index],
        }
        for group in plan.groups
    ]
    return {
        "kind": _KIND,
        "schema_version": STORE_SCHEMA_VERSION,
        **provenance.here_and_now(),
        "device": device,
        "sweep": plan.sweep,
        "sweep_hash": plan.hash,
        "num_cells": plan.run_of_cell.size,
        "num_runs": len(plan.runs),
        "invalid": plan.invalid,
        "groups": groups,
    }


def _store(
    folder: Path,
    plan: SweepPlan,
    manifest: dict[str, Any],
    device: dict[str, Any],
    *,
    made_here: bool,
) -> Store:
    try:
        found = [Execution(**group["execution"]) for group in manifest["groups"]]
        notes = () if made_here else _differences(manifest, device)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / MANIFEST_NAME} lacks part of a sweep's manifest.") from error
    for execution in found:
        least = min(execution[:2]) if all(type(each) is int for each in execution[:2]) else 0
        if least < 1:
            raise ValueError(
                f"{folder / MANIFEST_NAME} needs a width and a number of devices >= 1, got"
                f" width={execution.width!r}, num_devices={execution.num_devices!r}."
            )
    if len(found) != len(plan.groups):
        raise ValueError(
            f"{folder / MANIFEST_NAME} has {len(found)} groups, its sweep {len(plan.groups)}."
        )
    return Store(
        folder=folder, plan=plan, executions=tuple(found), made_here=made_here, notes=notes
    )


def _differences(manifest: dict[str, Any], here: dict[str, Any]) -> tuple[str, ...]:
    """What may turn equal bits into equal-but-for-rounding, in words."""
    now, then = provenance.versions(), manifest["versions"]
    changed = {name: (then.get(name), now[name]) for name in LIBRARIES}
    there = manifest["device"]
    changed |= {name: (there.get(name), here[name]) for name in ("platform", "kind")}
    return tuple(
        f"the sweep was begun with {name} {old} and this is {new}: chunks agree up to rounding."
        for name, (old, new) in changed.items()
        if old != new
    )


def _refuse_other_things(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a sweep needs a folder.")
    if folder.is_dir() and not all(
        is_leftover(entry) or entry.name == MANIFEST_NAME for entry in folder.iterdir()
    ):
        raise ValueError(f"{folder} is not empty and holds no sweep; name another folder.")


def _remove_leftovers(folder: Path) -> None:
    """Take away what killed processes left; what is young may be a live process's."""
    for path in (*folder.glob(".*"), *(folder / CHUNKS_NAME).glob(".*")):
        with contextlib.suppress(OSError):  # another process does the same
            if is_leftover(path) and time.time() - path.stat().st_mtime > _OLD_SECONDS:
                path.unlink()


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files among the chunks, by name; without what a killed process, or a live one, has open."""
    return sorted(
        path for path in (folder / CHUNKS_NAME).glob(pattern) if not path.name.startswith(".")
    )


class _Name(NamedTuple):
    """What the name of a chunk's file says."""

    key: ChunkKey
    checksum: str


def _parts_of(path: Path) -> _Name:
    """Take a file's name apart.

    Raises:
        ValueError: it is no name of a chunk.
    """
    found = _CHUNK_NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path} is foreign: its name is not that of a chunk.")
    return _Name(key=ChunkKey(group=int(found[1]), chunk=int(found[2])), checksum=found[3])
