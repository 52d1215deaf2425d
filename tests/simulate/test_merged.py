"""The lazily merged tree, against an assembly of every cell by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bayesfilt.simulate import merged
from bayesfilt.simulate.merged import merge, write_netcdf
from bayesfilt.simulate.store import open_store
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_plan import plan_sweep
from tests.simulate.sweeps import GRID, executions, filled_store, numbers_of

SHAPE = (2, 1, 1, 2, 3, 1, 1, 1, 1, 5)
DIMS = ("optimizer", "schedule", "batch_size", "num_steps", "learning_rate", "weight_decay")
DIMS += ("b1", "b2", "eps", "seed")


@pytest.fixture(scope="module")
def plan():
    return plan_sweep(GRID)


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory):
    return filled_store(tmp_path_factory.mktemp("whole"), plan).folder


@pytest.fixture(scope="module")
def whole(folder):
    """The tree of the whole sweep, for tests that only read it."""
    return merge(folder)


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Places of the chunks that are read, as they are read."""
    read, seen = merged.read_verified, []

    def noted(store, path):
        seen.append(path.name[:7])
        return read(store, path)

    monkeypatch.setattr(merged, "read_verified", noted)
    return seen


def by_hand(plan, steps) -> dict[str, np.ndarray]:
    """Every cell's numbers, run by run, without a chunk or a file between."""
    shape = plan.run_of_cell.shape[1:]
    ends = np.full((*shape, 2), np.nan, np.float32)
    loss = np.full((*shape, len(steps)), np.nan, np.float32)
    diverged = np.full(shape, -1, np.int32)
    for cell in np.ndindex(shape):
        index = plan.run_of_cell[(0, *cell)]
        if index < 0:
            continue
        run = plan.runs[index]
        recorded = plan.groups[run.group].record_steps
        found = numbers_of(run, 2 + len(recorded))
        ends[cell] = found[:2]
        for step, value in zip(recorded, found[2:], strict=True):
            loss[(*cell, steps.index(step))] = value
        diverged[cell] = run.seed - 1
    return {
        "last_finite_loss": ends[..., 0],
        "final_test_loss": ends[..., 1],
        "loss": loss,
        "diverged_at": diverged,
    }


def test_the_tree_has_a_node_for_each_task_and_every_axis_by_name(whole):
    assert list(whole.children) == ["bowl"]
    node = whole["bowl"]
    assert node["final_test_loss"].dims == DIMS
    assert node["final_test_loss"].shape == SHAPE
    assert node["loss"].dims == (*DIMS, "step")
    assert node["optimizer"].values.tolist() == ["adamw", "adabayes"]
    assert node["learning_rate"].values.tolist() == [0.01, 0.1, 1000.0]
    assert node["num_steps"].values.tolist() == [12, 20]
    assert node["step"].values.tolist() == [0, 3, 5, 6, 9, 10, 15]  # every 3 of 12, every 5 of 20
    assert node["final_test_loss"].attrs["units"] == "nats"
    assert whole.attrs["chunks"] == whole.attrs["finished_chunks"] == 8


def test_the_lazy_tree_equals_an_eager_assembly(whole, plan):
    node = whole["bowl"]
    eager = by_hand(plan, node["step"].values.tolist())
    for name, values in eager.items():
        assert node[name].dtype == values.dtype
        np.testing.assert_array_equal(node[name].values, values, err_msg=name)
    assert np.isnan(eager["loss"]).any() and np.isfinite(eager["loss"]).any()


PIECES = {
    "one cell": {"optimizer": 0, "num_steps": 1, "learning_rate": 1, "seed": 3},
    "every other seed": {"seed": slice(None, None, 2)},
    "backwards": {"seed": slice(None, None, -1), "optimizer": 1},
    "some, out of order": {"seed": [4, 0, 0], "learning_rate": [2, 1], "num_steps": 0},
    "nothing": {"seed": [], "learning_rate": [1]},
    "the last steps": {"step": slice(-3, None), "seed": [1, 3], "optimizer": 0},
    "one step": {"step": 2},
    "an impossible cell": {"optimizer": 1, "learning_rate": 2},
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_a_piece_of_the_tree_is_that_piece_of_the_whole(whole, plan, piece):
    node = whole["bowl"]
    by_cell = by_hand(plan, node["step"].values.tolist())
    for name in ("loss", "last_finite_loss", "diverged_at"):
        lazy = node[name]
        inside = {dim: index for dim, index in piece.items() if dim in lazy.dims}
        eager = lazy.copy(data=by_cell[name]).isel(inside)
        np.testing.assert_array_equal(lazy.isel(inside).values, eager.values, err_msg=name)


def test_pointwise_selection_works_too(whole, plan):
    import xarray

    node = whole["bowl"]
    points = {"seed": xarray.DataArray([0, 4, 2], dims="point")}
    points["learning_rate"] = xarray.DataArray([1, 0, 2], dims="point")
    found = node["last_finite_loss"].isel(points).squeeze()
    by_cell = by_hand(plan, [*range(20)])["last_finite_loss"].reshape(2, 2, 3, 5)
    np.testing.assert_array_equal(found.values, by_cell[:, :, [1, 0, 2], [0, 4, 2]])


def test_only_the_chunks_that_hold_a_value_are_read(folder, opened):
    node = merge(folder)["bowl"]
    # Names and units come from one chunk of each group.
    assert opened == ["00-0000", "01-0000", "02-0000", "03-0000"]
    opened.clear()
    node["loss"].isel(optimizer=0, num_steps=0, learning_rate=0).values  # noqa: B018
    assert opened == ["00-0000"]
    node["final_test_loss"].isel(optimizer=0, num_steps=0, learning_rate=0).values  # noqa: B018
    assert opened == ["00-0000"]  # kept
    node["loss"].isel(optimizer=1, learning_rate=1).values  # noqa: B018
    assert opened == ["00-0000", "02-0000", "02-0001", "03-0000", "03-0001"]
    node["loss"].isel(optimizer=1, learning_rate=2).values  # noqa: B018
    node["status"].values  # noqa: B018
    assert len(opened) == 5
    node.load()
    assert sorted(opened) == [f"{group:02d}-{chunk:04d}" for group in range(4) for chunk in (0, 1)]


def test_a_reader_without_room_reads_again(folder, plan, opened, monkeypatch):
    monkeypatch.setattr(merged, "_MOST_BYTES_KEPT", 1)
    node = merge(folder)["bowl"]
    opened.clear()
    for _ in range(2):
        loss = node["loss"].isel(optimizer=0, num_steps=0).values
    assert opened == ["00-0000", "00-0001"] * 2
    by_cell = by_hand(plan, node["step"].values.tolist())["loss"]
    np.testing.assert_array_equal(loss, by_cell[0, :, :, 0])


def test_cells_without_a_run_are_blank_and_say_why(plan, tmp_path):
    folder = filled_store(tmp_path, plan, part=slice(1, None)).folder
    node = merge(folder)["bowl"]
    status = node["status"].squeeze()
    assert (status.sel(optimizer="adabayes", learning_rate=1000.0) == "impossible").all()
    assert "shrink per step below 1" in node["status"].attrs["impossible"]
    first = status.sel(optimizer="adamw", num_steps=12)
    assert first.values.ravel().tolist() == ["missing"] * 8 + ["finished"] * 7
    blank = (status != "finished").values
    assert blank.sum() == 8 + 10
    assert np.isnan(node["final_test_loss"].squeeze().values[blank]).all()
    assert (node["diverged_at"].squeeze().values[blank] == -1).all()
    assert np.isfinite(node["final_test_loss"].squeeze().values[~blank]).all()


def test_a_sweep_of_which_nothing_is_finished_has_its_axes(plan, tmp_path):
    open_store(tmp_path, plan, lambda: executions(plan))
    node = merge(tmp_path)["bowl"]
    assert list(node.data_vars) == ["status"]
    assert set(np.unique(node["status"])) == {"missing", "impossible"}
    assert node["seed"].size == 5


def test_a_chunk_that_turns_out_corrupt_is_named_when_it_is_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sweep")
    (path,) = (tmp_path / "sweep" / "chunks").glob("00-0001-*")
    node = merge(tmp_path / "sweep")["bowl"]
    path.write_bytes(b"")
    assert np.isfinite(node["loss"].isel(optimizer=0, num_steps=0, learning_rate=0)[..., 0]).all()
    with pytest.raises(ValueError, match="00-0001-.* is corrupt or truncated"):
        node["loss"].values  # noqa: B018


def test_one_whole_file_of_two_is_enough(folder, plan, tmp_path):
    shutil.copytree(folder, tmp_path / "sweep")
    chunks = tmp_path / "sweep" / "chunks"
    for name in ("00-0001-0000000000000000.nc", "00-0001-ffffffffffffffff.nc"):
        (chunks / name).write_bytes(b"")
    node = merge(tmp_path / "sweep")["bowl"]
    np.testing.assert_array_equal(
        node["last_finite_loss"].values, by_hand(plan, [*range(20)])["last_finite_loss"]
    )


def test_drawn_axes_are_one_dimension(tmp_path):
    drawn = Sweep(
        tasks=("bowl",), num_steps=(4,), batch_sizes=(4,), seeds=2, record_points=2,
        learning_rate="draw:1e-3:1e-1:3", weight_decay="draw:1e-3:1e-1:3",
    )  # fmt: skip
    plan = plan_sweep(drawn)
    node = merge(filled_store(tmp_path, plan).folder)["bowl"]
    assert node["final_test_loss"].sizes["draw"] == 3
    assert node["learning_rate"].dims == node["weight_decay"].dims == ("draw",)
    for place in range(3):
        run = plan.runs[2 * place + 1]
        cell = node.isel(draw=place, seed=1)
        assert float(cell["learning_rate"]) == run.numbers.learning_rate
        assert float(cell["weight_decay"]) == run.numbers.weight_decay
        assert cell["last_finite_loss"].values.ravel() == numbers_of(run, 1)


def test_all_results_can_be_one_netcdf_file(folder, whole, plan, tmp_path):
    import xarray

    path = write_netcdf(folder, tmp_path / "all.nc")
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        xarray.testing.assert_equal(tree["bowl"].to_dataset(), whole["bowl"].to_dataset())
        assert tree.attrs["sweep_hash"] == plan.hash


def test_what_is_no_sweep_cannot_be_merged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest\.json of a sweep"):
        merge(Path(tmp_path))
