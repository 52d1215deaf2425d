"""Each optimizer equals its filter written out by hand, and has the limits it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import (
    adabayes,
    adabayes_fixed_point,
    effective_learning_rate,
    posterior_variance,
    scale_by_adagrad,
    scale_by_amsgrad,
    scale_by_fixed_point,
    scale_by_kalman,
    scale_by_steady_state,
    steady_state,
)

ETA, SIGMA2, B1, B2 = 0.03, 0.4, 0.8, 0.95
GRADIENTS = np.random.default_rng(0).normal(0.3, [0.01, 1.0, 7.0, 40.0], (30, 4))


def apply_all(transformation, gradients, params=None):
    """Every update of a stream of gradients, and the last state."""
    params = jnp.zeros(gradients.shape[1]) if params is None else params

    def step(state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return state, updates

    state, updates = jax.lax.scan(step, transformation.init(params), jnp.asarray(gradients))
    return np.asarray(updates), state


def debiased_means(gradients, decay):
    mean, out = np.zeros(gradients.shape[1]), []
    for t, g in enumerate(gradients, start=1):
        mean = decay * mean + (1 - decay) * g
        out.append(mean / (1 - decay**t))
    return np.array(out)


@pytest.mark.equation("OPT-1", "OPT-2")
@pytest.mark.parametrize("sigma2", [SIGMA2, np.inf])
def test_kalman_scaling_is_the_recursion_written_out(sigma2):
    a2 = np.exp(-(ETA**2) / sigma2)
    q = ETA**2 if np.isinf(sigma2) else sigma2 * (1 - a2)
    p = 0.0 if np.isinf(sigma2) else sigma2
    wanted = []
    for g, m in zip(GRADIENTS, debiased_means(GRADIENTS, B1), strict=True):
        p = 1 / (1 / (a2 * p + q) + g**2)
        wanted.append(p * m)
    came, state = apply_all(scale_by_kalman(ETA, sigma2, b1=B1), GRADIENTS)
    np.testing.assert_allclose(came, wanted, rtol=1e-12)
    np.testing.assert_allclose(posterior_variance(state), p, rtol=1e-12)


@pytest.mark.equation("OPT-1", "OPT-3")
def test_fixed_point_scaling_is_the_closed_form_of_the_debiased_mean_square():
    v = debiased_means(GRADIENTS**2, B2) + 0.01
    p = 1 / (0.5 / SIGMA2 + np.sqrt(0.25 / SIGMA2**2 + v / ETA**2))
    transformation = scale_by_fixed_point(ETA, SIGMA2, b1=B1, b2=B2, eps_root=0.01)
    came, state = apply_all(transformation, GRADIENTS)
    np.testing.assert_allclose(came, p * debiased_means(GRADIENTS, B1), rtol=1e-12)
    np.testing.assert_allclose(posterior_variance(state), p[-1], rtol=1e-12)


@pytest.mark.equation("OPT-4")
def test_steady_state_scaling_is_where_the_recursion_settles():
    v = debiased_means(GRADIENTS**2, B2)
    a2 = np.exp(-(ETA**2) / SIGMA2)
    p = np.full_like(v, SIGMA2)
    for _ in range(20_000):
        p = 1 / (1 / (a2 * p + SIGMA2 * (1 - a2)) + v)
    came, state = apply_all(scale_by_steady_state(ETA, SIGMA2, b1=B1, b2=B2), GRADIENTS)
    np.testing.assert_allclose(came, p * debiased_means(GRADIENTS, B1), rtol=1e-9)
    np.testing.assert_allclose(posterior_variance(state), p[-1], rtol=1e-9)


@pytest.mark.equation("AW-1")
def test_amsgrad_divides_by_the_largest_uncorrected_mean_square():
    v, largest, wanted = np.zeros(4), np.zeros(4), []
    stream = GRADIENTS * np.linspace(3, 0.1, 30)[:, None]
    for t, (g, m) in enumerate(zip(stream, debiased_means(stream, B1), strict=True), start=1):
        v = B2 * v + (1 - B2) * g**2
        largest = np.maximum(largest, v)
        wanted.append(m / (np.sqrt(largest / (1 - B2**t)) + 1e-3))
    came, _ = apply_all(scale_by_amsgrad(b1=B1, b2=B2, eps=1e-3), stream)
    np.testing.assert_allclose(came, wanted, rtol=1e-12)


@pytest.mark.equation("AW-2")
def test_adagrad_divides_by_the_root_of_all_squares_and_waits_for_the_first_gradient():
    total = np.cumsum(GRADIENTS**2, axis=0)
    came, _ = apply_all(scale_by_adagrad(eps=1e-3), GRADIENTS)
    np.testing.assert_allclose(came, GRADIENTS / (np.sqrt(total) + 1e-3), rtol=1e-12)
    silent, _ = apply_all(scale_by_adagrad(eps=0.0), np.zeros((2, 3)))
    np.testing.assert_array_equal(silent, 0)


def test_a_batch_size_turns_mean_gradients_into_summed_ones():
    params = jnp.array([0.5, -1.0, 2.0, 0.1])
    for batch_size in (1, 7, 64):
        mean_gradients = GRADIENTS / batch_size
        came, state = apply_all(
            adabayes_fixed_point(ETA, SIGMA2, batch_size=batch_size), mean_gradients, params
        )
        if batch_size == 1:
            wanted = came
        np.testing.assert_allclose(came, wanted, rtol=1e-11)
        np.testing.assert_allclose(
            effective_learning_rate(state), batch_size * posterior_variance(state), rtol=1e-14
        )


@pytest.mark.parametrize("make", [adabayes, adabayes_fixed_point, steady_state])
def test_before_any_gradient_the_variance_is_the_prior(make):
    state = make(ETA, SIGMA2, batch_size=8).init({"w": jnp.ones(3)})
    np.testing.assert_allclose(posterior_variance(state)["w"], SIGMA2, rtol=1e-14)
    np.testing.assert_allclose(effective_learning_rate(state)["w"], 8 * SIGMA2, rtol=1e-14)


@pytest.mark.parametrize("make", [adabayes_fixed_point, steady_state])
def test_loud_gradients_make_it_adam_without_epsilon(make):
    # Loud against the prior, yet of small gain: eta |g| << 1 << |g| sigma^2 / eta.
    eta, sigma2 = 1e-9, 1.0
    gradients = np.abs(GRADIENTS) + 1.0
    ours, _ = apply_all(make(eta, sigma2, batch_size=1, weight_decay=0.0), gradients)
    adam, _ = apply_all(optax.adam(eta, eps=0.0), gradients)
    np.testing.assert_allclose(ours, adam, rtol=1e-7)


def test_a_static_optimum_is_averaged_over_all_gradients():
    # No drift: 1/p = 1/sigma^2 + sum of g^2, the natural gradient's 1/t.
    _, state = apply_all(scale_by_kalman(1e-12, SIGMA2), GRADIENTS)
    wanted = 1 / (1 / SIGMA2 + np.sum(GRADIENTS**2, axis=0))
    np.testing.assert_allclose(posterior_variance(state), wanted, rtol=1e-9)


@pytest.mark.parametrize("make", [adabayes, adabayes_fixed_point, steady_state])
def test_a_dead_weight_keeps_the_prior_variance_for_ever_in_float32(make):
    optimizer = make(1e-3, 5e-3, batch_size=64)
    params = jnp.ones(2, jnp.float32)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jnp.zeros(2, jnp.float32), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    (params, state), _ = jax.jit(lambda s: jax.lax.scan(step, s, length=20_000))(start)
    np.testing.assert_allclose(posterior_variance(state), 5e-3, rtol=1e-6)
    np.testing.assert_allclose(params, np.exp(-1e-4 * 20_000), rtol=1e-2)


@pytest.mark.parametrize("make", [adabayes, adabayes_fixed_point, steady_state])
def test_meta_gradients_flow_through_an_optimizer(make):
    def final_loss(log_eta):
        optimizer = make(jnp.exp(log_eta), SIGMA2, batch_size=2)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(2.0 * params - 1.0, state, params)
            return (params + updates, state), None

        params = jnp.array([3.0, -1.0])
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=5)
        return jnp.sum((params - 0.5) ** 2)

    at, h = jnp.log(0.05), 1e-5
    slope = (final_loss(at + h) - final_loss(at - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(final_loss)(at), slope, rtol=1e-6)
