"""A chunk shared by eight devices is the chunk of one, to rounding; on eight it repeats its bits.

The number of CPU devices is settled when jax starts, so this is a process of its own.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import jax
jax.config.update("jax_num_cpu_devices", 8)  # before the backend starts
import numpy as np
from bayesfilt.simulate.sweep import Sweep
from bayesfilt.simulate.sweep_chunk import arguments, build_program, execute_chunk
from bayesfilt.simulate.sweep_plan import ChunkPlan, plan_sweep

plan = plan_sweep(Sweep(
    tasks=("bowl",), num_steps=(23,), batch_sizes=(4,),
    learning_rate="log:1e-3:1e-1:7,1e3", weight_decay="0.1,0.3", seeds=2,
))
group = plan.groups[0]
one, eight = build_program(group, 1), build_program(group, 8)
carries = eight.begin(*arguments(group, plan.runs, 32), eight.task)
assert {shard.data.shape for shard in carries.params.addressable_shards} == {(4, 10)}
assert len(eight.task.curvature.sharding.device_set) == 8
print("each device has its share of the runs and all of the task")

def outcome(program, runs, width=32):
    chunk = ChunkPlan(group=0, index=0, width=width, runs=tuple(runs))
    found = execute_chunk(program, chunk)
    return found.summary, found.records

def close(a, b):
    # A minibatch loss near zero is a difference of terms of order one.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

shared, alone = outcome(eight, plan.runs), outcome(one, plan.runs)
assert (shared[0].diverged_at > 0).sum() == 4
np.testing.assert_array_equal(shared[0].diverged_at, alone[0].diverged_at)
jax.tree.map(lambda a, b: close(a, b), shared, alone)
print("one device: rounding")

def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)

same(jax.tree.map(lambda a: a[::-1], outcome(eight, plan.runs[::-1])), shared)
same(outcome(eight, plan.runs[:5]), jax.tree.map(lambda a: a[:5], shared))
print("whichever device a run is on, with whatever padding: the same bits")

narrow = outcome(eight, plan.runs[:8], width=8)
jax.tree.map(lambda a, b: close(a, b[:8]), narrow, shared)
print("one run a device: rounding")
"""


@pytest.mark.slow  # starts another process; widths and places are in test_sweep_chunk
def test_eight_devices_give_the_numbers_of_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "each device has its share of the runs and all of the task",
        "one device: rounding",
        "whichever device a run is on, with whatever padding: the same bits",
        "one run a device: rounding",
    ]
