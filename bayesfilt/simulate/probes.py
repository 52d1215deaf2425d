"""What a run writes down: functions of one training step, called every k steps.

A probe is `fn(task, view) -> pytree of arrays`. It runs inside the compiled program, so it
costs nothing but its own arithmetic, and only on the steps that are recorded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayesfilt.custom_types import Params
from bayesfilt.tasks import Task


class StepView(NamedTuple):
    """One training step as a probe sees it."""

    step: Int[Array, ""]  # 0 for the first
    params: Params  # before the step: the point where the gradient was taken
    loss: Float[Array, ""]  # mean over the minibatch, at `params`
    gradient: Params  # of that mean loss
    updates: Params  # what the optimizer adds to `params`
    opt_state: Any  # after the step


Probe = Callable[[Task, StepView], Any]


def minibatch_loss(task: Task, view: StepView) -> Float[Array, ""]:
    """Mean loss of the step's own minibatch, before the step."""
    del task
    return view.loss


def weights(task: Task, view: StepView) -> Params:
    """The weights before the step: one copy of them a record, so mind the size."""
    del task
    return view.params


def evaluation(task: Task, view: StepView) -> dict[str, Float[Array, ""]]:
    """Held-out numbers of the weights before the step, as the task defines them."""
    return dict(task.evaluate(view.params))


def weight_rms(task: Task, view: StepView) -> Float[Array, ""]:
    """Root mean square of all weights before the step."""
    del task
    return root_mean_square(view.params)


def update_rms(task: Task, view: StepView) -> Float[Array, ""]:
    """Root mean square of the step's update, decay included."""
    del task
    return root_mean_square(view.updates)


def root_mean_square(tree: Params) -> Float[Array, ""]:
    """Over all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    total = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
    return jnp.sqrt(total / sum(leaf.size for leaf in leaves))


DEFAULT_PROBES: dict[str, Probe] = {"loss": minibatch_loss}
