"""What a scalar tracker of constant gain errs by, and the law of its best gain."""

import numpy as np
from jaxtyping import Float


def mean_square_error(
    gain: Float[np.ndarray, " gains"], drift: float, *, wanders: bool
) -> Float[np.ndarray, " gains"]:
    """Of a tracker with constant gain K, noise of variance 1, before each observation.

    Each step multiplies the distance by 1 - K, adds K times the noise, then moves the optimum by
    `drift`: at random, (K^2 + q)/(1 - (1 - K)^2), or always the same way, a lag of drift/K.
    """
    forgotten = 1 - (1 - gain) ** 2
    noise = gain**2 / forgotten
    return noise + (drift**2 / forgotten if wanders else (drift / gain) ** 2)


def law_of(*, wanders: bool) -> float:
    """Slope of the best gain's logarithm on that of a slow drift: 1 of a walk, 2/3 of a turn."""
    gains, drifts = np.geomspace(1e-4, 0.3, 20_001), np.array([1e-4, 1e-3])
    best = [gains[np.argmin(mean_square_error(gains, each, wanders=wanders))] for each in drifts]
    return float(np.polyfit(np.log(drifts), np.log(best), 1)[0])
