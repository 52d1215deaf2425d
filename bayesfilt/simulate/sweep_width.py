"""How wide a chunk should be, on how many devices, and what a sweep will cost: by measurement.

A few widths are compiled and run for one recording block each. The answer is measured once for
a group and then obeyed by every process, because the width decides the last bits of a result.
"""

import math
import os
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from bayesfilt.checks import require_at_least
from bayesfilt.simulate.sweep_chunk import (
    ChunkProgram,
    arguments,
    build_program,
    is_out_of_memory,
    pieces_of,
)
from bayesfilt.simulate.sweep_plan import Execution, Numbers, PlannedRun, SweepGroup

LEAST_WIDTH = 8
FIRST_WIDTH = 64  # tried first; the others are 4 times wider or narrower

_ROUNDS, _ENOUGH_SECONDS = 10, 0.5  # a block is run so often, or until it has taken so long
_GAIN = 1.1  # a wider chunk must be so much faster to be worth its memory
_SHARE_OF_MEMORY = {"cpu": 0.5, "gpu": 0.8}  # of what is free; the rest is for the files

# Of a run in a file: its hash in UTF-32, five numbers, a seed.
_BYTES_OF_CONFIGURATION = 64 * 4 + 6 * 8


def measure_execution(
    group: SweepGroup,
    runs: tuple[PlannedRun, ...],
    *,
    width: int | None = None,
    memory: int | None = None,
) -> Execution:
    """Find the width and the number of devices that finish `runs` soonest.

    Args:
        group: whose program is to be executed.
        runs: all distinct runs of the group.
        width: a power of two, at least 8, that is settled; only the devices are then measured.
        memory: bytes that the chunks of one device may take; None: a fraction of what is free.

    Raises:
        ValueError: no run, another width, or not even the narrowest chunk fits into memory.
    """
    require_at_least("measure_execution", "number of runs", len(runs), 1)
    if width is not None:
        _require_width(width)
    memory = free_memory() if memory is None else memory
    most = max(LEAST_WIDTH, 2 ** math.ceil(math.log2(len(runs))))
    counts = sorted({1, largest_power_of_two(len(jax.local_devices()))})
    programs = {count: build_program(group, count) for count in counts}

    def seconds(execution: Execution) -> float:
        padded = math.ceil(len(runs) / execution.width) * execution.width
        return padded / execution.steps_per_second

    first = min(FIRST_WIDTH, most) if width is None else width
    measure = _fitting if width is None else _measured
    measured = [measure(programs[count], runs, first, memory) for count in counts]
    best = min(filter(None, measured), key=seconds, default=None)
    if best is None:
        raise ValueError(
            f"{group.title} needs more memory than there is: {width or LEAST_WIDTH} runs do not fit"
            f" into {memory / 2**20:.0f} MiB."
        )
    if width is not None:
        return best
    program = programs[best.num_devices]
    for factor, gain in ((4, _GAIN), (1 / 4, 1.0)):
        moved = False
        while LEAST_WIDTH <= (other_width := int(best.width * factor)) <= most:
            other = _measured(program, runs, other_width, memory)
            if other is None or seconds(best) < gain * seconds(other):
                break
            best, moved = other, True
        if moved:
            break
    return best


def _require_width(width: int) -> None:
    if width < LEAST_WIDTH or width & (width - 1):
        raise ValueError(f"A width is a power of two, at least {LEAST_WIDTH}; got {width}.")


def largest_power_of_two(number: int) -> int:
    """The largest power of two that is not above `number`."""
    return 2 ** (number.bit_length() - 1)


def free_memory() -> int:
    """Bytes that the chunks of one local device may take."""
    devices = jax.local_devices()
    share = _SHARE_OF_MEMORY.get(devices[0].platform, 0.5)
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(share * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return int(share * _free_host_memory() / len(devices))


def stored_bytes_per_run(program: ChunkProgram) -> int:
    """Bytes that a run takes in a file before compression, from the shapes of its results."""
    group, width = program.group, program.num_devices
    seeds = jax.ShapeDtypeStruct((width,), np.uint32)
    numbers = Numbers(*[jax.ShapeDtypeStruct((width,), group.dtype)] * len(Numbers._fields))
    carries = jax.eval_shape(program.begin, seeds, numbers, program.task)
    lengths = pieces_of(group)
    total = _bytes_of(jax.eval_shape(program.finish, program.task, carries))
    for length in set(lengths):
        go_on = partial(program.go_on, num_steps=length)
        _, (_, records) = jax.eval_shape(go_on, numbers, program.task, carries)
        total += lengths.count(length) * _bytes_of(records)
    return total // width + _BYTES_OF_CONFIGURATION


def _fitting(
    program: ChunkProgram, runs: tuple[PlannedRun, ...], width: int, memory: int
) -> Execution | None:
    """Measure at `width`, or at the widest below it that fits; None: nothing does."""
    while width >= LEAST_WIDTH:
        found = _measured(program, runs, width, memory)
        if found is not None:
            return found
        width //= 2
    return None


def _measured(
    program: ChunkProgram, runs: tuple[PlannedRun, ...], width: int, memory: int
) -> Execution | None:
    """Run one recording block at `width`; None where it does not fit the memory or the devices."""
    if width < program.num_devices:
        return None
    num_steps = pieces_of(program.group)[0]
    num_steps = min(num_steps, program.group.record_every)
    seeds, numbers = arguments(program.group, runs[:width], width)
    try:
        carries = program.begin(seeds, numbers, program.task)
        go_on = program.go_on.lower(numbers, program.task, carries, num_steps=num_steps).compile()
        finish = program.finish.lower(program.task, carries).compile()
        needed = max(_bytes_needed(go_on), _bytes_needed(finish))
        if needed > memory:
            return None
        fastest, spent = math.inf, 0.0
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            carries, records = go_on(numbers, program.task, carries)
            jax.block_until_ready((carries, records))
            taken = time.perf_counter() - begun
            fastest, spent = min(fastest, taken), spent + taken
            if spent > _ENOUGH_SECONDS:
                break
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    data = _bytes_of(program.task)
    share = width // program.num_devices
    return Execution(
        width=width,
        num_devices=program.num_devices,
        steps_per_second=width * num_steps / fastest,
        bytes_per_run=max(0, needed - data) // share,
    )


def _bytes_needed(compiled: Any) -> int:
    """Memory of one device while a compiled program runs, its data set included."""
    sizes = compiled.memory_analysis()
    if sizes is None:  # not every backend says
        return 0
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return held + sizes.temp_size_in_bytes


def _bytes_of(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def _free_host_memory() -> int:
    """Bytes of main memory that are free; all of it where the system does not say what is."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            sizes = dict(line.split(":") for line in lines)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
