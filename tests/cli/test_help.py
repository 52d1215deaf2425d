import os
import subprocess
import sys

import pytest

from bayesfilt.cli import COMMANDS
from bayesfilt.commands.map import Convention
from bayesfilt.optimizers.zoo import OPTIMIZERS, SCHEDULES
from bayesfilt.tasks import TASK_NAMES
from bayesfilt.theory import CONVENTIONS

HELP_OF_ALL = """
import sys
from bayesfilt.cli import COMMANDS, main
actions = [["sweep", name, "--help"] for name in ("plan", "run", "merge", "show")]
for arguments in [["--help"], *([name, "--help"] for name in COMMANDS), *actions]:
    try:
        main(arguments)
    except SystemExit as left:
        assert left.code == 0, left.code
    else:
        raise AssertionError("main did not leave")
slow = {"jax", "numpy", "optax", "matplotlib", "xarray", "sklearn"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def test_help_is_given_without_loading_anything_slow():
    asked = python("-c", HELP_OF_ALL)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.count("usage: bayesfilt") == 1 + len(COMMANDS) + 4


def test_python_m_bayesfilt_is_the_same_command(bayesfilt):
    words = ["map", "--drift-scale", "1e-3", "--stationary-variance", "inf"]
    asked = python("-m", "bayesfilt", *words)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout == bayesfilt(*words).out


def test_python_m_bayesfilt_hands_the_exit_code_on():
    asked = python("-m", "bayesfilt", "map", "--learning-rate", "1")
    assert asked.returncode == 2
    assert asked.stdout == ""
    assert asked.stderr.startswith("bayesfilt: error: map needs --learning-rate")
    assert len(asked.stderr.splitlines()) == 1


def test_help_names_every_task_and_every_optimizer(bayesfilt):
    text = " ".join(bayesfilt("compare", "--help").out.replace("│", " ").split())
    schedules = {name for name, (facts, _) in SCHEDULES.items() if facts.status != "none"}
    assert [name for name in (*TASK_NAMES, *OPTIMIZERS, *schedules) if name not in text] == []


def test_the_words_that_options_accept_are_those_of_the_library():
    assert Convention.__args__ == CONVENTIONS


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("comapre",),
        ("compare",),  # --out is required
        ("compare", "--out", "x", "--num-steps", "many"),
        ("compare", "--out", "x", "--dtype", "float16"),
        ("demo", "--platform", "tpu"),
        ("demo", "--colour", "blue"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_parsed_is_refused_in_a_box_with_exit_code_2(bayesfilt, words):
    answer = bayesfilt(*words)
    assert (answer.code, answer.out) == (2, "")
    assert "help" in answer.err
    assert "Traceback" not in answer.err
