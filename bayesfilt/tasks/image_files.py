"""Image files as they are published: MNIST's IDX format and CIFAR-10's binary batches.

Nothing is unpickled and nothing is downloaded. A truncated or foreign file is a ValueError of
one line that names the file and what is wrong with it.
"""

import contextlib
import gzip
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

# IDX, third byte of the file: the type of its numbers, always big-endian.
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + math.prod(_CIFAR_SHAPE)  # one label byte, then the red, green, blue planes
_CIFAR_CLASSES = 10


class LabelledImages(NamedTuple):
    """Raw images and labels, as the files hold them."""

    train_images: Num[np.ndarray, "train ..."]
    train_labels: Num[np.ndarray, " train"]
    test_images: Num[np.ndarray, "test ..."]
    test_labels: Num[np.ndarray, " test"]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read and decoded into one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist.") from None
    except Exception as error:  # decoders of foreign bytes raise nearly everything
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        fault = reason.rstrip(".") or type(error).__name__
        raise ValueError(f"{path} is damaged or cannot be read: {fault}.") from error


def read_idx(path: str | Path) -> Num[np.ndarray, "..."]:
    """Read one IDX file, plain or gzipped (by its name, `.gz`), in the machine's byte order.

    Raises:
        ValueError: not IDX, an unknown number type, or fewer or more bytes than announced.
    """
    path = Path(path)
    with reading(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(
            f"{path} is not an IDX file: it starts with bytes {content[:4].hex(' ') or '(none)'}."
        )
    stored = np.dtype(_IDX_TYPES[content[2]])
    num_axes = content[3]
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise ValueError(f"{path} is truncated: it ends inside its header, at byte {len(content)}.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_axes, offset=4))
    announced = start + math.prod(shape) * stored.itemsize
    if len(content) != announced:
        fault = "is truncated" if len(content) < announced else "has bytes to spare"
        raise ValueError(
            f"{path} {fault}: its header announces shape {shape}, {announced} bytes,"
            f" and it has {len(content)}."
        )
    numbers = np.frombuffer(content, stored, offset=start).reshape(shape)
    return numbers.astype(stored.newbyteorder("="))


def find_idx_files(folder: str | Path) -> dict[str, Path]:
    """The four files of an MNIST-style folder by role; only the ones that are there."""
    roles = {
        "train_images": "train-images",
        "train_labels": "train-labels",
        "test_images": "t10k-images",
        "test_labels": "t10k-labels",
    }
    found = {}
    for role, stem in roles.items():
        # "-idx3-ubyte" as published, ".idx3-ubyte" as some archives unpack it; plain before .gz.
        name = re.compile(re.escape(stem) + r"[-.]idx\d-ubyte(\.gz)?")
        matches = sorted(path for path in Path(folder).iterdir() if name.fullmatch(path.name))
        if matches:
            found[role] = matches[0]
    return found


def read_idx_folder(folder: str | Path) -> LabelledImages:
    """Read an MNIST-style folder: train and t10k, images and labels, plain or .gz."""
    folder = Path(folder)
    with reading(folder):
        found = find_idx_files(folder)
    missing = [role for role in LabelledImages._fields if role not in found]
    if missing:
        raise ValueError(
            f"{folder} lacks the IDX files for {', '.join(missing)}: train-images-idx3-ubyte,"
            " train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)."
        )
    arrays = {role: read_idx(path) for role, path in found.items()}
    for role, array in arrays.items():
        if "labels" in role and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise ValueError(
                f"{found[role]} should hold whole labels along one axis,"
                f" got {array.dtype} of shape {array.shape}."
            )
    return LabelledImages(**arrays)


def read_cifar_batch(
    path: str | Path,
) -> tuple[UInt8[np.ndarray, "n 3 32 32"], UInt8[np.ndarray, " n"]]:
    """Read one file of CIFAR-10's binary version: images (n, 3, 32, 32) and labels 0-9."""
    path = Path(path)
    with reading(path):
        content = path.read_bytes()
    if not content or len(content) % _CIFAR_RECORD:
        raise ValueError(
            f"{path} is truncated or not a CIFAR-10 binary batch: {len(content)} bytes is not a"
            f" whole number of {_CIFAR_RECORD}-byte records."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    labels = records[:, 0]
    if labels.max() >= _CIFAR_CLASSES:
        record = int(np.argmax(labels >= _CIFAR_CLASSES))
        raise ValueError(
            f"{path} is not a CIFAR-10 binary batch: record {record} has label {labels[record]},"
            f" above {_CIFAR_CLASSES - 1}."
        )
    return records[:, 1:].reshape(-1, *_CIFAR_SHAPE), labels


def find_cifar_files(folder: str | Path) -> list[Path]:
    """The training batches of a CIFAR-10 binary folder, in order."""
    named = re.compile(r"data_batch_(\d+)\.bin")
    numbered = [
        (int(match[1]), path)
        for path in Path(folder).iterdir()
        if (match := named.fullmatch(path.name))
    ]
    return [path for _, path in sorted(numbered)]


def read_cifar_folder(folder: str | Path) -> LabelledImages:
    """Read CIFAR-10's binary folder: data_batch_1.bin, ... (as many as there are), test_batch.bin.

    Raises:
        ValueError: no training batch, a gap in their numbers, no test batch, or a bad file.
    """
    folder = Path(folder)
    with reading(folder):
        batches = find_cifar_files(folder)
        pickled = (folder / "data_batch_1").exists()
    if not batches:
        hint = " The pickled version is there; it is never unpickled." if pickled else ""
        raise ValueError(f"{folder} has no data_batch_1.bin (CIFAR-10's binary version).{hint}")
    expected = [f"data_batch_{number}.bin" for number in range(1, len(batches) + 1)]
    missing = sorted(set(expected) - {path.name for path in batches})
    if missing:
        raise ValueError(f"{folder} lacks {missing[0]}, though it has {batches[-1].name}.")
    images, labels = zip(*(read_cifar_batch(path) for path in batches), strict=True)
    test_images, test_labels = read_cifar_batch(folder / "test_batch.bin")
    return LabelledImages(
        train_images=np.concatenate(images),
        train_labels=np.concatenate(labels),
        test_images=test_images,
        test_labels=test_labels,
    )
