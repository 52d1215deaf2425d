"""What a state-space model is fitted to: one recorded stream a weight, several side by side.

Two kinds. A "gradient" stream is what training itself saw: a gradient of the *summed* loss, the
curvature it is worth, and the weight it was taken at. An "optimum" stream is what an instrument
saw: the coordinate optimum w*(t), measured without or with an error of unknown variance. A missing
step keeps its place and says nothing.
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from bayesfilt.checks import require_one_of

KINDS = ("gradient", "optimum")
CLIPPED_SHARE = 0.02  # of a row's gradients at one same largest magnitude, and at least ...
CLIPPED_COUNT = 4  # ... so many: of honest floating numbers hardly two are ever equal


class StreamWarning(UserWarning):
    """The streams can be fitted, but the model of what was observed is wrong for them."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Streams:
    """What is conditioned on; a row a weight, a column a step.

    Kind "gradient": `observed` holds g of the *summed* minibatch loss, 1/weight; `precision` the
    curvature h >= 0 of the same loss, 1/weight²; `taken_at` the weight. Kind "optimum": `observed`
    holds the optimum, units of a weight; `precision` is 1 and `taken_at` 0, and neither is used.
    What stands where `valid` is False is never looked at. Unchecked, as every pytree here is:
    `check_streams` does that.
    """

    observed: Float[Array, "streams steps"]
    precision: Float[Array, "streams steps"]
    taken_at: Float[Array, "streams steps"]
    valid: Bool[Array, "streams steps"]
    layer: Int[Array, " streams"]  # index into layer_names
    kind: str = dataclasses.field(metadata={"static": True})
    layer_names: tuple[str, ...] = dataclasses.field(metadata={"static": True})


def gradient_streams(
    gradient: ArrayLike,
    precision: ArrayLike,
    taken_at: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    layer: ArrayLike | None = None,
    layer_names: tuple[str, ...] | None = None,
) -> Streams:
    """Streams of gradients; everything [streams, steps], or broadcasting to the gradients.

    Args:
        gradient: g of the *summed* negative log likelihood of a minibatch; 1/weight.
        precision: h >= 0, its curvature, not made from the same gradient; 1/weight².
        taken_at: the weight that each was taken at.
        valid: which steps were observed; None for all.
        layer: each row's layer, an index into `layer_names`; None for one layer.
        layer_names: None for "all", or "layer 0", "layer 1", ...

    Raises:
        ValueError: shapes that do not fit, a layer without a name.
    """
    gradient = jnp.asarray(gradient)
    return _assembled(
        "gradient_streams", "gradient", gradient, precision, taken_at, valid, layer, layer_names
    )


def optimum_streams(
    optimum: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    layer: ArrayLike | None = None,
    layer_names: tuple[str, ...] | None = None,
) -> Streams:
    """Streams of measured optima, [streams, steps], units of a weight; else as `gradient_streams`.

    Raises:
        ValueError: shapes that do not fit, a layer without a name.
    """
    optimum = jnp.asarray(optimum)
    return _assembled("optimum_streams", "optimum", optimum, 1.0, 0.0, valid, layer, layer_names)


def _assembled(owner, kind, observed, precision, taken_at, valid, layer, layer_names) -> Streams:
    """Streams of either kind, every field in the shape of what was observed."""
    if observed.ndim != 2:
        raise ValueError(f"{owner} needs {kind} as [streams, steps], got shape {observed.shape}.")
    fields = {
        "precision": precision,
        "taken_at": taken_at,
        "valid": True if valid is None else valid,
    }
    for name, value in fields.items():
        try:
            fields[name] = jnp.broadcast_to(jnp.asarray(value), observed.shape)
        except ValueError:
            raise ValueError(
                f"{owner} needs {name} of shape {observed.shape}, got {np.shape(value)}."
            ) from None
    layer = jnp.zeros(observed.shape[0], int) if layer is None else jnp.asarray(layer)
    if layer.shape != observed.shape[:1]:
        raise ValueError(f"{owner} needs one layer a row, got shape {layer.shape}.")
    count = int(layer.max()) + 1 if layer.size else 0
    if layer_names is None:
        layer_names = ("all",) if count <= 1 else tuple(f"layer {i}" for i in range(count))
    if count > len(layer_names) or (layer.size and int(layer.min()) < 0):
        raise ValueError(f"{owner} needs a name for every layer, got {count} and {layer_names}.")
    return Streams(
        observed=observed,
        precision=fields["precision"].astype(observed.dtype),
        taken_at=fields["taken_at"].astype(observed.dtype),
        valid=fields["valid"].astype(bool),
        layer=layer,
        kind=kind,
        layer_names=tuple(layer_names),
    )


def check_streams(streams: Streams, *, clipped: bool | None = None) -> tuple[Streams, list[str]]:
    """Float64 streams that can be fitted, and what was done to them, in words.

    Rows that say nothing are left out: fewer than two valid steps, or one same value at all of
    them. Where a step is not valid its numbers are set to 0.

    Args:
        streams: concrete.
        clipped: whether the run that was recorded clipped its gradients; None if not known.

    Raises:
        ValueError: NaN or infinity where valid, a negative precision, a precision that is the
            gradient squared, no stream or none left, fewer than 2 steps, 64-bit numbers off.
    """
    owner = "check_streams"
    require_one_of(owner, "kind", streams.kind, KINDS)
    if not jax.config.jax_enable_x64:
        raise ValueError(
            f"{owner} needs float64, which is switched off: call "
            f'jax.config.update("jax_enable_x64", True) before the first array is made.'
        )
    notes = []
    if streams.observed.dtype != jnp.float64:
        notes.append(
            f"Recorded in {streams.observed.dtype}, converted to float64: "
            f"what the record has lost stays lost."
        )
    observed, precision, taken_at = (
        np.asarray(field, np.float64)
        for field in (streams.observed, streams.precision, streams.taken_at)
    )
    valid, layer = np.asarray(streams.valid), np.asarray(streams.layer)
    _require_numbers(owner, streams.kind, observed, precision, taken_at, valid)
    observed, precision, taken_at = (
        np.where(valid, field, 0.0) for field in (observed, precision, taken_at)
    )
    if streams.kind == "gradient":
        _warn_if_clipped(observed, valid, clipped)
    kept = _speaking_rows(owner, streams, observed, precision, valid, notes)
    if kept.sum() == 1:
        notes.append("One stream: a hierarchy has nothing to pool, its spread is the prior's.")
    checked = Streams(
        observed=jnp.asarray(observed[kept]),
        precision=jnp.asarray(precision[kept]),
        taken_at=jnp.asarray(taken_at[kept]),
        valid=jnp.asarray(valid[kept]),
        layer=jnp.asarray(layer[kept]),
        kind=streams.kind,
        layer_names=streams.layer_names,
    )
    return checked, notes


def _require_numbers(owner, kind, observed, precision, taken_at, valid) -> None:
    """Refuse shapes and numbers that no model can be asked about."""
    rows, steps = observed.shape
    if rows == 0:
        raise ValueError(f"{owner} needs at least one stream, got none.")
    if steps < 2:
        raise ValueError(f"{owner} needs at least 2 steps, got {steps}.")
    if not valid.any():
        raise ValueError(
            f"{owner} needs a valid step, got {rows} streams of {steps} steps, none valid."
        )
    named = {"observed": observed, "precision": precision, "taken_at": taken_at}
    for name, field in named.items():
        bad = int((valid & ~np.isfinite(field)).sum())
        if bad:
            raise ValueError(
                f"{owner} needs finite {name} wherever valid, got {bad} of {int(valid.sum())} "
                f"that are NaN or infinite: mark them as not valid."
            )
    if kind == "gradient":
        lowest = precision[valid].min()
        if lowest < 0:
            raise ValueError(
                f"{owner} needs precision >= 0, got {lowest:g}: where the curvature is negative "
                f"there is no optimum; mark the step as not valid."
            )
        seen = valid & (precision > 0)
        if seen.any() and np.allclose(precision[seen], observed[seen] ** 2, rtol=1e-6, atol=0):
            raise ValueError(
                f"{owner} needs a precision that does not contain its own gradient, got "
                f"gradient**2 on every valid step: a likelihood is not defined for it."
            )


def _warn_if_clipped(gradient, valid, clipped: bool | None) -> None:
    """Warn where many gradients of a row stand at one same largest magnitude."""
    size = np.where(valid, np.abs(gradient), 0.0)
    largest = size.max(axis=1, keepdims=True)
    at_largest = ((size >= largest * (1 - 1e-6)) & (largest > 0) & valid).sum(axis=1)
    cut = (at_largest >= CLIPPED_COUNT) & (at_largest >= CLIPPED_SHARE * valid.sum(axis=1))
    # A row of one same magnitude throughout is no clipped Gaussian: it is constant, or a sign.
    why = "the run clipped its gradients" if clipped else None
    if why is None and cut.any():
        why = f"{int(cut.sum())} of {len(cut)} streams pile up at one same largest magnitude"
    if why:
        warnings.warn(
            f"The gradients look clipped ({why}): the observation model is wrong for them, "
            f"and what is inferred of noise and drift with it.",
            StreamWarning,
            stacklevel=3,
        )


def _speaking_rows(owner, streams, observed, precision, valid, notes) -> np.ndarray:
    """Which rows say anything; a note names those that do not."""
    seen = valid & (precision > 0) if streams.kind == "gradient" else valid
    few = seen.sum(axis=1) < 2
    high = np.where(seen, observed, -np.inf).max(axis=1)
    low = np.where(seen, observed, np.inf).min(axis=1)
    constant = ~few & (high == low)

    def names(rows) -> str:
        found = np.flatnonzero(rows)
        label = [f"{i} ({streams.layer_names[int(streams.layer[i])]})" for i in found[:8]]
        return ", ".join(label) + (", ..." if len(found) > 8 else "")

    for rows, what in ((few, "fewer than 2 valid steps"), (constant, "one same value throughout")):
        if rows.any() and not rows.all():
            notes.append(
                f"Left out, {what}: {int(rows.sum())} of {len(rows)} streams, {names(rows)}."
            )
    if (few | constant).all():
        raise ValueError(
            f"{owner} needs a stream that moves, got {len(few)}: {int(constant.sum())} constant, "
            f"{int(few.sum())} with fewer than 2 valid steps."
        )
    return ~(few | constant)
