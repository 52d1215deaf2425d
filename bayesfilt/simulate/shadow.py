"""Teacher-forced comparison: followers see the leader's weights and gradients.

Free-running trajectories drift apart chaotically, so update-by-update statements are made
here: at every step each follower says what it would have done, and the leader does its own.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Params
from bayesfilt.simulate.program import Carry, Program, RunRecord, check_program, run
from bayesfilt.simulate.trajectory import first_failure, moved, observe
from bayesfilt.tasks import Task

ShadowRecord = RunRecord


class PrecisionWarning(UserWarning):
    """A comparison runs in a precision in which small gaps are rounding."""


class Proposal(NamedTuple):
    """What one optimizer makes of the leader's weights and gradient."""

    updates: Params
    opt_state: Any  # after seeing this gradient


class ShadowView(NamedTuple):
    """One step of the leader, and what each follower would have done."""

    step: Int[Array, ""]
    params: Params  # the leader's, before the step
    loss: Float[Array, ""]
    gradient: Params  # of the mean loss
    leader: Proposal
    followers: dict[str, Proposal]


Measure = Callable[[Task, ShadowView], Any]


def proposed_updates(task: Task, view: ShadowView) -> dict[str, Params]:
    """Everybody's update, whole: {"leader": ..., follower: ...}."""
    del task
    followers = {name: proposal.updates for name, proposal in view.followers.items()}
    return {"leader": view.leader.updates, **followers}


def shadow_loss(task: Task, view: ShadowView) -> Float[Array, ""]:
    """The leader's minibatch loss."""
    del task
    return view.loss


DEFAULT_MEASURES: dict[str, Measure] = {"loss": shadow_loss, "updates": proposed_updates}


def shadow(
    key: PRNGKeyArray,
    task: Task,
    leader: optax.GradientTransformation,
    followers: Mapping[str, optax.GradientTransformation],
    num_steps: int,
    *,
    params: Params | None = None,
    measures: Mapping[str, Measure] | None = None,
    record_every: int = 10,
) -> ShadowRecord:
    """Train with `leader`; let every follower propose its own update at every step.

    All followers share one pass: the gradient is computed once, by the leader. Their
    states evolve with the leader's gradients and weights; their updates are never taken.

    Args:
        key: As in `simulate`: the leader's run is the run `simulate` would make.
        task: What is trained; float32 weights warn once, because gaps below about 1e-4
            are then rounding.
        leader: The optimizer that moves the weights.
        followers: name -> optimizer; any optax transformation of mean-loss gradients.
        num_steps: Steps to take, at least 1.
        params: First weights; by default `task.init_params`.
        measures: name -> `fn(task, view)`, recorded at steps 0, k, 2k, ...; by default
            the loss and every proposed update, whole.
        record_every: k.

    Returns:
        A `ShadowRecord`; `opt_state` holds "leader" and "followers".

    Raises:
        ValueError: No follower, or `num_steps` or `record_every` below 1.
    """
    check_program("shadow", num_steps, record_every)
    program = shadowing(leader, followers, measures, record_every)
    return run(program, key, task, num_steps, params)


def shadowing(
    leader: optax.GradientTransformation,
    followers: Mapping[str, optax.GradientTransformation],
    measures: Mapping[str, Measure] | None = None,
    record_every: int = 10,
) -> Program:
    """The program that `shadow` runs, for `run_in_chunks`."""
    require_at_least("shadow", "number of followers", len(followers), 1)
    measures = DEFAULT_MEASURES if measures is None else measures
    leader = optax.with_extra_args_support(leader)
    following = {name: optax.with_extra_args_support(tx) for name, tx in followers.items()}

    def init_state(params: Params):
        warn_if_float32(params)
        states = {name: follower.init(params) for name, follower in following.items()}
        return {"leader": leader.init(params), "followers": states}

    def step(task: Task, carry: Carry) -> tuple[Carry, ShadowView]:
        return _shadow_step(leader, following, task, carry)

    def record(task: Task, view: ShadowView):
        return {name: measure(task, view) for name, measure in measures.items()}

    return Program(init_state=init_state, step=step, record=record, record_every=record_every)


def _shadow_step(leader, following, task: Task, carry: Carry) -> tuple[Carry, ShadowView]:
    """The leader's training step, and every follower's proposal from its gradient."""
    loss, gradient = observe(task, carry)

    def propose(optimizer, opt_state) -> Proposal:
        updates, opt_state = optimizer.update(gradient, opt_state, carry.params, value=loss)
        return Proposal(updates=updates, opt_state=opt_state)

    led = propose(leader, carry.opt_state["leader"])
    states = carry.opt_state["followers"]
    proposals = {name: propose(tx, states[name]) for name, tx in following.items()}
    opt_state = {
        "leader": led.opt_state,
        "followers": {name: proposal.opt_state for name, proposal in proposals.items()},
    }
    view = ShadowView(
        step=carry.step,
        params=carry.params,
        loss=loss,
        gradient=gradient,
        leader=led,
        followers=proposals,
    )
    diverged_at = first_failure(carry, loss, gradient, led.updates)
    return moved(carry, loss, led.updates, opt_state, diverged_at), view


def warn_if_float32(params: Params) -> None:
    """Say once that a comparison in less than float64 has a rounding floor."""
    if any(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(params)):
        warnings.warn(
            "comparing optimizers on weights below float64: gaps under about 1e-4 may be "
            "rounding. Enable x64 (jax.config.update('jax_enable_x64', True)) and build the "
            "task with dtype='float64', or read every gap beside its noise floor.",
            PrecisionWarning,
            stacklevel=2,
        )
