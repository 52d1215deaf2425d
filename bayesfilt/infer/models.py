"""State-space models as NumPyro models: priors, a hierarchy over streams, an exact likelihood.

Sites. What is sampled is unconstrained and in units of the prior: `<name>_raw` by layer,
`<name>_away` and `<name>_around` for the spread of its streams and for each of them. What is
reported is deterministic: the constrained number of every layer under its own name, with
`pooling="stream"` also `<name>_of_stream` and `<name>_between`, the streams' spread, and `shrink`
= 1 - retention per step where the transition has one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from bayesfilt.infer.likelihood import log_likelihood
from bayesfilt.infer.priors import Priors
from bayesfilt.infer.state_space import (
    MODELS,
    Model,
    Numbers,
    is_sequential,
    model_named,
    parameter_names,
    require_fit,
    varies_by_stream,
)
from bayesfilt.infer.streams import Streams
from bayesfilt.theory.ornstein_uhlenbeck import exact_shrink

__all__ = [
    "MODELS",
    "Model",
    "Numbers",
    "is_sequential",
    "model_function",
    "model_named",
    "numbers_of",
    "parameter_names",
    "varies_by_stream",
]

BETWEEN_DEVIATION = 0.6  # of the log of a layer's spread, around the log of `Priors.between`
# How a stream's own number is sampled, between 1, itself, which suits sharp likelihoods, and 0, its
# distance from the layer's in units of the spread, which suits weak ones. Measured on matched
# worlds: hundreds of steps pin the noise, half pin the moves, and leave relaxation times open.
CENTRED = {"noise_ratio": 0.9, "measurement_variance": 0.9, "process_deviation": 0.4}


def model_function(model: Model) -> Callable[[Streams, Priors], None]:
    """NumPyro model of `(streams, priors)`; its likelihood is one factor, "log_likelihood"."""

    def sample(streams: Streams, priors: Priors) -> None:
        require_fit(model, streams.kind)
        numbers = sample_numbers(
            model, priors, streams.layer, len(streams.layer_names), streams.kind
        )
        total = jnp.sum(log_likelihood(model, numbers, streams))
        numpyro.factor("log_likelihood", total)

    return sample


def numbers_of(model: Model, draw: dict[str, Array], streams: Streams) -> Numbers:
    """Every stream's numbers out of one draw of the deterministic sites."""
    return {
        name: draw[f"{name}_of_stream"]
        if varies_by_stream(model, name)
        else draw[name][streams.layer]
        for name in parameter_names(model, streams.kind)
    }


def sample_numbers(
    model: Model, priors: Priors, layer: Array, num_layers: int, kind: str
) -> Numbers:
    """Sample every stream's numbers from the prior, inside a NumPyro model."""
    names = parameter_names(model, kind)
    basic = {name for wanted in names for name in BASIC.get(wanted, (wanted,))}
    by_layer, by_stream = {}, {}
    for name in sorted(basic):
        by_layer[name], by_stream[name] = _sample_basic(model, priors, name, layer, num_layers)
    layers, streams = constrained(by_layer), constrained(by_stream)
    for name in names:
        numpyro.deterministic(name, layers[name])
        if varies_by_stream(model, name):
            numpyro.deterministic(f"{name}_of_stream", streams[name])
    if "stationary_variance" in names:
        numpyro.deterministic(
            "shrink", exact_shrink(layers["drift_scale"], layers["stationary_variance"])
        )
    return {name: streams[name] for name in names}


# A static number has no move; the pair of the process comes from two others.
BASIC = {
    "drift_scale": ("process_deviation",),
    "stationary_variance": ("process_deviation", "relaxation_time"),
}


def _sample_basic(
    model: Model, priors: Priors, name: str, layer: Array, num_layers: int
) -> tuple[Array, Array]:
    """One unconstrained number, by layer and by stream."""
    centre, deviation = getattr(priors, name)
    zeros = jnp.zeros((num_layers,), jnp.result_type(centre))
    raw = numpyro.sample(f"{name}_raw", dist.Normal(zeros, 1.0).to_event(1))
    offset = deviation * raw
    if not varies_by_stream(model, name):
        by_layer = centre + offset
        return by_layer, by_layer[layer]
    # The mean of a normal spread is a place in the data's units; of the others, a factor.
    unit = deviation if name == "towards" else 1.0
    # Not half-normal: streams of one layer are never all alike, and a spread that may be 0 makes
    # a funnel of the hierarchy, in which a sampler's chains get stuck.
    away = numpyro.sample(f"{name}_away", dist.Normal(zeros, BETWEEN_DEVIATION).to_event(1))
    between = priors.between * jnp.exp(away)
    numpyro.deterministic(f"{name}_between", between)
    centred = CENTRED.get(name, 0.0)
    spread = between[layer]
    middle = (offset / unit)[layer]
    around = numpyro.sample(
        f"{name}_around", dist.Normal(centred * middle, spread**centred).to_event(1)
    )
    own = middle + spread ** (1 - centred) * (around - centred * middle)
    return centre + offset, centre[layer] + unit * own


def constrained(basic: dict[str, Array]) -> Numbers:
    """A model's numbers out of unconstrained ones."""
    numbers = {
        name: jnp.exp(basic[name])
        for name in (
            "noise_ratio",
            "measurement_variance",
            "initial_variance",
            "penalty",
            "velocity_drift_scale",
        )
        if name in basic
    }
    if "towards" in basic:
        numbers["towards"] = basic["towards"]
    if "velocity_shrink" in basic:
        numbers["velocity_shrink"] = jax.nn.sigmoid(basic["velocity_shrink"])
    if "degrees_of_freedom" in basic:
        numbers["degrees_of_freedom"] = 2 + jnp.exp(basic["degrees_of_freedom"])
    if "relaxation_time" in basic:
        deviation, rate = jnp.exp(basic["process_deviation"]), jnp.exp(-basic["relaxation_time"])
        numbers["drift_scale"] = deviation * drift_over_move(rate)
        numbers["stationary_variance"] = deviation**2 / -jnp.expm1(-2 * rate)
    elif "process_deviation" in basic:
        numbers["drift_scale"] = jnp.exp(basic["process_deviation"])
    return numbers


def drift_over_move(decay: Array) -> Array:
    """Drift scale over the deviation of one exact move, η/√q = √(2d/(1 - exp(-2d))) [INF-3]."""
    return jnp.sqrt(2 * decay / -jnp.expm1(-2 * decay))
