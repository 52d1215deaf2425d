"""A change of the last bit, and what is read off how it grows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    clear_until,
    divergence_horizon,
    measure_noise_floor,
    perturbed,
    training_side_by_side,
)
from bayesfilt.simulate import run_in_chunks
from bayesfilt.tasks import custom_task


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_weight_moves_to_a_neighbouring_number_up_or_down(dtype):
    weights = jnp.asarray(np.random.RandomState(0).standard_normal(1000), dtype)
    moved = perturbed(jax.random.key(1), {"w": weights})["w"]
    assert moved.dtype == weights.dtype
    up = jnp.nextafter(weights, jnp.asarray(jnp.inf, dtype))
    down = jnp.nextafter(weights, jnp.asarray(-jnp.inf, dtype))
    went_up = np.asarray(moved == up)
    assert np.all(went_up | np.asarray(moved == down))
    assert abs(went_up.mean() - 0.5) < 5 * 0.5 / np.sqrt(1000)


def test_leaves_are_perturbed_independently_and_another_key_perturbs_otherwise():
    tree = {"a": jnp.ones(100), "b": jnp.ones(100)}
    one, two = (perturbed(jax.random.key(seed), tree) for seed in (0, 1))
    assert np.any(one["a"] != one["b"])
    assert np.any(one["a"] != two["a"])


def test_weights_that_are_zero_move_by_one_rounding_of_the_others():
    start = {"bias": jnp.zeros(3), "weight": jnp.full(9, 0.1)}
    moved = perturbed(jax.random.key(0), start)
    # Root mean square of three zeros and nine tenths.
    np.testing.assert_allclose(np.abs(moved["bias"]), 0.1 * np.sqrt(0.75) * np.finfo(float).eps)
    alone = perturbed(jax.random.key(0), jnp.zeros(3))
    np.testing.assert_array_equal(np.abs(alone), np.finfo(float).eps)


def test_the_horizon_is_the_first_step_beyond_the_threshold():
    step, noise = np.array([0, 10, 20, 30]), np.array([1e-16, 1e-9, 2e-3, 5e-4])
    assert divergence_horizon(step, noise) == 20
    assert divergence_horizon(step, noise, threshold=1e-10) == 10
    assert np.isnan(divergence_horizon(step, noise, threshold=1.0))
    assert np.isnan(divergence_horizon(step, np.full(4, np.nan)))


def test_weights_that_start_at_zero_have_no_horizon_at_step_zero():
    step = np.array([0, 10, 20, 30])
    assert np.isnan(divergence_horizon(step, np.array([np.inf, 1e-16, 1e-15, 1e-14])))
    assert divergence_horizon(step, np.array([np.inf, 1e-16, 1e-15, 0.1])) == 30


def test_a_gap_is_clear_until_the_noise_is_a_tenth_of_it_for_good():
    step = np.array([0, 10, 20, 30, 40])
    noise = np.array([1e-16, 1e-12, 1e-6, 1e-4, 1e-3])
    distance = np.array([0, 1e-3, 1e-3, 9e-4, 2e-3])
    assert clear_until(step, distance, noise) == 20
    assert clear_until(step, distance, noise, fraction=0.2) == 30
    assert np.isnan(clear_until(step, noise, noise))


def chaotic_task():
    """A step of gradient descent at rate 1 is one of the logistic map, 3.99 w (1 - w)."""

    def loss(params, batch):
        w = params["w"]
        return jnp.sum(1.33 * w**3 - 1.495 * w**2) + 0 * jnp.sum(batch)

    params = {"w": jnp.array([0.3, 0.62])}
    return custom_task(params, loss, np.zeros((4, 1)), batch_size=2)


def test_a_chaotic_run_leaves_itself_at_the_rate_of_its_chaos():
    """The logistic map almost doubles a distance each step: 1e-16 is 1e-3 after some 50."""
    floor = measure_noise_floor(
        jax.random.key(0), chaotic_task(), optax.sgd(1.0), 80, record_every=1
    )
    assert 0 < floor.weight_distance[0] < 3e-16
    assert 35 < floor.divergence_horizon < 65
    rate = np.polyfit(np.arange(5, 35), np.log2(floor.weight_distance[5:35]), 1)[0]
    assert 0.6 < rate < 1.2
    assert floor.loss_gap[-1] > 0
    assert np.isnan(floor.predictive_kl).all()


def test_two_runs_from_equal_weights_stay_equal_to_the_last_bit():
    task = chaotic_task()
    program = training_side_by_side([optax.adamw(0.9)] * 2, record_every=1)
    twins = (task.params, task.params)
    record = run_in_chunks(program, jax.random.key(0), task, 80, params=twins).record
    assert np.asarray(record.records["weight_distance"]).max() == 0
    np.testing.assert_array_equal(record.records["loss"][:, 0], record.records["loss"][:, 1])
