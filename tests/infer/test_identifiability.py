"""What the data say, against cases where it is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer import (
    calibration_design,
    calibration_priors,
    contraction,
    draw_numbers,
    draw_streams,
    identifiability,
    log_likelihood,
    model_named,
    optimum_streams,
    profile_likelihood,
    relaxation_times,
)

MODEL = model_named("ornstein_uhlenbeck")
TRUTH = {"drift_scale": 0.4, "stationary_variance": 1.0, "noise_ratio": 1.0}


draw = jax.jit(draw_streams, static_argnums=1)
draw_prior = jax.jit(jax.vmap(draw_numbers, (0, None, None, None, None)), static_argnums=(1, 3))


@functools.cache
def streams_of(num_streams: int, num_steps: int):
    design = calibration_design(jax.random.key(0), num_streams=num_streams, num_steps=num_steps)
    numbers = {name: jnp.full(num_streams, value) for name, value in TRUTH.items()}
    return draw(jax.random.key(1), MODEL, numbers, design)


def test_contraction_is_the_share_of_the_logs_variance_that_is_gone():
    rng = np.random.default_rng(0)
    log = rng.normal(size=(50_000, 2))
    log = (log - log.mean(0)) / log.std(0)
    prior = {"scale": np.exp(2 * log), "towards": log}
    posterior = {"scale": np.exp(5 + np.array([0.5, 2]) * log), "towards": 3 + 0.1 * log}
    found = contraction(prior, posterior)
    assert found.names == ("scale", "towards")
    np.testing.assert_allclose(found.values, [[1 - 0.0625, 0], [0.99, 0.99]], atol=1e-12)


def test_draws_of_several_chains_count_alike():
    rng = np.random.default_rng(0)
    draws = np.exp(rng.normal(size=(600, 3)))
    chains = contraction({"a": draws}, {"a": draws.reshape(2, 300, 3) ** 0.5})
    np.testing.assert_allclose(chains.values, [[0.75] * 3])


def test_relaxation_times_are_shrink_times_the_steps_from_first_to_last_valid():
    valid = np.ones((3, 50), bool)
    valid[0, :10] = False  # 40 steps are left, and 35 with a hole among them
    valid[0, 15:20] = False
    valid[1, 5:] = False
    streams = optimum_streams(np.zeros((3, 50)), valid=valid, layer=np.array([0, 0, 1]))
    shrink = 0.02
    drift = np.full((10, 2), np.sqrt(-2 * np.log1p(-shrink)))
    found = relaxation_times(drift, np.ones((10, 2)), streams)
    np.testing.assert_allclose(found.median, [40 * shrink, 50 * shrink], rtol=1e-12)
    np.testing.assert_allclose(found.low, found.high)


def test_a_profile_is_the_best_over_all_other_numbers():
    streams = streams_of(3, 40)
    grid = np.geomspace(0.3, 3.0, 5)
    found = profile_likelihood(MODEL, streams, TRUTH, "stationary_variance", grid)
    # By brute force: a fine grid of the two others around what was found.
    factors = np.exp(np.linspace(-0.3, 0.3, 13))

    @jax.jit
    @jax.vmap
    def total(one):
        rows = {name: jnp.full(3, number) for name, number in one.items()}
        return log_likelihood(MODEL, rows, streams).sum()

    for i, value in enumerate(grid):
        drift, ratio = np.meshgrid(
            found.best["drift_scale"][i] * factors, found.best["noise_ratio"][i] * factors
        )
        numbers = {
            "drift_scale": drift.ravel(),
            "stationary_variance": np.full(drift.size, value),
            "noise_ratio": ratio.ravel(),
        }
        brute = total(numbers)
        assert int(np.argmax(brute)) == 84  # the middle of 13 x 13
        np.testing.assert_allclose(found.log_likelihood[i], np.max(brute), rtol=1e-9)


def test_a_profile_sees_which_side_the_data_leave_open():
    model = model_named("ornstein_uhlenbeck", noise="matched")
    design = calibration_design(jax.random.key(0), num_streams=1, num_steps=12, precision=100.0)
    numbers = {name: jnp.full(1, value) for name, value in TRUTH.items()}
    short = draw(jax.random.key(1), model, numbers, design)  # one relaxation time
    grid = np.geomspace(1e-3, 10.0, 13)
    found = profile_likelihood(model, short, TRUTH, "stationary_variance", grid)
    assert found.bounded == (True, False)
    assert found.best["stationary_variance"] == pytest.approx(grid)


def test_a_short_window_is_said_to_be_weak_in_words():
    streams = streams_of(4, 12)
    priors = calibration_priors(streams)
    keys = jax.random.split(jax.random.key(0), 2_000)
    prior = draw_prior(keys, MODEL, priors, 1, jnp.zeros(1, int))
    posterior = {name: np.asarray(draws) for name, draws in prior.items()}  # nothing was learned
    slow = posterior | {"stationary_variance": 1e2 * posterior["drift_scale"] ** 2}
    found = identifiability(jax.random.key(1), MODEL, streams, priors, slow)
    sentence = next(line for line in found.statements if line.startswith("stationary_variance"))
    # T η²/(2 σ²) = 12 / 200.
    assert "weak: 0.1 relaxation times in the window" in sentence
    assert "below about three" in sentence and "its 4 streams" in sentence
    assert any(line.startswith("noise_ratio of all is weak") for line in found.statements)
    # The variance of a variance of 2000 log-normal draws' logs, and of 4000.
    assert found.contraction.names[:2] == ("drift_scale", "noise_ratio")
    assert np.abs(found.contraction.values[:2]).max() < 4 * np.sqrt(2 / 2_000 + 2 / 4_000)


def test_a_long_window_leaves_nothing_to_say():
    streams = streams_of(4, 200)
    priors = calibration_priors(streams)
    rng = np.random.default_rng(0)
    posterior = {
        name: value * np.exp(0.05 * rng.normal(size=(2, 500, 1))) for name, value in TRUTH.items()
    }
    found = identifiability(jax.random.key(1), MODEL, streams, priors, posterior)
    assert found.statements == ()
    np.testing.assert_allclose(found.window.median, 200 * 0.08, rtol=0.06)
    assert (found.contraction.values > 0.9).all()


def test_missing_numbers_are_named():
    streams = streams_of(3, 40)
    priors = calibration_priors(streams)
    with pytest.raises(ValueError, match="draws of drift_scale, noise_ratio"):
        identifiability(
            jax.random.key(0), MODEL, streams, priors, {"stationary_variance": np.ones((2, 1))}
        )
    with pytest.raises(ValueError, match="a start for noise_ratio"):
        start = dict.fromkeys(("drift_scale", "stationary_variance"), 1.0)
        profile_likelihood(MODEL, streams, start, "drift_scale", [1.0])
    with pytest.raises(ValueError, match="got 'drift'. Did you mean 'drift_scale'"):
        profile_likelihood(MODEL, streams, TRUTH, "drift", [1.0])
