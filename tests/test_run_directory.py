import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import bayesfilt
from bayesfilt import provenance
from bayesfilt.atomic_files import CannotWriteError
from bayesfilt.run_directory import (
    open_run_directory,
    read_manifest,
    write_manifest,
    write_summary,
)


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-3
    stationary_variance: float = np.inf
    out: Path = Path("runs/é")


def manifest_in(folder, **changes):
    settings = {"seed": 7, "dtype": "float64", "wall_time_seconds": 1.5}
    return write_manifest(folder, Config(), **{**settings, **changes})


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_new_folder_is_made_and_left_empty(tmp_path):
    folder = open_run_directory(tmp_path / "runs" / "a b é")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert open_run_directory(folder) == folder


def test_a_folder_with_anything_in_it_is_refused_and_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; .* --force") as caught:
        open_run_directory(tmp_path)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_force_takes_away_an_earlier_run_and_nothing_else(tmp_path):
    (tmp_path / "figures").mkdir()
    earlier = ["record.nc", "record.npz", "manifest.json", "summary.json", "report.html"]
    drawn = ["figures/loss.png", "figures/loss.pdf", ".0f3a.partial.nc", "figures/.1b.partial.png"]
    drawn += ["figures/loss.csv", "figures/loss.nc", "figures/loss.npz", "figures/loss.caption.md"]
    mine = ["notes.txt", "thesis.pdf", ".hidden", "figures/drawn_by_hand.svg", "figures/mine.csv"]
    for name in earlier + drawn + mine:
        (tmp_path / name).write_text("x")
    open_run_directory(tmp_path, force=True)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(mine)


def test_leftovers_of_a_killed_run_do_not_make_a_folder_full(tmp_path):
    (tmp_path / ".0f3a.partial.nc").write_text("half of")
    assert list(open_run_directory(tmp_path).iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        open_run_directory(path, force=True)
    with pytest.raises(CannotWriteError, match="Not a directory"):
        open_run_directory(path / "below")
    assert path.read_text() == "x"


def test_a_folder_that_cannot_be_written_says_so_before_any_work(tmp_path):
    # /proc takes no files from anybody, root included.
    with pytest.raises(CannotWriteError, match=r"Cannot write /proc/bayesfilt"):
        open_run_directory("/proc/bayesfilt")


def test_home_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_run_directory("~/runs") == tmp_path / "runs"


def test_the_manifest_says_how_the_numbers_came_about(tmp_path):
    manifest = strict_json(manifest_in(tmp_path))
    assert manifest["config"] == {
        "learning_rate": 1e-3,
        "stationary_variance": "inf",
        "out": "runs/é",
    }
    assert (manifest["seed"], manifest["dtype"], manifest["wall_time_seconds"]) == (
        7,
        "float64",
        1.5,
    )
    assert manifest["interrupted"] is False
    assert manifest["schema_version"] == 1
    assert manifest["versions"]["bayesfilt"] == bayesfilt.__version__
    assert manifest["versions"]["jax"].count(".") >= 2
    assert manifest["device"]["platform"] in ("cpu", "gpu")
    assert manifest["flags"]["jax_enable_x64"] is True  # conftest.py switched it on
    assert {"commit", "dirty"} <= manifest.keys()
    assert read_manifest(tmp_path) == manifest


def test_a_flag_that_can_change_a_number_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("SECRET_TOKEN", "do not keep")
    text = manifest_in(tmp_path).read_text()
    assert "--xla_cpu_enable_fast_math=false" in text
    assert "do not keep" not in text


def test_the_summary_is_strict_json(tmp_path):
    path = write_summary(tmp_path, {"gap": np.float32(0.5), "worst": np.nan, "n": np.arange(2)})
    assert strict_json(path) == {"gap": 0.5, "worst": "nan", "n": [0, 1]}


@pytest.mark.parametrize("text", ["", '{"seed": 1, ', "[]", "{}", "null"])
def test_a_truncated_or_foreign_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of a run"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_newer_bayesfilt_says_so(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match="schema 2 .* up to 1: a newer bayesfilt"):
        read_manifest(tmp_path)


# The commit belongs to bayesfilt's own checkout, not to whichever one lies around it.


def checkout(folder, *, tracked):
    module = folder / "provenance.py"
    module.write_text("")
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]

    def git(*arguments):
        done = subprocess.run(
            ["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    if tracked:
        git("add", module.name)
    git("commit", "-q", "--allow-empty", "-m", "first")
    return module, git("rev-parse", "HEAD")


def test_the_commit_and_uncommitted_changes_are_seen(tmp_path, monkeypatch):
    module, commit = checkout(tmp_path, tracked=True)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.code_state() == (commit, False)
    module.write_text("changed")
    assert provenance.code_state() == (commit, True)


def test_somebody_elses_checkout_is_not_taken_for_ours(tmp_path, monkeypatch):
    module, _ = checkout(tmp_path, tracked=False)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.code_state() == (None, None)


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.code_state() == (None, None)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/bayesfilt/jax"),
        ({"HOME": "/c"}, "/c/.cache/bayesfilt/jax"),
    ],
)
def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, variables, folder):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert provenance.compile_cache_folder() == Path(folder)
