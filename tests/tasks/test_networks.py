import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.tasks import Cnn, LayerNormMlp, Mlp, network_for
from bayesfilt.tasks.networks import convolve

NETWORKS = {
    "mlp": Mlp(sizes=(6, 5, 4, 3)),
    "layernorm": LayerNormMlp(sizes=(6, 5, 4, 3), activation="gelu"),
    "cnn": Cnn(image_shape=(2, 9, 6), channels=(3, 5), num_classes=4, activation="tanh"),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def some_weights(network):
    """Weights with the right names and shapes, drawn by NumPy: nothing to compile."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: network.init(key, jnp.float64), jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)


def convolution_by_hand(layer, image):
    """One image (channels, height, width): every output is a sum over one patch."""
    (tall, wide), (down, along) = layer.kernel_size, layer.stride
    padded, weight = np.pad(image, ((0, 0), *layer.padding)), np.asarray(layer.weight)
    rows = range(0, padded.shape[1] - tall + 1, down)
    columns = range(0, padded.shape[2] - wide + 1, along)
    patches = [[padded[:, r : r + tall, c : c + wide] for c in columns] for r in rows]
    sums = [[(weight * patch).sum(axis=(1, 2, 3)) for patch in row] for row in patches]
    return np.moveaxis(np.array(sums), -1, 0) + np.asarray(layer.bias)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "use_bias"),
    [
        (3, 1, 1, True),
        (3, 1, 0, False),
        (3, 2, 1, True),
        ((2, 4), 1, ((2, 0), (1, 3)), True),
        (3, (2, 1), ((0, 1), (2, 0)), False),
        (1, 1, 0, True),
    ],
)
def test_shifted_slices_are_equinox_s_convolution_value_and_gradient(
    kernel, stride, padding, use_bias
):
    key = jax.random.key(0)
    layer = eqx.nn.Conv2d(
        3, 4, kernel, stride, padding, use_bias=use_bias, dtype=jnp.float64, key=key
    )
    images = jax.random.normal(jax.random.key(1), (5, 3, 8, 7), jnp.float64)

    def ours(layer, images):
        return jnp.moveaxis(convolve(layer, jnp.moveaxis(images, 0, -1)), -1, 0)

    def theirs(layer, images):
        return jax.vmap(layer)(images)

    @jax.jit
    def gaps(layer, images):
        weigh = jnp.cos(jnp.arange(theirs(layer, images).size, dtype=images.dtype))

        def slopes(apply):
            total = lambda args: apply(*args).ravel() @ weigh  # noqa: E731
            return apply(layer, images), jax.grad(total)((layer, images))

        return jax.tree.map(lambda a, b: jnp.abs(a - b).max(), slopes(ours), slopes(theirs))

    assert max(map(float, jax.tree.leaves(gaps(layer, images)))) < 1e-12


def test_strides_that_leave_a_rest_are_the_sum_written_out_by_hand():
    # Not against equinox: XLA's own CPU compiler aborts on the gradient of this one.
    layer = eqx.nn.Conv2d(2, 3, (2, 4), (2, 3), 1, dtype=jnp.float64, key=jax.random.key(0))
    image = np.random.default_rng(0).normal(size=(2, 8, 7))
    out = convolve(layer, jnp.array(image)[..., None])[..., 0]
    assert out.shape == (3, 5, 2)
    np.testing.assert_allclose(out, convolution_by_hand(layer, image), rtol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"dilation": 2}, {"groups": 3}, {"padding": "SAME"}, {"padding_mode": "REFLECT"}]
)
def test_convolutions_of_another_kind_are_refused(settings):
    layer = eqx.filter_eval_shape(eqx.nn.Conv2d, 3, 6, 3, key=jax.random.key(0), **settings)
    with pytest.raises(ValueError, match=next(iter(settings)).split("_")[0]):
        convolve(layer, jnp.zeros((3, 8, 8, 2)))


def relu(values):
    return np.maximum(values, 0)


def dense(layer, values):
    return values @ np.asarray(layer.weight).T + np.asarray(layer.bias)


def test_the_mlp_is_the_one_written_out_by_hand():
    network = Mlp(sizes=(6, 5, 4, 3))
    params = some_weights(network)
    inputs = np.random.default_rng(0).normal(size=(7, 2, 3))
    hidden = inputs.reshape(7, 6)
    for name in ("dense_0", "dense_1"):
        hidden = relu(dense(params[name], hidden))
    expected = dense(params["dense_2"], hidden)
    np.testing.assert_allclose(jax.jit(network.apply)(params, inputs), expected, rtol=1e-12)


def test_the_layernorm_mlp_is_the_one_written_out_by_hand():
    network = LayerNormMlp(sizes=(6, 5, 3))
    params = some_weights(network)
    gain, shift = np.linspace(0.5, 2, 5), np.linspace(-1, 1, 5)
    norm = eqx.tree_at(lambda n: (n.weight, n.bias), params["norm_0"], (gain, shift))
    inputs = np.random.default_rng(0).normal(size=(7, 6))
    hidden = dense(params["dense_0"], inputs)
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + norm.eps)
    expected = dense(params["dense_1"], relu(normal * gain + shift))
    logits = jax.jit(network.apply)({**params, "norm_0": norm}, inputs)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_the_cnn_is_the_one_written_out_by_hand():
    network = NETWORKS["cnn"]
    params = some_weights(network)
    inputs = np.random.default_rng(0).normal(size=(3, 2, 9, 6))
    expected = []
    for image in inputs:
        for name in ("conv_0", "conv_1"):
            image = np.tanh(convolution_by_hand(params[name], image))
            channels, height, width = image.shape
            pooled = np.zeros((channels, height // 2, width // 2))
            for row in range(height // 2):
                for column in range(width // 2):
                    square = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                    pooled[:, row, column] = square.max(axis=(1, 2))
            image = pooled
        expected.append(dense(params["dense_0"], image.ravel()))
    np.testing.assert_allclose(jax.jit(network.apply)(params, inputs), expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_weights_are_floating_arrays_of_the_dtype_asked_for_and_nothing_else(network, dtype):
    params = jax.eval_shape(lambda key: network.init(key, jnp.dtype(dtype)), jax.random.key(0))
    leaves = jax.tree.leaves(params)
    assert isinstance(params, dict) and len(leaves) >= 6
    assert {leaf.dtype.name for leaf in leaves} == {dtype}
    inputs = jax.ShapeDtypeStruct((4, network.num_inputs), jnp.dtype(dtype))
    logits = jax.eval_shape(network.apply, params, inputs)
    assert logits.shape == (4, network.num_classes) and logits.dtype == dtype


def test_examples_do_not_see_each_other(network):
    params = some_weights(network)
    inputs = np.random.default_rng(1).normal(size=(4, network.num_inputs))
    alone = inputs.copy()
    alone[[0, 1, 3]] = 0
    apply = jax.jit(network.apply)
    np.testing.assert_allclose(apply(params, alone)[2], apply(params, inputs)[2], rtol=1e-11)


def test_networks_for_digits_have_the_sizes_they_are_known_by():
    counts = {}
    for name in ("mlp", "layernorm", "cnn"):
        network = network_for(name, (8, 8), 10)
        params = jax.eval_shape(lambda key, n=network: n.init(key, jnp.float32), jax.random.key(0))
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(params))
    dense_weights = 64 * 64 + 64 + 64 * 10 + 10
    assert counts == {
        "mlp": dense_weights,
        "layernorm": dense_weights + 2 * 64,
        "cnn": (9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 4 + 1) * 10,
    }


def test_networks_fit_images_of_several_kinds():
    assert network_for("cnn", (28, 28), 10).image_shape == (1, 28, 28)
    assert network_for("cnn", (3, 32, 32), 10).image_shape == (3, 32, 32)
    assert network_for("mlp", (3, 32, 32), 7).sizes == (3072, 64, 7)


def test_equal_descriptions_are_equal_and_hash_alike():
    assert hash(Mlp(sizes=[64, 10])) == hash(Mlp(sizes=(np.int64(64), 10)))
    assert Mlp(sizes=[64, 10]) == Mlp(sizes=(64, 10)) != Mlp(sizes=(64, 11))
    assert Mlp(sizes=(64, 8, 10)) != LayerNormMlp(sizes=(64, 8, 10))
    assert hash(Cnn(channels=[4, 4])) == hash(Cnn(channels=(4, 4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mlp(sizes=(64,)), "Mlp needs at least 2 numbers in sizes"),
        (lambda: LayerNormMlp(sizes=(64, 0, 10)), "LayerNormMlp needs a whole sizes >= 1, got"),
        (lambda: Mlp(sizes=64), "sizes, got 64"),
        (lambda: Mlp(activation="rellu"), "activation relu, tanh, gelu.*Did you mean 'relu'"),
        (lambda: Cnn(kernel_size=4), "odd kernel_size, got 4"),
        (lambda: Cnn(image_shape=(8, 8)), "at least 3 numbers in image_shape"),
        (lambda: Cnn(image_shape=(1, 8, 8, 1)), r"\(channels, height, width\), got"),
        (lambda: Cnn(channels=()), "at least 1 numbers in channels"),
        (lambda: Cnn(image_shape=(1, 8, 3)), "halves the image 2 times"),
        (lambda: Cnn(num_classes=0), "num_classes >= 1"),
        (lambda: network_for("rnn", (8, 8), 10), "mlp, layernorm, cnn; got 'rnn'"),
        (lambda: network_for("cnn", (64,), 10), r"'cnn', got examples of shape \(64,\)"),
    ],
)
def test_networks_that_make_no_sense_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
