"""Fits made by hand: draws that a test chooses, laid out as a real fit is."""

import numpy as np
import xarray

from bayesfilt.infer import Model, Streams
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.gates import Gates
from bayesfilt.infer.posterior_tree import attributes_of, data_groups, group_of, sites_group


def gates(*failures: str) -> Gates:
    return Gates(
        r_hat=1.0,
        ess_bulk=1e3,
        ess_tail=1e3,
        divergences=0.0,
        bfmi=1.0,
        pareto_k=None,
        rows=(),
        failures=failures,
    )


def fit_of(
    model: Model,
    streams: Streams,
    draws: dict[str, np.ndarray],
    *,
    density: np.ndarray | None = None,
    prior: dict[str, np.ndarray] | None = None,
    failures: tuple[str, ...] = (),
) -> Fit:
    """A fit whose posterior is `draws`, [chain, draw, layer] each.

    `density` is the log density of each step at each of them, [chain, draw, stream, step].
    """
    kept = np.arange(next(iter(draws.values())).shape[1])
    groups = {
        "/": xarray.Dataset(attrs=attributes_of(model, streams)),
        "posterior": sites_group(draws, streams),
        **data_groups(streams),
    }
    if prior is not None:
        groups["prior"] = sites_group(prior, streams)
    if density is not None:
        layer = np.asarray(streams.layer)
        numbers = range(len(streams.layer_names))
        rows = [density[:, :, layer == number].sum(axis=2) for number in numbers]
        values = {
            "per_step": np.stack(rows, axis=2),
            "per_stream": density.sum(axis=3),
        }
        dims = {
            "per_step": ("chain", "draw", "layer", "step"),
            "per_stream": ("chain", "draw", "stream"),
        }
        groups["log_likelihood"] = group_of(values, streams, dims, draws=kept)
    tree = xarray.DataTree.from_dict(groups)
    return Fit(model=model, tree=tree, gates=gates(*failures), seconds=0.0)
