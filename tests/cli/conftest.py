"""Commands run in this process: exit code, what was said, and jax left as it was."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bayesfilt.atomic_files import write_bytes_atomically
from bayesfilt.cli import main
from bayesfilt.commands import study
from bayesfilt.records import Record


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def only_line(self) -> str:
        """The one line of an error, after checking that it is one and that nothing else came."""
        assert self.code == 2
        assert self.out == ""
        (line,) = self.err.splitlines()
        start = "bayesfilt: error: "
        assert line.startswith(start)
        return line.removeprefix(start)


type Run = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """A job in a shell's background starts with SIGINT ignored; tests of Ctrl-C need it heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bayesfilt(monkeypatch, capsys) -> Run:
    """Call `bayesfilt` with these arguments, as many as there are words."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    monkeypatch.delenv("BAYESFILT_TRACEBACK", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as left:
            main([str(each) for each in arguments])
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(code=left.value.code, out=said.out, err=said.err)

    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    yield run
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def quick_figures(monkeypatch) -> None:
    """Draw one empty file where the figures would be."""

    def draw_one(record: Record, folder: Path) -> list[Path]:
        assert record.groups
        return [write_bytes_atomically(folder / "training.png", b"png")] * 2

    monkeypatch.setattr(study, "draw_all", draw_one)


_SETTINGS = (
    "jax_enable_x64",
    "jax_platforms",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)
