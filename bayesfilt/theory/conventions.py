r"""The dictionary between the filter and AdamW, in the three conventions for weight decay.

The same word stands for three numbers. With the schedule factor s (1 at the base learning
rate), one step shrinks the weights by

    "lr_scaled"  s * learning_rate * weight_decay   torch, optax
    "paper"      s * weight_decay                   Loshchilov and Hutter
    "filter"     s² * weight_decay                  η²/2σ² with σ² held fixed and η scheduled

The dictionary makes the shrinks equal at s = 1, and ties to first order: shrink = η²/2σ².
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt import checks
from bayesfilt.custom_types import Scalar
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck

CONVENTIONS = ("lr_scaled", "paper", "filter")


class AdamWSettings(NamedTuple):
    """The two numbers of AdamW that the filter explains; the decay in some convention."""

    learning_rate: Scalar
    weight_decay: Scalar


def transition_from_adamw(
    learning_rate: Scalar, weight_decay: Scalar, *, convention: str = "lr_scaled"
) -> OrnsteinUhlenbeck:
    """Drift that an AdamW run assumes: η = learning rate, η²/2σ² = its shrink per step [DICT-1].

    Args:
        learning_rate: > 0, the base rate (schedule factor 1); units of a weight.
        weight_decay: >= 0, in `convention`; 0 gives a random walk, σ² = inf.
        convention: what `weight_decay` means: "lr_scaled" (torch, optax), "paper" or "filter".

    Returns:
        The transition; python numbers give python numbers. σ² is in units of the summed loss.

    Raises:
        ValueError: for numbers out of range, an unknown convention, a schedule, or a shrink of
            one or more per step, which would flip the sign of a weight.
    """
    owner = "transition_from_adamw"
    checks.require_one_of(owner, "convention", convention, CONVENTIONS)
    _refuse_schedules(owner, learning_rate=learning_rate, weight_decay=weight_decay)
    checks.require_positive(owner, "learning_rate", learning_rate)
    checks.require_non_negative(owner, "weight_decay", weight_decay)
    scaled = convention == "lr_scaled"
    _refuse_flipping(
        owner,
        convention,
        "learning_rate * weight_decay" if scaled else "weight_decay",
        learning_rate * weight_decay if scaled else weight_decay,
    )
    # The shrink is η times `rate`, and σ² is η/2 over it: η² alone could leave float32.
    rate = weight_decay if scaled else weight_decay / learning_rate
    return OrnsteinUhlenbeck(
        drift_scale=learning_rate,
        stationary_variance=_divide_or_infinity(0.5 * learning_rate, rate),
    )


def adamw_from_transition(
    transition: OrnsteinUhlenbeck, *, convention: str = "lr_scaled"
) -> AdamWSettings:
    """AdamW settings that assume this drift: the inverse of `transition_from_adamw` [DICT-1].

    Args:
        transition: η > 0 and σ² > 0; σ² = inf gives no decay.
        convention: what the returned `weight_decay` shall mean.

    Returns:
        Learning rate η and weight decay η/2σ² ("lr_scaled") or η²/2σ² (the other two).

    Raises:
        ValueError: for numbers out of range, an unknown convention, or η²/2σ² >= 1.
    """
    owner = "adamw_from_transition"
    eta, sigma2 = transition.drift_scale, transition.stationary_variance
    checks.require_one_of(owner, "convention", convention, CONVENTIONS)
    _refuse_schedules(owner, drift_scale=eta, stationary_variance=sigma2)
    checks.require_positive(owner, "drift_scale", eta)
    checks.require_positive(owner, "stationary_variance", sigma2, infinite=True)
    rate = 0.5 * eta / sigma2
    _refuse_flipping(owner, convention, "drift_scale^2 / (2 * stationary_variance)", eta * rate)
    decay = rate if convention == "lr_scaled" else eta * rate
    return AdamWSettings(learning_rate=eta, weight_decay=decay)


def convention_shrink(
    settings: AdamWSettings,
    schedule_factor: float | Float[Array, " *dims"],
    *,
    convention: str,
) -> float | Float[Array, " *dims"]:
    """Shrink of one step at a schedule factor s, in each convention [DICT-2].

    Args:
        settings: base learning rate and weight decay, the latter meant in `convention`.
        schedule_factor: s >= 0, what multiplies the base learning rate; 1 at the base.
        convention: "lr_scaled" (linear in s), "paper" (linear), "filter" (quadratic).

    Returns:
        The fraction of every weight taken away; a pure number.

    Raises:
        ValueError: for an unknown convention.
    """
    checks.require_one_of("convention_shrink", "convention", convention, CONVENTIONS)
    if convention == "lr_scaled":
        return schedule_factor * (settings.learning_rate * settings.weight_decay)
    if convention == "paper":
        return schedule_factor * settings.weight_decay
    return schedule_factor * schedule_factor * settings.weight_decay


def normalised_weight_decay(
    normalised: Scalar, batch_size: Scalar, num_examples: Scalar, epochs: Scalar
) -> Scalar:
    """Shrink per step from a decay that is the same for every budget, λ √(b/(B T)) [DICT-3].

    b/(B T) is one over the number of steps, so that longer runs decay less per step and more in
    all, like the root of their length. The rule is an empirical one of Loshchilov and Hutter.

    Args:
        normalised: λ, the decay of a run of one step; they found 0.025 to 0.05 to do.
        batch_size: b.
        num_examples: B, in the training set.
        epochs: T, of the run; with restarts, of the current period.

    Returns:
        The shrink at schedule factor 1, the "paper" convention's number.
    """
    return normalised * (batch_size / (num_examples * epochs)) ** 0.5


def _divide_or_infinity(numerator: Scalar, denominator: Scalar) -> Scalar:
    """A quotient that is inf, with a finite derivative, where the denominator is zero."""
    known = checks.concrete_number(denominator)
    if known is not None:
        return math.inf if known == 0 else numerator / denominator
    zero = denominator == 0
    return jnp.where(zero, jnp.inf, numerator / jnp.where(zero, 1.0, denominator))


def _refuse_schedules(owner: str, **values: Any) -> None:
    for name, value in values.items():
        if callable(value):
            raise ValueError(
                f"{owner} maps numbers, not schedules: it needs the base value of {name}, "
                f"got {value!r}."
            )


def _refuse_flipping(owner: str, convention: str, product: str, shrink: Scalar) -> None:
    number = checks.concrete_number(shrink)
    if number is not None and not number < 1:
        raise ValueError(
            f"{owner} needs a shrink per step below 1 ({convention}: {product}), got {number:g}."
        )
