"""The joint Gaussian of a whole stream, written out in NumPy: no filter, no recursion backwards.

The covariance of the optima of all steps comes from the transition's matrix powers, that of what is
observed from it, and what is expected of a step from conditioning on all earlier ones at once.
"""

import numpy as np
import scipy.linalg
import scipy.stats


def optimum_law(model, numbers, steps):
    """Mean [steps] and covariance [steps, steps] of one stream's optima."""
    times = np.arange(steps)
    if model.transition in ("static", "random_walk", "l2"):
        move = numbers.get("drift_scale", 0.0) ** 2
        return np.zeros(steps), numbers["initial_variance"] + move * np.minimum.outer(times, times)
    rate = numbers["drift_scale"] ** 2 / numbers["stationary_variance"]
    kept, move = np.exp(-rate / 2), numbers["stationary_variance"] * -np.expm1(-rate)
    gaps = np.abs(np.subtract.outer(times, times))
    if model.transition != "velocity":
        mean = np.full(steps, numbers.get("towards", 0.0))
        law = numbers["stationary_variance"] * kept**gaps
        if model.transition == "shrinking_walk":  # where it began is forgotten like all else
            excess = numbers["initial_variance"] - numbers["stationary_variance"]
            law += excess * np.outer(kept**times, kept**times)
        return mean, law
    slow = 1 - numbers["velocity_shrink"]
    matrix = np.array([[kept, 1.0], [0.0, slow]])
    noise = np.diag([move, numbers["velocity_drift_scale"] ** 2])
    law = scipy.linalg.solve_discrete_lyapunov(matrix, noise)
    later = [np.linalg.matrix_power(matrix, int(gap)) @ law for gap in times]
    return np.zeros(steps), np.array([[later[gap][0, 0] for gap in row] for row in gaps])


def observed_law(model, numbers, kind, precision, taken_at):
    """Mean and covariance of one stream's observations, and what they do to the optima: y = A w."""
    mean, covariance = optimum_law(model, numbers, len(precision))
    if kind == "optimum":
        noise = np.full(len(precision), numbers.get("measurement_variance", 0.0))
        return mean, covariance, covariance + np.diag(noise)
    noise = numbers.get("noise_ratio", 1.0) * precision
    shared = -covariance * precision  # of optima (rows) and gradients
    return (
        precision * (taken_at - mean),
        shared,
        covariance * np.outer(precision, precision) + np.diag(noise),
    )


def step_log_densities(model, numbers, kind, observed, precision, taken_at, seen):
    """Log density of each seen observation given all earlier ones; 0 elsewhere. One stream."""
    steps = len(observed)
    mean, shared, covariance = observed_law(model, numbers, kind, precision, taken_at)
    _, latent = optimum_law(model, numbers, steps)
    given, value = mean * 0.0 + observed, seen.copy()
    if model.transition == "l2":  # after each step the optimum is seen at 0, with variance 1/λ
        order = [i for t in range(steps) for i in (t, steps + t)]
        mean = np.concatenate([mean, np.zeros(steps)])[order]
        prior = latent + np.eye(steps) / numbers["penalty"]
        covariance = np.block([[covariance, shared.T], [shared, prior]])[np.ix_(order, order)]
        given = np.concatenate([observed, np.zeros(steps)])[order]
        value = np.concatenate([seen, np.ones(steps, bool)])[order]
    terms = np.zeros(len(given))
    for t in np.flatnonzero(value):
        past = np.flatnonzero(value[:t])
        gain = np.linalg.solve(covariance[np.ix_(past, past)], covariance[past, t])
        expected = mean[t] + gain @ (given[past] - mean[past])
        variance = covariance[t, t] - gain @ covariance[past, t]
        terms[t] = scored(model, numbers, given[t] - expected, variance)
    return terms[::2] if model.transition == "l2" else terms


def scored(model, numbers, surprise, variance):
    """Log density of one surprise."""
    if model.tails == "gaussian":
        return scipy.stats.norm.logpdf(surprise, scale=np.sqrt(variance))
    nu = numbers["degrees_of_freedom"]
    return scipy.stats.t.logpdf(surprise, nu, scale=np.sqrt(variance * (nu - 2) / nu))
