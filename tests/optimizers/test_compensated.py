"""Compensated weights follow the exact sum, in any type, under any compiler's liberties."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.optimizers import (
    adabayes_fixed_point,
    compensated,
    compensated_weights,
    decay_to_zero,
    posterior_variance,
)
from bayesfilt.optimizers.compensated import full_weights, left_over

STEPS, SIZE = 600, 32
# What is left is the float32 rounding of each step, 6e-8 of 1e-3, and not of the weight.
BOUND = 2e-8
NARROW = ["float32", "bfloat16", "float16"]


def exact(array):
    """The same numbers in NumPy's float64."""
    return np.asarray(jnp.asarray(array).astype("float32"), np.float64)


def steps_of(shrink):
    return optax.chain(optax.scale(-1.0), decay_to_zero(shrink))


def run(optimizer, first, gradients):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (first, optimizer.init(first)), gradients)[0]


def stream(dtype, size=1e-3):
    draws = np.random.default_rng(0).normal(0.2 * size, size, (STEPS, SIZE))
    return jnp.linspace(-1, 1, SIZE).astype(dtype), jnp.asarray(draws).astype(dtype)


@pytest.mark.equation("DEC-1")
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shrink", [0.0, 1e-8, 1e-4])
def test_weight_and_residual_together_are_the_sum_that_was_meant(dtype, shrink):
    first, gradients = stream(dtype)
    params, state = jax.jit(lambda f, g: run(compensated(steps_of(shrink)), f, g))(first, gradients)
    assert (params.dtype, state.residual.dtype) == (dtype, jnp.float32)
    wanted = exact(first)
    for gradient in exact(gradients):
        wanted = wanted - shrink * wanted - gradient
    assert_allclose(compensated_weights(params, state), wanted, atol=BOUND)
    # and the weight itself is the sum, rounded
    spacing = 2.0 * float(jnp.finfo(dtype).eps) * np.maximum(np.abs(wanted), 1e-3)
    assert np.all(np.abs(exact(params) - wanted) <= spacing)
    plain, _ = jax.jit(lambda f, g: run(steps_of(shrink), f, g))(first, gradients)
    assert np.abs(exact(plain) - wanted).max() > 10 * BOUND


@pytest.mark.parametrize("dtype", NARROW)
def test_the_residual_is_what_apply_updates_dropped_at_every_single_step(dtype):
    """Outside and inside jit, for steps smaller and larger than the weights."""
    made = compensated(steps_of(1e-3))
    sizes = 10.0 ** np.random.default_rng(1).uniform(-6, 2, (20, SIZE))
    gradients = jnp.asarray(sizes * np.sign(np.random.default_rng(2).normal(size=sizes.shape)))
    compiled = jax.jit(made.update)
    for update in (made.update, compiled):
        params, state = stream(dtype)[0], made.init(stream(dtype)[0])
        for gradient in gradients.astype(dtype):
            before = exact(params) + exact(state.residual)
            parts = np.abs(exact(gradient)) + 1e-3 * np.abs(before)
            updates, state = update(gradient, state, params)
            assert updates.dtype == dtype
            params = optax.apply_updates(params, updates)
            after = exact(params) + exact(state.residual)
            wanted = before - exact(gradient) - 1e-3 * before
            # roundings of the step, and of residual + step to float32
            spare = np.maximum(np.abs(before), np.abs(after)) * float(jnp.finfo(dtype).eps)
            assert np.all(np.abs(after - wanted) <= 3e-7 * parts + 2e-7 * spare)


@pytest.mark.parametrize("dtype", NARROW[:2])
def test_under_vmap_and_one_step_at_a_time_the_sum_is_the_same(dtype):
    first, gradients = stream(dtype)
    gradients = gradients[:60]
    shrinks = jnp.array([0.0, 1e-6, 1e-3], "float32")

    def final(shrink):
        return run(compensated(steps_of(shrink)), first, gradients)

    together, states = jax.jit(jax.vmap(final))(shrinks)
    ways = [(together[2], jax.tree.map(lambda leaf: leaf[2], states))]
    made = compensated(steps_of(shrinks[2]))
    params, state = first, made.init(first)
    for gradient in gradients:
        updates, state = made.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    ways.append((params, state))
    wanted = exact(first)
    for gradient in exact(gradients):
        wanted = wanted - float(shrinks[2]) * wanted - gradient
    for params, state in ways:
        assert_allclose(compensated_weights(params, state), wanted, atol=BOUND)


def test_in_float64_it_changes_the_last_digits_at_most():
    first, gradients = stream("float64", 1.0)
    made = optax.adamw(0.01, weight_decay=0.1)
    plain, _ = run(made, first, gradients)
    ours, _ = run(compensated(made), first, gradients)
    assert_allclose(ours, plain, rtol=1e-12)


def test_a_filter_inside_is_still_a_filter_and_extra_arguments_reach_it():
    made = compensated(adabayes_fixed_point(0.01, 0.1, batch_size=4))
    params = {"w": jnp.ones(3, "bfloat16")}
    state = made.init(params)
    assert posterior_variance(state)["w"].dtype == jnp.float32
    updates, state = jax.jit(made.update)(params, state, params, value=jnp.ones(()))
    assert updates["w"].dtype == jnp.bfloat16

    def seen(updates, state, params=None, *, value):
        del params
        return jax.tree.map(lambda g: g * value, updates), state

    needs = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), seen)
    made = compensated(needs)
    updates, _ = made.update(params, made.init(params), params, value=3.0)
    assert_array_equal(exact(updates["w"]), 3.0)


def test_the_full_weights_are_read_through_other_states_or_are_the_weights():
    params = jnp.ones(2, "float32")
    state = compensated(optax.sgd(0.1)).init(params)
    assert compensated_weights(params, (state, optax.EmptyState())).dtype == jnp.float64
    assert full_weights(params, optax.EmptyState()) is params
    with pytest.raises(ValueError, match="CompensatedState"):
        compensated_weights(params, optax.EmptyState())


@pytest.mark.equation("DEC-1")
@settings(max_examples=200)
@given(
    *[st.floats(2.0**-80, 1e3, width=32) | st.floats(-1e3, -(2.0**-80), width=32)] * 2,
)
def test_what_is_left_over_is_exact_whichever_number_is_larger(weight, step):
    after = np.float32(weight) + np.float32(step)
    left = left_over(*(jnp.asarray(x, "float32") for x in (weight, step, after)))
    wanted = Fraction(weight) + Fraction(step) - Fraction(float(after))
    assert Fraction(float(left)) == wanted


def test_bad_input_is_refused_at_once():
    made = compensated(optax.sgd(0.1))
    with pytest.raises(ValueError, match="params"):
        made.update(jnp.ones(2), made.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="int32"):
        made.init(jnp.ones(2, "int32"))
