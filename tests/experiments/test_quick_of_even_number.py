"""Every second QUICK; the others are in a file of their own, for another worker."""

import pytest

from experiments.contract import experiment_names
from tests.experiments.quick_runs import assert_it_runs_is_judged_and_drawn


@pytest.mark.parametrize("name", experiment_names()[1::2])
def test_every_quick_runs_is_judged_and_drawn(name, tmp_path):
    assert_it_runs_is_judged_and_drawn(name, tmp_path)
