"""What the paper notes say of a tag or a source, read from the notes themselves.

In a checkout they lie beside the package, in an installed wheel inside it.
"""

import functools
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "paper_notes", _PACKAGE.parent / "paper_notes")
_ENTRY = re.compile(r"^@\w+\{(?P<key>[^,\s]+),(?P<fields>.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?\s*$", re.MULTILINE)


def equation_says(tag: str) -> str:
    """What an equation says, a phrase; empty where the notes do not have it."""
    return _equations().get(tag, "")


def reference(key: str) -> str:
    """Authors, year and title of a source; its key where the notes do not have it."""
    fields = _references().get(key)
    if fields is None:
        return key
    authors = [author.split(",")[0] for author in fields["author"].split(" and ")]
    named = authors[0] if len(authors) == 1 else f"{authors[0]} et al."
    if len(authors) == 2:
        named = " and ".join(authors)
    return f"{named} {fields['year']}, {fields['title']}".replace("{", "").replace("}", "")


@functools.cache
def _equations() -> dict[str, str]:
    rows = {}
    for line in _text("equations.md").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) > 5 and re.fullmatch(r"[A-Z]{2,5}-\d+", cells[1]):
            rows[cells[1]] = cells[3].replace("\\|", "|")
    return rows


@functools.cache
def _references() -> dict[str, dict[str, str]]:
    entries = _ENTRY.finditer(_text("references.bib"))
    return {entry["key"]: dict(_FIELD.findall(entry["fields"])) for entry in entries}


def _text(name: str) -> str:
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    return ""
