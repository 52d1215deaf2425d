"""Which model foretells best, layer by layer and pooled, and by how much.

Two models are compared on the same observations, so the standard error is that of the *difference*,
taken over units that may be thought independent: over streams, each with all its steps, and
over blocks of steps, each with all its streams. The first allows for any correlation in time,
the second for any between streams (all of them see the same minibatches); the larger of the
two is reported.

A rival is *refuted* where it loses to the best by more than two standard errors, and by
more than four nats: below that the difference has a lopsided distribution that no
standard error describes (Sivula et al. 2025; ArviZ flags it too). A rival that is very wrong loses
most of all on a few units, and its standard error is then as large as its loss. So it is
also refuted where that holds of gains capped at 100 nats a unit: they can only be too small.
The *preferred* model is the
simplest that is not refuted; `simplicity` states the order. A model whose fit failed a gate
is listed with the failure, and is neither preferred nor what the others are measured against.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bayesfilt.checks import require_at_least, require_one_of
from bayesfilt.compare.layers import ALL
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.models import MODELS, Model, parameter_names
from bayesfilt.infer.predictive_scores import (
    LogPredictive,
    held_out_log_predictive,
    leave_stream_out,
)
from bayesfilt.infer.streams import Streams

STANDARD_ERRORS = 2.0
LEAST_DIFFERENCE = 4.0  # nats
LARGEST_GAIN = 100.0  # nats of one unit

# A density so far below the best model's counts as this for the stacking weights, not as 0.
_LOWEST_LOG_RATIO = -50.0


class Rival(NamedTuple):
    """One model on one layer, or on all of them."""

    name: str
    layer: str  # "all": every layer pooled
    log_predictive: float  # nats, summed over what was scored
    difference: float  # to the best, <= 0 but for a model that is not ranked
    standard_error: float  # of the difference; 0 for the best itself
    stacking_weight: float  # NaN for a model that is not ranked
    pareto_k: float  # the largest; NaN where no importance weights were needed
    num_parameters: int  # of one stream
    failures: tuple[str, ...]
    verdict: str  # "preferred" | "not refuted" | "refuted" | "not ranked"


class Pair(NamedTuple):
    """How much more one model foretells than another."""

    difference: float  # nats
    standard_error: float
    is_clear: bool  # whether the first is better beyond doubt


class Comparison(NamedTuple):
    """Every model on every layer and on all of them."""

    rivals: tuple[Rival, ...]
    paired: Mapping[tuple[str, str, str], Pair]  # (layer, one, other)
    method: str
    num_scored: int  # observations

    def of_layer(self, layer: str = ALL) -> tuple[Rival, ...]:
        """One layer's rivals, the best first, those not ranked last."""
        rows = [rival for rival in self.rivals if rival.layer == layer]
        return tuple(sorted(rows, key=lambda row: (row.verdict == "not ranked", -row.difference)))

    def preferred(self, layer: str = ALL) -> str | None:
        """Name of the simplest model that is not refuted; None where no fit passed its gates."""
        names = [row.name for row in self.of_layer(layer) if row.verdict == "preferred"]
        return names[0] if names else None


def compare_models(
    fits: Mapping[str, Fit],
    streams: Streams,
    *,
    method: str = "held_out",
    max_draws: int = 400,
    num_blocks: int = 10,
) -> Comparison:
    """Rank fits of rival models by how well they foretell.

    Args:
        fits: by name, all to the same streams: to their first part for "held_out", to all of
            them for "leave_stream_out".
        streams: the whole of them.
        method: see `predictive_scores` for which one applies when.
        max_draws: of each posterior, for "held_out".
        num_blocks: of steps, for the standard errors. A block should be longer than what is
            remembered from one step to the next.

    Raises:
        ValueError: no fits, an unknown method, and what the scores refuse.
    """
    require_one_of("compare_models", "method", method, ("held_out", "leave_stream_out"))
    if method == "held_out":
        scores = {
            name: held_out_log_predictive(fit, streams, max_draws=max_draws)
            for name, fit in fits.items()
        }
    else:
        scores = {name: leave_stream_out(fit) for name, fit in fits.items()}
    return compare_scores(scores, num_blocks=num_blocks)


def compare_scores(scores: Mapping[str, LogPredictive], *, num_blocks: int = 10) -> Comparison:
    """Rank rivals by their log predictive densities of the same observations.

    Raises:
        ValueError: nothing to compare, or scores of different observations or methods.
    """
    require_at_least("compare_scores", "num_blocks", num_blocks, 2)
    first = _require_the_same("compare_scores", scores)
    layers = {ALL: np.ones(len(first.layer), bool)}
    if len(first.layer_names) > 1:
        layers = {
            name: first.layer == index for index, name in enumerate(first.layer_names)
        } | layers
    paired, rivals = {}, []
    for layer, inside in layers.items():
        pairs = _pairs(inside, scores, num_blocks)
        paired |= {(layer, *names): values for names, values in pairs.items()}
        rivals += _rank(layer, inside, scores, pairs)
    return Comparison(
        rivals=tuple(rivals),
        paired=paired,
        method=first.method,
        num_scored=int(first.scored.sum()),
    )


def simplicity(model: Model) -> tuple[int, int, int]:
    """Sorts models, the simplest first: one number a layer, fewer parameters, `MODELS`.

    In the order of `MODELS` a random walk comes before the Ornstein-Uhlenbeck process: it has as
    many numbers, but is the one whose stationary variance is infinite.
    """
    return (
        ("layer", "stream").index(model.pooling),
        len(parameter_names(model)),
        tuple(MODELS).index(model.transition),
    )


def standard_error_of_sum(
    values: Float[np.ndarray, "units steps"],
    scored: Bool[np.ndarray, "units steps"],
    num_blocks: int,
) -> float:
    r"""Standard error of a sum over dependent steps, $\sqrt{n\,Var_j(\sum_{t \in j} x_t)}$ [LPD-2].

    The larger of two: j runs over streams, or over blocks of neighbouring steps. NaN for a single
    stream of fewer than two steps.
    """
    return max(map(_spread_of_sum, _unit_sums(values, scored, num_blocks)), default=float("nan"))


def stacking_weights(
    densities: Sequence[Float[np.ndarray, " observations"]],
) -> Float[np.ndarray, " models"]:
    """Weights of the mixture of models that foretells best (by ArviZ).

    They say who adds to a mixture, not who is best alone. A poor but wide model gets a small share
    because it catches the few outliers; the large share then goes to whoever foretells the *other*
    observations best, if only by a fraction of a nat, and the best model, whose lead was on
    those outliers, may get nothing.
    """
    import arviz

    if len(densities) == 1:
        return np.ones(1)
    table = np.stack(densities)
    # The weights do not change when every model's density of an observation is rescaled,
    # and the exponential of a whole stream's log density would overflow.
    table = np.maximum(table - table.max(axis=0), _LOWEST_LOG_RATIO)
    names = [str(index) for index in range(len(table))]
    found = arviz.compare(
        {name: _pointwise(row) for name, row in zip(names, table, strict=True)},
        method="stacking",
        round_to="none",
    )
    return found["weight"].loc[names].to_numpy(float)


def compared(
    gain: Float[np.ndarray, "units steps"],
    scored: Bool[np.ndarray, "units steps"],
    num_blocks: int,
) -> Pair:
    """Sum up how much more each observation was foretold by one model than by another."""
    difference = float(gain.sum())
    error = standard_error_of_sum(gain, scored, num_blocks)
    # For any cap the mean of capped gains is at most that of the gains.
    capped = [np.minimum(sums, LARGEST_GAIN) for sums in _unit_sums(gain, scored, num_blocks)]
    floors = [_is_clear(float(sums.sum()), _spread_of_sum(sums)) for sums in capped]
    return Pair(
        difference=difference,
        standard_error=error,
        is_clear=_is_clear(difference, error) or (bool(floors) and all(floors)),
    )


def _is_clear(difference: float, standard_error: float) -> bool:
    """Whether a gain is more than two standard errors and more than four nats."""
    return difference > max(STANDARD_ERRORS * standard_error, LEAST_DIFFERENCE)


def _unit_sums(
    values: Float[np.ndarray, "units steps"],
    scored: Bool[np.ndarray, "units steps"],
    num_blocks: int,
) -> list[Float[np.ndarray, " sums"]]:
    """Sums of whole streams, and of blocks of steps; either only where there are two."""
    values = np.where(scored, values, 0.0)
    streams = values.sum(axis=1)[scored.any(axis=1)]
    steps = values.sum(axis=0)[scored.any(axis=0)]
    parts = np.array_split(steps, max(1, min(num_blocks, len(steps))))
    blocks = np.array([part.sum() for part in parts])
    return [sums for sums in (streams, blocks) if len(sums) > 1]


def _spread_of_sum(sums: Float[np.ndarray, " sums"]) -> float:
    """Standard error of the sum of independent numbers."""
    return float(np.sqrt(len(sums) * sums.var(ddof=1)))


def _pairs(
    inside: Bool[np.ndarray, " units"], scores: Mapping[str, LogPredictive], num_blocks: int
) -> dict[tuple[str, str], Pair]:
    """Every two models on one layer."""
    found = {}
    for one, other in itertools.product(scores, repeat=2):
        with np.errstate(invalid="ignore"):  # of a model that failed, and is not ranked
            gain = scores[one].density[inside] - scores[other].density[inside]
            found[one, other] = compared(gain, scores[one].scored[inside], num_blocks)
    return found


def _rank(
    layer: str,
    inside: Bool[np.ndarray, " units"],
    scores: Mapping[str, LogPredictive],
    pairs: dict[tuple[str, str], Pair],
) -> list[Rival]:
    """One layer's rows, in the order the models came in."""
    failures = {name: _failures(score, inside) for name, score in scores.items()}
    ranked = [name for name in scores if not failures[name]]
    totals = {name: float(score.density[inside].sum()) for name, score in scores.items()}
    best = max(ranked or scores, key=lambda name: totals[name])
    scored = scores[best].scored[inside]
    kept = [name for name in ranked if not pairs[best, name].is_clear]
    preferred = min(kept, key=lambda name: simplicity(scores[name].model), default=None)
    weights = dict.fromkeys(scores, float("nan"))
    if ranked:
        densities = [scores[name].density[inside][scored] for name in ranked]
        weights |= dict(zip(ranked, stacking_weights(densities).tolist(), strict=True))
    rows = []
    for name, score in scores.items():
        pair = pairs[name, best]
        verdict = "not refuted" if name in kept else "refuted"
        verdict = "preferred" if name == preferred else verdict
        rows.append(
            Rival(
                name=name,
                layer=layer,
                log_predictive=totals[name],
                difference=pair.difference,
                standard_error=pair.standard_error,
                stacking_weight=weights[name],
                pareto_k=float(score.pareto_k.max()) if score.pareto_k.size else float("nan"),
                num_parameters=len(parameter_names(score.model)),
                failures=failures[name],
                verdict=verdict if name in ranked else "not ranked",
            )
        )
    return rows


def _failures(score: LogPredictive, inside: Bool[np.ndarray, " units"]) -> tuple[str, ...]:
    """Why a model is not ranked, if it is not."""
    if np.isfinite(score.density[inside]).all():
        return score.failures
    return (*score.failures, "a log predictive density is not finite")


def _pointwise(density: Float[np.ndarray, " observations"]):
    """One model's log densities as ArviZ wants them."""
    import arviz
    import xarray

    return arviz.ELPDDataLOO(
        elpd=float(density.sum()),
        se=float("nan"),
        p=float("nan"),
        n_samples=1,
        n_data_points=len(density),
        scale="log",
        warning=False,
        good_k=float("nan"),
        elpd_i=xarray.DataArray(density, dims="observation"),
    )


def _require_the_same(owner: str, scores: Mapping[str, LogPredictive]) -> LogPredictive:
    """Refuse scores of different observations; the first of them."""
    if not scores:
        raise ValueError(f"{owner} needs at least one model, got none.")
    first_name, first = next(iter(scores.items()))
    for name, score in scores.items():
        if score.method != first.method:
            raise ValueError(
                f"{owner} needs one method for all, got {first.method!r} for {first_name} and "
                f"{score.method!r} for {name}."
            )
        same = np.array_equal(score.scored, first.scored)
        if not (same and np.array_equal(score.layer, first.layer)):
            raise ValueError(
                f"{owner} needs scores of the same observations, got {first.scored.sum()} for "
                f"{first_name} and {score.scored.sum()} for {name}."
            )
    return first
