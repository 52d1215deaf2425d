"""Runs made up for a page: nothing is trained, and every number is known."""

import functools
import tempfile
from pathlib import Path

from bayesfilt.figures import panels_figure, save_figure
from bayesfilt.records import Group, Record, write_record
from bayesfilt.run_directory import FIGURES_NAME, strict_json, write_summary
from experiments.panels import Panel, Series, panels_group
from tests.figures import grids

HOSTILE = '<b onclick="x">&amp; "quoted" \'single\'</b>'


def manifest(*command: str, **changes) -> dict:
    return {
        "schema_version": 1,
        "written_at": "2026-11-20T18:00:00+00:00",
        "command": list(command) or ["/opt/bayesfilt/__main__.py", "compare", "--out", "runs/a b"],
        "versions": {"python": "3.12.1", "bayesfilt": "0.9.8", "jax": "0.12.0"},
        "commit": "0123abcd",
        "dirty": True,
        "device": {"platform": "cpu", "kind": "Xeon", "count": 1, "cpu_count": 2},
        "flags": {"jax_enable_x64": False},
        "config": {"problem": {"num_steps": 300, "label_noise": 0.2}, "rates": ["a", "b"]},
        "seed": 7,
        "dtype": "float32",
        "wall_time_seconds": 90.0,
        "interrupted": False,
        **changes,
    }


def write_manifest(folder: Path, *command: str, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(strict_json(manifest(*command, **changes)))
    return folder


def verdict(claim: str, holds: bool | None, **changes) -> dict:
    return {
        "claim": claim,
        "measured": "1.02 (0.98 to 1.05)",
        "expected": "0.8 to 1.25",
        "tolerance": "90 % bootstrap over paired seeds",
        "holds": holds,
        "margin": 3.0,
        "near": False,
        **changes,
    }


VERDICTS = (
    verdict("the gain is the variance", True),
    verdict("its root comes from drift", True, margin=0.1, near=True),
    verdict("the crossover knows no batch size", False),
    verdict("the last part", None, margin="nan"),
)


def drawn_group() -> Group:
    """One panel with a line and its intervals."""
    line = Series("adamw", [1.0, 2.0, 4.0], [3.0, 2.0, 1.5], [2.5, 1.5, 1.0], [3.5, 2.5, 2.0])
    return panels_group([Panel("matched world", "variance (weight²)", "gain (weight²)", [line])])


@functools.cache
def drawn_files() -> dict[str, bytes]:
    """The files of one figure, drawn once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        save_figure(panels_figure(drawn_group()), folder, "e99_gains")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def experiment(folder: Path, *, claim: str = "A gain is a variance.", verdicts=VERDICTS) -> Path:
    """A finished run of an experiment, with one figure."""
    write_manifest(folder, "/opt/experiments/__main__.py", "run", "e99", "--out", "runs")
    write_record(Record(groups={"panels": drawn_group()}, attributes={"config": {}}), folder)
    about = {
        "name": "e99_gains",
        "question": "Is a gain a variance?",
        "claim": claim,
        "settles": ["P1", "2.8"],
        "command": "python -m experiments run e99_gains --seed 7",
        "captions": {"e99_gains": "Gain against variance, a panel a world."},
    }
    content = {"seconds": 90.0, "verdicts": list(verdicts), "experiment": about}
    write_summary(folder, content)
    (folder / FIGURES_NAME).mkdir()
    for name, data in drawn_files().items():
        (folder / FIGURES_NAME / name).write_bytes(data)
    return folder


def comparison(folder: Path) -> Path:
    """A finished run of `bayesfilt compare`."""
    write_manifest(folder)
    names = ("adamw", "adabayes")
    groups = {"digits-mlp/matched": grids.matched_group()}
    write_record(Record(groups=groups, attributes={}), folder)
    row = {
        "optimizer": "adamw", "is_leader": True, "diverged_at": None, "final_loss": 0.25,
        "test_loss": 0.5, "test_accuracy": 0.875, "weight_distance": None, "mean_cosine": None,
        "biggest_share": None, "biggest_share_fraction": None, "decay_kept": 1.0,
    }  # fmt: skip
    follower = {**row, "is_leader": False, "diverged_at": 120, "weight_distance": 0.125}
    rows = [row, {**follower, "optimizer": names[1]}]
    summary = {"rows": rows, "noise_weight_distance": 1e-16, "divergence_horizon": None}
    write_summary(folder, {"interrupted": False, "tasks": {"digits-mlp": summary}})
    return folder
