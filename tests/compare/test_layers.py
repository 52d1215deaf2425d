"""A layer is a top-level key, whatever the tree is made of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.compare.layers import flat, layers_of, norm, sums_by_layer


def dense(offset):
    return {"bias": offset + jnp.arange(2.0), "weight": offset + jnp.arange(6.0).reshape(2, 3)}


def test_the_keys_of_a_dict_are_the_layers_and_the_last_one_is_everything():
    params = {"dense_0": dense(0.0), "norm": jnp.arange(3.0), "dense_1": dense(10.0)}
    layers = layers_of(params)
    assert layers.names == ("dense_0", "dense_1", "norm", "all")
    assert layers.bounds == ((0, 8), (8, 16), (16, 19), (0, 19))


def test_a_layer_is_the_range_of_the_flat_vector_that_holds_its_leaves():
    params = {"b": dense(10.0), "a": dense(0.0)}
    sums = sums_by_layer(layers_of(params), flat(params))
    total = [sum(float(leaf.sum()) for leaf in jax.tree.leaves(params[key])) for key in "ab"]
    np.testing.assert_array_equal(sums, [*total, sum(total)])


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"net": {"in": dense(0.0), "out": dense(1.0)}}, ("net.in", "net.out")),
        ([dense(0.0), dense(1.0)], ("0", "1")),
        ({"dense_0": dense(0.0)}, ("dense_0",)),
        ({"w": jnp.ones(2), "b": jnp.ones(())}, ("b", "w")),
        (jnp.ones(3), ()),
        (jnp.ones(()), ()),
        ({"used": jnp.ones(2), "unused": None, "empty": jnp.ones((0, 3))}, ("empty", "used")),
    ],
)  # fmt: skip
def test_any_tree_has_layers(params, names):
    assert layers_of(params).names == (*names, "all")


def test_an_equinox_network_has_one_layer_for_each_of_its_own():
    network = eqx.nn.MLP(3, 2, 4, depth=1, key=jax.random.key(0))
    params, _ = eqx.partition(network, eqx.is_array)
    assert layers_of(params).names == ("layers.0", "layers.1", "all")


def test_a_tree_without_weights_is_refused():
    with pytest.raises(ValueError, match="at least one array"):
        layers_of({"nothing": None})


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e20, 1e300])
def test_a_norm_neither_overflows_nor_vanishes(scale):
    assert norm(scale * jnp.array([3.0, -4.0])) == pytest.approx(5 * scale, rel=1e-15)


def test_an_empty_vector_has_norm_zero_and_a_nan_spoils_it():
    assert norm(jnp.zeros(0)) == 0
    assert np.isnan(norm(jnp.array([1.0, np.nan])))
    assert norm(jnp.array([1.0, np.inf])) == np.inf
