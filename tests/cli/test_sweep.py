"""`bayesfilt sweep`: what is planned, run, merged and shown, and what is refused."""

import dataclasses
import functools
import importlib
import re
import signal
import sys

import pytest
import xarray

from bayesfilt.commands.sweep import Plan, Run
from bayesfilt.commands.sweep_tables import _best
from bayesfilt.simulate import merge
from bayesfilt.simulate.store import read_store
from bayesfilt.simulate.sweep import Sweep
from tests.simulate.sweeps import execution

room = importlib.import_module("bayesfilt.simulate.run_sweep")

# Two groups of nine runs: two chunks each.
AXES = {
    "tasks": ("bowl",),
    "optimizers": ("adamw", "adabayes"),
    "batch_sizes": (4,),
    "num_steps": (20,),
    "learning_rate": "1e-2,1e-1,5",
    "seeds": 3,
}
WORDS = (
    "--tasks", "bowl", "--optimizers", "adamw", "adabayes", "--batch-sizes", 4,
    "--num-steps", 20, "--learning-rate", "1e-2,1e-1,5", "--seeds", 3,
)  # fmt: skip
TOML = """
tasks = ["bowl"]
optimizers = ["adamw", "adabayes"]
batch_sizes = [4]
num_steps = 20
learning_rate = "1e-2,1e-1,5"
seeds = 3
"""


@functools.cache
def build_once(group, num_devices=1):
    return build_program(group, num_devices)


build_program = room.build_program


@pytest.fixture(autouse=True)
def _eight_runs_on_one_device(monkeypatch):
    monkeypatch.setattr(room, "build_program", build_once)
    monkeypatch.setattr(room, "measure_execution", lambda *_, width: execution(width or 8))


@pytest.fixture
def toml(tmp_path):
    """A file with this text."""

    def write(text: str):
        path = tmp_path / "sweep.toml"
        path.write_text(text)
        return path

    return write


def settings(command) -> dict:
    names = {field.name for field in dataclasses.fields(command)}
    return {name: getattr(command, name) for name in names}


def test_every_axis_and_setting_of_a_sweep_is_a_flag_and_the_help_says_its_default(bayesfilt):
    text = " ".join(bayesfilt("sweep", "run", "--help").out.replace("│", " ").split())
    own = {field.name for field in dataclasses.fields(Run)}
    for field in dataclasses.fields(Sweep):
        assert field.name in own
        flag = f"--{field.name.replace('_', '-')} "
        assert flag in text
        said = text.split(flag, 1)[1].split(" --", 1)[0]
        default = field.default[0] if isinstance(field.default, tuple) else field.default
        if default not in (None, False):
            assert f"without it, {default}" in said, field.name
        assert getattr(Plan(), field.name) in (None, False)  # whatever is set was asked for


def test_flags_and_a_file_give_the_same_sweep_and_a_flag_goes_first(bayesfilt, toml):
    del bayesfilt  # it puts jax's settings back
    asked = {**AXES, "seeds": (3,)}
    assert Plan(**asked).settings() == AXES
    path = toml(TOML)
    from_file = Plan(config=path).sweep()
    assert from_file == Plan(**asked).sweep() == Sweep(**AXES)
    both = Plan(config=path, learning_rate="1e-3", seeds=(4, 7), full_trace=True).sweep()
    assert both == Sweep(**{**AXES, "learning_rate": "1e-3", "seeds": (4, 7), "full_trace": True})


def test_a_flag_that_is_zero_was_given(bayesfilt, toml):
    del bayesfilt
    path = toml("label_noise = 0.2\ndraw_seed = 5\nsubset = 300\n")
    zeros = Plan(config=path, label_noise=0.0, draw_seed=0, subset=0, record_points=0, width=0)
    assert zeros.settings() == {"label_noise": 0.0, "draw_seed": 0, "subset": 0, "record_points": 0}


def test_a_plan_says_what_a_sweep_costs_and_writes_nothing(bayesfilt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = bayesfilt("sweep", "plan", *WORDS)
    assert (answer.code, answer.err) == (0, "")
    rows = [line.split() for line in answer.out.splitlines() if " on bowl (" in line]
    # runs, chunks, width, devices, steps/s, memory, time: four chunks of 8 x 20 steps at 1000/s
    assert [row[-9:] for row in rows] == [["9", "2", "8", "1", "1000", "8", "kB", "0.32", "s"]] * 2
    told = dict(line.split(maxsplit=1) for line in answer.out.splitlines()[-5:])
    assert told["Cells"] == "18, behind them 18 distinct runs"
    assert told["Chunks"] == "4, a file each"
    assert told["Memory"] == "about 8 kB at a time"
    assert told["Time"].startswith("about 0.64 s")
    assert told["Storage"].startswith("about 2")
    assert list(tmp_path.iterdir()) == []


def test_the_storage_that_is_planned_is_about_what_is_used(bayesfilt, tmp_path):
    told = bayesfilt("sweep", "plan", *WORDS).out.split("Storage  about ")[1]
    number, unit = told.split()[:2]
    planned = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    assert bayesfilt("sweep", "run", *WORDS, "--out", tmp_path / "sweep").code == 0
    used = sum(path.stat().st_size for path in (tmp_path / "sweep" / "chunks").iterdir())
    assert 0.5 < used / planned < 1.2


def test_a_sweep_runs_goes_on_and_is_shown(bayesfilt, toml, tmp_path):
    out = tmp_path / "my sweep"
    answer = bayesfilt("sweep", "run", "--config", toml(TOML), "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"Sweep    {out}: 4 of 4 chunks, 4 of them made now\n"
    damaged = min((out / "chunks").iterdir())
    damaged.write_bytes(b"")
    shown = bayesfilt("sweep", "show", "--folder", out)
    assert shown.code == 0
    assert shown.err == (
        f"bayesfilt: warning: {damaged} is corrupt or truncated: its bytes are not those that its"
        " name promises.\n"
    )
    answer = bayesfilt("sweep", "run", *WORDS, "--out", out)
    assert answer.code == 0
    assert "is corrupt or truncated" in answer.err
    assert answer.out == f"Sweep    {out}: 4 of 4 chunks, 1 of them made now\n"
    shown = bayesfilt("sweep", "show", "--folder", out)
    assert (shown.code, shown.err) == (0, "")
    rows = [line.split() for line in shown.out.splitlines() if line.startswith("bowl")]
    assert [row[:5] for row in rows] == [
        ["bowl", "adamw", "9", "9", "0"],
        ["bowl", "adabayes", "9", "9", "0"],
    ]
    assert [row[6:] for row in rows] == [["learning_rate", "0.1"]] * 2
    assert "Chunks   4 of 4 finished and whole" in shown.out
    by_size = bayesfilt("sweep", "show", "--folder", out, "--by", "final_weight_rms")
    assert by_size.code == 0 and "final_weight_rms" in by_size.out
    line = bayesfilt("sweep", "show", "--folder", out, "--by", "final_test_los").only_line
    assert "got 'final_test_los'. Did you mean 'final_test_loss'" in line


GRID = (
    "--tasks", "bowl", "--batch-sizes", 4, "--num-steps", 20, "--learning-rate", "log:1e-3:1e-1:3",
    "--weight-decay", "0,1e-2,1e-1,1", "--seeds", 3,
)  # fmt: skip


@pytest.mark.slow  # numbers in tests/compare, drawings in tests/figures
def test_a_finished_grid_is_analysed_and_drawn(bayesfilt, tmp_path):
    out, figures = tmp_path / "sweep", tmp_path / "drawn"
    assert (
        bayesfilt("sweep", "run", *GRID, "--schedules", "constant", "cosine", "--out", out).code
        == 0
    )
    shown = bayesfilt("sweep", "show", "--folder", out, "--figures", figures)
    assert (shown.code, shown.err) == (0, "")
    assert {each.name for each in figures.iterdir()} == {
        f"heatmaps.{end}" for end in ("png", "pdf", "csv", "nc")
    }
    node = merge(out).children["bowl"].to_dataset()
    for schedule in ("constant", "cosine"):
        (row,) = [line for line in shown.out.splitlines() if line.startswith(f"adamw, {schedule}")]
        errors = node["final_test_loss"].sel(schedule=schedule, weight_decay=[1e-2, 1e-1, 1.0])
        medians = errors.squeeze().median("seed")
        best = medians.isel(medians.argmin(...))
        words = row.removeprefix(f"adamw, {schedule}").split()
        assert float(words[0]) == pytest.approx(float(best), rel=1e-2)
        assert float(words[1].strip("(")) <= float(words[0]) <= float(words[3].strip(")"))
        assert float(words[4]) == pytest.approx(best["learning_rate"].item(), rel=1e-2)
        assert float(words[5]) == pytest.approx(best["weight_decay"].item(), rel=1e-2)
    reported = bayesfilt("report", out)
    assert (reported.code, reported.err) == (0, "")
    page = (out / "report.html").read_text(encoding="utf-8")
    chunks = len(list((out / "chunks").glob("*.nc")))
    assert f"{chunks} of {chunks} chunks are finished and whole." in page
    assert page.count("<svg ") == 1
    assert float(re.findall(r'median final_test_loss">([^<]+)<', page)[0]) == pytest.approx(
        float(node["final_test_loss"].median("seed").min()), rel=1e-2
    )


def test_a_grid_with_a_hole_in_it_is_not_drawn(bayesfilt, tmp_path):
    """What was never run must not look like what diverged."""
    out = tmp_path / "sweep"
    assert bayesfilt("sweep", "run", *GRID, "--shard", "0/2", "--out", out).code == 0
    shown = bayesfilt("sweep", "show", "--folder", out, "--figures", tmp_path / "drawn")
    assert shown.code == 2
    assert "bowl, adamw: not finished, or with cells that cannot be; left out." in shown.err
    assert "needs a finished grid of 3 learning rates or more" in shown.err
    assert not (tmp_path / "drawn").exists()


def test_random_draws_are_no_grid_to_draw(bayesfilt, tmp_path):
    out = tmp_path / "sweep"
    axes = ("--tasks", "bowl", "--batch-sizes", 4, "--num-steps", 20, "--seeds", 2)
    drawn = ("--learning-rate", "draw:1e-3:1e-1:4", "--weight-decay", "draw:1e-2:1:4")
    assert bayesfilt("sweep", "run", *axes, *drawn, "--out", out).code == 0
    shown = bayesfilt("sweep", "show", "--folder", out, "--figures", tmp_path / "drawn")
    assert shown.code == 2 and "bowl: random draws make no grid." in shown.err


def test_the_best_accuracy_is_the_highest():
    dims = ("learning_rate", "seed")
    found = xarray.Dataset(
        {name: (dims, [[0.6, 0.7], [0.8, 0.9]]) for name in ("final_test_accuracy", "loss")},
        {"learning_rate": [0.1, 0.2]},
    )
    assert _best(found, "final_test_accuracy") == ["0.85", "learning_rate 0.2"]
    assert _best(found, "loss") == ["0.65", "learning_rate 0.1"]


def test_shards_are_run_and_merged(bayesfilt, tmp_path):
    shards = [tmp_path / "0", tmp_path / "1"]
    answer = bayesfilt("sweep", "run", *WORDS, "--shard", "0/2", "--out", shards[0])
    assert (answer.code, answer.out.count("2 of 2 chunks")) == (0, 1)
    manifest = shards[0] / "manifest.json"
    assert f"need a copy of {manifest} before they start" in answer.err
    words = ("sweep", "merge", "--folders", *shards, "--out", tmp_path / "whole")
    assert bayesfilt(*words).only_line == f"No manifest.json of a sweep in {shards[1]}."
    shards[1].mkdir()
    (shards[1] / "manifest.json").write_bytes(manifest.read_bytes())
    answer = bayesfilt("sweep", "run", *WORDS, "--shard", "1/2", "--out", shards[1])
    assert (answer.code, answer.err) == (0, "")
    line = bayesfilt(*words[:3], shards[0], *words[-2:]).only_line
    assert line.startswith("The shards lack 2 of 4 chunks (00-0001, 01-0001)")
    answer = bayesfilt(*words, "--netcdf", tmp_path / "all.nc")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"Sweep    {tmp_path / 'whole'}: 4 chunks of 2 folders",
        f"Results  {tmp_path / 'all.nc'}",
    ]
    assert len(list((read_store(tmp_path / "whole").folder / "chunks").iterdir())) == 4


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(bayesfilt, tmp_path, monkeypatch):
    execute, made = room.execute_chunk, []

    def interrupted(program, chunk, **options):
        if len(made) == 3:
            signal.raise_signal(signal.SIGINT)
        made.append(chunk)
        return execute(program, chunk, **options)

    with monkeypatch.context() as patch:
        patch.setattr(room, "execute_chunk", interrupted)
        answer = bayesfilt("sweep", "run", *WORDS, "--out", tmp_path / "sweep")
    assert answer.code == 2
    assert answer.err == (
        "bayesfilt: interrupted with 3 of 4 chunks finished; they are kept, and the same command"
        " goes on from there.\n"
    )
    answer = bayesfilt("sweep", "run", *WORDS, "--out", tmp_path / "sweep")
    assert answer.out.endswith("4 of 4 chunks, 1 of them made now\n")


def test_cells_that_are_left_out_are_listed(bayesfilt, tmp_path):
    words = [word if word != "1e-2,1e-1,5" else "1e-2,1e3" for word in WORDS]
    line = bayesfilt("sweep", "run", *words, "--out", tmp_path / "a").only_line
    assert "3 of 12 cannot: adabayes on bowl" in line
    assert not (tmp_path / "a").exists()
    answer = bayesfilt("sweep", "plan", *words, "--skip-invalid")
    assert answer.code == 0
    (left_out,) = [line for line in answer.out.splitlines() if line.startswith("Left out")]
    assert left_out.startswith("Left out 3 cells: adabayes on bowl")
    assert "shrink per step below 1" in left_out
    assert "Cells    12, behind them 9 distinct runs" in answer.out


def matches(line: str, message: str) -> bool:
    return pytest.RaisesExc(ValueError, match=message).matches(ValueError(line))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "bwol"), "got 'bwol'. Did you mean 'bowl'"),
        (("--optimizers", "adamww"), "got 'adamww'. Did you mean 'adamw'"),
        (("--optimizers",), "at least one value for optimizers, got none"),
        (("--seeds", 0), "number of seeds >= 1"),
        (("--seeds",), "at least one value for seeds"),
        (("--learning-rate", ""), "learning_rate"),
        (("--learning-rate", "log:1:2"), "learning_rate like .* got 'log:1:2'"),
        (("--width", 12), "power of two, at least 8; got 12"),
        (("--shard", "4/4"), "A shard is i/n .*got '4/4'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_one_line_and_leaves_nothing(
    bayesfilt, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(room, "measure_execution", measure_execution)
    line = bayesfilt("sweep", "run", *WORDS, *options, "--out", tmp_path / "out").only_line
    assert matches(line, message)
    assert not (tmp_path / "out").exists()


measure_execution = room.measure_execution


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates = 1", "got 'learning_rates'. Did you mean 'learning_rate'"),
        ("seeds = ", r"sweep\.toml is not a TOML file: Invalid value"),
        ("tasks = 3", "words for tasks, got 3"),
        ("seeds = 'many'", "seeds"),
        ("num_steps = [1.5]", "num_steps"),
        ("dtype = 'float16'", "float16"),
        ("[tasks]\nbowl = 1", "words for tasks"),
        ("full_trace = 'no'", "true or false for full_trace, got 'no'"),
        ("label_noise = true", "numbers or a text for label_noise, got True"),
    ],
)
def test_a_bad_file_is_one_line(bayesfilt, toml, tmp_path, text, message):
    line = bayesfilt("sweep", "plan", "--config", toml(text)).only_line
    assert matches(line, message)
    missing = bayesfilt("sweep", "plan", "--config", tmp_path / "none.toml").only_line
    assert "none.toml" in missing


def test_folders_that_are_not_of_this_sweep_are_one_line(bayesfilt, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("irreplaceable")
    line = bayesfilt("sweep", "run", *WORDS, "--out", folder).only_line
    assert line == f"{folder} is not empty and holds no sweep; name another folder."
    line = bayesfilt("sweep", "show", "--folder", folder).only_line
    assert line == f"No manifest.json of a sweep in {folder}."
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_memory_for_not_even_one_run_is_one_line(bayesfilt, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.\nBuffers:")

    monkeypatch.setattr(room, "execute_chunk", exhausted)
    line = bayesfilt("sweep", "run", *WORDS, "--out", tmp_path / "out").only_line
    assert line.startswith("out of memory; ")


@pytest.mark.slow  # the cluster without the command is in tests/simulate
def test_a_sweep_runs_on_workers_of_its_own(bayesfilt, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    out = tmp_path / "sweep"
    words = [word for word in WORDS if word != "adabayes"]
    answer = bayesfilt("sweep", "run", *words, "--width", 8, "--workers", 1, "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"Sweep    {out}: 2 of 2 chunks, 2 of them made now\n"
    (execution,) = read_store(out).executions
    assert execution.width == 8
    assert execution.steps_per_second != 1e3  # measured there, and not by this file's stand-in


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 0), "number of workers >= 1"),
        (("--workers", 2, "--scheduler", "tcp://a:1"), "either the address of a scheduler or a nu"),
        (("--workers", 2, "--platform", "gpu"), "one process uses all GPUs"),
        (("--scheduler", "a", "--scheduler-timeout", 0), "timeout"),
        (("--scheduler", "tcp://127.0.0.1:9", "--scheduler-timeout", 0.3), "No Dask scheduler ans"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_one_line(bayesfilt, tmp_path, options, message):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    line = bayesfilt("sweep", "run", *WORDS, *options, "--out", tmp_path / "out").only_line
    assert matches(line, message)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_a_cluster_is_one_line(bayesfilt, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = bayesfilt("sweep", "run", *WORDS, "--workers", 2, "--out", tmp_path / "out").only_line
    assert line.endswith("the extra `cluster`: pip install 'bayesfilt[cluster]'.")
