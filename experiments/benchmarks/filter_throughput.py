"""Diagonal filtering of recorded streams, in weight-steps per second, and beside dynamax.

    python -m experiments.benchmarks.filter_throughput [--streams 1000] [--steps 1000]

A stream is one weight's recorded gradients. Streams lie side by side on the leaf's axis and steps
lead, so that one scan does all of them at once; `vmap` over the filter is for its numbers, not for
weights. Beliefs are float32, the log likelihood float64. Contenders take turns in one process;
the best round counts, because whatever else the machine does only adds time.

dynamax filters the same streams, vmapped, in float32, from observations prepared beforehand in
the form that costs it least. It is compared with what returns the same: a log likelihood, or every
filtered belief. It is optional (`pip install --group bench`); without it the rest is measured.

Measured on two cores of an AMD EPYC, shared with other work, with jax 0.12.0 and dynamax 1.0.3;
best of 15 rounds, lowest and highest of four runs, in weight-steps per second:

    last belief                                                     1.1e9 to 1.6e9
    log likelihood, a fifth of steps and of gradients missing       4.7e8 to 5.1e8
    every belief stored                                             4.5e8 to 5.3e8
    times as fast as dynamax, where it was least disturbed by others: 131 (log likelihood), 141

The two agree as float32 should: variances to 4e-6 and the log likelihood to 2e-8 of themselves,
means to 1.4e-5 of a standard deviation.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayesfilt.filters import (
    Belief,
    DiagonalFilter,
    GradientStream,
    diagonal_filter,
    filter_stream,
    stream_log_likelihood,
)
from bayesfilt.theory import OrnsteinUhlenbeck
from experiments.benchmarks.timing import interleaved

GOALS = {"last belief": 1e9, "log likelihood": 3e8}  # weight-steps per second, 2 CPU cores
DYNAMAX_GOAL = 30  # times as fast


class Problem(NamedTuple):
    """Streams drawn from the filter's own model, and what is believed before the first gradient."""

    kalman: DiagonalFilter
    belief: Belief
    stream: GradientStream  # leaves [steps, streams], float32


def draw(num_streams: int, num_steps: int, missing: float) -> Problem:
    """Problem whose steps, and besides single gradients, are missing with chance `missing`."""
    rng = np.random.default_rng(0)
    shape = (num_steps, num_streams)
    eta, sigma2 = 0.05, 1.0
    kept = np.exp(-(eta**2) / (2 * sigma2))
    optimum = rng.normal(size=num_streams)
    optima = np.empty(shape)
    for step in range(num_steps):
        optima[step] = optimum
        optimum = kept * optimum + np.sqrt(sigma2 * (1 - kept**2)) * rng.normal(size=num_streams)
    precision = rng.lognormal(0.0, 1.0, shape)
    taken_at = optima + rng.normal(size=shape)
    gradient = precision * (taken_at - optima) + np.sqrt(precision) * rng.normal(size=shape)
    precision = np.where(rng.random(shape) < missing, 0.0, precision)
    leaves = (jnp.asarray(leaf, jnp.float32) for leaf in (gradient, precision, taken_at))
    kalman = diagonal_filter(OrnsteinUhlenbeck(eta, sigma2))
    return Problem(
        kalman=kalman,
        belief=kalman.init(jnp.zeros(num_streams, jnp.float32)),
        stream=GradientStream(*leaves, valid=jnp.asarray(rng.random(num_steps) >= missing)),
    )


def ours(whole: Problem, holes: Problem) -> dict[str, Callable[[], object]]:
    """Calls that filter `whole` or, with a log likelihood, `holes`."""

    @jax.jit
    def last(problem: Problem):
        return filter_stream(*problem, keep="last").last

    @jax.jit
    def every(problem: Problem):
        return filter_stream(*problem).conditioned

    @jax.jit
    def likelihood(problem: Problem):
        return stream_log_likelihood(*problem, precision_from="curvature")

    return {
        "last belief": lambda: last(whole),
        "every belief": lambda: every(whole),
        "log likelihood": lambda: likelihood(holes),
    }


def theirs(whole: Problem) -> dict[str, Callable[[], object]]:
    """Calls of dynamax on `whole`, which must have no holes, or none where it is absent."""
    try:
        with warnings.catch_warnings():
            # Of a name of JAX's that tensorflow-probability looks up, and of a backslash in one of
            # dynamax's docstrings, where it is compiled anew: neither reaches the numbers.
            warnings.filterwarnings("ignore", "jax.core.pytype_aval_mappings", DeprecationWarning)
            warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning)
            from dynamax.linear_gaussian_ssm import (  # pyright: ignore[reportMissingImports]
                inference as lgssm,
            )
    except ImportError:
        print("dynamax is not installed (group bench): not compared")
        return {}

    eta, sigma2 = whole.kalman.transition
    kept, one = np.exp(-(eta**2) / (2 * sigma2)), jnp.ones((1, 1), jnp.float32)
    # What a gradient says of the optimum: it is `place`, with noise of variance 1/h.
    place = whole.stream.taken_at - whole.stream.gradient / whole.stream.precision
    emissions = place.T[:, :, None]
    noise = (1 / whole.stream.precision).T[:, :, None, None]

    def filtered(mean: Array, variance: Array, emissions: Array, noise: Array):
        none, nothing = jnp.zeros((1, 0), jnp.float32), jnp.zeros(1, jnp.float32)
        parameters = lgssm.ParamsLGSSM(
            initial=lgssm.ParamsLGSSMInitial(mean=mean[None], cov=variance[None, None]),
            dynamics=lgssm.ParamsLGSSMDynamics(
                weights=jnp.float32(kept) * one,
                bias=nothing,
                input_weights=none,
                cov=jnp.float32(sigma2 * (1 - kept**2)) * one,
            ),
            emissions=lgssm.ParamsLGSSMEmissions(
                weights=one, bias=nothing, input_weights=none, cov=noise
            ),
        )
        return lgssm.lgssm_filter(parameters, emissions)

    every = jax.jit(jax.vmap(filtered))
    likelihood = jax.jit(jax.vmap(lambda *numbers: filtered(*numbers).marginal_loglik))
    given = (whole.belief.mean, whole.belief.variance, emissions, noise)

    def in_float32(call: Callable[..., object]) -> object:
        with jax.enable_x64(False):  # where it is on, dynamax widens float32 by itself
            return call(*given)

    return {
        "every belief (dynamax)": lambda: in_float32(every),
        "log likelihood (dynamax)": lambda: in_float32(likelihood),
    }


def disagreement(whole: Problem, posterior) -> dict[str, float]:
    """Largest differences from dynamax's posterior, relative to what float32 can resolve.

    Means in standard deviations, variances and each stream's log likelihood relatively. dynamax
    looks at places and not at gradients, so its log likelihood has log h more for each.
    """
    beliefs = filter_stream(*whole).conditioned
    assert beliefs is not None
    mean = np.asarray(posterior.filtered_means)[:, :, 0].T
    variance = np.asarray(posterior.filtered_covariances)[:, :, 0, 0].T
    jacobian = np.log(np.asarray(whole.stream.precision, np.float64)).sum()
    total = float(stream_log_likelihood(*whole, precision_from="curvature")) + jacobian
    theirs = float(np.asarray(posterior.marginal_loglik, np.float64).sum())
    return {
        "means, in deviations": float(np.abs((beliefs.mean - mean) / np.sqrt(variance)).max()),
        "variances": float(np.abs(beliefs.variance / variance - 1).max()),
        "log likelihood": abs(total / theirs - 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # for the log likelihood; beliefs stay float32
    size = arguments.streams * arguments.steps
    print(f"{arguments.streams:,} streams of {arguments.steps:,} steps, float32 beliefs")
    whole = draw(arguments.streams, arguments.steps, missing=0.0)
    holes = draw(arguments.streams, arguments.steps, missing=0.2)
    other = theirs(whole)
    times = interleaved(ours(whole, holes) | other, rounds=arguments.rounds)
    best = {name: float(values.min()) for name, values in times.items()}
    for name, values in times.items():
        rate, middle = size / best[name], 1e3 * float(np.median(values))
        goal = f"   goal {GOALS[name]:.1e}" if name in GOALS else ""
        print(f"{name:26}{1e3 * best[name]:10.2f} ms (median {middle:8.2f}){rate:10.2e} /s{goal}")
    for name in ("every belief", "log likelihood") if other else ():
        ratio = best[f"{name} (dynamax)"] / best[name]
        print(f"{name}: {ratio:.0f} times as fast as dynamax (goal {DYNAMAX_GOAL})")
    if other:
        for name, gap in disagreement(whole, other["every belief (dynamax)"]()).items():
            print(f"largest difference from dynamax, {name}: {gap:.1e}")


if __name__ == "__main__":
    main()
