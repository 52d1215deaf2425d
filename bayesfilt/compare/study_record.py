"""A study's numbers with their names: the record that is written, drawn and read again.

Dimensions, units and descriptions are decided here, and nowhere else.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bayesfilt.compare.attribution import PARTS
from bayesfilt.compare.gains import LOG10_GAIN_EDGES, snapshot_records
from bayesfilt.compare.noise_floor import (
    CLEAR_FRACTION,
    HORIZON_DISTANCE,
    clear_until,
    noise_floor_from,
)
from bayesfilt.compare.validity import validity_map
from bayesfilt.optimizers.zoo import Setting
from bayesfilt.records import Group, Record, Variable, variable
from bayesfilt.simulate import ChunkedRun
from bayesfilt.theory import (
    CONVENTIONS,
    REGIMES,
    adamw_from_transition,
    convention_shrink,
    ema_timescale,
)

_TWIN = 1  # place of the perturbed leader among the runs
_MOST_SNAPSHOTS = 20


class Study(NamedTuple):
    """What a run was about, for its labels."""

    leader: str
    followers: tuple[str, ...]
    setting: Setting
    layers: tuple[str, ...]
    weights: np.ndarray  # flat indices of those whose gains were kept
    num_weights: int  # of all
    decay_kept: np.ndarray  # of leader and followers, in float32

    @property
    def everyone(self) -> tuple[str, ...]:
        """The leader first."""
        return (self.leader, *self.followers)


def study_record(study: Study, done: ChunkedRun) -> Record:
    """Label everything that a study's runs left.

    Args:
        study: What was run.
        done: Runs of the leader, its perturbed twin, then the followers, with their measures.
    """
    return Record(
        groups={
            "free": free_group(study, done),
            "shadow": shadow_group(study, done),
            "gains": gains_group(study, done),
            "decay": decay_group(study, done),
            "validity": validity_group(),
        },
        attributes={
            "config": {
                **dataclasses.asdict(study.setting),
                "leader": study.leader,
                "followers": list(study.followers),
            },
            "interrupted": done.interrupted,
            "completed_steps": done.completed_steps,
        },
    )


def free_group(study: Study, done: ChunkedRun) -> Group:
    """Each run on its own, and how far from the leader; beside it the leader's noise floor."""
    records, step = done.record.records, np.asarray(done.record.step)
    noise = noise_floor_from(step, records, twin=_TWIN)
    distance = _runs(records["weight_distance"])
    clear = [clear_until(step, own, noise.weight_distance) for own in distance]
    over = ("run", "step")
    held_out = {
        "test_loss": ("nats", "loss on the held-out examples"),
        "test_accuracy": ("1", "fraction of the held-out examples classified right"),
    }
    group: Group = {
        "step": _steps(step),
        "run": _named("run", study.everyone, "optimizer that trains on its own; the leader first"),
        "loss": variable(
            over, _runs(records["loss"]), units="nats",
            description="mean loss of the minibatch, before the step",
        ),
        "weight_distance": variable(
            over, distance, units="1",
            description="|w - w_leader| / |w_leader|",
        ),
        "predictive_kl": variable(
            over, _runs(records["predictive_kl"]), units="nats",
            description="mean Kullback-Leibler divergence of the held-out predictions from the"
            " leader's",
        ),
        "noise_weight_distance": variable(
            "step", noise.weight_distance, units="1",
            description="weight distance of the leader from itself started one bit away",
        ),
        "noise_loss_gap": variable(
            "step", noise.loss_gap, units="nats",
            description="|difference of minibatch loss| between the leader and that twin",
        ),
        "noise_predictive_kl": variable(
            "step", noise.predictive_kl, units="nats",
            description="predictive divergence of that twin from the leader",
        ),
        "divergence_horizon": variable(
            (), noise.divergence_horizon, units="steps",
            description="first recorded step at which rounding has moved the leader's weights by"
            f" {HORIZON_DISTANCE:g} of their length; NaN: not in this run",
        ),
        "clear_until": variable(
            "run", clear, units="steps",
            description="last recorded step at which the noise is below"
            f" {CLEAR_FRACTION:g} of this run's weight distance; NaN: at none",
        ),
        "diverged_at": variable(
            "run", _runs(np.asarray(done.record.opt_state.diverged_at)[None])[:, 0], units="steps",
            description="first step whose loss or gradient was not finite; -1: none",
        ),
    }  # fmt: skip
    evaluation = {name: _runs(values) for name, values in records["evaluation"].items()}
    for name, (units, description) in held_out.items():
        values = evaluation.pop(name, np.full_like(distance, np.nan))
        group[name] = variable(over, values, units=units, description=description)
    for name, values in evaluation.items():
        if name not in group and values.ndim == 2:
            group[name] = variable(over, values, description=f"{name}, as the task evaluates it")
    return group


def shadow_group(study: Study, done: ChunkedRun) -> Group:
    """Update by update, every follower at the leader's weights and gradients."""
    records = done.record.records
    agreement = records["agreement"]
    over = ("follower", "layer", "step")
    described = {
        "cosine": "of the angle between the follower's update and the leader's",
        "relative_error": "|follower's update - leader's| / |leader's|",
        "log_size_ratio": "natural log of |follower's update| / |leader's|",
        "sign_agreement": "fraction of the weights that both push the same way",
    }
    group: Group = {
        "step": _steps(done.record.step),
        "follower": _named("follower", study.followers, "what proposes updates at every step"),
        "layer": _named("layer", study.layers, "group of weights; 'all' pools them"),
        "part": _named("part", PARTS, "part of an update that the gap is owed to"),
    }
    for name, description in described.items():
        values = _last_first(getattr(agreement, name))
        group[name] = variable(over, values, units="1", description=description)
    group["share"] = variable(
        ("follower", "part", "step"), _last_first(records["share"]), units="1",
        description="Shapley share of the gap between the two updates; the parts sum to 1; NaN:"
        " not available, or no gap",
    )  # fmt: skip
    return group


def gains_group(study: Study, done: ChunkedRun) -> Group:
    """Gain against RMS gradient, weight by weight, at some steps of the leader."""
    chosen = snapshot_records(len(done.record.step), _MOST_SNAPSHOTS)
    gains = {name: np.asarray(values)[chosen] for name, values in _gains_of(done).items()}
    both = ("optimizer", "snapshot")
    everyone = (len(study.everyone), *gains["rms_gradient"].shape)
    centres = 0.5 * (LOG10_GAIN_EDGES[1:] + LOG10_GAIN_EDGES[:-1])
    return {
        "optimizer": _named("optimizer", study.everyone, "all on the leader's gradients"),
        "snapshot": variable("snapshot", np.asarray(done.record.step)[chosen], units="steps"),
        "weight": variable(
            "weight", study.weights, num_weights=study.num_weights,
            description="place in the flattened weights; a fixed random choice if there are more",
        ),
        "layer": _named("layer", study.layers, "group of weights; 'all' pools them"),
        "regime": _named("regime", REGIMES, "which law the variance follows at this gradient"),
        "rms_gradient": variable(
            (*both, "weight"), np.broadcast_to(gains["rms_gradient"], everyone), units="1/weight",
            description="root mean square of the summed gradient, debiased running mean",
        ),
        "gain": variable(
            (*both, "weight"), _swap(gains["gain"]), units="weight^2",
            description="factor on the summed gradient; a filter's posterior variance",
        ),
        "drift_scale": variable(
            both, _swap(gains["drift_scale"]), units="weight",
            description="eta of the transition that the optimizer stands for",
        ),
        "stationary_variance": variable(
            both, _swap(gains["stationary_variance"]), units="weight^2",
            description="sigma^2 of that transition; inf: no decay",
        ),
        "regime_fraction": variable(
            ("optimizer", "layer", "regime", "snapshot"),
            np.transpose(gains["regime_fraction"], (1, 2, 3, 0)), units="1",
            description="fraction of the layer's weights in each regime",
        ),
        "log10_gain_bin": variable(
            "log10_gain_bin", centres, units="log10(weight^2)",
            description="centre of a bin of gain_count; the outermost hold what is beyond",
        ),
        "gain_count": variable(
            (*both, "log10_gain_bin"), _swap(gains["histogram"]), units="weights",
            description="weights whose log10 gain is in the bin, of all weights",
        ),
    }  # fmt: skip


def decay_group(study: Study, done: ChunkedRun) -> Group:
    """Shrink per step: as meant, as made, and by each convention; and what float32 keeps of it."""
    decay, step = done.record.records["decay"], np.asarray(done.record.step)
    realised = _last_first(decay["realised"])
    over = ("optimizer", "step")
    return {
        "step": _steps(step),
        "optimizer": _named("optimizer", study.everyone, "all at the leader's weights"),
        "convention": _named("convention", CONVENTIONS, "what 'decoupled weight decay' means"),
        "realised_shrink": variable(
            over, realised, units="1/step",
            description="part of the update along -w that vanishes at w = 0",
        ),
        "intended_shrink": variable(
            over, _last_first(decay["intended"]), units="1/step",
            description="shrink that the optimizer states; NaN: it states none",
        ),
        "convention_shrink": variable(
            ("convention", "step"), _convention_shrinks(study.setting, step), units="1/step",
            description="equal at schedule factor 1",
        ),
        "ema_timescale": variable(
            over, averaging_steps(realised), units="steps",
            description="steps over which a weight averages its updates, 1/realised shrink",
        ),
        "decay_kept": variable(
            "optimizer", study.decay_kept, units="1",
            description="realised over intended decay of float32 weights on zero gradients",
        ),
    }  # fmt: skip


def validity_group() -> Group:
    """The validity map; the same for every task."""
    found = validity_map()
    two = ("prior_ratio", "rms_times_drift")
    return {
        "rms_times_drift": variable(
            "rms_times_drift", found.rms_times_drift, units="1",
            description="eta sqrt(v): drift scale times RMS summed gradient",
        ),
        "prior_ratio": variable(
            "prior_ratio", found.prior_ratio, units="1/step", description="eta^2 / (2 sigma^2)",
        ),
        "exact": variable(
            two, found.exact, units="eta^2", description="steady state of the exact recursion",
        ),
        "fixed_point": variable(
            two, found.fixed_point, units="eta^2", description="AdaBayes' closed form",
        ),
        "adam": variable("rms_times_drift", found.adam, units="eta^2", description="eta/sqrt(v)"),
        "mean_square": variable(
            "rms_times_drift", found.mean_square, units="eta^2", description="1/v",
        ),
        "sgd": variable("prior_ratio", found.sgd, units="eta^2", description="sigma^2"),
    }  # fmt: skip


def _gains_of(done: ChunkedRun) -> dict[str, Any]:
    gains = dict(done.record.records["gains"])
    # One row for all: everyone sees the leader's gradients.
    gains["rms_gradient"] = np.asarray(gains["rms_gradient"])
    return gains


def averaging_steps(realised_shrink: np.ndarray) -> np.ndarray:
    """EMA timescale of a measured shrink; one that rounds below zero is none at all: infinite."""
    return np.asarray(ema_timescale(jnp.maximum(realised_shrink, 0)))


def _convention_shrinks(setting: Setting, step: np.ndarray) -> np.ndarray:
    factor, at = setting.factor, jnp.asarray(step)
    at_step = jnp.asarray(factor(at)) if callable(factor) else jnp.full(len(step), 1.0)
    shrinks = []
    for convention in CONVENTIONS:
        settings = adamw_from_transition(setting.transition, convention=convention)
        shrinks.append(np.asarray(convention_shrink(settings, at_step, convention=convention)))
    return np.stack(shrinks)


def _runs(values: Any) -> np.ndarray:
    """(records, runs) as (runs, records), without the leader's perturbed twin."""
    return _last_first(np.delete(np.asarray(values), _TWIN, axis=1))


def _last_first(values: Any) -> np.ndarray:
    """The axis of records, which comes first out of a run, as the last."""
    return np.moveaxis(np.asarray(values), 0, -1)


def _swap(values: Any) -> np.ndarray:
    """(snapshots, optimizers, ...) as (optimizers, snapshots, ...)."""
    return np.swapaxes(np.asarray(values), 0, 1)


def _steps(step: Any) -> Variable:
    return variable("step", step, units="steps", description="training step, 0 for the first")


def _named(dim: str, names: tuple[str, ...], description: str) -> Variable:
    return variable(dim, np.array(names), description=description)
