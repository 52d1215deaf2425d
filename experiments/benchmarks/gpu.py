"""Compare, shadow and the update of 16M and 100M weights on a GPU; writes a results file.

    python -m experiments.benchmarks.gpu [--out experiments/benchmarks/results]

Needs nothing but jax, optax, equinox, scikit-learn and NumPy beside this project. Without a GPU
it says so in one line.
"""

import argparse
import json
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bayesfilt.atomic_files import write_text_atomically
from bayesfilt.compare import run_study, update_agreement
from bayesfilt.optimizers import Setting, named_optimizer
from bayesfilt.simulate import shadow, simulate
from bayesfilt.tasks import make_task
from experiments.benchmarks.optimizer_step import contenders, stepper
from experiments.benchmarks.timing import interleaved, report, seconds

FOLLOWERS = ("adabayes_fixed_point", "adabayes", "adam_large_eps")
BATCH_SIZE, NUM_STEPS = 64, 2_000
BYTES_PER_WEIGHT = 28  # float32: weight, gradient, two moments read; weight, two moments written


def copy_bandwidth(num_bytes: int = 2**32, rounds: int = 10) -> float:
    """Bytes per second of a large device-to-device copy, read and written counted."""
    data = jnp.zeros(num_bytes // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    times = []
    for _ in range(rounds + 2):
        held = data + 0
        jax.block_until_ready(held)
        times.append(seconds(partial(copy, held)))
    return 2 * num_bytes / float(np.median(times[2:]))


def update_rates(num_weights: int, bandwidth: float) -> dict[str, dict[str, float]]:
    """Median step of every contender, its ratio to AdamW and its share of copy bandwidth."""
    runs = {name: stepper(tx, num_weights) for name, tx in contenders().items()}
    times = interleaved(runs, rounds=25)
    ratios = report(times, "optax.adamw")
    return {
        name: {
            "median_ms": 1e3 * float(np.median(values)),
            "ratio_to_adamw": ratios[name],
            "share_of_copy_bandwidth": BYTES_PER_WEIGHT
            * num_weights
            / float(np.median(values))
            / bandwidth,
        }
        for name, values in times.items()
    }


def training_rates() -> dict[str, float]:
    """Steps per second of a plain run and of a shadow with three followers, float64."""
    task = make_task("digits-mlp", batch_size=BATCH_SIZE, dtype="float64")
    setting = Setting(1e-3, 0.1, BATCH_SIZE, NUM_STEPS)
    adamw = named_optimizer("adamw", setting).optimizer
    followers = {name: named_optimizer(name, setting).optimizer for name in FOLLOWERS}
    plain = jax.jit(partial(simulate, optimizer=adamw, num_steps=NUM_STEPS, record_every=10))
    shadowed = jax.jit(
        partial(
            shadow,
            leader=adamw,
            followers=followers,
            num_steps=NUM_STEPS,
            measures={"agreement": update_agreement},
            record_every=10,
        )
    )
    key = jax.random.key(0)
    times = interleaved(
        {"simulate": lambda: plain(key, task), "shadow": lambda: shadowed(key, task)}, rounds=5
    )
    return {f"{name}_steps_per_s": NUM_STEPS / float(np.median(t)) for name, t in times.items()}


def comparison() -> dict[str, float]:
    """Wall time of a whole study of the digits MLP, compilation included."""
    task = make_task("digits-mlp", batch_size=BATCH_SIZE, dtype="float64")
    setting = Setting(1e-3, 0.1, BATCH_SIZE, NUM_STEPS)
    return {
        "study_s": seconds(
            lambda: run_study(jax.random.key(0), task, setting, FOLLOWERS, NUM_STEPS)
        )
    }


def main() -> None:
    """Measure, print and write `gpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu":
        print(f"no GPU here (jax sees {device.device_kind}): nothing measured")
        return
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    bandwidth = copy_bandwidth()
    results = {
        "device": device.device_kind,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "optax", "equinox", "numpy")},
        "copy_bandwidth_bytes_per_s": bandwidth,
        "update_16M": update_rates(16_000_000, bandwidth),
        "update_100M": update_rates(100_000_000, bandwidth),
        **training_rates(),
        **comparison(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(arguments.out / "gpu.json", json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
