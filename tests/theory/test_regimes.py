"""Which optimizer a weight's filter resembles, and where the resemblance changes."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.theory import (
    REGIMES,
    adam_variance,
    crossover_gradient,
    fixed_point_variance,
    information_per_step,
    mean_square_variance,
    regime,
    sgd_variance,
    steady_state_variance,
)

ETA, SIGMA2 = 1e-4, 1e-2


@pytest.mark.equation("REG-1", "FP-1")
def test_check_A4_at_the_crossover_the_step_is_the_golden_fraction_of_the_stationary_variance():
    rms = crossover_gradient(ETA, SIGMA2)
    golden = 0.6180339887498949
    ours = fixed_point_variance(jnp.square(rms), ETA, SIGMA2)
    assert float(ours / SIGMA2) == pytest.approx(golden, rel=1e-14)
    # The exact root is below it by a term of the order of the gain, 6e-7 here.
    exact = steady_state_variance(jnp.square(rms), ETA, SIGMA2)
    assert float(exact / SIGMA2) == pytest.approx(golden, rel=1e-6)


@pytest.mark.equation("REG-1", "FP-2")
def test_check_A5_in_mean_gradients_the_crossover_is_the_same_for_every_batch_size():
    for batch_size in (1, 32, 4096):
        sigma2 = 0.1 / batch_size  # SGD's learning rate on the mean loss is 0.1
        mean_gradient = float(crossover_gradient(1e-3, sigma2)) / batch_size
        assert mean_gradient == pytest.approx(1e-3 / 0.1, rel=1e-14)


@pytest.mark.equation("REG-1")
def test_each_regime_begins_at_its_threshold():
    rms = np.array([0.0, 0.99 * ETA / SIGMA2, 1.01 * ETA / SIGMA2, 0.99 / ETA, 1.01 / ETA, 1e19])
    names = [REGIMES[i] for i in np.asarray(regime(jnp.asarray(rms**2), ETA, SIGMA2))]
    assert names == ["sgd", "sgd", "adam", "adam", "mean_square", "mean_square"]


@pytest.mark.equation("REG-1")
def test_a_random_walk_has_no_sgd_regime():
    assert crossover_gradient(ETA, jnp.inf) == 0
    labels = regime(jnp.asarray([0.0, 1e-30, 1.0]), ETA, jnp.inf)
    assert [REGIMES[i] for i in np.asarray(labels)] == ["adam"] * 3


@pytest.mark.equation("REG-3")
def test_far_inside_its_regime_each_limit_is_the_exact_steady_state():
    g2 = jnp.asarray([(1e-3 * ETA / SIGMA2) ** 2, (10 / np.sqrt(SIGMA2)) ** 2, (1e3 / ETA) ** 2])
    exact = np.asarray(steady_state_variance(g2, ETA, SIGMA2))
    limits = np.stack([sgd_variance(g2, SIGMA2), adam_variance(g2, ETA), mean_square_variance(g2)])
    np.testing.assert_allclose(np.diagonal(limits), exact, rtol=6e-3)
    assert list(np.asarray(regime(g2, ETA, SIGMA2))) == [0, 1, 2]
    off_diagonal = limits[~np.eye(3, dtype=bool)] / exact[[1, 2, 0, 2, 0, 1]]
    assert np.abs(np.log10(off_diagonal)).min() > 1


@pytest.mark.equation("REG-3")
def test_the_limits_are_the_printed_ones_and_survive_silence():
    g2 = jnp.asarray([0.0, 0.25, 16.0])
    np.testing.assert_array_equal(sgd_variance(g2, SIGMA2), [SIGMA2] * 3)
    np.testing.assert_allclose(adam_variance(g2, ETA), [np.inf, 2 * ETA, ETA / 4], rtol=1e-15)
    np.testing.assert_allclose(mean_square_variance(g2), [np.inf, 4.0, 1 / 16], rtol=1e-15)


@pytest.mark.equation("REG-2")
def test_information_is_one_at_the_crossover_and_squares_with_the_gradient():
    rms = float(crossover_gradient(ETA, SIGMA2)) * np.array([0.1, 1.0, 10.0])
    ours = information_per_step(jnp.asarray(rms**2), ETA, SIGMA2)
    np.testing.assert_allclose(ours, [0.01, 1.0, 100.0], rtol=1e-14)


@pytest.mark.equation("REG-2")
def test_check_F1_information_does_not_change_with_the_batch_size():
    h, ratio = 3.0, 8.0  # summed precision and drift variance both go as the batch size
    before = information_per_step(jnp.float64(h), ETA, SIGMA2)
    after = information_per_step(jnp.float64(h * ratio), ETA * np.sqrt(ratio), SIGMA2)
    assert float(after) == pytest.approx(float(before), rel=1e-14)


@pytest.mark.equation("REG-2")
def test_no_gradient_is_no_information_even_for_a_random_walk():
    silence = information_per_step(jnp.asarray([0.0, 1e-9]), ETA, jnp.inf)
    np.testing.assert_array_equal(silence, [0.0, np.inf])


@pytest.mark.equation("REG-1", "REG-3")
def test_when_the_thresholds_have_crossed_the_turn_is_between_them():
    eta, sigma2 = 30.0, 4.0
    turn = 1 / np.sqrt(sigma2)
    assert 1 / eta < turn < eta / sigma2
    ours = steady_state_variance(jnp.float64(turn**2), eta, sigma2)
    assert float(ours) == pytest.approx(sigma2 / 2, rel=1e-6)
