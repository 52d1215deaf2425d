"""The record of an inference: its numbers are those of the fits, under the names figures draw."""

import numpy as np
import pytest
from scipy.stats import norm

from bayesfilt.figures import FIGURES
from bayesfilt.infer.comparison import compare_models
from bayesfilt.infer.inference_record import (
    Findings,
    calibration_group,
    inference_record,
    reported_model,
)
from bayesfilt.infer.predictive_scores import first_steps
from bayesfilt.infer.verdict import transition_verdicts
from tests.infer.small_fits import small_fit, small_streams
from tests.infer.walks import grid_fit, walks

SEEN = 8


def findings_of(streams, fits, foretelling, comparison, verdicts=()) -> Findings:
    return Findings(
        streams=streams,
        step=np.arange(streams.observed.shape[1]),
        weights=tuple(map(str, range(streams.observed.shape[0]))),
        fits=fits,
        foretelling=foretelling,
        comparison=comparison,
        verdicts=verdicts,
        calibration={},
        replicates=(),
        learned={},
        learning_rate=1e-2,
        weight_decay=0.5,
    )


@pytest.fixture(scope="module")
def small():
    """The record of one Ornstein-Uhlenbeck fit, which also foretells left-out streams."""
    fits = {"ornstein_uhlenbeck": small_fit()}
    streams = small_streams()
    comparison = compare_models(fits, streams, method="leave_stream_out")
    verdicts = transition_verdicts(small_fit(), learning_rate=1e-2, weight_decay=0.5)
    found = findings_of(streams, fits, fits, comparison, verdicts)
    return inference_record(found, {"seed": 3})


def test_every_group_has_its_figure(small):
    drawable = {drawing.group for drawing in FIGURES.values()}
    assert {"foretold", "shrink", "comparison", "calibration"} == set(small.groups) <= drawable
    for name, drawing in FIGURES.items():
        if drawing.group in small.groups:
            assert drawing.draw(small.groups[drawing.group], "neurips"), name


def test_the_shrink_s_density_and_interval_are_the_draws(small):
    group = small.groups["shrink"]
    draws = small_fit().tree["posterior"]["shrink"].values.reshape(-1, 2)
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    for name, wanted in {"low": low, "median": middle, "high": high}.items():
        np.testing.assert_allclose(group[name].values[0], wanted, rtol=1e-4)
    decades = np.log10(group["shrink"].values)
    for layer in range(2):
        curve = np.nan_to_num(group["density"].values[0, layer])
        assert np.trapezoid(curve, decades) == pytest.approx(1, abs=0.05)
        mean = np.trapezoid(curve * decades, decades)
        assert mean == pytest.approx(np.log10(draws[:, layer]).mean(), abs=0.02)
    assert group["failed"].values == [not small_fit().gates.passes]


def test_the_two_decays_stand_beside_it(small):
    group = small.groups["shrink"]
    variance = small_fit().tree["posterior"]["stationary_variance"].values.reshape(-1, 2)
    assert group["set_decay"].values == pytest.approx(0.005)
    np.testing.assert_allclose(
        group["implied_decay"].values, 1e-4 / (2 * np.median(variance, axis=0))
    )
    assert group["negligible"].values == pytest.approx(0.25 / 60)


def test_what_is_foretold_is_the_fit_s_and_gaps_are_nan(small):
    group = small.groups["foretold"]
    fit = small_fit().tree["predictions"]
    np.testing.assert_array_equal(group["one_step_mean"].values, fit["one_step_mean"].values)
    np.testing.assert_allclose(
        group["one_step_deviation"].values ** 2, fit["one_step_variance"].values
    )
    gaps = np.isnan(group["observed"].values)
    np.testing.assert_array_equal(gaps, ~np.asarray(small_streams().valid))
    assert list(group["layer_of"].values) == ["first", "second", "second", "first"]
    assert group["one_step_mean"].attributes["model"] == "ornstein_uhlenbeck"


def test_ranks_and_autocorrelation_are_of_the_steps_that_were_not_fitted():
    streams = walks(num_streams=40, num_steps=40)
    fit = grid_fit(first_steps(streams, SEEN), SEEN, number=25)
    fits = {"random_walk": fit}
    comparison = compare_models(fits, streams)
    found = findings_of(streams, {}, fits, comparison)
    assert reported_model(comparison) == "random_walk"
    group = calibration_group(found)
    drift = fit.tree["posterior"]["drift_scale"].values.reshape(-1, 1, 1)
    moves = np.diff(np.asarray(streams.observed), axis=1)[:, SEEN - 1 :]
    ranks = norm.cdf(moves / drift).mean(axis=0).ravel()
    probability = group["probability"].values
    wanted = (ranks[:, None] <= probability).mean(axis=0) - probability
    np.testing.assert_allclose(group["ecdf_difference"].values[0], wanted, atol=1e-9)
    band = group["band_high"].values[0]
    assert band == pytest.approx(1.358 / np.sqrt(ranks.size))
    assert np.abs(wanted).max() < band  # the model is right
    centred = moves - moves.mean(axis=1, keepdims=True)
    lag_one = (centred[:, 1:] * centred[:, :-1]).mean(axis=1) / (centred**2).mean(axis=1)
    np.testing.assert_allclose(group["autocorrelation"].values[0, 0], lag_one.mean(), rtol=1e-6)
