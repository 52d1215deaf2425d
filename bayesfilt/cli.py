"""The command line: `bayesfilt COMMAND`, the same as `python -m bayesfilt COMMAND`.

Exit codes: 0, done; 2, not done, or not all of it (bad input, a folder that cannot be
written, Ctrl-C). What went wrong is one line on stderr. For the traceback behind it, set
BAYESFILT_TRACEBACK=1.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Protocol

from bayesfilt.commands.compare import Compare
from bayesfilt.commands.console import note, say
from bayesfilt.commands.demo import Demo
from bayesfilt.commands.doctor import Doctor
from bayesfilt.commands.infer import Infer
from bayesfilt.commands.map import Map
from bayesfilt.commands.report import Report
from bayesfilt.commands.sweep import Sweep

DONE, NOT_DONE = 0, 2

_OUT_OF_MEMORY = (
    "out of memory; fewer followers or runs at once, a smaller network or batch need less."
)


class Command(Protocol):
    """Options of one command, and what to do with them."""

    def run(self) -> int:
        """Do it; the exit code."""
        ...


COMMANDS: dict[str, type[Command]] = {
    "demo": Demo,
    "compare": Compare,
    "map": Map,
    "sweep": Sweep,
    "infer": Infer,
    "report": Report,
    "doctor": Doctor,
}

_WITHOUT_FLAGS = {
    "infer",
    "report",
}  # what they need is given without a flag: `bayesfilt infer FOLDER`


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Raises:
        SystemExit: always.
    """
    sys.exit(_run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: Sequence[str]) -> int:
    try:
        with _warnings_in_one_line():
            code = _parse(arguments).run()
        sys.stdout.flush()  # a closed pipe should be met here, not while Python shuts down
        return code
    except KeyboardInterrupt:
        return _fail("interrupted before anything was finished.")
    except BrokenPipeError:
        # `bayesfilt map | head`: the reader has had enough. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        if os.environ.get("BAYESFILT_TRACEBACK"):
            raise
        return _fail(_one_line(error))
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or os.environ.get("BAYESFILT_TRACEBACK"):
            raise
        return _fail(_OUT_OF_MEMORY)


def _parse(arguments: Sequence[str]) -> Command:
    """The options of the command that was named; tyro itself leaves on --help and on errors."""
    import tyro

    commands: dict[str, Any] = {
        name: Annotated[command, tyro.conf.PositionalRequiredArgs]
        if name in _WITHOUT_FLAGS
        else command
        for name, command in COMMANDS.items()
    }
    return tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="bayesfilt",
        description="Are Adam and AdamW Bayesian filters? Train with both and compare.",
        args=arguments,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.DisallowNone,
        ),
    )


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Say what a warning says; the file and line it came from mean nothing to a user."""

    def show(message: Warning | str, *details: object) -> None:
        del details
        note(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _fail(message: str) -> int:
    say(f"bayesfilt: error: {message}", error=True)
    return NOT_DONE


def _one_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{error.name} is not installed (bayesfilt doctor says more): pip install {error.name}"
        )
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY
    return " ".join(str(error).split()) or type(error).__name__
