"""Would the calibration notice? Five mistakes in the likelihood that must fail it.

    python -m experiments.calibration_mutations [--simulations 500] [--streams 24] [--steps 60]

The data always come from the true Ornstein-Uhlenbeck model, by `draw_streams`. The fit uses a
literal filter written here, which without a mistake gives the library's likelihood to the last
digits and must pass; with one of the mistakes it must not. They are traced numbers, so that one
compiled program serves all. Streams are many and short, because one of the mistakes is in the first
belief alone; windows hold five relaxation times and more all the same.
"""

import argparse
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.infer import (
    Calibration,
    CalibrationVerdict,
    Given,
    Model,
    Streams,
    calibrate,
    calibration_design,
    calibration_lines,
    calibration_priors,
    judge,
    model_named,
    model_problem,
)
from bayesfilt.infer.state_space import Numbers

MODEL = model_named("ornstein_uhlenbeck")
BATCH_SIZE = 8.0
SPREAD = 0.25  # of the priors: relaxation times between 2.7 and 12 steps where 60 are seen


class Mistake(NamedTuple):
    """What the fit's likelihood gets wrong; the defaults are right."""

    shrink: float = 1.0  # factor on the shrink of the mean: 0 drops it
    process_variance: float = 1.0  # factor on q
    noise_variance: float = 1.0  # factor on R
    late: float = 0.0  # 1: each gradient is scored by what was expected a step before
    starts_at_process: float = 0.0  # 1: the first variance is q and not q/(1 - a²)


MISTAKES = {
    "none": Mistake(),
    "shrink dropped": Mistake(shrink=0.0),
    "process variance halved": Mistake(process_variance=0.5),
    "R off by the batch size": Mistake(noise_variance=1 / BATCH_SIZE),
    "likelihood one step late": Mistake(late=1.0),
    "initial variance q": Mistake(starts_at_process=1.0),
}


def mutated_step_log_densities(
    model: Model, numbers: Numbers, streams: Streams, mistake: Mistake
) -> Float[Array, "streams steps"]:
    """Log density of each gradient given the earlier ones, by a literal filter with a mistake."""
    del model  # the only one there is: MODEL
    rate = numbers["drift_scale"] ** 2 / numbers["stationary_variance"]
    kept = 1 + mistake.shrink * jnp.expm1(-rate / 2)
    moved = mistake.process_variance * numbers["stationary_variance"] * -jnp.expm1(-rate)
    ratio = mistake.noise_variance * numbers["noise_ratio"]
    first = jnp.where(mistake.starts_at_process > 0, moved, numbers["stationary_variance"])

    def step(belief, seen):
        mean, variance = belief
        gradient, precision, place = seen
        gain = variance * precision / (variance * precision + ratio)
        surprise = place - gradient / precision - mean
        after = kept * (mean + gain * surprise), kept**2 * (1 - gain) * variance + moved
        return after, belief

    columns = (streams.observed.T, streams.precision.T, streams.taken_at.T)
    _, (mean, variance) = jax.lax.scan(step, (jnp.zeros_like(first), first), columns)
    mean, variance = (
        jnp.where(mistake.late > 0, jnp.concatenate([path[:1], path[:-1]]), path).T
        for path in (mean, variance)
    )
    h = streams.precision
    spread = h * (ratio[:, None] + h * variance)
    surprise = streams.observed - h * (streams.taken_at - mean)
    return -0.5 * (math.log(2 * math.pi) + jnp.log(spread) + surprise**2 / spread)


def calibrate_mistake(
    key: Array, mistake: Mistake, design: Streams, **settings
) -> tuple[Calibration, CalibrationVerdict]:
    """Calibration of the mistaken fit, and the verdict on it."""
    given = Given(
        design=design,
        priors=calibration_priors(design, spread=SPREAD),
        extra=jax.tree.map(jnp.asarray, mistake),
    )
    problem = model_problem(MODEL, mutated_step_log_densities)
    calibration = calibrate(key, problem, given, **settings)
    return calibration, judge(calibration)


def mutation_design(key: Array, num_streams: int = 24, num_steps: int = 60) -> Streams:
    """Many short streams that are seen sharply, so that the first belief matters."""
    return calibration_design(key, num_streams=num_streams, num_steps=num_steps, precision=10.0)


def main() -> None:
    """Calibrate with each mistake and without one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--streams", type=int, default=24)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    design_key, *keys = jax.random.split(jax.random.key(arguments.seed), 1 + len(MISTAKES))
    design = mutation_design(design_key, arguments.streams, arguments.steps)
    noticed = {}
    for (name, mistake), key in zip(MISTAKES.items(), keys, strict=True):
        calibration, verdict = calibrate_mistake(
            key,
            mistake,
            design,
            num_simulations=arguments.simulations,
            simulations_at_once=arguments.at_once,
        )
        print(f"\n{name}: {calibration.num_simulations} simulations, {calibration.seconds:.0f} s")
        print("\n".join(calibration_lines(calibration, verdict)), flush=True)
        noticed[name] = not verdict.passes
    right = not noticed.pop("none")
    print(f"\nThe right likelihood {'passes' if right else 'FAILS'};", end=" ")
    print(f"{sum(noticed.values())} of {len(noticed)} mistakes are noticed.")
    raise SystemExit(0 if right and all(noticed.values()) else 1)


if __name__ == "__main__":
    main()
