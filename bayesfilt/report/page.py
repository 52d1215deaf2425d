"""Sections as one HTML page: no script, no network, nothing that is not in the file."""

import base64
from collections.abc import Iterator, Sequence
from html import escape

from bayesfilt.report.page_style import STYLE
from bayesfilt.report.sections import Counts, Download, Picture, Section, Table

GENERATOR = "bayesfilt report"

# The browser itself refuses whatever would leave the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, sections: Sequence[Section]) -> str:
    """The page: what there is at the top, then a section a run."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="generator" content="{GENERATOR}">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}: report</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *_header(title, sections),
            "<main>",
            *(_section(index, each) for index, each in enumerate(sections, 1)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _header(title: str, sections: Sequence[Section]) -> Iterator[str]:
    """Title, what all verdicts come to, and where each run stands."""
    total = Counts()
    for each in sections:
        total = total.plus(each.counts or Counts())
    judging = sum(each.counts is not None for each in sections)
    yield "<header>"
    yield f"<h1>{escape(title)}</h1>"
    count = f"{len(sections)} run" + ("s" if len(sections) > 1 else "")
    verdicts = f"; verdicts, by these runs' own seeds: {total.spelled()}" if judging else ""
    yield f"<p>{count}{escape(verdicts)}.</p>"
    if len(sections) > 1:
        yield '<nav aria-label="Runs"><ol>'
        for index, each in enumerate(sections, 1):
            yield (
                f'<li><a href="#r{index}">{escape(each.title)}</a> {escape(each.question)}'
                f' <span class="tone {each.tone}">{escape(each.answer)}</span></li>'
            )
        yield "</ol></nav>"
    yield "</header>"


def _section(index: int, section: Section) -> str:
    return "\n".join(
        [
            f'<section id="r{index}" aria-labelledby="r{index}-title">',
            f'<p class="name">{escape(section.title)}</p>',
            f'<h2 id="r{index}-title">{escape(section.question)}</h2>',
            f'<p class="answer tone {section.tone}">{escape(section.answer)}</p>',
            *(f'<p class="warning">{escape(line)}</p>' for line in section.warnings),
            *(f"<p>{escape(line)}</p>" for line in section.lines),
            *_pictures(section.pictures),
            *(_table(table) for table in section.tables),
            *_settings(section.settings),
            "</section>",
        ]
    )


def _pictures(pictures: Sequence[Picture]) -> Iterator[str]:
    if not pictures:
        return
    yield '<div class="figures">'
    for picture in pictures:
        yield "<figure>"
        yield picture.svg or _image(picture)
        data = "" if picture.data is None else f" {_link(picture.data)}"
        yield f"<figcaption>{escape(picture.caption)}{data}</figcaption>"
        yield "</figure>"
    yield "</div>"


def _image(picture: Picture) -> str:
    return f'<img alt="{escape(picture.caption)}" src="{_uri(picture.png, "image/png")}">'


def _link(data: Download) -> str:
    uri = _uri(data.data, data.media_type)
    return (
        f'<a class="data" download="{escape(data.name)}" href="{uri}">Data: {escape(data.name)}</a>'
    )


def _uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _table(table: Table) -> str:
    """A table in a box of its own: what is too wide scrolls there; on a phone rows are stacked."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    marks = table.marks or [""] * len(table.rows)
    rows = [
        (f'<tr class="{mark}">' if mark else "<tr>")
        + "".join(map(_cell, table.columns, row))
        + "</tr>"
        for mark, row in zip(marks, table.rows, strict=True)
    ]
    label = escape(table.title)
    return "\n".join(
        [
            f'<h3>{label}</h3><div class="scroll" role="region" tabindex="0" aria-label="{label}">',
            f"<table><thead><tr>{head}</tr></thead><tbody>",
            *rows,
            "</tbody></table></div>",
        ]
    )


def _cell(column: str, word: str) -> str:
    return f'<td data-label="{escape(column)}">{escape(word)}</td>'


def _settings(tables: Sequence[Table]) -> Iterator[str]:
    if not tables:
        return
    yield "<details><summary>Settings, versions, machine</summary>"
    for table in tables:
        rows = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in table.rows
        )
        yield f"<h3>{escape(table.title)}</h3><dl>{rows}</dl>"
    yield "</details>"
