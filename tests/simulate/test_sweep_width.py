"""The width of a chunk is measured; memory caps it; the cost of a run is known beforehand."""

import dataclasses

import numpy as np
import pytest

from bayesfilt.records import Record
from bayesfilt.simulate import sweep_width
from bayesfilt.simulate.chunk_record import chunk_record
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import build_program, execute_chunk
from bayesfilt.simulate.sweep_plan import Execution, chunks_of, plan_sweep
from bayesfilt.simulate.sweep_width import (
    largest_power_of_two,
    measure_execution,
    stored_bytes_per_run,
)


def plan_of(num_runs, **settings):
    small = {"tasks": ("bowl",), "num_steps": (23,), "batch_sizes": (4,), "learning_rate": "1e-3"}
    return plan_sweep(Sweep(**{**small, "seeds": num_runs, **settings}))


@pytest.fixture
def machine(monkeypatch):
    """A pretended machine: steps per second by (devices, width); None where it does not fit."""

    def pretend(speeds, num_devices=1):
        tried = []

        def measured(program, runs, width, memory):
            tried.append((program, width))
            speed = speeds.get((program, width))
            if speed is None:
                return None
            return Execution(
                width=width, num_devices=program, steps_per_second=speed, bytes_per_run=1
            )

        monkeypatch.setattr(sweep_width, "_measured", measured)
        monkeypatch.setattr(sweep_width, "build_program", lambda group, count: count)
        monkeypatch.setattr(sweep_width.jax, "local_devices", lambda: [None] * num_devices)
        return tried

    return pretend


def choice(num_runs):
    plan = plan_of(num_runs)
    found = measure_execution(plan.groups[0], plan.runs, memory=1)
    return found.num_devices, found.width


def test_the_faster_number_of_devices_is_taken(machine):
    speeds = {(1, 64): 30.0, (2, 64): 50.0, (2, 256): 51.0, (2, 16): 20.0}
    tried = machine(speeds, num_devices=3)  # of three only two can share a power of two
    assert choice(1_000) == (2, 64)
    assert sorted(tried) == [(1, 64), (2, 16), (2, 64), (2, 256)]
    machine({**speeds, (1, 64): 60.0, (1, 256): 1.0, (1, 16): 1.0}, num_devices=2)
    assert choice(1_000) == (1, 64)


def test_a_wider_chunk_must_be_worth_its_memory(machine):
    speeds = {(1, 16): 1.0, (1, 64): 10.0, (1, 256): 20.0, (1, 1024): 21.0, (1, 4096): 99.0}
    machine(speeds)
    assert choice(5_000) == (1, 256)


def test_a_narrower_chunk_is_taken_where_it_is_faster(machine):
    machine({(1, 16): 12.0, (1, 64): 10.0, (1, 256): 10.0})
    assert choice(1_000) == (1, 16)


def test_no_chunk_is_wider_than_the_runs_need(machine):
    tried = machine({(1, 8): 1.0, (1, 32): 9.0, (1, 64): 10.0, (1, 16): 8.0})
    assert choice(5) == (1, 8)
    assert choice(20) == (1, 32)
    assert choice(70) == (1, 64) or choice(70) == (1, 16)
    assert max(width for _, width in tried) <= 256


def test_padding_counts_against_a_width(machine):
    # 65 runs are two chunks of 64, nearly half of them padding, or five of 16.
    machine({(1, 64): 10.0, (1, 16): 8.0, (1, 128): 10.0})
    assert choice(65) == (1, 16)
    assert choice(128) == (1, 64)


def test_what_does_not_fit_is_not_chosen(machine):
    machine({(1, 8): 1.0, (1, 16): 4.0})
    assert choice(1_000) == (1, 16)
    machine({})
    with pytest.raises(ValueError, match="8 runs do not fit into"):
        choice(1_000)


def test_a_real_measurement_is_plausible_and_bounded_by_memory():
    plan = plan_of(16)
    group = plan.groups[0]
    found = measure_execution(group, plan.runs)
    assert found.width in (8, 16)
    assert found.num_devices == 1
    assert 100 < found.steps_per_second < 1e9
    # Ten weights, two moments and 64 bytes of keys and counters at the very least.
    assert 3 * 10 * 4 < found.bytes_per_run < 1e6
    with pytest.raises(ValueError, match="do not fit"):
        measure_execution(group, plan.runs, memory=100)


def test_at_least_one_run_is_needed():
    plan = plan_of(1)
    with pytest.raises(ValueError, match="number of runs >= 1"):
        measure_execution(plan.groups[0], ())


def test_the_storage_of_a_run_is_known_beforehand():
    plan = plan_of(8, full_trace=True)
    program = build_program(plan.groups[0])
    outcome = execute_chunk(program, chunks_of(plan, 0, 8)[0])
    record: Record = chunk_record(plan, outcome)
    stored = sum(
        item.values.nbytes for name, item in record.groups["runs"].items() if name != "step"
    )
    assert stored_bytes_per_run(program) == stored / 8


def test_a_full_trace_says_its_size():
    plan = plan_of(1)
    thin = stored_bytes_per_run(build_program(plan.groups[0]))
    full = stored_bytes_per_run(build_program(dataclasses.replace(plan.groups[0], full_trace=True)))
    assert full - thin == 3 * 23 * np.dtype(np.float32).itemsize


def test_powers_of_two():
    assert [largest_power_of_two(n) for n in (1, 2, 3, 4, 7, 8, 9)] == [1, 2, 2, 4, 4, 8, 8]
