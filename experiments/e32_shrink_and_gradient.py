"""Which weights does a penalty inside the gradient leave alone, and which does decay?

Claim: what L2 in Adam takes from a weight per step goes like 1/√v, so that weights with loud
gradients are hardly penalised; what AdamW takes is the same share of every weight.
Source: Loshchilov and Hutter (2019), after proposition 2; check D2. A Q&A page says that AdamW
scales its decay by a local learning rate (ledger 4.1).
Refuted by: a share under Adam + L2 that does not fall with √v, or not with the power -1; one under
AdamW that depends on √v.
Teacher-forced: on the weights and gradients of one AdamW run, updates with and without the penalty
(or decay) are compared; a weight's share is minus their difference, regressed on the weight. The
penalty is also in v, which is why more of it need not shrink more: small and large coefficients are
judged. AdamW's share is the same for all by construction; measured is the code. Whether weights
that are left alone overfit (ledger 0.10) is not settled by this: e01 and e02 look at the errors.
Cost of PAPER: 5 runs of 800 steps with 5 followers in float64, about 15 s of CPU time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Record, variable
from bayesfilt.simulate import shadow
from bayesfilt.tasks import make_task
from experiments.contract import (
    Result,
    Verdict,
    is_the_one,
    judged,
    margin_of,
    spelled,
    with_enough_seeds,
)
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.panels import Panel, Series, panels_group

CLAIM = "L2 in Adam spares weights with loud gradients, decay spares none."
SETTLES = ("P29", "4.1")
CAPTION = (
    "Share of a weight that the penalty or the decay takes per step, against the root of Adam's"
    " second moment, medians of bins of equally many weights, with the law 1/√v; and the slope of"
    " these lines by coefficient."
)
DTYPE = "float64"

_SLOPE = -1.0  # of log share over log √v
_RIVALS = (0.0, -0.5, -2.0)  # decay; a fourth root; no root
_SAME = 1e-6  # relative spread: float64 differences of updates
_NEVER = 1e-7  # root mean squares below it are of weights without a gradient


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    subset: int = 300
    label_noise: float = 0.2
    batch_size: int = 32
    num_seeds: int = 5
    num_steps: int = 800
    window: int = 500  # last steps, over which shares are taken
    record_every: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.1  # "lr_scaled", of the leader
    l2: tuple[float, ...] = (1e-5, 1e-3, 1e-1)
    bins: int = 20


PAPER = Config()
QUICK = Config(num_seeds=2, num_steps=60, window=40, l2=(1e-5,), bins=5)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Let the followers propose on the leader's weights, and take shares of every weight."""
    task = make_task(
        "digits-mlp",
        batch_size=config.batch_size,
        subset=config.subset,
        label_noise=config.label_noise,
        dtype="float64",
    )
    followers = {"adam": _optimizer(config, "adam", 0.0)} | {
        f"{l2:g}": _optimizer(config, "adam_l2", l2) for l2 in config.l2
    }
    leader = _optimizer(config, "adamw", config.weight_decay)

    def taken(task: Any, view: Any) -> dict[str, Any]:
        """Difference from Adam's update, times the weight."""
        plain = view.followers["adam"]
        weights = ravel_pytree(view.params)[0]

        def lost(updates):
            return (ravel_pytree(plain.updates)[0] - ravel_pytree(updates)[0]) * weights

        return {
            "square": weights**2,
            "root_mean_square": jnp.sqrt(ravel_pytree(_second_moment(plain.opt_state))[0]),
            "adamw": lost(view.leader.updates),
            **{name: lost(each.updates) for name, each in view.followers.items() if name != "adam"},
        }

    def one(task: Any, seed: Any) -> dict[str, Any]:
        seen = shadow(
            jax.random.key(seed),
            task,
            leader,
            followers,
            config.num_steps,
            measures={"taken": taken},
            record_every=config.record_every,
        ).records["taken"]
        late = -(-config.window // config.record_every)
        sums = {name: jnp.mean(values[-late:], axis=0) for name, values in seen.items()}
        square = jnp.maximum(sums["square"], jnp.finfo(sums["square"].dtype).tiny)
        return {name: sums[name] / square for name in sums if name not in _AS_IT_IS} | {
            "root_mean_square": sums["root_mean_square"]
        }

    seeds = np.array(seeds_from(key, config.num_seeds), np.uint32)
    program = jax.jit(lambda task, seeds: jax.lax.map(lambda seed: one(task, seed), seeds))
    found = {name: np.asarray(values) for name, values in program(task, seeds).items()}
    root = found.pop("root_mean_square")
    groups = {
        "weights": {
            "root_mean_square": variable(("seed", "weight"), root, units="1/weight (mean loss)"),
            "share_adamw": variable(("seed", "weight"), found["adamw"], units="1/step"),
            "share_l2": variable(
                ("l2", "seed", "weight"),
                np.stack([found[f"{l2:g}"] for l2 in config.l2]),
                units="1/step",
            ),
        }
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


_AS_IT_IS = ("square", "root_mean_square")


def binned(root: np.ndarray, share: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Medians of both over bins of equally many weights, by root; without those at rest."""
    live = root > _NEVER
    order = np.argsort(root[live])
    parts = [part for part in np.array_split(order, bins) if part.size]
    return tuple(  # pyright: ignore[reportReturnType]
        np.array([np.median(values[live][part]) for part in parts]) for values in (root, share)
    )


def slope_of(root: np.ndarray, share: np.ndarray, bins: int) -> float:
    """Of log share over log root, through the bins' medians; NaN if a median is not positive."""
    x, y = binned(root, share, bins)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if np.all(y > 0) else float("nan")


def rank_correlation(root: np.ndarray, share: np.ndarray) -> float:
    """Spearman's, over weights that have a gradient; NaN where all shares are the same."""
    live = root > _NEVER
    # Differences below a millionth are rounding and have no rank.
    values = share[live] / np.median(share[live])
    if np.ptp(values) < _SAME:
        return float("nan")
    ranks = [np.argsort(np.argsort(each)) for each in (root[live], values)]
    return float(np.corrcoef(ranks[0], ranks[1]).ravel()[1])


def check(result: Result) -> list[Verdict]:
    """Rank, power and spread of the shares."""
    group = result.groups["weights"]
    config = result.attributes["config"]
    root = group["root_mean_square"].values
    verdicts = []
    for l2, share in zip(config["l2"], group["share_l2"].values, strict=True):
        ranks = [rank_correlation(*each) for each in zip(root, share, strict=True)]
        slope = _over_seeds(
            [slope_of(*each, config["bins"]) for each in zip(root, share, strict=True)]
        )
        verdicts += [
            judged(
                f"L2 {l2:g} in Adam takes less per step where √v is larger",
                _over_seeds(ranks),
                high=0.0,
                tolerance="rank correlation over weights; 90 % bootstrap over seeds",
            ),
            Verdict(
                claim=f"What L2 {l2:g} in Adam takes per step goes like 1/√v",
                measured=f"power {spelled(slope)}",
                expected=f"{_SLOPE:g}, not {', '.join(f'{rival:g}' for rival in _RIVALS)}",
                tolerance="slope of the bins' medians, an eighth on either side; 90 % bootstrap",
                holds=is_the_one(
                    Interval(slope.estimate, slope.low - 0.125, slope.high + 0.125),
                    _SLOPE,
                    _RIVALS,
                ),
                margin=margin_of(slope, _SLOPE - 0.125, _SLOPE + 0.125),
            ),
        ]
    shares = group["share_adamw"].values
    expected = config["learning_rate"] * config["weight_decay"]
    off = [float(np.max(np.abs(each[live] / expected - 1))) for each, live in _live(root, shares)]
    verdicts.append(
        judged(
            "AdamW takes the share lr wd of every weight, whatever its √v",
            _over_seeds(off),
            high=_SAME,
            tolerance="largest relative error over weights; differences of updates in float64",
        )
    )
    return with_enough_seeds(verdicts, len(root))


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Shares against the root of v, and slopes."""
    group, config = result.groups["weights"], result.attributes["config"]
    root, bins = group["root_mean_square"].values, config["bins"]
    names = [*(f"Adam + L2 {l2:g}" for l2 in config["l2"]), "AdamW"]
    taken = [*group["share_l2"].values, group["share_adamw"].values]
    shares, slopes = [], []
    for name, share in zip(names, taken, strict=True):
        both = [binned(*each, bins) for each in zip(root, share, strict=True)]
        x, y = (np.median([each[place] for each in both], axis=0) for place in range(2))
        y = np.where(y > 0, y, np.nan)
        shares.append(Series(name, x, y))
        if not slopes:  # of the smallest coefficient, which the law is for
            shares.append(Series("1/√v", x, y[0] * x[0] / x, kind="law"))
        slopes.append(
            _over_seeds([slope_of(*each, bins) for each in zip(root, share, strict=True)])
        )
    places = [*(f"L2 {l2:g}" for l2 in config["l2"]), "AdamW"]
    panels = [
        Panel(
            title="share taken per step",
            x_label="√v, gradient of the mean loss",
            y_label="share of the weight",
            series=shares,
            x_scale="log",
            y_scale="log",
        ),
        Panel(
            title="power of √v",
            x_label="",
            y_label="slope of the lines",
            series=[
                Series(
                    "slope over weights",
                    np.arange(len(places)),
                    *(np.array([each[end] for each in slopes]) for end in range(3)),
                    kind="points",
                )
            ],
            y_scale="linear",
            guide=_SLOPE,
            places=places,
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _optimizer(config: Config, name: str, coefficient: float) -> Any:
    setting = Setting(
        learning_rate=config.learning_rate,
        weight_decay=coefficient,
        batch_size=config.batch_size,
        num_steps=config.num_steps,
    )
    return named_optimizer(name, setting).optimizer


def _second_moment(opt_state: Any) -> Any:
    """Adam's v, not debiased: a factor that is the same for all weights has no slope."""
    return only_state(optax.ScaleByAdamState, opt_state).nu


def _live(root: np.ndarray, shares: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(share, each > _NEVER) for each, share in zip(root, shares, strict=True)]


def _over_seeds(values: list[float]) -> Interval:
    return interval_over_seeds(lambda found: float(np.median(found)), np.array(values))
