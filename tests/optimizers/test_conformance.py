"""What every member of the zoo promises to a training loop; the registry is the list.

A new member is one row of the catalogue: nothing here names one.
"""

import functools
import inspect
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.catalogue import DECAYS, STATUSES
from bayesfilt.optimizers import OPTIMIZERS, Setting, named_optimizer
from tests.quick_look import ONE_OF_EACH_STATUS, slow_but

members = pytest.mark.parametrize("name", slow_but(ONE_OF_EACH_STATUS, OPTIMIZERS))

LEARNING_RATE, WEIGHT_DECAY, BATCH_SIZE, STEPS = 0.02, 0.1, 4, 40


def setting(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, schedule="constant"):
    return Setting(
        learning_rate, weight_decay, batch_size=BATCH_SIZE, num_steps=STEPS, schedule=schedule
    )


def member(name, *numbers, **options):
    return named_optimizer(name, setting(*numbers, **options)).optimizer


def tree(dtype="float64"):
    return {
        "matrix": jnp.asarray([[-1.0, -0.6, 0.3], [0.2, 0.9, 1.0]], dtype),
        "scalar": jnp.asarray(0.7, dtype),
        "empty": jnp.zeros((0, 3), dtype),
        "nothing": None,
        "nested": [jnp.asarray([0.1, -2.0], dtype)],
    }


def mixed():
    """Leaves of three dtypes in one tree."""
    dtypes = ("float32", "float64", "bfloat16")
    return {dtype: {"w": tree(dtype)["matrix"], "b": tree(dtype)["nested"][0]} for dtype in dtypes}


def target(params):
    """Where a bowl's bottom is: every matrix turned row by row, so that all norms stay."""
    return jax.tree.map(
        lambda leaf: jnp.roll(leaf, 1, -1) if leaf.ndim == 2 else jnp.full_like(leaf, -0.3), params
    )


def slope(params, bottom):
    return jax.tree.map(lambda w, t: w - t, params, bottom)


@functools.cache
def compiled(name):
    """One training step, with the learning rate and the weight decay traced; and its traces."""
    traces = []

    def step(params, state, learning_rate, weight_decay):
        traces.append(name)
        optimizer = optax.with_extra_args_support(member(name, learning_rate, weight_decay))
        gradient = slope(params, target(tree()))
        updates, state = optimizer.update(gradient, state, params, value=jnp.ones(()))
        return optax.apply_updates(params, updates), state

    return jax.jit(step), traces


def run(name, steps, *numbers, start=None):
    """Weights and state after some steps of the compiled one."""
    step, _ = compiled(name)
    params, state = start or (tree(), member(name, *numbers).init(tree()))
    for _ in range(steps):
        params, state = step(params, state, *(jnp.asarray(number) for number in numbers))
    return params, state


def assert_close(one, other, rtol=1e-12):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15), one, other)


@members
def test_it_says_what_it_is_and_builds_from_exactly_its_own_numbers(name):
    facts, build = OPTIMIZERS[name]
    assert facts.name == name
    assert facts.reading.endswith(".") and facts.reason.endswith(".")
    assert facts.status in STATUSES
    assert facts.decay in DECAYS
    assert facts.sources and facts.tags
    _, *own = inspect.signature(build).parameters
    assert tuple(facts.defaults) == tuple(own)


@members
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_updates_have_the_dtype_of_their_weights_and_moments_at_least_float32(name, dtype):
    optimizer, params = member(name), tree(dtype)
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    for leaf, update in zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True):
        assert (update.shape, update.dtype) == (leaf.shape, leaf.dtype)
    for leaf in jax.tree.leaves(state):
        assert leaf.dtype in (jnp.int32, jnp.int64, jnp.float32, jnp.float64, jnp.bool)
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(s)] for s in (state, after)]
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert shapes[0] == shapes[1]


@members
def test_it_reaches_the_bottom_of_a_bowl_in_every_dtype_at_once(name):
    # Large enough a rate for steps of the slowest, which bfloat16 would round away.
    optimizer = named_optimizer(name, Setting(0.1, 0.1, batch_size=1, num_steps=STEPS)).optimizer
    bottom = target(mixed())

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(slope(params, bottom), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (mixed(), optimizer.init(mixed()))
    params, _ = jax.lax.scan(step, start, length=1500)[0]
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(bottom), strict=True):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_allclose(leaf.astype(float), wanted.astype(float), atol=0.15)


@members
def test_compiled_and_not_compiled_it_is_the_same(name):
    optimizer, params = optax.with_extra_args_support(member(name)), tree()
    state = optimizer.init(params)
    for _ in range(3):
        gradient = slope(params, target(tree()))
        updates, state = optimizer.update(gradient, state, params, value=jnp.ones(()))
        params = optax.apply_updates(params, updates)
    # Not the states: an eigenvector in one of them has no sign of its own.
    assert_close(params, run(name, 3, LEARNING_RATE, WEIGHT_DECAY)[0], rtol=1e-9)


@members
def test_other_hyperparameters_and_later_steps_do_not_trace_again(name):
    run(name, 3, LEARNING_RATE, WEIGHT_DECAY)
    run(name, 2, 0.01, 0.3)
    assert len(compiled(name)[1]) == 1


@members
def test_mapped_over_hyperparameters_it_is_each_run_by_itself(name):
    rates, decays = jnp.array([0.02, 0.01]), jnp.array([0.1, 0.3])

    def final(learning_rate, weight_decay):
        optimizer, params = member(name, learning_rate, weight_decay), tree()
        state = optimizer.init(params)
        for _ in range(2):
            gradient = slope(params, target(tree()))
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    together = jax.jit(jax.vmap(final))(rates, decays)
    for row in range(2):
        alone, _ = run(name, 2, float(rates[row]), float(decays[row]))
        assert_close(jax.tree.map(lambda leaf, row=row: leaf[row], together), alone, rtol=1e-9)


@members
def test_a_checkpoint_goes_on_where_it_was(name):
    whole = run(name, 5, LEARNING_RATE, WEIGHT_DECAY)
    leaves, outline = jax.tree.flatten(run(name, 3, LEARNING_RATE, WEIGHT_DECAY))
    file = io.BytesIO()
    np.savez(file, *leaves)
    file.seek(0)
    with np.load(file) as kept:
        back = [jnp.asarray(kept[f"arr_{index}"]) for index in range(len(leaves))]
    resumed = run(name, 2, LEARNING_RATE, WEIGHT_DECAY, start=outline.unflatten(back))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@members
def test_it_stands_in_a_chain_and_under_a_mask(name):
    params = {"trained": tree()["matrix"], "frozen": jnp.ones(2)}
    gradient = slope(params, jax.tree.map(jnp.zeros_like, params))
    alone, chained = member(name), optax.chain(optax.scale(2.0), member(name), optax.scale(0.5))
    half = jax.tree.map(lambda g: 0.5 * g, gradient)
    wanted, _ = alone.update(gradient, alone.init(params), params)
    came, _ = chained.update(half, chained.init(params), params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-12, atol=1e-18), came, wanted
    )
    masked = optax.masked(member(name), {"trained": True, "frozen": False})
    came, state = masked.update(gradient, masked.init(params), params)
    np.testing.assert_array_equal(came["frozen"], gradient["frozen"])
    by_itself, _ = alone.update(
        {"w": gradient["trained"]}, alone.init({"w": params["trained"]}), {"w": params["trained"]}
    )
    np.testing.assert_allclose(came["trained"], by_itself["w"], rtol=1e-12)
    assert jax.tree.structure(state) == jax.tree.structure(masked.init(params))


@members
def test_injected_hyperparameters_change_nothing(name):
    def factory(learning_rate, weight_decay):
        return member(name, learning_rate, weight_decay)

    injected = optax.inject_hyperparams(factory)(
        learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    plain, params = member(name), tree()
    gradient = slope(params, target(tree()))
    wanted, _ = plain.update(gradient, plain.init(params), params)
    came, _ = injected.update(gradient, injected.init(params), params)
    assert_close(came, wanted)


# The second period has 6 steps, twice the first, and its decay is weaker by the root of 2.
RESTARTS = "normalised_decay:T_0=3,T_mult=2"
DECAY_STEPS = 7


def factors(step):
    """The schedule's factor on the learning rate and that on the decay, written out."""
    first, length = (0, 3) if step < 3 else (3, 6)
    return 0.5 * (1 + math.cos(math.pi * (step - first) / length)), math.sqrt(3 / length)


def shrink_by_convention(decay, step):
    """What the table of conventions says that a weight without gradient loses."""
    s, weaker = factors(step)
    linear, quadratic = (s**power * LEARNING_RATE * WEIGHT_DECAY * weaker for power in (1, 2))
    return {
        "none": 0.0,
        "lr_scaled": linear,
        "paper": linear,
        "filter": quadratic,
        "exact": -math.expm1(-quadratic),
    }[decay]


def fed(optimizer, gradient_of):
    """Updates of some steps over the weights they were made at, with a gradient made of these."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient_of(params), state, params)
        return (optax.apply_updates(params, updates), state), updates

    start = (tree(), optimizer.init(tree()))
    return jax.lax.scan(step, start, length=DECAY_STEPS)[1]


@members
def test_a_weight_without_gradient_decays_by_its_convention_through_a_schedule(name):
    decay = OPTIMIZERS[name].facts.decay
    if decay == "l2" and "learning_rate" in OPTIMIZERS[name].facts.defaults:
        name = f"{name}:learning_rate={LEARNING_RATE}"  # its default rests on the decay
    updates = fed(
        member(name, schedule=RESTARTS), lambda params: jax.tree.map(jnp.zeros_like, params)
    )
    if decay == "l2":  # the same as a loss whose gradient is weight_decay * w
        without = member(name, weight_decay=0.0, schedule=RESTARTS)
        wanted = fed(without, lambda params: jax.tree.map(lambda w: WEIGHT_DECAY * w, params))
        assert np.abs(updates["scalar"]).min() > 0
        assert_close(updates, wanted, rtol=1e-10)
        return
    left = np.cumprod([1 - shrink_by_convention(decay, step) for step in range(DECAY_STEPS)])
    before = np.concatenate([[1.0], left[:-1]])
    jax.tree.map(
        lambda leaf, update: np.testing.assert_allclose(
            update, np.multiply.outer(left - before, leaf), rtol=1e-9, atol=1e-15
        ),
        tree(),
        updates,
    )
