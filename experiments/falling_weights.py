"""Weights on their way to zero: when they pass a level, how fast, and by which law of their size.

Arrays of weights stand as (..., records, weights); a share is a size over the first size.
"""

import numpy as np

from bayesfilt.records import Group, variable

_LONG = 100  # first sizes in learning rates: shorter ways have too few steps to be measured


def dead_inputs(inputs: np.ndarray) -> np.ndarray:
    """Which numbers of an example are zero in every example."""
    return np.all(inputs.reshape(len(inputs), -1) == 0, axis=0)


def steps_to(step: np.ndarray, share: np.ndarray, level: float) -> np.ndarray:
    """When each weight (last axis) first falls to `level`; linear between records, or NaN."""
    fallen = share <= level
    after = np.argmax(fallen, axis=-2)
    known = fallen.any(axis=-2) & (after > 0)
    after = np.maximum(after, 1)
    high, low = (
        np.take_along_axis(share, place[..., None, :], axis=-2)[..., 0, :]
        for place in (after - 1, after)
    )
    way = np.where(high > low, (high - level) / np.where(high > low, high - low, 1), 0)
    return np.where(known, step[after - 1] + way * (step[after] - step[after - 1]), np.nan)


def first_rate(step: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mean rate over the first tenth of the way to zero, as a share of the first size."""
    return 0.1 / steps_to(step, share, 0.9)


def rate_exponent(step: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The p of a rate that goes like size^p: 0 of a straight line, 1 of an exponential.

    From the first tenth of the way, whose middle is at 0.95, and the tenth around 0.5.
    """
    halfway = 0.1 / (steps_to(step, share, 0.45) - steps_to(step, share, 0.55))
    return np.log(halfway / first_rate(step, share)) / np.log(0.5 / 0.95)


def falling_numbers(
    step: np.ndarray, weights: np.ndarray, ends: dict[str, np.ndarray], settings, num_dead: int
) -> Group:
    """Rates and courses of weights (settings, seeds, records, weights), medians over weights."""
    rate, coefficient, b2 = np.array(settings).T
    first = np.abs(weights[..., :1, :])
    share = np.abs(weights) / first
    far = first[..., 0, :] > _LONG * rate[:, None, None]
    per_step = first_rate(step, share) * first[..., 0, :] / rate[:, None, None]
    with np.errstate(divide="ignore"):  # a weight that is lost to rounding
        log_share = np.log(share[..., -1, :])
    lost_per_step = -np.expm1(log_share / step[-1])
    dims = ("setting", "seed")
    return {
        "learning_rate": variable("setting", rate),
        "coefficient": variable("setting", coefficient),
        "b2": variable("setting", b2),
        "step": variable("step", step, units="steps"),
        "dead_inputs": variable((), np.array(num_dead)),
        "first_rate": variable(dims, _median(per_step, far), units="learning rates per step"),
        "exponent": variable(dims, _median(rate_exponent(step, share), far), units="1"),
        "lost_per_step": variable(dims, np.median(lost_per_step, axis=-1), units="1/step"),
        "whole": variable(dims, np.all(share[..., -1, :] > 0, axis=-1)),
        "largest_move": variable(
            dims, np.abs(weights - weights[..., :1, :]).max(axis=(-2, -1)), units="weight"
        ),
        "course": variable((*dims, "step"), np.median(share, axis=-1), units="1"),
        "first_size": variable(dims, np.median(first[..., 0, :], axis=-1), units="weight"),
        **{name: variable(dims, values, units="1") for name, values in ends.items()},
    }


def _median(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Median of the chosen weights whose value is known, if that is most of them; else NaN."""
    found = np.full(values.shape[:-1], np.nan)
    for place in np.ndindex(found.shape):
        here = values[place][chosen[place]]
        known = here[np.isfinite(here)]
        if known.size > 0.5 * here.size:
            found[place] = np.median(known)
    return found
