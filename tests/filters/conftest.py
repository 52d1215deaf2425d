"""Streams drawn from the model that the filters assume, lopsided so that signs show."""

from typing import NamedTuple

import numpy as np
import pytest

from bayesfilt.filters import GradientStream, velocity_filter
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck


class World(NamedTuple):
    """A recorded stream, what produced it, and what was believed at the start."""

    transition: OrnsteinUhlenbeck
    mean: np.ndarray  # [weights]
    variance: np.ndarray  # [weights]
    optimum: np.ndarray  # [steps, weights]
    stream: GradientStream  # NumPy float64; leaves [steps, weights]


def draw_world(
    seed,
    *,
    steps=40,
    weights=3,
    drift_scale=0.3,
    stationary_variance=1.7,
    missing=0.0,
    precision_scale=1.0,
):
    rng = np.random.default_rng(seed)
    kept = np.exp(-(drift_scale**2) / (2 * stationary_variance))
    if np.isinf(stationary_variance):
        added = drift_scale**2
    else:
        added = stationary_variance * (1 - kept**2)
    mean = 0.7 + rng.normal(size=weights)
    variance = rng.gamma(3.0, 0.4, size=weights)
    precision = precision_scale * rng.lognormal(0.0, 1.5, size=(steps, weights))
    taken_at = 2.0 + rng.normal(size=(steps, weights))  # far from the mean, on one side
    optimum = np.empty((steps, weights))
    w = mean + np.sqrt(variance) * rng.normal(size=weights)
    for t in range(steps):
        optimum[t] = w
        w = kept * w + np.sqrt(added) * rng.normal(size=weights)
    noise = np.sqrt(precision) * rng.normal(size=(steps, weights))
    return World(
        transition=OrnsteinUhlenbeck(drift_scale, stationary_variance),
        mean=mean,
        variance=variance,
        optimum=optimum,
        stream=GradientStream(
            gradient=precision * (taken_at - optimum) + noise,
            precision=precision,
            taken_at=taken_at,
            valid=rng.random(steps) >= missing,
        ),
    )


@pytest.fixture
def world():
    return draw_world


class MovingWorld(NamedTuple):
    """A stream whose optimum has a velocity, and what was believed at the start."""

    numbers: tuple  # drift scale, stationary variance, velocity shrink, velocity drift scale
    mean: np.ndarray  # [weights]
    variance: np.ndarray  # [weights]
    velocity_variance: np.ndarray  # [weights]
    stream: GradientStream

    @property
    def kalman(self):
        eta, sigma2, shrink, kappa = self.numbers
        transition = OrnsteinUhlenbeck(eta, sigma2)
        return velocity_filter(transition, velocity_shrink=shrink, velocity_drift_scale=kappa)

    @property
    def belief(self):
        return self.kalman.init(self.mean, self.variance, self.velocity_variance)

    @property
    def matrices(self):
        """Transition and noise of (position, velocity), as written down on paper."""
        eta, sigma2, shrink, kappa = self.numbers
        kept = np.exp(-(eta**2) / (2 * sigma2))
        added = eta**2 if np.isinf(sigma2) else sigma2 * (1 - kept**2)
        return np.array([[kept, 1.0], [0.0, 1 - shrink]]), np.diag([added, kappa**2])


def draw_moving_world(seed, *, steps=40, weights=3, missing=0.0, numbers=(0.3, 1.7, 0.15, 0.2)):
    rng = np.random.default_rng(seed)
    mean = 0.7 + rng.normal(size=weights)
    variance, velocity_variance = rng.gamma(3.0, 0.4, size=(2, weights))
    precision = rng.lognormal(0.0, 1.5, size=(steps, weights))
    taken_at = 2.0 + rng.normal(size=(steps, weights))
    world = MovingWorld(numbers, mean, variance, velocity_variance, None)
    move, noise = world.matrices
    spread = np.sqrt([variance, velocity_variance])
    z = np.array([mean, np.zeros(weights)]) + spread * rng.normal(size=(2, weights))
    gradient = np.empty((steps, weights))
    for t in range(steps):
        shake = np.sqrt(precision[t]) * rng.normal(size=weights)
        gradient[t] = precision[t] * (taken_at[t] - z[0]) + shake
        z = move @ z + np.sqrt(noise) @ rng.normal(size=(2, weights))
    valid = rng.random(steps) >= missing
    return world._replace(stream=GradientStream(gradient, precision, taken_at, valid))


@pytest.fixture
def moving_world():
    return draw_moving_world
