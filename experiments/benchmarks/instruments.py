"""Cost of recording streams: chosen weights of the digits network, at every step of a window.

    python -m experiments.benchmarks.instruments [--weights 128] [--steps 600] [--warm-up 300]

Wall time of whole runs, compiling included, with no instrument, each one alone and all of them.
CPU time stands beside it: on a busy machine only that means anything. Float64, minibatches of
32, a fixed batch of 512.
"""

import argparse
import time
from collections.abc import Sequence

import jax
import numpy as np
import optax

from bayesfilt.compare import choose_weights, record_streams
from bayesfilt.compare.record_streams import fields_of
from bayesfilt.tasks import make_task

OPTIMIZER = optax.adamw(1e-3, weight_decay=0.1)


def cost(which: Sequence[str], arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Wall and CPU seconds of one run, and the fraction of optima that are valid."""
    task = make_task("digits-mlp", batch_size=32, dtype=arguments.dtype)
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    chosen = choose_weights(jax.random.key(1), shapes, total=arguments.weights)
    wall, cpu = time.perf_counter(), time.process_time()
    streams = record_streams(
        jax.random.key(0),
        task,
        OPTIMIZER,
        arguments.steps,
        chosen=chosen,
        warm_up_steps=arguments.warm_up,
        which=which,
        batch=arguments.examples,
    )
    valid = np.nan if streams.optimum_valid is None else streams.optimum_valid.mean()
    return time.perf_counter() - wall, time.process_time() - cpu, float(valid)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=128)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--warm-up", type=int, default=300)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--dtype", default="float64")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    task = make_task("digits-mlp", batch_size=32, dtype=arguments.dtype)
    everything = fields_of(task, OPTIMIZER)
    print(f"{arguments.weights} weights, {arguments.steps} steps, {arguments.dtype}")
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}{'valid':>9}")
    for which in ((), *((name,) for name in everything), everything):
        wall, cpu, valid = cost(which, arguments)
        label = "all" if len(which) > 1 else ", ".join(which) or "weights only"
        print(f"{label:28}{wall:9.1f}{cpu:9.1f}{valid:9.2f}", flush=True)


if __name__ == "__main__":
    main()
