"""The full filter as an optimizer: its recursion, its limits, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.filters import full_filter
from bayesfilt.optimizers import (
    adabayes,
    effective_learning_rate,
    kalman_full,
    posterior_variance,
    scale_by_full_kalman,
)
from bayesfilt.theory import OrnsteinUhlenbeck, matrix_steady_state

ETA, SIGMA2, B1 = 0.03, 0.4, 0.8
RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(0.3, [0.01, 1.0, 7.0, 40.0], (30, 4))


def apply_all(transformation, gradients, params=None):
    """Every update of a stream of gradients, and the last state."""
    params = jnp.zeros(gradients.shape[1:], gradients.dtype) if params is None else params

    def step(state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return state, updates

    state, updates = jax.lax.scan(step, transformation.init(params), jnp.asarray(gradients))
    return np.asarray(updates), state


@pytest.mark.equation("MAT-2", "MAT-10")
@pytest.mark.parametrize("sigma2", [SIGMA2, np.inf])
def test_it_is_the_matrix_recursion_written_out(sigma2):
    a2 = np.exp(-(ETA**2) / sigma2)
    q = ETA**2 if np.isinf(sigma2) else sigma2 * (1 - a2)
    p = np.zeros((4, 4)) if np.isinf(sigma2) else sigma2 * np.eye(4)
    mean, wanted = np.zeros(4), []
    for t, g in enumerate(GRADIENTS, start=1):
        p = np.linalg.inv(np.linalg.inv(a2 * p + q * np.eye(4)) + np.outer(g, g))
        mean = B1 * mean + (1 - B1) * g
        wanted.append(p @ mean / (1 - B1**t))
    came, state = apply_all(scale_by_full_kalman(ETA, sigma2, b1=B1), GRADIENTS)
    np.testing.assert_allclose(came, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.covariance, p, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(posterior_variance(state), np.diag(p), rtol=1e-9)


def test_it_is_the_full_filter_where_the_precision_is_the_gradients_square():
    """Held weights are the predicted mean: decay after the step, exact shrink, no running mean."""
    shrink = -np.expm1(-(ETA**2) / (2 * SIGMA2))
    optimizer = kalman_full(
        ETA, SIGMA2, batch_size=1, b1=0.0, weight_decay=shrink, decay_order="after"
    )
    kalman = full_filter(OrnsteinUhlenbeck(ETA, SIGMA2))
    params = jnp.array([0.5, -1.0, 2.0, 0.1])
    belief, state = kalman.init(params), optimizer.init(params)
    for g in jnp.asarray(GRADIENTS[:8]):
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        # the optimizer predicts first; from the stationary covariance that changes nothing
        belief = kalman.predict(kalman.condition(belief, g, jnp.outer(g, g)))
        np.testing.assert_allclose(params, belief.mean, rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 1e-3, "decay_order": "after"}])
@pytest.mark.parametrize("sigma2", [SIGMA2, np.inf, 1e6])
def test_on_a_single_weight_it_is_adabayes(sigma2, options):
    gradients = GRADIENTS[:, 3:] * np.logspace(-4, 4, 30)[:, None]
    params = jnp.array([0.7])
    ours, state = apply_all(kalman_full(ETA, sigma2, batch_size=8, **options), gradients, params)
    theirs, other = apply_all(adabayes(ETA, sigma2, batch_size=8, **options), gradients, params)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    for report in (posterior_variance, effective_learning_rate):
        np.testing.assert_allclose(report(state), report(other), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_for_gradients_that_never_overlap_it_is_adabayes(dtype):
    which = RNG.integers(0, 4, 60)
    sizes = RNG.normal(size=60) * 10.0 ** RNG.uniform(-3, 5, 60)
    gradients = (np.eye(4)[which] * sizes[:, None]).astype(dtype)
    ours, state = apply_all(kalman_full(ETA, 1e3, batch_size=2), gradients)
    theirs, other = apply_all(adabayes(ETA, 1e3, batch_size=2), gradients)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(ours, theirs, rtol=rtol)
    np.testing.assert_allclose(posterior_variance(state), posterior_variance(other), rtol=rtol)


def test_loud_noise_of_any_shape_is_whitened():
    """Long after the start P is about the exact steady state for H = E[g gᵀ]."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(3, 3))
    gradients = rng.normal(size=(6_000, 3)) @ root.T
    _, state = apply_all(scale_by_full_kalman(0.01, np.inf, b1=0.0), gradients)
    wanted = matrix_steady_state(jnp.asarray(root @ root.T), 0.01, np.inf)
    size = np.linalg.norm(wanted)
    assert np.linalg.norm(state.covariance - wanted) < 0.15 * size
    apart = np.diag(np.linalg.norm(wanted) / np.sqrt(3) * np.ones(3))
    assert np.linalg.norm(apart - wanted) > 0.3 * size


def test_in_float32_it_is_that_of_float64():
    rng = np.random.default_rng(4)
    gradients = rng.normal(0.2, 5.0, (300, 4)) @ rng.normal(size=(4, 4))
    double, _ = apply_all(kalman_full(1e-3, 0.05, batch_size=1), gradients)
    single, state = apply_all(kalman_full(1e-3, 0.05, batch_size=1), gradients.astype(np.float32))
    assert state[1].covariance.dtype == jnp.float32
    assert np.abs(single - double).max() < 1e-2 * np.abs(double).max()
    np.testing.assert_array_equal(state[1].covariance, state[1].covariance.T)


def test_too_many_weights_are_refused_with_the_memory_they_need():
    optimizer = kalman_full(1e-2, 1e-2, batch_size=1)
    params = {"a": jnp.zeros((64, 128), jnp.float32), "b": jnp.zeros(808, jnp.float32)}
    with pytest.raises(ValueError, match="at most 8192 weights, got 9000, .* 309 MiB") as caught:
        optimizer.init(params)
    assert "\n" not in str(caught.value)
    fits = jax.eval_shape(optimizer.init, {"a": params["a"]})
    assert fits[1].covariance.shape == (8192, 8192)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drift_scale": -1.0}, "drift_scale > 0, got drift_scale=-1"),
        ({"stationary_variance": 0.0}, "stationary_variance > 0, got"),
        ({"b1": 1.0}, "0 <= b1 < 1, got b1=1"),
        ({"batch_size": 0}, "batch_size >= 1, got"),
        ({"decay_order": "during"}, "before, after"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    good = {"drift_scale": 0.1, "stationary_variance": 1.0, "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        kalman_full(**(good | change))
