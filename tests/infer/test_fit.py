"""One call from streams to a judged fit, and what it refuses before it costs anything."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bayesfilt.infer import (
    Fit,
    Limits,
    SviSettings,
    fit,
    gate_table,
    model_named,
    posterior_rows,
    priors_for,
)
from tests.infer.small_fits import LAYERS, OU, SETTINGS, small_fit, small_streams


def test_a_fit_of_a_known_process_holds_its_numbers():
    rows = {(row["parameter"], row["layer"]): row for row in posterior_rows(small_fit())}
    for layer in LAYERS:
        # 0.8 is kept of an optimum each step: the shrink is 0.2; 120 steps tell it to about 0.06.
        shrink = rows["shrink", layer]
        assert shrink["low"] < 0.2 < shrink["high"]
        assert shrink["low"] < shrink["median"] < shrink["high"]
        assert 0.01 < shrink["standard_deviation"] < 0.12
        assert np.isfinite(shrink["r_hat"]) and shrink["ess_bulk"] > 10
        # The variance for ever of that process is 1/(1 - 0.8^2) = 2.8.
        assert rows["stationary_variance", layer]["low"] < 2.8
        assert rows["stationary_variance", layer]["high"] > 2.8


def test_the_rows_are_the_draws_own_moments():
    draws = small_fit().tree["posterior"].to_dataset()["shrink"].sel(layer="second").values.ravel()
    (row,) = (
        row
        for row in posterior_rows(small_fit())
        if (row["parameter"], row["layer"]) == ("shrink", "second")
    )
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["standard_deviation"] == pytest.approx(draws.std(ddof=1))
    ordered = np.sort(draws)
    assert (ordered < row["low"]).mean() == pytest.approx(0.05, abs=0.01)
    assert (ordered > row["high"]).mean() == pytest.approx(0.05, abs=0.01)


def test_few_draws_fail_and_the_tree_says_so():
    found = small_fit()
    assert not found.gates.passes
    assert any("ESS" in failure for failure in found.gates.failures)
    assert json.loads(found.tree.attrs["gates"])["failures"] == list(found.gates.failures)
    assert {row["name"] for row in gate_table(found.gates)} >= {"r-hat", "divergences"}


def test_the_same_key_gives_the_same_fit_and_the_other_data_are_used():
    again = fit(jax.random.key(3), OU, small_streams(), limits=Limits(ess=10), **SETTINGS)
    draws = small_fit().tree["posterior"].to_dataset()["shrink"]
    np.testing.assert_array_equal(again.tree["posterior"].to_dataset()["shrink"], draws)
    other = fit(jax.random.key(3), OU, small_streams(seed=9), **SETTINGS)
    assert (other.tree["posterior"].to_dataset()["shrink"] != draws).all()


def test_float32_records_are_a_note_of_the_fit():
    streams = small_streams()
    single = dataclasses.replace(
        streams,
        **{n: getattr(streams, n).astype("float32") for n in ("observed", "precision", "taken_at")},
    )
    found = fit(jax.random.key(3), OU, single, **SETTINGS)
    assert any("float32" in note for note in json.loads(found.tree.attrs["notes"]))
    assert found.tree["posterior"].to_dataset()["shrink"].dtype == np.float64


def test_ctrl_c_marks_the_fit_that_was_cut():
    def stop(made, total):
        if made > SETTINGS["num_warmup"]:
            raise KeyboardInterrupt

    found = fit(jax.random.key(3), OU, small_streams(), on_progress=stop, **SETTINGS)
    assert found.tree["posterior"].sizes["draw"] == 50
    assert found.gates.failures[0] == "interrupted: 50 of 70 draws of each chain"


def test_an_approximation_is_marked_and_judged_by_its_weights():
    found = fit(
        jax.random.key(3),
        OU,
        small_streams(),
        method="svi",
        num_samples=200,
        every_density=True,
        svi=SviSettings(num_steps=400, num_particles=1),
    )
    assert found.tree.attrs["method"] == "svi"
    assert found.tree["posterior"].sizes["chain"] == 1
    assert found.gates.pareto_k is not None and found.gates.r_hat is None
    assert len(found.tree.attrs["elbo"]) == 20
    assert all(np.isnan(row["r_hat"]) for row in posterior_rows(found))


def test_streams_with_numbers_of_their_own_have_rows_of_their_own():
    tree = small_fit().tree.copy()
    draws = np.random.default_rng(0).normal(size=(2, 70, 4)) + [0, 10, 20, 30]
    dims = ("chain", "draw", "stream")
    tree["posterior"] = tree["posterior"].to_dataset().assign(shrink_of_stream=(dims, draws))
    rows = posterior_rows(
        Fit(model=OU, tree=tree, gates=small_fit().gates, seconds=1.0), by_stream=True
    )
    found = [(row["parameter"], row["layer"], row["stream"], round(row["mean"])) for row in rows]
    assert found == [
        ("shrink", "first", 0, 0),
        ("shrink", "second", 1, 10),
        ("shrink", "second", 2, 20),
        ("shrink", "first", 3, 30),
    ]
    assert posterior_rows(small_fit(), by_stream=True) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_chains": 0}, "fit needs a whole num_chains >= 1, got num_chains=0"),
        ({"num_samples": 0}, "fit needs a whole num_samples >= 1, got num_samples=0"),
        ({"num_warmup": -5}, "fit needs a whole num_warmup >= 0, got num_warmup=-5"),
        ({"target_accept_prob": 1.2}, "0 < target_accept_prob < 1, got target_accept_prob=1.2"),
        ({"method": "nutz"}, "fit knows method nuts, svi; got 'nutz'. Did you mean 'nuts'?"),
        ({"svi": SviSettings(num_steps=0)}, "num_steps >= 200, got num_steps=0"),
        ({"limits": Limits(r_hat=0.9)}, "Limits needs r_hat > 1"),
        ({"model": model_named("static", noise="matched")}, "noise='matched'"),
    ],
)
def test_bad_settings_are_one_line_before_anything_is_compiled(change, message, monkeypatch):
    def compiled(*_):
        raise AssertionError("it went on")

    for name in ("check_streams", "sample_nuts", "sample_svi"):
        monkeypatch.setitem(fit.__globals__, name, compiled)
    arguments = {"model": OU, "streams": small_streams(), **change}
    with pytest.raises(ValueError) as caught:
        fit(jax.random.key(0), **arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_priors_of_other_layers_are_refused():
    one_layer = dataclasses.replace(small_streams(), layer=np.zeros(4, int), layer_names=("only",))
    with pytest.raises(ValueError, match="fit needs priors of 2 layers, got 1"):
        fit(jax.random.key(0), OU, small_streams(), priors=priors_for(one_layer))


def test_without_64_bit_numbers_it_is_one_line(float32_only):
    with pytest.raises(ValueError, match=r"needs float64[^\n]+$"):
        fit(jax.random.key(0), OU, small_streams(), **SETTINGS)
