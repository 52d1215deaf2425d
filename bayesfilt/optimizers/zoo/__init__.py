"""The zoo: named optimizers and schedules, each with its reading as a filter.

Leader and followers of a comparison share one AdamW `Setting`. The filters get theirs from the
dictionary filter <-> AdamW, so each is "the same optimizer" as far as the theory can say. A new
member is a row of `bayesfilt.catalogue` and the function here that builds it; one suite of tests
runs over all of them.
"""

from collections.abc import Callable
from typing import Any

import optax

from bayesfilt.catalogue import OPTIMIZER_FACTS, Facts, name_and_numbers
from bayesfilt.optimizers.zoo import adaptive, filtered, gradient_descent
from bayesfilt.optimizers.zoo.recipe import NamedOptimizer, Recipe
from bayesfilt.optimizers.zoo.schedules import (
    SCHEDULES,
    Factors,
    ScheduleRecipe,
    schedule_factors,
)
from bayesfilt.optimizers.zoo.setting import Setting

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Facts",
    "Factors",
    "NamedOptimizer",
    "Recipe",
    "ScheduleRecipe",
    "Setting",
    "named_optimizer",
    "schedule_factors",
]

_BUILDERS: dict[str, Callable[..., NamedOptimizer]] = {
    "sgd": gradient_descent.sgd,
    "sgd_l2": gradient_descent.sgd_l2,
    "momentum": gradient_descent.momentum,
    "momentum_l2": gradient_descent.momentum_l2,
    "nesterov": gradient_descent.nesterov,
    "sgdw": gradient_descent.sgdw,
    "adagrad": adaptive.adagrad,
    "rmsprop": adaptive.rmsprop,
    "adam": adaptive.adam,
    "adam_l2": adaptive.adam_l2,
    "adamw": adaptive.adamw,
    "adamw_paper": adaptive.adamw_paper,
    "adamw_filter": adaptive.adamw_filter,
    "nadam": adaptive.nadam,
    "nadamw": adaptive.nadamw,
    "adam_large_eps": adaptive.adam_large_eps,
    "adamc": adaptive.adamc,
    "power_adam": adaptive.power_adam,
    "amsgrad": adaptive.amsgrad,
    "amsgrad_optax": adaptive.amsgrad_optax,
    "normalized": adaptive.normalized,
    "adagrad_optax": adaptive.adagrad_optax,
    "brmsprop": filtered.brmsprop,
    "badam": filtered.badam,
    "adabayes": filtered.adabayes,
    "adabayes_fixed_point": filtered.adabayes_fixed_point,
    "steady_state": filtered.steady_state,
    "kalman_full": filtered.kalman_full,
    "kalman_kronecker": filtered.kalman_kronecker,
}

OPTIMIZERS: dict[str, Recipe] = {
    facts.name: Recipe(facts=facts, build=_BUILDERS[facts.name]) for facts in OPTIMIZER_FACTS
}


# The belief of the one has moved by the whole step, the vectors of the other are of unit length
# after it.
_STEP_IS_ITS_STATE = {"badam", "normalized"}


def named_optimizer(name: str, setting: Setting, **numbers: Any) -> NamedOptimizer:
    """Build the optimizer of this name for a setting.

    Args:
        name: One of `OPTIMIZERS`, with numbers of its own if it has any: `power_adam:power=0.75`.
        setting: AdamW's, from which everybody's follows.
        **numbers: The optimizer's own numbers once more, for those that are traced.

    Returns:
        The optimizer, and how to take its update apart where that is known. A schedule that
        needs a metric makes an optimizer whose `update` wants `value=loss`.

    Raises:
        ValueError: An unknown name or number (the nearest is offered), or one that the setting
            cannot have; a schedule that scales finished steps, for those that cannot bear it.
    """
    facts, own = name_and_numbers("optimizers", name, OPTIMIZER_FACTS, numbers)
    made = OPTIMIZERS[facts.name].build(setting, **own)
    metric = setting.factors.metric
    if metric is None:
        return made
    if facts.name in _STEP_IS_ITS_STATE:
        raise ValueError(
            f"{facts.name} cannot have the schedule {setting.schedule!r}, which scales the finished"
            " step: its state is only right for the whole step."
        )
    return NamedOptimizer(optimizer=optax.chain(made.optimizer, metric), parts=None)
