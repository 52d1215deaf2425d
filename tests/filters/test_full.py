"""The full filter: the dense joint Gaussian, the diagonal filter, and where it settles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.filters import (
    Filter,
    FullBelief,
    GradientStream,
    diagonal_filter,
    filter_stream,
    full_filter,
    stream_log_likelihood,
)
from bayesfilt.filters.full import full_log_density, innovation_covariance
from bayesfilt.theory import matrix_steady_state
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from tests.filters.dense import block, posterior

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def run(made, stream=None):
    stream = made.stream if stream is None else stream
    likelihood = stream_log_likelihood(made.kalman, made.belief, stream, precision_from="curvature")
    filtered = filter_stream(made.kalman, made.belief, stream)
    return jax.tree.map(np.asarray, filtered), likelihood  # quick to look into


@pytest.mark.equation("MAT-1", "MAT-8", "MAT-9")
@pytest.mark.parametrize("rank", [None, 2, 1])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_filter_is_the_dense_joint_gaussian(full_world, rank, missing):
    made = full_world(1, rank=rank, missing=missing)
    filtered, likelihood = run(made)
    steps = len(made.stream.valid)
    for t in range(steps + 1):
        mean, covariance, density = posterior(made.dense, before=t)
        if t > 0:
            wanted = block(made.dense, mean, t - 1), block(made.dense, covariance, t - 1)
            assert_allclose(filtered.conditioned.mean[t - 1], wanted[0], **TIGHT)
            assert_allclose(filtered.conditioned.covariance[t - 1], wanted[1], **TIGHT)
        if t < steps:
            wanted = block(made.dense, mean, t), block(made.dense, covariance, t)
            assert_allclose(filtered.predicted.mean[t], wanted[0], **TIGHT)
            assert_allclose(filtered.predicted.covariance[t], wanted[1], **TIGHT)
    assert_allclose(filtered.last.mean, block(made.dense, mean, steps), **TIGHT)
    assert_allclose(filtered.last.covariance, block(made.dense, covariance, steps), **TIGHT)
    _, _, density = posterior(made.dense)
    assert_allclose(likelihood, density, **TIGHT)


@pytest.mark.parametrize("stationary_variance", [1.7, np.inf])
@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
def test_for_independent_weights_it_is_the_diagonal_filter(world, missing, stationary_variance):
    made = world(2, steps=12, missing=missing, stationary_variance=stationary_variance)
    made.stream.precision[::5, 1] = 0.0
    one, all_at_once = diagonal_filter(made.transition), full_filter(made.transition, jnp.eye(3))
    stream = made.stream._replace(precision=jax.vmap(jnp.diag)(made.stream.precision))
    ours = filter_stream(all_at_once, all_at_once.init(made.mean, made.variance), stream)
    theirs = filter_stream(one, one.init(made.mean, made.variance), made.stream)
    for name in ("predicted", "conditioned", "last"):
        assert_allclose(getattr(ours, name).mean, getattr(theirs, name).mean, **TIGHT)
        assert_allclose(getattr(ours, name).variance, getattr(theirs, name).variance, **TIGHT)
        covariance = getattr(ours, name).covariance
        assert_array_equal(covariance * (1 - np.eye(3)), np.zeros_like(covariance))
    assert_allclose(ours.innovation.mean, theirs.innovation.mean, **TIGHT)
    scores = [
        stream_log_likelihood(k, k.init(made.mean, made.variance), s, precision_from="curvature")
        for k, s in ((all_at_once, stream), (one, made.stream))
    ]
    assert_allclose(*scores, **TIGHT)


def test_a_place_left_out_is_the_mean(full_world):
    made = full_world(3, rank=2)
    at_mean = made.stream._replace(taken_at=None)
    filtered = filter_stream(made.kalman, made.belief, at_mean)
    again = made.stream._replace(taken_at=np.asarray(filtered.predicted.mean))
    assert_allclose(run(made, again)[0].last.mean, filtered.last.mean, **TIGHT)


def test_two_gradients_at_once_are_two_in_turn(full_world):
    """Precisions of one optimum add up, and so do gradients re-based to one point."""
    made = full_world(4, rank=2)
    gradient, precision, taken_at, _ = map(jnp.asarray, made.stream)
    one_by_one = made.belief
    for t in (0, 1):
        one_by_one = made.kalman.condition(one_by_one, gradient[t], precision[t], taken_at[t])
    place = made.belief.mean
    rebased = [gradient[t] + precision[t] @ (place - taken_at[t]) for t in (0, 1)]
    at_once = made.kalman.condition(made.belief, sum(rebased), precision[0] + precision[1], place)
    jax.tree.map(lambda a, b: assert_allclose(a, b, **TIGHT), at_once, one_by_one)


@pytest.mark.equation("MAT-3")
@pytest.mark.parametrize("rank", [None, 2])
def test_at_constant_precision_it_settles_on_the_exact_steady_state(full_world, rank):
    made = full_world(5, rank=rank, transition=(0.5, 2.0))
    precision = jnp.asarray(made.stream.precision[0])

    def step(belief, _):
        return made.kalman.predict(made.kalman.condition(belief, jnp.zeros(3), precision)), None

    last, _ = jax.lax.scan(step, made.belief, length=400)
    settled = made.kalman.condition(last, jnp.zeros(3), precision).covariance
    wanted = matrix_steady_state(precision, *made.transition, jnp.asarray(made.drift_shape))
    assert_allclose(settled, wanted, rtol=1e-9, atol=1e-10)


def test_with_no_data_it_rests_on_the_stationary_covariance(full_world):
    made = full_world(6)
    rest = made.kalman.init(jnp.zeros(3))
    assert_allclose(rest.covariance, 1.7 * made.drift_shape, rtol=1e-14)
    assert_allclose(made.kalman.predict(rest).covariance, rest.covariance, rtol=1e-14)
    slowly, _ = jax.lax.scan(lambda b, _: (made.kalman.predict(b), None), made.belief, length=2000)
    assert_allclose(slowly.covariance, rest.covariance, rtol=1e-8)
    plain = full_filter(made.transition).init(jnp.zeros(3))
    assert_array_equal(plain.covariance, 1.7 * np.eye(3))


def test_a_tree_is_its_raveled_weights(full_world):
    made = full_world(7, weights=5, missing=0.2, rank=3)
    flat, likelihood = run(made)

    def split(leaf):
        return {
            "a": leaf[..., :4].reshape(*leaf.shape[:-1], 2, 2),
            "b": [leaf[..., 4], leaf[..., 5:]],
        }

    gradient, precision, taken_at, valid = made.stream
    stream = GradientStream(split(gradient), precision, split(taken_at), valid)
    belief = made.kalman.init(split(made.mean), jnp.asarray(made.covariance))
    filtered = filter_stream(made.kalman, belief, stream)
    score = stream_log_likelihood(made.kalman, belief, stream, precision_from="curvature")
    assert_allclose(score, likelihood, **TIGHT)
    for name in ("predicted", "last"):
        ours, wanted = getattr(filtered, name), getattr(flat, name)
        for field in ("mean", "variance"):
            pairs = jax.tree.map(
                lambda a, b: assert_allclose(a, b, **TIGHT),
                getattr(ours, field),
                split(getattr(wanted, field)),
            )
            assert jax.tree.structure(pairs)
        assert_allclose(ours.covariance, wanted.covariance, **TIGHT)


@pytest.mark.equation("MAT-9")
def test_the_density_of_a_singular_innovation_is_that_on_its_range():
    rng = np.random.default_rng(8)
    basis, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    values = np.array([1e-3, 0.7, 30.0])
    covariance = jnp.asarray((basis[:, :3] * values) @ basis[:, :3].T)
    surprise = basis[:, :3] @ np.array([0.02, -1.0, 4.0])
    along = np.array([0.02, -1.0, 4.0])
    wanted = -0.5 * np.sum(along**2 / values + np.log(2 * np.pi * values))
    assert_allclose(full_log_density(jnp.asarray(surprise), covariance), wanted, rtol=1e-10)
    assert full_log_density(jnp.zeros(4), jnp.zeros((4, 4))) == 0
    assert np.isnan(full_log_density(jnp.zeros(2), jnp.diag(jnp.array([1.0, -1.0]))))


def test_the_density_counts_weights_of_any_size():
    """Precisions from 1e-12 to 1e12 side by side, as the diagonal filter counts them."""
    made = np.array([1e-12, 1e-3, 1e12])
    covariance = jnp.diag(jnp.asarray(made))
    tilt = np.eye(3) + 1e-3 * (1 - np.eye(3))
    covariance = covariance * 0 + jnp.asarray(tilt * np.sqrt(np.outer(made, made)))
    surprise = jnp.asarray(np.sqrt(made))
    scaled = np.linalg.solve(tilt, np.ones(3)).sum() + np.linalg.slogdet(tilt)[1]
    wanted = -0.5 * (scaled + np.log(made).sum() + 3 * np.log(2 * np.pi))
    assert_allclose(full_log_density(surprise, covariance), wanted, rtol=1e-12)


@pytest.mark.equation("MAT-9")
def test_innovations_of_the_model_have_the_covariance_foreseen(full_world):
    made = full_world(9, steps=1500, rank=2)
    filtered, _ = run(made)
    root = np.linalg.pinv(np.asarray(filtered.innovation.variance), rcond=1e-9, hermitian=True)
    surprise = np.asarray(filtered.innovation.mean)
    squared = np.einsum("ti,tij,tj->t", surprise, root, surprise)
    assert abs(squared.mean() - 2) < 4 * np.sqrt(2 * 2 / len(squared))  # chi squared of rank 2
    p, h = made.belief.covariance, jnp.asarray(made.stream.precision[0])
    assert_allclose(innovation_covariance(p, h), h + h @ p @ h, rtol=1e-12)


def test_the_likelihood_prefers_the_drift_that_made_the_stream(full_world):
    made = full_world(10, steps=1500)
    truth = run(made)[1]
    for factor in (0.5, 2.0):
        other = OrnsteinUhlenbeck(0.3 * factor, 1.7)
        assert truth > run(made._replace(transition=other))[1] + 10
    assert truth > run(made._replace(drift_shape=np.diag(np.diag(made.drift_shape))))[1] + 10


def test_it_is_a_filter_whose_belief_says_its_variance(full_world):
    made = full_world(11)
    assert isinstance(made.kalman, Filter)
    belief = made.belief
    assert isinstance(belief, FullBelief)
    assert_allclose(belief.variance, np.diag(made.covariance), rtol=1e-14)
    tree = made.kalman.init(
        {"a": jnp.zeros(2), "b": jnp.zeros(1)}, {"a": np.ones(2), "b": np.array([3.0])}
    )
    assert_array_equal(tree.covariance, np.diag([1.0, 1.0, 3.0]))
    assert_array_equal(tree.variance["b"], [3.0])
