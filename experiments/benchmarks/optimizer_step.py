"""Cost of one optimizer step on one big array: filters against `optax.adamw`.

    python -m experiments.benchmarks.optimizer_step [--weights 16000000] [--rounds 25]

Buffers are donated and all contenders run interleaved in one process. Each reads and writes
the weights, the gradient and two numbers of state per weight, so the ratio should be near 1.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bayesfilt.optimizers import adabayes, adabayes_fixed_point, steady_state
from experiments.benchmarks.timing import interleaved, report


def contenders() -> dict[str, optax.GradientTransformation]:
    """AdamW and the filters it is compared with, at one setting of the dictionary."""
    return {
        "optax.adamw": optax.adamw(1e-3, weight_decay=0.1),
        "adabayes_fixed_point": adabayes_fixed_point(1e-3, 5e-3, batch_size=64),
        "adabayes": adabayes(1e-3, 5e-3, batch_size=64),
        "steady_state": steady_state(1e-3, 5e-3, batch_size=64),
    }


def stepper(optimizer: optax.GradientTransformation, num_weights: int) -> Callable[[], object]:
    """A call that takes one step, its own buffers donated and kept between calls."""

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    key, params_key = jax.random.split(jax.random.key(0))
    params = jax.random.normal(params_key, (num_weights,), jnp.float32)
    gradient = 1e-3 * jax.random.normal(key, (num_weights,), jnp.float32)
    held = {"params": params, "state": optimizer.init(params)}
    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run():
        held["params"], held["state"] = compiled(held["params"], held["state"], gradient)
        return held["params"]

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=16_000_000)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    print(f"{arguments.weights:,} float32 weights on {jax.devices()[0].device_kind}")
    runs = {name: stepper(tx, arguments.weights) for name, tx in contenders().items()}
    report(interleaved(runs, rounds=arguments.rounds), "optax.adamw")


if __name__ == "__main__":
    main()
