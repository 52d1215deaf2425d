"""L2 in the filter is the prior seen again at every step; decay is the transition.

The oracle is one dense Gaussian over the optimum at every time, all gradients, and all looks at
the prior, conditioned in one go.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.filters import Belief, diagonal_filter
from bayesfilt.theory import (
    OrnsteinUhlenbeck,
    conditioned_variance,
    decay_per_step,
    drifted_variance,
    exact_shrink,
    fixed_point_variance,
    l2_conditioned_mean,
    l2_conditioned_variance,
    l2_shrink,
    process_variance,
    retention,
    static_variance,
)

STEPS, L2 = 12, 0.8
PRECISION = 10.0 ** np.random.default_rng(3).uniform(-1.5, 1, STEPS)
NOISE = np.random.default_rng(4).standard_normal(STEPS)
START = 3.0  # mean of the first belief: far from the place the penalty pulls to
DRIFTS = {
    "at rest": OrnsteinUhlenbeck(drift_scale=0.0, stationary_variance=1 / L2),
    "drifting": OrnsteinUhlenbeck(drift_scale=0.4, stationary_variance=1 / L2),
}


def filtered(drift, l2):
    """The filter with a penalty, step by step: places, gradients there, and each (mean, p)."""
    mean, variance, places, gradients, beliefs = START, drift.stationary_variance, [], [], []
    kept = 1 - float(exact_shrink(*drift))
    for precision, noise in zip(PRECISION, NOISE, strict=True):
        gradient = precision * (mean - 1.0) + np.sqrt(precision) * noise  # any stream will do
        places, gradients = [*places, mean], [*gradients, gradient]
        p = float(l2_conditioned_variance(jnp.float64(variance), precision, l2))
        mean = float(l2_conditioned_mean(jnp.float64(mean), p, gradient, l2))
        beliefs.append((mean, p))
        mean, variance = kept * mean, float(drifted_variance(jnp.float64(p), *drift))
    return np.array(places), np.array(gradients), np.array(beliefs)


def dense(drift, places, gradients, looks):
    """Mean and variance of the last optimum, given all gradients and `looks` at the prior."""
    kept, added = float(retention(*drift)), float(process_variance(*drift))
    steps = len(places)
    # Optima are a lower triangular matrix of the start and the moves.
    chain = np.tril(kept ** np.maximum(np.subtract.outer(np.arange(steps), np.arange(steps)), 0))
    moves = np.diag([drift.stationary_variance, *[added] * (steps - 1)])
    prior_mean = START * kept ** np.arange(steps)
    prior_covariance = chain @ moves @ chain.T
    # g = h (place - w*) + noise of variance h, then 0 = w* + noise of variance 1/l2.
    rows = np.concatenate([-np.diag(PRECISION), np.eye(steps)[:looks]])
    seen = np.concatenate([gradients - PRECISION * places, np.zeros(looks)])
    noise = np.diag(np.concatenate([PRECISION, np.full(looks, 1 / L2)]))
    spread = rows @ prior_covariance @ rows.T + noise
    weights = prior_covariance @ rows.T @ np.linalg.inv(spread)
    mean = prior_mean + weights @ (seen - rows @ prior_mean)
    covariance = prior_covariance - weights @ rows @ prior_covariance
    return mean[-1], covariance[-1, -1]


@pytest.mark.equation("L2-4", "L2-5")
@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_check_D4_l2_in_the_filter_is_a_look_at_the_prior_in_every_step(drift):
    places, gradients, beliefs = filtered(drift, L2)
    wanted = dense(drift, places, gradients, looks=STEPS)
    np.testing.assert_allclose(beliefs[-1], wanted, rtol=1e-11)


@pytest.mark.equation("KF-3", "KF-4", "L2-4")
@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_check_D4_decay_is_the_transition_with_no_look_at_the_prior(drift):
    places, gradients, beliefs = filtered(drift, 0.0)
    wanted = dense(drift, places, gradients, looks=0)
    np.testing.assert_allclose(beliefs[-1], wanted, rtol=1e-11)
    penalised = dense(drift, places, gradients, looks=STEPS)
    assert abs(penalised[1] / wanted[1] - 1) > 0.05


@pytest.mark.equation("L2-4", "L2-5", "RIC-4")
def test_check_D4_an_optimum_at_rest_counts_its_prior_as_often_as_it_was_looked_at():
    _, _, beliefs = filtered(DRIFTS["at rest"], L2)
    counted = 1 / beliefs[:, 1] - np.cumsum(PRECISION)  # what is not owed to gradients
    np.testing.assert_allclose(counted, L2 * (1 + np.arange(1, STEPS + 1)), rtol=1e-12)
    once = static_variance(1 / L2, jnp.asarray(np.cumsum(PRECISION)))
    np.testing.assert_allclose(1 / np.asarray(once) - np.cumsum(PRECISION), L2, rtol=1e-12)


@pytest.mark.equation("L2-4", "L2-5")
def test_check_D4_without_gradients_l2_shrinks_as_one_over_time_and_decay_exponentially():
    drift = DRIFTS["drifting"]
    mean, p = 1.0, 1 / L2
    for step in range(1, 30):
        p = float(l2_conditioned_variance(jnp.float64(p), 0.0, L2))
        mean = float(l2_conditioned_mean(jnp.float64(mean), p, 0.0, L2))
        assert mean == pytest.approx(1 / (1 + step), rel=1e-12)
    kalman = diagonal_filter(drift)
    belief = kalman.init(jnp.float64(1.0))
    for _ in range(29):
        belief = kalman.predict(belief)
    assert float(belief.mean) == pytest.approx(np.exp(-29 * float(decay_per_step(*drift))))
    assert float(belief.variance) == pytest.approx(1 / L2, rel=1e-14)


@pytest.mark.equation("L2-4", "L2-5", "KF-5")
def test_a_penalty_is_a_gradient_of_zero_taken_at_zero():
    kalman = diagonal_filter(DRIFTS["drifting"])
    belief = Belief(mean=jnp.asarray([2.0, -0.3]), variance=jnp.asarray([0.7, 9.0]))
    gradient, precision = jnp.asarray([1.5, -4.0]), jnp.asarray([3.0, 0.2])
    looked = kalman.condition(belief, jnp.zeros(2), jnp.full(2, L2), taken_at=jnp.zeros(2))
    both = kalman.condition(looked, gradient, precision, taken_at=belief.mean)
    p = l2_conditioned_variance(belief.variance, precision, L2)
    np.testing.assert_allclose(p, both.variance, rtol=1e-14)
    ours = l2_conditioned_mean(belief.mean, p, gradient, L2)
    np.testing.assert_allclose(ours, both.mean, rtol=1e-13)


@pytest.mark.equation("L2-6", "L2-5")
def test_check_D4_what_l2_takes_away_depends_on_the_gradients_and_what_decay_takes_does_not():
    h, eta, sigma2 = jnp.asarray(10.0 ** np.linspace(-6, 4, 6)), 1e-3, 0.05
    settled = fixed_point_variance(h, eta, sigma2)
    taken = np.asarray(l2_shrink(settled, 2e-3))
    assert np.all(np.diff(taken) < 0) and taken[0] > 1e3 * taken[-1]
    assert taken[0] == pytest.approx(sigma2 * 2e-3, rel=1e-2)  # as SGD with rate σ² would
    assert taken[-1] == pytest.approx(eta * 2e-3 / np.sqrt(h[-1]), rel=1e-2)
    # It is what the mean loses for itself; the transition takes the same from all of them.
    slope = jax.vmap(jax.grad(l2_conditioned_mean), (None, 0, None, None))(1.7, settled, 0.4, 2e-3)
    np.testing.assert_allclose(1 - slope, taken, rtol=1e-6, atol=1e-15)
    kalman = diagonal_filter(OrnsteinUhlenbeck(drift_scale=eta, stationary_variance=sigma2))
    after = kalman.predict(Belief(mean=jnp.ones(6), variance=conditioned_variance(settled, h)))
    np.testing.assert_array_equal(after.mean, after.mean[0])
