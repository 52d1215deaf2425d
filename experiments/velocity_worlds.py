"""Optima with a velocity: the filter that knows of it as an optimizer, and what it gains.

A group of a record has, over `world`, `share` (reach of the velocity over that of the drift) and
`shrink` (its loss per step), and the errors of trackers at their settings, seeds last.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import Interval, median_over_seeds
from bayesfilt.filters import velocity_filter
from bayesfilt.records import Group
from bayesfilt.theory import OrnsteinUhlenbeck
from experiments.coordinates import interval_over_seeds


def filter_steps(
    shrink: Array | float, share: Array, precision: float
) -> optax.GradientTransformation:
    """The velocity filter, told drift and precision, as an optimizer of one vector."""
    transition = OrnsteinUhlenbeck(drift_scale=1.0, stationary_variance=jnp.inf)
    kalman = velocity_filter(
        transition, velocity_shrink=shrink, velocity_drift_scale=share * shrink
    )

    def init(params: Any) -> Any:
        return kalman.init(params, 0.0, 0.0)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        after = kalman.predict(kalman.condition(state, updates, jnp.full_like(updates, precision)))
        return after.mean - params, after

    return optax.GradientTransformation(init, update)


def optimum_paths(
    key: PRNGKeyArray, share: float, shrink: float, noise: float, shape: tuple[int, int, int]
) -> Float[np.ndarray, "seeds steps weights"]:
    """Where optima with this velocity are seen, when their drift alone moves them by 1 a step.

    Args:
        key: of all random numbers.
        share: reach of the velocity over that of the drift; 0: a random walk.
        shrink: of the velocity in one step, which has been going for ever.
        noise: deviation of where one is seen from where it is, over that of its steps.
        shape: of what is returned.
    """
    names = ("start", "moved", "shaken", "seen")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    moved, shaken, seen = (
        np.asarray(jax.random.normal(keys[name], shape), np.float64) for name in names[1:]
    )
    spread = share * shrink / np.sqrt(1 - (1 - shrink) ** 2)
    velocity = spread * np.asarray(jax.random.normal(keys["start"], shape[::2]), np.float64)
    steps = np.empty(shape)
    for step in range(shape[1]):
        steps[:, step] = moved[:, step] + velocity
        velocity = (1 - shrink) * velocity + share * shrink * shaken[:, step]
    return np.cumsum(steps, axis=1) + noise * np.sqrt(1 + spread**2) * seen


def lowest(errors: np.ndarray) -> float:
    """Logarithm of the lowest median over seeds of any cell; seeds last."""
    return float(np.log(np.min(median_over_seeds(errors))))


def over_constant(
    worlds: Group, field: str, row: int, *, only: int | None = None, log: bool = False
) -> Interval:
    """Lowest error of a tracker over that of the best constant gain, in one world.

    Args:
        worlds: their group.
        field: the tracker's errors.
        row: of the world.
        only: place of one b1; None: the best of those above 0.
        log: the logarithm of it.
    """
    constant = worlds["running_mean"].values[row, 0]
    errors = worlds[field].values[row]
    if errors.ndim == 3:
        errors = errors[1:] if only is None else errors[only]
    flat = errors.reshape(-1, errors.shape[-1])
    count = len(flat)
    both = np.concatenate([flat, constant])

    def ratio(drawn: np.ndarray) -> float:
        found = lowest(drawn[:count]) - lowest(drawn[count:])
        return found if log else float(np.exp(found))

    return interval_over_seeds(ratio, both)


def worlds_of(worlds: Group) -> list[tuple[float, float]]:
    """Reach of the velocity over that of the drift, and its loss per step, of every world."""
    return list(zip(worlds["share"].values, worlds["shrink"].values, strict=True))


def names_of(worlds: Group) -> list[str]:
    """Every world in words."""
    return [
        f"velocity of {1 / shrink:g} steps" if share else "no velocity"
        for share, shrink in worlds_of(worlds)
    ]


def constant_at_edge(worlds: Group, row: int) -> bool:
    """Whether the best constant gain of a world is the first or last of its grid."""
    medians = median_over_seeds(worlds["running_mean"].values[row, 0])
    return int(np.argmin(medians)) in (0, len(medians) - 1)


def momentum_at_edge(worlds: Group, field: str, row: int) -> bool:
    """Whether a tracker's best has the first or last rate, or the highest b1; b1 = 0 is apart."""
    medians = median_over_seeds(worlds[field].values[row, 1:])
    b1, rate = np.unravel_index(np.argmin(medians), medians.shape)
    highest = len(medians) > 1 and b1 == len(medians) - 1
    return bool(highest or rate in (0, medians.shape[1] - 1))
