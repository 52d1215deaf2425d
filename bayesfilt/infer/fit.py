"""One call: check the streams, draw from the posterior, judge the draws, label everything."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.checks import require_one_of
from bayesfilt.infer.gates import Gates, Limits, check_limits, gates_as_json, gates_from_json, judge
from bayesfilt.infer.models import model_function
from bayesfilt.infer.pointwise import Pointwise, evenly, pointwise
from bayesfilt.infer.posterior_tree import (
    attributes_of,
    data_groups,
    group_of,
    model_of,
    read_tree,
    require_fit_tree,
    sites_group,
    write_tree,
)
from bayesfilt.infer.priors import Priors, number_of_layers, priors_for
from bayesfilt.infer.sampling import (
    Density,
    Draws,
    NutsSettings,
    check_nuts,
    sample_nuts,
    sample_prior,
)
from bayesfilt.infer.state_space import Model, require_fit
from bayesfilt.infer.streams import Streams, check_streams
from bayesfilt.infer.variational import SviSettings, check_svi, sample_svi
from bayesfilt.provenance import code_state, device, versions
from bayesfilt.records import as_plain

if TYPE_CHECKING:
    import xarray

METHODS = ("nuts", "svi")
PRIOR_DRAWS = 500
DRAWS_JUDGED_BY_STEP = 200  # of all chains together: what the group log_likelihood keeps

_TRACE = ("elbo", "elbo_error")  # of the optimisation, not of the draws: attributes


class Fit(NamedTuple):
    """A model, what the data made of it, and whether that may be believed."""

    model: Model
    tree: "xarray.DataTree"  # see `bayesfilt.infer.posterior_tree`
    gates: Gates
    seconds: float  # of the sampling, compiling included


def fit(
    key: PRNGKeyArray,
    model: Model,
    streams: Streams,
    *,
    priors: Priors | None = None,
    method: str = "nuts",
    num_chains: int = 2,
    num_warmup: int = 1_000,
    num_samples: int = 1_000,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    svi: SviSettings | None = None,
    limits: Limits | None = None,
    clipped: bool | None = None,
    every_density: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Infer a model's numbers from recorded streams.

    A second fit of the same model, settings and shapes compiles nothing. Chains run side by side
    where jax has a device for each (`bayesfilt.cpu_devices.make_cpu_devices`, called before jax
    computes anything). A fit whose draws fail a gate is returned all the same, and marked.

    Args:
        key: split into one for the posterior and one for the prior's draws.
        model: the state-space model.
        streams: unchecked is fine: `check_streams` is called, its notes are kept.
        priors: of the model's numbers; by default `priors_for(streams)`.
        method: "nuts", or "svi": a Gaussian near the posterior, fast, with its own gate.
        num_chains: of NUTS; SVI has one, of independent draws.
        num_warmup: steps of each chain of NUTS that adapt it, and are not kept.
        num_samples: draws of each chain, or of SVI's guide.
        target_accept_prob: in (0, 1); nearer 1 means smaller steps, fewer divergences.
        max_tree_depth: a step of NUTS computes at most 2^max_tree_depth gradients.
        svi: the optimisation's settings; by default `SviSettings()`.
        limits: where the gates stand; by default `Limits()`.
        clipped: whether the recorded run clipped its gradients; None if not known.
        every_density: whether the group log_likelihood also keeps `observed`, the density of
            each step of each stream; its sums are kept always.
        on_progress: called after each block with (steps made, steps in all).

    Returns:
        A `Fit`. Ctrl-C after the first block of draws of NUTS returns what is there, and a gate
        says so; before, KeyboardInterrupt is raised.

    Raises:
        ValueError: bad settings, before anything is compiled; streams that cannot be fitted; no
            starting point with a finite density.
    """
    owner = "fit"
    require_one_of(owner, "method", method, METHODS)
    nuts = NutsSettings(
        num_chains=num_chains,
        num_warmup=num_warmup,
        target_accept_prob=target_accept_prob,
        max_tree_depth=max_tree_depth,
    )
    svi = SviSettings() if svi is None else svi
    limits = Limits() if limits is None else limits
    check_nuts(owner, nuts, num_samples)
    check_svi(owner, svi, num_samples)
    check_limits(limits)
    require_fit(model, streams.kind)
    streams, notes = check_streams(streams, clipped=clipped)
    priors = priors_for(streams) if priors is None else priors
    _require_priors(owner, priors, streams)

    key_posterior, key_prior = jax.random.split(key)
    density, arguments = _density(model), (streams, priors)
    began = time.perf_counter()
    if method == "nuts":
        draws = sample_nuts(
            key_posterior, density, arguments, nuts, num_samples, on_progress=on_progress
        )
    else:
        draws = sample_svi(
            key_posterior, density, arguments, svi, num_samples, on_progress=on_progress
        )
    seconds = time.perf_counter() - began
    prior = sample_prior(key_prior, density, arguments, PRIOR_DRAWS)
    settings = nuts if method == "nuts" else svi
    attributes = attributes_of(
        model,
        streams,
        method=method,
        num_samples=num_samples,
        settings=settings._asdict(),
        key=np.asarray(jax.random.key_data(key)).tolist(),
        priors=as_plain(priors),
        notes=[*notes, *draws.notes],
        seconds=seconds,
        **_provenance(),
        **{name: draws.stats[name][0] for name in _TRACE if name in draws.stats},
    )
    tree = _tree(model, streams, draws, prior, attributes, every_density=every_density)
    gates = judge(tree, limits)
    tree.attrs["gates"] = gates_as_json(gates)
    return Fit(model=model, tree=tree, gates=gates, seconds=seconds)


def save_fit(path: str | Path, fit: Fit) -> Path:
    """Write a fit, wholly or not at all: to `path`, or to inference.nc in that folder.

    Raises:
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    return write_tree(fit.tree, path)


def load_fit(path: str | Path) -> Fit:
    """Read what `save_fit` wrote; the gates are as they were judged then.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, damaged, of another tool or of a newer bayesfilt.
    """
    return fit_of_tree(read_tree(path))


def fit_of_tree(tree: "xarray.DataTree") -> Fit:
    """The fit that a tree holds.

    Raises:
        ValueError: another tool made the tree; what is missing is named.
    """
    require_fit_tree("fit_of_tree", tree)
    return Fit(
        model=model_of(tree),
        tree=tree,
        gates=gates_from_json(tree.attrs["gates"]),
        seconds=float(tree.attrs["seconds"]),
    )


def _require_priors(owner: str, priors: Priors, streams: Streams) -> None:
    """Refuse priors of another number of layers; by default they are the streams' own."""
    wanted, got = len(streams.layer_names), number_of_layers(priors)
    if wanted != got:
        raise ValueError(f"{owner} needs priors of {wanted} layers, got {got}.")


@functools.cache
def _density(model: Model) -> Density:
    """One and the same object for equal models: that is how compiled samplers are found again."""
    return model_function(model)


def _tree(
    model: Model,
    streams: Streams,
    draws: Draws,
    prior: dict[str, np.ndarray],
    attributes: dict[str, Any],
    *,
    every_density: bool,
) -> "xarray.DataTree":
    import xarray

    posterior = sites_group(draws.sites, streams)
    stats = {name: value for name, value in draws.stats.items() if name not in _TRACE}
    groups = {
        "/": xarray.Dataset(attrs=attributes),
        "posterior": posterior,
        "sample_stats": group_of(stats, streams, dict.fromkeys(stats, ("chain", "draw"))),
        **_pointwise_groups(model, streams, draws.sites, every=every_density),
        **data_groups(streams),
        "prior": sites_group({name: value[None] for name, value in prior.items()}, streams),
    }
    return xarray.DataTree.from_dict(groups)


def _pointwise_groups(
    model: Model, streams: Streams, sites: dict[str, np.ndarray], *, every: bool
) -> dict[str, "xarray.Dataset"]:
    """The groups log_likelihood, of evenly spread draws, and predictions, of their mixture."""
    num_chains, num_draws = next(iter(sites.values())).shape[:2]
    kept = evenly(num_draws, max(DRAWS_JUDGED_BY_STEP // num_chains, 1))
    rows = {name: value[:, kept].reshape(-1, *value.shape[2:]) for name, value in sites.items()}
    found: Pointwise = jax.device_get(pointwise(model, rows, streams, every=every))
    dims = {"per_step": ("layer", "step"), "per_stream": ("stream",)}
    sums = {"per_step": found.per_step, "per_stream": found.per_stream}
    if found.every is not None:
        dims["observed"], sums["observed"] = ("stream", "step"), found.every
    densities = {
        name: value.reshape(num_chains, len(kept), *value.shape[1:]) for name, value in sums.items()
    }
    dims = {name: ("chain", "draw", *rest) for name, rest in dims.items()}
    foreseen = {
        "one_step_mean": found.one_step_mean,
        "one_step_variance": found.one_step_variance,
    }
    return {
        "log_likelihood": group_of(densities, streams, dims, draws=kept),
        "predictions": group_of(foreseen, streams, dict.fromkeys(foreseen, ("stream", "step"))),
    }


def _provenance() -> dict[str, Any]:
    """Where the numbers come from, as attributes."""
    code = code_state()
    return {
        "versions": versions(),
        "device": device(),
        "commit": code.commit,
        "dirty": code.dirty,
    }
