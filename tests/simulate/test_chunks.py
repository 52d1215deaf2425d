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


@pytest.mark.parametrize(("record_every", "steps_per_chunk"), [(1, 3), (4, None)])
def test_a_warm_up_is_the_same_run_with_nothing_written_down(bowl, record_every, steps_per_chunk):
    told = []
    program = training(OPTIMIZER, PROBES, record_every=record_every)
    late = run_in_chunks(
        program, jax.random.key(2), bowl, 9, warm_up_steps=7, steps_per_chunk=steps_per_chunk,
        on_progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    whole = run_in_chunks(training(OPTIMIZER, PROBES), jax.random.key(2), bowl, 16).record
    np.testing.assert_array_equal(late.record.step, np.arange(7, 16)[::record_every])
    for name, values in late.record.records.items():
        np.testing.assert_allclose(
            values, whole.records[name][7::record_every], rtol=1e-12, err_msg=name
        )
    np.testing.assert_allclose(late.record.params, whole.params, rtol=1e-12)
    assert late.completed_steps == 16
    assert told[-1] == (16, 16)
    assert (7, 16) in told


def test_in_a_warm_up_no_probe_is_computed(bowl):
    seen = []

    def probe(task, view):
        jax.debug.callback(lambda step: seen.append(int(step)), view.step)
        return view.loss

    program = training(OPTIMIZER, {"looked": probe})
    run_in_chunks(program, jax.random.key(0), bowl, 3, warm_up_steps=5)
    jax.effects_barrier()
    assert sorted(seen) == [5, 6, 7]


def test_ctrl_c_in_the_warm_up_is_raised(bowl):
    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_chunks(
            training(OPTIMIZER), jax.random.key(0), bowl, 4, warm_up_steps=3, on_progress=stop
        )


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
