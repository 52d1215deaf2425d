"""Probes that look at chosen weights one by one: gradient, curvature, noise, optimum.

Everything is in the units of the *summed* minibatch loss, as the filter has it: `batch_size`
times the mean loss. A probe is `fn(task, view)` for `simulate`, recorded where the gradient was
taken. Curvature, noise and optimum are those of a large fixed batch (`batch_at`), not of the
step's own minibatch: an innovation must not be judged by a precision that contains it.

    chosen = choose_weights(key, params, per_layer=32)
    probes = {"gradient": summed_gradient(chosen), "ggn": ggn_diagonal(chosen, whole_data)}
    simulate(key, task, optimizer, 600, probes=probes)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.compare.chosen_weights import ChosenWeights, Line, along_each, pick
from bayesfilt.compare.layers import flat, norm
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.belief_report import posterior_variance
from bayesfilt.simulate import Probe, StepView
from bayesfilt.tasks import Batch, Custom, Supervised, Task, Tracking
from bayesfilt.tasks.tracking import Observation

# (task, step) -> the fixed, large batch on which curvature, noise and optimum are measured
BatchAt = Callable[[Task, int | Int[Array, ""]], Batch]


def whole_data(task: Any, step: int | Int[Array, ""]) -> Batch:
    """All there is to see: the training set, or the surface without its noise.

    Raises:
        ValueError: A task of a kind that this does not know.
    """
    if isinstance(task, Supervised):
        return task.train
    if isinstance(task, Custom):
        return task.data
    if isinstance(task, Tracking):
        seen = task.sample_batch(jax.random.key(0), step)
        return Observation(optimum=seen.optimum, noise=jnp.zeros_like(seen.noise))
    if hasattr(task, "minimum"):
        return jax.tree.map(jnp.zeros_like, task.minimum())
    raise ValueError(
        f"whole_data knows the tasks of bayesfilt.tasks, got a {type(task).__name__}; give a"
        " function of (task, step) that returns a fixed batch."
    )


def fixed_examples(key: PRNGKeyArray, task: Any, num_examples: int) -> BatchAt:
    """The same random `num_examples` of the training data at every step, none of them twice.

    All of them where there are no more, and `whole_data` where a task has no examples.
    """
    require_at_least("fixed_examples", "num_examples", num_examples, 1)
    if not has_examples(task):
        return whole_data
    available = jax.tree.leaves(whole_data(task, 0))[0].shape[0]
    if num_examples >= available:
        return whole_data
    rows = np.sort(np.asarray(jax.random.permutation(key, available))[: int(num_examples)])

    def batch_at(task: Task, step: int | Int[Array, ""]) -> Batch:
        return jax.tree.map(lambda array: array[rows], whole_data(task, step))

    return batch_at


def has_examples(task: Any) -> bool:
    """Whether a batch of the task is rows, whose mean loss is the loss."""
    return isinstance(task, Supervised | Custom)


def chosen_weight(chosen: ChosenWeights) -> Probe:
    """Probe: the chosen weights before the step, where its gradient is taken."""
    return lambda task, view: pick(chosen, view.params)


def summed_gradient(chosen: ChosenWeights) -> Probe:
    """Probe: gradient of the *summed* loss of the step's own minibatch; 1/weight."""
    return lambda task, view: pick(chosen, view.gradient) * task.batch_size


def gradient_norm(task: Task, view: StepView) -> Float[Array, ""]:
    """Probe: length of the whole *mean* gradient; compare it with a clipping threshold."""
    del task
    return norm(flat(view.gradient))


def chosen_posterior_variance(chosen: ChosenWeights) -> Probe:
    """Probe: the filter's variance of the chosen optima *after* the step's gradient; weight^2.

    `held_variance` turns it into the variance that the weight was held with.

    Raises:
        ValueError: While tracing, if there is no filter in the optimizer's state.
    """
    return lambda task, view: pick(chosen, posterior_variance(view.opt_state))


def hessian_diagonal(chosen: ChosenWeights, batch_at: BatchAt) -> Probe:
    """Probe: exact curvature of the summed loss along each weight, B eᵢᵀ H eᵢ [INST-1].

    One forward-over-reverse product a weight; 1/weight^2. Negative where the loss is not convex.
    A ReLU's kinks have no curvature and count for nothing. Costs 0.1 ms of CPU a weight for the
    digits network (64-64-10) on 512 examples in float64.
    """

    def probe(task: Task, view: StepView) -> Float[Array, " weights"]:
        batch = batch_at(task, view.step)

        def curvature(line: Line) -> Float[Array, ""]:
            slope = jax.grad(lambda leaf: task.loss(line.rebuild(leaf), batch))
            product = jax.jvp(slope, (line.leaf,), (line.direction,))[1]
            return jnp.vdot(product, line.direction)

        return along_each(chosen, view.params, curvature) * task.batch_size

    return probe


def ggn_diagonal(chosen: ChosenWeights, batch_at: BatchAt) -> Probe:
    """Probe: Gauss-Newton curvature, B mean of jᵀ (diag p - p pᵀ) j, j = d logits/d wᵢ [INST-2].

    The part of the Hessian that is never negative; for the cross entropy also the Fisher
    information. Summed units, 1/weight^2. One forward product a weight,
    about 0.05 ms of CPU on the network of `hessian_diagonal`.

    Raises:
        ValueError: While tracing, if the task is not `Supervised`: it has no logits.
    """

    def probe(task: Task, view: StepView) -> Float[Array, " weights"]:
        if not isinstance(task, Supervised):
            raise ValueError(
                f"ggn_diagonal needs a Supervised task, whose loss is a cross entropy of logits;"
                f" got a {type(task).__name__}. hessian_diagonal takes any."
            )
        inputs = batch_at(task, view.step).inputs

        def curvature(line: Line) -> Float[Array, ""]:
            logits, moved = line.slope(lambda params: task.network.apply(params, inputs))
            p = jax.nn.softmax(logits)
            spread = jnp.sum(p * moved**2, axis=-1) - jnp.sum(p * moved, axis=-1) ** 2
            return jnp.mean(spread)

        return along_each(chosen, view.params, curvature) * task.batch_size

    return probe


def noise_over_examples(chosen: ChosenWeights, batch_at: BatchAt) -> Probe:
    """Probe: variance of the summed gradient, B times that of one example's [INST-3].

    It is the exact variance of the gradient of the summed loss over B examples drawn with
    replacement from the batch of `batch_at` (so the variance over its N examples is divided by
    N). The loss must be the mean of the examples' own losses. Units 1/weight^2. Costs as much as
    `ggn_diagonal`.

    Raises:
        ValueError: While tracing, if a batch of the task is not rows of examples.
    """

    def probe(task: Task, view: StepView) -> Float[Array, " weights"]:
        if not has_examples(task):
            raise ValueError(
                f"noise_over_examples needs a task of examples, got a {type(task).__name__};"
                " noise_over_minibatches takes any."
            )
        batch = batch_at(task, view.step)

        def losses(params: Params) -> Float[Array, " examples"]:
            def one(example: Any) -> Float[Array, ""]:
                return task.loss(params, jax.tree.map(lambda row: row[None], example))

            return jax.vmap(one)(batch)

        variance = along_each(chosen, view.params, lambda line: jnp.var(line.slope(losses)[1]))
        return variance * task.batch_size

    return probe


def noise_over_minibatches(
    key: PRNGKeyArray, chosen: ChosenWeights, num_minibatches: int = 64
) -> Probe:
    """Probe: sample variance (n - 1) of the summed gradient over fresh minibatches.

    For any task; at every step other minibatches, none of them the run's own. Its relative
    standard error is sqrt(2 / (num_minibatches - 1)) for Gaussian noise. Units 1/weight^2.
    """
    require_at_least("noise_over_minibatches", "num_minibatches", num_minibatches, 2)

    def probe(task: Task, view: StepView) -> Float[Array, " weights"]:
        def gradient(draw_key: PRNGKeyArray) -> Float[Array, " weights"]:
            batch = task.sample_batch(draw_key, view.step)
            return pick(chosen, jax.grad(task.loss)(view.params, batch)) * task.batch_size

        keys = jax.random.split(jax.random.fold_in(key, view.step), num_minibatches)
        return jnp.var(jax.lax.map(gradient, keys), axis=0, ddof=1)

    return probe
