"""Likelihood and sampling: 64 streams x 500 steps of the matched world, a hierarchy over them.

    python -m experiments.benchmarks.inference [--rounds 50] [--sampling 500 1000]

First a value and derivative of the log likelihood, ours against reverse mode through the same loop,
interleaved in one process. Then NUTS, two chains on two CPU devices: the first run compiles, the
second is timed and judged. Give it an idle machine; the load is printed with the figures.
"""

import argparse
import os
import time
from unittest import mock

import arviz
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS

from bayesfilt.cpu_devices import make_cpu_devices
from bayesfilt.infer import (
    Model,
    Streams,
    check_streams,
    draw_streams,
    gradient_streams,
    log_likelihood,
    model_function,
    model_named,
    priors_for,
)
from bayesfilt.infer import belief_path as path
from experiments.benchmarks.timing import interleaved, report

STREAMS, STEPS, LAYERS = 64, 500, 4
RELAXATION_TIMES = (20.0, 40.0, 60.0, 100.0)  # of the layers, steps
MOVES = (0.05, 0.1, 0.2, 0.1)  # deviation of one exact move; curvatures are about 1


def matched_world(model: Model) -> tuple[Streams, dict]:
    """Gradient streams of a hierarchy of Ornstein-Uhlenbeck processes, and their numbers."""
    random = np.random.default_rng(0)
    layer = np.arange(STREAMS) * LAYERS // STREAMS
    own = 0.3 * random.normal(size=(2, STREAMS))
    times, moves = (
        np.asarray(values)[layer] * np.exp(offset)
        for values, offset in zip((RELAXATION_TIMES, MOVES), own, strict=True)
    )
    variance = moves**2 / -np.expm1(-2 / times)
    numbers = {
        "drift_scale": jnp.asarray(np.sqrt(2 * variance / times)),
        "stationary_variance": jnp.asarray(variance),
        "noise_ratio": jnp.asarray(np.exp(0.2 * random.normal(size=STREAMS))),
    }
    curvature = random.normal(size=(STREAMS, 1)) + 0.3 * random.normal(size=(STREAMS, STEPS))
    places = 0.3 * random.normal(size=(STREAMS, STEPS))
    design = gradient_streams(np.zeros(places.shape), np.exp(curvature), places, layer=layer)
    streams, _ = check_streams(draw_streams(jax.random.key(1), model, numbers, design))
    return streams, numbers


def derivative_times(rounds: int) -> None:
    """Print ours against reverse mode."""
    model = model_named("ornstein_uhlenbeck", pooling="stream")
    streams, numbers = matched_world(model)

    def total(numbers, streams):
        return jnp.sum(log_likelihood(model, numbers, streams))

    ours = jax.jit(jax.value_and_grad(total)).lower(numbers, streams).compile()
    with mock.patch.object(path, "_scalar_path", path._scalar_path.fun):

        def plain_total(numbers, streams):
            return total(numbers, streams)

        plain = jax.jit(jax.value_and_grad(plain_total)).lower(numbers, streams).compile()
    value = jax.jit(total).lower(numbers, streams).compile()
    contenders = {
        "reverse mode": lambda: plain(numbers, streams),
        "ours": lambda: ours(numbers, streams),
        "the value alone": lambda: value(numbers, streams),
    }
    print(f"log likelihood and derivative, {STREAMS} streams x {STEPS} steps, float64")
    report(interleaved(contenders, rounds=rounds), "reverse mode")


def sampling(noise: str, count: int) -> None:
    """Print the time of a warm fit of `count` + `count`, and its worst diagnostics."""
    model = model_named("ornstein_uhlenbeck", noise=noise, pooling="stream")
    streams, _ = matched_world(model)
    chains = MCMC(
        NUTS(model_function(model)),
        num_warmup=count,
        num_samples=count,
        num_chains=2,
        progress_bar=False,
    )
    seconds = []
    for key in jax.random.split(jax.random.key(8)):
        start, used = time.perf_counter(), time.process_time()
        chains.run(key, streams, priors_for(streams), extra_fields=("num_steps", "diverging"))
        jax.block_until_ready(chains.get_samples())
        seconds.append((time.perf_counter() - start, time.process_time() - used))
    fields = chains.get_extra_fields()
    steps, diverged = (np.asarray(fields[name]) for name in ("num_steps", "diverging"))
    draws = {
        name: np.asarray(value)
        for name, value in chains.get_samples(group_by_chain=True).items()
        if not name.endswith(("_raw", "_around", "_away"))
    }
    columns = [value[..., i] for value in draws.values() for i in range(value.shape[-1])]
    bulk = min(float(arviz.ess(column, method="bulk")) for column in columns)
    tail = min(float(arviz.ess(column, method="tail", prob=(0.05, 0.95))) for column in columns)
    worst = max(float(arviz.rhat(column)) for column in columns)
    (first, _), (wall, cpu) = seconds
    print(
        f"noise {noise}, 2 x ({count} + {count}): {wall:.1f} s warm ({cpu:.1f} s of CPU), first "
        f"{first:.1f} s; {steps.mean():.0f} leapfrogs a draw, {int(diverged.sum())} diverged; of "
        f"{len(columns)} reported numbers the worst r-hat {worst:.4f}, ESS bulk {bulk:.0f}, "
        f"tail {tail:.0f}; load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--sampling", type=int, nargs="*", default=[500, 1000])
    arguments = parser.parse_args()
    make_cpu_devices(2)
    jax.config.update("jax_enable_x64", True)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    derivative_times(arguments.rounds)
    for count in arguments.sampling:
        for noise in ("free", "matched"):
            sampling(noise, count)


if __name__ == "__main__":
    main()
