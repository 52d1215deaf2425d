"""The full filter and the smoother in use: types, derivatives, vmap, holes, refusals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.filters import (
    GradientStream,
    diagonal_filter,
    filter_stream,
    full_filter,
    sample_posterior,
    smooth_stream,
    steady_state_filter,
    stream_log_likelihood,
    velocity_filter,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from tests.quick_look import slow_but

DRIFT = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=0.5)
RANDOM_WALK = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=np.inf)
KEY = jax.random.key(3)


def matrices_of(precision):
    return jax.vmap(jnp.diag)(jnp.asarray(precision))


def three_filters(made):
    """Each filter with a stream it takes, from one world of independent weights."""
    diagonal, full = diagonal_filter(made.transition), full_filter(made.transition, jnp.eye(3))
    velocity = velocity_filter(made.transition, velocity_shrink=0.2, velocity_drift_scale=0.1)
    whole = made.stream._replace(precision=matrices_of(made.stream.precision))
    start = (made.mean, made.variance)
    return [
        (diagonal, diagonal.init(*start), made.stream),
        (velocity, velocity.init(*start), made.stream),
        (full, full.init(*start), whole),
    ]


WHICH = pytest.mark.parametrize("which", [0, 1, 2], ids=["diagonal", "velocity", "full"])
DIAGONAL_FIRST = pytest.mark.parametrize("which", slow_but([0], range(3)))  # dear to compile


def everything_of(kalman, belief, stream):
    smoothed = smooth_stream(kalman, belief, stream)
    return smoothed, sample_posterior(KEY, kalman, belief, stream)


@WHICH
def test_a_stream_of_no_step_says_nothing(world, which):
    kalman, belief, stream = three_filters(world(1, steps=0))[which]
    smoothed, path = everything_of(kalman, belief, stream)
    assert smoothed.belief.mean.shape == path.optimum.shape == (0, 3)
    assert smoothed.lag_covariance.shape[0] == 0
    jax.tree.map(assert_array_equal, smoothed.last, belief)
    assert stream_log_likelihood(kalman, belief, stream, precision_from="curvature") == 0


@WHICH
def test_of_a_stream_of_one_step_nothing_later_is_known(world, which):
    kalman, belief, stream = three_filters(world(1, steps=1))[which]
    conditioned = filter_stream(kalman, belief, stream).conditioned
    smoothed = smooth_stream(kalman, belief, stream).belief
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-9, atol=1e-15), smoothed, conditioned)


@DIAGONAL_FIRST
def test_a_mask_that_removes_everything_leaves_the_prior(world, which):
    made = world(2, steps=12, missing=1.0)
    kalman, belief, stream = three_filters(made)[which]
    nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), stream[:3])
    stream = GradientStream(*nothing, stream.valid)
    assert stream_log_likelihood(kalman, belief, stream, precision_from="curvature") == 0
    filtered = filter_stream(kalman, belief, stream)
    smoothed, path = everything_of(kalman, belief, stream)
    assert_allclose(smoothed.belief.mean, filtered.predicted.mean, rtol=1e-9)
    assert_allclose(smoothed.belief.variance, filtered.predicted.variance, rtol=1e-9)
    assert np.isfinite(path.optimum).all()


@DIAGONAL_FIRST
def test_derivatives_are_those_of_differences_and_what_is_missing_reaches_none(world, which):
    """Of likelihood, smoothing and sampling; the differences by vmap over drifts."""
    made = world(4, steps=12, missing=0.3)
    kalman, belief, clean = three_filters(made)[which]
    spoilt = jax.tree.map(lambda leaf: np.array(leaf), clean)
    for leaf, rubbish in zip(spoilt[:3], (np.nan, np.inf, -np.inf), strict=True):
        leaf[~clean.valid] = rubbish

    def score(eta, start, stream):
        changed = kalman._replace(transition=OrnsteinUhlenbeck(eta, 1.3))
        likelihood = stream_log_likelihood(changed, start, stream, precision_from="curvature")
        smoothed, path = everything_of(changed, start, stream)
        seen = (smoothed.belief.mean, smoothed.belief.variance, smoothed.lag_covariance)
        return likelihood + sum(jnp.sum(jnp.sin(leaf) * leaf) for leaf in (*seen, path.optimum))

    step = 1e-5
    both = jax.jit(jax.vmap(lambda eta: score(eta, belief, clean)))
    ends = both(jnp.array([0.3 - step, 0.3 + step]))
    slope, slopes = jax.jit(jax.grad(score, argnums=(0, 1)))(0.3, belief, spoilt)
    assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-6)
    assert abs(slope) > 1e-3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_the_full_likelihood_has_the_derivatives_of_its_differences(full_world):
    made = full_world(5, rank=2, missing=0.2)

    @jax.jit
    def score(eta, shape, start):
        kalman = full_filter(OrnsteinUhlenbeck(eta, 1.3), shape)
        belief = kalman.init(jnp.asarray(made.mean), start * made.covariance)
        return stream_log_likelihood(kalman, belief, made.stream, precision_from="curvature")

    at, step = (0.3, jnp.asarray(made.drift_shape), 0.8), 1e-5
    slopes = jax.jit(jax.grad(score, argnums=(0, 1, 2)))(*at)
    assert_allclose(
        slopes[0], (score(0.3 + step, *at[1:]) - score(0.3 - step, *at[1:])) / 2e-5, 1e-6
    )
    ends = [score(*at[:2], 0.8 + d) for d in (-step, step)]
    assert_allclose(slopes[2], (ends[1] - ends[0]) / 2e-5, rtol=1e-6)
    towards = jnp.eye(3)
    ends = [score(at[0], at[1] + d * towards, at[2]) for d in (-step, step)]
    assert_allclose(jnp.sum(slopes[1] * towards), (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


def test_vmap_over_streams_with_masks_of_their_own(full_world):
    worlds = [full_world(seed, missing=0.5, rank=2) for seed in (7, 8)]
    made = worlds[0]

    def last(stream):
        return filter_stream(made.kalman, made.belief, stream, keep="last").last

    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(w.stream for w in worlds))
    together = jax.vmap(last)(streams)
    for i, one in enumerate(worlds):
        jax.tree.map(
            lambda a, b, i=i: assert_allclose(a[i], b, rtol=1e-10), together, last(one.stream)
        )


def test_an_optimum_that_is_known_and_does_not_drift_is_left_alone():
    """No variance and no noise: zeros to divide by in every formula."""
    made = OrnsteinUhlenbeck(0.2, 0.5)
    still = full_filter(made, jnp.diag(jnp.array([1.0, 0.0, 0.3])))
    ones, h = np.ones((12, 3)), np.ones((12, 3, 3)) + np.eye(3)
    stream = GradientStream(ones, h, 0 * ones, np.ones(12, bool))
    belief = still.init(jnp.array([1.0, 2.0, 0.0]), jnp.array([0.3, 0.0, 0.1]))
    smoothed, path = everything_of(still, belief, stream)
    for optimum in (smoothed.belief.mean, path.optimum):
        assert_allclose(optimum[:, 1], 2 * np.exp(-0.04) ** np.arange(12), rtol=1e-12)
        assert np.isfinite(optimum).all()
    assert_array_equal(smoothed.belief.variance[:, 1], np.zeros(12))
    frozen = full_filter(RANDOM_WALK, jnp.zeros((3, 3)))  # one optimum, seen twelve times
    smoothed, path = everything_of(frozen, belief, stream)
    for leaf in (smoothed.belief.mean, smoothed.belief.variance, path.optimum):
        assert_allclose(leaf, np.broadcast_to(leaf[-1], (12, 3)), rtol=1e-9, atol=1e-12)
    velocity = velocity_filter(RANDOM_WALK, velocity_shrink=0.0, velocity_drift_scale=0.0)
    certain = velocity.init(jnp.array([1.0, 2.0, 0.0]), 0.0, 0.0)
    seen = stream._replace(precision=ones)
    smoothed, path = everything_of(velocity, certain, seen)
    assert np.isfinite(path.optimum).all()
    assert_array_equal(smoothed.belief.mean[0], [1.0, 2.0, 0.0])
    assert_array_equal(path.velocity[0], np.zeros(3))


@pytest.mark.parametrize("gradient", [0.0, 5.0, np.nan])
def test_precision_zero_observes_nothing(full_world, gradient):
    made = full_world(9)
    belief, nothing = made.belief, jnp.zeros((3, 3))
    for place in (None, jnp.full(3, 7.0)):
        after = made.kalman.condition(belief, jnp.full(3, gradient), nothing, place)
        jax.tree.map(assert_array_equal, after, belief)
        surprise = made.kalman.innovation(belief, jnp.full(3, gradient), nothing, place)
        assert made.kalman.log_density(surprise) == 0
    partly = jnp.diag(jnp.array([1.0, 0.0, 2.0]))
    after = made.kalman.condition(belief, jnp.array([1.0, gradient, 1.0]), partly)
    assert np.isfinite(after.mean).all()


def test_a_broken_gradient_is_shown(full_world):
    made = full_world(9)
    for spot in ("gradient", "precision"):
        g, h = jnp.ones(3), jnp.eye(3)
        g, h = (g.at[0].set(np.nan), h) if spot == "gradient" else (g, h.at[0, 0].set(np.nan))
        assert np.isnan(made.kalman.condition(made.belief, g, h).mean).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_tree_is_filtered_in_its_own_types(dtype):
    kalman = full_filter(DRIFT)
    mean = {"a": jnp.ones((1, 2), dtype), "b": (jnp.ones((), dtype), jnp.ones(0, dtype))}
    belief = kalman.init(mean)
    step = jax.jit(lambda b, g, h: kalman.predict(kalman.condition(b, g, h, g)))
    after = step(belief, mean, jnp.eye(3, dtype=jnp.float32))
    assert jax.tree.structure(after) == jax.tree.structure(belief)
    for leaf, old in zip(jax.tree.leaves(after), jax.tree.leaves(belief), strict=True):
        assert (leaf.shape, leaf.dtype) == (old.shape, jnp.float32)
    assert after.variance["a"].shape == (1, 2)
    assert kalman.init({}).covariance.shape == (0, 0)
    assert kalman.predict(kalman.condition(kalman.init({}), {}, jnp.zeros((0, 0)))).mean == {}


def test_everything_runs_where_float64_is_off(full_world, float32_only):
    made = full_world(10)
    single = jax.tree.map(lambda x: x if x.dtype == bool else x.astype(np.float32), made.stream)
    belief = made.kalman.init(made.mean.astype(np.float32))
    smoothed, path = everything_of(made.kalman, belief, single)
    leaves = jax.tree.leaves((smoothed, path.optimum))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@settings(max_examples=15)
@given(
    drift=st.floats(-6, 6).map(lambda e: 10.0**e),
    stationary=st.one_of(st.floats(-6, 6).map(lambda e: 10.0**e), st.just(np.inf)),
    loud=st.floats(-6, 6).map(lambda e: 10.0**e),
    rank=st.integers(0, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_covariances_stay_ones_over_many_decades(drift, stationary, loud, rank, dtype):
    rng = np.random.default_rng(11)
    roots = rng.normal(size=(12, 3, rank)) * np.array([1e-2, 1.0, 1e2])[:, None] * np.sqrt(loud)
    precision = (roots @ roots.transpose(0, 2, 1)).astype(dtype)
    gradient = np.einsum("tir,tr->ti", roots, rng.normal(size=(12, rank))).astype(dtype)
    valid = np.arange(12) % 3 != 1
    precision = (precision + precision.transpose(0, 2, 1)) / 2
    stream = GradientStream(gradient, precision, 0 * gradient, valid)
    kalman = full_filter(OrnsteinUhlenbeck(drift, stationary), jnp.eye(3))
    belief = kalman.init(np.zeros(3, dtype), dtype(2.0))
    filtered = filter_stream(kalman, belief, stream)
    smoothed, path = everything_of(kalman, belief, stream)
    rounding = 1e-4 if dtype is np.float32 else 1e-11
    widest = np.asarray(filtered.predicted.covariance, float)
    unit = np.sqrt(np.einsum("tii->ti", widest))
    for covariance in (filtered.conditioned.covariance, smoothed.belief.covariance, widest):
        assert_array_equal(covariance, np.swapaxes(covariance, 1, 2))
        scaled = np.asarray(covariance, float) / unit[:, :, None] / unit[:, None, :]
        assert np.linalg.eigvalsh(scaled).min() > -rounding
    for leaf in jax.tree.leaves((filtered.last, smoothed, path)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eta", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("rank", [1, 2])
def test_means_are_good_however_loud_a_singular_gradient_is(rank, eta, dtype):
    """A random walk, η √h up to 1e5: the observed directions are at R z, to the last gradient."""
    rng = np.random.default_rng(12)
    roots = np.round(8 * rng.normal(size=(6, 3, rank))) / 8  # without rounding in either type
    noise = np.round(8 * rng.normal(size=(6, rank))) / 8
    precision = (roots @ roots.transpose(0, 2, 1)).astype(dtype)
    gradient = np.einsum("tir,tr->ti", roots, noise).astype(dtype)
    stream = GradientStream(gradient, precision, 0 * gradient, np.ones(6, bool))
    kalman = full_filter(OrnsteinUhlenbeck(eta, np.inf), jnp.eye(3))
    filtered = filter_stream(kalman, kalman.init(np.zeros(3, dtype), dtype(2.0)), stream)
    seen = np.einsum("tir,ti->tr", roots, np.asarray(filtered.conditioned.mean, float))
    # Rᵀ(0 - w*) is observed as z with unit noise; the gain leaves 1/(1 + gain) of what was known
    scale = np.abs(filtered.conditioned.mean).max() * np.finfo(dtype).eps
    assert_allclose(seen[1:], -noise[1:], atol=1e-2 + 200 * scale)


def refused(message, call):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_stream_whose_curvature_is_no_precision_is_refused(full_world):
    made = full_world(12)
    g, h, place, valid = made.stream

    def run(precision, valid=valid, gradient=g):
        stream = GradientStream(gradient, precision, place, valid)
        return filter_stream(made.kalman, made.belief, stream)

    slanted = h.copy()
    slanted[3, 0, 1] += 0.5
    refused("needs a symmetric precision, got 0.5 between", lambda: run(slanted))
    indefinite = h.copy()
    indefinite[3] -= 100 * np.eye(3)
    refused("needs a positive semidefinite precision, got a smallest", lambda: run(indefinite))
    run(indefinite, valid=np.arange(12) != 3)  # what was not seen is not judged
    refused(r"needs a precision of shape \(3, 3\), got \(2, 2\)", lambda: run(np.abs(h[:, :2, :2])))
    refused(r"needs a precision of shape \(3, 3\), got \(3,\)", lambda: run(np.abs(g)))
    refused("a gradient like it", lambda: run(h, gradient=g[:, :2]))
    broken = h.copy()
    broken[3] = np.nan
    assert np.isnan(run(broken).last.mean).all()  # a failure, not a mistake
    negative = h.copy()
    negative[:, 0, 1] = negative[:, 1, 0] = -0.1 * np.sqrt(h[:, 0, 0] * h[:, 1, 1])
    negative[:, 2, :2] = negative[:, :2, 2] = 0
    assert np.isfinite(run(negative).last.mean).all()  # entries may be below 0
    squares = g[:, :, None] * g[:, None, :]
    refused(
        "does not contain its own gradient, got gradient",
        lambda: stream_log_likelihood(
            made.kalman,
            made.belief,
            made.stream._replace(precision=squares),
            precision_from="curvature",
        ),
    )


def test_numbers_and_shapes_that_do_not_fit_are_refused():
    make = inspect.unwrap(full_filter)
    refused(
        "one drift_scale for all weights, got shape",
        lambda: make(DRIFT._replace(drift_scale=jnp.ones(2))),
    )
    refused("drift_scale > 0, got drift_scale=0", lambda: make(OrnsteinUhlenbeck(0.0, 1.0)))
    refused("drift_scale, got a schedule", lambda: make(DRIFT._replace(drift_scale=lambda t: 1.0)))
    refused("a symmetric drift_shape", lambda: make(DRIFT, np.array([[1.0, 0.5], [0.0, 1.0]])))
    refused("a positive semidefinite drift_shape", lambda: make(DRIFT, -np.eye(2)))
    shaped = make(DRIFT, jnp.eye(2))
    refused(r"drift_shape of shape \(3, 3\) for 3 weights, got", lambda: shaped.init(jnp.zeros(3)))
    plain, walk = make(DRIFT), make(RANDOM_WALK)
    refused("infinite stationary_variance.* got variance=None", lambda: walk.init(jnp.zeros(2)))
    refused("variance >= 0, got variance=-1", lambda: plain.init(jnp.zeros(2), -1.0))
    indefinite = np.array([[1.0, 2.0], [2.0, 1.0]])
    refused("positive semidefinite variance", lambda: plain.init(jnp.zeros(2), indefinite))
    refused("needs real floating weights, got int", lambda: plain.init(jnp.arange(2)))
    assert_array_equal(walk.init(jnp.zeros(2), 3.0).covariance, 3 * np.eye(2))


def test_a_filter_that_cannot_look_back_is_refused(world):
    made = world(13, steps=3)
    kalman = steady_state_filter(made.transition)
    belief = kalman.init(made.mean)
    for call in (smooth_stream, lambda *a: sample_posterior(KEY, *a)):
        refused(
            "known for DiagonalFilter, .*; got a SteadyStateFilter",
            lambda c=call: c(kalman, belief, made.stream),
        )
