"""The page in a real browser: no errors, nothing wider than the window, every figure visible."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

from bayesfilt.report import write_report
from tests.cli.runs_to_report import comparison, experiment, verdict, write_manifest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

WIDTHS = (380, 1280)
# The page allows no script; so it stands, as it is, in frames of a page that measures it. A
# window of Chromium is 500 wide or more, a frame as narrow as one likes.
MEASURES = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body>%s
<pre id="found"></pre><script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, inner = frame.contentWindow;
    page.querySelectorAll("details").forEach((each) => { each.open = true; });
    const seen = [...page.querySelectorAll("svg, img")].map((each) => {
      const box = each.getBoundingClientRect();
      return [box.width, box.height, inner.getComputedStyle(each).visibility];
    });
    return {inner: inner.innerWidth, width: page.documentElement.scrollWidth, seen: seen,
            dead: [...page.querySelectorAll("nav a")].filter(
              (each) => !page.querySelector(each.getAttribute("href"))).length};
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""


def looked_at(page: str, tmp_path) -> tuple[list[dict], list[str]]:
    """What Chromium measures at both widths, and what it writes to its console."""
    frames = "".join(
        f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{escape(page)}"></iframe>'
        for width in WIDTHS
    )
    file = tmp_path / "measures.html"
    file.write_text(MEASURES % frames, encoding="utf-8")
    answer = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--enable-logging=stderr", "--window-size=1400,900",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', answer.stdout, re.DOTALL)
    assert found, answer.stderr
    console = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), console


def test_a_page_of_runs_reads_well_on_a_phone_and_on_a_screen(tmp_path):
    long = "a_very_long_name_without_any_blank_" * 8
    experiment(tmp_path / "runs" / "e99_gains")
    experiment(tmp_path / "runs" / long[:200], verdicts=[verdict(long, True, measured=long)] * 3)
    comparison(tmp_path / "runs" / "compare")
    write_manifest(tmp_path / "runs" / "half", config={long: [long, {long: long}]})
    page = write_report(tmp_path / "runs").path.read_text(encoding="utf-8")
    found, console = looked_at(page, tmp_path)
    assert console == []
    assert [each["inner"] for each in found] == list(WIDTHS)
    for each in found:
        assert each["width"] <= each["inner"]
        assert len(each["seen"]) == 3
        assert all(width > 200 and height > 80 for width, height, _ in each["seen"])
        assert {visibility for *_, visibility in each["seen"]} == {"visible"}
        assert each["dead"] == 0


def test_on_paper_figures_are_as_large_as_can_be_read(tmp_path):
    """The style of print, on a screen: letters of a figure are of 9 points at 12 cm."""
    experiment(tmp_path / "runs" / "e99_gains")
    page = write_report(tmp_path / "runs").path.read_text(encoding="utf-8")
    assert page.count("@media print") == 1
    found, _ = looked_at(page.replace("@media print", "@media all"), tmp_path)
    narrow, wide = (each["seen"][0] for each in found)
    assert wide[0] == pytest.approx(12 / 2.54 * 96, abs=1)
    assert narrow[0] <= WIDTHS[0]
    assert [each["width"] <= each["inner"] for each in found] == [True, True]


def test_a_page_that_is_too_wide_or_reaches_out_would_be_seen(tmp_path):
    page = write_report(write_manifest(tmp_path / "half")).path.read_text(encoding="utf-8")
    bad = '<p style="width:800px">wide</p><img src="https://example.org/a.png" alt="">'
    found, console = looked_at(page.replace("</main>", f"{bad}</main>"), tmp_path)
    assert found[0]["width"] > found[0]["inner"]
    assert found[1]["width"] <= found[1]["inner"]
    assert any("example.org" in line for line in console)
