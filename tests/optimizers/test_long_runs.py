"""What long runs of real optimizers settle on: the size of weights, under noise and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import convention_schedule, decay_to_zero
from bayesfilt.theory import (
    AdamWSettings,
    decay_per_step,
    equilibrium_rms,
    equilibrium_rms_with_momentum,
    transition_from_adamw,
)


def trained(optimizer, weights, steps, mean=0.0):
    """Weights after every gradient was noise of variance one around `mean`, from 0."""

    def step(carry, key):
        params, state = carry
        gradient = mean + jax.random.normal(key, (weights,))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (jnp.zeros(weights), optimizer.init(jnp.zeros(weights)))
    (params, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(5), steps))
    return np.asarray(params)


@pytest.mark.equation("EQ-1", "EQ-2", "DICT-1")
@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_check_C1_noise_grows_the_weights_of_adamw_to_the_prior_of_its_filter(b1):
    learning_rate, weight_decay, weights = 0.05, 0.4, 10_000
    adamw = optax.adamw(learning_rate, b1=b1, weight_decay=weight_decay)
    params = trained(adamw, weights, steps=400)  # eight times the memory 1/(lr wd)
    rms = np.sqrt(np.mean(params**2))
    prior = transition_from_adamw(learning_rate, weight_decay)
    shrink = float(decay_per_step(*prior))
    wanted = float(equilibrium_rms_with_momentum(learning_rate, shrink, b1))
    assert rms == pytest.approx(wanted, rel=0.02)  # Adam's running mean of squares is noisy
    # To first order in the shrink over 1 - b1 it is the deviation of the prior, σ = √(lr/2wd).
    sigma = np.sqrt(prior.stationary_variance)
    assert sigma == pytest.approx(np.sqrt(learning_rate / (2 * weight_decay)), rel=1e-14)
    assert wanted == pytest.approx(sigma, rel=0.5 * shrink / (1 - b1))


QUIETER = 0.25  # what the schedule multiplies the learning rate by, once the weights have settled


def settled_before_and_after(convention):
    """RMS weight at the base rate and at a quarter of it, decay in one of the conventions."""
    learning_rate, shrink = 0.02, 0.04
    decay = shrink / learning_rate if convention == "lr_scaled" else shrink
    settings = AdamWSettings(learning_rate=learning_rate, weight_decay=decay)

    def factor(step):
        return jnp.where(step < 200, 1.0, QUIETER)

    optimizer = optax.chain(
        optax.scale_by_adam(b1=0.0),
        optax.scale_by_learning_rate(lambda step: learning_rate * factor(step)),
        decay_to_zero(convention_schedule(settings, factor, convention=convention)),
    )
    sizes = [np.sqrt(np.mean(trained(optimizer, 3_000, steps) ** 2)) for steps in (200, 1_400)]
    return sizes, float(equilibrium_rms(learning_rate, shrink))


@pytest.mark.equation("DICT-2", "EQ-1")
@pytest.mark.parametrize(
    ("convention", "kept"), [("filter", 1.0), ("lr_scaled", QUIETER**0.5), ("paper", QUIETER**0.5)]
)
def test_check_C3_weights_keep_their_size_under_a_schedule_only_if_decay_goes_as_its_square(
    convention, kept
):
    (before, after), foreseen = settled_before_and_after(convention)
    assert before == pytest.approx(foreseen, rel=0.05)
    # To first order in the shrink, 2 % at the base rate.
    assert after / before == pytest.approx(kept, rel=0.06)


@pytest.mark.equation("EQ-1", "DICT-2")
def test_check_C3_along_a_slow_cosine_the_size_follows_the_root_of_rate_over_decay():
    steps, learning_rate, shrink = 40_000, 0.02, 0.01
    factor = 0.55 + 0.45 * np.cos(np.pi * np.arange(steps) / steps)  # from 1 to 0.1
    for power in (1, 2):
        variance, sizes = learning_rate**2 / (2 * shrink), []
        for s in factor:
            variance = (1 - shrink * s**power) ** 2 * variance + (learning_rate * s) ** 2
            sizes.append(np.sqrt(variance))
        at = np.arange(2_000, steps, 500)
        quieter = jnp.asarray(factor[at])
        wanted = equilibrium_rms(learning_rate * quieter, shrink * quieter**power)
        np.testing.assert_allclose(np.array(sizes)[at], wanted, rtol=0.05)
        assert sizes[-1] / sizes[0] == pytest.approx(factor[-1] ** (1 - power / 2), rel=0.05)


def test_check_C5_gradients_that_agree_take_every_weight_to_one_over_the_decay():
    weight_decay = 2.0
    gradient = jnp.asarray([1e-4, -3.0, 50.0])
    adamw = optax.adamw(0.05, eps=0.0, weight_decay=weight_decay)

    def step(carry, _):
        params, state = carry
        updates, state = adamw.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.asarray([0.3, 0.3, -7.0])
    (params, _), _ = jax.lax.scan(step, (params, adamw.init(params)), length=400)
    np.testing.assert_allclose(params, -np.sign(gradient) / weight_decay, rtol=1e-12)


@pytest.mark.equation("EQ-1")
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_check_C5_signal_outweighs_noise_above_a_squared_ratio_of_half_the_shrink(ratio):
    learning_rate, weight_decay, weights = 0.05, 0.4, 10_000
    signal = ratio * np.sqrt(learning_rate * weight_decay / 2)
    optimizer = optax.chain(  # gradients are normalised already
        optax.scale(-learning_rate), decay_to_zero(learning_rate * weight_decay)
    )
    params = trained(optimizer, weights, steps=400, mean=signal)
    mean, deviation = params.mean(), params.std()
    assert mean == pytest.approx(-signal / weight_decay, rel=0.05)
    assert deviation == pytest.approx(float(equilibrium_rms(learning_rate, 0.02)), rel=0.03)
    assert abs(mean) / deviation == pytest.approx(ratio, rel=0.06)
