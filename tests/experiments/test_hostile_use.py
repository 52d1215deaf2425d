"""What a careless, unlucky or impatient user does to records, folders and processes."""

import dataclasses
import json
import shutil

import jax
import pytest

from bayesfilt.records import Record, variable
from bayesfilt.run_directory import write_manifest
from experiments import __main__ as command
from experiments import contract, making, run_folder, verdict_table
from experiments.contract import Verdict, experiment_named

NAME = "e11_gain_is_variance"  # one that computes in float64


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command; the experiment answers at once, and precisions are noted."""
    module = experiment_named(NAME)
    asked: list[str] = []

    def run(config, key):
        return Record(
            groups={"a": {"x": variable("n", [1.0])}},
            attributes={"config": dataclasses.asdict(config)},
        )

    def check(result):
        return [Verdict(claim="x", measured="1", expected="1", tolerance="none", holds=True)]

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "check", check)
    monkeypatch.setattr(contract, "experiment_names", lambda: [NAME])
    monkeypatch.setattr(
        making, "prepare_jax", lambda platform, dtype, **options: asked.append(dtype)
    )
    monkeypatch.setattr("experiments.written.figures_of", lambda module: [])

    def answer(*words, out=tmp_path / "runs with ö"):
        with pytest.raises(SystemExit) as left:
            command.main([*map(str, words), "--out", str(out)])
        heard = capsys.readouterr()
        return left.value.code, heard.out, heard.err

    answer.asked = asked
    answer.module = module
    answer.folder = tmp_path / "runs with ö"
    return answer


@pytest.mark.parametrize("words", [("check", "e11"), ("plot", "e11"), ("report",), ("check",)])
def test_records_are_judged_in_the_precision_they_were_made_in(call, words):
    assert call("run", "e11", "--quick")[0] == 0
    call.asked.clear()
    summary = call.folder / f"{NAME}-quick" / "summary.json"
    if words == ("report",):  # judges only what an older version wrote
        summary.write_text("{}")
    assert call(*words, *(["--quick"]))[0] == 0
    assert call.asked == ["float64"]


def test_only_a_quick_trial_compiles_cheaply_and_for_one_device(call, monkeypatch):
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)  # as users have it
    seen = []
    monkeypatch.setattr(
        making, "prepare_jax", lambda platform, dtype, split_cpu: seen.append(split_cpu)
    )
    run = call.module.run

    def noted(config, key):
        seen.append(jax.config.values["jax_disable_most_optimizations"])
        return run(config, key)

    monkeypatch.setattr(call.module, "run", noted)
    try:
        assert call("run", "e11", "--quick")[0] == call("run", "e11")[0] == 0
        assert seen == [False, True, True, False]  # split, cheaply: of QUICK, then of PAPER
        monkeypatch.setattr(call.module, "run", lambda *_: {}["lost"])
        with pytest.raises(KeyError):
            making.make(call.module, call.module.QUICK, call.folder / "x", seed=0, venue="icml",
                        force=True)  # fmt: skip
        assert jax.config.values["jax_disable_most_optimizations"] is False
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_a_killed_run_is_listed_as_not_finished_and_goes_on_without_force(call, monkeypatch):
    folder = call.folder / f"{NAME}-quick"
    write_manifest(
        folder, call.module.QUICK, seed=0, dtype="float64", wall_time_seconds=0, interrupted=True
    )
    code, _, err = call("report")
    assert code == 0
    assert "Not finished: no record." in err
    assert "Not finished." in (call.folder / "report.html").read_text()
    assert call("run", "e11", "--quick")[0] == 0
    assert json.loads((folder / "manifest.json").read_text())["interrupted"] is False


def test_a_run_that_fails_leaves_no_folder_and_the_others_are_made(call, monkeypatch):
    def fails(config, key):
        raise ValueError("no valley\nin the grid")

    other = "e12_crossover"
    monkeypatch.setattr(contract, "experiment_names", lambda: [NAME, other])
    monkeypatch.setattr(experiment_named(other), "run", call.module.run)
    monkeypatch.setattr(experiment_named(other), "check", call.module.check)
    monkeypatch.setattr(call.module, "run", fails)
    code, _, err = call("all", "--quick")
    assert code == 2
    assert err.splitlines() == [
        f"{NAME}: no valley in the grid",
        f"experiments: error: not made: {NAME}.",
    ]
    assert [each.name for each in call.folder.iterdir()] == [f"{other}-quick"]


def test_two_that_make_the_same_experiment_do_not_write_over_each_other(call):
    folder = call.folder / f"{NAME}-quick"
    with run_folder.taken(folder):
        code, _, err = call("run", "e11", "--quick")
        assert (code, err.count("\n")) == (2, 1)
        assert "another process makes the experiment in" in err
        assert call("all", "--quick")[0] == 0  # leaves it to the other
        assert not list(folder.iterdir())
    assert call("run", "e11", "--quick")[0] == 0


def test_a_summary_without_its_record_is_not_finished(call):
    call("run", "e11", "--quick")
    (call.folder / f"{NAME}-quick" / "record.nc").unlink()
    assert "found finished" not in call("all", "--quick")[1]
    assert "found finished" in call("all", "--quick")[1]


def test_all_goes_on_behind_a_finished_record_that_cannot_be_judged_today(call, monkeypatch):
    def cannot(result):
        raise ValueError("no group 'a'")

    call("run", "e11", "--quick")
    monkeypatch.setattr(call.module, "CLAIM", "A claim of today.")
    monkeypatch.setattr(call.module, "check", cannot)
    code, out, err = call("all", "--quick")
    assert (code, err) == (0, f"{NAME}: no group 'a'\n")
    assert "found finished" in out


def test_a_page_has_the_words_of_today_s_module(call, monkeypatch):
    call("run", "e11", "--quick")
    monkeypatch.setattr(call.module, "CLAIM", "A claim of today.")
    assert call("report")[0] == 0
    assert "A claim of today." in (call.folder / "report.html").read_text()


def test_settings_that_are_not_today_s_are_said_and_do_not_enter_the_table(call, monkeypatch):
    call("run", "e11", "--quick")
    shutil.move(call.folder / f"{NAME}-quick", call.folder / NAME)
    assert "not today's of PAPER" in call("check", "e11")[1]
    monkeypatch.setattr(verdict_table, "read_verdicts", dict)
    code, out, err = call("table")
    assert "other settings than today's PAPER, and is left out" in out
    assert (code, err.count("\n")) == (2, 1)
    assert "none on record" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table",), "there is no"),
        (("table", "--also", "nowhere"), "there is no nowhere"),
        (("check",), "no record in"),
        (("check", "e1"), "Did you mean 'e11_gain_is_variance'?"),
        (("run", "gain_is_varianc"), "Did you mean 'e11_gain_is_variance'?"),
        (("all", "--venue", "neurip"), "Did you mean 'neurips'"),
    ],
)
def test_bad_input_is_one_line(call, words, message):
    code, _, err = call(*words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_file_in_place_of_an_experiment_s_folder_is_one_line(call):
    call.folder.mkdir()
    (call.folder / f"{NAME}-quick").write_text("mine")
    code, _, err = call("run", "e11", "--quick", "--force")
    assert (code, err.count("\n")) == (2, 1)
    assert "Cannot write" in err
    assert (call.folder / f"{NAME}-quick").read_text() == "mine"


@pytest.mark.parametrize("words", [("run", "e11"), ("check",), ("all",), ("table",), ("report",)])
def test_a_file_in_place_of_a_folder_is_one_line(call, tmp_path, words):
    (tmp_path / "file").write_text("mine")
    code, out, err = call(*words, out=tmp_path / "file")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--out needs a folder, got the file" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    ["[]", '{"verdicts": [{"claim": ["x"]}]}', '{"verdicts": [{"claim": "x", "holds": []}]}'],
)
def test_nonsense_in_a_summary_is_nothing_to_compare_with(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert run_folder.verdicts_of_the_run(tmp_path) is None


def test_a_damaged_record_does_not_keep_the_others_from_being_judged(call, monkeypatch):
    call("run", "e11", "--quick")
    (call.folder / f"{NAME}-quick" / "record.nc").write_bytes(b"damaged")
    code, _, err = call("check", "--quick")
    assert code == 2
    first, last = err.splitlines()
    assert "make it again with: python -m experiments run e11_gain_is_variance --quick" in first
    assert last == f"experiments: error: not judged: {NAME}."


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", None), ("dtype", 32), ("wall_time_seconds", "long"), ("versions", 3)],
)
def test_a_manifest_that_does_not_tell_is_no_entry(call, tmp_path, key, value):
    call("run", "e11")
    manifest = tmp_path / "runs with ö" / NAME / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {key: value}))
    with pytest.raises(ValueError, match=f"does not tell {key}"):
        verdict_table.entry_of(call.module, manifest.parent)
    entry = {"seed": 1, "verdicts": []}
    with pytest.raises(ValueError, match=f"does not tell {key}"):
        verdict_table.with_other_seed(entry, call.module, manifest.parent)
    del content[key]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"does not tell {key}"):
        verdict_table.entry_of(call.module, manifest.parent)


def test_a_run_whose_manifest_is_cut_off_is_named_so_and_not_replaced(call, tmp_path, monkeypatch):
    call("run", "e11")
    folder = tmp_path / "runs with ö" / NAME
    (folder / "manifest.json").write_text('{"seed": 0, "conf')
    code, _, err = call("all")
    assert code == 2
    assert "has no manifest that can be read; use another --out, or --force" in err
    monkeypatch.setattr(verdict_table, "read_verdicts", dict)  # so that nothing is written
    code, out, err = call("table")
    assert "has no manifest that can be read, and is left out" in out
    assert code == 2 and "and none on record" in err


def test_an_empty_word_is_no_folder(call):
    code, _, err = call("run", "e11", out="")
    assert (code, err) == (2, "experiments: error: --out needs a folder, got nothing.\n")


@pytest.mark.parametrize("verdicts", [[1], None, [{"claim": 1, "holds": True}], [{"claim": "a"}]])
def test_a_table_whose_verdicts_are_none_is_one_line(tmp_path, verdicts):
    path = tmp_path / "verdicts.json"
    entry = {"verdicts": verdicts, "seconds": 1.0, "device": "cpu"}
    path.write_text(json.dumps({"schema": 1, "experiments": {"e11": entry}}))
    if verdicts == [{"claim": "a"}]:  # no answer is "not judged"
        assert verdict_table.read_verdicts(path)
        return
    with pytest.raises(ValueError, match="is damaged"):
        verdict_table.read_verdicts(path)


def test_a_table_whose_entries_are_not_whole_is_one_line(tmp_path):
    path = tmp_path / "verdicts.json"
    path.write_text('{"schema": 1, "experiments": {"e11": {"verdicts": []}}}')
    with pytest.raises(ValueError, match="is damaged"):
        verdict_table.read_verdicts(path)
