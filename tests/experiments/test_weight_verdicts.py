"""Verdicts on single weights can be yes, no and undecided; the statistics behind them are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.compare import Interval, chosen_weights
from experiments import (
    e07_noise_is_curvature,
    e08_drift_and_curvature,
    e09_calibration,
    e10_white_at_best_rate,
)
from experiments.contract import within
from experiments.coordinates import (
    AdamW,
    Matched,
    choice_of,
    layers_of_choice,
    matched_task,
    middle_of,
    task_of,
)
from experiments.e09_calibration import MEDIAN_SQUARE, held_variance
from experiments.e10_white_at_best_rate import crossing_rate
from experiments.grids import quick_problem
from tests.experiments.weights import (
    calibration_result,
    drift_result,
    filter_world,
    noise_result,
    noise_world,
    white_world,
    whiteness_result,
)


def judged(module, result):
    """A question to the verdicts on a result: what holds of the one whose claim has these words?"""
    verdicts = module.check(result)

    def holds(words):
        (found,) = [each for each in verdicts if words in each.claim]
        return found.holds

    return holds


def holds(module, result, words):
    """The one verdict whose claim has these words."""
    return judged(module, result)(words)


def test_noise_is_curvature_and_is_not_once_it_is_off_by_a_factor():
    words = "digits, late: R = H"
    assert holds(e07_noise_is_curvature, noise_result(noise_world()), words) is True
    for factor in (0.5, 2.0, 1 / 32):  # the minibatch forgotten is the last
        assert holds(e07_noise_is_curvature, noise_result(noise_world(factor)), words) is False
    edge = noise_result(noise_world(1.25, uneven=0.2))
    assert holds(e07_noise_is_curvature, edge, words) is None


def test_an_exact_curvature_that_differs_is_judged_apart():
    result = noise_result(noise_world(residual=2.0))
    assert holds(e07_noise_is_curvature, result, "digits, late: R = H, Gauss-Newton") is True
    assert holds(e07_noise_is_curvature, result, "digits, late: R = H, exact") is False
    saddle = noise_result(noise_world(residual=-1.0))  # no curvature is infinitely too little
    assert holds(e07_noise_is_curvature, saddle, "digits, late: R = H, exact") is False


def test_noise_goes_with_curvature_only_with_slope_one():
    words = "digits, late: R is proportional"
    assert holds(e07_noise_is_curvature, noise_result(noise_world()), words) is True
    for slope in (0.5, 1.35):
        result = noise_result(noise_world(slope=slope))
        assert holds(e07_noise_is_curvature, result, words) is False
    assert holds(e07_noise_is_curvature, noise_result(noise_world(slope=1.1)), words) is None


def test_both_controls_of_the_noise_fail_when_an_instrument_is_off():
    good = judged(e07_noise_is_curvature, noise_result(noise_world()))
    assert good("control, digits") is True
    assert good("control, matched world") is True
    assert holds(e07_noise_is_curvature, noise_result(noise_world(own=2.0)), "control, d") is False
    off = noise_result(noise_world(), control=0.5)
    assert holds(e07_noise_is_curvature, off, "control, matched world") is False


def test_dead_weights_do_not_count():
    world = noise_world()
    for name in ("noise", "gauss_newton", "curvature"):
        world[name].values[..., :30] = 0.0
    ratio = e07_noise_is_curvature.ratio_of(world, 2, "gauss_newton")
    assert np.isnan(ratio[:30]).all()
    assert holds(e07_noise_is_curvature, noise_result(world), "digits, late: R = H") is True


@pytest.mark.parametrize(
    ("slope", "inverse", "uniform"),
    [(-1.0, True, False), (0.0, False, True), (-0.5, False, False), (1.0, False, False)],
)
def test_the_law_of_the_drift_is_told_by_its_slope(slope, inverse, uniform):
    holds = judged(e08_drift_and_curvature, drift_result(slope))
    where = "digits, late: the drift of an optimum goes "
    assert holds(where + "as one") is inverse
    assert holds(where + "whatever") is uniform


def test_the_law_of_the_drift_is_not_told_where_runs_disagree():
    holds = judged(e08_drift_and_curvature, drift_result(-0.5, uneven=3.0))
    where = "digits, late: the drift of an optimum goes "
    assert holds(where + "as one") is None
    assert holds(where + "whatever") is None


def test_controls_of_the_drift_are_the_slopes_that_were_built_in():
    good = judged(e08_drift_and_curvature, drift_result())
    off = judged(e08_drift_and_curvature, drift_result(coupled=-0.5, uniform=-0.5))
    for name in ("coupled quadratic", "matched world"):
        assert good(f"control, {name}") is True
        assert off(f"control, {name}") is False


@pytest.mark.parametrize(
    ("slope", "power", "square", "root"),
    [(-1.0, 1.0, True, False), (0.0, 0.5, False, True), (1.0, 0.0, False, False)],
)
def test_the_best_power_is_found_and_agrees_with_the_drift(slope, power, square, root):
    result = drift_result(slope, best=power)
    predicted = e08_drift_and_curvature.predicted_power(result.groups["digits/drift"])
    np.testing.assert_allclose(predicted, power, atol=0.02)
    holds = judged(e08_drift_and_curvature, result)
    where = "digits, eps=0.001, training loss: "
    assert holds(where + "the mean square") is square
    assert holds(where + "the root") is root
    assert holds(where + "the power that trains best is the one") is True


@pytest.mark.parametrize(("slope", "power"), [(-1.0, 0.25), (0.0, 1.0), (-1.0, 0.5)])
def test_a_best_power_that_the_drift_does_not_predict_is_a_no(slope, power):
    words = "training loss: the power that trains best is the one that the drift predicts"
    assert holds(e08_drift_and_curvature, drift_result(slope, best=power), words) is False


@pytest.mark.parametrize("how", [{"centre": 1e-4}, {"noise": 4.0}])
def test_a_power_is_not_judged_at_the_edge_of_its_rates_or_where_seeds_disagree(how):
    words = "training loss: the mean square"
    assert holds(e08_drift_and_curvature, drift_result(**how), words) is None


def test_a_calibrated_filter_is_and_one_with_another_variance_is_not():
    error, surprise = "digits, adamw, late: (w* - mu)²/p", "digits, adamw, late: g²/(h² p + h)"
    ever = "digits, adamw: there is a moment"
    worlds = [
        (filter_world(), (True, True, True)),
        (filter_world(0.1, 0.1), (False, False, False)),
        (filter_world(10.0, 10.0), (False, False, False)),
        (filter_world(1.0, 0.1), (True, False, False)),  # one level alone is no calibration
        (filter_world(2.0, 2.0, uneven=1.0), (None, None, None)),
    ]
    for world, expected in worlds:
        holds = judged(e09_calibration, calibration_result(world))
        assert tuple(holds(words) for words in (error, surprise, ever)) == expected


def test_the_control_of_calibration_is_narrower():
    words = "control, matched world, adamw, late: (w* - mu)²/p"
    assert holds(e09_calibration, calibration_result(filter_world()), words) is True
    off = calibration_result(filter_world(), filter_world(1.6))
    assert holds(e09_calibration, off, words) is False


def test_an_optimum_out_of_reach_is_far_away_and_not_left_out():
    world = filter_world()
    world["calibration"].values[:, :, :, :30] = np.inf
    result = calibration_result(world)
    assert holds(e09_calibration, result, "digits, adamw, late: (w* - mu)²/p") is False


def test_gradients_are_white_at_the_best_rate_or_are_not():
    words = "digits, late: gradients are white"
    assert holds(e10_white_at_best_rate, whiteness_result(white_world()), words) is True
    for crossing in (1e-3, 0.1, 1e-9, 1e9):
        result = whiteness_result(white_world(crossing=crossing))
        assert holds(e10_white_at_best_rate, result, words) is False
    edge = whiteness_result(white_world(best=1e-4))
    assert holds(e10_white_at_best_rate, edge, words) is None
    unsure = whiteness_result(white_world(crossing=0.02, uneven=3.0))
    assert holds(e10_white_at_best_rate, unsure, words) is None
    off = whiteness_result(white_world(), white_world(crossing=0.1))
    assert holds(e10_white_at_best_rate, off, "control, matched world") is False


def test_few_seeds_are_not_judged():
    few = 3
    for module, result, words in (
        (e07_noise_is_curvature, noise_result(noise_world(seeds=few)), "digits, late: R = H"),
        (e08_drift_and_curvature, drift_result(seeds=few), "digits, late: the drift of an optimum"),
        (e09_calibration, calibration_result(filter_world(seeds=few)), "digits, adamw, late"),
        (e10_white_at_best_rate, whiteness_result(white_world(seeds=few)), "digits, late"),
    ):
        found = [each for each in module.check(result) if words in each.claim]
        assert found
        assert all(each.holds is None for each in found)


def test_the_crossing_is_between_the_rates_where_the_sign_changes():
    rates = np.array([0.01, 0.02, 0.04])
    np.testing.assert_allclose(crossing_rate(rates, np.array([1.0, -1.0, 1.0])), 0.01 * 2**0.5)
    np.testing.assert_allclose(crossing_rate(rates, np.array([0.3, 0.1, -0.3])), 0.02 * 2**0.25)
    assert crossing_rate(rates, np.array([0.3, 0.2, 0.1])) == np.inf
    assert crossing_rate(rates, np.array([-0.1, -0.2, -0.3])) == 0
    assert crossing_rate(rates, np.array([0.1, np.nan, np.nan])) == np.inf  # the fast ones diverged
    assert np.isnan(crossing_rate(rates, np.full(3, np.nan)))


def test_a_band_decides_only_when_an_interval_is_inside_or_outside():
    assert within(Interval(1.0, 0.9, 1.1), 0.5, 2.0) is True
    assert within(Interval(3.0, 2.5, 4.0), 0.5, 2.0) is False
    assert within(Interval(0.1, 0.05, 0.2), 0.5, 2.0) is False
    assert within(Interval(2.0, 1.5, 2.5), 0.5, 2.0) is None
    assert within(Interval(np.nan, np.nan, np.nan), 0.5, 2.0) is None
    assert within(Interval(np.inf, np.inf, np.inf), 0.5, 2.0) is False


def test_the_middle_counts_infinity_and_not_what_is_unknown():
    assert middle_of(np.array([1.0, np.nan, 2.0, np.inf])) == 2.0
    assert middle_of(np.array([1.0, np.inf, np.inf])) == np.inf
    assert np.isnan(middle_of(np.array([np.nan])))
    squares = np.random.default_rng(0).standard_normal(100_000) ** 2
    np.testing.assert_allclose(middle_of(squares), MEDIAN_SQUARE, rtol=0.03)


def test_weights_are_chosen_from_every_matrix_and_no_bias():
    task = task_of(quick_problem())
    chosen = choice_of(task, 7)
    assert layers_of_choice(chosen) == ["dense_0"] * 7 + ["dense_1"] * 7
    params = task.init_params(jax.random.key(0))
    matrices = jnp.concatenate(
        [jnp.full(leaf.size, leaf.ndim > 1) for leaf in jax.tree.leaves(params)]
    )
    assert matrices[chosen.index].all()


def test_adamw_holds_the_variance_of_the_fixed_point_by_the_dictionary():
    """The filter of the zoo that sees the same gradients believes the same."""
    weights, rate = jnp.zeros(3), 0.01
    adamw = AdamW(weight_decay=0.1, batch_size=32)
    chosen = chosen_weights(weights, [0, 1, 2])
    found = []
    for name in ("adamw", "adabayes_fixed_point"):
        optimizer = adamw.builder(name)(rate)
        state = optimizer.init(weights)
        for scale in (1.0, 2.0, 0.5):
            _, state = optimizer.update(scale * jnp.array([1e-4, 0.1, 3.0]), state, weights)
        found.append(held_variance(chosen, adamw.setting(rate), name)(state))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert found[0][2] < found[0][0]
    # What is held has drifted since the gradient: it is more than the posterior variance.
    from bayesfilt.optimizers import posterior_variance

    assert (found[1] > posterior_variance(state)).all()


def test_the_matched_world_drifts_at_the_rate_that_is_right():
    matched = Matched(weights=400)
    task = matched_task(matched, jax.random.key(0), 500)
    moves = np.diff(np.asarray(task.world().optimum), axis=0)
    np.testing.assert_allclose(moves.std(), matched.drift_scale, rtol=0.02)
    spread = np.asarray(task.world().optimum).std()
    expected = np.sqrt(matched.drift_scale / (2 * matched.weight_decay))
    np.testing.assert_allclose(spread, expected, rtol=0.15)
