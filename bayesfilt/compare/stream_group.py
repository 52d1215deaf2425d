"""What streams say of the filter's assumptions, labelled: the group `instruments` of a record.

One row a weight for noise, curvature and drift, and a course over the window for every layer:
is the belief as sure as it may be? A filter's own variances are judged where they were recorded; of
any other optimizer with a learning rate its reading as a filter is, the fixed point of its
mean-square gradient.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfilt.compare.stream_numbers import (
    calibration,
    drift_variance,
    held_variance,
    lag_one_autocorrelation,
    log_slope,
    mean_over_steps,
    normalised_innovation_squared,
)
from bayesfilt.compare.streams import StreamRecord
from bayesfilt.records import Group, variable
from bayesfilt.theory import OrnsteinUhlenbeck, fixed_point_variance, transition_from_adamw

_POINTS = 60  # of a course over the window
_LEAST_POINTS = 8  # on a line whose slope is said
_DECAY = 0.999  # of the mean-square gradient, Adam's b2


class _Belief(NamedTuple):
    """Variances that the weights were held with, and whose they are."""

    variance: Float[np.ndarray, "steps weights"]
    whose: str


def instruments_group(streams: StreamRecord) -> Group:
    """Label what the fields that were recorded say; the rest is NaN."""
    blank = np.full(streams.weight.shape, np.nan)
    curvature = _first(streams.ggn, streams.curvature, blank)
    noise = _first(streams.noise_variance, blank)
    optimum = _first(streams.optimum, blank)
    per_weight = {
        "curvature": (
            mean_over_steps(curvature).value, "1/weight^2",
            "mean curvature of the summed minibatch loss: Gauss-Newton where recorded",
        ),
        "noise_variance": (
            mean_over_steps(noise).value, "1/weight^2", "mean variance of the summed gradient",
        ),
        "drift_variance": (
            drift_variance(optimum, streams.optimum_valid).value, "weight^2",
            "that one step adds to the coordinate optimum",
        ),
        "gradient_autocorrelation": (
            lag_one_autocorrelation(_first(streams.gradient, blank)).value, "1",
            "of neighbouring gradients; 0 where the gain is best",
        ),
    }  # fmt: skip
    slopes = {
        f"drift_slope{ending}": _slopes(streams, per_weight["drift_variance"][0], per_weight[on][0])
        for ending, on in (("", "curvature"), ("_on_noise", "noise_variance"))
    }
    group: Group = {
        "layer": variable("layer", list(streams.layer_names)),
        "layer_of": variable("weight", [streams.layer_names[place] for place in streams.layer]),
    }
    for name, (values, units, description) in per_weight.items():
        group[name] = variable("weight", values, units=units, description=description)
    for name, found in slopes.items():
        group[name] = variable(
            "layer", found[0], description="of log drift variance, by least squares"
        )
        group[f"{name}_error"] = variable("layer", found[1], description="standard error")
    return group | _courses(streams, curvature, optimum)


def _first(*fields: Float[np.ndarray, "..."] | None) -> Float[np.ndarray, "steps weights"]:
    return next(np.asarray(each, float) for each in fields if each is not None)


def _slopes(
    streams: StreamRecord,
    drift: Float[np.ndarray, " weights"],
    other: Float[np.ndarray, " weights"],
) -> tuple[list[float], list[float]]:
    """Slope of log drift variance on another logarithm in every layer, and its standard error."""
    slopes, errors = [], []
    for place in range(len(streams.layer_names)):
        found = log_slope(drift[streams.layer == place], other[streams.layer == place])
        enough = found.num_points >= _LEAST_POINTS
        slopes.append(found.slope if enough else np.nan)
        errors.append(found.standard_error if enough else np.nan)
    return slopes, errors


def _courses(
    streams: StreamRecord,
    curvature: Float[np.ndarray, "steps weights"],
    optimum: Float[np.ndarray, "steps weights"],
) -> Group:
    """Calibration and normalised innovation squared of every layer over the window."""
    belief = _belief(streams)
    squares = {
        "calibration": calibration(streams.weight, optimum, belief.variance, streams.optimum_valid),
        "innovation": normalised_innovation_squared(
            _first(streams.gradient, np.full(streams.weight.shape, np.nan)),
            curvature,
            belief.variance,
        ),
    }
    steps = len(streams.step)
    parts = np.array_split(np.arange(steps), min(_POINTS, steps))
    group: Group = {
        "step": variable("step", [float(streams.step[part].mean()) for part in parts]),
    }
    meaning = {
        "calibration": "(optimum - mean)^2 over the variance it was held with",
        "innovation": "gradient^2 over what was expected of it",
    }
    for name, values in squares.items():
        course = np.array(
            [
                [_spread(values[np.ix_(part, streams.layer == place)]) for part in parts]
                for place in range(len(streams.layer_names))
            ]
        ).reshape(len(streams.layer_names), len(parts), 3)
        for place, ending in enumerate(("", "_low", "_high")):
            group[name + ending] = variable(
                ("layer", "step"), course[:, :, place], units="1",
                description=meaning[name], variance=belief.whose,
            )  # fmt: skip
    return group


def _spread(values: Float[np.ndarray, "steps weights"]) -> tuple[float, float, float]:
    """Mean and middle half of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(known, [0.25, 0.75])
    return float(known.mean()), float(low), float(high)


def _belief(streams: StreamRecord) -> _Belief:
    """Variances before each step: the filter's own, or of an optimizer's reading as one."""
    blank = np.full(streams.weight.shape, np.nan)
    transition = _transition(streams)
    if transition is None:
        return _Belief(variance=blank, whose="not known: no learning rate was recorded")
    if streams.posterior_variance is not None:
        own = held_variance(streams.posterior_variance, transition)
        return _Belief(variance=own, whose="the filter's own")
    if streams.gradient is None:
        return _Belief(variance=blank, whose="not known: no gradients were recorded")
    reading = held_variance(_fixed_points(streams.gradient, transition), transition)
    return _Belief(variance=reading, whose="the fixed point of the mean-square gradient")


def _transition(streams: StreamRecord) -> OrnsteinUhlenbeck | None:
    rate, decay = streams.settings.get("learning_rate"), streams.settings.get("weight_decay")
    if not (isinstance(rate, int | float) and isinstance(decay, int | float) and rate > 0):
        return None
    return transition_from_adamw(rate, decay)


def _fixed_points(
    gradient: Float[np.ndarray, "steps weights"], transition: OrnsteinUhlenbeck
) -> Float[np.ndarray, "steps weights"]:
    """The fixed-point variance at Adam's running mean of squares since the window began."""
    total, weight, squares = np.zeros(gradient.shape[1]), 0.0, []
    for row in np.asarray(gradient, float):
        total = _DECAY * total + (1 - _DECAY) * row**2
        weight = _DECAY * weight + (1 - _DECAY)
        squares.append(total / weight)
    return np.asarray(fixed_point_variance(jnp.asarray(np.array(squares)), *transition))
