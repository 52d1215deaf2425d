"""A file is complete or absent: written under another name, synced, then renamed.

A killed process, a full disk or Ctrl-C leaves the old file, or none; never a piece of one.
"""

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial"

# What a disk without hard links answers.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class CannotWriteError(OSError):
    """The file could not be written; what stood there before still stands."""


def write_atomically(path: str | Path, writer: Callable[[Path], object]) -> Path:
    """Have `writer` write a file under a temporary name beside `path`, then rename it.

    Missing folders are made. The temporary name keeps the suffix, because some writers
    (matplotlib) choose the format by it, and is short, because `path` may already be as
    long as a name may be.

    Args:
        path: where the complete file will stand; an old file is replaced.
        writer: called with the temporary path; must have closed the file on return.

    Returns:
        `path`.

    Raises:
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    _put(Path(path), writer, os.replace)
    return Path(path)


def create_bytes_exclusively(path: str | Path, data: bytes | memoryview) -> bool:
    """Write `data` to `path`, wholly or not at all, unless a file stands there already.

    Of any number of processes that try at the same time exactly one succeeds. Where a disk
    knows no hard links (exFAT, some network folders) two that try within the same instant
    may both be told so; the file is whole all the same: read back what stands there.

    Returns:
        Whether this call made the file.

    Raises:
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    made = True

    def link(temporary: Path, path: Path) -> None:
        nonlocal made
        try:
            os.link(temporary, path)
        except FileExistsError:
            made = False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            made = not path.exists()
            if made:
                os.replace(temporary, path)
                return
        temporary.unlink()

    _put(Path(path), lambda temporary: temporary.write_bytes(data), link)
    return made


def write_bytes_atomically(path: str | Path, data: bytes | memoryview) -> Path:
    """Write `data` to `path`, wholly or not at all."""
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_text_atomically(path: str | Path, text: str) -> Path:
    r"""Write `text` to `path` in UTF-8 whatever the locale, wholly or not at all.

    What UTF-8 cannot say (a file name that was not text) becomes `\udcXX`.
    """
    return write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def is_leftover(path: Path) -> bool:
    """Whether `path` is what a killed process left behind under a temporary name."""
    return path.name.startswith(".") and PARTIAL in path.suffixes


def _put(path: Path, writer: Callable[[Path], object], place: Callable[[Path, Path], None]) -> None:
    """Write and sync a temporary file beside `path`, and have `place` give it its name."""
    temporary = path.parent / f".{uuid.uuid4().hex}{PARTIAL}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(temporary)
        _sync(temporary)
        place(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise CannotWriteError(
            f"Cannot write {path}: {error.strerror or error}. Nothing half-written was left."
        ) from error
    except BaseException:  # Ctrl-C too
        _remove(temporary)
        raise


def _sync(file: Path) -> None:
    # Some disks (quotas, network folders) only say here that they are full.
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    # The rename itself survives a power cut only once the folder is synced. Windows and some
    # network folders cannot do it; the file is complete all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def require_whole_hdf5(data: bytes) -> None:
    """Open every object of an HDF5 file once; what is damaged raises here, and only raises.

    h5netcdf, failing at the same place, leaves a half-made object whose end prints a traceback.
    """
    import h5py

    with h5py.File(io.BytesIO(data), "r") as opened:
        opened.visititems(lambda name, item: None)
