"""Leave-future-out: every step foretold from the posterior of all steps before it.

Between fits the posterior is carried forward by Pareto-smoothed importance weights, and the model
is fitted again where their Pareto k says that they have grown too uneven (Bürkner et al. 2020).
"""

import functools
import warnings
from collections.abc import Callable

import arviz
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from bayesfilt.compare.layers import ALL
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.likelihood import seen_steps, step_log_densities
from bayesfilt.infer.models import Model, numbers_of
from bayesfilt.infer.predictive_scores import (
    DRAWS_AT_ONCE,
    LogPredictive,
    all_draws,
    hidden_after,
    tree_for_arviz,
)
from bayesfilt.infer.streams import Streams


def leave_future_out(
    key: PRNGKeyArray,
    refit: Callable[[PRNGKeyArray, Streams], Fit],
    fit: Fit,
    streams: Streams,
    *,
    min_observations: int,
    k_threshold: float = 0.7,
) -> LogPredictive:
    """Foretell every step from the posterior of all before it (PSIS-LFO, from ArviZ).

    The unit is a step of all streams together, because the importance weights are of the
    posterior as a whole: give it the streams of one layer at a time where layers share
    nothing, and it is fitted again less often.

    Args:
        key: of the refits.
        refit: `lambda key, streams: fit(key, model, streams, priors=priors)`. The streams it is
            given always have the same shape; what they may not see is masked.
        fit: to all of `streams`, of the same model.
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
    by_step = fit.tree["log_likelihood"]["observed"].sum("stream")
    refitting = _Refitting(key, refit, fit.model, streams)
    with warnings.catch_warnings():
        # Many refits are slow, not wrong: each is exact.
        warnings.filterwarnings("ignore", message="LFO-CV triggered", category=UserWarning)
        lfo = arviz.lfo_cv(
            tree_for_arviz(fit, by_step),
            refitting,
            min_observations=min_observations,
            forecast_horizon=1,
            time_dim="step",
            pointwise=True,
            k_threshold=k_threshold,
        )
    density, scored = np.zeros((1, num_steps)), np.zeros((1, num_steps), bool)
    density[0, min_observations:] = np.asarray(lfo.elpd_i)
    scored[0, min_observations:] = np.asarray(seen_steps(streams)).any(axis=0)[min_observations:]
    pareto_k = np.asarray(lfo.pareto_k)
    names = streams.layer_names
    return LogPredictive(
        model=fit.model,
        method="leave future out",
        density=density,
        scored=scored,
        layer=np.zeros(1, int),
        layer_names=names if len(names) == 1 else (ALL,),
        pareto_k=pareto_k[np.isfinite(pareto_k)],  # NaN where a fit is exact
        failures=refitting.failures,
    )


class _Refitting(arviz.SamplingWrapper):
    """What `arviz.lfo_cv` asks for a fit to the steps before a cutoff."""

    def __init__(
        self,
        key: PRNGKeyArray,
        refit: Callable[[PRNGKeyArray, Streams], Fit],
        model: Model,
        streams: Streams,
    ):
        super().__init__(model)
        self.key, self.refit, self.streams = key, refit, streams
        self.failures: tuple[str, ...] = ()
        self.last: Fit | None = None

    def sel_observations(self, idx):
        """Steps before the first left-out one, and the left-out ones."""
        return int(idx[0]), np.asarray(idx)

    def sample(self, modified_observed_data):
        """Fit again to the first so many steps."""
        cutoff = modified_observed_data
        key = jax.random.fold_in(self.key, cutoff)
        fit = self.refit(key, hidden_after(self.streams, cutoff))
        self.failures += tuple(f"fit to {cutoff} steps: {why}" for why in fit.gates.failures)
        self.last = fit
        return fit

    def get_inference_data(self, fitted_model):
        """Posterior of the refit."""
        return tree_for_arviz(fitted_model, None)

    def log_likelihood__i(self, excluded_obs, idata__i):
        """Log densities of the left-out steps at the draws of the refit, (chain, draw, step)."""
        import xarray

        del idata__i
        assert self.last is not None
        draws = all_draws(self.last)
        density = np.asarray(_step_totals(self.last.model, draws, self.streams))
        posterior = self.last.tree["posterior"]
        shape = (posterior.sizes["chain"], posterior.sizes["draw"], density.shape[-1])
        return xarray.DataArray(
            density.reshape(shape)[..., excluded_obs], dims=("chain", "draw", "step")
        )


@functools.partial(jax.jit, static_argnums=0)
def _step_totals(model: Model, draws: dict[str, Array], streams: Streams):
    """Log density of each step of all streams together, at each draw; [draws, steps]."""

    def total(draw):
        return step_log_densities(model, numbers_of(model, draw, streams), streams).sum(axis=0)

    return jax.lax.map(total, draws, batch_size=DRAWS_AT_ONCE)
