"""Whether decay happens: the shrink an optimizer intends against the one its arithmetic makes.

In float32 a shrink of 1e-8 is lost and one of 1e-7 comes out a fifth too large wherever it acts
alone: the numbers near 1 are 6e-8 apart. Comparisons of decay are worth what this says. The
remedy is `bayesfilt.optimizers.compensated`, or float64.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float

from bayesfilt.checks import require_at_least
from bayesfilt.compare.layers import flat
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.compensated import full_weights
from bayesfilt.optimizers.dtypes import scalar_dtype
from bayesfilt.optimizers.parts import PartsOf
from bayesfilt.optimizers.weight_decay import DecayToZeroState
from bayesfilt.optimizers.zoo import NamedOptimizer
from bayesfilt.tasks.task import float_dtype

# Per-step shrink that an optimizer means: a number, or read off its state after the step.
Intended = float | Callable[[Any], Float[Array, ""]]

# Decay that comes out within these of what was meant, relative to it, is said to happen.
HONEST_DECAY = (0.98, 1.02)
# A study's run on zero gradients takes about so many steps of single weights, but at least some.
_MOST_DECAYED_WEIGHTS = 20_000_000
_LEAST_DECAY_STEPS = 100


class DecayWarning(UserWarning):
    """Rounding loses or inflates the decay of weights that have no gradient."""


class DecayKept(NamedTuple):
    """Decay of weights without gradients; shrinks are per step, log(before/after)/steps."""

    intended: float
    realised: float  # mean over the weights

    @property
    def kept(self) -> float:
        """Realised over intended: 1 if decay happens as meant; NaN where none was."""
        return self.realised / self.intended if self.intended > 0 else float("nan")


def realised_shrink(
    optimizer: optax.GradientTransformation,
    updates: Params,
    gradient: Params,
    opt_state: Any,
    params: Params,
    value: Float[Array, ""],
) -> Float[Array, ""]:
    r"""Shrink inside one step of a run, $-\langle u(w) - u(0), w\rangle / |w|^2$ [CMP-4].

    An update with decoupled decay is affine in the weights, so what changes when the same step
    is taken from w = 0 is the decay and nothing else. Of an optimizer that uses its weights in
    other ways it is the part of that along the weights. 0 at w = 0.

    Args:
        optimizer: The one that made the updates.
        updates: u(w), which it proposed at `params`.
        gradient: What it was given.
        opt_state: Its state *before* that step.
        params: w.
        value: The loss it was given.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    at_zero, _ = optimizer.update(
        gradient, opt_state, jax.tree.map(jnp.zeros_like, params), value=value
    )
    change, weights = flat(updates) - flat(at_zero), flat(params)
    square = jnp.sum(jnp.square(weights))
    along = -jnp.sum(change * weights)
    return jnp.where(square == 0, 0, along / jnp.where(square == 0, 1, square))


def stated_shrink(parts_of: PartsOf | None) -> Callable[[Any], Float[Array, ""]]:
    """How to read the shrink that an optimizer means off its state; NaN where it does not say."""

    def read(opt_state: Any) -> Float[Array, ""]:
        if parts_of is not None:
            return parts_of(opt_state).shrink
        try:
            return only_state(DecayToZeroState, opt_state).shrink
        except ValueError:  # somebody else's optimizer
            return jnp.full((), jnp.nan)

    return read


def states_shrink(optimizer: NamedOptimizer, params: Params) -> bool:
    """Whether `stated_shrink` has anything to read."""
    try:
        only_state(DecayToZeroState, jax.eval_shape(optimizer.optimizer.init, params))
    except ValueError:
        return optimizer.parts is not None
    return True


def binade_like(params: Params, dtype: DTypeLike) -> Params:
    """A tree like the weights whose numbers fill one binade, where rounding has every phase."""

    def fill(leaf):
        return jnp.linspace(0.5, 1.0, leaf.size, endpoint=False, dtype=dtype).reshape(leaf.shape)

    return jax.tree.map(fill, params)


def measure_decay_kept(
    optimizer: optax.GradientTransformation,
    intended: Intended,
    *,
    dtype: DTypeLike,
    num_steps: int,
    weights: Params | None = None,
) -> DecayKept:
    """Run an optimizer on zero gradients, where all it does is decay, and see what is left.

    Args:
        optimizer: Any optax transformation.
        intended: Shrink per step that it means, a number or a reader of its state
            (`stated_shrink`).
        dtype: Of the weights: "float32", "bfloat16", "float64".
        num_steps: Steps to take; the total decay should be well above one rounding.
        weights: A tree of where to start; by default 256 numbers that fill [1/2, 1).

    Warns:
        DecayWarning: in a type below float64, less than 98 % or more than 102 % was kept.

    Raises:
        ValueError: `num_steps` below 1, a dtype that is not floating or needs x64.
    """
    require_at_least("measure_decay_kept", "num_steps", num_steps, 1)
    kind = float_dtype("measure_decay_kept", dtype)
    if weights is None:
        start = binade_like(np.zeros(256), kind)
    else:
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), weights)
    end, meant = jax.jit(lambda start: decayed(optimizer, intended, start, num_steps))(start)
    found = kept_between(start, end, meant, num_steps)
    complaint = decay_complaint({"the optimizer": found.kept}, kind.name)
    # In float64 it is not rounding that changes a decay, but what was intended.
    if complaint is not None and kind != np.float64:
        warnings.warn(complaint, DecayWarning, stacklevel=2)
    return found


def decay_complaint(kept: Mapping[str, float | None], dtype: str) -> str | None:
    """One line on whose decay rounding changes, and the remedy; None where nobody's.

    Args:
        kept: Realised over intended decay by optimizer; None or NaN: not available.
        dtype: Of the weights that were measured.
    """
    low, high = HONEST_DECAY
    changed = [
        f"{name} keeps {fraction:.1%}"
        for name, fraction in kept.items()
        if fraction is not None and not math.isnan(fraction) and not low <= fraction <= high
    ]
    if not changed:
        return None
    return (
        f"Rounding to {dtype} changes the decay of weights without gradients:"
        f" {', '.join(changed)}. Remedy: bayesfilt.optimizers.compensated(optimizer), or float64."
    )


def decay_kept_of_all(
    optimizers: Mapping[str, NamedOptimizer],
    params: Params,
    num_steps: int,
    *,
    dtype: DTypeLike = "float32",
) -> np.ndarray:
    """Fraction of everyone's decay that such weights keep on zero gradients; NaN: not available.

    Args:
        optimizers: By name; who states no shrink gets NaN.
        params: Weights whose shapes are taken; their values are a full binade.
        num_steps: Steps to take at most; fewer where there are many weights.
        dtype: Of the weights, whatever that of `params` is.
    """
    start = binade_like(params, dtype)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    length = min(num_steps, max(_LEAST_DECAY_STEPS, _MOST_DECAYED_WEIGHTS // size))
    stating = {name: each for name, each in optimizers.items() if states_shrink(each, start)}

    @jax.jit
    def run(start):
        return {
            name: decayed(each.optimizer, stated_shrink(each.parts), start, length)
            for name, each in stating.items()
        }

    kept = {
        name: kept_between(start, end, meant, length).kept
        for name, (end, meant) in run(start).items()
    }
    return np.array([kept.get(name, np.nan) for name in optimizers])


def decayed(
    optimizer: optax.GradientTransformation, intended: Intended, weights: Params, num_steps: int
) -> tuple[Params, Float[Array, ""]]:
    """Weights after a run on zero gradients, and minus the log of what was meant to be left.

    The weights come with the residuals of a `compensated` optimizer.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    gradient = jax.tree.map(jnp.zeros_like, weights)
    loss = jnp.zeros((), scalar_dtype(weights))
    wide = jnp.promote_types(jnp.result_type(float), loss.dtype)  # a sum of very many small numbers

    def step(carry, _):
        weights, opt_state, meant = carry
        updates, opt_state = optimizer.update(gradient, opt_state, weights, value=loss)
        shrink = jnp.asarray(intended(opt_state) if callable(intended) else intended, wide)
        weights = optax.apply_updates(weights, updates)
        return (weights, opt_state, meant - jnp.log1p(-shrink)), None

    start = (weights, optimizer.init(weights), jnp.zeros((), wide))
    (weights, opt_state, meant), _ = jax.lax.scan(step, start, length=num_steps)
    return full_weights(weights, opt_state), meant


def kept_between(start: Params, end: Params, meant: Float[Array, ""], num_steps: int) -> DecayKept:
    """What was kept, from the weights before and after `decayed`; a weight lost to 0 is inf.

    Weights that a mask keeps from decaying count as decay that was lost.
    """
    before, after = (
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (start, end)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        total = float(np.mean(np.log(before / after)))
    return DecayKept(intended=float(meant) / num_steps, realised=total / num_steps)
