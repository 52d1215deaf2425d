r"""The coupled quadratic behind the scalar model: why each optimum moves at all.

Near a minimum the summed loss of a minibatch is ½ wᵀHw - ξᵀw, with ξ the minibatch noise and w
measured from the minimum. Hold all weights but one: the one left has an optimum of its own, and
that optimum moves whenever the others do. The filter models its motion as an
Ornstein-Uhlenbeck process; the equations here say what that motion is in the quadratic.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.custom_types import Scalar


def conditional_optimum(
    hessian: Float[Array, "dim dim"], params: Float[Array, " dim"]
) -> Float[Array, " dim"]:
    """Best value of each weight given the others, w*ᵢ = -Σⱼ≠ᵢ Hᵢⱼ wⱼ / Hᵢᵢ [CO-1].

    Args:
        hessian: H, symmetric with a positive diagonal, of the summed loss; 1/weight².
        params: w, measured from the minimum of the whole; units of a weight.
    """
    diagonal = jnp.diagonal(hessian)
    return params - (hessian @ params) / diagonal


def expected_gradient(
    hessian: Float[Array, "dim dim"], params: Float[Array, " dim"], optimum: Float[Array, " dim"]
) -> Float[Array, " dim"]:
    """Gradient expected when each optimum is known, Hᵢᵢ (wᵢ - w*ᵢ) [CO-2].

    With `conditional_optimum` it is H w, exactly. Around it the gradient has the covariance of
    ξ; where the loss is a log likelihood at its truth that is H again (the Fisher identity), and
    then, seen alone, gᵢ ~ N(Hᵢᵢ(wᵢ - w*ᵢ), Hᵢᵢ): the observation of the scalar filter.

    Args:
        hessian: H of the summed loss; 1/weight².
        params: w, where the gradient is taken; units of a weight.
        optimum: w* of each weight; units of a weight.
    """
    return jnp.diagonal(hessian) * (params - optimum)


def coupled_drift_variance(
    hessian: Float[Array, "dim dim"], weight_move_variance: Scalar
) -> Float[Array, " dim"]:
    """Variance of one move of each optimum, s² Σⱼ≠ᵢ Hᵢⱼ² / Hᵢᵢ² [CO-3].

    Here s² is the variance of the move of every other weight in one step, the moves taken
    to be independent. Unequal across weights: η² of the filter is one number for all only if
    |H₋ᵢ,ᵢ|/Hᵢᵢ is. For a Hessian D^½ C D^½ of like correlations it goes as 1/Hᵢᵢ, and then the
    theory's own normaliser is the mean square of the gradient, not its root.

    Args:
        hessian: H of the summed loss; 1/weight².
        weight_move_variance: s², weight².

    Returns:
        Variance per step and weight; weight².

    Source: differences of Aitchison 2020, eq. 10. A second-hand text gives the numerator alone.
    """
    diagonal = jnp.diagonal(hessian)
    others = jnp.sum(jnp.square(hessian / diagonal[:, None]), axis=1) - 1
    return weight_move_variance * others
