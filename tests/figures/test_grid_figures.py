"""Figures of sweeps draw the record: every cell, mark, line and interval has its own numbers."""

import functools

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from bayesfilt.figures import (
    anytime_figure,
    budgets_figure,
    heatmap_figure,
    inferred_decay_figure,
    learning_curves_figure,
    matched_loss_figure,
)
from bayesfilt.records import variable
from tests.figures import grids
from tests.figures.looking import assert_draws, line, words_of
from tests.figures.synthetic import with_values

GROUP = grids.heatmaps_group()


@functools.cache
def heatmaps(parametrisation="lr_scaled"):
    return heatmap_figure(GROUP, "tmlr", parametrisation)


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def coloured(axes):
    """Colour values and corners of the coloured cells; corners of the hatched ones."""
    cells = [each for each in axes.collections if isinstance(each, PolyCollection)]
    (colours,) = [each for each in cells if each.get_array() is not None]
    hatched = [each for each in cells if each.get_array() is None]
    corners = [path.vertices[:4] for path in colours.get_paths()]
    lost = [path.vertices[:4] for each in hatched for path in each.get_paths()]
    return np.asarray(colours.get_array()), np.array(corners), np.array(lost)


def centres(corners):
    return np.exp(np.log(corners).mean(axis=1))


@pytest.mark.parametrize("parametrisation", ["lr_scaled", "paper"])
def test_every_cell_stands_where_its_numbers_say_and_has_its_error(parametrisation):
    medians = GROUP["median_error"].values
    for index, axes in enumerate(panels(heatmaps(parametrisation))):
        rates = GROUP["learning_rate"].values[index]
        decays = GROUP["weight_decay"].values[index]
        x, y = np.meshgrid(rates, decays, indexing="ij")
        y = x * y if parametrisation == "paper" else y
        healthy = np.isfinite(medians[index])
        values, corners, lost = coloured(axes)
        np.testing.assert_array_equal(values, medians[index][healthy])
        np.testing.assert_allclose(centres(corners)[:, 0], x[healthy])
        np.testing.assert_allclose(centres(corners)[:, 1], y[healthy])
        np.testing.assert_allclose(centres(lost)[:, 0], x[~healthy])
        np.testing.assert_allclose(centres(lost)[:, 1], y[~healthy])


def test_all_panels_share_one_colour_scale_that_clips_nothing():
    medians = GROUP["median_error"].values
    known = medians[np.isfinite(medians)]
    for axes in panels(heatmaps()):
        (cells,) = [
            each for each in axes.collections
            if isinstance(each, PolyCollection) and each.get_array() is not None
        ]  # fmt: skip
        assert cells.norm.vmin == known.min()
        assert cells.norm.vmax == known.max()


@pytest.mark.parametrize("parametrisation", ["lr_scaled", "paper"])
def test_best_cell_valley_and_divergence_are_marked(parametrisation):
    for index, axes in enumerate(panels(heatmaps(parametrisation))):
        rates = GROUP["learning_rate"].values[index]
        decays = GROUP["weight_decay"].values[index]
        factor = rates if parametrisation == "paper" else np.ones_like(rates)
        rate, decay = GROUP["best_cell"].values[index]
        star = line(axes, "best")
        np.testing.assert_allclose(star.get_xdata(), rates[rate])
        np.testing.assert_allclose(star.get_ydata(), factor[rate] * decays[decay])
        assert_draws(line(axes, "valley"), rates, factor * GROUP["ridge"].values[index])
        crosses = line(axes, "partly diverged")
        np.testing.assert_allclose(crosses.get_xdata(), [rates[-2]] * 2)
        np.testing.assert_allclose(crosses.get_ydata(), factor[-2] * decays[-2:])


def test_the_outline_goes_around_the_region_and_nowhere_else():
    region = np.zeros_like(GROUP["region"].values)
    region[:, 2:4, 3] = region[:, 3, 4:7] = region[:, 8, 8] = True  # lopsided, and in two parts
    figure = heatmap_figure(with_values(GROUP, region=region), "tmlr")
    axes = panels(figure)[0]
    (outline,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    rates, decays = GROUP["learning_rate"].values[0], GROUP["weight_decay"].values[0]
    unit = np.log([rates[1] / rates[0], decays[1] / decays[0]])
    ends = np.log(np.array(outline.get_segments()) / [rates[0], decays[0]]) / unit
    sides = set()
    for end in ends:  # cell (i, j) reaches from i - 1/2 to i + 1/2
        middle, along = end.mean(axis=0), np.abs(end[1] - end[0]) > 0.5
        step = np.where(along, 0, 0.5)
        sides.add(frozenset(tuple(np.rint(middle + sign * step).astype(int)) for sign in (-1, 1)))
    inside = set(zip(*np.nonzero(region[0]), strict=True))
    borders = {
        frozenset([(i, j), (i + di, j + dj)])
        for i, j in inside
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1))
        if (i + di, j + dj) not in inside
    }
    assert sides == borders


def test_the_numbers_of_the_valley_are_those_of_the_parametrisation_drawn():
    for column, parametrisation in enumerate(("lr_scaled", "paper")):
        figure = heatmaps(parametrisation)
        for index, axes in enumerate(panels(figure)):
            numbers = axes.get_title().replace("\N{MINUS SIGN}", "-")
            term = GROUP["off_diagonal"].values[index, column]
            assert f"{term:.2f}" in numbers
            assert f"{GROUP['ridge_angle_low'].values[index, column] + 0.0:.0f}" in numbers
            assert grids.TITLES[index] in numbers


def test_where_there_is_no_valley_the_price_of_carrying_a_decay_stands():
    flat = grids.without_valley()
    figure = heatmap_figure(flat, "tmlr", "paper")
    for index, axes in enumerate(panels(figure)):
        lines = axes.get_title().replace("\N{MINUS SIGN}", "-").splitlines()[-2:]
        for name, column in (("shrink", 1), ("factor", 0)):
            value, low, high = (
                flat[f"carried_regret{ending}"].values[index, column]
                for ending in ("", "_low", "_high")
            )
            assert f"{name} {value:.2f} ({low + 0.0:.2f}, {high:.2f})" in lines
    assert "added by a decay carried as such" in words_of(figure)
    assert "off-diagonal" not in words_of(figure)  # what no panel shows is not explained
    assert "carried" not in words_of(heatmaps())


def test_a_heatmap_without_valley_and_price_says_so():
    flat = grids.without_valley()
    lost = {
        name: variable(each.dims, np.full(each.values.shape, np.nan))
        for name, each in flat.items()
        if name.startswith("carried_regret")
    }
    old = {name: each for name, each in flat.items() if name not in lost}
    for group in (flat | lost, old):  # a price that does not exist, a group that knows of none
        assert "no valley" in words_of(heatmap_figure(group, "tmlr"))
    one = flat["carried_regret"].values.copy()
    one[0, 0] = np.nan
    partly = flat | {"carried_regret": variable(("panel", "parametrisation"), one)}
    assert "factor unknown" in words_of(heatmap_figure(partly, "tmlr"))


def test_a_heatmap_without_divergence_does_not_speak_of_it():
    words = words_of(heatmap_figure(grids.heatmaps_group(diverging=False), "tmlr"))
    assert "diverged" not in words
    assert "some seeds diverged" in words_of(heatmaps())
    assert "median test error" in words_of(heatmaps())


def test_an_unknown_parametrisation_is_refused():
    with pytest.raises(ValueError, match=r"'papers'. Did you mean 'paper'"):
        heatmap_figure(GROUP, "tmlr", "papers")


def assert_shades(axes, label, step, low, high):
    (shading,) = [each for each in axes.collections if each.get_label() == label]
    corners = {tuple(corner) for corner in shading.get_paths()[0].vertices}
    assert set(zip(step, low, strict=True)) <= corners
    assert set(zip(step, high, strict=True)) <= corners


def test_anytime_curves_are_the_record_with_their_intervals_and_envelopes():
    group = grids.anytime_group()
    (axes,) = anytime_figure(group).axes
    step = group["step"].values
    for index, name in enumerate(("adamw", "adam")):
        assert_draws(line(axes, name), step, group["test_error"].values[index])
        envelope = group["test_error_envelope"].values[index]
        assert_draws(line(axes, f"{name}: envelope"), step, envelope)
        low, high = (group[f"test_error_{end}"].values[index] for end in ("low", "high"))
        assert_shades(axes, f"{name}: interval", step, low, high)
    marked = [each.get_xdata()[0] for each in axes.lines if each.get_label() == "restart"]
    assert marked == [200, 600, 1400]
    assert "restart" not in words_of(anytime_figure(grids.anytime_group(restarts=())))


def test_learning_curves_are_the_record():
    group = grids.curves_group()
    axes = learning_curves_figure(group).axes
    for panel, quantity in zip(axes, ("loss", "test_loss", "test_error"), strict=True):
        for index, name in enumerate(("adamw", "adam", "sgdw")):
            drawn = line(panel, name)
            assert_draws(drawn, group["step"].values, group[quantity].values[index])
    without = {name: each for name, each in group.items() if not name.startswith("loss")}
    assert len(learning_curves_figure(without).axes) == 2


def test_matched_losses_are_the_record_and_lost_runs_are_counted():
    group = grids.matched_group()
    (axes,) = matched_loss_figure(group).axes
    for index, name in enumerate(("adamw", "adam")):
        losses, errors = (group[each].values[index] for each in ("training_loss", "test_error"))
        assert_draws(line(axes, f"{name}: runs"), losses, errors)
        medians = group["bin_error"].values[index]
        known = np.isfinite(medians)
        assert_draws(line(axes, name), group["bin_loss"].values[known], medians[known])
    assert axes.get_title().startswith("without 2 runs")


def test_budgets_are_the_record_and_one_outside_the_grid_has_no_marker():
    group = grids.budgets_group()
    figure = budgets_figure(group)
    for index, axes in enumerate(panels(figure)):
        best = group["best"].values[index]
        known = np.isfinite(best)
        budgets = group["budget"].values
        assert_draws(line(axes, "measured"), budgets[known], best[known])
        for turn, law in enumerate(group["law"].values):
            assert_draws(line(axes, law), budgets, group["predicted"].values[index, turn])
        (intervals,) = [each for each in axes.collections if isinstance(each, LineCollection)]
        ends = np.array(intervals.get_segments())[:, :, 1]
        np.testing.assert_allclose(ends[:, 0], group["best_low"].values[index][known])
        np.testing.assert_allclose(ends[:, 1], group["best_high"].values[index][known])
    assert "not inside the grid" in words_of(budgets_figure(grids.budgets_group(inside=False)))


def test_inferred_decays_are_the_record_and_bounds_have_carets():
    group = grids.inferred_decay_group()
    figure = inferred_decay_figure(group, "tmlr")
    reference, decay = group["reference"].values, group["decay"].values
    seen = 0
    for index, axes in enumerate(panels(figure)):
        ends = line(axes, "equal").get_xydata()
        np.testing.assert_allclose(ends[:, 0], ends[:, 1])
        bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
        edges = bands[0].get_paths()[0].vertices
        ratios = edges[:, 1] / edges[:, 0]
        np.testing.assert_allclose([ratios.min(), ratios.max()], [0.5, 2.0])
        for layer, rate in np.ndindex(2, 3):
            for side in (-1, 0, 1):
                here = (group["edge"].values[index, layer, rate] == side) & np.isfinite(
                    decay[index, layer, rate]
                )
                drawn = line(axes, f"rate {rate}, layer {layer}, side {side}")
                x, y = drawn.get_data()
                np.testing.assert_allclose(y, decay[index, layer, rate][here])
                np.testing.assert_allclose(x, reference[rate][here], rtol=0.04)
                assert (drawn.get_marker() in (6, 7)) is (side != 0)
                seen += len(y)
        whiskers = [each for each in axes.collections if isinstance(each, LineCollection)]
        lows = np.concatenate([np.array(each.get_segments())[:, 0, 1] for each in whiskers])
        low = group["decay_low"].values[index]
        np.testing.assert_allclose(np.sort(lows), np.sort(low[np.isfinite(low)]))
    assert seen == 23
    assert all(bound in words_of(figure) for bound in ("or below", "or above"))
    group["edge"].values[...] = np.minimum(group["edge"].values, 0)
    assert "or above" not in words_of(inferred_decay_figure(group, "tmlr"))
    assert "not known" in words_of(inferred_decay_figure(grids.inferred_decay_group(known=False)))
