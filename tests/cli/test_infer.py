"""`bayesfilt infer`: from a recorded run to a verdict, what it refuses, and how it goes on."""

import json
import re
import shutil

import arviz
import numpy as np
import pytest

from bayesfilt.commands import inference, record
from bayesfilt.compare.streams import StreamRecord, streams_to_record
from bayesfilt.infer.fit import load_fit
from bayesfilt.records import Record, read_record, variable, write_record
from tests.compare.recordings import streams

MODELS = ("random_walk", "ornstein_uhlenbeck")
SHORT = ("--warmup", 15, "--samples", 25)
TASK = ("--task", "bowl", "--num-steps", 24, "--warm-up-steps", 4, "--weights-per-layer", 4)
FITS = {f"{name}{part}.nc" for name in MODELS for part in ("", "-first")}


@pytest.fixture
def run_of(tmp_path):
    """Write streams as the record of a run; its folder."""

    def write(recorded: StreamRecord):
        write_record(streams_to_record(recorded), tmp_path / "run")
        return tmp_path / "run"

    return write


@pytest.fixture(scope="module")
def place_of_the_run(tmp_path_factory):
    return tmp_path_factory.mktemp("infer") / "run"


@pytest.fixture
def said(bayesfilt, place_of_the_run):
    """What the one real inference of this file said; made by the first test that asks."""
    words = place_of_the_run.parent / "said.json"
    if not words.exists():
        answer = bayesfilt("infer", place_of_the_run, *TASK, *SHORT, "--models", *MODELS)
        words.write_text(json.dumps(answer._asdict()))
    return json.loads(words.read_text())


@pytest.fixture
def a_copy(said, place_of_the_run, tmp_path):
    """The finished run once more, to be spoilt."""
    assert said["code"] == 0
    return shutil.copytree(place_of_the_run, tmp_path / "copy")


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(inference, "draw_all", lambda record, folder: [])
    monkeypatch.setattr(inference, "_draw_sampling", lambda fits, folder: [])


@pytest.fixture
def no_fits(monkeypatch):
    """Nothing is fitted: as if Ctrl-C came at once."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "fit", interrupted)


def test_an_inference_leaves_fits_record_manifest_summary_and_figures(said, place_of_the_run):
    assert (said["code"], said["err"]) == (0, "")
    out = place_of_the_run / "inference"
    assert {path.name for path in (out / "fits").iterdir()} == FITS
    assert {path.name for path in out.iterdir()} == {
        "fits", "figures", "record.nc", "manifest.json", "summary.json",
    }  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["interrupted"], manifest["seed"]) == (False, 0)
    assert set(manifest["config"]["models"]) == set(MODELS)
    drawn = {path.stem for path in (out / "figures").glob("*.png")}
    assert drawn == {path.stem for path in (out / "figures").glob("*.pdf")}
    assert drawn == {
        "streams", "shrink", "comparison", "calibration", "instruments", "belief",
        *(f"{kind}-{name}" for kind in ("chains", "posterior") for name in MODELS),
    }  # fmt: skip


def test_the_recorded_run_is_a_run(said, place_of_the_run):
    assert said["code"] == 0
    record = read_record(place_of_the_run)
    assert record.groups["streams"]["optimum"].values.shape == (24, 4)
    assert record.groups["streams"]["step"].values[0] == 4
    manifest = json.loads((place_of_the_run / "manifest.json").read_text())
    assert manifest["config"]["task"] == "bowl"
    assert (manifest["config"]["num_steps"], manifest["dtype"]) == (24, "float64")


def test_a_fit_is_what_arviz_reads(said, place_of_the_run):
    assert said["code"] == 0
    path = place_of_the_run / "inference" / "fits" / "ornstein_uhlenbeck.nc"
    summary = arviz.summary(arviz.from_netcdf(path), var_names=["shrink"])
    assert list(summary.index) == ["shrink[all]"]


def test_a_fit_that_fails_its_gates_is_marked_everywhere(said, place_of_the_run):
    # 25 draws are never 400 effective ones.
    summary = json.loads((place_of_the_run / "inference" / "summary.json").read_text())
    assert len(summary["gates"]) == len(FITS)
    assert not any(gates["passes"] for gates in summary["gates"].values())
    assert summary["reported_model"] is None
    assert {rival["verdict"] for rival in summary["comparison"]["rivals"]} == {"not ranked"}
    assert said["out"].count("FAILED its gates") == len(FITS)
    assert "not ranked: a gate failed" in said["out"]
    record = read_record(place_of_the_run / "inference")
    for group in ("shrink", "comparison", "calibration"):
        assert record.groups[group]["failed"].values.all()


def test_the_verdict_is_in_words_beside_both_decays(said, place_of_the_run):
    summary = json.loads((place_of_the_run / "inference" / "summary.json").read_text())
    (verdict,) = summary["verdicts"]
    assert verdict["word"] == "cannot tell"
    assert verdict["decay_set"] == pytest.approx(1e-4)
    sigma2 = [
        row["median"]
        for row in summary["numbers"]["ornstein_uhlenbeck"]
        if row["parameter"] == "stationary_variance"
    ]
    tied = read_record(place_of_the_run / "inference").groups["shrink"]["implied_decay"].values
    np.testing.assert_allclose(tied, 1e-6 / (2 * np.array(sigma2)))
    assert "In all the mean of the transition may or may not shrink: cannot tell" in said["out"]
    (row,) = re.findall(r"^all +cannot tell +(.*)$", said["out"], re.MULTILINE)
    assert float(row.split()[4]) == 1e-4  # lr*wd
    assert float(row.split()[6]) == pytest.approx(tied[0], rel=5e-3)


def test_the_same_command_again_fits_nothing(bayesfilt, a_copy, no_fits, no_figures):
    record = read_record(a_copy / "inference")
    answer = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS)
    assert (answer.code, answer.err) == (0, "")
    again = read_record(a_copy / "inference")
    for group in ("foretold", "shrink", "comparison", "calibration", "instruments"):
        for name, item in record.groups[group].items():
            np.testing.assert_array_equal(item.values, again.groups[group][name].values)


def test_after_ctrl_c_only_the_missing_models_are_fitted(
    bayesfilt, a_copy, monkeypatch, no_figures
):
    fits = a_copy / "inference" / "fits"
    kept = {path.name: load_fit(path) for path in fits.iterdir()}
    missing = ["ornstein_uhlenbeck.nc", "ornstein_uhlenbeck-first.nc"]
    for name in missing:
        (fits / name).unlink()
    made = []

    def fit_one_more(key, model, streams, **options):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(model.transition)
        return kept[missing[0]]

    monkeypatch.setattr(inference, "fit", fit_one_more)
    stopped = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS)
    assert (stopped.code, stopped.out) == (2, "")
    (line,) = stopped.err.splitlines()
    assert "interrupted with 3 fits finished" in line and "goes on from there" in line
    assert {path.name for path in fits.iterdir()} == FITS - {missing[1]}

    def fit_the_last(key, model, streams, **options):
        made.append(model.transition)
        return kept[missing[1]]

    monkeypatch.setattr(inference, "fit", fit_the_last)
    answer = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS)
    assert (answer.code, answer.err) == (0, "")
    assert made == ["ornstein_uhlenbeck", "ornstein_uhlenbeck"]
    assert {path.name for path in fits.iterdir()} == FITS


def test_a_fit_that_was_cut_short_is_not_kept(bayesfilt, a_copy, monkeypatch):
    path = a_copy / "inference" / "fits" / "random_walk.nc"
    half = load_fit(path)
    half = half._replace(tree=half.tree.isel(draw=slice(0, 10), missing_dims="ignore"))
    path.unlink()
    monkeypatch.setattr(inference, "fit", lambda *arguments, **options: half)
    answer = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS)
    assert answer.code == 2
    assert not path.exists()


def test_another_setting_does_not_go_on_with_these_fits(bayesfilt, a_copy, no_fits):
    answer = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS, "--seed", 1)
    assert re.search(r"holds another inference \(seed 0, not 1\).*--force", answer.only_line)
    forced = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS, "--seed", 1, "--force")
    assert "interrupted with 0 fits" in forced.err
    assert read_record(a_copy)  # the run itself was not touched


def test_a_folder_with_other_things_is_refused(bayesfilt, run_of, tmp_path, no_fits):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    answer = bayesfilt("infer", run_of(streams()), "--out", tmp_path / "mine")
    assert re.search(r"mine is not empty; name another folder", answer.only_line)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_the_results_never_stand_where_the_run_does(bayesfilt, run_of, no_fits):
    folder = run_of(streams())
    before = (folder / "record.nc").read_bytes()
    answer = bayesfilt("infer", folder, "--out", folder / ".", "--force")
    assert "needs another --out than the run's own folder" in answer.only_line
    assert (folder / "record.nc").read_bytes() == before


def test_force_spares_the_fits_of_somebody_else(bayesfilt, run_of, tmp_path, no_fits):
    theirs = tmp_path / "mine" / "fits" / "spectrum.nc"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("keep me")
    answer = bayesfilt("infer", run_of(streams()), "--out", tmp_path / "mine", "--force")
    assert re.search(r"fits holds spectrum.nc and .*mine is no inference", answer.only_line)
    assert theirs.read_text() == "keep me"


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1}', '{"schema_version": "x"}'])
def test_a_spoilt_manifest_of_an_inference_is_named(bayesfilt, run_of, no_fits, text):
    folder = run_of(streams())
    (folder / "inference").mkdir()
    (folder / "inference" / "manifest.json").write_text(text)
    answer = bayesfilt("infer", folder)
    assert "manifest.json is not the manifest of a run" in answer.only_line


def test_the_same_command_with_task_goes_on_with_its_recording(
    bayesfilt, said, a_copy, no_fits, monkeypatch
):
    (a_copy / "inference" / "fits" / "random_walk.nc").unlink()
    monkeypatch.setattr(record, "_record", None)  # nothing is recorded again
    answer = bayesfilt("infer", a_copy, *TASK, *SHORT, "--models", *MODELS)
    assert "recorded before, by the same command" in answer.out
    assert "interrupted with 3 fits finished" in answer.err
    other = bayesfilt("infer", a_copy, *TASK, "--learning-rate", 0.1, "--models", *MODELS)
    assert "is not empty" in other.only_line


def test_a_run_that_diverged_is_said_to_have(bayesfilt, run_of, no_fits):
    optimum = streams().optimum
    optimum[7:] = np.nan
    answer = bayesfilt("infer", run_of(streams(optimum=optimum, diverged_at=7)))
    assert "The run diverged at step 7" in answer.err.splitlines()[0]


def test_much_that_is_masked_is_said(bayesfilt, run_of, no_fits):
    valid = np.arange(12)[:, None] + np.zeros((1, 3)) > 2
    answer = bayesfilt("infer", run_of(streams(optimum_valid=valid)))
    assert "25% of the steps are masked (no valid optimum)" in answer.err


def test_a_tree_of_another_tool_among_the_fits_is_named(bayesfilt, a_copy, no_fits):
    path = a_copy / "inference" / "fits" / "random_walk.nc"
    arviz.from_dict({"posterior": {"mu": np.zeros((2, 5))}}).to_netcdf(path)
    answer = bayesfilt("infer", a_copy, *SHORT, "--models", *MODELS)
    assert re.search(r"random_walk.nc needs a fit of bayesfilt, got a tree wi", answer.only_line)


BAD_RUNS = {
    "one step": (streams(num_steps=1), (), "needs at least 2 steps before .*got 1 steps"),
    "one step, nothing held out": (
        streams(num_steps=1), ("--held-out", 0, "--pooling", "layer"), "at least 2 steps, got 1",
    ),
    "nothing valid": (
        streams(optimum_valid=np.zeros((12, 3), bool)), (), "got 3 streams of 12 steps, none valid",
    ),
    "constant": (streams(optimum=np.ones((12, 3))), (), "a stream that moves, got 3: 3 constant"),
    "nothing in the first steps": (
        streams(optimum_valid=np.arange(12)[:, None] + np.zeros((1, 3)) > 8),
        (),
        "moves within the first 8 steps, got 3 streams with 0 valid steps there",
    ),
    "no optima": (
        streams(optimum=None, optimum_valid=None), (), "without optimum.*which=\\('optimum',\\)",
    ),
    "no gradients": (
        streams(gradient=None), ("--kind", "gradient"), "without gradient: record them with",
    ),
    "a layer": (streams(), ("--layers", "dense_2"), "knows layer.*got 'dense_2'.*'dense_1'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RUNS)
def test_streams_that_cannot_be_fitted_are_one_line(bayesfilt, run_of, no_fits, case):
    recorded, options, message = BAD_RUNS[case]
    folder = run_of(recorded)
    answer = bayesfilt("infer", folder, *options)
    assert re.search(message, answer.only_line), answer.only_line
    assert not (folder / "inference").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--chains", 0), "infer needs --chains >= 1, got 0"),
        (("--warmup", -1), "infer needs --warmup >= 0, got -1"),
        (("--samples", 0), "infer needs --samples >= 4, got 0"),
        (("--held-out", 1), "infer needs 0 <= --held-out < 1, got 1"),
        (("--seed", -1), "infer needs 0 <= --seed"),
        (("--models",), "infer needs at least one of --models, got none"),
        (("--models", "ornstein_ulenbeck"), "got 'ornstein_ulenbeck'.*'ornstein_uhlenbeck'"),
        (("--models", "l2", "l2"), "each of --models once, got 'l2' twice"),
        (("--models", "l2:tail=student_t"), "word noise, tails, pooling; got 'tail'.*'tails'"),
        (("--models", "l2:tails=cauchy"), "tails gaussian, student_t; got 'cauchy'"),
        (("--held-out", 0, "--pooling", "stream"), "pooling 'layer' with --held-out 0.*for static"),
        (("--models", "l2:pooling=stream", "--held-out", 0), "pooling='stream' for l2:pooling"),
        (("--models", "l2:noise=matched"), "noise 'none' or 'free' for optimum streams"),
        (("--learning-rate", 0.1), "needs --task with --learning-rate: .* is one already"),
        (("--task", "digits-mpl"), "got 'digits-mpl'.*'digits-mlp'"),
        (("--task", "bowl", "--optimizer", "adamm"), "got 'adamm'.*'adamw?'"),
        (("--task", "bowl", "--num-steps", 1), "num_steps >= 2, got num_steps=1"),
        (("--task", "bowl", "--weights-per-layer", 0), "per_layer >= 1, got per_layer=0"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_one_line(bayesfilt, tmp_path, options, message):
    folder = tmp_path / "run"
    answer = bayesfilt("infer", folder, *options)
    assert re.search(message, answer.only_line), answer.only_line
    assert not folder.exists()


def test_what_is_no_run_is_named(bayesfilt, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    told = {name: bayesfilt("infer", tmp_path / name).only_line for name in ("no", "file", "empty")}
    assert "no does not exist; infer needs the folder of a run, or --task" in told["no"]
    assert "file is a file; infer needs the folder of a run" in told["file"]
    assert "empty is no run: it has no record" in told["empty"]


def test_a_run_without_streams_says_how_to_record_some(bayesfilt, tmp_path):
    group = {"loss": variable("step", [1.0, 0.5])}
    write_record(Record(groups={"free": group, "shadow": group}, attributes={}), tmp_path)
    line = bayesfilt("infer", tmp_path).only_line
    assert "was recorded without streams (it has free, shadow)" in line
    assert "bayesfilt infer NEW_FOLDER --task digits-mlp" in line


def test_a_folder_with_a_run_is_not_recorded_into(bayesfilt, run_of):
    folder = run_of(streams())
    assert "is not empty" in bayesfilt("infer", folder, "--task", "bowl").only_line


def test_float32_streams_are_converted_and_it_is_said(bayesfilt, run_of, no_fits):
    single = streams()
    folder = run_of(single._replace(optimum=single.optimum.astype(np.float32)))
    answer = bayesfilt("infer", folder)
    assert "Recorded in float32, converted to float64" in answer.err


@pytest.mark.filterwarnings("default::bayesfilt.infer.StreamWarning")
def test_clipped_gradients_are_warned_of_once(bayesfilt, run_of, no_fits):
    answer = bayesfilt("infer", run_of(streams(clipped=True)), "--kind", "gradient")
    assert answer.err.count("The gradients look clipped (the run clipped its gradients)") == 1


def test_only_the_layers_that_are_asked_for_are_fitted(bayesfilt, run_of, monkeypatch):
    asked = []

    def look(key, model, streams, **options):
        asked.append((streams.layer_names, streams.observed.shape, options["num_chains"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "fit", look)
    bayesfilt("infer", run_of(streams()), "--layers", "dense_0", "--chains", 3)
    assert asked == [(("dense_0",), (2, 12), 3)]
