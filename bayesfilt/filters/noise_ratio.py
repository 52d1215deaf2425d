r"""The noise-ratio filter: gradients noisier, or quieter, than their curvature.

Everywhere else in this folder a gradient's noise variance R is its curvature h, which is true of a
model at its truth and of no real network. Here the two are apart,

    g ~ N(h (taken_at - w*), r h),

with a noise ratio r = R/h, the temperature of the likelihood. What follows is the point of the
file: the factor on the gradient, `multiplier`, is no longer the posterior variance p. It is p/r,
and equal to p if and only if r = 1.

The ratio is a number of the filter, and the precision of a gradient is h as it is everywhere. So
the same stream goes through every filter, masks mean the same thing, filters with several ratios
are compared by their likelihoods, and r can be inferred. Noise that follows no ratio, with an R of
its own at every step, needs no filter of its own: `matched_stream`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from bayesfilt.checks import require_positive
from bayesfilt.custom_types import Params, Scalar
from bayesfilt.filters.belief import Belief, Innovation, innovation_variance
from bayesfilt.filters.diagonal import (
    PerWeight,
    conditioned_mean,
    initial_belief,
    innovation_mean,
    log_density,
    predicted_belief,
    require_every,
    require_transition,
    spread_over,
)
from bayesfilt.filters.sequence import GradientStream
from bayesfilt.theory.ornstein_uhlenbeck import OrnsteinUhlenbeck
from bayesfilt.theory.riccati import conditioned_variance


def noise_ratio_filter(
    transition: OrnsteinUhlenbeck, *, noise_ratio: PyTree | PerWeight
) -> "NoiseRatioFilter":
    """Exact filter for gradients whose noise variance is `noise_ratio` times their curvature.

    Args:
        transition: drift scale, finite and above 0, units of a weight; stationary variance
            above 0, weight², and infinity is legal (no decay). Scalars, or arrays that
            broadcast against every leaf.
        noise_ratio: r = R/h, finite and above 0; a pure number. A number or an array that
            broadcasts against every leaf, or a tree like the weights. With 1 this filter is
            `diagonal_filter` bit for bit.

    All may be traced, and are then not checked.

    Returns:
        A `Filter` whose gradients are of the *summed* negative log likelihood. To it, the
        precision of a gradient is its curvature h, and not h/r, which is what it adds to 1/p.

    Raises:
        ValueError: a concrete number is out of range.
    """
    require_transition("noise_ratio_filter", transition)
    require_every(require_positive, "noise_ratio_filter", "noise_ratio", noise_ratio)
    return NoiseRatioFilter(transition=transition, noise_ratio=noise_ratio)


class NoiseRatioFilter(NamedTuple):
    """Mean and variance per weight; built, and its numbers checked, by `noise_ratio_filter`."""

    transition: OrnsteinUhlenbeck
    noise_ratio: PyTree | PerWeight

    def init(self, mean: Params, variance: PyTree | Scalar | None = None) -> Belief:
        """Believe `mean` with `variance`, by default the stationary variance.

        Raises:
            ValueError: a ratio that does not fit `mean`, and what `initial_belief` refuses.
        """
        belief = initial_belief("noise_ratio_filter", self.transition, mean, variance)
        self._ratios(belief)  # to refuse it here already
        return belief

    def predict(self, belief: Belief) -> Belief:
        """Let every optimum drift one step."""
        return predicted_belief(self.transition, belief)

    def condition(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Belief:
        """Absorb one gradient of curvature `precision`, taken at `taken_at`."""
        surprise = innovation_mean(belief, gradient, precision, taken_at)
        factor = self.multiplier(belief, precision)
        return Belief(
            mean=jax.tree.map(conditioned_mean, belief.mean, factor, surprise),
            variance=jax.tree.map(
                tempered_variance, belief.variance, precision, self._ratios(belief)
            ),
        )

    def multiplier(self, belief: Belief, precision: PyTree) -> PyTree:
        """Factor by which `condition` multiplies each gradient; units of a weight squared.

        Args:
            belief: before the gradient.
            precision: h >= 0, a tree like the weights.
        """
        return jax.tree.map(tempered_multiplier, belief.variance, precision, self._ratios(belief))

    def innovation(
        self, belief: Belief, gradient: PyTree, precision: PyTree, taken_at: PyTree | None = None
    ) -> Innovation:
        """Compare a gradient with what `belief` expects of it."""
        return Innovation(
            mean=innovation_mean(belief, gradient, precision, taken_at),
            variance=jax.tree.map(
                innovation_variance, belief.variance, precision, self._ratios(belief)
            ),
        )

    def log_density(self, innovation: Innovation) -> PyTree:
        """Log density of each weight's innovation, in nats."""
        return jax.tree.map(log_density, innovation.mean, innovation.variance)

    def _ratios(self, belief: Belief) -> PyTree:
        """Noise ratio of every weight, a tree like the belief's mean."""
        return spread_over("noise_ratio_filter", "noise_ratio", belief.mean, self.noise_ratio)


def tempered_multiplier(
    variance: Float[Array, " *dims"], precision: Float[Array, " *dims"], noise_ratio: PerWeight
) -> Float[Array, " *dims"]:
    """Best multiplier of a gradient of noise R = r h, v h/(h² v + R) = v/(r + v h) [KF-7].

    `theory.kalman_multiplier` divided through by h, so that it neither overflows where h² v
    does nor is 0/0 at h = 0. It is the posterior variance over r.

    Args:
        variance: v >= 0, of the predicted belief; weight².
        precision: h >= 0, the curvature; 1/weight².
        noise_ratio: r > 0; a pure number.
    """
    return variance / (noise_ratio + variance * precision)


def tempered_variance(
    variance: Float[Array, " *dims"], precision: Float[Array, " *dims"], noise_ratio: PerWeight
) -> Float[Array, " *dims"]:
    """Variance after a gradient of noise R = r h, v/(1 + v h/r): it is worth h/r [KF-8].

    Equal to Joseph's form (1 - K h)² v + K² R for the best multiplier K, and as safe: numbers
    >= 0 are added, multiplied and divided only, so that it lies in [0, v] in any precision.

    Args:
        variance: v >= 0, of the predicted belief; weight².
        precision: h >= 0, the curvature; 1/weight².
        noise_ratio: r > 0; a pure number.
    """
    return conditioned_variance(variance, precision / noise_ratio)


def matched_stream(stream: GradientStream, noise_variance: PyTree) -> GradientStream:
    """Stream that says the same with noise equal to curvature: g c/R, worth c²/R [KF-8].

    For gradients whose curvature c and noise variance R are known at every step: any filter of
    this folder is exact for the stream that comes back. Its log likelihood exceeds that of the
    raw gradients by the sum of log(R/|c|) over what was observed, whatever the filter.

    Args:
        stream: whose precision holds the curvature c of each gradient, of the *summed* negative
            log likelihood; here it may be negative. Where it is 0 the gradient says nothing of
            the optimum and counts as missing, whatever R is.
        noise_variance: R > 0, a tree like the gradients, with their leading axis of steps;
            1/weight².

    Raises:
        ValueError: a concrete noise that is not above 0 where something was observed.
    """
    _require_noise(stream, noise_variance)

    def match(step: GradientStream, noise: PyTree) -> GradientStream:
        def hide(leaf: Array, curvature: Array, instead: float) -> Array:
            # Nothing that is missing goes in, so that it reaches no derivative either.
            return jnp.where(step.valid & (curvature != 0), leaf, instead)

        def weigh(curvature: Array, noise: Array) -> Array:
            return hide(curvature, curvature, 0) / hide(noise, curvature, 1)

        def scale(leaf: Array, curvature: Array, weight: Array) -> Array:
            return weight * hide(leaf, curvature, 0)

        weights = jax.tree.map(weigh, step.precision, noise)
        return GradientStream(
            gradient=jax.tree.map(scale, step.gradient, step.precision, weights),
            precision=jax.tree.map(scale, step.precision, step.precision, weights),
            taken_at=step.taken_at,
            valid=step.valid,
        )

    return jax.vmap(match)(stream, noise_variance)


def _require_noise(stream: GradientStream, noise_variance: PyTree) -> None:
    """Refuse a concrete noise that is not above 0 on a step that tells something."""
    for noise, curvature in zip(
        jax.tree.leaves(noise_variance), jax.tree.leaves(stream.precision), strict=True
    ):
        if any(isinstance(leaf, Tracer) for leaf in (noise, curvature, stream.valid)):
            continue
        with jax.ensure_compile_time_eval():
            valid = jnp.reshape(stream.valid, (-1,) + (1,) * (jnp.ndim(curvature) - 1))
            seen = valid & (jnp.asarray(curvature) != 0)
            least = float(jnp.min(jnp.where(seen, noise, 1), initial=1))
        if not least > 0:
            raise ValueError(
                "matched_stream needs noise_variance > 0 wherever there is a gradient,"
                f" got {least:g}."
            )
