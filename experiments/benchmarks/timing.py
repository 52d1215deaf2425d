"""Interleaved timing: every contender runs once a round, so that a noisy machine is fair."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, to the end of its device work."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2
) -> dict[str, np.ndarray]:
    """Seconds of every contender in every round, after `warm_up` rounds that do not count."""
    for _ in range(warm_up):
        for run in contenders.values():
            seconds(run)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(seconds(run))
    return {name: np.asarray(values) for name, values in times.items()}


def report(times: Mapping[str, np.ndarray], baseline: str) -> dict[str, float]:
    """Print medians, spread and ratios to the baseline's median; return the ratios."""
    base = np.median(times[baseline])
    ratios = {name: float(np.median(values) / base) for name, values in times.items()}
    print(f"{'':28}{'median ms':>12}{'quartiles ms':>20}{'ratio':>9}")
    for name, values in times.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]) * 1e3
        print(f"{name:28}{middle:12.3f}{low:10.3f}{high:10.3f}{ratios[name]:9.3f}")
    return ratios
