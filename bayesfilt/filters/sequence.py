"""Run a filter over a recorded stream of gradients: beliefs, innovations, log likelihood.

Time runs like this: the belief handed in is held *before* the first gradient, and each step
first conditions on its gradient and then predicts the next step. So `last` is the belief
before the gradient that would come next, and a stream cut in two gives what the whole gives.

A step where `valid` is False was not observed: the belief only drifts, and whatever is
recorded there, NaN included, is not looked at, in the gradients of the likelihood either.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree

from bayesfilt.checks import require_one_of, require_semidefinite
from bayesfilt.filters.belief import AnyBelief, Filter, Innovation
from bayesfilt.filters.diagonal import leaf_shapes


class GradientStream(NamedTuple):
    """Recorded gradients; every leaf has a leading axis of steps.

    `gradient` is of the *summed* negative log likelihood and `precision` what each gradient is
    worth, h >= 0: trees shaped like the weights (a precision of 0 says that this one weight
    was not observed); for the full filter the precision is one array of matrices, [steps, n, n]
    over the raveled weights. `taken_at` holds the weights the gradients were taken at; None means
    that each was taken at the filter's own predicted mean, which is so only if the filter
    was the one that trained. `valid` says which steps were observed.
    """

    gradient: PyTree[Float[Array, "steps ..."]]
    precision: PyTree[Float[Array, "steps ..."]]
    taken_at: PyTree[Float[Array, "steps ..."]] | None
    valid: Bool[Array, " steps"]


class FilteredStream(NamedTuple):
    """What a filter made of a stream.

    `last` is the belief before the gradient after the end. The others have a leading axis of
    steps, or are None where only the last belief was kept: `predicted` before each gradient,
    `conditioned` after it, `innovation` between the two (0 and variance 0 where missing).
    """

    last: AnyBelief
    predicted: AnyBelief | None
    conditioned: AnyBelief | None
    innovation: Innovation | None


def filter_stream(
    filter: Filter, belief: AnyBelief, stream: GradientStream, *, keep: str = "all"
) -> FilteredStream:
    """Condition and predict along a stream, one `lax.scan`; vmap over any argument.

    Args:
        filter: any `Filter`; a new one of the same kind compiles nothing.
        belief: held before the first gradient, as `filter.init` gives it.
        stream: of any length, 0 included.
        keep: "all" beliefs and innovations, or the "last" belief only: memory is then that
            of the stream, whatever its length.

    Raises:
        ValueError: a stream whose leaves disagree about the steps, do not fit the belief, are
            of a wider floating type than it, or whose (concrete) precision is negative.
    """
    require_one_of("filter_stream", "keep", keep, ("all", "last"))
    stream = _checked("filter_stream", stream)
    last, kept = _scan_beliefs(filter, belief, stream, keep == "all")
    predicted, conditioned, innovation = kept
    return FilteredStream(
        last=last, predicted=predicted, conditioned=conditioned, innovation=innovation
    )


def stream_log_likelihood(
    filter: Filter, belief: AnyBelief, stream: GradientStream, *, precision_from: str
) -> Float[Array, ""]:
    """Log likelihood of a stream's gradients under a filter, in nats, in float64 [KF-6].

    The sum over steps and weights of each gradient's log density given all earlier ones. It is
    summed in float64 whatever the stream's type, because in float32 a long stream loses tenths
    of a nat; the beliefs keep their own type. Differentiable in the filter's numbers.

    Args:
        filter: any `Filter`.
        belief: held before the first gradient.
        stream: whose precision must not be made from the gradients it is given for.
        precision_from: where the precision comes from. "curvature": it is independent of the
            gradient of its own step (a known or separately measured curvature).
            "same_gradient" (g², what the optimizers use) is refused: then h is part of what
            is observed, g ~ N(., h) is no density of g, and models cannot be compared by it.

    Raises:
        ValueError: precision_from="same_gradient" or unknown; a concrete stream whose precision
            is its gradient squared on every valid step; 64-bit numbers are switched off; and
            what `filter_stream` refuses.
    """
    owner = "stream_log_likelihood"
    require_one_of(owner, "precision_from", precision_from, ("curvature", "same_gradient"))
    if precision_from == "same_gradient":
        raise ValueError(
            f"{owner} needs a precision that does not contain its own gradient, got "
            f"precision_from='same_gradient': a likelihood is not defined for it."
        )
    if not jax.config.jax_enable_x64:
        raise ValueError(
            f"{owner} needs float64, which is switched off: call "
            f'jax.config.update("jax_enable_x64", True) before the first array is made.'
        )
    stream = _checked(owner, stream)
    _require_independent_precision(owner, stream)
    return _scan_log_likelihood(filter, belief, stream)


@functools.partial(jax.jit, static_argnums=3)
def _scan_beliefs(filter: Filter, belief: AnyBelief, stream: GradientStream, keep_all: bool):
    """Scan that `filter_stream` runs: the last belief, and what is kept of each step."""
    _require_steady_types(filter, belief, stream)

    def step(predicted: AnyBelief, recorded: GradientStream):
        observed = _observed(recorded)
        conditioned = filter.condition(predicted, *observed)
        kept = (None, None, None)
        if keep_all:
            kept = (predicted, conditioned, filter.innovation(predicted, *observed))
        return filter.predict(conditioned), kept

    return jax.lax.scan(step, belief, stream)


@jax.jit
def _scan_log_likelihood(filter: Filter, belief: AnyBelief, stream: GradientStream):
    """Scan that `stream_log_likelihood` runs: a float64 total per weight, summed at the end."""
    _require_steady_types(filter, belief, stream)

    def score(predicted: AnyBelief, recorded: GradientStream):
        terms = filter.log_density(filter.innovation(predicted, *_observed(recorded)))
        return jax.tree.map(lambda term: term.astype(jnp.float64), terms)

    def step(carry: tuple[AnyBelief, PyTree], recorded: GradientStream):
        predicted, total = carry
        total = jax.tree.map(jnp.add, total, score(predicted, recorded))
        return (filter.predict(filter.condition(predicted, *_observed(recorded))), total), None

    # Not one total for all weights: adding them up at every step would be a serial sum.
    shapes = jax.eval_shape(score, belief, _one_step(stream))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (_, total), _ = jax.lax.scan(step, (belief, zeros), stream)
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(total)), jnp.zeros((), jnp.float64))


def _observed(recorded: GradientStream) -> tuple[PyTree, PyTree, PyTree | None]:
    """Gradient, precision and place of one step; if it is missing, zeros, worth nothing.

    Zeros go in and no belief is selected afterwards: NaN in a branch that is not taken would
    still reach the derivatives.
    """

    def hide(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.where(recorded.valid, leaf, 0), tree)

    return hide(recorded.gradient), hide(recorded.precision), hide(recorded.taken_at)


def _one_step(stream: GradientStream) -> GradientStream:
    """Shapes and types of a single step, for a trace without numbers."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stream)


def _checked(owner: str, stream: GradientStream) -> GradientStream:
    """Return the stream as JAX arrays; refuse one that does not agree with itself."""
    stream = jax.tree.map(_as_array, stream)
    if stream.valid.ndim != 1 or stream.valid.dtype != jnp.bool_:
        raise ValueError(
            f"{owner} needs valid to be one boolean per step, "
            f"got {stream.valid.dtype} of shape {stream.valid.shape}."
        )
    steps = stream.valid.shape[0]
    for name in ("gradient", "precision", "taken_at"):
        for leaf in jax.tree.leaves(getattr(stream, name)):
            if leaf.shape[:1] != (steps,):
                raise ValueError(
                    f"{owner} needs a {name} for each of the {steps} steps in valid, "
                    f"got a leaf of shape {leaf.shape}."
                )
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(f"{owner} needs a floating {name}, got {leaf.dtype}.")
    if _is_concrete(stream) and _holds_matrices(stream):
        with jax.ensure_compile_time_eval():
            matrices = _finite_matrices(stream.precision, stream.valid)
        require_semidefinite(owner, "precision", matrices)
    elif _is_concrete(stream) and leaf_shapes(stream.precision) == leaf_shapes(stream.gradient):
        for leaf in jax.tree.leaves(stream.precision):
            with jax.ensure_compile_time_eval():
                lowest = float(_lowest(leaf, stream.valid))
            if lowest < 0:
                raise ValueError(f"{owner} needs precision >= 0, got {lowest:g}.")
    return stream


def _require_steady_types(filter: Filter, belief: AnyBelief, stream: GradientStream) -> None:
    """Refuse a stream that would change the belief's types; seen while tracing only."""

    def step(predicted: AnyBelief, recorded: GradientStream) -> AnyBelief:
        return filter.predict(filter.condition(predicted, *_observed(recorded)))

    after = jax.eval_shape(step, belief, _one_step(stream))
    for old, new in zip(jax.tree.leaves(belief), jax.tree.leaves(after), strict=True):
        if old.dtype != new.dtype:
            raise ValueError(
                f"A stream must not be wider than the belief it meets: a belief of {old.dtype} "
                f"would become {new.dtype}; cast one of them."
            )


def _require_independent_precision(owner: str, stream: GradientStream) -> None:
    """Refuse a concrete stream whose precision is g² wherever it was observed."""
    if not _is_concrete(stream):
        return
    with jax.ensure_compile_time_eval():
        if _holds_matrices(stream):
            squares = _outer_squares(stream)
        else:
            squares = jax.tree.map(jnp.square, stream.gradient)
        if leaf_shapes(squares) != leaf_shapes(stream.precision):
            return  # no filter will take it
        same = bool(_is_everywhere(squares, stream.precision, stream.valid))
    if same:
        raise ValueError(
            f"{owner} needs a precision that does not contain its own gradient, got "
            f"gradient**2 on every valid step: a likelihood is not defined for it."
        )


@jax.jit
def _lowest(precision: Array, valid: Array) -> Array:
    """Lowest precision of the valid steps, or 0 where none is negative."""
    return jnp.min(jnp.where(_beside(valid, precision) & (precision < 0), precision, 0), initial=0)


@jax.jit
def _is_everywhere(squares: PyTree, precision: PyTree, valid: Array) -> Array:
    """Whether every valid precision is its square, up to rounding, and not all are 0."""
    same, seen = jnp.array(True), jnp.array(False)
    for square, leaf in zip(jax.tree.leaves(squares), jax.tree.leaves(precision), strict=True):
        rounding = jnp.finfo(leaf.dtype)
        square = square.astype(leaf.dtype)
        close = jnp.abs(leaf - square) <= 4 * rounding.eps * jnp.abs(square) + rounding.tiny
        shown = _beside(valid, leaf)
        same &= jnp.all(close | (leaf == square) | ~shown)  # the second for inf
        seen |= jnp.any(shown & (leaf > 0))
    return same & seen


def _holds_matrices(stream: GradientStream) -> bool:
    """Whether the precision is one matrix over the raveled weights for each step."""
    steps = stream.valid.shape[0]
    weights = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(stream.gradient))
    return isinstance(stream.precision, Array) and stream.precision.shape == (
        steps,
        weights,
        weights,
    )


@jax.jit
def _outer_squares(stream: GradientStream) -> Array:
    """The precision g gᵀ of each step, as the optimizers have it."""
    leaves = jax.tree.leaves(stream.gradient)
    flat = [leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:])) for leaf in leaves]
    gradient = jnp.concatenate(flat, axis=1)
    return gradient[:, :, None] * gradient[:, None, :]


@jax.jit
def _finite_matrices(precision: Array, valid: Array) -> Array:
    """Precisions that were seen, or 0; one that is not finite is a failure, and shows later."""
    finite = jnp.all(jnp.isfinite(precision), axis=(1, 2))
    return jnp.where(_beside(valid & finite, precision), precision, 0)


def _beside(valid: Array, leaf: Array) -> Array:
    """`valid` with as many axes as a leaf of the stream."""
    return valid.reshape(valid.shape + (1,) * (leaf.ndim - 1))


def _as_array(leaf: Any) -> Array:
    """JAX array of a leaf, now: inside jit, `asarray` would hide a known number from checks."""
    if isinstance(leaf, Tracer):
        return leaf
    with jax.ensure_compile_time_eval():
        return jnp.asarray(leaf)


def _is_concrete(tree: Any) -> bool:
    """Whether every number is known now, and not first when a compiled program runs."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
