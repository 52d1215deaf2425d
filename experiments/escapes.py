"""Runs on small surfaces: many worlds, rates and seeds at once, and when they leave a saddle."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesfilt.simulate import simulate

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
) -> dict[str, np.ndarray]:
    """Records of all tasks, rates and seeds, in this order of axes."""

    def one(task: Any, rate: Any, seed: Any) -> dict:
        return simulate(jax.random.key(seed), task, make(rate), num_steps, probes=probes).records

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    found = jax.jit(over)(stacked, jnp.asarray(rates), jnp.asarray(seeds))
    return {name: np.asarray(values) for name, values in found.items()}


def best_escape(escape: np.ndarray) -> float:
    """Median over seeds at the fastest rate; escapes over (rate, seed)."""
    return float(np.min(np.quantile(escape, 0.5, axis=-1, method="inverted_cdf")))


def best_at_edge(escape: np.ndarray) -> bool:
    """Whether the fastest rate is the first or last, and some rate leaves at all."""
    medians = np.quantile(escape, 0.5, axis=-1, method="inverted_cdf")
    return bool(np.isfinite(medians).any()) and int(np.argmin(medians)) in (0, len(medians) - 1)
