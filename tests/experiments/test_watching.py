"""A watched run is the run that `simulate` makes, looked at more rarely."""

import jax
import numpy as np
import pytest

from bayesfilt.compare import chosen_weight, summed_gradient
from bayesfilt.simulate import simulate
from experiments.coordinates import AdamW, choice_of, task_of
from experiments.grids import quick_problem
from experiments.watching import Window, gaps_of, watch, watcher

WINDOWS = (Window(begin=2, spacing=3, count=2), Window(begin=9, spacing=1, count=2))
LOOKS = [2, 5, 9, 10]


@pytest.fixture(scope="module")
def task():
    return task_of(quick_problem())


def test_gaps_are_the_steps_between_looks():
    assert gaps_of(WINDOWS).tolist() == [2, 2, 3, 0]
    with pytest.raises(ValueError, match="one after the other"):
        gaps_of(WINDOWS[::-1])


def test_a_watched_run_is_the_run_itself(task):
    chosen = choice_of(task, 3)
    probes = {"weight": chosen_weight(chosen), "gradient": summed_gradient(chosen)}
    adamw = AdamW(weight_decay=0.01, batch_size=task.batch_size)
    held = {"count": lambda state: jax.tree.leaves(state)[0] * 1.0}
    rates, seeds = (0.01, 0.002, 0.01), (3, 3, 4)
    seen = watch(watcher(adamw.builder(), probes, held), [task] * 3, rates, seeds, WINDOWS)
    assert seen["weight"].shape == (3, 4, 6)
    for run, (rate, seed) in enumerate(zip(rates, seeds, strict=True)):
        alone = simulate(jax.random.key(seed), task, adamw.builder()(rate), 11, probes=probes)
        for name in probes:
            np.testing.assert_allclose(
                seen[name][run], np.asarray(alone.records[name])[LOOKS], rtol=2e-4, atol=1e-6
            )
    # The state is the one that the optimizer came with: so many steps had been taken.
    assert (seen["count"] == np.array(LOOKS)).all()


def test_a_run_that_diverges_is_not_a_number_from_there_on(task):
    chosen = choice_of(task, 3)
    adamw = AdamW(weight_decay=0.01, batch_size=task.batch_size)
    program = watcher(adamw.builder(), {"weight": chosen_weight(chosen)})
    seen = watch(program, [task] * 2, (1e38, 0.01), (0, 0), WINDOWS)
    assert np.isnan(seen["weight"][0, -1]).all()
    assert np.isfinite(seen["weight"][1]).all()
