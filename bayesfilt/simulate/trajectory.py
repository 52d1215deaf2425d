"""One training run as one `lax.scan`: `simulate`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from bayesfilt.custom_types import Params
from bayesfilt.simulate.probes import DEFAULT_PROBES, Probe, StepView
from bayesfilt.simulate.program import (
    NEVER,
    Carry,
    Program,
    RunRecord,
    all_finite,
    check_program,
    keep_if,
    run,
)
from bayesfilt.tasks import Task

Trajectory = RunRecord


def simulate(
    key: PRNGKeyArray,
    task: Task,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    params: Params | None = None,
    probes: Mapping[str, Probe] | None = None,
    record_every: int = 1,
) -> Trajectory:
    """Train `task` with `optimizer` for `num_steps` steps; nothing leaves the device.

    Pure: wrap it in `jax.jit`, with `task` and `key` as arguments (the data set must not
    become a constant of the program), and `jax.vmap` it over keys or hyperparameters.
    The same key gives every optimizer the same first weights and the same minibatches.

    A step whose loss, gradient or update is not finite is not taken: the run stands still from
    there on, its records read NaN, `diverged_at` names the step and `last_loss` the minibatch
    loss last seen finite.

    Args:
        key: Splits into the key of the first weights and the key of the minibatches.
        task: What is trained.
        optimizer: Any optax transformation of mean-loss gradients; `update` also gets
            `value=loss`, so that plateau schedules work.
        num_steps: Steps to take, at least 1.
        params: First weights; by default `task.init_params`.
        probes: name -> `fn(task, view)`, recorded at steps 0, k, 2k, ...; by default
            the minibatch loss.
        record_every: k.

    Returns:
        A `Trajectory`; `records[name]` has a leading axis of recorded steps.

    Raises:
        ValueError: `num_steps` or `record_every` below 1.
    """
    check_program("simulate", num_steps, record_every)
    return run(training(optimizer, probes, record_every), key, task, num_steps, params)


def training(
    optimizer: optax.GradientTransformation,
    probes: Mapping[str, Probe] | None = None,
    record_every: int = 1,
) -> Program:
    """The program that `simulate` runs, for `run_in_chunks`."""
    probes = DEFAULT_PROBES if probes is None else probes
    optimizer = optax.with_extra_args_support(optimizer)

    def step(task: Task, carry: Carry) -> tuple[Carry, StepView]:
        return training_step(optimizer, task, carry)

    def record(task: Task, view: StepView):
        return {name: probe(task, view) for name, probe in probes.items()}

    return Program(init_state=optimizer.init, step=step, record=record, record_every=record_every)


def training_step(
    optimizer: optax.GradientTransformationExtraArgs, task: Task, carry: Carry
) -> tuple[Carry, StepView]:
    """Draw a minibatch, take its gradient, take the optimizer's step; stand still if it fails."""
    loss, gradient = observe(task, carry)
    updates, opt_state = optimizer.update(gradient, carry.opt_state, carry.params, value=loss)
    diverged_at = first_failure(carry, loss, gradient, updates)
    view = StepView(
        step=carry.step,
        params=carry.params,
        loss=loss,
        gradient=gradient,
        updates=updates,
        opt_state=opt_state,
    )
    return moved(carry, loss, updates, opt_state, diverged_at), view


def observe(task: Task, carry: Carry) -> tuple[Float[Array, ""], Params]:
    """Mean loss and its gradient on this step's minibatch."""
    batch = task.sample_batch(jax.random.fold_in(carry.batch_key, carry.step), carry.step)
    return jax.value_and_grad(task.loss)(carry.params, batch)


def first_failure(
    carry: Carry, loss: Float[Array, ""], gradient: Params, updates: Params
) -> Int[Array, ""]:
    """The step at which the run diverged: this one, an earlier one, or -1 for none.

    The updates are looked at too: an optimizer can make 0/0 of a finite gradient.
    """
    fails_now = ~all_finite(loss, gradient, updates) & (carry.diverged_at == NEVER)
    return jnp.where(fails_now, carry.step, carry.diverged_at)


def moved(
    carry: Carry,
    loss: Float[Array, ""],
    updates: Params,
    opt_state: Any,
    diverged_at: Int[Array, ""],
) -> Carry:
    """The carry after the step; a diverged run keeps its weights and its state."""
    healthy = diverged_at == NEVER
    # The failing step's own loss counts where it was only the gradient that overflowed.
    seen = jnp.isfinite(loss) & (carry.diverged_at == NEVER)
    params = optax.apply_updates(carry.params, updates)
    return Carry(
        step=carry.step + 1,
        batch_key=carry.batch_key,
        params=keep_if(healthy, params, carry.params),
        opt_state=keep_if(healthy, opt_state, carry.opt_state),
        diverged_at=diverged_at,
        last_loss=jnp.where(seen, loss, carry.last_loss),
    )
