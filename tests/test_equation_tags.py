"""An equation has one tag, and the notes, the code and the tests agree on it.

The notes: a row of `paper_notes/equations.md`. The code: the tag in brackets at the end of a
docstring's first sentence. The tests: `@pytest.mark.equation("FP-1")`.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TAG = r"[A-Z][A-Z0-9]{1,4}-\d+"
TAGS_AT_THE_END = re.compile(rf"\[({TAG}(?:, {TAG})*)\]\.?$")
ROW = re.compile(rf"^\|\s*({TAG})\s*\|")
PLACE = re.compile(r"`([\w.]+):([\w.]+)`")


class Row(NamedTuple):
    """One equation of the notes, and the places that are said to hold it."""

    tag: str
    places: tuple[str, ...]  # "module:name"


def tags_in_code(sources: dict[str, str]) -> tuple[dict[str, set[str]], list[str]]:
    """Places ("module:name") by tag, and complaints, from the text of each module."""
    places: dict[str, set[str]] = {}
    complaints = []
    for module, text in sources.items():
        for name, docstring in documented(ast.parse(text)):
            opening = " ".join(docstring.split("\n\n")[0].split())
            ending = TAGS_AT_THE_END.search(opening)
            tags = ending.group(1).split(", ") if ending else []
            for tag in tags:
                places.setdefault(tag, set()).add(f"{module}:{name}")
            elsewhere = set(re.findall(rf"\b{TAG}\b(?=[^\[]*\])", opening)) - set(tags)
            complaints += [f"{module}:{name} has {tag} not at the end" for tag in sorted(elsewhere)]
    return places, complaints


def documented(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every class and function with a docstring, by qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield prefix + node.name, docstring
            yield from documented(node, f"{prefix}{node.name}.")


def rows_of_notes(text: str) -> list[Row]:
    """The tables' rows that begin with a tag."""
    rows = []
    for line in text.splitlines():
        head = ROW.match(line)
        if head:
            places = tuple(f"{module}:{name}" for module, name in PLACE.findall(line))
            rows.append(Row(tag=head.group(1), places=places))
    return rows


def tags_on_tests(sources: dict[str, str]) -> dict[str, set[str]]:
    """Files by tag: every call of `...mark.equation("TAG", ...)`, wherever it stands."""
    files: dict[str, set[str]] = {}
    for file, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.equation"):
                for argument in node.args:
                    tag = argument.value if isinstance(argument, ast.Constant) else None
                    files.setdefault(str(tag or ast.unparse(argument)), set()).add(file)
    return files


def disagreements(
    code: dict[str, set[str]], rows: list[Row], tests: dict[str, set[str]]
) -> list[str]:
    """What one of the three says and another does not, one sentence each."""
    noted = [row.tag for row in rows]
    found = [f"{tag} has {noted.count(tag)} rows" for tag in set(noted) if noted.count(tag) > 1]
    for tag, places in code.items():
        if tag not in noted:
            found.append(f"{tag} is in {', '.join(sorted(places))} but has no row in the notes")
    for row in rows:
        found += [f"{row.tag} names no place in the code"] if not row.places else []
        for place in row.places:
            if place not in code.get(row.tag, set()):
                found.append(f"{row.tag} is not in the docstring of {place}, as the notes say")
        if row.tag not in code:
            found.append(f"{row.tag} is in the notes but in no docstring")
        if row.tag not in tests:
            found.append(f"{row.tag} is in the notes but on no test")
    for tag, files in tests.items():
        if tag not in noted:
            found.append(f"{tag} is on a test in {', '.join(sorted(files))} but not in the notes")
    return sorted(found)


def unresolved(rows: list[Row]) -> list[str]:
    """Places that cannot be imported."""
    found = []
    for place in sorted({place for row in rows for place in row.places}):
        module, name = place.split(":")
        try:
            value = importlib.import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError) as error:
            found.append(f"{place} does not resolve: {error}")
    return found


def read_all(folder: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}


def the_code() -> dict[str, str]:
    """Text of every module of the package, by dotted name."""
    names = {}
    for path, text in read_all(ROOT / "bayesfilt").items():
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = text
    return names


def the_rows() -> list[Row]:
    notes = ROOT / "paper_notes" / "equations.md"
    return rows_of_notes(notes.read_text(encoding="utf-8"))


def test_notes_code_and_tests_agree_on_every_equation():
    places, complaints = tags_in_code(the_code())
    tests = {
        str(path.relative_to(ROOT)): text
        for path, text in read_all(ROOT / "tests").items()
        if path != Path(__file__)
    }
    found = complaints + disagreements(places, the_rows(), tags_on_tests(tests))
    assert not found, "\n".join(found)


def test_every_place_in_the_notes_exists():
    rows = the_rows()
    assert len(rows) > 30  # an empty table would agree with anything
    assert unresolved(rows) == []


# The checker itself must be able to say no.

CODE = {"pack.mod": 'def f():\n    """Half of it, x/2 [AB-1].\n\n    See [ZZ-9].\n    """\n'}
NOTES = "| tag | source |\n|---|---|\n| AB-1 | us | half | `pack.mod:f` | derived |\n"
TESTS = {"test_f.py": '@pytest.mark.equation("AB-1")\ndef test_half(): ...\n'}


def judged(code=CODE, notes=NOTES, tests=TESTS):
    places, complaints = tags_in_code(code)
    return complaints + disagreements(places, rows_of_notes(notes), tags_on_tests(tests))


def test_three_that_agree_are_let_pass():
    assert judged() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"notes": ""}, "AB-1 is in pack.mod:f but has no row in the notes"),
        ({"notes": ""}, "AB-1 is on a test in test_f.py but not in the notes"),
        ({"code": {}}, "AB-1 is in the notes but in no docstring"),
        ({"code": {}}, "AB-1 is not in the docstring of pack.mod:f, as the notes say"),
        ({"tests": {}}, "AB-1 is in the notes but on no test"),
        ({"notes": NOTES + NOTES}, "AB-1 has 2 rows"),
        ({"notes": NOTES.replace("`pack.mod:f`", "-")}, "AB-1 names no place in the code"),
        (
            {"code": {"pack.mod": 'def f():\n    """x/2 [AB-1] or so."""\n'}},
            "pack.mod:f has AB-1 not at the end",
        ),
        (
            {"tests": {"t.py": "pytest.mark.equation(tag)\n"}},
            "tag is on a test in t.py but not in the notes",
        ),
    ],
)
def test_each_kind_of_disagreement_is_found(change, complaint):
    assert complaint in judged(**change)


def test_tags_are_found_in_methods_in_lists_and_on_wrapped_first_sentences():
    text = 'class A:\n    def b(self):\n        """A long\n        sentence [AB-1, CD-22]."""\n'
    places, complaints = tags_in_code({"m": text})
    assert places == {"AB-1": {"m:A.b"}, "CD-22": {"m:A.b"}}
    assert complaints == []
    marks = 'pytestmark = [pytest.mark.equation("AB-1", "CD-22")]\n'
    assert tags_on_tests({"t.py": marks}) == {"AB-1": {"t.py"}, "CD-22": {"t.py"}}


def test_a_place_that_is_not_there_is_found():
    here = Row(tag="AB-1", places=("json:JSONDecoder.decode", "json:nothing", "no_such_module:f"))
    found = unresolved([here])
    assert [line.split(" ")[0] for line in found] == ["json:nothing", "no_such_module:f"]
