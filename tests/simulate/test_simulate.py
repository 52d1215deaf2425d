"""A whole run in one scan equals a literal loop, and a failed run harms nobody."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import adabayes
from bayesfilt.simulate import NEVER, StepView, simulate, training
from bayesfilt.simulate.probes import evaluation, update_rms, weight_rms, weights
from bayesfilt.tasks import custom_task, make_task

ADAMW = optax.adamw(1e-2, weight_decay=0.1)


@pytest.fixture(scope="module")
def digits():
    return make_task("digits-mlp", batch_size=16, dtype="float64")


def literal_run(key, task, optimizer, num_steps):
    """Training as anyone would write it, one step after another."""
    init_key, batch_key = jax.random.split(key)
    params = task.init_params(init_key)
    state, losses, path = optimizer.init(params), [], []
    slope, change = jax.jit(jax.value_and_grad(task.loss)), jax.jit(optimizer.update)
    for step in range(num_steps):
        batch = task.sample_batch(jax.random.fold_in(batch_key, step), step)
        loss, gradient = slope(params, batch)
        losses.append(loss)
        path.append(params)
        updates, state = change(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, np.array(losses), path


def close(a, b, rtol=1e-12):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-14), a, b)


@pytest.fixture(scope="module")
def literal(digits):
    return literal_run(jax.random.key(3), digits, ADAMW, 8)


@pytest.mark.parametrize("record_every", [1, 3, 4, 20])
def test_a_run_equals_a_literal_loop_whatever_is_recorded(digits, literal, record_every):
    steps, (params, losses, path) = 8, literal
    run = simulate(
        jax.random.key(3),
        digits,
        ADAMW,
        steps,
        record_every=record_every,
        probes={"loss": lambda task, view: view.loss, "weights": weights},
    )
    recorded = np.arange(0, steps, record_every)
    np.testing.assert_array_equal(run.step, recorded)
    np.testing.assert_allclose(run.records["loss"], losses[recorded], rtol=1e-12)
    for row, step in enumerate(recorded):
        close(jax.tree.map(lambda x, row=row: x[row], run.records["weights"]), path[step])
    close(run.params, params)
    assert run.diverged_at == NEVER


def test_probes_see_the_step_they_belong_to(digits):
    def parts(task, view: StepView):
        return {
            "gradient": view.gradient,
            "updates": view.updates,
            "count": view.opt_state[0].count,
        }

    run = simulate(
        jax.random.key(0),
        digits,
        ADAMW,
        3,
        probes={"parts": parts, "weights": weights, "rms": weight_rms, "step": update_rms},
    )
    np.testing.assert_array_equal(run.records["parts"]["count"], [1, 2, 3])
    after = jax.tree.map(jnp.add, run.records["weights"], run.records["parts"]["updates"])
    close(
        jax.tree.map(lambda x: x[:-1], after), jax.tree.map(lambda x: x[1:], run.records["weights"])
    )
    flat = np.concatenate([np.ravel(x[1]) for x in jax.tree.leaves(run.records["weights"])])
    np.testing.assert_allclose(run.records["rms"][1], np.sqrt(np.mean(flat**2)), rtol=1e-12)
    assert np.all(run.records["step"] > 0)


def test_digits_are_learned(digits):
    run = jax.jit(
        lambda key, task: simulate(
            key, task, ADAMW, 400, probes={"test": evaluation}, record_every=50
        )
    )(jax.random.key(0), digits)
    assert run.records["test"]["test_accuracy"][0] < 0.3
    assert digits.evaluate(run.params)["test_accuracy"] > 0.9


def test_the_same_key_gives_every_optimizer_the_same_start_and_minibatches(digits):
    def seen(task, view):
        return view.params["dense_0"].weight

    key = jax.random.key(1)
    still = optax.set_to_zero()
    a = simulate(key, digits, still, 5)
    b = simulate(key, digits, optax.chain(adabayes(1e-2, 1.0, batch_size=16), still), 5)
    np.testing.assert_array_equal(a.records["loss"], b.records["loss"])
    assert len(set(np.asarray(a.records["loss"]).tolist())) == 5
    other = simulate(jax.random.key(2), digits, still, 5, probes={"w": seen})
    assert not np.array_equal(other.params["dense_0"].weight, a.params["dense_0"].weight)


def test_seeds_and_hyperparameters_vmap():
    task = make_task("bowl", batch_size=4, dtype="float64")
    keys, rates = jax.random.split(jax.random.key(0), 2), jnp.array([1e-3, 1e-1])

    def run(key, rate):
        return simulate(key, task, optax.adamw(rate), 6).records["loss"]

    together = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(keys, rates)
    assert together.shape == (2, 2, 6)
    close(together[1, 0], run(keys[1], rates[0]), rtol=1e-10)


def test_one_program_serves_every_key_and_an_equal_task():
    traces = []

    def run(key, task):
        traces.append(1)
        return simulate(key, task, ADAMW, 3).params

    compiled = jax.jit(run)
    for seed in range(3):
        compiled(jax.random.key(seed), make_task("digits-mlp", batch_size=16, dtype="float64"))
    assert len(traces) == 1


def test_the_data_set_is_an_argument_not_a_constant(digits):
    lowered = jax.jit(lambda key, task: simulate(key, task, ADAMW, 3).params).lower(
        jax.random.key(0), digits
    )
    size = f"tensor<{digits.train.inputs.shape[0]}x"
    constants = [line for line in lowered.as_text().splitlines() if "stablehlo.constant" in line]
    assert size in lowered.as_text()
    assert not [line for line in constants if size in line]


def test_update_gets_the_loss_so_that_plateau_schedules_work():
    task = make_task("bowl", batch_size=4, dtype="float64")
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=1)
    run = simulate(jax.random.key(0), task, optax.chain(optax.sgd(1e-6), plateau), 40)
    assert run.opt_state[-1].scale < 1


def fragile(fails_at, value=jnp.nan):
    """A task whose gradient, and loss, fails at one step."""
    bowl = make_task("bowl", batch_size=4, dtype="float64")

    class Fragile:
        batch_size = 4
        init_params, evaluate = bowl.init_params, bowl.evaluate

        def sample_batch(self, key, step):
            return bowl.sample_batch(key, step), step

        def loss(self, params, batch):
            noise, step = batch
            return bowl.loss(params, noise) * jnp.where(step == fails_at, value, 1.0)

    return Fragile()


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("record_every", [1, 4])
def test_a_run_that_fails_stands_still_and_says_when(value, record_every):
    probes = {"loss": lambda t, v: v.loss, "weights": weights, "count": lambda t, v: v.step}
    key = jax.random.key(0)
    run = simulate(key, fragile(5, value), ADAMW, 12, probes=probes, record_every=record_every)
    healthy = simulate(key, fragile(-1), ADAMW, 5)
    assert run.diverged_at == 5
    np.testing.assert_array_equal(run.params, healthy.params)
    np.testing.assert_array_equal(run.last_loss, healthy.records["loss"][-1])
    np.testing.assert_array_equal(run.last_loss, healthy.last_loss)
    assert run.opt_state[0].count == 5
    failed = np.asarray(run.step) >= 5
    assert np.all(np.isnan(run.records["loss"][failed]))
    assert np.all(np.isnan(run.records["weights"][failed]))
    assert np.all(np.isfinite(run.records["loss"][~failed]))
    np.testing.assert_array_equal(run.records["count"], run.step)


def test_a_diverging_run_does_not_touch_its_neighbours():
    task = make_task("bowl", batch_size=4, dtype="float64")

    def run(rate):
        return simulate(jax.random.key(0), task, optax.sgd(rate), 300)

    batched = jax.jit(jax.vmap(run))
    sick = batched(jnp.array([1e-2, 1e30, 2e-2]))
    well = batched(jnp.array([1e-2, 3e-2, 2e-2]))
    assert sick.diverged_at[1] > 0
    assert list(sick.diverged_at[jnp.array([0, 2])]) == [NEVER, NEVER]
    np.testing.assert_array_equal(sick.params[0], well.params[0])
    np.testing.assert_array_equal(sick.params[2], well.params[2])


@pytest.mark.parametrize(("num_steps", "record_every"), [(0, 1), (-1, 1), (2.5, 1), (3, 0)])
def test_lengths_are_checked(digits, num_steps, record_every):
    with pytest.raises(ValueError, match=">= 1"):
        simulate(jax.random.key(0), digits, ADAMW, num_steps, record_every=record_every)


def test_a_users_own_weights_and_loss_run():
    inputs = np.linspace(-1, 1, 40).reshape(20, 2)
    data = {"inputs": inputs, "targets": inputs @ np.array([2.0, -1.0])}

    def loss(params, batch):
        return jnp.mean((batch["inputs"] @ params["w"] - batch["targets"]) ** 2)

    task = custom_task({"w": np.zeros(2)}, loss, data, batch_size=5)
    run = simulate(jax.random.key(0), task, optax.sgd(0.2), 500)
    assert run.records["loss"][-1] < 1e-2 * run.records["loss"][0]


def test_first_weights_can_be_given(digits):
    mine = jax.tree.map(jnp.zeros_like, digits.init_params(jax.random.key(0)))
    run = simulate(jax.random.key(0), digits, ADAMW, 1, params=mine)
    np.testing.assert_allclose(run.records["loss"][0], np.log(10), rtol=1e-12)


def test_a_program_names_what_it_records():
    program = training(ADAMW, record_every=5)
    assert program.record_every == 5


def test_an_update_that_is_not_finite_is_not_taken():
    # Dead pixels make 0/0 of a finite gradient when epsilon is 0.
    task = make_task("digits-mlp", batch_size=16, dtype="float64")
    run = simulate(jax.random.key(0), task, optax.adamw(1e-3, eps=0.0), 1)
    assert run.diverged_at == 0
    start = task.init_params(jax.random.split(jax.random.key(0))[0])
    jax.tree.map(np.testing.assert_array_equal, run.params, start)
    assert np.isfinite(run.last_loss)  # it was the update alone
    np.testing.assert_array_equal(
        run.last_loss, simulate(jax.random.key(0), task, ADAMW, 1).last_loss
    )
