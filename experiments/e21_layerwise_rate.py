"""Should each layer's learning rate be in proportion to one over its fan-in?

Claim: where gradients carry little, the filter's gain is the prior variance, so that in SGD the
best rates of two layers are in the ratio of the prior's variances, one over their fan-ins.
Source: the low-information limit of Aitchison (2020), P36. Against it: one rate for all layers, as
SGD is used; and muP (Yang and Hu, 2021), in which SGD's rate goes with the width in the first
layer and with one over the width in the last, their ratio with one over its square.
Refuted by: best rates, searched apart, whose log ratio is not that of the fan-ins at an extreme
width; a slope of log ratio on log width whose interval leaves out -1 (rivals 0 and -2).
Plain SGD without decay; the best rates have the lowest loss on all training examples at the end,
at each ratio with the best geometric mean of both.
Biases share the rate of their layer. muP's own scaling of first weights is not used. High rates
end at the edge of stability, which the theory does not know of and which bounds some mean of both
rates: their ratio is what is left. Whether these gradients carry little is not asked here. The
grid was widened to high ratios after a first look, whose best was at the border at width 256.
Cost of PAPER: 1,323 runs of three MLPs (0.8 million steps).
"""

import dataclasses

import numpy as np
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval, bootstrap
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from experiments.best_values import grid_error, is_law, log_best, log_heights, slope_error
from experiments.contract import Result, Verdict, check_key, with_enough_seeds
from experiments.coordinates import widened
from experiments.grids import seeds_from
from experiments.layerwise import Digits, fan_ins, mlp_task, sgd_by_layer
from experiments.many_runs import train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "The best rates of two layers under SGD are in the ratio of one over their fan-ins."
SETTLES = ("P36",)
CAPTION = (
    "Ratio of the best rates of both layers over the width between them, with 90 % bootstrap"
    " intervals and three laws; and the lowest training loss and test error at each ratio of rates."
)

# What the ratio of the second layer's rate to the first's is, of the width; slopes -1, 0, -2.
LAWS = ("filter", "one rate", "muP")
_WORDS = {
    "filter": "falls like one over the width, as the ratio of prior variances does",
    "one rate": "does not go with the width",
    "muP": "falls like one over the square of the width, as muP has it",
}
METRICS = {"training_loss": "training loss", "test_error": "test error"}
_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    widths: tuple[int, ...] = (16, 64, 256)
    lowest_mean: float = 0.0625  # geometric mean of both rates, on the mean-loss gradient
    num_means: int = 7  # each twice the one before
    lowest_ratio: float = 1 / 64  # of the second layer's rate to the first's
    num_ratios: int = 9  # each four times the one before
    num_steps: int = 600
    num_seeds: int = 7
    data: Digits = Digits(subset=None)


PAPER = Config()
QUICK = Config(
    widths=(8, 32), num_means=3, lowest_ratio=1 / 4, num_ratios=3, num_steps=40, num_seeds=3
)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train a grid of both rates, by their ratio and geometric mean, for every width."""
    seeds = seeds_from(key, config.num_seeds)
    means = config.lowest_mean * 2.0 ** np.arange(config.num_means)
    ratios = config.lowest_ratio * 4.0 ** np.arange(config.num_ratios)
    roots = np.sqrt(ratios)
    rates = (np.outer(1 / roots, means).ravel(), np.outer(roots, means).ravel())
    groups = {}
    for width in config.widths:
        task = mlp_task(config.data, (width,))
        layers = fan_ins(task)
        settings = dict(zip(layers, rates, strict=True))
        runs = train_many(task, sgd_by_layer, settings, seeds, config.num_steps)
        found = {
            "training_loss": runs.final["training_loss"],
            "test_error": 1 - runs.final["test_accuracy"],
        }
        dims, shape = ("ratio", "mean_rate", "seed"), (len(ratios), len(means), -1)
        groups[f"width {width}"] = {
            "ratio": variable("ratio", ratios),
            "mean_rate": variable("mean_rate", means),
            "fan_in": variable("layer", np.array(list(layers.values())), units="inputs"),
            **{name: variable(dims, values.reshape(shape)) for name, values in found.items()},
        }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def told_ratio(law: str, fan_in: np.ndarray) -> float:
    """The second layer's rate over the first's, up to a factor that no width changes.

    Args:
        law: of `LAWS`; the filter's ratio is meant with its factor, and so is one rate.
        fan_in: of both layers; the second's is the width.
    """
    first, second = (float(each) for each in fan_in)
    return {"filter": first / second, "one rate": 1.0, "muP": (first / second) ** 2}[law]


def check(result: Result) -> list[Verdict]:
    """How the ratio of the best rates goes with the width, and what it is at the extremes."""
    widths = _fan_ins(result)[:, 1]
    log_width = np.log(widths)
    told = {law: np.log([told_ratio(law, each) for each in _fan_ins(result)]) for law in LAWS}
    slopes = {law: round(float(np.polyfit(log_width, line, 1)[0]), 6) for law, line in told.items()}
    found = []
    for metric, words in METRICS.items():
        slope = ratio_slope(result, metric)
        judged_laws = LAWS if metric == "training_loss" else ("filter",)
        found += [
            is_law(
                f"The ratio of the best rates, by {words}, {_WORDS[law]}",
                slope,
                law,
                slopes,
                measured="slope of log ratio on log width",
            )
            for law in judged_laws
        ]
    for place in (0, -1):
        levels = {law: float(told[law][place]) for law in ("filter", "one rate")}
        found.append(
            is_law(
                f"At width {widths[place]:.0f} the best rates are in the ratio of prior variances",
                _intervals(result, "training_loss")[place],
                "filter",
                levels,
                measured="log of second rate over first",
            )
        )
    num_seeds = next(iter(result.groups.values()))["training_loss"].values.shape[-1]
    return with_enough_seeds(found, num_seeds)


def log_ratio(runs: np.ndarray, ratios: np.ndarray) -> float:
    """Logarithm of the best ratio, each with its best mean; NaN at the border of the grid."""
    heights = log_heights(runs)
    means = heights.shape[1]
    if np.unravel_index(np.argmin(heights), heights.shape)[1] in (0, means - 1):
        return float("nan")
    return log_best(np.min(heights, axis=1), np.log(ratios))


def ratio_slope(result: Result, metric: str) -> Interval:
    """Slope of log ratio on log width; NaN where more than one width has no ratio."""
    log_width = np.log(_fan_ins(result)[:, 1])
    of_width = [group["ratio"].values for group in _groups(result)]
    runs = np.stack([group[metric].values for group in _groups(result)])

    def slope(drawn: np.ndarray) -> float:
        ratios = np.array([log_ratio(*pair) for pair in zip(drawn, of_width, strict=True)])
        known = np.isfinite(ratios)
        if known.sum() < max(2, len(ratios) - 1):
            return float("nan")
        return float(np.polyfit(log_width[known], ratios[known], 1)[0])

    found = bootstrap(check_key(), slope, runs, num_resamples=_RESAMPLES)
    return widened(found, slope_error(grid_error(np.log(of_width[0])), log_width))


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Ratio of the best rates over the width, and what every ratio costs."""
    fan_in = _fan_ins(result)
    width = fan_in[:, 1]
    laws = [
        Series(law, width, [told_ratio(law, each) for each in fan_in], kind="law") for law in LAWS
    ]
    found = []
    for metric, words in METRICS.items():
        best = np.exp(np.array(_intervals(result, metric)))
        nowhere = "" if np.isfinite(best[:, 0]).any() else ": at the edge of the grid"
        found.append(Series(f"by {words}{nowhere}", width, *best.T))
    panels = [
        Panel(
            "Best ratio",
            "width",
            "second rate / first rate",
            [*laws, *found],
            "log",
            "log",
        ),
        *(_cost_panel(result, metric) for metric in METRICS),
    ]
    return panels_figure(panels_group(panels), venue)


def _cost_panel(result: Result, metric: str) -> Panel:
    series = []
    for group in _groups(result):
        lowest = np.min(log_heights(group[metric].values), axis=1)
        name = f"width {group['fan_in'].values[1]}"
        series.append(Series(name, group["ratio"].values, np.exp(lowest)))
    words = METRICS[metric]
    unit = ", nats" if metric == "training_loss" else ""
    title = f"Lowest {words}"
    return Panel(title, "second rate / first rate", words + unit, series, "log", "linear")


def _intervals(result: Result, metric: str) -> list[Interval]:
    """Log ratio of the best rates, for every width, the grid's error in its interval."""
    found = []
    for group in _groups(result):
        ratios = group["ratio"].values
        drawn = bootstrap(
            check_key(),
            lambda drawn, ratios=ratios: log_ratio(drawn, ratios),
            group[metric].values,
            num_resamples=_RESAMPLES,
        )
        found.append(widened(drawn, grid_error(np.log(ratios))))
    return found


def _groups(result: Result) -> list[Group]:
    """By width, ascending."""
    return sorted(result.groups.values(), key=lambda group: group["fan_in"].values[1])


def _fan_ins(result: Result) -> np.ndarray:
    """Fan-ins of both layers, for every width; (widths, 2)."""
    return np.stack([group["fan_in"].values for group in _groups(result)])
