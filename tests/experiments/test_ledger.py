"""The ledger and the verdicts of record agree, and what they cite exists."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

from experiments import ledger, verdict_table
from experiments.contract import Verdict, experiment_named, experiment_names
from experiments.ledger import Claim, Part

ROOT = Path(__file__).parents[2]
IDS = [
    *(f"0.{number}" for number in range(1, 12)),
    *(f"1.{number}" for number in range(1, 17)),
    *(f"2.{number}" for number in range(1, 14)),
    *(f"3.{number}" for number in range(1, 12)),
    *(f"4.{number}" for number in range(1, 9)),
    *(f"P{number}" for number in range(1, 41)),
]


def verdict(claim="it holds", holds=True, **others):
    return Verdict(
        claim=claim, measured="1 (0.9 to 1.1)", expected="1", tolerance="10 %", holds=holds
    )._replace(**others)


def entries(*verdicts):
    plain = [each.plain() for each in verdicts]
    return {"e01_separability": {"verdicts": plain, "seconds": 60.0, "device": "cpu"}}


def claim(*parts, verdict=None):
    return Claim(
        id="9.9",
        source="nobody",
        statement="it holds | always",
        correct="so",
        verdict=verdict,
        parts=tuple(Part("e01_separability", said, supports) for said, supports in parts),
        checks=(),
        tests=(),
        reading=(),
    )


@pytest.fixture(scope="module")
def of_record():
    return verdict_table.read_verdicts()


def test_every_claim_of_the_notes_and_every_prediction_has_its_row():
    assert [each.id for each in ledger.read_claims()] == IDS


def test_every_claim_is_settled_by_something_or_open():
    for each in ledger.read_claims():
        settled = each.parts or each.checks or each.tests or each.reading
        assert settled or each.verdict == "open", each.id
        assert each.verdict is None or each.verdict in ledger.VERDICTS


def test_what_a_claim_cites_exists():
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    letters = set(re.findall(r"^\| (\w+) \|", (ROOT / "paper_notes/checks.md").read_text(), re.M))
    keys = set(
        re.findall(r"^@\w+\{(\w+),", (ROOT / "paper_notes/references.bib").read_text(), re.M)
    )
    for each in ledger.read_claims():
        assert set(each.tests) <= tests, each.id
        assert set(each.checks) <= letters, each.id
        assert set(each.reading) <= keys, each.id


def test_the_verdicts_of_record_are_those_of_today_s_experiments(of_record):
    assert list(of_record) == experiment_names()
    for name, entry in of_record.items():
        assert entry["claim"] == experiment_named(name).CLAIM
        assert len({each["claim"] for each in entry["verdicts"]}) == len(entry["verdicts"])


def test_both_pages_are_written_from_the_verdicts_of_record(of_record):
    assert verdict_table.TABLE_PATH.read_text() == verdict_table.table_text(of_record)
    text = ledger.ledger_text(ledger.read_claims(), of_record)
    assert ledger.PAGE_PATH.read_text() == text


def test_a_verdict_of_record_that_another_seed_turns_round_is_not_judged(of_record):
    for name, entry in of_record.items():
        for each in entry["verdicts"]:
            others = each.get("other_seeds", {}).values()
            assert each["holds"] is None or (not each["holds"]) not in others, (name, each["claim"])


def test_every_prediction_that_an_experiment_settles_is_in_its_row():
    cited = {(part.experiment, each.id) for each in ledger.read_claims() for part in each.parts}
    settles = {
        (name, number) for name in experiment_names() for number in experiment_named(name).SETTLES
    }
    assert settles == cited


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (True, True, "true"),
        (False, False, "false"),
        (True, False, "conditional"),
        (True, None, "conditional"),
        (False, None, "false"),
        (None, None, "open"),
    ],
)
def test_a_claim_follows_from_its_verdicts(first, second, word):
    found = entries(verdict("a", first), verdict("b", second))
    assert ledger.verdict_of(claim(("a", True), ("b", True)), found) == word
    turned = {"true": "false", "false": "true"}
    if second is not None:
        against = ledger.verdict_of(claim(("a", False), ("b", False)), found)
        assert against == turned.get(word, word)


def test_a_claim_that_its_verdicts_contradict_is_refused():
    found = entries(verdict("a", True))
    assert ledger.verdict_of(claim(("a", True), verdict="true"), found) == "true"
    assert ledger.verdict_of(claim(("a", True), verdict="conditional"), found) == "conditional"
    for word in ("false", "open", "perhaps"):
        with pytest.raises(ValueError, match=r"claim 9\.9 is said to be"):
            ledger.verdict_of(claim(("a", True), verdict=word), found)
    with pytest.raises(ValueError, match="names verdicts that e01_separability does not have"):
        ledger.verdict_of(claim(("b", True)), found)


def test_a_row_quotes_its_verdicts_and_marks_those_near_their_threshold():
    found = entries(verdict("a", True, margin=0.1), verdict("b", True, margin=2.0))
    text = ledger.ledger_text([claim(("a", True), ("b", False))._replace(id="P1")], found)
    link = "[e01](../experiments/README.md#e01_separability)"
    assert (
        f"{link}: a: yes ~ (1 (0.9 to 1.1)); {link} (yes speaks against the claim): b: yes" in text
    )
    assert "it holds \\| always" in text
    assert "| conditional |" in text


def test_many_verdicts_of_one_kind_are_counted():
    found = entries(*(verdict(f"a {index}", index > 1) for index in range(6)), verdict("b", None))
    text = ledger.ledger_text([claim(("^a", True))._replace(id="P1")], found)
    assert "of 6 verdicts 4 yes, 2 no" in text
    assert ledger.verdict_of(claim(("^a", True)), found) == "conditional"


def test_another_seed_marks_a_verdict_it_undoes_and_takes_away_one_it_denies():
    for holds, near, flipped in ((True, False, False), (None, True, False), (False, True, True)):
        other = verdict_table._beside(verdict("a", True).plain(), "1", holds)
        assert other["other_seeds"] == {"1": holds}
        assert verdict_table.is_near(other) is near
        assert verdict_table.has_flipped(other) is flipped
        assert other["holds"] is (None if flipped else True)
        assert verdict_table.of_this_seed(other) is True
        assert verdict_table.changes([other], [verdict("a", True)]) == []
        again = verdict_table._beside(other, "2", True)  # a third does not bring it back
        assert again["holds"] is other["holds"]
        assert verdict_table.has_flipped(again) is flipped
    unsure = verdict_table._beside(verdict("a", None).plain(), "1", True)
    assert not verdict_table.has_flipped(unsure)
    assert not verdict_table.is_near(unsure)


def test_other_seeds_still_speak_of_a_verdict_while_settings_and_band_are_the_same():
    said = [verdict_table._beside(verdict(name, True).plain(), "1", False) for name in "abc"]
    before = {"seed": 0, "config": "x", "verdicts": said}
    now = [
        verdict("a", True)._replace(measured="2 (1.9 to 2.1)").plain(),
        verdict("b", None).plain(),
        verdict("c", True)._replace(expected="below 3").plain(),
        verdict("new", True).plain(),
    ]
    entry = {"seed": 0, "config": "x", "verdicts": now}
    found = verdict_table.with_known_seeds(entry, before)["verdicts"]
    assert [each.get("other_seeds") for each in found] == [{"1": False}, {"1": False}, None, None]
    assert [each["holds"] for each in found] == [None, None, True, True]
    assert verdict_table.of_this_seed(found[0]) is True
    for other in ({**before, "seed": 2}, {**before, "config": "y"}, None):
        assert verdict_table.with_known_seeds(entry, other) == entry


def test_settings_are_told_from_others_and_known_again_from_a_manifest(tmp_path):
    module = experiment_named("e12")
    config = dataclasses.asdict(module.PAPER)
    read = json.loads(json.dumps(config))  # tuples have become lists
    assert verdict_table.digest(config) == verdict_table.digest(read)
    changed = {**config, next(iter(config)): "other"}
    assert verdict_table.digest(changed) != verdict_table.digest(config)


def test_changes_are_new_changed_and_gone():
    before = [verdict("a").plain(), verdict("b").plain()]
    assert verdict_table.changes(before, [verdict("a"), verdict("b")]) == []
    lines = verdict_table.changes(before, [verdict("a", False), verdict("c")])
    assert [line.split(":")[0] for line in lines] == ["changed", "new", "gone"]
    assert "yes (1 (0.9 to 1.1)) is now no (1 (0.9 to 1.1))" in lines[0]


def test_a_damaged_or_foreign_table_is_one_line(tmp_path):
    path = tmp_path / "verdicts.json"
    assert verdict_table.read_verdicts(path) == {}
    verdict_table.write_verdicts(entries(verdict("a")), path)
    assert verdict_table.read_verdicts(path)["e01_separability"]["verdicts"][0]["claim"] == "a"
    for text, message in (
        ("{", "or is damaged"),
        ("[]", "damaged"),
        ('{"schema": 2, "experiments": {}}', "reads 1"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            verdict_table.read_verdicts(path)
