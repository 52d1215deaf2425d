"""Small claims of the source notes that a few lines of arithmetic settle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


def bowl(weight):
    """Gradient of a lopsided bowl."""
    return 0.7 * (weight - 2.0)


def descended(step, num_steps=12):
    weight, velocity = 1.0, 0.0
    for _ in range(num_steps):
        weight, velocity = step(weight, velocity)
    return weight


def by_optax(optimizer, num_steps=12):
    weight = jnp.asarray(1.0)
    state = optimizer.init(weight)
    for _ in range(num_steps):
        updates, state = optimizer.update(bowl(weight), state, weight)
        weight = weight + updates
    return float(weight)


def test_the_momentum_of_the_notes_is_optax_s_with_the_rate_inside_the_memory():
    def step(weight, velocity):
        velocity = 0.9 * velocity - 0.1 * bowl(weight)
        return weight + velocity, velocity

    assert descended(step) == pytest.approx(by_optax(optax.sgd(0.1, momentum=0.9)), rel=1e-9)


def test_the_nesterov_of_the_notes_is_not_the_one_that_looks_ahead():
    """Sutskever's form at its look-ahead point is what libraries have; the notes' is neither."""
    rate, memory = 0.1, 0.9

    def looks_ahead(weight, velocity):
        gradient = bowl(weight + memory * velocity)
        velocity = memory * velocity - rate * gradient
        return weight + velocity, velocity

    def of_the_notes(weight, velocity):
        gradient = bowl(weight)
        velocity = memory * velocity + rate * gradient
        return weight - rate * (velocity + rate * gradient), velocity

    weight, velocity = 1.0, 0.0
    for _ in range(12):
        weight, velocity = looks_ahead(weight, velocity)
    library = by_optax(optax.sgd(rate, momentum=memory, nesterov=True))
    assert weight + memory * velocity == pytest.approx(library, rel=1e-9)
    assert abs(descended(of_the_notes) - library) > 0.1


def test_a_decay_of_a_hundredth_leaves_a_third_only_where_the_rate_is_one():
    def left(rate):
        optimizer = optax.adamw(rate, weight_decay=0.01)
        weight = jnp.asarray(1.0)
        state = optimizer.init(weight)
        for _ in range(100):
            updates, state = optimizer.update(jnp.asarray(0.0), state, weight)
            weight = weight + updates
        return float(weight)

    assert left(1.0) == pytest.approx(0.366, abs=1e-3)
    assert left(1e-3) == pytest.approx(0.999, abs=1e-5)


def steps_of_adam(gradients):
    """Lengths of the steps at rate 1, the moments at rest before the first gradient."""
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.999, eps=0.0)

    def step(state, gradient):
        updates, state = optimizer.update(gradient, state)
        return state, updates

    return np.abs(jax.lax.scan(step, optimizer.init(jnp.asarray(0.0)), gradients)[1])


def test_a_step_of_adam_can_be_seven_learning_rates_long():
    """One gradient after long silence: (1 - b1)/sqrt(1 - b2). Worst: g_k as (b1/b2)^k backwards."""
    silence = 20_000
    spike = jnp.concatenate([jnp.full(silence, 1e-30), jnp.ones(1)])
    assert steps_of_adam(spike)[-1] == pytest.approx(0.1 / np.sqrt(0.001), rel=1e-3)
    past = jnp.arange(200)[::-1]
    growing = jnp.concatenate([jnp.full(silence, 1e-30), (0.9 / 0.999) ** past])
    worst = (0.1 / np.sqrt(0.001)) / np.sqrt(1 - 0.9**2 / 0.999)
    assert worst == pytest.approx(7.27, abs=0.01)
    assert steps_of_adam(growing)[-1] == pytest.approx(worst, rel=1e-3)
