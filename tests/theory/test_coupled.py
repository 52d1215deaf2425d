"""The quadratic in which every optimum moves because the other weights do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.theory import conditional_optimum, coupled_drift_variance, expected_gradient

RNG = np.random.default_rng(11)
ROOT = RNG.standard_normal((5, 5))
HESSIAN = ROOT @ ROOT.T + np.diag([0.1, 1.0, 5.0, 20.0, 0.5])
PARAMS = np.array([1.0, -2.0, 0.5, 3.0, -0.7])


@pytest.mark.equation("CO-1")
def test_moving_one_weight_to_its_optimum_silences_its_own_gradient():
    optimum = np.asarray(conditional_optimum(jnp.asarray(HESSIAN), jnp.asarray(PARAMS)))
    for i in range(5):
        moved = PARAMS.copy()
        moved[i] = optimum[i]
        assert abs((HESSIAN @ moved)[i]) < 1e-12
        assert abs((HESSIAN @ PARAMS)[i]) > 0.1


@pytest.mark.equation("CO-2", "CO-1")
def test_the_expected_gradient_is_that_of_the_whole_quadratic():
    hessian, params = jnp.asarray(HESSIAN), jnp.asarray(PARAMS)
    optimum = conditional_optimum(hessian, params)
    whole = jax.grad(lambda w: 0.5 * w @ hessian @ w)(params)
    np.testing.assert_allclose(expected_gradient(hessian, params, optimum), whole, rtol=1e-12)


@pytest.mark.equation("CO-2")
def test_gradients_of_a_matched_likelihood_scatter_as_much_as_they_bend():
    # Linear regression with unit noise, at its truth: the Hessian of the summed loss of a
    # minibatch and the covariance of its gradient are both the sum of x xᵀ.
    inputs = RNG.standard_normal((40, 3)) * np.array([1.0, 3.0, 0.2])
    noise = RNG.standard_normal((20_000, 40))
    gradients = -noise @ inputs
    curvature = np.diag(inputs.T @ inputs)
    squares = gradients**2
    standard_error = squares.std(axis=0) / np.sqrt(len(squares))
    assert np.all(np.abs(squares.mean(axis=0) - curvature) < 4 * standard_error)
    held = np.array([0.3, -0.1, 1.0])
    optimum = np.array([-0.2, 0.4, 0.0])
    ours = expected_gradient(
        jnp.asarray(np.diag(curvature)), jnp.asarray(held), jnp.asarray(optimum)
    )
    np.testing.assert_allclose(ours, curvature * (held - optimum), rtol=1e-14)


@pytest.mark.equation("CO-3")
def test_check_E1_the_optima_move_as_much_as_simulated_weights_make_them():
    moves = 0.02 * RNG.standard_normal((40_000, 5))
    shifts = np.asarray(
        jax.vmap(lambda m: conditional_optimum(jnp.asarray(HESSIAN), jnp.asarray(PARAMS) + m))(
            jnp.asarray(moves)
        )
        - conditional_optimum(jnp.asarray(HESSIAN), jnp.asarray(PARAMS))
    )
    squares = shifts**2
    standard_error = squares.std(axis=0) / np.sqrt(len(squares))
    ours = np.asarray(coupled_drift_variance(jnp.asarray(HESSIAN), 0.02**2))
    assert np.all(np.abs(squares.mean(axis=0) - ours) < 4 * standard_error)
    numerator_alone = ours * np.diag(HESSIAN) ** 2
    assert np.all(np.abs(squares.mean(axis=0) - numerator_alone) > 10 * standard_error)


@pytest.mark.equation("CO-3")
def test_check_E1_weights_that_correlate_alike_drift_inversely_to_their_curvature():
    scales = 10.0 ** np.linspace(-2, 2, 300)
    hessian = 0.3 * np.sqrt(np.outer(scales, scales)) + 0.7 * np.diag(scales)
    drift = np.asarray(coupled_drift_variance(jnp.asarray(hessian), 1.0))
    slope = np.polyfit(np.log(scales), np.log(drift), 1)[0]
    assert slope == pytest.approx(-1, abs=0.02)


@pytest.mark.equation("CO-3")
def test_uncoupled_weights_have_optima_at_rest():
    drift = coupled_drift_variance(jnp.diag(jnp.asarray([1.0, 5.0, 0.2])), 1.0)
    np.testing.assert_array_equal(drift, 0)
