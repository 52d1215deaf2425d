"""One page of a run or of a folder of runs: what is on it, and what becomes of bad input."""

import base64
import gzip
import json
import re
from html import unescape
from html.parser import HTMLParser

import h5py
import pytest

from bayesfilt.figures import Drawn, drawn, drawn_table
from bayesfilt.records import SCHEMA_VERSION, pack_record, read_record
from bayesfilt.report import pictures
from bayesfilt.report.verdicts import answer as answer_of
from bayesfilt.report.verdicts import counted
from bayesfilt.run_directory import write_summary
from tests.cli.runs_to_report import (
    HOSTILE,
    comparison,
    drawn_group,
    experiment,
    verdict,
    write_manifest,
)

# What has no end tag in HTML; within SVG every element is closed.
VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """Elements of a page; it fails where they do not nest."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags, self.words = text, [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def report(bayesfilt, tmp_path):
    """Make the page of a folder, and read it."""

    def make(folder, *options):
        answer = bayesfilt("report", folder, "--out", tmp_path / "page.html", *options)
        assert answer.code == 0
        page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
        page.warned = answer.err
        return page

    return make


def test_the_page_of_an_experiment_has_question_answer_figure_numbers_and_settings(
    report, tmp_path
):
    page = report(experiment(tmp_path / "e99_gains"))
    said = page.said
    for words in (
        "Is a gain a variance?",
        "by these runs' own seeds: 2 yes, 1 no, 1 not judged; 1 near the threshold.",
        # Verdicts judge the claim, which may say the opposite of the question.
        "A gain is a variance. In part: 2 yes, 1 no, 1 not judged; 1 near the threshold.",
        "Bears on: P1, 2.8.",
        "Gain against variance, a panel a world.",
        "the crossover knows no batch size no 1.02 (0.98 to 1.05) 0.8 to 1.25 90 % bootstrap",
        "its root comes from drift yes (near the threshold)",
        "the last part not judged",
        "python -m experiments run e99_gains --seed 7",
        "seed 7",
        "wall time 90 s",
        "0123abcd and changes that were not committed",
        "problem.num_steps 300",
        "rates a, b",
        "bayesfilt 0.9.8",
        "device Xeon, cpu",
    ):
        assert words in said, words
    (svg,) = page.all("svg")
    assert svg["role"] == "img"
    assert page.warned == ""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((True, True), "Yes: 2 yes, 0 no, 0 not judged."),
        ((True, None), "Yes, as far as it is judged: 1 yes, 0 no, 1 not judged."),
        ((False, None), "No, as far as it is judged: 0 yes, 1 no, 1 not judged."),
        ((False,), "No: 0 yes, 1 no, 0 not judged."),
        ((True, False), "In part: 1 yes, 1 no, 0 not judged."),
        ((None,), "Not judged: 0 yes, 0 no, 1 not judged."),
    ],
)
def test_the_answer_claims_no_more_than_the_verdicts(words, answer):
    verdicts = [verdict(f"part {index}", holds) for index, holds in enumerate(words)]
    assert answer_of(counted(verdicts))[0] == answer


def test_the_page_needs_nothing_but_itself(report, tmp_path):
    page = report(experiment(tmp_path / "e99_gains"))
    assert not page.all("script")
    assert not page.all("iframe")
    assert "@import" not in page.text
    for attributes in (each for _, each in page.tags):
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href") or "url(" in (value or ""):
                assert re.match(r"#|data:|url\(#|fill:|stroke", value), (name, value[:60])
    policy = [each["content"] for each in page.all("meta") if "http-equiv" in each]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_data_of_a_figure_can_be_downloaded(report, tmp_path):
    page = report(experiment(tmp_path / "e99_gains"))
    (link,) = [each for each in page.all("a") if "download" in each]
    assert link["download"] == "e99_gains.csv"
    kind, _, data = link["href"].partition(";base64,")
    assert kind == "data:text/csv;charset=utf-8"
    table = drawn_table(Drawn("panels_figure", drawn_group(), {}))
    assert base64.b64decode(data).decode() == table


def test_longer_data_are_packed_and_the_longest_stay_where_they_lie(report, tmp_path, monkeypatch):
    folder = experiment(tmp_path / "e99_gains")
    monkeypatch.setattr(pictures, "_LARGEST_PLAIN", 10)
    page = report(folder)
    (link,) = [each for each in page.all("a") if "download" in each]
    assert link["download"] == "e99_gains.csv.gz"
    unpacked = gzip.decompress(base64.b64decode(link["href"].partition(";base64,")[2]))
    assert unpacked.startswith(b"panel,series,kind,x")
    monkeypatch.setattr(drawn, "LARGEST_TABLE", 10)
    page = report(folder)
    assert not [each for each in page.all("a") if "download" in each]
    assert "Its data are too long for this page and lie in the run's folder." in page.said


def test_equal_folders_give_equal_pages(report, tmp_path):
    comparison(tmp_path / "one" / "a")
    one = report(tmp_path / "one" / "a")
    comparison(tmp_path / "two" / "a")
    assert report(tmp_path / "two" / "a").text == one.text


def test_whatever_stands_in_a_run_is_words_and_never_markup(report, tmp_path):
    folder = experiment(
        tmp_path / "<i>é'", claim=HOSTILE, verdicts=[verdict(HOSTILE, True, measured=HOSTILE)]
    )
    summary = json.loads((folder / "summary.json").read_text())
    summary["experiment"] |= {"question": HOSTILE, "captions": {"e99_gains": HOSTILE}}
    summary["experiment"]["settles"] = [HOSTILE]
    write_summary(folder, summary)
    write_manifest(folder, HOSTILE, config={HOSTILE: HOSTILE}, commit=HOSTILE)
    page = report(folder)
    assert not page.all("b")
    assert not page.all("i")
    assert all("onclick" not in attributes for _, attributes in page.tags)
    assert page.said.count(HOSTILE) >= 9
    assert unescape(page.all("title") and page.said).startswith("<i>é'")


def test_a_folder_of_runs_has_an_index_that_leads_to_each(report, tmp_path):
    experiment(tmp_path / "runs" / "e99_gains")
    only_yes = [verdict("all of it", True)]
    experiment(tmp_path / "runs" / "deep" / "er" / "e98_again", verdicts=only_yes)
    comparison(tmp_path / "runs" / "compare")
    (tmp_path / "runs" / "notes").mkdir()
    page = report(tmp_path / "runs")
    counts = "3 yes, 1 no, 1 not judged; 1 near the threshold."
    assert f"3 runs; verdicts, by these runs' own seeds: {counts}" in page.said
    links = [each["href"] for each in page.all("a") if each["href"].startswith("#")]
    anchors = [each["id"] for each in page.all("section")]
    assert links == [f"#{anchor}" for anchor in anchors] == ["#r1", "#r2", "#r3"]
    names = [each["id"] for _, each in page.tags if "id" in each]
    assert len(names) == len(set(names))
    answer = "A gain is a variance. Yes: 1 yes, 0 no, 0 not judged."
    assert f"deep/er/e98_again Is a gain a variance? {answer}" in page.said


def test_a_run_of_the_command_is_drawn_from_its_record(report, tmp_path):
    page = report(comparison(tmp_path / "compare"), "--venue", "neurips")
    assert len(page.all("svg")) == 1
    assert "digits-mlp-matched: Test error of every run against its training loss" in page.said
    assert "adamw (leader) 0.25 87.5%" in page.said
    assert "adabayes diverged 87.5% 0.12" in page.said
    assert "digits-mlp: Diverged: adabayes at step 120." in page.said
    assert "bayesfilt compare --out 'runs/a b'" in page.said


def test_inferences_and_recordings_and_runs_of_unknown_kind_say_what_they_have(report, tmp_path):
    write_manifest(tmp_path / "runs" / "streams", "/opt/bayesfilt/__main__.py", "infer", "streams")
    write_summary(tmp_path / "runs" / "streams", {"weights": 24, "valid_optima": 0.875})
    inference = write_manifest(tmp_path / "runs" / "streams" / "inference")
    rival = {"name": "static", "layer": "all", "difference": -12.5, "standard_error": 3.0}
    number = {"parameter": "drift_scale", "layer": "all", "median": 0.07, "low": "nan"}
    found = {
        "reported_model": "random_walk",
        "verdicts": [{"layer": "all", "word": "cannot tell", "sentence": "all: cannot tell."}],
        "gates": {"static": {"passes": False}},
        "comparison": {"rivals": [{**rival, "verdict": "refuted"}]},
        "numbers": {"random_walk": [number]},
    }
    write_summary(inference, found)
    write_summary(tmp_path / "runs" / "thing", {"answer": {"is": 42}})
    said = report(tmp_path / "runs").said
    assert "Recorded what value weights 24 valid_optima 0.875" in said
    assert "random_walk is preferred. Shrinks? all: cannot tell." in said
    assert "static all -12.5 3 refuted" in said
    assert "drift_scale all 0.07 - -" in said
    assert "The sampling of static failed a gate." in said
    assert "answer.is 42" in said


def test_a_half_finished_run_is_told_how_to_finish_it(report, tmp_path):
    write_manifest(tmp_path / "runs" / "half")
    broken = experiment(tmp_path / "runs" / "e99_gains")
    (broken / "summary.json").unlink()
    no_manifest = comparison(tmp_path / "runs" / "unsigned")
    (no_manifest / "manifest.json").unlink()
    cut = comparison(tmp_path / "runs" / "cut")
    write_manifest(cut, interrupted=True)
    page = report(tmp_path / "runs")
    said = page.said
    again = "Make it again with: bayesfilt compare --out 'runs/a b' --force"
    assert f"Not finished: no record. {again}" in said
    assert "no summary. Make it again with: python -m experiments run e99 --out runs" in said
    assert "Not finished: no manifest. Run it again, with --force." in said
    assert "Interrupted: what was done until then is shown." in said
    assert "half: Not finished" in page.warned


def test_what_is_damaged_is_a_line_and_the_rest_is_shown(report, tmp_path):
    folder = comparison(tmp_path / "runs" / "a")
    data = (folder / "record.nc").read_bytes()
    (folder / "record.nc").write_bytes(data[: len(data) // 2])
    other = comparison(tmp_path / "runs" / "b")
    (other / "summary.json").write_text('{"tasks": {"digits-mlp": {"rows": [{"what": 1}]}}}')
    third = experiment(tmp_path / "runs" / "c")
    (third / "summary.json").write_text('{"verdicts": [3, {"claim": "x"}, {"cla')
    fourth = experiment(tmp_path / "runs" / "d")
    write_summary(fourth, {"verdicts": [3, {"claim": "x", "holds": 2}, verdict("kept", True)]})
    said = report(tmp_path / "runs").said
    assert "record.nc cannot be read as a record: " in said
    assert "adamw (leader) 0.25 87.5%" in said  # from the summary, which is whole
    assert "What it found cannot be read: " in said
    assert "summary.json cannot be read: it is truncated, or not of a run." in said
    assert "Yes: 1 yes, 0 no, 0 not judged." in said


def test_a_damaged_record_that_all_would_leave_is_made_again_by_itself(report, tmp_path):
    """`all` asks only whether files are there."""
    folder = experiment(tmp_path / "runs" / "e99_gains-quick")
    write_manifest(folder, command=["/x/experiments/__main__.py", "all", "--quick"])
    (folder / "record.nc").write_bytes(b"\x89HDF")
    said = report(tmp_path / "runs").said
    expected = f"run e99_gains --quick --out {tmp_path / 'runs'} --force"
    assert f"Make it again with: python -m experiments {expected}" in said
    compared = comparison(tmp_path / "runs" / "b")  # whose --out has the word in it
    command = ["/usr/bin/bayesfilt", "compare", "--out", "runs of all"]
    write_manifest(compared, command=command)
    (compared / "record.nc").write_bytes(b"\x89HDF")
    again = "Make it again with: bayesfilt compare --out 'runs of all' --force"
    assert again in report(tmp_path / "runs", "--force").said


def test_records_of_a_newer_schema_are_told_how_to_be_made_again(report, tmp_path):
    folder = comparison(tmp_path / "runs" / "a")
    with h5py.File(folder / "record.nc", "r+") as file:
        file.attrs["bayesfilt_schema"] = SCHEMA_VERSION + 1
    write_manifest(tmp_path / "runs" / "b", schema_version=9)
    said = report(tmp_path / "runs").said
    assert "a newer bayesfilt wrote it. Make it again with: bayesfilt compare" in said
    assert "manifest.json has schema 9" in said


def test_an_experiment_of_before_there_were_pages_shows_its_verdicts_and_its_picture(
    report, tmp_path
):
    folder = experiment(tmp_path / "e99_gains-quick")
    write_summary(folder, {"seconds": 1.0, "verdicts": [verdict("it holds", True)]})
    (folder / "figures" / "e99_gains.nc").unlink()
    page = report(folder)
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"]
    assert "python -m experiments report` judges and draws it again" in page.said
    assert "it holds yes" in page.said


def test_a_figure_whose_data_are_of_something_else_is_a_line_and_its_picture_stays(
    report, tmp_path
):
    folder = experiment(tmp_path / "e99_gains")
    stored = read_record(folder / "figures" / "e99_gains.nc")
    del stored.groups["drawn"]["name"]
    (folder / "figures" / "e99_gains.nc").write_bytes(pack_record(stored).data)
    page = report(folder)
    assert "The figure e99_gains cannot be drawn from this record: " in page.said
    assert len(page.all("img")) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("runs/compair", "there is no .*runs/compair. Did you mean .*runs/compare?"),
        ("nowhere/at/all", "there is no .*nowhere/at/all."),
        ("runs/zzzzzzz", "there is no .*In .*runs there are the runs compare."),
        ("runs/empty", "holds no run: a run has manifest.json and record.nc"),
        ("runs/notes.txt", "needs the folder of a run, got the file"),
    ],
)
def test_a_path_without_a_run_is_one_line(bayesfilt, tmp_path, path, message):
    write_manifest(tmp_path / "runs" / "compare")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    line = bayesfilt("report", tmp_path / path).only_line
    assert re.search(message, line)
    assert not list(tmp_path.rglob("*.html"))


def test_the_page_takes_the_place_of_an_earlier_one_and_of_nothing_else(bayesfilt, tmp_path):
    run = write_manifest(tmp_path / "compare")
    mine = tmp_path / "thesis.html"
    mine.write_text("mine")
    line = bayesfilt("report", run, "--out", mine).only_line
    assert "is no earlier report; pass --force to replace it" in line
    assert mine.read_text() == "mine"
    assert "got the folder" in bayesfilt("report", run, "--out", tmp_path).only_line
    assert bayesfilt("report", run).code == 0
    assert bayesfilt("report", run / "manifest.json").code == 0  # the page in its place
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert bayesfilt("report", run, "--out", mine, "--force").code == 0
    assert mine.read_text() == (run / "report.html").read_text()


def test_an_unknown_venue_is_one_line_with_the_nearest(bayesfilt, tmp_path):
    run = write_manifest(tmp_path / "compare")
    line = bayesfilt("report", run, "--venue", "icml-wide").only_line
    assert "Did you mean 'icml_wide'" in line
    assert not (run / "report.html").exists()
