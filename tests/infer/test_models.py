"""The NumPyro models: their sites, their priors, and what other units do to them."""

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
from bayesfilt.theory import process_variance
from tests.infer.worlds import PAIRS, some_streams


def traced(model, streams, priors, seed=0):
    """Every site of one draw."""
    seeded = numpyro.handlers.seed(model_function(model), jax.random.key(seed))
    return numpyro.handlers.trace(seeded).get_trace(streams, priors)


@pytest.mark.parametrize("pooling", ["layer", "stream"])
@pytest.mark.parametrize(("kind", "transition", "noise"), PAIRS)
def test_a_draw_reports_every_number_and_is_scored_by_the_likelihood(
    kind, transition, noise, pooling
):
    model = model_named(transition, noise=noise, pooling=pooling)
    streams = some_streams(kind)
    sites = traced(model, streams, priors_for(streams))
    draw = {name: site["value"] for name, site in sites.items() if site["type"] == "deterministic"}
    numbers = numbers_of(model, draw, streams)
    assert set(numbers) == set(parameter_names(model, kind))
    for name, value in numbers.items():
        assert value.shape == (3,) and draw[name].shape == (2,)
        assert np.isfinite(np.asarray(value)).all()
        assert name == "towards" or (np.asarray(value) > 0).all()
        if pooling == "layer":
            assert value[0] == value[2]
    wanted = jnp.sum(log_likelihood(model, numbers, streams))
    np.testing.assert_allclose(sites["log_likelihood"]["fn"].log_factor, wanted, rtol=1e-12)
    if "stationary_variance" in numbers:
        decay = draw["drift_scale"] ** 2 / (2 * draw["stationary_variance"])
        np.testing.assert_allclose(draw["shrink"], 1 - np.exp(-decay), rtol=1e-10)


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
    streams = some_streams(kind, steps=40)
    other = rescaled(streams, factor)
    seen = float(jnp.sum(streams.valid & (streams.precision > 0)))
    gaps = []
    for seed in range(3):
        sites = traced(model, streams, priors_for(streams), seed)
        raw = {
            name: site["value"]
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        heights = [
            float(log_density(model_function(model), (data, priors_for(data)), {}, raw)[0])
            for data in (streams, other)
        ]
        gaps.append(heights[1] - heights[0])
    jacobian = seen * np.log(factor) * (1 if kind == "gradient" else -1)
    np.testing.assert_allclose(gaps, jacobian, rtol=1e-7)


@pytest.mark.equation("INF-3")
def test_drift_scale_and_stationary_variance_come_from_a_move_and_a_relaxation_time():
    streams = some_streams("gradient")
    sites = traced(model_named("ornstein_uhlenbeck"), streams, priors_for(streams))
    drift, variance = (sites[n]["value"] for n in ("drift_scale", "stationary_variance"))
    priors = priors_for(streams)
    for name, wanted in (
        ("process_deviation", 0.5 * np.log(process_variance(drift, variance))),
        ("relaxation_time", np.log(2 * variance / drift**2)),
    ):
        centre, deviation = getattr(priors, name)
        basic = centre + deviation * sites[f"{name}_raw"]["value"]
        np.testing.assert_allclose(basic, wanted, rtol=1e-10)
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
    model, count = model_named("ornstein_uhlenbeck"), []
    streams = [some_streams("gradient", seed=seed) for seed in range(2)]

    @jax.jit
    def height(raw, streams, priors):
        count.append(1)
        return log_density(model_function(model), (streams, priors), {}, raw)[0]

    raw = {f"{name}_raw": jnp.zeros(2) for name in
           ("process_deviation", "relaxation_time", "noise_ratio")}  # fmt: skip
    assert height(raw, streams[0], priors_for(streams[0])) != height(
        raw, streams[1], priors_for(streams[1])
    )
    assert len(count) == 1


@pytest.mark.parametrize("ratio", [0.3, 1.0, 30.0])
def test_noise_beyond_the_curvature_is_not_taken_for_moves(ratio):
    random, curvature = np.random.default_rng(0), 0.01
    walk = random.normal(size=(24, 600)).cumsum(1)
    noise = np.sqrt(ratio * curvature) * random.normal(size=walk.shape)
    priors = priors_for(gradient_streams(-curvature * walk + noise, curvature, 0.0))
    assert abs(float(priors.process_deviation.centre[0])) < 0.7
