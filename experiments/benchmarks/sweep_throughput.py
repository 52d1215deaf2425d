"""A chunk of a sweep against one compiled run, a tight Python loop, PyTorch and the machine itself.

    python -m experiments.benchmarks.sweep_throughput [--num-steps 1000] [--width 64]

Digits, MLP 64-64-10, minibatches of 64, AdamW, float32. A chunk and the single run also evaluate
themselves about 20 times. Then cost per run from 64 to 4,096 runs at the same width, and how
often something was compiled for them. On a CPU `--num-devices` says into how many devices jax
cuts it (2 by default).
"""

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from bayesfilt.simulate import simulate
from bayesfilt.simulate.chunk_record import chunk_record
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import (
    RECORDED,
    ChunkProgram,
    build_program,
    execute_chunk,
)
from bayesfilt.simulate.sweep_plan import SweepPlan, chunks_of, optimizer_of, plan_sweep
from bayesfilt.simulate.sweep_width import largest_power_of_two
from bayesfilt.tasks import Supervised, make_task
from experiments.benchmarks.timing import interleaved, report
from experiments.benchmarks.training_loop import one_program, python_loop

BATCH_SIZE = 64
STEP_FLOPS = 1.29e6  # products only: forward, weight gradients, the hidden layer's gradient
MATMUL_SIZE, MATMUL_REPEATS = 1024, 20

# At least so many times the steps per second of the other.
GOALS = {"one compiled run": 2.0, "tight Python loop": 5.0, "PyTorch, fused AdamW": 15.0}
MATMUL_GOAL, FLATNESS_GOAL = 0.35, 0.15
_RATES = 16  # learning rates in the sweep; the rest of its runs are seeds

_COMPILED = "/jax/core/compile/backend_compile_duration"


def plan_for(num_runs: int, num_steps: int) -> SweepPlan:
    """A sweep of so many distinct runs."""
    sweep = Sweep(
        learning_rate=f"log:1e-4:1e-2:{_RATES}",
        num_steps=(num_steps,),
        batch_sizes=(BATCH_SIZE,),
        seeds=max(1, num_runs // _RATES),
    )
    return plan_sweep(sweep)


def matrix_products() -> object:
    """So many float32 products of square matrices."""
    product = jax.jit(lambda a: a @ a)
    left = jax.numpy.ones((MATMUL_SIZE, MATMUL_SIZE), np.float32)
    return [product(left) for _ in range(MATMUL_REPEATS)]


def torch_loop(task: Supervised, num_steps: int) -> Callable[[], object]:
    """The same training, eagerly, as PyTorch does it fastest."""
    import torch  # pyright: ignore[reportMissingImports]

    inputs = torch.from_numpy(np.array(task.train.inputs).reshape(-1, 64))
    labels = torch.from_numpy(np.array(task.train.labels)).long()
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)

    def run() -> None:
        for _ in range(num_steps):
            rows = torch.randint(len(inputs), (BATCH_SIZE,))
            adamw.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            adamw.step()

    return run


def throughput(num_steps: int, width: int, num_devices: int, rounds: int) -> None:
    """Print steps per second, ratios and goals."""
    plan = plan_for(width, num_steps)
    group, program = plan.groups[0], build_program(plan.groups[0], num_devices)
    chunk = chunks_of(plan, 0, width)[0]
    task = make_task("digits-mlp", batch_size=BATCH_SIZE, dtype="float32")
    assert isinstance(task, Supervised)
    optimizer = optimizer_of(group, plan.runs[0].numbers)
    single = partial(
        simulate,
        optimizer=optimizer,
        num_steps=num_steps,
        probes=RECORDED,
        record_every=group.record_every,
    )
    contenders: dict[str, Callable[[], object]] = {
        "chunk": lambda: execute_chunk(program, chunk).seconds,
        "one compiled run": one_program(lambda key, task: single(key, task), task),
        "tight Python loop": python_loop(task, optimizer, num_steps),
        "matrix products": matrix_products,
    }
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: its loop is skipped.")
    else:
        contenders["PyTorch, fused AdamW"] = torch_loop(task, num_steps)
    times = interleaved(contenders, rounds=rounds)
    print(f"digits-mlp 64-64-10, batch {BATCH_SIZE}, float32, {num_steps} steps,")
    print(f"chunk of {width} runs on {num_devices} of {len(jax.local_devices())} devices")
    report(times, "one compiled run")

    rates = {name: num_steps / np.median(values) for name, values in times.items()}
    rates["chunk"] *= width
    for name, goal in GOALS.items():
        if name in rates:
            ratio = rates["chunk"] / rates[name]
            print(
                f"{name:24}{rates[name]:12,.0f} steps/s; the chunk makes {rates['chunk']:,.0f},"
                f" {ratio:.2f} times as many ({verdict(ratio >= goal)} {goal:g})"
            )
    flops = 2 * MATMUL_SIZE**3 * MATMUL_REPEATS / np.median(times["matrix products"])
    share = rates["chunk"] * STEP_FLOPS / flops
    print(
        f"the machine multiplies at {flops / 1e9:.0f} GFLOP/s; the chunk uses {share:.2f} of it"
        f" ({verdict(share >= MATMUL_GOAL)} {MATMUL_GOAL:g})"
    )


def cost_per_run(sizes: list[int], num_steps: int, width: int, num_devices: int, rounds: int):
    """Print milliseconds per run for sweeps of several sizes, and what was compiled for them."""
    plans = {size: plan_for(size, num_steps) for size in sizes}
    program = build_program(plans[sizes[0]].groups[0], num_devices)

    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == _COMPILED:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    sweep_once(program, plans[sizes[0]], width)
    first = len(compiled)
    times = interleaved(
        {f"{size} runs": partial(sweep_once, program, plan, width) for size, plan in plans.items()},
        rounds=rounds,
        warm_up=0,
    )
    print(f"cost per run, {num_steps} steps, width {width}")
    costs = {size: float(np.median(times[f"{size} runs"])) / size for size in sizes}
    for size, cost in costs.items():
        print(f"{size:8} runs {1e3 * cost:10.3f} ms per run")
    spread = max(costs.values()) / min(costs.values()) - 1
    print(f"spread {spread:.0%} ({verdict(spread <= FLATNESS_GOAL)} {FLATNESS_GOAL:.0%})")
    print(f"compilations: {first} for the first chunk, {len(compiled) - first} for all the others")


def sweep_once(program: ChunkProgram, plan: SweepPlan, width: int) -> None:
    """Every chunk of a sweep, down to its record."""
    for chunk in chunks_of(plan, 0, width):
        chunk_record(plan, execute_chunk(program, chunk))


def verdict(reached: bool) -> str:
    """How a goal is spoken of."""
    return "reaches the goal of" if reached else "misses the goal of"


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-devices", type=int, default=2)
    parser.add_argument("--sizes", default="64,256,1024,4096")
    parser.add_argument("--cost-steps", type=int, default=200)
    parser.add_argument("--cost-rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.num_devices > 1:
        jax.config.update("jax_num_cpu_devices", arguments.num_devices)
    num_devices = largest_power_of_two(min(arguments.num_devices, len(jax.local_devices())))
    throughput(arguments.num_steps, arguments.width, num_devices, arguments.rounds)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    cost_per_run(sizes, arguments.cost_steps, arguments.width, num_devices, arguments.cost_rounds)


if __name__ == "__main__":
    main()
