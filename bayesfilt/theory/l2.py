r"""An L2 penalty beside weight decay: the same pull on the weight only for plain SGD.

Decay takes the fraction s of every weight away, whatever its gradients did: in the filter it is
the transition. A penalty ½ l2 w² adds l2 w to the gradient, so that whatever is done to a
gradient (averaged, divided by its size, multiplied by a variance) is done to the pull as well: in
the filter it is an observation of w* = 0, made anew at every step.

The optimizers here move a weight by -α g/D. The rate α and the coefficient l2 belong to whatever
loss g is the gradient of, mean or summed, as long as it is the same one; in the filter it is the
summed loss, as everywhere. D > 0 is the *divisor* of each weight: one for plain SGD, √⟨g²⟩ + eps
for Adam; M = diag(1/D) is the preconditioner.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.custom_types import Scalar
from bayesfilt.theory.ornstein_uhlenbeck import PerWeight, Result
from bayesfilt.theory.riccati import conditioned_variance


def equivalent_l2(shrink: PerWeight, learning_rate: PerWeight) -> Result:
    """L2 coefficient with which plain SGD shrinks its weights just so, s/α [L2-1].

    Step by step and exactly, without momentum and with one divisor, D = 1, for all weights.

    Args:
        shrink: s >= 0, fraction taken away per step; a pure number.
        learning_rate: α > 0, factor on the gradient; units of weight².

    Source: Loshchilov and Hutter 2019, proposition 1.
    """
    return jnp.divide(shrink, learning_rate)


def equivalent_penalty(
    params: Float[Array, " dim"],
    divisor: Float[Array, " dim"],
    shrink: Scalar,
    learning_rate: Scalar,
) -> Float[Array, ""]:
    """Penalty whose gradient, divided by D, is decay's own pull, (s/2α) Σ Dᵢ wᵢ² [L2-2].

    Exact while D stands still; where D moves, as Adam's does, the penalty would have to move with
    it. Each weight's coefficient is proportional to D itself: a weight with loud gradients is
    penalised more than under L2.

    Args:
        params: w; units of a weight.
        divisor: D > 0 of each weight, frozen.
        shrink: s >= 0, fraction taken away per step; a pure number.
        learning_rate: α > 0, in the step -α g/D.

    Source: Loshchilov and Hutter 2019, proposition 3, with the coefficient of their proof;
    their equation 2 has another factor 1/α.
    """
    return 0.5 * equivalent_l2(shrink, learning_rate) * jnp.sum(divisor * jnp.square(params))


def l2_misfit(divisor: Float[Array, " dim"]) -> Float[Array, ""]:
    """Least share of decay that any one L2 coefficient gets wrong, (D₁ - D₀)/(D₁ + D₀) [L2-3].

    D₁ and D₀ are the largest and the smallest divisor. The pull of L2 is α l2 w/D and should be
    s w; the best l2 errs by this share of s, for the worst weights. Zero if and only if all
    divisors are equal: nowhere else is decay an L2 penalty. Nearly one for Adam, whose divisors
    span decades.

    Args:
        divisor: D > 0 of each weight.

    Source: sharpens Loshchilov and Hutter 2019, proposition 2, which says that it is not zero.
    """
    largest, smallest = jnp.max(divisor), jnp.min(divisor)
    return (largest - smallest) / (largest + smallest)


def l2_conditioned_variance(variance: PerWeight, precision: PerWeight, l2: PerWeight) -> Result:
    """Variance after a gradient and one more look at the prior, v/(1 + v (h + l2)) [L2-4].

    An L2 penalty in the filter is the observation that w* = 0, with variance 1/l2, made again at
    every step. So it makes the belief narrower each time: after T steps of an optimum at rest the
    prior has been counted T times, as if N(0, 1/l2) had come from T independent sources.

    Args:
        variance: v >= 0, before the gradient; weight².
        precision: h >= 0, of the gradient; 1/weight².
        l2: >= 0, coefficient of ½ w² in the *summed* loss of a minibatch; 1/weight².
    """
    return conditioned_variance(variance, jnp.add(precision, l2))


def l2_conditioned_mean(
    mean: PerWeight, posterior_variance: PerWeight, gradient: PerWeight, l2: PerWeight
) -> Result:
    """Mean after a gradient and one more look at the prior, m - p (g + l2 m) [L2-5].

    With p of `l2_conditioned_variance`; exact. It is the gradient step on the penalised loss.

    Args:
        mean: m, where the gradient was taken; units of a weight.
        posterior_variance: p, after gradient and prior; weight².
        gradient: g of the loss without the penalty, summed; 1/weight.
        l2: >= 0, coefficient of ½ w² in the summed loss; 1/weight².
    """
    return jnp.subtract(mean, posterior_variance * jnp.add(gradient, jnp.multiply(l2, mean)))


def l2_shrink(posterior_variance: PerWeight, l2: PerWeight) -> Result:
    """Fraction of a weight that L2 takes away in the filter, p l2 [L2-6].

    It depends on how uncertain the weight is, and so on its gradients: large where they are
    quiet, η l2/|g| where they are loud. Decay's shrink, η²/2σ², depends on neither.

    Args:
        posterior_variance: p, the learning rate of the summed gradient; weight².
        l2: >= 0, coefficient of ½ w² in the summed loss; 1/weight².
    """
    return jnp.multiply(posterior_variance, l2)


def momentum_l2_shrink(l2: PerWeight, learning_rate: PerWeight, b1: PerWeight) -> Result:
    """Decay per step that L2 amounts to under heavy-ball momentum, α l2/(1 - b1) [L2-7].

    Slow limit: of t' = b1 t + g + l2 w, w' = w - α t', the slow mode, once the trace has
    filled; ten times α l2 at b1 = 0.9. It is short of the true rate by the relative amount
    α l2 b1/(1 - b1)² to first order; above α l2 = (1 - √b1)² the weight oscillates, which no
    decay does.

    Args:
        l2: >= 0, coefficient of ½ w² in the loss whose gradient is taken.
        learning_rate: α > 0, factor on the trace.
        b1: memory of the trace, in [0, 1). The trace is a sum, not a running mean.
    """
    return jnp.multiply(learning_rate, l2) / jnp.subtract(1, b1)
