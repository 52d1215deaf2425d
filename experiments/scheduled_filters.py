"""AdaBayes, its fixed point and Adam on one network, under a cosine, a warm-up or neither.

The variants share one compiled program: both optimizers are advanced at every step, and a number
of the setting says to which the weights listen.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bayesfilt.optimizers import adabayes, adabayes_fixed_point, posterior_variance
from bayesfilt.records import Group, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks import Task, make_task
from experiments.many_runs import Numbers, train_many

_EPS_ROOT = 1e-12  # of the summed mean square
_TINY = 1e-30  # of a variance, so that it has a logarithm


class Schedules(Protocol):
    """What of an experiment's numbers is asked for here."""

    @property
    def drift_scales(self) -> tuple[float, float, int]:
        """From, to, how many."""
        ...

    @property
    def eta_sgd(self) -> float:
        """The prior variance times the batch size."""
        ...

    @property
    def steps(self) -> int:
        """Of a run."""
        ...

    @property
    def warm_up(self) -> int:
        """Steps of the explicit warm-up."""
        ...


def train_variants(config: Schedules, seeds: Sequence[int]) -> Group:
    """Losses and last variances; one compiled program, all that differs is traced."""
    task = make_task("digits-mlp", batch_size=32, dtype="float32", subset=300, label_noise=0.2)
    scales = np.geomspace(*config.drift_scales)
    shape = (len(VARIANTS), len(scales), len(seeds))
    kinds = list(VARIANTS.values())
    priors = [config.eta_sgd / task.batch_size if kind.prior else np.inf for kind in kinds]
    runs = train_many(
        task,
        functools.partial(_recipe, config, task.batch_size),
        {
            "drift_scale": np.tile(scales, len(kinds)).astype(np.float32),
            "prior": np.repeat(priors, len(scales)).astype(np.float32),
            "schedule": np.repeat([kind.schedule for kind in kinds], len(scales)),
            "settled": np.repeat([kind.settled for kind in kinds], len(scales)),
        },
        seeds,
        config.steps,
        probes={"variance": _typical_variance},
    )
    cells = ("optimizer", "drift_scale", "seed")
    found = {loss: runs.final[loss].reshape(shape) for loss in ("training_loss", "test_loss")}
    last = runs.records["variance"][..., -1].reshape(shape)
    return {
        "optimizer": variable("optimizer", list(VARIANTS)),
        "drift_scale": variable("drift_scale", scales, units="weight"),
        **{loss: variable(cells, values, units="nats") for loss, values in found.items()},
        "last_variance": variable(cells, last, units="weight², geometric mean"),
    }


_CONSTANT, _COSINE, _WARMED = 0, 1, 2


class _Variant(NamedTuple):
    """What is trained; without a prior the filter starts certain, and its fixed point is Adam."""

    settled: bool  # the fixed point, not the recursion
    schedule: int
    prior: bool


VARIANTS = {
    "adabayes, cosine": _Variant(False, _COSINE, True),
    "adabayes, constant": _Variant(False, _CONSTANT, True),
    "adabayes, cold start": _Variant(False, _CONSTANT, False),
    "fixed point, cosine": _Variant(True, _COSINE, True),
    "fixed point, constant": _Variant(True, _CONSTANT, True),
    "adam": _Variant(True, _CONSTANT, False),
    "adam, linear warm-up": _Variant(True, _WARMED, False),
}


class _Either(NamedTuple):
    """States of both optimizers, of which one takes the steps."""

    settled: Array
    recursive: Any
    fixed: Any


def _recipe(config: Schedules, batch_size: int, numbers: Numbers) -> optax.GradientTransformation:
    """The optimizer of a setting, without decay: both are advanced, and one is listened to."""
    cosine = optax.cosine_decay_schedule(1.0, config.steps)
    warmed = optax.linear_schedule(1 / config.warm_up, 1.0, config.warm_up - 1)

    def drift_scale(step: Any) -> Array:
        factors = jnp.stack([jnp.ones(()), jnp.asarray(cosine(step)), jnp.asarray(warmed(step))])
        return numbers["drift_scale"] * factors[numbers["schedule"]]

    plain = {"batch_size": batch_size, "weight_decay": 0.0}
    recursive = adabayes(drift_scale, numbers["prior"], **plain)
    # Adam's epsilon, inside the root: dead inputs have no gradient at all.
    fixed = adabayes_fixed_point(drift_scale, numbers["prior"], eps_root=_EPS_ROOT, **plain)

    def init(params: Any) -> _Either:
        return _Either(numbers["settled"], recursive.init(params), fixed.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _Either]:
        first, one = recursive.update(updates, state.recursive, params)
        second, other = fixed.update(updates, state.fixed, params)
        return _chosen(state.settled, second, first), _Either(state.settled, one, other)

    return optax.GradientTransformation(init, update)


def _chosen(settled: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(settled, a, b), yes, no)


def _typical_variance(task: Task, view: StepView) -> Float[Array, ""]:
    """Geometric mean over all weights of a variance that is not 0."""
    del task
    state = view.opt_state
    both = (posterior_variance(each) for each in (state.fixed, state.recursive))
    leaves = jax.tree.leaves(_chosen(state.settled, *both))
    logs = jnp.concatenate([jnp.log(jnp.maximum(leaf, _TINY)).ravel() for leaf in leaves])
    return jnp.exp(logs.mean())
