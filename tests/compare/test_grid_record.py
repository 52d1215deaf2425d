"""Groups that heatmaps and curves draw: the numbers of `compare`, labelled, and their regions."""

import jax
import numpy as np
import pytest

from bayesfilt.compare import (
    Course,
    HeatmapPanel,
    Surface,
    best_cell,
    best_decay_with_interval,
    carried_regret,
    chosen_region,
    course_group,
    heatmap_group,
    matched_group,
    separability,
)
from bayesfilt.compare.carried_decay import SHRINK_POWERS

KEY = jax.random.key(0)
RATES, DECAYS = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-2, 10, 7)


def errors(noise=0.05, best=(1e-2, 0.3)):
    u, v = np.meshgrid(np.log(RATES / best[0]), np.log(DECAYS / best[1]), indexing="ij")
    shake = noise * np.random.default_rng(1).standard_normal((*u.shape, 5))
    return 0.1 * np.exp((0.05 * u**2 + 0.02 * (v + 0.5 * u) ** 2)[..., None] + shake)


def panel(title="AdamW", **changed):
    made = errors()
    made[0, 0, :2] = np.nan
    made[4, 6] = np.nan
    fields = {"title": title, "rates": RATES, "decays": DECAYS, "errors": made, **changed}
    return HeatmapPanel(**fields)


def test_a_heatmap_group_holds_what_the_analysis_says():
    group = heatmap_group(KEY, [panel(), panel("other", errors=errors(best=(0.03, 1.0)))])
    (first, _) = jax.random.split(KEY, 2)
    best = best_cell(first, panel().errors, num_resamples=500)
    assert tuple(group["best_cell"].values[0]) == best.cell
    np.testing.assert_array_equal(group["chosen"].values[0], best.chosen)
    for column, name in enumerate(("lr_scaled", "paper")):
        found = separability(first, panel().errors, RATES, DECAYS, parametrisation=name)
        assert group["off_diagonal"].values[0, column] == found.off_diagonal.estimate
        assert group["ridge_angle_high"].values[0, column] == found.ridge_angle.high
        carried = Surface(panel().errors, RATES, DECAYS, SHRINK_POWERS[name])
        price = carried_regret(first, carried).regret
        endings = ("", "_low", "_high")
        shown = [group[f"carried_regret{each}"].values[0, column] for each in endings]
        np.testing.assert_array_equal(shown, price)
        assert np.isfinite(shown).all()
    assert group["diverged"].values[0, 0, 0] == pytest.approx(0.4)
    assert np.isfinite(group["median_error"].values[0, 0, 0])
    assert group["median_error"].values[0, 4, 6] == np.inf
    assert list(group["panel"].values) == ["AdamW", "other"]


def test_the_region_is_the_fewest_cells_that_hold_the_level():
    chosen = np.array([[0.5, 0.02], [0.3, 0.18]])
    np.testing.assert_array_equal(chosen_region(chosen, 0.9), [[True, False], [True, True]])
    np.testing.assert_array_equal(chosen_region(chosen, 0.8), [[True, False], [True, False]])
    np.testing.assert_array_equal(chosen_region(chosen, 0.5), [[True, False], [False, False]])


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "one shape"),
        ([panel(), panel(errors=np.ones((5, 6, 5)), decays=DECAYS[:6])], "one shape"),
        ([panel(decays=np.append(0.0, DECAYS[1:]))], "decays > 0"),
    ],
)
def test_grids_that_cannot_stand_beside_each_other_are_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        heatmap_group(KEY, panels)


def test_every_quantity_is_of_the_cell_that_is_chosen_by_one():
    # Cell 1 ends best in error, cell 0 in loss.
    error = np.array([[[0.5, 0.3]] * 3, [[0.9, 0.1]] * 3])
    loss = np.array([[[1.5, 0.5]] * 3, [[2.0, 1.0]] * 3])
    group = course_group(
        KEY,
        np.array([0, 100]),
        {"test_error": [Course("adamw", error)], "loss": [Course("adamw", loss)]},
        chosen_by="test_error",
    )
    np.testing.assert_array_equal(group["test_error"].values, [[0.9, 0.1]])
    np.testing.assert_array_equal(group["loss"].values, [[2.0, 1.0]])
    np.testing.assert_array_equal(group["test_error_envelope"].values, [[0.5, 0.1]])
    np.testing.assert_array_equal(group["test_error_low"].values, [[0.9, 0.1]])


def test_medians_at_equal_loss_leave_lost_runs_out():
    losses = np.array([[0.1, 0.2, 1.5, np.nan]])
    found = matched_group(
        ["adamw"], [losses], [np.array([[0.3, 0.5, 0.7, 0.9]])], np.array([0.05, 0.5, 5.0])
    )
    np.testing.assert_allclose(found["bin_error"].values, [[0.4, 0.7]])
    np.testing.assert_allclose(found["bin_loss"].values, np.sqrt([0.025, 2.5]))


def test_the_best_decay_of_a_line_lies_inside_its_interval():
    line = 0.1 * np.exp(0.05 * np.log(DECAYS / 0.5)[:, None] ** 2)
    shake = 0.02 * np.random.default_rng(0).standard_normal((7, 9))
    estimate, low, high = best_decay_with_interval(KEY, line * np.exp(shake), DECAYS)
    assert low <= estimate <= high
    assert low < 0.7
    assert high > 0.4
    (exact, *_) = best_decay_with_interval(KEY, line.repeat(2, axis=1), DECAYS, num_resamples=5)
    assert exact == pytest.approx(0.5)
    outside = best_decay_with_interval(KEY, line[::-1].cumsum(axis=0), DECAYS)
    assert np.isnan(outside).all()
