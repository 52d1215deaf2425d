"""Runs in one program are the runs that `simulate` and `shadow` make one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import training_side_by_side, update_agreement
from bayesfilt.compare.side_by_side import first_weights
from bayesfilt.optimizers import adabayes
from bayesfilt.simulate import run_in_chunks, shadow, simulate
from bayesfilt.tasks import bowl_task, make_task

KEY = jax.random.key(5)
TASK = bowl_task(
    np.diag([1.0, 20.0]), np.diag([1.0, 5.0]), optimum=np.array([1.0, -2.0]), batch_size=4
)
RUNS = {
    "adamw": optax.adamw(0.05),
    "exploding": optax.sgd(1e9),
    "adabayes": adabayes(0.05, 0.5, batch_size=4),
}
SHADOWS = {"adabayes": RUNS["adabayes"], "sgd": optax.sgd(0.01)}
STEPS = 60


def agreements(task, view):
    return update_agreement(task, view.shadow)


def side_by_side(runs, **settings):
    program = training_side_by_side(list(runs.values()), record_every=10, **settings)
    params = tuple(first_weights(KEY, TASK) for _ in runs)
    return run_in_chunks(program, KEY, TASK, STEPS, params=params).record


@pytest.fixture(scope="module")
def together():
    measures = {
        "agreement": agreements,
        "mean_square": lambda task, view: view.mean_square_gradient,
    }
    return side_by_side(RUNS, shadows=SHADOWS, measures=measures, b2=0.9)


@pytest.mark.parametrize("name", ["adamw", "adabayes"])
def test_every_run_is_the_one_it_makes_alone(together, name):
    place = list(RUNS).index(name)

    def weights_and_loss(task, view):
        return view.loss, task.evaluate(view.params)["test_loss"]

    run = jax.jit(
        lambda key, task: simulate(
            key, task, RUNS[name], STEPS, probes={"both": weights_and_loss}, record_every=10
        )
    )
    alone = run(KEY, TASK)
    loss, test_loss = alone.records["both"]
    np.testing.assert_allclose(together.records["loss"][:, place], loss, rtol=1e-12)
    evaluation = together.records["evaluation"]["test_loss"]
    np.testing.assert_allclose(evaluation[:, place], test_loss, rtol=1e-12)
    np.testing.assert_allclose(together.params[place], alone.params, rtol=1e-12)


def test_a_shadow_says_what_it_says_alone(together):
    run = jax.jit(
        lambda key, task: shadow(
            key, task, RUNS["adamw"], SHADOWS, STEPS, measures={"agreement": update_agreement}
        )
    )
    alone = run(KEY, TASK).records["agreement"]
    for name in SHADOWS:
        for ours, theirs in zip(together.records["agreement"][name], alone[name], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_mean_square_is_the_leader_s_own(together):
    """After one step of b2 = 0.9 it is a tenth of the first gradient's square."""
    gradient = jax.grad(TASK.loss)(
        first_weights(KEY, TASK),
        TASK.sample_batch(jax.random.fold_in(jax.random.split(KEY)[1], 0), 0),
    )
    np.testing.assert_allclose(
        together.records["mean_square"][0], 0.1 * np.square(gradient), rtol=1e-12
    )


def test_a_run_that_diverges_is_recorded_as_such_and_reads_nan_from_there(together):
    place = list(RUNS).index("exploding")
    step = int(together.opt_state.diverged_at[place])
    assert 0 < step < STEPS
    later = together.step >= step
    for values in (together.records["loss"], together.records["weight_distance"]):
        assert np.isnan(values[later, place]).all()
        assert not np.isnan(values[~later, place]).any()
    assert np.isnan(together.records["evaluation"]["test_loss"][later, place]).all()


def test_it_harms_no_other_run_and_no_measure(together):
    others = [0, 2]
    np.testing.assert_array_equal(np.asarray(together.opt_state.diverged_at)[others], -1)
    for values in (together.records["loss"], together.records["weight_distance"]):
        assert np.isfinite(values[:, others]).all()
    assert np.isfinite(together.records["agreement"]["adabayes"].relative_error).all()


def test_followers_of_a_leader_that_diverges_go_on_without_it():
    runs = {"exploding": RUNS["exploding"], "adamw": RUNS["adamw"]}
    found = side_by_side(runs, shadows={"sgd": optax.sgd(0.01)}, measures={"agreement": agreements})
    step = int(found.opt_state.diverged_at[0])
    later = found.step >= step
    assert 0 < step < STEPS
    assert np.isfinite(found.records["loss"][:, 1]).all()
    assert np.isnan(found.records["weight_distance"][later]).all()
    assert np.isnan(found.records["agreement"]["sgd"].relative_error[later]).all()
    assert not np.isnan(found.records["agreement"]["sgd"].relative_error[~later]).any()


def test_distances_are_from_the_first_run(together):
    assert np.all(together.records["weight_distance"][:, 0] == 0)
    # At step 50 the weights are not kept; at the first step all runs are where they started.
    assert np.all(together.records["weight_distance"][0] == 0)
    assert np.all(together.records["weight_distance"][1:, 2] > 0)
    assert np.isnan(together.records["predictive_kl"]).all()


def test_no_run_at_all_is_refused():
    with pytest.raises(ValueError, match="number of runs"):
        training_side_by_side([])


def test_nan_in_a_run_leaves_whole_numbers_alone():
    def counting(task, view):
        return {"count": jnp.asarray(3), "number": jnp.ones((2, 3))}

    runs = {"exploding": RUNS["exploding"]}
    found = side_by_side(runs, measures={"counting": counting}).records["counting"]
    assert np.all(found["count"] == 3)
    assert np.isnan(found["number"][-1]).all()


def test_the_divergence_recorded_is_from_the_leader_to_the_run_and_not_back():
    task = make_task("digits-mlp", batch_size=16, dtype="float64")
    params = task.init_params(jax.random.key(0))

    def predicted(task, view):
        return [task.log_probabilities(run.params) for run in view.runs]

    program = training_side_by_side(
        [optax.adam(1e-2), optax.sgd(1.0)], measures={"predicted": predicted}, record_every=4
    )
    done = run_in_chunks(program, jax.random.key(1), task, 9, params=(params, params)).record
    leader, other = (np.asarray(each[-1]) for each in done.records["predicted"])
    forth = np.mean(np.sum(np.exp(leader) * (leader - other), axis=-1))
    back = np.mean(np.sum(np.exp(other) * (other - leader), axis=-1))
    assert abs(forth - back) > 0.01 * forth
    np.testing.assert_allclose(done.records["predictive_kl"][-1], [0, forth], rtol=1e-9, atol=1e-12)
