"""What a figure shows, stored beside it: a table, a record it is drawn again from, and SVG."""

import csv
import io
import re
import xml.etree.ElementTree as tree

import numpy as np
import pytest

from bayesfilt import figures, records
from bayesfilt.figures import (
    VENUES,
    draw_all,
    drawn_table,
    heatmap_figure,
    noise_over_curvature_figure,
    panels_figure,
    redraw,
    save_figure,
    shares_figure,
    svg_text,
    training_figure,
)
from bayesfilt.records import Record, read_record, variable
from tests.figures import grids, synthetic


def rows_of(figure):
    table = drawn_table(figure.drawn)
    assert table is not None
    return list(csv.DictReader(io.StringIO(table)))


def test_the_table_of_panels_has_a_row_a_point():
    rows = rows_of(panels_figure(grids.panels_group(), "icml"))
    line = [row for row in rows if row["series"] == "adamw"]
    assert [float(row["x"]) for row in line] == list(range(1, 13))
    np.testing.assert_allclose([float(row["y"]) ** -2 for row in line], range(1, 13))
    np.testing.assert_allclose([float(row["low"]) / float(row["y"]) for row in line], 0.8)
    np.testing.assert_allclose([float(row["high"]) / float(row["y"]) for row in line], 1.2)
    assert {(row["panel"], row["x_label"], row["y_label"], row["kind"]) for row in line} == {
        ("decay", "steps", "shrink per step", "line")
    }
    law = [row for row in rows if row["kind"] == "law"]
    assert len(law) == 12
    assert {(row["low"], row["high"]) for row in law} == {("", "")}
    assert [row["place"] for row in rows if row["kind"] == "points"] == ["digits", "matched"]
    guides = {row["panel"]: float(row["y"]) for row in rows if row["kind"] == "guide"}
    assert guides == {"decay": 0.5, "worlds": 1.0}
    assert [row["y"] for row in rows if row["panel"] == "unknown"] == ["nan", "nan"]


def test_the_table_of_any_group_has_a_row_a_number_beside_its_labels():
    group = {
        "optimizer": variable("optimizer", ["adamw", 'a "b", c']),
        "step": variable("step", np.array([0, 100])),
        "loss": variable(
            ("optimizer", "step"), np.array([[2.5, 1 / 3], [np.nan, 7]]), units="nats"
        ),
        "mark": variable("snapshot", ["early"]),
        "near": variable((), np.float32(0.1)),
    }
    drawn = figures.Drawn(by="a_figure", group=group, options={})
    text = drawn_table(drawn)
    assert text is not None
    assert text.splitlines()[0] == "variable,optimizer,step,snapshot,value,units"
    rows = list(csv.DictReader(io.StringIO(text)))
    found = {(row["variable"], row["optimizer"], row["step"]): row["value"] for row in rows}
    assert float(found["loss", "adamw", "100"]) == 1 / 3  # every digit
    assert found["loss", 'a "b", c', "0"] == "nan"
    assert found["near", "", ""] == "0.1"  # no digits that a float32 does not have
    assert [row["snapshot"] for row in rows if row["variable"] == "mark"] == ["0"]
    assert {row["units"] for row in rows if row["variable"] == "loss"} == {"nats"}
    assert len(rows) == 6


@pytest.mark.parametrize(
    "made",
    [
        lambda venue: shares_figure(synthetic.shadow_group(num_records=5), venue),
        lambda venue: heatmap_figure(grids.heatmaps_group(), venue, "paper"),
        lambda venue: panels_figure(grids.panels_group(), venue=venue),
    ],
)
def test_what_stands_beside_a_figure_draws_it_again_for_another_venue(made, tmp_path):
    save_figure(made("neurips"), tmp_path, "one")
    stored = read_record(tmp_path / "one.nc")
    assert svg_text(redraw(stored, "icml"), "one") == svg_text(made("icml"), "one")
    assert redraw(stored, "neurips").get_size_inches()[0] == VENUES["neurips"].width


def test_a_record_of_something_else_is_not_redrawn():
    for other in (
        Record(groups={"drawn": {}}, attributes={"drawn_by": "save_figure"}),
        Record(groups={"drawn": {}}, attributes={}),
        Record(groups={}, attributes={"drawn_by": "shares_figure"}),
    ):
        with pytest.raises(ValueError, match="redraw needs what was stored beside a figure"):
            redraw(other)


def test_without_the_libraries_of_netcdf_the_data_are_an_npz(tmp_path, monkeypatch):
    figure = shares_figure(synthetic.shadow_group(num_records=5))
    save_figure(figure, tmp_path, "one")
    monkeypatch.setattr(records, "_missing_for_netcdf", lambda: "h5py")
    save_figure(figure, tmp_path, "one")
    assert {path.name for path in tmp_path.iterdir()} == {
        "one.png", "one.pdf", "one.csv", "one.npz",
    }  # fmt: skip
    assert redraw(read_record(tmp_path / "one.npz"), "icml").venue == "icml"


def test_what_is_too_long_to_be_read_is_no_table(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "LARGEST_TABLE", 100)
    monkeypatch.setattr(figures.drawn, "LARGEST_TABLE", 100)
    figure = shares_figure(synthetic.shadow_group(num_records=50))
    assert drawn_table(figure.drawn) is None
    save_figure(figure, tmp_path, "one")
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".pdf", ".nc"}
    record = Record(groups={"shadow": synthetic.shadow_group(num_records=50)}, attributes={})
    draw_all(record, tmp_path / "all", "icml")  # its own record is the place to look
    assert {path.suffix for path in (tmp_path / "all").iterdir()} == {".png", ".pdf"}


def test_svg_is_well_formed_names_no_other_place_and_keeps_its_names_to_itself():
    group = synthetic.free_group()
    text = svg_text(training_figure(group, "icml"), "one", title='Loss < 1 & "more"')
    assert text == svg_text(training_figure(group, "icml"), "one", title='Loss < 1 & "more"')
    declared = text.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    root = tree.fromstring(declared)
    assert root.find("title").text == 'Loss < 1 & "more"'
    assert not re.search(r"https?:|<style|<script|<text|<metadata", text)
    names = re.findall(r' id="([^"]+)"', text)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert len(names) == len(set(names))
    assert used
    assert used <= set(names)
    assert all(name.startswith("one-") for name in names)


def test_a_cloud_is_one_picture_in_svg_and_stays_as_it_was_elsewhere():
    rng = np.random.default_rng(0)
    where = ("world", "moment", "weight")

    def group(count):
        return {
            "world": variable("world", ["digits"]),
            "moment": variable("moment", ["early"]),
            "curvature": variable(where, rng.lognormal(size=(1, 1, count))),
            "noise": variable(where, rng.lognormal(size=(1, 1, count))),
            "median_ratio": variable(("world", "moment"), np.ones((1, 1))),
        }

    few, many = (
        svg_text(noise_over_curvature_figure(group(count), "icml"), "one")
        for count in (300, 30_000)
    )
    assert "data:image/png;base64," in many
    assert len(many) < 2 * len(few) + 200_000
    figure = panels_figure(grids.panels_group(), "icml")
    axes = figure.axes[0]
    (cloud,) = axes.plot(np.arange(5_000), np.ones(5_000), linestyle="none", marker="o")
    assert "<image" in svg_text(figure, "one")
    assert not cloud.get_rasterized()


def test_a_name_that_would_break_the_page_is_refused():
    for name in ("", "1", "a b", 'a"b', "a/b", "é"):
        with pytest.raises(ValueError, match="needs a name of letters"):
            svg_text(shares_figure(synthetic.shadow_group(num_records=5)), name)


@pytest.mark.parametrize(
    ("venue", "width"),
    [
        ("neurips", 5.5),
        ("icml", 3.25),  # one of two columns
        ("icml_wide", 6.75),  # both, and the gap of a quarter of an inch
        ("iclr", 5.5),
        ("tmlr", 6.5),
        ("jmlr", 6.0),
    ],
)
def test_a_figure_is_as_wide_as_the_text_of_the_venue(venue, width, tmp_path):
    assert panels_figure(grids.panels_group(), venue).get_size_inches()[0] == width
    assert 2 * VENUES["icml"].width + 0.25 == VENUES["icml_wide"].width
