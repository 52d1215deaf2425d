"""Replicates and calibration: silent on the model's own data, loud on other data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statsmodels.tsa.stattools import acf

from bayesfilt.infer import Streams, draw_streams, gradient_streams, model_named
from bayesfilt.infer.predictive_checks import (
    autocorrelation,
    calibration_checks,
    replicate_checks,
    uniformity_p_value,
)
from bayesfilt.infer.predictive_scores import first_steps
from tests.infer.fits import fit_of

PROCESS = model_named("ornstein_uhlenbeck", noise="matched")
TRUE = {"drift_scale": 1.0, "stationary_variance": 10.0}
HEAVY = model_named("ornstein_uhlenbeck", noise="matched", tails="student_t")
ROWS, STEPS = 24, 200


def design(layer_names=("first", "last")):
    generator = np.random.default_rng(0)
    shape = (ROWS, STEPS)
    return gradient_streams(
        np.zeros(shape),
        np.geomspace(0.3, 3, ROWS)[:, None],
        generator.normal(size=shape),
        valid=generator.uniform(size=shape) < 0.9,
        layer=np.arange(ROWS) % 2,
        layer_names=layer_names,
    )


@functools.cache
def drawn(model=PROCESS, **numbers: float) -> Streams:
    per_stream = {name: jnp.full(ROWS, value) for name, value in (TRUE | numbers).items()}
    return jax.jit(draw_streams, static_argnums=1)(jax.random.key(1), model, per_stream, design())


def fit_at(streams, model=PROCESS, *, draws=100, **numbers):
    """A posterior of one point: what a test wants to be believed."""
    values = {name: np.full((2, draws // 2, 2), value) for name, value in (TRUE | numbers).items()}
    return fit_of(model, streams, values)


@functools.cache
def checks_of(model=PROCESS, **numbers: float):
    """What the fit at `TRUE` makes of data of other numbers."""
    streams = drawn(model, **numbers)
    rows = replicate_checks(jax.random.key(5), fit_at(streams), streams, num_replicates=100)
    return {(row.name, row.layer): row for row in rows}


def test_data_of_the_model_itself_surprise_no_check():
    rows = checks_of().values()
    assert len(rows) == 2 * 7
    # Of 14 honest checks more than 3 are below 0.05 once in 200 times.
    assert sum(row.p_value < 0.05 for row in rows) <= 3
    assert all(row.low < row.replicated < row.high for row in rows)
    assert all(row.num_replicates == 100 for row in rows)


LOUD = {"drift_scale": 2.0, "stationary_variance": 40.0}


@pytest.mark.parametrize(
    ("truth", "wrong"),
    [
        (LOUD, "increments' root mean square"),
        (LOUD, "normalised innovation squared"),
        ({"stationary_variance": 100.0}, "autocorrelation at lag 5"),
        (
            {"drift_scale": 3.0, "stationary_variance": 90.0},
            "innovations' autocorrelation at lag 1",
        ),
    ],
)
def test_other_data_surprise_the_check_that_is_meant_for_them(truth, wrong):
    rows = checks_of(**truth)
    assert all(rows[wrong, layer].p_value < 0.03 for layer in ("first", "last"))


def test_heavy_tails_show_in_the_kurtosis_and_in_the_uniformity():
    streams = drawn(HEAVY, degrees_of_freedom=3.0)
    rows = checks_of(HEAVY, degrees_of_freedom=3.0)
    assert rows["increments' kurtosis", "first"].p_value < 0.03
    assert rows["increments' kurtosis", "first"].num_at_least == 0
    gaussian = calibration_checks(fit_at(streams), streams)
    heavy = calibration_checks(fit_at(streams, HEAVY, degrees_of_freedom=3.0), streams)
    assert all(row.uniformity_p_value < 1e-3 for row in gaussian)
    assert all(row.uniformity_p_value > 0.01 for row in heavy)


def test_a_p_value_is_two_sided_and_never_nought():
    rows = checks_of(**LOUD)
    row = rows["increments' root mean square", "first"]
    assert row.num_at_least == 0 and row.p_value == pytest.approx(2 / 101)
    assert row.observed > row.high


def test_predictions_of_the_truth_are_calibrated():
    streams = drawn()
    for row in calibration_checks(fit_at(streams), streams):
        assert abs(row.nis - 1) < 3 * row.nis_standard_error
        # NIS is chi-squared: its mean over n has a standard error of sqrt(2/n); ours is the
        # larger of two estimates from 12 streams and 10 blocks.
        expected = np.sqrt(2 / row.num_steps)
        assert 0.6 < row.nis_standard_error / expected < 2
        assert row.uniformity_p_value > 0.01
        assert not row.held_out


def test_predictions_that_are_too_narrow_are_found_out():
    streams = drawn(**LOUD)
    for row in calibration_checks(fit_at(streams), streams):
        assert row.nis > 1 + 5 * row.nis_standard_error
        assert row.uniformity_p_value < 1e-3


def test_a_fit_to_the_first_part_is_judged_on_the_rest():
    streams = drawn()
    rows = calibration_checks(fit_at(first_steps(streams, 150)), streams)
    assert all(row.held_out for row in rows)
    rest = np.asarray(streams.valid)[:, 150:]
    assert sum(row.num_steps for row in rows) == rest.sum()


@pytest.mark.equation("PPC-1")
def test_the_autocorrelation_is_that_of_statsmodels_gaps_and_all():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 80)).cumsum(axis=1)
    valid = generator.uniform(size=values.shape) < 0.8
    for lag in (1, 2, 5):
        ours = autocorrelation(jnp.asarray(values), jnp.asarray(valid), lag)
        for row in range(3):
            gappy = np.where(valid[row], values[row], np.nan)
            theirs = acf(gappy, nlags=lag, adjusted=True, fft=False, missing="conservative")
            assert isinstance(theirs, np.ndarray)
            np.testing.assert_allclose(ours[row], theirs[lag], rtol=1e-10)


def test_what_stands_where_nothing_was_seen_is_not_looked_at():
    streams = drawn()
    dirty = gradient_streams(
        np.where(streams.valid, streams.observed, np.nan),
        streams.precision,
        streams.taken_at,
        valid=streams.valid,
        layer=streams.layer,
        layer_names=streams.layer_names,
    )
    clean = calibration_checks(fit_at(streams), streams)
    assert calibration_checks(fit_at(streams), dirty) == clean
    key = jax.random.key(0)
    some = replicate_checks(key, fit_at(streams), streams, num_replicates=100)
    assert replicate_checks(key, fit_at(streams), dirty, num_replicates=100) == some


def test_uniformity_is_told_from_what_is_not_uniform():
    uniform = np.random.default_rng(0).uniform(size=(200, 300))
    alarms = np.mean([uniformity_p_value(row) < 0.05 for row in uniform])
    assert 0.005 < alarms < 0.12  # 5 %, with a standard error of 1.5 %
    assert uniformity_p_value(uniform[0] ** 1.5) < 1e-3
    assert np.isnan(uniformity_p_value(np.zeros(0)))


def test_too_few_replicates_are_refused():
    streams = drawn()
    with pytest.raises(ValueError, match="num_replicates >= 20"):
        replicate_checks(jax.random.key(0), fit_at(streams), streams, num_replicates=5)
    with pytest.raises(ValueError, match="num_replicates <= 100 draws, got 200"):
        replicate_checks(jax.random.key(0), fit_at(streams), streams, num_replicates=200)
