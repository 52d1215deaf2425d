"""What every named task must do; one row a task."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.tasks import TASK_NAMES, make_task
from tests.quick_look import slow_but

# Of what is dear: a network, a surface and the matched world.
QUICK = ("digits-mlp", "ravine", "tracking")


@pytest.fixture(params=TASK_NAMES)
def name(request):
    return request.param


def leaves_equal(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loss_gradient_and_evaluation_have_the_dtype_asked_for(name, dtype):
    task = make_task(name, batch_size=5, dtype=dtype)

    def everything(key):
        params = task.init_params(key)
        batch = task.sample_batch(key, 0)
        return params, jax.value_and_grad(task.loss)(params, batch), task.evaluate(params)

    params, (loss, gradient), numbers = jax.eval_shape(everything, jax.random.key(1))
    assert loss.shape == () and loss.dtype == dtype
    for leaf, slope in zip(jax.tree.leaves(params), jax.tree.leaves(gradient), strict=True):
        assert leaf.dtype == slope.dtype == dtype and leaf.shape == slope.shape
        assert not leaf.weak_type
    for value in numbers.values():
        assert value.shape == () and value.dtype == dtype


def test_the_default_dtype_is_the_one_jax_has(name, float32_only):
    params = jax.eval_shape(make_task(name, batch_size=5).init_params, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_float64_without_x64_is_refused_in_one_line(name, float32_only):
    with pytest.raises(ValueError, match=r"jax_enable_x64 for dtype=float64") as caught:
        make_task(name, batch_size=5, dtype="float64")
    assert "\n" not in str(caught.value)


def test_a_task_built_twice_runs_the_same_compiled_program(name):
    traces = []

    @jax.jit
    def train(key, task):
        traces.append(jax.eval_shape(task.evaluate, jax.eval_shape(task.init_params, key)))
        return task.sample_batch(key, 0)

    key = jax.random.key(3)
    first = train(key, make_task(name, batch_size=5.0))
    second = train(key, make_task(name, batch_size=np.int64(5)))
    assert len(traces) == 1
    assert leaves_equal(first, second)
    train(key, make_task(name, batch_size=6))
    assert len(traces) == 2  # the batch size is part of the program


def test_the_data_is_an_argument_and_not_a_constant_of_the_program(name):
    task = make_task(name, batch_size=5)
    closed = jax.make_jaxpr(
        lambda key, task: task.loss(task.init_params(key), task.sample_batch(key, 0))
    )(jax.random.key(0), task)
    assert sum(np.size(constant) for constant in closed.consts) < 100


def test_the_same_key_draws_the_same_and_another_key_another(name):
    task = make_task(name, batch_size=5)
    key, other = jax.random.split(jax.random.key(4))
    draw = jax.jit(lambda key: task.sample_batch(key, 3))
    assert leaves_equal(draw(key), draw(key))
    assert not leaves_equal(draw(key), draw(other))


@pytest.mark.parametrize("name", ["digits-mlp", "saddle"])
def test_the_key_decides_where_a_run_starts(name):
    start = jax.jit(make_task(name, batch_size=5).init_params)
    key, other = jax.random.split(jax.random.key(4))
    assert leaves_equal(start(key), start(key))
    assert not leaves_equal(start(key), start(other))


@pytest.mark.parametrize("name", slow_but(QUICK, TASK_NAMES))
def test_seeds_vmap(name):
    task = make_task(name, batch_size=5, dtype="float64")

    @jax.jit
    def both(keys, params):
        def loss(key):
            return task.loss(params, task.sample_batch(key, 7))

        return jax.vmap(loss)(keys), jax.lax.map(loss, keys)

    params = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype),
        jax.eval_shape(task.init_params, jax.random.key(0)),
    )
    together, one_by_one = both(jax.random.split(jax.random.key(5), 3), params)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


@pytest.mark.parametrize(
    "name", slow_but(QUICK, (name for name in TASK_NAMES if name != "two-groups"))
)
def test_training_lowers_the_loss(name):
    task = make_task(name, batch_size=32, dtype="float32")
    optimizer = optax.adam(0.02)

    @jax.jit
    def train(key, task):
        params = task.init_params(key)

        def step(carry, index):
            params, state = carry
            batch = task.sample_batch(jax.random.fold_in(key, index), index)
            loss, gradient = jax.value_and_grad(task.loss)(params, batch)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        steps = jnp.arange(60 if name == "digits-cnn" else 600)
        return jax.lax.scan(step, (params, optimizer.init(params)), steps)[1]

    losses = train(jax.random.key(6), task)
    quarter = len(losses) // 4
    if name == "tracking":  # it starts at the mean of all optima: it can hold, not improve much
        assert jnp.isfinite(losses).all()
    else:
        assert losses[-quarter:].mean() < 0.7 * losses[:5].mean()


def test_two_groups_start_at_their_optimum_with_sizes_and_gradients_set_apart():
    task = make_task("two-groups", batch_size=4, dtype="float64")
    params = task.init_params(jax.random.key(0))
    batch = task.sample_batch(jax.random.key(1), 0)
    slopes = jax.grad(task.loss)(params, batch)
    assert task.evaluate(params)["test_loss"] == 0
    size = {group: np.abs(params[group]).mean() for group in params}
    loudness = {group: np.sqrt((slopes[group] ** 2).mean()) for group in params}
    assert size["large_weights"] > 50 * size["small_weights"]
    assert loudness["small_weights"] > 50 * loudness["large_weights"]


def test_an_unknown_name_says_what_there_is_and_offers_the_nearest():
    with pytest.raises(ValueError, match=r"digits-mlp.*tracking.*Did you mean 'digits-mlp'"):
        make_task("digit-mlp", batch_size=5)


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, float("nan"), None, "64"])
def test_a_bad_batch_size_is_refused(name, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        make_task(name, batch_size=batch_size)


@pytest.mark.parametrize("settings", [{"subset": 10}, {"label_noise": 0.1}])
def test_settings_of_data_are_refused_by_tasks_without_data(settings):
    with pytest.raises(ValueError, match="'ravine'"):
        make_task("ravine", batch_size=5, **settings)


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_a_dtype_that_is_not_floating_is_refused(dtype):
    with pytest.raises(ValueError, match=f"floating dtype, got dtype={dtype}"):
        make_task("bowl", batch_size=5, dtype=dtype)


def test_subset_and_label_noise_reach_the_digits_and_do_not_depend_on_anything_else():
    settings = {"batch_size": 5, "subset": 300, "label_noise": 0.2}
    noisy = make_task("digits-mlp", **settings)
    again = make_task("digits-layernorm", **settings)
    clean = make_task("digits-mlp", batch_size=5, subset=300)
    other = make_task("digits-mlp", key=jax.random.key(9), **settings)
    assert noisy.train.inputs.shape == (300, 8, 8)
    assert int((noisy.train.labels != clean.train.labels).sum()) == 60
    assert leaves_equal(noisy.train, again.train)
    assert leaves_equal(noisy.test, clean.test)
    assert not leaves_equal(noisy.train, other.train)


def test_importing_tasks_loads_neither_scikit_learn_nor_equinox():
    program = (
        "import sys, bayesfilt.tasks as tasks;"
        "tasks.make_task('bowl', batch_size=2);"
        "late = {'sklearn', 'equinox', 'scipy', 'matplotlib', 'xarray'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(late)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
