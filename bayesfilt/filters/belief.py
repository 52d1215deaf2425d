r"""What a filter believes about each weight's optimum, and what every filter can do.

Read this file first. The story has three parts.

**The optimum.** Each weight has a value w* that would be best given all the other weights.
It drifts, because the others move: a little of it is forgotten at every step and a little
noise is added (`theory.ornstein_uhlenbeck`).

**The gradient.** A gradient g is a noisy look at w*. Summed over a minibatch, of the
*negative* log likelihood and taken at the weight `taken_at`, it is distributed as

    g ~ N(h (taken_at - w*), h)

The precision h is at once the curvature (how strongly g answers to being away from the
optimum) and the noise of g. That double role is why the gain, measured in weight per unit of
gradient, is the posterior variance itself: the mean moves by `- variance * gradient`, so the
variance is the learning rate. Where noise and curvature differ this is no longer true, and
another filter is needed: `noise_ratio`.

**The belief.** A Gaussian over w*: `mean` and `variance`. A filter moves it in two ways, and
the names are law in this house: `predict` lets the optimum drift one step, `condition`
absorbs one gradient. A step of training is: hold the predicted mean as the weight, take the
gradient there, condition, predict, and hold the new predicted mean.

A gradient taken somewhere else than at the belief's mean is re-based first [KF-5]: the
model says how it would have differed, by h times the distance.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Belief(NamedTuple):
    """A Gaussian belief about every weight's optimum.

    The diagonal filters hold two trees shaped like the weights, each leaf at least float32:
    the marginal mean (units of a weight) and the marginal variance (units of a weight
    squared). Another filter may hold more, such as a velocity or a covariance; whoever runs a
    filter hands its belief on without looking inside.
    """

    mean: PyTree[Float[Array, "..."]]
    variance: PyTree[Float[Array, "..."]]


# What some filter believes: a `Belief`, or a NamedTuple of its own with at least those two names.
AnyBelief = Any


class Innovation(NamedTuple):
    """The surprise in one gradient: observed minus predicted, and how large it should be.

    If the model is true, `mean` is white in time, with zero expectation and this `variance`,
    so that `mean**2 / variance` is 1 on average. Where nothing was observed both are 0.
    Units: a gradient of the summed loss, and its square.
    """

    mean: PyTree[Float[Array, "..."]]
    variance: PyTree[Float[Array, "..."]]


@runtime_checkable
class Filter(Protocol):
    """What every filter can do; all five are pure functions, on pytrees, in this order.

    A protocol, and not a tuple of closures: a filter here is a NamedTuple of its *numbers*
    (the transition) that has these methods. So it is a pytree: it can be an argument of `jit`
    (a new drift scale compiles nothing), `vmap` runs many filters at once, `grad`
    differentiates with respect to its numbers, and printing it shows what it assumes. Yours
    needs the same methods and to be a pytree, no base class.

    What a filter must keep to, whatever it believes inside:

    - `condition` with precision 0 changes nothing, whatever the gradient says, and its
      `log_density` is 0: nothing was observed. This is how a step, or one weight of it, is
      missing.
    - `predict` and `condition` keep the shapes and the floating type of a belief, as long as
      the gradient has no wider type.
    - A NaN or infinite precision or gradient is never repaired: that weight's belief shows it
      (NaN, or a variance of 0) and no other's does. A negative precision means nothing, and
      streams refuse it (`sequence`).
    """

    def init(self, mean: PyTree, variance: PyTree | None = None) -> AnyBelief:
        """Believe `mean` before the first gradient; the transition's own variance by default."""
        ...

    def predict(self, belief: AnyBelief) -> AnyBelief:
        """Let the optimum drift one step: the mean shrinks and the variance grows."""
        ...

    def condition(
        self, belief: AnyBelief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> AnyBelief:
        """Absorb one gradient worth `precision`; `taken_at=None` means at the belief's mean."""
        ...

    def innovation(
        self, belief: AnyBelief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Innovation:
        """Say how far a gradient is from what `belief` expected, before absorbing it."""
        ...

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of an innovation, in nats: a tree whose sum is the log likelihood."""
        ...


def rebased_gradient(
    gradient: Float[Array, " *dims"],
    precision: Float[Array, " *dims"],
    mean: Float[Array, " *dims"],
    taken_at: Float[Array, " *dims"] | None,
) -> Float[Array, " *dims"]:
    """Gradient as if taken at the belief's mean, g + h (mean - taken_at) [KF-5].

    It is also the innovation: at its own mean a belief expects a gradient of zero. A precision
    of 0 says that nothing was observed, and gives 0 whatever the gradient is, NaN included.
    Exact for the quadratic model; on a real loss, as good as h is constant between the points.

    Args:
        gradient: g of one leaf, of the *summed* negative log likelihood; units 1/weight.
        precision: h >= 0; 1/weight².
        mean: where the gradient is wanted; units of a weight.
        taken_at: where it was taken, or None if it was taken at `mean`.
    """
    observed = jnp.where(precision == 0, jnp.zeros_like(gradient), gradient)
    return observed if taken_at is None else observed + precision * (mean - taken_at)


def innovation_variance(
    variance: Float[Array, " *dims"],
    precision: Float[Array, " *dims"],
    noise_ratio: float | Float[Array, " *#dims"] = 1.0,
) -> Float[Array, " *dims"]:
    """Variance of the surprise in a gradient, R + h² v = h (r + h v) with R = r h [KF-6].

    The noise of the gradient plus the belief's own uncertainty seen through the curvature;
    0 where the precision is 0. Overflows where h² v does.

    Args:
        variance: v of the belief before the gradient, weight².
        precision: h >= 0; 1/weight².
        noise_ratio: r > 0, noise variance of the gradient over its curvature; a pure number.
    """
    return precision * (noise_ratio + variance * precision)
