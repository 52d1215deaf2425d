"""Panels of an experiment: many names, long labels, numbers within one power of ten."""

import itertools

import numpy as np
import pytest

from bayesfilt.figures import panels_figure
from bayesfilt.figures.panels_figure import _looks
from bayesfilt.figures.style import known_optimizers, optimizer_style
from bayesfilt.records import variable
from experiments import e21_layerwise_rate
from experiments.panels import Panel, Series, panels_group
from tests.experiments.test_decay_laws import rates_record

TITLES = ("one", "two", "three")


def test_no_two_names_of_a_figure_look_alike_however_many_there_are():
    names = [*known_optimizers()[:3], *(f"setting {index}" for index in range(25))]
    looks = _looks(names, ["line"] * len(names))
    assert len({(look.color, look.marker) for look in looks.values()}) == len(names)
    assert all(looks[name] == optimizer_style(name) for name in known_optimizers()[:3])


def test_the_first_others_do_not_have_the_colour_of_an_optimizer_that_is_there():
    looks = _looks(["Adam, then SGD", "adabayes_fixed_point", "adabayes"], ["line"] * 3)
    assert len({look.color for look in looks.values()}) == 3


def _drawn(x, y, venue="neurips", label="fraction of weights in Adam's regime"):
    series = [Series(name="a", x=x, y=y)]
    panels = [
        Panel(title=title, x_label="curvature (1/weight²)", y_label=label, series=series,
              x_scale="log", y_scale="log")
        for title in TITLES
    ]  # fmt: skip
    figure = panels_figure(panels_group(panels), venue)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("venue", ["neurips", "icml"])
@pytest.mark.parametrize(
    "values",
    [[22, 30, 68], [0.019, 0.043], [0.09, 0.13], [3e-4, 2e-3], [0.5, 1, 7], [20, 2e4], [5]],
)
def test_ticks_of_a_short_logarithmic_axis_are_few_and_do_not_collide(venue, values):
    figure = _drawn(values, values, venue)
    for axes in [each for each in figure.axes if each.get_title() in TITLES]:
        low, high = axes.get_xlim()
        assert low < min(values) <= max(values) < high
        for axis, across in ((axes.xaxis, True), (axes.yaxis, False)):
            ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_text()]
            inside = [tick for tick in ticks if low <= tick.get_loc() <= high]
            assert 1 <= len(inside) <= 6
            boxes = [tick.label1.get_window_extent() for tick in inside]
            for one, two in itertools.pairwise(boxes):
                assert (one.x1 <= two.x0) if across else (one.y1 <= two.y0)


def test_a_label_is_no_longer_than_its_axis():
    figure = _drawn(np.arange(1.0, 5), np.arange(1.0, 5))
    for axes in [each for each in figure.axes if each.get_title() in TITLES]:
        taken = axes.yaxis.label.get_window_extent()
        assert taken.height <= axes.get_window_extent().height
        assert "²" not in axes.get_xlabel()


def test_words_below_a_narrow_panel_do_not_run_into_each_other():
    places = ("FP", "filter", "eps", "Adam", "SGD")
    panels = [
        Panel(title=title, x_label="", y_label="loss", places=places,
              series=[Series(name="a", x=range(5), y=range(5))])
        for title in TITLES
    ]  # fmt: skip
    figure = panels_figure(panels_group(panels), "icml")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[-1].get_xticklabels()]
    assert all(one.x1 < two.x0 for one, two in itertools.pairwise(boxes))


def test_places_stand_at_equal_distances():
    """Points beside each other, from 0.05 to 2.05, are no reason for a logarithmic axis."""
    points = Series(name="a", x=np.arange(3) + 0.05, y=range(3))
    panel = Panel("worlds", "", "loss", [points], places=("a", "b", "c"))
    (axes, *_) = panels_figure(panels_group([panel]), "icml").axes
    assert (axes.get_xscale(), axes.get_xlim()) == ("linear", (-0.5, 2.5))


def test_best_rates_that_are_nowhere_inside_their_grid_are_named_so():
    seen, record = rates_record(1), rates_record(1)
    for group in record.groups.values():  # the lowest error at the highest ratio and mean
        shape = group["test_error"].values.shape
        falling = np.arange(np.prod(shape), 0, -1.0).reshape(shape)
        group["test_error"] = variable(group["test_error"].dims, falling)
    for each, name in ((seen, "by test error"), (record, "by test error: at the edge of the grid")):
        (legend,) = e21_layerwise_rate.plot(each, "icml").legends
        assert name in [text.get_text().replace("\n", "") for text in legend.get_texts()]
