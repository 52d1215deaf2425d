"""Optax transformations made of filters: drop them into any training loop."""

from bayesfilt.optimizers.aliases import adabayes, adabayes_fixed_point, steady_state
from bayesfilt.optimizers.badam import badam, brmsprop
from bayesfilt.optimizers.belief_report import effective_learning_rate, posterior_variance
from bayesfilt.optimizers.compensated import CompensatedState, compensated, compensated_weights
from bayesfilt.optimizers.direction_preserving import TurnVectorsState, normalized
from bayesfilt.optimizers.kronecker_recipe import kalman_kronecker
from bayesfilt.optimizers.matrix_recipes import kalman_full
from bayesfilt.optimizers.parts import PartsOf, UpdateParts, adam_parts, compose, filter_parts
from bayesfilt.optimizers.rivals import adagrad, adam_l2, adamc, amsgrad, power_adam, sgdw
from bayesfilt.optimizers.scale_by_adagrad import ScaleByAdagradState, scale_by_adagrad
from bayesfilt.optimizers.scale_by_amsgrad import ScaleByAmsgradState, scale_by_amsgrad
from bayesfilt.optimizers.scale_by_fixed_point import ScaleByFixedPointState, scale_by_fixed_point
from bayesfilt.optimizers.scale_by_full_kalman import (
    ScaleByFullKalmanState,
    scale_by_full_kalman,
)
from bayesfilt.optimizers.scale_by_kalman import ScaleByKalmanState, scale_by_kalman
from bayesfilt.optimizers.scale_by_kronecker import ScaleByKroneckerState, scale_by_kronecker
from bayesfilt.optimizers.scale_by_power import ScaleByPowerState, scale_by_power
from bayesfilt.optimizers.scale_by_steady_state import (
    ScaleBySteadyStateState,
    scale_by_steady_state,
)
from bayesfilt.optimizers.scale_by_velocity import ScaleByVelocityState, scale_by_velocity
from bayesfilt.optimizers.units import SumOverBatchState, sum_over_batch
from bayesfilt.optimizers.weight_decay import (
    DecayToZeroState,
    convention_schedule,
    decay_to_zero,
    exact_tied_shrink,
    tied_shrink,
)
from bayesfilt.optimizers.widened import widened
from bayesfilt.optimizers.zoo import (
    OPTIMIZERS,
    SCHEDULES,
    NamedOptimizer,
    Recipe,
    Setting,
    named_optimizer,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "CompensatedState",
    "DecayToZeroState",
    "NamedOptimizer",
    "PartsOf",
    "Recipe",
    "ScaleByAdagradState",
    "ScaleByAmsgradState",
    "ScaleByFixedPointState",
    "ScaleByFullKalmanState",
    "ScaleByKalmanState",
    "ScaleByPowerState",
    "ScaleByKroneckerState",
    "ScaleBySteadyStateState",
    "ScaleByVelocityState",
    "Setting",
    "SumOverBatchState",
    "TurnVectorsState",
    "UpdateParts",
    "adabayes",
    "adabayes_fixed_point",
    "adagrad",
    "adam_l2",
    "adam_parts",
    "adamc",
    "amsgrad",
    "badam",
    "brmsprop",
    "compensated",
    "compensated_weights",
    "compose",
    "convention_schedule",
    "decay_to_zero",
    "effective_learning_rate",
    "exact_tied_shrink",
    "filter_parts",
    "kalman_kronecker",
    "kalman_full",
    "named_optimizer",
    "normalized",
    "posterior_variance",
    "power_adam",
    "scale_by_adagrad",
    "scale_by_amsgrad",
    "scale_by_fixed_point",
    "scale_by_full_kalman",
    "scale_by_kalman",
    "scale_by_power",
    "scale_by_kronecker",
    "scale_by_steady_state",
    "scale_by_velocity",
    "sgdw",
    "steady_state",
    "sum_over_batch",
    "tied_shrink",
    "widened",
]
