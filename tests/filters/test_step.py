"""One step of the filters: predict, condition, innovation, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.filters import Belief, Filter, diagonal_filter, steady_state_filter
from bayesfilt.filters.belief import innovation_variance, rebased_gradient
from bayesfilt.filters.diagonal import conditioned_mean, predicted_mean
from bayesfilt.theory.gaussian import condition_dense, gain, kalman_multiplier
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck, exact_shrink, process_variance
from bayesfilt.theory.riccati import drifted_variance, relaxed_variance, steady_state_variance

FILTERS = [diagonal_filter, steady_state_filter]
DRIFT = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=0.5)
RANDOM_WALK = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=np.inf)

every_filter = pytest.mark.parametrize("make_filter", FILTERS)


def tree_of_leaves(dtype=np.float64):
    """A matrix, a scalar and an empty leaf."""
    rng = np.random.default_rng(0)
    return {
        "matrix": jnp.asarray(rng.normal(size=(2, 3)), dtype),
        "layer": {"scalar": jnp.asarray(-1.5, dtype), "empty": jnp.zeros((0,), dtype)},
    }


def like(tree, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), tree)


@every_filter
def test_every_filter_keeps_the_protocol(make_filter):
    assert isinstance(make_filter(DRIFT), Filter)


@pytest.mark.equation("KF-2")
def test_the_mean_moves_against_the_gradient_by_the_conditioned_variance():
    before = Belief(mean=jnp.array([1.0, -3.0]), variance=jnp.array([0.5, 4.0]))
    gradient, precision = jnp.array([2.0, -0.7]), jnp.array([3.0, 0.25])
    after = diagonal_filter(DRIFT).condition(before, gradient, precision)
    assert_allclose(after.variance, [0.5 / 2.5, 4.0 / 2.0], rtol=1e-15)
    assert_allclose(after.mean, [1.0 - 0.2 * 2.0, -3.0 + 2.0 * 0.7], rtol=1e-15)
    assert_allclose(conditioned_mean(before.mean, after.variance, gradient), after.mean, rtol=1e-15)


@pytest.mark.equation("KF-1")
@pytest.mark.equation("KF-7")
def test_check_A1_the_gain_of_the_filter_is_its_posterior_variance():
    """The textbook gain of g ~ N(h (place - w*), h), per weight and as matrices."""
    rng = np.random.default_rng(1)
    variance, precision = rng.gamma(2.0, 1.0, 5), jnp.asarray(rng.lognormal(0.0, 2.0, 5))
    mean, gradient = jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.normal(size=5))
    before = Belief(mean=mean, variance=jnp.asarray(variance))
    after = diagonal_filter(DRIFT).condition(before, gradient, precision)
    multiplier = kalman_multiplier(before.variance, precision, precision)
    assert_allclose(after.variance, multiplier, rtol=1e-13)
    assert_allclose(after.variance * precision, gain(before.variance, precision), rtol=1e-13)
    h = jnp.diag(precision)
    dense_mean, dense_variance = condition_dense(mean, jnp.diag(before.variance), gradient, h, h)
    assert_allclose(after.mean, dense_mean, rtol=1e-10)
    assert_allclose(after.variance, np.diag(dense_variance), rtol=1e-10)


@pytest.mark.equation("KF-5")
def test_a_gradient_is_rebased_along_the_quadratic():
    """On a noiseless bowl the re-based gradient is the gradient at the mean."""
    optimum, h = jnp.array([0.3, -2.0]), jnp.array([2.0, 5.0])
    mean, taken_at = jnp.array([1.0, 1.0]), jnp.array([4.0, -0.5])
    rebased = rebased_gradient(h * (taken_at - optimum), h, mean, taken_at)
    assert_allclose(rebased, h * (mean - optimum), rtol=1e-13)
    assert_array_equal(rebased_gradient(-h, h, mean, None), -h)


@pytest.mark.equation("KF-6")
def test_an_innovation_is_as_spread_as_its_simulation():
    rng = np.random.default_rng(2)
    v, h, mean, place = 0.7, 3.0, -0.4, 1.9
    optimum = mean + np.sqrt(v) * rng.normal(size=200_000)
    gradient = h * (place - optimum) + np.sqrt(h) * rng.normal(size=optimum.size)
    belief = Belief(mean=jnp.full(optimum.shape, mean), variance=jnp.full(optimum.shape, v))
    filled = jnp.full(optimum.shape, h)
    surprise = diagonal_filter(DRIFT).innovation(
        belief, jnp.asarray(gradient), filled, jnp.full(optimum.shape, place)
    )
    expected = float(innovation_variance(jnp.asarray(v), jnp.asarray(h)))
    assert_allclose(surprise.variance[0], expected)
    assert abs(surprise.mean.mean()) < 5 * np.sqrt(expected / optimum.size)
    assert abs(surprise.mean.var() / expected - 1) < 5 * np.sqrt(2 / optimum.size)


@pytest.mark.equation("KF-3")
@pytest.mark.equation("KF-4")
@pytest.mark.parametrize("transition", [DRIFT, RANDOM_WALK, OrnsteinUhlenbeck(1e-5, 3.0)])
def test_predicting_is_the_exact_drift(transition):
    belief = Belief(mean=jnp.array([2.0, -1.0]), variance=jnp.array([0.1, 6.0]))
    after = diagonal_filter(transition).predict(belief)
    eta, sigma2 = transition
    kept = np.exp(-(eta**2) / (2 * sigma2))
    assert_allclose(after.mean, kept * belief.mean, rtol=1e-14)
    assert_allclose(after.variance, drifted_variance(belief.variance, eta, sigma2), rtol=1e-14)
    assert_allclose(predicted_mean(belief.mean, exact_shrink(eta, sigma2)), after.mean, rtol=1e-14)
    growth = process_variance(eta, sigma2)
    again = relaxed_variance(belief.variance, growth, growth / sigma2)
    assert_allclose(again, kept**2 * belief.variance + growth, rtol=1e-14)


def test_in_float32_a_slow_drift_keeps_its_stationary_variance():
    kalman = diagonal_filter(OrnsteinUhlenbeck(drift_scale=1e-4, stationary_variance=0.013))
    start = kalman.init(jnp.zeros((), jnp.float32))
    end = jax.lax.fori_loop(0, 100_000, lambda _, belief: kalman.predict(belief), start)
    assert end.variance.dtype == jnp.float32
    assert_allclose(end.variance, 0.013, rtol=1e-5)


@every_filter
@pytest.mark.parametrize("gradient", [0.0, 5.0, np.nan])
def test_precision_zero_observes_nothing(make_filter, gradient):
    kalman = make_filter(DRIFT)
    belief = kalman.init({"w": jnp.array([1.0, 2.0])}, 0.3)
    nothing, gradient = like(belief.mean, 0.0), like(belief.mean, gradient)
    for place in (None, like(belief.mean, 7.0)):
        after = kalman.condition(belief, gradient, nothing, place)
        jax.tree.map(assert_array_equal, after, belief)
        surprise = kalman.innovation(belief, gradient, nothing, place)
        assert_array_equal(kalman.log_density(surprise)["w"], [0.0, 0.0])


@every_filter
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_weight_is_shown_and_harms_no_other(make_filter, bad):
    kalman = make_filter(DRIFT)
    belief = kalman.init(jnp.array([1.0, 2.0]))
    whole = kalman.condition(belief, jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0]))
    broken = kalman.condition(belief, jnp.array([bad, 4.0]), jnp.array([bad, 6.0]))
    assert not np.isfinite(broken.mean[0])
    assert_array_equal(broken.mean[1], whole.mean[1])
    assert_array_equal(broken.variance[1], whole.variance[1])


@every_filter
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tree_is_filtered_leaf_by_leaf_in_its_own_type(make_filter, dtype):
    kalman = make_filter(DRIFT)
    mean = tree_of_leaves(dtype)
    belief = kalman.init(mean)
    gradient, precision = like(mean, -2.0), like(mean, 3.0)
    step = jax.jit(lambda b, g, h, at: kalman.predict(kalman.condition(b, g, h, at)))
    after = step(belief, gradient, precision, like(mean, 0.5))
    assert jax.tree.structure(after) == jax.tree.structure(belief)
    for leaf, old in zip(jax.tree.leaves(after), jax.tree.leaves(belief), strict=True):
        assert (leaf.shape, leaf.dtype) == (old.shape, dtype)
    alone = kalman.init(mean["matrix"][1])
    alone = kalman.condition(alone, gradient["matrix"][1], precision["matrix"][1], jnp.full(3, 0.5))
    rtol = 1e-5 if dtype == np.float32 else 1e-13
    assert_allclose(after.mean["matrix"][1], kalman.predict(alone).mean, rtol=rtol)


@every_filter
def test_beliefs_about_bfloat16_weights_are_float32(make_filter):
    kalman = make_filter(OrnsteinUhlenbeck(np.float64(0.1), jnp.asarray(0.5)))
    belief = kalman.init(jnp.ones(3, jnp.bfloat16))
    half = jnp.ones(3, jnp.bfloat16)
    after = kalman.predict(kalman.condition(belief, half, half, half))
    assert {leaf.dtype for leaf in jax.tree.leaves((belief, after))} == {jnp.dtype("float32")}


def test_initial_variance_is_the_stationary_one_a_number_or_a_tree():
    kalman = diagonal_filter(DRIFT)
    mean = tree_of_leaves()
    assert_array_equal(kalman.init(mean).variance["matrix"], np.full((2, 3), 0.5))
    assert_array_equal(kalman.init(mean, 2.0).variance["layer"]["scalar"], 2.0)
    own = like(mean, 3.0)
    assert_array_equal(kalman.init(mean, own).variance["matrix"], np.full((2, 3), 3.0))
    assert_array_equal(kalman.init(1.5, 0.0).variance, 0.0)


def test_each_weight_may_have_a_drift_of_its_own():
    kalman = diagonal_filter(OrnsteinUhlenbeck(jnp.array([0.1, 0.9]), jnp.array([0.5, 2.0])))
    together = kalman.predict(kalman.init(jnp.array([1.0, 2.0])))
    alone = diagonal_filter(OrnsteinUhlenbeck(0.9, 2.0))
    assert_allclose(together.mean[1], alone.predict(alone.init(2.0)).mean, rtol=1e-14)


@pytest.mark.equation("RIC-1")
@pytest.mark.parametrize("transition", [DRIFT, RANDOM_WALK])
@pytest.mark.parametrize("h", [0.01, 3.0, 500.0])
def test_at_constant_precision_both_filters_settle_on_the_same_gain(transition, h):
    exact, settled = diagonal_filter(transition), steady_state_filter(transition)
    precision, gradient = jnp.full((), h), jnp.full((), -0.3)

    def both(beliefs, _):
        one, other = beliefs
        one = exact.predict(exact.condition(one, gradient, precision, jnp.zeros(())))
        other = settled.predict(settled.condition(other, gradient, precision, jnp.zeros(())))
        return (one, other), None

    start = (exact.init(jnp.ones(()), 2.0), settled.init(jnp.ones(()), 2.0))
    (one, other), _ = jax.lax.scan(both, start, None, 5_000)
    assert_allclose(one.variance, other.variance, rtol=1e-12)
    assert_allclose(one.mean, other.mean, rtol=1e-10)
    p = exact.condition(one, gradient, precision).variance
    assert_allclose(p, steady_state_variance(precision, *transition), rtol=1e-12)


decades = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


@every_filter
@settings(max_examples=50)
@given(
    drift=st.floats(-8, 2).map(lambda e: 10.0**e),
    stationary=st.one_of(decades, st.just(np.inf)),
    variance=decades,
    precision=st.one_of(decades, st.just(0.0)),
    gradient=st.floats(-1e6, 1e6),
)
def test_a_step_is_sane_over_many_decades(
    make_filter, drift, stationary, variance, precision, gradient
):
    kalman = make_filter(OrnsteinUhlenbeck(drift, stationary))
    for dtype in (jnp.float32, jnp.float64):
        belief = kalman.init(jnp.asarray(0.5, dtype), variance)
        h = jnp.asarray(precision, dtype)
        after = kalman.condition(belief, jnp.asarray(gradient, dtype), h)
        then = kalman.predict(after)
        few = 1 + 16 * float(jnp.finfo(dtype).eps)
        assert np.isfinite([after.mean, after.variance, then.mean, then.variance]).all()
        assert abs(then.mean) <= abs(after.mean) * few
        assert 0 < after.variance * precision <= few or precision == 0
        if make_filter is diagonal_filter:
            assert after.variance <= variance * few
        assert then.variance <= max(float(after.variance), stationary) * few


@every_filter
@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (OrnsteinUhlenbeck(0.0, 1.0), "drift_scale > 0, got drift_scale=0"),
        (OrnsteinUhlenbeck(-0.1, 1.0), "drift_scale > 0, got drift_scale=-0.1"),
        (OrnsteinUhlenbeck(np.inf, 1.0), "drift_scale > 0, got drift_scale=inf"),
        (OrnsteinUhlenbeck(0.1, 0.0), "stationary_variance > 0, got stationary_variance=0"),
        (OrnsteinUhlenbeck(0.1, np.nan), "stationary_variance > 0, got stationary_variance=nan"),
        (OrnsteinUhlenbeck(0.1, jnp.array([1.0, -2.0])), "got stationary_variance=-2"),
        (OrnsteinUhlenbeck("0.1", 1.0), "a real number for drift_scale"),
        (OrnsteinUhlenbeck(lambda step: 0.1, 1.0), "a number for drift_scale, got a schedule"),
    ],
)
def test_a_transition_out_of_range_is_refused(make_filter, transition, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_filter(transition)
    assert make_filter.__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


@every_filter
def test_a_random_walk_needs_a_variance_to_begin_with(make_filter):
    kalman = make_filter(RANDOM_WALK)
    with pytest.raises(ValueError, match="needs a finite variance to begin with"):
        kalman.init(jnp.zeros(2))
    assert_array_equal(kalman.init(jnp.zeros(2), 4.0).variance, [4.0, 4.0])


@pytest.mark.parametrize("variance", [-1.0, np.inf, np.nan, np.array([1.0, -1.0])])
def test_an_impossible_initial_variance_is_refused(variance):
    with pytest.raises(ValueError, match="finite variance >= 0"):
        diagonal_filter(DRIFT).init(jnp.zeros(2), variance)


@pytest.mark.parametrize("weights", [jnp.arange(3), jnp.zeros(2, complex)])
def test_weights_that_are_not_real_numbers_are_refused(weights):
    with pytest.raises(ValueError, match="needs real floating weights, got"):
        diagonal_filter(DRIFT).init(weights)


@every_filter
def test_a_gradient_unlike_the_belief_is_refused(make_filter):
    kalman = make_filter(DRIFT)
    belief = kalman.init({"w": jnp.zeros((3, 1))})
    wrong_shape, wrong_tree = {"w": jnp.ones(3)}, {"v": jnp.ones((3, 1))}
    right = {"w": jnp.ones((3, 1))}
    for act in (kalman.condition, kalman.innovation):
        for wrong in (wrong_shape, wrong_tree):
            with pytest.raises(ValueError, match="needs a gradient like it"):
                act(belief, wrong, right)
            with pytest.raises(ValueError, match="needs a precision like it"):
                act(belief, right, wrong)
            with pytest.raises(ValueError, match="needs a taken_at like it"):
                act(belief, right, right, wrong)
