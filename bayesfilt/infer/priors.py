"""Priors of the models' numbers: proper, weak, and in the data's own units.

Every positive number has a log-normal prior, whose centre is in units taken from the streams: a
rough estimate of how far optima move in one step, and how noisy one look is. So rescaling the
weights rescales the answer and nothing else. The centres use the data, roughly and once; the
priors are wide (a factor e² or more to either side), so that it does not matter where in a decade
a centre is. Whoever needs a prior that knows no data, as calibration by simulation does, makes a
`Priors` of fixed numbers.

The Ornstein-Uhlenbeck process has its prior in the deviation of one exact move, √q, and in the
relaxation time τ = 2σ²/η² in steps: what streams say of √q is sharp, and of τ is weak, and nearly
nothing of one is in the other. τ is never infinite, so the prior is proper and the retention
exp(-1/τ) lies inside (0, 1); a τ far beyond the record is a random walk to it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.infer.streams import Streams


class Spread(NamedTuple):
    """A normal prior, of the log of a number where the number is positive."""

    centre: Float[Array, " layers"]
    deviation: Float[Array, ""]


class Priors(NamedTuple):
    """Prior of every number a model may have, by layer; a pytree, so that it can be traced."""

    process_deviation: Spread  # log √q, of one exact move; weight
    relaxation_time: Spread  # log τ; steps
    noise_ratio: Spread  # log r, gradients only
    measurement_variance: Spread  # log R, optima only; weight²
    initial_variance: Spread  # log; weight²
    penalty: Spread  # log; 1/weight²
    towards: Spread  # itself; weight
    velocity_shrink: Spread  # logit c
    velocity_drift_scale: Spread  # log κ; weight per step
    degrees_of_freedom: Spread  # log (nu - 2)
    between: Float[Array, ""]  # median of the prior of the streams' spread in a layer, in logs


class Units(NamedTuple):
    """Rough numbers of a layer's streams."""

    move: float  # variance that one step adds; weight²
    noise: float  # variance of one look at the optimum; weight²
    place: float  # square of where optima are; weight²


def priors_for(streams: Streams) -> Priors:
    """Weak priors in the streams' own units; layers without a stream take the others'.

    Args:
        streams: concrete, as `check_streams` gives them.
    """
    steps = streams.observed.shape[1]
    layer = np.asarray(streams.layer)
    rough = [_rough_units(row) for row in _looks(streams)]
    units = []
    for index in range(len(streams.layer_names)):
        rows = [unit for unit, its in zip(rough, layer, strict=True) if its == index] or rough
        units.append([np.median(np.log(column)) for column in zip(*rows, strict=True)])
    move, noise, place = np.array(units).T
    memory = np.full_like(move, np.log(max(steps, 16) / 8))
    dtype = streams.observed.dtype

    def spread(centre, deviation) -> Spread:
        return Spread(
            centre=jnp.asarray(np.broadcast_to(centre, move.shape), dtype),
            deviation=jnp.asarray(deviation, dtype),
        )

    zero = np.zeros_like(move)
    return Priors(
        process_deviation=spread(0.5 * move, 2.0),
        relaxation_time=spread(memory, 2.0),
        noise_ratio=spread(zero, 2.0),
        measurement_variance=spread(noise, 2.5),
        initial_variance=spread(place, 2.5),
        penalty=spread(-memory - 0.5 * (move + noise), 2.5),  # so that shrink p λ is about 1/τ
        towards=Spread(
            centre=jnp.zeros(move.shape, dtype),
            deviation=jnp.asarray(np.exp(0.5 * np.median(place)), dtype),
        ),
        velocity_shrink=spread(np.log(1 / 9), 1.5),  # Adam's b1 = 0.9 in the middle
        velocity_drift_scale=spread(0.5 * move - np.log(10), 2.0),
        degrees_of_freedom=spread(np.log(8.0), 1.0),
        between=jnp.asarray(0.4, dtype),
    )


def _looks(streams: Streams):
    """Each row's looks at the optimum and the noise variance of each (but for its ratio)."""
    observed, precision, taken_at = (
        np.asarray(field, np.float64)
        for field in (streams.observed, streams.precision, streams.taken_at)
    )
    valid = np.asarray(streams.valid)
    for i in range(len(observed)):
        if streams.kind == "optimum":
            yield observed[i, valid[i]], None
            continue
        seen = valid[i] & (precision[i] > 0)
        h = precision[i, seen]
        yield taken_at[i, seen] - observed[i, seen] / h, 1 / h


def _rough_units(row) -> Units:
    """Moments of differences, one step apart and a block apart: a walk's grow, noise does not."""
    look, noise = row
    length = max(len(look) // 16, 1)
    count = len(look) // length
    weight = np.ones_like(look) if noise is None else 1 / noise
    worth = weight[: count * length].reshape(count, length)
    blocks = (worth * look[: count * length].reshape(count, length)).sum(1) / worth.sum(1)
    near = _robust_square(np.diff(look))
    far = _robust_square(np.diff(blocks))
    least = np.finfo(float).eps * max(np.median(look**2), np.finfo(float).tiny)
    if noise is not None:  # looks differ in worth, so each difference in units of its own noise
        unit = np.sqrt(noise[1:] + noise[:-1])
        near = 2 * np.median(noise) * _robust_square(np.diff(look) / unit)
    # near = q + 2R and far = (2/3) length q + 2R/length, so that ...
    move = (far - near / length) / (2 * length / 3 + 1 / length) if length > 1 else near
    move = max(move, 1e-2 * far / length, least)
    measured = max(0.5 * (near - move), 1e-4 * near, least)
    return Units(move=move, noise=measured, place=max(np.median(blocks**2), move))


def _robust_square(differences) -> float:
    """Variance of differences by their median square, which outliers do not move."""
    return float(np.median(differences**2)) / 0.455 if differences.size else 0.0


def number_of_layers(priors: Priors) -> int:
    """How many layers the priors are for."""
    return int(jnp.shape(jax.tree.leaves(priors)[0])[-1])
