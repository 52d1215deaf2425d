"""Streams: composition, masks, edges, vmap, types, and what is refused."""

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
    steady_state_filter,
)
from bayesfilt.filters import sequence as sequence_room
from bayesfilt.filters.reference import reference_filter_stream
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

every_filter = pytest.mark.parametrize("make_filter", [diagonal_filter, steady_state_filter])


def assert_trees_close(one, other, rtol=1e-12):
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=rtol, atol=rtol), one, other)


def start(world, make_filter=diagonal_filter):
    kalman = make_filter(world.transition)
    return kalman, kalman.init(world.mean, world.variance)


@every_filter
def test_a_stream_cut_in_two_gives_what_the_whole_gives(world, make_filter):
    made = world(1, missing=0.2)
    kalman, belief = start(made, make_filter)
    whole = filter_stream(kalman, belief, made.stream)
    first = filter_stream(kalman, belief, jax.tree.map(lambda x: x[:13], made.stream))
    second = filter_stream(kalman, first.last, jax.tree.map(lambda x: x[13:], made.stream))
    assert_trees_close(second.last, whole.last)
    joined = jax.tree.map(
        lambda *parts: jnp.concatenate(parts),
        (first.predicted, first.conditioned, first.innovation),
        (second.predicted, second.conditioned, second.innovation),
    )
    assert_trees_close(joined, (whole.predicted, whole.conditioned, whole.innovation))


@every_filter
def test_a_stream_is_its_steps_one_by_one(world, make_filter):
    made = world(2, steps=7)
    kalman, belief = start(made, make_filter)
    filtered = filter_stream(kalman, belief, made.stream)
    for t, (gradient, precision, taken_at) in enumerate(
        zip(*map(jnp.asarray, made.stream[:3]), strict=True)
    ):
        assert_trees_close(jax.tree.map(lambda x, t=t: x[t], filtered.predicted), belief)
        belief = kalman.condition(belief, gradient, precision, taken_at)
        assert_trees_close(jax.tree.map(lambda x, t=t: x[t], filtered.conditioned), belief)
        belief = kalman.predict(belief)
    assert_trees_close(filtered.last, belief)


def test_keeping_the_last_belief_only_changes_nothing_else(world):
    made = world(3, missing=0.2)
    everything = filter_stream(*start(made), made.stream)
    last = filter_stream(*start(made), made.stream, keep="last")
    assert_trees_close(last.last, everything.last, rtol=1e-15)
    assert last.predicted is None and last.conditioned is None and last.innovation is None


@every_filter
def test_a_stream_with_nothing_valid_only_drifts(world, make_filter):
    made = world(4, steps=9, missing=1.0)
    kalman, belief = start(made, make_filter)
    nothing = jax.tree.map(lambda x: np.full_like(x, np.nan), made.stream[:3])
    stream = GradientStream(*nothing, valid=np.zeros(9, bool))
    filtered = filter_stream(kalman, belief, stream)
    for _ in range(9):
        belief = kalman.predict(belief)
    assert_trees_close(filtered.last, belief)
    assert_array_equal(filtered.innovation.mean, np.zeros((9, 3)))
    assert_array_equal(filtered.innovation.variance, np.zeros((9, 3)))


def test_what_a_missing_step_holds_is_never_looked_at(world):
    made = world(5, missing=0.4)
    hole = ~made.stream.valid
    spoilt = [leaf.copy() for leaf in made.stream[:3]]
    for leaf, rubbish in zip(spoilt, (np.nan, -np.inf, np.inf), strict=True):
        leaf[hole] = rubbish
    stream = GradientStream(*spoilt, valid=made.stream.valid)
    clean = filter_stream(*start(made), made.stream)
    assert_trees_close(filter_stream(*start(made), stream), clean, rtol=1e-15)


@every_filter
@pytest.mark.parametrize("steps", [0, 1])
def test_streams_of_no_step_and_of_one(world, make_filter, steps):
    made = world(6, steps=steps)
    kalman, belief = start(made, make_filter)
    filtered = filter_stream(kalman, belief, made.stream)
    assert filtered.predicted.mean.shape == (steps, 3)
    assert filtered.innovation.variance.shape == (steps, 3)
    if steps == 0:
        assert_trees_close(filtered.last, belief)
    else:
        gradient, precision, taken_at = (jnp.asarray(leaf[0]) for leaf in made.stream[:3])
        after = kalman.predict(kalman.condition(belief, gradient, precision, taken_at))
        assert_trees_close(filtered.last, after)


@every_filter
def test_a_tree_with_a_scalar_and_an_empty_leaf_is_filtered(world, make_filter):
    made = world(7, weights=4, missing=0.2)
    flat = filter_stream(*start(made, make_filter), made.stream)

    def split(leaf):
        return {"a": leaf[..., :3], "b": (leaf[..., 3], leaf[..., 4:])}

    kalman = make_filter(made.transition)
    belief = kalman.init(split(made.mean), split(made.variance))
    stream = GradientStream(*map(split, made.stream[:3]), valid=made.stream.valid)
    filtered = filter_stream(kalman, belief, stream)
    assert_trees_close(filtered.last.mean, split(flat.last.mean))
    assert filtered.conditioned.mean["b"][1].shape == (40, 0)
    nothing = GradientStream(gradient={}, precision={}, taken_at=None, valid=made.stream.valid)
    assert filter_stream(kalman, kalman.init({}), nothing).last.mean == {}


@every_filter
def test_vmap_over_transitions_and_over_streams(world, make_filter):
    made = [world(seed, missing=0.2) for seed in (8, 9)]
    etas, sigmas = jnp.array([0.1, 0.6]), jnp.array([0.4, jnp.inf])
    belief = start(made[0], make_filter)[1]

    def last(drift_scale, stationary_variance, stream):
        kalman = make_filter(OrnsteinUhlenbeck(drift_scale, stationary_variance))
        return filter_stream(kalman, belief, stream, keep="last").last

    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(m.stream for m in made))
    together = jax.vmap(last)(etas, sigmas, streams)
    for i, one in enumerate(made):
        alone = last(float(etas[i]), float(sigmas[i]), one.stream)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together), alone)


@every_filter
def test_a_filter_is_a_pytree_and_new_numbers_compile_nothing(world, make_filter):
    made = world(10, steps=11)
    compiled = []

    def run(kalman, belief):
        compiled.append(1)
        return filter_stream(kalman, belief, made.stream).last

    once = jax.jit(run)
    for eta in (0.1, 0.2, 0.3):
        kalman = make_filter(OrnsteinUhlenbeck(eta, 1.0))
        expected = filter_stream(kalman, kalman.init(made.mean), made.stream).last
        assert_trees_close(once(kalman, kalman.init(made.mean)), expected)
    assert len(compiled) == 1
    before = sequence_room._scan_beliefs._cache_size()
    kalman = make_filter(OrnsteinUhlenbeck(0.7, 3.0))
    filter_stream(kalman, kalman.init(made.mean), made.stream)
    assert sequence_room._scan_beliefs._cache_size() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_belief_keeps_its_type_along_a_stream(world, dtype):
    made = world(11)
    kalman = diagonal_filter(made.transition)
    belief = kalman.init(made.mean.astype(dtype))
    stream = GradientStream(
        *(leaf.astype(np.float32) for leaf in made.stream[:3]), valid=made.stream.valid
    )
    filtered = filter_stream(kalman, belief, stream)
    assert {leaf.dtype for leaf in jax.tree.leaves(filtered.last)} == {jnp.dtype(dtype)}
    in_double = filter_stream(kalman, kalman.init(made.mean), made.stream)
    assert_allclose(filtered.last.mean, in_double.last.mean, rtol=1e-5)


def test_everything_runs_where_float64_is_off(world, float32_only):
    made = world(12, missing=0.2)
    filtered = filter_stream(*start(made), made.stream)
    assert filtered.last.mean.dtype == jnp.float32


decades = st.floats(-5, 5).map(lambda exponent: 10.0**exponent)


@every_filter
@settings(max_examples=40)
@given(drift=st.floats(-5, 1).map(lambda e: 10.0**e), stationary=decades, scale=decades)
def test_streams_of_any_scale_are_their_literal_twin(make_filter, drift, stationary, scale):
    rng = np.random.default_rng(13)
    shape = (12, 2)
    precision = scale * rng.lognormal(0.0, 1.0, shape)
    stream = GradientStream(
        gradient=rng.normal(0.5, 1.0, shape) * np.sqrt(precision),
        precision=precision,
        taken_at=rng.normal(1.0, 1.0, shape),
        valid=np.arange(12) % 4 != 2,
    )
    mean, variance = np.array([0.3, -2.0]), np.array([0.1, 40.0])
    kalman = make_filter(OrnsteinUhlenbeck(drift, stationary))
    filtered = filter_stream(kalman, kalman.init(mean, variance), stream)
    if make_filter is diagonal_filter:
        twin = reference_filter_stream(*stream, mean, variance, drift, stationary)
        # A belief that starts up to 4e6 times wider than it may stay, and forgets that in one
        # step, loses those digits; everywhere else the two agree to 1e-12.
        assert_allclose(filtered.conditioned.variance, twin.conditioned_variance, rtol=1e-8)
        deviations = (filtered.conditioned.mean - twin.conditioned_mean) / np.sqrt(
            twin.conditioned_variance
        )
        assert np.abs(deviations).max() < 1e-8
    assert np.isfinite(filtered.conditioned.mean).all()
    assert (filtered.conditioned.variance > 0).all()


def stream_of(world, **changes):
    return world(14, steps=5).stream._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": np.ones(5)}, "valid to be one boolean per step, got float64 of shape"),
        ({"valid": np.ones((5, 3), bool)}, r"got bool of shape \(5, 3\)"),
        ({"valid": np.ones(4, bool)}, "a gradient for each of the 4 steps"),
        ({"gradient": np.float64(1.0)}, "a gradient for each of the 5 steps"),
        ({"taken_at": np.ones((4, 3))}, "a taken_at for each of the 5 steps"),
        ({"precision": np.ones((5, 3), int)}, "a floating precision, got int64"),
        ({"precision": np.full((5, 3), -0.5)}, "precision >= 0, got -0.5"),
        ({"gradient": np.ones((5, 2))}, "needs a gradient like it"),
        ({"precision": np.ones((5, 1))}, "needs a precision like it"),
        ({"taken_at": {"w": np.ones((5, 3))}}, "needs a taken_at like it"),
    ],
)
def test_a_stream_that_does_not_fit_is_refused(world, changes, message):
    made = world(14, steps=5)
    with pytest.raises(ValueError, match=message) as caught:
        filter_stream(*start(made), stream_of(world, **changes))
    assert "\n" not in str(caught.value)


def test_what_is_known_is_checked_inside_jit_and_what_is_traced_is_not(world):
    made = world(14, steps=5)
    kalman, belief = start(made)
    bad = stream_of(world, precision=np.full((5, 3), -0.5))
    with pytest.raises(ValueError, match="precision >= 0"):
        jax.jit(lambda b: filter_stream(kalman, b, bad).last)(belief)
    jax.jit(lambda b, s: filter_stream(kalman, b, s).last)(belief, bad)


def test_a_stream_wider_than_the_belief_is_refused(world):
    made = world(14)
    kalman = diagonal_filter(made.transition)
    with pytest.raises(ValueError, match="a belief of float32 would become float64"):
        filter_stream(kalman, kalman.init(made.mean.astype(np.float32)), made.stream)


def test_an_unknown_wish_is_refused(world):
    made = world(14)
    with pytest.raises(ValueError, match="knows keep all, last; got 'latest'"):
        filter_stream(*start(made), made.stream, keep="latest")
