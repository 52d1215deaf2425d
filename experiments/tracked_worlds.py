"""Worlds of drifting optima with known drift, noise and curvature, and optimizers that track them.

Every weight on its own, with curvature and noise apart (in `bayesfilt.tasks` they are one):

    w*' = kept w* + u* + N(0, drift)    u*' = velocity_kept u* + N(0, velocity drift)
    g ~ N(curvature (w - w*), noise)

where g is the gradient of the *summed* loss of one minibatch. The recursion is run, step by step,
with optimizers of the library; all settings see the same random numbers, so that they are paired.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import Interval, ridge
from experiments.coordinates import interval_over_seeds

type Numbers = Mapping[str, Array]


class DriftingWorld(NamedTuple):
    """Numbers of one weight's world, or one a weight: scalars or (weights,)."""

    drift_variance: Array  # of one move of the optimum; weight^2
    noise_variance: Array  # of the summed gradient; 1/weight^2
    curvature: Array  # of the summed loss; 1/weight^2
    kept: Array  # of the optimum in one step; 1 for a random walk
    velocity_kept: Array  # of the velocity in one step
    velocity_variance: Array  # of one move of the velocity; weight^2 per step^2


def random_walk(drift_variance: Array, noise_variance: Array, curvature: Array) -> DriftingWorld:
    """Optima that only wander."""
    one, zero = jnp.ones(()), jnp.zeros(())
    return DriftingWorld(drift_variance, noise_variance, curvature, one, zero, zero)


def tracking_errors(
    key: PRNGKeyArray,
    world_of: Callable[[Numbers], DriftingWorld],
    optimizer_of: Callable[[Numbers], optax.GradientTransformation],
    settings: Mapping[str, Sequence[float] | np.ndarray],
    *,
    num_weights: int,
    num_seeds: int,
    num_steps: int,
    settling: int,
) -> Float[np.ndarray, "settings seeds weights"]:
    """Mean squared distance of each weight from its optimum, when the gradient is taken.

    Args:
        key: of all random numbers, which are the same for all settings.
        world_of: numbers of one setting, traced -> its world.
        optimizer_of: numbers of one setting, traced -> its optimizer of *summed* gradients.
        settings: name -> numbers, one a setting (or one row of numbers a weight).
        num_weights: independent ones in every world.
        num_seeds: independent runs of all settings.
        num_steps: of which the error is the mean.
        settling: steps before those.

    Returns:
        The errors; NaN or infinite where a run has diverged.
    """
    numbers = {name: jnp.asarray(values) for name, values in settings.items()}

    def one_seed(seed_key: PRNGKeyArray) -> Array:
        def start(setting: Numbers) -> tuple:
            zeros = jnp.zeros(num_weights)
            return zeros, zeros, zeros, optimizer_of(setting).init(zeros), zeros

        def step(setting: Numbers, carry: tuple, normal: Array, counts: Array) -> tuple:
            weights, optimum, velocity, state, total = carry
            world, optimizer = world_of(setting), optimizer_of(setting)
            total = total + counts * jnp.square(weights - optimum)
            noise = jnp.sqrt(world.noise_variance) * normal[0]
            gradient = world.curvature * (weights - optimum) + noise
            updates, state = optimizer.update(gradient, state, weights)
            moved = jnp.sqrt(world.drift_variance) * normal[1]
            optimum = world.kept * optimum + velocity + moved
            shaken = jnp.sqrt(world.velocity_variance) * normal[2]
            velocity = world.velocity_kept * velocity + shaken
            return weights + updates, optimum, velocity, state, total

        def all_settings(carry: tuple, index: Array) -> tuple[tuple, None]:
            normal = jax.random.normal(jax.random.fold_in(seed_key, index), (3, num_weights))
            counts = (index >= settling) / num_steps
            return jax.vmap(step, in_axes=(0, 0, None, None))(numbers, carry, normal, counts), None

        steps = jnp.arange(settling + num_steps)
        return jax.lax.scan(all_settings, jax.vmap(start)(numbers), steps)[0][-1]

    errors = jax.jit(lambda keys: jax.lax.map(one_seed, keys))(jax.random.split(key, num_seeds))
    return np.moveaxis(np.asarray(errors, np.float64), 0, 1)


def crossed(**axes: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
    """All combinations of some axes, the last one fastest; each flat."""
    found = np.meshgrid(*(np.asarray(each, float) for each in axes.values()), indexing="ij")
    return dict(zip(axes, (each.ravel() for each in found), strict=True))


def log_best(
    values: Float[np.ndarray, "rows places seeds"], places: Float[np.ndarray, " places"]
) -> Float[np.ndarray, " rows"]:
    """Logarithm of the place of the lowest value of every row, between the places of a grid.

    By a parabola, of logarithms, of the medians over seeds; NaN where the lowest is at an edge.
    """
    return ridge(values, places).log_decay


def slope_of_best(
    values: Float[np.ndarray, "rows places seeds"], places: np.ndarray, against: np.ndarray
) -> Interval:
    """Slope of the logarithm of the best place on that of what the rows differ in.

    NaN, and so nobody's, as soon as the best of one row is at an edge of its grid.
    """
    centred = np.log(against) - np.log(against).mean()

    def slope(drawn: np.ndarray) -> float:
        return float(centred @ log_best(drawn, places) / (centred @ centred))

    return interval_over_seeds(slope, values)
