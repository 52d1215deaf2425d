"""Sweeps of the digits MLP on a GPU, thousands of runs at once, and the update of 100M weights.

    python -m experiments.benchmarks.sweep_gpu [--out experiments/benchmarks/results/sweep_gpu.json]

Digits, MLP 64-64-10, minibatches of 64, AdamW, float32, products at full precision, as
`bayesfilt sweep run` has them. Steps per second of one chunk at every width; the update's share
of measured copy bandwidth; a sweep of 10,000 runs by the sweep's own engine, width measured,
chunks written to a folder that is thrown away. Without a GPU it says so in one line.
"""

import argparse
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bayesfilt.atomic_files import write_text_atomically
from bayesfilt.simulate.run_sweep import run_sweep
from bayesfilt.simulate.sweep_chunk import build_program, execute_chunk
from bayesfilt.simulate.sweep_plan import chunks_of
from experiments.benchmarks.gpu import copy_bandwidth, update_rates
from experiments.benchmarks.sweep_throughput import STEP_FLOPS, plan_for, sweep_of, verdict
from experiments.benchmarks.timing import seconds

WEIGHTS = 100_000_000
BANDWIDTH_GOAL = 0.85
WIDTHS = "64,256,1024,4096,16384"


def rates_by_width(widths: list[int], num_steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Steps per second of all runs of a chunk together, its compilation not counted."""
    found = {}
    for width in widths:
        plan = plan_for(width, num_steps)
        program = build_program(plan.groups[0])
        chunk = chunks_of(plan, 0, width)[0]
        compiling = seconds(lambda p=program, c=chunk: execute_chunk(p, c).seconds)
        times = [execute_chunk(program, chunk).seconds for _ in range(rounds)]
        rate = len(chunk.runs) * num_steps / float(np.median(times))
        found[str(width)] = {
            "runs": len(chunk.runs),
            "steps_per_s": rate,
            "tflop_per_s": rate * STEP_FLOPS / 1e12,
            "first_call_s": compiling,
        }
        print(f"width {width:6}: {rate:14,.0f} steps/s")
    return found


def update_of(num_weights: int) -> dict[str, Any]:
    """One update of so many weights, beside the bandwidth of a copy on the same device."""
    bandwidth = copy_bandwidth()
    rates = update_rates(num_weights, bandwidth)
    for name, found in rates.items():
        share = found["share_of_copy_bandwidth"]
        goal = f"{verdict(share >= BANDWIDTH_GOAL)} {BANDWIDTH_GOAL:g}"
        print(f"{name}: {share:.2f} of copy bandwidth ({goal})")
    return {"weights": num_weights, "copy_bandwidth_bytes_per_s": bandwidth, "update": rates}


def whole_sweep(num_runs: int, num_steps: int) -> dict[str, Any]:
    """Wall time of a sweep from nothing to its last written chunk: plan, probe and compilation."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        outcome = run_sweep(sweep_of(num_runs, num_steps), Path(folder) / "sweep")
        wall = time.perf_counter() - begun
        (execution,) = outcome.store.executions
        runs = sum(len(chunk.runs) for chunk in outcome.store.chunks)
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(
        f"{runs:,} runs of {num_steps} steps: {wall:.1f} s, {runs * num_steps / wall:,.0f} steps/s"
    )
    return {
        "runs": runs,
        "num_steps": num_steps,
        "wall_s": wall,
        "steps_per_s": runs * num_steps / wall,
        "width": execution.width,
        "num_devices": execution.num_devices,
        "chunks": outcome.finished,
        "stored_bytes": stored,
    }


def main() -> None:
    """Measure and print; write the results where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default=WIDTHS)
    parser.add_argument("--num-steps", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--weights", type=int, default=WEIGHTS)
    parser.add_argument("--out", type=Path, help="a file for the results")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu":
        print(f"no GPU here (jax sees {device.device_kind}): nothing measured")
        return
    jax.config.update("jax_default_matmul_precision", "highest")
    widths = [int(width) for width in arguments.widths.split(",")]
    results = {
        "device": device.device_kind,
        "num_devices": len(jax.local_devices()),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "optax", "equinox", "numpy")},
        "num_steps": arguments.num_steps,
        "by_width": rates_by_width(widths, arguments.num_steps, arguments.rounds),
        "update_100M" if arguments.weights == WEIGHTS else "update": update_of(arguments.weights),
        "sweep": whole_sweep(arguments.runs, arguments.num_steps),
    }
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(arguments.out, json.dumps(results, indent=2) + "\n")
        print(f"results in {arguments.out}")


if __name__ == "__main__":
    main()
