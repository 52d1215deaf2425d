"""The matched world: optima drift and gradients are drawn exactly as the filter assumes.

Written from the model, without the filters' code, so that a filter can be judged on it:

    w*(t+1) | w*(t) ~ N(a w*(t), q)    a = exp(-η²/2σ²), q = σ² (1 - exp(-η²/σ²))
    g(t)    | w*(t) ~ N(h (w - w*(t)), h)

for each weight on its own, where g is the gradient of the *summed* negative log likelihood of
one minibatch, h its precision, and w the weight the gradient is taken at.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, DTypeLike, Float, Integer, PRNGKeyArray
from numpy.typing import ArrayLike

from bayesfilt.checks import require_at_least
from bayesfilt.tasks.task import float_dtype, whole_batch_size
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck


class Observation(NamedTuple):
    """One minibatch: where the optimum is now, and the noise in looking at it."""

    optimum: Float[Array, " weights"]
    noise: Float[Array, " weights"]  # standard normal


class World(NamedTuple):
    """The truth that no filter is told."""

    optimum: Float[Array, "steps weights"]  # at step t: the one that minibatch t looks at
    precision: Float[Array, " weights"]  # of one minibatch's summed gradient


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tracking:
    """Follow optima that drift by the filter's own model, seen through matched noise."""

    optimum: Float[Array, "steps weights"]
    precision: Float[Array, " weights"]
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Float[Array, " weights"]:
        """Zeros, the mean of the first optimum."""
        del key
        return jnp.zeros_like(self.optimum[0])

    def sample_batch(self, key: PRNGKeyArray, step: int | Integer[Array, ""]) -> Observation:
        """Look at the optimum of `step`; NaN after the world's last step, never a frozen world."""
        optimum = jnp.take(self.optimum, step, axis=0, mode="fill", fill_value=jnp.nan)
        noise = jax.random.normal(key, optimum.shape, optimum.dtype)
        return Observation(optimum=optimum, noise=noise)

    def loss(self, params: Float[Array, " weights"], batch: Observation) -> Float[Array, ""]:
        """½ Σ (√h (w - w*) + noise)² / batch_size: mean loss of a Gaussian observation.

        `batch_size` times its gradient is h (w - w*) + √h noise, the summed gradient.
        """
        surprise = jnp.sqrt(self.precision) * (params - batch.optimum) + batch.noise
        return 0.5 * jnp.sum(surprise**2) / self.batch_size

    def evaluate(self, params: Float[Array, " weights"]) -> dict[str, Float[Array, ""]]:
        """Nothing: what is held out here is the path, and `world` hands it over."""
        del params
        return {}

    def world(self) -> World:
        """The optimum at every step, and the precision of one minibatch."""
        return World(optimum=self.optimum, precision=self.precision)


def tracking_task(
    key: PRNGKeyArray,
    transition: OrnsteinUhlenbeck,
    precision: ArrayLike,
    num_steps: int,
    *,
    batch_size: int,
    dtype: DTypeLike | None = None,
) -> Tracking:
    """Draw a matched world of `num_steps` steps; it may be vmapped over `key`.

    Args:
        key: of the path; the noise of the gradients comes from `sample_batch`'s own keys.
        transition: η and σ², numbers or one for each weight, in summed units. The first
            optimum is drawn from N(0, σ²), or is 0 where σ² is infinite (a random walk has no
            stationary law).
        precision: h >= 0 of one *minibatch's summed* gradient; (weights,). It already
            contains the batch size: `batch_size` only says how `loss` is averaged.
        num_steps: length of the path. A run that goes further reads NaN there.
        batch_size: examples in a minibatch: summed gradient / gradient of `loss`.
        dtype: of the weights; None means JAX's default.

    Raises:
        ValueError: η or σ² not positive (σ² may be infinite), h negative or not a vector.
    """
    owner = "tracking_task"
    kind = float_dtype(owner, dtype)
    require_at_least(owner, "num_steps", num_steps, 1)
    weights = np.shape(precision)
    if len(weights) != 1 or not weights[0]:
        raise ValueError(f"{owner} needs a vector precision, one a weight, got shape {weights}.")
    _require_above(owner, "precision", precision, strictly=False, infinite=False)
    _require_above(owner, "drift_scale", transition.drift_scale, infinite=False)
    _require_above(owner, "stationary_variance", transition.stationary_variance, infinite=True)
    for name, value in transition._asdict().items():
        if np.shape(value) not in ((), weights):
            raise ValueError(
                f"{owner} needs one {name} or one a weight {weights}, got shape {np.shape(value)}."
            )
    drift_scale = jnp.broadcast_to(jnp.asarray(transition.drift_scale, kind), weights)
    variance = jnp.broadcast_to(jnp.asarray(transition.stationary_variance, kind), weights)
    return Tracking(
        optimum=_draw_path(key, drift_scale, variance, int(num_steps)),
        precision=jnp.asarray(precision, kind),
        batch_size=whole_batch_size(owner, batch_size),
    )


@functools.partial(jax.jit, static_argnames="num_steps")
def _draw_path(
    key: PRNGKeyArray,
    drift_scale: Float[Array, " weights"],
    stationary_variance: Float[Array, " weights"],
    num_steps: int,
) -> Float[Array, "steps weights"]:
    """One path of the exact chain, from its stationary law."""
    first_key, move_key = jax.random.split(key)
    bounded = jnp.isfinite(stationary_variance)
    deviation = jnp.sqrt(jnp.where(bounded, stationary_variance, 1.0))
    relaxation = jnp.where(bounded, (drift_scale / deviation) ** 2, 0.0)
    kept = jnp.exp(-0.5 * relaxation)
    # (1 - exp(-x))/x keeps its digits where x is tiny, and is 1 for the random walk, x = 0.
    share = jnp.where(relaxation > 0, -jnp.expm1(-relaxation) / relaxation, 1.0)
    shape, dtype = drift_scale.shape, drift_scale.dtype
    first = jnp.where(bounded, deviation, 0.0) * jax.random.normal(first_key, shape, dtype)
    white = jax.random.normal(move_key, (num_steps - 1, *shape), dtype)
    moves = drift_scale * jnp.sqrt(share) * white

    def drift(optimum, move):
        drifted = kept * optimum + move
        return drifted, drifted

    later = jax.lax.scan(drift, first, moves)[1]
    return jnp.concatenate([first[None], later])


def _require_above(
    owner: str, name: str, value: ArrayLike, *, strictly: bool = True, infinite: bool
) -> None:
    """Refuse concrete numbers that are not above zero, in a number or in an array of them."""
    if isinstance(value, Tracer):
        return
    numbers = np.asarray(value, np.float64)
    legal = (numbers > 0) if strictly else (numbers >= 0)
    bad = ~(legal if infinite else legal & np.isfinite(numbers))
    if bad.any():
        wanted = f"{'' if infinite else 'finite '}{name} {'>' if strictly else '>='} 0"
        raise ValueError(
            f"{owner} needs {wanted}, got {np.atleast_1d(numbers)[np.atleast_1d(bad)][0]:g}."
        )
