"""A run as one `lax.scan` against the same jitted step in a tight Python loop.

    python -m experiments.benchmarks.training_loop [--num-steps 2000] [--dtype float32]

The loop is as good as a Python loop gets: warm, keys split beforehand, state donated, nothing
read back. The shadow has three followers and measures agreement every ten steps.
"""

import argparse
from collections.abc import Callable
from functools import partial

import jax
import optax

from bayesfilt.compare import update_agreement
from bayesfilt.optimizers import Setting, named_optimizer
from bayesfilt.simulate import shadow, simulate
from bayesfilt.tasks import Task, make_task
from experiments.benchmarks.timing import interleaved, report

FOLLOWERS = ("adabayes_fixed_point", "adabayes", "adam_large_eps")
BATCH_SIZE = 64


def python_loop(task: Task, optimizer: optax.GradientTransformation, num_steps: int):
    """Training as most people write it, at its fastest."""

    @partial(jax.jit, donate_argnums=(2, 3))
    def step(task, key, params, opt_state):
        gradient = jax.grad(task.loss)(params, task.sample_batch(key, 0))
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    init_key, batch_key = jax.random.split(jax.random.key(0))
    keys = list(jax.random.split(batch_key, num_steps))
    start = jax.jit(lambda k: (task.init_params(k), optimizer.init(task.init_params(k))))

    def run():
        params, opt_state = start(init_key)
        for key in keys:
            params, opt_state = step(task, key, params, opt_state)
        return params

    return run


def one_program(run: Callable, task: Task) -> Callable[[], object]:
    """The whole run as one compiled call."""
    compiled = jax.jit(run)
    return lambda: compiled(jax.random.key(0), task)


def main() -> None:
    """Print steps per second and both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", arguments.dtype == "float64")
    steps = arguments.num_steps
    task = make_task("digits-mlp", batch_size=BATCH_SIZE, dtype=arguments.dtype)
    setting = Setting(1e-3, 0.1, BATCH_SIZE, steps)
    adamw = named_optimizer("adamw", setting).optimizer
    followers = {name: named_optimizer(name, setting).optimizer for name in FOLLOWERS}

    plain = partial(simulate, optimizer=adamw, num_steps=steps, record_every=10)
    shadowed = partial(
        shadow,
        leader=adamw,
        followers=followers,
        num_steps=steps,
        record_every=10,
        measures={"agreement": update_agreement},
    )
    times = interleaved(
        {
            "simulate": one_program(lambda key, task: plain(key, task), task),
            "tight Python loop": python_loop(task, adamw, steps),
            "shadow, three followers": one_program(lambda key, task: shadowed(key, task), task),
        },
        rounds=arguments.rounds,
    )
    print(f"digits-mlp 64-64-10, batch {BATCH_SIZE}, {arguments.dtype}, {steps} steps")
    report(times, "simulate")
    for name, values in times.items():
        print(f"{name:28}{steps / sorted(values)[len(values) // 2]:12,.0f} steps/s")


if __name__ == "__main__":
    main()
