"""Incoming vectors turn on their spheres: by the angle meant, whatever the scale of things."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.optimizers import normalized
from bayesfilt.optimizers.direction_preserving import direction_gradient, tangent_part, turned

RNG = np.random.default_rng(5)
FIRST = {
    "matrix": RNG.normal(size=(4, 6)),
    "kernel": RNG.normal(size=(3, 2, 2, 2)),
    "bias": np.ones(4),
}


def run(optimizer, loss, steps, first=FIRST):
    """Weights after every step down a loss."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    first = jax.tree.map(jnp.asarray, first)
    start = (first, optimizer.init(first))
    return jax.jit(lambda s: jax.lax.scan(step, s, length=steps)[1])(start)


TARGET = {
    "matrix": RNG.normal(size=(4, 6)),
    "kernel": RNG.normal(size=(3, 2, 2, 2)),
    "bias": np.full(4, -0.3),
}


def directional_loss(params):
    """Sees the direction of every output unit's vector, not its length."""
    total = jnp.sum(jnp.square(params["bias"] - TARGET["bias"]))
    for name in ("matrix", "kernel"):
        rows = params[name].reshape(len(params[name]), -1)
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        aim = jnp.asarray(TARGET[name]).reshape(rows.shape)
        total += jnp.sum(
            jnp.square(rows - aim) * jnp.array([0.1, 1.0, 10.0, 30.0])[: len(rows), None]
        )
    return total


def norms(leaf, axis=0):
    rows = np.moveaxis(np.asarray(leaf), axis, 0)
    return np.linalg.norm(rows.reshape(len(rows), -1), axis=1)


def test_every_incoming_vector_keeps_its_norm():
    path = run(normalized(0.05), directional_loss, 2_000)
    for name in ("matrix", "kernel"):
        for after in (path[name][0], path[name][-1]):
            assert_allclose(norms(after), norms(FIRST[name]), rtol=1e-12)
        aim, end = (x.reshape(len(x), -1) for x in (TARGET[name], np.asarray(path[name][-1])))
        cosine = np.sum(aim * end, axis=1) / (norms(aim) * norms(end))
        assert np.all(cosine > 0.99)
    assert_allclose(path["bias"][-1], TARGET["bias"], atol=1e-3)


def test_runs_from_weights_of_any_scale_are_one_run():
    """The gradient of such a loss falls as the weights grow; epsilon must not see that."""
    plain = run(normalized(0.05, eps=1e-2), directional_loss, 50)
    larger = {name: w * (1.0 if name == "bias" else 7.0) for name, w in FIRST.items()}
    scaled = run(normalized(0.05, eps=1e-2), directional_loss, 50, larger)
    for name in ("matrix", "kernel"):
        assert_allclose(scaled[name], 7 * plain[name], rtol=1e-9, atol=1e-12)


def test_without_epsilon_the_scale_of_the_loss_does_not_count():
    plain = run(normalized(0.05, eps=0.0), directional_loss, 50)
    louder = run(normalized(0.05, eps=0.0), lambda w: 1e3 * directional_loss(w), 50)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-12), plain, louder)


@pytest.mark.equation("DP-1", "DP-2")
def test_the_learning_rate_is_the_angle_of_the_first_step_and_adam_is_what_trains_the_rest():
    made = normalized(0.1, eps=0.0)
    gradient = jax.tree.map(lambda w: jnp.asarray(RNG.normal(size=w.shape)), FIRST)
    params = jax.tree.map(jnp.asarray, FIRST)
    updates, _ = jax.jit(made.update)(gradient, made.init(params), params)
    for name in ("matrix", "kernel"):
        before, moved, g = (
            np.asarray(x).reshape(len(x), -1)
            for x in (params[name], params[name] + updates[name], gradient[name])
        )
        n, after = before / norms(before)[:, None], moved / norms(moved)[:, None]
        assert_allclose(np.arccos(np.sum(n * after, axis=1)), 0.1, rtol=1e-9)
        # in the plane of the vector and its gradient, and downhill
        across = g - np.sum(g * n, axis=1, keepdims=True) * n
        unit = across / norms(across)[:, None]
        assert_allclose(after, np.cos(0.1) * n - np.sin(0.1) * unit, rtol=1e-9, atol=1e-12)
    assert_allclose(updates["bias"], -0.1 * np.sign(gradient["bias"]), rtol=1e-12)


def test_momentum_is_that_of_one_vector_written_out():
    first, gradients = np.array([[1.0, 2.0, -1.0]]), RNG.normal(0.4, 1.0, (25, 1, 3))
    r, b1, b2, w = np.sqrt(6.0), 0.8, 0.95, np.array([1.0, 2.0, -1.0])
    m, v = np.zeros(3), 0.0
    made = normalized(0.05, b1=b1, b2=b2, eps=1e-3)
    params, state = jnp.asarray(first), made.init(jnp.asarray(first))
    update = jax.jit(made.update)
    for t, g in enumerate(gradients, start=1):
        n = w / np.linalg.norm(w)
        d = np.linalg.norm(w) * (g[0] - (n @ g[0]) * n)
        m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * (d @ d)
        across = m / (1 - b1**t)
        across = across - (n @ across) * n
        angle = 0.05 * np.linalg.norm(across) / (np.sqrt(v / (1 - b2**t)) + 1e-3)
        w = r * (np.cos(angle) * n - np.sin(angle) * across / np.linalg.norm(across))
        updates, state = update(jnp.asarray(g), state, params)
        params = params + updates
        assert_allclose(params[0], w, rtol=1e-11)


@pytest.mark.equation("DP-1", "DP-2")
def test_the_three_equations_by_hand():
    n, x = jnp.array([[0.6, 0.8], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [3.0, -2.0]])
    across = tangent_part(x, n)
    assert_allclose(across, [[0.64, -0.48], [0.0, -2.0]], rtol=1e-14)
    assert_allclose(direction_gradient(5.0 * n, x), 5 * across, rtol=1e-14)
    quarter = turned(n, across, jnp.full((2, 1), np.pi / 2))
    assert_allclose(quarter, [[-0.8, 0.6], [0.0, 1.0]], atol=1e-15)
    assert_array_equal(turned(n, 0 * across, jnp.ones((2, 1))), n)


def test_the_axis_of_the_outputs_is_the_caller_s_to_name():
    gradient, first = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4))
    left, right = normalized(0.1, output_axis=-1), normalized(0.1)
    ours, _ = left.update(jnp.asarray(gradient), left.init(jnp.asarray(first)), jnp.asarray(first))
    turned_round = jnp.asarray(first.T)
    theirs, _ = right.update(jnp.asarray(gradient.T), right.init(turned_round), turned_round)
    assert_allclose(ours, theirs.T, rtol=1e-13)
    assert_allclose(norms(first + ours, axis=1), norms(first, axis=1), rtol=1e-14)


def test_a_unit_with_one_incoming_weight_is_trained_by_adam():
    made, column = normalized(0.1), jnp.ones((3, 1))
    updates, _ = made.update(column, made.init(column), column)
    assert_allclose(updates, -0.1, rtol=1e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: normalized(0.0), "learning_rate"),
        (lambda: normalized(0.1, b1=1.0), "b1 < 1"),
        (lambda: normalized(0.1, eps=-1.0), "eps >= 0"),
        (lambda: normalized(0.1, output_axis=2).init(jnp.ones((2, 2))), "output_axis"),
        (lambda: normalized(0.1).init({"w": jnp.zeros((2, 2))}), r"norm 0 at params\['w'\]"),
        (
            lambda: normalized(0.1).update(
                jnp.ones((2, 2)), normalized(0.1).init(jnp.ones((2, 2)))
            ),
            "params",
        ),
    ],
)
def test_bad_input_is_refused_at_once(call, words):
    with pytest.raises(ValueError, match=words):
        call()
