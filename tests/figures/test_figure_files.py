"""The files: PNG and PDF, whole or absent, equal bytes for equal data, fonts inside."""

import re
import zlib

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from bayesfilt.figures import FIGURES, draw_all, save_figure, shares_figure
from bayesfilt.records import Record
from tests.figures import synthetic


def draw():
    return shares_figure(synthetic.shadow_group(num_records=5), "icml")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_figure(draw(), tmp_path_factory.mktemp("figures") / "new", "shares")


def test_a_figure_becomes_a_png_and_a_pdf(saved):
    folder = saved[0].parent
    assert saved == (folder / "shares.png", folder / "shares.pdf")
    beside = {folder / "shares.csv", folder / "shares.nc"}
    assert set(folder.iterdir()) == {*saved, *beside}  # and nothing temporary
    height, width, _ = imread(saved[0]).shape
    assert width == 3.25 * 300
    assert height == pytest.approx(draw().get_size_inches()[1] * 300, abs=1)


def test_equal_data_give_equal_bytes(saved, tmp_path):
    save_figure(draw(), tmp_path, "again")
    for end in ("png", "pdf", "csv", "nc"):
        one, other = saved[0].with_suffix(f".{end}"), tmp_path / f"again.{end}"
        assert one.read_bytes() == other.read_bytes()


def test_the_pdf_embeds_its_fonts_as_truetype(saved):
    content = saved[1].read_bytes()
    # Font dictionaries may lie in compressed streams.
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        try:
            content += zlib.decompress(stream)
        except zlib.error:
            continue
    assert b"/Subtype /Type3" not in content
    assert b"STIXGeneral" in content
    assert b"/FontFile2" in content
    assert not re.search(rb"CreationDate|Matplotlib", content)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "one.png").write_bytes(b"old")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_figure(Figure(), tmp_path, "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert (tmp_path / "one.png").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["", "../one", "a/b", "."])
def test_a_name_that_leaves_the_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="bare file name"):
        save_figure(Figure(), tmp_path, name)


def test_draw_all_draws_every_group_and_puts_the_task_in_front(tmp_path):
    groups = {
        "digits-mlp/shadow": synthetic.shadow_group(num_records=3),
        "validity": synthetic.validity_group(ratios=(0.1,), num_points=5),
        "unknown": {},
    }
    paths = draw_all(Record(groups=groups, attributes={}), tmp_path, venue="icml")
    stems = ["digits-mlp-agreement", "digits-mlp-shares", "validity"]
    assert [path.name for path in paths] == [
        f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")
    ]
    assert all(path.stat().st_size > 1_000 for path in paths)


def test_every_group_of_the_record_has_a_figure():
    assert {drawing.group for drawing in FIGURES.values()} == set(synthetic.record().groups)
    assert len(FIGURES) >= 5


def test_a_record_that_cannot_be_drawn_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"one of anytime, budgets, .*; it has sweep"):
        draw_all(Record(groups={"sweep": {}}, attributes={}), tmp_path)
    with pytest.raises(ValueError, match="venue"):
        draw_all(synthetic.record(), tmp_path, venue="nips")
    assert not list(tmp_path.iterdir())
