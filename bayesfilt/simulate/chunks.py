"""The same run from a host loop: progress, Ctrl-C, bounded memory; equal bits.

The carry goes from chunk to chunk on the device; records come to the host after each
chunk, so a long run needs the memory of one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Params
from bayesfilt.simulate.program import (
    Carry,
    Program,
    RunRecord,
    advance,
    check_program,
    finished,
    start,
)
from bayesfilt.tasks import Task

MOST_STEPS = 1_000  # in one chunk, unless told: what Ctrl-C can cost


class ChunkedRun(NamedTuple):
    """A run made in chunks, whole or as far as it came."""

    record: RunRecord  # NumPy records of the completed steps after the warm-up
    completed_steps: int  # with those of the warm-up
    interrupted: bool  # Ctrl-C came before the last chunk


def run_in_chunks(
    program: Program,
    key: PRNGKeyArray,
    task: Task,
    num_steps: int,
    *,
    params: Params | None = None,
    warm_up_steps: int = 0,
    steps_per_chunk: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ChunkedRun:
    """Run `program` chunk by chunk; the records and weights are those of one long run, bit by bit.

    Args:
        program: `training(optimizer, ...)` or `shadowing(leader, followers, ...)`.
        key: As in `simulate`.
        task: What is trained.
        num_steps: Steps recorded; with those of the warm-up, steps in all.
        params: First weights; by default `task.init_params`.
        warm_up_steps: Steps before them, which nothing looks at: no probe is computed. They are
            compiled without the probes, so that their rounding may be another.
        steps_per_chunk: Rounded up to whole recording blocks; by default a tenth of
            the run, and no more than 1,000 steps: so much is lost to Ctrl-C.
        on_progress: Called after each chunk with (completed steps, steps in all).

    Returns:
        A `ChunkedRun`. Ctrl-C (KeyboardInterrupt) ends it after the last whole chunk with
        `interrupted=True`; before the first recorded chunk there is nothing to keep, so it is
        raised.

    Raises:
        ValueError: A length below 1, or a negative warm-up.
    """
    check_program("run_in_chunks", num_steps, program.record_every)
    require_at_least("run_in_chunks", "warm_up_steps", warm_up_steps, 0)
    all_steps = warm_up_steps + num_steps
    default = min(-(-all_steps // 10), MOST_STEPS)
    wanted = default if steps_per_chunk is None else steps_per_chunk
    require_at_least("run_in_chunks", "steps_per_chunk", wanted, 1)
    blocks = -(-wanted // program.record_every)
    steps_per_chunk = blocks * program.record_every

    # Not donated: after Ctrl-C the carry of the last whole chunk must still be there.
    go_on = jax.jit(partial(advance, program), static_argnames="num_steps")
    warm_up = jax.jit(partial(advance, _unseen(program)), static_argnames="num_steps")
    # (carry, completed steps, records): replaced in one assignment, so Ctrl-C cannot tear it.
    done: tuple[Carry, int, list[Any]] | None = None
    interrupted = False
    try:
        carry, completed, kept = jax.jit(partial(start, program))(key, task, params=params), 0, []
        while completed < all_steps:
            warming = completed < warm_up_steps
            end, walk = (warm_up_steps, warm_up) if warming else (all_steps, go_on)
            length = min(steps_per_chunk, end - completed)
            carry, recorded = walk(task, carry, num_steps=length)
            recorded = jax.device_get(recorded)  # waits, so that progress is what is done
            done = (carry, completed + length, kept if warming else [*kept, recorded])
            carry, completed, kept = done
            if on_progress is not None:
                on_progress(completed, all_steps)
    except KeyboardInterrupt:
        if done is None or not done[2]:
            raise
        interrupted = True
    assert done is not None, "num_steps >= 1 makes at least one chunk"
    carry, completed, kept = done
    step, records = jax.tree.map(lambda *chunks: np.concatenate(chunks), *kept)
    return ChunkedRun(
        record=finished(carry, step, records), completed_steps=completed, interrupted=interrupted
    )


def _unseen(program: Program) -> Program:
    """The same run without its probes."""
    return Program(
        init_state=program.init_state,
        step=program.step,
        record=lambda task, shown: {},
        record_every=program.record_every,
        led_by=program.led_by,
    )
