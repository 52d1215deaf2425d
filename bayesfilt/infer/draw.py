"""Draws from a model itself: numbers from its prior, and streams with those numbers.

Written from the model and not from the filters, so that whoever simulates here and infers with the
likelihood compares two things. Only where a model has no latent path (`is_sequential`) is each
observation drawn from what the filter expects of it, because that is all the model says.
"""

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.infer.belief_path import first_belief, next_belief, start_variance
from bayesfilt.infer.likelihood import (
    Record,
    expected,
    looks_of,
    noise_number,
    record_of,
    seen_steps,
)
from bayesfilt.infer.models import sample_numbers
from bayesfilt.infer.priors import Priors
from bayesfilt.infer.state_space import Model, Numbers, is_sequential, require_fit
from bayesfilt.infer.streams import Streams


def draw_numbers(
    key: PRNGKeyArray,
    model: Model,
    priors: Priors,
    num_layers: int,
    layer: Array,
    kind: str = "gradient",
) -> Numbers:
    """Every stream's numbers, drawn from the prior; `layer` as in `Streams`."""
    with numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=key):
        return sample_numbers(model, priors, layer, num_layers, kind)


def draw_streams(key: PRNGKeyArray, model: Model, numbers: Numbers, design: Streams) -> Streams:
    """Streams of the model, seen at the design's precision, places and valid steps."""
    require_fit(model, design.kind)
    if is_sequential(model):
        observed = _draw_sequentially(key, model, numbers, design)
    else:
        path_key, noise_key = jax.random.split(key)
        optimum = draw_path(path_key, model, numbers, design)
        observed = _look_at(noise_key, model, numbers, design, optimum)
    return Streams(
        observed=jnp.where(design.valid, observed, 0),
        precision=design.precision,
        taken_at=design.taken_at,
        valid=design.valid,
        layer=design.layer,
        kind=design.kind,
        layer_names=design.layer_names,
    )


def draw_path(
    key: PRNGKeyArray, model: Model, numbers: Numbers, design: Streams
) -> Float[Array, "streams steps"]:
    """One latent path of the optimum for each stream."""
    streams, steps = design.observed.shape
    first_key, move_key, fast_key, push_key = jax.random.split(key, 4)
    dtype = design.observed.dtype
    first, fast = (jax.random.normal(k, (streams,), dtype) for k in (first_key, fast_key))
    moves, pushes = (jax.random.normal(k, (steps, streams), dtype) for k in (move_key, push_key))
    nothing = jnp.zeros(streams, dtype)
    towards = numbers.get("towards", nothing)
    if "stationary_variance" in numbers:
        rate = numbers["drift_scale"] ** 2 / numbers["stationary_variance"]
        kept = jnp.exp(-rate / 2)
        deviation = jnp.sqrt(numbers["stationary_variance"] * -jnp.expm1(-rate))
    else:
        kept = jnp.ones(streams, dtype)
        deviation = numbers.get("drift_scale", nothing)
    start = jnp.sqrt(start_variance(numbers)) * first
    speed, speed_kept, push = nothing, nothing, nothing
    if model.transition == "velocity":
        start, speed = _stationary_pair(numbers, kept, deviation, first, fast)
        speed_kept = 1 - numbers["velocity_shrink"]
        push = numbers["velocity_drift_scale"]

    def step(state, noise):
        place, speed = state
        moved = kept * place + speed + deviation * noise[0]
        return (moved, speed_kept * speed + push * noise[1]), place

    _, path = jax.lax.scan(step, (start, speed), (moves, pushes))
    return towards[:, None] + path.T


def _stationary_pair(numbers: Numbers, kept, deviation, first, fast) -> tuple[Array, Array]:
    """Place and velocity from their joint stationary law, solved for as S = F S Fᵀ + Q."""
    zero, one = jnp.zeros_like(kept), jnp.ones_like(kept)
    slow = 1 - numbers["velocity_shrink"]
    matrix = jnp.stack([jnp.stack([kept, one], -1), jnp.stack([zero, slow], -1)], -2)
    noise = jnp.stack([deviation**2, zero, zero, numbers["velocity_drift_scale"] ** 2], -1)
    outer = jnp.einsum("...ij,...kl->...ikjl", matrix, matrix).reshape(*kept.shape, 4, 4)
    law = jnp.linalg.solve(jnp.eye(4, dtype=kept.dtype) - outer, noise[..., None])[..., 0]
    root = jnp.sqrt(law[..., 0])
    shared = law[..., 1] / root
    return root * first, shared * first + jnp.sqrt(law[..., 3] - shared**2) * fast


def _look_at(key: PRNGKeyArray, model: Model, numbers: Numbers, design: Streams, optimum) -> Array:
    """What is observed of a path."""
    noise = jax.random.normal(key, optimum.shape, optimum.dtype)
    number = jnp.broadcast_to(noise_number(model, numbers, design.kind), optimum.shape[:1])[:, None]
    if design.kind == "optimum":
        return optimum + jnp.sqrt(number) * noise
    precision = jnp.where(seen_steps(design), design.precision, 0)
    return precision * (design.taken_at - optimum) + jnp.sqrt(number * precision) * noise


def _draw_sequentially(
    key: PRNGKeyArray, model: Model, numbers: Numbers, design: Streams
) -> Float[Array, "streams steps"]:
    """Observations drawn one after the other, each from what the model expects of it."""
    record = record_of(design)
    shape, dtype = record.observed.shape, record.observed.dtype
    if model.tails == "student_t":
        nu = numbers["degrees_of_freedom"]
        noise = jax.random.t(key, nu, shape, dtype) * jnp.sqrt(1 - 2 / nu)
    else:
        noise = jax.random.normal(key, shape, dtype)

    def step(belief, now):
        blank, noise = now
        foreseen = expected(model, numbers, design.kind, blank, belief.mean, belief.variance)
        observed = foreseen.mean + jnp.sqrt(foreseen.variance) * noise
        drawn = Record(
            observed=jnp.where(blank.seen, observed, 0),
            precision=blank.precision,
            taken_at=blank.taken_at,
            seen=blank.seen,
        )
        look = looks_of(model, numbers, design.kind, drawn)
        return next_belief(model, numbers, belief, look), drawn.observed

    return jax.lax.scan(step, first_belief(model, numbers), (record, noise))[1].T
