"""Is AdamW an Adam whose penalty weighs every weight by the divisor of its own step?

Claim: while Adam's divisors D stand still, AdamW takes the weights of Adam on a loss with the
penalty (s/2α) Σ Dᵢ wᵢ², to rounding; where they move it does not, and the worse the faster.
Source: Loshchilov and Hutter (2019), proposition 3, and their equation 2, whose coefficient has
another factor 1/α; check D1.
Refuted by: a gap above rounding with frozen divisors; none with the printed coefficient, with one
coefficient for all weights, or with √D for D; a gap that does not grow with the motion of D.
A gap is the median over the steps after the freeze, in units of how far decay itself has moved the
weights, so that 1 is as bad as no decay. The proposition is about steps without momentum; it is
judged with momentum as well. One coefficient and √D are scaled to fit best, and do not touch
weights without a gradient. That the first gap is zero follows from the algebra; measured are the
code and what the proposition leaves out.
Cost of PAPER: 168 runs of 400 steps in float64, about 30 s of CPU time.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from bayesfilt.compare import Interval
from bayesfilt.figures import VenueFigure, panels_figure
from bayesfilt.records import Group, Record, variable
from bayesfilt.tasks import make_task
from bayesfilt.theory import equivalent_penalty
from experiments.contract import Result, Verdict, judged, with_enough_seeds
from experiments.coordinates import interval_over_seeds
from experiments.grids import seeds_from
from experiments.many_runs import Numbers, train_many
from experiments.panels import Panel, Series, panels_group

CLAIM = "Decay is a penalty weighted by Adam's divisors, exactly while these stand still."
SETTLES = ("P28", "1.7", "1.8", "1.9")
CAPTION = (
    "How far penalties are from AdamW, over how far decay itself has moved the weights: in time"
    " with frozen divisors, and against the motion of the divisors."
)
DTYPE = "float64"

# Logarithms to base 10 of shares of decay's own effect.
_ROUNDING = -9.0  # float64, and some hundred steps that spread an error
_CLEARLY = -1.0  # above it: not the same optimizer
_WARM_MEMORY = 0.99  # b2 of the warm-up
_EPS = 1e-8


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number that can change the result."""

    subset: int = 300
    label_noise: float = 0.2
    batch_size: int = 32
    num_seeds: int = 7
    warm_up: int = 200  # steps of Adam, before decay begins and the divisors are held
    num_steps: int = 400  # in all
    record_every: int = 25
    learning_rate: float = 1e-3
    shrink: float = 1e-3  # per step
    momentum: float = 0.9
    memories: tuple[float, ...] = (0.9, 0.97, 0.99, 0.997, 0.999)  # b2 where divisors move


PAPER = Config()
QUICK = Config(num_seeds=2, warm_up=20, num_steps=60, record_every=10, memories=(0.9, 0.999))


class Variant(NamedTuple):
    """How decay is written, beside a b1 and a b2."""

    decays: float  # 1: decoupled, 0: as a penalty
    strength: float = 1.0  # factor on the shrink of a penalty; 0: none
    printed: float = 0.0  # 1: the coefficient of equation 2
    power: float = 1.0  # of the divisor in the penalty


NONE, DECAY, PENALTY = "no decay", "decay", "penalty by D"
PRINTED, ROOT, L2 = "coefficient as printed", "penalty by the root of D", "one coefficient"
_VARIANTS = {
    NONE: Variant(decays=0.0, strength=0.0),
    DECAY: Variant(decays=1.0),
    PENALTY: Variant(decays=0.0),
    PRINTED: Variant(decays=0.0, printed=1.0),
    ROOT: Variant(decays=0.0, power=0.5),
    L2: Variant(decays=0.0, power=0.0),
}
_FROZEN, _MOMENTUM = "frozen", "frozen, with momentum"


class HeldState(NamedTuple):
    """Adam's state as flat vectors, and the divisors that were held."""

    step: Int[Array, ""]
    mean: Float[Array, " dim"]  # debiased running means
    mean_square: Float[Array, " dim"]
    held: Float[Array, " dim"]  # divisors at the end of the warm-up
    path: Float[Array, ""]  # sum over later steps of the mean |change of log D|


def held_adam(config: Config, numbers: Numbers) -> optax.GradientTransformation:
    """Adam that warms up, then holds or moves its divisors, and decays or is penalised."""
    rate, shrink = config.learning_rate, config.shrink

    def init(params):
        zeros = jnp.zeros_like(ravel_pytree(params)[0])
        return HeldState(
            step=jnp.zeros((), jnp.int32),
            mean=zeros,
            mean_square=zeros,
            held=zeros,
            path=jnp.zeros((), zeros.dtype),
        )

    def update(updates, state, params=None):
        gradient, tree_of = ravel_pytree(updates)
        weights = ravel_pytree(params)[0]
        warm = state.step < config.warm_up
        pull = jnp.where(warm, 0, _pull(weights, state.held, rate, shrink, numbers))
        gradient = gradient + pull
        b2 = jnp.where(warm, _debiased(_WARM_MEMORY, state.step), numbers["b2"])
        mean = _blend(_debiased(numbers["b1"], state.step), state.mean, gradient)
        mean_square = _blend(b2, state.mean_square, gradient**2)
        divisor = jnp.sqrt(mean_square) + _EPS
        moved = jnp.abs(jnp.log(divisor / (jnp.sqrt(state.mean_square) + _EPS)))
        decay = jnp.where(warm, 0, numbers["decays"] * shrink)
        return tree_of(-rate * mean / divisor - decay * weights), HeldState(
            step=state.step + 1,
            mean=mean,
            mean_square=mean_square,
            held=jnp.where(warm, divisor, state.held),
            path=state.path + jnp.where(warm, 0, jnp.mean(moved)),
        )

    return optax.GradientTransformation(init, update)


def _blend(memory: Array, old: Array, new: Array) -> Array:
    return memory * old + (1 - memory) * new


def _debiased(memory: Array | float, step: Array) -> Array:
    """Share of the old mean that makes a debiased running mean of `step` + 1 values."""
    return 1 - (1 - memory) / (1 - memory ** (step + 1.0))


def _pull(weights: Array, held: Array, rate: float, shrink: float, numbers: Numbers) -> Array:
    """Gradient of the penalty; a power that is not 1 is scaled to pull like decay."""
    live = held > 10 * _EPS
    shape = jnp.where(live, held, 1.0) ** numbers["power"]
    kept = jnp.where(live, weights**2 * shape / jnp.where(live, held, 1.0), 0)
    fit = jnp.sum(kept) / jnp.sum(kept * shape / jnp.where(live, held, 1.0))
    fit = jnp.where(numbers["power"] == 1, 1.0, fit)  # exactly
    weighted_by = jnp.where(live, fit * shape, held)
    printed = jnp.where(numbers["printed"] == 1, 1 / rate, 1.0)
    strength = (1 - numbers["decays"]) * numbers["strength"] * shrink * printed
    return jax.grad(equivalent_penalty)(weights, weighted_by, strength, rate)


def run(config: Config, key: PRNGKeyArray) -> Result:
    """Train every variant with frozen divisors, the exact ones with momentum and moving ones."""
    task = make_task(
        "digits-mlp",
        batch_size=config.batch_size,
        subset=config.subset,
        label_noise=config.label_noise,
        dtype="float64",
    )
    cells = [(_FROZEN, name, 0.0, 1.0) for name in _VARIANTS]
    exact = (NONE, DECAY, PENALTY)
    cells += [(_MOMENTUM, name, config.momentum, 1.0) for name in exact]
    cells += [(_moving(b2), name, 0.0, b2) for b2 in config.memories for name in exact]
    settings = {
        "b1": np.array([b1 for _, _, b1, _ in cells]),
        "b2": np.array([b2 for _, _, _, b2 in cells]),
        **{
            field: np.array([getattr(_VARIANTS[name], field) for _, name, _, _ in cells])
            for field in Variant._fields
        },
    }
    seen = train_many(
        task,
        lambda numbers: held_adam(config, numbers),
        settings,
        seeds_from(key, config.num_seeds),
        config.num_steps,
        probes={
            "weights": lambda task, view: ravel_pytree(view.params)[0],
            "path": lambda task, view: view.opt_state.path,
        },
        record_every=config.record_every,
        final=lambda task, params: task.evaluate(params),
    )
    after = seen.step >= config.warm_up
    named = {(where, name): place for place, (where, name, _, _) in enumerate(cells)}
    weights = seen.records["weights"][:, :, after]
    gaps = {
        key: gap_to_decay(weights[place], *(weights[named[key[0], name]] for name in (DECAY, NONE)))
        for key, place in named.items()
        if key[1] not in (DECAY, NONE)
    }
    groups = {
        where: {
            "variant": variable("variant", [name for at, name in gaps if at == where]),
            "step": variable("step", seen.step[after] - config.warm_up, units="steps"),
            "gap": variable(
                ("variant", "seed", "step"),
                np.stack([gap for (at, _), gap in gaps.items() if at == where]),
                units="decay's own effect",
            ),
            "motion": variable(
                "seed",
                seen.records["path"][named[where, DECAY]][:, -1]
                / (seen.step[-1] + 1 - config.warm_up),
                units="1/step",
            ),
        }
        for where in dict.fromkeys(at for at, _ in gaps)
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


def gap_to_decay(weights: np.ndarray, decay: np.ndarray, none: np.ndarray) -> np.ndarray:
    """Distance from the decayed run over the distance of one without decay; weights last."""
    effect = np.linalg.norm(none - decay, axis=-1)
    gap = np.linalg.norm(weights - decay, axis=-1)
    return np.where(effect > 0, gap / np.where(effect > 0, effect, 1), np.nan)


def check(result: Result) -> list[Verdict]:
    """The same to rounding, the rivals clearly not; momentum; motion."""
    verdicts = [
        judged(
            f"{words} AdamW takes the weights of Adam with the penalty (s/2α) Σ Dᵢ wᵢ²",
            _gap_of(result, where, PENALTY),
            high=_ROUNDING,
            tolerance="log10 of the gap over decay's own effect; float64, spread by training",
        )
        for words, where in (
            ("With frozen divisors and no momentum", _FROZEN),
            ("With frozen divisors and momentum", _MOMENTUM),
        )
    ]
    verdicts += [
        judged(
            claim,
            _gap_of(result, _FROZEN, name),
            low=_CLEARLY,
            tolerance="log10 of the gap over decay's own effect: a tenth is another optimizer;"
            " 90 % bootstrap over seeds",
        )
        for claim, name in (
            ("The coefficient of the paper's equation 2 is not that of decay", PRINTED),
            ("No one L2 coefficient is decay: the best by least squares is not", L2),
            ("A penalty by √D, scaled to fit best, is not decay", ROOT),
        )
    ]
    rates, gaps = _motion_and_gap(result)
    slope = interval_over_seeds(_slope, np.stack([rates, gaps]))
    verdicts.append(
        judged(
            "With divisors that move the gap grows with the rate at which they move",
            slope,
            low=0.0,
            tolerance="slope of log gap over log mean |change of log D| per step;"
            " 90 % bootstrap over seeds",
        )
    )
    return with_enough_seeds(verdicts, rates.shape[-1])


def plot(result: Result, venue: str = "neurips") -> VenueFigure:
    """Gaps in time, with frozen divisors; against motion."""
    frozen, momentum = result.groups[_FROZEN], result.groups[_MOMENTUM]
    names = [str(name) for name in frozen["variant"].values]
    lines = [(name, frozen, place) for place, name in enumerate(names)]
    lines.append((f"{PENALTY}, momentum", momentum, 0))
    rates, gaps = _motion_and_gap(result)
    moving = [interval_over_seeds(np.median, row) for row in gaps]
    motion = np.median(rates, axis=1)
    order = np.argsort(motion)
    panels = [
        Panel(
            title="frozen divisors",
            x_label="step after the freeze",
            y_label="gap / effect of decay",
            series=[_in_time(name, group, place) for name, group, place in lines],
            x_scale="linear",
            y_scale="log",
            guide=1.0,
        ),
        Panel(
            title="moving divisors",
            x_label="mean |change of log D| per step",
            y_label="gap / effect of decay",
            series=[
                Series(
                    PENALTY,
                    motion[order],
                    *(np.array([each[end] for each in moving])[order] for end in range(3)),
                    kind="line",
                )
            ],
            x_scale="log",
            y_scale="log",
        ),
    ]
    return panels_figure(panels_group(panels), venue)


def _moving(b2: float) -> str:
    return f"moving, b2 {b2:g}"


def _gap_of(result: Result, where: str, name: str) -> Interval:
    group = result.groups[where]
    place = [str(each) for each in group["variant"].values].index(name)
    # A gap of exactly zero has no logarithm: it stands at the smallest float64.
    gaps = np.log10(np.maximum(_typical(group)[place], np.finfo(float).eps))
    return interval_over_seeds(lambda gap: float(np.median(gap)), gaps)


def _typical(group: Group) -> np.ndarray:
    """Median over the steps after the freeze: training soon spreads any gap to its own size."""
    return np.median(group["gap"].values[..., group["step"].values > 0], axis=-1)


def _motion_and_gap(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Both of the exact penalty by b2 and seed."""
    moving = [group for name, group in result.groups.items() if name.startswith("moving")]
    rates = np.stack([group["motion"].values for group in moving])
    return rates, np.stack([_typical(group)[0] for group in moving])


def _slope(pairs: np.ndarray) -> float:
    rate, gap = np.log(np.median(pairs, axis=-1))
    return float(np.polyfit(rate, gap, 1)[0])


def _in_time(name: str, group, place: int) -> Series:
    step, gap = group["step"].values, group["gap"].values[place]
    later = step > 0
    found = np.maximum(gap, np.finfo(float).eps)
    return Series(
        name,
        step[later],
        *(np.quantile(found, share, axis=0)[later] for share in (0.5, 0.0, 1.0)),
        kind="line",
    )
