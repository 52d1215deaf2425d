"""Decoupled weight decay: the shrinking mean of the state transition.

The decay of one step is always the shrink s, never 1 - s: in float32 `1 - 1e-8 == 1`. It is
added in the same sum as the optimizer's step.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import concrete_number, require_number, require_one_of
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.dtypes import at_least_float32, like, scalar_dtype
from bayesfilt.optimizers.moments import ScalarOrSchedule, next_step, scalars_at, value_at
from bayesfilt.theory import AdamWSettings, convention_shrink, decay_per_step, exact_shrink

DecayOrder = Literal["before", "after"]
DECAY_ORDERS = ("before", "after")
Mask = Any  # a tree of bools like the weights (True = decays), or a function that makes one


class DecayToZeroState(NamedTuple):
    """Carried by `decay_to_zero`."""

    step: Int[Array, ""]
    shrink: Float[Array, ""]  # of the last step


def decay_to_zero(
    shrink: ScalarOrSchedule, *, order: DecayOrder = "before", mask: Mask | None = None
) -> optax.GradientTransformation:
    """Shrink the weights by the fraction `shrink` each step, around the step u [OPT-5].

    "before" gives (1-s) w + u, AdamW's order; "after" gives (1-s) (w + u), the exact
    filter's, in which the weight the user holds is the predicted mean.

    It stands last in a chain: it takes steps with their sign, and gives each update the
    dtype of its weight.

    Args:
        shrink: Per-step shrink s in [0, 1], or a schedule of it.
        order: When the shrink acts.
        mask: True where a weight decays; None: everywhere. Where False, u passes as it is.

    Raises:
        ValueError: A shrink outside [0, 1], an unknown order, a mask that does not fit the
            weights, or `update` called without the weights.
    """
    require_one_of("decay_to_zero", "order", order, DECAY_ORDERS)
    require_number("decay_to_zero", "shrink", shrink)
    number = concrete_number(shrink)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"weight decay needs 0 <= shrink per step <= 1, got {number:g}.")

    def init(params):
        decays_tree(mask, params)
        step = jnp.zeros((), jnp.int32)
        return DecayToZeroState(step=step, shrink=value_at(shrink, step, scalar_dtype(params)))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the weights: call update(updates, state, params).")
        (s,) = scalars_at(lambda number: (number,), [shrink], state.step, state.shrink.dtype)

        def decayed(decays, step, weight):
            wide = at_least_float32(weight)
            if decays:
                factor = like(s, wide.dtype)
                shrunk = step + wide if order == "after" else wide
                step = step - factor * shrunk
            return like(step, jnp.asarray(weight).dtype)

        updates = jax.tree.map(decayed, decays_tree(mask, params), updates, params)
        return updates, DecayToZeroState(
            step=next_step(state.step), shrink=jnp.asarray(s, state.shrink.dtype)
        )

    return optax.GradientTransformation(init, update)


def decays_tree(mask: Mask | None, params: Params) -> Params:
    """One bool a leaf: whether it decays.

    Raises:
        ValueError: The mask has another structure than the weights, or leaves that are no bools.
    """
    if mask is None:
        return jax.tree.map(lambda _: True, params)
    # A module with a __call__ is a tree, not a function that makes one.
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        mask = mask(params)
    if jax.tree.structure(mask) != jax.tree.structure(params):
        raise ValueError(
            "a weight-decay mask must have the structure of the weights, got "
            f"{jax.tree.structure(mask)} for {jax.tree.structure(params)}."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if not isinstance(leaf, bool):
            raise ValueError(
                "a weight-decay mask needs True or False at every leaf, got "
                f"{leaf!r} at mask{jax.tree_util.keystr(path)}."
            )
    return mask


def tied_shrink(
    drift_scale: ScalarOrSchedule, stationary_variance: ScalarOrSchedule
) -> optax.Schedule:
    """The transition's own shrink, eta^2/(2 sigma^2), at every step, to first order [OPT-6].

    Raises:
        ValueError: The ratio is 1 or more, so that the first-order shrink would flip the sign.
    """
    transition = (drift_scale, stationary_variance)
    eta, sigma2 = map(concrete_number, transition)
    if eta is not None and sigma2 is not None and eta > 0 and sigma2 > 0:
        shrink = eta * (eta / (2 * sigma2))  # inf where a power would raise
        if shrink >= 1:
            raise ValueError(
                "tied weight decay needs drift_scale^2 / (2 * stationary_variance) < 1, got "
                f"{shrink:g}; pass weight_decay explicitly (exact: 1 - retention)."
            )

    def decay(eta, sigma2):
        # A schedule may take both to 0 together: nothing drifts, nothing shrinks.
        safe = jnp.where(sigma2 != 0, sigma2, 1)
        return (jnp.where(sigma2 != 0, decay_per_step(eta, safe), 0),)

    def shrink_at(step):
        return scalars_at(decay, transition, step, jnp.result_type(float))[0]

    return shrink_at


def exact_tied_shrink(
    drift_scale: ScalarOrSchedule, stationary_variance: ScalarOrSchedule
) -> optax.Schedule:
    """The transition's own shrink at every step, 1 - exp(-eta^2/(2 sigma^2)) [OU-2]."""

    def shrink_at(step):
        def shrink(eta, sigma2):
            return (shrink_or_rest(eta, sigma2),)

        return scalars_at(shrink, (drift_scale, stationary_variance), step, jnp.result_type(float))[
            0
        ]

    return shrink_at


def shrink_or_rest(eta: Float[Array, ""], sigma2: Float[Array, ""]) -> Float[Array, ""]:
    """Exact shrink of one step; 0 once a schedule has taken sigma^2 to 0: nothing drifts."""
    drifts = sigma2 != 0
    return jnp.where(drifts, exact_shrink(eta, jnp.where(drifts, sigma2, 1)), 0)


def transition_decay(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule | None,
    decay_order: DecayOrder,
    mask: Mask | None,
) -> optax.GradientTransformation:
    """Free decay where a shrink is given, else the one tied to the transition.

    The last link of every recipe of this house; its arguments are the recipes' own.
    """
    tied = weight_decay is None
    shrink = tied_shrink(drift_scale, stationary_variance) if tied else weight_decay
    return decay_to_zero(shrink, order=decay_order, mask=mask)


def convention_schedule(
    settings: AdamWSettings, schedule_factor: optax.Schedule, *, convention: str
) -> optax.Schedule:
    """Per-step shrink under a schedule, in one of the three conventions [DICT-2].

    Args:
        settings: Learning rate and weight decay at schedule factor 1.
        schedule_factor: Step -> factor s on the learning rate.
        convention: "lr_scaled", "paper" or "filter".
    """

    def shrink_at(step):
        factor = jnp.asarray(schedule_factor(step))
        return convention_shrink(settings, factor, convention=convention)

    return shrink_at
