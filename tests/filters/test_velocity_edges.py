"""The velocity filter in use: types, derivatives, vmap, holes, wide ranges, refusals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.filters import (
    Filter,
    GradientStream,
    filter_stream,
    stream_log_likelihood,
    velocity_filter,
)
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

DRIFT = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=0.5)
RANDOM_WALK = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=np.inf)


def run(made, stream=None):
    stream = made.stream if stream is None else stream
    likelihood = stream_log_likelihood(made.kalman, made.belief, stream, precision_from="curvature")
    return filter_stream(made.kalman, made.belief, stream), likelihood


def test_a_given_start_is_kept_and_independent():
    kalman = velocity_filter(DRIFT, velocity_shrink=0.5, velocity_drift_scale=0.3)
    start = kalman.init({"w": jnp.ones(2)}, {"w": jnp.array([2.0, 3.0])})
    assert_array_equal(start.variance["w"], [2.0, 3.0])
    assert_allclose(start.velocity_variance["w"], [0.12, 0.12])
    assert_array_equal(start.covariance["w"], [0.0, 0.0])
    start = kalman.init(jnp.ones(2), velocity_variance=0.7)
    assert_array_equal(start.velocity_variance, [0.7, 0.7])
    assert_allclose(start.variance, kalman.init(jnp.ones(2)).variance)
    assert_array_equal(start.covariance, [0.0, 0.0])


def test_in_float32_slow_motion_keeps_its_spread():
    kalman = velocity_filter(
        OrnsteinUhlenbeck(1e-4, 0.013), velocity_shrink=1e-3, velocity_drift_scale=1e-8
    )
    start = kalman.init(jnp.zeros((), jnp.float32))
    end = jax.lax.fori_loop(0, 50_000, lambda _, belief: kalman.predict(belief), start)
    exact = kalman.init(jnp.zeros(()))
    assert end.variance.dtype == jnp.float32
    for name in ("variance", "coupling", "unexplained_variance"):
        assert_allclose(getattr(end, name), getattr(exact, name), rtol=1e-4)


def test_without_float64_slow_motion_keeps_its_spread(float32_only):
    kalman = velocity_filter(
        OrnsteinUhlenbeck(1e-4, 0.013), velocity_shrink=1e-3, velocity_drift_scale=1e-8
    )
    start = kalman.init(jnp.zeros(()))
    end = jax.lax.fori_loop(0, 50_000, lambda _, belief: kalman.predict(belief), start)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4), end, start)


def test_in_float32_a_stream_is_that_of_float64(moving_world):
    made = moving_world(6, steps=300, missing=0.1, numbers=(1e-3, 1.0, 0.01, 1e-4))
    single = jax.tree.map(lambda x: x if x.dtype == bool else x.astype(np.float32), made.stream)
    belief = jax.tree.map(lambda x: x.astype(jnp.float32), made.belief)
    one = filter_stream(made.kalman, belief, single).last
    other = filter_stream(made.kalman, made.belief, made.stream).last
    assert {leaf.dtype for leaf in one} == {jnp.dtype("float32")}
    for ours, exact in zip(one, other, strict=True):
        assert_allclose(ours, exact, rtol=2e-3)


def central_difference(function, at, step=1e-4):
    up, down = function(at * np.exp(step)), function(at * np.exp(-step))
    far_up, far_down = function(at * np.exp(2 * step)), function(at * np.exp(-2 * step))
    return float((8 * (up - down) - (far_up - far_down)) / (12 * step) / at)


@pytest.mark.parametrize("start", ["stationary", "given"])
def test_the_likelihood_has_the_derivatives_of_its_differences(moving_world, start):
    made = moving_world(7, missing=0.3)
    gradient = made.stream.gradient.copy()
    gradient[~made.stream.valid] = np.nan
    stream = made.stream._replace(gradient=gradient)

    @jax.jit
    def score(numbers):
        eta, sigma2, shrink, kappa = numbers
        transition = OrnsteinUhlenbeck(eta, sigma2)
        kalman = velocity_filter(transition, velocity_shrink=shrink, velocity_drift_scale=kappa)
        spread = () if start == "stationary" else (made.variance, made.velocity_variance)
        belief = kalman.init(made.mean, *spread)
        return stream_log_likelihood(kalman, belief, stream, precision_from="curvature")

    at = jnp.array([0.25, 1.1, 0.3, 0.1])
    slopes = jax.jit(jax.grad(score))(at)
    for i in range(4):
        slope = central_difference(lambda x, i=i: score(at.at[i].set(x)), float(at[i]))
        assert_allclose(slopes[i], slope, rtol=1e-7)
        assert abs(slope) > 1e-3
    off = jax.grad(score)(jnp.array([0.25, 1.1, 1.0, 0.0]))
    assert np.isfinite(off).all()


def test_derivatives_are_finite_around_holes(moving_world):
    made = moving_world(8, missing=0.3)
    leaves = [leaf.copy() for leaf in made.stream[:3]]
    for leaf in leaves:
        leaf[~made.stream.valid] = np.nan
    leaves[0][::4, 1], leaves[1][::4, 1] = np.nan, 0.0
    leaves[1][~made.stream.valid] = np.nan

    def score(belief, leaves):
        stream = GradientStream(*leaves, valid=made.stream.valid)
        return stream_log_likelihood(made.kalman, belief, stream, precision_from="curvature")

    slopes = jax.grad(score, argnums=(0, 1))(made.belief, leaves)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_vmap_over_the_numbers_gives_each_its_likelihood(moving_world):
    made = moving_world(9, missing=0.2)

    def score(shrink, kappa):
        world = made._replace(numbers=(0.3, 1.7, shrink, kappa))
        return run(world)[1]

    shrinks, kappas = jnp.array([0.1, 0.5, 1.0]), jnp.array([0.3, 0.1, 0.0])
    alone = [score(float(c), float(k)) for c, k in zip(shrinks, kappas, strict=True)]
    assert_allclose(jax.vmap(score)(shrinks, kappas), alone, rtol=1e-12)


def test_each_weight_may_have_numbers_of_its_own():
    shrink, kappa = jnp.array([0.1, 0.9]), jnp.array([0.3, 0.0])
    kalman = velocity_filter(DRIFT, velocity_shrink=shrink, velocity_drift_scale=kappa)
    alone = velocity_filter(DRIFT, velocity_shrink=0.1, velocity_drift_scale=0.3)
    both = kalman.predict(kalman.init(jnp.array([1.0, 2.0])))
    one = alone.predict(alone.init(jnp.array(1.0)))
    jax.tree.map(lambda a, b: assert_allclose(a[0], b, rtol=1e-14), both, one)


@pytest.mark.parametrize("gradient", [0.0, 5.0, np.nan])
def test_precision_zero_observes_nothing(moving_world, gradient):
    made = moving_world(11)
    belief = filter_stream(made.kalman, made.belief, made.stream).last
    nothing, gradient = jnp.zeros(3), jnp.full(3, gradient)
    for place in (None, jnp.full(3, 7.0)):
        after = made.kalman.condition(belief, gradient, nothing, place)
        jax.tree.map(assert_array_equal, after, belief)
        surprise = made.kalman.innovation(belief, gradient, nothing, place)
        assert_array_equal(made.kalman.log_density(surprise), np.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_weight_is_shown_and_harms_no_other(bad):
    kalman = velocity_filter(DRIFT, velocity_shrink=0.1, velocity_drift_scale=0.1)
    belief = kalman.init(jnp.array([1.0, 2.0]))
    whole = kalman.condition(belief, jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0]))
    broken = kalman.condition(belief, jnp.array([bad, 4.0]), jnp.array([bad, 6.0]))
    assert not np.isfinite(broken.mean[0]) and not np.isfinite(broken.velocity[0])
    jax.tree.map(lambda a, b: assert_array_equal(a[1], b[1]), broken, whole)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_a_tree_is_filtered_leaf_by_leaf_in_its_own_type(dtype):
    kalman = velocity_filter(DRIFT, velocity_shrink=0.1, velocity_drift_scale=np.float64(0.1))
    assert isinstance(kalman, Filter)
    mean = {"matrix": jnp.ones((2, 3), dtype), "pair": (jnp.ones((), dtype), jnp.ones(0, dtype))}
    belief = kalman.init(mean)
    observed = jax.tree.map(lambda leaf: 2 * leaf, mean)
    after = jax.jit(lambda b, g: kalman.predict(kalman.condition(b, g, g, g)))(belief, observed)
    assert jax.tree.structure(after) == jax.tree.structure(belief)
    wide = jnp.promote_types(dtype, jnp.float32)
    for leaf, old in zip(jax.tree.leaves(after), jax.tree.leaves(belief), strict=True):
        assert (leaf.shape, leaf.dtype) == (old.shape, wide)
    assert after.velocity_variance["matrix"].shape == (2, 3)
    with pytest.raises(ValueError, match="needs a gradient like it"):
        kalman.condition(belief, {"matrix": observed["matrix"]}, observed)
    assert kalman.predict(kalman.init({})).covariance == {}


@pytest.mark.parametrize("steps", [0, 1])
def test_streams_of_no_step_and_of_one(moving_world, steps):
    made = moving_world(12, steps=steps)
    filtered, likelihood = run(made)
    assert filtered.predicted.velocity.shape == (steps, 3)
    assert np.isfinite(likelihood)
    last = filter_stream(made.kalman, made.belief, made.stream, keep="last")
    assert last.predicted is None
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-14), last.last, filtered.last)


@settings(max_examples=40)
@given(
    drift=st.floats(-8, 6).map(lambda e: 10.0**e),
    stationary=st.one_of(st.floats(-6, 6).map(lambda e: 10.0**e), st.just(np.inf)),
    shrink=st.one_of(st.floats(0, 1), st.floats(-8, 0).map(lambda e: 10.0**e)),
    kappa=st.one_of(st.floats(-8, 2).map(lambda e: 10.0**e), st.just(0.0)),
    variance=st.floats(-6, 6).map(lambda e: 10.0**e),
    precision=st.one_of(st.floats(-6, 6).map(lambda e: 10.0**e), st.just(0.0)),
)
def test_a_covariance_stays_one_over_many_decades(
    drift, stationary, shrink, kappa, variance, precision
):
    transition = OrnsteinUhlenbeck(drift, stationary)
    kalman = velocity_filter(transition, velocity_shrink=shrink, velocity_drift_scale=kappa)
    for dtype in (jnp.float32, jnp.float64):
        few = 1 + 64 * float(jnp.finfo(dtype).eps)
        h = jnp.asarray(precision, dtype)
        belief = kalman.init(jnp.asarray(0.5, dtype), variance, variance)
        for _ in range(4):
            belief = kalman.condition(belief, jnp.asarray(-0.3, dtype), h)
            assert belief.variance * h <= few
            belief = kalman.predict(belief)
            assert np.isfinite(jnp.stack(belief)).all()
            assert belief.variance > 0 and belief.unexplained_variance >= 0
            assert 0 <= belief.coupling <= (1 - shrink) * few + 1e-7 * (dtype == jnp.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"velocity_shrink": -0.1}, "0 <= velocity_shrink <= 1, got velocity_shrink=-0.1"),
        ({"velocity_shrink": 1.5}, "got velocity_shrink=1.5"),
        ({"velocity_shrink": np.nan}, "got velocity_shrink=nan"),
        ({"velocity_shrink": jnp.array([0.1, 2.0])}, "got velocity_shrink=2"),
        ({"velocity_shrink": "0.1"}, "a real number for velocity_shrink"),
        ({"velocity_drift_scale": -1.0}, "velocity_drift_scale >= 0, got"),
        ({"velocity_drift_scale": np.inf}, "got velocity_drift_scale=inf"),
        ({"velocity_drift_scale": lambda step: 0.1}, "velocity_drift_scale, got a schedule"),
        ({"transition": OrnsteinUhlenbeck(0.0, 1.0)}, "drift_scale > 0, got drift_scale=0"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    numbers = {"transition": DRIFT, "velocity_shrink": 0.1, "velocity_drift_scale": 0.1}
    with pytest.raises(ValueError, match=message) as caught:
        inspect.unwrap(velocity_filter)(**(numbers | changed))  # as it is without type checks
    assert "velocity_filter" in str(caught.value) and "\n" not in str(caught.value)


def test_an_endless_default_is_refused():
    walk = velocity_filter(RANDOM_WALK, velocity_shrink=0.1, velocity_drift_scale=0.1)
    with pytest.raises(ValueError, match="an infinite stationary_variance.* got variance=None"):
        walk.init(jnp.zeros(2))
    endless = velocity_filter(DRIFT, velocity_shrink=0.0, velocity_drift_scale=0.1)
    with pytest.raises(ValueError, match="velocity_shrink=0.* got variance=None"):
        endless.init(jnp.zeros(2))
    with pytest.raises(ValueError, match="got velocity_variance=None"):
        endless.init(jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match="velocity_variance >= 0, got velocity_variance=-1"):
        endless.init(jnp.zeros(2), 1.0, -1.0)
    assert_array_equal(endless.init(jnp.zeros(2), 1.0, 2.0).velocity_variance, [2.0, 2.0])


@pytest.mark.parametrize("weights", [jnp.arange(3), jnp.zeros(2, complex)])
def test_weights_that_are_not_real_numbers_are_refused(weights):
    kalman = velocity_filter(DRIFT, velocity_shrink=0.1, velocity_drift_scale=0.1)
    with pytest.raises(ValueError, match="needs real floating weights, got"):
        kalman.init(weights)
