"""Fits made by hand: draws that a test chooses, laid out as a real fit is."""

import numpy as np
import xarray

from bayesfilt.infer import Model, Streams, step_log_densities
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.gates import Gates


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
    failures: tuple[str, ...] = (),
) -> Fit:
    """A fit whose posterior is `draws`, [chain, draw, layer] each."""
    dims = ("chain", "draw", "layer")
    coords = {"layer": list(streams.layer_names)}
    fields = ("observed", "precision", "taken_at", "valid")
    arrays = {
        name: (("stream", "step"), np.asarray(getattr(streams, name)).astype(float))
        for name in fields
    }
    groups = {
        "posterior": xarray.Dataset({k: (dims, v) for k, v in draws.items()}, coords),
        "observed_data": xarray.Dataset({"observed": arrays.pop("observed")}),
        "constant_data": xarray.Dataset(arrays | {"layer": ("stream", np.asarray(streams.layer))}),
    }
    if density is not None:
        log_likelihood = (("chain", "draw", "stream", "step"), density)
        groups["log_likelihood"] = xarray.Dataset({"observed": log_likelihood})
    tree = xarray.DataTree.from_dict(groups)
    return _fit(model=model, tree=tree, gates=gates(*failures))


def _fit(**known) -> Fit:
    """What the tests do not look at is None."""
    return Fit(**{name: known.get(name) for name in Fit._fields})


def densities(model: Model, streams: Streams, draws: dict[str, np.ndarray]) -> np.ndarray:
    """Step log densities at each draw of a model of one layer, [chain, draw, stream, step]."""
    chains, number, _ = next(iter(draws.values())).shape
    rows = len(streams.layer)
    found = [
        step_log_densities(
            model, {k: np.full(rows, v[c, d, 0]) for k, v in draws.items()}, streams
        )
        for c in range(chains)
        for d in range(number)
    ]
    return np.asarray(found).reshape(chains, number, *streams.valid.shape)
