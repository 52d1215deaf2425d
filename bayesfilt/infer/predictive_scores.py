"""How well a model foretells what it was not fitted to: log predictive densities.

The observations of a stream depend on one another, so a step must never be left out of the
middle: the filter would have seen its neighbours. What is left out here is the future, or a
whole stream. Which score applies when:

* `sequential_log_predictive`: the numbers are known or fixed beforehand. The sum of one-step
  densities is then exact leave-future-out, nothing is approximated.
* `held_out_log_predictive`: the default. The model was fitted to the first part of the streams;
  the rest is foretold one step ahead with the posterior of the first part. No approximation but
  the number of draws; the parameters learn nothing more from the rest.
* `leave_future_out` (its own file): the posterior also learns from the rest, by importance
  weights, and is fitted again where they fail. The best use of short streams; several fits.
* `leave_stream_out`: foretells a weight of the layer that was never seen, from one fit to
  everything. Only where the streams of a layer share their numbers (pooling "layer"), and
  only for layers of several streams: of a lone stream's layer just the prior is left.

A score is in nats and of the observed quantity, so that a change of its unit shifts every
model's alike.
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bayesfilt.checks import require_at_least
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.likelihood import seen_steps, step_log_densities
from bayesfilt.infer.models import Model, Numbers, numbers_of
from bayesfilt.infer.posterior_tree import streams_of
from bayesfilt.infer.streams import Streams

# Draws that go through the filter side by side: wide enough to amortise a step of the scan.
_DRAWS_AT_ONCE = 20

_NO_WEIGHTS = ("All tail values are the same", "n_draws_tail must be at least 5")  # ArviZ's words

_BY_LAYER = {"chain", "draw", "layer"}


class LogPredictive(NamedTuple):
    """What one model gave for each observation that was scored.

    A unit is a stream, or all streams together where the score is of whole steps. `density` is
    the log density in nats, 0 where nothing was scored.
    """

    model: Model
    method: str
    density: Float[np.ndarray, "units steps"]
    scored: Bool[np.ndarray, "units steps"]
    layer: Int[np.ndarray, " units"]
    layer_names: tuple[str, ...]
    pareto_k: Float[np.ndarray, " importance_weights"]  # empty where none were needed
    failures: tuple[str, ...]  # gates of the fit, and importance weights that cannot be trusted


def first_steps(streams: Streams, num_steps: int) -> Streams:
    """Cut the streams after `num_steps`: what a model that is to foretell the rest is fitted to."""
    _require_inside("first_steps", num_steps, streams.valid.shape[1])
    return Streams(
        observed=streams.observed[:, :num_steps],
        precision=streams.precision[:, :num_steps],
        taken_at=streams.taken_at[:, :num_steps],
        valid=streams.valid[:, :num_steps],
        layer=streams.layer,
        kind=streams.kind,
        layer_names=streams.layer_names,
    )


def hidden_after(streams: Streams, num_steps: int) -> Streams:
    """Streams of the same shape, so that nothing compiles again, with NaN after `num_steps`."""
    _require_inside("hidden_after", num_steps, streams.valid.shape[1])
    seen = jnp.arange(streams.valid.shape[1]) < num_steps
    return Streams(
        observed=jnp.where(seen, streams.observed, jnp.nan),
        precision=streams.precision,
        taken_at=streams.taken_at,
        valid=streams.valid & seen,
        layer=streams.layer,
        kind=streams.kind,
        layer_names=streams.layer_names,
    )


def sequential_log_predictive(
    model: Model, numbers: Numbers, streams: Streams, *, burn_in: int = 0
) -> LogPredictive:
    """Sum over steps of log p(y_t | y_<t), at numbers that are fixed: exact leave-future-out.

    Args:
        model: what foretells.
        numbers: a value of every parameter for each stream, known or found without the steps
            that are scored. At numbers fitted to these very steps this is no prediction.
        streams: what is foretold.
        burn_in: steps at the beginning that the filter sees and that do not count.

    Raises:
        ValueError: a burn-in that leaves no step.
    """
    require_at_least("sequential_log_predictive", "burn_in", burn_in, 0)
    num_steps = streams.valid.shape[1]
    if burn_in >= num_steps:
        raise ValueError(
            f"sequential_log_predictive needs burn_in below {num_steps} steps, got {burn_in}."
        )
    density = _densities(model, numbers, streams)
    return _score_of_streams(
        model, "fixed numbers", density, steps_from(streams, burn_in), streams, failures=()
    )


def held_out_log_predictive(fit: Fit, streams: Streams, *, max_draws: int = 400) -> LogPredictive:
    r"""Score the steps a fit has not seen, $\log \frac1S \sum_s p(y_t | y_{<t}, θ_s)$ [LPD-1].

    Each step is foretold from all steps before it, the held-out ones included, but the
    parameters are those of the fit: draws θ_s of the posterior of the first part.

    Args:
        fit: to `first_steps(streams, n)` or `hidden_after(streams, n)`.
        streams: the whole of them.
        max_draws: of the posterior, spread evenly over it.

    Raises:
        ValueError: a fit that has seen every step, or other streams.
    """
    owner = "held_out_log_predictive"
    num_seen = _steps_before_the_rest(owner, fit, streams)
    draws = posterior_draws(fit, max_draws)
    density = _log_mean_density(fit.model, draws, streams)
    return _score_of_streams(
        fit.model, "held out", density, steps_from(streams, num_seen), streams, fit.gates.failures
    )


def leave_stream_out(fit: Fit) -> LogPredictive:
    """Foretell each stream from the others by importance weights (PSIS, from ArviZ).

    Streams of a layer are exchangeable given its numbers; that is what makes this a prediction.
    Steps within a stream are not, so no step is ever left out alone. Of the posterior, the
    draws that `fit` kept the log likelihood of are used.

    Raises:
        ValueError: a model whose streams have their own numbers: without its stream such a
            number falls back to the layer's, and importance weights cannot reach that far.
    """
    if fit.model.pooling != "layer":
        raise ValueError(
            "leave_stream_out needs a model with pooling='layer', got "
            f"pooling={fit.model.pooling!r}: use held_out_log_predictive."
        )
    streams = streams_of(fit.tree)
    by_stream = fit.tree["log_likelihood"]["per_stream"]
    density = np.zeros((by_stream.sizes["stream"], 1))
    pareto_k = np.zeros(len(density))
    layers = np.asarray(streams.layer)
    good_k = 0.7
    for layer in np.unique(layers):
        inside = np.flatnonzero(layers == layer)
        try:
            loo = _loo(tree_for_arviz(fit, by_stream.isel(stream=inside), int(layer)))
        except ValueError as error:
            # Draws that do not move, or too few of them.
            if not any(why in str(error) for why in _NO_WEIGHTS):
                raise
            density[inside], pareto_k[inside] = np.nan, np.inf
            continue
        density[inside, 0], pareto_k[inside] = np.asarray(loo.elpd_i), np.asarray(loo.pareto_k)
        good_k = loo.good_k
    bad = int((pareto_k > good_k).sum())
    failures = fit.gates.failures
    if bad:
        failures += (f"Pareto k above {good_k:.2f} for {bad} of {pareto_k.size} streams",)
    return LogPredictive(
        model=fit.model,
        method="leave stream out",
        density=density,
        scored=np.ones(density.shape, bool),
        layer=layers,
        layer_names=streams.layer_names,
        pareto_k=pareto_k,
        failures=failures,
    )


def posterior_draws(fit: Fit, max_draws: int) -> dict[str, Float[Array, "draws ..."]]:
    """Draws of the posterior, all chains, at most so many, spread evenly."""
    require_at_least("posterior_draws", "max_draws", max_draws, 1)
    draws = all_draws(fit)
    number = len(next(iter(draws.values())))
    kept = np.linspace(0, number - 1, min(max_draws, number)).round().astype(int)
    return {name: values[kept] for name, values in draws.items()}


def steps_fitted(fit: Fit) -> int:
    """Steps up to the last that a fit has seen."""
    seen = np.asarray(streams_of(fit.tree).valid).any(axis=0)
    return int(np.flatnonzero(seen)[-1]) + 1


def all_draws(fit: Fit) -> dict[str, Float[Array, "draws ..."]]:
    """Every draw of the posterior, the chains one after the other."""
    posterior = fit.tree["posterior"]
    draws = {}
    for name, values in posterior.data_vars.items():
        array = np.asarray(values.transpose("chain", "draw", ...))
        draws[str(name)] = jnp.asarray(array.reshape(-1, *array.shape[2:]))
    return draws


@functools.partial(jax.jit, static_argnums=0)
def _densities(model: Model, numbers: Numbers, streams: Streams):
    return step_log_densities(model, numbers, streams)


@functools.partial(jax.jit, static_argnums=0)
def _log_mean_density(
    model: Model, draws: dict[str, Array], streams: Streams
) -> Float[Array, "streams steps"]:
    """Log of the mean over draws of each step's density, without keeping every draw's."""

    def density(draw):
        return step_log_densities(model, numbers_of(model, draw, streams), streams)

    def add(total, some):
        return jnp.logaddexp(total, jax.nn.logsumexp(jax.vmap(density)(some), axis=0)), None

    number = len(next(iter(draws.values())))
    width = min(_DRAWS_AT_ONCE, number)
    used = number - number % width
    chunks = {
        name: values[:used].reshape(-1, width, *values.shape[1:]) for name, values in draws.items()
    }
    nothing = jnp.full(streams.valid.shape, -jnp.inf)
    total, _ = jax.lax.scan(add, nothing, chunks)
    return total - jnp.log(used)


def tree_for_arviz(fit: Fit, log_likelihood, layer: int):
    """What ArviZ needs of one layer: the draws of its numbers, and the log likelihood of units."""
    import xarray

    posterior = fit.tree["posterior"].to_dataset()
    shared = [name for name, values in posterior.items() if set(values.dims) == _BY_LAYER]
    posterior = posterior[shared].isel(layer=layer)
    groups = {"posterior": posterior}
    if log_likelihood is not None:
        groups["posterior"] = posterior.sel(draw=log_likelihood["draw"])
        groups["log_likelihood"] = log_likelihood.to_dataset(name="observed")
    return xarray.DataTree.from_dict(groups)


def _loo(tree) -> Any:
    """PSIS leave-one-out; high Pareto k are data here, and a single stream is no warning."""
    import arviz

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")
        warnings.filterwarnings("ignore", message="The point-wise LOO is the same")
        return arviz.loo(tree, pointwise=True)


def _score_of_streams(
    model: Model,
    method: str,
    density: Float[Array, "streams steps"],
    scored: Bool[np.ndarray, "streams steps"],
    streams: Streams,
    failures: tuple[str, ...],
) -> LogPredictive:
    return LogPredictive(
        model=model,
        method=method,
        density=np.where(scored, np.asarray(density), 0.0),
        scored=scored,
        layer=np.asarray(streams.layer),
        layer_names=streams.layer_names,
        pareto_k=np.zeros(0),
        failures=tuple(failures),
    )


def steps_from(streams: Streams, num_steps: int) -> Bool[np.ndarray, "streams steps"]:
    """Steps that say anything, from `num_steps` on."""
    seen = np.asarray(seen_steps(streams))
    return seen & (np.arange(seen.shape[1]) >= num_steps)


def _steps_before_the_rest(owner: str, fit: Fit, streams: Streams) -> int:
    """How many steps a fit has seen; refuse one of other streams, or one that saw everything."""
    fitted_to = streams_of(fit.tree)
    seen = np.asarray(fitted_to.valid)
    num_steps = np.shape(streams.valid)[1]
    num_seen = steps_fitted(fit)
    if seen.shape[0] != np.shape(streams.valid)[0] or num_seen > num_steps:
        raise ValueError(
            f"{owner} needs the streams whose first part was fitted, got {seen.shape} fitted "
            f"and {np.shape(streams.valid)} to foretell."
        )
    fitted = np.asarray(fitted_to.observed)[:, :num_seen]
    given = np.asarray(streams.observed)[:, :num_seen]
    both = seen[:, :num_seen]
    if not np.array_equal(fitted[both], given[both]):
        raise ValueError(f"{owner} needs the streams whose first part was fitted, got others.")
    if num_seen == num_steps:
        raise ValueError(
            f"{owner} needs a fit to the first part of the streams, got one to all {num_steps} "
            f"steps: its parameters already know what is to be foretold."
        )
    return num_seen


def _require_inside(owner: str, num_steps: int, most: int) -> None:
    require_at_least(owner, "num_steps", num_steps, 1)
    if num_steps > most:
        raise ValueError(f"{owner} needs num_steps <= {most}, got {num_steps}.")
