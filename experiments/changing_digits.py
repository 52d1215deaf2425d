"""Digits that change while they are learnt: classes that swap their names, images that turn.

Both are digits of `bayesfilt.tasks` seen through a change that depends on the step. What is held
out is changed in the same way, so that `evaluate_at` says how good the weights are now.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from bayesfilt.custom_types import Params
from bayesfilt.simulate import simulate
from bayesfilt.simulate.probes import StepView
from bayesfilt.tasks import Examples, Supervised

type Step = int | Integer[Array, ""]


class _Changing(abc.ABC):
    """A classification task whose examples are changed on their way in."""

    base: Supervised

    @property
    def batch_size(self) -> int:
        """Examples in a minibatch."""
        return self.base.batch_size

    @abc.abstractmethod
    def changed(self, examples: Examples, step: Step) -> Examples:
        """The examples as they are at a step."""

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Weights of the network."""
        return self.base.init_params(key)

    def sample_batch(self, key: PRNGKeyArray, step: Step) -> Examples:
        """Draw training examples as they are at this step."""
        return self.changed(self.base.sample_batch(key, step), step)

    def loss(self, params: Params, batch: Examples) -> Float[Array, ""]:
        """Mean cross entropy over the minibatch, in nats."""
        return self.base.loss(params, batch)

    def evaluate_at(self, params: Params, step: Step) -> dict[str, Float[Array, ""]]:
        """`test_loss` (nats) and `test_accuracy` of the test images as they are at a step."""
        now = dataclasses.replace(self.base, test=self.changed(self.base.test, step))
        return now.evaluate(params)

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Nothing: what is held out depends on the step, and `current` records it."""
        del params
        return {}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SwitchingDigits(_Changing):
    """From one step on, every class has another's name."""

    base: Supervised
    name: Integer[Array, " classes"]  # of each class, after the switch
    switch_at: Integer[Array, ""]  # the first step with the new names

    def changed(self, examples: Examples, step: Step) -> Examples:
        """Other labels from the switch on."""
        renamed = self.name[examples.labels]
        labels = jnp.where(jnp.asarray(step) >= self.switch_at, renamed, examples.labels)
        return Examples(inputs=examples.inputs, labels=labels)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TurningDigits(_Changing):
    """Images turned by an angle that depends on the step."""

    base: Supervised
    angle: Float[Array, " steps"]  # degrees, counter-clockwise
    start: Params | None = None  # first weights; None: the network's own

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Weights to begin with."""
        return self.base.init_params(key) if self.start is None else self.start

    def changed(self, examples: Examples, step: Step) -> Examples:
        """Every image turned by the angle of the step; NaN after the last one."""
        angle = jnp.take(self.angle, step, mode="fill", fill_value=jnp.nan)
        side = examples.inputs.shape[-1]
        flat = examples.inputs.reshape(len(examples.labels), side * side)
        turned = flat @ rotation(angle, side).T.astype(flat.dtype)
        return Examples(inputs=turned.reshape(examples.inputs.shape), labels=examples.labels)


def switching_digits(base: Supervised, switch_at: int) -> SwitchingDigits:
    """Every class takes the name of the next one, so that none keeps its own."""
    return SwitchingDigits(
        base=base,
        name=jnp.roll(jnp.arange(base.network.num_classes), -1),
        switch_at=jnp.asarray(switch_at, jnp.int32),
    )


def turning_digits(base: Supervised, num_steps: int) -> TurningDigits:
    """Images that do not turn yet: `turned_by` gives every run its own path.

    Raises:
        ValueError: examples that are no square images.
    """
    shape = base.train.inputs.shape[1:]
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"turning_digits needs square images, got examples of shape {shape}.")
    return TurningDigits(base=base, angle=jnp.zeros(num_steps, base.train.inputs.dtype))


def turned_by(
    task: Any, key: PRNGKeyArray, drift: Float[Array, ""], wanders: Float[Array, ""]
) -> TurningDigits:
    """The task with a path of its own.

    Args:
        task: `TurningDigits`; its path is replaced by one as long.
        key: of the path.
        drift: degrees a step: the deviation of a step of a walk, or the speed.
        wanders: 1 for a random walk, 0 for a turn at constant speed.
    """
    moves = jax.random.normal(key, task.angle.shape, task.angle.dtype)
    path = jnp.cumsum(jnp.where(wanders > 0, moves, 1.0))
    return TurningDigits(base=task.base, angle=(drift * path).astype(task.angle.dtype))


def learnt_first(
    task: TurningDigits, key: PRNGKeyArray, optimizer: optax.GradientTransformation, num_steps: int
) -> TurningDigits:
    """The rest of a task's path, from the weights that so many steps along it have made."""
    learnt = simulate(key, task, optimizer, num_steps, probes={})
    return TurningDigits(base=task.base, angle=task.angle[num_steps:], start=learnt.params)


def rotation(angle: Float[Array, ""], side: int) -> Float[Array, "pixels pixels"]:
    """Matrix that turns a flat image about its middle, bilinear between pixels.

    Each pixel reads the image at the place that the turn brings to it; outside there is 0. The
    image is taken with y upwards, so that positive angles turn counter-clockwise.
    """
    row, column = (place.ravel() for place in np.indices((side, side)))
    centre = (side - 1) / 2
    x, y = column - centre, centre - row
    radians = jnp.deg2rad(angle)
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    from_x, from_y = cosine * x + sine * y, cosine * y - sine * x
    away_x = jnp.abs(from_x[:, None] - x[None, :])
    away_y = jnp.abs(from_y[:, None] - y[None, :])
    return jnp.clip(1 - away_x, 0) * jnp.clip(1 - away_y, 0)


def current(task: Any, view: StepView) -> dict[str, Float[Array, ""]]:
    """Probe: held-out loss and accuracy now, before the step."""
    return task.evaluate_at(view.params, view.step)
