"""Leave-future-out: every step foretold from the posterior of all steps before it.

Between fits the posterior is carried forward by Pareto-smoothed importance weights, and the model
is fitted again where their Pareto k says that they have grown too uneven (Bürkner et al. 2020).
The layers share no numbers, so each has weights of its own; a fit serves all of them.
"""

import functools
import warnings
from collections.abc import Callable

import arviz
import numpy as np

from bayesfilt.infer.fit import Fit
from bayesfilt.infer.likelihood import seen_steps
from bayesfilt.infer.pointwise import pointwise
from bayesfilt.infer.predictive_scores import (
    LogPredictive,
    all_draws,
    hidden_after,
    tree_for_arviz,
)
from bayesfilt.infer.streams import Streams

# Fits to the first so many steps, and the log density of every step at their draws:
# [draws, layers, steps].
Refits = Callable[[int], tuple[Fit, np.ndarray]]


def leave_future_out(
    refit: Callable[[int, Streams], Fit],
    fit: Fit,
    streams: Streams,
    *,
    min_observations: int,
    k_threshold: float = 0.7,
) -> LogPredictive:
    """Foretell every step of a layer from the posterior of all before it (PSIS-LFO, from ArviZ).

    Args:
        refit: a fit of the same model to the streams it is given, `lambda cutoff, streams:
            fit(jax.random.fold_in(key, cutoff), model, streams, priors=priors)`. They always have
            the same shape; what may not be seen, from step `cutoff` on, is masked.
        fit: to all of `streams`.
        streams: the whole of them.
        min_observations: steps of the first fit; the scores begin after them.
        k_threshold: Pareto k above which the model is fitted again.

    Raises:
        ValueError: fewer than 2 steps left after `min_observations`.
    """
    num_steps = streams.valid.shape[1]
    if not 1 <= min_observations <= num_steps - 2:
        raise ValueError(
            f"leave_future_out needs 1 <= min_observations <= {num_steps - 2}, "
            f"got {min_observations}."
        )
    made: list[str] = []

    @functools.cache
    def refits(cutoff: int) -> tuple[Fit, np.ndarray]:
        again = refit(cutoff, hidden_after(streams, cutoff))
        made.extend(f"fit to {cutoff} steps: {why}" for why in again.gates.failures)
        return again, np.asarray(pointwise(again.model, all_draws(again), streams).per_step)

    num_layers = len(streams.layer_names)
    density, scored = np.zeros((num_layers, num_steps)), np.zeros((num_layers, num_steps), bool)
    pareto_k = []
    seen = np.asarray(seen_steps(streams))
    for layer in range(num_layers):
        lfo = _lfo(fit, layer, refits, min_observations, k_threshold)
        density[layer, min_observations:] = np.asarray(lfo.elpd_i)
        inside = seen[np.asarray(streams.layer) == layer]
        scored[layer, min_observations:] = inside.any(axis=0)[min_observations:]
        pareto_k.append(np.asarray(lfo.pareto_k))
    pareto_k = np.concatenate(pareto_k)
    return LogPredictive(
        model=fit.model,
        method="leave future out",
        density=np.where(scored, density, 0.0),
        scored=scored,
        layer=np.arange(num_layers),
        layer_names=streams.layer_names,
        pareto_k=pareto_k[np.isfinite(pareto_k)],  # NaN where a fit is exact
        failures=tuple(made),
    )


def _lfo(fit: Fit, layer: int, refits: Refits, min_observations: int, k_threshold: float):
    """ArviZ's leave-future-out of one layer."""
    by_step = fit.tree["log_likelihood"]["per_step"].isel(layer=layer)
    with warnings.catch_warnings():
        # Many refits are slow, not wrong: each is exact.
        warnings.filterwarnings("ignore", message="LFO-CV triggered", category=UserWarning)
        return arviz.lfo_cv(
            tree_for_arviz(fit, by_step, layer),
            _Refitting(fit, layer, refits),
            min_observations=min_observations,
            forecast_horizon=1,
            time_dim="step",
            pointwise=True,
            k_threshold=k_threshold,
        )


class _Refitting(arviz.SamplingWrapper):
    """What `arviz.lfo_cv` asks for a fit to the steps before a cutoff: here the cutoff itself."""

    def __init__(self, fit: Fit, layer: int, refits: Refits):
        super().__init__(fit.model)
        self.layer, self.refits = layer, refits

    def sel_observations(self, idx):
        """How many steps come before the first left-out one; it says which those are, too."""
        return int(idx[0]), int(idx[0])

    def sample(self, modified_observed_data):
        """Fit to the first so many steps."""
        return self.refits(modified_observed_data)[0]

    def get_inference_data(self, fitted_model):
        """Posterior of that fit."""
        return tree_for_arviz(fitted_model, None, self.layer)

    def log_likelihood__i(self, excluded_obs, idata__i):
        """Log densities of the left-out steps at the fit's draws, (chain, draw, step)."""
        import xarray

        sizes = idata__i["posterior"].sizes
        density = self.refits(excluded_obs)[1][:, self.layer, excluded_obs:]
        shape = (sizes["chain"], sizes["draw"], density.shape[-1])
        return xarray.DataArray(density.reshape(shape), dims=("chain", "draw", "step"))
