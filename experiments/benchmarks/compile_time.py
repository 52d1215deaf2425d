"""Compile time on a tree of a thousand tiny leaves: filters against `optax.adamw`.

    python -m experiments.benchmarks.compile_time [--leaves 1000] [--rounds 3]

Tracing, lowering and compiling one step; a fresh function each time, so nothing is cached.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.optimizer_step import contenders
from experiments.benchmarks.timing import report


def compile_seconds(optimizer: optax.GradientTransformation, params: dict) -> float:
    """Seconds from a Python function to a compiled step."""

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    start = time.perf_counter()
    jax.jit(step).lower(params, state, params).compile()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    params = {f"leaf_{index}": jnp.ones(3) for index in range(arguments.leaves)}
    times = {name: [] for name in contenders()}
    for _ in range(arguments.rounds):
        for name, optimizer in contenders().items():
            times[name].append(compile_seconds(optimizer, params))
    print(f"{arguments.leaves:,} leaves of 3 weights: trace, lower and compile one step")
    report({name: np.asarray(values) for name, values in times.items()}, "optax.adamw")


if __name__ == "__main__":
    main()
