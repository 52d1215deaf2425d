"""Run experiments, judge them and draw them: all reading and writing of theirs.

    python -m experiments list
    python -m experiments run e01 [--quick] [--out runs/experiments] [--seed 0] [--force]
    python -m experiments check [e01]      judge stored records again, say what changed
    python -m experiments plot e01 [--venue icml]
    python -m experiments all [--quick]    those whose record is not there yet, one by one
    python -m experiments table            verdicts.json, README.md and claims.md from the records
    python -m experiments report           one HTML page of what is there; `all --report`: after all

Each has a folder with record.nc, manifest.json, summary.json (the verdicts) and figures.
Exit codes: 0, done, whatever the verdicts say; 2, not done, with one line that says why.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from bayesfilt.commands.console import say, show_table
from bayesfilt.commands.jax_setup import Dtype, prepare_jax

DONE, NOT_DONE = 0, 2

_SEEDS = 2**32
_HOLDS = {True: "yes", False: "no", None: "not judged"}


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as everywhere in bayesfilt."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says and leave with its exit code.

    Raises:
        SystemExit: always.
    """
    sys.exit(_run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: Sequence[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; the experiments that were finished stand, the same command goes on."
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("BAYESFILT_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = _Parser(
        prog="experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in _COMMANDS:
        command = commands.add_parser(name, help=_HELP[name])
        if name in ("run", "check", "plot"):
            command.add_argument(
                "name",
                nargs="?" if name == "check" else None,
                help="of the experiment; e01 will do" + "; all of them" * (name == "check"),
            )
        if name == "table":
            command.add_argument(
                "--also", type=Path, nargs="*", default=[], help="folders of runs of other seeds"
            )
        if name != "list":
            command.add_argument("--out", type=Path, default=Path("runs/experiments"))
        if name not in ("list", "table"):
            command.add_argument("--quick", action="store_true", help="the same code, in seconds")
        if name == "all":
            command.add_argument("--report", action="store_true", help="make the page in the end")
        if name in ("run", "plot", "all"):
            command.add_argument("--venue", default="neurips", help="page the figures are for")
        if name in ("run", "all"):
            command.add_argument("--seed", type=int, default=0, help="of all random numbers")
        if name in ("run", "all"):
            command.add_argument("--force", action="store_true", help="replace an earlier run")
    return parser


def _list(options: argparse.Namespace) -> int:
    del options
    from experiments.contract import experiment_named, experiment_names

    rows = [(name, experiment_named(name).CLAIM) for name in experiment_names()]
    show_table("Experiments", ("name:", "claim:"), rows)
    return DONE


def _run_one(options: argparse.Namespace) -> int:
    from experiments.contract import experiment_named

    module = experiment_named(options.name)
    _make(module, options, force=options.force)
    return DONE


def _run_all(options: argparse.Namespace) -> int:
    from experiments.contract import experiment_named, experiment_names

    for name in experiment_names():
        module = experiment_named(name)
        folder = _folder(options, module)
        if _stands(folder, _config(module, options), options.seed):
            say(f"{name}: found finished in {folder}")
        elif _is_finished(folder) and not options.force:
            raise ValueError(
                f"{folder} holds a finished run of another seed or configuration; use another"
                " --out, or --force to replace it."
            )
        else:
            _make(module, options, force=True)
    return _report(options) if options.report else DONE


def _report(options: argparse.Namespace) -> int:
    """The page; records of before there were pages are judged and drawn again for it first."""
    from bayesfilt.report import write_report
    from experiments.contract import experiment_named, experiment_names
    from experiments.written import is_described, write_again

    for name in experiment_names():
        for quick in (False, True):
            own = argparse.Namespace(out=options.out, quick=quick, name=name)
            module = experiment_named(name)
            folder = _folder(own, module)
            if not _is_finished(folder) or is_described(folder):
                continue
            try:
                write_again(module, _record_of(module, folder, own), folder)
            except (ValueError, OSError) as error:  # the page shows what there is
                say(f"{name}: {error}", error=True)
    written = write_report(options.out)
    say(f"Report   {written.path}: {len(written.sections)} of them")
    return DONE


def _check(options: argparse.Namespace) -> int:
    from experiments.contract import experiment_named, experiment_names

    if options.name is not None:
        _check_one(experiment_named(options.name), options)
        return DONE
    for name in experiment_names():
        options.name = name
        try:
            _check_one(experiment_named(name), options)
        except ValueError as error:
            say(f"{name}: {error}")
    return DONE


def _check_one(module: ModuleType, options: argparse.Namespace) -> None:
    """Judge one record again: against its own run's summary, and against the table of record."""
    from experiments.verdict_table import changes, read_verdicts

    folder = _folder(options, module)
    verdicts = module.check(_record_of(module, folder, options))
    _show(module, verdicts)
    before = _verdicts_of_the_run(folder)
    if before is None:
        say(f"{folder} has no verdicts that can be read: there is nothing to compare with.")
    else:
        say("\n".join(changes(before, verdicts)) or "No verdict has changed since the run.")
    entry = {} if options.quick else read_verdicts().get(_name(module), {})
    if entry:
        changed = changes(entry["verdicts"], verdicts)
        say("\n".join(changed) or "The same verdicts as in experiments/verdicts.json.")


def _table(options: argparse.Namespace) -> int:
    """Collect what is finished; entries of experiments without a record here stay as they are."""
    from bayesfilt.atomic_files import write_text_atomically
    from experiments import ledger, verdict_table
    from experiments.contract import experiment_named, experiment_names

    entries = verdict_table.read_verdicts()
    for name in experiment_names():
        module, folder = experiment_named(name), options.out.expanduser() / name
        if not _is_finished(folder):
            say(f"{name}: no finished run in {folder}{'; its entry stays' * (name in entries)}")
            continue
        entries[name] = verdict_table.entry_of(module, folder)
        for other in options.also:
            if _is_finished(other / name):
                entries[name] = verdict_table.with_other_seed(
                    entries[name], module, other.expanduser() / name
                )
    entries = {name: entries[name] for name in experiment_names() if name in entries}
    claims = ledger.ledger_text(ledger.read_claims(), entries)
    verdict_table.write_verdicts(entries)
    write_text_atomically(verdict_table.TABLE_PATH, verdict_table.table_text(entries))
    write_text_atomically(ledger.PAGE_PATH, claims)
    say(f"{len(entries)} experiments in {verdict_table.TABLE_PATH} and {ledger.PAGE_PATH}")
    return DONE


def _plot(options: argparse.Namespace) -> int:
    from bayesfilt.figures import venue_named
    from experiments.contract import experiment_named
    from experiments.written import draw

    venue_named(options.venue)
    module = experiment_named(options.name)
    folder = _folder(options, module)
    result = _record_of(module, folder, options)
    draw(module, result, module.check(result), folder, options.venue)
    return DONE


def _make(module: ModuleType, options: argparse.Namespace, *, force: bool) -> None:
    """Run one experiment: numbers first, then verdicts, then figures."""
    from bayesfilt.figures import venue_named
    from bayesfilt.records import write_record
    from bayesfilt.run_directory import open_run_directory, write_manifest
    from experiments.written import draw, write_words

    venue_named(options.venue)
    if not 0 <= options.seed < _SEEDS:
        raise ValueError(f"experiments need 0 <= --seed < {_SEEDS}, got {options.seed}.")
    folder, config = _folder(options, module), _config(module, options)
    dtype: Dtype = module.DTYPE if hasattr(module, "DTYPE") else "float32"
    open_run_directory(folder, force=force)
    prepare_jax("auto", dtype, split_cpu=True)
    import jax

    say(f"{_name(module)}: {module.CLAIM}")
    begun, worked = time.perf_counter(), time.process_time()
    try:
        result = module.run(config, jax.random.key(options.seed))
    except BaseException:
        with contextlib.suppress(OSError):  # an empty folder of a run that never was
            folder.rmdir()
        raise
    seconds, core_seconds = time.perf_counter() - begun, time.process_time() - worked
    write_record(result, folder)
    write_manifest(folder, config, seed=options.seed, dtype=dtype, wall_time_seconds=seconds)
    verdicts = module.check(result)
    times = {"seconds": seconds, "core_seconds": core_seconds}
    write_words(module, result, verdicts, folder, times)
    _show(module, verdicts)
    draw(module, result, verdicts, folder, options.venue)
    say(f"{seconds:.0f} s; record, verdicts and figures in {folder}")


def _show(module: ModuleType, verdicts: Sequence[Any]) -> None:
    rows = [(each.claim, _HOLDS[each.holds], each.measured, each.expected) for each in verdicts]
    show_table(_name(module), ("claim:", "holds:", "measured:", "expected:"), rows)


def _verdicts_of_the_run(folder: Path) -> list[dict[str, Any]] | None:
    """What the run itself wrote into its summary; None if that cannot be read."""
    try:
        verdicts = json.loads((folder / "summary.json").read_text())["verdicts"]
        return [each for each in verdicts if each["claim"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _record_of(module: ModuleType, folder: Path, options: argparse.Namespace) -> Any:
    from bayesfilt.records import read_record

    try:
        result = read_record(folder)
    except FileNotFoundError as error:
        quick = " --quick" if options.quick else ""
        raise ValueError(
            f"no record in {folder}; make it with: python -m experiments run"
            f" {options.name}{quick} --out {options.out}"
        ) from error
    config = result.attributes.get("config", {})
    if not isinstance(config, dict) or config.keys() != vars(_config(module, options)).keys():
        raise ValueError(
            f"the record in {folder} is not one of {_name(module)}, or of an older one; make it"
            " again with --force."
        )
    return result


def _stands(folder: Path, config: Any, seed: int) -> bool:
    """Whether the folder holds a finished run of this very config and seed."""
    from bayesfilt.records import as_plain
    from bayesfilt.run_directory import MANIFEST_NAME

    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
    except (OSError, ValueError):
        return False
    same = manifest.get("config") == as_plain(config) and manifest.get("seed") == seed
    return same and _is_finished(folder)


def _is_finished(folder: Path) -> bool:
    """Whether the folder holds the verdicts, which are written last, of whatever run."""
    from bayesfilt.run_directory import SUMMARY_NAME

    return (folder / SUMMARY_NAME).is_file()


def _config(module: ModuleType, options: argparse.Namespace) -> Any:
    return module.QUICK if options.quick else module.PAPER


def _folder(options: argparse.Namespace, module: ModuleType) -> Path:
    return options.out.expanduser() / (_name(module) + ("-quick" if options.quick else ""))


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _fail(message: str) -> int:
    say(f"experiments: error: {message}", error=True)
    return NOT_DONE


_COMMANDS = {
    "list": _list,
    "run": _run_one,
    "check": _check,
    "plot": _plot,
    "all": _run_all,
    "table": _table,
    "report": _report,
}
_HELP = {
    "list": "what there is",
    "run": "one experiment: record, verdicts, figures",
    "check": "judge stored records again",
    "plot": "draw a stored record again",
    "all": "every experiment that is not finished yet",
    "table": "verdicts of record and the pages made of them",
    "report": "one HTML page of what is there",
}

if __name__ == "__main__":
    main()
