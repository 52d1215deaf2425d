"""Wrong arguments are refused at once, in one line that says what was wanted and what came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.optimizers import (
    OPTIMIZERS,
    Setting,
    adabayes,
    adabayes_fixed_point,
    decay_to_zero,
    effective_learning_rate,
    kalman_kronecker,
    named_optimizer,
    posterior_variance,
    scale_by_adagrad,
    scale_by_amsgrad,
    scale_by_kalman,
    steady_state,
)

RECIPES = [adabayes, adabayes_fixed_point, kalman_kronecker, steady_state]
recipes = pytest.mark.parametrize("make", RECIPES)
WEIGHTS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def refused(call, *words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@recipes
@pytest.mark.parametrize("eta", [0.0, -1e-3, np.nan, np.inf, jnp.array(-2.0), "fast", None, 1j])
def test_a_drift_scale_must_be_a_finite_number_above_zero(make, eta):
    refused(lambda: make(eta, 1.0, batch_size=4), "drift_scale")


@recipes
@pytest.mark.parametrize("sigma2", [0.0, -1.0, np.nan, -np.inf, None])
def test_a_stationary_variance_must_be_above_zero(make, sigma2):
    refused(lambda: make(1e-3, sigma2, batch_size=4), "stationary_variance")


@recipes
def test_an_infinite_stationary_variance_is_legal_and_does_not_decay(make):
    optimizer = make(1e-3, np.inf, batch_size=4)
    state = optimizer.init(WEIGHTS)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, WEIGHTS), state, WEIGHTS)
    np.testing.assert_array_equal(updates["w"], 0)


@recipes
def test_a_tied_decay_that_would_flip_the_sign_is_refused(make):
    refused(lambda: make(1.0, 0.5, batch_size=4), "< 1", "got 1", "weight_decay")
    make(1.0, 0.5, batch_size=4, weight_decay=0.5)
    make(10.0, 0.5, batch_size=4, weight_decay=1 - np.exp(-100.0))


@recipes
@pytest.mark.parametrize("b1", [-0.1, 1.0, 1.5, np.nan])
def test_b1_must_lie_in_zero_one(make, b1):
    refused(lambda: make(1e-3, 1.0, batch_size=4, b1=b1), "0 <= b1 < 1")


@pytest.mark.parametrize("b2", [-0.1, 1.0, np.nan])
def test_b2_must_lie_in_zero_one(b2):
    refused(lambda: adabayes_fixed_point(1e-3, 1.0, batch_size=4, b2=b2), "0 <= b2 < 1")


@recipes
@pytest.mark.parametrize("batch_size", [0, -3, 2.5, np.inf, np.nan, None])
def test_a_batch_size_must_be_whole_and_at_least_one(make, batch_size):
    refused(lambda: make(1e-3, 1.0, batch_size=batch_size), "batch_size")


@recipes
def test_a_missing_batch_size_is_refused(make):
    with pytest.raises(TypeError, match="batch_size"):
        make(1e-3, 1.0)


@pytest.mark.parametrize("shrink", [-1e-3, 1.5, np.nan])
def test_a_shrink_must_lie_between_zero_and_one(shrink):
    refused(lambda: decay_to_zero(shrink), "shrink")


@recipes
def test_an_unknown_decay_order_is_refused_with_what_exists(make):
    refused(lambda: make(1e-3, 1.0, batch_size=4, decay_order="befor"), "before", "after")


@recipes
@pytest.mark.parametrize(
    "mask", [{"w": True}, True, {"w": True, "b": 1}, {"w": [True, False], "b": True}]
)
def test_a_mask_that_does_not_fit_is_refused_before_the_first_step(make, mask):
    refused(lambda: make(1e-3, 1.0, batch_size=4, mask=mask).init(WEIGHTS), "mask")


@recipes
@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_weights_must_be_real(make, dtype):
    weights = {"w": jnp.ones(2), "steps": jnp.ones(2, dtype)}
    refused(lambda: make(1e-3, 1.0, batch_size=4).init(weights), "steps", dtype)


@recipes
@pytest.mark.parametrize(
    "gradient",
    [
        {"w": jnp.ones((2, 3)), "b": jnp.ones(2)},
        {"w": jnp.ones((2, 3), "float16"), "b": jnp.ones(3)},
        {"w": jnp.ones((2, 3))},
    ],
)
def test_a_gradient_must_fit_its_weight_even_inside_jit(make, gradient):
    optimizer = make(1e-3, 1.0, batch_size=4)
    state = optimizer.init(WEIGHTS)
    refused(lambda: jax.jit(optimizer.update)(gradient, state, WEIGHTS), "gradient")


@recipes
def test_leaves_may_differ_in_dtype_from_one_another(make):
    weights = {
        "w": jnp.ones(2, "float32"),
        "b": jnp.ones(2, "float64"),
        "h": jnp.ones(2, "bfloat16"),
    }
    optimizer = make(1e-3, 1.0, batch_size=4)
    updates, _ = optimizer.update(weights, optimizer.init(weights), weights)
    assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, weights)


@recipes
def test_update_without_the_weights_is_refused(make):
    optimizer = make(1e-3, 1.0, batch_size=4)
    refused(lambda: optimizer.update(WEIGHTS, optimizer.init(WEIGHTS)), "params")


@pytest.mark.parametrize(
    "call",
    [
        lambda: scale_by_kalman(-1.0, 1.0),
        lambda: scale_by_amsgrad(eps=-1.0),
        lambda: scale_by_adagrad(eps=-1.0),
        lambda: adabayes_fixed_point(1e-3, 1.0, batch_size=4, eps_root=-1.0),
    ],
)
def test_the_transformations_check_too(call):
    refused(call, "got")


def test_a_state_without_a_filter_has_no_posterior_variance():
    refused(lambda: posterior_variance(()), "found 0")
    state = scale_by_kalman(1e-3, 1.0).init(WEIGHTS)
    refused(lambda: effective_learning_rate(state), "SumOverBatchState")
    refused(lambda: posterior_variance((state, state)), "found 2")


def test_an_unknown_optimizer_name_offers_the_nearest():
    setting = Setting(learning_rate=1e-3, weight_decay=0.1, batch_size=64, num_steps=10)
    refused(lambda: named_optimizer("adamv", setting), "adamw", *OPTIMIZERS)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.0}, {"weight_decay": -1.0}, {"schedule": "cosin"}, {"b1": 1.0}]
)
def test_a_setting_checks_its_numbers(change):
    good = {"learning_rate": 1e-3, "weight_decay": 0.1, "batch_size": 64, "num_steps": 10}
    refused(lambda: Setting(**{**good, **change}), next(iter(change)))


def test_a_stack_of_states_is_not_answered_wrongly():
    def state_of(eta):
        return adabayes(eta, 1.0, batch_size=4).init(WEIGHTS)

    states = jax.vmap(state_of)(jnp.array([1e-3, 1e-2, 1e-1]))
    refused(lambda: posterior_variance(states), "jax.vmap")
    assert jax.vmap(posterior_variance)(states)["w"].shape == (3, 2, 3)


@recipes
def test_a_schedule_that_is_no_number_shows_and_does_not_freeze_the_run(make):
    optimizer = make(1e-3, lambda step: jnp.nan, batch_size=4, weight_decay=0.0)
    updates, _ = optimizer.update(WEIGHTS, optimizer.init(WEIGHTS), WEIGHTS)
    assert np.all(np.isnan(updates["w"]))
