"""Every lettered statement of `paper_notes/checks.md` has a test with the letter in its name."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LETTER = r"[A-F]\d+b?"
ROW = re.compile(rf"^\|\s*({LETTER})\s*\|(.+)\|([^|]+)\|$")
TEST = re.compile(rf"^def test_check_({LETTER})_", re.MULTILINE)


class Check(NamedTuple):
    """One row: a letter, and the files or folders that are said to settle it."""

    letter: str
    places: tuple[str, ...]


def checks_of(text: str) -> list[Check]:
    """The rows of the table."""
    rows = filter(None, map(ROW.match, text.splitlines()))
    return [Check(letter=row[1], places=tuple(re.findall(r"`([^`]+)`", row[3]))) for row in rows]


def letters_on_tests(sources: dict[str, str]) -> dict[str, set[str]]:
    """Files by letter, from the text of each test file."""
    files: dict[str, set[str]] = {}
    for file, text in sources.items():
        for letter in TEST.findall(text):
            files.setdefault(letter, set()).add(file)
    return files


def missing(check: Check, files: dict[str, set[str]]) -> list[str]:
    """Places of a row without a test of its letter; a folder stands for any file in it."""
    found = files.get(check.letter, set())
    places = [place for place in check.places if not any(f.startswith(place) for f in found)]
    return places or ([] if check.places else ["no place at all"])


CHECKS = checks_of((ROOT / "paper_notes" / "checks.md").read_text(encoding="utf-8"))
FILES = letters_on_tests(
    {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path != Path(__file__)
    }
)


@pytest.mark.parametrize("check", CHECKS, ids=[check.letter for check in CHECKS])
def test_a_lettered_statement_has_its_test_where_the_notes_say(check):
    assert missing(check, FILES) == []


def test_a_lettered_test_has_one_row_in_the_notes():
    letters = [check.letter for check in CHECKS]
    assert len(letters) > 35  # an empty table would agree with anything
    assert len(set(letters)) == len(letters)
    assert set(FILES) <= set(letters)


def test_a_statement_without_its_test_is_found():
    table = "| letter | x | y |\n|---|---|---|\n| A1 | says | `tests/a.py`, `tests/b/` |\n"
    (check,) = checks_of(table)
    assert check == Check(letter="A1", places=("tests/a.py", "tests/b/"))
    named = "def test_check_A1_it_holds():\n    ...\n"
    assert missing(check, letters_on_tests({"tests/a.py": named, "tests/b/c.py": named})) == []
    assert missing(check, letters_on_tests({"tests/a.py": named})) == ["tests/b/"]
    other = {"tests/a.py": named.replace("A1", "A11"), "tests/b/c.py": named}
    assert missing(check, letters_on_tests(other)) == ["tests/a.py"]
    assert missing(Check(letter="A1", places=()), {"A1": {"tests/a.py"}}) == ["no place at all"]


NAMED = re.compile(r"`(test_\w+)(\.\.\.)?`")
DEFINED = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
NOTES = sorted((ROOT / "paper_notes").rglob("*.md"))


def names_without_a_test(text: str, defined: set[str]) -> list[str]:
    """Tests that a note names and nobody wrote; `test_check_A1_...` stands for any with that start.

    A file name, `test_riccati.py`, is no test's name: it has a dot.
    """
    return [
        name + dots
        for name, dots in NAMED.findall(text)
        if not any(found == name or (dots and found.startswith(name)) for found in defined)
    ]


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.stem)
def test_a_test_that_a_note_names_exists(note):
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for source in sources for name in DEFINED.findall(source)}
    assert names_without_a_test(note.read_text(encoding="utf-8"), defined) == []


def test_a_name_without_its_test_is_found():
    text = "`test_one`, `test_check_A1_...`, `test_two` and `test_riccati.py`"
    assert names_without_a_test(text, {"test_one", "test_check_A1_it_holds"}) == ["test_two"]
    assert names_without_a_test(text, {"test_one_more", "test_two"}) == [
        "test_one",
        "test_check_A1_...",
    ]
