"""Readings: which streams of a recorded grid are fitted with which model, and what comes of it.

A coordinate optimum is followed twice: at every step, where it is measured exactly and one step's
drift is all there is, and at steps far apart over a long window, where what is fast looks like
noise and only the slow part of the drift can be followed. Gradients are fitted with noise of
their own. Each is read with a transition that shrinks to zero, as weight decay does, and with one
that shrinks to a mean of each stream's own.

Every reading has its control: the same fit on streams drawn from the fitted model itself, as
noisy as those that were recorded, missing where they are missing, with decays that are known.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from bayesfilt.infer import Model, Streams
from bayesfilt.records import Group, Record, variable
from experiments.fitted_shrink import Fitted, Lookup, draw_layers, fit_layers
from experiments.recorded import Recorded, Window, streams_of


class Reading(NamedTuple):
    """Streams and the model they are fitted with."""

    window: str
    kind: str  # of the streams
    model: Model


_OPTIMA = {
    "every_step": ("every step", "optimum", "none"),
    "slow_part": ("slow part", "optimum", "free"),
    "gradients": ("every step", "gradient", "free"),
}
READINGS = {
    f"{name}/{where}": Reading(
        window=window,
        kind=kind,
        model=Model(transition=transition, noise=noise, tails="gaussian", pooling="layer"),
    )
    for name, (window, kind, noise) in _OPTIMA.items()
    for where, transition in (("to_zero", "shrinking_walk"), ("to_a_mean", "nonzero_mean"))
}
IN_WORDS = {
    "every_step": "optimum at every step",
    "slow_part": "slow part of the optimum",
    "gradients": "gradients at every step",
    "to_zero": "shrinking to zero",
    "to_a_mean": "shrinking to a mean",
}

CELLS = ("learning_rate", "weight_decay", "seed", "layer")


def named(reading: str) -> str:
    """A reading as claims call it."""
    return ", ".join(IN_WORDS[word] for word in reading.split("/"))


def median_seed(values: Float[np.ndarray, "... seeds"]) -> np.ndarray:
    """Median over the seeds that are known; NaN unless they are more than half."""
    count = np.isfinite(values).sum(axis=-1)
    ordered = np.sort(values, axis=-1)  # NaN last
    places = np.maximum([count - 1, count], 0) // 2
    low, high = (np.take_along_axis(ordered, place[..., None], -1)[..., 0] for place in places)
    return np.where(2 * count > values.shape[-1], 0.5 * (low + high), np.nan)


def inside(group: Group, name: str = "") -> Float[np.ndarray, "..."]:
    """Decays of a reading, or of its controls; NaN where there is only a bound of one."""
    return np.where(group[f"{name}edge"].values == 0, group[f"{name}decay"].values, np.nan)


def middle(values: np.ndarray) -> float:
    """Median of all that are known; NaN of none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def read(
    key: PRNGKeyArray,
    readings: Sequence[str],
    recorded: Mapping[str, Recorded],
    windows: Mapping[str, Window],
    truths: Float[np.ndarray, "laws rates decays"],
) -> dict[str, Group]:
    """Each reading's fit and controls, as groups of a record; all in numbers of one training step.

    Args:
        key: draws the controls.
        readings: names in `READINGS`.
        recorded: of each window, as `record_runs` gives it.
        windows: the same names.
        truths: decays of the controls, as multiples of what the middle of a window's range is.
    """
    groups = {}
    keys = jax.random.split(key, len(readings))
    for name, reading_key in zip(readings, keys, strict=True):
        reading = READINGS[name]
        window = windows[reading.window]
        streams = streams_of(recorded[reading.window], reading.kind)
        shape = recorded[reading.window].optimum.shape[:-2]
        lookup = Lookup(lowest=0.05 / window.count)
        fitted = fit_layers(reading.model, lookup, streams)
        groups[name] = _group(fitted, window, shape)
        middle = MIDDLE_DECAY / window.count
        controls = []
        for law_key, truth in zip(jax.random.split(reading_key, len(truths)), truths, strict=True):
            decay = np.broadcast_to(middle * truth[:, :, None, None], shape)
            drawn = _drawn_like(law_key, reading.model, fitted, decay, streams)
            again = fit_layers(reading.model, lookup, drawn)
            controls.append([np.reshape(each, shape) for each in (again.decay, again.edge)])
        decay, edge = np.moveaxis(np.array(controls), 1, 0)
        groups[name] |= {
            "control_decay": variable(("law", *CELLS), decay / window.spacing, units="1/step"),
            "control_edge": variable(("law", *CELLS), edge),
            "control_truth": variable(
                ("law", *CELLS[:2]), middle * truths / window.spacing, units="1/step"
            ),
        }
    return groups


# Decay of a record, times the records of a window, in the middle of the controls: so many
# relaxation times that both laws stay inside what the window can tell.
MIDDLE_DECAY = 20.0


def readings_of(result: Record) -> list[str]:
    """Readings that a record holds, in order."""
    return [reading for reading in READINGS if reading in result.groups]


def plotted(result: Record, reference: np.ndarray, description: str, near: float) -> Group:
    """The group that `inferred_decay_figure` draws: medians over seeds, and the extreme ones.

    Args:
        result: with a group a reading.
        reference: decay per step that the inferred ones are compared with; (rates, decays).
        description: of the reference, a label.
        near: the factor within which both count as equal.
    """
    readings = readings_of(result)
    groups = [result.groups[reading] for reading in readings]
    decays, edges = (
        np.stack([np.moveaxis(group[name].values, (2, 3), (-1, 0)) for group in groups])
        for name in ("decay", "edge")
    )
    where = ("reading", "layer", "learning_rate", "weight_decay")
    return {
        "reading": variable("reading", [named(reading) for reading in readings]),
        "layer": groups[0]["layer"],
        "learning_rate": groups[0]["learning_rate"],
        "reference": variable(
            ("learning_rate", "weight_decay"), reference, description=description
        ),
        "near": variable((), near),
        "decay": variable(where, median_seed(decays)),
        "decay_low": variable(where, np.fmin.reduce(decays, axis=-1)),
        "decay_high": variable(where, np.fmax.reduce(decays, axis=-1)),
        "edge": variable(where, median_seed(edges), description="-1, 1: below, above what is seen"),
    }


def _drawn_like(
    key: PRNGKeyArray, model: Model, fitted: Fitted, decay: np.ndarray, streams: Streams
) -> Streams:
    """Streams of known decay, with the median deviation and noise of what was fitted."""

    def typical(values) -> np.ndarray:
        known = np.asarray(values)[np.isfinite(values)]
        return np.full(decay.size, np.median(known) if known.size else 1.0)

    return draw_layers(
        key,
        model,
        jnp.asarray(decay.ravel()),
        jnp.asarray(typical(fitted.noise)),
        jnp.asarray(typical(fitted.deviation)),
        streams,
    )


def _group(fitted: Fitted, window: Window, shape: tuple[int, ...]) -> Group:
    """A fit in numbers of one step of training, whatever the spacing of the records."""
    decay, low, high = (
        np.asarray(each).reshape(shape) / window.spacing
        for each in (fitted.decay, fitted.low, fitted.high)
    )
    deviation = np.asarray(fitted.deviation).reshape(shape)
    others = {
        "edge": fitted.edge,
        "noise": fitted.noise,
        "autocorrelation": fitted.autocorrelation,
        "streams": fitted.streams,
    }
    return {
        "decay": variable(CELLS, decay, units="1/step"),
        "decay_low": variable(CELLS, low, units="1/step"),
        "decay_high": variable(CELLS, high, units="1/step"),
        "deviation": variable(CELLS, deviation, units="weight"),
        "process_deviation": variable(
            CELLS, deviation * np.sqrt(-np.expm1(-2 * decay)), units="weight"
        ),
        **{name: variable(CELLS, np.reshape(each, shape)) for name, each in others.items()},
    }
