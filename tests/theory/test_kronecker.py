"""Kronecker factors: against the big matrix they stand for, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bayesfilt.theory import (
    JointBasis,
    KroneckerFactors,
    from_basis,
    gradient_factors,
    joint_basis,
    marginal_variance,
    pair_precision,
    reexpressed_variance,
    steady_state_variance,
    to_basis,
    whitened_step,
)

ROWS, COLUMNS = 3, 2
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def stacked(matrix):
    """Columns of a matrix under one another: what A ⊗ G acts on."""
    return np.asarray(matrix).T.ravel()


def orthogonal(rng, side):
    return np.linalg.qr(rng.normal(size=(side, side)))[0]


def spd(rng, side):
    axes = orthogonal(rng, side)
    return (axes * rng.lognormal(0, 1, side)) @ axes.T


def some_factors(seed=0):
    rng = np.random.default_rng(seed)
    return KroneckerFactors(rows=jnp.array(spd(rng, ROWS)), columns=jnp.array(spd(rng, COLUMNS)))


def some_basis(seed=1):
    rng = np.random.default_rng(seed)
    axes = (jnp.array(orthogonal(rng, side)) for side in (ROWS, COLUMNS))
    return JointBasis(*axes)


def dense(factors):
    return np.kron(factors.columns, factors.rows)


def dense_basis(basis):
    return np.kron(basis.columns, basis.rows)


def a_matrix(seed=2):
    return jnp.array(np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)))


@pytest.mark.equation("KRON-1")
def test_gradients_that_have_factors_give_them_back():
    factors = some_factors()
    g, a = factors  # g of covariance A ⊗ G has E[g gᵀ] = G tr A and E[gᵀg] = A tr G
    found = gradient_factors(g * jnp.trace(a), a * jnp.trace(g))
    assert_allclose(dense(found), dense(factors), **TIGHT)


@pytest.mark.equation("KRON-1")
def test_any_gradients_keep_their_size_in_the_factors():
    gradients = np.random.default_rng(3).gamma(0.5, 2.0, size=(7, ROWS, COLUMNS)) - 0.4
    row_moment = np.mean([g @ g.T for g in gradients], axis=0)
    column_moment = np.mean([g.T @ g for g in gradients], axis=0)
    found = gradient_factors(jnp.array(row_moment), jnp.array(column_moment))
    assert_allclose(np.trace(dense(found)), np.mean([np.sum(g**2) for g in gradients]), **TIGHT)


@pytest.mark.equation("KRON-1")
def test_without_gradients_the_factors_are_zero():
    found = gradient_factors(jnp.zeros((ROWS, ROWS)), jnp.zeros((COLUMNS, COLUMNS)))
    assert_array_equal(dense(found), 0)


@pytest.mark.equation("KRON-2")
def test_the_joint_basis_makes_the_big_matrix_diagonal():
    factors = some_factors()
    basis = joint_basis(factors)
    turned = dense_basis(basis).T @ dense(factors) @ dense_basis(basis)
    assert_allclose(turned, np.diag(stacked(pair_precision(factors, basis))), **TIGHT)
    eigenvalues = np.sort(pair_precision(factors, basis), axis=None)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(dense(factors)), **TIGHT)


@pytest.mark.equation("KRON-2")
def test_in_another_basis_the_precision_is_the_diagonal():
    factors, basis = some_factors(), some_basis()
    turned = dense_basis(basis).T @ dense(factors) @ dense_basis(basis)
    assert_allclose(stacked(pair_precision(factors, basis)), np.diag(turned), **TIGHT)
    assert np.abs(turned - np.diag(np.diag(turned))).max() > 0.1


@pytest.mark.equation("KRON-2")
def test_rotating_is_the_big_rotation_and_comes_back():
    basis, weights = some_basis(), a_matrix()
    assert_allclose(
        stacked(to_basis(weights, basis)), dense_basis(basis).T @ stacked(weights), **TIGHT
    )
    assert_allclose(
        stacked(from_basis(weights, basis)), dense_basis(basis) @ stacked(weights), **TIGHT
    )
    assert_allclose(from_basis(to_basis(weights, basis), basis), weights, **TIGHT)


@pytest.mark.equation("KRON-3")
def test_variances_in_other_axes_are_the_diagonal_of_the_rotated_covariance():
    old, new = some_basis(1), some_basis(4)
    variance = jnp.abs(a_matrix())
    covariance = dense_basis(old) @ np.diag(stacked(variance)) @ dense_basis(old).T
    turned = dense_basis(new).T @ covariance @ dense_basis(new)
    found = reexpressed_variance(variance, old, new)
    assert_allclose(stacked(found), np.diag(turned), **TIGHT)
    assert_allclose(stacked(marginal_variance(variance, old)), np.diag(covariance), **TIGHT)
    assert_allclose(jnp.sum(found), jnp.sum(variance), **TIGHT)


@pytest.mark.equation("KRON-3")
def test_axes_in_another_order_with_other_signs_lose_nothing():
    basis, variance = some_basis(), jnp.abs(a_matrix())
    order, signs = jnp.array([2, 0, 1]), jnp.array([-1.0, 1.0, -1.0])
    other = JointBasis(rows=basis.rows[:, order] * signs, columns=-basis.columns)
    assert_allclose(reexpressed_variance(variance, basis, other), variance[order], **TIGHT)


@pytest.mark.equation("KRON-4")
def test_the_whitened_step_is_the_big_inverse_root():
    factors, gradient = some_factors(), a_matrix()
    values, vectors = np.linalg.eigh(dense(factors))
    root = (vectors / np.sqrt(values)) @ vectors.T
    step = whitened_step(gradient, factors, 0.01)
    assert_allclose(stacked(step), 0.01 * root @ stacked(gradient), **TIGHT)


def test_whitened_noise_has_no_direction_left():
    factors = some_factors()
    rng = np.random.default_rng(5)
    roots = [np.linalg.cholesky(factor) for factor in factors]
    noise = roots[0] @ rng.normal(size=(20_000, ROWS, COLUMNS)) @ roots[1].T
    steps = whitened_step(jnp.array(noise), factors, 1.0)
    rows = np.asarray(steps).transpose(0, 2, 1).reshape(len(steps), -1)
    covariance = rows.T @ rows / len(rows)
    assert np.abs(covariance - np.eye(ROWS * COLUMNS)).max() < 5 * np.sqrt(2 / len(rows))


def test_the_settled_variance_is_no_kronecker_product_but_in_its_limits():
    precision = jnp.outer(jnp.array([0.1, 1.0, 30.0]), jnp.array([0.2, 1.0, 7.0]))

    def second_singular_value(sigma2, scale):
        variance = steady_state_variance(scale * precision, 1e-3, sigma2)
        values = np.linalg.svd(variance, compute_uv=False)
        return values[1] / values[0]

    assert second_singular_value(1e-3, 1.0) > 1e-2  # quiet and loud pairs in one layer
    assert second_singular_value(np.inf, 1e-2) < 1e-3  # all loud: 1/√γᵢ times 1/√αⱼ
    assert second_singular_value(1e-3, 1e-8) < 1e-6  # all quiet: σ²


@given(st.lists(st.floats(-12, 12), min_size=4, max_size=4), st.integers(0, 99))
@settings(max_examples=30)
def test_over_many_decades_no_pair_is_worth_less_than_nothing(exponents, seed):
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** np.array(exponents)
    axes = [orthogonal(rng, 2), orthogonal(rng, 2)]
    raw = [(u * s) @ u.T for u, s in zip(axes, (sizes[:2], sizes[2:]), strict=True)]
    factors = KroneckerFactors(*(jnp.array((m + m.T) / 2) for m in raw))
    basis = joint_basis(factors)
    found = np.sort(pair_precision(factors, basis), axis=None)
    assert np.all(found >= 0)
    wanted = np.sort(np.outer(sizes[:2], sizes[2:]), axis=None)
    assert_allclose(found, wanted, atol=1e-13 * wanted.max(), rtol=1e-13)


def test_factors_of_every_step_share_one_basis():
    factors = [some_factors(seed) for seed in range(3)]
    together = KroneckerFactors(*(jnp.stack(side) for side in zip(*factors, strict=True)))
    basis = some_basis()
    found = pair_precision(together, basis)
    mapped = jax.vmap(lambda each: pair_precision(each, basis))(together)
    for one, other, each in zip(found, mapped, factors, strict=True):
        assert_allclose(one, pair_precision(each, basis), **TIGHT)
        assert_allclose(other, one, **TIGHT)


def test_repeated_eigenvalues_have_finite_derivatives():
    def loudness(factors):
        return jnp.sum(jnp.log(pair_precision(factors, joint_basis(factors))))

    equal = KroneckerFactors(rows=2 * jnp.eye(ROWS), columns=jnp.eye(COLUMNS))
    slopes = jax.grad(loudness)(equal)  # log det of A ⊗ G: its slope is the inverse
    assert_allclose(slopes.rows, COLUMNS * jnp.eye(ROWS) / 2, atol=1e-12)
    assert_allclose(slopes.columns, ROWS * jnp.eye(COLUMNS), atol=1e-12)


GOOD = jnp.eye(2)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (jnp.ones((2, 3)), "for rows factor, got shape"),
        (jnp.ones(2), "for rows factor, got shape"),
        (jnp.array([[1.0, 0.5], [0.4, 1.0]]), "symmetric"),
        (jnp.array([[1.0, 2.0], [2.0, 1.0]]), "eigenvalue of -1"),
        (jnp.array([[1.0, jnp.nan], [jnp.nan, 1.0]]), "finite"),
        (jnp.eye(2, dtype=complex), "real numbers for rows factor"),
        (jnp.stack([jnp.eye(2), -jnp.eye(2)]), "eigenvalue of -1"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_curvature_is_refused_in_one_line(bad, words, side):
    factors = KroneckerFactors(*((bad, GOOD) if side == 0 else (GOOD, bad)))
    name = "rows" if side == 0 else "columns"
    for call in (
        lambda: joint_basis(factors),
        lambda: pair_precision(factors, JointBasis(GOOD, GOOD)),
        lambda: whitened_step(jnp.ones((2, 2)), factors, 1e-3),
        lambda: jax.jit(lambda g: whitened_step(g, factors, 1e-3))(jnp.ones((2, 2))),
    ):
        with pytest.raises(ValueError, match=words.replace("rows", name)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_singular_factor_is_refused_where_it_must_be_inverted_only():
    singular = KroneckerFactors(rows=jnp.ones((2, 2)), columns=GOOD)
    assert_allclose(pair_precision(singular, joint_basis(singular))[0], 0, atol=1e-15)
    for bad in (singular, KroneckerFactors(GOOD, jnp.zeros((2, 2)))):
        with pytest.raises(ValueError, match="positive definite"):
            whitened_step(jnp.ones((2, 2)), bad, 1e-3)


def test_a_factor_must_have_the_size_of_its_basis():
    basis = JointBasis(GOOD, GOOD)
    with pytest.raises(ValueError, match=r"2 x 2 matrix for columns factor, got shape \(3, 3\)"):
        pair_precision(KroneckerFactors(GOOD, jnp.eye(3)), basis)


def test_rounding_is_no_asymmetry_and_no_negative_eigenvalue():
    low_rank = np.random.default_rng(6).normal(size=(12, 3)).astype("float32")
    factors = KroneckerFactors(jnp.array(low_rank @ low_rank.T), jnp.eye(2, dtype="float32"))
    precision = pair_precision(factors, joint_basis(factors))
    assert precision.dtype == jnp.float32
    assert np.all(precision >= 0)


def test_whole_numbers_and_bfloat16_are_numbers():
    whole = KroneckerFactors(2 * jnp.eye(2, dtype=int), jnp.eye(2, dtype=jnp.bfloat16))
    assert_array_equal(pair_precision(whole, joint_basis(whole)), 2.0)


def test_traced_factors_pass():
    bad = KroneckerFactors(-GOOD, GOOD)
    assert jax.jit(lambda f: pair_precision(f, joint_basis(f)))(bad).shape == (2, 2)
