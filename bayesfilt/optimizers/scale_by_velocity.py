"""The velocity filter as a gradient transformation: BAdam, our reading of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bayesfilt.checks import concrete_number, require_non_negative, require_number, require_positive
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.diagonal import predicted_mean
from bayesfilt.filters.velocity import (
    Covariance,
    conditioned_velocity,
    predicted_covariance,
    stationary_covariance,
)
from bayesfilt.optimizers.dtypes import (
    like,
    scalar_dtype,
    zeros_at_least_float32,
)
from bayesfilt.optimizers.moments import ScalarOrSchedule, next_step, scalars_at, value_at
from bayesfilt.optimizers.scale_by_kalman import growth_and_rate
from bayesfilt.optimizers.units import require_real_weights
from bayesfilt.optimizers.weight_decay import (
    Mask,
    decay_to_zero,
    exact_tied_shrink,
    shrink_or_rest,
)
from bayesfilt.optimizers.widened import wide
from bayesfilt.theory import OrnsteinUhlenbeck, conditioned_variance


class ScaleByVelocityState(NamedTuple):
    """Carried by `scale_by_velocity`: what is believed just after a gradient, but for the mean."""

    step: Int[Array, ""]
    velocity: Params  # mean of the velocity; weight per step
    variance: Params  # of the position; weight²
    coupling: Params  # covariance of position and velocity over `variance`; per step
    unexplained_variance: Params  # of the velocity, the position known
    drift_scale: Float[Array, ""]  # of the last step
    stationary_variance: Float[Array, ""]
    decay: optax.OptState

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum, velocity apart; weight²."""
        return self.variance


def scale_by_velocity(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    velocity_shrink: Scalar = 0.1,
    velocity_drift_scale: ScalarOrSchedule | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    r"""Step to the velocity filter's predicted mean, (1-s)(w - p g) + u - β p g [VEL-5].

    The weights the user holds are the predicted mean, where the gradient is taken; it counts
    with precision g², a named choice and not a law. Unlike the other `scale_by_*` this makes
    the whole step, its sign included: decay acts on the position and not on the velocity, so
    it cannot follow in a chain.

    The covariance starts where the model rests without data, its velocity at 0. Where it never
    rests (sigma^2 = inf, or velocity_shrink = 0) the optimum is taken to start where the
    weights do, standing still, at variance 0; the step warms up by itself.

    Args:
        drift_scale: eta > 0 or a schedule; units of a weight.
        stationary_variance: sigma^2 > 0, infinity included, or a schedule; weight². With a
            velocity the optimum spreads further than this.
        velocity_shrink: c in [0, 1]; 1 - c is the memory of the momentum.
        velocity_drift_scale: kappa >= 0 or a schedule, deviation of the velocity's move per
            step; weight per step. None: velocity_shrink * drift_scale.
        weight_decay: None: the transition's own shrink, exactly. A number or schedule: the
            per-step shrink itself.
        mask: Tree of bools or function of the weights; True = decays. It does not touch the
            covariance.

    Returns:
        A transformation of *summed* gradients into steps; `update` needs the weights.

    Raises:
        ValueError: A number outside its range; weights that are not real.
    """
    _require_arguments(drift_scale, stationary_variance, velocity_shrink, velocity_drift_scale)
    tied = weight_decay is None
    shrink = exact_tied_shrink(drift_scale, stationary_variance) if tied else weight_decay
    decay = decay_to_zero(shrink, order="after", mask=mask)
    transformation = _VelocityScaling(
        drift_scale=drift_scale,
        stationary_variance=stationary_variance,
        velocity_shrink=velocity_shrink,
        velocity_drift_scale=velocity_drift_scale,
        decay=decay,
    )
    return optax.GradientTransformation(transformation.init, transformation.update)


class _VelocityScaling(NamedTuple):
    """What `scale_by_velocity` was called with, checked."""

    drift_scale: ScalarOrSchedule
    stationary_variance: ScalarOrSchedule
    velocity_shrink: Scalar
    velocity_drift_scale: ScalarOrSchedule | None
    decay: optax.GradientTransformation

    @property
    def numbers(self) -> tuple[ScalarOrSchedule, ...]:
        """Arguments of the step's scalars; the velocity's drift scale last, where given."""
        numbers = (self.drift_scale, self.stationary_variance, self.velocity_shrink)
        given = self.velocity_drift_scale
        return numbers if given is None else (*numbers, given)

    def init(self, params: Params) -> ScaleByVelocityState:
        """Believe as surely as the model does without data, or everything at rest."""
        require_real_weights(params)
        step, dtype = jnp.zeros((), jnp.int32), scalar_dtype(params)
        zeros = zeros_at_least_float32(params)
        first = resting_covariance(*(value_at(number, step, dtype) for number in self.numbers))
        return ScaleByVelocityState(
            step=step,
            velocity=zeros,
            variance=_filled(zeros, first.variance),
            coupling=_filled(zeros, first.coupling),
            unexplained_variance=_filled(zeros, first.unexplained_variance),
            drift_scale=value_at(self.drift_scale, step, dtype),
            stationary_variance=value_at(self.stationary_variance, step, dtype),
            decay=self.decay.init(params),
        )

    def update(
        self, updates: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, ScaleByVelocityState]:
        """Predict the covariance, absorb the gradient, step to the predicted mean."""
        if params is None:
            raise ValueError("scale_by_velocity needs params: call update(updates, state, params).")
        dtype = state.drift_scale.dtype
        scalars = scalars_at(step_scalars, self.numbers, state.step, dtype)
        after = _filtered(state, updates, scalars)
        # In wide types, for the velocity has yet to be added.
        direct, decay = self.decay.update(after.step, state.decay, wide(params))
        steps = jax.tree.map(
            lambda step, velocity, weight: like(step + velocity, jnp.asarray(weight).dtype),
            direct,
            after.velocity,
            params,
        )
        return steps, ScaleByVelocityState(
            step=next_step(state.step),
            velocity=after.velocity,
            variance=after.variance,
            coupling=after.coupling,
            unexplained_variance=after.unexplained_variance,
            drift_scale=value_at(self.drift_scale, state.step, dtype),
            stationary_variance=value_at(self.stationary_variance, state.step, dtype),
            decay=decay,
        )


def step_scalars(
    eta: Float[Array, ""],
    sigma2: Float[Array, ""],
    velocity_shrink: Float[Array, ""],
    kappa: Float[Array, ""] | None = None,
) -> tuple[Array, ...]:
    """What the covariance's prediction needs beside it: s, q, q/sigma^2, c and kappa^2."""
    growth, rate = growth_and_rate(eta, sigma2)
    velocity_growth = jnp.square(_velocity_drift(eta, velocity_shrink, kappa))
    return shrink_or_rest(eta, sigma2), growth, rate, velocity_shrink, velocity_growth


def resting_covariance(
    eta: Float[Array, ""],
    sigma2: Float[Array, ""],
    velocity_shrink: Float[Array, ""],
    kappa: Float[Array, ""] | None = None,
) -> Covariance:
    """Covariance before any gradient: where the model rests, and 0 where it never does."""
    # NaN is a failure, and shows.
    rests = (sigma2 != jnp.inf) & (sigma2 != 0) & (velocity_shrink != 0)
    transition = OrnsteinUhlenbeck(drift_scale=eta, stationary_variance=jnp.where(rests, sigma2, 1))
    stationary = stationary_covariance(
        transition,
        jnp.where(rests, velocity_shrink, 1),
        _velocity_drift(eta, velocity_shrink, kappa),
    )
    return Covariance(*(jnp.where(rests, number, 0) for number in stationary))


class _Filtered(NamedTuple):
    """A belief after a gradient; `step` is what the gradient moves the position by."""

    step: Any
    velocity: Any
    variance: Any
    coupling: Any
    unexplained_variance: Any


def _filtered(
    state: ScaleByVelocityState, gradients: Params, scalars: tuple[Any, ...]
) -> _Filtered:
    """Let every belief move on, then absorb its gradient; five trees like the weights."""

    def filtered(gradient, velocity, variance, coupling, unexplained):
        kind = variance.dtype
        shrink, growth, rate, velocity_shrink, velocity_growth = (like(x, kind) for x in scalars)
        gradient = like(gradient, kind)
        last = Covariance(variance=variance, coupling=coupling, unexplained_variance=unexplained)
        predicted: Any = predicted_covariance(
            last, shrink, growth, rate, velocity_shrink, velocity_growth
        )
        variance = conditioned_variance(predicted.variance, jnp.square(gradient))
        velocity = predicted_mean(velocity, velocity_shrink)
        return _Filtered(
            step=-variance * gradient,
            velocity=conditioned_velocity(velocity, predicted.coupling, variance, gradient),
            variance=variance,
            coupling=predicted.coupling,
            unexplained_variance=predicted.unexplained_variance,
        )

    trees = (state.velocity, state.variance, state.coupling, state.unexplained_variance)
    outline = jax.tree.structure(gradients)
    leaves = (outline.flatten_up_to(tree) for tree in (gradients, *trees))
    after = [filtered(*each) for each in zip(*leaves, strict=True)]
    parts = ([getattr(each, name) for each in after] for name in _Filtered._fields)
    return _Filtered(*(outline.unflatten(part) for part in parts))


def _velocity_drift(eta: Array, velocity_shrink: Array, kappa: Array | None) -> Array:
    """By default a velocity's shake carries its optimum, in the long run, as far as eta does.

    A shake of the velocity moves the optimum by kappa/c in all.
    """
    return velocity_shrink * eta if kappa is None else kappa


def _filled(zeros: Params, number: Any) -> Params:
    return jax.tree.map(lambda zero: zero + number.astype(zero.dtype), zeros)


def _require_arguments(
    drift_scale: Any, stationary_variance: Any, velocity_shrink: Any, velocity_drift_scale: Any
) -> None:
    owner = "scale_by_velocity"
    require_positive(owner, "drift_scale", drift_scale)
    require_positive(owner, "stationary_variance", stationary_variance, infinite=True)
    require_number(owner, "velocity_shrink", velocity_shrink)
    number = concrete_number(velocity_shrink)
    if callable(velocity_shrink) or (number is not None and not 0 <= number <= 1):
        raise ValueError(
            f"{owner} needs a number 0 <= velocity_shrink <= 1, got {velocity_shrink!r}."
        )
    if velocity_drift_scale is not None:
        require_non_negative(owner, "velocity_drift_scale", velocity_drift_scale)
