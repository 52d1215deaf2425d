"""Powers and means of numbers that span decades."""

import numpy as np
from jaxtyping import Float


def power_of(x: Float[np.ndarray, " places"], y: Float[np.ndarray, " places"]) -> float:
    """The power with which y goes as x, by least squares over logarithms.

    Over what is finite and above 0; NaN of fewer than two such places.
    """
    known = np.isfinite(x) & np.isfinite(y)
    known[known] = (x[known] > 0) & (y[known] > 0)
    if known.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(x[known]), np.log(y[known]), 1)[0])


def geometric_mean(values: Float[np.ndarray, "..."]) -> float:
    """Of numbers above 0; NaN where there is a NaN, or none at all."""
    return float(np.exp(np.log(values).mean())) if values.size else float("nan")
