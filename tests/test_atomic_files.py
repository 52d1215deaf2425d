import errno
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from bayesfilt.atomic_files import (
    CannotWriteError,
    create_bytes_exclusively,
    is_leftover,
    write_atomically,
    write_bytes_atomically,
    write_text_atomically,
)


def fail_midway(error: BaseException):
    def writer(path):
        path.write_bytes(b"half of")
        raise error

    return writer


def test_a_file_stands_whole_and_alone(tmp_path):
    path = tmp_path / "new folder" / "ü.txt"
    assert write_text_atomically(path, "one\n") == path
    write_text_atomically(path, "αβγ\n")
    assert path.read_bytes() == "αβγ\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["ü.txt"]


def test_the_writer_sees_the_suffix_it_chooses_its_format_by(tmp_path):
    seen = []

    def writer(path):
        seen.append(path.suffix)
        path.write_bytes(b"")

    write_atomically(tmp_path / "loss.pdf", writer)
    assert seen == [".pdf"]


def test_a_name_as_long_as_a_name_may_be_is_written(tmp_path):
    path = tmp_path / ("é" * 125 + ".txt")  # 254 bytes of 255
    write_text_atomically(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_disk_leaves_the_old_file_or_none(tmp_path, old):
    path = tmp_path / "record.nc"
    if old is not None:
        path.write_bytes(old)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(CannotWriteError) as caught:
        write_atomically(path, fail_midway(full))
    assert str(caught.value) == (
        f"Cannot write {path}: No space left on device. Nothing half-written was left."
    )
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad figure")])
def test_an_interrupted_writer_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "a.png", fail_midway(error))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_only_at_the_sync_counts_as_full(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWriteError, match="No space left"):
        write_bytes_atomically(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_real_limit_of_the_system_stops_a_record_cleanly(tmp_path):
    # The kernel refuses to let any file grow beyond 20 kB; the record needs 400 kB.
    script = """
        import resource, sys
        import numpy as np
        import xarray, h5netcdf
        from bayesfilt.records import Record, variable, write_record
        values = np.random.default_rng(0).normal(size=50_000)
        record = Record(groups={"free": {"x": variable("n", values)}}, attributes={})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            write_record(record, sys.argv[1])
        except OSError as error:
            print(error)
    """
    done = run_python(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Cannot write {tmp_path}/record.nc: File too large.")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_one_clear_line(tmp_path):
    # Root may write anywhere, so the script becomes nobody once it stands in the folder.
    script = """
        import os, sys
        from bayesfilt.atomic_files import write_text_atomically
        os.chdir(sys.argv[1])
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            write_text_atomically("a.txt", "x")
        except OSError as error:
            print(error)
    """
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    done = run_python(script, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "Cannot write a.txt: Permission denied. Nothing half-written was left.\n"
    )


def test_a_killed_process_leaves_only_a_recognisable_leftover(tmp_path):
    script = """
        import os, signal, sys
        from bayesfilt.atomic_files import write_atomically
        def writer(path):
            path.write_bytes(b"half of")
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(sys.argv[1], writer)
    """
    run_python(script, tmp_path / "record.nc")
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)
    assert not is_leftover(tmp_path / "record.nc")
    assert not is_leftover(tmp_path / ".gitignore")


def test_a_file_that_stands_is_not_made_again(tmp_path):
    path = tmp_path / "new" / "manifest.json"
    assert create_bytes_exclusively(path, b"first")
    assert not create_bytes_exclusively(path, b"second")
    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"first"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_make_a_file_at_once_one_is_told_so(tmp_path, monkeypatch, links):
    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:  # then they must come one after the other
        monkeypatch.setattr(os, "link", refused)
    with ThreadPoolExecutor(8 if links else 1) as pool:
        data = [str(number).encode() * 10_000 for number in range(40)]
        made = list(pool.map(lambda each: create_bytes_exclusively(tmp_path / "a", each), data))
    assert sum(made) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == data[made.index(True)]


def test_a_file_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWriteError, match="a: No space left on device"):
        create_bytes_exclusively(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []
