"""The dictionary filter <-> AdamW: what it preserves, and what it refuses."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfilt.theory import (
    CONVENTIONS,
    AdamWSettings,
    OrnsteinUhlenbeck,
    adamw_from_transition,
    convention_shrink,
    decay_per_step,
    transition_from_adamw,
)


def decay_for(shrink, learning_rate, convention):
    """Weight decay that shrinks by `shrink` per step at the base learning rate."""
    return shrink / learning_rate if convention == "lr_scaled" else shrink


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize("convention", CONVENTIONS)
@given(
    learning_rate=st.floats(-12, 0).map(lambda x: 10**x),
    shrink=st.floats(-14, -0.001).map(lambda x: 10**x),
)
def test_there_and_back_keeps_every_number(convention, learning_rate, shrink):
    decay = decay_for(shrink, learning_rate, convention)
    drift = transition_from_adamw(learning_rate, decay, convention=convention)
    back = adamw_from_transition(drift, convention=convention)
    assert back.learning_rate == learning_rate
    assert back.weight_decay == pytest.approx(decay, rel=1e-14)
    assert isinstance(drift.stationary_variance, float)


@pytest.mark.equation("DICT-1", "OU-1", "DICT-2")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_filter_shrinks_as_adamw_does_at_the_base_rate(convention):
    learning_rate, shrink = 3e-3, 2e-4
    decay = decay_for(shrink, learning_rate, convention)
    drift = transition_from_adamw(learning_rate, decay, convention=convention)
    assert float(decay_per_step(*drift)) == pytest.approx(shrink, rel=1e-14)
    settings = AdamWSettings(learning_rate=learning_rate, weight_decay=decay)
    adamw = convention_shrink(settings, 1.0, convention=convention)
    assert adamw == pytest.approx(shrink, rel=1e-14)


@pytest.mark.equation("DICT-1")
def test_in_torch_and_optax_numbers_the_stationary_variance_is_half_the_rate_over_the_decay():
    drift = transition_from_adamw(1e-3, 0.1)
    assert drift.drift_scale == 1e-3
    assert drift.stationary_variance == pytest.approx(1e-3 / 0.2, rel=1e-15)
    paper = transition_from_adamw(1e-3, 1e-4, convention="paper")
    assert paper.stationary_variance == pytest.approx(5e-3, rel=1e-15)


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_decay_is_a_random_walk_both_ways(convention):
    drift = transition_from_adamw(1e-3, 0.0, convention=convention)
    assert drift == OrnsteinUhlenbeck(drift_scale=1e-3, stationary_variance=math.inf)
    back = adamw_from_transition(drift, convention=convention)
    assert back == AdamWSettings(learning_rate=1e-3, weight_decay=0.0)


@pytest.mark.equation("DICT-2")
def test_a_schedule_acts_once_twice_or_through_the_rate():
    settings = AdamWSettings(learning_rate=0.01, weight_decay=0.2)
    shrinks = [convention_shrink(settings, 0.5, convention=name) for name in CONVENTIONS]
    np.testing.assert_allclose(shrinks, [0.5 * 0.01 * 0.2, 0.5 * 0.2, 0.25 * 0.2], rtol=1e-15)


@pytest.mark.equation("DICT-2", "OU-1")
def test_the_filter_convention_is_a_scheduled_drift_under_a_fixed_prior():
    drift = transition_from_adamw(0.02, 0.01, convention="filter")
    settings = AdamWSettings(learning_rate=0.02, weight_decay=0.01)
    factors = jnp.linspace(0.0, 1.0, 7)
    scheduled = decay_per_step(factors * drift.drift_scale, drift.stationary_variance)
    ours = convention_shrink(settings, factors, convention="filter")
    np.testing.assert_allclose(ours, scheduled, rtol=1e-14)


@pytest.mark.equation("DICT-2", "OU-1")
def test_scaling_both_numbers_with_the_schedule_makes_the_shrink_linear():
    drift = transition_from_adamw(0.02, 0.01, convention="paper")
    settings = AdamWSettings(learning_rate=0.02, weight_decay=0.01)
    for factor in (1.0, 0.3, 1e-6):
        both = decay_per_step(factor * drift.drift_scale, factor * drift.stationary_variance)
        ours = convention_shrink(settings, factor, convention="paper")
        assert float(both) == pytest.approx(ours, rel=1e-14)


@pytest.mark.equation("DICT-2")
def test_lr_scaled_is_what_optax_does():
    schedule = optax.linear_schedule(1.0, 0.0, 8)
    settings = AdamWSettings(learning_rate=0.05, weight_decay=0.3)
    optimizer = optax.adamw(lambda step: 0.05 * schedule(step), weight_decay=0.3)
    params = jnp.asarray([2.0, -7.0])
    state = optimizer.init(params)
    for step in range(8):
        updates, state = optimizer.update(jnp.zeros(2), state, params)
        wanted = convention_shrink(settings, schedule(step), convention="lr_scaled")
        np.testing.assert_allclose(-updates / params, wanted, rtol=1e-6)  # its schedule is float32
        params = optax.apply_updates(params, updates)


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_traced_numbers_pass_and_have_derivatives(convention):
    def there_and_back(learning_rate, decay):
        drift = transition_from_adamw(learning_rate, decay, convention=convention)
        return adamw_from_transition(drift, convention=convention).weight_decay

    rates, decays = jnp.asarray([1e-3, 1e-2]), jnp.asarray([0.1, 0.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(there_and_back))(rates, decays), decays, rtol=1e-14)
    slope = jax.grad(there_and_back, argnums=1)(jnp.float64(1e-3), jnp.float64(0.1))
    assert float(slope) == pytest.approx(1.0, rel=1e-12)
    assert jnp.isfinite(jax.grad(there_and_back, argnums=1)(jnp.float64(1e-3), jnp.float64(0.0)))


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.1), "a finite learning_rate > 0, got learning_rate=0."),
        ((-1e-3, 0.1), "a finite learning_rate > 0, got learning_rate=-0.001."),
        ((math.inf, 0.1), "a finite learning_rate > 0, got learning_rate=inf."),
        ((math.nan, 0.1), "a finite learning_rate > 0, got learning_rate=nan."),
        ((1e-3, -0.1), "a finite weight_decay >= 0, got weight_decay=-0.1."),
        ((1e-3, math.inf), "a finite weight_decay >= 0, got weight_decay=inf."),
        (("fast", 0.1), "a real number for learning_rate, got learning_rate='fast'."),
        ((0.5, 2.0), "a shrink per step below 1 (lr_scaled: learning_rate * weight_decay), got 1."),
    ],
)
def test_a_bad_adamw_is_refused_with_what_was_wanted_and_what_came(arguments, message):
    with pytest.raises(ValueError) as refusal:
        inspect.unwrap(transition_from_adamw)(*arguments)  # past the tests' own type checks
    assert str(refusal.value) == f"transition_from_adamw needs {message}"


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize("convention", ["paper", "filter"])
def test_in_the_other_conventions_the_decay_alone_must_be_below_one(convention):
    with pytest.raises(ValueError, match=rf"below 1 \({convention}: weight_decay\), got 1.5"):
        transition_from_adamw(1e-3, 1.5, convention=convention)
    assert transition_from_adamw(10.0, 0.5, convention=convention).stationary_variance == 100


@pytest.mark.equation("DICT-1")
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0.0, 1.0), "a finite drift_scale > 0, got drift_scale=0."),
        ((0.1, 0.0), "stationary_variance > 0, got stationary_variance=0."),
        ((0.1, math.nan), "stationary_variance > 0, got stationary_variance=nan."),
        ((1.0, 0.5), "a shrink per step below 1 (lr_scaled: drift_scale^2 / (2 * stationary_v"),
    ],
)
def test_a_bad_transition_is_refused_too(numbers, message):
    drift = OrnsteinUhlenbeck(drift_scale=numbers[0], stationary_variance=numbers[1])
    with pytest.raises(ValueError) as refusal:
        adamw_from_transition(drift)
    assert str(refusal.value).startswith(f"adamw_from_transition needs {message}")


@pytest.mark.equation("DICT-1", "DICT-2")
def test_an_unknown_convention_is_answered_with_the_known_ones():
    known = "lr_scaled, paper, filter; got 'lr-scaled'. Did you mean 'lr_scaled'?"
    settings = AdamWSettings(learning_rate=1e-3, weight_decay=0.1)
    drift = OrnsteinUhlenbeck(drift_scale=0.1, stationary_variance=1.0)
    for ask in (
        lambda: transition_from_adamw(1e-3, 0.1, convention="lr-scaled"),
        lambda: adamw_from_transition(drift, convention="lr-scaled"),
        lambda: convention_shrink(settings, 1.0, convention="lr-scaled"),
    ):
        with pytest.raises(ValueError) as refusal:
            ask()
        assert str(refusal.value).endswith(f"knows convention {known}")


@pytest.mark.equation("DICT-1")
def test_a_schedule_is_refused_because_the_dictionary_speaks_of_base_values():
    with pytest.raises(ValueError, match="maps numbers, not schedules.*learning_rate"):
        inspect.unwrap(transition_from_adamw)(optax.cosine_decay_schedule(1e-3, 10), 0.1)
