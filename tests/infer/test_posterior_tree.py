"""A fit's labels, its numbers step by step, and its file."""

import json

import arviz
import jax
import numpy as np
import pytest
import xarray

import bayesfilt.infer.posterior_tree as room
from bayesfilt.infer import (
    fit_of_tree,
    load_fit,
    numbers_of,
    predictions,
    save_fit,
    step_log_densities,
    streams_of,
)
from bayesfilt.infer.pointwise import evenly
from bayesfilt.infer.posterior_tree import FILE_NAME, dims_of
from tests.infer.small_fits import LAYERS, OU, SETTINGS, small_fit, small_streams

NUM_CHAINS, NUM_DRAWS = SETTINGS["num_chains"], SETTINGS["num_samples"]


def test_the_groups_and_their_labels():
    tree = small_fit().tree
    posterior = tree["posterior"].to_dataset()
    assert posterior["shrink"].dims == ("chain", "draw", "layer")
    assert posterior["shrink"].shape == (NUM_CHAINS, NUM_DRAWS, 2)
    assert posterior["layer"].values.tolist() == list(LAYERS)
    assert {"drift_scale", "stationary_variance", "shrink"} <= set(posterior)
    stats = {"diverging", "energy", "acceptance_rate", "tree_depth", "n_steps", "lp", "step_size"}
    assert set(tree["sample_stats"].data_vars) == stats
    assert tree["observed_data"]["observed"].dims == ("stream", "step")
    assert tree["predictions"]["one_step_mean"].shape == (4, 60)
    assert tree["prior"]["shrink"].dims == ("chain", "draw", "layer")
    assert json.loads(tree.attrs["model"])["transition"] == "ornstein_uhlenbeck"
    assert json.loads(tree.attrs["versions"])["numpyro"]
    assert tree.attrs["kind"] == "optimum" and tree.attrs["method"] == "nuts"


def test_arviz_reads_the_tree():
    tree = small_fit().tree
    table = arviz.summary(tree, var_names=["shrink"], ci_prob=0.9, ci_kind="eti")
    assert table.index.tolist() == ["shrink[first]", "shrink[second]"]


def test_the_streams_come_back_as_they_were_checked():
    found, given = streams_of(small_fit().tree), small_streams()
    valid = np.asarray(given.valid)
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(
        np.asarray(found.observed)[valid], np.asarray(given.observed)[valid]
    )
    np.testing.assert_array_equal(found.layer, given.layer)
    assert (found.kind, found.layer_names) == (given.kind, given.layer_names)


@jax.jit
def of_one_draw(draw, streams):
    numbers = numbers_of(OU, draw, streams)
    return step_log_densities(OU, numbers, streams), *predictions(OU, numbers, streams)


def one_by_one(tree, streams):
    """For every draw that the tree judged by step: its densities, and what it foresaw."""
    posterior = tree["posterior"].to_dataset()
    for chain in range(NUM_CHAINS):
        for draw in tree["log_likelihood"].to_dataset()["draw"].values:
            cell = posterior.isel(chain=chain).sel(draw=draw)
            sites = {name: site.values for name, site in cell.data_vars.items()}
            yield jax.device_get(of_one_draw(sites, streams))


def test_the_sequential_densities_are_those_of_the_draws_one_by_one():
    tree = small_fit().tree
    streams = streams_of(tree)
    densities, means, variances = map(np.array, zip(*one_by_one(tree, streams), strict=True))
    found = tree["log_likelihood"].to_dataset()
    every = densities.reshape(NUM_CHAINS, -1, 4, 60)
    np.testing.assert_allclose(found["observed"], every, rtol=1e-10)
    np.testing.assert_allclose(found["per_stream"], every.sum(-1), rtol=1e-10)
    by_layer = np.stack([every[:, :, [0, 3]].sum(2), every[:, :, [1, 2]].sum(2)], axis=2)
    np.testing.assert_allclose(found["per_step"], by_layer, rtol=1e-10)
    assert (found["observed"].values[:, :, 1, 10:13] == 0).all()
    mixture = tree["predictions"].to_dataset()
    np.testing.assert_allclose(mixture["one_step_mean"], means.mean(0), rtol=1e-8, atol=1e-10)
    total = variances.mean(0) + means.var(0)
    np.testing.assert_allclose(mixture["one_step_variance"], total, rtol=1e-8)
    # The sampler's density is the same likelihood plus a prior, which knows no data.
    assert (
        np.corrcoef(tree["sample_stats"]["lp"].values.ravel(), every.sum((-1, -2)).ravel())[0, 1]
        > 0.5
    )


def test_thinned_draws_are_spread_over_the_chain_and_keep_the_last():
    assert evenly(7, 3).tolist() == [0, 3, 6]
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, 1).tolist() == [8]
    assert len(evenly(1_000, 100)) == 100


@pytest.mark.parametrize(
    ("name", "shape", "dims"),
    [
        ("shrink", (2,), ("layer",)),
        ("drift_scale_of_stream", (4,), ("stream",)),
        ("drift_scale_around", (4,), ("stream",)),
        ("total", (), ()),
        ("strange", (7,), ("strange_dim_0",)),
        ("matrix", (2, 4), ("matrix_dim_0", "matrix_dim_1")),
    ],
)
def test_a_sites_dimensions_are_named(name, shape, dims):
    assert dims_of(name, shape, small_streams()) == dims


def test_a_name_decides_where_there_are_as_many_layers_as_streams():
    streams = small_streams()
    few = type(streams)(
        **{
            name: getattr(streams, name)[:2]
            for name in ("observed", "precision", "taken_at", "valid", "layer")
        },
        kind="optimum",
        layer_names=LAYERS,
    )
    assert dims_of("shrink", (2,), few) == ("layer",)
    assert dims_of("drift_scale_of_stream", (2,), few) == ("stream",)


def test_what_is_written_is_read(tmp_path):
    fit = small_fit()
    path = save_fit(tmp_path / "run", fit)
    assert path == tmp_path / "run" / FILE_NAME
    for place in (path, tmp_path / "run"):
        again = load_fit(place)
        assert again.model == fit.model and again.gates == fit.gates
        assert again.seconds == fit.seconds
        assert again.tree.identical(fit.tree)
    # Once more, from what was read.
    assert load_fit(save_fit(tmp_path / "copy.nc", again)).tree.identical(fit.tree)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_fit(tmp_path / "fit.nc", small_fit())
    before = path.read_bytes()

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesfilt.atomic_files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_fit(path, small_fit())
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.2, 0.7, 0.999])
def test_a_truncated_file_is_one_line(tmp_path, share):
    path = save_fit(tmp_path / "fit.nc", small_fit())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"fit\.nc cannot be read as a fit: [^\n]+$"):
        load_fit(path)


@pytest.mark.parametrize(("data", "what"), [(b"", "empty"), (b"PK\3\4 zip", "no netCDF4")])
def test_what_is_no_netcdf_is_one_line(tmp_path, data, what):
    (tmp_path / "fit.nc").write_bytes(data)
    with pytest.raises(ValueError, match=f"fit.nc cannot be read as a fit: it is {what}.$"):
        load_fit(tmp_path / "fit.nc")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=FILE_NAME):
        load_fit(tmp_path)


def foreign():
    rng = np.random.default_rng(0)
    return arviz.from_dict({"posterior": {"mu": rng.normal(size=(2, 10))}})


def test_another_tools_tree_is_refused_and_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^fit_of_tree needs a fit of bayesfilt[^\n]+$") as caught:
        fit_of_tree(foreign())
    for missing in ("bayesfilt_fit_schema", "attribute model", "group constant_data"):
        assert missing in str(caught.value)
    foreign().to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    with pytest.raises(
        ValueError, match=r"theirs\.nc needs a fit of bayesfilt, got a tree without"
    ):
        load_fit(tmp_path / "theirs.nc")


def test_a_tree_that_lost_a_variable_is_refused():
    tree = small_fit().tree.copy()
    tree["log_likelihood"] = tree["log_likelihood"].to_dataset().drop_vars("per_step")
    with pytest.raises(ValueError, match=r"without variable log_likelihood/per_step\.$"):
        fit_of_tree(tree)


def test_a_newer_schema_is_refused():
    tree = small_fit().tree.copy()
    tree.attrs["bayesfilt_fit_schema"] = room.SCHEMA_VERSION + 1
    with pytest.raises(ValueError, match="a newer bayesfilt wrote it"):
        fit_of_tree(tree)


def test_nothing_in_the_tree_needs_more_than_netcdf_knows():
    kinds = {type(value) for value in small_fit().tree.attrs.values()}
    assert kinds <= {str, int, float, np.ndarray}
    assert isinstance(small_fit().tree, xarray.DataTree)
