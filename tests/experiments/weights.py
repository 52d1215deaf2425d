"""Results of the experiments on single weights as they would be if a law held, from formulas."""

import numpy as np

from bayesfilt.records import Group, Record, variable
from experiments.coordinates import MOMENTS
from experiments.grids import Grid, grid_group

SEEDS, WEIGHTS = 5, 40
CURVATURE = np.geomspace(1e-3, 10, WEIGHTS)


def scattered(values, scatter=0.05, seeds=SEEDS):
    """The same numbers for every moment and seed, (moments, seeds, weights), not quite."""
    shake = np.random.default_rng(1).standard_normal((len(MOMENTS), seeds, WEIGHTS))
    return values * np.exp(scatter * shake)


def weights_group(**measured) -> Group:
    """Numbers over (moment, seed, weight) as e07 and e08 keep them."""
    dims = ("moment", "seed", "weight")
    return {
        "moment": variable("moment", list(MOMENTS)),
        "layer": variable("weight", ["first"] * (WEIGHTS // 2) + ["second"] * (WEIGHTS // 2)),
        **{name: variable(dims, values) for name, values in measured.items()},
    }


def noise_world(factor=1.0, slope=1.0, own=1.0, residual=1.0, uneven=0.0, seeds=SEEDS) -> Group:
    """R = factor H^slope, with the middle weight's curvature for a unit; seeds may disagree."""
    unit = np.exp(np.log(CURVATURE).mean())
    noise = factor * unit * (CURVATURE / unit) ** slope
    level = np.exp(uneven * np.linspace(-1, 1, seeds))[:, None]
    return weights_group(
        noise=level * scattered(noise, 0.05, seeds),
        own_label_noise=scattered(own * CURVATURE, 0.01, seeds),
        gauss_newton=scattered(CURVATURE, 0.0, seeds),
        curvature=scattered(residual * CURVATURE, 0.0, seeds),
    )


def noise_result(world: Group, control: float = 1.0) -> Record:
    """A record of e07 with one world."""
    return Record(groups={"digits": world, "matched world": noise_world(control)}, attributes={})


def drift_world(slope, uneven=0.0, seeds=SEEDS) -> Group:
    """q = H^slope, seen with R = H; the slopes of seeds may disagree."""
    still = scattered(CURVATURE, 0.0, seeds)
    slopes = slope + uneven * np.linspace(-1, 1, seeds)[:, None]
    return weights_group(
        drift=scattered(1e-3 * CURVATURE**slopes, 0.1, seeds),
        valid=np.ones_like(still),
        curvature=still,
        noise=still,
    )


def power_grid(power, best, *, centre=0.01, noise=0.01, seeds=SEEDS) -> Grid:
    """A parabola over the learning rate whose lowest loss is that of a parabola over powers."""
    rates = np.geomspace(1e-4, 1, 9)
    height = 0.2 * np.log(rates / centre)[:, None, None] ** 2 + 4 * (power - best) ** 2
    shake = noise * np.random.default_rng(int(100 * power)).standard_normal((9, 1, seeds))
    loss = 1e-3 * np.exp(height + shake)
    course = loss[..., None] * np.ones(3)
    return Grid(
        rates=rates,
        decays=np.zeros(1),
        step=np.arange(3),
        test_error=loss,
        training_loss=loss,
        loss_course=course,
        test_loss_course=course,
        test_error_course=course,
    )


def drift_result(slope=-1.0, best=1.0, coupled=-1.0, uniform=0.0, uneven=0.0, **how) -> Record:
    """A record of e08: one world whose drift and whose best power are given."""
    powers = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    seeds = how.get("seeds", SEEDS)
    return Record(
        groups={
            "digits/drift": drift_world(slope, uneven, seeds),
            **{
                f"digits/eps=0.001/power={power:g}": grid_group(power_grid(power, best, **how))
                for power in powers
            },
            "coupled quadratic/drift": drift_world(coupled),
            "matched world/drift": drift_world(uniform),
        },
        attributes={},
    )


def filter_world(error=1.0, surprise=1.0, *, seeds=SEEDS, looks=40, uneven=0.0) -> Group:
    """Squares of normal numbers times what a filter's variance is too small by."""
    random = np.random.default_rng(3)
    shape = (1, len(MOMENTS), seeds, WEIGHTS, looks)
    own = np.exp(uneven * np.linspace(-1, 1, seeds))[:, None, None]
    dims = ("optimizer", "moment", "seed", "weight", "look")
    return {
        "optimizer": variable("optimizer", ["adamw"]),
        "moment": variable("moment", list(MOMENTS)),
        "layer": variable("weight", ["first"] * WEIGHTS),
        "calibration": variable(dims, error * own * random.standard_normal(shape) ** 2),
        "innovation": variable(dims, surprise * own * random.standard_normal(shape) ** 2),
    }


def calibration_result(world: Group, control: Group | None = None) -> Record:
    """A record of e09 with one world."""
    return Record(
        groups={"digits": world, "matched world": control or filter_world()}, attributes={}
    )


def white_world(best=0.01, crossing=0.01, *, seeds=SEEDS, uneven=0.0) -> Group:
    """A loss whose lowest rate is `best`, correlations that fall through zero at `crossing`."""
    rates = np.geomspace(1e-4, 1, 17)
    own = np.exp(uneven * np.linspace(-1, 1, seeds))
    correlation = -0.05 * np.log(rates[:, None] / (crossing * own))
    loss = np.exp(0.1 * np.log(rates / best) ** 2)[:, None] * np.linspace(1, 1.01, seeds)
    dims = ("moment", "learning_rate", "seed")
    return {
        "moment": variable("moment", ["early", "late"]),
        "learning_rate": variable("learning_rate", rates),
        "autocorrelation": variable(dims, np.stack([correlation] * 2)),
        "loss": variable(dims, np.stack([loss] * 2)),
    }


def whiteness_result(world: Group, control: Group | None = None) -> Record:
    """A record of e10 with one world."""
    return Record(
        groups={"digits": world, "matched world": control or white_world()}, attributes={}
    )
