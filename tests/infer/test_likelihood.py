"""The likelihood of streams: against a dense Gaussian, the filters, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt import filters
from bayesfilt.infer import (
    gradient_streams,
    log_likelihood,
    model_named,
    optimum_streams,
    predictions,
    step_log_densities,
)
from bayesfilt.infer.belief_path import _scalar_path, _walked, drift_of, first_belief
from bayesfilt.infer.likelihood import (
    looks_of,
    record_of,
    seen_steps,
    student_t_log_density,
)
from bayesfilt.theory import OrnsteinUhlenbeck
from tests.infer import dense
from tests.infer.worlds import PAIRS, every_model, label, row_of, some_numbers, some_streams

MODELS = [pytest.param(kind, model, id=label(kind, model)) for kind, model in every_model()]


def dense_terms(model, numbers, streams):
    """`dense.step_log_densities` of every row."""
    seen = np.asarray(seen_steps(streams))
    fields = [
        np.where(seen, np.asarray(field), 0.0)
        for field in (streams.observed, streams.precision, streams.taken_at)
    ]
    return np.array(
        [
            dense.step_log_densities(
                model, row_of(numbers, i), streams.kind, *(field[i] for field in fields), seen[i]
            )
            for i in range(len(seen))
        ]
    )


@functools.cache
def program(model):
    """Densities, totals and derivatives of one model, compiled once for all tests."""

    def evaluate(numbers, streams):
        def total(numbers):
            totals = log_likelihood(model, numbers, streams)
            return jnp.sum(totals), totals

        derivative, totals = jax.grad(total, has_aux=True)(numbers)
        return step_log_densities(model, numbers, streams), totals, derivative

    return jax.jit(evaluate)


@pytest.mark.equation("INF-1", "KF-6", "KF-8", "L2-4")
@pytest.mark.parametrize(("kind", "model"), MODELS)
def test_every_step_has_the_density_of_the_joint_gaussian_given_the_earlier_steps(kind, model):
    streams, numbers = some_streams(kind), some_numbers(model, kind)
    got, total, _ = program(model)(numbers, streams)
    np.testing.assert_allclose(got, dense_terms(model, numbers, streams), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(total, got.sum(axis=1), rtol=1e-13)
    assert np.all(np.asarray(got)[~np.asarray(seen_steps(streams))] == 0)


@pytest.mark.parametrize(  # "l2" predicts step by step and has no joint density of its own
    ("kind", "transition", "noise"), [pair for pair in PAIRS if pair[1] != "l2"]
)
def test_the_sum_is_the_joint_density_of_all_that_was_seen(kind, transition, noise):
    model = model_named(transition, noise=noise)
    streams, numbers = some_streams(kind), some_numbers(model, kind)
    seen = np.asarray(seen_steps(streams))
    _, totals, _ = program(model)(numbers, streams)
    for i in range(3):
        rows = [np.asarray(field[i]) for field in (streams.precision, streams.taken_at)]
        mean, _, covariance = dense.observed_law(model, row_of(numbers, i), kind, *rows)
        shown = seen[i]
        law = scipy.stats.multivariate_normal(mean[shown], covariance[np.ix_(shown, shown)])
        wanted = law.logpdf(np.asarray(streams.observed[i])[shown])
        np.testing.assert_allclose(totals[i], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.equation("INF-4")
@pytest.mark.parametrize(("kind", "model"), MODELS)
def test_the_derivative_is_that_of_finite_differences(kind, model):
    streams, numbers = some_streams(kind), some_numbers(model, kind)

    evaluate = program(model)
    _, _, derivative = evaluate(numbers, streams)
    for name, value in numbers.items():
        step = 1e-5 * value
        up = evaluate({**numbers, name: value + step}, streams)[1]
        down = evaluate({**numbers, name: value - step}, streams)[1]
        differences = (up - down) / (2 * step)
        np.testing.assert_allclose(derivative[name], differences, rtol=2e-6, atol=2e-6)


@pytest.mark.equation("INF-4")
@pytest.mark.parametrize(("kind", "noise"), [("gradient", "free"), ("optimum", "none")])
@pytest.mark.parametrize("transition", ["nonzero_mean", "random_walk", "l2"])
def test_the_recursion_backwards_is_automatic_differentiation_in_everything(
    kind, transition, noise
):
    model = model_named(transition, noise=noise)
    numbers, streams = some_numbers(model, kind), some_streams(kind)
    looks = looks_of(model, numbers, kind, record_of(streams))
    numbers_only = (looks.worth, looks.pull, looks.place)
    random = np.random.default_rng(3)
    weights = jnp.asarray(random.normal(size=(2, *looks.pull.shape)))

    def with_path(path):
        def total(drift, start, worth, pull, place):
            mean, variance = path(drift, start, type(looks)(worth, pull, looks.exact, place))
            return jnp.sum(weights[0] * mean**2 + weights[1] * jnp.sqrt(variance))

        return jax.jit(jax.grad(total, argnums=(0, 1, 2, 3, 4)))(
            drift_of(model, numbers), first_belief(model, numbers), *numbers_only
        )

    ours, plain = with_path(_scalar_path), with_path(_walked)
    for got, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_second_derivatives_are_had_forwards_over_backwards():
    model = model_named("nonzero_mean")
    streams, numbers = some_streams("gradient"), some_numbers(model, "gradient")

    def total(shift):
        moved = {name: value + shift[i] for i, (name, value) in enumerate(numbers.items())}
        return log_likelihood(model, moved, streams).sum()

    slope, step = jax.jit(jax.grad(total)), 1e-5
    rows = [slope(each) - slope(-each) for each in step * jnp.eye(len(numbers))]
    wanted = np.stack(rows) / (2 * step)
    hessian = jax.jit(jax.hessian(total))(jnp.zeros(len(numbers)))
    np.testing.assert_allclose(hessian, wanted, rtol=1e-5, atol=1e-6 * abs(wanted).max())


def filter_and_belief(transition, numbers):
    """The library's filter of a transition, and its belief about one weight to begin with."""
    at_rest = jnp.zeros(1)
    if transition == "static":
        filter = filters.static_filter()
        return filter, filter.init(at_rest, numbers["initial_variance"])
    if transition == "random_walk":
        filter = filters.random_walk_filter(numbers["drift_scale"])
        return filter, filter.init(at_rest, numbers["initial_variance"])
    pair = OrnsteinUhlenbeck(numbers["drift_scale"], numbers["stationary_variance"])
    if transition == "velocity":
        fast = {name: numbers[name] for name in ("velocity_shrink", "velocity_drift_scale")}
        filter = filters.velocity_filter(pair, **fast)
        return filter, filter.init(at_rest)
    towards = numbers.get("towards", 0.0)
    filter = filters.ornstein_uhlenbeck_filter(pair, towards=towards)
    return filter, filter.init(at_rest + towards)


@pytest.mark.parametrize(
    "transition", ["static", "random_walk", "ornstein_uhlenbeck", "velocity", "nonzero_mean"]
)
def test_the_likelihood_is_that_of_the_library_s_filters(transition):
    model = model_named(transition, noise="matched")
    streams, numbers = some_streams("gradient"), some_numbers(model, "gradient")
    _, totals, _ = program(model)(numbers, streams)
    filter, belief = filter_and_belief(transition, row_of(numbers, 0))
    stream = filters.GradientStream(
        gradient=streams.observed[0][:, None],
        precision=streams.precision[0][:, None],
        taken_at=streams.taken_at[0][:, None],
        valid=streams.valid[0],
    )
    wanted = filters.stream_log_likelihood(filter, belief, stream, precision_from="curvature")
    np.testing.assert_allclose(totals[0], wanted, rtol=1e-10)


@pytest.mark.equation("INF-2")
def test_students_t_has_the_variance_it_is_given_and_gaussian_limits():
    surprise, variance = jnp.linspace(-4, 4, 9), jnp.asarray(2.5)
    wanted = scipy.stats.t.logpdf(np.asarray(surprise), 5.0, scale=np.sqrt(2.5 * 3 / 5))
    np.testing.assert_allclose(student_t_log_density(surprise, variance, jnp.asarray(5.0)), wanted)
    normal = scipy.stats.norm.logpdf(np.asarray(surprise), scale=np.sqrt(2.5))
    far = student_t_log_density(surprise, variance, jnp.asarray(1e7))
    np.testing.assert_allclose(far, normal, atol=1e-5)


def test_predictions_are_of_the_observed_quantity():
    model = model_named("ornstein_uhlenbeck", noise="matched")
    streams, numbers = some_streams("gradient"), some_numbers(model, "gradient")
    got = predictions(model, numbers, streams)
    seen = np.asarray(seen_steps(streams))
    terms = scipy.stats.norm.logpdf(
        np.asarray(streams.observed), got.mean, np.sqrt(np.where(seen, got.variance, 1))
    )
    wanted = np.where(seen, terms, 0)
    np.testing.assert_allclose(step_log_densities(model, numbers, streams), wanted, rtol=1e-10)


@pytest.mark.parametrize("kind", ["gradient", "optimum"])
@pytest.mark.parametrize("transition", ["ornstein_uhlenbeck", "l2", "velocity", "nonzero_mean"])
def test_other_units_of_a_weight_move_the_likelihood_by_the_jacobian_alone(kind, transition):
    model, factor = model_named(transition), 1000.0
    streams, numbers = some_streams(kind), some_numbers(model, kind)
    power = {
        "drift_scale": 1, "stationary_variance": 2, "initial_variance": 2, "towards": 1,
        "measurement_variance": 2, "velocity_drift_scale": 1, "penalty": -2,
    }  # fmt: skip
    rescaled = {name: factor ** power.get(name, 0) * value for name, value in numbers.items()}
    seen = seen_steps(streams).sum(axis=1)
    if kind == "optimum":
        other = optimum_streams(streams.observed * factor, valid=streams.valid, layer=streams.layer)
        jacobian = -seen * np.log(factor)
    else:
        other = gradient_streams(
            streams.observed / factor,
            streams.precision / factor**2,
            streams.taken_at * factor,
            valid=streams.valid,
            layer=streams.layer,
        )
        jacobian = seen * np.log(factor)
    _, got, _ = program(model)(rescaled, other)
    _, before, _ = program(model)(numbers, streams)
    np.testing.assert_allclose(got, before + jacobian, rtol=1e-9)


@settings(max_examples=25)
@given(
    st.floats(-6, 6), st.floats(-4, 4), st.floats(-4, 4), st.floats(-6, 6),
    st.integers(0, 1000),
)  # fmt: skip
def test_it_holds_over_many_decades(unit, move, noise, curvature, seed):
    random = np.random.default_rng(seed)
    model = model_named("ornstein_uhlenbeck")
    spread = 10.0 ** (2 * unit)
    numbers = {
        "drift_scale": jnp.asarray([10.0 ** (unit + move / 2)]),
        "stationary_variance": jnp.asarray([spread]),
        "noise_ratio": jnp.asarray([10.0**noise]),
    }
    precision = np.exp(random.normal(size=(1, 8))) * 10.0**curvature / spread
    place = random.normal(size=(1, 8)) * 10.0**unit
    seen_at = place - random.normal(size=(1, 8)) * 10.0**unit
    streams = gradient_streams(precision * (place - seen_at), precision, place)
    got, _, _ = program(model)(numbers, streams)
    wanted = dense_terms(model, numbers, streams)
    np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-7)


def test_float32_streams_give_a_float32_likelihood_close_by():
    for kind, noise in (("gradient", "free"), ("optimum", "none")):
        for transition in ("ornstein_uhlenbeck", "velocity"):
            model = model_named(transition, noise=noise)
            streams, numbers = some_streams(kind), some_numbers(model, kind)
            single = jax.tree.map(
                lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf,
                (numbers, streams),
            )
            got = program(model)(*single)[1]
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, program(model)(numbers, streams)[1], rtol=2e-4)


def test_many_data_sets_at_once_give_what_each_gives_alone():
    model = model_named("ornstein_uhlenbeck")
    streams = [some_streams("gradient", seed=seed) for seed in range(3)]
    numbers = [some_numbers(model, "gradient", seed=seed) for seed in range(3)]
    both = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *many) for many in (numbers, streams)]

    def value_and_grad(numbers, streams):
        return jax.value_and_grad(lambda n: jnp.sum(log_likelihood(model, n, streams)))(numbers)

    together = jax.jit(jax.vmap(value_and_grad))(*both)
    alone_again = jax.jit(value_and_grad)
    for i in range(3):
        alone = alone_again(numbers[i], streams[i])
        for got, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(got[i], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "transition", "noise", "complaint"),
    [
        ("gradient", "static", "none", "for gradient streams, got noise='none'"),
        ("optimum", "static", "matched", "for optimum streams, got noise='matched'"),
        ("optimum", "static", "none", "an optimum at rest that is seen exactly is a constant"),
    ],
)
def test_a_noise_that_the_streams_do_not_have_is_refused(kind, transition, noise, complaint):
    model = model_named(transition, noise=noise)
    with pytest.raises(ValueError, match=complaint):
        log_likelihood(model, some_numbers(model, kind), some_streams(kind))
