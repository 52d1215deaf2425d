"""Everything at once, in NumPy: the joint Gaussian of all latents and all gradients.

No recursion in time. The latents of every step are one long vector, a linear map of the start and
of every shake; all gradients are conditioned on at one stroke.
"""

from typing import NamedTuple

import numpy as np


class DenseModel(NamedTuple):
    """z' = F z + N(0, Q), g ~ N(H (taken_at - C z), H), with d latents and n weights."""

    start_mean: np.ndarray  # [d]
    start_covariance: np.ndarray  # [d, d]
    move: np.ndarray  # F
    noise: np.ndarray  # Q
    shows: np.ndarray  # C, [n, d]: the optimum among the latents
    gradient: np.ndarray  # [steps, n]
    precision: np.ndarray  # [steps, n, n]
    taken_at: np.ndarray  # [steps, n]
    valid: np.ndarray  # [steps]


def prior(model):
    """Mean and covariance of the latents of all steps and of the one after the end."""
    steps, d = len(model.valid), len(model.start_mean)
    mix = np.eye((steps + 1) * d)
    for t in range(steps):
        mix[(t + 1) * d : (t + 2) * d] += model.move @ mix[t * d : (t + 1) * d]
    source = np.kron(np.eye(steps + 1), model.noise)
    source[:d, :d] = model.start_covariance
    return mix[:, :d] @ model.start_mean, mix @ source @ mix.T


def looks(model):
    """Every valid gradient as unit-noise looks: design, observed, log volume of the change."""
    steps, d = len(model.valid), len(model.start_mean)
    design, observed, volume = [np.zeros((0, (steps + 1) * d))], [np.zeros(0)], 0.0
    owner = [np.zeros(0, int)]
    for t in np.flatnonzero(model.valid):
        values, basis = np.linalg.eigh(model.precision[t])
        seen = values > 1e-9 * max(values.max(), 1e-300)
        root = basis[:, seen] * np.sqrt(values[seen])  # H = root rootᵀ
        rows = np.zeros((seen.sum(), (steps + 1) * d))
        rows[:, t * d : (t + 1) * d] = root.T @ model.shows
        back = (basis[:, seen] / np.sqrt(values[seen])).T
        surprise = model.precision[t] @ model.taken_at[t] - model.gradient[t]
        design.append(rows)
        observed.append(back @ surprise)
        owner.append(np.full(seen.sum(), t))
        volume += 0.5 * np.log(values[seen]).sum()
    return np.concatenate(design), np.concatenate(observed), volume, np.concatenate(owner)


def posterior(model, before=None):
    """Mean, covariance of all latents given the gradients before a step; log likelihood."""
    mean, covariance = prior(model)
    design, observed, volume, owner = looks(model)
    if before is not None:
        design, observed = design[owner < before], observed[owner < before]
    spread = design @ covariance @ design.T + np.eye(len(observed))
    gain = np.linalg.solve(spread, design @ covariance).T
    surprise = observed - design @ mean
    likelihood = -0.5 * (
        surprise @ np.linalg.solve(spread, surprise)
        + np.linalg.slogdet(spread)[1]
        + len(observed) * np.log(2 * np.pi)
    )
    rest = np.eye(len(mean)) - gain @ design
    after = rest @ covariance @ rest.T + gain @ gain.T
    return mean + gain @ surprise, after, likelihood - volume


def block(model, matrix, t, u=None):
    """Part of a joint mean or covariance that belongs to step t (and u)."""
    d = len(model.start_mean)
    rows = slice(t * d, (t + 1) * d)
    if matrix.ndim == 1:
        return matrix[rows]
    u = t if u is None else u
    return matrix[rows, u * d : (u + 1) * d]
