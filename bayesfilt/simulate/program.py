"""A program: how a run starts, and how it goes on for some steps.

`simulate`, `shadow` and `run_in_chunks` execute the same two functions, so a run cut into
chunks gives the same bits as one that is not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Params
from bayesfilt.tasks import Task

NEVER = -1  # `diverged_at` of a run that stayed finite


class Carry(NamedTuple):
    """All that one step hands to the next; the whole future of a run is in it."""

    step: Int[Array, ""]
    batch_key: PRNGKeyArray  # minibatch t is drawn from fold_in(batch_key, t)
    params: Params
    opt_state: Any
    diverged_at: Int[Array, ""]
    last_loss: Float[Array, ""]  # the minibatch loss last seen finite; NaN before the first


class RunRecord(NamedTuple):
    """What a run left: records with a leading axis of recorded steps, and where it ended."""

    step: Int[Array, " records"]
    records: dict[str, Any]
    params: Params  # after the last step
    opt_state: Any
    diverged_at: Int[Array, ""]  # first step with a number that is not finite; -1: none
    last_loss: Float[Array, ""]  # the minibatch loss last seen finite; NaN: there was none


# One step: (task, carry) -> (carry, what the recorded step shows).
Step = Callable[[Task, Carry], tuple[Carry, Any]]


class Program(NamedTuple):
    """A run before it has a key, a task and a length."""

    init_state: Callable[[Params], Any]
    step: Step
    record: Callable[[Task, Any], dict[str, Any]]
    record_every: int
    # Of all that is trained, the weights whose loss `last_loss` is.
    led_by: Callable[[Params], Params] = lambda params: params


def check_program(owner: str, num_steps: int, record_every: int) -> None:
    """Refuse lengths that cannot be run, before anything is compiled."""
    require_at_least(owner, "num_steps", num_steps, 1)
    require_at_least(owner, "record_every", record_every, 1)


def start(program: Program, key: PRNGKeyArray, task: Task, params: Params | None) -> Carry:
    """The state before the first step; the same key gives every optimizer the same start."""
    init_key, batch_key = jax.random.split(key)
    params = task.init_params(init_key) if params is None else params
    loss = jax.eval_shape(partial(_first_loss, task), program.led_by(params), batch_key)
    return Carry(
        step=jnp.zeros((), jnp.int32),
        batch_key=batch_key,
        params=params,
        opt_state=program.init_state(params),
        diverged_at=jnp.full((), NEVER, jnp.int32),
        last_loss=jnp.full((), jnp.nan, loss.dtype),
    )


def advance(
    program: Program, task: Task, carry: Carry, num_steps: int
) -> tuple[Carry, tuple[Int[Array, " records"], dict[str, Any]]]:
    """Go on for `num_steps`, recording the first step of every block of `record_every`.

    Blocks keep recording out of the inner loop: under `vmap` a conditional would compute
    the probes at every step. A last, shorter block is recorded like the others.
    """

    def block(carry: Carry, length: int):
        before = carry.step
        carry, shown = program.step(task, carry)
        record = program.record(task, shown)
        if length > 1:
            carry = jax.lax.scan(
                lambda c, _: (program.step(task, c)[0], None), carry, length=length - 1
            )[0]
        diverged = (carry.diverged_at != NEVER) & (carry.diverged_at <= before)
        return carry, (before, blank_if(diverged, record))

    full, rest = divmod(num_steps, program.record_every)
    carry, recorded = jax.lax.scan(lambda c, _: block(c, program.record_every), carry, length=full)
    if rest:
        carry, last = block(carry, rest)
        recorded = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), recorded, last)
    return carry, recorded


def run(
    program: Program, key: PRNGKeyArray, task: Task, num_steps: int, params: Params | None
) -> RunRecord:
    """The whole run as one traced computation."""
    carry = start(program, key, task, params)
    carry, (step, records) = advance(program, task, carry, num_steps)
    return finished(carry, step, records)


def _first_loss(task: Task, params: Params, batch_key: PRNGKeyArray) -> Float[Array, ""]:
    """Loss of the first step; only its dtype is asked for."""
    return task.loss(params, task.sample_batch(batch_key, jnp.zeros((), jnp.int32)))


def finished(carry: Carry, step: Int[Array, " records"], records: dict[str, Any]) -> RunRecord:
    """A run's record from its last carry and what was written down on the way."""
    return RunRecord(
        step=step,
        records=records,
        params=carry.params,
        opt_state=carry.opt_state,
        diverged_at=carry.diverged_at,
        last_loss=carry.last_loss,
    )


def all_finite(*trees: Any) -> Bool[Array, ""]:
    """Whether every number in the trees is finite."""
    checks = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(trees)]
    return jnp.all(jnp.stack(checks)) if checks else jnp.array(True)


def keep_if(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    """`new` where the run is healthy, else `old`: a diverged run stands still."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def blank_if(condition: Bool[Array, ""], record: Any) -> Any:
    """Numbers of a diverged run are not numbers; counts and flags stay as they are."""

    def blank(leaf):
        leaf = jnp.asarray(leaf)
        inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.where(condition, jnp.nan, leaf) if inexact else leaf

    return jax.tree.map(blank, record)
