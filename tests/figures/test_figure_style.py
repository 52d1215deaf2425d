"""One look per optimizer, in colour, in grey and to colour-blind eyes; nothing global."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bayesfilt.commands.compare import DEFAULT_FOLLOWERS
from bayesfilt.figures import (
    FIGURES,
    VENUES,
    agreement_figure,
    optimizer_style,
    rc_params,
    training_figure,
)
from bayesfilt.figures.style import CONVENTION_STYLES, PART_STYLES, known_optimizers
from bayesfilt.optimizers import OPTIMIZERS
from tests.figures import synthetic
from tests.figures.looking import lines_called, words_of

# Machado, Oliveira and Fernandes (2009), full severity, on linear light.
COLOUR_BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear_light(color):
    value = np.array(to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def cielab(light):
    """Lightness 0 to 100 and two colour axes, in which distances are as large as they look."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.clip(to_xyz @ light, 0, None) / [0.9505, 1.0, 1.089]
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = root
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distances(points):
    return [np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)]


def test_optimizers_stay_apart_on_a_grey_print():
    colors = [optimizer_style(name).color for name in known_optimizers()]
    lightness = [cielab(linear_light(color))[:1] for color in colors]
    assert min(distances(lightness)) > 6.5
    assert max(lightness) < 80  # still a line on white paper


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_optimizers_stay_apart_to_colour_blind_eyes(kind):
    seen = [
        cielab(COLOUR_BLIND[kind] @ linear_light(optimizer_style(name).color))
        for name in known_optimizers()
    ]
    assert min(distances(seen)) > 10


@pytest.mark.parametrize(
    "styles", [PART_STYLES, {n: optimizer_style(n) for n in known_optimizers()}]
)
def test_each_of_colour_marker_and_dashes_tells_lines_apart(styles):
    for field in ("color", "marker", "dashes"):
        assert len({getattr(style, field) for style in styles.values()}) == len(styles)


def test_parts_and_conventions_stay_apart_on_a_grey_print():
    grey = [cielab(linear_light(style.color))[:1] for style in PART_STYLES.values()]
    assert min(distances(grey)) > 10
    looks = {(style.color, style.dashes) for style in CONVENTION_STYLES.values()}
    assert len(looks) == len(CONVENTION_STYLES)


def test_every_optimizer_of_the_zoo_has_a_style_of_its_own():
    styles = [optimizer_style(name) for name in OPTIMIZERS]
    assert {*DEFAULT_FOLLOWERS, "adamw"} <= set(known_optimizers())
    assert len(set(styles)) == len(OPTIMIZERS)


@pytest.mark.parametrize("name", ["adamw", "my_optimizer"])
def test_an_optimizer_looks_the_same_in_every_figure(name):
    names = (name, "adabayes")
    groups = {
        "free": synthetic.free_group(names),
        "shadow": synthetic.shadow_group(names),
        "gains": synthetic.gains_group(names, num_weights=50),
        "decay": synthetic.decay_group(names),
    }
    style = optimizer_style(name)
    for figure_name in ("training", "agreement", "crossover", "gains", "regimes", "decay"):
        drawing = FIGURES[figure_name]
        drawn = list(lines_called(drawing.draw(groups[drawing.group], "neurips"), name))
        assert drawn, figure_name
        assert {each.get_color() for each in drawn} == {style.color}
        if figure_name != "crossover":  # a dot for each weight there
            assert {each.get_marker() for each in drawn} == {style.marker}


def test_the_formulas_of_the_validity_map_wear_the_colours_of_their_optimizers():
    figure = FIGURES["validity"].draw(synthetic.validity_group(), "neurips")
    twins = {"exact": "steady_state", "fixed_point": "adabayes_fixed_point", "sgd": "sgd"}
    for formula, optimizer in twins.items():
        colors = {each.get_color() for each in lines_called(figure, formula)}
        assert colors == {optimizer_style(optimizer).color}


def test_spelling_does_not_change_the_style():
    assert optimizer_style("AdaBayes-fixed-point") == optimizer_style("adabayes_fixed_point")
    assert optimizer_style("scale_by_kalman") == optimizer_style("adabayes")


def test_unknown_names_rarely_share_a_style_and_never_with_a_known_one():
    unknown = [optimizer_style(f"optimizer {index}") for index in range(40)]
    assert len(set(unknown)) > 36
    known = {optimizer_style(name).color for name in known_optimizers()}
    assert not known & {style.color for style in unknown}


def test_nothing_global_changes_and_nothing_global_is_read():
    group = synthetic.shadow_group(num_records=5)
    before = dict(matplotlib.rcParams)
    plain = agreement_figure(group)
    seen = words_of(plain)
    assert dict(matplotlib.rcParams) == before
    late = agreement_figure(group)  # built in one style, drawn in another
    with matplotlib.rc_context({"lines.linewidth": 9, "ytick.labelsize": 1, "axes.grid": False}):
        assert words_of(late) == seen  # the number of ticks depends on the size of their labels
        figure = agreement_figure(group)
    assert words_of(figure) == seen
    for ours, theirs in zip(plain.axes[0].lines, figure.axes[0].lines, strict=True):
        assert ours.get_linewidth() == theirs.get_linewidth()


def test_another_process_draws_the_same_unknown_name_and_no_screen_library():
    code = (
        "import sys; import bayesfilt.figures as f; from tests.figures import synthetic;"
        "f.training_figure(synthetic.free_group()); assert 'matplotlib.pyplot' not in sys.modules;"
        "print(f.optimizer_style('lion'), f.optimizer_style('muon'))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == f"{optimizer_style('lion')} {optimizer_style('muon')}"


@pytest.mark.parametrize("venue", VENUES)
def test_settings_of_a_venue_need_no_latex_and_embed_their_fonts(venue):
    settings = rc_params(venue)
    assert settings["text.usetex"] is False
    assert settings["pdf.fonttype"] == settings["ps.fonttype"] == 42
    assert set(settings) <= set(matplotlib.rcParams)


def test_an_unknown_venue_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"knows venue neurips, icml.*got 'nips'"):
        training_figure(synthetic.free_group(), "nips")
