import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.tasks import Mlp, custom_task, dataset_from_arrays, supervised, supervised_task

RANDOM = np.random.default_rng(0)


def small_dataset(train=30, test=11):
    random = np.random.default_rng(1)
    return dataset_from_arrays(
        random.normal(size=(train, 2, 2)),
        random.integers(0, 3, train),
        random.normal(size=(test, 2, 2)),
        random.integers(0, 3, test),
    )


def small_task(**settings):
    return supervised_task(small_dataset(**settings), Mlp(sizes=(4, 3)), batch_size=6)


def log_softmax_by_hand(params, inputs):
    layer = params["dense_0"]
    rows = []
    for row in np.asarray(inputs).reshape(len(inputs), -1):
        logits = np.asarray(layer.weight) @ row + np.asarray(layer.bias)
        rows.append(logits - np.log(np.exp(logits).sum()))
    return np.array(rows)


def test_loss_and_held_out_numbers_are_those_written_out_by_hand():
    task = small_task()
    params = task.init_params(jax.random.key(0))
    batch = task.sample_batch(jax.random.key(1), 0)
    by_hand = log_softmax_by_hand(params, batch.inputs)
    expected = -np.mean([row[label] for row, label in zip(by_hand, batch.labels, strict=True)])
    np.testing.assert_allclose(jax.jit(task.loss)(params, batch), expected, rtol=1e-12)
    held_out = log_softmax_by_hand(params, task.test.inputs)
    labels = np.asarray(task.test.labels)
    numbers = task.evaluate(params)
    np.testing.assert_allclose(task.log_probabilities(params), held_out, rtol=1e-12)
    np.testing.assert_allclose(numbers["test_loss"], -held_out[range(11), labels].mean())
    np.testing.assert_allclose(numbers["test_accuracy"], (held_out.argmax(1) == labels).mean())


def test_batches_hold_matching_rows_drawn_evenly_and_with_replacement():
    task = small_task()
    keys = jax.random.split(jax.random.key(2), 5_000)
    batches = jax.jit(jax.vmap(lambda key: task.sample_batch(key, 0)))(keys)
    rows = {row.tobytes(): at for at, row in enumerate(np.asarray(task.train.inputs))}
    drawn = np.array([rows[row.tobytes()] for row in np.asarray(batches.inputs).reshape(-1, 2, 2)])
    np.testing.assert_array_equal(np.asarray(task.train.labels)[drawn], batches.labels.ravel())
    counts = np.bincount(drawn, minlength=30)
    expected = len(drawn) / 30
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    repeated = [len(set(batch)) < 6 for batch in drawn.reshape(-1, 6).tolist()]
    chance = 1 - np.prod([1 - k / 30 for k in range(6)])
    assert abs(np.mean(repeated) - chance) < 5 * np.sqrt(chance * (1 - chance) / len(keys))


@pytest.mark.parametrize("pieces", [3, 4, 11, 12])
def test_evaluation_in_pieces_is_evaluation_at_once(pieces, monkeypatch):
    task = small_task()
    params = task.init_params(jax.random.key(0))
    whole = task.log_probabilities(params)
    monkeypatch.setattr(supervised, "_EXAMPLES_AT_ONCE", pieces)
    np.testing.assert_allclose(jax.jit(task.log_probabilities)(params), whole, rtol=1e-12)


def test_very_wrong_logits_still_have_a_finite_loss_and_gradient():
    task = small_task()
    params = jax.tree.map(lambda leaf: 1e4 * leaf, task.init_params(jax.random.key(0)))
    batch = task.sample_batch(jax.random.key(1), 0)
    loss, gradient = jax.jit(jax.value_and_grad(task.loss))(params, batch)
    assert jnp.isfinite(loss) and loss > 100
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Mlp(sizes=(5, 3)), r"4 inputs for examples of shape \(2, 2\), got one of 5"),
        (Mlp(sizes=(4, 2)), "at least 3 classes, got one of 2"),
        ("forest", "mlp, layernorm, cnn; got 'forest'"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(network, message):
    with pytest.raises(ValueError, match=message):
        supervised_task(small_dataset(), network, batch_size=4)


def mean_loss(params, batch):
    guesses = batch["x"] @ params["slope"] + params["offset"]
    return jnp.mean((guesses - batch["y"]) ** 2)


def line_data(count=40):
    x = RANDOM.normal(size=(count, 2))
    return {"x": x, "y": x @ [2.0, -1.0] + 0.5}


LINE = {"slope": np.zeros(2, np.float32), "offset": np.float32(0)}


def test_a_network_of_one_s_own_takes_twenty_lines():
    task = custom_task(LINE, mean_loss, line_data(), batch_size=8, test_data=line_data(10))
    params = task.init_params(jax.random.key(0))

    @jax.jit
    def step(params, key):
        batch = task.sample_batch(key, 0)
        gradient = jax.grad(task.loss)(params, batch)
        return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, params, gradient)

    for key in jax.random.split(jax.random.key(1), 200):
        params = step(params, key)
    np.testing.assert_allclose(params["slope"], [2.0, -1.0], atol=1e-4)
    np.testing.assert_allclose(params["offset"], 0.5, atol=1e-4)
    assert params["slope"].dtype == params["offset"].dtype == np.float32
    assert task.evaluate(params)["test_loss"] < 1e-7


def test_a_custom_batch_is_the_data_tree_with_batch_size_matching_rows():
    data = {"x": np.arange(10.0), "more": (np.arange(10) * 2, np.arange(30).reshape(10, 3))}
    task = custom_task({"w": jnp.ones(1)}, lambda p, b: p["w"][0], data, batch_size=4)
    batch = task.sample_batch(jax.random.key(0), 0)
    x = np.asarray(batch["x"])
    assert x.shape == (4,)
    np.testing.assert_array_equal(batch["more"][0], 2 * x)
    np.testing.assert_array_equal(batch["more"][1][:, 1], 3 * x + 1)


def test_evaluation_of_one_s_own_replaces_the_test_loss():
    settings = {"batch_size": 2, "test_data": line_data(5)}
    own = custom_task(
        LINE, mean_loss, line_data(), evaluate=lambda p, d: {"rows": d["x"].shape[0]}, **settings
    )
    assert own.evaluate(LINE) == {"rows": 5}
    assert custom_task(LINE, mean_loss, line_data(), batch_size=2).evaluate(LINE) == {}


def test_a_user_may_draw_fresh_weights_for_every_seed():
    def draw(key):
        return {"slope": jax.random.normal(key, (2,)), "offset": jnp.zeros(())}

    task = custom_task(LINE, mean_loss, line_data(), batch_size=2, draw_params=draw)
    first, second = (task.init_params(jax.random.key(seed)) for seed in (0, 1))
    assert not np.array_equal(first["slope"], second["slope"])


def test_an_equinox_model_trains_once_its_functions_are_set_apart():
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
    arrays, functions = eqx.partition(model, eqx.is_array)

    def loss(arrays, batch):
        guesses = jax.vmap(eqx.combine(arrays, functions))(batch["x"])
        return jnp.mean((guesses - batch["y"]) ** 2)

    task = custom_task(arrays, loss, line_data(), batch_size=2)
    batch = task.sample_batch(jax.random.key(0), 0)
    slopes = jax.eval_shape(jax.grad(task.loss), task.init_params(jax.random.key(1)), batch)
    assert len(jax.tree.leaves(slopes)) == 4
    with pytest.raises(ValueError, match=r"eqx.partition"):
        custom_task(model, loss, line_data(), batch_size=2)


def test_two_tasks_of_the_same_functions_run_the_same_compiled_program():
    traces = []

    @jax.jit
    def run(key, task):
        traces.append(1)
        return task.loss(task.init_params(key), task.sample_batch(key, 0))

    for _ in range(2):
        run(jax.random.key(0), custom_task(LINE, mean_loss, line_data(), batch_size=3))
    assert len(traces) == 1


def test_numbers_written_as_python_floats_are_weights_too():
    task = custom_task({"w": 2.0}, lambda p, b: p["w"] * jnp.mean(b), np.ones(3), batch_size=2)
    weight = task.init_params(jax.random.key(0))["w"]
    assert weight.dtype == np.float64 and not weight.weak_type


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": {"w": np.zeros(2, int)}}, r"floating weights, got int64 at params\['w'\]"),
        ({"params": [np.zeros(2, complex)]}, r"floating weights, got complex128 at params\[0\]"),
        ({"params": {"w": 3}}, r"arrays as weights, got int at params\['w'\]"),
        ({"params": {"f": jnp.tanh}}, "arrays as weights"),
        ({"params": {}}, "at least one weight"),
        ({"data": [np.zeros((4, 2)), np.zeros(3)]}, r"data\[0\] has 4, data\[1\] has 3"),
        ({"data": {}}, "at least one array in data"),
        ({"data": np.zeros((0, 2))}, r"first axis of data, got shape \(0, 2\)"),
        ({"data": {"x": np.zeros(3), "t": 1.0}}, r"first axis of data\['t'\], got shape \(\)"),
        ({"data": np.array(["a", "b"])}, "arrays of numbers, got <U1 at data"),
        ({"test_data": np.zeros((0, 2))}, "first axis of test_data"),
        ({"batch_size": 0}, "batch_size >= 1, got batch_size=0"),
        ({"loss": lambda p, b: b}, r"one real number, the mean; got float64 of shape \(4,\)"),
        ({"loss": lambda p, b: (jnp.sum(b), b)}, "one real number, the mean; got tuple"),
        ({"loss": lambda p, b: jnp.sum(b) * 1j}, "one real number, the mean; got complex128"),
        ({"loss": lambda p, b: None}, "one real number, the mean; got NoneType"),
    ],
)  # fmt: skip
def test_a_custom_task_that_cannot_be_trained_is_refused_in_one_line(settings, message):
    legal = {
        "params": {"w": np.zeros(2)},
        "loss": lambda params, batch: jnp.sum(params["w"]),
        "data": np.zeros(5),
        "batch_size": 4,
    }
    with pytest.raises(ValueError, match=message) as caught:
        custom_task(**{**legal, **settings})
    assert "\n" not in str(caught.value)


def test_float64_weights_without_x64_are_refused_and_float64_data_follows(float32_only):
    with pytest.raises(ValueError, match=r"params\['w'\].*needs jax_enable_x64"):
        custom_task({"w": np.zeros(2)}, mean_loss, np.zeros(3), batch_size=2)
    task = custom_task(LINE, mean_loss, line_data(), batch_size=2)
    assert task.sample_batch(jax.random.key(0), 0)["x"].dtype == np.float32
