"""The recipes that are no filter: each is what its name says, and has the limits it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.optimizers import (
    adagrad,
    adam_l2,
    adamc,
    amsgrad,
    power_adam,
    scale_by_power,
    sgdw,
    widened,
)

GRADIENTS = np.random.default_rng(3).normal(0.3, [0.01, 1.0, 7.0, 40.0], (30, 4))
FIRST = np.array([1.0, -2.0, 0.5, 3.0])
SETTING = {"b1": 0.8, "b2": 0.95, "eps": 1e-3}


def run(optimizer, gradients=GRADIENTS, first=FIRST):
    """Weights after every step of given gradients."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    first = jnp.asarray(first)
    scan = jax.jit(lambda g: jax.lax.scan(step, (first, optimizer.init(first)), g)[1])
    return np.asarray(scan(jnp.asarray(gradients)))


def cosine(step):
    return 0.5 * (1 + jnp.cos(jnp.pi * step / len(GRADIENTS)))


def rate(step):
    return 0.1 * cosine(step)


@pytest.mark.equation("AW-3")
@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
def test_a_power_of_the_mean_square_divides_the_running_mean(power):
    mean, square, w, wanted = np.zeros(4), np.zeros(4), FIRST, []
    for t, g in enumerate(GRADIENTS, start=1):
        mean, square = 0.8 * mean + 0.2 * g, 0.95 * square + 0.05 * g**2
        root = np.sqrt(square / (1 - 0.95**t)) + 1e-3
        w = w - 0.1 * (mean / (1 - 0.8**t) / root ** (2 * power) + 0.02 * w)
        wanted.append(w)
    came = run(power_adam(0.1, power=power, weight_decay=0.02, **SETTING))
    assert_allclose(came, wanted, rtol=1e-12)


@pytest.mark.equation("AW-3")
def test_half_is_adam_none_is_momentum_and_one_the_mean_square():
    assert_allclose(run(power_adam(rate, **SETTING)), run(optax.adam(rate, **SETTING)), rtol=1e-13)
    decayed = run(power_adam(rate, weight_decay=0.3, **SETTING))
    assert_allclose(decayed, run(optax.adamw(rate, weight_decay=0.3, **SETTING)), rtol=1e-12)
    averaged = optax.chain(optax.ema(0.8), optax.scale_by_learning_rate(0.1))
    assert_allclose(run(power_adam(0.1, power=0.0, **SETTING)), run(averaged), rtol=1e-13)
    constant = np.ones((30, 4)) * [0.1, -2.0, 5.0, 30.0]
    settled = run(power_adam(0.1, power=1.0, b1=0.8, b2=0.95, eps=0.0), constant)
    assert_allclose(np.diff(settled, axis=0), np.tile(-0.1 / constant[0], (29, 1)), rtol=1e-9)


def test_powers_vmap_and_a_silent_weight_stays_without_epsilon():
    silent = jnp.zeros((3, 2))

    def last(power, lr):
        made = power_adam(lr, power=power, eps=0.0)
        params = jnp.ones(2)
        updates, _ = made.update(silent[0], made.init(params), params)
        return updates

    powers, rates = jnp.array([0.0, 0.5, 1.0]), jnp.array([0.1, 0.2, 0.3])
    assert_array_equal(jax.vmap(last)(powers, rates), silent)
    loud = jax.vmap(lambda p: run_traced(power_adam(0.1, power=p)))(powers)
    for row, power in zip(loud, [0.0, 0.5, 1.0], strict=True):
        assert_allclose(row, run(power_adam(0.1, power=power))[-1], rtol=1e-12)


def run_traced(optimizer):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (params + updates, state), None

    first = jnp.asarray(FIRST)
    return jax.lax.scan(step, (first, optimizer.init(first)), jnp.asarray(GRADIENTS))[0][0]


@pytest.mark.equation("DICT-2")
def test_adamc_is_adamw_at_a_constant_learning_rate():
    ours = run(adamc(0.1, weight_decay=0.3, **SETTING))
    assert_allclose(ours, run(optax.adamw(0.1, weight_decay=0.3, **SETTING)), rtol=1e-13)


@pytest.mark.equation("DICT-2")
def test_adamc_decays_by_the_square_of_its_schedule():
    made = adamc(rate, weight_decay=0.3, peak=0.1, **SETTING)
    silent = run(made, np.zeros_like(GRADIENTS))
    factor = 0.5 * (1 + np.cos(np.pi * np.arange(30) / 30))
    kept = np.cumprod(1 - 0.3 * (0.1 * factor) ** 2 / 0.1)
    assert_allclose(silent, kept[:, None] * FIRST, rtol=1e-12)
    lower = adamc(rate, weight_decay=0.3, peak=0.2, **SETTING)
    first = run(lower, np.zeros((1, 4)))
    assert_allclose(first[0], (1 - 0.3 * 0.1**2 / 0.2) * FIRST, rtol=1e-13)


def test_adam_with_l2_shrinks_a_silent_weight_by_the_learning_rate_whatever_the_penalty():
    silent = np.zeros((20, 4))
    for l2 in (1e-4, 1e-1):
        path = run(adam_l2(0.01, l2=l2, eps=0.0, b1=0.0), silent, 10 * np.sign(FIRST))
        moved = np.abs(path[0] - path[-1])
        assert_allclose(moved, 19 * 0.01, rtol=2e-2)
    decayed = [run(optax.adamw(0.01, weight_decay=wd), silent)[-1] for wd in (1e-4, 1e-1)]
    assert_allclose(decayed[1] / decayed[0], (1 - 1e-3) ** 20 / (1 - 1e-6) ** 20, rtol=1e-12)


def test_sgdw_is_the_paper_s_recursion_with_the_rate_inside_the_memory():
    m, w, wanted = np.zeros(4), FIRST, []
    for t, g in enumerate(GRADIENTS):
        factor = 0.5 * (1 + np.cos(np.pi * t / 30))
        m = 0.8 * m + factor * 0.1 * g
        w = w - m - factor * 0.02 * w
        wanted.append(w)
    made = sgdw(rate, momentum=0.8, weight_decay=lambda t: 0.02 * cosine(t))
    assert_allclose(run(made), wanted, rtol=1e-12)
    plain = run(sgdw(0.1, momentum=0.0))
    assert_allclose(plain, FIRST - 0.1 * np.cumsum(GRADIENTS, axis=0), rtol=1e-12)


@pytest.mark.parametrize("make", [amsgrad, adagrad, power_adam])
def test_decay_goes_with_the_learning_rate_and_spares_what_the_mask_does(make):
    made = make(rate, weight_decay=0.5, mask={"w": True, "b": False})
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    state, silent = made.init(params), jax.tree.map(jnp.zeros_like, params)
    for t in range(3):
        updates, state = made.update(silent, state, params)
        assert_allclose(updates["w"], -0.5 * rate(t) * params["w"], rtol=1e-12)
        assert_array_equal(updates["b"], 0)


def test_widened_keeps_bfloat16_moments_in_float32_and_changes_no_wider_type():
    plain, made = optax.adam(0.1), widened(optax.adam(0.1))
    for dtype in ("float32", "float64"):
        params = jnp.asarray(FIRST, dtype)
        gradient = jnp.asarray(GRADIENTS[0], dtype)
        ours, theirs = (each.update(gradient, each.init(params), params) for each in (made, plain))
        jax.tree.map(assert_array_equal, ours, theirs)
        assert ours[0].dtype == dtype
    # Many steps of one gradient: the mean square reaches its square, and in bfloat16 it cannot
    params, gradient = jnp.ones(2, "bfloat16"), jnp.ones(2, "bfloat16")

    def settled(optimizer):
        def step(state, _):
            return optimizer.update(gradient, state, params)[1], None

        state = jax.lax.scan(step, optimizer.init(params), length=3_000)[0]
        return np.asarray(state[0].nu, float)

    assert_allclose(settled(made), 1 - 0.999**3_000, rtol=1e-4)
    assert np.all(settled(plain) < 0.6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power_adam(0.0), "learning_rate"),
        (lambda: power_adam(0.1, power=-1.0), "power >= 0"),
        (lambda: power_adam(0.1, b2=1.0), "b2 < 1"),
        (lambda: power_adam(0.1, weight_decay=-1.0), "weight_decay >= 0"),
        (lambda: power_adam(1.0, weight_decay=2.0), "shrink"),
        (lambda: scale_by_power(eps=-1.0), "eps >= 0"),
        (lambda: adamc(rate, weight_decay=0.1), "peak"),
        (lambda: adamc(0.1, weight_decay=0.1, peak=0.0), "peak > 0"),
        (lambda: adamc(0.1, weight_decay=-0.1), "weight_decay >= 0"),
        (lambda: adam_l2(0.1, l2=-1.0), "l2 >= 0"),
        (lambda: sgdw(0.1, momentum=1.0), "momentum < 1"),
        (lambda: sgdw(0.1, weight_decay=1.5), "shrink"),
        (lambda: amsgrad(-0.1), "learning_rate"),
        (lambda: adagrad(0.1, eps=-1.0), "eps"),
        (lambda: adam_l2(0.1, l2=0.1).init(jnp.ones(2, "int32")), "int32"),
    ],
)
def test_a_bad_argument_is_refused_at_once(call, words):
    with pytest.raises(ValueError, match=words):
        call()
