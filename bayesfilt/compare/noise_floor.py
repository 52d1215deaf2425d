"""What rounding alone does to a run: the noise floor, and how long a comparison means anything.

Training is chaotic: the same optimizer from the same weights with their last bit changed walks
away from itself. A gap between two free-running optimizers is a finding only while it stands
clear of that.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.compare.layers import flat
from bayesfilt.compare.side_by_side import first_weights, training_side_by_side
from bayesfilt.custom_types import Params
from bayesfilt.simulate import run_in_chunks
from bayesfilt.tasks import Task

# A run whose weights differ by this fraction from its own perturbed twin's is another run.
HORIZON_DISTANCE = 1e-3
# A gap is clear of the noise while the noise is below this fraction of it.
CLEAR_FRACTION = 0.1


class NoiseFloor(NamedTuple):
    """How far one optimizer gets from itself after a change of the last bit."""

    step: np.ndarray  # (records,)
    weight_distance: np.ndarray  # relative to the unperturbed run's weights
    loss_gap: np.ndarray  # absolute difference of the minibatch losses
    predictive_kl: np.ndarray  # nats per held-out example; NaN where the task predicts nothing
    divergence_horizon: float  # see `divergence_horizon`


def measure_noise_floor(
    key: PRNGKeyArray,
    task: Task,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    record_every: int = 10,
    params: Params | None = None,
) -> NoiseFloor:
    """Train twice with one optimizer, the second time with the last bit of every weight changed.

    Args:
        key: Of the run and of the perturbation.
        task: What is trained.
        optimizer: Any optax transformation of mean-loss gradients.
        num_steps: Steps to take.
        record_every: Distances are taken at steps 0, k, 2k, ...
        params: First weights; by default the task's.
    """
    run_key, noise_key = jax.random.split(key)
    params = first_weights(run_key, task) if params is None else params
    twins = (params, perturbed(noise_key, params))
    program = training_side_by_side([optimizer, optimizer], record_every=record_every)
    record = run_in_chunks(program, run_key, task, num_steps, params=twins).record
    return noise_floor_from(record.step, record.records, twin=1)


def noise_floor_from(step: Any, records: dict[str, Any], *, twin: int) -> NoiseFloor:
    """Read the floor off the records of runs side by side; run 0 leads, `twin` is perturbed."""
    loss, distance = np.asarray(records["loss"]), np.asarray(records["weight_distance"])
    return NoiseFloor(
        step=np.asarray(step),
        weight_distance=distance[:, twin],
        loss_gap=np.abs(loss[:, twin] - loss[:, 0]),
        predictive_kl=np.asarray(records["predictive_kl"])[:, twin],
        divergence_horizon=divergence_horizon(np.asarray(step), distance[:, twin]),
    )


@jax.jit
def perturbed(key: PRNGKeyArray, params: Params) -> Params:
    """Every weight moved to the next number of its type, up or down at random.

    A weight that is exactly 0 has no last bit (the next number is below what a processor
    keeps). It moves by one rounding of the weights' root mean square, or of 1 if all are 0.
    """
    weights = flat(params)
    mean_square = jnp.mean(jnp.square(weights)) if weights.size else jnp.zeros(())
    scale = jnp.where(mean_square == 0, 1, jnp.sqrt(mean_square))
    leaves, structure = jax.tree.flatten(params)

    def moved(leaf_key, leaf):
        sign = jnp.where(jax.random.bernoulli(leaf_key, shape=leaf.shape), 1, -1)
        sign = sign.astype(leaf.dtype)
        rounding = jnp.asarray(jnp.finfo(leaf.dtype).eps * scale, leaf.dtype)
        next_number = jnp.nextafter(leaf, sign * jnp.asarray(jnp.inf, leaf.dtype))
        return jnp.where(leaf == 0, sign * rounding, next_number)

    keys = jax.random.split(key, max(len(leaves), 1))
    return jax.tree.unflatten(structure, [moved(*pair) for pair in zip(keys, leaves, strict=False)])


def divergence_horizon(
    step: Float[np.ndarray, " records"],
    noise_distance: Float[np.ndarray, " records"],
    *,
    threshold: float = HORIZON_DISTANCE,
) -> float:
    """First recorded step at which rounding has moved the weights by `threshold` of their length.

    From there on two runs of one optimizer are different runs, and free-running weights of two
    optimizers can be compared by statistics only. NaN if it is not reached. An infinite distance
    does not count: it is one from weights that are all 0, which have no length.
    """
    distance = np.asarray(noise_distance)
    beyond = np.flatnonzero(np.isfinite(distance) & (distance >= threshold))
    return float(np.asarray(step)[beyond[0]]) if beyond.size else float("nan")


def clear_until(
    step: Float[np.ndarray, " records"],
    distance: Float[np.ndarray, " records"],
    noise_distance: Float[np.ndarray, " records"],
    *,
    fraction: float = CLEAR_FRACTION,
) -> float:
    """Last recorded step at which a run's distance from the leader stands clear of the noise.

    It does where the noise is below `fraction` of it, so that at most so much of it can be
    rounding. NaN if it never does: then there is no gap to speak of.
    """
    is_clear = np.asarray(noise_distance) < fraction * np.asarray(distance)
    clear = np.flatnonzero(is_clear)
    return float(np.asarray(step)[clear[-1]]) if clear.size else float("nan")
