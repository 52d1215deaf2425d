"""Bad input that reaches a command: one clear line, exit code 2, and nothing is left behind."""

import struct

import jax
import numpy as np
import pytest

from bayesfilt.commands import study


@pytest.fixture
def compare(bayesfilt, monkeypatch, tmp_path):
    """The line with which `compare` refuses some options, before it computes anything."""

    def never(*arguments, **options):
        raise AssertionError("it was computed all the same")

    monkeypatch.setattr(study, "run_study", never)

    def refusal(*options: object) -> str:
        out = tmp_path / "out"
        line = bayesfilt("compare", *options, "--out", out).only_line
        assert not out.exists()
        return line

    return refusal


def matches(line: str, message: str) -> bool:
    return pytest.RaisesExc(ValueError, match=message).matches(ValueError(line))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "digits-mpl"), "got 'digits-mpl'. Did you mean 'digits-mlp'"),
        (("--followers", "adabays"), "got 'adabays'. Did you mean 'adabayes'"),
        (("--followers", "adabayes", "lion"), "adabayes_fixed_point.*got 'lion'"),
        (("--followers",), "number of followers >= 1"),
        (("--followers", "adam", "adam"), "'adam' twice"),
        (("--followers", "power_adam:power=0.75", "power_adam:power=.75"), "power=0.75' twice"),
        (("--num-steps", 0), "num_steps >= 1, got num_steps=0"),
        (("--batch-size", 0), "batch_size >= 1, got batch_size=0"),
        (("--learning-rate", -1e-3), "learning_rate > 0, got learning_rate=-0.001"),
        (("--learning-rate", 0), "learning_rate > 0, got learning_rate=0"),
        (("--weight-decay", -1), "weight_decay >= 0, got weight_decay=-1"),
        (("--learning-rate", 0.5, "--weight-decay", 2), "shrink per step below 1 .*got 1"),
        (
            ("--weight-decay", 0, "--followers", "sgdw"),
            "sgdw needs weight_decay > 0.*sgdw:learning",
        ),
        (("--followers", "power_adam:powr=1"), "got 'powr'. Did you mean 'power'"),
        (("--schedule", "cosin"), "got 'cosin'. Did you mean 'cosine'"),
        (("--schedule", "warm_restarts:T_0=0"), "T_0 >= 1, got T_0=0"),
        (("--schedule", "reduce_on_plateau"), "a function of the step, got 'reduce_on_plateau'"),
        (("--b1", 1), "0 <= b1 < 1, got b1=1"),
        (("--b2", 1.5), "0 <= b2 < 1, got b2=1.5"),
        (("--eps", -1), "eps >= 0, got eps=-1"),
        (("--record-every", 0), "record_every >= 1, got record_every=0"),
        (("--seed", -1), "0 <= --seed <= 4294967295, got -1"),
        (("--seed", 2**32), "0 <= --seed <= 4294967295, got 4294967296"),
        (("--subset", 0), "size >= 1, got size=0"),
        (("--subset", 5000), "size <= 1297"),
        (("--label-noise", 1), "0 <= fraction < 1, got fraction=1"),
        (("--task", "bowl", "--subset", 9), "digits.* only, got them for 'bowl'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_one_line(compare, options, message):
    assert matches(compare(*options), message)


def test_float64_that_is_switched_off_is_one_line(compare, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    assert matches(compare(), "JAX_ENABLE_X64=0 switches it off: unset .* or pass --dtype float32")


def test_float64_that_the_platform_lacks_is_one_line(compare, monkeypatch):
    update = jax.config.update

    def deaf(name, value):
        update(name, False if name == "jax_enable_x64" else value)

    # Undone before the fixture puts jax's settings back, through this very function.
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", deaf)
        answer = compare()
    assert matches(answer, r"float64 is asked for and not available on cpu \(got float32\)")


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(compare):
    assert matches(compare("--platform", "gpu"), "jax finds no GPU here, only cpu.*jax.cuda13.")


def test_a_cache_that_cannot_be_written_is_said_and_done_without(bayesfilt, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    answer = bayesfilt("map", "--learning-rate", 1, "--weight-decay", 0)
    assert answer.code == 0
    (line,) = answer.err.splitlines()
    assert "compiling without a cache" in line
    assert str(tmp_path / "file" / "cache") in line


def write_npz(path, **changes):
    arrays = {
        "train_inputs": np.zeros((6, 4)),
        "train_labels": np.arange(6) % 2,
        "test_inputs": np.zeros((2, 4)),
        "test_labels": np.arange(2),
    }
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_truncated_npz_is_named(compare, tmp_path, keep):
    path = write_npz(tmp_path / "data.npz")
    path.write_bytes(path.read_bytes()[:keep])
    assert matches(compare("--data", path), f"{path} is truncated or not an .npz")


def test_data_that_do_not_fit_together_are_named(compare, tmp_path):
    path = write_npz(tmp_path / "data.npz", train_labels=np.arange(5))
    assert matches(compare("--data", path), "6 train_inputs but 5 train_labels")


def test_a_truncated_idx_file_is_named(compare, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, axes in (("images-idx3", (9, 2, 2)), ("labels-idx1", (9,))):
        for split in ("train", "t10k"):
            header = struct.pack(f">HBB{len(axes)}I", 0, 8, len(axes), *axes)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + bytes(5))
    assert matches(compare("--data", folder), "train-images-idx3-ubyte is truncated")


def test_a_pickle_is_not_opened(compare, tmp_path):
    path = write_npz(tmp_path / "data.npz", train_inputs=np.array([{}] * 6, dtype=object))
    assert matches(compare("--data", path), "data.npz .*allow_pickle=False")


def test_data_that_are_not_there_are_named(compare, tmp_path):
    assert matches(compare("--data", tmp_path / "nope.npz"), "nope.npz does not exist")


def test_data_need_a_network(compare, tmp_path):
    path = write_npz(tmp_path / "data.npz")
    assert matches(compare("--data", path, "--task", "bowl"), "network .*got 'bowl'")


def test_the_traceback_is_there_for_who_asks(bayesfilt, monkeypatch):
    monkeypatch.setenv("BAYESFILT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="map needs"):
        bayesfilt("map", "--learning-rate", 1)
