"""Does data drawn from the fitted model look like the data: replicates, and calibration.

`replicate_checks` draws whole new streams at draws of the posterior and asks where the data stand
among them: how fast the observations forget (autocorrelation), how they move (scale and
kurtosis of the increments), and whether the model's own surprises are white. Streams of
gradients are redrawn at the recorded weights: the run that would have answered other gradients
with other weights is not simulated.

`calibration_checks` asks whether one-step predictions are as wide as the misses: the mean
normalised innovation squared is 1 and the probability integral transforms are uniform. On steps
that the fit has seen both are flattered, since the variances were chosen for them; the checks
say which steps they used.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from bayesfilt.checks import require_at_least
from bayesfilt.infer.comparison import standard_error_of_sum
from bayesfilt.infer.draw import draw_streams
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.likelihood import predictions, seen_steps
from bayesfilt.infer.models import Model, Numbers, numbers_of
from bayesfilt.infer.predictive_scores import posterior_draws, steps_fitted, steps_from
from bayesfilt.infer.streams import Streams

LAGS = (1, 2, 5)
_REPLICATES_AT_ONCE = 10


class ReplicateCheck(NamedTuple):
    """Where a number of the data stands among the same number of replicated data."""

    name: str
    layer: str
    observed: float  # median over draws where the number depends on the parameters
    replicated: float  # median of the replicates
    low: float  # 90 % interval of the replicates
    high: float
    num_at_least: int  # replicates whose number is at least that of the data
    num_replicates: int

    @property
    def p_value(self) -> float:
        """Two-sided: 2 (n + 1)/(N + 1) for the n replicates further out; never 0."""
        further = min(self.num_at_least, self.num_replicates - self.num_at_least)
        return min(1.0, 2 * (further + 1) / (self.num_replicates + 1))


class CalibrationCheck(NamedTuple):
    """Whether one-step predictions of a layer are as wide as their misses."""

    layer: str
    nis: float  # mean normalised innovation squared; 1 if calibrated
    nis_standard_error: float
    uniformity_p_value: float  # of the probability integral transforms
    num_steps: int  # observations used
    held_out: bool  # whether the fit had not seen them


def replicate_checks(
    key: PRNGKeyArray, fit: Fit, streams: Streams, *, num_replicates: int = 200
) -> tuple[ReplicateCheck, ...]:
    """Draw data at draws of the posterior and compare a few numbers with the data's.

    Numbers are taken stream by stream and averaged over the streams of a layer. Those of the
    innovations depend on the parameters and are compared draw by draw.

    Args:
        key: of the replicates.
        fit: whose model is checked.
        streams: the data it was fitted to; their valid steps, precisions and weights are those of
            the replicates.
        num_replicates: data sets drawn, one a draw of the posterior.

    Raises:
        ValueError: fewer replicates than 20, which could not show a surprise.
    """
    owner = "replicate_checks"
    require_at_least(owner, "num_replicates", num_replicates, 20)
    draws = posterior_draws(fit, num_replicates)
    number = len(next(iter(draws.values())))
    if number < num_replicates:
        raise ValueError(f"{owner} needs num_replicates <= {number} draws, got {num_replicates}.")
    keys = jax.random.split(key, number)
    both = np.asarray(_both(fit.model, keys, draws, streams))
    observed, replicated = both[:, 0], both[:, 1]
    rows = []
    layer = np.asarray(streams.layer)
    for index, layer_name in enumerate(streams.layer_names):
        inside = layer == index
        for which, name in enumerate(STATISTICS):
            ours = observed[:, which, inside].mean(axis=1)
            theirs = replicated[:, which, inside].mean(axis=1)
            low, middle, high = np.quantile(theirs, [0.05, 0.5, 0.95])
            rows.append(
                ReplicateCheck(
                    name=name,
                    layer=layer_name,
                    observed=float(np.median(ours)),
                    replicated=float(middle),
                    low=float(low),
                    high=float(high),
                    num_at_least=int((theirs >= ours).sum()),
                    num_replicates=number,
                )
            )
    return tuple(rows)


def calibration_checks(
    fit: Fit, streams: Streams, *, max_draws: int = 100, num_blocks: int = 10
) -> tuple[CalibrationCheck, ...]:
    """Mean normalised innovation squared and uniformity of the one-step predictions, by layer.

    Args:
        fit: to the first part of `streams`, and then only the rest is used, or to all of them.
        streams: what is foretold.
        max_draws: of the posterior, over which a prediction is averaged.
        num_blocks: of steps, for the standard error.
    """
    draws = posterior_draws(fit, max_draws)
    nis, transform = (np.asarray(x) for x in _calibration(fit.model, draws, streams))
    num_fitted = steps_fitted(fit)
    held_out = num_fitted < streams.valid.shape[1]
    used = steps_from(streams, num_fitted if held_out else 0)
    rows = []
    layer = np.asarray(streams.layer)
    for index, layer_name in enumerate(streams.layer_names):
        mine = used[layer == index]
        surprise = np.where(mine, nis[layer == index], 0.0)
        number = int(mine.sum())
        rows.append(
            CalibrationCheck(
                layer=layer_name,
                nis=float(surprise.sum() / number) if number else float("nan"),
                nis_standard_error=standard_error_of_sum(surprise, mine, num_blocks) / number
                if number
                else float("nan"),
                uniformity_p_value=uniformity_p_value(transform[layer == index][mine]),
                num_steps=number,
                held_out=held_out,
            )
        )
    return tuple(rows)


def uniformity_p_value(values: Float[np.ndarray, " observations"]) -> float:
    """Test that independent numbers in [0, 1] are uniform (ArviZ's pointwise order test)."""
    import arviz  # noqa: F401, registers `azstats`
    import xarray

    if not values.size:
        return float("nan")
    array = xarray.DataArray(values, dims="observation")
    return float(array.azstats.uniformity_test(dim="observation")[0])


def autocorrelation(
    values: Float[Array, "streams steps"], valid: Bool[Array, "streams steps"], lag: int
) -> Float[Array, " streams"]:
    r"""Autocorrelation of each stream about its own mean, $\sum x_t x_{t+k} / \sum x_t^2$ [PPC-1].

    The products run over pairs that are both valid, and are averages: gaps do not shrink it.
    """
    centred = _centred(values, valid)
    pairs = valid[:, lag:] & valid[:, :-lag]
    products = jnp.where(pairs, centred[:, lag:] * centred[:, :-lag], 0).sum(axis=1)
    return (products / pairs.sum(axis=1)) / _mean(centred**2, valid)


def _statistics(
    model: Model, numbers: Numbers, streams: Streams
) -> Float[Array, "statistics streams"]:
    """Every number of `STATISTICS`, of each stream."""
    seen = seen_steps(streams)
    values = jnp.where(seen, streams.observed, 0)
    moved = values[:, 1:] - values[:, :-1]
    both = seen[:, 1:] & seen[:, :-1]
    mean_square = _mean(moved**2, both)
    innovations = _innovations(model, numbers, streams)
    return jnp.stack(
        [
            *(autocorrelation(values, seen, lag) for lag in LAGS),
            jnp.sqrt(mean_square),
            _mean(moved**4, both) / mean_square**2,
            autocorrelation(innovations, seen, 1),
            _mean(innovations**2, seen),
        ]
    )


STATISTICS = (
    *(f"autocorrelation at lag {lag}" for lag in LAGS),
    "increments' root mean square",
    "increments' kurtosis",
    "innovations' autocorrelation at lag 1",
    "normalised innovation squared",
)


def _innovations(model: Model, numbers: Numbers, streams: Streams) -> Float[Array, "streams steps"]:
    """Misses of the one-step predictions over their standard deviations; 0 where not valid."""
    seen = seen_steps(streams)
    mean, variance = predictions(model, numbers, streams)
    miss = jnp.where(seen, streams.observed - mean, 0)
    return miss / jnp.sqrt(jnp.where(seen, variance, 1))


@functools.partial(jax.jit, static_argnums=0)
def _both(
    model: Model, keys: PRNGKeyArray, draws: dict[str, Array], streams: Streams
) -> Float[Array, "draws 2 statistics streams"]:
    """The numbers of the data and of one replicate, at each draw."""

    def at_draw(one):
        key, draw = one
        numbers = numbers_of(model, draw, streams)
        drawn = draw_streams(key, model, numbers, streams)

        def numbers_found(observed):
            return _statistics(model, numbers, dataclasses.replace(streams, observed=observed))

        # Side by side: the filter is compiled once for both.
        return jax.vmap(numbers_found)(jnp.stack([streams.observed, drawn.observed]))

    return jax.lax.map(at_draw, (keys, draws), batch_size=_REPLICATES_AT_ONCE)


@functools.partial(jax.jit, static_argnums=0)
def _calibration(model: Model, draws: dict[str, Array], streams: Streams):
    """Innovation squared and probability integral transform, averaged over draws."""

    def at_draw(total, draw):
        numbers = numbers_of(model, draw, streams)
        innovation = _innovations(model, numbers, streams)
        below = _probability_below(model, numbers, innovation)
        return (total[0] + innovation**2, total[1] + below), None

    zeros = jnp.zeros(streams.valid.shape)
    (square, below), _ = jax.lax.scan(at_draw, (zeros, zeros), draws)
    number = len(next(iter(draws.values())))
    return square / number, below / number


def _probability_below(model: Model, numbers: Numbers, innovation: Float[Array, "streams steps"]):
    """Distribution function of innovations that have a variance of 1."""
    if model.tails == "gaussian":
        return jax.scipy.stats.norm.cdf(innovation)
    nu = numbers["degrees_of_freedom"][:, None]
    return dist.StudentT(nu).cdf(innovation * jnp.sqrt(nu / (nu - 2)))


def _mean(values: Float[Array, "streams n"], valid: Bool[Array, "streams n"]):
    return jnp.where(valid, values, 0).sum(axis=1) / valid.sum(axis=1)


def _centred(values: Float[Array, "streams n"], valid: Bool[Array, "streams n"]):
    return jnp.where(valid, values - _mean(values, valid)[:, None], 0)
