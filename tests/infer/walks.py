"""The random walk that is seen exactly, in NumPy, and its posterior on a cloud of numbers."""

import numpy as np
from scipy.special import logsumexp

from bayesfilt.infer import model_named, optimum_streams
from bayesfilt.infer.fit import Fit
from tests.infer.fits import fit_of

WALK = model_named("random_walk", noise="none")
# (drift scale, initial variance), so many that hardly two draws of a posterior are the same.
GRID = np.exp(np.random.default_rng(1).uniform(np.log([0.6, 0.5]), np.log([1.6, 12]), (3000, 2)))


def walks(num_streams=6, num_steps=14, seed=3):
    moves = np.random.default_rng(seed).normal(size=(num_streams, num_steps))
    moves[:, 0] *= 2
    return optimum_streams(np.cumsum(moves, axis=1))


def grid_densities(observed):
    """Log density of each step at each point of the grid, (points, streams, steps)."""
    drift, start = GRID[:, 0, None, None], GRID[:, 1, None, None]
    first = -0.5 * (np.log(2 * np.pi * start) + observed[None, :, :1] ** 2 / start)
    moves = np.diff(observed, axis=1)[None]
    later = -0.5 * (np.log(2 * np.pi * drift**2) + moves**2 / drift**2)
    return np.concatenate([first, later], axis=2)


def predictive(seen, new):
    """Log of the mean of exp(new) over the grid's posterior given `seen`, (points,) each."""
    return logsumexp(seen + new) - logsumexp(seen)


def grid_fit(streams, num_seen=None, *, seed=0, number=1000, chains=4) -> Fit:
    """Independent draws of the grid's posterior of the first `num_seen` steps."""
    density = grid_densities(np.asarray(streams.observed))
    seen = density[:, :, :num_seen].sum(axis=(1, 2))
    weights = np.exp(seen - logsumexp(seen))
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(GRID), size=(chains, number), p=weights / weights.sum())
    draws = {
        "drift_scale": GRID[chosen, 0][..., None],
        "initial_variance": GRID[chosen, 1][..., None],
    }
    return fit_of(WALK, streams, draws, density=density[chosen])
