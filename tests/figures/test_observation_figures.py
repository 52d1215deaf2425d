"""Figures of single weights draw what was measured, and fit the narrowest page."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from bayesfilt.figures import VENUES
from bayesfilt.records import Record, variable
from experiments import (
    e07_noise_is_curvature,
    e08_drift_and_curvature,
    e09_calibration,
    e10_white_at_best_rate,
)
from tests.experiments import weights
from tests.figures.looking import drawn_texts, legend_over_data, outside, overlapping


def two_worlds(result: Record) -> Record:
    """The same with a second world beside the first."""
    again = {
        name.replace("digits", "digits-mlp-300-noisy"): group
        for name, group in result.groups.items()
        if name.startswith("digits")
    }
    return Record(groups={**result.groups, **again}, attributes={})


CASES = {
    e07_noise_is_curvature: weights.noise_result(weights.noise_world(0.5)),
    e08_drift_and_curvature: weights.drift_result(-0.5, best=0.75),
    e09_calibration: weights.calibration_result(weights.filter_world(30.0, 0.2)),
    e10_white_at_best_rate: weights.whiteness_result(weights.white_world(crossing=0.001)),
}


@pytest.mark.parametrize("venue", ["icml", "neurips", "talk"])
@pytest.mark.parametrize("module", CASES)
def test_every_figure_fits_every_venue(module, venue):
    figure = module.plot(two_worlds(CASES[module]), venue)
    texts = drawn_texts(figure)
    assert len(texts) > 5
    assert not outside(figure, texts)
    assert not overlapping(texts)
    assert not legend_over_data(figure)
    width, height = figure.get_size_inches()
    assert width == VENUES[venue].width
    assert height < 9 * VENUES[venue].scale


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def test_noise_over_curvature_is_that_of_every_weight_and_its_median():
    module = e07_noise_is_curvature
    world = CASES[module].groups["digits"]
    figure = module.plot(CASES[module])
    assert "beyond the axes" not in legend(figure)
    axes = panels(figure)["digits"]
    clouds = [each for each in axes.lines if each.get_linestyle() == "None"]
    assert len(clouds) == 3
    for moment, cloud in enumerate(clouds):
        np.testing.assert_array_equal(
            cloud.get_xdata(), world["gauss_newton"].values[moment].ravel()
        )
        ratio = world["noise"].values[moment] / world["gauss_newton"].values[moment]
        np.testing.assert_allclose(cloud.get_ydata(), ratio.ravel())
    medians = [each.get_ydata()[0] for each in axes.lines if each.get_linestyle() != "None"]
    np.testing.assert_allclose(medians[1:], 0.5, rtol=0.02)
    assert medians[0] == 1  # where they would be if the claim held


def test_drift_is_drawn_with_both_laws_and_the_predicted_power():
    module = e08_drift_and_curvature
    figure = module.plot(CASES[module])
    above, below = figure.axes[0], figure.axes[1]
    laws = [each for each in above.lines if len(each.get_xdata()) == 2]
    slopes = [
        np.diff(np.log(each.get_ydata()))[0] / np.diff(np.log(each.get_xdata()))[0] for each in laws
    ]
    np.testing.assert_allclose(slopes, [-1, 0], atol=1e-9)
    (losses,) = below.lines
    np.testing.assert_array_equal(losses.get_xdata(), [0, 0.25, 0.5, 0.75, 1, 1.25])
    assert np.argmin(losses.get_ydata()) == 3
    (shade,) = below.patches
    middle = shade.get_x() + shade.get_width() / 2
    np.testing.assert_allclose(middle, 0.75, atol=0.02)


def test_levels_stand_at_their_moment_with_their_interval():
    module = e09_calibration
    result = CASES[module]
    figure = module.plot(result)
    for row, level in enumerate(module.LEVELS):
        axes = figure.axes[2 * row + 1]  # the control stands in the first column
        (drawn,) = [each for each in axes.lines if each.get_marker() != "None"]
        found = [module.level_of(result.groups["digits"], (0, each), level) for each in range(3)]
        np.testing.assert_array_equal(drawn.get_xdata(), [0, 1, 2])
        np.testing.assert_allclose(drawn.get_ydata(), [each.estimate for each in found])
        (bars,) = [each for each in axes.collections if isinstance(each, LineCollection)]
        ends = np.array(bars.get_segments())[:, :, 1]
        np.testing.assert_allclose(ends, [[each.low, each.high] for each in found])


def test_correlations_and_losses_are_drawn_over_the_rates():
    module = e10_white_at_best_rate
    world = CASES[module].groups["digits"]
    figure = module.plot(CASES[module])
    for row, (name, middle) in enumerate({"autocorrelation": np.mean, "loss": np.median}.items()):
        drawn = [each for each in figure.axes[2 * row + 1].lines if each.get_marker() != "None"]
        for moment, line in enumerate(drawn):
            np.testing.assert_array_equal(line.get_xdata(), world["learning_rate"].values)
            np.testing.assert_allclose(
                line.get_ydata(), middle(world[name].values[moment], axis=-1)
            )
        assert len(drawn) == 2


CARETS = (4, 5, 6, 7)  # matplotlib's


def carets(axes):
    """How many of them point left, right, up and down."""
    drawn = dict.fromkeys(CARETS, 0)
    for line in axes.lines:
        if line.get_marker() in drawn:
            drawn[line.get_marker()] += len(line.get_xdata())
    return tuple(drawn.values())


def assert_all_is_inside(axes):
    """Every marker and every end of a bar that is known stands on the axes."""
    points = [line.get_xydata() for line in axes.lines if line.get_marker() in CARETS]
    points += [line.get_xydata() for line in axes.lines if line.get_linestyle() != "None"]
    points += [np.concatenate(each.get_segments()) for each in axes.collections]
    heights = np.concatenate(points)[:, 1]
    low, high = axes.get_ylim()
    assert np.all(np.isnan(heights) | ((low <= heights) & (heights <= high)))


def test_weights_far_from_all_others_are_carets_at_the_edge():
    world = weights.noise_world()
    for name in ("noise", "gauss_newton"):  # more weights, so that few are far from the others
        values = world[name].values
        world[name] = variable(world[name].dims, np.concatenate([values] * 30, axis=2))
    world["noise"].values[2, 0, :3] *= 1e9
    world["noise"].values[1, 0, 5] *= 1e-9
    result = weights.noise_result(world)
    figure = e07_noise_is_curvature.plot(result)
    axes = panels(figure)["digits"]
    assert carets(axes)[2:] == (3, 1)
    assert max(np.log10(axes.get_ylim())) < 2
    assert "beyond the axes" in legend(figure)


def test_a_loss_of_zero_stands_at_the_lower_edge_and_no_line_leaves_the_panel():
    result = weights.drift_result(-0.5, best=0.75)
    for power, factor in ((1.0, 0.0), (1.25, 1e-9), (0.0, 1e9)):
        group = result.groups[f"digits/eps=0.001/power={power:g}"]
        group["training_loss"].values[...] *= factor
    figure = e08_drift_and_curvature.plot(result)
    assert carets(figure.axes[1]) == (0, 0, 1, 2)
    assert_all_is_inside(figure.axes[1])
    assert "beyond the axes" in legend(figure)


def test_intervals_of_correlation_and_loss_stay_on_the_axes():
    result = weights.whiteness_result(weights.white_world(uneven=3.0))
    result.groups["digits"]["loss"].values[..., -1] *= 5.0
    for axes in e10_white_at_best_rate.plot(result).axes:
        assert_all_is_inside(axes)
