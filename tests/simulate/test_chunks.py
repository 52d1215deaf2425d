"""A run cut into chunks is the same run, bit by bit, and survives Ctrl-C."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import adabayes
from bayesfilt.simulate import run_in_chunks, shadow, shadowing, simulate, training
from bayesfilt.simulate.probes import weights
from bayesfilt.tasks import make_task

OPTIMIZER = adabayes(1e-2, 0.05, batch_size=16)
PROBES = {"loss": lambda task, view: view.loss, "weights": weights}


@pytest.fixture(scope="module")
def digits():
    return make_task("digits-mlp", batch_size=16, dtype="float32")


@pytest.fixture(scope="module")
def whole(digits):
    run = partial(simulate, optimizer=OPTIMIZER, num_steps=42, probes=PROBES, record_every=4)
    return jax.jit(run)(jax.random.key(0), digits)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("steps_per_chunk", [4, 10, 50])
def test_chunks_give_the_bits_of_one_run(digits, whole, steps_per_chunk):
    program = training(OPTIMIZER, PROBES, record_every=4)
    chunked = run_in_chunks(program, jax.random.key(0), digits, 42, steps_per_chunk=steps_per_chunk)
    assert (chunked.completed_steps, chunked.interrupted) == (42, False)
    same_bits(tuple(whole), tuple(chunked.record))


def test_a_shadow_runs_in_chunks_too():
    task = make_task("digits-mlp", batch_size=16, dtype="float64")
    followers = {"sgd": optax.sgd(0.1)}
    whole = jax.jit(lambda key, task: shadow(key, task, OPTIMIZER, followers, 20, record_every=5))(
        jax.random.key(0), task
    )
    program = shadowing(OPTIMIZER, followers, record_every=5)
    chunked = run_in_chunks(program, jax.random.key(0), task, 20, steps_per_chunk=10)
    same_bits(tuple(whole), tuple(chunked.record))


@pytest.fixture(scope="module")
def bowl():
    return make_task("bowl", batch_size=4, dtype="float64")


def test_progress_is_told_after_every_chunk(bowl):
    told = []
    program = training(OPTIMIZER, record_every=5)
    run_in_chunks(
        program,
        jax.random.key(0),
        bowl,
        23,
        steps_per_chunk=9,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(10, 23), (20, 23), (23, 23)]


def test_ctrl_c_keeps_the_chunks_that_are_done(bowl):
    def interrupt(done, total):
        if done == 20:
            raise KeyboardInterrupt

    program = training(OPTIMIZER, PROBES, record_every=5)
    run = run_in_chunks(
        program, jax.random.key(0), bowl, 60, steps_per_chunk=10, on_progress=interrupt
    )
    assert (run.completed_steps, run.interrupted) == (20, True)
    short = run_in_chunks(program, jax.random.key(0), bowl, 20, steps_per_chunk=10)
    same_bits(tuple(run.record), tuple(short.record))


def test_ctrl_c_before_anything_is_done_is_raised(bowl, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(jax, "device_get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_chunks(training(OPTIMIZER), jax.random.key(0), bowl, 20)


@pytest.mark.parametrize("bad", [{"num_steps": 0}, {"num_steps": 10, "steps_per_chunk": 0}])
def test_lengths_are_checked(bowl, bad):
    with pytest.raises(ValueError, match=">= 1"):
        run_in_chunks(training(OPTIMIZER), jax.random.key(0), bowl, **bad)
