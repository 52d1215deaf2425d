"""BAdam is the velocity filter, step for step; BRMSprop is what is left without velocity."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from bayesfilt.filters import velocity_filter
from bayesfilt.optimizers import (
    adabayes,
    badam,
    brmsprop,
    effective_learning_rate,
    exact_tied_shrink,
    posterior_variance,
    scale_by_velocity,
)
from bayesfilt.theory import OrnsteinUhlenbeck

ETA = 0.03
SCALES = np.array([0.01, 1.0, 7.0, 40.0])
GRADIENTS = np.random.default_rng(0).normal(0.3, SCALES, (40, 4))
FIRST = np.array([1.0, -2.0, 0.5, 3.0])
MODELS = [(0.4, 0.1, None), (np.inf, 0.3, 0.02), (0.4, 1.0, 0.0), (0.4, 0.0, 0.01)]


def run(optimizer, gradients=GRADIENTS, first=FIRST):
    """Weights after every step of given gradients, and the last state."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    first = jax.tree.map(jnp.asarray, first)
    start = (first, optimizer.init(first))
    (_, state), path = jax.jit(lambda g: jax.lax.scan(step, start, g))(
        jax.tree.map(jnp.asarray, gradients)
    )
    return path, state


def rests(sigma2, shrink):
    return np.isfinite(sigma2) and shrink > 0


@pytest.mark.equation("VEL-5")
@pytest.mark.parametrize(("sigma2", "shrink", "kappa"), MODELS)
def test_badam_is_the_velocity_filter_driven_with_the_same_gradients(sigma2, shrink, kappa):
    made = badam(ETA, sigma2, batch_size=1, velocity_shrink=shrink, velocity_drift_scale=kappa)
    path, state = run(made)
    kalman = velocity_filter(
        OrnsteinUhlenbeck(ETA, sigma2),
        velocity_shrink=shrink,
        velocity_drift_scale=shrink * ETA if kappa is None else kappa,
    )
    first = jnp.asarray(FIRST)
    if rests(sigma2, shrink):
        belief = kalman.init(first)
    else:
        belief = kalman.predict(kalman.init(first, 0.0, 0.0))._replace(mean=first)
    for gradient, weights in zip(GRADIENTS, path, strict=True):
        after = kalman.condition(belief, jnp.asarray(gradient), jnp.square(gradient))
        belief = kalman.predict(after)
        assert_allclose(weights, belief.mean, rtol=1e-13, atol=1e-13)
    assert_allclose(posterior_variance(state), after.variance, rtol=1e-13)
    assert_allclose(state[1].velocity, after.velocity, rtol=1e-12, atol=1e-15)


@pytest.mark.equation("VEL-5")
@pytest.mark.parametrize(("sigma2", "shrink", "kappa"), [(0.4, 0.1, 0.01), (np.inf, 0.3, 0.02)])
def test_check_E5_badam_is_the_two_state_kalman_filter_of_a_library(sigma2, shrink, kappa):
    """Both states, covariance and all, from a textbook filter; gradients re-based to weights."""
    made = badam(ETA, sigma2, batch_size=1, velocity_shrink=shrink, velocity_drift_scale=kappa)
    path, state = run(made)
    kept = np.exp(-(ETA**2) / (2 * sigma2))
    noise = np.diag([ETA**2 if np.isinf(sigma2) else sigma2 * (1 - kept**2), kappa**2])
    move = np.array([[kept, 1.0], [0.0, 1 - shrink]])
    if rests(sigma2, shrink):
        left = np.eye(4) - np.kron(move, move)
        spread = np.linalg.solve(left, noise.ravel()).reshape(2, 2)
    else:
        spread = noise  # at rest at the weights, one step before the first gradient
    for weight, gradient in enumerate(GRADIENTS.T.copy()):
        held = np.concatenate([FIRST[weight : weight + 1], path[:-1, weight]])
        h = gradient**2
        kalman = KalmanFilter(k_endog=1, k_states=2, tolerance=0)
        kalman.bind(gradient[:, None])
        kalman["design"] = np.stack([-h, 0 * h])[None]
        kalman["obs_intercept"] = (h * held)[None]
        kalman["obs_cov"] = h[None, None]
        kalman["transition"], kalman["state_cov"] = move, noise
        kalman["selection"] = np.eye(2)
        kalman.initialize_known(np.array([FIRST[weight], 0.0]), spread)
        book = kalman.filter()
        assert_allclose(path[:, weight], book.predicted_state[0, 1:], rtol=1e-10, atol=1e-10)
        last = book.filtered_state_cov[0, 0, -1]
        assert_allclose(posterior_variance(state)[weight], last, rtol=1e-9)


@pytest.mark.parametrize("sigma2", [0.4, np.inf])
def test_without_velocity_it_is_the_diagonal_filter(sigma2):
    still = badam(ETA, sigma2, batch_size=8, velocity_shrink=1.0, velocity_drift_scale=0.0)
    shrink = float(-np.expm1(-(ETA**2) / (2 * sigma2)))
    settings = {"batch_size": 8, "weight_decay": shrink, "decay_order": "after"}
    ours, state = run(still)
    plain, plain_state = run(adabayes(ETA, sigma2, b1=0.0, **settings))
    assert_allclose(ours, plain, rtol=1e-13, atol=1e-14)
    assert_allclose(posterior_variance(state), posterior_variance(plain_state), rtol=1e-12)
    assert_allclose(effective_learning_rate(state), 8 * posterior_variance(state), rtol=1e-15)


def test_brmsprop_is_adabayes_without_a_running_mean():
    settings = {"batch_size": 8, "weight_decay": 0.01, "decay_order": "after"}
    ours, _ = run(brmsprop(ETA, 0.4, **settings))
    theirs, _ = run(adabayes(ETA, 0.4, b1=0.0, **settings))
    assert_array_equal(ours, theirs)
    # by hand, in AdaBayes' units: p <- 1/(1/(a2 p + q) + g^2), w <- (1-s)(w - p g)
    a2 = np.exp(-(ETA**2) / 0.4)
    p, w = np.full(4, 0.4), FIRST
    for gradient in 8 * GRADIENTS:
        p = 1 / (1 / (a2 * p + 0.4 * (1 - a2)) + gradient**2)
        w = 0.99 * (w - p * gradient)
    assert_allclose(ours[-1], w, rtol=1e-12)


def test_by_default_a_velocity_carries_an_optimum_as_far_as_its_own_drift():
    """Long-run diffusion per step: eta^2 of its own, (kappa/c)^2 through the velocity."""
    default = badam(ETA, np.inf, batch_size=1, velocity_shrink=0.2)
    given_ = badam(ETA, np.inf, batch_size=1, velocity_shrink=0.2, velocity_drift_scale=0.2 * ETA)
    assert_allclose(run(default)[0], run(given_)[0], rtol=1e-14)
    # without information the variance grows by eta^2 + (kappa/c)^2 = 2 eta^2 a step
    silent = np.zeros((2_000, 1))
    variance = [
        float(posterior_variance(run(default, silent[:n], np.ones(1))[1])[0])
        for n in (1_000, 2_000)
    ]
    assert_allclose((variance[1] - variance[0]) / 1_000, 2 * ETA**2, rtol=1e-9)


def test_the_shrink_acts_on_the_position_and_not_on_the_velocity():
    made = scale_by_velocity(ETA, 0.4, weight_decay=0.25, mask={"w": True, "b": False})
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    gradient = jax.tree.map(lambda w: 3.0 * jnp.ones_like(w), params)
    updates, state = made.update(gradient, made.init(params), params)
    moved = params["w"] - posterior_variance(state)["w"] * 3.0
    assert_allclose(params["w"] + updates["w"], 0.75 * moved + state.velocity["w"], rtol=1e-14)
    assert_allclose(params["b"] + updates["b"], moved + state.velocity["b"], rtol=1e-14)
    assert np.all(state.velocity["w"] < 0)


def test_schedules_are_read_at_the_step_that_they_are_for():
    def fading(step):
        return jnp.maximum(1 - jnp.asarray(step, float) / 20, 0)

    made = badam(
        lambda t: ETA * fading(t),
        lambda t: 0.4 * fading(t),
        batch_size=1,
        velocity_drift_scale=lambda t: 0.01 * fading(t),
    )
    path, state = run(made)
    w, velocity = FIRST, np.zeros(4)
    start = badam(ETA, 0.4, batch_size=1, velocity_drift_scale=0.01).init(jnp.asarray(FIRST))[1]
    v, beta, r = (
        np.asarray(x) for x in (start.variance, start.coupling, start.unexplained_variance)
    )
    spread = np.array([[v, beta * v], [beta * v, beta**2 * v + r]])
    for t, gradient in enumerate(GRADIENTS):
        s = max(1 - t / 20, 0.0)
        eta, sigma2 = ETA * s, 0.4 * s
        kept = np.exp(-(eta**2) / (2 * sigma2)) if s > 0 else 1.0
        move = np.array([[kept, 1.0], [0.0, 0.9]])
        spread = np.einsum("ij,jkw,lk->ilw", move, spread, move)
        spread += np.diag([sigma2 * (1 - kept**2), (0.01 * s) ** 2])[..., None]
        information = gradient**2 / (1 + gradient**2 * spread[0, 0])
        spread = spread - information * spread[:, :1] * spread[:1]
        position = w - spread[0, 0] * gradient
        velocity = 0.9 * velocity - spread[0, 1] * gradient
        w = kept * position + velocity
        assert_allclose(path[t], w, rtol=1e-9)
    assert_allclose(posterior_variance(state), spread[0, 0], rtol=1e-8)


def test_the_exact_tie_keeps_its_digits_and_rests_where_nothing_drifts():
    shrink = exact_tied_shrink(lambda t: 1e-3 * (1 - t), lambda t: 5.0 * (1 - t))
    assert_allclose(shrink(0), -np.expm1(-1e-7), rtol=1e-14)
    assert float(shrink(1)) == 0


def test_check_E6_a_running_mean_of_gradients_gives_nothing_on_a_random_walk():
    """Tracking error of b1 = 0.9 against b1 = 0, each weight a walk of its own, paired."""
    eta, h, size, steps = 0.1, 2.0, 4_000, 300
    rng = np.random.default_rng(1)
    moves = jnp.asarray(eta * rng.standard_normal((steps, size)))
    noise = jnp.asarray(np.sqrt(h) * rng.standard_normal((steps, size)))

    def error(b1):
        optimizer = adabayes(eta, np.inf, batch_size=1, b1=b1)

        def step(carry, shake):
            (weights, state), optimum = carry
            optimum = optimum + shake[0]
            gradient = h * (weights - optimum) + shake[1]
            updates, state = optimizer.update(gradient, state, weights)
            square = jnp.square(weights - optimum)
            return ((weights + updates, state), optimum), square

        start = jnp.zeros(size)
        carry = ((start, optimizer.init(start)), start)
        _, squares = jax.lax.scan(step, carry, (moves, noise))
        return jnp.mean(squares[steps // 2 :], axis=0)

    plain, averaged = (np.asarray(jax.jit(error, static_argnums=0)(b1)) for b1 in (0.0, 0.9))
    gain = plain - averaged
    standard_error = gain.std() / np.sqrt(size)
    assert gain.mean() < 2 * standard_error
    assert gain.mean() < -5 * standard_error  # it even costs


decades = st.floats(-6, 6).map(lambda e: 10.0**e)


@settings(max_examples=60)
@given(
    eta=decades,
    sigma2=st.one_of(decades, st.just(np.inf)),
    shrink=st.floats(0, 1),
    kappa=st.one_of(decades, st.just(0.0)),
    loud=decades,
)
def test_over_twelve_decades_nothing_is_nan_and_no_variance_negative(
    eta, sigma2, shrink, kappa, loud
):
    gradients = jnp.asarray(GRADIENTS[:8]) * loud
    path, state = wide_run(eta, sigma2, shrink, kappa, gradients)
    for leaf in (path, state.variance, state.coupling, state.unexplained_variance, state.velocity):
        assert np.all(np.isfinite(leaf))
    assert np.all(state.variance >= 0)
    assert np.all(state.unexplained_variance >= 0)
    assert np.all((state.coupling >= 0) & (state.coupling <= 1 - shrink + 1e-12))


@jax.jit
def wide_run(eta, sigma2, shrink, kappa, gradients):
    made = badam(eta, sigma2, batch_size=1, velocity_shrink=shrink, velocity_drift_scale=kappa)
    first = jnp.asarray(FIRST)

    def step(carry, gradient):
        params, state = carry
        updates, state = made.update(gradient, state, params)
        return (params + updates, state), params + updates

    (_, state), path = jax.lax.scan(step, (first, made.init(first)), gradients)
    return path, state[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drift_scale": 0.0}, "drift_scale"),
        ({"stationary_variance": -1.0}, "stationary_variance"),
        ({"velocity_shrink": 1.5}, "velocity_shrink <= 1"),
        ({"velocity_shrink": np.nan}, "velocity_shrink <= 1"),
        ({"velocity_shrink": lambda t: 0.1}, "velocity_shrink"),
        ({"velocity_drift_scale": -1.0}, "velocity_drift_scale >= 0"),
        ({"weight_decay": 2.0}, "<= 1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_a_bad_argument_is_refused_at_once(change, words):
    good = {"drift_scale": 0.1, "stationary_variance": 1.0, "batch_size": 4}
    with pytest.raises(ValueError, match=words):
        badam(**{**good, **change})


def test_an_update_without_weights_and_weights_of_integers_are_refused():
    made = badam(0.1, 1.0, batch_size=4)
    with pytest.raises(ValueError, match="params"):
        made.update(jnp.ones(2), made.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="int32"):
        made.init(jnp.ones(2, "int32"))
