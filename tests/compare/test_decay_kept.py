"""How much decay arithmetic keeps, against numbers known from the spacing of floats."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import measure_decay_kept, realised_shrink, stated_shrink
from bayesfilt.optimizers import (
    OPTIMIZERS,
    Setting,
    adabayes_fixed_point,
    decay_to_zero,
    named_optimizer,
)

ONES = np.ones(8)


def decaying(shrink):
    return optax.chain(optax.scale(-1.0), decay_to_zero(shrink))


@pytest.mark.parametrize(
    ("shrink", "kept"), [(1e-5, 1.001), (1e-6, 1.0126), (1e-7, 1.192), (1e-8, 0.0)]
)
def test_float32_rounds_a_lonely_shrink_of_a_weight_at_one(shrink, kept):
    """Below 1 floats are 2^-24 apart, so a shrink becomes a whole number of these."""
    found = measure_decay_kept(
        decaying(shrink), shrink, dtype="float32", num_steps=2000, weights=ONES
    )
    spacing = 2.0**-24
    assert found.kept == pytest.approx(kept, abs=2e-3)
    if shrink <= 1e-6:  # while the weight is so near 1 that its own decay does not show
        assert found.kept == pytest.approx(round(shrink / spacing) * spacing / shrink, abs=2e-3)


def test_float64_keeps_it_all_and_bfloat16_nothing():
    settings = {"num_steps": 2000, "intended": 1e-4}
    whole = measure_decay_kept(decaying(1e-4), dtype="float64", **settings)
    assert whole.kept == pytest.approx(1, abs=1e-9)
    assert whole.intended == pytest.approx(-np.log1p(-1e-4), rel=1e-12)
    assert measure_decay_kept(decaying(1e-4), dtype="bfloat16", **settings).kept == 0


def test_any_transformation_can_be_asked():
    made = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.01))
    found = measure_decay_kept(made, 0.005, dtype="float64", num_steps=100)
    assert found.kept == pytest.approx(1, rel=1e-10)
    wrong = measure_decay_kept(made, 0.01, dtype="float64", num_steps=100)
    assert wrong.kept == pytest.approx(np.log1p(-0.005) / np.log1p(-0.01), rel=1e-10)


def test_an_optimizer_that_means_no_decay_has_none_to_keep():
    assert np.isnan(measure_decay_kept(optax.sgd(0.1), 0.0, dtype="float64", num_steps=3).kept)
    assert np.isnan(
        measure_decay_kept(optax.sgd(0.1), stated_shrink(None), dtype="float64", num_steps=3).kept
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_the_zoo_s_optimizers_state_is_what_float64_makes(name, schedule):
    setting = Setting(
        learning_rate=0.01, weight_decay=0.5, batch_size=4, num_steps=40, schedule=schedule
    )
    made = named_optimizer(name, setting)
    found = measure_decay_kept(
        made.optimizer, stated_shrink(made.parts), dtype="float64", num_steps=40
    )
    if name == "adam":
        assert (found.intended, found.realised) == (0, 0)
    else:
        assert found.kept == pytest.approx(1, rel=1e-9)
        assert found.intended > 1e-4


def one_step(made, order_seed=0):
    """A step in the middle of a run: what `realised_shrink` is given."""
    rng = np.random.RandomState(order_seed)
    params = {"a": jnp.asarray(rng.standard_normal(5)), "b": jnp.asarray(rng.standard_normal(3))}
    state = made.init(params)
    for _ in range(3):
        gradient = jax.tree.map(lambda w: jnp.asarray(rng.standard_normal(w.shape)), params)
        before = state
        updates, state = made.update(gradient, before, params)
    return made, updates, gradient, before, params, jnp.zeros(())


@pytest.mark.equation("CMP-4")
@pytest.mark.parametrize("order", ["before", "after"])
def test_the_shrink_inside_a_run_is_found_under_loud_gradients(order):
    made = adabayes_fixed_point(0.1, 0.3, batch_size=4, weight_decay=1e-6, decay_order=order)
    found = realised_shrink(*one_step(made))
    np.testing.assert_allclose(found, 1e-6, rtol=1e-8)


def test_the_shrink_of_a_schedule_is_that_of_its_own_step():
    made = optax.chain(optax.scale(-0.1), decay_to_zero(lambda step: 0.1 * (step + 1)))
    np.testing.assert_allclose(realised_shrink(*one_step(made)), 0.3, rtol=1e-12)


def test_decay_of_a_part_of_the_weights_counts_by_their_square():
    made = optax.chain(optax.scale(-0.1), decay_to_zero(0.2, mask={"a": True, "b": False}))
    arguments = one_step(made)
    squares = {name: float(jnp.sum(w**2)) for name, w in arguments[4].items()}
    expected = 0.2 * squares["a"] / sum(squares.values())
    np.testing.assert_allclose(realised_shrink(*arguments), expected, rtol=1e-12)


def test_an_optimizer_without_decay_realises_none_and_weights_at_zero_have_none():
    assert realised_shrink(*one_step(optax.adam(0.1))) == 0
    made, updates, gradient, before, params, value = one_step(decaying(0.1))
    zeros = jax.tree.map(jnp.zeros_like, params)
    assert realised_shrink(made, updates, gradient, before, zeros, value) == 0


def test_an_optimizer_that_states_nothing_is_not_available():
    state = optax.adamw(0.1).init(jnp.ones(2))
    assert np.isnan(stated_shrink(None)(state))
    state = decaying(0.25).init(jnp.ones(2))
    assert stated_shrink(None)(state) == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int32", "num_steps": 3}, "floating dtype"),
        ({"dtype": "float32", "num_steps": 0}, "num_steps >= 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        measure_decay_kept(optax.sgd(0.1), 0.0, **settings)


def test_float64_without_x64_is_refused(float32_only):
    with pytest.raises(ValueError, match="jax_enable_x64"):
        measure_decay_kept(optax.sgd(0.1), 0.0, dtype="float64", num_steps=3)
