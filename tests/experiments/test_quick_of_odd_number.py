"""Every second QUICK, from the first; and what else its results show."""

import jax
import numpy as np
import pytest

from experiments import grids
from experiments.contract import experiment_named, experiment_names
from tests.experiments.quick_runs import assert_it_runs_is_judged_and_drawn, quick_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quick")


@pytest.mark.parametrize("name", experiment_names()[::2])
def test_every_quick_runs_is_judged_and_drawn(name, folder):
    assert_it_runs_is_judged_and_drawn(name, folder)


def test_a_grid_holds_its_cells_in_order(folder):
    """One cell trained alone ends where the same cell of the grid ends."""
    config = experiment_named("e01").QUICK
    axes = grids.Axes(rates="0.01", decays="1")
    seeds = grids.seeds_from(jax.random.split(jax.random.key(0), 1)[0], 3)
    alone = grids.train_grid(config.problems[0], "adamw", "cosine", axes, seeds)
    among = grids.grid_from(quick_result("e01_separability", folder), "digits-mlp-300/adamw/cosine")
    np.testing.assert_allclose(among.rates[1], 0.01)
    np.testing.assert_allclose(among.decays[2], 1.0)
    np.testing.assert_allclose(alone.training_loss[0, 0], among.training_loss[1, 2], rtol=1e-4)
    assert np.ptp(among.training_loss[:, 1, 0]) > 0.1  # the rate matters
