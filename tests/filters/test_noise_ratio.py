"""Noise that is not the curvature: oracles, when the gain is the variance, and what it costs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from bayesfilt.filters import (
    GradientStream,
    diagonal_filter,
    filter_stream,
    matched_stream,
    noise_ratio_filter,
    stream_log_likelihood,
)
from bayesfilt.filters.noise_ratio import tempered_multiplier, tempered_variance
from bayesfilt.theory.equilibrium import optimal_learning_rate, tracking_error
from bayesfilt.theory.gaussian import condition_dense, kalman_multiplier
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
DRIFT = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=0.5)


def run(kalman, made):
    belief = kalman.init(made.mean, made.variance)
    likelihood = stream_log_likelihood(kalman, belief, made.stream, precision_from="curvature")
    return filter_stream(kalman, belief, made.stream), likelihood


def textbook(made, noise):
    """A library's filter of gradients whose noise variance is `noise`, [steps, weights]."""
    eta, sigma2 = made.transition
    gradient, curvature, taken_at, valid = made.stream
    kept = np.exp(-(eta**2) / (2 * sigma2))
    kalman = KalmanFilter(k_endog=3, k_states=3, tolerance=0)
    kalman.bind(np.where(valid[:, None] & (curvature != 0), gradient, np.nan))
    diagonal = np.eye(3)[:, :, None]
    kalman["design"] = -diagonal * curvature.T
    kalman["obs_intercept"] = (curvature * taken_at).T
    kalman["obs_cov"] = diagonal * noise.T
    kalman["transition"] = kept * np.eye(3)
    kalman["selection"] = np.eye(3)
    kalman["state_cov"] = sigma2 * (1 - kept**2) * np.eye(3)
    kalman.initialize_known(made.mean, np.diag(made.variance))
    return kalman.filter()


def assert_same_as_book(filtered, book):
    assert_allclose(filtered.predicted.mean, book.predicted_state.T[:-1], **TIGHT)
    assert_allclose(filtered.conditioned.mean, book.filtered_state.T, **TIGHT)
    variance = np.einsum("iit->ti", book.filtered_state_cov)
    assert_allclose(filtered.conditioned.variance, variance, **TIGHT)


@pytest.mark.equation("KF-8")
@pytest.mark.equation("KF-6")
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("ratio", [0.05, 1.0, 7.0])
def test_the_filter_is_the_kalman_filter_of_a_library(world, ratio, missing):
    made = world(31, steps=60, missing=missing)
    filtered, likelihood = run(noise_ratio_filter(made.transition, noise_ratio=ratio), made)
    book = textbook(made, ratio * made.stream.precision)
    assert_same_as_book(filtered, book)
    seen = made.stream.valid
    assert_allclose(filtered.innovation.mean[seen], book.forecasts_error.T[seen], **TIGHT)
    spread = np.einsum("iit->ti", book.forecasts_error_cov)
    assert_allclose(filtered.innovation.variance[seen], spread[seen], **TIGHT)
    assert_allclose(likelihood, book.llf_obs.sum(), **TIGHT)


def test_each_weight_may_have_a_ratio_of_its_own(world):
    made = world(32, missing=0.2)
    ratios = np.array([0.1, 1.0, 20.0])
    kalman = noise_ratio_filter(made.transition, noise_ratio=jnp.asarray(ratios))
    assert_same_as_book(run(kalman, made)[0], textbook(made, ratios * made.stream.precision))

    def tree(leaf):
        return {"a": leaf[..., :1], "b": leaf[..., 1:]}

    apart = noise_ratio_filter(made.transition, noise_ratio={"a": 0.1, "b": jnp.array([1.0, 20.0])})
    stream = GradientStream(*map(tree, made.stream[:3]), valid=made.stream.valid)
    belief = apart.init(tree(made.mean), tree(made.variance))
    last = filter_stream(apart, belief, stream, keep="last").last
    assert_allclose(last.mean["b"], run(kalman, made)[0].last.mean[1:], rtol=1e-14)


@pytest.mark.usefixtures("compiled_as_users_do")
@pytest.mark.slow  # to rounding it is seen elsewhere; here all is compiled once more
def test_a_ratio_of_one_is_the_diagonal_filter_bit_for_bit(world):
    made = world(33, missing=0.2)
    leaves = (leaf.astype(np.float32) for leaf in made.stream[:3])
    made = made._replace(
        mean=made.mean.astype(np.float32), stream=GradientStream(*leaves, valid=made.stream.valid)
    )
    one = noise_ratio_filter(made.transition, noise_ratio=1.0)
    plain = diagonal_filter(made.transition)
    jax.tree.map(assert_array_equal, run(one, made), run(plain, made))


@pytest.mark.equation("KF-7")
@pytest.mark.equation("KF-8")
def test_the_stable_forms_are_the_textbooks():
    v, h, r = np.meshgrid(*[10.0 ** np.linspace(-4, 4, 7)] * 3)
    v, h, r = jnp.asarray(v), jnp.asarray(h), jnp.asarray(r)
    factor, variance = tempered_multiplier(v, h, r), tempered_variance(v, h, r)
    assert_allclose(factor, kalman_multiplier(v, h, r * h), rtol=1e-13)
    assert_allclose(variance, r * factor, rtol=1e-13)
    joseph = (1 - factor * h) ** 2 * v + factor**2 * (r * h)
    left = np.asarray(1 - factor * h)  # where few digits are left, Joseph's form has them not
    assert_allclose(variance[left > 1e-3], joseph[left > 1e-3], rtol=1e-11)
    for dtype in (jnp.float32, jnp.float64):  # h² v is beyond float32 here
        loud = tempered_multiplier(jnp.asarray(1e3, dtype), jnp.asarray(1e30, dtype), 2.0)
        assert_allclose(loud, 1e-30, rtol=1e-6)


@pytest.mark.equation("KF-7")
def test_check_A1_the_gain_is_the_posterior_variance_where_noise_is_curvature_and_nowhere_else():
    rng = np.random.default_rng(3)
    belief = diagonal_filter(DRIFT).init(rng.normal(size=5), rng.gamma(2.0, 1.0, 5))
    h, gradient = jnp.asarray(rng.lognormal(0.0, 1.0, 5)), jnp.asarray(rng.normal(size=5))
    for ratio in (0.2, 0.999, 1.0, 1.001, 5.0):
        kalman = noise_ratio_filter(DRIFT, noise_ratio=ratio)
        factor, after = kalman.multiplier(belief, h), kalman.condition(belief, gradient, h)
        assert_allclose(after.mean, belief.mean - factor * gradient, rtol=1e-14)
        assert_allclose(after.variance, ratio * factor, rtol=1e-13)
        assert np.all((factor == after.variance) == (ratio == 1.0))


@pytest.mark.equation("KF-7")
def test_check_A1_for_matrices_the_gain_is_the_posterior_covariance_where_noise_is_curvature():
    rng = np.random.default_rng(4)
    roots = rng.normal(size=(3, 4, 4))
    prior, curvature, other = jnp.asarray(roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(4))
    mean = jnp.zeros(4)

    def gain_and_covariance(noise):
        """The mean moves by minus the gain times the gradient: a column for each unit vector."""
        columns = [condition_dense(mean, prior, e, curvature, noise)[0] for e in jnp.eye(4)]
        return -np.stack(columns, -1), condition_dense(mean, prior, mean, curvature, noise)[1]

    gain, covariance = gain_and_covariance(curvature)
    assert_allclose(gain, covariance, rtol=1e-10, atol=1e-12)
    for noise in (other, 1.1 * curvature):
        gain, covariance = gain_and_covariance(noise)
        assert np.abs(gain - covariance).max() > 1e-3


@pytest.mark.equation("KF-8")
def test_noise_of_its_own_at_every_step_is_noise_like_the_curvature_of_another_stream(world):
    """Against a library that has the curvature, also a negative one, and the noise apart."""
    made = world(34, steps=60, missing=0.3)
    rng = np.random.default_rng(6)
    curvature = made.stream.precision * rng.choice([1.0, -1.0], (60, 3), p=[0.8, 0.2])
    curvature[::5, 1] = 0.0
    noise = rng.lognormal(0.0, 1.0, (60, 3))
    gradient = rng.normal(size=(60, 3))
    book = textbook(
        made._replace(stream=made.stream._replace(gradient=gradient, precision=curvature)), noise
    )
    for leaf in (gradient, curvature, noise):
        leaf[~made.stream.valid] = np.nan
    raw = made.stream._replace(gradient=gradient, precision=curvature)
    plain = diagonal_filter(made.transition)
    filtered, likelihood = run(plain, made._replace(stream=matched_stream(raw, noise)))
    assert_same_as_book(filtered, book)
    seen = made.stream.valid[:, None] & (curvature != 0)
    jacobian = np.log(noise[seen] / np.abs(curvature[seen])).sum()
    assert_allclose(likelihood - jacobian, book.llf_obs.sum(), **TIGHT)


def test_a_matched_stream_has_finite_derivatives_and_may_be_empty(world):
    made = world(35, missing=0.3)
    gradient = made.stream.gradient.copy()
    gradient[~made.stream.valid] = np.nan
    raw = made.stream._replace(gradient=gradient)
    kalman = diagonal_filter(made.transition)
    belief = kalman.init(made.mean, made.variance)

    def score(ratio):
        stream = matched_stream(raw, ratio * made.stream.precision)
        return stream_log_likelihood(kalman, belief, stream, precision_from="curvature")

    def other(ratio):
        one = noise_ratio_filter(made.transition, noise_ratio=ratio)
        return stream_log_likelihood(one, belief, raw, precision_from="curvature")

    observed = 3 * made.stream.valid.sum()
    slope = jax.grad(score)(1.7)
    assert_allclose(slope - observed / 1.7, jax.grad(other)(1.7), rtol=1e-10)
    nothing = jax.tree.map(lambda leaf: leaf[:0], raw)
    assert matched_stream(nothing, np.zeros((0, 3))).precision.shape == (0, 3)


@jax.jit
def settle(kalman, h, start):
    """Belief just before a gradient, after 20,000 steps of precision h."""
    observe = jnp.zeros(h.shape)

    def step(_, belief):
        return kalman.predict(kalman.condition(belief, observe, h))

    return jax.lax.fori_loop(0, 20_000, step, kalman.init(observe, start))


@pytest.mark.equation("EQ-6")
def test_check_B1_the_best_small_gain_is_the_root_of_drift_over_noise_whatever_the_curvature():
    noise, drift = 4.0, 1e-6
    curvature = jnp.array([0.5, 5.0, 50.0])
    walk = OrnsteinUhlenbeck(np.sqrt(drift), np.inf)
    kalman = noise_ratio_filter(walk, noise_ratio=noise / curvature)
    belief = settle(kalman, curvature, np.sqrt(drift * noise) / curvature)
    factor = np.asarray(kalman.multiplier(belief, curvature))
    # the filter's own constant gain is the exact optimum of the error every constant gain leaves
    rates = factor[:, None] * (1 + np.linspace(-0.2, 0.2, 4_001))
    errors = tracking_error(jnp.asarray(rates), curvature[:, None], noise, drift)
    best = np.take_along_axis(rates, np.asarray(errors).argmin(1)[:, None], 1)[:, 0]
    assert_allclose(best, factor, rtol=1.1e-4)  # one grid step
    assert_allclose(np.asarray(errors).min(1), belief.variance, rtol=1e-6)
    # ... and the same for all of them while the gain K c is small: 2.5e-4, 2.5e-3, 2.5e-2
    root = float(optimal_learning_rate(noise, drift))
    assert_allclose(factor / root, 1.0, atol=0.6 * root * 50.0)
    assert np.all(np.abs(factor / root - 1) < 0.6 * root * np.asarray(curvature))
    # while the posterior variance, which a matched filter would use, is not the same for any two
    after = kalman.condition(belief, jnp.zeros(3), curvature).variance
    assert_allclose(after * curvature, noise * factor, rtol=1e-12)


WEIGHTS = 20_000


@jax.jit
def follow(kalman, h, noise, drift, retention):
    """Distances of held weights from optima drawn at random, and the last predicted belief.

    The optima keep `retention` of themselves and move by `drift`, a variance, at every step;
    their gradients have curvature h and noise of variance `noise`, whatever the filter assumes.
    """
    filled = jnp.full(WEIGHTS, h)

    def step(carry, key):
        optimum, belief = carry
        shake, move = jax.random.normal(key, (2, WEIGHTS))
        gradient = h * (belief.mean - optimum) + jnp.sqrt(noise) * shake
        belief = kalman.predict(kalman.condition(belief, gradient, filled))
        return (retention * optimum + jnp.sqrt(drift) * move, belief), None

    settled = settle(kalman, jnp.full((), h), jnp.ones(())).variance
    start = (jnp.zeros(WEIGHTS), kalman.init(jnp.zeros(WEIGHTS), settled))
    keys = jax.random.split(jax.random.key(8), 150)
    (optimum, belief), _ = jax.lax.scan(step, start, keys)
    return optimum - belief.mean, belief


def assert_mean_square(values, wanted):
    squares = np.asarray(values) ** 2
    assert abs(squares.mean() - wanted) < 4 * squares.std() / np.sqrt(len(squares))


@pytest.mark.equation("EQ-6")
@pytest.mark.parametrize(("ratio", "drift_ratio"), [(3.0, 1.0), (0.3, 1.0), (1.0, 4.0)])
def test_check_B4_a_filter_that_is_wrong_about_noise_or_drift_errs_by_the_ratio_foretold(
    ratio, drift_ratio
):
    """(q + p² R)/(2p² h - p³ h²) times what the filter believes, p; its assumptions are R = h."""
    h, eta = 2.0, 0.2
    noise, drift = ratio * h, drift_ratio * eta**2
    kalman = diagonal_filter(OrnsteinUhlenbeck(eta, np.inf))
    distance, belief = follow(kalman, h, noise, drift, 1.0)
    p = float(kalman.condition(belief, belief.mean, jnp.full(WEIGHTS, h)).variance[0])
    calibration = (drift + p**2 * noise) / (2 * p**2 * h - p**3 * h**2)
    assert_mean_square(distance, calibration * p)
    assert abs(calibration * p / float(belief.variance[0]) - 1) > 0.3  # it is wrong, and by much


@pytest.mark.equation("EQ-6")
@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_check_B5_a_filter_that_is_right_errs_as_it_believes_and_keeps_the_whole_variance(ratio):
    """The error is the predicted variance, p/(1 - gain); E m² + error = σ² (total variance)."""
    h, (eta, sigma2) = 2.0, DRIFT
    kalman = noise_ratio_filter(DRIFT, noise_ratio=ratio)
    kept = np.exp(-(eta**2) / (2 * sigma2))
    distance, belief = follow(kalman, h, ratio * h, sigma2 * (1 - kept**2), kept)
    predicted = float(belief.variance[0])
    assert_mean_square(distance, predicted)
    assert_mean_square(belief.mean, sigma2 - predicted)
    factor = float(kalman.multiplier(belief, jnp.full(WEIGHTS, h))[0])
    after = kalman.condition(belief, belief.mean, jnp.full(WEIGHTS, h))
    assert_allclose(predicted / after.variance[0], 1 / (1 - factor * h), rtol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (0.0, "a finite noise_ratio > 0, got noise_ratio=0"),
        (np.inf, "got noise_ratio=inf"),
        (np.nan, "got noise_ratio=nan"),
        ({"w": jnp.array([1.0, -2.0])}, "got noise_ratio=-2"),
        ("1", "a real number for noise_ratio"),
        (None, "a real number for noise_ratio, got noise_ratio=None"),
        (lambda step: 0.1, "a number for noise_ratio, got a schedule"),
        ({"v": 1.0}, "needs a noise_ratio like them, got"),
    ],
)
def test_a_ratio_out_of_range_is_refused(ratio, message):
    with pytest.raises(ValueError, match=message) as caught:
        inspect.unwrap(noise_ratio_filter)(DRIFT, noise_ratio=ratio).init({"w": jnp.zeros(2)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan])
def test_a_noise_that_is_no_variance_is_refused_where_there_is_a_gradient(noise):
    valid = jnp.array([True, False])
    stream = GradientStream(
        gradient=jnp.ones((2, 1)), precision=jnp.ones((2, 1)), taken_at=None, valid=valid
    )
    matched_stream(stream, jnp.array([[1.0], [noise]]))  # nothing was observed there
    with pytest.raises(ValueError, match="needs noise_variance > 0 wherever"):
        matched_stream(stream, jnp.array([[noise], [1.0]]))
