from bayesfilt import doctor
from bayesfilt.doctor import Finding


def test_a_whole_installation_is_told_so(bayesfilt):
    answer = bayesfilt("doctor")
    assert (answer.code, answer.err) == (0, "")
    assert "jaxlib" in answer.out
    assert "All that is needed is here." in answer.out


def test_what_is_missing_comes_with_how_to_get_it(bayesfilt, monkeypatch):
    absent = Finding("optax", "absent; for the optimizers", "missing", "pip install optax")
    monkeypatch.setattr(doctor, "examine", lambda: [absent])
    answer = bayesfilt("doctor")
    assert answer.code == 2
    assert "optax: pip install optax" in answer.out
    assert "Missing: optax." in answer.out
