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


class ReferenceVelocityStream(NamedTuple):
    """Every number along a stream: [steps, ...weights], then [2] or [2, 2] (position, velocity)."""

    predicted_mean: np.ndarray
    predicted_covariance: np.ndarray
    conditioned_mean: np.ndarray
    conditioned_covariance: np.ndarray
    innovation_mean: np.ndarray  # [steps, ...weights]
    innovation_variance: np.ndarray  # [steps, ...weights]
    last_mean: np.ndarray  # [...weights, 2], before the gradient after the end
    last_covariance: np.ndarray
    log_likelihood: float  # of all weights, in nats


def reference_velocity_stream(
    gradient: Any,
    precision: Any,
    taken_at: Any,
    valid: Any,
    mean: Any,
    covariance: Any,
    drift_scale: float,
    stationary_variance: float,
    velocity_shrink: float,
    velocity_drift_scale: float,
) -> ReferenceVelocityStream:
    """Filter position and velocity of one array of weights, with 2 x 2 matrices.

    Args:
        gradient: [steps, ...weights], of the summed negative log likelihood.
        precision: [steps, ...weights], h >= 0.
        taken_at: [steps, ...weights], or None where each was taken at the predicted position.
        valid: [steps] booleans.
        mean: [...weights, 2], position and velocity before the first gradient.
        covariance: [...weights, 2, 2].
        drift_scale: standard deviation of the position's own move.
        stationary_variance: may be infinite.
        velocity_shrink: fraction of the velocity forgotten per step.
        velocity_drift_scale: standard deviation of the velocity's move.
    """
    gradient = np.asarray(gradient, dtype=np.float64)
    precision = np.asarray(precision, dtype=np.float64)
    steps, weights = gradient.shape[0], gradient.shape[1:]
    move, noise = reference_velocity_motion(
        drift_scale, stationary_variance, velocity_shrink, velocity_drift_scale
    )
    shapes = [(2,), (2, 2)] * 2 + [(), ()]
    names = ReferenceVelocityStream._fields[:6]
    path = {
        name: np.zeros((steps, *weights, *shape)) for name, shape in zip(names, shapes, strict=True)
    }
    last_mean, last_covariance = np.zeros((*weights, 2)), np.zeros((*weights, 2, 2))
    log_likelihood = 0.0
    for weight in np.ndindex(*weights):
        m, s = np.asarray(mean)[weight], np.asarray(covariance)[weight]
        for t in range(steps):
            at = (t, *weight)
            path["predicted_mean"][at], path["predicted_covariance"][at] = m, s
            h = float(precision[at])
            if valid[t] and h != 0:
                place = float(m[0]) if taken_at is None else float(np.asarray(taken_at)[at])
                m, s, surprise, spread = reference_velocity_condition(
                    m, s, float(gradient[at]), h, place
                )
                log_likelihood -= 0.5 * math.log(2 * math.pi * spread)
                log_likelihood -= 0.5 * surprise * surprise / spread
                path["innovation_mean"][at] = surprise
                path["innovation_variance"][at] = spread
            path["conditioned_mean"][at], path["conditioned_covariance"][at] = m, s
            m, s = move @ m, move @ s @ move.T + noise
        last_mean[weight], last_covariance[weight] = m, s
    return ReferenceVelocityStream(
        **path,
        last_mean=last_mean,
        last_covariance=last_covariance,
        log_likelihood=log_likelihood,
    )


def reference_velocity_motion(
    drift_scale: float,
    stationary_variance: float,
    velocity_shrink: float,
    velocity_drift_scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix that moves (position, velocity) one step on, and the covariance it adds."""
    kept, added = 1.0, drift_scale * drift_scale
    if not math.isinf(stationary_variance):
        kept = math.exp(-added / (2 * stationary_variance))
        added = -stationary_variance * math.expm1(-added / stationary_variance)
    move = np.array([[kept, 1.0], [0.0, 1.0 - velocity_shrink]])
    return move, np.diag([added, velocity_drift_scale**2])


def reference_velocity_condition(
    mean: np.ndarray, covariance: np.ndarray, gradient: float, precision: float, place: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Mean and covariance [2], [2, 2] after a gradient; then the surprise, and its variance."""
    # g = h (place - w*) + noise of variance h, and nothing of the velocity
    c = np.array([-precision, 0.0])
    surprise = float(gradient - (c @ mean + precision * place))
    spread = float(c @ covariance @ c + precision)
    gain = covariance @ c / spread
    rest = np.eye(2) - np.outer(gain, c)
    covariance = rest @ covariance @ rest.T + precision * np.outer(gain, gain)  # Joseph's form
    return mean + gain * surprise, covariance, surprise, spread
