"""The recipe made of `scale_by_kronecker`: whole layers filtered along their own axes."""

import optax

from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.moments import ScalarOrSchedule
from bayesfilt.optimizers.scale_by_kronecker import scale_by_kronecker
from bayesfilt.optimizers.units import sum_over_batch
from bayesfilt.optimizers.weight_decay import DecayOrder, Mask, transition_decay


def kalman_kronecker(
    drift_scale: ScalarOrSchedule,
    stationary_variance: ScalarOrSchedule,
    *,
    batch_size: Scalar,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: ScalarOrSchedule | None = None,
    decay_order: DecayOrder = "before",
    mask: Mask | None = None,
    basis_every: Scalar = 10,
    max_dimension: int = 1024,
) -> optax.GradientTransformationExtraArgs:
    """The recursive filter with correlations inside each layer: `adabayes` in the layer's axes.

    Dense and convolution layers are filtered along the eigenvectors of their gradients'
    row and column moments; other leaves as in `adabayes`. Ours: that such a filter was derived
    is known from an abstract only (`paper_notes/derivations/kronecker.md`).

    `posterior_variance` reports each weight's own variance. That is no learning rate of a factored
    layer: there the variance is a matrix, and the step mixes the gradients of many weights.

    Args:
        drift_scale: eta > 0 or a schedule: deviation of each optimum's move per step, in units
            of a weight, equal in every direction.
        stationary_variance: sigma^2 > 0 or a schedule, weight^2; infinity: no prior, no tied
            decay; the variance then starts at 0 and warms up.
        batch_size: Examples whose mean loss is differentiated; required.
        b1: Memory of the running mean that stands in for the gradient, in [0, 1).
        b2: Memory of the running means that the axes come from, in [0, 1).
        weight_decay: None: tied, to first order, eta^2/(2 sigma^2) per step. A number or
            schedule: the per-step shrink itself.
        decay_order: "before": (1-s) w + u, AdamW's order; "after": (1-s)(w + u).
        mask: Tree of bools or function of the weights; True = decays.
        basis_every: Steps between refreshes of the axes, >= 1.
        max_dimension: Longest side of a layer with axes of its own, >= 1; static under
            `optax.inject_hyperparams`.

    Returns:
        An optax optimizer; `update` needs the weights.

    Raises:
        ValueError: An argument out of range; weights, mask or gradient that do not fit.
    """
    return optax.chain(
        sum_over_batch(batch_size),
        scale_by_kronecker(
            drift_scale,
            stationary_variance,
            b1=b1,
            b2=b2,
            basis_every=basis_every,
            max_dimension=max_dimension,
        ),
        optax.scale(-1.0),
        transition_decay(drift_scale, stationary_variance, weight_decay, decay_order, mask),
    )
