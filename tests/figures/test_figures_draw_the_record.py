"""The data drawn: every line is the record's own numbers, whatever style it has."""

import functools

import numpy as np
import pytest

from bayesfilt.figures import (
    FIGURES,
    agreement_figure,
    crossover_figure,
    decay_figure,
    gains_figure,
    regimes_figure,
    shares_figure,
    training_figure,
    validity_figure,
)
from bayesfilt.figures.agreement import MEASURES
from bayesfilt.records import variable
from tests.figures import synthetic
from tests.figures.looking import (
    assert_draws,
    line,
    lines_called,
    panel,
    words_of,
)

RUNS = (synthetic.LEADER, *synthetic.FOLLOWERS)


@functools.cache
def usual_training():
    group = synthetic.free_group()
    return group, training_figure(group)


@pytest.mark.parametrize(
    ("label", "name", "with_leader"),
    [
        ("minibatch loss", "loss", True),
        ("test loss", "test_loss", True),
        ("test accuracy", "test_accuracy", True),
        ("weight distance", "weight_distance", False),
        ("predictive KL", "predictive_kl", False),
    ],
)
def test_training_lines_are_the_record(label, name, with_leader):
    group, figure = usual_training()
    axes = panel(figure, label)
    for run in range(0 if with_leader else 1, len(RUNS)):
        drawn = line(axes, RUNS[run])
        assert_draws(drawn, group["step"].values, group[name].values[run])
    names = {each.get_label() for each in axes.lines}
    assert (synthetic.LEADER in names) == with_leader


def test_the_noise_floor_is_the_edge_of_the_shading():
    group, figure = usual_training()
    (shading,) = panel(figure, "weight distance").collections
    corners = {tuple(corner) for corner in shading.get_paths()[0].vertices}
    edge = zip(group["step"].values, group["noise_weight_distance"].values, strict=True)
    inside = [point for point in edge if point[1] > 1.1e-15]
    assert len(inside) > 150
    assert set(inside) <= corners


def test_the_noise_floor_of_the_loss_lies_around_the_leader():
    group = synthetic.free_group()
    gap = 0.1 * group["loss"].values[0]
    figure = training_figure(synthetic.with_values(group, noise_loss_gap=gap))
    (shading,) = panel(figure, "minibatch loss").collections
    corners = shading.get_paths()[0].vertices
    for step, loss in zip(group["step"].values[5:], group["loss"].values[0, 5:], strict=True):
        heights = corners[corners[:, 0] == step, 1]
        assert (heights.min(), heights.max()) == pytest.approx((0.9 * loss, 1.1 * loss))


def test_the_divergence_horizon_is_a_line_where_one_was_reached():
    _, figure = usual_training()
    assert any(set(each.get_xdata()) == {1500} for each in panel(figure, "weight").lines)
    assert "divergence horizon" in words_of(figure)
    assert "horizon" not in words_of(training_figure(synthetic.equal_to_the_leader()))


def test_a_diverged_run_is_marked_named_and_does_not_stretch_the_axes():
    figure = training_figure(synthetic.diverged())
    axes = panel(figure, "minibatch loss")
    (cross,) = [each for each in axes.lines if each.get_marker() == "x"]
    assert list(cross.get_xdata()) == [490]
    assert axes.get_ylim()[1] < 100
    assert "diverged at step 500" in words_of(figure)


def test_a_quantity_that_is_not_there_has_no_panel():
    labels = [axes.get_ylabel() for axes in training_figure(synthetic.without_accuracy()).axes]
    assert len(labels) == 2
    assert labels[0] == "minibatch loss"
    assert labels[1].startswith("weight distance")


def test_a_distance_of_exactly_zero_is_said_in_words():
    figure = training_figure(synthetic.equal_to_the_leader())
    (text,) = panel(figure, "weight distance").texts
    assert text.get_text().split("\n") == ["exactly 0:", *synthetic.FOLLOWERS]
    assert not panel(usual_training()[1], "weight distance").texts


def test_losses_below_zero_are_drawn_on_a_linear_axis():
    group = synthetic.falling_below_zero()
    axes = panel(training_figure(group), "minibatch loss")
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < group["loss"].values.min()


@pytest.mark.parametrize("venue", ["icml", "tmlr"])
def test_agreement_lines_are_the_record(venue):
    layers = ("conv_0", "conv_1", "dense_0", "dense_1", "dense_2")
    group = synthetic.shadow_group(layers=layers)
    figure = agreement_figure(group, venue)
    for measure in MEASURES:
        values = group[measure.name].values
        for index, name in enumerate(synthetic.FOLLOWERS):
            drawn = [np.asarray(each.get_ydata()) for each in lines_called(figure, name)]
            for layer in range(len(layers)):
                assert any(np.array_equal(each, values[index, layer]) for each in drawn)


def test_agreement_panels_stand_under_their_layer_and_beside_their_measure():
    group = synthetic.shadow_group()
    figure = agreement_figure(group)
    rows = [figure.axes[start : start + 2] for start in range(0, 8, 2)]
    assert [axes.get_title() for axes in rows[0]] == list(synthetic.LAYERS)
    assert [row[0].get_ylabel() for row in rows] == [measure.label for measure in MEASURES]
    for row, measure in zip(rows, MEASURES, strict=True):
        for layer, axes in enumerate(row):
            values = group[measure.name].values[1, layer]
            assert_draws(line(axes, synthetic.FOLLOWERS[1]), group["step"].values, values)
        assert row[0].get_ylim() == row[1].get_ylim()


def test_shares_are_the_record_and_a_follower_without_parts_says_so():
    group = synthetic.shadow_group()
    figure = shares_figure(group)
    for index, name in enumerate(synthetic.FOLLOWERS[:-1]):
        for turn, part in enumerate(synthetic.PARTS):
            share = group["share"].values[index, turn]
            assert_draws(line(panel(figure, name), part), group["step"].values, share)
    without = panel(figure, synthetic.FOLLOWERS[-1])
    assert [text.get_text() for text in without.texts] == ["not available"]
    assert not without.lines


def closed_form(rms, eta, sigma2):
    return 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + (rms / eta) ** 2))


@pytest.mark.parametrize("snapshot", [-1, 1])
def test_the_crossover_draws_every_weight_and_the_theory_on_top(snapshot):
    group = synthetic.gains_group(num_weights=300)
    figure = crossover_figure(group, snapshot=snapshot)
    eta, sigma2 = 1e-3, 5e-3
    for index, name in enumerate(synthetic.FOLLOWERS):
        axes = panel(figure, name)
        dots = line(axes, name)
        rms = group["rms_gradient"].values[index, snapshot]
        assert_draws(dots, rms, group["gain"].values[index, snapshot])
        curve = line(axes, "fixed point")
        x = np.asarray(curve.get_xdata())
        np.testing.assert_allclose(curve.get_ydata(), closed_form(x, eta, sigma2), rtol=1e-5)
        assert x.min() <= rms[rms > 0].min()
        assert x.max() >= rms.max()
        assert curve.get_zorder() > dots.get_zorder()
        np.testing.assert_allclose(line(axes, r"SGD limit $\sigma^2$").get_ydata(), sigma2)
        adam = line(axes, r"Adam limit $\eta/\sqrt{v}$")
        np.testing.assert_allclose(adam.get_ydata(), eta / np.asarray(adam.get_xdata()), rtol=1e-5)
        crossing = line(axes, r"crossover $\eta/\sigma^2$")
        np.testing.assert_allclose(crossing.get_xdata(), eta / sigma2)


def test_the_crossover_draws_the_middle_snapshot_unless_told():
    group = synthetic.gains_group(num_weights=300)
    middle = len(group["snapshot"].values) // 2
    name = synthetic.FOLLOWERS[0]
    dots = line(panel(crossover_figure(group), name), name)
    rms, gain = (group[each].values[0, middle] for each in ("rms_gradient", "gain"))
    assert_draws(dots, rms, gain)


def test_weights_without_gradient_stand_at_the_edge_at_the_height_of_their_gain():
    group = synthetic.gains_group(num_weights=300)
    figure = crossover_figure(group)
    name = synthetic.FOLLOWERS[0]
    arrows = line(panel(figure, name), f"{name}: zero gradient")
    np.testing.assert_allclose(arrows.get_ydata(), [5e-3])
    assert "zero gradient" in words_of(figure)


def test_a_random_walk_has_no_sgd_limit_and_no_crossover():
    group = synthetic.gains_group(num_weights=300)
    shape = group["stationary_variance"].values.shape
    figure = crossover_figure(
        synthetic.with_values(group, stationary_variance=np.full(shape, np.inf))
    )
    curve = line(figure.axes[0], "fixed point")
    np.testing.assert_allclose(curve.get_ydata(), 1e-3 / np.asarray(curve.get_xdata()), rtol=1e-5)
    assert "SGD limit" not in words_of(figure)
    assert "crossover" not in words_of(figure)


def test_an_optimizer_without_gains_says_so():
    figure = crossover_figure(synthetic.gains_not_available())
    without = panel(figure, synthetic.FOLLOWERS[-1])
    assert [text.get_text() for text in without.texts] == ["not available"]
    assert not without.lines


def test_histograms_are_the_record_and_name_their_step():
    group = synthetic.gains_group()
    figure = gains_figure(group)
    bins = group["log10_gain_bin"].values
    for snapshot, step in enumerate(group["snapshot"].values):
        axes = panel(figure, f"step {step}")
        for index, name in enumerate(synthetic.FOLLOWERS):
            assert_draws(line(axes, name), bins, group["gain_count"].values[index, snapshot])


def test_an_optimizer_without_gains_is_not_in_the_legend():
    group = synthetic.gains_not_available()
    for figure in (gains_figure(group), regimes_figure(group)):
        (legend,) = figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert names == list(synthetic.FOLLOWERS[:-1])


def test_of_many_snapshots_six_are_drawn_with_the_first_and_the_last():
    group = synthetic.gains_group(num_weights=20)
    many = {"snapshot": variable("snapshot", 10 * np.arange(40))}
    count = np.repeat(group["gain_count"].values, 10, axis=1)
    many["gain_count"] = variable(group["gain_count"].dims, count)
    titles = [axes.get_title() for axes in gains_figure(group | many).axes]
    assert titles == [f"step {step}" for step in (0, 80, 160, 230, 310, 390)]


def test_regime_fractions_are_the_record():
    group = synthetic.gains_group()
    figure = regimes_figure(group)
    rows = [figure.axes[start : start + 2] for start in range(0, 6, 2)]
    assert [row[0].get_ylabel() for row in rows] == ["SGD-like", "Adam-like", "mean-square"]
    for regime, row in enumerate(rows):
        for layer, axes in enumerate(row):
            for index, name in enumerate(synthetic.FOLLOWERS):
                fraction = group["regime_fraction"].values[index, layer, regime]
                assert_draws(line(axes, name), group["snapshot"].values, fraction)


def test_decay_lines_are_the_record():
    group = synthetic.decay_group()
    figure = decay_figure(group)
    shrink, timescale = panel(figure, "shrink per step"), panel(figure, "EMA timescale")
    step = group["step"].values
    for index, name in enumerate(RUNS):
        assert_draws(line(shrink, name), step, group["realised_shrink"].values[index])
        intended = line(shrink, f"{name}: intended")
        assert_draws(intended, step, group["intended_shrink"].values[index])
        assert_draws(line(timescale, name), step, group["ema_timescale"].values[index])
        kept = line(panel(figure, "decay kept"), name)
        assert_draws(kept, np.array([index]), group["decay_kept"].values[[index]])
    for index, name in enumerate(synthetic.CONVENTIONS):
        assert_draws(line(shrink, name), step, group["convention_shrink"].values[index])


def test_a_schedule_that_ends_at_zero_does_not_fill_the_decay_panels():
    figure = decay_figure(synthetic.decay_group())
    for label in ("shrink per step", "EMA timescale"):
        low, high = panel(figure, label).get_ylim()
        assert 100 < high / low < 1e7


def test_no_decay_is_an_infinite_timescale_in_words():
    figure = decay_figure(synthetic.without_decay())
    assert [text.get_text() for text in panel(figure, "EMA").texts] == ["infinite"]
    assert [text.get_text() for text in panel(figure, "decay kept").texts] == ["not available"]


def test_validity_lines_are_the_record_and_their_error_against_the_exact_root():
    group = synthetic.validity_group()
    figure = validity_figure(group)
    x, exact = group["rms_times_drift"].values, group["exact"].values
    upper, lower = figure.axes[:4], figure.axes[4:]
    for ratio in range(4):
        formulas = {
            "fixed_point": group["fixed_point"].values[ratio],
            "sgd": np.full(x.shape, group["sgd"].values[ratio]),
            "adam": group["adam"].values,
            "mean_square": group["mean_square"].values,
        }
        assert_draws(line(upper[ratio], "exact"), x, exact[ratio])
        for name, values in formulas.items():
            assert_draws(line(upper[ratio], name), x, values)
            error = np.abs(values - exact[ratio]) / exact[ratio]
            drawn = np.asarray(line(lower[ratio], name).get_ydata())
            np.testing.assert_allclose(drawn, error, rtol=1e-6, atol=1e-12)


def test_dimensions_may_come_in_another_order():
    group = synthetic.free_group()
    turned = variable(("step", "run"), group["loss"].values.T)
    axes = panel(training_figure(group | {"loss": turned}), "minibatch loss")
    assert_draws(line(axes, RUNS[2]), group["step"].values, group["loss"].values[2])


def test_a_missing_variable_is_named():
    group = synthetic.decay_group()
    del group["convention_shrink"]
    with pytest.raises(ValueError, match=r"needs variable 'convention_shrink'; the group has step"):
        decay_figure(group)
    with pytest.raises(ValueError, match=r"needs coordinate 'follower'"):
        agreement_figure(group)


def test_wrong_dimensions_are_named():
    group = synthetic.decay_group()
    group["ema_timescale"] = group["realised_shrink"]._replace(dims=("run", "step"))
    with pytest.raises(ValueError, match=r"'ema_timescale' over \('optimizer', 'step'\), got"):
        decay_figure(group)


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_label(name):
    drawing = FIGURES[name]
    figure = drawing.draw(synthetic.record().groups[drawing.group], "neurips")
    bars = [axes for axes in figure.axes if axes.get_subplotspec() is None]  # of colours
    panels = [axes for axes in figure.axes if axes not in bars]
    assert figure.get_supxlabel() or all(axes.get_xlabel() for axes in panels if axes.axison)
    leftmost = [axes for axes in panels if axes.get_subplotspec().is_first_col()]
    first_ticks = [axes.get_yticklabels()[0].get_text() for axes in leftmost]
    assert figure.get_supylabel() or all(
        axes.get_ylabel() or tick[:1].isalpha()  # a list of names labels itself
        for axes, tick in zip(leftmost, first_ticks, strict=True)
    )
    assert all(bar.get_ylabel() for bar in bars)
