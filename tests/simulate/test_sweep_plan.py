"""A plan: every cell has its run, equal runs are one, impossible cells are named."""

import itertools

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt.optimizers.zoo import OPTIMIZERS
from bayesfilt.simulate import sweep_plan
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import build_program
from bayesfilt.simulate.sweep_plan import (
    INVALID,
    Numbers,
    all_chunks,
    chunks_of,
    optimizer_of,
    plan_sweep,
    record_spacing,
)
from bayesfilt.simulate.sweep_width import stored_bytes_per_run
from tests.quick_look import ONE_OF_EACH_STATUS, slow_but


def bowls(**settings):
    return Sweep(**{"tasks": ("bowl",), "num_steps": (40,), "batch_sizes": (4,), **settings})


def at(plan, **chosen):
    """The run of one cell, found by the values of the dimensions longer than 1."""
    index = tuple(
        dimension.values.index(chosen.get(dimension.name, dimension.values[0]))
        for dimension in plan.dimensions
    )
    return plan.runs[plan.run_of_cell[index]]


def test_every_cell_has_the_run_of_its_configuration():
    plan = plan_sweep(
        bowls(
            optimizers=("adamw", "adabayes"),
            schedules=("constant", "cosine"),
            learning_rate="1e-3,1e-2",
            weight_decay="0.1,0.2,0.3",
            b1="0.5,0.9",
            seeds=(3, 1),
        )
    )
    assert plan.run_of_cell.shape == (1, 2, 2, 1, 1, 2, 3, 2, 1, 1, 2)
    assert len(plan.groups) == 4
    assert len(plan.runs) == 2 * 2 * 2 * 3 * 2 * 2 == len(set(plan.run_of_cell.ravel()))
    for cell in itertools.product(*(dimension.values for dimension in plan.dimensions)):
        chosen = dict(zip((d.name for d in plan.dimensions), cell, strict=True))
        run = at(plan, **chosen)
        group = plan.groups[run.group]
        assert (group.task, group.optimizer, group.schedule) == cell[:3]
        assert (group.batch_size, group.num_steps) == cell[3:5]
        assert (*run.numbers, run.seed) == cell[5:]
        assert plan.runs_of(run.group)[run.position] == run


def test_draws_are_one_dimension_and_come_jointly():
    sweep = bowls(learning_rate="draw:1e-4:1e-1:5", weight_decay="0.1,0.2", b1="draw:0.5:0.9:5")
    plan = plan_sweep(sweep)
    names = [dimension.name for dimension in plan.dimensions]
    assert names[5:] == ["weight_decay", "b2", "eps", "draw", "seed"]
    drawn = plan.dimensions[names.index("draw")].drawn
    assert len(plan.runs) == 5 * 2 * 3
    for draw in range(5):
        numbers = at(plan, draw=draw, weight_decay=0.2, seed=1).numbers
        assert numbers.learning_rate == drawn["learning_rate"][draw]
        assert numbers.b1 == drawn["b1"][draw]


def test_cells_of_one_configuration_share_one_run():
    plan = plan_sweep(bowls(learning_rate="draw:1e-3:1e-3:6", seeds=2))
    assert plan.run_of_cell.size == 12
    assert len(plan.runs) == 2
    assert set(plan.run_of_cell[..., 0].ravel()) == {0}


def test_a_runs_identity_is_its_configuration_and_not_how_it_is_recorded():
    def hashes(**settings):
        return {run.hash for run in plan_sweep(bowls(seeds=1, **settings)).runs}

    base = hashes(learning_rate="1e-3,1e-2")
    assert base == hashes(learning_rate="1e-2,1e-3", record_points=5, full_trace=True)
    assert base < hashes(learning_rate="1e-4,1e-3,1e-2")
    for other in ({"b1": "0.8"}, {"eps": "0"}, {"num_steps": (41,)}, {"schedules": ("cosine",)}):
        assert not base & hashes(learning_rate="1e-3,1e-2", **other)


IMPOSSIBLE: dict = {
    "optimizers": ("adamw", "adabayes"),
    "learning_rate": "0.1,1",
    "weight_decay": "0.1,3",
}


def test_impossible_cells_are_refused_by_name_before_the_start():
    with pytest.raises(ValueError, match="2 of 12|3 of 24") as refused:
        plan_sweep(bowls(**IMPOSSIBLE))
    message = str(refused.value)
    assert "adabayes on bowl" in message
    assert "learning_rate=1, weight_decay=3" in message
    assert "shrink per step below 1" in message
    assert "skip_invalid" in message
    assert "\n" not in message


def test_impossible_cells_can_be_skipped_and_are_listed():
    plan = plan_sweep(bowls(**IMPOSSIBLE, skip_invalid=True))
    (missing,) = plan.invalid
    assert missing.where.startswith("adabayes on bowl")
    assert missing.num_cells == 3
    assert np.sum(plan.run_of_cell == INVALID) == 3
    invalid = plan.run_of_cell[0, 1, 0, 0, 0, 1, 1]
    assert np.all(invalid == INVALID)
    assert len(plan.runs) == 24 - 3


def test_many_impossible_cells_are_named_briefly():
    with pytest.raises(ValueError, match="and 7 more") as refused:
        plan_sweep(bowls(learning_rate="-1,1e-3", weight_decay="0,1,2,3,4,5,6,7,8,9"))
    assert len(str(refused.value)) < 1_000


def test_a_sweep_without_a_possible_cell_is_refused_even_where_they_may_be_skipped():
    with pytest.raises(ValueError, match="3 of 3 cannot: .*learning_rate > 0") as refused:
        plan_sweep(bowls(learning_rate="-1", skip_invalid=True))
    assert "Pass skip_invalid" not in str(refused.value)


def test_a_task_that_cannot_be_had_makes_its_whole_group_impossible():
    sweep = bowls(tasks=("bowl", "digits-mlp"), subset=100, skip_invalid=True)
    plan = plan_sweep(sweep)
    (missing,) = plan.invalid
    assert "subset" in missing.reason
    assert missing.num_cells == 21
    assert {group.task for group in plan.groups} == {"digits-mlp"}


@pytest.mark.parametrize("name", slow_but(ONE_OF_EACH_STATUS, OPTIMIZERS))
def test_every_optimizer_of_the_zoo_can_be_swept(name):
    (group,) = plan_sweep(bowls(optimizers=(name,), seeds=1, learning_rate="1e-3")).groups
    assert stored_bytes_per_run(build_program(group)) > 0  # traces the whole program


def test_an_optimizer_that_must_know_its_numbers_cannot_be_swept(monkeypatch):
    def impatient(group, numbers):
        return optax.sgd(float(numbers.learning_rate))

    monkeypatch.setattr(sweep_plan, "optimizer_of", impatient)
    with pytest.raises(ValueError, match="needs its numbers before it is compiled"):
        plan_sweep(bowls(seeds=1, learning_rate="1e-3"))


def test_numbers_reach_the_optimizer_by_name():
    (group,) = plan_sweep(bowls(seeds=1, learning_rate="1e-3")).groups
    numbers = Numbers(learning_rate=0.5, weight_decay=0.2, b1=0.3, b2=0.7, eps=1.0)
    ours = optimizer_of(group, numbers)
    theirs = optax.adamw(0.5, b1=0.3, b2=0.7, eps=1.0, weight_decay=0.2)
    params = np.array([2.0])
    states = ours.init(params), theirs.init(params)
    for gradient in (np.array([3.0]), np.array([-1.0])):
        update, state = ours.update(gradient, states[0], params)
        wanted, other = theirs.update(gradient, states[1], params)
        states = state, other
        np.testing.assert_allclose(update, wanted, rtol=1e-12)


@given(count=st.integers(1, 40), width=st.sampled_from([8, 16]))
@settings(max_examples=20)
def test_chunks_hold_every_run_once_in_order(count, width):
    plan = plan_sweep(bowls(learning_rate="1e-3", seeds=count, optimizers=("adamw", "adam")))
    chunks = all_chunks(plan, [width, 2 * width])
    assert [run for chunk in chunks for run in chunk.runs] == list(plan.runs)
    assert chunks[: -(-count // width)] == chunks_of(plan, 0, width)
    for chunk in chunks:
        assert 0 < len(chunk.runs) <= chunk.width
        assert all(run.group == chunk.group for run in chunk.runs)
    assert sorted(itertools.chain(chunks[0::2], chunks[1::2]), key=chunks.index) == list(chunks)


@given(num_steps=st.integers(1, 100_000), points=st.integers(1, 200))
@settings(max_examples=200)
def test_records_are_about_as_many_as_wanted(num_steps, points):
    spacing = record_spacing(num_steps, points)
    assert 1 <= spacing <= 1_000
    if points <= num_steps <= 1_000 * points:
        assert points / 1.51 <= num_steps / spacing <= 1.51 * points


@pytest.mark.parametrize(
    ("axis", "value", "seen"),
    [
        ("learning_rate", 1e-60, "0"),
        ("learning_rate", 1e39, "inf"),
        ("eps", 1e-50, "0"),
        ("b2", 1 - 1e-12, "1"),
    ],
)
def test_a_number_that_float32_cannot_hold_is_an_impossible_cell(axis, value, seen):
    asked = Sweep(
        tasks=("bowl",), num_steps=(5,), seeds=1, **{"learning_rate": (0.1,), axis: value}
    )
    with pytest.raises(ValueError, match=rf"float32 cannot hold {axis}=.*: it would be {seen}"):
        plan_sweep(asked)
