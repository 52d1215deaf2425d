"""Tables on terminals and in files."""

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bayesfilt.commands.console import columns_side_by_side, show_table

COLUMNS = ("layer:", "R / H\n(median)", *(f"number\nof {place}" for place in range(10)))
ROWS = [["dense_0", *map(str, range(100, 111))], ["dense_1", *map(str, range(200, 211))]]


@pytest.fixture
def narrow_terminal(monkeypatch):
    """Standard output is a terminal of 80 columns."""
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("narrow_terminal")
def test_a_terminal_sees_every_number_and_no_line_beyond_its_width(capsys):
    show_table("A wide table", COLUMNS, ROWS)
    out = Text.from_ansi(capsys.readouterr().out).plain
    assert max(map(cell_len, out.splitlines())) <= 80
    words = out.split()
    for row in ROWS:
        assert all(cell in words for cell in row)
    assert words.count("dense_0") == words.count("layer") == 2


def test_a_file_gets_the_table_in_one_piece(capsys):
    show_table("A wide table", COLUMNS, ROWS)
    assert capsys.readouterr().out.count("dense_0") == 1


def test_a_column_of_words_may_be_folded_and_numbers_never():
    columns, rows = ("a:", "b:", "c"), [["1234", "w" * 50, "12345678"]]
    assert columns_side_by_side(columns, rows, 30) == [[0, 1, 2]]
    assert columns_side_by_side(columns, rows, 27) == [[0, 1], [0, 2]]
    assert columns_side_by_side(("a:", "b"), [["x" * 90, "y" * 90]], 80) == [[0, 1]]
