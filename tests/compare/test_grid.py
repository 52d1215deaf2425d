"""Best cells, ridges and separability, on surfaces whose answers are known."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt.compare import best_cell, bootstrap, decay_slope, median_over_seeds, ridge
from bayesfilt.compare.separability import (
    in_parametrisation,
    off_diagonal,
    quadratic_fit,
    ridge_angle,
    separability,
)

KEY = jax.random.key(0)
RATES = np.geomspace(1e-4, 1e-1, 13)
DECAYS = np.geomspace(1e-3, 1e1, 17)


def valley(along, across, angle_in_degrees, *, noise=0.0, seeds=5, at=(1e-2, 1e-1)):
    """exp of a quadratic with its lowest point at `at` and its floor at an angle."""
    angle = np.radians(angle_in_degrees)
    floor = np.array([np.cos(angle), np.sin(angle)])
    wall = np.array([-np.sin(angle), np.cos(angle)])
    curvature = along * np.outer(floor, floor) + across * np.outer(wall, wall)
    u, v = np.meshgrid(np.log(RATES / at[0]), np.log(DECAYS / at[1]), indexing="ij")
    point = np.stack([u, v], axis=-1)
    height = 0.5 * np.einsum("...i,ij,...j", point, curvature, point)
    shake = noise * np.random.default_rng(0).standard_normal((*u.shape, seeds))
    return np.exp(height[..., None] + shake), curvature


def test_the_median_treats_a_diverged_run_as_infinitely_bad():
    errors = np.array([[0.3, np.nan, 0.1], [0.2, np.nan, np.nan]])
    np.testing.assert_array_equal(median_over_seeds(errors), [0.3, np.inf])


def test_the_median_of_an_even_number_of_seeds_is_halfway():
    assert median_over_seeds(np.array([1.0, 2.0, 4.0, 8.0])) == 3.0
    assert median_over_seeds(np.array([1.0, 2.0, np.nan, np.nan])) == np.inf


def test_the_best_cell_is_the_one_of_the_lowest_median():
    errors = np.full((3, 4, 5), 1.0)
    errors[2, 1] = [0.2, 0.3, 0.4, 0.5, 9.0]
    found = best_cell(KEY, errors)
    assert found.cell == (2, 1)
    assert found.error.estimate == 0.4
    assert 0.2 <= found.error.low <= 0.4 <= found.error.high <= 9.0
    assert found.chosen.shape == (3, 4)
    assert found.chosen.sum() == pytest.approx(1)
    assert found.chosen[2, 1] > 0.9


def test_a_cell_that_fails_on_most_seeds_is_never_the_best():
    errors = np.array([[0.01, np.nan, np.nan], [0.5, 0.6, 0.7]])
    assert best_cell(KEY, errors).cell == (1,)


def test_the_interval_of_the_best_cell_covers_the_median_as_often_as_it_says():
    """Percentile intervals of a median of 25 seeds: close to nominal, and never far below."""
    draws = np.random.default_rng(1).standard_exponential((200, 1, 25))
    hits = 0
    for errors in draws:
        interval = best_cell(KEY, errors, level=0.9, num_resamples=200).error
        hits += interval.low <= np.log(2) <= interval.high
    error = np.sqrt(0.9 * 0.1 / 200)
    assert abs(hits / 200 - 0.9) < 4 * error


def test_seeds_are_resampled_together_in_every_cell():
    """Two cells that differ by a constant on every seed: the better one wins every resample."""
    common = np.random.default_rng(2).uniform(1, 9, size=8)
    found = best_cell(KEY, np.stack([common + 0.01, common]))
    np.testing.assert_array_equal(found.chosen, [0.0, 1.0])


def test_a_statistic_that_seldom_exists_has_no_interval():
    interval = bootstrap(KEY, lambda errors: float("nan"), np.ones((2, 3)), num_resamples=20)
    assert np.isnan([interval.estimate, interval.low, interval.high]).all()


@pytest.mark.equation("GRID-1")
@given(place=st.floats(-3, 3), height=st.floats(0.1, 5), scale=st.floats(0.1, 10), seeds=st.just(1))
@settings(max_examples=30, deadline=None)
def test_the_ridge_of_a_parabola_lies_where_the_parabola_does(place, height, scale, seeds):
    x = np.log(DECAYS)
    middle = np.log(0.1) + place
    row = scale * np.exp(0.5 * height * (x - middle) ** 2)
    found = ridge(np.repeat(row[None, :, None], seeds, axis=2), DECAYS)
    assert found.log_decay[0] == pytest.approx(middle, abs=1e-9)
    assert not found.at_edge[0]


def test_a_best_decay_at_the_edge_of_the_grid_is_not_trusted():
    falling = np.broadcast_to((1 / DECAYS)[None, :, None], (2, len(DECAYS), 3))
    found = ridge(falling, DECAYS)
    assert found.at_edge.all()
    assert np.isnan(found.log_decay).all()


def test_a_decay_of_zero_is_left_out_of_the_logarithms():
    errors, _ = valley(0.1, 0.4, 20)
    with_zero = np.concatenate([np.full((len(RATES), 1, 5), 1e-9), errors], axis=1)
    np.testing.assert_array_equal(
        ridge(with_zero, np.concatenate([[0.0], DECAYS])).log_decay, ridge(errors, DECAYS).log_decay
    )


@pytest.mark.equation("GRID-2")
def test_the_quadratic_fit_gives_a_quadratic_back():
    errors, curvature = valley(0.08, 0.5, 35)
    found = quadratic_fit(np.log(RATES), np.log(DECAYS), np.log(errors[..., 0]))
    np.testing.assert_allclose(found, curvature, rtol=1e-9, atol=1e-12)


def test_cells_far_above_the_best_do_not_enter_the_fit():
    errors, curvature = valley(0.08, 0.5, 35)
    plateau = np.minimum(errors[..., 0], 10.0)
    plateau[0, 0] = np.inf
    found = quadratic_fit(np.log(RATES), np.log(DECAYS), np.log(plateau), within=4.0)
    np.testing.assert_allclose(found, curvature, rtol=1e-9, atol=1e-12)


def test_too_few_cells_near_the_best_determine_nothing():
    heights = np.full((5, 5), 9.0)
    heights[2, 1:4] = 0.0
    axis = np.arange(5.0)
    assert np.isnan(quadratic_fit(axis, axis, heights)).all()
    line = np.full((9, 9), 9.0)
    line[4] = 0.0  # nine cells, all of one learning rate
    assert np.isnan(quadratic_fit(np.arange(9.0), np.arange(9.0), line)).all()


@pytest.mark.equation("GRID-3")
def test_another_parametrisation_is_another_fit_on_the_sheared_grid():
    errors, _ = valley(0.08, 0.5, -30)
    direct = quadratic_fit(np.log(RATES), np.log(DECAYS), np.log(errors[..., 0]))
    u, v = np.meshgrid(np.log(RATES), np.log(DECAYS), indexing="ij")
    near = errors[..., 0] <= 2.0 * errors[..., 0].min()
    u, s, z = u[near], (u + v)[near], np.log(errors[..., 0][near])
    design = np.stack([np.ones_like(u), u, s, u * u / 2, u * s, s * s / 2], axis=1)
    *_, uu, us, ss = np.linalg.lstsq(design, z, rcond=None)[0]
    np.testing.assert_allclose(
        in_parametrisation(direct, "paper"), [[uu, us], [us, ss]], rtol=1e-8, atol=1e-10
    )


@pytest.mark.equation("GRID-5")
@pytest.mark.parametrize("angle", [-80, -45, -10, 0, 30, 60, 90])
def test_the_ridge_angle_is_the_angle_of_the_valleys_floor(angle):
    _, curvature = valley(0.05, 0.9, angle)
    assert ridge_angle(curvature) == pytest.approx(angle, abs=1e-9)


def test_where_only_the_product_of_rate_and_decay_matters_the_angle_is_minus_45_and_0():
    """The surface of an optimizer that lives in the paper's convention, seen in both."""
    _, curvature = valley(0.05, 0.9, -45)
    assert ridge_angle(curvature) == pytest.approx(-45)
    assert off_diagonal(curvature) > 0.8
    nearly_flat = np.array([[1.0, 1.0], [1.0, 1.0]]) + 1e-9 * np.eye(2)
    sheared = in_parametrisation(nearly_flat, "paper")
    assert abs(ridge_angle(sheared)) < 1e-6
    assert abs(off_diagonal(sheared)) < 1e-4


@pytest.mark.equation("GRID-4")
def test_an_axis_aligned_valley_is_separable_and_one_seen_askew_is_not():
    assert off_diagonal(np.diag([0.1, 3.0])) == 0.0
    assert off_diagonal(np.array([[2.0, -1.2], [-1.2, 2.0]])) == pytest.approx(-0.6)
    assert np.isnan(off_diagonal(np.diag([0.1, -3.0])))
    assert np.isnan(ridge_angle(np.diag([-0.1, 3.0])))


def test_separability_has_an_interval_that_holds_the_truth_and_not_zero():
    errors, curvature = valley(0.03, 0.2, -40, noise=0.03, seeds=9)
    found = separability(KEY, errors, RATES, DECAYS, parametrisation="lr_scaled", num_resamples=100)
    truth = curvature[0, 1] / np.sqrt(curvature[0, 0] * curvature[1, 1])
    assert found.off_diagonal.low < truth + 0.05
    assert found.off_diagonal.high > truth - 0.05
    assert found.off_diagonal.low > 0.3
    assert found.ridge_angle.low - 2 < -40 < found.ridge_angle.high + 2
    assert found.ridge_angle.high - found.ridge_angle.low < 15


def test_an_angle_about_90_degrees_has_no_interval_of_180():
    errors, _ = valley(0.03, 0.3, 89.5, noise=0.03, seeds=9)
    found = separability(KEY, errors, RATES, DECAYS, parametrisation="lr_scaled", num_resamples=100)
    assert found.ridge_angle.high - found.ridge_angle.low < 15


def test_rates_at_which_nothing_is_learnt_do_not_bend_the_slope():
    # Along the valley wd goes like 1/rate: a slope of 0. At chance the best decay is anywhere.
    rates, decays = np.geomspace(1e-3, 0.1, 9), np.geomspace(1e-3, 10, 9)
    u, v = np.meshgrid(np.log(rates / 0.01), np.log(decays / 0.1), indexing="ij")
    noise = np.random.default_rng(3).standard_normal((9, 9, 5))
    errors = 0.1 * np.exp(0.03 * (u + v) ** 2 + 0.01 * u**2)[..., None] * np.exp(0.001 * noise)
    for useless in (0, 1, 3):
        errors[9 - useless :] = 0.88 + 0.01 * noise[9 - useless :]
        found = decay_slope(
            KEY, errors, rates, decays, parametrisation="paper", within=1.5, num_resamples=50
        )
        assert found.num_rates <= 9 - useless
        assert abs(found.slope.estimate) < 0.1 and found.slope.high < 0.2
    with pytest.raises(ValueError, match="within >= 1"):
        decay_slope(KEY, errors, rates, decays, parametrisation="paper", within=0.5)


@pytest.mark.equation("GRID-6")
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_slope_of_the_best_shrink_is_the_power_it_was_made_with(power):
    best_shrink = 1e-3 * (RATES / 1e-2) ** power
    shrink = RATES[:, None] * DECAYS
    distance = np.log(shrink) - np.log(best_shrink)[:, None]
    shake = 0.02 * np.random.default_rng(3).standard_normal((*distance.shape, 6))
    errors = np.exp(0.2 * distance[..., None] ** 2 + shake)
    found = decay_slope(KEY, errors, RATES, DECAYS, parametrisation="paper", num_resamples=100)
    assert found.slope.low - 0.1 < power < found.slope.high + 0.1
    assert found.slope.estimate == pytest.approx(power, abs=0.15)
    scaled = decay_slope(KEY, errors, RATES, DECAYS, parametrisation="lr_scaled", num_resamples=20)
    assert scaled.slope.estimate == pytest.approx(found.slope.estimate - 1, abs=1e-12)
    assert found.num_rates >= 5


def test_a_slope_needs_three_learning_rates():
    errors, _ = valley(0.1, 0.4, 0)
    errors[:-2] = np.nan
    found = decay_slope(KEY, errors, RATES, DECAYS, parametrisation="paper", num_resamples=10)
    assert np.isnan(found.slope.estimate)
    assert found.num_rates == 2


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: best_cell(KEY, np.full((2, 3), np.nan)), "a finite median error, got none"),
        (lambda: best_cell(KEY, np.zeros((2, 0))), "seeds along its last axis"),
        (lambda: ridge(np.ones((2, 3, 4)), np.array([1.0, 2.0])), "2 decays, seeds"),
        (lambda: ridge(np.ones((2, 2, 4)), np.array([2.0, 1.0])), "ascending decays"),
        (
            lambda: separability(KEY, np.ones((2, 2, 3)), RATES, DECAYS, parametrisation="paper"),
            "13 rates, 17 decays",
        ),
        (
            lambda: decay_slope(KEY, valley(1, 1, 0)[0], RATES, DECAYS, parametrisation="papr"),
            "Did you mean 'paper'",
        ),
        (
            lambda: decay_slope(
                KEY, valley(1, 1, 0)[0], -RATES, DECAYS, parametrisation="lr_scaled"
            ),
            "rates > 0",
        ),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(call, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        call()
    assert "\n" not in str(caught.value)
