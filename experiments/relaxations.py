"""How long a variance takes to a new level: from its course alone, or by its own precision."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfilt.theory import fixed_point_variance

LEFT = float(np.exp(-1))  # of the way
RISE = float(np.arctanh(1 - LEFT))  # 0.745: of tanh, until so much is left


def relaxation_time(course: Float[np.ndarray, " steps"]) -> float:
    """Steps until 1/e of the way is left, from entry 0 to the mean of the last quarter.

    Entry 0 is the level before the jump. By a line between two steps; NaN if never.
    """
    level = course[-max(1, len(course) // 4) :].mean()
    left = (level - course) / (level - course[0])
    there = np.flatnonzero(left <= LEFT)
    if not there.size or not np.isfinite(left).all():
        return float("nan")
    after = int(there[0])
    return float(after - (LEFT - left[after]) / (left[after - 1] - left[after]))


def own_times(
    course: Float[np.ndarray, " steps"],
    precision: Float[np.ndarray, " smoothed"],
    drift_scale: float,
    prior: float,
) -> tuple[float, float]:
    """Steps until 1/e of the way to a level that moves is left: those made, and those due.

    Both distances are shares of the fixed point's variance at the precision of the step. A share
    rises as a tanh of the sum of eta sqrt(h), if h changes slowly. NaN where it never does.

    Args:
        course: variances, entry 0 before the restart.
        precision: running means of whole windows; the first holds before its middle, too.
        drift_scale: after the restart.
        prior: stationary variance.
    """
    before = (len(course) - 1 - len(precision)) // 2
    h = np.pad(precision, (before, 0), mode="edge")
    level = np.asarray(fixed_point_variance(jnp.asarray(h), drift_scale, prior), float)
    start = course[0] / level[0]
    if not 0 <= start < 1:
        return float("nan"), float("nan")
    goal = 1 - LEFT * (1 - start)
    waited = np.cumsum(drift_scale * np.sqrt(h)) - (np.arctanh(goal) - np.arctanh(start))
    there = [np.flatnonzero(each >= 0) for each in (course[1 : 1 + len(h)] / level - goal, waited)]
    made, due = (float(each[0] + 1) if each.size else float("nan") for each in there)
    return made, due
