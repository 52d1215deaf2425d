"""The filters, with their numbers from the dictionary filter <-> AdamW."""

from collections.abc import Callable

from bayesfilt.checks import require_at_least
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.aliases import adabayes as adabayes_of
from bayesfilt.optimizers.aliases import adabayes_fixed_point as fixed_point_of
from bayesfilt.optimizers.aliases import steady_state as steady_state_of
from bayesfilt.optimizers.badam import badam as badam_of
from bayesfilt.optimizers.badam import brmsprop as brmsprop_of
from bayesfilt.optimizers.kronecker_recipe import kalman_kronecker as kronecker_of
from bayesfilt.optimizers.matrix_recipes import kalman_full as full_of
from bayesfilt.optimizers.parts import filter_parts
from bayesfilt.optimizers.zoo.recipe import NamedOptimizer
from bayesfilt.optimizers.zoo.setting import Setting


def adabayes(setting: Setting) -> NamedOptimizer:
    """The recursive filter."""
    made = adabayes_of(
        setting.drift_scale,
        setting.stationary_variance,
        batch_size=setting.batch_size,
        b1=setting.b1,
    )
    return NamedOptimizer(optimizer=made, parts=filter_parts(b1=setting.b1))


def adabayes_fixed_point(setting: Setting) -> NamedOptimizer:
    """The filter at its fixed point."""
    return _settled(setting, fixed_point_of)


def steady_state(setting: Setting) -> NamedOptimizer:
    """The filter at its exact steady state."""
    return _settled(setting, steady_state_of)


def brmsprop(setting: Setting) -> NamedOptimizer:
    """The recursive filter without a running mean in the gradient's place."""
    made = brmsprop_of(
        setting.drift_scale, setting.stationary_variance, batch_size=setting.batch_size
    )
    return NamedOptimizer(optimizer=made, parts=filter_parts(b1=0.0))


def badam(
    setting: Setting, *, velocity_shrink: Scalar | None, velocity_drift_scale: Scalar | None
) -> NamedOptimizer:
    """The filter with a velocity, whose memory is Adam's b1."""
    made = badam_of(
        setting.drift_scale,
        setting.stationary_variance,
        batch_size=setting.batch_size,
        velocity_shrink=1 - setting.b1 if velocity_shrink is None else velocity_shrink,
        velocity_drift_scale=None
        if velocity_drift_scale is None
        else setting.scheduled(velocity_drift_scale),
    )
    return NamedOptimizer(optimizer=made, parts=None)


def kalman_full(setting: Setting) -> NamedOptimizer:
    """The filter with the covariance of all weights."""
    made = full_of(
        setting.drift_scale,
        setting.stationary_variance,
        batch_size=setting.batch_size,
        b1=setting.b1,
    )
    return NamedOptimizer(optimizer=made, parts=None)


def kalman_kronecker(
    setting: Setting, *, basis_every: Scalar, max_dimension: float
) -> NamedOptimizer:
    """The filter in the axes of each layer."""
    require_at_least("kalman_kronecker", "max_dimension", max_dimension, 1)
    made = kronecker_of(
        setting.drift_scale,
        setting.stationary_variance,
        batch_size=setting.batch_size,
        b1=setting.b1,
        b2=setting.b2,
        basis_every=basis_every,
        max_dimension=int(max_dimension),
    )
    return NamedOptimizer(optimizer=made, parts=None)


def _settled(setting: Setting, alias: Callable) -> NamedOptimizer:
    made = alias(
        setting.drift_scale,
        setting.stationary_variance,
        batch_size=setting.batch_size,
        b1=setting.b1,
        b2=setting.b2,
    )
    return NamedOptimizer(optimizer=made, parts=filter_parts(b1=setting.b1))
