"""Static, random-walk and Ornstein-Uhlenbeck filters: oracles, limits, and what their steps do."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from bayesfilt.filters import (
    diagonal_filter,
    filter_stream,
    ornstein_uhlenbeck_filter,
    random_walk_filter,
    static_filter,
    stream_log_likelihood,
)
from bayesfilt.filters.diagonal import predicted_mean
from bayesfilt.filters.reference import reference_filter_stream
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck, retention
from bayesfilt.theory.riccati import static_variance, steady_state_variance, variance_memory

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def run(kalman, made):
    belief = kalman.init(made.mean, made.variance)
    likelihood = stream_log_likelihood(kalman, belief, made.stream, precision_from="curvature")
    return filter_stream(kalman, belief, made.stream), likelihood


def assert_same_as_twin(made, kalman, drift_scale):
    filtered, likelihood = run(kalman, made)
    twin = reference_filter_stream(*made.stream, made.mean, made.variance, drift_scale, np.inf)
    for when in ("predicted", "conditioned", "last"):
        belief = getattr(filtered, when)
        assert_allclose(belief.mean, getattr(twin, f"{when}_mean"), **TIGHT)
        assert_allclose(belief.variance, getattr(twin, f"{when}_variance"), **TIGHT)
    assert_allclose(filtered.innovation.mean, twin.innovation_mean, **TIGHT)
    assert_allclose(filtered.innovation.variance, twin.innovation_variance, **TIGHT)
    assert_allclose(likelihood, twin.log_likelihood, **TIGHT)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_filters_that_forget_nothing_are_their_literal_twins(world, missing):
    made = world(21, missing=missing)
    assert_same_as_twin(made, static_filter(), 0.0)
    assert_same_as_twin(made, random_walk_filter(0.3), 0.3)


@pytest.mark.parametrize("drift_scale", [0.0, 0.3])
def test_filters_that_forget_nothing_are_the_dense_joint_gaussian(world, drift_scale):
    """All optima of a weight and all its gradients at one stroke; no drift is one optimum."""
    made = world(22, steps=25, missing=0.3)
    kalman = random_walk_filter(drift_scale) if drift_scale else static_filter()
    filtered, likelihood = run(kalman, made)
    seen = made.stream.valid
    times = np.arange(25)
    total = 0.0
    for weight in range(3):
        walked = drift_scale**2 * np.minimum.outer(times, times)
        joint = made.variance[weight] + walked
        h = made.stream.precision[:, weight]
        observed = h * made.stream.taken_at[:, weight] - made.stream.gradient[:, weight]
        design = np.diag(h)[seen]
        spread = design @ joint @ design.T + np.diag(h[seen])
        surprise = observed[seen] - design @ np.full(25, made.mean[weight])
        gain = np.linalg.solve(spread, design @ joint).T
        mean, covariance = made.mean[weight] + gain @ surprise, joint - gain @ design @ joint
        assert_allclose(filtered.conditioned.mean[-1, weight], mean[-1], **TIGHT)
        assert_allclose(filtered.conditioned.variance[-1, weight], covariance[-1, -1], **TIGHT)
        total -= 0.5 * surprise @ np.linalg.solve(spread, surprise)
        total -= 0.5 * (np.linalg.slogdet(spread)[1] + seen.sum() * np.log(2 * np.pi))
    assert_allclose(likelihood, total, **TIGHT)


@pytest.mark.equation("RIC-4")
def test_check_A6_without_drift_precisions_add_up(world):
    made = world(23, steps=50, missing=0.2)
    filtered, _ = run(static_filter(), made)
    h = np.where(made.stream.valid[:, None], made.stream.precision, 0.0)
    heard = np.cumsum(h, axis=0)
    assert_allclose(1 / filtered.conditioned.variance, 1 / made.variance + heard, rtol=1e-12)
    told = static_variance(jnp.asarray(made.variance), jnp.asarray(heard[-1]))
    assert_allclose(filtered.last.variance, told, rtol=1e-12)
    # and the mean is that of linear regression: every observation counts by its precision
    counts = h * made.stream.taken_at - np.where(h == 0, 0.0, made.stream.gradient)
    mean = (made.mean / made.variance + counts.sum(0)) / (1 / made.variance + h.sum(0))
    assert_allclose(filtered.last.mean, mean, rtol=1e-12)


@pytest.mark.equation("RIC-4")
def test_check_A6_without_drift_the_step_is_a_mean_square_and_falls_as_one_over_time():
    """Exponents -1 in time and in the precision; with drift 0 and -1/2, so the root is drift's."""
    steps, h = 4_000, jnp.array([1.0, 10.0, 100.0])
    wanted = {static_filter(): (-1.0, -1.0), random_walk_filter(3e-3): (0.0, -0.5)}
    for kalman, (in_time, in_precision) in wanted.items():

        def absorb(belief, _, kalman=kalman):
            after = kalman.condition(belief, jnp.zeros(3), h)
            return kalman.predict(after), after.variance

        _, p = jax.lax.scan(absorb, kalman.init(jnp.zeros(3), 1e3), None, steps)
        slopes = np.log(p[-1] / p[steps // 2 - 1]) / np.log(2)
        assert_allclose(slopes, in_time, atol=0.01)
        assert_allclose(np.diff(np.log(p[-1])) / np.log(10), in_precision, atol=0.02)


def test_a_static_filter_is_a_random_walk_that_stands_still(world):
    made = world(24, missing=0.2)
    still, walk = run(static_filter(), made), run(random_walk_filter(1e-9), made)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-12), still, walk)


def test_a_random_walk_is_the_diagonal_filter_of_an_infinite_variance(world):
    made = world(25, missing=0.2)
    walk = run(random_walk_filter(0.3), made)
    diagonal = run(diagonal_filter(OrnsteinUhlenbeck(0.3, np.inf)), made)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-14), walk, diagonal)


def test_a_random_walk_settles_on_adams_step():
    h = jnp.array([1.0, 100.0, 1e4])
    kalman = random_walk_filter(1e-4)
    belief = jax.lax.fori_loop(
        0,
        100_000,
        lambda _, belief: kalman.condition(kalman.predict(belief), jnp.zeros(3), h),
        kalman.init(jnp.zeros(3), 0.0),
    )
    assert_allclose(belief.variance, steady_state_variance(h, 1e-4, np.inf), rtol=1e-8)
    assert_allclose(belief.variance, 1e-4 / np.sqrt(h), rtol=6e-3)  # half the gain


@pytest.mark.equation("KF-4")
@pytest.mark.parametrize(
    ("zero", "dtype"), [("number", np.float32), ("array", np.float64), ("tree", np.float64)]
)
def test_drawn_towards_zero_it_is_the_diagonal_filter_bit_for_bit(world, zero, dtype):
    made = world(26, missing=0.2)

    def tree(leaf):
        return {"a": leaf[..., :1], "b": leaf[..., 1:]}

    stream = made.stream._replace(
        **{name: tree(getattr(made.stream, name).astype(dtype)) for name in made.stream._fields[:3]}
    )
    zeros = {"array": jnp.zeros(1), "tree": {"a": jnp.zeros(1), "b": jnp.zeros(2)}}
    plain = diagonal_filter(made.transition)
    drawn = ornstein_uhlenbeck_filter(made.transition, towards=zeros.get(zero, 0.0))
    runs = []
    for kalman in (plain, drawn):
        belief = kalman.init(tree(made.mean.astype(dtype)))
        total = stream_log_likelihood(kalman, belief, stream, precision_from="curvature")
        runs.append((filter_stream(kalman, belief, stream), total))
    jax.tree.map(assert_array_equal, *runs)


@pytest.mark.equation("KF-4")
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_drawn_towards_any_mean_it_is_the_kalman_filter_of_a_library(world, missing):
    made = world(27, steps=60, missing=missing)
    eta, sigma2 = made.transition
    rest = np.array([3.0, -7.0, 0.2])
    filtered, likelihood = run(
        ornstein_uhlenbeck_filter(made.transition, towards=jnp.asarray(rest)), made
    )
    gradient, precision, taken_at, valid = made.stream
    kept = np.exp(-(eta**2) / (2 * sigma2))
    book = KalmanFilter(k_endog=3, k_states=3, tolerance=0)
    book.bind(np.where(valid[:, None], gradient, np.nan))
    diagonal = np.eye(3)[:, :, None]
    book["design"] = -diagonal * precision.T
    book["obs_intercept"] = (precision * taken_at).T
    book["obs_cov"] = diagonal * precision.T
    book["transition"] = kept * np.eye(3)
    book["state_intercept"] = ((1 - kept) * rest)[:, None]
    book["selection"] = np.eye(3)
    book["state_cov"] = sigma2 * (1 - kept**2) * np.eye(3)
    book.initialize_known(made.mean, np.diag(made.variance))
    book = book.filter()
    assert_allclose(filtered.predicted.mean, book.predicted_state.T[:-1], **TIGHT)
    assert_allclose(filtered.last.mean, book.predicted_state.T[-1], **TIGHT)
    assert_allclose(filtered.conditioned.mean, book.filtered_state.T, **TIGHT)
    variance = np.einsum("iit->ti", book.filtered_state_cov)
    assert_allclose(filtered.conditioned.variance, variance, **TIGHT)
    assert_allclose(likelihood, book.llf_obs.sum(), **TIGHT)


def test_moving_the_origin_moves_every_belief_and_no_likelihood(world):
    made = world(28, missing=0.2)
    plain, likelihood = run(diagonal_filter(made.transition), made)
    moved = made._replace(
        mean=made.mean + 5.0, stream=made.stream._replace(taken_at=made.stream.taken_at + 5.0)
    )
    shifted, same = run(ornstein_uhlenbeck_filter(made.transition, towards=5.0), moved)
    assert_allclose(shifted.conditioned.mean - 5.0, plain.conditioned.mean, **TIGHT)
    assert_allclose(shifted.last.mean - 5.0, plain.last.mean, **TIGHT)
    assert_allclose(same, likelihood, **TIGHT)


def test_without_gradients_a_mean_comes_to_rest_where_it_is_drawn_to_and_stays():
    """In float32 too, however slow the pull: the pull is nothing there, not a difference."""
    kalman = ornstein_uhlenbeck_filter(OrnsteinUhlenbeck(1e-3, 0.1), towards=1.1)
    start = kalman.init({"there": jnp.float32(1.1), "far": jnp.float32(9.0)})
    end = jax.lax.fori_loop(0, 100_000, lambda _, belief: kalman.predict(belief), start)
    assert end.mean["there"] == np.float32(1.1)
    assert_allclose(end.mean["far"], 1.1 + 7.9 * np.exp(-0.5), rtol=1e-2)  # 1e5 steps of 5e-6
    assert_allclose(predicted_mean(jnp.float64(9.0), 0.25, 1.0), 7.0, rtol=1e-15)


def test_a_tree_of_means_draws_each_leaf_to_its_own():
    kalman = ornstein_uhlenbeck_filter(
        OrnsteinUhlenbeck(0.5, 0.5), towards={"w": jnp.array([1.0, 2.0]), "b": -3.0}
    )
    belief = kalman.init({"w": jnp.zeros((2, 2)), "b": jnp.zeros(())})
    end = jax.lax.fori_loop(0, 400, lambda _, belief: kalman.predict(belief), belief)
    assert_allclose(end.mean["w"], [[1.0, 2.0], [1.0, 2.0]], rtol=1e-12)
    assert_allclose(end.mean["b"], -3.0, rtol=1e-12)


@pytest.mark.equation("RIC-5")
@pytest.mark.parametrize("sigma2", [0.5, np.inf])
def test_check_A10_the_variance_remembers_the_square_of_what_the_gain_leaves(sigma2):
    """By automatic differentiation through the filter: one step, and ten of them."""
    eta = 0.05
    kalman = diagonal_filter(OrnsteinUhlenbeck(eta, sigma2))
    precisions = jnp.asarray(np.random.default_rng(5).lognormal(1.0, 2.0, 10))

    def step(variance, h):
        belief = kalman.predict(kalman.init(0.0, variance))
        variance = kalman.condition(belief, jnp.zeros(()), h).variance
        return variance, variance

    @jax.jit
    def follow(variance):
        return jax.lax.scan(step, variance, precisions)[1]

    start = jnp.float64(0.2)
    path = follow(start)
    kept = variance_memory(path, precisions, retention(eta, sigma2))
    a = np.exp(-(eta**2) / (2 * sigma2))
    assert_allclose(kept, (1 - path * precisions) ** 2 * a**2, rtol=1e-10)
    one, ten = (jax.grad(lambda v, last=last: follow(v)[last])(start) for last in (0, 9))
    assert_allclose(one, kept[0], rtol=1e-12)
    assert_allclose(ten, np.prod(kept), rtol=1e-10)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: random_walk_filter(0.0), "drift_scale > 0, got drift_scale=0"),
        (lambda: random_walk_filter(jnp.array([1.0, -2.0])), "got drift_scale=-2"),
        (lambda: random_walk_filter(np.inf), "got drift_scale=inf"),
        (lambda: inspect.unwrap(random_walk_filter)(lambda step: 0.1), "got a schedule"),
        (lambda: inspect.unwrap(random_walk_filter)("0.1"), "a real number for drift_scale"),
        (lambda: drawn(np.nan), "a finite towards, got towards=nan"),
        (lambda: drawn({"w": jnp.array([0.0, np.inf])}), "a finite towards, got towards=inf"),
        (lambda: drawn(None), "a real number for towards, got towards=None"),
        (lambda: drawn(lambda step: 0.1), "a number for towards, got a schedule"),
        (lambda: drawn({"v": 1.0}).init({"w": jnp.zeros(2)}), "needs a towards like them, got"),
        (lambda: drawn(jnp.ones(3)).init(jnp.zeros(2)), "broadcast"),
        (
            lambda: ornstein_uhlenbeck_filter(OrnsteinUhlenbeck(0.1, 0.0)),
            "stationary_variance > 0, got stationary_variance=0",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def drawn(towards):
    return inspect.unwrap(ornstein_uhlenbeck_filter)(OrnsteinUhlenbeck(0.1, 1.0), towards=towards)
