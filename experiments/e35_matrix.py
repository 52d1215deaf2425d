"""Does the drift's shape choose between whitening and the natural gradient?

Claim: the filter of many weights together settles on the covariance H^-1/2 where all directions
drift alike (a whitened step, P31) and on H^-1 where the drift follows H^-1 (the natural gradient);
and a filter that factorises over weights claims less variance than it has, by a factor
(H^-1/2)_ii H_ii^1/2 that grows with correlation (P32), in worlds and on the layers of a network.
Source: checks E2 to E4, derived for this project from the abstract of Aitchison (2018).
Refuted by: another power of H in the errors that the filter really makes, or in the constant gain
that errs least; errors of the factorised filter no larger than it claims; a factor that does not
grow with correlation, or is 1 on a trained layer.
Errors are counted in simulated worlds, along eigenvectors of H and weight by weight. That the
covariance of the full filter has these powers at small gain is a theorem; what can fail is the
filter of this library, the size of the gain, and how far from independent a real layer is. On
layers the curvature is Kronecker-factored (K-FAC) with true Fisher factors; some inputs of digits
are always zero, so that the factors are damped, by a share of their mean eigenvalue that is varied.
Cost of PAPER: ten simulated worlds and 5 trained networks: 39 s of CPU time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.filters import diagonal_filter, full_filter
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import Task, make_task
from bayesfilt.theory import OrnsteinUhlenbeck, overconfidence, steady_state_variance
from experiments.contract import INTERVAL, Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.interval_columns import medians
from experiments.layer_curvature import kronecker_factors, median_factor
from experiments.many_runs import train_many
from experiments.matrix_worlds import Counts, counted_errors, in_worlds
from experiments.panels import Panel, Series, panels_group
from experiments.tracked_worlds import Numbers, crossed, log_best, random_walk, tracking_errors

CLAIM = "The shape of the drift chooses between whitening and the natural gradient."
SETTLES = ("P31", "P32")
CAPTION = (
    "Variance of the full filter's errors against eigenvalues of H for two drifts, the error of"
    " constant gains H^-s, the real over the claimed variance of the factorised filter against"
    " correlation, and the same factor by theory on the layers of a trained network."
)

DRIFTS = {"all directions alike": 0.5, "drift like 1/H": 1.0}  # claimed power of 1/H
_POWER = 0.1  # half width; whitening and the natural gradient are 0.5 apart
_SURER = 1.1  # a tenth: less than that would be of no practical account
_ROOM = 0.15  # of the factor between variances: the formula is of first order in the gain


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    eigenvalues: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # of H; 1/weight^2
    drift_scale: float = 0.004  # weight; the largest gain is 0.07
    powers: tuple[float, float, int] = (0.0, 1.5, 7)  # of 1/H in constant gains
    correlations: tuple[float, ...] = (0.0, 0.5, 0.8, 0.95)  # between all pairs of weights
    correlated_curvature: float = 100.0  # of each of them; 1/weight^2
    num_worlds: int = 64  # independent ones a seed
    world_seeds: int = 7
    num_steps: int = 4_000
    settling: int = 2_000  # the slowest direction forgets in 500 steps
    batch_size: int = 32
    training_steps: int = 1_500
    learning_rate: float = 3e-3
    dampings: tuple[float, ...] = (1e-3, 1e-2, 1e-1)  # of the mean eigenvalue of a factor
    num_seeds: int = 5


PAPER = Config()
QUICK = Config(
    eigenvalues=(3.0, 30.0, 300.0),
    powers=(0.0, 1.5, 4),
    correlations=(0.0, 0.8),
    num_worlds=8,
    world_seeds=2,
    num_steps=300,
    settling=200,
    training_steps=60,
    dampings=(1e-2,),
    num_seeds=2,
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Filter simulated worlds, sweep constant gains, and look at a trained network's layers."""
    turn_key, world_key, seed_key = jax.random.split(key, 3)
    groups = {}
    for index, (name, _) in enumerate(DRIFTS.items()):
        groups[f"world/{name}"] = _world(config, turn_key, world_key, index)
    groups["factorised"] = _factorised(config, world_key)
    groups["layers"] = _layers(config, seeds_from(seed_key, config.num_seeds))
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def check(result: Result) -> list[Verdict]:
    """Powers of H; the factorised filter's surprise; layers."""
    verdicts = []
    for name, claimed in DRIFTS.items():
        verdicts += _powers(name, claimed, result.groups[f"world/{name}"])
    verdicts += _surprises(result.groups["factorised"])
    layers = result.groups["layers"]
    verdicts = with_enough_seeds(verdicts, result.attributes["config"]["world_seeds"])
    return verdicts + with_enough_seeds(_on_layers(layers), layers["factor"].values.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Errors by eigenvalue and by constant gain, real over claimed variance, layers."""
    worlds = {name: result.groups[f"world/{name}"] for name in DRIFTS}
    first, factorised, layers = (
        next(iter(worlds.values())), result.groups["factorised"], result.groups["layers"]
    )  # fmt: skip
    values = first["eigenvalue"].values
    eta = result.attributes["config"]["drift_scale"]
    panels = [
        Panel(
            title="full filter",
            x_label="eigenvalue of H, 1/weight$^2$",
            y_label="variance of errors, weight$^2$",
            series=[
                *(
                    Series(name, values, *medians(group["error"].values))
                    for name, group in worlds.items()
                ),
                Series("slope -1/2", values, eta * values**-0.5, kind="law"),
                Series("slope -1", values, eta * values[-1] ** 0.5 / values, kind="law"),
            ],
            x_scale="log",
            y_scale="log",
        ),
        Panel(
            title="constant gains",
            x_label="power s of 1/H in the gain",
            y_label="excess loss over full filter's",
            series=[
                Series(name, group["power"].values, *medians(group["swept"].values))
                for name, group in worlds.items()
            ],
            y_scale="log",
            guide=1.0,
        ),
        Panel(
            title="factorised filter",
            x_label="correlation of weights in H",
            y_label="real / claimed variance",
            series=[
                Series(
                    "counted",
                    factorised["correlation"].values,
                    *medians(factorised["real"].values / factorised["claimed"].values[:, None]),
                ),
                Series(
                    "law for the full filter",
                    factorised["correlation"].values,
                    factorised["law"].values,
                    kind="law",
                ),
            ],
            guide=1.0,
        ),
        Panel(
            title="trained layers",
            x_label="damping / mean eigenvalue",
            y_label="median factor",
            series=[
                Series(
                    str(layer), layers["damping"].values, *medians(layers["factor"].values[index])
                )
                for index, layer in enumerate(layers["layer"].values)
            ],
            x_scale="log",
            guide=1.0,
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _world(config: Config, turn_key: PRNGKeyArray, key: PRNGKeyArray, index: int) -> Group:
    """Errors of the full filter and of constant gains, along eigenvectors of H."""
    values = jnp.asarray(config.eigenvalues)
    basis = jnp.linalg.qr(jax.random.normal(turn_key, (values.size, values.size)))[0]
    curvature = (basis * values) @ basis.T
    claimed = list(DRIFTS.values())[index]
    # Of the largest eigenvalue the drift is the same in both worlds.
    shape = (basis * (values[-1] / values) ** (2 * claimed - 1)) @ basis.T
    transition = OrnsteinUhlenbeck(drift_scale=config.drift_scale, stationary_variance=jnp.inf)
    kalman = full_filter(transition, shape)
    moves = basis * config.drift_scale * (values[-1] / values) ** (claimed - 0.5)
    step, belief = in_worlds(kalman, curvature)
    found = counted_errors(key, curvature, moves, step, belief, _counts(config))
    error = np.einsum("sij,ia,ja->as", found, basis, basis)
    powers = np.linspace(*config.powers)
    losses = _constant_gains(config, key, np.asarray(values), claimed, powers)
    return {
        "eigenvalue": variable("eigenvalue", np.asarray(values), units="1/weight^2"),
        "error": variable(("eigenvalue", "seed"), error, units="weight^2"),
        "power": variable("power", powers),
        "swept": variable(("power", "seed"), losses / (0.5 * values @ error), units="1"),
    }


def _counts(config: Config) -> Counts:
    return Counts(
        num_worlds=config.num_worlds,
        num_seeds=config.world_seeds,
        settling=config.settling,
        num_steps=config.num_steps,
    )


def _constant_gains(
    config: Config, key: PRNGKeyArray, values: np.ndarray, claimed: float, powers: np.ndarray
) -> Float[np.ndarray, "powers seeds"]:
    """Excess loss of gains c H^-s, each s with its best c; along eigenvectors, one at a time."""
    drift = config.drift_scale * (values[-1] / values) ** (claimed - 0.5)
    scales = np.geomspace(0.25, 4.0, 9)
    settings = crossed(power=powers, scale=scales)
    all_values, all_drift = (jnp.tile(each, config.num_worlds) for each in (values, drift))
    best = np.log(drift / np.sqrt(values))

    def optimizer_of(setting: Numbers) -> optax.GradientTransformation:
        middle = jnp.exp(jnp.mean(best + setting["power"] * np.log(values)))
        gain = setting["scale"] * middle * all_values ** -setting["power"]
        return optax.stateless(
            lambda updates, params: jax.tree.map(lambda each: -gain * each, updates)
        )

    errors = tracking_errors(
        key,
        lambda setting: random_walk(all_drift**2, all_values, all_values),
        optimizer_of,
        settings,
        num_weights=all_values.size,
        num_seeds=config.world_seeds,
        num_steps=config.num_steps,
        settling=config.settling,
    )
    losses = 0.5 * errors @ np.asarray(all_values) / config.num_worlds
    by_scale = losses.reshape(len(powers), len(scales), -1)
    lowest = np.argmin(np.median(by_scale, axis=-1), axis=1)
    return np.take_along_axis(by_scale, lowest[:, None, None], axis=1)[:, 0]


def _factorised(config: Config, key: PRNGKeyArray) -> Group:
    """What the factorised filter claims, and the errors that it and the full filter make."""
    count = len(config.eigenvalues)
    transition = OrnsteinUhlenbeck(drift_scale=config.drift_scale, stationary_variance=jnp.inf)
    moves = config.drift_scale * jnp.eye(count)
    rows = {"claimed": [], "real": [], "full": [], "law": []}
    for correlation in config.correlations:
        same = jnp.full((count, count), correlation) + (1 - correlation) * jnp.eye(count)
        curvature = config.correlated_curvature * same
        precision = jnp.diagonal(curvature)
        alone = in_worlds(diagonal_filter(transition), precision)
        together = in_worlds(full_filter(transition), curvature)
        for name, (step, belief) in {"real": alone, "full": together}.items():
            found = counted_errors(key, curvature, moves, step, belief, _counts(config))
            rows[name].append(np.trace(found, axis1=1, axis2=2) / count)
        settled = steady_state_variance(precision, *transition)
        rows["claimed"].append(float(settled[0]) + config.drift_scale**2)
        rows["law"].append(float(jnp.mean(overconfidence(curvature))))
    return {
        "correlation": variable("correlation", np.array(config.correlations)),
        "claimed": variable("correlation", np.array(rows["claimed"]), units="weight^2"),
        "real": variable(("correlation", "seed"), np.stack(rows["real"]), units="weight^2"),
        "full": variable(("correlation", "seed"), np.stack(rows["full"]), units="weight^2"),
        "law": variable("correlation", np.array(rows["law"]), units="1"),
    }


def _layers(config: Config, seeds: Sequence[int]) -> Group:
    """Median factor by which the factorised filter is too sure, on K-FAC of trained layers."""
    task = make_task("digits-mlp", batch_size=config.batch_size, dtype="float32")

    def final(task: Task, params: Any) -> dict[str, Array]:
        return {
            f"{layer}/{damping:g}": median_factor(factors, damping)
            for layer, factors in kronecker_factors(task, params).items()
            for damping in config.dampings
        }

    runs = train_many(
        task,
        lambda numbers: optax.adam(numbers["rate"]),
        {"rate": [config.learning_rate]},
        seeds,
        config.training_steps,
        final=final,
    )
    names = list(dict.fromkeys(name.partition("/")[0] for name in runs.final))
    factor = [
        [runs.final[f"{name}/{damping:g}"][0] for damping in config.dampings] for name in names
    ]
    return {
        "layer": variable("layer", names),
        "damping": variable("damping", np.array(config.dampings), units="mean eigenvalue"),
        "factor": variable(("layer", "damping", "seed"), np.array(factor), units="1"),
    }


def _powers(name: str, claimed: float, group: Group) -> list[Verdict]:
    """Slope of the errors on H, and the best power of a constant gain."""
    values, powers = np.log(group["eigenvalue"].values), group["power"].values
    what = "whitening, H^-1/2" if claimed == 0.5 else "the natural gradient, H^-1"

    def slope(drawn: np.ndarray) -> float:
        return float(-np.polyfit(values, np.log(drawn.mean(axis=-1)), 1)[0])

    def best(drawn: np.ndarray) -> float:
        return float(log_best(drawn[None], np.exp(powers))[0])

    band: Any = {"low": claimed - _POWER, "high": claimed + _POWER}
    said = f"{INTERVAL}; whitening and the natural gradient are 0.5 apart"
    return [
        judged(
            f"Drift, {name}: the full filter's errors go with 1/H to the power {claimed:g}"
            f" ({what}).",
            interval_over_seeds(slope, group["error"].values),
            tolerance=said,
            **band,
        ),
        judged(
            f"Drift, {name}: the constant gain H^-s that errs least has s = {claimed:g}.",
            interval_over_seeds(best, group["swept"].values),
            tolerance=said,
            **band,
        ),
    ]


def _surprises(group: Group) -> list[Verdict]:
    """The factorised filter: right without correlation, and the more too sure the more there is."""
    correlation, claimed = group["correlation"].values, group["claimed"].values
    real, full = group["real"].values / claimed[:, None], group["full"].values / claimed[:, None]

    def mean_of(values: np.ndarray) -> Interval:
        return interval_over_seeds(lambda drawn: float(np.mean(drawn)), values)

    verdicts = [
        judged(
            "Control: without correlation the factorised filter's errors are what it claims.",
            mean_of(real[0]),
            low=1 / _SURER,
            high=_SURER,
        ),
        judged(
            "The factorised filter is over-confident, and the more so the more the weights are"
            f" correlated (real over claimed variance at {correlation[-1]:g}, over that at"
            f" {correlation[-2]:g}).",
            mean_of(real[-1] / real[-2]),
            low=_SURER,
        ),
    ]
    return verdicts + [
        judged(
            f"At a correlation of {at:g} the full filter's real variance is (H^-1/2)_ii H_ii^1/2"
            " times what the factorised one claims.",
            mean_of(row / law),
            low=1 - _ROOM,
            high=1 + _ROOM,
            tolerance=f"{INTERVAL}; the formula is of first order in the gain",
            unit="times the formula",
        )
        for at, row, law in zip(correlation[1:], full[1:], group["law"].values[1:], strict=True)
    ]


def _on_layers(group: Group) -> list[Verdict]:
    """On a trained network, at the middle damping."""
    middle = len(group["damping"].values) // 2
    return [
        judged(
            f"On the {layer} of a trained network the factorised filter is over-confident by a"
            " tenth or more (median weight).",
            interval_over_seeds(
                lambda drawn: float(np.median(drawn)), group["factor"].values[index, middle]
            ),
            low=_SURER,
            tolerance=f"{INTERVAL}; damped by {group['damping'].values[middle]:g} of the mean"
            " eigenvalue",
        )
        for index, layer in enumerate(group["layer"].values)
    ]
