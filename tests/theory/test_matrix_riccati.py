"""Matrix steady states: the recursion iterated in NumPy, the two priors, and what is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.theory import (
    conditioned_covariance,
    conditioned_on_gradient,
    inverse_root,
    matrix_steady_state,
    natural_gradient_covariance,
    on_its_range,
    overconfidence,
    slow_drift_covariance,
    steady_state_variance,
    symmetric_root,
    whitening_covariance,
)
from bayesfilt.theory.semidefinite import symmetrised


def a_covariance(rng, dim=3, rank=None):
    root = rng.normal(size=(dim, dim if rank is None else rank))
    return jnp.asarray(root @ root.T)


def settled(curvature, noise, kept=1.0):
    """Posterior covariance after many steps of the textbook recursion, H and Q constant."""
    curvature, noise = np.asarray(curvature), np.asarray(noise)
    p = noise
    for _ in range(200_000):
        prior = kept * p * kept + noise
        after = np.linalg.inv(np.linalg.inv(prior) + curvature)
        if np.abs(after - p).max() <= 1e-15 * np.abs(p).max():
            break
        p = after
    return p


@pytest.mark.equation("MAT-4")
@pytest.mark.parametrize("seed", [0, 1])
def test_check_E2_the_recursion_settles_where_php_is_q_for_a_slow_drift(seed):
    rng = np.random.default_rng(seed)
    curvature, shape = a_covariance(rng) + 0.3 * np.eye(3), a_covariance(rng) + 0.1 * np.eye(3)
    errors = []
    for drift in (1e-2, 1e-3):
        noise = drift**2 * shape
        ours = slow_drift_covariance(curvature, noise)
        assert_allclose(ours @ curvature @ ours, noise, rtol=1e-9, atol=1e-12 * drift**2)
        exact = settled(curvature, noise)
        errors.append(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.05
    assert 8 < errors[0] / errors[1] < 12  # first order in the drift


@pytest.mark.equation("MAT-5")
def test_check_E2_a_drift_alike_in_all_directions_whitens():
    rng = np.random.default_rng(2)
    curvature = a_covariance(rng) + 0.3 * np.eye(3)
    p = whitening_covariance(curvature, 1e-3)
    assert_allclose(p, settled(curvature, 1e-6 * np.eye(3)), rtol=5e-3, atol=1e-6)
    assert_allclose(p, slow_drift_covariance(curvature, 1e-6 * jnp.eye(3)), rtol=1e-10)
    step = p @ curvature @ p.T  # covariance of P g for noise of covariance H
    assert_allclose(step, 1e-6 * np.eye(3), rtol=1e-10, atol=1e-19)


@pytest.mark.equation("MAT-6")
def test_check_E2_a_drift_that_follows_the_curvature_gives_the_natural_gradient():
    rng = np.random.default_rng(3)
    curvature = a_covariance(rng) + 0.3 * np.eye(3)
    noise = jnp.asarray(1e-6 * np.linalg.inv(curvature))
    p = natural_gradient_covariance(curvature, 1e-3)
    assert_allclose(p, 1e-3 * np.linalg.inv(curvature), rtol=1e-10)
    assert_allclose(p, settled(curvature, noise), rtol=2e-3)
    assert_allclose(p, slow_drift_covariance(curvature, noise), rtol=1e-9)


@pytest.mark.equation("MAT-3")
@pytest.mark.parametrize("stationary_variance", [2.0, np.inf])
@pytest.mark.parametrize("drift_scale", [0.05, 3.0])
def test_the_closed_form_is_where_the_recursion_settles(drift_scale, stationary_variance):
    rng = np.random.default_rng(4)
    curvature, shape = a_covariance(rng) + 0.3 * np.eye(3), a_covariance(rng) + 0.1 * np.eye(3)
    kept = np.exp(-(drift_scale**2) / (2 * stationary_variance))
    added = drift_scale**2
    if np.isfinite(stationary_variance):
        added = stationary_variance * (1 - kept**2)
    for s in (shape, np.eye(3)):
        given_shape = None if s is not shape else shape
        ours = matrix_steady_state(curvature, drift_scale, stationary_variance, given_shape)
        assert_allclose(ours, settled(curvature, added * s, kept), rtol=1e-9, atol=1e-12)


@pytest.mark.equation("MAT-3")
def test_its_limits_are_the_prior_the_slow_drift_and_one_weight():
    rng = np.random.default_rng(5)
    curvature, shape = a_covariance(rng, rank=2), a_covariance(rng)
    quiet = matrix_steady_state(1e-12 * curvature, 0.1, 2.0, shape)
    assert_allclose(quiet, 2.0 * shape, rtol=1e-6)
    null = np.linalg.svd(curvature)[0][:, 2]
    singular = matrix_steady_state(curvature, 0.1, 2.0)
    assert_allclose(null @ singular @ null, 2.0, rtol=1e-10)
    full_rank = curvature + np.eye(3)
    slow = slow_drift_covariance(full_rank, 1e-10 * shape)
    exact = matrix_steady_state(full_rank, 1e-5, np.inf, shape)
    assert_allclose(exact, slow, rtol=1e-3, atol=1e-9)
    h = jnp.array([0.3, 5.0, 0.0])
    independent = matrix_steady_state(jnp.diag(h), 0.1, 2.0)
    assert_allclose(independent, np.diag(steady_state_variance(h, 0.1, 2.0)), rtol=1e-12)
    gradient = jax.grad(lambda eta: matrix_steady_state(full_rank, eta, 2.0)[0, 1])(0.1)
    there = [matrix_steady_state(full_rank, 0.1 + d, 2.0)[0, 1] for d in (-1e-6, 1e-6)]
    assert_allclose(gradient, (there[1] - there[0]) / 2e-6, rtol=1e-6)


@pytest.mark.equation("MAT-7")
def test_check_E4_the_factorised_filter_is_over_confident():
    rng = np.random.default_rng(6)
    exact = jax.jit(matrix_steady_state)
    for _ in range(20):
        curvature = a_covariance(rng, dim=4) + 0.05 * np.eye(4)
        root = np.linalg.inv(np.linalg.cholesky(curvature))
        values, basis = np.linalg.eigh(root.T @ root)  # of the inverse
        wanted = np.diag((basis * np.sqrt(values)) @ basis.T) * np.sqrt(np.diag(curvature))
        ours = overconfidence(curvature)
        assert_allclose(ours, wanted, rtol=1e-8)
        assert (ours >= 1).all() and ours.max() > 1.01
        # and so it is for the exact filter at any gain
        for drift in (0.01, 10.0):
            full = jnp.diagonal(exact(curvature, drift, 3.0))
            alone = steady_state_variance(jnp.diagonal(curvature), drift, 3.0)
            assert (full >= alone * (1 - 1e-12)).all()
    assert_allclose(overconfidence(jnp.diag(jnp.array([0.1, 7.0]))), 1, rtol=1e-14)


exponents = st.floats(-6, 6)
condition, condition_on_gradient = jax.jit(conditioned_covariance), jax.jit(conditioned_on_gradient)


@pytest.mark.equation("MAT-1")
@settings(max_examples=30)
@given(st.lists(exponents, min_size=3, max_size=3), exponents, st.integers(0, 3), st.integers(0, 9))
def test_a_conditioned_covariance_stays_one_over_many_decades(sizes, loud, rank, seed):
    rng = np.random.default_rng(seed)
    deviation = 10.0 ** np.array(sizes)
    prior = np.asarray(a_covariance(rng)) * np.outer(deviation, deviation)
    precision = 10.0 ** (loud / 2) * a_covariance(rng, rank=rank) / np.outer(deviation, deviation)
    for dtype, loss in (("float32", 1e-5), ("float64", 1e-13)):
        p = symmetrised(jnp.asarray(prior, dtype))
        after = condition(p, symmetrised(jnp.asarray(precision, dtype)))
        assert after.dtype == dtype
        assert_array_equal(after, after.T)
        unit = np.sqrt(np.diag(np.asarray(p, float)))
        scaled = np.asarray(after, float) / np.outer(unit, unit)
        values = np.linalg.eigvalsh(scaled)
        assert values[0] >= -loss
        fall = np.asarray(p, float) / np.outer(unit, unit) - scaled
        assert np.linalg.eigvalsh(fall)[0] >= -10 * loss  # nothing is forgotten


@pytest.mark.equation("MAT-1")
@pytest.mark.parametrize("rank", [1, 3])
def test_conditioning_adds_precisions(rank):
    rng = np.random.default_rng(7)
    prior, precision = a_covariance(rng), a_covariance(rng, rank=rank)
    after = conditioned_covariance(jnp.asarray(prior), jnp.asarray(precision))
    assert_allclose(np.linalg.inv(after), np.linalg.inv(prior) + precision, rtol=1e-8, atol=1e-9)
    known = jnp.asarray(prior).at[1].set(0).at[:, 1].set(0)
    assert_array_equal(conditioned_covariance(known, jnp.asarray(precision))[1], np.zeros(3))
    assert_array_equal(conditioned_covariance(known, jnp.zeros((3, 3))), known)
    broken = conditioned_covariance(known, jnp.asarray(precision).at[0, 0].set(np.nan))
    assert np.isnan(broken).any()


@pytest.mark.equation("MAT-2")
@settings(max_examples=25)
@given(st.lists(exponents, min_size=3, max_size=3), st.floats(-20, 6), st.integers(0, 9))
def test_a_gradients_square_is_a_precision_of_rank_one(sizes, loud, seed):
    rng = np.random.default_rng(seed)
    deviation = 10.0 ** np.array(sizes)
    prior = jnp.asarray(a_covariance(rng) * np.outer(deviation, deviation))
    g = jnp.asarray(10.0 ** (loud / 2) * rng.normal(size=3) / deviation)
    unit = np.outer(deviation, deviation)
    ours = condition_on_gradient(symmetrised(prior), g)
    wanted = condition(symmetrised(prior), jnp.outer(g, g))
    assert_allclose(ours / unit, wanted / unit, rtol=1e-8, atol=1e-12)
    assert_array_equal(ours, ours.T)
    assert (jnp.diagonal(ours) >= 0).all()


@pytest.mark.equation("MAT-2")
@settings(max_examples=25)
@given(st.floats(-20, 20), st.floats(-10, 10), st.sampled_from(["float32", "float64"]))
def test_along_one_weight_it_is_the_scalar_formula_at_any_gain(size, spread, dtype):
    g, v = (jnp.asarray(10.0**x, dtype) for x in (size / 2, spread))
    other = jnp.asarray(3.0, dtype)
    after = condition_on_gradient(jnp.diag(jnp.stack([other, v])), jnp.stack([0 * g, -g]))
    with np.errstate(over="ignore"):
        wanted = v / (1 + v * jnp.square(g))
    assert_allclose(after[1, 1], wanted, rtol=4e-6 if dtype == "float32" else 1e-14)
    assert after[0, 0] == other and after[0, 1] == 0


@pytest.mark.equation("MAT-8")
@settings(max_examples=25)
@given(st.lists(exponents, min_size=4, max_size=4), st.integers(0, 4), st.integers(0, 9))
def test_a_singular_matrix_is_its_root_and_volume_on_its_range(sizes, rank, seed):
    rng = np.random.default_rng(seed)
    unit = 10.0 ** (np.array(sizes) / 2)
    root = rng.normal(size=(4, rank)) * unit[:, None]
    matrix = jnp.asarray(root @ root.T)
    part = jax.jit(on_its_range)(symmetrised(matrix))
    assert part.rank == rank
    scale = np.outer(unit, unit)
    assert_allclose(part.root @ part.root.T / scale, matrix / scale, atol=1e-12)
    back = matrix @ part.whitener.T @ part.whitener @ matrix
    assert_allclose(back / scale, matrix / scale, rtol=1e-5, atol=1e-7)
    sizes_of = np.linalg.qr(root)[1]
    wanted = np.log(np.abs(np.diag(sizes_of))).sum()  # volume of the range's own map
    assert_allclose(part.log_volume, wanted, rtol=1e-5, atol=1e-5)


def test_roots_are_roots_and_volumes_have_derivatives():
    rng = np.random.default_rng(8)
    matrix = jnp.asarray(a_covariance(rng))
    assert_allclose(symmetric_root(matrix) @ symmetric_root(matrix), matrix, rtol=1e-10)
    assert_allclose(inverse_root(matrix) @ symmetric_root(matrix), np.eye(3), atol=1e-10)

    def volume(a):  # of a matrix with equal eigenvalues, where eigenvectors have no derivative
        return on_its_range(a * jnp.eye(3) + a**2 * jnp.ones((3, 3))).log_volume

    wanted = jax.grad(lambda a: 0.5 * (2 * jnp.log(a) + jnp.log(a + 3 * a**2)))
    assert_allclose(jax.grad(volume)(0.7), wanted(0.7), rtol=1e-12)
    assert_allclose(jax.grad(jax.grad(volume))(0.7), jax.grad(wanted)(0.7), rtol=1e-10)
    assert np.isnan(on_its_range(-matrix).log_volume)


GOOD = np.array([[2.0, 0.5], [0.5, 1.0]])
SINGULAR = np.array([[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("curvature", "message"),
    [
        (np.array([[2.0, 0.5], [0.4, 1.0]]), "a symmetric curvature, got 0.1 between mirrored"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "a positive definite curvature, .* eigenvalue of -1"),
        (SINGULAR, "a positive definite curvature, got a smallest eigenvalue of"),
        (np.zeros((2, 2)), "a positive definite curvature, got a smallest eigenvalue of 0"),
        (np.ones((2, 3)), r"a square matrix for curvature, got shape \(2, 3\)"),
        (np.ones(3), r"a square matrix for curvature, got shape \(3,\)"),
        (np.full((2, 2), np.nan), "a finite curvature, got NaN or inf"),
        (GOOD + 0j, "real numbers for curvature, got complex128"),
    ],
)
def test_a_curvature_that_cannot_be_inverted_is_refused(curvature, message):
    for function in (
        lambda h: inspect.unwrap(slow_drift_covariance)(h, GOOD),
        lambda h: inspect.unwrap(whitening_covariance)(h, 0.1),
        lambda h: inspect.unwrap(natural_gradient_covariance)(h, 0.1),
        inspect.unwrap(overconfidence),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            function(curvature)
        assert "\n" not in str(caught.value)


def test_other_matrices_that_do_not_fit_are_refused_and_traced_ones_pass():
    with pytest.raises(ValueError, match="process_covariance, got a smallest eigenvalue of -1"):
        slow_drift_covariance(jnp.asarray(GOOD), jnp.diag(jnp.array([1.0, -1.0])))
    with pytest.raises(ValueError, match=r"a 2 x 2 matrix for process_covariance, got shape \(3"):
        inspect.unwrap(slow_drift_covariance)(GOOD, np.eye(3))
    with pytest.raises(ValueError, match="a positive definite precision"):
        matrix_steady_state(jnp.asarray(SINGULAR), 0.1, np.inf)
    with pytest.raises(ValueError, match="a positive semidefinite precision"):
        matrix_steady_state(jnp.asarray(-GOOD), 0.1, 1.0)
    with pytest.raises(ValueError, match=r"a 2 x 2 matrix for drift_shape, got shape \(1, 1\)"):
        inspect.unwrap(matrix_steady_state)(jnp.asarray(GOOD), 0.1, 1.0, np.eye(1))
    assert matrix_steady_state(jnp.asarray(SINGULAR), 0.1, 1.0).shape == (2, 2)
    assert np.isnan(jax.jit(overconfidence)(-jnp.asarray(GOOD))).all()
    tiny_beside_huge = np.diag([1e-12, 1e12])
    assert_allclose(overconfidence(jnp.asarray(tiny_beside_huge)), 1, rtol=1e-10)
