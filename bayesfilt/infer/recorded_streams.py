"""From what was recorded of a run to what a model is fitted to."""

import hashlib
import math
import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from bayesfilt.checks import require_one_of
from bayesfilt.compare.streams import StreamRecord, needed
from bayesfilt.infer.streams import (
    Streams,
    StreamWarning,
    check_streams,
    gradient_streams,
    optimum_streams,
)

KINDS = ("optimum", "gradient")
NEEDS = {"optimum": ("optimum", "optimum_valid"), "gradient": ("gradient", "curvature")}


class RecordedStreams(NamedTuple):
    """Streams of one run, unchecked, and where each of them is from."""

    streams: Streams
    step: Int[np.ndarray, " steps"]  # of the run, for each column
    weight: tuple[str, ...]  # place of each stream's weight among all of them
    learning_rate: float | None
    weight_decay: float | None
    clipped: bool | None


def recorded_streams(record: StreamRecord, kind: str = "optimum") -> RecordedStreams:
    """Streams of a kind, as recorded.

    A gradient's precision is the Gauss-Newton curvature, which is never negative, or where that was
    not recorded the exact one; where it is not positive a step is not valid. After a run
    diverged none is.

    Raises:
        ValueError: an unknown kind, or streams without what it needs: says how to record it.
    """
    owner = "recorded_streams"
    require_one_of(owner, "kind", kind, KINDS)
    if kind == "optimum":
        optimum, found = needed(record, owner, *NEEDS[kind])
        valid = found.astype(bool) & np.isfinite(optimum)
        streams = optimum_streams(
            optimum.T, valid=valid.T, layer=record.layer, layer_names=record.layer_names
        )
    else:
        streams = _gradients(owner, record)
    return RecordedStreams(
        streams=streams,
        step=record.step,
        weight=tuple(str(place) for place in record.index),
        learning_rate=_number(record.settings.get("learning_rate")),
        weight_decay=_decoupled_decay(record.settings),
        clipped=record.clipped,
    )


def _gradients(owner: str, record: StreamRecord) -> Streams:
    if record.ggn is not None and record.gradient is not None:
        gradient, curvature = record.gradient, record.ggn
    else:
        gradient, curvature = needed(record, owner, *NEEDS["gradient"])
    valid = np.isfinite(gradient) & np.isfinite(curvature) & (curvature > 0)
    return gradient_streams(
        gradient.T,
        np.where(valid, curvature, 0).T,
        record.weight.T,
        valid=valid.T,
        layer=record.layer,
        layer_names=record.layer_names,
    )


def of_layers(recorded: RecordedStreams, layers: tuple[str, ...]) -> RecordedStreams:
    """Only the streams of these layers.

    Raises:
        ValueError: a layer that was not recorded; the nearest are offered.
    """
    names = recorded.streams.layer_names
    for layer in layers:
        require_one_of("of_layers", "layer", layer, names)
    wanted = np.isin([names[index] for index in np.asarray(recorded.streams.layer)], layers)
    return _with_rows(recorded, wanted)


def ready_streams(recorded: RecordedStreams, num_steps: int) -> tuple[RecordedStreams, list[str]]:
    """Float64 streams that move at least twice within the first `num_steps`, and notes in words.

    A stream that says nothing there could not be fitted before it is foretold.

    Raises:
        ValueError: what `check_streams` refuses, or no stream is left.
    """
    able, notes = check_streams(recorded.streams, clipped=recorded.clipped)
    kept = _those_that_move(recorded.streams, num_steps)
    lost = able.observed.shape[0] - int(kept.sum())
    if lost:
        notes.append(f"Left out, nothing to see in the first {num_steps} steps: {lost} more.")
    usable = _with_rows(recorded, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StreamWarning)  # it was given just before
        streams, _ = check_streams(usable.streams, clipped=recorded.clipped)
    return _with_streams(usable, streams, usable.weight), notes


def _those_that_move(streams: Streams, num_steps: int) -> Bool[np.ndarray, " streams"]:
    """Which streams have two different values among the first steps."""
    seen = np.asarray(streams.valid)[:, :num_steps]
    observed = np.asarray(streams.observed)[:, :num_steps]
    high = np.where(seen, observed, -np.inf).max(axis=1)
    low = np.where(seen, observed, np.inf).min(axis=1)
    kept = (seen.sum(axis=1) >= 2) & (high > low)
    if not kept.any():
        raise ValueError(
            f"ready_streams needs a stream that moves within the first {num_steps} steps, got"
            f" {len(kept)} streams with {int(seen.sum())} valid steps there."
        )
    return kept


def fingerprint(streams: Streams) -> str:
    """SHA-256 of every number of the streams: whether two inferences are of the same data."""
    content = hashlib.sha256()
    for array in (streams.observed, streams.precision, streams.taken_at, streams.valid):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _with_rows(recorded: RecordedStreams, kept: Bool[np.ndarray, " streams"]) -> RecordedStreams:
    """Some of the streams, and only the layers that they are of."""
    streams = recorded.streams
    layer = np.asarray(streams.layer)[kept]
    used = np.unique(layer)
    rows = Streams(
        observed=streams.observed[kept],
        precision=streams.precision[kept],
        taken_at=streams.taken_at[kept],
        valid=streams.valid[kept],
        layer=jnp.asarray(np.searchsorted(used, layer)),
        kind=streams.kind,
        layer_names=tuple(streams.layer_names[index] for index in used),
    )
    weight = tuple(str(name) for name in np.array(recorded.weight)[kept])
    return _with_streams(recorded, rows, weight)


def _with_streams(
    recorded: RecordedStreams, streams: Streams, weight: tuple[str, ...]
) -> RecordedStreams:
    return RecordedStreams(
        streams=streams,
        step=recorded.step,
        weight=weight,
        learning_rate=recorded.learning_rate,
        weight_decay=recorded.weight_decay,
        clipped=recorded.clipped,
    )


def _decoupled_decay(settings: dict[str, object]) -> float | None:
    """The weight decay that was set; 0 where the optimizer has none of its own, or L2 instead."""
    if settings.get("decay") in ("none", "l2"):
        return 0.0
    return _number(settings.get("weight_decay"))


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
