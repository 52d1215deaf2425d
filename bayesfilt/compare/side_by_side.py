"""Several optimizers train side by side, in one program, on the same minibatches.

Run 0 leads. Every run has its own weights, state and end: one that diverges stands still and
reads NaN from that step on, and the others do not notice. Followers can also be asked, at every
step of the leader, what they would have done with its weights and gradient: that is the shadow,
and it costs no gradient of its own.

One program, not one for each run: it compiles faster than its parts, an interrupted study has
every number up to one common step, and equal runs are equal to the last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.compare.distances import (
    log_probabilities,
    predictive_divergence,
    weight_distance,
)
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, zeros_at_least_float32
from bayesfilt.optimizers.moments import running_mean
from bayesfilt.simulate import NEVER, Program, Proposal, ShadowView, StepView, warn_if_float32
from bayesfilt.simulate.program import Carry, keep_if
from bayesfilt.simulate.trajectory import training_step
from bayesfilt.tasks import Task


class SideBySideState(NamedTuple):
    """What one step hands to the next, beside the weights of every run."""

    opt_states: tuple[Any, ...]  # of every run
    diverged_at: Int[Array, " runs"]
    proposals: dict[str, Any]  # optimizer states of the leader's shadows
    mean_square_gradient: Params  # running mean over the leader's mean-loss gradients


class SideBySideView(NamedTuple):
    """One step of all runs."""

    runs: tuple[StepView, ...]
    diverged_at: Int[Array, " runs"]
    shadow: ShadowView
    leader_before: Any  # the leader's optimizer state before the step
    shadows_before: dict[str, Any]
    mean_square_gradient: Params  # after the step, not debiased


# What to write down of one step of all; NaN is put over it once the leader has diverged.
SideBySideMeasure = Callable[[Task, SideBySideView], Any]


def training_side_by_side(
    runs: Sequence[optax.GradientTransformation],
    shadows: Mapping[str, optax.GradientTransformation] | None = None,
    *,
    measures: Mapping[str, SideBySideMeasure] | None = None,
    record_every: int = 10,
    b2: float = 0.999,
) -> Program:
    """The program of several runs, for `run_in_chunks`; `params` there is a tuple, one a run.

    At steps 0, k, 2k, ... it records, over the runs: "loss" (of the minibatch), "evaluation"
    (the task's held-out numbers), "weight_distance" and "predictive_kl" from run 0, and the
    measures.

    Args:
        runs: Optimizers, the leader first; the same one may stand there twice.
        shadows: name -> optimizer that proposes its own update at each step of the leader.
        measures: name -> `fn(task, view)`.
        record_every: k.
        b2: Memory of the running mean of the leader's squared gradients.
    """
    require_at_least("training_side_by_side", "number of runs", len(runs), 1)
    optimizers = [optax.with_extra_args_support(optimizer) for optimizer in runs]
    proposing = {
        name: optax.with_extra_args_support(optimizer)
        for name, optimizer in (shadows or {}).items()
    }
    extra = dict(measures or {})

    def init_state(params: tuple[Params, ...]) -> SideBySideState:
        warn_if_float32(params[0])
        return SideBySideState(
            opt_states=tuple(
                optimizer.init(own) for optimizer, own in zip(optimizers, params, strict=True)
            ),
            diverged_at=jnp.full(len(optimizers), NEVER, jnp.int32),
            proposals={name: tx.init(params[0]) for name, tx in proposing.items()},
            mean_square_gradient=zeros_at_least_float32(params[0]),
        )

    def step(task: Task, carry: Carry) -> tuple[Carry, SideBySideView]:
        carries, views = _train(optimizers, task, carry)
        before: SideBySideState = carry.opt_state
        proposals = _propose(proposing, before, views[0])
        squares = jax.tree.map(lambda g: jnp.square(at_least_float32(g)), views[0].gradient)
        mean_square = running_mean(b2, before.mean_square_gradient, squares)
        diverged_at = jnp.stack([own.diverged_at for own in carries])
        healthy = diverged_at[0] == NEVER
        states = {name: proposal.opt_state for name, proposal in proposals.items()}
        after = SideBySideState(
            opt_states=tuple(own.opt_state for own in carries),
            diverged_at=diverged_at,
            proposals=keep_if(healthy, states, before.proposals),
            mean_square_gradient=keep_if(healthy, mean_square, before.mean_square_gradient),
        )
        view = SideBySideView(
            runs=tuple(views),
            diverged_at=diverged_at,
            shadow=_shadow_view(views[0], proposals),
            leader_before=before.opt_states[0],
            shadows_before=before.proposals,
            mean_square_gradient=mean_square,
        )
        return _moved(carry, carries, after), view

    def record(task: Task, view: SideBySideView) -> dict[str, Any]:
        return _record(task, view, extra)

    return Program(
        init_state=init_state,
        step=step,
        record=record,
        record_every=record_every,
        led_by=lambda params: params[0],
    )


def first_weights(key: PRNGKeyArray, task: Task) -> Params:
    """The weights that `simulate` with this key starts from."""
    return _init_params(task, jax.random.split(key)[0])


@jax.jit
def _init_params(task: Task, key: PRNGKeyArray) -> Params:
    return task.init_params(key)


class _Drawn(NamedTuple):
    """A task whose minibatch is drawn already: by drawing it once, not once for each run."""

    task: Task
    batch: Any

    def sample_batch(self, key: PRNGKeyArray, step: Int[Array, ""]) -> Any:
        del key, step
        return self.batch

    def loss(self, params: Params, batch: Any) -> Float[Array, ""]:
        return self.task.loss(params, batch)


def _train(
    optimizers: Sequence[optax.GradientTransformationExtraArgs], task: Task, carry: Carry
) -> tuple[list[Carry], list[StepView]]:
    """One training step of every run: its own weights, the common minibatch."""
    state: SideBySideState = carry.opt_state
    batch = task.sample_batch(jax.random.fold_in(carry.batch_key, carry.step), carry.step)
    drawn = cast(Task, _Drawn(task=task, batch=batch))
    carries, views = [], []
    for run, optimizer in enumerate(optimizers):
        own = Carry(
            step=carry.step,
            batch_key=carry.batch_key,
            params=carry.params[run],
            opt_state=state.opt_states[run],
            diverged_at=state.diverged_at[run],
            last_loss=carry.last_loss,
        )
        own, view = training_step(optimizer, drawn, own)
        carries.append(own)
        views.append(view)
    return carries, views


def _propose(
    proposing: Mapping[str, optax.GradientTransformationExtraArgs],
    state: SideBySideState,
    leader: StepView,
) -> dict[str, Proposal]:
    """What every shadow makes of the leader's weights and gradient."""
    proposals = {}
    for name, optimizer in proposing.items():
        updates, opt_state = optimizer.update(
            leader.gradient, state.proposals[name], leader.params, value=leader.loss
        )
        proposals[name] = Proposal(updates=updates, opt_state=opt_state)
    return proposals


def _shadow_view(leader: StepView, proposals: dict[str, Proposal]) -> ShadowView:
    return ShadowView(
        step=leader.step,
        params=leader.params,
        loss=leader.loss,
        gradient=leader.gradient,
        leader=Proposal(updates=leader.updates, opt_state=leader.opt_state),
        followers=proposals,
    )


def _moved(carry: Carry, carries: Sequence[Carry], state: SideBySideState) -> Carry:
    # Each run has its own `diverged_at`; the program's stays at never, because it would put NaN
    # over the records of all.
    return Carry(
        step=carry.step + 1,
        batch_key=carry.batch_key,
        params=tuple(own.params for own in carries),
        opt_state=state,
        diverged_at=carry.diverged_at,
        last_loss=carries[0].last_loss,
    )


def _record(
    task: Task, view: SideBySideView, extra: Mapping[str, SideBySideMeasure]
) -> dict[str, Any]:
    """Numbers of every run, NaN for one that has diverged, and the measures."""
    leader = view.runs[0].params

    def look(params: Params) -> dict[str, Any]:
        return {
            "evaluation": dict(task.evaluate(params)),
            "weight_distance": weight_distance(params, leader),
            "predicted": log_probabilities(task, params),
        }

    # One run after the other: compiled once, with the memory of one.
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *(run.params for run in view.runs))
    seen = jax.lax.map(look, stacked)
    predicted = seen.pop("predicted")
    if predicted is None:
        seen["predictive_kl"] = jnp.full(len(view.runs), jnp.nan)
    else:
        seen["predictive_kl"] = jax.vmap(predictive_divergence, (None, 0))(predicted[0], predicted)
    seen["loss"] = jnp.stack([run.loss for run in view.runs])
    gone = view.diverged_at != NEVER
    recorded = jax.tree.map(lambda values: _blank(gone, values), seen)
    for name in ("weight_distance", "predictive_kl"):
        recorded[name] = _blank(gone[0], recorded[name])
    return recorded | {
        name: jax.tree.map(lambda values: _blank(gone[0], values), measure(task, view))
        for name, measure in extra.items()
    }


def _blank(gone: Bool[Array, "*runs"], values: Array) -> Array:
    """NaN where a run is gone; counts stay as they are."""
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        return values
    return jnp.where(gone.reshape(*gone.shape, *(1,) * (values.ndim - gone.ndim)), jnp.nan, values)
