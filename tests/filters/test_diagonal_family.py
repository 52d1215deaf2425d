"""What every filter with one belief per weight must do, whatever its transition or noise."""

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
    diagonal_filter,
    filter_stream,
    noise_ratio_filter,
    ornstein_uhlenbeck_filter,
    random_walk_filter,
    static_filter,
    steady_state_filter,
    stream_log_likelihood,
)
from bayesfilt.filters import sequence as sequence_room
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

# Each made of a drift scale, a stationary variance and one more number: a mean, a noise ratio.
FAMILY = {
    "diagonal": lambda eta, sigma2, _: diagonal_filter(OrnsteinUhlenbeck(eta, sigma2)),
    "steady_state": lambda eta, sigma2, _: steady_state_filter(OrnsteinUhlenbeck(eta, sigma2)),
    "static": lambda *_: static_filter(),
    "random_walk": lambda eta, *_: random_walk_filter(eta),
    "ornstein_uhlenbeck": lambda eta, sigma2, number: ornstein_uhlenbeck_filter(
        OrnsteinUhlenbeck(eta, sigma2), towards=number
    ),
    "noise_ratio": lambda eta, sigma2, number: noise_ratio_filter(
        OrnsteinUhlenbeck(eta, sigma2), noise_ratio=number
    ),
}
NEW = ["static", "random_walk", "ornstein_uhlenbeck", "noise_ratio"]
every_new_filter = pytest.mark.parametrize("name", NEW)


def make(name, eta=0.3, sigma2=1.7, number=2.5):
    return FAMILY[name](eta, sigma2, number)


def likelihood(kalman, belief, stream):
    return stream_log_likelihood(kalman, belief, stream, precision_from="curvature")


def assert_trees_close(one, other, rtol=1e-12):
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=rtol, atol=rtol), one, other)


def with_rubbish_in_the_holes(stream):
    """The stream with NaN and infinities wherever nothing was observed."""
    leaves = [leaf.copy() for leaf in stream[:3]]
    leaves[0][::4, 1], leaves[1][::4, 1] = np.nan, 0.0
    for leaf, rubbish in zip(leaves, (np.nan, -np.inf, np.inf), strict=True):
        leaf[~stream.valid] = rubbish
    return GradientStream(*leaves, valid=stream.valid)


def with_zeros_in_the_holes(stream):
    gradient, precision = stream.gradient.copy(), stream.precision.copy()
    precision[::4, 1] = 0.0
    precision[~stream.valid] = 0.0
    every = np.ones_like(stream.valid)
    return GradientStream(gradient, precision, stream.taken_at, every)


@every_new_filter
def test_a_filter_keeps_the_protocol_and_its_methods_their_order(name):
    kalman = make(name)
    assert isinstance(kalman, Filter)
    defined = [method for method in type(kalman).__dict__ if method in Filter.__dict__]
    ours = [method for method in defined if not method.startswith("_")]
    assert ours == ["init", "predict", "condition", "innovation", "log_density"]


@every_new_filter
@pytest.mark.parametrize("missing", [0.3, 1.0])
def test_a_mask_and_a_precision_of_zero_say_the_same_and_hide_everything(world, name, missing):
    made = world(1, missing=missing)
    kalman = make(name)
    belief = kalman.init(made.mean, made.variance)
    spoilt, zeroed = with_rubbish_in_the_holes(made.stream), with_zeros_in_the_holes(made.stream)
    masked, plain = filter_stream(kalman, belief, spoilt), filter_stream(kalman, belief, zeroed)
    assert_trees_close(masked, plain, rtol=1e-15)
    total = likelihood(kalman, belief, spoilt)
    assert_allclose(total, likelihood(kalman, belief, zeroed), rtol=1e-14)
    if missing == 1.0:
        assert total == 0
        assert_array_equal(masked.innovation.variance, np.zeros((40, 3)))
        for _ in range(40):
            belief = kalman.predict(belief)
        assert_trees_close(masked.last, belief)


@every_new_filter
def test_derivatives_of_the_likelihood_are_finite_around_holes(world, name):
    made = world(2, missing=0.3)
    stream = with_rubbish_in_the_holes(made.stream)

    def score(kalman, belief, leaves):
        return likelihood(kalman, belief, GradientStream(*leaves, valid=stream.valid))

    kalman = jax.tree.map(float, make(name))
    belief = kalman.init(made.mean, made.variance)
    slopes = jax.grad(score, argnums=(0, 1, 2))(kalman, belief, stream[:3])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("name", "used"),
    [("random_walk", [0]), ("ornstein_uhlenbeck", [0, 1, 2]), ("noise_ratio", [0, 1, 2])],
)
def test_the_likelihood_has_the_derivatives_of_its_differences(world, name, used):
    made = world(3, missing=0.2)
    at = np.array([0.25, 1.1, 0.8])  # not the truth, where the derivatives would be small

    @jax.jit
    def score_and_slope(numbers):
        def score(numbers):
            kalman = FAMILY[name](*numbers)
            return likelihood(kalman, kalman.init(made.mean, made.variance), made.stream)

        return jax.value_and_grad(score)(numbers)

    slope = score_and_slope(at)[1]
    for i in used:
        step = 1e-3 * at * (np.arange(3) == i)
        near = score_and_slope(at + step)[0] - score_and_slope(at - step)[0]
        far = score_and_slope(at + 2 * step)[0] - score_and_slope(at - 2 * step)[0]
        assert abs(slope[i]) > 1e-3
        assert_allclose(slope[i], (8 * near - far) / (12 * step[i]), rtol=1e-6)


@every_new_filter
def test_vmap_over_the_numbers_and_over_streams_gives_each_its_own(world, name):
    made = [world(seed, missing=0.2) for seed in (4, 5)]
    numbers = np.array([[0.1, 0.5, 0.7], [0.9, 4.0, 3.0]])

    def score(numbers, stream):
        kalman = FAMILY[name](*numbers)
        belief = kalman.init(made[0].mean, made[0].variance)
        last = filter_stream(kalman, belief, stream, keep="last").last
        return last, likelihood(kalman, belief, stream)

    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one.stream for one in made))
    together = jax.vmap(score)(jnp.asarray(numbers), streams)
    for i, one in enumerate(made):
        alone = score(tuple(numbers[i]), one.stream)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together), alone)


@every_new_filter
def test_new_numbers_compile_nothing(world, name):
    made = world(7, steps=40)
    first = make(name)
    filter_stream(first, first.init(made.mean, made.variance), made.stream)
    before = sequence_room._scan_beliefs._cache_size()
    second = make(name, eta=0.7, sigma2=3.0, number=0.4)
    filter_stream(second, second.init(made.mean, made.variance), made.stream)
    assert sequence_room._scan_beliefs._cache_size() == before


@every_new_filter
@pytest.mark.parametrize("steps", [0, 1])
def test_streams_of_no_step_and_of_one(world, name, steps):
    made = world(8, steps=steps)
    kalman = make(name)
    belief = kalman.init(made.mean, made.variance)
    filtered = filter_stream(kalman, belief, made.stream)
    assert filtered.predicted.mean.shape == filtered.innovation.variance.shape == (steps, 3)
    after, total = belief, 0.0
    if steps:
        observed = tuple(jnp.asarray(leaf[0]) for leaf in made.stream[:3])
        after = kalman.predict(kalman.condition(belief, *observed))
        total = kalman.log_density(kalman.innovation(belief, *observed)).sum()
    assert_trees_close(filtered.last, after)
    assert_allclose(likelihood(kalman, belief, made.stream), total, rtol=1e-12)


@every_new_filter
def test_a_float32_stream_keeps_its_type_and_has_a_float64_likelihood(world, name):
    made = world(9, missing=0.2)
    kalman = make(name)
    values = []
    for dtype in (np.float32, np.float64):
        leaves = (leaf.astype(np.float32).astype(dtype) for leaf in made.stream[:3])
        belief = kalman.init(made.mean.astype(np.float32).astype(dtype), made.variance)
        stream = GradientStream(*leaves, valid=made.stream.valid)
        values.append(likelihood(kalman, belief, stream))
        last = filter_stream(kalman, belief, stream).last
        assert {leaf.dtype for leaf in last} == {jnp.dtype(dtype)}
    assert values[0].dtype == jnp.float64
    assert values[0] != values[1]
    assert_allclose(values[0], values[1], rtol=1e-5)


@every_new_filter
def test_everything_runs_where_float64_is_off(world, name, float32_only):
    made = world(10, missing=0.2)
    kalman = make(name)
    filtered = filter_stream(kalman, kalman.init(made.mean, made.variance), made.stream)
    assert {leaf.dtype for leaf in jax.tree.leaves(filtered)} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(filtered))


@every_new_filter
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_a_tree_is_filtered_leaf_by_leaf_in_its_own_type(name, dtype):
    kalman = make(name, eta=np.float64(0.3), number=np.float64(2.5))
    mean = {"matrix": jnp.ones((2, 3), dtype), "pair": (jnp.ones((), dtype), jnp.ones(0, dtype))}
    belief = kalman.init(mean, 0.4)
    observed = jax.tree.map(lambda leaf: 2 * leaf, mean)
    after = jax.jit(lambda b, g: kalman.predict(kalman.condition(b, g, g, g)))(belief, observed)
    assert jax.tree.structure(after) == jax.tree.structure(belief)
    wide = jnp.promote_types(dtype, jnp.float32)
    for leaf, old in zip(jax.tree.leaves(after), jax.tree.leaves(belief), strict=True):
        assert (leaf.shape, leaf.dtype) == (old.shape, wide)
    alone = kalman.init(1.0, 0.4)
    alone = kalman.predict(kalman.condition(alone, *[jnp.asarray(2.0)] * 3))
    assert_allclose(after.mean["matrix"][1, 2], alone.mean, rtol=1e-6)
    assert_allclose(after.variance["pair"][0], alone.variance, rtol=1e-6)
    assert kalman.predict(kalman.init({}, {})).mean == {}


@every_new_filter
@pytest.mark.parametrize("gradient", [0.0, 5.0, np.nan])
def test_precision_zero_observes_nothing(name, gradient):
    kalman = make(name)
    belief = kalman.init(jnp.array([1.0, 2.0]), 0.3)
    nothing, gradient = jnp.zeros(2), jnp.full(2, gradient)
    for place in (None, jnp.full(2, 7.0)):
        after = kalman.condition(belief, gradient, nothing, place)
        jax.tree.map(assert_array_equal, after, belief)
        surprise = kalman.innovation(belief, gradient, nothing, place)
        assert_array_equal(kalman.log_density(surprise), np.zeros(2))


@every_new_filter
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_weight_is_shown_and_harms_no_other(name, bad):
    kalman = make(name)
    belief = kalman.init(jnp.array([1.0, 2.0]), 0.3)
    whole = kalman.condition(belief, jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0]))
    broken = kalman.condition(belief, jnp.array([bad, 4.0]), jnp.array([bad, 6.0]))
    assert not np.isfinite(broken.mean[0])
    jax.tree.map(lambda a, b: assert_array_equal(a[1], b[1]), broken, whole)


@every_new_filter
def test_what_does_not_fit_the_belief_is_refused(name):
    kalman = make(name)
    belief = kalman.init({"w": jnp.zeros((3, 1))}, 1.0)
    right, wrong = {"w": jnp.ones((3, 1))}, {"w": jnp.ones(3)}
    for act in (kalman.condition, kalman.innovation):
        with pytest.raises(ValueError, match="needs a gradient like it"):
            act(belief, wrong, right)
        with pytest.raises(ValueError, match="needs a precision like it"):
            act(belief, right, wrong)
        with pytest.raises(ValueError, match="needs a taken_at like it"):
            act(belief, right, right, {"v": right["w"]})


@every_new_filter
@pytest.mark.parametrize(
    ("weights", "variance", "message"),
    [
        (jnp.zeros(2), -1.0, "a finite variance >= 0, got variance=-1"),
        (jnp.zeros(2), np.inf, "a finite variance >= 0, got variance=inf"),
        (jnp.zeros(2), np.array([1.0, np.nan]), "got variance=nan"),
        (jnp.zeros(2), {"w": 1.0}, "needs a variance like them, got"),
        (jnp.zeros(2), jnp.ones(3), "broadcast"),
        (jnp.arange(3), 1.0, "needs real floating weights, got int"),
    ],
)
def test_an_impossible_start_is_refused(name, weights, variance, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(name).init(weights, variance)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["static", "random_walk"])
def test_a_filter_without_a_variance_of_its_own_asks_for_one(name):
    with pytest.raises(ValueError, match="no diffuse start.* got variance=None") as caught:
        make(name).init(jnp.zeros(2))
    assert str(caught.value).startswith(f"{name}_filter")


six_decades = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)


def three_steps(kalman, belief, precisions, place):
    """Every belief, predicted and conditioned, on a noiseless bowl, and log densities."""

    def step(before, h):
        gradient = h * (before.mean - place)
        after = kalman.condition(before, gradient, h)
        then = kalman.predict(after)
        density = kalman.log_density(kalman.innovation(before, gradient, h))
        return then, (before, after, then, density)

    return jax.lax.scan(step, belief, precisions)[1]


run_three_steps = jax.jit(three_steps)


@pytest.mark.parametrize("name", FAMILY)
@settings(max_examples=30)
@given(
    eta=six_decades,
    sigma2=six_decades,
    precisions=st.lists(st.one_of(six_decades, st.just(0.0)), min_size=3, max_size=3),
    number=st.floats(-3, 3).map(lambda exponent: 10.0**exponent),
    start=st.floats(0.01, 1.0),
    place=st.floats(-10, 10),
)
def test_beliefs_are_sane_over_twelve_decades(name, eta, sigma2, precisions, number, start, place):
    """Of drift scale, stationary variance and precision, in both floating types."""
    kalman = make(name, eta, sigma2, number)
    forgets = name not in ("static", "random_walk")
    for dtype in (np.float32, np.float64):
        few = 1 + 16 * float(jnp.finfo(dtype).eps)
        belief = kalman.init(np.asarray(0.5, dtype), start * sigma2)
        numbers = np.asarray(precisions, dtype), np.asarray(place, dtype)
        path = jax.tree.map(np.asarray, run_three_steps(kalman, belief, *numbers))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(path))
        before, after, then, _ = path
        assert (after.variance > 0).all() and (then.variance > 0).all()
        if name != "steady_state":  # whose variance jumps to where it will settle
            assert (after.variance <= before.variance * few).all()
        if forgets:
            assert (then.variance <= sigma2 * few).all()
        else:
            assert (then.variance >= after.variance).all()
        # between what was believed and what was observed, then towards the mean of the drift
        slack = (few - 1) * (10 + np.abs(before.mean))
        low, high = np.minimum(before.mean, place), np.maximum(before.mean, place)
        assert (low - slack <= after.mean).all() and (after.mean <= high + slack).all()
        if forgets:
            rest = number if name == "ornstein_uhlenbeck" else 0.0
            low, high = np.minimum(after.mean, rest), np.maximum(after.mean, rest)
            slack = slack * (1 + rest)
            assert (low - slack <= then.mean).all() and (then.mean <= high + slack).all()
        else:
            assert (then.mean == after.mean).all()
