"""AdaBayes and its fixed point fed with normal gradients: from both starts, and along schedules."""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.optimizers import adabayes, adabayes_fixed_point
from bayesfilt.records import Group, variable
from bayesfilt.theory import transient_from_zero, transient_variance
from experiments.fed_gradients import learning_rates, normal_gradients

COLD, WARM = "cold start", "warm start"
LINE, COSINE = "line", "cosine"
AHEAD = 1.5  # times the fixed point's steps: then the filter is behind its schedule


class FedFilters(Protocol):
    """What of an experiment's numbers is asked for here."""

    @property
    def drift_scale(self) -> float:
        """Before it is annealed."""
        ...

    @property
    def precisions(self) -> tuple[float, float, int]:
        """From, to, how many."""
        ...

    @property
    def first_variance(self) -> float:
        """Of the warm start."""
        ...

    @property
    def transient_steps(self) -> int:
        """Of a run from either start."""
        ...

    @property
    def annealed_steps(self) -> int:
        """Of a schedule."""
        ...

    @property
    def copies(self) -> int:
        """Of each weight, averaged."""
        ...

    @property
    def fed_seeds(self) -> int:
        """Of the gradients."""
        ...


def time_to(course: Float[np.ndarray, " steps"], level: float) -> float:
    """Steps until a course first crosses a level, by a line between two steps; NaN if never."""
    side = course > level
    crossed = np.flatnonzero(side != side[0])
    if not crossed.size:
        return float("nan")
    after = int(crossed[0])
    before, beyond = course[after - 1], course[after]
    return float(after + (level - before) / (beyond - before))  # index i is step i + 1


def half_times(course: Float[np.ndarray, "steps precisions"], start: str) -> np.ndarray:
    """Steps to half the settled rate from a cold start, to twice of it from a warm one."""
    settled = course[-len(course) // 10 :].mean(axis=0)
    factor = 0.5 if start == COLD else 2.0
    return np.array([time_to(each, factor * last) for each, last in zip(course.T, settled)])  # noqa: B905


def steps_behind(factor: Float[np.ndarray, " steps"]) -> float:
    """Steps before the end from which on the filter's steps stay well above the fixed point's."""
    held = np.flatnonzero(factor < AHEAD)
    return float(len(factor) - 1 - held[-1]) if held.size else float(len(factor))


def starts_group(config: FedFilters, key: PRNGKeyArray) -> Group:
    """Learning rates of AdaBayes from certainty and from ignorance, with their closed forms."""
    precision = np.geomspace(*config.precisions)
    step = jnp.arange(1, config.transient_steps + 1.0)[:, None]
    courses = []
    for stationary in (jnp.inf, config.first_variance):
        optimizer = adabayes(config.drift_scale, stationary, batch_size=1, b1=0.0, weight_decay=0.0)
        courses.append(
            _averaged(config, optimizer, jnp.asarray(precision), key, config.transient_steps)
        )
    eta, first = config.drift_scale, config.first_variance
    laws = [
        transient_from_zero(step, jnp.asarray(precision), eta),
        transient_variance(first, step, jnp.asarray(precision), eta, first),
    ]
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "learning_rate": variable(
            ("start", "step", "precision", "seed"), np.stack(courses).astype(float), units="weight²"
        ),
        "law": variable(
            ("start", "step", "precision"), np.stack(laws).astype(float), units="weight²"
        ),
    }


def annealed_group(config: FedFilters, key: PRNGKeyArray) -> Group:
    """The rate of AdaBayes over that of the fixed point, through both schedules."""
    precision, steps = np.geomspace(*config.precisions), config.annealed_steps
    schedules = {
        LINE: optax.linear_schedule(config.drift_scale, 0.0, steps),
        COSINE: optax.cosine_decay_schedule(config.drift_scale, steps),
    }
    memory = 1 / (config.drift_scale * np.sqrt(precision))
    last = np.arange(steps)[:, None] >= steps - memory
    factors, behind = [], []
    for name in schedules:
        rates = [
            _averaged(
                config,
                made(
                    schedules[name], config.first_variance, batch_size=1, b1=0.0, weight_decay=0.0
                ),
                jnp.asarray(precision),
                key,
                steps,
            ).astype(float)
            for made in (adabayes, adabayes_fixed_point)
        ]
        sums = [(rate * last[..., None]).sum(axis=0) for rate in rates]
        factors.append(sums[0] / sums[1])
        course = rates[0] / rates[1]
        behind.append([[steps_behind(each) for each in row] for row in np.moveaxis(course, 0, -1)])
    cells = ("schedule", "precision", "seed")
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "memories": variable("precision", steps / memory, units="1"),
        "last_factor": variable(cells, np.stack(factors), units="1"),
        "memories_behind": variable(cells, np.array(behind) / memory[:, None], units="1"),
    }


def _averaged(
    config: FedFilters,
    optimizer: optax.GradientTransformation,
    precision: Float[Array, " precisions"],
    key: PRNGKeyArray,
    num_steps: int,
) -> Float[np.ndarray, "steps precisions seeds"]:
    """Learning rates, harmonic mean over copies: what gradients add is precision."""

    @functools.partial(jax.jit, static_argnames="steps")
    def fed(key: PRNGKeyArray, steps: int) -> Array:
        shape = (precision.size, config.fed_seeds, config.copies)
        rms = jnp.broadcast_to(jnp.sqrt(precision)[:, None, None], shape)
        rates = learning_rates(optimizer, normal_gradients(key, rms), steps)
        return 1 / jnp.mean(1 / rates, axis=-1)

    return np.asarray(fed(key, num_steps))
