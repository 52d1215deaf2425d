"""The velocity filter: three oracles, its limits, and where its momentum comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from bayesfilt.filters import (
    GradientStream,
    VelocityBelief,
    diagonal_filter,
    filter_stream,
    stream_log_likelihood,
    velocity_filter,
)
from bayesfilt.filters.reference import reference_velocity_stream
from bayesfilt.filters.velocity import (
    Covariance,
    conditioned_velocity,
    predicted_covariance,
    predicted_position,
    stationary_covariance,
    stationary_velocity_variance,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
DRIFT = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=0.5)
RANDOM_WALK = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=np.inf)


def run(made, stream=None):
    stream = made.stream if stream is None else stream
    likelihood = stream_log_likelihood(made.kalman, made.belief, stream, precision_from="curvature")
    return filter_stream(made.kalman, made.belief, stream), likelihood


def assert_moments(belief, mean, covariance):
    """`mean` [..., 2] and `covariance` [..., 2, 2] are what the belief says."""
    assert_allclose(belief.mean, mean[..., 0], **TIGHT)
    assert_allclose(belief.velocity, mean[..., 1], **TIGHT)
    assert_allclose(belief.variance, covariance[..., 0, 0], **TIGHT)
    assert_allclose(belief.covariance, covariance[..., 0, 1], **TIGHT)
    assert_allclose(belief.velocity_variance, covariance[..., 1, 1], **TIGHT)


def at_index(belief, i):
    return jax.tree.map(lambda leaf: leaf[i], belief)


MODELS = [(0.3, 1.7, 0.15, 0.2), (0.3, np.inf, 0.0, 0.05), (0.4, 0.6, 1.0, 0.3), (0.2, 2.0, 0.1, 0)]


@pytest.mark.equation("VEL-1")
@pytest.mark.equation("VEL-2")
@pytest.mark.equation("VEL-3")
@pytest.mark.parametrize(
    ("missing", "rebased"), [(0.0, True), (0.4, True), (1.0, True), (0.4, False)]
)
@pytest.mark.parametrize("numbers", MODELS)
def test_the_filter_is_its_literal_twin(moving_world, numbers, missing, rebased):
    made = moving_world(1, missing=missing, numbers=numbers)
    stream = made.stream if rebased else made.stream._replace(taken_at=None)
    filtered, likelihood = run(made, stream)
    start = np.stack([made.mean, np.zeros(3)], -1)
    spread = np.stack([made.variance, np.zeros(3), np.zeros(3), made.velocity_variance], -1)
    twin = reference_velocity_stream(*stream, start, spread.reshape(3, 2, 2), *numbers)
    assert_moments(filtered.predicted, twin.predicted_mean, twin.predicted_covariance)
    assert_moments(filtered.conditioned, twin.conditioned_mean, twin.conditioned_covariance)
    assert_moments(filtered.last, twin.last_mean, twin.last_covariance)
    assert_allclose(filtered.innovation.mean, twin.innovation_mean, **TIGHT)
    assert_allclose(filtered.innovation.variance, twin.innovation_variance, **TIGHT)
    assert_allclose(likelihood, twin.log_likelihood, **TIGHT)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_filter_is_the_dense_joint_gaussian(moving_world, missing):
    made = moving_world(2, steps=15, missing=missing)
    filtered, likelihood = run(made)
    gradient, precision, taken_at, valid = made.stream
    steps, (move, noise) = len(valid), made.matrices
    total = 0.0
    for weight in range(3):
        # all positions and velocities, as a linear map of the start and of every shake
        size = 2 * (steps + 1)
        mix = np.eye(size)
        for t in range(steps):
            mix[2 * t + 2 : 2 * t + 4] += move @ mix[2 * t : 2 * t + 2]
        start = np.diag([made.variance[weight], made.velocity_variance[weight]])
        source = np.kron(np.eye(steps + 1), noise)
        source[:2, :2] = start
        mean = mix[:, 0] * made.mean[weight]
        joint = mix @ source @ mix.T
        h = precision[:, weight]
        observed = h * taken_at[:, weight] - gradient[:, weight]
        design = np.zeros((steps, size))
        design[np.arange(steps), 2 * np.arange(steps)] = h
        for t in range(steps + 1):
            seen = valid & (np.arange(steps) < t)
            c = design[seen]
            spread = c @ joint @ c.T + np.diag(h[seen])
            gain = np.linalg.solve(spread, c @ joint).T
            surprise = observed[seen] - c @ mean
            m, s = mean + gain @ surprise, joint - gain @ c @ joint
            now, before = slice(2 * t, 2 * t + 2), slice(2 * t - 2, 2 * t)
            told = filtered.last if t == steps else at_index(filtered.predicted, t)
            assert_moments(at_index(told, weight), m[now], s[now, now])
            if t > 0:
                told = at_index(at_index(filtered.conditioned, t - 1), weight)
                assert_moments(told, m[before], s[before, before])
        total -= 0.5 * (surprise @ np.linalg.solve(spread, surprise))
        total -= 0.5 * (np.linalg.slogdet(spread)[1] + seen.sum() * np.log(2 * np.pi))
    assert_allclose(likelihood, total, **TIGHT)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_check_E5_the_filter_is_the_two_state_kalman_filter_of_a_library(moving_world, missing):
    made = moving_world(3, steps=60, missing=missing)
    precision = made.stream.precision.copy()
    precision[5:20:3, 1] = 0.0  # one weight of a step is missing too
    gradient, _, taken_at, valid = made.stream
    gradient = np.where(precision == 0, np.nan, gradient)
    made = made._replace(stream=GradientStream(gradient, precision, taken_at, valid))
    filtered, likelihood = run(made)
    total = 0.0
    for weight in range(3):
        h = precision[:, weight]
        kalman = KalmanFilter(k_endog=1, k_states=2, tolerance=0)
        kalman.bind(np.where(valid & (h != 0), gradient[:, weight], np.nan)[:, None])
        kalman["design"] = np.stack([-h, 0 * h])[None]
        kalman["obs_intercept"] = (h * taken_at[:, weight])[None]
        kalman["obs_cov"] = h[None, None]
        kalman["transition"], kalman["state_cov"] = made.matrices
        kalman["selection"] = np.eye(2)
        start = np.diag([made.variance[weight], made.velocity_variance[weight]])
        kalman.initialize_known(np.array([made.mean[weight], 0.0]), start)
        book = kalman.filter()
        one = jax.tree.map(lambda x, w=weight: x[:, w], (filtered.predicted, filtered.conditioned))
        spread = np.moveaxis(book.predicted_state_cov, -1, 0)
        assert_moments(one[0], book.predicted_state.T[:-1], spread[:-1])
        spread = np.moveaxis(book.filtered_state_cov, -1, 0)
        assert_moments(one[1], book.filtered_state.T, spread)
        seen = valid & (h != 0)
        surprise = filtered.innovation.mean[seen, weight]
        assert_allclose(surprise, book.forecasts_error[0, seen], **TIGHT)
        total += book.llf_obs.sum()
    assert_allclose(likelihood, total, **TIGHT)


@pytest.mark.parametrize("transition", [DRIFT, RANDOM_WALK])
def test_check_E6_without_velocity_it_is_the_diagonal_filter(moving_world, transition):
    """A random walk has nothing for a momentum to follow, and none appears."""
    made = moving_world(4, missing=0.2)
    still = velocity_filter(transition, velocity_shrink=1.0, velocity_drift_scale=0.0)
    plain = diagonal_filter(transition)
    one = filter_stream(still, still.init(made.mean, made.variance), made.stream)
    other = filter_stream(plain, plain.init(made.mean, made.variance), made.stream)
    for name in ("predicted", "conditioned", "last"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert_allclose(ours.mean, theirs.mean, rtol=1e-13)
        assert_allclose(ours.variance, theirs.variance, rtol=1e-13)
        for leaf in (ours.velocity, ours.coupling, ours.unexplained_variance):
            assert_array_equal(leaf, np.zeros_like(leaf))
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-12), one.innovation, other.innovation)
    if transition is DRIFT:
        start, plainly = still.init(made.mean), plain.init(made.mean)
        assert_allclose(start.variance, plainly.variance, rtol=1e-14)
    slowest = OrnsteinUhlenbeck(1e-170, 2.0)  # its square is no number
    still = velocity_filter(slowest, velocity_shrink=1.0, velocity_drift_scale=0.0)
    assert_array_equal(still.init(jnp.zeros(())).variance, 2.0)


def settled(kalman, h):
    """Predicted belief after very many gradients worth `h`."""
    zero, h = jnp.zeros(()), jnp.asarray(h)
    step = jax.jit(lambda _, belief: kalman.predict(kalman.condition(belief, zero, h)))
    return jax.lax.fori_loop(0, 5_000, step, kalman.init(zero, 1.0))


def resting_covariance(move, noise):
    """S = F S F' + Q solved as one linear system."""
    size = len(move)
    left = np.eye(size * size) - np.kron(move, move)
    return np.linalg.solve(left, noise.ravel()).reshape(size, size)


@pytest.mark.equation("VEL-1")
def test_check_E5_settled_it_is_look_ahead_direct_step_and_momentum():
    """look = (1-s)w + u; g there; w = look - k_w g; u = (1-c)u - k_u g: three lines, no filter."""
    kalman = velocity_filter(DRIFT, velocity_shrink=0.1, velocity_drift_scale=0.02)
    h, kept = 3.0, np.exp(-(0.2**2) / (2 * 0.5))
    belief = settled(kalman, h)
    v, covariance = float(belief.variance), float(belief.covariance)
    position_gain = v / (1 + h * v)
    velocity_gain = covariance / (1 + h * v)
    look, velocity = 0.4, -0.3
    belief = VelocityBelief(jnp.asarray(look), jnp.asarray(velocity), *belief[2:])
    for gradient in (0.7, -2.0, 0.1, 5.0):
        belief = kalman.condition(belief, jnp.asarray(gradient), jnp.asarray(h))
        weight = look - position_gain * gradient
        velocity = velocity - velocity_gain * gradient
        assert_allclose([belief.mean, belief.velocity], [weight, velocity], rtol=1e-11)
        belief = kalman.predict(belief)
        look, velocity = kept * weight + velocity, 0.9 * velocity
        assert_allclose([belief.mean, belief.velocity], [look, velocity], rtol=1e-11)
    # momentum's gain is below b times the direct one: a direct term is left over
    assert 0.01 * position_gain < velocity_gain < 0.9 * position_gain


def test_check_E5_with_loud_velocity_noise_it_is_nesterov_of_a_library():
    """q -> 0 and kappa^2 h large: coupling b, gain 1/h; optax keeps the look-ahead weights."""
    memory, h = 0.8, 4.0
    walk = OrnsteinUhlenbeck(1e-7, np.inf)
    kalman = velocity_filter(walk, velocity_shrink=1 - memory, velocity_drift_scale=1e6)
    belief = kalman.predict(kalman.predict(kalman.init(jnp.asarray(0.3), 0.0, 0.0)))
    nesterov = optax.sgd(1 / h, momentum=memory, nesterov=True)
    weight = jnp.asarray(0.3)
    state = nesterov.init(weight)
    for gradient in (1.0, -0.4, 2.5, 0.3, -3.0, 0.7):
        gradient = jnp.asarray(gradient)
        belief = kalman.predict(kalman.condition(belief, gradient, jnp.asarray(h)))
        updates, state = nesterov.update(gradient, state, weight)
        weight = optax.apply_updates(weight, updates)
        assert_allclose(belief.mean, weight, rtol=1e-6)


def plain_tracker_error(h, q, memory, kappa, gain, average):
    """Exact mean-square error of x' = x - K m, m' = b1 m + (1-b1) g, on a moving optimum."""
    b = average
    # of (x - w*, velocity, m), before a gradient
    error = np.array([1 - gain * (1 - b) * h, -1.0, -gain * b])
    move = np.array([error, [0.0, memory, 0.0], [(1 - b) * h, 0.0, b]])
    if np.abs(np.linalg.eigvals(move)).max() >= 1:
        return np.inf
    noise = np.diag([q, kappa**2, 0.0])
    shake = np.array([-gain * (1 - b), 0.0, 1 - b]) * np.sqrt(h)
    return resting_covariance(move, noise + np.outer(shake, shake))[0, 0]


def least_error(*model, average):
    gains = np.geomspace(1e-3, 2.0, 600)
    return min(plain_tracker_error(*model, gain, average) for gain in gains)


def test_check_E6_momentum_gives_nothing_on_a_random_walk():
    h, q = 2.0, 0.01
    errors = [least_error(h, q, 0.0, 0.0, average=b) for b in (0.0, 0.3, 0.6, 0.9)]
    assert np.all(np.diff(errors) > 0.01 * errors[0])
    walk = diagonal_filter(OrnsteinUhlenbeck(0.1, np.inf))
    assert_allclose(errors[0], settled(walk, h).variance, rtol=1e-4)


def test_check_E5_a_velocity_that_is_there_is_worth_following():
    """The filter's error is what it says, and below every tuned tracker without a velocity."""
    h, memory, kappa = 2.0, 0.9, 0.03
    kalman = velocity_filter(
        OrnsteinUhlenbeck(0.05, np.inf), velocity_shrink=1 - memory, velocity_drift_scale=kappa
    )
    belief = settled(kalman, h)
    v, covariance = float(belief.variance), float(belief.covariance)
    gain = np.array([v, covariance]) / (1 + h * v)
    move = np.array([[1.0, 1.0], [0.0, memory]])
    closed = move @ (np.eye(2) - np.outer(gain, [h, 0.0]))
    noise = np.diag([0.05**2, kappa**2]) + h * np.outer(move @ gain, move @ gain)
    error = resting_covariance(closed, noise)
    assert_allclose(error[0, 0], v, rtol=1e-9)
    best = min(least_error(h, 0.05**2, memory, kappa, average=b) for b in (0.0, 0.3, 0.5, 0.7, 0.9))
    assert v < 0.97 * best


@pytest.mark.equation("VEL-2")
@pytest.mark.equation("VEL-3")
def test_one_step_by_hand():
    """v=2, covariance 1, velocity variance 3/2, halved by h=1/2; then a = b = 1/2 by hand."""
    belief = VelocityBelief(*map(jnp.asarray, (1.0, -1.0, 2.0, 0.5, 1.0)))
    half = velocity_filter(
        OrnsteinUhlenbeck(np.sqrt(2 * np.log(2)), 1.0),
        velocity_shrink=0.5,
        velocity_drift_scale=2.0,
    )
    after = half.condition(belief, jnp.asarray(3.0), jnp.asarray(0.5))
    moments = [after.variance, after.covariance, after.velocity_variance]
    assert_allclose(moments, [1.0, 0.5, 1.25], rtol=1e-14)
    assert_allclose([after.mean, after.velocity], [1 - 3.0, -1 - 1.5], rtol=1e-14)
    velocity = conditioned_velocity(
        belief.velocity, belief.coupling, after.variance, jnp.asarray(3.0)
    )
    assert_allclose(velocity, after.velocity, rtol=1e-15)
    then = half.predict(after)
    assert_allclose([then.mean, then.velocity], [-1 - 2.5, -1.25], rtol=1e-14)
    moments = [then.variance, then.covariance, then.velocity_variance]
    assert_allclose(moments, [0.25 + 0.5 + 1.25 + 0.75, 0.125 + 0.625, 0.3125 + 4], rtol=1e-14)
    assert_allclose(predicted_position(after.mean, after.velocity, 0.5), then.mean, rtol=1e-14)


@pytest.mark.equation("VEL-4")
@pytest.mark.parametrize("numbers", [MODELS[0], MODELS[2], MODELS[3], (1e-3, 4.0, 1e-3, 1e-4)])
def test_by_default_it_begins_where_the_model_rests(moving_world, numbers):
    made = moving_world(5, numbers=numbers)
    start = made.kalman.init(jnp.zeros(()))
    rest = resting_covariance(*made.matrices)
    assert_allclose(start.variance, rest[0, 0], rtol=1e-7)
    assert_allclose(start.covariance, rest[0, 1], rtol=1e-7)
    assert_allclose(start.velocity_variance, rest[1, 1], rtol=1e-7)
    again = made.kalman.predict(start)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-12), again[2:], start[2:])
    eta, sigma2, shrink, kappa = numbers
    covariance = stationary_covariance(OrnsteinUhlenbeck(eta, sigma2), shrink, kappa)
    assert_allclose(covariance, [start.variance, start.coupling, start.unexplained_variance])
    assert_allclose(stationary_velocity_variance(shrink, kappa), rest[1, 1], rtol=1e-7, atol=0)


def test_the_likelihood_prefers_the_motion_that_made_the_stream(moving_world):
    made = moving_world(10, steps=1_500)
    truth = run(made)[1]
    for numbers in [(0.3, 1.7, 0.6, 0.2), (0.3, 1.7, 0.15, 0.4), (0.6, 1.7, 1.0, 0.0)]:
        assert truth > run(made._replace(numbers=numbers))[1] + 10


@pytest.mark.equation("VEL-2")
@settings(max_examples=100)
@given(*[st.floats(-3, 3).map(lambda e: 10.0**e)] * 2, *[st.floats(0.0, 1.0)] * 5)
def test_three_numbers_predict_as_a_matrix_does(v, r, coupling, shrink, c, q, kappa2):
    start = Covariance(variance=v, coupling=coupling, unexplained_variance=r)
    q = q + 1e-3
    after = predicted_covariance(start, shrink, q, shrink * (2 - shrink), c, kappa2)
    covariance = coupling * v
    matrix = np.array([[v, covariance], [covariance, coupling * covariance + r]])
    move = np.array([[1 - shrink, 1.0], [0.0, 1 - c]])
    wanted = move @ matrix @ move.T + np.diag([q, kappa2])
    p, beta, left = map(float, after)
    got = [[p, beta * p], [beta * p, beta**2 * p + left]]
    assert_allclose(got, wanted, rtol=1e-11, atol=1e-11 * wanted.max())
