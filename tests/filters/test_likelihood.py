"""The likelihood of a stream: its value's meaning, its derivatives, its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bayesfilt.filters import (
    GradientStream,
    diagonal_filter,
    filter_stream,
    steady_state_filter,
    stream_log_likelihood,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

every_filter = pytest.mark.parametrize("make_filter", [diagonal_filter, steady_state_filter])


def likelihood_of(world, transition, make_filter=diagonal_filter, stream=None):
    kalman = make_filter(transition)
    belief = kalman.init(world.mean, world.variance)
    stream = world.stream if stream is None else stream
    return stream_log_likelihood(kalman, belief, stream, precision_from="curvature")


def central_difference(function, at, step=1e-4):
    """Fourth-order difference in the logarithm of the argument, per unit of the argument."""
    up, down = function(at * np.exp(step)), function(at * np.exp(-step))
    far_up, far_down = function(at * np.exp(2 * step)), function(at * np.exp(-2 * step))
    return float((8 * (up - down) - (far_up - far_down)) / (12 * step) / at)


@pytest.mark.equation("KF-6")
@every_filter
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_likelihood_has_the_derivatives_of_its_differences(world, make_filter, missing):
    made = world(1, steps=60, missing=missing)
    holes = made.stream.gradient.copy()
    holes[~made.stream.valid] = np.nan
    stream = made.stream._replace(gradient=holes)

    def score(drift_scale, stationary_variance):
        transition = OrnsteinUhlenbeck(drift_scale, stationary_variance)
        return likelihood_of(made, transition, make_filter, stream)

    eta, sigma2 = 0.25, 1.1  # not the truth, where both derivatives would be small
    by_eta, by_sigma2 = jax.jit(jax.grad(score, argnums=(0, 1)))(eta, sigma2)
    assert_allclose(by_eta, central_difference(lambda x: score(x, sigma2), eta), rtol=1e-7)
    assert_allclose(by_sigma2, central_difference(lambda x: score(eta, x), sigma2), rtol=1e-7)
    assert abs(by_eta) > 1e-3 and abs(by_sigma2) > 1e-3


def test_a_random_walk_has_a_derivative_by_its_drift_scale(world):
    made = world(2, stationary_variance=np.inf)

    def score(drift_scale):
        return likelihood_of(made, OrnsteinUhlenbeck(drift_scale, np.inf))

    assert_allclose(jax.grad(score)(0.2), central_difference(score, 0.2), rtol=1e-7)


def test_derivatives_are_finite_around_holes(world):
    """By the start and by the stream, with NaN in missing steps and weights of precision 0."""
    made = world(3, missing=0.3)
    gradient, precision, taken_at = (leaf.copy() for leaf in made.stream[:3])
    for leaf in (gradient, precision, taken_at):
        leaf[~made.stream.valid] = np.nan
    gradient[::4, 1], precision[::4, 1] = np.nan, 0.0
    gradient[~made.stream.valid] = np.nan
    precision[~made.stream.valid] = np.nan
    stream = GradientStream(gradient, precision, taken_at, made.stream.valid)
    kalman = diagonal_filter(made.transition)

    def score(belief, leaves):
        given = GradientStream(*leaves, valid=stream.valid)
        return stream_log_likelihood(kalman, belief, given, precision_from="curvature")

    slopes = jax.grad(score, argnums=(0, 1))(kalman.init(made.mean, made.variance), stream[:3])
    for leaf in jax.tree.leaves(slopes):
        assert np.isfinite(leaf).all()


@every_filter
def test_vmap_over_transitions_gives_each_its_likelihood(world, make_filter):
    made = world(4, missing=0.2)
    etas, sigmas = jnp.array([0.1, 0.3, 0.9]), jnp.array([0.5, 1.7, jnp.inf])

    def score(eta, sigma2):
        return likelihood_of(made, OrnsteinUhlenbeck(eta, sigma2), make_filter)

    together = jax.vmap(score)(etas, sigmas)
    alone = [score(float(e), float(s)) for e, s in zip(etas, sigmas, strict=True)]
    assert_allclose(together, alone, rtol=1e-12)


def test_the_likelihood_prefers_the_drift_that_made_the_stream(world):
    made = world(5, steps=3_000, precision_scale=20.0)
    eta, sigma2 = made.transition
    truth = likelihood_of(made, made.transition)
    for factor in (0.5, 2.0):
        assert truth > likelihood_of(made, OrnsteinUhlenbeck(eta * factor, sigma2)) + 10


def test_a_stream_with_nothing_in_it_says_nothing(world):
    empty = world(6, steps=0)
    assert likelihood_of(empty, empty.transition) == 0
    unseen = world(6, missing=1.0)
    assert likelihood_of(unseen, unseen.transition) == 0


@pytest.mark.parametrize("make_filter", [diagonal_filter])
def test_innovations_of_the_true_model_are_white_and_of_the_size_foreseen(world, make_filter):
    steps, weights = 200, 2_000
    made = world(7, steps=steps, weights=weights, missing=0.2)
    kalman = make_filter(made.transition)
    belief = kalman.init(made.mean, made.variance)
    filtered = filter_stream(kalman, belief, made.stream)
    valid = made.stream.valid
    surprise = filtered.innovation.mean[valid] / np.sqrt(filtered.innovation.variance[valid])
    count = surprise.size
    assert abs(surprise.mean()) < 5 / np.sqrt(count)
    assert abs((surprise**2).mean() - 1) < 5 * np.sqrt(2 / count)
    for lag in (1, 2, 5):
        assert abs((surprise[lag:] * surprise[:-lag]).mean()) < 5 / np.sqrt(count - lag * weights)
    # weights are independent and steps of one weight are not: average over time first
    errors = (made.optimum - filtered.predicted.mean) ** 2 / filtered.predicted.variance
    per_weight = errors.mean(axis=0)
    assert abs(per_weight.mean() - 1) < 5 * per_weight.std() / np.sqrt(weights)


def test_a_long_float32_stream_is_added_up_in_float64(world):
    made = world(8, steps=50_000, weights=2)
    single = GradientStream(
        *(leaf.astype(np.float32) for leaf in made.stream[:3]), valid=made.stream.valid
    )
    double = GradientStream(
        *(leaf.astype(np.float64) for leaf in single[:3]), valid=made.stream.valid
    )
    kalman = diagonal_filter(made.transition)
    values = []
    for dtype, stream in ((np.float32, single), (np.float64, double)):
        belief = kalman.init(np.float32(made.mean).astype(dtype), np.float32(made.variance))
        values.append(stream_log_likelihood(kalman, belief, stream, precision_from="curvature"))
    assert values[0].dtype == jnp.float64
    # one rounding of float32 per term, of random sign; a float32 sum would be off by far more
    terms = 2 * len(made.stream.valid)
    assert abs(values[0] - values[1]) < 20 * np.sqrt(terms) * np.finfo(np.float32).eps


def test_a_likelihood_of_the_gradients_own_square_is_refused(world):
    made = world(9)
    with pytest.raises(ValueError, match="a likelihood is not defined for it"):
        stream_log_likelihood(*given(made), made.stream, precision_from="same_gradient")
    with pytest.raises(ValueError, match="knows precision_from"):
        stream_log_likelihood(*given(made), made.stream, precision_from="fisher")
    with pytest.raises(TypeError, match="precision_from"):
        stream_log_likelihood(*given(made), made.stream)


def given(world, dtype=np.float64):
    kalman = diagonal_filter(world.transition)
    return kalman, kalman.init(world.mean.astype(dtype), world.variance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_square_passed_off_as_a_curvature_is_caught(world, dtype):
    made = world(10, missing=0.3, precision_scale=1e-3)
    gradient = made.stream.gradient.copy()
    gradient[3, 1] = 1e-20  # its square is below float32's normal numbers
    square = (gradient**2).astype(dtype)  # squared before it was rounded
    gradient = gradient.astype(dtype)
    precision = np.where(made.stream.valid[:, None], square, np.nan)
    stream = made.stream._replace(
        gradient=gradient, precision=precision, taken_at=made.stream.taken_at.astype(dtype)
    )
    with pytest.raises(ValueError, match=r"got gradient\*\*2 on every valid step"):
        stream_log_likelihood(*given(made, dtype), stream, precision_from="curvature")
    once = np.flatnonzero(made.stream.valid)[-1]
    precision[once, 0] *= 1.01  # one step that differs is enough to be taken at one's word
    stream = stream._replace(precision=precision)
    assert np.isfinite(
        stream_log_likelihood(*given(made, dtype), stream, precision_from="curvature")
    )


def test_without_float64_the_likelihood_says_how_to_get_it(world, float32_only):
    made = world(11)
    with pytest.raises(ValueError, match='jax.config.update\\("jax_enable_x64", True\\)') as caught:
        stream_log_likelihood(*given(made, np.float32), made.stream, precision_from="curvature")
    assert "\n" not in str(caught.value)
