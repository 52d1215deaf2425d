"""Decay is a shrink of the weights, in its convention, in its order, where the mask says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import (
    adabayes,
    adabayes_fixed_point,
    convention_schedule,
    decay_to_zero,
    steady_state,
    tied_shrink,
)
from bayesfilt.theory import AdamWSettings

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
STEP = {"w": jnp.array([0.1, 0.3]), "b": jnp.array([-0.2])}
RECIPES = [adabayes, adabayes_fixed_point, steady_state]


def updated(transformation, params=PARAMS, step=STEP):
    updates, _ = transformation.update(step, transformation.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.equation("OPT-5")
def test_decay_before_the_step_shrinks_the_weight_alone():
    after = updated(decay_to_zero(0.25))
    np.testing.assert_allclose(after["w"], 0.75 * PARAMS["w"] + STEP["w"], rtol=1e-15)


@pytest.mark.equation("OPT-5")
def test_decay_after_the_step_shrinks_their_sum():
    after = updated(decay_to_zero(0.25, order="after"))
    np.testing.assert_allclose(after["w"], 0.75 * (PARAMS["w"] + STEP["w"]), rtol=1e-15)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("as_function", [False, True])
def test_a_mask_spares_leaves_and_passes_their_steps(order, as_function):
    mask = {"w": True, "b": False}
    transformation = decay_to_zero(
        0.25, order=order, mask=(lambda params: mask) if as_function else mask
    )
    after = updated(transformation)
    np.testing.assert_array_equal(after["b"], PARAMS["b"] + STEP["b"])
    assert not np.array_equal(after["w"], PARAMS["w"] + STEP["w"])


def test_a_callable_tree_is_a_mask_and_not_a_function():
    @jax.tree_util.register_pytree_node_class
    class Module:
        def __init__(self, weight):
            self.weight = weight

        def __call__(self, x):
            return x

        def tree_flatten(self):
            return (self.weight,), None

        @classmethod
        def tree_unflatten(cls, aux, leaves):
            return cls(*leaves)

    params, step = Module(jnp.ones(2)), Module(jnp.zeros(2))
    after = updated(decay_to_zero(0.5, mask=Module(False)), params, step)
    np.testing.assert_array_equal(after.weight, 1.0)


@pytest.mark.parametrize("make", RECIPES)
def test_the_mask_does_not_touch_the_variance(make):
    plain = make(0.1, 1.0, batch_size=2)
    masked = make(0.1, 1.0, batch_size=2, mask={"w": False, "b": False})
    (_, a), (_, b) = (tx.update(STEP, tx.init(PARAMS), PARAMS) for tx in (plain, masked))
    jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


@pytest.mark.equation("OPT-6")
@pytest.mark.parametrize("make", RECIPES)
def test_tied_decay_shrinks_a_zero_gradient_weight_by_the_first_order_ratio(make):
    optimizer = make(0.1, 0.4, batch_size=2)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    after = updated(optimizer, step=zero)
    np.testing.assert_allclose(after["w"], (1 - 0.1**2 / 0.8) * PARAMS["w"], rtol=1e-14)


@pytest.mark.parametrize("drift_scale", [1e155, 1e200, 1e300])
def test_tied_decay_of_a_drift_whose_square_overflows_is_refused(drift_scale):
    with pytest.raises(ValueError, match=r"tied weight decay needs .* < 1, got inf"):
        tied_shrink(drift_scale, 1.0)


@pytest.mark.equation("OPT-6")
def test_check_C3b_tied_decay_falls_with_the_square_of_a_schedule_on_the_drift_alone():
    shrink = tied_shrink(lambda t: 0.1 * (1 - t / 10), 0.4)
    np.testing.assert_allclose(
        [shrink(t) for t in range(11)], 0.0125 * (1 - np.arange(11) / 10) ** 2, atol=1e-16
    )


@pytest.mark.equation("OPT-6")
def test_check_C3b_tied_decay_falls_linearly_when_a_schedule_scales_both_rates():
    shrink = tied_shrink(lambda t: 0.1 * (1 - t / 10), lambda t: 0.4 * (1 - t / 10))
    np.testing.assert_allclose(
        [shrink(t) for t in range(11)], 0.0125 * (1 - np.arange(11) / 10), atol=1e-16
    )


@pytest.mark.equation("DICT-2")
@pytest.mark.parametrize(
    ("convention", "power", "scale"), [("lr_scaled", 1, 0.01), ("paper", 1, 1), ("filter", 2, 1)]
)
def test_the_three_conventions_differ_under_a_schedule(convention, power, scale):
    settings = AdamWSettings(learning_rate=0.01, weight_decay=0.05)
    shrink = convention_schedule(settings, lambda t: 0.5**t, convention=convention)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    transformation = decay_to_zero(shrink)
    state, params = transformation.init(PARAMS), PARAMS
    for t in range(4):
        updates, state = transformation.update(zero, state, params)
        after = optax.apply_updates(params, updates)
        wanted = (1 - scale * 0.05 * 0.5 ** (t * power)) * params["w"]
        np.testing.assert_allclose(after["w"], wanted, rtol=1e-14)
        params = after


def test_adamw_of_optax_decays_in_the_lr_scaled_convention():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    schedule = optax.cosine_decay_schedule(0.01, 10)
    theirs = optax.adamw(schedule, weight_decay=0.3)
    settings = AdamWSettings(learning_rate=0.01, weight_decay=0.3)
    factor = optax.cosine_decay_schedule(1.0, 10)
    ours = decay_to_zero(convention_schedule(settings, factor, convention="lr_scaled"))
    state, our_state = theirs.init(PARAMS), ours.init(PARAMS)
    for _ in range(5):
        updates, state = theirs.update(zero, state, PARAMS)
        our_updates, our_state = ours.update(zero, our_state, PARAMS)
        np.testing.assert_allclose(our_updates["w"], updates["w"], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_update_has_the_dtype_of_its_weight(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    transformation = decay_to_zero(0.25)
    wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(dtype, "float32")), STEP)
    updates, _ = transformation.update(wide, transformation.init(params), params)
    assert updates["w"].dtype == dtype


def test_a_shrink_below_float32_resolution_still_acts_together_with_a_step():
    # Carried as s: 1 - 1e-9 is 1 in float32, and a decay through it would be lost.
    params = {"w": jnp.full(1, 1e-3, jnp.float32)}
    step = {"w": jnp.zeros(1, jnp.float32)}
    transformation = decay_to_zero(1e-9)
    updates, _ = transformation.update(step, transformation.init(params), params)
    np.testing.assert_allclose(updates["w"], -1e-12, rtol=1e-6)
