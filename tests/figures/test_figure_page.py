"""The page: as wide as the venue's column, no text cut or overprinted, no legend over data."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from bayesfilt.figures import FIGURES, VENUES
from bayesfilt.figures.layout import columns_that_fit, spread, wrap
from bayesfilt.figures.panels import power_of_ten, set_scale
from bayesfilt.figures.style import venue_style
from tests.figures import grids, inferences, synthetic
from tests.figures.looking import drawn_texts, legend_over_data, outside, overlapping
from tests.quick_look import slow_but

GROUPS = {
    "free": synthetic.free_group(),
    "shadow": synthetic.shadow_group(num_records=21),
    "gains": synthetic.gains_group(num_weights=300),
    "decay": synthetic.decay_group(num_records=41),
    "validity": synthetic.validity_group(num_points=31),
    "heatmaps": grids.heatmaps_group(),
    "anytime": grids.anytime_group(),
    "curves": grids.curves_group(),
    "matched": grids.matched_group(),
    "budgets": grids.budgets_group(),
    "foretold": inferences.foretold_group(),
    "shrink": inferences.shrink_group(),
    "comparison": inferences.comparison_group(),
    "calibration": inferences.calibration_group(),
    "instruments": inferences.instruments_group(),
    "inferred_decay": grids.inferred_decay_group(),
    "panels": grids.panels_group(),
}
ODD_CASES = {**synthetic.odd_cases(), **inferences.odd_cases()}
QUICK_CASES = ("odd names", "one record of curves", "no share", "eight shares", "nothing measured")
PAGES = [(name, "icml") for name in FIGURES]  # the narrowest
PAGES += [pytest.param(name, "neurips", marks=pytest.mark.slow) for name in FIGURES]
PAGES += [
    pytest.param(*page, marks=pytest.mark.slow)  # iclr is as wide as neurips
    for page in (
        *(("training", venue) for venue in ("tmlr", "jmlr", "icml_wide", "talk")),
        ("crossover", "talk"),
        ("decay", "tmlr"),
        ("heatmaps", "tmlr"),
    )
]


def assert_reads_well(figure, venue):
    texts = drawn_texts(figure)
    assert len(texts) > 5
    assert not outside(figure, texts)
    assert not overlapping(texts)
    assert not legend_over_data(figure)
    width, height = figure.get_size_inches()
    assert width == VENUES[venue].width
    assert height < 9 * VENUES[venue].scale  # a page of text is about that high


@pytest.mark.parametrize(("name", "venue"), PAGES)
def test_every_figure_fits_every_venue(name, venue):
    drawing = FIGURES[name]
    figure = drawing.draw(GROUPS[drawing.group], venue)
    assert_reads_well(figure, venue)
    with venue_style(venue):
        tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(tight.x0, tight.y0) > -0.01
    assert tight.x1 < width + 0.01
    assert tight.y1 < height + 0.01


@pytest.mark.parametrize("case", slow_but(QUICK_CASES, ODD_CASES))
def test_odd_records_fit_the_narrowest_venue(case):
    name, group = ODD_CASES[case]
    assert_reads_well(FIGURES[name].draw(group, "icml"), "icml")


def test_a_figure_grows_by_the_height_of_its_legend():
    figures = {
        count: FIGURES["agreement"].draw(
            synthetic.shadow_group(synthetic.EIGHT_FOLLOWERS[:count], num_records=2), "icml"
        )
        for count in (1, 8)
    }
    for figure in figures.values():
        figure.draw_without_rendering()
    low, high = (each.get_size_inches()[1] for each in figures.values())
    taller = [each.legends[0].get_window_extent().height / each.dpi for each in figures.values()]
    assert high - low == pytest.approx(taller[1] - taller[0])
    panels = [each.axes[0].get_window_extent().height for each in figures.values()]
    assert panels[1] == pytest.approx(panels[0], rel=0.02)


def test_neurips_and_iclr_are_one_page():
    assert VENUES["neurips"] == VENUES["iclr"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 100.0], "log"),
        ([0.0, 1.0, 100.0], "log"),  # a zero is left out
        ([1.0, 2.0], "linear"),
        ([-1.0, 100.0], "linear"),
        ([0.0, 0.0], "linear"),
        ([np.nan, np.inf], "linear"),
        ([], "linear"),
    ],
)
def test_the_scale_follows_the_numbers(values, scale):
    axes = Figure().subplots()
    set_scale(axes, "y", [np.array(values)])
    assert axes.get_yscale() == scale
    finite = np.array(values)[np.isfinite(values)]
    low, high = axes.get_ylim()
    assert low < high
    if scale == "log":
        finite = finite[finite > 0]
    assert np.all((finite >= low) & (finite <= high))


@pytest.mark.parametrize(
    "values", [[1.0], [100.0], [3.0, 5.0], [0.99, 1.01], [2.0, 150.0], [1e-250, 1e250]]
)
def test_a_logarithmic_axis_shows_two_powers_of_ten(values):
    axes = Figure().subplots()
    set_scale(axes, "x", [np.array(values)], scale="log")
    low, high = np.log10(axes.get_xlim())
    assert np.floor(high + 1e-9) - np.ceil(low - 1e-9) >= 1


def test_rounding_does_not_fill_a_linear_axis():
    axes = Figure().subplots()
    set_scale(axes, "y", [np.array([1 - 1e-16, 1.0])])
    low, high = axes.get_ylim()
    assert high - low > 0.1


@pytest.mark.parametrize(
    ("count", "venue", "columns"),
    [(3, "neurips", 3), (4, "neurips", 2), (3, "icml", 2), (1, "icml", 1)],
)
def test_panels_are_spread_evenly_over_rows(count, venue, columns):
    assert columns_that_fit(venue, count, least_width=1.5) == columns


def test_a_spread_keeps_both_ends():
    assert spread(3, 6) == [0, 1, 2]
    assert spread(1, 6) == [0]
    assert spread(11, 3) == [0, 5, 10]


def test_long_names_are_cut_where_they_may_be():
    assert wrap("adabayes_fixed_point", 12) == "adabayes_\nfixed_point"
    assert wrap("abcdefgh", 3) == "abc\ndef\ngh"
    assert wrap("short", 12) == "short"
    assert wrap(r"limit $\eta/\sqrt{v}$", 4) == r"limit $\eta/\sqrt{v}$"
    assert wrap("name\nin two lines", 20) == "name\nin two lines"


def test_numbers_are_written_as_powers_of_ten():
    assert power_of_ten(1e-4) == "$10^{-4}$"
    assert power_of_ten(2.5e-4) == r"$2.5\times10^{-4}$"
    assert power_of_ten(0.5) == "0.5"
    assert power_of_ten(0.0) == "0"
