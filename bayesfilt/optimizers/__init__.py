"""Optax transformations made of filters: drop them into any training loop."""

from bayesfilt.optimizers.aliases import adabayes, adabayes_fixed_point, steady_state
from bayesfilt.optimizers.belief_report import effective_learning_rate, posterior_variance
from bayesfilt.optimizers.matrix_recipes import kalman_full
from bayesfilt.optimizers.parts import PartsOf, UpdateParts, adam_parts, compose, filter_parts
from bayesfilt.optimizers.scale_by_adagrad import ScaleByAdagradState, scale_by_adagrad
from bayesfilt.optimizers.scale_by_amsgrad import ScaleByAmsgradState, scale_by_amsgrad
from bayesfilt.optimizers.scale_by_fixed_point import ScaleByFixedPointState, scale_by_fixed_point
from bayesfilt.optimizers.scale_by_full_kalman import (
    ScaleByFullKalmanState,
    scale_by_full_kalman,
)
from bayesfilt.optimizers.scale_by_kalman import ScaleByKalmanState, scale_by_kalman
from bayesfilt.optimizers.scale_by_steady_state import (
    ScaleBySteadyStateState,
    scale_by_steady_state,
)
from bayesfilt.optimizers.units import SumOverBatchState, sum_over_batch
from bayesfilt.optimizers.weight_decay import (
    DecayToZeroState,
    convention_schedule,
    decay_to_zero,
    tied_shrink,
)
from bayesfilt.optimizers.zoo import OPTIMIZERS, NamedOptimizer, Setting, named_optimizer

__all__ = [
    "OPTIMIZERS",
    "DecayToZeroState",
    "NamedOptimizer",
    "PartsOf",
    "ScaleByAdagradState",
    "ScaleByAmsgradState",
    "ScaleByFixedPointState",
    "ScaleByFullKalmanState",
    "ScaleByKalmanState",
    "ScaleBySteadyStateState",
    "Setting",
    "SumOverBatchState",
    "UpdateParts",
    "adabayes",
    "adabayes_fixed_point",
    "adam_parts",
    "compose",
    "convention_schedule",
    "decay_to_zero",
    "effective_learning_rate",
    "filter_parts",
    "kalman_full",
    "named_optimizer",
    "posterior_variance",
    "scale_by_adagrad",
    "scale_by_amsgrad",
    "scale_by_fixed_point",
    "scale_by_full_kalman",
    "scale_by_kalman",
    "scale_by_steady_state",
    "steady_state",
    "sum_over_batch",
    "tied_shrink",
]
