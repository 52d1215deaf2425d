"""Runs on small surfaces: many worlds, rates and seeds at once; escapes, floors, best rates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesfilt.simulate import simulate
from experiments.contract import Verdict, judged, not_judged
from experiments.coordinates import interval_over_seeds

_LEFT = 0.1  # of the saddle's height


def escape_step(height: np.ndarray, saddle: float) -> np.ndarray:
    """The first step from which the height (steps last) stays low; inf if it never does."""
    high = ~(height <= _LEFT * saddle)  # a run that diverged is not low
    last = height.shape[-1] - np.argmax(high[..., ::-1], axis=-1)
    return np.where(high.any(axis=-1), np.where(last == height.shape[-1], np.inf, last), 0.0)


def simulated(
    make: Callable[[Any], optax.GradientTransformation],
    tasks: list[Any],
    rates: np.ndarray,
    seeds: np.ndarray,
    num_steps: int,
    probes: dict,
) -> dict[str, Any]:
    """Records of all tasks, rates and seeds, in this order of axes."""

    def one(task: Any, rate: Any, seed: Any) -> dict:
        return simulate(jax.random.key(seed), task, make(rate), num_steps, probes=probes).records

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    found = jax.jit(over)(stacked, jnp.asarray(rates), jnp.asarray(seeds))
    return jax.tree.map(np.asarray, found)


def best_escape(escape: np.ndarray) -> float:
    """Median over seeds at the fastest rate; escapes over (rate, seed)."""
    return float(np.min(np.quantile(escape, 0.5, axis=-1, method="inverted_cdf")))


def best_at_edge(escape: np.ndarray) -> bool:
    """Whether the fastest rate is the first or last, and some rate leaves at all."""
    medians = np.quantile(escape, 0.5, axis=-1, method="inverted_cdf")
    return bool(np.isfinite(medians).any()) and int(np.argmin(medians)) in (0, len(medians) - 1)


def sooner(claim: str, first: np.ndarray, second: np.ndarray, high: float) -> Verdict:
    """Whether the first escapes sooner, each at its own best rate; (rate, seed)."""

    def gap(pair: np.ndarray) -> float:
        one, other = best_escape(pair[0]), best_escape(pair[1])
        if np.isinf(one) and np.isinf(other):
            return float("nan")
        with np.errstate(divide="ignore"):
            return float(np.log(one) - np.log(other))

    found = judged(
        claim,
        interval_over_seeds(gap, np.stack([first, second])),
        high=high,
        tolerance="log ratio of the medians over seeds; 90 % bootstrap over paired seeds",
    )
    loser = second if found.holds else first
    if found.holds is not None and best_at_edge(loser):
        return not_judged(found, "with the loser's best rate at the edge of its rates")
    return found


def floor_power(rates: np.ndarray, distance: np.ndarray) -> float:
    """Power of the rate in the floor; distances over (rate, seed)."""
    return float(np.polyfit(np.log(rates), np.log(np.median(distance, axis=-1)), 1)[0])


def best_rate(rates: np.ndarray, distance: np.ndarray) -> float:
    """Where a parabola through the lowest distance and its neighbours is lowest, or NaN."""
    height, x = np.log(np.median(distance, axis=-1)), np.log(rates)
    place = int(np.argmin(height))
    if place in (0, len(rates) - 1):
        return float("nan")
    near = slice(place - 1, place + 2)
    second, first, _ = np.polyfit(x[near] - x[place], height[near], 2)
    return float(np.exp(x[place] - first / (2 * second)))


def along_and_across(task: Any, view: Any) -> dict:
    """Step and gradient along a ravine's floor and across it; a probe."""
    del task
    x = view.params[0]
    floor = jnp.stack([jnp.ones_like(x), 2 * x]) / jnp.sqrt(1 + 4 * x**2)
    wall = jnp.stack([-floor[1], floor[0]])
    return {
        "step": jnp.stack([floor @ view.updates, wall @ view.updates]),
        "gradient": jnp.stack([floor @ view.gradient, wall @ view.gradient]),
    }


def mean_step(ratio: np.ndarray) -> np.ndarray:
    """Adam's mean step at a signal-to-noise ratio, in learning rates; long memory of squares."""
    return ratio / np.sqrt(1 + ratio**2)
