"""The contract of every experiment; the command reads and writes."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from bayesfilt.records import read_record, write_record
from experiments import __main__ as command
from experiments import contract, grids, making
from experiments.contract import experiment_named, experiment_names
from tests.experiments.surfaces import grid, record

NAMES = experiment_names()
# A prediction, P1 to P40, or a row of the ledger.
_SETTLED = re.compile(r"P([1-9]|[1-3][0-9]|40)|[0-4]\.[1-9][0-9]?")
FOLDER = Path(contract.__file__).parent


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_keeps_the_contract(name):
    module = experiment_named(name)
    for config in (module.PAPER, module.QUICK):
        assert isinstance(config, module.Config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.problems = ()
    assert module.CLAIM.endswith(".")
    assert module.__doc__.partition("\n")[0].endswith("?")
    assert isinstance(module.SETTLES, tuple)
    assert module.SETTLES
    assert all(_SETTLED.fullmatch(each) for each in module.SETTLES), module.SETTLES
    assert module.CAPTION.endswith(".")
    for word in ("Claim", "Source", "Refuted by", "Cost"):
        assert word in module.__doc__


def test_experiments_import_the_library_and_no_command():
    for path in FOLDER.glob("e[0-9]*.py"):
        names = {
            node.module for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }  # fmt: skip
        assert not any("commands" in name or "cli" in name for name in names), path


def test_a_quiet_optimizer_gets_the_rate_and_the_shrink_that_were_asked_for():
    from bayesfilt.optimizers.zoo import Setting
    from experiments.grids import Problem, _group, _numbers

    group = _group(Problem(), "sgdw", "constant")
    found = _numbers(group, 0.3, 0.02)
    setting = Setting(
        learning_rate=found.learning_rate,
        weight_decay=found.weight_decay,
        batch_size=group.batch_size,
        num_steps=10,
    )
    rate = setting.transition.stationary_variance * group.batch_size
    np.testing.assert_allclose(rate, 0.3, rtol=1e-6)
    np.testing.assert_allclose(setting.shrink("lr_scaled"), 0.3 * 0.02, rtol=1e-6)


def test_seeds_are_distinct_and_follow_the_key():
    seeds = grids.seeds_from(jax.random.key(0), 50)
    assert len(set(seeds)) == 50
    assert seeds != grids.seeds_from(jax.random.key(1), 50)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command; experiments answer at once with a made-up result."""
    config = dataclasses.asdict(experiment_named("e03").QUICK)
    made = record(
        {"first_period": 200, "config": config},
        adamw__restarts=grid(pace=8.0),
        adamw__cosine=grid(),
    )
    calls = []

    def run(config, key):
        calls.append(config)
        return made

    for name in NAMES:
        monkeypatch.setattr(experiment_named(name), "run", run)
    monkeypatch.setattr(making, "prepare_jax", lambda *arguments, **options: None)

    def answer(*words):
        out = () if words[0] == "list" else ("--out", str(tmp_path))
        with pytest.raises(SystemExit) as left:
            command.main([*map(str, words), *out])
        heard = capsys.readouterr()
        return left.value.code, heard.out, heard.err

    answer.calls = calls
    return answer


def test_run_writes_record_manifest_verdicts_and_figures_and_check_agrees(call, tmp_path):
    code, out, _ = call("run", "e03", "--quick")
    folder = tmp_path / "e03_warm_restarts-quick"
    assert code == 0
    assert "yes" in out
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"record.nc", "manifest.json", "summary.json"} <= names
    ends = (".png", ".pdf", ".csv", ".nc", ".caption.md")
    assert {f"e03_warm_restarts{end}" for end in ends} <= names
    assert call("check", "e03", "--quick")[1].endswith("No verdict has changed since the run.\n")
    summary = json.loads((folder / "summary.json").read_text())
    summary["verdicts"][0]["holds"] = False
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "changed: adamw: at the first restart" in call("check", "e03", "--quick")[1]
    for path in folder.rglob("*.png"):
        path.unlink()
    assert call("plot", "e03", "--quick", "--venue", "icml")[0] == 0
    assert list(folder.rglob("*.png"))
    code, out, err = call("run", "e03", "--quick")
    assert (code, out) == (2, "")
    assert "is not empty" in err
    assert len(call.calls) == 1


def test_what_a_page_says_is_written_with_the_verdicts_and_under_the_figure(call, tmp_path):
    call("run", "e03", "--quick", "--seed", 3)
    folder, module = tmp_path / "e03_warm_restarts-quick", experiment_named("e03")
    about = json.loads((folder / "summary.json").read_text())["experiment"]
    assert about["question"] == module.__doc__.partition("\n")[0]
    assert (about["claim"], about["settles"]) == (module.CLAIM, list(module.SETTLES))
    assert about["captions"] == {"e03_warm_restarts": module.CAPTION}
    assert about["command"] == "python -m experiments run e03_warm_restarts --quick --seed 3"
    draft = (folder / "figures" / "e03_warm_restarts.caption.md").read_text()
    verdicts = module.check(read_record(folder))
    assert module.CAPTION in draft
    assert "not for print" in draft
    assert "neurips, 5.5 inches wide" in draft
    yes, no, open_ = (sum(each.holds is word for each in verdicts) for word in (True, False, None))
    assert yes
    assert f"in {len(verdicts)} parts: {yes} hold, {no} do not, {open_} not judged." in draft
    for each in verdicts:
        assert each.measured in draft
        assert each.expected in draft
    before = (folder / "record.nc").read_bytes()
    assert call("plot", "e03", "--quick", "--venue", "jmlr")[0] == 0
    stored = read_record(folder / "figures" / "e03_warm_restarts.nc")
    assert stored.attributes["venue"] == "jmlr"
    assert (folder / "record.nc").read_bytes() == before
    assert len(call.calls) == 1  # drawn from the record, not computed anew


def test_a_page_is_made_in_the_end_and_of_older_records_after_judging_them_again(
    call, monkeypatch, tmp_path
):
    monkeypatch.setattr(contract, "experiment_names", lambda: ["e03_warm_restarts"])
    assert call("all", "--quick", "--report")[0] == 0
    page = (tmp_path / "report.html").read_text()
    question = experiment_named("e03").__doc__.partition("\n")[0]
    assert question in page
    assert "<svg " in page
    folder = tmp_path / "e03_warm_restarts-quick"
    summary = json.loads((folder / "summary.json").read_text())
    del summary["experiment"]
    (folder / "summary.json").write_text(json.dumps(summary))
    for path in (folder / "figures").iterdir():
        path.unlink()
    assert call("report")[0] == 0
    assert (tmp_path / "report.html").read_text() == page
    again = json.loads((folder / "summary.json").read_text())
    assert again["seconds"] == summary["seconds"]
    assert again["verdicts"] == summary["verdicts"]
    del summary["verdicts"]
    (folder / "summary.json").write_text(json.dumps(summary))
    made = read_record(folder)
    made.groups.pop("adamw/restarts")
    write_record(made, folder)
    code, out, err = call("report")  # cannot be judged: said, and the page shows the rest
    assert (code, err.count("\n")) == (0, 1)
    assert "no group 'adamw/restarts'" in err
    assert "Report " in out


def test_all_goes_on_where_it_stopped(call, monkeypatch):
    monkeypatch.setattr(contract, "experiment_names", lambda: ["e03_warm_restarts"])
    assert call("all", "--quick")[0] == 0
    assert "found finished" in call("all", "--quick")[1]
    assert len(call.calls) == 1
    code, _, err = call("all", "--quick", "--seed", 1)
    assert (code, len(call.calls)) == (2, 1)
    assert "a finished run of another seed or configuration" in err
    assert call("all", "--quick", "--seed", 1, "--force")[0] == 0
    assert len(call.calls) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda made: made.groups.pop("adamw/restarts"), "no group 'adamw/restarts'"),
        (
            lambda made: made.groups["adamw/restarts"].pop("test_error"),
            "no test_error in group 'adamw/restarts'",
        ),
        (lambda made: made.attributes.update(config={"problems": []}), "is not one of e03"),
    ],
)
def test_a_record_that_is_not_whole_or_of_something_else_is_one_line(
    call, tmp_path, spoil, message
):
    call("run", "e03", "--quick")
    folder = tmp_path / "e03_warm_restarts-quick"
    made = read_record(folder)
    spoil(made)
    (folder / "record.nc").unlink()
    write_record(made, folder)
    for verb in ("check", "plot"):
        code, _, err = call(verb, "e03", "--quick")
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_verdicts_that_cannot_be_read_are_nothing_to_compare_with(call, tmp_path):
    call("run", "e03", "--quick")
    for text in ("{}", "nonsense", '{"verdicts": [{"claim": "x"}, 3]}'):
        (tmp_path / "e03_warm_restarts-quick" / "summary.json").write_text(text)
        code, out, _ = call("check", "e03", "--quick")
        assert code == 0
        assert "nothing to compare with" in out


def test_list_names_every_experiment_and_its_claim(call):
    out = call("list")[1]
    for name in NAMES:
        assert name in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "e01_seperability"), "Did you mean 'e01_separability'?"),
        (("run", "e99"), "There is no experiment 'e99'."),
        (("run", "e03", "--venue", "nips"), "venue"),
        (("plot", "e03", "--venue", "icml-wide"), "Did you mean 'icml_wide'"),
        (("report",), "holds no run"),
        (("run", "e03", "--seed", -1), "0 <= --seed <"),
        (("check", "e03"), "make it with: python -m experiments run e03_warm_restarts --out"),
        (
            ("plot", "e03", "--quick"),
            "make it with: python -m experiments run e03_warm_restarts --quick",
        ),
        (("rum", "e03"), "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(call, tmp_path, words, message):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("experiments: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())
    assert not call.calls


def test_ctrl_c_leaves_no_half_of_an_experiment(call, monkeypatch, tmp_path):
    def interrupted(config, key):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_named("e03"), "run", interrupted)
    code, _, err = call("run", "e03", "--quick")
    assert code == 2
    assert "interrupted" in err
    assert not (tmp_path / "e03_warm_restarts-quick").exists()
