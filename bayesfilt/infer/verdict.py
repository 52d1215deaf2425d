"""The verdict in words: does the transition's mean shrink, as weight decay would have it?

Three answers. Everything is measured in relaxation times of the window, T * shrink: how often the
mean forgets where it was while one looks.

* "shrinks": the 90 % interval of the shrink lies above what is negligible.
* "does not shrink": it lies below. Negligible is a shrink by which the mean would lose less than
  a quarter of one relaxation time over the whole window, unless the caller names another:
  nothing smaller can be told from no shrink by looking at this window.
* "cannot tell": anything else; a fit that failed its gates; streams that took away less than half
  of the prior variance of the shrink's logarithm (less than 80 % for "shrinks", where the prior has
  most of its mass: moves that drown in noise cut off its slow tail, and the rest is a shrink); and
  a comparison with the random walk (the same drift, no shrink) that says the opposite.

The stationary variance is what the data say least about. Below three relaxation times hardly any
return to the mean was seen. The Ornstein-Uhlenbeck process is then ruled by where the streams
start, which it takes for a draw of its stationary law: weights that were recorded on their way
from a wide start have a long memory forced on them, however fast they shrink, and those from a
narrow one a short memory. So it is never believed there that the mean does not shrink, and that it
does only with the comparison, where nothing is scored but foretelling. The "shrinking_walk" has a
spread of its own at the start, and what it says of the shrink was seen within the record: give it
where there is one.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfilt.checks import require_non_negative, require_positive
from bayesfilt.compare.layers import ALL
from bayesfilt.infer.comparison import Comparison, Pair
from bayesfilt.infer.fit import Fit
from bayesfilt.infer.identifiability import LITTLE, contraction
from bayesfilt.infer.posterior_tree import streams_of
from bayesfilt.theory.ornstein_uhlenbeck import decay_per_step

SHRINKS, DOES_NOT_SHRINK, CANNOT_TELL = "shrinks", "does not shrink", "cannot tell"
TRANSITIONS_JUDGED = ("shrinking_walk", "ornstein_uhlenbeck")  # the first that was fitted
NEGLIGIBLE_RELAXATIONS = 0.25
WEAK_BELOW = 3.0  # relaxation times
MUCH = 0.8  # of the prior variance of log shrink: contraction that makes "shrinks" a finding
INTERVAL = (0.05, 0.5, 0.95)


class TransitionVerdict(NamedTuple):
    """Whether one layer's optima shrink towards their mean, with what it rests on."""

    layer: str
    word: str  # "shrinks" | "does not shrink" | "cannot tell"
    shrink: tuple[float, float, float]  # per step: 5 %, median, 95 %
    negligible: float  # region of practical equivalence: a shrink below this is none
    relaxation_times: float  # of the window, at the median
    decay_set: float | None  # lr * wd, per step: what AdamW was told
    # eta^2/(2 sigma^2) of the inferred two: -log(1 - shrink), the same number by the definition of
    # the model, and no second measurement. What can differ is eta from the learning rate.
    tied_decay: tuple[float, float, float] | None
    learned: float  # share of the prior variance of log shrink that the streams took away
    difference: float | None  # log predictive density over the random walk's, nats
    standard_error: float | None
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, to be printed."""
        low, middle, high = self.shrink
        parts = [
            f"{self.layer}: {self.word}. Shrink per step {middle:.3g} "
            f"(90 % interval {low:.3g} to {high:.3g}; below {self.negligible:.3g} counts as none)"
        ]
        if self.decay_set is not None:
            place = "inside" if low <= self.decay_set <= high else "outside"
            parts.append(f"lr*wd was {self.decay_set:.3g}, {place} the interval")
        if self.tied_decay is not None:
            tied = self.tied_decay
            parts.append(
                f"eta^2/(2 sigma^2) inferred {tied[1]:.3g} ({tied[0]:.3g} to {tied[2]:.3g})"
            )
        if self.difference is not None:
            parts.append(
                f"{self.difference:+.1f} nats over a random walk "
                f"(standard error {self.standard_error:.1f})"
            )
        parts.append(f"{self.relaxation_times:.1f} relaxation times in the window")
        return "; ".join([*parts, *self.reasons]) + "."


def transition_verdicts(
    fit: Fit,
    *,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    negligible: float | None = None,
    comparison: Comparison | None = None,
    shrinking: str | None = None,
    random_walk: str = "random_walk",
) -> tuple[TransitionVerdict, ...]:
    """Say for each layer whether the transition mean shrinks.

    Args:
        fit: of a model with a shrink ("shrinking_walk" best), to all steps of the window.
        learning_rate: lr of the run that was recorded, or None.
        weight_decay: wd, decoupled and scaled by lr (torch, optax), or None.
        negligible: shrink per step that counts as none; None for a quarter of a relaxation
            time over the window.
        comparison: of the rivals, or None.
        shrinking: name of the shrinking model in `comparison`; None for that of its transition.
        random_walk: name of the model without a shrink in `comparison`.

    Raises:
        ValueError: a model without a shrink; only one of learning rate and decay; a comparison
            that lacks one of the two models.
    """
    owner = "transition_verdicts"
    posterior = fit.tree["posterior"]
    if "shrink" not in posterior:
        raise ValueError(
            f"{owner} needs a model whose transition has a shrink, got {fit.model.transition!r}."
        )
    decay_set = _decay_set(owner, learning_rate, weight_decay)
    streams = streams_of(fit.tree)
    seen = np.flatnonzero(np.asarray(streams.valid).any(axis=0))
    num_steps = int(seen[-1] - seen[0]) + 1
    if negligible is None:
        negligible = NEGLIGIBLE_RELAXATIONS / num_steps
    require_positive(owner, "negligible", negligible)
    shrinking = fit.model.transition if shrinking is None else shrinking
    shrinks = _draws_by_layer(posterior["shrink"])
    before = _draws_by_layer(fit.tree["prior"]["shrink"])
    learned = contraction({"shrink": before}, {"shrink": shrinks}).values[0]
    tied = _tied_decay(posterior)
    verdicts = []
    for index, layer in enumerate(streams.layer_names):
        against = _against_the_walk(owner, comparison, layer, shrinking, random_walk)
        shrink = _interval(shrinks[:, index])
        times = num_steps * shrink[1]
        share = float(learned[index])
        word, reasons = _word_of_layer(fit, shrink, negligible, times, share, against)
        verdicts.append(
            TransitionVerdict(
                layer=layer,
                word=word,
                shrink=shrink,
                negligible=negligible,
                relaxation_times=times,
                decay_set=decay_set,
                tied_decay=None if tied is None else _interval(tied[:, index]),
                learned=share,
                difference=None if against is None else against[0].difference,
                standard_error=None if against is None else against[0].standard_error,
                reasons=(*reasons, *_itself_refuted(comparison, layer, shrinking)),
            )
        )
    return tuple(verdicts)


def _decay_set(owner: str, learning_rate: float | None, weight_decay: float | None) -> float | None:
    """What the run was told to shrink by, per step."""
    if learning_rate is None and weight_decay is None:
        return None
    if learning_rate is None or weight_decay is None:
        raise ValueError(f"{owner} needs both learning_rate and weight_decay, or neither.")
    require_positive(owner, "learning_rate", learning_rate)
    require_non_negative(owner, "weight_decay", weight_decay)
    return learning_rate * weight_decay


def _word_of_layer(
    fit: Fit,
    shrink: tuple[float, float, float],
    negligible: float,
    times: float,
    learned: float,
    against: tuple[Pair, Pair] | None,
) -> tuple[str, tuple[str, ...]]:
    """The word, and what it rests on or why it is not a firmer one."""
    at_rest = "initial_variance" not in fit.tree["posterior"]
    is_weak = times < WEAK_BELOW
    word, reasons = _judge(shrink, negligible, is_weak and at_rest, against)
    if fit.gates.failures:
        failed = tuple(f"the fit failed a gate: {why}" for why in fit.gates.failures)
        word, reasons = CANNOT_TELL, failed
    elif learned < (MUCH if word == SHRINKS else LITTLE):
        word, reasons = CANNOT_TELL, ("the prior says more of the shrink than the streams",)
    if is_weak:
        on = "prior and start" if at_rest else "the shrink and the moves alone"
        few = f"in fewer than {WEAK_BELOW:.0f} relaxation times"
        reasons = (f"{few} sigma^2 rests on {on}", *reasons)
    return word, reasons


def _judge(
    shrink: tuple[float, float, float],
    negligible: float,
    rests_on_start: bool,
    against: tuple[Pair, Pair] | None,
) -> tuple[str, tuple[str, ...]]:
    """The word of a fit that is to be believed, and why it is not a firmer one."""
    low, _, high = shrink
    word = SHRINKS if low > negligible else DOES_NOT_SHRINK if high < negligible else CANNOT_TELL
    if word == CANNOT_TELL:
        return word, ("the interval holds both a shrink and none",)
    better, worse = (False, False) if against is None else (pair.is_clear for pair in against)
    if worse if word == SHRINKS else better:
        return CANNOT_TELL, ("the comparison with the random walk says the opposite",)
    if rests_on_start and not (word == SHRINKS and better):
        return CANNOT_TELL, ("nothing but the prior and the start of the streams speaks for it",)
    return word, ()


def _against_the_walk(
    owner: str, comparison: Comparison | None, layer: str, shrinking: str, random_walk: str
) -> tuple[Pair, Pair] | None:
    """The shrinking model against the random walk on one layer, and the other way round."""
    if comparison is None:
        return None
    rows = {row.name: row for row in comparison.of_layer(layer) or comparison.of_layer(ALL)}
    for name in (shrinking, random_walk):
        if name not in rows:
            raise ValueError(f"{owner} needs {name!r} in the comparison, got {', '.join(rows)}.")
        if rows[name].verdict == "not ranked":
            return None
    where = rows[shrinking].layer
    return (
        comparison.paired[where, shrinking, random_walk],
        comparison.paired[where, random_walk, shrinking],
    )


def _itself_refuted(comparison: Comparison | None, layer: str, shrinking: str) -> tuple[str, ...]:
    """A warning where another model foretells the layer beyond doubt better than this one."""
    if comparison is None:
        return ()
    rows = comparison.of_layer(layer) or comparison.of_layer(ALL)
    if not any(row.name == shrinking and row.verdict == "refuted" for row in rows):
        return ()
    return (f"{shrinking} is itself refuted: {rows[0].name} foretells better",)


def _tied_decay(posterior) -> Float[np.ndarray, "draws layers"] | None:
    """Decay per step that the tie would make of the inferred drift and variance, at each draw."""
    if "drift_scale" not in posterior or "stationary_variance" not in posterior:
        return None
    drift_scale = _draws_by_layer(posterior["drift_scale"])
    stationary_variance = _draws_by_layer(posterior["stationary_variance"])
    return np.asarray(decay_per_step(jnp.asarray(drift_scale), jnp.asarray(stationary_variance)))


def _draws_by_layer(values) -> Float[np.ndarray, "draws layers"]:
    array = np.asarray(values.transpose("chain", "draw", "layer"))
    return array.reshape(-1, array.shape[-1])


def _interval(draws: Float[np.ndarray, " draws"]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(draws, INTERVAL)
    return float(low), float(middle), float(high)
