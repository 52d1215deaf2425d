"""Simulation-based calibration: seconds a simulation, beside simuk.

    python -m experiments.benchmarks.calibration_speed [--simulations 100] [--theirs 4]

One model (Ornstein-Uhlenbeck, three parameters), one prior, one design, one floating type, as many
warm-up transitions and draws for everyone, in one process. simuk (group bench) fits one data set
after the other and compiles for each, which is what a calibration with it costs; ours compiles once
for all, told apart below, and is timed warm and with its compiling shared among 500 simulations.
simuk has NUTS, which is its usual sampler, and for the comparison of like with like also the
same HMC as ours.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import HMC, NUTS

from bayesfilt.infer import (
    Chain,
    Given,
    calibrate,
    calibration_design,
    calibration_priors,
    draw_streams,
    model_function,
    model_named,
    model_problem,
    numbers_of,
)

MODEL = model_named("ornstein_uhlenbeck")
GOALS = {"float32": 20, "float64": 10}
STUDY = 500  # simulations that share one compilation


class Cost(NamedTuple):
    """Wall seconds."""

    first: float  # before there is any result: compiling
    each: float  # a simulation


def ours(given: Given, chain: Chain, num_simulations: int) -> Cost:
    """Cost of our engine, all simulations at once."""

    def run(seed: int) -> float:
        key = jax.random.key(seed)
        begun = time.perf_counter()
        calibrate(
            key,
            model_problem(MODEL),
            given,
            num_simulations=num_simulations,
            simulations_at_once=num_simulations,
            chain=chain,
        )
        return time.perf_counter() - begun

    cold, warm = run(0), min(run(1), run(2))
    return Cost(first=max(cold - warm, 0.0), each=warm / num_simulations)


def theirs(given: Given, chain: Chain, num_simulations: int) -> Cost:
    """Cost of simuk with NumPyro's sampler of the same name."""
    import simuk  # pyright: ignore[reportMissingImports]

    design, conditioned = given.design, model_function(MODEL)

    def model(observed):
        conditioned(dataclasses.replace(design, observed=observed), given.priors)

    def simulator(seed: int, **sites):
        sites = {name: jnp.asarray(value, design.observed.dtype) for name, value in sites.items()}
        numbers = numbers_of(MODEL, sites, design)
        drawn = draw_streams(jax.random.key(seed), MODEL, numbers, design)
        return {"observed": np.asarray(drawn.observed)}

    if chain.method == "nuts":
        kernel = NUTS(model, max_tree_depth=chain.max_tree_depth)
    else:
        kernel = HMC(
            model,
            num_steps=chain.num_leapfrog,
            trajectory_length=None,  # pyright: ignore[reportArgumentType]
        )
    draws = chain.num_draws * chain.thinning
    engine = simuk.SBC(
        kernel,
        num_simulations=num_simulations,
        sample_kwargs={"num_warmup": chain.num_warmup, "num_samples": draws},
        seed=0,
        data_dir={"observed": np.asarray(design.observed)},
        simulator=simulator,
    )
    begun = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar and its warnings
        engine.run_simulations()
    return Cost(first=0.0, each=(time.perf_counter() - begun) / num_simulations)


def compare(dtype: str, arguments: argparse.Namespace) -> None:
    """Measure and print for one floating type, which must be the process's own by now."""
    design = calibration_design(
        jax.random.key(1), num_streams=arguments.streams, num_steps=arguments.steps
    )
    given = Given(design=design, priors=calibration_priors(design))
    costs = {}
    for method in ("hmc", "nuts"):
        chain = Chain(method=method)
        costs[method] = ours(given, chain, arguments.simulations)
        costs[f"simuk {method}"] = theirs(given, chain, arguments.theirs)
    print(f"\n{dtype}: {arguments.streams} streams x {arguments.steps} steps, {Chain()}")
    for name, cost in costs.items():
        print(f"  {name:12}{1e3 * cost.each:10.1f} ms a simulation, {cost.first:5.1f} s before")
    base = costs["simuk nuts"].each

    def ratio(name: str) -> str:
        cost = costs[name]
        with_compiling = base / (cost.each + cost.first / STUDY)
        return f"{base / cost.each:6.1f} times simuk's NUTS ({with_compiling:.1f} with compiling)"

    print(f"  our HMC  {ratio('hmc')}, goal {GOALS[dtype]}")
    print(f"  our NUTS {ratio('nuts')}")
    print(f"  our HMC  {costs['simuk hmc'].each / costs['hmc'].each:6.1f} times simuk's HMC")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=100, help="of ours, side by side")
    parser.add_argument("--theirs", type=int, default=4, help="simulations of simuk")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    try:
        import simuk  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("simuk is not installed (group bench): not compared")
        return
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"simuk {simuk.__version__}, jax {jax.__version__}, load {load} on {os.cpu_count()} cores"
    )
    for dtype, wide in (("float32", False), ("float64", True)):
        with jax.enable_x64(wide):
            compare(dtype, arguments)


if __name__ == "__main__":
    main()
