"""Worlds that change while they are learnt: what would make their verdicts wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from bayesfilt.records import Record, variable
from bayesfilt.simulate import simulate
from experiments import changing_digits, constant_gains, jump_world
from experiments import e36_label_switch as e36
from experiments import e37_drifting_digits as e37
from experiments.many_runs import train_many
from tests.experiments.made_digits import holds, made_digits

SEEDS = 6


@pytest.fixture(scope="module")
def small_digits():
    """Twenty made-up images of four pixels by four, ten classes."""
    return made_digits()


# Digits that change


def test_a_quarter_turn_is_counter_clockwise_and_none_changes_nothing():
    image = np.arange(64.0).reshape(8, 8)
    for angle, expected in ((0.0, image), (90.0, np.rot90(image)), (-90.0, np.rot90(image, -1))):
        turned = changing_digits.rotation(jnp.asarray(angle), 8) @ image.ravel()
        np.testing.assert_allclose(turned.reshape(8, 8), expected, atol=1e-12)


@pytest.mark.parametrize("angle", [13.0, -41.5, 200.0])
def test_a_turn_is_scipys_bilinear_one(angle):
    image = np.random.default_rng(1).random((8, 8))
    expected = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
    turned = changing_digits.rotation(jnp.asarray(angle), 8) @ image.ravel()
    np.testing.assert_allclose(turned.reshape(8, 8), expected, atol=1e-10)


def test_no_class_keeps_its_name_and_the_test_set_switches_with_the_minibatches(small_digits):
    task = changing_digits.switching_digits(small_digits, switch_at=5)
    key = jax.random.key(0)
    before, after = task.sample_batch(key, 4), task.sample_batch(key, 5)
    np.testing.assert_array_equal(after.labels, (before.labels + 1) % 10)
    np.testing.assert_array_equal(after.inputs, before.inputs)
    params = task.init_params(key)
    named = dataclasses.replace(
        small_digits, test=small_digits.test._replace(labels=(small_digits.test.labels + 1) % 10)
    )
    assert task.evaluate_at(params, 4) == small_digits.evaluate(params)
    assert task.evaluate_at(params, 5) == named.evaluate(params)


def test_a_walk_has_its_drift_for_deviation_and_a_steady_turn_for_speed(small_digits):
    task = changing_digits.turning_digits(small_digits, 4_000)
    walk, steady = (
        np.asarray(
            changing_digits.turned_by(task, jax.random.key(2), jnp.asarray(0.3), wanders).angle
        )
        for wanders in (jnp.asarray(1.0), jnp.asarray(0.0))
    )
    assert np.std(np.diff(walk)) == pytest.approx(0.3, rel=0.05)
    assert abs(np.diff(walk).mean()) < 0.02
    np.testing.assert_allclose(np.diff(steady), 0.3, rtol=1e-9)


def test_what_is_held_out_turns_with_the_minibatches_and_ends_with_the_path(small_digits):
    task = changing_digits.turning_digits(small_digits, 3)
    task = dataclasses.replace(task, angle=jnp.array([0.0, 90.0, 0.0]))
    params = task.init_params(jax.random.key(0))
    turned = dataclasses.replace(
        small_digits,
        test=small_digits.test._replace(
            inputs=jnp.rot90(small_digits.test.inputs, axes=(1, 2))
        ),
    )  # fmt: skip
    found, expected = task.evaluate_at(params, 1), turned.evaluate(params)
    assert float(found["test_loss"]) == pytest.approx(float(expected["test_loss"]), rel=1e-9)
    assert np.isnan(task.evaluate_at(params, 3)["test_loss"])


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images"):
        changing_digits.turning_digits(made_digits((4,)), 5)


def angle_now(task, view):
    """Probe."""
    return task.angle[view.step]


def test_every_seed_has_a_path_of_its_own_and_every_setting_the_same(small_digits):
    runs = train_many(
        changing_digits.turning_digits(small_digits, 3),
        lambda numbers: optax.sgd(numbers["rate"]),
        {"rate": [0.1, 0.2], "drift": [1.0, 2.0]},
        [1, 2],
        3,
        probes={"angle": angle_now},
        world_of=lambda task, numbers, key: changing_digits.turned_by(
            task, key, numbers["drift"], jnp.asarray(1.0)
        ),
    )
    angle = runs.records["angle"]
    assert abs(angle[0, 0] - angle[0, 1]).min() > 1e-3
    np.testing.assert_allclose(angle[1], 2 * angle[0], rtol=1e-9)


# Jumps and switches (e36)

WORLD = jump_world.JumpWorld(ages=(250, 1_000), after=200, weights=64)


def test_the_filter_recovers_as_its_gain_says():
    """Product of 1 - c/sqrt(t) is 1/e after 1/(4 c^2) + sqrt(T)/c steps."""
    found = jump_world.predicted_recoveries(WORLD)
    np.testing.assert_allclose(found, 0.25 + np.sqrt(WORLD.ages), rtol=0.02)


def test_adagrad_is_the_filter_with_variance_1_over_t_and_no_other():
    found = jump_world.recoveries(WORLD, "adagrad", range(5)).mean(axis=-1)[0]
    np.testing.assert_allclose(found, jump_world.predicted_recoveries(WORLD), rtol=0.1)
    for power in (0.5, 1.5):
        other = jump_world.predicted_recoveries(WORLD, power)
        assert np.max(np.abs(found / other - 1)) > 0.5


def test_a_level_is_reached_between_two_records():
    assert jump_world.first_below(np.array([1.0, 0.8, 0.2]), 0.5) == pytest.approx(1.5)
    assert jump_world.first_below(np.array([0.1, 0.8]), 0.5) == 0.0
    assert np.isnan(jump_world.first_below(np.array([1.0, 0.8]), 0.5))


def test_recovery_is_counted_from_the_switch_and_what_is_not_seen_is_the_time_left():
    step = np.arange(0, 100, 10)
    course = np.array([0.9, 1.0, 1.0, 1.0, 1.0, 0.0, 0.8, 1.0, 1.0, 1.0])
    never = np.where(step >= 50, 0.5, course)
    found = e36.recovery_times(step, np.stack([course, never]), 50)
    goal = 0.9 * 0.98
    np.testing.assert_allclose(found, [10 * (1 + (goal - 0.8) / 0.2), 40.0])


def switched(power=0.5, amsgrad=4.0, adabayes=1.1, **factors):
    """A made-up record: factors on Adam's recovery, rates that are best in the middle."""
    factors = {"adagrad": 2.0, "amsgrad": 1.3, "adam": 1.0, "adabayes": 1.0} | factors
    noise = np.exp(0.02 * np.random.default_rng(3).standard_normal((4, 3, SEEDS)))
    ages = np.array([500, 1_000, 2_000, 4_000])
    quiet = {"adagrad": ages**power, "amsgrad": 33, "adam": 33, "adabayes": 33 * adabayes}
    loud = quiet | {"amsgrad": 33 * amsgrad}
    recovery = np.array(
        [[np.full((SEEDS, 4), each[name]).T for each in (quiet, loud)] for name in e36.OPTIMIZERS]
    )
    jumps = {
        "optimizer": variable("optimizer", list(e36.OPTIMIZERS)),
        "start": variable("start", ["quiet", "loud"]),
        "age": variable("age", ages),
        "recovery": variable(("optimizer", "start", "age", "seed"), recovery),
        "predicted": variable("age", 0.25 + np.sqrt(ages)),
    }
    loss = np.array([0.3, 0.1, 0.2])[:, None] * noise[0]
    groups = {
        name: {
            "rate": variable("rate", [0.1, 0.2, 0.3]),
            "accuracy": variable(("rate", "seed", "step"), np.ones((3, SEEDS, 2))),
            "loss_before": variable(("rate", "seed"), loss),
            "loss_whole": variable(("rate", "seed"), factors.get("loss", loss)),
            "recovery": variable(("rate", "seed"), 60 * factors[name] * noise[place]),
        }
        for place, name in enumerate(e36.OPTIMIZERS)
    }
    return Record(groups={"jumps": jumps, **groups}, attributes={})


def test_the_order_that_is_claimed_is_a_yes():
    assert all(each.holds is True for each in e36.check(switched()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"power": 1.0}, "root of the age"),
        ({"power": 0.0}, "root of the age"),
        ({"power": 0.45}, "as the exact filter"),
        ({"amsgrad": 1.0}, "loud start AMSGrad"),
        ({"adabayes": 1.5}, "jumps: AdaBayes"),
    ],
)
def test_jumps_of_another_law_are_a_no(change, words):
    factors = {name: change.pop(name) for name in ("amsgrad", "adabayes") if name in change}
    assert holds(e36.check(switched(**change, **factors)), words) is False


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"adagrad": 1.0}, "tuned before the switch: adagrad recovers later"),
        ({"amsgrad": 0.8}, "tuned before the switch: amsgrad recovers later"),
    ],
)
def test_another_order_is_a_no(factors, words):
    record = switched()
    for name, factor in factors.items():
        record.groups[name]["recovery"] = variable(
            ("rate", "seed"), factor * record.groups["adam"]["recovery"].values
        )
    assert holds(e36.check(record), words) is False


def test_a_rate_at_the_edge_of_its_grid_is_not_judged():
    record = switched()
    loss = record.groups["adam"]["loss_before"].values
    record.groups["adam"]["loss_before"] = variable(("rate", "seed"), loss[::-1] * [[1], [9], [1]])
    verdicts = e36.check(record)
    assert holds(verdicts, "tuned before the switch: amsgrad recovers later") is None
    assert holds(verdicts, "for the whole run: amsgrad recovers later") is True


def test_a_run_begins_at_what_was_learnt_and_goes_on_along_the_same_path(small_digits):
    key = jax.random.key(3)
    task = changing_digits.turned_by(
        changing_digits.turning_digits(small_digits, 30), key, jnp.array(5.0), jnp.array(1.0)
    )
    later = changing_digits.learnt_first(task, key, optax.adam(0.1), 10)
    np.testing.assert_array_equal(later.angle, task.angle[10:])
    learnt = simulate(key, task, optax.adam(0.1), 10).params
    jax.tree.map(np.testing.assert_array_equal, later.init_params(jax.random.key(4)), learnt)
    assert later.evaluate_at(learnt, 0) == task.evaluate_at(learnt, 10)


# Turning digits (e37)


def test_the_error_of_a_tracker_is_what_its_recursions_settle_on():
    gain, drift = 0.2, 0.3
    variance, lag, walk = 0.0, 0.0, 0.0
    for _ in range(500):
        variance = (1 - gain) ** 2 * variance + gain**2
        walk = (1 - gain) ** 2 * walk + gain**2 + drift**2
        lag = (1 - gain) * lag + drift
    gains = np.array([gain])
    np.testing.assert_allclose(constant_gains.mean_square_error(gains, drift, wanders=True), walk)
    np.testing.assert_allclose(
        constant_gains.mean_square_error(gains, drift, wanders=False), variance + lag**2
    )


def test_the_best_gain_goes_with_a_walk_and_with_the_two_thirds_of_a_turn():
    assert constant_gains.law_of(wanders=True) == pytest.approx(1.0, abs=0.01)
    assert constant_gains.law_of(wanders=False) == pytest.approx(2 / 3, abs=0.01)


def turned(
    slope=1.0, steady=2 / 3, sgdw=0.8, fresh=0.9, adabayes=1.0, fixed=1.0, best=0.02, still=0.1
):
    """A made-up record whose losses are parabolas in the logarithm of the rate."""
    random = np.random.default_rng(4)
    drift, rate = np.array([0.0, 0.25, 0.5, 1.0, 2.0]), np.geomspace(1e-3, 0.3, 12)

    def group(power, height):
        center = np.log(best * np.r_[still * 0.25**power, drift[1:] ** power])[:, None, None]
        center = center + 0.03 * random.standard_normal((5, 1, SEEDS))
        loss = np.exp(0.1 * (np.log(rate)[None, :, None] - center) ** 2)
        height = np.array(height)[..., None, None] * np.exp(0.01 * random.standard_normal(SEEDS))
        return {
            "drift": variable("drift", drift),
            "rate": variable("rate", rate),
            "loss": variable(("drift", "rate", "seed"), height * loss),
        }

    growing = np.array([1.0, 1.0, 1.0, 1.0, sgdw])
    groups = {
        "adamw": group(slope, np.ones(5)),
        e37._PLAIN: group(slope, np.ones(5)),
        e37._STEADY: group(steady, np.ones(5)),
        e37._FRESH: group(slope, np.full(5, fresh)),
        "sgdw": group(slope, growing),
        "adabayes": group(slope, np.full(5, adabayes)),
        "adabayes_fixed_point": group(slope, np.full(5, fixed * sgdw)),
    }
    return Record(groups=groups, attributes={})


def test_the_slopes_and_the_winner_that_are_claimed_are_a_yes():
    verdicts = e37.check(turned())
    assert [each.claim for each in verdicts if each.holds is not True] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slope": 0.5}, "AdamW, walk"),
        ({"slope": 2 / 3}, "SGDW, walk"),
        ({"steady": 1.0}, "steady turn"),
        ({"sgdw": 1.2}, "tuned anew"),
        ({"sgdw": 1.2}, "stands better"),
        ({"fresh": 1.1}, "fresh mean square"),
        ({"adabayes": 1.3}, "AdaBayes is no worse"),
        ({"fixed": 1.3}, "at its fixed point"),
    ],
)
def test_another_slope_or_winner_is_a_no(change, words):
    assert holds(e37.check(turned(**change)), words) is False


def test_a_slope_is_not_judged_where_the_best_rate_without_drift_is_as_high():
    assert holds(e37.check(turned(slope=0.5, still=1.0)), "AdamW, walk") is None


def test_a_best_rate_at_the_edge_is_not_judged():
    verdicts = e37.check(turned(best=1e-3))
    assert holds(verdicts, "AdamW, walk") is None


def test_a_tracker_with_another_lag_would_turn_the_verdict(monkeypatch):
    def wrong(gain, drift, *, wanders):  # the lag forgets its square
        return gain**2 / (1 - (1 - gain) ** 2) + (drift / gain)

    monkeypatch.setattr(constant_gains, "mean_square_error", wrong)
    assert holds(e37.check(turned()), "AdamW, walk") is False
