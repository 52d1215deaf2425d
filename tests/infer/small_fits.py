"""One small fit of a process whose numbers are known, made once for all tests that look at it."""

import functools

import jax
import numpy as np

from bayesfilt.infer import Fit, Streams, fit, model_named, optimum_streams

LAYERS = ("first", "second")
OU = model_named("ornstein_uhlenbeck", noise="none")
# What every fit of the tests has in common, so that one compiled program serves them all.
SETTINGS = {"num_chains": 2, "num_warmup": 120, "num_samples": 70, "every_density": True}


def small_streams(seed: int = 0) -> Streams:
    """Four optima of 60 steps in two layers, kept to 0.8 of themselves each step; one gap."""
    rng = np.random.default_rng(seed)
    optimum = np.zeros((4, 60))
    for step in range(1, 60):
        optimum[:, step] = 0.8 * optimum[:, step - 1] + rng.normal(size=4)
    valid = np.ones((4, 60), bool)
    valid[1, 10:13] = False
    optimum[~valid] = np.nan
    return optimum_streams(optimum, valid=valid, layer=[0, 1, 1, 0], layer_names=LAYERS)


@functools.cache
def small_fit() -> Fit:
    return fit(jax.random.key(3), OU, small_streams(), **SETTINGS)
