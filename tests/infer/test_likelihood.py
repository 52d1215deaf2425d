"""The likelihood of streams: against a dense Gaussian, the filters, and finite differences."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt import filters
from bayesfilt.infer import (
    Model,
    Streams,
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
from bayesfilt.infer.state_space import Numbers, is_sequential
from bayesfilt.theory import OrnsteinUhlenbeck
from tests.infer import dense
from tests.infer.worlds import every_model, label, row_of, some_numbers, some_streams


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
            densities = step_log_densities(model, numbers, streams)
            return jnp.sum(densities), densities

        derivative, densities = jax.grad(total, has_aux=True)(numbers)
        return densities, densities.sum(axis=1), derivative

    return jax.jit(evaluate)


class Case(NamedTuple):
    kind: str
    model: Model
    streams: Streams
    numbers: Numbers


# A noise that is known adds no number, so that those without any say as much.
EVERY_MODEL = [
    pytest.param(pair, marks=pytest.mark.slow if pair[1].noise == "matched" else ())
    for pair in every_model()
]


@pytest.fixture(scope="module", params=EVERY_MODEL, ids=lambda pair: label(*pair))
def case(request):
    """Every model in turn, so that all tests of one stand together and compile it once."""
    kind, model = request.param
    streams, numbers = some_streams(kind), some_numbers(model, kind)
    return Case(kind=kind, model=model, streams=streams, numbers=numbers)


@pytest.mark.equation("INF-1", "KF-6", "KF-8", "L2-4")
def test_every_step_has_the_density_of_the_joint_gaussian_given_the_earlier_steps(case):
    model, streams, numbers = case.model, case.streams, case.numbers
    got, _, _ = program(model)(numbers, streams)
    np.testing.assert_allclose(got, dense_terms(model, numbers, streams), rtol=1e-8, atol=1e-9)
    assert np.all(np.asarray(got)[~np.asarray(seen_steps(streams))] == 0)


def test_the_sum_is_the_joint_density_of_all_that_was_seen(case):
    if is_sequential(case.model):
        return  # it predicts step by step and has no joint density of its own
    _, totals, _ = program(case.model)(case.numbers, case.streams)
    for i, seen in enumerate(np.asarray(seen_steps(case.streams))):
        rows = [np.asarray(field[i]) for field in (case.streams.precision, case.streams.taken_at)]
        mean, _, covariance = dense.observed_law(
            case.model, row_of(case.numbers, i), case.kind, *rows
        )
        law = scipy.stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
        wanted = law.logpdf(np.asarray(case.streams.observed[i])[seen])
        np.testing.assert_allclose(totals[i], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.equation("INF-4")
def test_the_derivative_is_that_of_finite_differences(case):
    evaluate = program(case.model)
    _, _, derivative = evaluate(case.numbers, case.streams)
    for name, value in case.numbers.items():
        step = 1e-5 * value
        up = evaluate({**case.numbers, name: value + step}, case.streams)[1]
        down = evaluate({**case.numbers, name: value - step}, case.streams)[1]
        differences = (up - down) / (2 * step)
        np.testing.assert_allclose(derivative[name], differences, rtol=2e-6, atol=2e-6)


def test_other_units_of_a_weight_move_the_likelihood_by_the_jacobian_alone(case):
    streams, factor = case.streams, 1000.0
    power = {
        "drift_scale": 1, "stationary_variance": 2, "initial_variance": 2, "towards": 1,
        "measurement_variance": 2, "velocity_drift_scale": 1, "penalty": -2,
    }  # fmt: skip
    rescaled = {name: factor ** power.get(name, 0) * value for name, value in case.numbers.items()}
    seen = seen_steps(streams).sum(axis=1)
    options = {"valid": streams.valid, "layer": streams.layer}
    if case.kind == "optimum":
        other = optimum_streams(streams.observed * factor, **options)
        jacobian = -seen * np.log(factor)
    else:
        other = gradient_streams(
            streams.observed / factor,
            streams.precision / factor**2,
            streams.taken_at * factor,
            **options,
        )
        jacobian = seen * np.log(factor)
    _, got, _ = program(case.model)(rescaled, other)
    _, before, _ = program(case.model)(case.numbers, streams)
    np.testing.assert_allclose(got, before + jacobian, rtol=1e-9)


@pytest.mark.equation("INF-4")
@pytest.mark.parametrize(
    ("kind", "transition", "noise"),
    [
        ("gradient", "nonzero_mean", "free"),
        ("optimum", "nonzero_mean", "none"),
        ("optimum", "l2", "none"),  # exact looks and others at once
    ],
)
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

    @jax.jit
    def both(numbers, streams):
        filter, belief = filter_and_belief(transition, {name: n[0] for name, n in numbers.items()})
        stream = filters.GradientStream(
            gradient=streams.observed[0][:, None],
            precision=streams.precision[0][:, None],
            taken_at=streams.taken_at[0][:, None],
            valid=streams.valid[0],
        )
        theirs = filters.stream_log_likelihood(filter, belief, stream, precision_from="curvature")
        return log_likelihood(model, numbers, streams)[0], theirs

    ours, wanted = both(numbers, streams)
    np.testing.assert_allclose(ours, wanted, rtol=1e-10)


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
    got = jax.jit(predictions, static_argnums=0)(model, numbers, streams)
    seen = np.asarray(seen_steps(streams))
    terms = scipy.stats.norm.logpdf(
        np.asarray(streams.observed), got.mean, np.sqrt(np.where(seen, got.variance, 1))
    )
    wanted = np.where(seen, terms, 0)
    np.testing.assert_allclose(program(model)(numbers, streams)[0], wanted, rtol=1e-10)


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


@pytest.mark.parametrize(
    ("kind", "transition", "noise"),
    [("gradient", "ornstein_uhlenbeck", "free"), ("optimum", "velocity", "none")],
)
def test_float32_streams_give_a_float32_likelihood_close_by(kind, transition, noise):
    model = model_named(transition, noise=noise)
    double = some_numbers(model, kind), some_streams(kind)
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, double
    )
    likelihood = jax.jit(log_likelihood, static_argnums=0)
    got = likelihood(model, *single)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, likelihood(model, *double), rtol=2e-4)


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
