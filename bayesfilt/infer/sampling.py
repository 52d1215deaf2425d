"""Draws from the posterior of a NumPyro model: NUTS, chains side by side on the CPU's cores.

The sampler is NumPyro's; the loop around it is ours, because NumPyro's own compiles anew for
every fit of parallel chains. Here the data and the priors are arguments: a second fit of the
same model, shapes and settings compiles nothing. The chains advance in blocks of steps, so
that there is progress to show and Ctrl-C keeps the finished blocks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PRNGKeyArray
from numpyro.handlers import seed, trace
from numpyro.infer import NUTS

from bayesfilt.checks import (
    concrete_number,
    require_at_least,
    require_finite,
)

STEPS_PER_BLOCK = 50  # of every chain, between two looks at Ctrl-C; the slowest chain is awaited

_CHAINS, _SHARED = PartitionSpec("chains"), PartitionSpec()

type Density = Callable[..., Any]
"""A NumPyro model, called with the arguments it is conditioned on; the same object each time."""


class NutsSettings(NamedTuple):
    """What a compiled sampler depends on, besides the model and the shapes of its arguments."""

    num_chains: int = 2
    num_warmup: int = 1_000  # steps of each chain that adapt step size and mass, and are not kept
    target_accept_prob: float = 0.8
    max_tree_depth: int = 10  # a step computes at most 2^max_tree_depth gradients
    # Names of sites that share one dense block of the mass matrix; all others are diagonal.
    dense_mass: tuple[tuple[str, ...], ...] = ()


class Draws(NamedTuple):
    """What a sampler brought; NumPy arrays with the leading axes [chain, draw]."""

    sites: dict[str, np.ndarray]  # every sampled and every deterministic site, constrained
    stats: dict[str, np.ndarray]  # see `sample_nuts` and `sample_svi`
    interrupted: bool  # Ctrl-C came before the last draw
    notes: tuple[str, ...]  # what the reader of the results should know, in words


def check_nuts(owner: str, settings: NutsSettings, num_samples: int) -> None:
    """Refuse settings that no sampler can work with, before anything is compiled."""
    require_at_least(owner, "num_chains", settings.num_chains, 1)
    require_at_least(owner, "num_warmup", settings.num_warmup, 0)
    require_at_least(owner, "num_samples", num_samples, 1)
    require_at_least(owner, "max_tree_depth", settings.max_tree_depth, 1)
    require_finite(owner, "target_accept_prob", settings.target_accept_prob)
    wanted = concrete_number(settings.target_accept_prob)
    if wanted is None or not 0 < wanted < 1:
        raise ValueError(
            f"{owner} needs 0 < target_accept_prob < 1,"
            f" got target_accept_prob={settings.target_accept_prob}."
        )


def sample_nuts(
    key: PRNGKeyArray,
    density: Density,
    arguments: tuple[Any, ...],
    settings: NutsSettings,
    num_samples: int,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Draws:
    """Run the chains: warm up, then keep `num_samples` draws of each.

    Chains are dealt out to jax's local devices (on a CPU one a core, if `make_cpu_devices` made
    them before jax began to compute); where they are fewer, chains wait for one another. Another
    number of devices gives the same draws to rounding only; the leapfrog steps amplify that, so
    long chains separate, and agree no more than other draws of the same posterior do.

    Args:
        key: used for the starting points and for every step.
        density: the model; compiled programs are kept for as long as it is the same object.
        arguments: what the model is called with; pytrees of arrays. Data of other values and
            the same shapes do not compile again.
        settings: checked by `check_nuts`.
        num_samples: draws of each chain.
        on_progress: called after each block with (steps made, steps in all), warm-up included.

    Returns:
        `Draws`; its `stats` are diverging, energy, acceptance_rate, n_steps (gradients),
        tree_depth, step_size and lp (log density of the unconstrained sites, up to a constant).
        Ctrl-C after the first block of draws returns those that are there, with
        `interrupted=True`; before it there is nothing to keep and KeyboardInterrupt is raised.

    Raises:
        ValueError: no starting point with a finite density was found.
    """
    num_devices = devices_for(settings.num_chains)
    program = _nuts_program(density, settings, num_devices)
    blocks: list[tuple[Any, Any]] = []
    interrupted = False
    total = settings.num_warmup + num_samples
    try:
        state = program.start(key, arguments)
        _require_finite_start(state)
        made = 0
        while made < total:
            warming = made < settings.num_warmup
            count = min(STEPS_PER_BLOCK, (settings.num_warmup if warming else total) - made)
            state, found = program.advance(jnp.asarray(count), state, arguments)
            # Warm-up is waited for as well: else nothing here would notice Ctrl-C.
            found = jax.device_get(found)
            made += count
            if not warming:
                blocks.append(jax.tree.map(lambda leaf: leaf[:, :count], found))  # noqa: B023
            if on_progress is not None:
                on_progress(made, total)
    except KeyboardInterrupt:
        if not blocks:
            raise
        interrupted = True
    sites, stats = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *blocks)
    return Draws(
        sites=sites,
        stats={**stats, "tree_depth": tree_depth(stats["n_steps"])},
        interrupted=interrupted,
        notes=_notes_on_devices(settings.num_chains, num_devices),
    )


def devices_for(num_chains: int) -> int:
    """How many local devices share `num_chains` equally: the most that divide them."""
    most = min(num_chains, len(jax.local_devices()))
    return max(count for count in range(1, most + 1) if num_chains % count == 0)


def tree_depth(num_gradients: np.ndarray) -> np.ndarray:
    """Doublings of the trajectory, from the number of gradients it took; at least 1."""
    return np.floor(np.log2(np.maximum(num_gradients, 1))).astype(np.int64) + 1


class _Program(NamedTuple):
    start: Callable[..., Any]  # (key, arguments) -> states [chains, ...]
    advance: Callable[..., Any]  # (count, states, arguments) -> states, (sites, stats)


@functools.lru_cache(maxsize=64)
def _nuts_program(density: Density, settings: NutsSettings, num_devices: int) -> _Program:
    """Two compiled functions: the first traced one sets up the kernel that both use."""
    dense: Any = list(settings.dense_mass)  # annotated as a bool there, documented as either
    kernel = NUTS(
        density,
        target_accept_prob=settings.target_accept_prob,
        max_tree_depth=settings.max_tree_depth,
        dense_mass=dense,
    )
    mesh = Mesh(np.asarray(jax.local_devices()[:num_devices]), ("chains",))
    # One after the other on a CPU: vectorised, every chain waits for the longest trajectory.
    each = jax.lax.map if mesh.devices.flat[0].platform == "cpu" else _vectorized

    def start(key, arguments):
        def start_chain(key):
            return kernel.init(key, settings.num_warmup, None, arguments, {})

        return each(start_chain, jax.random.split(key, settings.num_chains))

    def advance(count, states, arguments):
        def all_advance(count, states, arguments):
            return each(lambda state: _advance(kernel, count, state, arguments), states)

        share = jax.shard_map(
            all_advance,
            mesh=mesh,
            in_specs=(_SHARED, _CHAINS, _SHARED),
            out_specs=_CHAINS,
            check_vma=False,
        )
        return share(count, states, arguments)

    return _Program(start=jax.jit(start), advance=jax.jit(advance))


def _vectorized(function: Callable[[Any], Any], batch: Any) -> Any:
    return jax.vmap(function)(batch)


def _advance(kernel: NUTS, count, state, arguments):
    """Make `count` steps of one chain, traced: fewer of them are no new program."""

    def kept(state):
        stats = {
            "diverging": state.diverging,
            "energy": state.energy,
            "acceptance_rate": state.accept_prob,
            "n_steps": state.num_steps,
            "step_size": state.adapt_state.step_size,
            "lp": -state.potential_energy,
        }
        return state.z, stats

    def step(index, carry):
        state, rows = carry
        state = kernel.sample(state, arguments, {})
        return state, jax.tree.map(lambda row, new: row.at[index].set(new), rows, kept(state))

    rows = jax.tree.map(
        lambda leaf: jnp.zeros((STEPS_PER_BLOCK, *leaf.shape), leaf.dtype),
        jax.eval_shape(kept, state),
    )
    state, (unconstrained, stats) = jax.lax.fori_loop(0, count, step, (state, rows))
    # Replays the model; its likelihood is asked for by nobody here and compiled away.
    sites = jax.vmap(kernel.postprocess_fn(arguments, {}))(unconstrained)
    return state, (sites, stats)


def _require_finite_start(states: Any) -> None:
    energies = np.asarray(states.potential_energy)
    gradients = [np.asarray(leaf) for leaf in jax.tree.leaves(states.z_grad)]
    if not (np.isfinite(energies).all() and all(np.isfinite(leaf).all() for leaf in gradients)):
        raise ValueError(
            "sample_nuts needs a starting point with a finite density for every chain,"
            " got none in 100 tries: look at the streams' units and the priors."
        )


def _notes_on_devices(num_chains: int, num_devices: int) -> tuple[str, ...]:
    if num_devices == num_chains:
        return ()
    share = num_chains // num_devices
    return (
        f"{num_chains} chains shared {num_devices} device{'s' if num_devices > 1 else ''},"
        f" {share} one after the other on each: bayesfilt.cpu_devices.make_cpu_devices,"
        " called before jax computes anything, gives every core its own.",
    )


def sample_prior(
    key: PRNGKeyArray, density: Density, arguments: tuple[Any, ...], num_samples: int
) -> dict[str, np.ndarray]:
    """Every sampled and every deterministic site of the model, [draw, ...], before any data."""
    keys = jax.random.split(key, num_samples)
    return jax.device_get(_prior_program(density)(keys, arguments))


@functools.lru_cache(maxsize=64)
def _prior_program(density: Density) -> Callable[..., Any]:
    def sites(key, arguments):
        found = trace(seed(density, key)).get_trace(*arguments)
        return {
            name: site["value"]
            for name, site in found.items()
            if site["type"] == "deterministic"
            or (site["type"] == "sample" and not site["is_observed"])
        }

    return jax.jit(jax.vmap(sites, in_axes=(0, None)))
