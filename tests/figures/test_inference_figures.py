"""Figures of an inference draw its record, and say what must not be trusted."""

import matplotlib
import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from matplotlib.colors import to_hex

from bayesfilt.figures import (
    belief_figure,
    calibration_figure,
    comparison_figure,
    instruments_figure,
    shrink_figure,
    streams_figure,
)
from bayesfilt.figures.sampling import LINEAR, LOGARITHMIC, chains_figure, posterior_figure
from bayesfilt.figures.style import MODEL_STYLES, model_style
from bayesfilt.infer.state_space import FREE_NOISE, TRANSITIONS
from tests.figures import inferences
from tests.figures.looking import assert_draws, line, panel, words_of
from tests.figures.test_figure_style import COLOUR_BLIND, cielab, distances, linear_light


def upright_lines(axes):
    """Places of the lines over the whole height of a panel."""
    return [each.get_xdata()[0] for each in axes.lines if list(each.get_ydata()) == [0, 1]]


def test_every_transition_has_a_style_that_colour_blind_eyes_and_grey_prints_keep_apart():
    assert set(MODEL_STYLES) == set(TRANSITIONS)
    for field in ("color", "marker", "dashes"):
        assert len({getattr(style, field) for style in MODEL_STYLES.values()}) == len(TRANSITIONS)
    lights = [linear_light(style.color) for style in MODEL_STYLES.values()]
    assert min(distances([cielab(each)[:1] for each in lights])) > 6.5
    for seen in COLOUR_BLIND.values():
        assert min(distances([cielab(seen @ each) for each in lights])) > 10


def test_a_model_with_words_of_its_own_wears_its_transition_s_style():
    assert model_style("l2:tails=student_t") == MODEL_STYLES["l2"]
    assert model_style("ornstein_uhlenbeck") == MODEL_STYLES["ornstein_uhlenbeck"]


def test_every_number_of_every_model_has_a_name_on_an_axis():
    names = {name for own in TRANSITIONS.values() for name in own}
    names |= {*FREE_NOISE.values(), "shrink", "degrees_of_freedom"}
    assert names == {*LOGARITHMIC, *LINEAR}


def test_the_shrink_s_posterior_stands_beside_the_decay_that_was_set_and_the_tied_one():
    group = inferences.shrink_group()
    figure = shrink_figure(group)
    for index, layer in enumerate(inferences.LAYERS):
        axes = panel(figure, layer)
        curve = line(axes, "ornstein_uhlenbeck")
        assert_draws(curve, group["shrink"].values, group["density"].values[0, index])
        assert to_hex(curve.get_color()) == MODEL_STYLES["ornstein_uhlenbeck"].color
        low, high = line(axes, "nonzero_mean: 90 %").get_xdata()
        assert (low, high) == (group["low"].values[1, index], group["high"].values[1, index])
        tied = group["implied_decay"].values[index]
        assert upright_lines(axes) == [1e-4, tied, group["negligible"].values]


def test_a_decay_of_zero_is_named_because_it_has_no_place_on_the_axis():
    figure = shrink_figure(inferences.shrink_group(set_decay=0.0))
    assert len(upright_lines(panel(figure, "dense_0"))) == 2
    assert "= 0, off this axis" in words_of(figure)


def test_a_fit_that_failed_is_never_drawn_as_if_it_had_not():
    figure = shrink_figure(inferences.shrink_group(failed=("nonzero_mean",)))
    for axes in figure.axes:
        good, bad = line(axes, "ornstein_uhlenbeck"), line(axes, "nonzero_mean")
        assert good.get_linestyle() == "-"
        assert bad.get_linestyle() != "-"
        assert bad.get_linewidth() < good.get_linewidth()
    assert "nonzero_mean: FAILED ITS GATES" in words_of(figure)
    assert "FAILED" not in words_of(shrink_figure(inferences.shrink_group()))
    calibration = words_of(calibration_figure(inferences.calibration_group()))
    assert "velocity: FAILED ITS GATES" in calibration
    assert calibration.count("FAILED") == 1
    foretold = words_of(streams_figure(inferences.foretold_group(failed=True)))
    assert "ornstein_uhlenbeck: FAILED ITS GATES" in foretold
    assert "FAILED" not in words_of(streams_figure(inferences.foretold_group()))


def test_a_refuted_model_stands_open_and_a_failed_one_is_a_cross():
    group = inferences.comparison_group()
    figure = comparison_figure(group)
    axes = panel(figure, "all layers")
    for index, name in enumerate(inferences.MODELS):
        mark = line(axes, name)
        value, error = (group[key].values[index, 0] for key in ("difference", "standard_error"))
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (value, index)
        np.testing.assert_allclose(
            line(axes, f"{name}: 2 SE").get_xdata(), [value - 2 * error, value + 2 * error]
        )
        failed, refuted = (group[key].values[index] for key in ("failed", "refuted"))
        assert (mark.get_marker() == "x") == failed
        assert (mark.get_markerfacecolor() == "white") == refuted
    assert "→ ornstein_uhlenbeck" in words_of(figure)
    assert "do not trust" in words_of(figure)


def test_observations_lie_over_the_band_that_was_foretold():
    group = inferences.foretold_group(each=3)
    figure = streams_figure(group)
    for index, name in enumerate(group["stream"].values):
        axes = panel(figure, f"{group['layer_of'].values[index]}, weight {name}")
        steps = group["step"].values
        assert_draws(line(axes, "observed"), steps, group["observed"].values[index])
        assert_draws(line(axes, "ornstein_uhlenbeck"), steps, group["one_step_mean"].values[index])
        (band,) = axes.collections
        high = band.get_paths()[0].vertices[:, 1].max()
        assert high == pytest.approx(1.645 * 5.0)  # the first step's
        assert axes.get_ylim()[1] < 1  # and it does not fill the panel


def test_ranks_and_leftover_correlation_are_the_record_s():
    group = inferences.calibration_group()
    ranks, leftover = calibration_figure(group).axes
    for index, name in enumerate(inferences.MODELS):
        drawn = group["ecdf_difference"].values[index]
        assert_draws(line(ranks, name), group["probability"].values, drawn)
        drawn = group["autocorrelation"].values[index]
        assert_draws(line(leftover, name), group["lag"].values, drawn)


def test_noise_and_drift_are_drawn_over_curvature_with_the_slopes_that_matter():
    group = inferences.instruments_group()
    figure = instruments_figure(group)
    own = group["layer_of"].values == "dense_0"
    noise, drift = (axes for axes in figure.axes if axes.get_ylabel())
    for axes, name in ((noise, "noise_variance"), (drift, "drift_variance")):
        dots = line(axes, "one weight")
        assert_draws(dots, group["curvature"].values[own], group[name].values[own])
    slopes = [
        np.diff(np.log(each.get_ydata()))[0] / np.diff(np.log(each.get_xdata()))[0]
        for each in drift.lines[1:]
    ]
    np.testing.assert_allclose(slopes, [0, -1, -0.6], atol=1e-9)
    (equal,) = noise.lines[1:]
    np.testing.assert_allclose(equal.get_xdata(), equal.get_ydata())
    assert "drift slope -0.60 ± 0.05" in words_of(figure)


def test_the_belief_figure_says_whose_variance_it_judges():
    group = inferences.instruments_group()
    figure = belief_figure(group)
    above = panel(figure, "(optimum - mean)² / variance")
    drawn = line(above, "calibration")
    assert_draws(drawn, group["step"].values, group["calibration"].values[0])
    assert "variance: the filter's own" in words_of(figure)


def tree(layers=inferences.LAYERS) -> xarray.DataTree:
    """Draws of two chains and of a prior, log-normal; one number that may be negative."""
    rng = np.random.default_rng(0)

    def draws(chains, count, spread):
        shape = (chains, count, len(layers))
        values = {
            "drift_scale": 10.0 ** (spread * rng.standard_normal(shape) - 3),
            "shrink": 10.0 ** (spread * rng.standard_normal(shape) - 2),
            "towards": spread * rng.standard_normal(shape),
            "drift_scale_raw": rng.standard_normal(shape),
        }
        dims = ("chain", "draw", "layer")
        return xarray.Dataset(
            {name: (dims, value) for name, value in values.items()}, {"layer": list(layers)}
        )

    return xarray.DataTree.from_dict({"posterior": draws(2, 80, 0.2), "prior": draws(1, 160, 1.0)})


@pytest.mark.parametrize("draw", [chains_figure, posterior_figure])
def test_arviz_s_figures_are_labelled_marked_and_leave_nothing_behind(draw):
    before = dict(matplotlib.rcParams)
    figure = draw(tree(), "nonzero_mean", failed=True)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    said = words_of(figure)
    assert "nonzero_mean: FAILED ITS GATES" in said
    labels = [text.replace("\n", " ") for text in said.split(" | ")]
    assert "$\\log_{10}$ drift scale (weight)" in labels
    assert "$\\log_{10}$ shrink (per step)" in labels
    assert "mean of optima (weight)" in labels
    assert {"dense_0", "dense_1"} <= set(labels)
    assert "_raw" not in said
    assert "FAILED" not in words_of(draw(tree(("all",)), "nonzero_mean"))
