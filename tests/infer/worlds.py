"""Small streams and numbers for the tests of the models."""

import jax.numpy as jnp
import numpy as np

from bayesfilt.infer import gradient_streams, model_named, optimum_streams
from bayesfilt.infer.state_space import NOISES, TRANSITIONS, parameter_names

# Every pair of transition and noise that a kind of stream has.
PAIRS = [
    (kind, transition, noise)
    for kind, noises in NOISES.items()
    for transition in TRANSITIONS
    for noise in noises
    if (transition, noise) != ("static", "none")
]


def some_streams(kind, streams=3, steps=15, seed=0):
    """Streams with holes, two layers, and steps of every worth."""
    random = np.random.default_rng(seed)
    shape = (streams, steps)
    valid = random.random(shape) > 0.2
    layer = np.arange(streams) % 2
    if kind == "optimum":
        walk = random.normal(size=shape).cumsum(1)
        return optimum_streams(np.where(valid, walk, np.nan), valid=valid, layer=layer)
    precision = np.exp(random.normal(size=shape)) * (random.random(shape) > 0.1)
    gradient = np.where(valid, random.normal(size=shape), np.nan)
    return gradient_streams(
        gradient, precision, random.normal(size=shape), valid=valid, layer=layer
    )


def some_numbers(model, kind, streams=3, seed=1):
    """Numbers of every parameter, different for each stream."""
    random = np.random.default_rng(seed)
    numbers = {}
    for name in parameter_names(model, kind):
        numbers[name] = jnp.exp(jnp.asarray(random.normal(size=streams)) * 0.7 - 0.5)
    if "degrees_of_freedom" in numbers:
        numbers["degrees_of_freedom"] = 2 + 3 * numbers["degrees_of_freedom"]
    if "velocity_shrink" in numbers:
        numbers["velocity_shrink"] = numbers["velocity_shrink"] / (1 + numbers["velocity_shrink"])
    return numbers


def every_model():
    """Kind and model of every pair; Student's tails where a path differs in kind."""
    gaussian = [(kind, model_named(name, noise=noise)) for kind, name, noise in PAIRS]
    heavy = [
        ("gradient", model_named("ornstein_uhlenbeck", tails="student_t")),
        ("optimum", model_named("l2", tails="student_t")),
    ]
    return gaussian + heavy


def row_of(numbers, row):
    """One stream's numbers, as Python's."""
    return {name: float(value[row]) for name, value in numbers.items()}


def label(kind, model):
    return f"{kind}-{model.transition}-{model.noise}-{model.tails}"
