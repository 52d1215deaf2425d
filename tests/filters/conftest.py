"""Streams drawn from the model that the filters assume, lopsided so that signs show."""

from typing import NamedTuple

import numpy as np
import pytest

from bayesfilt.filters import GradientStream
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
