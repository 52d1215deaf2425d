"""A schedule of the learning rate is a schedule of the drift: AdaGrad's, and a warm restart's.

Every gradient here is worth the same precision, so that what moves is the variance alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import ive

from bayesfilt.optimizers import (
    posterior_variance,
    scale_by_adagrad,
    scale_by_fixed_point,
    scale_by_kalman,
)
from bayesfilt.theory import fixed_point_variance, time_constant, transient_variance

ETA, PRECISION = 1e-3, 400.0  # a gain of 2 % when settled
GRADIENT = float(np.sqrt(PRECISION))
MEMORY = float(time_constant(jnp.float64(PRECISION), ETA))  # 25 steps


def variances(transformation, steps, gradient=GRADIENT):
    """Posterior variance after each of `steps` equal gradients."""

    def step(state, _):
        _, state = transformation.update(jnp.full(1, gradient), state, jnp.zeros(1))
        return state, posterior_variance(state)[0]

    return np.asarray(jax.lax.scan(step, transformation.init(jnp.zeros(1)), length=steps)[1])


@pytest.mark.equation("AW-2", "FP-1")
def test_check_A8_adagrad_is_the_fixed_point_of_a_drift_that_fades_as_one_over_time():
    rng = np.random.default_rng(9)
    gradients = rng.standard_normal((50, 3)) * np.array([0.01, 1.0, 300.0])
    adagrad, rate = scale_by_adagrad(eps=0.0), 0.3
    state = adagrad.init(jnp.zeros(3))
    for t, gradient in enumerate(gradients, start=1):
        step, state = adagrad.update(jnp.asarray(gradient), state)
        mean_square = jnp.asarray(np.mean(gradients[:t] ** 2, axis=0))  # of all of them: b2 = 1
        settled = fixed_point_variance(mean_square, rate / np.sqrt(t), jnp.inf)
        np.testing.assert_allclose(rate * step, settled * gradient, rtol=1e-13)


@pytest.mark.equation("OPT-2", "AW-2")
@pytest.mark.parametrize("steps", [2_000, 30_000])
def test_check_A8_the_recursive_filter_with_that_drift_lags_behind_adagrad_ever_less(steps):
    def fading(step):
        return 0.02 / jnp.sqrt(step + 1.0)

    filtered = variances(scale_by_kalman(fading, jnp.inf, b1=0.0), steps, gradient=3.0)[-1]
    adagrad = 0.02 / np.sqrt(9.0 * steps)
    z = 2 * 0.02 * np.sqrt(9.0 * steps)
    # Of dp/dt = η²/t - h p²; about 1 + 1/2z.
    assert filtered / adagrad == pytest.approx(ive(0, z) / ive(1, z), rel=1e-3)


RESTART = 400


def restarting(step):
    """A cosine to zero, and a restart that then stays at its top."""
    return jnp.where(step < RESTART, optax.cosine_decay_schedule(ETA, RESTART)(step), ETA)


@pytest.mark.equation("OPT-2", "OPT-3", "RIC-6", "RIC-3")
def test_at_a_warm_restart_the_fixed_points_step_jumps_and_the_recursions_relaxes():
    jumps = variances(scale_by_fixed_point(restarting, jnp.inf), RESTART + 500)
    settled = ETA / GRADIENT
    assert jumps[RESTART - 1] < 1e-4 * settled
    np.testing.assert_allclose(jumps[RESTART:], settled, rtol=1e-6)

    relaxes = variances(scale_by_kalman(restarting, jnp.inf), RESTART + 500)
    before, time = relaxes[RESTART - 1], np.arange(1, 501)
    wanted = transient_variance(before, jnp.asarray(time, float), PRECISION, ETA, jnp.inf)
    np.testing.assert_allclose(relaxes[RESTART:], wanted, rtol=0.02)
    assert relaxes[RESTART] < 0.4 * settled
    gap = 1 - relaxes[RESTART:] / relaxes[-1]
    rate = np.log(gap[125] / gap[225]) / 100
    assert rate == pytest.approx(1 / MEMORY, rel=0.01)


@pytest.mark.equation("OPT-2", "OPT-3", "RIC-3", "RIC-5")
def test_a_single_pulse_of_process_noise_is_forgotten_at_once_or_in_the_filters_own_time():
    def pulsed(step):
        return jnp.where(step == 500, 4 * ETA, ETA)

    closed = variances(scale_by_fixed_point(pulsed, jnp.inf), 600)
    np.testing.assert_allclose(closed[500] / closed[499], 4.0, rtol=1e-12)
    np.testing.assert_allclose(closed[501] / closed[499], 1.0, rtol=1e-12)
    pulse = variances(scale_by_kalman(pulsed, jnp.inf), 600)
    extra = pulse / pulse[499] - 1
    # It adds (4² - 1) η² to the variance, 15 gains of it, at first.
    assert extra[500] == pytest.approx(15 * ETA * GRADIENT, rel=0.05)
    rate = np.log(extra[540] / extra[580]) / 40
    assert rate == pytest.approx(1 / MEMORY, rel=0.02)


def steps_to_halve(transformation, rate, quiet):
    """How long the distance takes to halve, in expectation, if it opens after `quiet` steps."""

    def step(state, _):
        scaled, state = transformation.update(jnp.full(1, GRADIENT), state, jnp.zeros(1))
        return state, rate * scaled[0] / GRADIENT

    steps = 2 * quiet + 200
    multipliers = jax.lax.scan(step, transformation.init(jnp.zeros(1)), length=steps)[1]
    left = np.cumprod(1 - PRECISION * np.asarray(multipliers)[quiet:])
    assert left[-1] < 0.5
    return int(np.argmax(left < 0.5)) + 1


@pytest.mark.equation("AW-2", "OPT-3")
def test_the_later_adagrad_is_surprised_the_longer_it_takes_to_follow():
    early, late = (steps_to_halve(scale_by_adagrad(), 0.02, quiet) for quiet in (400, 40_000))
    assert late / early == pytest.approx(10, rel=0.1)
    constant = scale_by_fixed_point(ETA, jnp.inf, b1=0.0)
    early, late = (steps_to_halve(constant, 1.0, quiet) for quiet in (400, 40_000))
    assert early == late
