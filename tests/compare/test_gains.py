"""Gains, regimes and histograms, against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    LOG10_GAIN_EDGES,
    gain_histogram,
    gain_of,
    measure_gains,
    regime_fraction,
)
from bayesfilt.compare.gains import (
    mean_square_of_sum,
    sampled_weights,
    snapshot_records,
    transition_of,
)
from bayesfilt.compare.layers import layers_of
from bayesfilt.optimizers import Setting, adam_parts, named_optimizer, posterior_variance
from bayesfilt.theory import OrnsteinUhlenbeck

SETTING = Setting(
    learning_rate=0.02, weight_decay=0.3, batch_size=4, num_steps=50, schedule="cosine"
)
GRADIENTS = np.random.RandomState(0).standard_normal((7, 3)) * [1e-4, 1.0, 1e3]


def trained(name):
    """An optimizer's state after seven fixed gradients, and how to take its update apart."""
    made = named_optimizer(name, SETTING)
    params = jnp.array([0.1, 2.0, -3.0])
    state = made.optimizer.init(params)
    update = jax.jit(made.optimizer.update)
    for gradient in GRADIENTS:
        _, state = update(jnp.asarray(gradient), state, params)
    return state, made.parts


def mean_square(b2=0.999):
    """Debiased running mean of the squared mean gradients, as a loop."""
    running = np.zeros(3)
    for gradient in GRADIENTS:
        running = b2 * running + (1 - b2) * gradient**2
    return running / (1 - b2 ** len(GRADIENTS))


@pytest.mark.equation("CMP-3")
def test_adamw_s_gain_is_its_rate_over_the_root_of_the_mean_square_per_summed_gradient():
    state, parts = trained("adamw")
    rate = 0.02 * 0.5 * (1 + np.cos(np.pi * 6 / 50))
    expected = rate / (np.sqrt(mean_square()) + 1e-8) / 4
    np.testing.assert_allclose(gain_of(parts(state), 4), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["adabayes", "adabayes_fixed_point", "steady_state"])
def test_a_filter_s_gain_is_its_posterior_variance(name):
    state, parts = trained(name)
    np.testing.assert_allclose(gain_of(parts(state), 4), posterior_variance(state), rtol=1e-12)


def test_a_weight_about_which_nothing_is_known_has_an_infinite_gain():
    made = optax.adamw(0.1, eps=0.0)
    params = jnp.array([1.0, 2.0])
    _, state = made.update(jnp.array([0.0, 0.5]), made.init(params), params)
    parts = adam_parts(0.1, 0.0, b1=0.9, b2=0.999, eps=0.0)(state)
    np.testing.assert_allclose(gain_of(parts, 1), [np.inf, 0.2], rtol=1e-12)


def test_the_mean_square_of_the_sum_is_debiased_and_scaled_by_the_batch_size_squared():
    running = mean_square() * (1 - 0.999**7)
    found = mean_square_of_sum({"w": jnp.asarray(running)}, 0.999, jnp.array(7), 4)
    np.testing.assert_allclose(found["w"], 16 * mean_square(), rtol=1e-12)


def test_the_histogram_counts_every_positive_finite_gain_once():
    gain = 10.0 ** np.random.RandomState(1).uniform(-12, 3, 5000)
    expected = np.histogram(np.log10(gain), LOG10_GAIN_EDGES)[0]
    odd = [0.0, np.inf, np.nan, -1.0]
    np.testing.assert_array_equal(gain_histogram(jnp.asarray([*gain, *odd])), expected)


def test_gains_beyond_the_histogram_are_in_its_outermost_bins():
    found = gain_histogram(jnp.array([1e-30, 1e-29, 1e25]))
    assert found[0] == 2
    assert found[-1] == 1
    assert found.sum() == 3


def test_regimes_divide_at_eta_over_sigma_squared_and_at_one_over_eta():
    eta, sigma2 = 0.01, 0.1  # thresholds 0.1 and 100
    rms = np.array([0.0, 0.09, 0.11, 99.0, 101.0, 5.0, 0.05])
    layers = layers_of({"a": np.zeros(4), "b": np.zeros(3)})
    found = regime_fraction(layers, jnp.asarray(rms**2), eta, sigma2)
    expected = [[2 / 4, 2 / 4, 0], [1 / 3, 1 / 3, 1 / 3], [3 / 7, 3 / 7, 1 / 7]]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_who_does_not_tell_its_gains_is_not_available_and_not_zero():
    layers = layers_of({"a": np.zeros(4)})
    unknown = OrnsteinUhlenbeck(drift_scale=jnp.nan, stationary_variance=jnp.nan)
    found = measure_gains(layers, jnp.ones(4), jnp.full(4, jnp.nan), unknown)
    assert all(np.isnan(values).all() for values in found)


@pytest.mark.parametrize("name", ["adabayes", "adabayes_fixed_point", "steady_state"])
def test_a_filter_tells_its_own_transition(name):
    state, parts = trained(name)
    eta, sigma2 = transition_of(parts, 1.0)(state, jnp.array(6))
    np.testing.assert_allclose(eta, 0.02 * 0.5 * (1 + np.cos(np.pi * 6 / 50)), rtol=1e-12)
    np.testing.assert_allclose(sigma2, 0.02 / 0.6, rtol=1e-12)


def test_adamw_s_transition_is_the_one_whose_decay_is_its_own():
    state, parts = trained("adamw")
    rate = SETTING.scheduled(0.02)
    eta, sigma2 = transition_of(parts, rate)(state, jnp.array(6))
    np.testing.assert_allclose(eta**2 / (2 * sigma2), eta * 0.3, rtol=1e-12)
    state, parts = trained("adam")
    assert transition_of(parts, rate)(state, jnp.array(6)).stationary_variance == np.inf


def test_a_sample_of_weights_is_sorted_without_repeats_and_everything_where_it_fits():
    np.testing.assert_array_equal(sampled_weights(5, 10), np.arange(5))
    chosen = sampled_weights(100_000, 500)
    assert len(set(chosen.tolist())) == 500
    assert np.all(np.diff(chosen) > 0)
    # Not the same place in every row of a matrix.
    assert abs(np.mean(chosen % 64) - 31.5) < 5 * 18.5 / np.sqrt(500)


def test_snapshots_have_the_first_and_the_last_record_and_more_early_than_late():
    chosen = snapshot_records(200, 20)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 199, 20)
    assert np.all(np.diff(np.diff(chosen)) >= -1)
    np.testing.assert_array_equal(snapshot_records(3, 20), [0, 1, 2])
    np.testing.assert_array_equal(snapshot_records(1, 20), [0])
