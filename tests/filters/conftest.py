"""Streams drawn from the model that the filters assume, lopsided so that signs show."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.filters import GradientStream, full_filter, velocity_filter
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from tests.filters.dense import DenseModel


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


class FullWorld(NamedTuple):
    """A stream of gradients with matrix precisions, and what was believed at the start."""

    transition: OrnsteinUhlenbeck
    drift_shape: np.ndarray  # [weights, weights]
    mean: np.ndarray  # [weights]
    covariance: np.ndarray  # [weights, weights]
    stream: GradientStream  # precision [steps, weights, weights]

    @property
    def kalman(self):
        return full_filter(self.transition, jnp.asarray(self.drift_shape))

    @property
    def belief(self):
        return self.kalman.init(jnp.asarray(self.mean), jnp.asarray(self.covariance))

    @property
    def dense(self):
        eta, sigma2 = self.transition
        kept = np.exp(-(eta**2) / (2 * sigma2))
        added = eta**2 if np.isinf(sigma2) else sigma2 * (1 - kept**2)
        one = np.eye(len(self.mean))
        noise = added * self.drift_shape
        return DenseModel(self.mean, self.covariance, kept * one, noise, one, *self.stream)


def a_covariance(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T


def draw_full_world(seed, *, steps=12, weights=3, missing=0.0, rank=None, transition=(0.3, 1.7)):
    """With `rank` below `weights` every curvature is singular, its null space its own."""
    rng = np.random.default_rng(seed)
    made = FullWorld(
        transition=OrnsteinUhlenbeck(*transition),
        drift_shape=a_covariance(rng, weights),
        mean=0.7 + rng.normal(size=weights),
        covariance=a_covariance(rng, weights),
        stream=None,
    )
    roots = rng.normal(size=(steps, weights, weights if rank is None else rank))
    precision = roots @ roots.transpose(0, 2, 1)
    taken_at = 2.0 + rng.normal(size=(steps, weights))
    gradient = np.empty((steps, weights))
    nothing = (gradient, precision, taken_at, np.ones(steps, bool))
    model = made._replace(stream=GradientStream(*nothing)).dense
    w = rng.multivariate_normal(made.mean, made.covariance)
    for t in range(steps):
        noise = roots[t] @ rng.normal(size=roots.shape[2])  # in the range of the precision
        gradient[t] = precision[t] @ (taken_at[t] - w) + noise
        w = model.move @ w + rng.multivariate_normal(np.zeros(weights), model.noise)
    valid = rng.random(steps) >= missing
    return made._replace(stream=GradientStream(gradient, precision, taken_at, valid))


@pytest.fixture
def full_world():
    return draw_full_world
