"""How much decay arithmetic keeps, against numbers known from the spacing of floats."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    DecayWarning,
    decay_complaint,
    decay_kept_of_all,
    measure_decay_kept,
    realised_shrink,
    stated_shrink,
)
from bayesfilt.compare.decay_kept import kept_between
from bayesfilt.optimizers import (
    OPTIMIZERS,
    NamedOptimizer,
    Setting,
    adabayes_fixed_point,
    badam,
    compensated,
    decay_to_zero,
    named_optimizer,
)
from tests.quick_look import ONE_OF_EACH_STATUS, slow_but

ONES = np.ones(8)


def decaying(shrink):
    return optax.chain(optax.scale(-1.0), decay_to_zero(shrink))


@pytest.mark.parametrize(
    ("shrink", "kept"), [(1e-5, 1.001), (1e-6, 1.0126), (1e-7, 1.192), (1e-8, 0.0)]
)
def test_float32_rounds_a_lonely_shrink_of_a_weight_at_one(shrink, kept):
    """Below 1 floats are 2^-24 apart, so a shrink becomes a whole number of these."""
    honest = 0.98 <= kept <= 1.02
    expected = contextlib.nullcontext() if honest else pytest.warns(DecayWarning, match="Remedy")
    with expected:
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
    with pytest.warns(DecayWarning, match="bfloat16 changes .* keeps 0.0%"):
        assert measure_decay_kept(decaying(1e-4), dtype="bfloat16", **settings).kept == 0


# Share of the decay that weights at 1 keep in float32, in four ways of writing it down: what the
# spacing of floats makes of it, and what others measured over 20,000 steps.
ALONE = {1e-5: 1.001, 1e-6: 1.012, 1e-7: 1.192, 1e-8: 0.0}


@pytest.mark.parametrize("shrink", ALONE)
def test_multiplying_first_loses_or_inflates_decay_whatever_the_step(shrink):
    factor, steps = jnp.float32(1 - shrink), 2_000
    start = jnp.ones(8, "float32")
    end = jax.jit(lambda w: jax.lax.fori_loop(0, steps, lambda _, w: w * factor, w))(start)
    found = kept_between(start, end, jnp.asarray(-steps * np.log1p(-shrink)), steps).kept
    assert found == pytest.approx(ALONE[shrink], abs=4e-3)
    complaint = decay_complaint({"torch": found}, "float32")
    assert (complaint is None) == (shrink >= 1e-6)


@pytest.mark.parametrize("shrink", ALONE)
def test_in_one_sum_with_a_step_decay_is_kept_and_without_one_it_is_not(shrink):
    steps, size = 20_000, 512

    def moved(shrink, size_of_step):
        made = optax.chain(optax.scale(-size_of_step), decay_to_zero(shrink))

        def step(carry, key):
            weights, state = carry
            gradient = jax.random.uniform(key, (size,), "float32", -1, 1)
            updates, state = made.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        weights = jnp.ones(size, "float32")
        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (weights, made.init(weights)), keys)[0][0]

    many = jax.jit(jax.vmap(moved))
    with_step, without_decay, alone = many(
        jnp.array([shrink, 0.0, shrink], "float32"), jnp.array([1e-3, 1e-3, 0.0], "float32")
    )
    meant = -np.expm1(steps * np.log1p(-shrink))
    # the same steps with and without decay: what differs is the decay
    lost = np.mean(np.asarray(without_decay, float) - np.asarray(with_step, float))
    assert lost == pytest.approx(meant, rel=1e-2)
    kept = kept_between(jnp.ones(size), alone, jnp.asarray(-steps * np.log1p(-shrink)), steps).kept
    assert kept == pytest.approx(ALONE[shrink], abs=4e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shrink", ALONE)
def test_compensated_weights_keep_all_of_it(shrink, dtype):
    made = compensated(decaying(shrink))
    found = measure_decay_kept(
        made, stated_shrink(None), dtype=dtype, num_steps=20_000, weights=ONES
    )
    assert found.kept == pytest.approx(1, abs=1e-5 if dtype == "float32" else 1e-3)


def test_a_study_measures_decay_in_float32_whatever_its_own_type():
    made = {
        "lost": NamedOptimizer(optimizer=decaying(1e-8), parts=None),
        "inflated": NamedOptimizer(optimizer=decaying(5e-8), parts=None),
        "remedied": NamedOptimizer(optimizer=compensated(decaying(1e-8)), parts=None),
        "velocity": NamedOptimizer(optimizer=badam(1e-4, 0.5, batch_size=1), parts=None),
        "silent": NamedOptimizer(optimizer=optax.sgd(0.1), parts=None),
    }
    params = {"w": jnp.ones(64, "float64"), "b": jnp.ones((2, 3), "float64")}
    found = dict(zip(made, decay_kept_of_all(made, params, 3_000), strict=True))
    assert found["lost"] == 0
    assert found["inflated"] > 1.05
    assert found["remedied"] == pytest.approx(1, abs=1e-3)
    assert found["velocity"] == 0  # eta^2/2 sigma^2 = 1e-8
    assert np.isnan(found["silent"])
    wide = dict(zip(made, decay_kept_of_all(made, params, 100, dtype="float64"), strict=True))
    assert [wide[name] for name in ("lost", "velocity")] == pytest.approx([1, 1], rel=1e-6)


def test_a_complaint_names_who_the_type_and_the_remedy_or_is_none():
    kept = {"adamw": 1.19, "adabayes": 0.5, "adam": None, "sgd": np.nan, "badam": 1.0}
    line = decay_complaint(kept, "float32")
    assert line is not None
    assert "\n" not in line
    for words in ("float32", "adamw keeps 119.0%", "adabayes keeps 50.0%", "compensated"):
        assert words in line
    for name in ("adam keeps", "sgd", "badam"):
        assert name not in line
    assert decay_complaint({"a": 0.98, "b": 1.02, "c": None}, "float32") is None
    assert "inf%" in str(decay_complaint({"a": np.inf}, "float32"))


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
@pytest.mark.parametrize("name", slow_but(ONE_OF_EACH_STATUS, OPTIMIZERS))
def test_what_the_zoo_s_optimizers_state_is_what_float64_makes(name, schedule):
    setting = Setting(
        learning_rate=0.01, weight_decay=0.5, batch_size=4, num_steps=40, schedule=schedule
    )
    made = named_optimizer(name, setting)
    found = measure_decay_kept(
        made.optimizer, stated_shrink(made.parts), dtype="float64", num_steps=40
    )
    if OPTIMIZERS[name].facts.decay == "l2":
        assert found.intended == 0  # what it does to a weight is no decay
    elif OPTIMIZERS[name].facts.decay == "none" and name != "normalized":
        assert (found.intended, found.realised) == (0, 0)
    elif name != "normalized":
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
