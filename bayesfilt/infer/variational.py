"""A Gaussian near the posterior: the fast way, and the numbers that tell how far to trust it.

NumPyro's guide (one normal distribution over all unconstrained sites, with a full covariance) and
ELBO, optax's optimizer, and our loop around them, which compiles once for a model and shapes.
The draws are of the guide, not of the posterior. Each carries its importance weight, and the
Pareto k of these weights is the gate: above 0.7 the guide misses mass.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from numpyro.infer import SVI, Trace_ELBO, init_to_median
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.util import potential_energy

from bayesfilt.checks import require_at_least, require_positive
from bayesfilt.infer.sampling import Density, Draws

BLOCKS = 20  # of optimisation steps, as many looks at Ctrl-C
# In the first of them the rate stays as it is, so that a guide still on its way shows in the ELBO;
# in the others it falls, and with it the noise of the guide.
STEADY_BLOCKS = 15


class SviSettings(NamedTuple):
    """What the optimisation depends on, besides the model and the shapes of its arguments."""

    num_steps: int = 5_000
    learning_rate: float = 0.02  # Adam's; the last quarter of the steps brings it to a hundredth
    num_particles: int = 4  # draws of the guide that estimate one gradient of the ELBO


def check_svi(owner: str, settings: SviSettings, num_samples: int) -> None:
    """Refuse settings that no optimisation can work with, before anything is compiled."""
    require_at_least(owner, "num_steps", settings.num_steps, 10 * BLOCKS)
    require_positive(owner, "learning_rate", settings.learning_rate)
    require_at_least(owner, "num_particles", settings.num_particles, 1)
    require_at_least(owner, "num_samples", num_samples, 1)


def sample_svi(
    key: PRNGKeyArray,
    density: Density,
    arguments: tuple[Any, ...],
    settings: SviSettings,
    num_samples: int,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Draws:
    """Fit the guide and draw from it; laid out as one chain of independent draws.

    Args:
        key: split into one for the optimisation and one for the draws.
        density: the model; compiled programs are kept for as long as it is the same object.
        arguments: what the model is called with; pytrees of arrays.
        settings: checked by `check_svi`; num_steps is rounded up to whole blocks.
        num_samples: draws of the guide.
        on_progress: called after each block with (steps made, steps in all).

    Returns:
        `Draws`; its `stats` are lp (log density of the unconstrained sites, up to a constant)
        and log_weight (lp minus the guide's log density), [1, draw] each, and `elbo`, the mean
        evidence lower bound of each block, [1, block], with its standard error, `elbo_error`.
        Ctrl-C raises KeyboardInterrupt: a guide that is half fitted is of no use.
    """
    program = _svi_program(density, settings, num_samples)
    key_fit, key_draws = jax.random.split(key)
    state = program.start(key_fit, arguments)
    bounds, errors = [], []
    for block in range(BLOCKS):
        state, losses = program.advance(state, arguments)
        losses = np.asarray(losses)
        bounds.append(-losses.mean())
        errors.append(losses.std() / np.sqrt(losses.size))
        if on_progress is not None:
            on_progress((block + 1) * losses.size, BLOCKS * losses.size)
    sites, stats = jax.device_get(program.draw(key_draws, state, arguments))
    trace = {"elbo": np.asarray(bounds), "elbo_error": np.asarray(errors)}
    one_chain = jax.tree.map(lambda leaf: leaf[None], (sites, {**stats, **trace}))
    return Draws(sites=one_chain[0], stats=one_chain[1], interrupted=False, notes=())


class _Program(NamedTuple):
    start: Callable[..., Any]  # (key, arguments) -> state
    advance: Callable[..., Any]  # (state, arguments) -> state, losses of one block
    draw: Callable[..., Any]  # (key, state, arguments) -> sites, stats


@functools.lru_cache(maxsize=64)
def _svi_program(density: Density, settings: SviSettings, num_samples: int) -> _Program:
    steps = -(-settings.num_steps // BLOCKS)
    steady = steps * STEADY_BLOCKS
    falling = optax.cosine_decay_schedule(
        settings.learning_rate, steps * (BLOCKS - STEADY_BLOCKS), alpha=0.01
    )
    rates = optax.join_schedules(
        [optax.constant_schedule(settings.learning_rate), falling], [steady]
    )

    def ready(key, arguments):
        """A guide learns the model's sites when it is called; it keeps what it traced.

        So each program makes its own, and what is kept of another never leaks in.
        """
        guide = AutoMultivariateNormal(density, init_loc_fn=init_to_median)
        loss = Trace_ELBO(num_particles=settings.num_particles)
        svi = SVI(density, guide, optax.adam(rates), loss)
        return guide, svi, svi.init(key, *arguments)

    def start(key, arguments):
        return ready(key, arguments)[2]

    def advance(state, arguments):
        _, svi, _ = ready(jax.random.key(0), arguments)  # only for its shapes
        return jax.lax.scan(lambda state, _: svi.update(state, *arguments), state, length=steps)

    def draw(key, state, arguments):
        guide, svi, _ = ready(jax.random.key(0), arguments)
        normal = guide.get_posterior(svi.get_params(state))
        latent = normal.sample(key, (num_samples,))

        def log_density(row):
            sites = guide._unpack_latent(row)
            return -potential_energy(density, arguments, {}, sites)

        lp = jax.lax.map(log_density, latent)
        sites = guide._unpack_and_constrain(latent, svi.get_params(state))
        return sites, {"lp": lp, "log_weight": lp - normal.log_prob(latent)}

    return _Program(start=jax.jit(start), advance=jax.jit(advance), draw=jax.jit(draw))
