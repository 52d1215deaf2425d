"""Is the learning rate of the best filter its posterior variance, and is the root owed to drift?

Claim: of all constant factors on the gradient the one that tracks a drifting optimum best is the
mean squared error that is then left, if and only if the gradient's noise variance R is its
curvature H. That error goes as H^-1/2 because optima drift; of optima at rest it goes as H^-1.
Source: Aitchison (2020), section 3; checks A1, A6 and B1; predictions P1 and P2.
Refuted by: a best factor, found by search alone, that is not the error that was measured; one that
still is where R is not H; other slopes of the measured error.
Limits: a linear Gaussian world, weights apart; there it is a theorem, and this is its measurement.
The formulas only place the grid and give the filter of the two slopes its gain: a wrong formula
leaves a best factor that is not at the grid's centre, or a measured error above the claimed.
Cost of PAPER: 2 worlds, 57 weights of 19 factors each in 64 copies, 8,000 steps; half a minute.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.compare.grid import percentiles, resampled_seeds
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.theory import (
    process_deviation,
    retention,
    static_variance,
    steady_state_variance,
    variance_step,
)
from experiments.contract import Result, Verdict, check_key, judged, not_judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.logarithms import geometric_mean, power_of
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best learning rate is the posterior variance if R = H, and its root comes from drift."
SETTLES = ("P1", "P2")
CAPTION = (
    "First: the best constant factor, found by search, over the squared error that it leaves, for"
    " three ratios of noise to curvature. Second: the price of believing R = H. Third: measured"
    " squared error of the filter with and without drift; laws in grey; 90 % intervals over copies."
)
DTYPE = "float64"

DRIFTING, RESTING = "optima drift", "optima rest"
_FACTOR = 0.1  # of a ratio: rivals are a factor of two away or more
_SLOPE = 0.05  # the rivals of -1/2 are 0 and -1
_TREND = 0.02  # of log ratio on log H, over six decades a third
_LOSS = 0.1  # of the 25 % that small gain promises
_SMALL_GAIN = 0.1
_RESAMPLES = 200
_OVER_COPIES = "90 % bootstrap over copies of the world"

type Statistic = Callable[[np.ndarray], np.ndarray]
"""Numbers with copies last -> one number for each curvature."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    drift_scale: float = 0.01
    stationary_variance: float = 0.05  # of the world of the search; the other is a random walk
    precisions: tuple[float, float, int] = (0.1, 1e5, 13)  # H: from, to, how many
    noise_ratios: tuple[float, ...] = (0.25, 1.0, 4.0)  # R/H
    reach: int = 9  # cube roots of two, down and up from the believed best factor
    copies: int = 64
    warm_up: int = 4_000  # steps
    num_steps: int = 8_000
    slope_precisions: tuple[float, float, int] = (1e-2, 1e2, 9)
    first_variance: float = 100.0  # before the first gradient, in the world of the slopes
    slope_copies: int = 2_000
    slope_steps: int = 3_000  # then the error is measured, once


PAPER = Config()
QUICK = Config(
    precisions=(1.0, 1e4, 3),
    copies=8,
    warm_up=300,
    num_steps=900,
    slope_copies=100,
    slope_steps=500,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Search for the best factor in one world, measure the filter's own error in another."""
    search_key, slope_key = jax.random.split(key)
    groups = {"search": _search(config, search_key), "slopes": _slopes(config, slope_key)}
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Best factor against measured error by R/H, what a wrong belief costs, and two slopes."""
    search, slopes = result.groups["search"], result.groups["slopes"]
    verdicts = []
    for place, ratio in enumerate(search["noise_ratio"].values.tolist()):
        verdicts += _factor_verdicts(search, place, ratio)
    for world, slope in ((DRIFTING, -0.5), (RESTING, -1.0)):
        verdicts += _slope_verdicts(slopes, world, slope)
    copies = min(search["error"].values.shape[-1], slopes["squared_error"].values.shape[-1])
    return with_enough_seeds(verdicts, copies)


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Best factor over error, the loss of a wrong belief, and the error against curvature."""
    search, slopes = result.groups["search"], result.groups["slopes"]
    ratios, precision = search["noise_ratio"].values, search["precision"].values
    best, loss = [], []
    for place, ratio in enumerate(ratios.tolist()):
        name = f"R = {ratio:g} H"
        best.append(_drawn(name, precision, search["error"].values[place], best_over_error(search)))
        if ratio != 1:
            loss.append(_drawn(name, precision, search["error"].values[place], _believed_loss))
    squared, measured = slopes["squared_error"].values, []
    curvature = slopes["precision"].values
    for place, world in enumerate((DRIFTING, RESTING)):
        measured.append(_drawn(world, curvature, squared[place], lambda each: each.mean(axis=-1)))
        law = slopes["claimed"].values[place]
        measured.append(Series(name="closed form", x=curvature, y=law, kind="law"))
    panels = [
        Panel("Best learning rate", "curvature H (1/weight²)", "best factor / squared error", best),
        Panel("Price of believing R = H", "curvature H (1/weight²)", "error / least error", loss),
        Panel(
            "Where the root comes from", "curvature H (1/weight²)", "squared error (weight²)",
            measured,
        ),
    ]  # fmt: skip
    return panels_figure(panels_group(panels), venue)


@functools.partial(jax.jit, static_argnames=("warm_up", "num_steps"))
def tracking_errors(
    key: PRNGKeyArray,
    factor: Float[Array, "ratios precisions factors 1"],
    precision: Float[Array, "precisions 1 1"],
    noise: Float[Array, "ratios 1 1 1"],
    kept: Float[Array, ""],
    move: Float[Array, ""],
    copies: Float[Array, " copies"],
    *,
    warm_up: int,
    num_steps: int,
) -> Float[Array, "ratios precisions factors copies"]:
    """Mean squared distance just after a gradient, of weights that take factor x gradient.

    Written from the model alone. All factors and ratios see the same draws.

    Args:
        key: of all draws.
        factor: on the summed gradient; weight².
        precision: H; 1/weight².
        noise: R/H.
        kept: fraction of optimum and weight that is left after a step.
        move: standard deviation of a move of the optimum.
        copies: only their number counts.
        warm_up: steps before anything is measured.
        num_steps: steps in all.
    """
    drawn = (precision.shape[0], 1, copies.size)

    def step(index, carry):
        optimum, weight, total = carry
        look_key, move_key = jax.random.split(jax.random.fold_in(key, index))
        white = jax.random.normal(look_key, drawn, precision.dtype)
        gradient = precision * (weight - optimum) + jnp.sqrt(noise * precision) * white
        weight = weight - factor * gradient
        total = total + jnp.where(index < warm_up, 0.0, jnp.square(weight - optimum))
        moved = kept * optimum + move * jax.random.normal(move_key, drawn, precision.dtype)
        return moved, kept * weight, total

    zeros = jnp.zeros((*factor.shape[:-1], copies.size), precision.dtype)
    start = (jnp.zeros(drawn, precision.dtype), zeros, zeros)
    return jax.lax.fori_loop(0, num_steps, step, start)[2] / (num_steps - warm_up)


def best_factor(factors: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Factor of the least error and that error, by a parabola over the logarithm.

    NaN at an edge of the grid, whose logarithms are evenly spaced.
    """
    errors = np.where(np.isfinite(errors), errors, np.inf)
    low = int(np.argmin(errors))
    if low in (0, len(errors) - 1) or not np.isfinite(errors[low - 1 : low + 2]).all():
        return float("nan"), float("nan")
    before, least, after = errors[low - 1 : low + 2]
    tilt, bend = 0.5 * (after - before), 0.5 * (after + before) - least
    if bend <= 0:
        return float("nan"), float("nan")
    move = -0.5 * tilt / bend  # in spacings of the grid, which are equal
    factor = factors[low] * (factors[low + 1] / factors[low]) ** move
    return float(factor), float(least + 0.5 * tilt * move)


def best_over_error(search: Group) -> Statistic:
    """Errors (precisions, factors, copies) -> best factor over the least error, by precision."""
    factors = search["factor"].values

    def ratio(errors: np.ndarray) -> np.ndarray:
        pairs = [best_factor(*each) for each in zip(factors, errors.mean(axis=-1), strict=True)]
        return np.array([factor / error for factor, error in pairs])

    return ratio


def _believed_loss(errors: np.ndarray) -> np.ndarray:
    """Error with the believed factor, the grid's middle, over the least of the grid."""
    mean = errors.mean(axis=-1)
    return mean[:, mean.shape[1] // 2] / np.nanmin(mean, axis=1)


def _search(config: Config, key: PRNGKeyArray) -> Group:
    precision = np.geomspace(*config.precisions)
    ratios = np.array(config.noise_ratios)
    transition = (config.drift_scale, config.stationary_variance)
    believed = np.asarray(steady_state_variance(jnp.asarray(precision), *transition))
    factor = believed[:, None] * 2.0 ** (np.arange(-config.reach, config.reach + 1) / 3)
    errors = tracking_errors(
        key,
        jnp.broadcast_to(factor[None, ..., None], (len(ratios), *factor.shape, 1)),
        jnp.asarray(precision)[:, None, None],
        jnp.asarray(ratios)[:, None, None, None],
        retention(*transition),
        process_deviation(*transition),
        jnp.zeros(config.copies),
        warm_up=config.warm_up,
        num_steps=config.num_steps,
    )
    return {
        "precision": variable("precision", precision, units="1/weight²"),
        "noise_ratio": variable("noise_ratio", ratios, units="1"),
        "factor": variable(("precision", "grid"), factor, units="weight²"),
        "error": variable(
            ("noise_ratio", "precision", "grid", "copy"), np.asarray(errors), units="weight²"
        ),
    }


def _slopes(config: Config, key: PRNGKeyArray) -> Group:
    """Squared errors of the filter after a fixed time: random walks, and optima at rest."""
    precision = jnp.asarray(np.geomspace(*config.slope_precisions))
    squared, claimed = [], []
    for each, drift_scale in zip(jax.random.split(key), (config.drift_scale, 0.0), strict=True):
        error, variance = _filtered(
            each, precision, jnp.asarray(drift_scale), config.first_variance,
            jnp.zeros(config.slope_copies), num_steps=config.slope_steps,
        )  # fmt: skip
        squared.append(np.asarray(error))
        claimed.append(np.asarray(variance))
    # The closed forms, not the recursion: the root of drift, and the sum of what was seen.
    total = config.slope_steps * precision
    laws = [
        steady_state_variance(precision, config.drift_scale, jnp.inf),
        static_variance(config.first_variance, total),
    ]
    return {
        "precision": variable("curvature", np.asarray(precision), units="1/weight²"),
        "squared_error": variable(
            ("world", "curvature", "slope_copy"), np.stack(squared), units="weight²"
        ),
        "recursion": variable(("world", "curvature"), np.stack(claimed), units="weight²"),
        "claimed": variable(("world", "curvature"), np.stack(laws), units="weight²"),
    }


@functools.partial(jax.jit, static_argnames="num_steps")
def _filtered(
    key: PRNGKeyArray,
    precision: Float[Array, " precisions"],
    drift_scale: Float[Array, ""],
    first_variance: float,
    copies: Float[Array, " copies"],
    *,
    num_steps: int,
) -> tuple[Float[Array, "precisions copies"], Float[Array, " precisions"]]:
    """Squared error and variance of the filter after `num_steps` gradients of noise R = H."""
    shape, kind = (precision.size, copies.size), precision.dtype
    first_key, key = jax.random.split(key)

    def step(index, carry):
        optimum, weight, variance = carry
        look_key, move_key = jax.random.split(jax.random.fold_in(key, index))
        optimum = optimum + drift_scale * jax.random.normal(move_key, shape, kind)
        variance = variance_step(variance, precision, drift_scale, jnp.inf)
        white = jax.random.normal(look_key, shape, kind)
        gradient = precision[:, None] * (weight - optimum) + jnp.sqrt(precision)[:, None] * white
        return optimum, weight - variance[:, None] * gradient, variance

    optimum = jnp.sqrt(first_variance) * jax.random.normal(first_key, shape, kind)
    start = (optimum, jnp.zeros(shape, kind), jnp.full(precision.size, first_variance, kind))
    optimum, weight, variance = jax.lax.fori_loop(0, num_steps, step, start)
    return jnp.square(weight - optimum), variance


def _factor_verdicts(search: Group, place: int, ratio: float) -> list[Verdict]:
    errors, precision = search["error"].values[place], search["precision"].values
    of = best_over_error(search)
    where = f"R = {ratio:g} H"
    mean = interval_over_seeds(lambda each: geometric_mean(of(each)), errors)
    due = 1 / ratio
    verdicts = [
        _unless_at_edge(
            judged(
                f"{where}: the best learning rate is {due:g} times the posterior variance",
                mean,
                low=due * (1 - _FACTOR),
                high=due * (1 + _FACTOR),
                tolerance=f"{_OVER_COPIES}; geometric mean over H, a tenth",
            ),
            mean,
        )
    ]
    if ratio == 1:
        trend = interval_over_seeds(lambda each: power_of(precision, of(each)), errors)
        claim = f"{where}: best rate over posterior variance has no trend over decades of H"
        tolerance = f"{_OVER_COPIES}; a power that makes a third over six decades"
        found = judged(claim, trend, low=-_TREND, high=_TREND, tolerance=tolerance)
        return [*verdicts, _unless_at_edge(found, trend)]
    # The law of the loss is one of small gain, well above the crossover to a resting prior.
    config_factor = search["factor"].values
    middle = config_factor[:, config_factor.shape[1] // 2]
    loud = (middle * precision < _SMALL_GAIN) & (middle < 0.2 * middle.max())
    claim = f"{where}: believing R = H costs Adam's weights a quarter more squared error"
    if not loud.any():
        return verdicts
    loss = interval_over_seeds(lambda each: float(_believed_loss(each)[loud].mean()), errors)
    tolerance = f"{_OVER_COPIES}; small gain promises (2 + 1/2)/2, gains here are below a tenth"
    low, high = 1.25 - _LOSS, 1.25 + _LOSS
    return [*verdicts, judged(claim, loss, low=low, high=high, tolerance=tolerance)]


def _slope_verdicts(slopes: Group, world: str, slope: float) -> list[Verdict]:
    place = (DRIFTING, RESTING).index(world)
    squared, precision = slopes["squared_error"].values[place], slopes["precision"].values
    claimed = slopes["claimed"].values[place]
    found = interval_over_seeds(lambda each: power_of(precision, each.mean(axis=-1)), squared)
    ratio = interval_over_seeds(lambda each: geometric_mean(each.mean(axis=-1) / claimed), squared)
    return [
        judged(
            f"{world}: the measured error goes as the curvature to the power {slope:g}",
            found,
            low=slope - _SLOPE,
            high=slope + _SLOPE,
            tolerance=f"{_OVER_COPIES}; a tenth of the way to the rival",
        ),
        judged(
            f"{world}: the measured error is that of the closed form",
            ratio,
            low=1 - _FACTOR,
            high=1 + _FACTOR,
            tolerance=f"{_OVER_COPIES}; geometric mean over H, a tenth",
        ),
    ]


def _unless_at_edge(verdict: Verdict, found: Interval) -> Verdict:
    known = np.isfinite(found.estimate)
    return verdict if known else not_judged(verdict, "where the best factor is at the grid's edge")


def _drawn(name: str, x: np.ndarray, values: np.ndarray, statistic: Statistic) -> Series:
    """A statistic, one number an x, with its interval over copies."""
    draws = resampled_seeds(check_key(), values.shape[-1], _RESAMPLES)
    resampled = np.stack([statistic(values[..., draw]) for draw in draws])
    low, high = np.array([percentiles(each, 0.9) for each in resampled.T]).T
    return Series(name=name, x=x, y=statistic(values), low=low, high=high)
