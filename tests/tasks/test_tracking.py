import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.tasks import tracking_task
from bayesfilt.theory import OrnsteinUhlenbeck

# Three weights that differ in everything: quiet, at the crossover, loud.
PRECISION = np.array([0.2, 40.0, 3e4])


def make(
    transition=None, num_steps=50, batch_size=8, precision=PRECISION, key=None, dtype="float64"
):
    transition = transition or OrnsteinUhlenbeck(drift_scale=0.1, stationary_variance=0.05)
    key = jax.random.key(0) if key is None else key
    return tracking_task(key, transition, precision, num_steps, batch_size=batch_size, dtype=dtype)


def test_batch_size_times_the_gradient_is_the_summed_gradient_of_the_model():
    task = make(batch_size=8)
    batch = task.sample_batch(jax.random.key(1), 17)
    weights = np.array([0.5, -0.3, 0.02])
    summed = task.batch_size * jax.jit(jax.grad(task.loss))(weights, batch)
    h = PRECISION
    expected = h * (weights - np.asarray(task.optimum)[17]) + np.sqrt(h) * np.asarray(batch.noise)
    np.testing.assert_allclose(summed, expected, rtol=1e-11)


def test_batch_size_changes_the_mean_loss_and_nothing_else():
    small, large = make(batch_size=1), make(batch_size=50)
    np.testing.assert_array_equal(small.optimum, large.optimum)
    batch = small.sample_batch(jax.random.key(1), 3)
    weights = np.array([0.5, -0.3, 0.02])
    np.testing.assert_allclose(
        small.loss(weights, batch), 50 * large.loss(weights, batch), rtol=1e-12
    )


def test_observed_gradients_have_the_model_s_mean_and_variance():
    task = make()
    keys = jax.random.split(jax.random.key(2), 20_000)
    weights, step = np.array([0.5, -0.3, 0.02]), 11

    def summed(key):
        return task.batch_size * jax.grad(task.loss)(weights, task.sample_batch(key, step))

    drawn = np.asarray(jax.jit(jax.vmap(summed))(keys))
    wanted = PRECISION * (np.asarray(weights) - np.asarray(task.optimum)[step])
    error = np.sqrt(PRECISION / len(keys))
    assert np.all(np.abs(drawn.mean(axis=0) - wanted) < 5 * error)
    assert np.all(np.abs(drawn.var(axis=0) / PRECISION - 1) < 5 * np.sqrt(2 / len(keys)))


def test_the_path_is_the_exact_stationary_chain():
    # Fast relaxation, where exact and first-order chains differ by 12 %.
    eta, sigma2, worlds, steps = 0.5, 0.5, 4_000, 6
    a = np.exp(-(eta**2) / (2 * sigma2))
    q = sigma2 * (1 - np.exp(-(eta**2) / sigma2))
    transition = OrnsteinUhlenbeck(drift_scale=eta, stationary_variance=sigma2)
    keys = jax.random.split(jax.random.key(3), worlds)
    draw = jax.jit(jax.vmap(lambda key: make(transition, num_steps=steps, key=key).optimum))
    path = np.asarray(draw(keys)).transpose(0, 2, 1).reshape(-1, steps)  # one row a weight
    n = len(path)
    five = 5 * np.sqrt(2 / n)
    assert np.all(np.abs(path.mean(axis=0)) < 5 * np.sqrt(sigma2 / n))
    assert np.all(np.abs(path.var(axis=0) / sigma2 - 1) < five)
    moves = path[:, 1:] - a * path[:, :-1]
    assert np.all(np.abs(moves.var(axis=0) / q - 1) < five)
    slope = (path[:, 1:] * path[:, :-1]).mean(axis=0) / (path[:, :-1] ** 2).mean(axis=0)
    assert np.all(np.abs(slope - a) < 5 * np.sqrt(q / sigma2 / n))
    lagged = np.corrcoef(moves.T) - np.eye(steps - 1)
    assert np.abs(lagged).max() < 5 / np.sqrt(n)
    assert abs(a - (1 - eta**2 / (2 * sigma2))) > 5 * np.sqrt(q / sigma2 / n)  # it could tell


def test_an_infinite_stationary_variance_is_a_random_walk_from_zero():
    transition = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=float("inf"))
    path = np.asarray(make(transition, num_steps=20_000).optimum)
    assert np.all(path[0] == 0)
    moves = np.diff(path, axis=0)
    assert np.all(np.abs(moves.std(axis=0) / 0.2 - 1) < 5 / np.sqrt(2 * len(moves)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("eta", [1e-12, 1e-6, 1e-2])
def test_slow_drift_keeps_its_size_in_every_precision(eta, dtype):
    transition = OrnsteinUhlenbeck(drift_scale=eta, stationary_variance=float("inf"))
    nearly = OrnsteinUhlenbeck(drift_scale=eta, stationary_variance=1e30)
    path = make(transition, num_steps=100, dtype=dtype).optimum
    # Started from zero, a nearly free optimum makes the very moves of a free one.
    other = make(nearly, num_steps=100, dtype=dtype).optimum
    np.testing.assert_allclose(np.std(np.diff(path, axis=0)), eta, rtol=0.2)
    assert np.isfinite(other).all()


def test_each_weight_may_drift_in_its_own_way():
    transition = OrnsteinUhlenbeck(
        drift_scale=np.array([0.1, 0.2, 0.4]), stationary_variance=np.array([1.0, np.inf, 0.3])
    )
    path = np.asarray(make(transition, num_steps=20_000).optimum)
    eta, sigma2 = np.array([0.1, 0.2, 0.4]), np.array([1.0, 1e12, 0.3])
    a, q = np.exp(-(eta**2) / (2 * sigma2)), -sigma2 * np.expm1(-(eta**2) / sigma2)
    moves = path[1:] - a * path[:-1]
    assert np.all(np.abs(moves.var(axis=0) / q - 1) < 5 * np.sqrt(2 / len(moves)))


def test_the_world_can_be_asked_for_and_is_what_the_batches_saw():
    task = make()
    world = task.world()
    seen = [task.sample_batch(jax.random.key(i), i).optimum for i in range(50)]
    np.testing.assert_array_equal(world.optimum, seen)
    np.testing.assert_array_equal(world.precision, PRECISION)


def test_a_run_longer_than_the_world_reads_nan_and_not_a_frozen_optimum():
    task = make(num_steps=5)
    loss = jax.jit(lambda step: task.loss(jnp.zeros(3), task.sample_batch(jax.random.key(0), step)))
    assert jnp.isfinite(loss(4)) and jnp.isnan(loss(5))


def test_a_weight_nobody_looks_at_has_a_zero_gradient():
    task = make(precision=np.array([0.0, 2.0]))
    gradient = jax.grad(task.loss)(jnp.ones(2), task.sample_batch(jax.random.key(0), 0))
    assert gradient[0] == 0 and gradient[1] != 0


def test_the_drift_may_be_traced():
    spread = jax.jit(lambda eta: make(OrnsteinUhlenbeck(eta, np.inf)).optimum.std())
    np.testing.assert_allclose(spread(1e-1), 100 * spread(1e-3), rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transition": OrnsteinUhlenbeck(0.0, 1.0)}, "drift_scale > 0, got 0"),
        ({"transition": OrnsteinUhlenbeck(np.inf, 1.0)}, "drift_scale > 0, got inf"),
        ({"transition": OrnsteinUhlenbeck(0.1, -1.0)}, "stationary_variance > 0, got -1"),
        ({"transition": OrnsteinUhlenbeck(0.1, np.nan)}, "stationary_variance > 0, got nan"),
        ({"transition": OrnsteinUhlenbeck(np.ones(2), 1.0)}, r"one a weight \(3,\)"),
        ({"precision": np.array([1.0, -2.0])}, "precision >= 0, got -2"),
        ({"precision": 3.0}, "vector precision"),
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_a_world_that_makes_no_sense_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)
