"""What to calibrate: any NumPyro model, and our state-space models under priors of fixed numbers.

A calibration needs a prior that knows no data, streams long enough to say something, and a
simulator that shares nothing with the likelihood: `draw_streams` walks the latent path, the
likelihood filters.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.handlers as handlers
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.util import compute_log_probs, constrain_fn, potential_energy, unconstrain_fn

from bayesfilt.checks import require_at_least, require_one_of, require_positive
from bayesfilt.infer.calibration import (
    Calibration,
    CalibrationProblem,
    Position,
    Scalar,
    calibrate,
)
from bayesfilt.infer.draw import draw_streams
from bayesfilt.infer.likelihood import step_log_densities
from bayesfilt.infer.models import model_function, numbers_of, sample_numbers
from bayesfilt.infer.priors import Priors, Spread
from bayesfilt.infer.state_space import Model, Numbers, parameter_names
from bayesfilt.infer.streams import KINDS, Streams, gradient_streams, optimum_streams

Sites = dict[str, Float[Array, "..."]]
LEAST_RELAXATION_TIMES = 5.0  # in the window; below about three σ² is hardly identified


def numpyro_problem(
    model: Callable[[Any, Any], None],
    *,
    data_sites: tuple[str, ...] = (),
    simulate: Callable[[PRNGKeyArray, Sites, Any], Any] | None = None,
    quantities: Callable[[Sites, Any, Any], Sites] | None = None,
) -> CalibrationProblem:
    """Calibration of any NumPyro model with continuous parameters.

    Args:
        model: called as `model(data, given)`. With a data set it conditions on it; what its
            observed sites and factors score is the log likelihood. With data=None it only has to
            draw its parameters (and, for `data_sites`, the data).
        data_sites: names of the sample sites that are the data; a data set is then a dict of
            their values, drawn from the model itself.
        simulate: in their place, a simulator of (key, sites, given) that shares no code with
            the likelihood; `sites` holds parameters and deterministic sites.
        quantities: of (sites, data, given): what is ranked; all sites by default.

    Raises:
        ValueError: neither or both of `data_sites` and `simulate`; when it runs, a parameter
            that is discrete.
    """
    if bool(data_sites) == (simulate is not None):
        raise ValueError(
            f"numpyro_problem needs either data_sites or simulate, got data_sites={data_sites} "
            f"and simulate={simulate}."
        )

    def draw_truth(key: PRNGKeyArray, given: Any) -> Position:
        seeded = handlers.seed(model, key)
        drawn = {}
        for name, site in handlers.trace(seeded).get_trace(None, given).items():
            if site["type"] == "sample" and not site["is_observed"] and name not in data_sites:
                if site["fn"].support.is_discrete:
                    raise ValueError(f"Calibration needs continuous parameters, got {name!r}.")
                drawn[name] = site["value"]
        return unconstrain_fn(seeded, (None, given), {}, drawn)

    def sites_of(position: Position, data: Any, given: Any, key: PRNGKeyArray | None = None):
        whole = model if key is None else handlers.seed(model, key)
        return constrain_fn(whole, (data, given), {}, position, return_deterministic=True)

    def draw_data(key: PRNGKeyArray, position: Position, given: Any) -> Any:
        sites = sites_of(position, None, given, key)  # the key is for data sites alone
        if simulate is not None:
            return simulate(key, sites, given)
        told = handlers.substitute(handlers.seed(model, key), data=sites)
        traced = handlers.trace(told).get_trace(None, given)
        return {name: traced[name]["value"] for name in data_sites}

    def log_joint(position: Position, data: Any, given: Any) -> Scalar:
        return -jnp.asarray(potential_energy(model, (data, given), {}, position))

    def log_likelihood(position: Position, data: Any, given: Any) -> Scalar:
        parameters = constrain_fn(model, (data, given), {}, position)
        terms, traced = compute_log_probs(model, (data, given), {}, parameters)
        seen = [term for name, term in terms.items() if traced[name]["is_observed"]]
        return jnp.sum(jnp.stack(seen)) if seen else jnp.zeros(())

    def ranked(position: Position, data: Any, given: Any) -> Sites:
        sites = sites_of(position, data, given)
        return sites if quantities is None else quantities(sites, data, given)

    return CalibrationProblem(
        draw_truth=draw_truth,
        simulate=draw_data,
        log_joint=log_joint,
        log_likelihood=log_likelihood,
        quantities=ranked,
    )


class Given(NamedTuple):
    """What all simulations of a state-space model share."""

    design: Streams  # its observations are not looked at
    priors: Priors
    extra: Any = None  # handed on to another likelihood


# Model, numbers, streams, extra: log density of every step given the earlier ones.
StepDensities = Callable[[Model, Numbers, Streams, Any], Float[Array, "streams steps"]]


@functools.cache
def model_problem(model: Model, step_densities: StepDensities | None = None) -> CalibrationProblem:
    """Calibration of one of our models; `given` is a `Given`.

    Ranked: every number of every layer (the log of a positive one) and of every stream that has its
    own, the log of the shrink, the log likelihood, and the log density of each stream's first
    valid observation, summed, which alone sees much of what is believed at the start.

    Args:
        model: which draws the data, too.
        step_densities: another likelihood of the same numbers to fit with, such as one with a
            mistake; None for the model's own.
    """
    own = model_function(model)

    def densities(numbers: Numbers, streams: Streams, given: Given) -> Array:
        if step_densities is None:
            return step_log_densities(model, numbers, streams)
        return step_densities(model, numbers, streams, given.extra)

    def conditioned(data: Streams | None, given: Given) -> None:
        streams = given.design if data is None else data
        if step_densities is None:
            own(streams, given.priors)
            return
        layers = len(streams.layer_names)
        numbers = sample_numbers(model, given.priors, streams.layer, layers, streams.kind)
        numpyro.factor("log_likelihood", jnp.sum(densities(numbers, streams, given)))

    def simulate(key: PRNGKeyArray, sites: Sites, given: Given) -> Streams:
        return draw_streams(key, model, numbers_of(model, sites, given.design), given.design)

    def quantities(sites: Sites, data: Streams, given: Given) -> Sites:
        terms = densities(numbers_of(model, sites, data), data, given)
        first = jnp.argmax(data.valid, axis=1)
        of_first = jnp.take_along_axis(terms, first[:, None], axis=1)
        return _logs_of(model, sites, data.kind) | {"log_density_of_first": jnp.sum(of_first)}

    return numpyro_problem(conditioned, simulate=simulate, quantities=quantities)


def _logs_of(model: Model, sites: Sites, kind: str) -> Sites:
    """Every number a model reports, the positive ones as logs."""
    names = parameter_names(model, kind)
    names += (*(f"{name}_of_stream" for name in names), "shrink")
    found = {name: sites[name] for name in names if name in sites}
    return {
        name if name.startswith("towards") else f"log_{name}": (
            value if name.startswith("towards") else jnp.log(value)
        )
        for name, value in found.items()
    }


def calibration_design(
    key: PRNGKeyArray,
    kind: str = "gradient",
    *,
    num_streams: int = 8,
    num_steps: int = 100,
    precision: float = 3.0,
    missing: float = 0.0,
) -> Streams:
    """Where and how precisely the streams of a calibration are looked at.

    Precisions differ from step to step by a factor e or so and places by about a weight, so that
    a likelihood which takes the wrong step's cannot pass.

    Args:
        key: of the precisions, places and missing steps.
        kind: "gradient" or "optimum".
        num_streams: rows.
        num_steps: columns; `calibration_priors` needs the same number.
        precision: middle of the gradients' curvature, in units of 1/σ² at the prior's middle.
        missing: fraction of the steps that are not valid.
    """
    require_one_of("calibration_design", "kind", kind, KINDS)
    require_at_least("calibration_design", "num_streams", num_streams, 1)
    require_at_least("calibration_design", "num_steps", num_steps, 2)
    require_positive("calibration_design", "precision", precision)
    shape = (num_streams, num_steps)
    precision_key, place_key, valid_key = jax.random.split(key, 3)
    valid = jax.random.uniform(valid_key, shape) >= missing
    if kind == "optimum":
        return optimum_streams(jnp.zeros(shape), valid=valid)
    return gradient_streams(
        jnp.zeros(shape),
        precision * jnp.exp(0.7 * jax.random.normal(precision_key, shape)),
        jax.random.normal(place_key, shape),
        valid=valid,
    )


def calibration_priors(design: Streams, *, spread: float = 0.5) -> Priors:
    """Priors of fixed numbers for `calibration_design`, in weights of about one.

    The relaxation time is at most a fifth of the window but for one draw in 700 (three
    deviations): in shorter windows nothing speaks of the stationary variance, ranks are uniform
    whatever the likelihood does, and a calibration proves nothing.

    Args:
        design: for its number of steps and layers, and its type.
        spread: prior deviation of the logs of process deviation, relaxation time and noise.
    """
    require_positive("calibration_priors", "spread", spread)
    steps, layers = design.observed.shape[1], len(design.layer_names)
    dtype = design.observed.dtype
    relaxation_time = math.log(steps / LEAST_RELAXATION_TIMES) - 3 * spread
    move = 0.5 * math.log(-math.expm1(-2 * math.exp(-relaxation_time)))  # so that σ² is about 1

    def around(centre: float, deviation: float) -> Spread:
        return Spread(
            centre=jnp.full(layers, centre, dtype), deviation=jnp.asarray(deviation, dtype)
        )

    return Priors(
        process_deviation=around(move, spread),
        relaxation_time=around(relaxation_time, spread),
        noise_ratio=around(0.0, spread),
        measurement_variance=around(math.log(0.3), spread),
        initial_variance=around(0.0, spread),
        penalty=around(math.log(0.1), spread),
        towards=around(0.0, 1.0),
        velocity_shrink=around(-1.0, spread),
        velocity_drift_scale=around(move - 1.5, spread),
        degrees_of_freedom=around(math.log(4.0), spread),
        between=jnp.asarray(0.3, dtype),
    )


def coverage_study(
    key: PRNGKeyArray,
    model: Model,
    design: Streams | None = None,
    *,
    spread: float = 0.5,
    **settings: Any,
) -> Calibration:
    """Calibrate one of our models on data of its own: do 90 % intervals hold the truth 90 % of it?

    Args:
        key: of the design, if there is none, and of all simulations.
        model: any of `MODELS` that its streams' kind has.
        design: by default 8 gradient streams of 100 steps.
        spread: of the priors; see `calibration_priors`.
        settings: of `calibrate`: num_simulations (500), simulations_at_once, chain, progress.
    """
    design_key, key = jax.random.split(key)
    design = calibration_design(design_key) if design is None else design
    given = Given(design=design, priors=calibration_priors(design, spread=spread))
    return calibrate(key, model_problem(model), given, **settings)
