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
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from bayesfilt.commands.console import note, say, show_table

DONE, NOT_DONE = 0, 2

_OUT = Path("runs/experiments")
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
        _require_sound(options)
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; the experiments that were finished stand, the same command goes on."
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("BAYESFILT_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__)


def _require_sound(options: argparse.Namespace) -> None:
    """Refuse what no command could do, before any of them begins."""
    if "venue" in options:
        from bayesfilt.figures import venue_named

        venue_named(options.venue)
    if "out" in options:
        if not options.out:
            raise ValueError("--out needs a folder, got nothing.")
        options.out = Path(options.out).expanduser()
        if options.out.exists() and not options.out.is_dir():
            raise ValueError(f"--out needs a folder, got the file {options.out}.")
    for other in getattr(options, "also", ()):
        if not other.expanduser().is_dir():
            raise ValueError(f"--also needs a folder of runs; there is no {other}.")


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
            command.add_argument("--out", default=_OUT)
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
    from experiments.run_folder import was_broken_off

    module = experiment_named(options.name)
    _make(module, options, force=options.force or was_broken_off(_folder(options, module)))
    return DONE


def _run_all(options: argparse.Namespace) -> int:
    """One that cannot be made does not keep the others from it."""
    from experiments.contract import experiment_named, experiment_names

    failed = []
    for name in experiment_names():
        module = experiment_named(name)
        if _found_finished(module, options):
            continue
        try:
            _make(module, options, force=True)
        except BlockingIOError as error:  # a second `all`: the two share the work
            say(f"{name}: {error}", error=True)
        except ValueError as error:
            if os.environ.get("BAYESFILT_TRACEBACK"):
                raise
            say(f"{name}: {' '.join(str(error).split())}", error=True)
            failed.append(name)
    if options.report:
        _report(options)
    if failed:
        raise ValueError(f"not made: {', '.join(failed)}.")
    return DONE


def _found_finished(module: ModuleType, options: argparse.Namespace) -> bool:
    """Whether the very run is there; figures that it lacks are drawn.

    Raises:
        ValueError: another one is there, which only --force replaces.
    """
    from experiments.making import prepare
    from experiments.run_folder import is_finished, reason, stands
    from experiments.written import is_described, write_again

    folder = _folder(options, module)
    if stands(folder, _config(module, options), options.seed):
        say(f"{_name(module)}: found finished in {folder}")
        if not is_described(module, folder):
            prepare(module)
            try:
                write_again(module, _record_of(module, folder, options), folder, options.venue)
            except (ValueError, OSError) as error:  # its numbers stand
                say(f"{_name(module)}: {error}", error=True)
        return True
    if is_finished(folder) and not options.force:
        why = reason(folder, "holds a finished run of another seed or configuration")
        raise ValueError(f"{folder} {why}; use another --out, or --force to replace it.")
    return False


def _report(options: argparse.Namespace) -> int:
    """The page; records of before there were pages are judged and drawn again for it first."""
    from bayesfilt.report import write_report
    from experiments.contract import experiment_named, experiment_names
    from experiments.making import prepare
    from experiments.run_folder import is_finished
    from experiments.written import is_described, write_again

    for name in experiment_names():
        for quick in (False, True):
            own = argparse.Namespace(out=options.out, quick=quick, name=name)
            module = experiment_named(name)
            folder = _folder(own, module)
            if not is_finished(folder) or is_described(module, folder):
                continue
            try:
                prepare(module)
                write_again(module, _record_of(module, folder, own), folder)
            except (ValueError, OSError) as error:  # the page shows what there is
                say(f"{name}: {error}", error=True)
    written = write_report(options.out)
    for section in written.sections:
        for line in section.warnings:
            note(f"warning: {section.title}: {line}")
    say(f"Report   {written.path}: {len(written.sections)} of them")
    return DONE


def _check(options: argparse.Namespace) -> int:
    from experiments.contract import experiment_named, experiment_names

    if options.name is not None:
        _check_one(experiment_named(options.name), options)
        return DONE
    judged, unreadable = 0, []
    for name in experiment_names():
        options.name = name
        try:
            _check_one(experiment_named(name), options)
            judged += 1
        except FileNotFoundError as error:
            say(f"{name}: {error}")
        except ValueError as error:
            say(f"{name}: {error}", error=True)
            unreadable.append(name)
    if unreadable or not judged:
        raise ValueError(f"not judged: {', '.join(unreadable) or f'no record in {options.out}'}.")
    return DONE


def _check_one(module: ModuleType, options: argparse.Namespace) -> None:
    """Judge one record again: against its own run's summary, and against the table of record."""
    from bayesfilt.records import as_plain
    from experiments.making import prepare
    from experiments.run_folder import verdicts_of_the_run
    from experiments.verdict_table import changes, read_verdicts

    folder = _folder(options, module)
    result = _record_of(module, folder, options)
    if as_plain(result.attributes["config"]) != as_plain(_config(module, options)):
        say(f"The settings of this record are not today's of {_kind(options)}.")
    prepare(module)
    verdicts = module.check(result)
    _show(module, verdicts)
    before = verdicts_of_the_run(folder)
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
    from experiments.making import prepare
    from experiments.run_folder import is_finished, is_of, reason

    if options.out != _OUT and not options.out.is_dir():
        raise ValueError(f"--out needs a folder of runs; there is no {options.out}.")
    entries = verdict_table.read_verdicts()
    for name in experiment_names():
        module, stays = experiment_named(name), "; its entry stays" * (name in entries)
        folders = [other.expanduser() / name for other in (options.out, *options.also)]
        finished = [folder for folder in folders if is_finished(folder)]
        for folder in [each for each in finished if not is_of(each, module.PAPER)]:
            why = reason(folder, "has other settings than today's PAPER")
            say(f"{name}: {folder} {why}, and is left out")
            finished.remove(folder)
        if folders[0] not in finished:
            say(f"{name}: no finished run in {folders[0]}{stays}")
            continue
        prepare(module)
        entries[name] = verdict_table.with_known_seeds(
            verdict_table.entry_of(module, folders[0]), entries.get(name)
        )
        for other in finished[1:]:
            before = entries[name]
            entries[name] = verdict_table.with_other_seed(before, module, other)
            if entries[name] is before:
                say(f"{name}: {other} is of the same seed, and left out")
    entries = {name: entries[name] for name in experiment_names() if name in entries}
    if not entries:
        raise ValueError(f"no finished run in {options.out}, and none on record.")
    table = verdict_table.table_text(entries)
    claims = ledger.ledger_text(ledger.read_claims(), entries)
    verdict_table.write_verdicts(entries)
    write_text_atomically(verdict_table.TABLE_PATH, table)
    write_text_atomically(ledger.PAGE_PATH, claims)
    say(f"{len(entries)} experiments in {verdict_table.TABLE_PATH} and {ledger.PAGE_PATH}")
    return DONE


def _plot(options: argparse.Namespace) -> int:
    from experiments.contract import experiment_named
    from experiments.making import prepare
    from experiments.written import draw

    module = experiment_named(options.name)
    folder = _folder(options, module)
    result = _record_of(module, folder, options)
    prepare(module)
    draw(module, result, module.check(result), folder, options.venue)
    return DONE


def _make(module: ModuleType, options: argparse.Namespace, *, force: bool) -> None:
    from experiments.making import make

    if not 0 <= options.seed < _SEEDS:
        raise ValueError(f"experiments need 0 <= --seed < {_SEEDS}, got {options.seed}.")
    folder = _folder(options, module)
    config = _config(module, options)
    seconds, verdicts = make(
        module, config, folder, seed=options.seed, venue=options.venue, force=force
    )
    _show(module, verdicts)
    say(f"{seconds:.0f} s; record, verdicts and figures in {folder}")


def _show(module: ModuleType, verdicts: Sequence[Any]) -> None:
    rows = [(each.claim, _HOLDS[each.holds], each.measured, each.expected) for each in verdicts]
    show_table(_name(module), ("claim:", "holds:", "measured:", "expected:"), rows)


def _record_of(module: ModuleType, folder: Path, options: argparse.Namespace) -> Any:
    from bayesfilt.records import read_record

    words = ["python -m experiments run", _name(module)] + ["--quick"] * options.quick
    words += [f"--out {shlex.quote(str(options.out))}"] if options.out != _OUT else []
    again = " ".join(words)
    try:
        result = read_record(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no record in {folder}; make it with: {again}") from error
    except ValueError as error:
        reason = str(error).removesuffix(".")
        raise ValueError(f"{reason}; make it again with: {again} --force") from error
    config = result.attributes.get("config", {})
    if not isinstance(config, dict) or config.keys() != vars(_config(module, options)).keys():
        raise ValueError(
            f"the record in {folder} is not one of {_name(module)}, or of an older one; make it"
            f" again with: {again} --force"
        )
    return result


def _kind(options: argparse.Namespace) -> str:
    return "QUICK" if options.quick else "PAPER"


def _config(module: ModuleType, options: argparse.Namespace) -> Any:
    return module.QUICK if options.quick else module.PAPER


def _folder(options: argparse.Namespace, module: ModuleType) -> Path:
    return options.out / (_name(module) + ("-quick" if options.quick else ""))


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
