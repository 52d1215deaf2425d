"""Streams: what was recorded of chosen weights at every step of a window, and as a file.

`infer` conditions on them; the numbers of `stream_numbers` are read off them.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesfilt.checks import require_one_of
from bayesfilt.records import Group, Record, variable
from bayesfilt.simulate import NEVER

# What can be recorded beside the weights themselves: name -> (units, description).
FIELDS: dict[str, tuple[str, str]] = {
    "gradient": ("1/weight", "gradient of the summed loss of the step's own minibatch"),
    "curvature": ("1/weight^2", "exact Hessian diagonal of the summed minibatch loss"),
    "ggn": ("1/weight^2", "Gauss-Newton diagonal of the summed minibatch loss"),
    "noise_variance": ("1/weight^2", "variance of the summed gradient between minibatches"),
    "optimum": ("weight", "coordinate optimum given all other weights; NaN: not valid"),
    "optimum_curvature": ("1/weight^2", "curvature at the optimum; NaN: not valid"),
    "optimum_valid": ("1", "found inside the trust region, where the curvature is positive"),
    "posterior_variance": ("weight^2", "the optimizer's variance after the step's gradient"),
    "gradient_norm": ("1/weight", "length of the whole mean gradient"),
    "loss": ("nats", "mean loss of the minibatch, before the step"),
}
_OF_A_STEP = ("gradient_norm", "loss")  # one number a step; the others have one a weight


# An array, or None where it was not recorded; `needed` gives arrays.
type Field = Any


class StreamRecord(NamedTuple):
    """Chosen weights at every step of a window; None where a field was not recorded.

    Arrays are [steps, weights] but where said, and in the dtype of the run. Gradients, curvatures
    and variances are of the *summed* minibatch loss. After a run diverged numbers are NaN.
    """

    step: np.ndarray  # [steps]: of training, 0 for the first
    weight: np.ndarray  # before the step: where the gradient was taken
    gradient: Field
    curvature: Field
    ggn: Field
    noise_variance: Field
    optimum: Field  # NaN where not valid
    optimum_curvature: Field
    optimum_valid: Field
    posterior_variance: Field  # after the step's gradient
    gradient_norm: Field  # [steps], of the whole *mean* gradient
    loss: Field  # [steps]
    layer: np.ndarray  # [weights], index into layer_names
    layer_names: tuple[str, ...]
    # [weights], place in the raveled tree
    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    batch_size: int
    diverged_at: int  # -1: did not
    settings: dict[str, Any]  # the caller's: learning_rate, weight_decay, ...
    clipped: bool | None  # whether gradients were clipped before the optimizer; None: not said


def needed(streams: StreamRecord, owner: str, *names: str) -> tuple[np.ndarray, ...]:
    """These fields, none of them None.

    Raises:
        ValueError: One was not recorded; says which, and how to record it.
    """
    missing = [name for name in names if getattr(streams, name) is None]
    if missing:
        raise ValueError(
            f"{owner} needs recorded {', '.join(names)}, got streams without"
            f" {', '.join(missing)}: {how_to_record(*missing)}."
        )
    return tuple(getattr(streams, name) for name in names)


def how_to_record(*names: str) -> str:
    """What to call so that these fields are there, in words."""
    asked = sorted({"optimum" if name.startswith("optimum") else name for name in names})
    listed = ", ".join(f"{name!r}" for name in asked)
    return f"record them with bayesfilt.compare.record_streams(..., which=({listed},))"


def streams_to_record(streams: StreamRecord) -> Record:
    """Streams as a `Record` with one group "streams", for `write_record`."""
    return Record(
        groups={"streams": _group(streams)},
        attributes={
            "streams": {
                "batch_size": streams.batch_size,
                "diverged_at": streams.diverged_at,
                "dtype": str(streams.weight.dtype),
                "settings": streams.settings,
                "clipped": streams.clipped,
                "layer_names": list(streams.layer_names),
            }
        },
    )


def streams_from_record(record: Record, *, needs: tuple[str, ...] = ()) -> StreamRecord:
    """The streams in a record, as written by `streams_to_record`.

    Args:
        record: From `read_record`.
        needs: Fields that must be there.

    Raises:
        ValueError: No streams in the record, or a field of `needs` was not recorded: says which,
            and how to record it.
    """
    owner = "streams_from_record"
    for name in needs:
        require_one_of(owner, "fields", name, FIELDS)
    group, facts = record.groups.get("streams"), record.attributes.get("streams")
    if group is None or facts is None:
        found = ", ".join(record.groups) or "no group"
        raise ValueError(
            f"{owner} needs a record with streams, got one with {found}:"
            f" {how_to_record(*(needs or ('gradient', 'optimum')))}."
        )
    absent = [name for name in ("step", "weight", "layer", "index") if name not in group]
    if absent:
        raise ValueError(f"{owner} needs whole streams, got some without {', '.join(absent)}.")
    streams = StreamRecord(
        step=group["step"].values,
        weight=group["weight"].values,
        layer=group["layer"].values,
        index=group["index"].values,
        layer_names=tuple(facts["layer_names"]),
        batch_size=int(facts["batch_size"]),
        diverged_at=int(facts["diverged_at"]),
        settings=dict(facts["settings"]),
        clipped=facts["clipped"],
        **{name: group[name].values if name in group else None for name in FIELDS},
    )
    needed(streams, owner, *needs)
    return streams


def streams_from_trajectory(
    records: dict[str, Any],
    *,
    chosen: Any,
    batch_size: int,
    diverged_at: int = NEVER,
    settings: dict[str, Any] | None = None,
    clipped: bool | None = None,
    step: Any = None,
) -> StreamRecord:
    """Streams from the records that `stream_probes` left in one run; use it where you simulate.

    Args:
        records: name -> [steps, ...], a `Trajectory`'s.
        chosen: The `ChosenWeights` that the probes were made with.
        batch_size: The task's.
        diverged_at: The trajectory's.
        settings: Of the optimizer, for the reader: numbers and words.
        clipped: Whether gradients were clipped before the optimizer saw them.
        step: [steps]; by default 0, 1, 2, ...
    """
    found: dict[str, Any] = {name: records[name] for name in FIELDS if name in records}
    if "optimum" in records:
        optimum = records["optimum"]
        found["optimum"] = np.asarray(optimum.optimum)
        found["optimum_curvature"] = optimum.optimum_curvature
        found["optimum_valid"] = np.asarray(optimum.valid) & np.isfinite(found["optimum"])
        found["curvature"] = optimum.curvature
    arrays = {name: np.asarray(found[name]) if name in found else None for name in FIELDS}
    weight = np.asarray(records["weight"])
    return StreamRecord(
        step=np.arange(len(weight)) if step is None else np.asarray(step),
        weight=weight,
        layer=chosen.layer,
        layer_names=chosen.layer_names,
        index=chosen.index,
        batch_size=batch_size,
        diverged_at=int(diverged_at),
        settings={} if settings is None else dict(settings),
        clipped=clipped,
        **arrays,
    )


def _group(streams: StreamRecord) -> Group:
    both = ("step", "weight_place")
    group: Group = {
        "step": variable(
            "step", streams.step, units="steps", description="training step, 0 for the first"
        ),
        "weight": variable(both, streams.weight, units="weight", description="before the step"),
        "layer": variable(
            "weight_place", streams.layer, units="1", description="index into layer_names"
        ),
        "index": variable(
            "weight_place", streams.index, units="1", description="place in the raveled weights"
        ),
    }
    for name, (units, description) in FIELDS.items():
        values = getattr(streams, name)
        if values is not None:
            dims = ("step",) if name in _OF_A_STEP else both
            group[name] = variable(dims, values, units=units, description=description)
    return group
