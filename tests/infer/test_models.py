"""The NumPyro models: their sites, their priors, and what other units do to them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

from bayesfilt.infer import (
    MODELS,
    gradient_streams,
    log_likelihood,
    model_function,
    model_named,
    numbers_of,
    optimum_streams,
    parameter_names,
    priors_for,
)
from bayesfilt.infer.models import drift_over_move
from bayesfilt.infer.state_space import SHARED, Numbers
from bayesfilt.theory import process_variance
from tests.infer.worlds import PAIRS, some_streams


class Told(NamedTuple):
    """What a model says at one place of its unconstrained sites."""

    sites: dict[str, jax.Array]  # deterministic
    numbers: Numbers
    factor: jax.Array  # what the model is conditioned by
    likelihood: jax.Array  # of those numbers
    height: jax.Array  # log density, prior included


@functools.cache
def program(model):
    """Compiled once for all tests: every number of the model at unconstrained sites `raw`."""

    def tell(raw, streams, priors):
        height, sites = log_density(model_function(model), (streams, priors), {}, raw)
        draw = {name: each["value"] for name, each in sites.items() if is_reported(each)}
        numbers = numbers_of(model, draw, streams)
        return Told(
            sites=draw,
            numbers=numbers,
            factor=sites["log_likelihood"]["fn"].log_factor,
            likelihood=jnp.sum(log_likelihood(model, numbers, streams)),
            height=height,
        )

    return jax.jit(tell)


def is_reported(site):
    return site["type"] == "deterministic"


def some_raw(model, streams, priors, seed=0):
    """A value of every unconstrained site."""

    def sampled():
        seeded = numpyro.handlers.seed(model_function(model), jax.random.key(0))
        sites = numpyro.handlers.trace(seeded).get_trace(streams, priors)
        return {
            name: site["value"]
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }

    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), jax.eval_shape(sampled)
    )


# Each transition with both poolings; the hierarchies are those of the test of units.
# A noise that is known adds no number, so that those without any say as much.
POOLED = [
    pytest.param(
        *pair,
        "stream" if pair[2] == "free" else "layer",
        marks=pytest.mark.slow if pair[2] == "matched" else (),
    )
    for pair in PAIRS
]


@pytest.mark.parametrize(("kind", "transition", "noise", "pooling"), POOLED)
def test_a_draw_reports_every_number_and_is_scored_by_the_likelihood(
    kind, transition, noise, pooling
):
    model = model_named(transition, noise=noise, pooling=pooling)
    streams = some_streams(kind)
    priors = priors_for(streams)
    told = program(model)(some_raw(model, streams, priors), streams, priors)
    assert set(told.numbers) == set(parameter_names(model, kind))
    for name, value in told.numbers.items():
        assert value.shape == (3,) and told.sites[name].shape == (2,)
        assert np.isfinite(np.asarray(value)).all()
        assert name == "towards" or (np.asarray(value) > 0).all()
        is_shared = pooling == "layer" or name in SHARED
        assert (value[0] == value[2]) == is_shared
        if is_shared:
            np.testing.assert_array_equal(value, told.sites[name][streams.layer])
    np.testing.assert_allclose(told.factor, told.likelihood, rtol=1e-12)
    if "stationary_variance" in told.numbers:
        decay = told.sites["drift_scale"] ** 2 / (2 * told.sites["stationary_variance"])
        np.testing.assert_allclose(told.sites["shrink"], 1 - np.exp(-decay), rtol=1e-10)


def rescaled(streams, factor):
    """The same streams in another unit of a weight."""
    options = {"valid": streams.valid, "layer": streams.layer}
    if streams.kind == "optimum":
        return optimum_streams(streams.observed * factor, **options)
    return gradient_streams(
        streams.observed / factor,
        streams.precision / factor**2,
        streams.taken_at * factor,
        **options,
    )


@pytest.mark.parametrize("kind", ["gradient", "optimum"])
@pytest.mark.parametrize("transition", list(MODELS))
def test_another_unit_of_a_weight_shifts_the_posterior_by_a_constant(kind, transition):
    model, factor = model_named(transition, pooling="stream"), 1000.0
    streams = some_streams(kind)
    other = rescaled(streams, factor)
    seen = float(jnp.sum(streams.valid & (streams.precision > 0)))
    gaps = []
    for seed in range(3):
        raw = some_raw(model, streams, priors_for(streams), seed)
        heights = [program(model)(raw, data, priors_for(data)).height for data in (streams, other)]
        gaps.append(heights[1] - heights[0])
    jacobian = seen * np.log(factor) * (1 if kind == "gradient" else -1)
    np.testing.assert_allclose(gaps, jacobian, rtol=1e-7)


@pytest.mark.equation("INF-3")
def test_drift_scale_and_stationary_variance_come_from_a_move_and_a_relaxation_time():
    streams = some_streams("gradient")
    model, priors = model_named("ornstein_uhlenbeck", pooling="stream"), priors_for(streams)
    raw = some_raw(model, streams, priors)
    sites = program(model)(raw, streams, priors).sites
    drift, variance = sites["drift_scale"], sites["stationary_variance"]
    for name, wanted in (
        ("process_deviation", 0.5 * np.log(process_variance(drift, variance))),
        ("relaxation_time", np.log(2 * variance / drift**2)),
    ):
        centre, deviation = getattr(priors, name)
        np.testing.assert_allclose(centre + deviation * raw[f"{name}_raw"], wanted, rtol=1e-10)
    assert drift_over_move(jnp.asarray(1e-8)) == pytest.approx(1, abs=1e-7)


def test_priors_know_the_scale_of_moves_and_of_noise_within_a_decade():
    random = np.random.default_rng(5)
    walks = 0.02 * random.normal(size=(8, 400)).cumsum(axis=1)
    priors = priors_for(optimum_streams(walks + 0.3 * random.normal(size=walks.shape)))
    assert abs(float(priors.process_deviation.centre[0]) - np.log(0.02)) < np.log(10)
    assert abs(float(priors.measurement_variance.centre[0]) - np.log(0.09)) < np.log(2)


def test_a_name_that_is_nearly_right_is_offered():
    with pytest.raises(ValueError, match="Did you mean 'ornstein_uhlenbeck'"):
        model_named("ornstein_uhlenbek")


def test_one_program_serves_other_priors_and_other_data():
    model = model_named("ornstein_uhlenbeck", pooling="stream")
    streams = [some_streams("gradient", seed=seed) for seed in range(2)]
    raw = some_raw(model, streams[0], priors_for(streams[0]))

    def height_and_programs(data):
        return program(model)(raw, data, priors_for(data)).height, program(model)._cache_size()

    (first, compiled), (second, compiled_in_the_end) = map(height_and_programs, streams)
    assert first != second
    assert compiled == compiled_in_the_end


@pytest.mark.parametrize("ratio", [0.3, 1.0, 30.0])
def test_noise_beyond_the_curvature_is_not_taken_for_moves(ratio):
    random, curvature = np.random.default_rng(0), 0.01
    walk = random.normal(size=(24, 600)).cumsum(1)
    noise = np.sqrt(ratio * curvature) * random.normal(size=walk.shape)
    priors = priors_for(gradient_streams(-curvature * walk + noise, curvature, 0.0))
    assert abs(float(priors.process_deviation.centre[0])) < 0.7
