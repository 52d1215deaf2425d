"""Draws from a model: their law is the model's, and the likelihood's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer import draw_numbers, draw_streams, model_named, predictions, priors_for
from bayesfilt.infer.likelihood import seen_steps
from tests.infer import dense
from tests.infer.worlds import row_of, some_numbers, some_streams

DRAWS = 4000


# Every transition once, and every way of looking: the path knows nothing of the look.
LAWS = [
    ("gradient", "static", "free"),
    ("optimum", "random_walk", "none"),
    ("gradient", "ornstein_uhlenbeck", "matched"),
    ("optimum", "velocity", "free"),
    ("gradient", "nonzero_mean", "free"),
]


def design_and_numbers(model, kind):
    """One stream's design, and its numbers."""
    numbers = some_numbers(model, kind, streams=1)
    if "velocity_drift_scale" in numbers:  # so large that the place at rest shows its law
        numbers["velocity_drift_scale"] = jnp.ones(1)
    return some_streams(kind, streams=1, steps=6, seed=2), numbers


@functools.partial(jax.jit, static_argnums=1)
def many(key, model, numbers, design):
    """Draws of that stream, [DRAWS, steps]."""
    keys = jax.random.split(key, DRAWS)
    return jax.vmap(lambda key: draw_streams(key, model, numbers, design).observed)(keys)[:, 0]


@pytest.mark.parametrize(("kind", "transition", "noise"), LAWS)
def test_draws_have_the_mean_and_covariance_of_the_joint_gaussian(kind, transition, noise):
    model = model_named(transition, noise=noise)
    design, numbers = design_and_numbers(model, kind)
    drawn = np.asarray(many(jax.random.key(0), model, numbers, design))
    seen = np.asarray(seen_steps(design))[0]
    fields = np.asarray(design.precision)[0], np.asarray(design.taken_at)[0]
    mean, _, covariance = dense.observed_law(model, row_of(numbers, 0), kind, *fields)
    deviation = np.sqrt(np.diag(covariance))[seen]
    standard = (drawn[:, seen] - mean[seen]) / deviation
    assert np.abs(standard.mean(axis=0)).max() < 4 / np.sqrt(DRAWS)
    wanted = covariance[np.ix_(seen, seen)] / np.outer(deviation, deviation)
    got = standard.T @ standard / DRAWS
    assert np.abs(got - wanted).max() < 4 * np.sqrt(2 / DRAWS)  # 4 errors of a variance
    assert np.all(drawn[:, ~np.asarray(design.valid)[0]] == 0)


@pytest.mark.parametrize(
    ("kind", "transition", "tails"),
    [
        ("gradient", "l2", "gaussian"),
        ("optimum", "ornstein_uhlenbeck", "student_t"),
        ("gradient", "velocity", "student_t"),
    ],
)
def test_what_is_drawn_step_by_step_surprises_as_much_as_the_model_says(kind, transition, tails):
    model = model_named(transition, tails=tails)
    design, numbers = design_and_numbers(model, kind)
    if tails == "student_t":  # a fourth moment, so that variances have an error
        numbers["degrees_of_freedom"] = jnp.asarray([9.0])
    drawn = np.asarray(many(jax.random.key(1), model, numbers, design))

    def foreseen(observed):
        fields = {name: getattr(design, name) for name in ("precision", "taken_at", "valid")}
        streams = type(design)(
            observed=observed[None], layer=design.layer, kind=kind,
            layer_names=design.layer_names, **fields,
        )  # fmt: skip
        return predictions(model, numbers, streams)

    got = jax.jit(jax.vmap(foreseen))(jnp.asarray(drawn))
    seen = np.asarray(seen_steps(design))[0]
    mean, variance = np.asarray(got.mean)[:, 0][:, seen], np.asarray(got.variance)[:, 0][:, seen]
    standard = (drawn[:, seen] - mean) / np.sqrt(variance)
    error = np.sqrt(((standard**2).var()) / DRAWS)
    assert np.abs((standard**2).mean(axis=0) - 1).max() < 4.5 * error
    correlation = np.corrcoef(standard.T) - np.eye(seen.sum())
    assert np.abs(correlation).max() < 4.5 / np.sqrt(DRAWS)  # white


def test_numbers_come_from_the_prior_one_for_each_stream():
    streams = some_streams("gradient", streams=4)
    priors = priors_for(streams)
    shared = model_named("ornstein_uhlenbeck")
    draw = jax.jit(draw_numbers, static_argnums=(1, 3))
    layered = draw(jax.random.key(0), shared, priors, 2, streams.layer)
    assert layered.keys() == {"drift_scale", "stationary_variance", "noise_ratio"}
    for value in layered.values():
        assert value[0] == value[2] and value[1] == value[3] and value[0] != value[1]
    hierarchy = model_named("l2", pooling="stream")
    own = draw(jax.random.key(0), hierarchy, priors, 2, streams.layer)
    assert len(set(np.asarray(own["penalty"]))) == 4
    assert own["initial_variance"][0] == own["initial_variance"][2]  # always shared


def test_the_prior_of_a_relaxation_time_is_the_one_it_is_given():
    streams = some_streams("gradient")
    priors = priors_for(streams)
    model = model_named("ornstein_uhlenbeck")
    keys = jax.random.split(jax.random.key(3), DRAWS)
    draw = jax.jit(jax.vmap(lambda key: draw_numbers(key, model, priors, 2, streams.layer)))
    numbers = draw(keys)
    time = np.log(2 * numbers["stationary_variance"] / numbers["drift_scale"] ** 2)[:, 0]
    centre, deviation = (float(np.ravel(value)[0]) for value in priors.relaxation_time)
    assert abs(time.mean() - centre) < 4 * deviation / np.sqrt(DRAWS)
    assert abs(time.std() / deviation - 1) < 4 / np.sqrt(2 * DRAWS)
