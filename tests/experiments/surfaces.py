"""Results of experiments as they would be if a claim held, made of formulas."""

import numpy as np

from bayesfilt.records import Group, Record
from experiments.grids import Grid, grid_group

# Second derivatives of log error in (log rate, log decay): nearly separable in both
# parametrisations of decay, and in neither.
SEPARABLE = np.array([[1.0, 0.05], [0.05, 0.1]])
OBLIQUE = np.array([[1.0, -0.25], [-0.25, 0.1]])


def grid(
    curvature=SEPARABLE, *, lowest=0.1, seeds=5, noise=0.01, best_decay=0.1, pace=1.0, shape=(7, 9)
) -> Grid:
    """A quadratic valley in log error whose lowest point is inside; courses that fall to it."""
    rates, decays = np.geomspace(1e-3, 0.1, shape[0]), np.geomspace(1e-3, 10, shape[1])
    u, v = np.meshgrid(np.log(rates / 0.01), np.log(decays / best_decay), indexing="ij")
    point = np.stack([u, v], axis=-1)
    height = 0.5 * np.einsum("...i,ij,...j", point, 0.2 * curvature, point)
    shake = noise * np.random.default_rng(0).standard_normal((*u.shape, seeds))
    error = lowest * np.exp(height[..., None] + shake)
    step = 100 * np.arange(30)
    course = error[..., None] * (1 + 5 * np.exp(-pace * step / 600))
    # The more decay, the higher the training loss, and all optimizers see the same losses.
    loss = np.broadcast_to(decays[:, None] * np.exp(0.01 * shake), error.shape)
    return Grid(
        rates=rates,
        decays=decays,
        step=step,
        test_error=error,
        training_loss=loss,
        loss_course=np.broadcast_to(loss[..., None], course.shape),
        test_loss_course=course,
        test_error_course=course,
    )


def valley_of_law(slope) -> np.ndarray:
    """Second derivatives of a steep valley whose best shrink goes as this power of the rate."""
    bend = slope - 1.0
    return 0.3 * np.array([[bend**2 + 0.05, -bend], [-bend, 1.0]])


def record(attributes=None, **grids: Grid) -> Record:
    """Grids by name; two underscores stand for a slash."""
    groups: dict[str, Group] = {
        name.replace("__", "/"): grid_group(each) for name, each in grids.items()
    }
    return Record(groups=groups, attributes=attributes or {})
