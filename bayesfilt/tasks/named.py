"""Tasks by name, with settings small enough for a laptop: what commands and experiments ask for."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import DTypeLike, PRNGKeyArray

from bayesfilt.checks import require_one_of
from bayesfilt.tasks.bowls import bowl_task, ravine_task, saddle_task, two_groups_task
from bayesfilt.tasks.data import load_digits, take_subset, with_label_noise
from bayesfilt.tasks.supervised import Supervised, supervised_task
from bayesfilt.tasks.task import Task
from bayesfilt.tasks.tracking import Tracking, tracking_task
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

# digits-NAME is the network of that name in `networks.network_for`.
_DIGITS = {"digits-mlp": "mlp", "digits-cnn": "cnn", "digits-layernorm": "layernorm"}

# The matched world: weights whose minibatch gradients are quiet, at the crossover, and loud.
TRACKING_TRANSITION = OrnsteinUhlenbeck(drift_scale=0.01, stationary_variance=0.05)
_TRACKING_PRECISION = np.logspace(-1, 5, 25)


def _bowl(*, batch_size: int, dtype: DTypeLike | None) -> Task:
    """Ten rotated weights, curvatures from 0.01 to 10, noise by the Fisher identity."""
    curvatures = np.logspace(-2, 1, 10)
    axes = np.linalg.qr(np.random.RandomState(0).standard_normal((10, 10)))[0]
    curvature = (axes * curvatures) @ axes.T
    optimum = np.linspace(-1.0, 2.0, 10)
    return bowl_task(curvature, curvature, batch_size=batch_size, optimum=optimum, dtype=dtype)


_SURFACES: dict[str, Callable[..., Task]] = {
    "bowl": _bowl,
    "saddle": saddle_task,
    "ravine": ravine_task,
    "two-groups": two_groups_task,
}

TASK_NAMES = (*_DIGITS, *_SURFACES, "tracking")


def make_task(
    name: str,
    *,
    batch_size: int,
    dtype: DTypeLike | None = None,
    subset: int | None = None,
    label_noise: float = 0.0,
    key: PRNGKeyArray | None = None,
    num_steps: int = 10_000,
) -> Task:
    """Build the task called `name`; the same settings always give the same task.

    Args:
        name: one of `TASK_NAMES`.
        batch_size: examples in a minibatch.
        dtype: of weights and inputs; None means JAX's default.
        subset: keep this many training examples (digits only); None keeps all 1297.
        label_noise: fraction of the training examples given a wrong label (digits only).
        key: draws the subset, the noisy labels and the tracking world; None is one fixed key,
            so that the data does not change with the seed that trains on it.
        num_steps: length of the tracking world; the other tasks do not change in time.

    Raises:
        ValueError: an unknown name (the nearest is offered), or a setting the task has no use for.
    """
    owner = "make_task"
    require_one_of(owner, "tasks", name, TASK_NAMES)
    data_key = jax.random.key(0) if key is None else key
    if name in _DIGITS:
        return _digits_task(
            data_key,
            name,
            subset=subset,
            label_noise=label_noise,
            batch_size=batch_size,
            dtype=dtype,
        )
    if subset is not None or label_noise:
        raise ValueError(
            f"{owner} takes subset and label_noise for {', '.join(_DIGITS)} only, got them for"
            f" {name!r}."
        )
    if name == "tracking":
        return _tracking_task(data_key, num_steps, batch_size=batch_size, dtype=dtype)
    return _SURFACES[name](batch_size=batch_size, dtype=dtype)


def _digits_task(
    key: PRNGKeyArray,
    name: str,
    *,
    subset: int | None,
    label_noise: float,
    batch_size: int,
    dtype: DTypeLike | None,
) -> Supervised:
    subset_key, label_key = jax.random.split(key)
    dataset = load_digits()
    if subset is not None:
        dataset = take_subset(subset_key, dataset, subset)
    if label_noise:
        dataset = with_label_noise(label_key, dataset, label_noise)
    return supervised_task(dataset, _DIGITS[name], batch_size=batch_size, dtype=dtype)


def _tracking_task(
    key: PRNGKeyArray, num_steps: int, *, batch_size: int, dtype: DTypeLike | None
) -> Tracking:
    return tracking_task(
        key,
        TRACKING_TRANSITION,
        _TRACKING_PRECISION,
        num_steps,
        batch_size=batch_size,
        dtype=dtype,
    )
