"""What a run leaves behind, told with a study that takes no time."""

import errno
import json
import os
import signal
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jaxtyping import PRNGKeyArray

from bayesfilt import atomic_files
from bayesfilt.commands import study
from bayesfilt.optimizers.zoo import Setting
from bayesfilt.records import Record, read_record, variable
from bayesfilt.tasks import Supervised, Task

RUNS = ("adamw", "adabayes", "adam_large_eps")


class Call(NamedTuple):
    key: PRNGKeyArray
    task: Task
    setting: Setting
    followers: tuple[str, ...]
    num_steps: int
    record_every: int


PARTS = ("decay", "variance", "momentum", "eps")
OPTIONS = ("--task", "bowl", "--followers", *RUNS[1:], "--num-steps", 20)


def small_record() -> Record:
    step = np.arange(0, 20, 10)
    zeros = np.zeros((len(RUNS), len(step)))
    free = {
        "step": variable("step", step),
        "run": variable("run", np.array(RUNS)),
        "loss": variable(("run", "step"), zeros + [[2.0, 0.5], [2.0, 0.25], [2.0, np.nan]]),
        "weight_distance": variable(("run", "step"), zeros + [[0.0], [0.125], [np.nan]]),
        "test_accuracy": variable(("run", "step"), zeros + [0.1, 0.875]),
        "noise_weight_distance": variable("step", np.array([0.0, 3e-13])),
        "diverged_at": variable("run", np.array([-1, -1, 7])),
    }
    cosine = np.zeros((2, 2, len(step))) + [[[0.0], [0.75]], [[0.0], [0.5]]]
    share = np.zeros((2, len(PARTS), len(step))) + [[[0.9], [-0.4], [0.5], [0.0]], [[np.nan]] * 4]
    shadow = {
        "step": variable("step", step),
        "follower": variable("follower", np.array(RUNS[1:])),
        "layer": variable("layer", np.array(["dense_0", "all"])),
        "part": variable("part", np.array(PARTS)),
        "cosine": variable(("follower", "layer", "step"), cosine),
        "share": variable(("follower", "part", "step"), share),
    }
    decay = {
        "optimizer": variable("optimizer", np.array(RUNS)),
        "decay_kept": variable("optimizer", np.array([0.5, 1.0, np.nan])),
    }
    groups = {"free": free, "shadow": shadow, "decay": decay, "validity": {}}
    groups["validity"]["sgd"] = variable("prior_ratio", [1.0, 2.0])
    return Record(groups=groups, attributes={"interrupted": False, "completed_steps": 20})


@pytest.fixture
def calls(monkeypatch, quick_figures):
    """Studies that are asked for; each succeeds at once."""
    asked = []

    def run_study(key, task, setting, followers, num_steps, **options):
        asked.append(Call(key, task, setting, followers, num_steps, options["record_every"]))
        return small_record()

    monkeypatch.setattr(study, "run_study", run_study)
    return asked


def names_in(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fail_to_write(monkeypatch, suffix: str, number: int) -> None:
    """Make the disk say `number` when a file that ends in `suffix` is synced to it."""
    sync = atomic_files._sync

    def failing(file):
        if file.suffix == suffix:
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(atomic_files, "_sync", failing)


def test_a_run_leaves_record_manifest_summary_and_figures(bayesfilt, calls, tmp_path):
    out = tmp_path / "my run"
    answer = bayesfilt("compare", *OPTIONS, "--seed", 7, "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert names_in(out) == {
        "record.nc",
        "manifest.json",
        "summary.json",
        "figures/training.png",
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["seed"], manifest["dtype"], manifest["interrupted"]) == (7, "float64", False)
    assert manifest["config"]["followers"] == list(RUNS[1:])
    assert read_record(out).attributes["config"]["num_steps"] == 20
    assert str(out / "record.nc") in answer.out
    assert str(out / "figures") in answer.out


def test_every_option_reaches_the_study(bayesfilt, calls, tmp_path):
    options = {
        "learning-rate": 0.002, "weight-decay": 0.3, "batch-size": 16, "num-steps": 400,
        "schedule": "cosine", "b1": 0.8, "b2": 0.99, "eps": 1e-30, "seed": 7,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert bayesfilt("compare", "--followers", "adam", *words, "--out", tmp_path).code == 0
    (call,) = calls
    seed = options.pop("seed")
    assert call.setting == Setting(**{name.replace("-", "_"): v for name, v in options.items()})
    assert jax.random.key_data(call.key).tolist() == [0, seed]
    assert (call.num_steps, call.followers, call.record_every) == (400, ("adam",), 2)
    assert isinstance(call.task, Supervised)
    assert call.task.batch_size == 16
    assert call.task.train.inputs.shape == (1297, 8, 8)


def test_data_subset_and_label_noise_reach_the_task(bayesfilt, calls, tmp_path):
    labels = np.arange(90) % 3
    np.savez(
        tmp_path / "mine.npz",
        train_inputs=labels[:, None] + np.zeros((90, 4)),
        train_labels=labels,
        test_inputs=np.zeros((3, 4)),
        test_labels=np.arange(3),
    )
    words = ("--subset", 60, "--label-noise", 0.5, "--dtype", "float32")
    answer = bayesfilt(
        "compare", *OPTIONS[2:], "--data", tmp_path / "mine.npz", *words, "--out", tmp_path / "run"
    )
    assert answer.code == 0
    inputs, wrong = calls[0].task.train
    assert (inputs.shape, inputs.dtype) == ((60, 4), np.float32)
    assert np.sum(inputs[:, 0] != wrong) == 30


def test_the_table_says_what_the_record_holds(bayesfilt, calls, tmp_path):
    answer = bayesfilt("compare", *OPTIONS, "--out", tmp_path / "run")
    lines = {line.split()[0]: line.split()[1:] for line in answer.out.splitlines() if line.split()}
    assert lines["adamw"] == ["(leader)", "0.5", "87.5%", "-", "-", "-", "50.0%"]
    assert lines["adabayes"] == ["0.25", "87.5%", "0.12", "0.7500", "decay", "90%", "100.0%"]
    assert lines["noise"] == ["floor", "3e-13"]
    assert lines["adam_large_eps"][0] == "diverged"
    assert "Diverged: adam_large_eps at step 7." in answer.out
    assert (
        "float32 changes the decay of weights without gradients: adamw keeps 50.0%." in answer.out
    )
    (summary,) = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"].values()
    rows = {row["optimizer"]: row for row in summary["rows"]}
    assert rows["adam_large_eps"]["diverged_at"] == 7
    assert rows["adabayes"]["biggest_share"] == "decay"
    assert rows["adabayes"]["weight_distance"] == 0.125
    assert summary["noise_weight_distance"] == 3e-13


def test_the_demo_keeps_the_groups_of_both_networks_apart(bayesfilt, calls, tmp_path):
    answer = bayesfilt("demo", "--out", tmp_path / "demo")
    assert answer.code == 0
    record = read_record(tmp_path / "demo")
    assert record.attributes["tasks"] == ["digits-mlp", "digits-cnn"]
    assert {"digits-mlp/free", "digits-cnn/shadow", "validity"} < set(record.groups)
    assert answer.out.count("(leader)") == 2


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_computed(
    bayesfilt, calls, tmp_path
):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path).only_line
    assert line.startswith(f"{tmp_path} is not empty")
    assert "--force" in line
    assert names_in(tmp_path) == {"thesis.txt"}
    assert not calls


def test_force_replaces_an_earlier_run_and_nothing_else(bayesfilt, calls, tmp_path):
    assert bayesfilt("compare", *OPTIONS, "--out", tmp_path).code == 0
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    (tmp_path / "figures" / "stale.png").write_bytes(b"")
    answer = bayesfilt("compare", *OPTIONS, "--seed", 1, "--out", tmp_path, "--force")
    assert answer.code == 0
    assert read_record(tmp_path).attributes["config"]["seed"] == 1
    assert "thesis.txt" in names_in(tmp_path)
    assert "figures/stale.png" not in names_in(tmp_path)


def test_a_mistake_does_not_cost_the_run_that_force_would_replace(bayesfilt, calls, tmp_path):
    assert bayesfilt("compare", *OPTIONS, "--out", tmp_path).code == 0
    before = names_in(tmp_path)
    assert bayesfilt("compare", "--task", "bwol", "--out", tmp_path, "--force").code == 2
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/bayesfilt/run"])
def test_a_folder_that_cannot_be_made_is_one_line(bayesfilt, calls, tmp_path, place):
    (tmp_path / "file").write_text("")
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path / place).only_line
    assert str(tmp_path / place) in line
    assert not calls


def test_a_read_only_folder_is_one_line(bayesfilt, calls, tmp_path, monkeypatch):
    fail_to_write(monkeypatch, ".json", errno.EROFS)
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path / "run").only_line
    assert "Read-only file system" in line
    assert not calls


def test_a_full_disk_leaves_nothing_half_written(bayesfilt, calls, tmp_path, monkeypatch):
    fail_to_write(monkeypatch, ".nc", errno.ENOSPC)
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path / "run").only_line
    assert "record.nc: No space left on device" in line
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_before_the_figures_keeps_the_numbers(
    bayesfilt, calls, tmp_path, monkeypatch
):
    fail_to_write(monkeypatch, ".png", errno.ENOSPC)
    answer = bayesfilt("compare", *OPTIONS, "--out", tmp_path)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "training.png: No space left on device" in answer.err
    assert names_in(tmp_path) == {"record.nc", "manifest.json", "summary.json"}


def test_memory_that_runs_out_is_one_line(bayesfilt, calls, tmp_path, monkeypatch):
    def too_much(*arguments, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nBuffers:")

    monkeypatch.setattr(study, "run_study", too_much)
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path / "run").only_line
    assert line.startswith("out of memory")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_anything_is_done_leaves_nothing(bayesfilt, calls, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(study, "run_study", interrupted)
    line = bayesfilt("compare", *OPTIONS, "--out", tmp_path / "run").only_line
    assert line.startswith("interrupted")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_drawing_keeps_the_numbers(bayesfilt, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "draw_all", lambda *_: signal.raise_signal(signal.SIGINT))
    answer = bayesfilt("compare", *OPTIONS, "--out", tmp_path)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert line.startswith("bayesfilt: interrupted while writing")
    assert names_in(tmp_path) == {"record.nc", "manifest.json", "summary.json"}


def test_ctrl_c_in_the_second_study_keeps_the_first(bayesfilt, calls, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        if calls:
            signal.raise_signal(signal.SIGINT)
        calls.append(arguments)
        return small_record()

    monkeypatch.setattr(study, "run_study", interrupted)
    answer = bayesfilt("demo", "--out", tmp_path)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert line == (
        "bayesfilt: interrupted before the first steps of digits-cnn;"
        " what was done until then is kept."
    )
    assert read_record(tmp_path).attributes["tasks"] == ["digits-mlp"]
    assert json.loads((tmp_path / "manifest.json").read_text())["interrupted"] is True
    assert answer.out.count("(leader)") == 1
