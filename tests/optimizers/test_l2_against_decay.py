"""Loshchilov and Hutter's propositions on optax's own optimizers: where an L2 penalty is decay.

The optimizers here step by -α g/D with a divisor D that stands still, so that the only
difference between two runs is where the pull on the weights enters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import decay_to_zero
from bayesfilt.theory import equivalent_l2, equivalent_penalty, l2_misfit, momentum_l2_shrink

CURVATURE = jnp.asarray([0.3, 2.0, 0.7, 5.0])
OPTIMUM = jnp.asarray([1.0, -2.0, 4.0, 0.5])
START = jnp.asarray([3.0, 1.0, -1.0, -0.2])
LEARNING_RATE, SHRINK = 0.02, 3e-3


def loss(params):
    """A bowl that is not round, away from zero."""
    return 0.5 * jnp.sum(CURVATURE * (params - OPTIMUM) ** 2)


downhill = jax.grad(loss)


def path(optimizer, gradient_of=downhill, start=START, steps=60):
    """The weights after each step."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient_of(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return np.asarray(jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[1])


def divided_by(divisor):
    """Adam with its memory taken out: every gradient over a number that stays."""
    return optax.stateless(lambda updates, params: updates / divisor)


def with_decay(divisor):
    """Decay beside the step, in this library's form."""
    step = optax.chain(divided_by(divisor), optax.scale(-LEARNING_RATE))
    return optax.chain(step, decay_to_zero(SHRINK))


def divisor_of_a_warmed_up_adam():
    """√⟨g²⟩ + eps of optax's Adam after a noisy start."""
    noise = np.random.default_rng(1).standard_normal((40, 4)) * [0.01, 0.3, 2.0, 30.0]
    adam = optax.scale_by_adam()
    state = adam.init(START)
    for extra in noise:
        _, state = adam.update(downhill(START) + extra, state)
    return jnp.sqrt(state.nu / (1 - 0.999**40)) + 1e-8


@pytest.mark.equation("L2-1")
def test_decay_is_an_l2_penalty_for_plain_sgd_step_by_step():
    l2 = float(equivalent_l2(SHRINK, LEARNING_RATE))
    penalised = optax.chain(optax.add_decayed_weights(l2), optax.sgd(LEARNING_RATE))
    decayed = optax.chain(optax.sgd(LEARNING_RATE), decay_to_zero(SHRINK))
    np.testing.assert_allclose(path(penalised), path(decayed), rtol=1e-13, atol=1e-15)
    # SGDW of optax, whose coefficient is the same number: there the rate multiplies both.
    sgdw = optax.chain(optax.add_decayed_weights(l2), optax.scale_by_learning_rate(LEARNING_RATE))
    np.testing.assert_allclose(path(sgdw), path(decayed), rtol=1e-13, atol=1e-15)


@pytest.mark.equation("L2-1", "L2-2")
@pytest.mark.parametrize("warmed_up", [False, True])
def test_check_D1_under_a_frozen_divisor_decay_is_the_corrected_penalty(warmed_up):
    divisor = divisor_of_a_warmed_up_adam() if warmed_up else jnp.ones(4)
    decayed = path(with_decay(divisor))

    def penalised(factor):
        def total(params):
            return loss(params) + factor * equivalent_penalty(
                params, divisor, SHRINK, LEARNING_RATE
            )

        step = optax.chain(divided_by(divisor), optax.scale(-LEARNING_RATE))
        return path(step, jax.grad(total))

    np.testing.assert_allclose(penalised(1.0), decayed, rtol=1e-12, atol=1e-14)
    # The printed coefficient has 1/α once too often, and a shrink fifty times too strong.
    printed = penalised(1 / LEARNING_RATE)
    first_pull = (START - printed[0]) - (START - penalised(0.0)[0])
    np.testing.assert_allclose(first_pull, SHRINK / LEARNING_RATE * START, rtol=1e-9)
    assert np.abs(printed - decayed).max() > 0.1 * np.abs(decayed).max()


@pytest.mark.equation("L2-2")
def test_check_D1_the_penalty_on_each_weight_goes_as_its_divisor_and_not_as_the_root():
    divisor, params = jnp.asarray([1.0, 9.0]), jnp.ones(2)
    pull = jax.grad(equivalent_penalty)(params, divisor, SHRINK, LEARNING_RATE)
    np.testing.assert_allclose(pull[1] / pull[0], 9.0, rtol=1e-14)
    np.testing.assert_allclose(pull, SHRINK / LEARNING_RATE * divisor, rtol=1e-14)


def pulls(divisor):
    """What one step takes from weights of 1 without a gradient: decay, and L2 per coefficient."""
    ones = jnp.ones_like(divisor)
    step = optax.chain(divided_by(divisor), optax.scale(-LEARNING_RATE))
    penalised = optax.chain(optax.add_decayed_weights(1e-3), step)
    decayed = path(with_decay(divisor), jnp.zeros_like, ones, steps=1)[0]
    return 1 - decayed, (1 - path(penalised, jnp.zeros_like, ones, steps=1)[0]) / 1e-3


@pytest.mark.equation("L2-3")
@pytest.mark.parametrize("spread", [1.0, 1.5, 40.0])
def test_check_D2_the_best_l2_coefficient_still_misses_unless_all_divisors_are_equal(spread):
    divisor = jnp.asarray([2.0, 2.0 * spread, 2.0 * np.sqrt(spread)])
    wanted, per_l2 = pulls(divisor)
    coefficients = 2 * SHRINK / LEARNING_RATE * np.linspace(0, 2 * spread, 200_001)
    errors = np.abs(np.outer(coefficients, per_l2) - wanted).max(axis=1) / SHRINK
    assert errors.min() == pytest.approx((spread - 1) / (spread + 1), abs=1e-3)
    assert errors.min() >= float(l2_misfit(divisor)) - 1e-10
    assert float(l2_misfit(divisor)) == pytest.approx((spread - 1) / (spread + 1), abs=1e-15)


@pytest.mark.equation("L2-3")
def test_check_D2_for_adam_no_l2_coefficient_comes_near():
    assert float(l2_misfit(divisor_of_a_warmed_up_adam())) > 0.8


B1, L2 = 0.9, 1e-3


def heavy_ball_with_l2(learning_rate):
    return optax.chain(
        optax.add_decayed_weights(L2), optax.sgd(learning_rate, momentum=B1, nesterov=False)
    )


def heavy_ball_with_decay(learning_rate, shrink):
    return optax.chain(optax.sgd(learning_rate, momentum=B1), decay_to_zero(shrink))


@pytest.mark.equation("L2-7")
def test_check_D3_with_momentum_l2_decays_by_the_shrink_over_one_less_b1():
    learning_rate = 0.1
    ours = float(momentum_l2_shrink(L2, learning_rate, B1))
    assert ours == pytest.approx(10 * learning_rate * L2, rel=1e-12)
    weights = path(heavy_ball_with_l2(learning_rate), jnp.zeros_like, jnp.ones(1), 2000)[:, 0]
    rate = 1 - weights[-1] / weights[-2]
    # Short of the true rate by α l2 b1/(1 - b1)², 0.9 % here, to first order.
    assert rate / ours - 1 == pytest.approx(learning_rate * L2 * 0.9 / 0.1**2, rel=0.05)
    decayed = path(heavy_ball_with_decay(learning_rate, ours), jnp.zeros_like, jnp.ones(1), 2000)
    unscaled = path(
        heavy_ball_with_decay(learning_rate, learning_rate * L2), jnp.zeros_like, jnp.ones(1), 2000
    )
    np.testing.assert_allclose(np.log(weights[-1]), np.log(decayed[-1, 0]), rtol=0.02)
    assert np.log(weights[-1]) / np.log(unscaled[-1, 0]) == pytest.approx(10, rel=0.02)


@pytest.mark.equation("L2-7")
def test_check_D3_with_momentum_both_rest_at_the_same_place_and_get_there_otherwise():
    learning_rate = 0.1
    shrink = float(momentum_l2_shrink(L2, learning_rate, B1))
    penalised = path(heavy_ball_with_l2(learning_rate), steps=2000)
    decayed = path(heavy_ball_with_decay(learning_rate, shrink), steps=2000)
    minimum = CURVATURE * OPTIMUM / (CURVATURE + L2)
    np.testing.assert_allclose(penalised[-1], minimum, rtol=1e-9)
    np.testing.assert_allclose(decayed[-1], minimum, rtol=1e-9)
    # Decay waits for no trace to fill: its first step pulls ten times as hard.
    plain = path(optax.sgd(learning_rate, momentum=B1), steps=1)[0]
    pulls = plain - decayed[0], plain - penalised[0]
    np.testing.assert_allclose(pulls[0] / pulls[1], 10.0, rtol=1e-9)


STEPS, RATE = 300, 1e-3
SILENT = jnp.asarray([1.0, -0.5])  # weights without a loss gradient


@pytest.mark.parametrize("l2", [1e-5, 1e-2, 10.0])
def test_check_D5_under_adam_with_l2_a_silent_weight_shrinks_by_the_rate_whatever_the_coefficient(
    l2,
):
    adam = optax.chain(optax.add_decayed_weights(l2), optax.adam(RATE, eps=0.0))
    weights = path(adam, jnp.zeros_like, SILENT, STEPS)
    unit = optax.chain(optax.add_decayed_weights(1.0), optax.adam(RATE, eps=0.0))
    reference = path(unit, jnp.zeros_like, SILENT, STEPS)
    np.testing.assert_allclose(weights, reference, rtol=1e-9)
    moved = np.abs(weights - SILENT)
    np.testing.assert_allclose(moved[0], RATE, rtol=1e-9)
    # A line and not an exponential, and the same for both weights, though one is half the other.
    np.testing.assert_allclose(moved[-1], STEPS * RATE, rtol=0.15)
    assert moved[-1, 1] == pytest.approx(moved[-1, 0], rel=0.15)


@pytest.mark.parametrize("weight_decay", [0.1, 1.0])
def test_check_D5_under_adamw_a_silent_weight_shrinks_exponentially_by_its_coefficient(
    weight_decay,
):
    weights = path(optax.adamw(RATE, weight_decay=weight_decay), jnp.zeros_like, SILENT, STEPS)
    kept = (1 - RATE * weight_decay) ** np.arange(1, STEPS + 1)
    np.testing.assert_allclose(weights, kept[:, None] * np.asarray(SILENT), rtol=1e-12)
