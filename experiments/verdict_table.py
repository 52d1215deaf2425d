"""The verdicts of record: collected from finished runs, kept in verdicts.json, shown as a table.

`verdicts.json` holds every experiment's verdicts of its PAPER run, with the seed, the code and the
machine they come from, and what other seeds said. README.md and the ledger are written from it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesfilt.atomic_files import write_text_atomically
from bayesfilt.records import read_record
from bayesfilt.run_directory import SUMMARY_NAME, read_manifest, strict_json
from experiments.contract import Verdict, docstring_part, experiment_named, experiment_names
from experiments.described import question_of
from experiments.run_folder import are_verdicts

FOLDER = Path(__file__).parent
VERDICTS_PATH = FOLDER / "verdicts.json"
TABLE_PATH = FOLDER / "README.md"
SCHEMA = 1

HOLDS = {True: "yes", False: "no", None: "not judged"}

type Entry = dict[str, Any]
"""One experiment of verdicts.json."""


def read_verdicts(path: Path = VERDICTS_PATH) -> dict[str, Entry]:
    """Entries by experiment; empty where there is no file yet.

    Raises:
        ValueError: the file is damaged, or of another schema.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, entries = content["schema"], content["experiments"]
        whole = schema != SCHEMA or all(
            {"seconds", "device"} <= each.keys() and are_verdicts(each["verdicts"])
            for each in entries.values()
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a table of verdicts, or is damaged.") from error
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema}; this code reads {SCHEMA}.")
    if not whole:
        raise ValueError(
            f"{path} is damaged: an entry lacks seconds or device, or what its verdicts are."
        )
    return entries


def write_verdicts(entries: Mapping[str, Entry], path: Path = VERDICTS_PATH) -> Path:
    """Write the entries in the order of their experiments."""
    ordered = {name: entries[name] for name in sorted(entries)}
    return write_text_atomically(path, strict_json({"schema": SCHEMA, "experiments": ordered}))


def entry_of(module: ModuleType, folder: Path) -> Entry:
    """What a finished run says, judged by today's code.

    Raises:
        FileNotFoundError: there is no record or no manifest.
        ValueError: they cannot be read, or do not belong to this experiment.
    """
    manifest = _whole_manifest(folder)
    verdicts = module.check(read_record(folder))
    return {
        "claim": module.CLAIM,
        "seed": manifest["seed"],
        "config": digest(manifest.get("config")),
        "dtype": manifest["dtype"],
        "seconds": round(float(manifest["wall_time_seconds"]), 1),
        "core_seconds": _core_seconds(folder),
        "device": _device(manifest),
        "commit": str(manifest.get("commit", "")),
        "versions": {
            name: version
            for name, version in manifest["versions"].items()
            if name in ("bayesfilt", "jax", "numpy", "optax")
        },
        "verdicts": [each.plain() for each in verdicts],
    }


def with_other_seed(entry: Entry, module: ModuleType, folder: Path) -> Entry:
    """The same entry, each verdict with what another seed's run says of it.

    One that is turned round is not judged any more: what it was stays beside it.
    """
    seed = str(_whole_manifest(folder)["seed"])
    if seed == str(entry["seed"]):
        return entry
    said = {each.claim: each.holds for each in module.check(read_record(folder))}
    verdicts = [_beside(each, seed, said.get(each["claim"])) for each in entry["verdicts"]]
    return {**entry, "verdicts": verdicts}


def with_known_seeds(entry: Entry, before: Entry | None) -> Entry:
    """The same entry, with what runs of other seeds were found to say of the same verdicts.

    They are asked once and their records need not be at hand. They are forgotten where the
    settings have changed, or what was expected.
    """
    if before is None or any(before.get(key) != entry[key] for key in ("seed", "config")):
        return entry
    known = {each["claim"]: each for each in before["verdicts"]}
    verdicts = []
    for each in entry["verdicts"]:
        then = known.get(each["claim"], {})
        if then.get("expected") == each["expected"]:
            for seed, holds in then.get("other_seeds", {}).items():
                each = _beside(each, seed, holds)
        verdicts.append(each)
    return {**entry, "verdicts": verdicts}


def digest(config: Any) -> str:
    """What tells settings from others."""
    return hashlib.sha256(strict_json({"config": config}).encode()).hexdigest()[:16]


def of_this_seed(verdict: Mapping[str, Any]) -> bool | None:
    """What the run of record alone says."""
    return verdict.get("by_this_seed", verdict["holds"])


def has_flipped(verdict: Mapping[str, Any]) -> bool:
    """Whether another seed said yes where this one says no, or no where it says yes."""
    return "by_this_seed" in verdict


def is_near(verdict: Mapping[str, Any]) -> bool:
    """Whether it stands close to its threshold: by its own margin, or as other seeds show."""
    said, others = of_this_seed(verdict), verdict.get("other_seeds", {}).values()
    undone = said is not None and any(each != said for each in others)
    return bool(verdict.get("near")) or undone


def table_text(entries: Mapping[str, Entry]) -> str:
    """README.md of the experiments: an overview, then every verdict."""
    modules = {name: experiment_named(name) for name in experiment_names()}
    known = [name for name in modules if name in entries]
    seconds = sum(entries[name]["seconds"] for name in known)
    verdicts = [each for name in known for each in entries[name]["verdicts"]]
    lines = [
        "# Experiments",
        "",
        "One module a question; every verdict can be no. Written by `python -m experiments table`"
        " from `verdicts.json`;",
        "do not edit by hand. `python -m experiments check` judges stored records again and says"
        " what changed.",
        "",
        f"{len(known)} experiments, {len(verdicts)} verdicts:"
        f" {counted(verdicts)};"
        f" {sum(map(is_near, verdicts))} near their threshold (marked ~),"
        f" {sum(map(has_flipped, verdicts))} not judged because another seed or machine"
        " turned them round (marked !)."
        f" {seconds / 60:.0f} minutes in all.",
        "",
        "| experiment | claim | source | command | verdict | minutes | device |",
        "|---|---|---|---|---|---|---|",
        *(_overview_row(name, modules[name], entries[name]) for name in known),
        "",
    ]
    for name in known:
        lines += _section(name, modules[name], entries[name])
    return "\n".join(lines).rstrip() + "\n"


def in_words(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """One answer of many: "yes", "no", "not judged", or how many of each."""
    said = [each["holds"] for each in verdicts]
    judged = [each for each in said if each is not None]
    if not judged:
        return "not judged"
    if len(set(judged)) == 1 and len(judged) == len(said):
        return HOLDS[judged[0]]
    return counted(verdicts)


def changes(before: Sequence[Mapping[str, Any]], now: Sequence[Verdict]) -> list[str]:
    """What verdicts say differently from those of record, a line each."""
    known = {each["claim"]: each for each in before}
    lines = []
    for each in now:
        then = known.pop(each.claim, None)
        if then is None:
            lines.append(f"new: {each.claim}: {HOLDS[each.holds]} ({each.measured})")
            continue
        said = of_this_seed({"holds": None, **then})
        if each.holds != said or any(each.plain()[word] != then.get(word) for word in _WORDS):
            lines.append(
                f"changed: {each.claim}: {HOLDS.get(said)} ({then.get('measured')})"
                f" is now {HOLDS[each.holds]} ({each.measured})"
            )
    return lines + [f"gone: {claim}" for claim in known]


def counted(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """How many say yes, no and neither."""
    counts = {
        word: sum(each["holds"] is holds for each in verdicts) for holds, word in HOLDS.items()
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


# A verdict is the same as before if these are.
_WORDS = ("measured", "expected")


def _beside(verdict: Mapping[str, Any], seed: str, holds: bool | None) -> dict[str, Any]:
    """A verdict and what another seed says of it."""
    said = of_this_seed(verdict)
    found = {**verdict, "other_seeds": {**verdict.get("other_seeds", {}), seed: holds}}
    if said is not None and holds is (not said):
        found |= {"holds": None, "by_this_seed": said}
    return found


def _whole_manifest(folder: Path) -> dict[str, Any]:
    """A manifest that tells what an entry says of the run."""
    manifest = read_manifest(folder)
    kinds = {"seed": int, "dtype": str, "wall_time_seconds": (int, float), "versions": dict}
    missing = [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]
    if missing:
        raise ValueError(f"the manifest in {folder} does not tell {', '.join(missing)}.")
    return manifest


def _core_seconds(folder: Path) -> float | None:
    """Time of all cores together; None for a run that did not measure it."""
    try:
        summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
        return round(float(summary["core_seconds"]), 1)
    except (ValueError, LookupError, TypeError):
        return None


def _device(manifest: Mapping[str, Any]) -> str:
    device = manifest.get("device", "")
    if isinstance(device, Mapping):
        device = device.get("kind") or device.get("platform", "")
    return str(device)


def _overview_row(name: str, module: ModuleType, entry: Entry) -> str:
    cells = (
        f"[{name}](#{name})",
        module.CLAIM,
        _first_sentence(docstring_part(module, "Source")),
        f"`python -m experiments run {name.partition('_')[0]}`",
        in_words(entry["verdicts"]),
        f"{entry['seconds'] / 60:.1f}",
        entry["device"],
    )
    return _row(cells)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[a-z0-9)])\. (?=[A-Z])", text)[0]


def _section(name: str, module: ModuleType, entry: Entry) -> list[str]:
    return [
        f"## {name}",
        "",
        f"{question_of(module)} ({', '.join(module.SETTLES)})",
        "",
        "| claim | verdict | measured | expected | other seeds and machines |",
        "|---|---|---|---|---|",
        *(
            _row(
                (
                    each["claim"],
                    HOLDS[each["holds"]] + " ~" * is_near(each) + " !" * has_flipped(each),
                    each["measured"],
                    each["expected"],
                    ", ".join(HOLDS[holds] for holds in each.get("other_seeds", {}).values()),
                )
            )
            for each in entry["verdicts"]
        ),
        "",
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
