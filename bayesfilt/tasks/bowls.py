"""Surfaces whose minimum, curvature and gradient noise are known exactly.

Units. `loss` is the mean over a minibatch, as everywhere. The curvature H is that of the mean
loss; the gradient noise R is the covariance of *one example's* gradient. So on a sampled batch
of B examples the gradient of `loss` is H (w - w*) plus noise of covariance R / B, and the summed
gradient, which filters read, is B H (w - w*) plus noise of covariance B R. R = H is the Fisher
identity, under which a filter's gain equals its variance.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from bayesfilt.checks import require_at_least, require_non_negative, require_positive
from bayesfilt.custom_types import Params
from bayesfilt.tasks.task import float_dtype, whole_batch_size

# How far below zero an eigenvalue may fall, relative to the largest, and still be rounding.
_ROUNDING = 1e-10


class _Surface(abc.ABC):
    """What every surface shares: a noise-free height, and a batch that tilts it."""

    batch_size: int

    @abc.abstractmethod
    def expected_loss(self, params: Params) -> Float[Array, ""]:
        """Height above the minimum without noise."""

    @abc.abstractmethod
    def minimum(self) -> Params:
        """Weights at which `expected_loss` is 0, and so is `loss` on every batch."""

    def loss(self, params: Params, batch: Params) -> Float[Array, ""]:
        """Height above the minimum, tilted by `batch`: the noise in the mean gradient."""
        tilts = jax.tree.map(lambda n, w, m: jnp.vdot(n, w - m), batch, params, self.minimum())
        return self.expected_loss(params) + sum(jax.tree.leaves(tilts))

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """`test_loss`: the height without noise."""
        return {"test_loss": self.expected_loss(params)}


class _VectorSurface(_Surface):
    """A surface over one vector of weights, with any covariance of its gradient noise."""

    noise_factor: Float[Array, "weights weights"]

    def sample_batch(self, key: PRNGKeyArray, step) -> Float[Array, " weights"]:
        """Draw the mean of `batch_size` examples' gradient noise."""
        del step
        white = jax.random.normal(key, self.noise_factor.shape[:1], self.noise_factor.dtype)
        return self.noise_factor @ white / self.batch_size**0.5

    def noise_covariance(self) -> Float[Array, "weights weights"]:
        """R of one example; the mean gradient has R / `batch_size`, the summed one R times it."""
        return self.noise_factor @ self.noise_factor.T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Bowl(_VectorSurface):
    """A quadratic bowl, ½ (w - w*)ᵀ H (w - w*)."""

    curvature: Float[Array, "weights weights"]  # H
    noise_factor: Float[Array, "weights weights"]  # F with F Fᵀ = R
    optimum: Float[Array, " weights"]  # w*
    start: Float[Array, " weights"]
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Float[Array, " weights"]:
        """The same start for every key: only the noise differs between seeds."""
        del key
        return self.start

    def expected_loss(self, params: Float[Array, " weights"]) -> Float[Array, ""]:
        """Height above the minimum without noise."""
        away = params - self.optimum
        return 0.5 * away @ (self.curvature @ away)

    def minimum(self) -> Float[Array, " weights"]:
        """w*."""
        return self.optimum

    def hessian(self, params: Float[Array, " weights"]) -> Float[Array, "weights weights"]:
        """H, the same everywhere; a summed gradient sees `batch_size` times it."""
        del params
        return self.curvature


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Saddle(_VectorSurface):
    """½ u x² + d (y² - r²)² / 4r²: a saddle at (0, 0) between two minima at (0, ±r)."""

    up: Float[Array, ""]  # u: curvature across the pass
    down: Float[Array, ""]  # d: minus the curvature along it
    reach: Float[Array, ""]  # r: from the pass to either minimum
    noise_factor: Float[Array, "2 2"]
    start_spread: Float[Array, ""]
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        """A point near the pass, on a side that the key decides."""
        return self.start_spread * jax.random.normal(key, (2,), self.noise_factor.dtype)

    def expected_loss(self, params: Float[Array, "2"]) -> Float[Array, ""]:
        """Height above the minima without noise."""
        across, along = params[0], params[1]
        well = self.down * (along**2 - self.reach**2) ** 2 / (4 * self.reach**2)
        return 0.5 * self.up * across**2 + well

    def minimum(self) -> Float[Array, "2"]:
        """The minimum at y > 0; the other is its mirror image."""
        return jnp.stack([jnp.zeros_like(self.reach), self.reach])

    def hessian(self, params: Float[Array, "2"]) -> Float[Array, "2 2"]:
        """diag(u, d (3 y²/r² - 1)): diag(u, -d) on the pass, diag(u, 2 d) at the minima."""
        along = self.down * (3 * params[1] ** 2 / self.reach**2 - 1)
        return jnp.diag(jnp.stack([self.up, along]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Ravine(_VectorSurface):
    """½ f (x - 1)² + ½ s (y - x²)²: a flat, curved floor between steep walls.

    Each weight's optimum moves with the other weight, as in a network: x² for y.
    """

    floor: Float[Array, ""]  # f: curvature along the floor
    wall: Float[Array, ""]  # s: curvature across it
    noise_factor: Float[Array, "2 2"]
    start: Float[Array, "2"]
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        """The same start for every key: only the noise differs between seeds."""
        del key
        return self.start

    def expected_loss(self, params: Float[Array, "2"]) -> Float[Array, ""]:
        """Height above the minimum without noise."""
        x, y = params[0], params[1]
        return 0.5 * self.floor * (x - 1) ** 2 + 0.5 * self.wall * (y - x**2) ** 2

    def minimum(self) -> Float[Array, "2"]:
        """The point (1, 1)."""
        return jnp.ones_like(self.start)

    def hessian(self, params: Float[Array, "2"]) -> Float[Array, "2 2"]:
        """[[f + s (6 x² - 2 y), -2 s x], [-2 s x, s]]; its determinant at the minimum is f s."""
        x, y = params[0], params[1]
        corner = self.floor + self.wall * (6 * x**2 - 2 * y)
        side = -2 * self.wall * x
        return jnp.stack([jnp.stack([corner, side]), jnp.stack([side, self.wall])])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TwoGroups(_Surface):
    """Large weights with quiet gradients beside small weights with loud ones.

    A penalty inside the gradient (L2) and decoupled weight decay shrink such groups
    differently under an adaptive optimizer. Weights are a dict, one vector a group.
    """

    optimum: dict[str, Float[Array, " group"]]
    curvature: dict[str, Float[Array, ""]]  # H = h I within a group
    noise_scale: dict[str, Float[Array, ""]]  # deviation of one example's gradient, per weight
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> dict[str, Float[Array, " group"]]:
        """Start at the optimum, so that sizes and gradients are set apart from the first step."""
        del key
        return self.optimum

    def sample_batch(self, key: PRNGKeyArray, step) -> dict[str, Float[Array, " group"]]:
        """Draw the mean of `batch_size` examples' gradient noise."""
        del step
        keys = dict(
            zip(sorted(self.optimum), jax.random.split(key, len(self.optimum)), strict=True)
        )
        return {
            name: self.noise_scale[name]
            * jax.random.normal(keys[name], optimum.shape, optimum.dtype)
            / self.batch_size**0.5
            for name, optimum in self.optimum.items()
        }

    def expected_loss(self, params: dict[str, Float[Array, " group"]]) -> Float[Array, ""]:
        """Height above the minimum without noise, summed over both groups."""

        def height(curvature, weights, optimum):
            return 0.5 * curvature * jnp.sum((weights - optimum) ** 2)

        heights = jax.tree.map(height, self.curvature, params, self.optimum)
        return jnp.asarray(sum(jax.tree.leaves(heights)))

    def minimum(self) -> dict[str, Float[Array, " group"]]:
        """w*, group by group."""
        return self.optimum


def bowl_task(
    curvature: ArrayLike,
    gradient_noise: ArrayLike,
    *,
    batch_size: int,
    optimum: ArrayLike,
    start: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
) -> Bowl:
    """A quadratic bowl with known curvature and gradient noise.

    Args:
        curvature: H of the mean loss, symmetric, no negative eigenvalue; (weights, weights).
        gradient_noise: R, covariance of one example's gradient: a matrix like H, or a variance
            r meaning r I. Pass `curvature` again for the Fisher identity.
        batch_size: examples a minibatch stands for; the mean gradient's noise is R / batch_size.
        optimum: w*; (weights,).
        start: weights before the first step; None means zeros.
        dtype: of the weights; None means JAX's default.

    Raises:
        ValueError: a matrix of another shape, not symmetric or with a negative eigenvalue.
    """
    owner = "bowl_task"
    kind = float_dtype(owner, dtype)
    matrix = _covariance(owner, "curvature", curvature)
    weights = len(matrix)
    begin = np.zeros(weights) if start is None else start
    return Bowl(
        curvature=jnp.asarray(matrix, kind),
        noise_factor=_noise_factor(owner, gradient_noise, weights, kind),
        optimum=jnp.asarray(_vector(owner, "optimum", optimum, weights), kind),
        start=jnp.asarray(_vector(owner, "start", begin, weights), kind),
        batch_size=whole_batch_size(owner, batch_size),
    )


def saddle_task(
    *,
    batch_size: int,
    up: float = 1.0,
    down: float = 0.1,
    reach: float = 1.0,
    gradient_noise: ArrayLike = 0.01,
    start_spread: float = 1e-3,
    dtype: DTypeLike | None = None,
) -> Saddle:
    """Two minima with a saddle between them, started near the saddle; see `Saddle`.

    `gradient_noise` is the covariance of one example's gradient: (2, 2), or a variance.
    """
    owner = "saddle_task"
    kind = float_dtype(owner, dtype)
    for name, value in {"up": up, "down": down, "reach": reach}.items():
        require_positive(owner, name, value)
    require_non_negative(owner, "start_spread", start_spread)
    return Saddle(
        up=jnp.asarray(up, kind),
        down=jnp.asarray(down, kind),
        reach=jnp.asarray(reach, kind),
        noise_factor=_noise_factor(owner, gradient_noise, 2, kind),
        start_spread=jnp.asarray(start_spread, kind),
        batch_size=whole_batch_size(owner, batch_size),
    )


def ravine_task(
    *,
    batch_size: int,
    floor: float = 1.0,
    wall: float = 100.0,
    gradient_noise: ArrayLike = 0.01,
    start: ArrayLike = (-1.2, 1.0),
    dtype: DTypeLike | None = None,
) -> Ravine:
    """A curved ravine whose minimum is (1, 1); see `Ravine`.

    `gradient_noise` is the covariance of one example's gradient: (2, 2), or a variance.
    """
    owner = "ravine_task"
    kind = float_dtype(owner, dtype)
    require_positive(owner, "floor", floor)
    require_positive(owner, "wall", wall)
    return Ravine(
        floor=jnp.asarray(floor, kind),
        wall=jnp.asarray(wall, kind),
        noise_factor=_noise_factor(owner, gradient_noise, 2, kind),
        start=jnp.asarray(_vector(owner, "start", start, 2), kind),
        batch_size=whole_batch_size(owner, batch_size),
    )


def two_groups_task(
    *,
    batch_size: int,
    group_size: int = 32,
    large_weight: float = 10.0,
    small_weight: float = 0.1,
    quiet_gradient: float = 0.01,
    loud_gradient: float = 1.0,
    dtype: DTypeLike | None = None,
) -> TwoGroups:
    """Two groups of weights with |w| and |g| set apart; see `TwoGroups`.

    Args:
        batch_size: examples a minibatch stands for.
        group_size: weights in each group; in every third one the optimum is negative.
        large_weight: |w*| in the group "large_weights", whose gradients are quiet.
        small_weight: |w*| in the group "small_weights", whose gradients are loud.
        quiet_gradient: deviation of one example's gradient; its square is also the curvature
            (the Fisher identity).
        loud_gradient: the same for the other group.
        dtype: of the weights; None means JAX's default.
    """
    owner = "two_groups_task"
    kind = float_dtype(owner, dtype)
    require_at_least(owner, "group_size", group_size, 1)
    size = {"large_weights": large_weight, "small_weights": small_weight}
    scale = {"large_weights": quiet_gradient, "small_weights": loud_gradient}
    for name, value in {"large_weight": large_weight, "small_weight": small_weight}.items():
        require_positive(owner, name, value)
    for name, value in {"quiet_gradient": quiet_gradient, "loud_gradient": loud_gradient}.items():
        require_positive(owner, name, value)
    # Lopsided on purpose: a sign mistake must not cancel between the weights of a group.
    signs = np.where(np.arange(int(group_size)) % 3 == 2, -1.0, 1.0)
    return TwoGroups(
        optimum={name: jnp.asarray(size[name] * signs, kind) for name in size},
        curvature={name: jnp.asarray(scale[name] ** 2, kind) for name in size},
        noise_scale={name: jnp.asarray(scale[name], kind) for name in size},
        batch_size=whole_batch_size(owner, batch_size),
    )


def _covariance(owner: str, name: str, value: ArrayLike) -> np.ndarray:
    """A symmetric matrix without negative eigenvalues, in float64."""
    matrix = np.asarray(value, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{owner} needs a square matrix {name}, got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{owner} needs finite numbers in {name}, got NaN or infinity.")
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > _ROUNDING * np.abs(matrix).max():
        raise ValueError(f"{owner} needs a symmetric {name}, got one that is off by {asymmetry:g}.")
    lowest, highest = np.linalg.eigvalsh(matrix)[[0, -1]]
    if lowest < -_ROUNDING * max(abs(highest), abs(lowest)):
        raise ValueError(f"{owner} needs {name} without negative eigenvalues, got {lowest:g}.")
    return 0.5 * (matrix + matrix.T)


def _noise_factor(owner: str, gradient_noise: ArrayLike, weights: int, dtype: np.dtype) -> Array:
    """A square root F of the noise covariance, F Fᵀ = R; singular R are fine."""
    if np.ndim(gradient_noise) == 0:
        require_non_negative(owner, "gradient_noise", gradient_noise)
        gradient_noise = np.eye(weights) * np.asarray(gradient_noise, np.float64)
    matrix = _covariance(owner, "gradient_noise", gradient_noise)
    if len(matrix) != weights:
        raise ValueError(
            f"{owner} needs gradient_noise of shape {(weights, weights)}, got {matrix.shape}."
        )
    eigenvalues, axes = np.linalg.eigh(matrix)
    return jnp.asarray(axes * np.sqrt(np.clip(eigenvalues, 0, None)), dtype)


def _vector(owner: str, name: str, value: ArrayLike, weights: int) -> np.ndarray:
    """A finite float64 vector with one number a weight."""
    vector = np.asarray(value, np.float64)
    if vector.shape != (weights,) or not np.isfinite(vector).all():
        raise ValueError(
            f"{owner} needs {weights} finite numbers in {name}, got {vector.tolist()}."
        )
    return vector
