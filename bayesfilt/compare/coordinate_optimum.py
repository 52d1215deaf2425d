"""The coordinate optimum w*_i: where one weight should be, all the others held where they are.

That is the latent of the filter, measured: a safeguarded Newton iteration along one coordinate,
on a large fixed batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bayesfilt.checks import require_at_least, require_positive
from bayesfilt.compare.chosen_weights import ChosenWeights, Line, pick, search_each
from bayesfilt.compare.instruments import BatchAt
from bayesfilt.simulate import Probe, StepView
from bayesfilt.tasks import Task

TRUST_RADIUS = 2.0
TOLERANCE = 1e-4


class CoordinateOptimum(NamedTuple):
    """Of every chosen weight; curvatures are of the summed minibatch loss, 1/weight^2."""

    optimum: Float[Array, " weights"]  # NaN where not valid
    curvature: Float[Array, " weights"]  # at the weight, as `hessian_diagonal`
    optimum_curvature: Float[Array, " weights"]  # at the optimum, the last that Newton used
    valid: Bool[Array, " weights"]
    evaluations: Int[Array, " weights"]  # of slope and curvature


class _Search(NamedTuple):
    """Where a Newton iteration along one coordinate stands; moves are from the weight."""

    move: Float[Array, ""]  # to look at next
    low: Float[Array, ""]  # the optimum is above this: the slope there was negative
    high: Float[Array, ""]
    curvature: Float[Array, ""]  # where it looked last
    first_curvature: Float[Array, ""]
    found: Bool[Array, ""]
    stopped: Bool[Array, ""]
    evaluations: Int[Array, ""]


def coordinate_optimum(
    chosen: ChosenWeights,
    batch_at: BatchAt,
    *,
    trust_radius: float = TRUST_RADIUS,
    tolerance: float = TOLERANCE,
    max_evaluations: int = 24,
) -> Probe:
    """Probe: the optimum of each weight given all others, w - f'/f'' repeated [INST-4].

    f is the loss on the batch of `batch_at`, along one coordinate. A Newton step that leaves the
    interval in which the sign of f' allows an optimum is replaced by half of that interval, one
    that leaves the trust region by a look at the region's edge; where f'' <= 0 the search goes
    downhill by a quarter of the radius. What it finds is one minimum downhill of the weight, which
    need not be the lowest. It is
    *valid* if it was found inside the trust region (a last step, or an interval, below
    `tolerance * trust_radius`) and f'' > 0 there. So a weight that no example touches (f' = f'' =
    0), a ridge, and an optimum further away than the trust region are not valid. The last are
    missing because of where they are: many of them bias what is inferred from the rest.

    A ReLU makes f' jump; an optimum on a jump is found to `tolerance * trust_radius`, but f''
    beside it does not know of the jump.

    Costs about 0.5 ms of CPU a weight for the digits network (64-64-10) on 512 examples in
    float64, 4.4 evaluations on average: 2 to 5 where the loss is smooth, up to 20 among kinks.

    Args:
        chosen: Which weights.
        batch_at: The batch, by (task, step).
        trust_radius: Largest move from the current weight; units of a weight.
        tolerance: Relative to the trust radius; Newton's error is then about its square.
        max_evaluations: Of slope and curvature; a search that takes more is not valid.

    Raises:
        ValueError: A number that is not positive, or fewer than 2 evaluations.
    """
    owner = "coordinate_optimum"
    require_positive(owner, "trust_radius", trust_radius)
    require_positive(owner, "tolerance", tolerance)
    require_at_least(owner, "max_evaluations", max_evaluations, 2)

    def probe(task: Task, view: StepView) -> CoordinateOptimum:
        batch = batch_at(task, view.step)

        def look(line: Line, state: _Search) -> _Search:
            slope, curvature = slope_and_curvature(
                lambda move: task.loss(line.at(move), batch), state.move
            )
            return _after_look(state, slope, curvature, trust_radius, tolerance)

        def going(state: _Search) -> Bool[Array, ""]:
            return ~state.stopped & (state.evaluations < max_evaluations)

        here = pick(chosen, view.params)
        done = search_each(chosen, view.params, _start(here.dtype), look, going)
        valid = done.found & (done.curvature > 0) & jnp.isfinite(done.move)
        return CoordinateOptimum(
            optimum=jnp.where(valid, here + done.move, jnp.nan),
            curvature=done.first_curvature * task.batch_size,
            optimum_curvature=jnp.where(valid, done.curvature * task.batch_size, jnp.nan),
            valid=valid,
            evaluations=done.evaluations,
        )

    return probe


def slope_and_curvature(
    along: Callable[[Float[Array, ""]], Float[Array, ""]], move: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """First and second derivative of a function of one number, forward over forward.

    A third of the cost of forward over reverse, which makes a gradient of all weights.
    """
    one = jnp.ones_like(move)
    return jax.jvp(lambda s: jax.jvp(along, (s,), (one,))[1], (move,), (one,))


def _start(dtype: jnp.dtype) -> _Search:
    zero = jnp.zeros((), dtype)
    return _Search(
        move=zero,
        low=jnp.full((), -jnp.inf, dtype),
        high=jnp.full((), jnp.inf, dtype),
        curvature=zero,
        first_curvature=zero,
        found=jnp.array(False),
        stopped=jnp.array(False),
        evaluations=jnp.zeros((), jnp.int32),
    )


def _after_look(
    state: _Search,
    slope: Float[Array, ""],
    curvature: Float[Array, ""],
    radius: float,
    tolerance: float,
) -> _Search:
    """The search for a zero of the slope after one more look, at `state.move`."""
    edge = jnp.asarray(radius, slope.dtype)
    low = jnp.where(slope < 0, jnp.maximum(state.low, state.move), state.low)
    high = jnp.where(slope > 0, jnp.minimum(state.high, state.move), state.high)
    newton = state.move - slope / jnp.where(curvature > 0, curvature, jnp.nan)
    # NaN is inside nothing: without positive curvature the search goes downhill.
    inside = (newton >= low) & (newton <= high) & (jnp.abs(newton) < edge)
    # The parabola's zero is beyond the edge, so look there; without one, go in quarters.
    stride = jnp.where(curvature > 0, 2 * edge, 0.25 * edge)
    downhill = jnp.clip(state.move - jnp.sign(slope) * stride, -edge, edge)
    enclosed = jnp.isfinite(jnp.where(slope > 0, low, high))
    move = jnp.where(inside, newton, jnp.where(enclosed, 0.5 * (low + high), downhill))
    small = tolerance * edge
    found = (inside & (jnp.abs(newton - state.move) <= small)) | (high - low <= small)
    still_downhill = ~enclosed & (downhill == state.move)
    lost = jnp.where(slope == 0, ~(curvature > 0), still_downhill)
    first = state.evaluations == 0
    return _Search(
        move=move,
        low=low,
        high=high,
        curvature=curvature,
        first_curvature=jnp.where(first, curvature, state.first_curvature),
        found=found,
        stopped=found | lost | ~jnp.isfinite(slope),
        evaluations=state.evaluations + 1,
    )
