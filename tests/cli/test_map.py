import math
import re

import pytest

from bayesfilt.catalogue import equation_says, reference
from bayesfilt.optimizers import OPTIMIZERS, SCHEDULES


def table_of(out: str) -> dict[str, list[str]]:
    """The cells behind each first cell, told apart by two blanks or more."""
    rows: dict[str, list[str]] = {}
    for line in out.splitlines():
        name, *cells = [cell.strip() for cell in line.split("  ") if cell.strip()] or [""]
        rows.setdefault(name, cells)
    return rows


def test_adamw_becomes_the_filter(bayesfilt):
    answer = bayesfilt(
        "map", "--learning-rate", 1e-3, "--weight-decay", 0.1,
        "--batch-size", 64, "--num-examples", 1297,
    )  # fmt: skip
    rows = table_of(answer.out)
    assert answer.code == 0
    assert float(rows["drift_scale"][0]) == 1e-3
    assert float(rows["stationary_variance"][0]) == 1e-3 / 0.2
    assert float(rows["SGD learning rate"][0]) == 64 * 0.005
    assert float(rows["large eps"][0]) == 2 * 0.1 / 64
    assert float(rows["the same"][0]) == pytest.approx(10_000 / (1297 / 64), rel=1e-3)
    # At the crossover the posterior variance is 0.618 of the prior.
    crossover = [float(cell) for cell in rows["adam *"]]
    assert crossover[0] == pytest.approx(1e-3 / 0.005)
    assert crossover[1] == pytest.approx(0.618 * 0.005, rel=2e-3)
    assert crossover[2:4] == pytest.approx([0.2 / 64, 0.618 * 0.32], rel=2e-3)
    # One over the gain p g^2; and 1/kappa = 1/(decay sqrt(1 + 4)) of the small-gain recursion.
    assert crossover[4:] == pytest.approx(
        [1 / (0.618 * 0.005 * 0.2**2), 1e4 / 5**0.5 / 2], rel=2e-3
    )


def test_the_filter_becomes_adamw_in_every_convention(bayesfilt):
    answer = bayesfilt("map", "--drift-scale", 1e-2, "--stationary-variance", 0.05)
    decays = {
        line.split("AdamW, ")[1].split(":")[0]: float(line.split()[1])
        for line in answer.out.splitlines()
        if line.strip().startswith("weight_decay")
    }
    assert decays == {"lr_scaled": 0.1, "paper": 1e-3, "filter": 1e-3}
    assert "--batch-size adds" in answer.out


@pytest.mark.parametrize("convention", ["lr_scaled", "paper", "filter"])
def test_there_and_back_again(bayesfilt, convention):
    decay = {"lr_scaled": 0.1, "paper": 1e-3, "filter": 1e-3}[convention]
    there = bayesfilt(
        "map", "--learning-rate", 1e-2, "--weight-decay", decay, "--convention", convention
    )
    back = bayesfilt("map", "--drift-scale", 1e-2, "--stationary-variance", 0.05)
    assert there.out == back.out


def test_a_random_walk_has_no_crossover_and_no_equilibrium(bayesfilt):
    answer = bayesfilt("map", "--learning-rate", 1e-3, "--weight-decay", 0, "--batch-size", 8)
    rows = table_of(answer.out)
    assert float(rows["stationary_variance"][0]) == math.inf
    assert float(rows["memory of the prior (EMA timescale), 1/shrink"][0]) == math.inf
    assert "sgd" not in rows
    assert "nan" not in answer.out


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(bayesfilt, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    answer = bayesfilt(
        "map", "--learning-rate", 1.2345e-5, "--weight-decay", 0.0321, "--batch-size", 4096
    )
    plain = re.sub("\x1b\\[[0-9;]*m", "", answer.out)
    assert plain != answer.out  # it was taken for a terminal
    assert max(map(len, plain.splitlines())) <= width
    assert "Regimes" in plain


def test_without_arguments_every_name_is_listed_in_a_line_of_its_own(bayesfilt):
    answer = bayesfilt("map")
    lines = {line.split()[0]: line for line in answer.out.splitlines() if line.startswith("  ")}
    assert list(lines) == [*OPTIMIZERS, *SCHEDULES]
    for name, (facts, _) in {**OPTIMIZERS, **SCHEDULES}.items():
        assert facts.status in lines[name]
        assert facts.reading in lines[name]


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULES])
def test_a_name_is_explained_with_all_that_is_known_of_it(bayesfilt, name):
    facts = {**OPTIMIZERS, **SCHEDULES}[name].facts
    said = bayesfilt("map", "--explain", name).out
    assert facts.reading in said and facts.reason in said and f"{facts.status}: " in said
    for key in facts.sources:
        assert reference(key) in said
    for tag in facts.tags:
        assert f"{tag}: {equation_says(tag)}" in said
    for own in facts.numbers:
        assert own.meaning in said
    assert (f"{facts.decay}: a weight without gradient" in said) == (name in OPTIMIZERS)
    assert ("bayesfilt compare --" in said) == (name != "reduce_on_plateau")


def test_several_names_are_explained_and_a_terminal_gets_lines_of_its_width(bayesfilt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    answer = bayesfilt("map", "--explain", "adamw", "warm_restarts")
    assert max(map(len, answer.out.splitlines())) <= 60
    assert [line for line in answer.out.splitlines() if line and not line.startswith(" ")] == [
        "adamw",
        "warm_restarts",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--batch-size", 4),
            "map needs --learning-rate and --weight-decay, or --drift-scale .* got neither",
        ),
        (("--explain", "adamww"), "got 'adamww'. Did you mean 'adamw'"),
        (("--explain", "adam", "cosin"), "got 'cosin'. Did you mean 'cosine'"),
        (("--explain", "adam", "--learning-rate", 1), "or numbers, got both: --learning-rate"),
        (("--learning-rate", 1), "got --learning-rate"),
        (("--learning-rate", 1, "--drift-scale", 1), "got --learning-rate --drift-scale"),
        (("--learning-rate", -1, "--weight-decay", 0.1), "learning_rate > 0, got .*-1"),
        (("--learning-rate", "nan", "--weight-decay", 0.1), "learning_rate > 0, got .*nan"),
        (("--learning-rate", 1, "--weight-decay", 1), "shrink per step below 1 .*got 1"),
        (("--drift-scale", 0, "--stationary-variance", 1), "drift_scale > 0, got .*0"),
        (("--drift-scale", 1, "--stationary-variance", 0), "stationary_variance > 0, got .*0"),
        (("--drift-scale", 1, "--stationary-variance", 0.5), "shrink per step below 1 .*got 1"),
        (
            ("--drift-scale", 1, "--stationary-variance", 9, "--batch-size", 0),
            "--batch-size >= 1, got 0",
        ),
        (
            ("--drift-scale", 1, "--stationary-variance", 9, "--num-examples", 9),
            "needs --batch-size to turn --num-examples into epochs",
        ),
    ],
)
def test_a_bad_number_is_one_line(bayesfilt, words, message):
    assert pytest.RaisesExc(ValueError, match=message).matches(
        ValueError(bayesfilt("map", *words).only_line)
    )
