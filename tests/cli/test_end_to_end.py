"""The real thing, small: AdamW on the digits, followers beside it, files and figures."""

import json
import signal

import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from matplotlib.image import imread

from bayesfilt.commands import study
from bayesfilt.compare import run_study
from bayesfilt.records import read_record

OPTIONS = ("--followers", "adabayes_fixed_point", "adam", "--num-steps", 40, "--record-every", 5)


@pytest.mark.slow  # on a bowl and without figures below; figures in tests/figures
def test_compare_trains_compares_writes_and_draws(
    bayesfilt, tmp_path_factory, tmp_path, monkeypatch
):
    compiled_programs = tmp_path_factory.mktemp("compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled_programs))
    compilation_cache.reset_cache()  # as in a new process: earlier tests chose another folder
    answer = bayesfilt("compare", *OPTIONS, "--schedule", "cosine", "--out", tmp_path)
    assert (answer.code, answer.err) == (0, "")

    record = read_record(tmp_path)
    assert set(record.groups) == {"free", "shadow", "gains", "decay", "validity"}
    free = record.groups["free"]
    assert list(free["run"].values) == ["adamw", "adabayes_fixed_point", "adam"]
    assert free["loss"].values.shape == (3, 8)
    assert free["loss"].values.dtype == np.float64
    assert np.isfinite(free["loss"].values).all()
    assert (free["loss"].values[:, -1] < free["loss"].values[:, 0]).all()

    (rows,) = [
        each["rows"]
        for each in json.loads((tmp_path / "summary.json").read_text())["tasks"].values()
    ]
    cosines = {row["optimizer"]: row["mean_cosine"] for row in rows}
    assert 0.5 < cosines["adabayes_fixed_point"] < cosines["adam"] < 1
    assert [row["biggest_share"] for row in rows] == [None, "eps", "decay"]
    for row in rows:
        assert row["optimizer"] in answer.out

    pictures = sorted((tmp_path / "figures").glob("*.png"))
    assert len(pictures) >= 5
    for picture in pictures:
        assert picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert np.ptp(imread(picture)) > 0.5
    assert any(compiled_programs.iterdir())


def test_ctrl_c_keeps_the_steps_that_were_made(bayesfilt, quick_figures, tmp_path, monkeypatch):
    def stop_half_way(*arguments, on_progress, **options):
        def progress(completed, total):
            on_progress(completed, total)
            if completed >= total / 2:
                signal.raise_signal(signal.SIGINT)

        return run_study(*arguments, on_progress=progress, **options)

    monkeypatch.setattr(study, "run_study", stop_half_way)
    answer = bayesfilt("compare", "--task", "bowl", *OPTIONS, "--out", tmp_path)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "interrupted after 20 of 40 steps of bowl" in line
    assert list(read_record(tmp_path).groups["free"]["step"].values) == [0, 5, 10, 15]
    assert json.loads((tmp_path / "manifest.json").read_text())["interrupted"] is True
    assert (tmp_path / "figures" / "training.png").is_file()


@pytest.mark.filterwarnings("default")
def test_float32_says_once_what_it_cannot_show(bayesfilt, quick_figures, tmp_path):
    answer = bayesfilt(
        "compare", "--task", "ravine", *OPTIONS, "--dtype", "float32", "--out", tmp_path
    )
    assert answer.code == 0
    (line,) = answer.err.splitlines()
    assert line.startswith("bayesfilt: warning: comparing optimizers on weights below float64")
    assert read_record(tmp_path).groups["free"]["loss"].values.dtype == np.float32
