"""The catalogue stands on the notes: every source and every equation it names is there."""

import re
from pathlib import Path

import pytest

from bayesfilt import catalogue
from bayesfilt.catalogue import (
    OPTIMIZER_FACTS,
    SCHEDULE_FACTS,
    STATUSES,
    Facts,
    equation_says,
    name_and_numbers,
    notes,
    reference,
)
from bayesfilt.optimizers.zoo import OPTIMIZERS, SCHEDULES

EVERYTHING = (*OPTIMIZER_FACTS, *SCHEDULE_FACTS)
BIB = (Path(__file__).parents[1] / "paper_notes" / "references.bib").read_text(encoding="utf-8")
everything = pytest.mark.parametrize("facts", EVERYTHING, ids=lambda facts: facts.name)


@everything
def test_sources_and_equations_are_in_the_notes(facts):
    assert facts.sources and facts.tags
    for key in facts.sources:
        assert f"{{{key}," in BIB
        assert re.search(r" \d{4}, \w", reference(key))
    for tag in facts.tags:
        assert equation_says(tag)


@everything
def test_readings_are_sentences_and_only_no_reading_is_none(facts):
    assert facts.status in STATUSES
    assert facts.reading.endswith(".") and facts.reason.endswith(".")
    assert facts.reading.startswith("None:") == (facts.status == "none")


def test_every_name_is_there_once_and_is_built():
    names = [facts.name for facts in EVERYTHING]
    assert len(set(names)) == len(names)
    assert names == [*OPTIMIZERS, *SCHEDULES]


def test_the_names_that_were_promised_are_there():
    promised = (
        "sgd sgd_l2 momentum momentum_l2 nesterov sgdw adagrad rmsprop adam adam_l2 adamw"
        " amsgrad nadam nadamw adam_large_eps adamc power_adam brmsprop badam adabayes"
        " adabayes_fixed_point steady_state kalman_full kalman_kronecker normalized"
        " amsgrad_optax adagrad_optax"
    )
    assert set(promised.split()) <= set(OPTIMIZERS)


def test_the_readme_s_table_has_every_optimizer_under_its_status():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for status in STATUSES:
        (row,) = re.findall(rf"^\| {status} \| (.*) \|$", readme, re.MULTILINE)
        named = {facts.name for facts in OPTIMIZER_FACTS if facts.status == status}
        assert set(re.findall(r"`(\w+)`", row)) == named


def test_an_entry_of_the_bibliography_is_there_once():
    keys = re.findall(r"^@\w+\{([^,]+),", BIB, re.MULTILINE)
    assert len(set(keys)) == len(keys) > 10


def test_references_and_equations_read_like_the_notes():
    assert reference("kalman1960new").startswith("Kalman 1960, A new approach to linear")
    assert reference("loshchilov2019decoupled").startswith("Loshchilov and Hutter 2019, Decoupled")
    assert reference("duchi2011adaptive").startswith("Duchi et al. 2011, ")
    assert equation_says("OU-1") == "decay per step d = η²/2σ²"
    assert equation_says("CMP-1").count("|") == 2  # written \| in the table


def test_without_the_notes_a_key_is_all_there_is_to_say(monkeypatch, tmp_path):
    monkeypatch.setattr(notes, "_FOLDERS", (tmp_path,))
    for cached in (notes._equations, notes._references):
        monkeypatch.setattr(notes, cached.__name__, cached.__wrapped__)
    assert catalogue.equation_says("OU-1") == ""
    assert catalogue.reference("kalman1960new") == "kalman1960new"


FACTS = Facts(
    name="a",
    reading="It is.",
    status="exact",
    reason="So.",
    sources=(),
    tags=(),
    numbers=(
        catalogue.OwnNumber(name="x", default=1.0, meaning="one"),
        catalogue.OwnNumber(name="y", default=None, meaning="none"),
    ),
)


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        ("a", {"x": 1.0, "y": None}),
        ("a:x=2", {"x": 2.0, "y": None}),
        ("a: y = 1e-3 , x=-inf", {"x": float("-inf"), "y": 1e-3}),
    ],
)
def test_a_word_brings_numbers_and_leaves_the_others(word, numbers):
    found = name_and_numbers("things", word, [FACTS])
    assert (found.facts.name, found.numbers) == ("a", numbers)
