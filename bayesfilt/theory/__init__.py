"""Floor 1: one equation, one function, arrays in, arrays out.

Gradients and precisions are of the *summed* loss everywhere. Nothing here checks its numbers but
the dictionary of `conventions`, which users call by hand.
"""

from bayesfilt.theory.conventions import (
    CONVENTIONS,
    AdamWSettings,
    adamw_from_transition,
    convention_shrink,
    transition_from_adamw,
)
from bayesfilt.theory.coupled import (
    conditional_optimum,
    coupled_drift_variance,
    expected_gradient,
)
from bayesfilt.theory.equilibrium import (
    ema_timescale,
    equilibrium_rms,
    equilibrium_rms_with_momentum,
    optimal_learning_rate,
    rotation_per_step,
    tracking_error,
    transition_at_batch_size,
)
from bayesfilt.theory.gaussian import (
    condition_dense,
    gain,
    kalman_multiplier,
    log_density_dense,
)
from bayesfilt.theory.ornstein_uhlenbeck import (
    OrnsteinUhlenbeck,
    decay_per_step,
    exact_shrink,
    first_order_retention,
    linearised_stationary_variance,
    process_deviation,
    process_variance,
    retention,
)
from bayesfilt.theory.regimes import (
    REGIMES,
    adam_variance,
    crossover_gradient,
    information_per_step,
    mean_square_variance,
    regime,
    sgd_variance,
)
from bayesfilt.theory.riccati import (
    conditioned_variance,
    drifted_variance,
    fixed_point_variance,
    large_epsilon,
    predicted_variance,
    static_variance,
    steady_state_variance,
    time_constant,
    transient_from_infinity,
    transient_from_zero,
    transient_variance,
    variance_memory,
    variance_step,
)

__all__ = [
    "CONVENTIONS",
    "REGIMES",
    "AdamWSettings",
    "OrnsteinUhlenbeck",
    "adam_variance",
    "adamw_from_transition",
    "condition_dense",
    "conditional_optimum",
    "conditioned_variance",
    "convention_shrink",
    "coupled_drift_variance",
    "crossover_gradient",
    "decay_per_step",
    "drifted_variance",
    "ema_timescale",
    "equilibrium_rms",
    "equilibrium_rms_with_momentum",
    "exact_shrink",
    "expected_gradient",
    "first_order_retention",
    "fixed_point_variance",
    "gain",
    "information_per_step",
    "kalman_multiplier",
    "large_epsilon",
    "linearised_stationary_variance",
    "log_density_dense",
    "mean_square_variance",
    "optimal_learning_rate",
    "predicted_variance",
    "process_deviation",
    "process_variance",
    "regime",
    "retention",
    "rotation_per_step",
    "sgd_variance",
    "static_variance",
    "steady_state_variance",
    "time_constant",
    "tracking_error",
    "transient_from_infinity",
    "transient_from_zero",
    "transient_variance",
    "transition_at_batch_size",
    "transition_from_adamw",
    "variance_memory",
    "variance_step",
]
