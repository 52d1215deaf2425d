"""A fit as one labelled tree, in memory and in netCDF, laid out as ArviZ wants it.

Groups: posterior, sample_stats, log_likelihood, observed_data, constant_data, predictions and
prior. Attributes are words, numbers and JSON: netCDF knows no None, bool or dict.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from bayesfilt.atomic_files import require_whole_hdf5, write_bytes_atomically
from bayesfilt.infer.state_space import Model
from bayesfilt.infer.streams import Streams

if TYPE_CHECKING:
    import xarray

SCHEMA_VERSION = 1
FILE_NAME = "inference.nc"  # in a run's folder

_SCHEMA = "bayesfilt_fit_schema"
_ATTRIBUTES = (_SCHEMA, "model", "kind", "layer_names", "method", "num_samples", "gates", "seconds")
_VARIABLES = {
    "posterior": (),
    "sample_stats": ("lp",),
    "log_likelihood": ("per_step", "per_stream"),
    "observed_data": ("observed",),
    "constant_data": ("precision", "taken_at", "valid", "layer"),
    "predictions": ("one_step_mean", "one_step_variance"),
    "prior": (),
}


def dims_of(name: str, shape: tuple[int, ...], streams: Streams) -> tuple[str, ...]:
    """Names of a site's own dimensions: by its shape, and by its name where that is not enough."""
    sizes = {"layer": len(streams.layer_names), "stream": streams.observed.shape[0]}
    of_streams = name.endswith(("_of_stream", "_around"))
    likely = ("stream", "layer") if of_streams else ("layer", "stream")
    if len(shape) == 1:
        for dim in likely:
            if shape[0] == sizes[dim]:
                return (dim,)
    return tuple(f"{name}_dim_{axis}" for axis in range(len(shape)))


def group_of(
    values: Mapping[str, ArrayLike],
    streams: Streams,
    dims: Mapping[str, tuple[str, ...]],
    *,
    draws: np.ndarray | None = None,
) -> "xarray.Dataset":
    """A group with its labels.

    Args:
        values: variables by name.
        streams: whose layers and steps are the labels.
        dims: of each variable, its dimensions' names.
        draws: labels of the dimension draw; None for 0, 1, ...
    """
    import xarray

    variables = {name: (dims[name], np.asarray(value)) for name, value in values.items()}
    sizes: dict[str, int] = {}
    for names, value in variables.values():
        sizes.update(zip(names, value.shape, strict=True))
    labels: dict[str, Any] = {dim: np.arange(size) for dim, size in sizes.items()}
    if "layer" in labels:
        labels["layer"] = np.array(streams.layer_names)
    if draws is not None:
        labels["draw"] = draws
    return xarray.Dataset(variables, {dim: (dim, label) for dim, label in labels.items()})


def sites_group(sites: Mapping[str, np.ndarray], streams: Streams) -> "xarray.Dataset":
    """Draws of the model's sites, [chain, draw, ...]."""
    dims = {
        name: ("chain", "draw", *dims_of(name, np.shape(value)[2:], streams))
        for name, value in sites.items()
    }
    return group_of(sites, streams, dims)


def data_groups(streams: Streams) -> dict[str, "xarray.Dataset"]:
    """The groups observed_data and constant_data."""
    field = ("stream", "step")
    constant = {
        "precision": streams.precision,
        "taken_at": streams.taken_at,
        "valid": streams.valid,
        "layer": streams.layer,
    }
    dims = {"precision": field, "taken_at": field, "valid": field, "layer": ("stream",)}
    return {
        "observed_data": group_of({"observed": streams.observed}, streams, {"observed": field}),
        "constant_data": group_of(constant, streams, dims),
    }


def attributes_of(model: Model, streams: Streams, **more: Any) -> dict[str, Any]:
    """The tree's attributes: words and numbers as they are, everything else as JSON."""
    named = {
        _SCHEMA: SCHEMA_VERSION,
        "model": model._asdict(),
        "kind": streams.kind,
        "layer_names": list(streams.layer_names),
        **more,
    }
    return {
        name: value if _fits_netcdf(value) else json.dumps(value) for name, value in named.items()
    }


def _fits_netcdf(value: Any) -> bool:
    return isinstance(value, str | int | float | np.ndarray) and not isinstance(value, bool)


def model_of(tree: "xarray.DataTree") -> Model:
    """The model that a tree is of."""
    return Model(**json.loads(tree.attrs["model"]))


def streams_of(tree: "xarray.DataTree") -> Streams:
    """The streams that a tree was conditioned on."""
    observed = tree["observed_data"].to_dataset()["observed"]
    constant = tree["constant_data"].to_dataset()
    return Streams(
        observed=jnp.asarray(observed.values),
        precision=jnp.asarray(constant["precision"].values),
        taken_at=jnp.asarray(constant["taken_at"].values),
        valid=jnp.asarray(constant["valid"].values),
        layer=jnp.asarray(constant["layer"].values),
        kind=str(tree.attrs["kind"]),
        layer_names=tuple(json.loads(tree.attrs["layer_names"])),
    )


def require_fit_tree(owner: str, tree: "xarray.DataTree") -> None:
    """Refuse a tree that `fit` did not make, or a newer bayesfilt did; what is missing is named."""
    version = tree.attrs.get(_SCHEMA)
    if version is not None and version > SCHEMA_VERSION:
        raise ValueError(
            f"{owner} needs a fit of schema {SCHEMA_VERSION} or older, got {version}:"
            " a newer bayesfilt wrote it."
        )
    missing = [f"attribute {name}" for name in _ATTRIBUTES if name not in tree.attrs]
    for group, variables in _VARIABLES.items():
        if group not in tree.children:
            missing.append(f"group {group}")
        else:
            there = tree[group].to_dataset().variables
            missing += [f"variable {group}/{name}" for name in variables if name not in there]
    if missing:
        raise ValueError(
            f"{owner} needs a fit of bayesfilt, got a tree without {', '.join(missing)}."
        )


def write_tree(tree: "xarray.DataTree", path: str | Path) -> Path:
    """Write the tree, wholly or not at all; into `inference.nc` where `path` is no .nc file.

    Raises:
        CannotWriteError: the folder is read-only, the disk full, and the like.
    """
    # No fill value: NaN is a finding here, never "missing".
    encoding = {
        node.path: {str(name): _packing(item) for name, item in node.to_dataset().variables.items()}
        for node in tree.subtree
    }
    packed = tree.to_netcdf(None, engine="h5netcdf", encoding=encoding)
    return write_bytes_atomically(_file(path), packed)


def read_tree(path: str | Path) -> "xarray.DataTree":
    """Read a fit's tree into memory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is truncated, damaged, of another tool or of a newer bayesfilt.
    """
    import xarray

    file = _file(path)
    data = file.read_bytes()
    if not data.startswith(b"\x89HDF"):
        raise ValueError(
            f"{file} cannot be read as a fit: it is {'no netCDF4' if data else 'empty'}."
        )
    try:
        require_whole_hdf5(data)
        # Another program's HDF5 opens without a warning, and is refused below.
        with xarray.open_datatree(
            io.BytesIO(data), engine="h5netcdf", decode_times=False, phony_dims="sort"
        ) as opened:
            tree = opened.load()
    except Exception as error:  # a damaged file may raise anything inside HDF5
        reason = str(error.args[0] if error.args else type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} cannot be read as a fit: {reason}") from error
    require_fit_tree(str(file), tree)
    return tree


def _packing(item: "xarray.Variable") -> dict[str, Any]:
    plain: dict[str, Any] = {"_FillValue": None}
    if item.dtype.kind not in "biuf" or item.ndim < 2:
        return plain
    return {**plain, "zlib": True, "complevel": 4, "shuffle": True}  # and with a checksum


def _file(path: str | Path) -> Path:
    path = Path(path).expanduser()
    return path if path.suffix == ".nc" else path / FILE_NAME
