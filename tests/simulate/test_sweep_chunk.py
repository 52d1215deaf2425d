"""A chunk is many runs at once, and each is the run that `simulate` makes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfilt.records import read_record, write_record
from bayesfilt.simulate import simulate
from bayesfilt.simulate.chunk_record import chunk_record
from bayesfilt.simulate.probes import update_rms, weight_rms
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import (
    ChunkProgram,
    build_program,
    execute_chunk,
    pieces_of,
)
from bayesfilt.simulate.sweep_plan import ChunkPlan, Numbers, SweepGroup, optimizer_of, plan_sweep

COMPILED = "/jax/core/compile/backend_compile_duration"


def plan_of(**settings):
    """Bowls; recorded every fourth step, in one piece."""
    small = {"tasks": ("bowl",), "num_steps": (24,), "batch_sizes": (4,), "record_points": 6}
    return plan_sweep(Sweep(**{**small, **settings}))


def outcome_of(program, runs, width, **options):
    chunk = ChunkPlan(group=0, index=0, width=width, runs=tuple(runs))
    return execute_chunk(program, chunk, **options)


def numbers_in(outcome):
    return outcome.summary, outcome.records, outcome.trace


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


@pytest.fixture(scope="module")
def plan():
    return plan_of(learning_rate="log:1e-3:1e-1:6", weight_decay="0.1,0.3", seeds=2)


@pytest.fixture(scope="module")
def program(plan):
    return build_program(plan.groups[0])


@pytest.fixture(scope="module")
def whole(plan, program):
    return outcome_of(program, plan.runs[:8], 8)


def single_run(group, numbers, seed, task, **options):
    """The same run by itself, with its numbers written into the program."""
    optimizer = optimizer_of(group, numbers)
    run = jax.jit(lambda key, task: simulate(key, task, optimizer, group.num_steps, **options))
    return run(jax.random.key(seed), task)


@pytest.mark.parametrize(
    ("settings", "rtol"),
    [
        # Rounding, carried through two dozen steps.
        ({"num_steps": (23,), "dtype": "float64"}, 1e-11),
        ({"tasks": ("digits-mlp",), "dtype": "float64"}, 1e-9),
        # 1 - b2 of a float32 b2 = 0.999 is off by 1.3e-5 already.
        ({"dtype": "float32", "schedules": ("cosine",), "optimizers": ("adabayes",)}, 2e-4),
    ],
    ids=["bowl", "digits", "float32"],
)
def test_each_run_of_a_chunk_is_the_run_by_itself_to_rounding(settings, rtol):
    plan = plan_of(learning_rate="1e-3,1e-2", weight_decay="0.3", seeds=(0, 5), **settings)
    program = build_program(plan.groups[0])
    outcome = outcome_of(program, plan.runs, 4)
    group = plan.groups[0]
    probes = {"loss": lambda t, v: v.loss, "weight_rms": weight_rms}
    run = plan.runs[3]
    alone = single_run(group, run.numbers, run.seed, program.task, probes=probes)
    for name in probes:
        ours = outcome.records[name][3]
        close(ours, np.asarray(alone.records[name])[group.record_steps], rtol)
    ended = outcome.summary.final
    for name, value in program.task.evaluate(alone.params).items():
        close(ended[name][3], value, rtol)
    close(outcome.summary.last_finite_loss[3], alone.records["loss"][-1], rtol)
    if group.task == "digits-mlp":
        training_loss = program.task.loss(alone.params, program.task.train)
        close(ended["training_loss"][3], training_loss, rtol)
    assert np.all(outcome.summary.diverged_at == -1)


def test_place_and_padding_do_not_change_a_bit(plan, program, whole):
    backwards = outcome_of(program, plan.runs[7::-1], 8)
    same_bits(jax.tree.map(lambda a: a[::-1], numbers_in(backwards)), numbers_in(whole))
    padded = outcome_of(program, plan.runs[:3], 8)
    same_bits(numbers_in(padded), jax.tree.map(lambda a: a[:3], numbers_in(whole)))


@pytest.mark.parametrize("width", [1, 4, 16])
def test_another_width_changes_rounding_only(plan, program, whole, width):
    other = outcome_of(program, plan.runs[:width], width)
    count = min(width, 8)
    # A dozen rounding errors of float32, carried through two dozen steps.
    close(*(jax.tree.map(lambda a: a[:count], numbers_in(o)) for o in (other, whole)), rtol=1e-5)


def test_one_compile_is_enough_for_all_chunks_and_numbers(plan):
    program = build_program(plan.groups[0])
    first = outcome_of(program, plan.runs[:8], 8)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if event == COMPILED else None
    )
    try:
        jax.jit(lambda x: x + 17)(np.zeros(3))
        assert compiled == [COMPILED]  # the counter counts
        others = [outcome_of(program, plan.runs[8:16], 8), outcome_of(program, plan.runs[16:], 8)]
    finally:
        jax.monitoring.clear_event_listeners()
    assert compiled == [COMPILED]
    assert [part._cache_size() for part in (program.begin, program.finish)] == [1, 1]
    assert program.go_on._cache_size() == len(set(pieces_of(plan.groups[0])))
    losses = [outcome.summary.last_finite_loss for outcome in (first, *others)]
    assert len(np.unique(losses)) == 24


def test_a_run_that_diverges_is_recorded_and_frozen_and_harms_nobody():
    # At 1e3 the decay alone multiplies each weight by -99 a step.
    sick = plan_of(learning_rate="1e-3,1e3,1e-2", seeds=1)
    well = plan_of(learning_rate="1e-3,2e-3,1e-2", seeds=1)
    program = build_program(sick.groups[0])
    outcome = outcome_of(program, sick.runs, 8)
    neighbours = outcome_of(program, well.runs, 8)
    others = np.array([0, 2])
    same_bits(*(jax.tree.map(lambda a: a[others], numbers_in(o)) for o in (outcome, neighbours)))

    group, run = sick.groups[0], sick.runs[1]
    numbers = Numbers(*map(jnp.float32, run.numbers))
    alone = single_run(group, numbers, run.seed, program.task)
    step = int(alone.diverged_at)
    assert 5 < step < 24
    assert outcome.summary.diverged_at.tolist() == [-1, step, -1]
    before = alone.records["loss"][step - 1]
    found = outcome.summary.last_finite_loss[1]
    assert np.isfinite(found)
    np.testing.assert_allclose(found, alone.last_loss, rtol=1e-4)
    assert found >= 0.99 * before
    for values in outcome.summary.final.values():
        assert np.isnan(values[1])
        assert np.all(np.isfinite(values[others]))
    after = group.record_steps >= step
    assert np.array_equal(np.isnan(outcome.records["loss"][1]), after)


def scarce(program, largest, tried):
    """The program on a device that holds `largest` runs and no more."""

    def go_on(numbers, task, carries, *, num_steps):
        width = len(numbers.eps)
        tried.append(width)
        if width > largest:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
        return program.go_on(numbers, task, carries, num_steps=num_steps)

    return ChunkProgram(
        group=program.group,
        num_devices=program.num_devices,
        task=program.task,
        begin=program.begin,
        go_on=go_on,
        finish=program.finish,
    )


def test_out_of_memory_halves_the_width_and_says_so(plan, program, whole):
    tried, told = [], []
    pieces = len(pieces_of(program.group))
    outcome = outcome_of(
        scarce(program, 4, tried), plan.runs[:7], 16, on_progress=lambda *x: told.append(x)
    )
    assert tried == [16, 8] + [4] * 2 * pieces
    assert outcome.executed_width == 4
    close(numbers_in(outcome), jax.tree.map(lambda a: a[:7], numbers_in(whole)), rtol=1e-5)
    assert told[-1] == (7 * 24, 7 * 24)
    attributes = chunk_record(plan, outcome).attributes
    assert (attributes["width"], attributes["executed_width"]) == (16, 4)
    assert attributes["halved"]


def test_a_run_that_never_fits_and_any_other_failure_are_raised(plan, program):
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        outcome_of(scarce(program, 0, []), plan.runs[:4], 4)

    def broken(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is on fire")

    failing = scarce(program, 8, [])
    failing = ChunkProgram(*failing[:-1], finish=broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="on fire"):
        outcome_of(failing, plan.runs[:8], 8)


def test_ctrl_c_comes_through_and_the_program_lives_on(plan, program, whole):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome_of(program, plan.runs[:8], 8, on_progress=interrupt)
    same_bits(numbers_in(outcome_of(program, plan.runs[:8], 8)), numbers_in(whole))


def test_a_full_trace_has_every_step_and_the_same_records():
    # 23 steps are five whole recording blocks and a piece of three steps.
    plan = plan_of(num_steps=(23,), learning_rate="1e-3,1e-2", seeds=4, full_trace=True)
    group, run = plan.groups[0], plan.runs[6]
    program = build_program(group)
    assert pieces_of(group) == [20, 3]
    outcome = outcome_of(program, plan.runs, 8)
    probes = {
        "loss": lambda t, v: v.loss,
        "weight_rms": weight_rms,
        "update_rms": update_rms,
        "test_loss": lambda t, v: t.evaluate(v.params)["test_loss"],
    }
    numbers = Numbers(*map(jnp.float32, run.numbers))
    alone = single_run(group, numbers, run.seed, program.task, probes=probes).records
    assert outcome.trace.keys() | {"test_loss"} == probes.keys()
    for name, values in outcome.trace.items():
        assert values.shape == (8, 23)
        close(values[6], alone[name], rtol=1e-4)
    assert group.record_steps.tolist() == [0, 4, 8, 12, 16, 20]
    for name in ("loss", "weight_rms"):
        same_bits(outcome.trace[name][:, group.record_steps], outcome.records[name])
    close(outcome.records["test_loss"][6], alone["test_loss"][group.record_steps], rtol=1e-4)


def test_the_record_of_a_chunk_comes_back_from_its_file(plan, whole, tmp_path):
    record = chunk_record(plan, whole)
    again = read_record(write_record(record, tmp_path))
    assert again.attributes == record.attributes
    runs = again.groups["runs"]
    assert runs["hash"].values.tolist() == [run.hash for run in plan.runs[:8]]
    for name in Numbers._fields:
        assert runs[name].values.tolist() == [getattr(run.numbers, name) for run in plan.runs[:8]]
    np.testing.assert_array_equal(runs["loss"].values, whole.records["loss"])
    assert runs["loss"].dims == ("run", "record")
    np.testing.assert_array_equal(runs["step"].values, plan.groups[0].record_steps)
    np.testing.assert_array_equal(runs["final_test_loss"].values, whole.summary.final["test_loss"])
    assert again.attributes["sweep_hash"] == plan.hash
    assert again.attributes["halved"] is False


@given(
    num_steps=st.integers(1, 30_000),
    record_every=st.integers(1, 1_000),
)
def test_pieces_make_up_the_run_in_few_lengths(num_steps, record_every):
    group = SweepGroup(
        index=0,
        task="bowl",
        optimizer="adamw",
        schedule="constant",
        batch_size=4,
        num_steps=num_steps,
        subset=None,
        label_noise=0.0,
        dtype="float32",
        record_every=record_every,
        full_trace=False,
    )
    pieces = pieces_of(group)
    assert sum(pieces) == num_steps
    assert max(pieces) <= 1_000
    assert len(set(pieces)) <= 3
    assert len(pieces) <= 4 * (num_steps / 1_000) + 3
    starts = list(itertools.accumulate([0, *pieces[:-1]]))
    assert all(first % record_every == 0 for first in starts)
