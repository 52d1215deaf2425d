"""Layers in their own axes: the transformation written out, its limits, and what Adam lacks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.optimizers import (
    adabayes,
    effective_learning_rate,
    kalman_kronecker,
    posterior_variance,
    scale_by_kalman,
    scale_by_kronecker,
)
from bayesfilt.tasks.networks import Cnn
from bayesfilt.theory import KroneckerFactors, whitened_step

ETA, SIGMA2, B1, B2 = 0.03, 0.4, 0.8, 0.95
ROWS, COLUMNS = 3, 4


def a_stream(seed=0, steps=12, shape=(ROWS, COLUMNS)):
    """Correlated gradients, lopsided so that signs show."""
    rng = np.random.default_rng(seed)
    mixed = np.einsum(
        "ij,tj...->ti...", rng.normal(size=shape[:1] * 2), 0.3 + rng.normal(size=(steps, *shape))
    )
    return mixed * rng.lognormal(size=shape)


def apply_all(transformation, gradients):
    """Every update of a stream of gradients, and every state."""
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), gradients)

    def step(state, gradient):
        updates, state = transformation.update(gradient, state, params)
        return state, (updates, state)

    return jax.lax.scan(step, transformation.init(params), jax.tree.map(jnp.asarray, gradients))[1]


def last(states):
    return jax.tree.map(lambda leaf: leaf[-1], states)


def orthogonal(rng, side):
    return np.linalg.qr(rng.normal(size=(side, side)))[0]


def diagonal_in(covariance, axes):
    """The nearest covariance without correlations along `axes`."""
    return axes @ np.diag(np.diag(axes.T @ covariance @ axes)) @ axes.T


def written_out(gradients, *, every, sigma2=SIGMA2):
    """Steps and weight variances with one big covariance of the rows laid end to end."""
    size = gradients[0].size
    kept = np.exp(-(ETA**2) / sigma2)
    added = ETA**2 if np.isinf(sigma2) else sigma2 * (1 - kept)
    covariance = (0.0 if np.isinf(sigma2) else sigma2) * np.eye(size)
    mean, rows, columns, steps, variances = 0.0, 0.0, 0.0, [], []
    for t, g in enumerate(gradients):
        rows, columns = B2 * rows + (1 - B2) * g @ g.T, B2 * columns + (1 - B2) * g.T @ g
        if t % every == 0:
            axes = np.kron(np.linalg.eigh(rows)[1], np.linalg.eigh(columns)[1])
            covariance = diagonal_in(covariance, axes)
        covariance = kept * covariance + added * np.eye(size)
        worth = np.diag((axes.T @ g.ravel()) ** 2)
        along = axes.T @ covariance @ axes
        along = np.diag(np.diag(along) / (1 + np.diag(along) * np.diag(worth)))
        covariance = axes @ along @ axes.T
        mean = B1 * mean + (1 - B1) * g
        steps.append((covariance @ mean.ravel()).reshape(g.shape) / (1 - B1 ** (t + 1)))
        variances.append(np.diag(covariance).reshape(g.shape))
    return np.array(steps), np.array(variances)


@pytest.mark.equation("KRON-5")
@pytest.mark.parametrize(("every", "sigma2"), [(1, SIGMA2), (3, np.inf)])
def test_it_is_the_recursion_of_a_big_covariance_written_out(every, sigma2):
    gradients = a_stream()
    scaling = scale_by_kronecker(ETA, sigma2, b1=B1, b2=B2, basis_every=every)
    steps, states = apply_all(scaling, gradients)
    wanted, variances = written_out(gradients, every=every, sigma2=sigma2)
    assert_allclose(steps, wanted, rtol=1e-8, atol=1e-10)
    marginal = jax.vmap(posterior_variance)(states)
    assert_allclose(marginal, variances, rtol=1e-8, atol=1e-10)


def test_gradients_along_single_weights_make_it_adabayes():
    rng = np.random.default_rng(1)
    gradients = np.zeros((20, 4, 4))
    gradients[:, [2, 0, 3, 1], range(4)] = 0.3 + rng.normal(size=(20, 4)) * [0.1, 1.0, 3.0, 9.0]
    ours, states = apply_all(scale_by_kronecker(ETA, SIGMA2, basis_every=3), gradients)
    twin, plain = apply_all(scale_by_kalman(ETA, SIGMA2), gradients)
    assert_allclose(ours, twin, rtol=1e-12, atol=1e-15)
    assert_allclose(posterior_variance(last(states)), last(plain).variance, rtol=1e-12)


@pytest.mark.parametrize("every", [1, 3])
def test_rotating_a_layers_inputs_and_outputs_rotates_its_steps(every):
    rng = np.random.default_rng(2)
    left, right = orthogonal(rng, 4), orthogonal(rng, 4)
    gradients = a_stream(3, shape=(4, 4))
    scaling = scale_by_kronecker(ETA, SIGMA2, b1=B1, b2=B2, basis_every=every)
    steps = apply_all(scaling, gradients)[0]
    turned = apply_all(scaling, left @ gradients @ right.T)[0]
    assert_allclose(turned, left @ steps @ right.T, rtol=1e-9, atol=1e-11)
    plain, other = (
        apply_all(scale_by_kalman(ETA, SIGMA2, b1=B1), stream)[0]
        for stream in (gradients, left @ gradients @ right.T)
    )
    assert np.abs(other - left @ plain @ right.T).max() > 0.01  # which Adam's recursion does not


@pytest.mark.equation("KRON-4", "KRON-5")
def test_check_E3_gradients_with_kronecker_factors_end_in_whitened_steps():
    rng = np.random.default_rng(4)
    left, right = orthogonal(rng, 4), orthogonal(rng, 4)
    rows, columns = np.array([0.5, 1.0, 2.0, 5.0]), np.array([0.3, 0.8, 1.5, 4.0])
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    # Signs that are orthogonal in time: over four steps the moments are exactly diagonal.
    cycle = [np.outer(s * np.sqrt(rows), s * np.sqrt(columns)) for s in signs]
    gradients = np.tile(left @ np.array(cycle) @ right.T, (1500, 1, 1))
    eta = 1e-3
    scaling = scale_by_kronecker(eta, np.inf, b1=0.5, b2=0.999, basis_every=100)
    steps, states = apply_all(scaling, gradients)
    factors = KroneckerFactors(
        jnp.array((left * rows) @ left.T), jnp.array((right * columns) @ right.T)
    )
    end = last(states)
    axes = end.layers.basis
    momentum = axes.rows @ end.first_moment @ axes.columns.T
    wanted = whitened_step(momentum, factors, eta)
    assert_allclose(steps[-1], wanted, rtol=0, atol=0.01 * np.abs(wanted).max())


def test_a_gradient_that_repeats_itself_ends_in_its_orthogonal_factor():
    gradient = a_stream(5, steps=1)[0]
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    steps = apply_all(scale_by_kronecker(1e-3, np.inf), np.tile(gradient, (4000, 1, 1)))[0]
    assert_allclose(steps[-1], 1e-3 * left @ right, rtol=0, atol=1e-5)


FALLBACK = {
    "bias": (5,),
    "number": (),
    "row": (1, 5),
    "column": (5, 1),
    "conv bias": (5, 1, 1),
    "wide": (2, 9),
    "deep": (2, 2, 3),
    "empty": (0, 3),
    "many dimensions": (2, 2, 2, 1, 1),
}


def test_leaves_without_two_fitting_sides_are_filtered_as_by_adabayes():
    rng = np.random.default_rng(6)
    gradients = {name: 0.3 + rng.normal(size=(6, *shape)) for name, shape in FALLBACK.items()}
    ours, states = apply_all(
        kalman_kronecker(ETA, SIGMA2, batch_size=4, max_dimension=5), gradients
    )
    twin, plain = apply_all(adabayes(ETA, SIGMA2, batch_size=4), gradients)
    jax.tree.map(assert_array_equal, ours, twin)
    jax.tree.map(
        assert_array_equal, posterior_variance(last(states)), posterior_variance(last(plain))
    )


def test_a_convolution_is_a_layer_of_outputs_by_everything_else():
    kernel = a_stream(7, shape=(3, 2, 2, 1))
    scaling = scale_by_kronecker(ETA, SIGMA2, basis_every=2)
    ours, states = apply_all(scaling, kernel)
    flat, plain = apply_all(scaling, kernel.reshape(-1, 3, 4))
    assert_allclose(ours.reshape(flat.shape), flat, rtol=1e-12)
    variance = posterior_variance(last(states))
    assert_allclose(variance.reshape(3, 4), posterior_variance(last(plain)), rtol=1e-12)
    assert np.ptp(variance, axis=0).max() > 0  # not all alike


def test_in_our_networks_every_kernel_has_axes_and_no_bias_has():
    params = Cnn(channels=(3, 4)).init(jax.random.key(0), jnp.float32)
    state = scale_by_kronecker(ETA, SIGMA2).init(params)
    layers = state.layers
    assert layers["conv_0"].bias is None and layers["dense_0"].bias is None
    assert layers["conv_1"].weight.row_moment.shape == (4, 4)
    assert layers["conv_1"].weight.column_moment.shape == (27, 27)
    assert layers["dense_0"].weight.basis.rows.shape == (10, 10)
    assert jax.tree.map(jnp.shape, posterior_variance(state)) == jax.tree.map(jnp.shape, params)


def test_before_any_gradient_every_weight_has_the_stationary_variance():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
    state = kalman_kronecker(ETA, SIGMA2, batch_size=8).init(params)
    for leaf in jax.tree.leaves(posterior_variance(state)):
        assert_allclose(leaf, SIGMA2, rtol=1e-12)
    assert_allclose(effective_learning_rate(state)["w"], 8 * SIGMA2, rtol=1e-12)


def test_axes_are_refreshed_at_the_first_step_and_then_as_often_as_asked():
    states = apply_all(scale_by_kronecker(ETA, SIGMA2, basis_every=4), a_stream(8))[1]
    axes = states.layers.basis.rows
    changed = [bool(np.any(axes[t] != axes[t - 1])) for t in range(1, len(axes))]
    assert changed == [t % 4 == 0 for t in range(1, len(axes))]
    assert np.any(axes[0] != np.eye(ROWS))


def test_in_bfloat16_the_layer_is_kept_in_float32():
    gradients = jnp.asarray(a_stream(9), jnp.bfloat16)
    steps, states = apply_all(scale_by_kronecker(ETA, SIGMA2), gradients)
    assert steps.dtype == jnp.bfloat16
    exact = apply_all(scale_by_kronecker(ETA, SIGMA2), gradients.astype(float))[0]
    assert_allclose(steps.astype(float), exact, rtol=0.01, atol=0.01 * np.abs(exact).max())
    kinds = {leaf.dtype for leaf in jax.tree.leaves(states)}
    assert kinds == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_in_float32_refreshing_ten_thousand_times_keeps_the_variance():
    scaling = scale_by_kronecker(1e-4, SIGMA2, basis_every=1)
    params = jnp.zeros((5, 3), jnp.float32)
    noise = jax.random.normal(jax.random.key(0), params.shape, jnp.float32)

    def step(i, state):  # so quiet that the prior alone holds the variance; axes turn all the time
        gradient = 1e-6 * jnp.roll(noise, i, axis=0) * jnp.sin(i.astype(jnp.float32))
        return scaling.update(gradient, state, params)[1]

    end = jax.jit(lambda s: jax.lax.fori_loop(0, 10_000, step, s))(scaling.init(params))
    assert_allclose(posterior_variance(end), SIGMA2, rtol=4e-4)


def test_a_nan_gradient_shows_in_its_own_layer_only():
    gradients = {"a": a_stream(10), "b": a_stream(11)}
    gradients["a"][5, 0, 0] = np.nan
    steps, _ = apply_all(scale_by_kronecker(ETA, SIGMA2), gradients)
    assert np.all(np.isfinite(steps["a"][:5])) and np.all(np.isnan(steps["a"][10:]))
    assert np.all(np.isfinite(steps["b"]))


def test_stacked_runs_are_the_single_runs():
    streams = np.stack([a_stream(12), a_stream(13)])
    scaling = scale_by_kronecker(ETA, SIGMA2, basis_every=3)
    states = jax.vmap(lambda _: scaling.init(jnp.zeros((ROWS, COLUMNS))))(jnp.zeros(2))
    update = jax.jit(jax.vmap(scaling.update))
    for t in range(5):
        steps, states = update(jnp.asarray(streams[:, t]), states)
    for row in range(2):
        alone = apply_all(scaling, streams[row])[0][4]
        assert_allclose(steps[row], alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"basis_every": 0}, "basis_every >= 1"),
        ({"basis_every": 2.5}, "basis_every >= 1"),
        ({"max_dimension": 0}, "max_dimension >= 1"),
        ({"b2": 1.0}, "0 <= b2 < 1"),
        ({"b1": -0.1}, "0 <= b1 < 1"),
    ],
)
def test_wrong_numbers_are_refused(change, words):
    for make in (scale_by_kronecker, lambda *a, **k: kalman_kronecker(*a, batch_size=4, **k)):
        with pytest.raises(ValueError, match=words):
            make(ETA, SIGMA2, **change)


def test_a_size_that_is_not_known_yet_is_refused_by_name():
    injected = optax.inject_hyperparams(kalman_kronecker)(ETA, SIGMA2, batch_size=4)
    with pytest.raises(ValueError, match="max_dimension.*name it static"):
        jax.jit(injected.init)(jnp.ones((2, 2)))
