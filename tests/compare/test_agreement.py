"""Agreement of two updates, against formulas written out in NumPy."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    Agreement,
    compare_updates,
    layer_agreement,
    layers_of,
    update_agreement,
)
from bayesfilt.simulate import shadow
from bayesfilt.tasks import bowl_task

LEADER = np.array([1.0, -2.0, 0.5, 3.0, 0.0])
FOLLOWER = np.array([2.0, -1.0, -0.5, 2.5, 0.0])


def twin(leader, follower):
    """The four numbers, from their definitions."""
    lengths = np.sqrt(leader @ leader), np.sqrt(follower @ follower)
    return Agreement(
        cosine=leader @ follower / (lengths[0] * lengths[1]),
        relative_error=np.sqrt((follower - leader) @ (follower - leader)) / lengths[0],
        log_size_ratio=np.log(lengths[1] / lengths[0]),
        sign_agreement=np.mean(np.sign(leader) == np.sign(follower)),
    )


def test_the_four_numbers_are_their_definitions():
    np.testing.assert_allclose(
        compare_updates(LEADER, FOLLOWER), twin(LEADER, FOLLOWER), rtol=1e-14
    )


def test_the_leader_is_the_reference():
    there, back = compare_updates(LEADER, FOLLOWER), compare_updates(FOLLOWER, LEADER)
    assert there.log_size_ratio == -back.log_size_ratio
    assert there.relative_error != back.relative_error


def test_equal_updates_agree_to_the_last_bit():
    for seed in range(20):
        updates = jnp.asarray(np.random.RandomState(seed).standard_normal(1000) * 1e-3)
        assert tuple(map(float, compare_updates(updates, updates))) == (1, 0, 0, 1)


def test_opposite_updates_have_cosine_minus_one():
    found = compare_updates(LEADER, -LEADER)
    np.testing.assert_allclose(found[:3], [-1, 2, 0], atol=1e-15)
    assert found.sign_agreement == 0.2  # only the weight that neither of them moves


@hypothesis.given(
    leader=st.integers(-140, 140), follower=st.integers(-140, 140), seed=st.integers(0, 9)
)
@hypothesis.settings(max_examples=50)
def test_direction_and_signs_do_not_depend_on_the_size_of_an_update(leader, follower, seed):
    first, second = np.random.RandomState(seed).standard_normal((2, 7))
    plain = twin(first, second)
    found = compare_updates(jnp.asarray(first * 10.0**leader), jnp.asarray(second * 10.0**follower))
    np.testing.assert_allclose(found.cosine, plain.cosine, atol=1e-14)
    assert found.sign_agreement == plain.sign_agreement
    expected = plain.log_size_ratio + (follower - leader) * np.log(10)
    np.testing.assert_allclose(found.log_size_ratio, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiny_updates_of_narrow_types_are_compared_in_float32(dtype):
    params = {"w": jnp.zeros(5, dtype)}
    tiny = {"w": jnp.asarray(LEADER * 1e-30, dtype)}
    assert layers_of(params).bounds == ((0, 5), (0, 5))
    from bayesfilt.compare.layers import flat

    found = layer_agreement(layers_of(params), flat(tiny), flat(tiny))
    assert found.cosine.dtype == jnp.float32
    np.testing.assert_array_equal(found.cosine, 1)


def test_two_updates_that_rest_agree_and_one_that_rests_has_no_direction():
    rest = np.zeros(5)
    assert tuple(map(float, compare_updates(rest, rest))) == (1, 0, 0, 1)
    found = compare_updates(LEADER, rest)
    np.testing.assert_array_equal(found[:3], [np.nan, 1, -np.inf])
    found = compare_updates(rest, LEADER)
    np.testing.assert_array_equal(found[:3], [np.nan, np.inf, np.inf])


def test_a_nan_spoils_its_own_layer_and_no_other():
    layers = layers_of({"a": np.zeros(2), "b": np.zeros(3)})
    broken = FOLLOWER.copy()
    broken[4] = np.nan
    found = layer_agreement(layers, jnp.asarray(LEADER), jnp.asarray(broken))
    np.testing.assert_allclose(
        [values[0] for values in found], twin(LEADER[:2], FOLLOWER[:2]), rtol=1e-14
    )
    assert all(np.isnan(values[1:]).all() for values in found)


def test_every_layer_is_compared_on_its_own_in_the_shadow_of_a_leader():
    task = bowl_task(np.diag([1.0, 5.0]), np.eye(2), optimum=np.array([1.0, -2.0]), batch_size=4)
    followers = {"faster": optax.sgd(0.03), "adam": optax.adam(0.02)}

    def updates(task, view):
        return {"leader": view.leader.updates, **{n: p.updates for n, p in view.followers.items()}}

    measures = {"agreement": update_agreement, "updates": updates}
    run = jax.jit(
        lambda key, task: shadow(
            key, task, optax.sgd(0.02), followers, 20, measures=measures, record_every=4
        )
    )
    records = run(jax.random.key(3), task).records
    np.testing.assert_allclose(records["agreement"]["faster"].relative_error, 0.5, rtol=1e-12)
    np.testing.assert_allclose(records["agreement"]["faster"].log_size_ratio, np.log(1.5))
    for index in range(5):
        both = [np.asarray(records["updates"][name][index]) for name in ("leader", "adam")]
        found = [values[index, 0] for values in records["agreement"]["adam"]]
        np.testing.assert_allclose(found, twin(*both), rtol=1e-12)
