"""Streams: recorded in the run, written, read again; and choices of weights."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    StreamRecord,
    choose_weights,
    chosen_weights,
    record_streams,
    stream_probes,
    streams_from_record,
    streams_from_trajectory,
    streams_to_record,
    whole_data,
)
from bayesfilt.compare.chosen_weights import pick
from bayesfilt.compare.record_streams import fields_of
from bayesfilt.optimizers import adabayes, posterior_variance
from bayesfilt.records import Record, read_record, write_record
from bayesfilt.simulate import simulate
from bayesfilt.simulate.probes import weights
from bayesfilt.tasks import Mlp, bowl_task, dataset_from_arrays, supervised_task, tracking_task
from bayesfilt.theory import OrnsteinUhlenbeck

CURVATURE = np.array([[2.0, 0.5, -0.3], [0.5, 0.4, 0.1], [-0.3, 0.1, 3.0]])


def bowl(**changes):
    settings = {"batch_size": 4, "optimum": np.array([0.3, -0.2, 0.5]), **changes}
    return bowl_task(CURVATURE, CURVATURE, **settings)


def dense(rows, columns):
    return {"bias": jnp.zeros(rows), "weight": jnp.zeros((rows, columns))}


# Choices.


def test_a_choice_has_so_many_different_weights_of_every_layer():
    params = {"b": dense(3, 4), "a": dense(2, 1), "c": jnp.zeros(())}
    chosen = choose_weights(jax.random.key(0), params, per_layer=5)
    assert chosen.layer_names == ("a", "b", "c")
    np.testing.assert_array_equal(np.bincount(chosen.layer), [4, 5, 1])
    np.testing.assert_array_equal(chosen.index, np.unique(chosen.index))
    # Places in the raveled tree: a is 0-3, b 4-18, c 19.
    np.testing.assert_array_equal(chosen.layer, np.digitize(chosen.index, [4, 19]))
    other = choose_weights(jax.random.key(1), params, per_layer=5)
    assert np.any(other.index != chosen.index)


def test_every_weight_is_as_likely_as_any():
    params = {"a": jnp.zeros(6), "b": jnp.zeros(2)}
    counts = np.zeros(8)
    for seed in range(300):
        counts[choose_weights(jax.random.key(seed), params, per_layer=2).index] += 1
    np.testing.assert_array_equal(counts[6:], 300)
    assert np.all(np.abs(counts[:6] - 100) < 4 * np.sqrt(300 * 1 / 3 * 2 / 3))


@pytest.mark.parametrize(("total", "shares"), [(9, [3, 3, 3]), (15, [4, 5, 6]), (99, [4, 15, 20])])
def test_a_total_is_shared_equally_as_far_as_layers_go(total, shares):
    params = {"a": dense(2, 1), "b": dense(3, 4), "c": jnp.zeros(20)}
    chosen = choose_weights(jax.random.key(0), params, total=total)
    assert len(chosen.index) == min(total, 39)
    np.testing.assert_allclose(np.bincount(chosen.layer), shares, atol=1)


def test_the_chosen_numbers_are_those_of_the_raveled_tree():
    params = {"b": dense(3, 4), "a": jnp.arange(5.0)}
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), params
    )
    chosen = chosen_weights(params, [17, 0, 9, 4, 5])
    raveled = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(pick(chosen, params), raveled[[0, 4, 5, 9, 17]])
    assert chosen_weights(jnp.ones(3), [1]).layer_names == ("all",)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "at least one whole index"),
        ([0.5], "at least one whole index"),
        ([3], "needs 0 <= index < 3, got 3"),
        ([-1], "got -1"),
        ([1, 1], "each index once"),
    ],
)
def test_an_index_that_is_no_choice_is_refused(index, message):
    with pytest.raises(ValueError, match=f"chosen_weights .*{message}"):
        chosen_weights(jnp.ones(3), index)


@pytest.mark.parametrize("settings", [{}, {"per_layer": 1, "total": 1}])
def test_a_choice_needs_one_number(settings):
    with pytest.raises(ValueError, match="either per_layer or total"):
        choose_weights(jax.random.key(0), jnp.ones(3), **settings)
    with pytest.raises(ValueError, match="per_layer >= 1"):
        choose_weights(jax.random.key(0), jnp.ones(3), per_layer=0)


def test_a_choice_made_for_another_tree_is_refused():
    with pytest.raises(ValueError, match="up to place 9 needs a tree that long, got 3"):
        pick(chosen_weights(jnp.ones(10), [9]), jnp.ones(3))


# Recording.


@pytest.fixture(scope="module")
def recorded():
    """A filter on a bowl, after a warm-up, in chunks that do not fit the window."""
    task, seen = bowl(), []
    streams = record_streams(
        jax.random.key(3),
        task,
        adabayes(0.02, 0.05, batch_size=4),
        12,
        chosen=chosen_weights(task.start, [0, 2]),
        warm_up_steps=7,
        steps_per_chunk=5,
        on_progress=lambda done, of: seen.append((done, of)),
        settings={"drift_scale": 0.02, "stationary_variance": 0.05, "weight_decay": None},
        clipped=False,
    )
    return task, streams, seen


def test_a_window_is_part_of_the_run_that_simulate_makes(recorded):
    task, streams, seen = recorded
    run_key = jax.random.split(jax.random.key(3))[0]
    probes = {
        "w": weights,
        "g": lambda task, view: view.gradient,
        "p": lambda task, view: posterior_variance(view.opt_state),
    }
    run = simulate(run_key, task, adabayes(0.02, 0.05, batch_size=4), 19, probes=probes).records
    np.testing.assert_array_equal(streams.step, np.arange(7, 19))
    np.testing.assert_allclose(streams.weight, run["w"][7:, [0, 2]], rtol=1e-12)
    np.testing.assert_allclose(streams.gradient, 4 * run["g"][7:, [0, 2]], rtol=1e-12)
    np.testing.assert_allclose(streams.posterior_variance, run["p"][7:, [0, 2]], rtol=1e-12)
    norm = np.linalg.norm(run["g"][7:], axis=1)
    np.testing.assert_allclose(streams.gradient_norm, norm, rtol=1e-12)
    assert seen[-1] == (19, 19)


def test_a_record_of_a_bowl_holds_what_the_bowl_is(recorded):
    task, streams, _ = recorded
    own = 4 * np.diag(CURVATURE)[[0, 2]]
    np.testing.assert_allclose(streams.curvature, np.tile(own, (12, 1)), rtol=1e-12)
    np.testing.assert_allclose(streams.noise_variance.mean(axis=0), own, rtol=5 * np.sqrt(2 / 756))
    assert streams.optimum_valid.all()
    # The gradient without its noise is h (w - w*), whatever the third weight is.
    run_key = jax.random.split(jax.random.key(3))[0]
    run = simulate(
        run_key, task, adabayes(0.02, 0.05, batch_size=4), 19, probes={"w": weights}
    ).records["w"][7:]
    quiet = 4 * (np.asarray(run) - np.asarray(task.optimum)) @ CURVATURE[:, [0, 2]]
    np.testing.assert_allclose(own * (streams.weight - streams.optimum), quiet, atol=1e-12)
    assert streams.ggn is None
    assert (streams.batch_size, streams.diverged_at, streams.layer_names) == (4, -1, ("all",))


def test_the_optimum_of_the_matched_world_is_recorded_at_its_own_step():
    task = tracking_task(
        jax.random.key(0), OrnsteinUhlenbeck(0.1, 0.05), [0.5, 30.0], 14, batch_size=2
    )
    streams = record_streams(
        jax.random.key(1), task, optax.sgd(0.01), 9,
        chosen=chosen_weights(jnp.zeros(2), [0, 1]), warm_up_steps=5, which=["optimum"],
    )  # fmt: skip
    np.testing.assert_allclose(streams.optimum, task.optimum[5:], rtol=1e-10)
    np.testing.assert_allclose(streams.optimum_curvature, np.tile([0.5, 30.0], (9, 1)), rtol=1e-10)
    assert streams.gradient is None
    assert streams.noise_variance is None


def test_a_diverged_run_has_no_valid_optimum_from_there_on():
    task = bowl(start=np.ones(3))
    streams = record_streams(
        jax.random.key(0), task, optax.sgd(1e90), 9, chosen=chosen_weights(task.start, [0, 1]),
        which=["gradient", "optimum"], trust_radius=1e6,
    )  # fmt: skip
    assert 0 < streams.diverged_at < 9
    assert streams.optimum_valid[0].all()
    assert not streams.optimum_valid[streams.diverged_at :].any()
    assert np.isnan(streams.gradient[streams.diverged_at :]).all()


def test_what_a_task_or_an_optimizer_cannot_give_is_left_out_or_refused():
    task = bowl()
    assert set(fields_of(task, optax.adam(0.1))) & {"ggn", "posterior_variance"} == set()
    assert "posterior_variance" in fields_of(task, adabayes(0.1, 0.1, batch_size=4))
    data = dataset_from_arrays(np.eye(4), np.arange(4), np.eye(4), np.arange(4))
    classes = supervised_task(data, Mlp((4, 4)), batch_size=2)
    assert "ggn" in fields_of(classes, optax.adam(0.1))
    chosen = chosen_weights(task.start, [0])
    for which, message in [
        ("gradients", "knows fields .*got 'gradients'. Did you mean 'gradient'"),
        ("ggn", "needs a Supervised task"),
        ("posterior_variance", "exactly one filter is needed, found 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            record_streams(
                jax.random.key(0), task, optax.adam(0.1), 2, chosen=chosen, which=[which]
            )
    for name, steps in {"num_steps >= 1": {"num_steps": 0}, "warm_up_steps >= 0": {}}.items():
        arguments = {"num_steps": 2, "warm_up_steps": -1, **({"warm_up_steps": 0} if steps else {})}
        with pytest.raises(ValueError, match=f"record_streams needs a whole {name}"):
            record_streams(
                jax.random.key(0), task, optax.adam(0.1), chosen=chosen, **{**arguments, **steps}
            )


def test_ctrl_c_keeps_the_steps_of_whole_chunks():
    task = bowl()

    def stop(done, of):
        del of
        if done >= 5:
            raise KeyboardInterrupt

    def record(warm_up_steps):
        return record_streams(
            jax.random.key(0), task, optax.adam(0.1), 8, chosen=chosen_weights(task.start, [0]),
            which=["gradient"], warm_up_steps=warm_up_steps, steps_per_chunk=3, on_progress=stop,
        )  # fmt: skip

    np.testing.assert_array_equal(record(2).step, [2, 3, 4])
    with pytest.raises(KeyboardInterrupt):
        record(6)


def test_the_probes_may_run_in_a_batch_of_runs_of_your_own():
    task = bowl()
    chosen = chosen_weights(task.start, [0, 2])
    probes = stream_probes(task, chosen, ["gradient", "optimum"], whole_data)

    def run(key, task):
        return simulate(key, task, optax.adam(0.01), 4, probes=probes)

    keys = jax.random.split(jax.random.key(2), 3)
    runs = jax.jit(jax.vmap(run, (0, None)))(keys, task)
    second = jax.tree.map(lambda values: values[1], runs)
    streams = streams_from_trajectory(second.records, chosen=chosen, batch_size=4)
    assert streams.optimum.shape == (4, 2)
    assert streams.optimum_valid.all()
    alone = simulate(keys[1], task, optax.adam(0.01), 4, probes={"w": weights}).records["w"]
    np.testing.assert_allclose(streams.weight, alone[:, [0, 2]], rtol=1e-12)


# Files.


@pytest.mark.parametrize("netcdf", [True, False])
def test_what_is_read_is_what_was_written(recorded, tmp_path, monkeypatch, netcdf):
    streams = recorded[1]
    if not netcdf:
        monkeypatch.setattr("bayesfilt.records._missing_for_netcdf", lambda: "h5netcdf")
    path = write_record(streams_to_record(streams), tmp_path)
    assert path.suffix == (".nc" if netcdf else ".npz")
    again = streams_from_record(read_record(tmp_path), needs=("gradient", "optimum"))
    for name in StreamRecord._fields:
        ours: Any = getattr(streams, name)
        theirs: Any = getattr(again, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, name
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            assert ours == theirs, name
    assert again.settings["weight_decay"] is None
    assert again.clipped is False
    assert importlib.util.find_spec("h5netcdf")


def test_a_record_without_what_is_needed_says_what_and_how_to_record_it(recorded):
    record = streams_to_record(recorded[1])
    with pytest.raises(ValueError, match=r"without ggn: record them with .*which=\('ggn',\)\)"):
        streams_from_record(record, needs=("gradient", "ggn"))
    only = recorded[1]._asdict() | {"optimum": None, "optimum_valid": None}
    with pytest.raises(ValueError, match=r"without optimum, optimum_valid: .*which=\('optimum',\)"):
        streams_from_record(
            streams_to_record(StreamRecord(**only)), needs=("optimum", "optimum_valid")
        )
    with pytest.raises(ValueError, match="needs a record with streams, got one with free: record"):
        streams_from_record(Record(groups={"free": {}}, attributes={}))
    with pytest.raises(ValueError, match="knows fields .*got 'hessian'"):
        streams_from_record(record, needs=("hessian",))
    del record.groups["streams"]["layer"]
    with pytest.raises(ValueError, match="got some without layer"):
        streams_from_record(record)
