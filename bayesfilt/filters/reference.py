"""The slow literal twin: the same filters written from the textbook, in NumPy float64.

One weight and one step at a time, with the Kalman filter's own names for things: an
observation y = c w* + offset + noise, a gain, a predicted observation. It uses none of the
simplifications that make the fast filters fast (that the gain is the posterior variance, that
a gradient can be re-based) and shares no line of code with them. Tests compare the two;
nothing else should call it.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class ReferenceStream(NamedTuple):
    """Every number along a stream: [steps, ...weights] unless said otherwise."""

    predicted_mean: np.ndarray
    predicted_variance: np.ndarray
    conditioned_mean: np.ndarray
    conditioned_variance: np.ndarray
    innovation_mean: np.ndarray
    innovation_variance: np.ndarray
    last_mean: np.ndarray  # [...weights], before the gradient after the end
    last_variance: np.ndarray
    log_likelihood: float  # of all weights, in nats


def reference_filter_stream(
    gradient: Any,
    precision: Any,
    taken_at: Any,
    valid: Any,
    mean: Any,
    variance: Any,
    drift_scale: float,
    stationary_variance: float,
    *,
    settled: bool = False,
) -> ReferenceStream:
    """Filter a stream of one array of weights, weight by weight and step by step.

    Args:
        gradient: [steps, ...weights], of the summed negative log likelihood.
        precision: [steps, ...weights], h >= 0.
        taken_at: [steps, ...weights], or None where each was taken at the predicted mean.
        valid: [steps] booleans.
        mean: [...weights], before the first gradient.
        variance: [...weights].
        drift_scale: standard deviation of the optimum's move.
        stationary_variance: may be infinite.
        settled: the steady-state filter's twin; slow, it repeats the recursion to rest.
    """
    gradient = np.asarray(gradient, dtype=np.float64)
    precision = np.asarray(precision, dtype=np.float64)
    steps, weights = gradient.shape[0], gradient.shape[1:]
    path = {name: np.zeros((steps, *weights)) for name in ReferenceStream._fields[:6]}
    last = {"last_mean": np.zeros(weights), "last_variance": np.zeros(weights)}
    log_likelihood = 0.0
    for weight in np.ndindex(*weights):
        m = float(np.asarray(mean)[weight])
        v = float(np.asarray(variance)[weight])
        for t in range(steps):
            at = (t, *weight)
            path["predicted_mean"][at], path["predicted_variance"][at] = m, v
            h = float(precision[at])
            if valid[t] and h != 0:
                place = m if taken_at is None else float(np.asarray(taken_at)[at])
                # g = h (place - w*) + noise of variance h
                c, offset, noise = -h, h * place, h
                surprise = float(gradient[at]) - (c * m + offset)
                spread = c * v * c + noise
                log_likelihood -= 0.5 * math.log(2 * math.pi * spread)
                log_likelihood -= 0.5 * surprise * surprise / spread
                path["innovation_mean"][at] = surprise
                path["innovation_variance"][at] = spread
                if settled:
                    v = settled_predicted_variance(h, v, drift_scale, stationary_variance)
                    spread = c * v * c + noise
                gain = v * c / spread
                m = m + gain * surprise
                v = (1 - gain * c) * v * (1 - gain * c) + gain * noise * gain  # Joseph's form
            path["conditioned_mean"][at], path["conditioned_variance"][at] = m, v
            m, v = reference_predict(m, v, drift_scale, stationary_variance)
        last["last_mean"][weight], last["last_variance"][weight] = m, v
    return ReferenceStream(**path, **last, log_likelihood=log_likelihood)


def reference_predict(
    mean: float, variance: float, drift_scale: float, stationary_variance: float
) -> tuple[float, float]:
    """Mean and variance one step later, of one weight."""
    if math.isinf(stationary_variance):
        return mean, variance + drift_scale * drift_scale
    kept = math.exp(-drift_scale * drift_scale / (2 * stationary_variance))
    added = -stationary_variance * math.expm1(-drift_scale * drift_scale / stationary_variance)
    return kept * mean, kept * kept * variance + added


def settled_predicted_variance(
    precision: float, variance: float, drift_scale: float, stationary_variance: float
) -> float:
    """Predicted variance at which the recursion rests if this precision came for ever."""
    for _ in range(1_000_000):
        absorbed = 1 / (1 / variance + precision)
        _, following = reference_predict(0.0, absorbed, drift_scale, stationary_variance)
        if following == variance:
            return variance
        variance = following
    return variance
