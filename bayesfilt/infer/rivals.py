"""Rivals on data whose truth is known: does the comparison find it?

Data are drawn from each transition in turn, every rival is fitted to the first steps and foretells
the rest. A rival that does not contain the truth should be refuted, one that
contains it should not be, and the simplest of those should be preferred: the truth.

The sizes decide whether that can be seen at all. A shrink shows only over several relaxation
times; "l2" differs from a constant shrink only where some weights are seen better than others,
because its shrink follows the posterior variance. And a random walk is a special case of the
Ornstein-Uhlenbeck process only where it starts as widely spread as that process would be at rest:
from a narrow start, the process is refuted by where it begins. The design here has all three.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import optax
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer.util import constrain_fn, potential_energy

from bayesfilt.checks import require_at_least, require_one_of
from bayesfilt.infer.comparison import Comparison, Rival, compare_models, compare_scores
from bayesfilt.infer.draw import draw_streams
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.models import (
    MODELS,
    Model,
    Numbers,
    model_function,
    model_named,
    numbers_of,
    parameter_names,
)
from bayesfilt.infer.predictive_scores import first_steps, sequential_log_predictive
from bayesfilt.infer.priors import Priors, priors_for
from bayesfilt.infer.streams import Streams, gradient_streams

# Truths that a rival can imitate, besides itself, at numbers that its priors allow.
SPECIAL_CASES: Mapping[str, frozenset[str]] = {
    "static": frozenset(),
    "random_walk": frozenset({"static"}),
    "ornstein_uhlenbeck": frozenset({"random_walk"}),
    "shrinking_walk": frozenset({"random_walk", "ornstein_uhlenbeck"}),
    "l2": frozenset({"static", "random_walk"}),
    "velocity": frozenset({"random_walk", "ornstein_uhlenbeck"}),
    "nonzero_mean": frozenset({"random_walk", "ornstein_uhlenbeck"}),
}
# An optimum at rest is the limit of these at a relaxation time without end, which the prior of the
# relaxation time all but excludes: nothing is claimed of how they fare there.
ONLY_IN_THE_LIMIT = {("ornstein_uhlenbeck", "static"), ("velocity", "static")}
ONLY_IN_THE_LIMIT |= {("nonzero_mean", "static"), ("shrinking_walk", "static")}


class MatchedDesign(NamedTuple):
    """Sizes and true numbers; the drift scale is 1, which is the unit of a weight."""

    num_streams: int = 48
    num_fitted: int = 600  # steps
    num_foretold: int = 200  # steps after those
    relaxation_time: float = 40.0  # steps, 1 / decay per step
    wide_start: float = 4000.0  # initial variance of the two walks, see above
    lowest_precision: float = 0.1  # of a gradient, 1/weight^2: spread over the streams ...
    highest_precision: float = 10.0  # ... evenly in its logarithm
    penalty: float = 0.05  # of the "l2" truth, 1/weight^2
    velocity_shrink: float = 0.1
    velocity_drift_scale: float = 0.3
    towards: float = 10.0  # of the "nonzero_mean" truth


class MatchedRivals(NamedTuple):
    """What became of the rivals on data of one truth."""

    truth: str
    comparison: Comparison

    @property
    def surprises(self) -> tuple[str, ...]:
        """What should not be, in words; empty where the truth was found."""
        found = []
        for row in self.comparison.of_layer():
            holds_truth = contains(row.name, self.truth)
            if row.failures:
                found.append(f"{row.name} was not ranked: {row.failures[0]}")
            elif (row.name, self.truth) in ONLY_IN_THE_LIMIT:
                continue
            elif holds_truth and row.verdict == "refuted":
                found.append(f"{row.name} contains {self.truth} and was refuted{_by(row)}")
            elif not holds_truth and row.verdict != "refuted":
                found.append(f"{row.name} does not contain {self.truth} and stands{_by(row)}")
        preferred = self.comparison.preferred()
        if preferred != self.truth:
            found.append(f"{preferred} was preferred to {self.truth}")
        return tuple(found)


def contains(rival: str, truth: str) -> bool:
    """Whether a transition can imitate another one exactly or in a limit."""
    return rival == truth or truth in SPECIAL_CASES[rival]


def rivals_on_matched_data(
    key: PRNGKeyArray,
    truth: str,
    *,
    rivals: tuple[str, ...] = tuple(MODELS),
    design: MatchedDesign | None = None,
    fit_one: Callable[[PRNGKeyArray, Model, Streams], Fit] | None = None,
) -> MatchedRivals:
    """Draw gradient streams from one transition, and let the rivals foretell their last steps.

    Args:
        key: of the data and the fits.
        truth: name of the transition the data come from.
        rivals: names of the transitions that are compared.
        design: sizes and true numbers.
        fit_one: draws of a posterior, scored by their mean density; None for the posterior mode,
            which is quicker and, at these sizes, hardly another number.

    Raises:
        ValueError: an unknown transition, or a design too small to fit or to foretell.
    """
    owner = "rivals_on_matched_data"
    design = MatchedDesign() if design is None else design
    for name in (truth, *rivals):
        require_one_of(owner, "transition", name, MODELS)
    require_at_least(owner, "num_streams", design.num_streams, 1)
    require_at_least(owner, "num_fitted", design.num_fitted, 8)
    require_at_least(owner, "num_foretold", design.num_foretold, 2)
    data_key, fit_key = jax.random.split(key)
    streams = matched_streams(data_key, truth, design)
    training = first_steps(streams, design.num_fitted)
    models = {name: model_named(name, noise="matched") for name in rivals}
    if fit_one is not None:
        keys = jax.random.split(fit_key, len(models))
        pairs = zip(keys, models.items(), strict=True)
        fits = {name: fit_one(one, model, training) for one, (name, model) in pairs}
        comparison = compare_models(fits, streams)
    else:
        priors = priors_for(training)
        scores = {}
        for name, model in models.items():
            numbers = posterior_mode(model, training, priors)
            scores[name] = sequential_log_predictive(
                model, numbers, streams, burn_in=design.num_fitted
            )
        comparison = compare_scores(scores)
    return MatchedRivals(truth=truth, comparison=comparison)


def matched_streams(key: PRNGKeyArray, truth: str, design: MatchedDesign) -> Streams:
    """Gradient streams, taken at 0, of one transition."""
    shape = (design.num_streams, design.num_fitted + design.num_foretold)
    precision = jnp.geomspace(design.lowest_precision, design.highest_precision, shape[0])
    blank = gradient_streams(jnp.zeros(shape), precision[:, None], 0.0)
    stationary_variance = design.relaxation_time / 2  # at drift scale 1
    numbers = {
        "drift_scale": 1.0,
        "stationary_variance": stationary_variance,
        "initial_variance": design.wide_start if truth.endswith("walk") else stationary_variance,
        "penalty": design.penalty,
        "velocity_shrink": design.velocity_shrink,
        "velocity_drift_scale": design.velocity_drift_scale,
        "towards": design.towards,
    }
    model = model_named(truth, noise="matched")
    per_stream = {name: jnp.full(shape[0], numbers[name]) for name in parameter_names(model)}
    return draw_streams(key, model, per_stream, blank)


def posterior_mode(
    model: Model, streams: Streams, priors: Priors, *, num_iterations: int = 60
) -> Numbers:
    """Most probable numbers, in the unconstrained coordinates that are sampled (L-BFGS)."""
    return _posterior_mode(model, streams, priors, num_iterations)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _posterior_mode(model: Model, streams: Streams, priors: Priors, num_iterations: int) -> Numbers:
    density = model_function(model)
    arguments = (streams, priors)

    def loss(sites: dict[str, Array]) -> Array:
        return jnp.asarray(potential_energy(density, arguments, {}, sites))

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        sites, state = carry
        value, gradient = value_and_grad(sites, state=state)
        updates, state = optimizer.update(
            gradient, state, sites, value=value, grad=gradient, value_fn=loss
        )
        return (optax.apply_updates(sites, updates), state), value

    start = _centre_of_the_prior(density, arguments)
    (sites, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=num_iterations)
    draw = constrain_fn(density, arguments, {}, sites, return_deterministic=True)
    return numbers_of(model, draw, streams)


def _centre_of_the_prior(density, arguments) -> dict[str, Array]:
    """Unconstrained sites at 0, which is where the priors have their middle."""
    seeded = numpyro.handlers.seed(density, jax.random.key(0))
    trace = numpyro.handlers.trace(seeded).get_trace(*arguments)
    return {
        name: jnp.zeros_like(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def _by(row: Rival) -> str:
    return f" ({row.difference:.1f} nats, standard error {row.standard_error:.1f})"
