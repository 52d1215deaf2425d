"""A whole study of real digits: every number is there, labelled, and what it says it is."""

import jax
import numpy as np
import optax
import pytest

from bayesfilt.compare import PARTS, run_study
from bayesfilt.compare.gains import LOG10_GAIN_EDGES
from bayesfilt.compare.study_record import averaging_steps
from bayesfilt.optimizers import Setting, named_optimizer
from bayesfilt.records import read_record, write_record
from bayesfilt.simulate import PrecisionWarning, simulate
from bayesfilt.tasks import bowl_task, make_task

STEPS, EVERY = 60, 20
SETTING = Setting(
    learning_rate=1e-3, weight_decay=0.1, batch_size=16, num_steps=STEPS, schedule="cosine"
)
FOLLOWERS = {
    "adabayes_fixed_point": named_optimizer("adabayes_fixed_point", SETTING),
    "adamw": named_optimizer("adamw", SETTING),
    "exploding": optax.sgd(1e300),
}
RUNS = ["adamw", "adabayes_fixed_point", "adamw (follower)", "exploding"]
LAYERS = ["dense_0", "dense_1", "all"]
KEY = jax.random.key(11)

DIMS = {
    "free": {
        "loss": ("run", "step"),
        "test_loss": ("run", "step"),
        "test_accuracy": ("run", "step"),
        "weight_distance": ("run", "step"),
        "predictive_kl": ("run", "step"),
        "noise_weight_distance": ("step",),
        "noise_loss_gap": ("step",),
        "noise_predictive_kl": ("step",),
        "divergence_horizon": (),
        "clear_until": ("run",),
        "diverged_at": ("run",),
    },
    "shadow": {
        "cosine": ("follower", "layer", "step"),
        "relative_error": ("follower", "layer", "step"),
        "log_size_ratio": ("follower", "layer", "step"),
        "sign_agreement": ("follower", "layer", "step"),
        "share": ("follower", "part", "step"),
    },
    "gains": {
        "rms_gradient": ("optimizer", "snapshot", "weight"),
        "gain": ("optimizer", "snapshot", "weight"),
        "drift_scale": ("optimizer", "snapshot"),
        "stationary_variance": ("optimizer", "snapshot"),
        "regime_fraction": ("optimizer", "layer", "regime", "snapshot"),
        "gain_count": ("optimizer", "snapshot", "log10_gain_bin"),
    },
    "decay": {
        "realised_shrink": ("optimizer", "step"),
        "intended_shrink": ("optimizer", "step"),
        "convention_shrink": ("convention", "step"),
        "ema_timescale": ("optimizer", "step"),
        "decay_kept": ("optimizer",),
    },
    "validity": {
        "exact": ("prior_ratio", "rms_times_drift"),
        "fixed_point": ("prior_ratio", "rms_times_drift"),
        "adam": ("rms_times_drift",),
        "mean_square": ("rms_times_drift",),
        "sgd": ("prior_ratio",),
    },
}
COORDINATES = {
    "free": {"step": [0, 20, 40], "run": RUNS},
    "shadow": {"step": [0, 20, 40], "follower": RUNS[1:], "layer": LAYERS, "part": list(PARTS)},
    "gains": {
        "optimizer": RUNS,
        "snapshot": [0, 20, 40],
        "weight": list(range(4810)),
        "layer": LAYERS,
        "regime": ["sgd", "adam", "mean_square"],
    },
    "decay": {
        "step": [0, 20, 40],
        "optimizer": RUNS,
        "convention": ["lr_scaled", "paper", "filter"],
    },
}


@pytest.fixture(scope="module")
def task():
    return make_task("digits-mlp", batch_size=16, dtype="float64")


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def record(task, progress):
    return run_study(
        KEY, task, SETTING, FOLLOWERS, STEPS, record_every=EVERY,
        on_progress=lambda *done: progress.append(done),
    )  # fmt: skip


@pytest.fixture(scope="module")
def values(record):
    """Values by group and name."""
    return {
        name: {key: item.values for key, item in group.items()}
        for name, group in record.groups.items()
    }


@pytest.mark.parametrize("name", DIMS)
def test_a_study_s_record_has_every_number_under_its_dimensions(record, name):
    group = record.groups[name]
    assert DIMS[name].items() <= {key: item.dims for key, item in group.items()}.items()
    for coordinate, wanted in COORDINATES.get(name, {}).items():
        assert group[coordinate].dims == (coordinate,)
        assert group[coordinate].values.tolist() == wanted
    for key, item in group.items():
        assert item.attributes.get("description") or item.attributes.get("units"), key


def test_it_says_what_was_run_and_that_it_was_all_of_it(record, progress):
    assert record.attributes["config"]["learning_rate"] == 1e-3
    assert record.attributes["config"]["leader"] == "adamw"
    assert record.attributes["config"]["followers"] == RUNS[1:]
    assert record.attributes["interrupted"] is False
    assert record.attributes["completed_steps"] == STEPS
    assert progress[-1] == (STEPS, STEPS)


def test_it_is_written_and_read_back_unchanged(record, tmp_path):
    back = read_record(write_record(record, tmp_path))
    assert back.attributes == record.attributes
    for name, group in record.groups.items():
        for key, item in group.items():
            np.testing.assert_array_equal(back.groups[name][key].values, item.values)


def test_the_leader_runs_as_simulate_runs_it(values, task):
    run = jax.jit(
        lambda key, task: simulate(
            key, task, named_optimizer("adamw", SETTING).optimizer, STEPS, record_every=EVERY
        )
    )
    alone = run(jax.random.split(KEY)[0], task)
    np.testing.assert_allclose(values["free"]["loss"][0], alone.records["loss"], rtol=1e-10)


def test_the_leader_as_its_own_follower_agrees_to_the_last_bit(values):
    free, shadow = values["free"], values["shadow"]
    place = RUNS.index("adamw (follower)")
    assert np.all(free["weight_distance"][place] == 0)
    assert np.all(free["predictive_kl"][place] == 0)
    np.testing.assert_array_equal(free["loss"][place], free["loss"][0])
    assert np.all(shadow["cosine"][place - 1] == 1)
    assert np.all(shadow["relative_error"][place - 1] == 0)
    assert np.all(shadow["log_size_ratio"][place - 1] == 0)
    assert np.all(shadow["sign_agreement"][place - 1] == 1)
    assert np.isnan(shadow["share"][place - 1]).all()
    assert np.isnan(free["clear_until"][place])


def test_the_noise_floor_is_rounding_and_a_real_gap_is_far_above_it(values):
    free = values["free"]
    assert 1e-17 < free["noise_weight_distance"][0] < 2e-16
    assert np.all(free["noise_weight_distance"] < 1e-14)
    assert np.all(free["noise_predictive_kl"] < 1e-26)
    assert np.isnan(free["divergence_horizon"])
    assert free["weight_distance"][1, -1] > 1e-4
    assert free["clear_until"][1] == 40
    assert free["predictive_kl"][1, -1] > 1e-9


def test_a_follower_that_diverges_says_when_and_harms_nobody(values):
    free = values["free"]
    assert free["diverged_at"].tolist() == [-1, -1, -1, free["diverged_at"][3]]
    assert 0 < free["diverged_at"][3] < 20
    assert np.isnan(free["loss"][3, 1:]).all()
    for name in ("loss", "test_loss", "test_accuracy", "weight_distance"):
        assert np.isfinite(free[name][:3]).all()


def test_who_does_not_tell_is_not_available_and_nobody_else(values):
    place = RUNS.index("exploding")
    assert np.isnan(values["shadow"]["share"][place - 1]).all()
    assert np.isnan(values["gains"]["gain"][place]).all()
    assert np.isnan(values["gains"]["gain_count"][place]).all()
    assert np.isnan(values["gains"]["regime_fraction"][place]).all()
    assert np.isnan(values["decay"]["intended_shrink"][place]).all()
    # What it does is measured all the same: it does not decay.
    assert np.all(values["decay"]["realised_shrink"][place] == 0)
    assert np.isfinite(values["shadow"]["cosine"]).all()
    assert np.isfinite(values["gains"]["gain"][:3]).all()


def test_shares_add_up_and_decay_owns_next_to_nothing_in_so_short_a_run(values):
    share = values["shadow"]["share"][0]
    np.testing.assert_allclose(share.sum(axis=0), 1, rtol=1e-9)
    assert np.abs(share[PARTS.index("decay")]).max() < 1e-2


def test_the_all_layer_pools_the_others(values):
    """Squares of sizes and errors add up over layers."""
    cosine = values["shadow"]["cosine"][0]
    assert np.all(cosine[2] >= cosine[:2].min(axis=0))
    assert np.all(cosine[2] <= cosine[:2].max(axis=0))


def test_gains_fall_on_the_closed_form_and_regimes_add_up(values):
    gains = values["gains"]
    place = RUNS.index("adabayes_fixed_point")
    eta, sigma2 = (gains[name][place][:, None] for name in ("drift_scale", "stationary_variance"))
    step = np.array([[0], [20], [40]])
    np.testing.assert_allclose(eta, 1e-3 * 0.5 * (1 + np.cos(np.pi * step / STEPS)), rtol=1e-12)
    np.testing.assert_allclose(sigma2, 1e-3 / 0.2, rtol=1e-12)
    rms = gains["rms_gradient"][place]
    expected = 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + rms**2 / eta**2))
    np.testing.assert_allclose(gains["gain"][place], expected, rtol=1e-9)
    np.testing.assert_allclose(gains["regime_fraction"][:3].sum(axis=2), 1, rtol=1e-12)
    hidden = 64 * 64 + 64  # weights and biases of dense_0
    for layer, part in enumerate((rms[:, :hidden], rms[:, hidden:], rms)):
        quiet = np.mean(part < eta / sigma2, axis=1)
        np.testing.assert_allclose(gains["regime_fraction"][place, layer, 0], quiet, rtol=1e-12)
    np.testing.assert_array_equal(gains["gain_count"][:3].sum(axis=-1), 4810)
    for place in range(3):
        histogram = np.histogram(np.log10(gains["gain"][place, -1]), LOG10_GAIN_EDGES)[0]
        np.testing.assert_array_equal(gains["gain_count"][place, -1], histogram)


def test_shrinks_are_the_conventions_they_claim(values):
    decay = values["decay"]
    factor = 0.5 * (1 + np.cos(np.pi * np.array([0, 20, 40]) / STEPS))
    linear, quadratic = 1e-4 * factor, 1e-4 * factor**2
    expected = [linear, linear, quadratic]
    np.testing.assert_allclose(decay["convention_shrink"], expected, rtol=1e-12)
    for measured in ("realised_shrink", "intended_shrink"):
        rtol = 1e-8 if measured == "realised_shrink" else 1e-12
        np.testing.assert_allclose(decay[measured][0], linear, rtol=rtol)
        np.testing.assert_allclose(decay[measured][1], quadratic, rtol=rtol)
    np.testing.assert_allclose(decay["ema_timescale"][0], 1 / linear, rtol=1e-8)
    assert np.all(np.isinf(decay["ema_timescale"][3]))
    assert np.all(np.abs(decay["decay_kept"][:3] - 1) < 0.05)
    assert np.isnan(decay["decay_kept"][3])


def test_a_shrink_that_rounds_below_zero_averages_for_ever():
    found = averaging_steps(np.array([1e-3, 0.0, -1e-23]))
    np.testing.assert_allclose(found, [1e3, np.inf, np.inf], rtol=1e-14)


def small_task(dtype="float64"):
    return bowl_task(
        np.diag([1.0, 5.0]), np.eye(2), optimum=np.array([1.0, -2.0]), batch_size=16, dtype=dtype
    )


def test_ctrl_c_keeps_what_is_done_up_to_one_common_step_and_float32_warns():
    """On a task of one bare array, without predictions or accuracy, in float32."""

    def interrupt(completed, total):
        if completed >= 12:
            raise KeyboardInterrupt

    with pytest.warns(PrecisionWarning, match="float64") as warned:
        record = run_study(
            KEY, small_task("float32"), SETTING, ["steady_state"], 40, record_every=4,
            on_progress=interrupt,
        )  # fmt: skip
    assert len(warned) == 1
    assert record.attributes["interrupted"] is True
    assert record.attributes["completed_steps"] == 12
    for name in ("free", "shadow", "decay"):
        assert record.groups[name]["step"].values.tolist() == [0, 4, 8]
        for key, item in record.groups[name].items():
            if "step" in item.dims:
                assert item.values.shape[-1] == 3, key
    assert record.groups["gains"]["snapshot"].values.tolist() == [0, 4, 8]
    assert record.groups["shadow"]["layer"].values.tolist() == ["all"]
    assert np.isfinite(record.groups["free"]["test_loss"].values).all()
    assert np.isnan(record.groups["free"]["test_accuracy"].values).all()
    assert np.isnan(record.groups["free"]["predictive_kl"].values).all()


@pytest.mark.parametrize(
    ("followers", "settings", "message"),
    [
        (["adabyes"], {}, "Did you mean 'adabayes'"),
        (["adabayes", "adabayes"], {}, "'adabayes' twice"),
        ([], {}, "number of followers >= 1"),
        (["adabayes"], {"leader": "lion"}, "knows optimizers sgd.*got 'lion'"),
        (["adabayes"], {"record_every": 0}, "record_every >= 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(followers, settings, message):
    with pytest.raises(ValueError, match=message):
        run_study(KEY, small_task(), SETTING, followers, 10, **settings)


def test_two_batch_sizes_are_refused():
    setting = Setting(learning_rate=1e-3, weight_decay=0.1, batch_size=8, num_steps=10)
    with pytest.raises(ValueError, match="one batch size, got 8 and 16"):
        run_study(KEY, small_task(), setting, ["adabayes"], 10)
