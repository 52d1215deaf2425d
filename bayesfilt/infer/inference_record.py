"""An inference's numbers with their names: the record that is written, drawn and read again.

Dimensions, units and descriptions are decided here, and nowhere else. The draws themselves stay
in the trees of the fits.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bayesfilt.compare.layers import ALL
from bayesfilt.infer.comparison import Comparison
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.identifiability import Identifiability
from bayesfilt.infer.likelihood import predictions
from bayesfilt.infer.models import numbers_of
from bayesfilt.infer.predictive_checks import CalibrationCheck, ReplicateCheck, autocorrelation
from bayesfilt.infer.predictive_scores import posterior_draws
from bayesfilt.infer.state_space import Model
from bayesfilt.infer.streams import Streams
from bayesfilt.infer.verdict import TRANSITIONS_JUDGED, TransitionVerdict
from bayesfilt.records import Group, Record, variable
from bayesfilt.theory.ornstein_uhlenbeck import decay_per_step

LAGS = 20
_POINTS = 200  # of a density
_PROBABILITIES = 101
_DRAWS = 100  # of a posterior, for the next-step distributions
# 95 % of the largest gaps between an empirical and the true distribution are below this over
# sqrt(n): Kolmogorov.
_KOLMOGOROV = 1.358
_LABELS = {
    "optimum": "coordinate optimum\n(weight)",
    "gradient": "gradient of the summed\nloss (1/weight)",
}


class Findings(NamedTuple):
    """All that an inference found, before it is labelled."""

    streams: Streams  # the whole window
    step: Int[np.ndarray, " steps"]  # of the run, for each column
    weights: tuple[str, ...]  # name of each stream
    fits: Mapping[str, Fit]  # to the whole window
    foretelling: Mapping[str, Fit]  # those that are scored: to its first part, or `fits` again
    comparison: Comparison
    verdicts: tuple[TransitionVerdict, ...]
    calibration: Mapping[str, tuple[CalibrationCheck, ...]]  # of the fits that are scored
    replicates: tuple[ReplicateCheck, ...]  # of the reported model
    learned: Mapping[str, Identifiability]  # of the reported model and the shrinking one
    learning_rate: float | None
    weight_decay: float | None

    @property
    def shrinking(self) -> dict[str, Fit]:
        """The models that have a shrink."""
        return {name: fit for name, fit in self.fits.items() if "shrink" in fit.tree["posterior"]}

    @property
    def tied_to_rate(self) -> Float[np.ndarray, " layers"]:
        """Decay that the theory ties to the learning rate, lr^2/(2 sigma^2), by layer.

        sigma^2 is the median of the inferred stationary variance; NaN where either is not known.
        """
        num_layers = len(self.streams.layer_names)
        if self.learning_rate is None or not self.shrinking:
            return np.full(num_layers, np.nan)
        fits = {fit.model.transition: fit for fit in self.shrinking.values()}
        judged = (fits[name] for name in TRANSITIONS_JUDGED if name in fits)
        fit = next(judged, next(iter(self.shrinking.values())))
        variance = fit.tree["posterior"]["stationary_variance"].transpose("chain", "draw", "layer")
        middle = np.median(variance.values.reshape(-1, num_layers), axis=0)
        return np.asarray(decay_per_step(self.learning_rate, jnp.asarray(middle)))


def inference_record(findings: Findings, attributes: dict[str, Any]) -> Record:
    """Groups for the figures, and a table of the rest."""
    groups = {
        "foretold": foretold_group(findings),
        "comparison": comparison_group(findings),
        "calibration": calibration_group(findings),
    }
    if findings.shrinking:
        groups["shrink"] = shrink_group(findings)
    return Record(groups=groups, attributes=attributes)


def reported_model(comparison: Comparison) -> str:
    """The model that the figures speak of: the preferred one; else the first in the ranking."""
    return comparison.preferred() or comparison.of_layer(ALL)[0].name


def foretold_group(findings: Findings) -> Group:
    """What was observed, and what the reported model expected one step before."""
    streams, name = findings.streams, reported_model(findings.comparison)
    valid = np.asarray(streams.valid)
    foreseen = findings.fits[name].tree["predictions"].to_dataset()
    over = ("stream", "step")
    units = "weight" if streams.kind == "optimum" else "1/weight"
    layer = np.asarray(streams.layer)
    return {
        "step": variable("step", findings.step, units="steps", description="of the recorded run"),
        "stream": variable("stream", list(findings.weights), description="weight of each stream"),
        "layer_of": variable("stream", [streams.layer_names[index] for index in layer]),
        "observed": variable(
            over, np.where(valid, streams.observed, np.nan), units=units,
            label=_LABELS[streams.kind], description="NaN where not valid",
        ),
        "one_step_mean": variable(
            over, foreseen["one_step_mean"].values, units=units, model=name,
            failed=not findings.fits[name].gates.passes,
            description="of the next value given all before, over the posterior",
        ),
        "one_step_deviation": variable(
            over, np.sqrt(foreseen["one_step_variance"].values), units=units,
            description="standard deviation of the next value given all before",
        ),
    }  # fmt: skip


def shrink_group(findings: Findings) -> Group:
    """Posterior and prior density of the shrink of every model that has one, by layer."""
    shrinking = findings.shrinking
    layers = findings.streams.layer_names
    posterior = {name: _logarithms(fit, "posterior") for name, fit in shrinking.items()}
    prior = {name: _logarithms(fit, "prior") for name, fit in shrinking.items()}
    everything = np.concatenate([each.ravel() for each in (*posterior.values(), *prior.values())])
    low, high = np.quantile(everything[np.isfinite(everything)], [0.002, 1.0])
    grid = np.linspace(low, min(high, 0.0), _POINTS)
    density = np.stack([_densities(each, grid) for each in posterior.values()])
    quantiles = np.stack(
        [10 ** np.quantile(each, [0.05, 0.5, 0.95], axis=0) for each in posterior.values()]
    )
    over, curves = ("model", "layer"), ("model", "layer", "shrink")
    fraction = {"units": "1 per step"}
    return {
        "model": variable("model", list(shrinking)),
        "layer": variable("layer", list(layers)),
        "shrink": variable("shrink", 10**grid, **fraction, description="grid; 1 - retention"),
        "density": variable(curves, density, units="per factor of ten", description="posterior"),
        "prior_density": variable(
            curves, np.stack([_densities(each, grid) for each in prior.values()]),
            units="per factor of ten", description="prior",
        ),
        "low": variable(over, quantiles[:, 0], **fraction, description="5 % quantile"),
        "median": variable(over, quantiles[:, 1], **fraction),
        "high": variable(over, quantiles[:, 2], **fraction, description="95 % quantile"),
        "failed": variable("model", [not fit.gates.passes for fit in shrinking.values()]),
        "set_decay": variable(
            (), _product(findings.learning_rate, findings.weight_decay), **fraction,
            description="learning rate times weight decay of the run; NaN if not known",
        ),
        "implied_decay": variable(
            "layer", findings.tied_to_rate, **fraction,
            description="eta^2/(2 sigma^2) with eta the learning rate, sigma^2 the inferred"
            " stationary variance (its median); NaN if not known",
        ),
        "negligible": variable(
            (), findings.verdicts[0].negligible if findings.verdicts else np.nan, **fraction,
            description="a shrink below this counts as none",
        ),
    }  # fmt: skip


def _product(one: float | None, other: float | None) -> float:
    return np.nan if one is None or other is None else one * other


def _logarithms(fit: Fit, group: str) -> Float[np.ndarray, "draws layers"]:
    """Log10 of the shrink's draws; those that rounded to 0 are left at the smallest number."""
    draws = fit.tree[group]["shrink"].transpose("chain", "draw", "layer").values
    return np.log10(np.maximum(draws.reshape(-1, draws.shape[-1]), np.finfo(float).tiny))


def _densities(
    logarithms: Float[np.ndarray, "draws layers"], grid: Float[np.ndarray, " points"]
) -> Float[np.ndarray, "layers points"]:
    """Kernel density of each layer's draws (by ArviZ) on a common grid; NaN outside of them."""
    import arviz  # noqa: F401  (gives xarray its `azstats`)
    import xarray

    rows = []
    for draws in logarithms.T:
        if not np.isfinite(draws).all() or np.ptp(draws) == 0:
            rows.append(np.full(grid.size, np.nan))
            continue
        array: Any = xarray.DataArray(draws, dims=["draw"])
        curve = array.azstats.kde(dim="draw")
        rows.append(
            np.interp(
                grid, curve.sel(plot_axis="x"), curve.sel(plot_axis="y"), left=np.nan, right=np.nan
            )
        )
    return np.stack(rows)


def comparison_group(findings: Findings) -> Group:
    """Every model's log predictive density against the best one's, in all layers and each."""
    names = list(findings.fits)
    best = findings.comparison.preferred()
    layers = list(dict.fromkeys([ALL, *(row.layer for row in findings.comparison.rivals)]))
    rows = {(row.name, row.layer): row for row in findings.comparison.rivals}

    def table(field: str) -> Float[np.ndarray, "models layers"]:
        return np.array([[getattr(rows[name, layer], field) for layer in layers] for name in names])

    over, whole = ("model", "layer"), [rows[name, ALL] for name in names]
    return {
        "model": variable("model", names),
        "layer": variable("layer", layers),
        "difference": variable(
            over, table("difference").astype(float), units="nats",
            description=f"log predictive density less the best's ({findings.comparison.method})",
        ),
        "standard_error": variable(over, table("standard_error").astype(float), units="nats"),
        "log_predictive": variable(over, table("log_predictive").astype(float), units="nats"),
        "weight": variable(
            "model", [row.stacking_weight for row in whole], description="share of the stack"
        ),
        "refuted": variable("model", [row.verdict == "refuted" for row in whole]),
        "failed": variable("model", [row.verdict == "not ranked" for row in whole]),
        "reported": variable("model", [name == best for name in names]),
    }  # fmt: skip


def calibration_group(findings: Findings) -> Group:
    """Ranks of the observations in each model's next-step distributions, and what is left over."""
    streams = findings.streams
    judged = {
        name: _next_step(fit, streams, _steps_to_judge(fit, streams))
        for name, fit in findings.foretelling.items()
    }
    count = min(each.ranks.size for each in judged.values())
    band = _KOLMOGOROV / np.sqrt(max(count, 1))
    probability = np.linspace(0, 1, _PROBABILITIES)
    ranks = [np.sort(each.ranks) for each in judged.values()]
    share = [np.searchsorted(each, probability, side="right") / max(each.size, 1) for each in ranks]
    held = findings.foretelling is not findings.fits
    failed = [not fit.gates.passes for fit in findings.foretelling.values()]
    where = "steps that the fit has not seen" if held else "the steps that were fitted"
    return {
        "model": variable("model", list(judged)),
        "failed": variable("model", failed),
        "probability": variable("probability", probability),
        "ecdf_difference": variable(
            ("model", "probability"), np.stack(share) - probability,
            description=f"share of ranks below each probability minus it; {where}",
        ),
        "band_low": variable("probability", np.full(probability.shape, -band)),
        "band_high": variable(
            "probability", np.full(probability.shape, band),
            description="95 % of the largest gaps, were all ranks independent and uniform",
        ),
        "lag": variable("lag", 1 + np.arange(judged_lags(judged)), units="steps"),
        "autocorrelation": variable(
            ("model", "lag"), np.stack([each.autocorrelation for each in judged.values()]),
            description=f"of standardised innovations, mean over the streams; {where}",
        ),
        "autocorrelation_band": variable(
            (), 1.96 / np.sqrt(max(count, 1)),
            description="95 % for white innovations, were the streams independent",
        ),
    }  # fmt: skip


class _NextStep(NamedTuple):
    ranks: Float[np.ndarray, " observations"]
    autocorrelation: Float[np.ndarray, " lags"]


def judged_lags(judged: Mapping[str, _NextStep]) -> int:
    """How many lags there are."""
    return len(next(iter(judged.values())).autocorrelation)


def _steps_to_judge(fit: Fit, streams: Streams) -> Bool[np.ndarray, "streams steps"]:
    """Valid steps after those that the fit has seen; all valid ones where it has seen them all."""
    seen = np.asarray(fit.tree["constant_data"]["valid"]).astype(bool).any(axis=0)
    after = np.arange(streams.valid.shape[1]) > np.flatnonzero(seen)[-1]
    valid = np.asarray(streams.valid)
    return valid & after if (valid & after).any() else valid


def _next_step(fit: Fit, streams: Streams, judged: Bool[np.ndarray, "streams steps"]) -> _NextStep:
    """Ranks and autocorrelation of the innovations at the steps that are judged."""
    num_draws = fit.tree["posterior"].sizes["chain"] * fit.tree["posterior"].sizes["draw"]
    draws = posterior_draws(fit, min(_DRAWS, num_draws))
    innovation, below = _innovations(fit.model, draws, streams)
    steps = int(judged.any(axis=0).sum())
    lags = max(1, min(LAGS, steps // 4))  # with fewer pairs a lag says nothing
    correlation = []
    for lag in range(1, lags + 1):
        each = np.asarray(autocorrelation(innovation, jnp.asarray(judged), lag))
        known = each[np.isfinite(each)]
        correlation.append(float(known.mean()) if known.size else np.nan)
    return _NextStep(ranks=np.asarray(below)[judged], autocorrelation=np.array(correlation))


@partial(jax.jit, static_argnums=0)
def _innovations(model: Model, draws: dict[str, Array], streams: Streams) -> tuple[Array, Array]:
    """Mean standardised innovation, and probability of a smaller value, over the draws."""

    def add(total, draw):
        numbers = numbers_of(model, draw, streams)
        mean, variance = predictions(model, numbers, streams)
        miss = jnp.where(streams.valid, streams.observed - mean, 0)
        standard = miss / jnp.sqrt(jnp.where(streams.valid, variance, 1))
        if model.tails == "student_t":
            below = _student_t_cdf(standard, numbers["degrees_of_freedom"][:, None])
        else:
            below = jax.scipy.stats.norm.cdf(standard)
        return (total[0] + standard, total[1] + below), None

    zeros = jnp.zeros(streams.valid.shape)
    (standard, below), _ = jax.lax.scan(add, (zeros, zeros), draws)
    count = len(next(iter(draws.values())))
    return standard / count, below / count


def _student_t_cdf(standard: Array, nu: Array) -> Array:
    """Probability below a number of standard deviations, for Student's t of variance 1."""
    square = standard**2 * nu / (nu - 2)
    tail = 0.5 * jax.scipy.special.betainc(0.5 * nu, 0.5, nu / (nu + square))
    return jnp.where(standard > 0, 1 - tail, tail)
