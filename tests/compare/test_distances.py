"""Distances of two runs, against their definitions in NumPy."""

import decimal

import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.compare import predictive_divergence, weight_distance


def log_softmax(logits):
    logits = np.asarray(logits, np.longdouble)
    return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(float)


def literal_divergence(reference_logits, other_logits):
    """The definition, in forty digits: in fewer it cancels where two runs have hardly parted."""
    decimal.getcontext().prec = 40

    def log_probabilities(logits):
        exact = [decimal.Decimal(float(x)) for x in logits]
        total = sum(x.exp() for x in exact).ln()
        return [x - total for x in exact]

    divergences = [
        sum(r.exp() * (r - p) for r, p in zip(*map(log_probabilities, rows), strict=True))
        for rows in zip(reference_logits, other_logits, strict=True)
    ]
    return float(sum(divergences) / len(divergences))


def test_weight_distance_is_relative_to_the_reference():
    reference = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}
    params = {"a": jnp.array([3.0, 1.5]), "b": jnp.array(2.0)}
    assert weight_distance(params, reference) == pytest.approx(2.5 / 5, rel=1e-15)
    assert weight_distance(reference, params) != weight_distance(params, reference)


def test_equal_weights_are_at_distance_zero_even_from_the_origin():
    zero = {"a": jnp.zeros(2)}
    assert weight_distance(zero, zero) == 0
    assert weight_distance({"a": jnp.ones(2)}, zero) == np.inf


@pytest.mark.equation("CMP-2")
@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-4, 1e-6])
def test_predictive_divergence_is_its_definition(step):
    rng = np.random.RandomState(0)
    logits = 2 * rng.standard_normal((50, 4))
    moved = logits + step * rng.standard_normal((50, 4))
    found = predictive_divergence(log_softmax(logits), log_softmax(moved))
    # The log probabilities it is given are rounded to 1e-16.
    expected = literal_divergence(logits, moved)
    np.testing.assert_allclose(found, expected, rtol=1e-12 + 1e-15 / step)


def test_it_is_not_symmetric():
    one, two = (log_softmax(np.array([[0.0, a, -1.0]])) for a in (0.0, 3.0))
    assert predictive_divergence(one, two) != pytest.approx(predictive_divergence(two, one))


def test_equal_predictions_are_exactly_zero_apart():
    reference = log_softmax(np.random.RandomState(1).standard_normal((100, 10)))
    assert predictive_divergence(reference, reference) == 0


@pytest.mark.parametrize("size", [1e-8, 1e-12, 1e-15])
def test_runs_that_have_hardly_parted_are_never_a_negative_distance_apart(size):
    rng = np.random.RandomState(2)
    logits = rng.standard_normal((200, 10))
    reference = log_softmax(logits)
    other = log_softmax(logits + size * rng.standard_normal((200, 10)))
    found = predictive_divergence(reference, other)
    assert 0 < found < 50 * (size + 1e-16) ** 2


def test_certainty_and_exclusion():
    certain = jnp.array([[0.0, -jnp.inf]])
    even = jnp.log(jnp.array([[0.5, 0.5]]))
    assert predictive_divergence(certain, even) == pytest.approx(np.log(2), rel=1e-15)
    assert predictive_divergence(even, certain) == np.inf
    assert predictive_divergence(certain, certain) == 0


def test_confidence_does_not_overflow():
    sure = log_softmax([[0.0, 1000.0]])
    wrong = log_softmax([[1000.0, 0.0]])
    assert predictive_divergence(sure, wrong) == pytest.approx(1000, rel=1e-12)


def test_a_nan_is_not_hidden():
    reference = jnp.log(jnp.array([[0.5, 0.5]]))
    assert np.isnan(predictive_divergence(reference, jnp.array([[jnp.nan, 0.0]])))
    assert np.isnan(predictive_divergence(jnp.array([[jnp.nan, 0.0]]), reference))
