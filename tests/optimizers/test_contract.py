"""What every transformation of ours promises to an optax training loop; one row each."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import (
    adabayes,
    adabayes_fixed_point,
    adagrad,
    adam_l2,
    adamc,
    amsgrad,
    badam,
    brmsprop,
    compensated,
    decay_to_zero,
    kalman_full,
    kalman_kronecker,
    normalized,
    posterior_variance,
    power_adam,
    scale_by_adagrad,
    scale_by_amsgrad,
    scale_by_fixed_point,
    scale_by_full_kalman,
    scale_by_kalman,
    scale_by_kronecker,
    scale_by_power,
    scale_by_steady_state,
    scale_by_velocity,
    sgdw,
    steady_state,
    sum_over_batch,
    widened,
)

RECIPES = {
    "adabayes": adabayes,
    "adabayes_fixed_point": adabayes_fixed_point,
    "kalman_kronecker": kalman_kronecker,
    "steady_state": steady_state,
    "badam": badam,
    "kalman_full": kalman_full,
}


def descend(transformation):
    return optax.chain(transformation, optax.scale_by_learning_rate(0.05))


EVERYTHING = {
    **{name: functools.partial(make, 0.02, 0.05, batch_size=4) for name, make in RECIPES.items()},
    "scale_by_kalman": lambda: optax.chain(scale_by_kalman(0.05, 0.1), optax.scale(-1.0)),
    "scale_by_kronecker": lambda: optax.chain(scale_by_kronecker(0.05, 0.1), optax.scale(-1.0)),
    "scale_by_full_kalman": lambda: optax.chain(scale_by_full_kalman(0.05, 0.1), optax.scale(-1.0)),
    "scale_by_fixed_point": lambda: optax.chain(scale_by_fixed_point(0.05, 0.1), optax.scale(-1.0)),
    "scale_by_steady_state": lambda: optax.chain(
        scale_by_steady_state(0.05, 0.1), optax.scale(-1.0)
    ),
    "scale_by_amsgrad": lambda: descend(scale_by_amsgrad()),
    "scale_by_adagrad": lambda: optax.chain(scale_by_adagrad(), optax.scale(-0.5)),
    "brmsprop": lambda: brmsprop(0.02, 0.05, batch_size=4),
    "scale_by_power": lambda: descend(scale_by_power(0.25)),
    "scale_by_velocity": lambda: scale_by_velocity(0.02, 0.05),
    "power_adam": lambda: power_adam(0.02, power=0.75),
    "adamc": lambda: adamc(0.02, weight_decay=0.01),
    "adam_l2": lambda: adam_l2(0.02, l2=0.01),
    "sgdw": lambda: sgdw(0.02, weight_decay=1e-4),
    "amsgrad": lambda: amsgrad(0.02, weight_decay=0.01),
    "adagrad": lambda: adagrad(0.5, weight_decay=1e-4),
    "normalized": lambda: normalized(0.02),
    "compensated": lambda: compensated(badam(0.02, 0.05, batch_size=4)),
    "widened": lambda: widened(optax.adam(0.02)),
    "sum_over_batch": lambda: descend(sum_over_batch(2)),
    "decay_to_zero": lambda: optax.chain(optax.scale(-0.1), decay_to_zero(0.001)),
}
# The whole matrices are dear to compile, and have files of their own.
DEAR = ("kalman_full", "kalman_kronecker")


def made(makers):
    """One row each, the dear ones marked slow."""
    rows = [
        pytest.param(make, id=name, marks=pytest.mark.slow if name in DEAR else ())
        for name, make in makers.items()
    ]
    return pytest.mark.parametrize("make", rows)


everything, recipes = made(EVERYTHING), made(RECIPES)


def bowl(params):
    """Lopsided, so that a sign mistake shows."""
    target = jax.tree.map(lambda x: jnp.full(x.shape, -0.3, x.dtype), params)
    square = jax.tree.map(lambda w, t: jnp.sum((w - t) ** 2), params, target)
    return 0.5 * sum(jax.tree.leaves(square), start=jnp.zeros(()))


def lowest(make, start):
    """Bottom of the bowl; on its sphere, for a vector whose norm stays."""
    if make is EVERYTHING["normalized"] and start.ndim == 2:
        return -np.linalg.norm(start, axis=1, keepdims=True) / np.sqrt(start.shape[1])
    return -0.3


def tree(dtype=None):
    return {
        "matrix": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3),
        "scalar": jnp.asarray(0.7, dtype),
        "empty": jnp.zeros((0, 3), dtype),
        "nothing": None,
        "nested": [jnp.asarray([0.1, -2.0], dtype)],
    }


def train(optimizer, params, steps):
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0]


@everything
@pytest.mark.parametrize(
    # float32 in the tests below; bfloat16 of the whole zoo in test_conformance
    "dtype", ["float64", pytest.param("bfloat16", marks=pytest.mark.slow)],
)  # fmt: skip
def test_it_reaches_the_bottom_of_a_bowl_on_a_tree(make, dtype):
    params, _ = train(make(), tree(dtype), 600)
    for before, after in zip(jax.tree.leaves(tree(dtype)), jax.tree.leaves(params), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        wanted = lowest(make, before.astype(float))
        assert np.allclose(after.astype(float), wanted, atol=0.1)


@everything
def test_moments_and_variances_are_at_least_float32(make):
    state = make().init(tree("bfloat16"))
    for leaf in jax.tree.leaves(state):
        assert leaf.dtype in (jnp.int32, jnp.float32)


@everything
def test_a_second_call_does_not_trace_again(make):
    optimizer, traces = make(), []

    @jax.jit
    def step(params, state):
        traces.append(1)
        updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = tree("float32")
    state = optimizer.init(params)
    for _ in range(3):
        params, state = step.eval_shape(params, state)  # traces as a call does; compiles nothing
    assert len(traces) == 1


@everything
def test_state_keeps_structure_shapes_and_dtypes(make):
    optimizer, params = make(), tree("float32")
    state = optimizer.init(params)
    _, after = optimizer.update(jax.grad(bowl)(params), state, params)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)


@everything
def test_extra_arguments_pass_unseen(make):
    optimizer, params = optax.with_extra_args_support(make()), tree("float32")
    gradient = jax.grad(bowl)(params)
    optimizer.update(gradient, optimizer.init(params), params, value=jnp.ones(()))


@everything
def test_it_works_on_an_empty_tree(make):
    optimizer = make()
    updates, _ = optimizer.update({}, optimizer.init({}), {})
    assert updates == {}


@recipes
def test_a_recipe_is_an_optax_transformation_with_extra_args(make):
    optimizer = make(1e-2, 1e-2, batch_size=8)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)


@recipes
def test_hyperparameters_vmap_and_agree_with_single_runs(make):
    params = tree("float64")

    def final(eta, sigma2):
        return train(make(eta, sigma2, batch_size=4), params, 20)[0]

    etas, sigma2s = jnp.array([1e-3, 0.1]), jnp.array([0.1, jnp.inf])
    together = jax.vmap(final)(etas, sigma2s)
    for row, (eta, sigma2) in enumerate(zip(etas, sigma2s, strict=True)):
        alone = final(float(eta), float(sigma2))
        jax.tree.map(
            lambda a, b, row=row: np.testing.assert_allclose(a[row], b, rtol=1e-12), together, alone
        )


@recipes
def test_injected_hyperparameters_change_nothing(make):
    params = tree("float64")
    plain = make(1e-2, 0.1, batch_size=4)
    shapes = {"max_dimension"} & inspect.signature(make).parameters.keys()
    injected = optax.inject_hyperparams(make, static_args=shapes)(
        drift_scale=1e-2, stationary_variance=0.1, batch_size=4
    )
    a, _ = jax.jit(lambda p: train(plain, p, 50))(params)
    b, state = jax.jit(lambda p: train(injected, p, 50))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), a, b)
    assert posterior_variance(state)["matrix"].shape == (2, 3)


@recipes
def test_optax_masked_leaves_the_rest_alone(make):
    params = {"trained": jnp.ones(3), "frozen": jnp.ones(2)}
    mask = {"trained": True, "frozen": False}
    optimizer = optax.masked(make(1e-2, 0.1, batch_size=4), mask)
    state = optimizer.init(params)
    updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
    assert np.all(updates["trained"] < 0)
    np.testing.assert_array_equal(updates["frozen"], jax.grad(bowl)(params)["frozen"])
    assert posterior_variance(state)["trained"].shape == (3,)


@recipes
def test_a_schedule_equal_to_a_constant_gives_the_same_bits(make):
    params = tree("float64")
    constant = make(1e-2, 0.1, batch_size=4, weight_decay=1e-3)
    scheduled = make(lambda t: 1e-2, lambda t: 0.1, batch_size=4, weight_decay=lambda t: 1e-3)
    a, _ = jax.jit(lambda p: train(constant, p, 30))(params)
    b, _ = jax.jit(lambda p: train(scheduled, p, 30))(params)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@recipes
@pytest.mark.parametrize("which", ["drift_scale", "stationary_variance", "both"])
def test_a_schedule_that_reaches_zero_stays_finite(make, which):
    fading = optax.linear_schedule(1.0, 0.0, 10)
    eta = 1e-2 if which == "stationary_variance" else lambda t: 1e-2 * fading(t)
    sigma2 = 0.1 if which == "drift_scale" else lambda t: 0.1 * fading(t)
    params = {**tree("float32"), "dead": jnp.zeros(2, jnp.float32)}

    def step(carry, _):
        params, state = carry
        gradient = {**jax.grad(bowl)(params), "dead": jnp.zeros(2, jnp.float32)}
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    decay = 1e-3 if which == "stationary_variance" else None
    optimizer = make(eta, sigma2, batch_size=4, weight_decay=decay)
    params, state = jax.lax.scan(step, (params, optimizer.init(params)), length=25)[0]
    for leaf in jax.tree.leaves((params, state, posterior_variance(state))):
        assert np.all(np.isfinite(leaf))


@recipes
@pytest.mark.parametrize("sigma2", [np.inf, 1e6, 1e-3])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e18])
def test_extreme_gradients_give_finite_updates(make, sigma2, size):
    params = {"w": jnp.ones(4, jnp.float32)}
    optimizer = make(1e-3, sigma2, batch_size=1)
    state = optimizer.init(params)
    gradient = {"w": jnp.full(4, size, jnp.float32)}
    for _ in range(5):
        updates, state = optimizer.update(gradient, state, params)
        assert np.all(np.isfinite(updates["w"]))
