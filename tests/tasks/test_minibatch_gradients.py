"""What the square of a minibatch's gradient estimates, under this library's way of drawing one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from bayesfilt.tasks import custom_task

RANDOM = np.random.default_rng(6)
EXAMPLES, WEIGHTS, BATCH = 7, 3, 3
INPUTS = RANDOM.normal(0.5, [0.2, 1.0, 3.0], (EXAMPLES, WEIGHTS))
OUTPUTS = RANDOM.normal(1.0, 2.0, EXAMPLES)
PARAMS = jnp.asarray([0.5, -1.0, 0.2])


def mean_loss(params, batch):
    inputs, outputs = batch
    return 0.5 * jnp.mean((inputs @ params - outputs) ** 2)


def test_check_F2_the_square_of_a_minibatch_gradient_mixes_mean_square_and_squared_mean():
    data = (jnp.asarray(INPUTS), jnp.asarray(OUTPUTS))
    task = custom_task(PARAMS, mean_loss, data, batch_size=BATCH)
    each = (INPUTS @ np.asarray(PARAMS) - OUTPUTS)[:, None] * INPUTS  # one example's gradient
    mean_square, squared_mean = (each**2).mean(axis=0), each.mean(axis=0) ** 2

    def gradient(key):
        return jax.grad(task.loss)(PARAMS, task.sample_batch(key, 0))

    keys = jax.random.split(jax.random.key(8), 40_000)
    squares = np.asarray(jax.jit(jax.vmap(gradient))(keys)) ** 2
    standard_error = squares.std(axis=0) / np.sqrt(len(keys))
    # With replacement every example is a new draw, and the share of the mean square is 1/B.
    wanted = mean_square / BATCH + (1 - 1 / BATCH) * squared_mean
    assert np.all(np.abs(squares.mean(axis=0) - wanted) < 4 * standard_error)

    # Without, by counting every batch: (N - B)/(B (N - 1)), less noise the larger the batch.
    batches = [each[list(rows)].mean(axis=0) for rows in itertools.combinations(range(7), BATCH)]
    share = (EXAMPLES - BATCH) / (BATCH * (EXAMPLES - 1))
    without = share * mean_square + (1 - share) * squared_mean
    np.testing.assert_allclose(np.mean(np.square(batches), axis=0), without, rtol=1e-12)
    assert np.all(np.abs(without - wanted) > 10 * standard_error)
