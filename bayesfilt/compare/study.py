"""A study: one task, a leader, followers, and every number this folder can say about them.

    record = run_study(key, task, setting, ["adabayes_fixed_point", "adabayes"], 2000)

The leader, its perturbed twin and the followers train side by side; the followers also shadow
the leader. All of it is one compiled program, run in chunks: progress, Ctrl-C, and the same bits
as one long run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.catalogue import OPTIMIZER_FACTS, canonical
from bayesfilt.checks import require_at_least
from bayesfilt.compare.agreement import Agreement, update_agreement
from bayesfilt.compare.attribution import gap_shares
from bayesfilt.compare.decay_kept import decay_kept_of_all, realised_shrink, stated_shrink
from bayesfilt.compare.gains import (
    Gains,
    gain_of,
    mean_square_of_sum,
    measure_gains,
    sampled_weights,
    transition_of,
)
from bayesfilt.compare.layers import Layers, flat, layers_of
from bayesfilt.compare.noise_floor import perturbed
from bayesfilt.compare.side_by_side import (
    SideBySideMeasure,
    SideBySideView,
    first_weights,
    training_side_by_side,
)
from bayesfilt.compare.study_record import Study, study_record
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.zoo import NamedOptimizer, Setting, named_optimizer
from bayesfilt.records import Record
from bayesfilt.simulate import run_in_chunks
from bayesfilt.tasks import Task
from bayesfilt.theory import OrnsteinUhlenbeck

# Gains are kept for so many bytes of weights while the run goes on; beyond, for a sample of them.
_BYTES_OF_GAINS = 2**26

Followers = Sequence[str] | Mapping[str, NamedOptimizer | optax.GradientTransformation]


class Contest(NamedTuple):
    """Who leads and who follows."""

    leader_name: str
    leader: NamedOptimizer
    followers: dict[str, NamedOptimizer]

    @property
    def everyone(self) -> dict[str, NamedOptimizer]:
        """The leader first."""
        return {self.leader_name: self.leader, **self.followers}


def run_study(
    key: PRNGKeyArray,
    task: Task,
    setting: Setting,
    followers: Followers,
    num_steps: int,
    *,
    leader: str = "adamw",
    record_every: int = 10,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Train the leader and its followers, compare them in every way, and label the numbers.

    All start from one set of weights and see one sequence of minibatches. Comparisons belong
    in float64: lower precision warns once, because gaps below about 1e-4 are then rounding.

    Args:
        key: Splits into the key of the runs and that of the last bits; the leader's run is
            the one `simulate(jax.random.split(key)[0], ...)` makes.
        task: What is trained.
        setting: AdamW's setting; the zoo's other optimizers derive theirs from it.
        followers: Names in the zoo, with numbers of their own if they have any
            (`power_adam:power=0.75`), or name -> optimizer: a `NamedOptimizer`, or any optax
            transformation of mean-loss gradients (its parts are then "not available").
        num_steps: Steps to take; the setting's own `num_steps` is the length of its schedule.
        leader: A name in the zoo.
        record_every: Numbers are written down at steps 0, k, 2k, ...
        on_progress: Called with (completed steps, num_steps).

    Returns:
        A record with the groups free, shadow, gains, decay and validity. After Ctrl-C it holds
        what was done, every variable up to the same step; its attribute `interrupted` says so
        and `completed_steps` how far it came.

    Raises:
        ValueError: An unknown name, no follower or one twice, a batch size that is not the
            task's, a length below 1.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
    """
    if setting.batch_size != task.batch_size:
        raise ValueError(
            f"run_study needs the setting and the task to have one batch size, got"
            f" {setting.batch_size} and {task.batch_size}."
        )
    require_at_least("run_study", "num_steps", num_steps, 1)
    require_at_least("run_study", "record_every", record_every, 1)
    contest = contest_of(leader, followers, setting)
    run_key, noise_key = jax.random.split(key)
    params = first_weights(run_key, task)
    layers = layers_of(params)
    num_weights = layers.bounds[-1][1]
    weights = sampled_weights(num_weights, _most_weights(params, contest, num_steps, record_every))
    optimizers = {name: each.optimizer for name, each in contest.followers.items()}
    runs = [contest.leader.optimizer, contest.leader.optimizer, *optimizers.values()]
    program = training_side_by_side(
        runs,
        optimizers,
        measures=_measures(contest, setting, layers, weights),
        record_every=record_every,
        b2=setting.b2,
    )
    starts = (params, perturbed(noise_key, params), *(params for _ in optimizers))
    # A GPU multiplies float32 matrices in fewer digits unless told otherwise.
    with jax.default_matmul_precision("highest"):
        done = run_in_chunks(
            program, run_key, task, num_steps, params=starts, on_progress=on_progress
        )
    study = Study(
        leader=contest.leader_name,
        followers=tuple(contest.followers),
        setting=setting,
        layers=layers.names,
        weights=weights,
        num_weights=num_weights,
        decay_kept=decay_kept_of_all(contest.everyone, params, num_steps),
    )
    return study_record(study, done)


def contest_of(leader: str, followers: Followers, setting: Setting) -> Contest:
    """Build everybody from a setting; a follower named like the leader gets a name of its own.

    Raises:
        ValueError: A name that the zoo does not know, none at all, or one twice; a schedule
            that needs a metric.
    """
    if setting.factors.metric is not None:
        raise ValueError(
            f"a comparison needs a schedule that is a function of the step, got"
            f" {setting.schedule!r}: each run would follow its own losses, at a learning rate and"
            " decay of its own."
        )
    require_at_least("run_study", "number of followers", len(followers), 1)
    if isinstance(followers, Mapping):
        built = {name: _as_named(each) for name, each in followers.items()}
    else:
        one = [canonical("optimizers", name, OPTIMIZER_FACTS) for name in followers]
        twice = {name for name in one if one.count(name) > 1}
        if twice:
            raise ValueError(f"run_study needs each follower once, got {min(twice)!r} twice.")
        built = {name: named_optimizer(name, setting) for name in followers}
    return Contest(
        leader_name=leader,
        leader=named_optimizer(leader, setting),
        followers={
            f"{name} (follower)" if name == leader else name: each for name, each in built.items()
        },
    )


def _as_named(optimizer: NamedOptimizer | optax.GradientTransformation) -> NamedOptimizer:
    if isinstance(optimizer, NamedOptimizer):
        return optimizer
    return NamedOptimizer(optimizer=optimizer, parts=None)


def _measures(
    contest: Contest, setting: Setting, layers: Layers, weights: np.ndarray
) -> dict[str, SideBySideMeasure]:
    """What is recorded of the leader's steps, beside the runs themselves."""
    share = gap_shares(contest.leader.parts, {n: o.parts for n, o in contest.followers.items()})

    def agreements(task: Task, view: SideBySideView) -> Agreement:
        found = update_agreement(task, view.shadow)
        return _stack([found[name] for name in contest.followers])

    def shares(task: Task, view: SideBySideView) -> Float[Array, "followers parts"]:
        found = share(task, view.shadow)
        return _stack([found[name] for name in contest.followers])

    def gains(task: Task, view: SideBySideView) -> dict[str, Any]:
        del task
        return _gains(contest, setting, layers, weights, view)

    def decay(task: Task, view: SideBySideView) -> dict[str, Any]:
        del task
        return _decay(contest, view)

    return {"agreement": agreements, "share": shares, "gains": gains, "decay": decay}


def _gains(
    contest: Contest,
    setting: Setting,
    layers: Layers,
    weights: np.ndarray,
    view: SideBySideView,
) -> dict[str, Any]:
    """RMS gradient of every weight, and what everyone's gains are on the leader's gradients."""
    step = view.shadow.step
    square = flat(
        mean_square_of_sum(view.mean_square_gradient, setting.b2, step + 1, setting.batch_size)
    )
    gain, transition = [], []
    for optimizer, opt_state in zip(contest.everyone.values(), _states(contest, view), strict=True):
        if optimizer.parts is None:
            gain.append(jnp.full_like(square, jnp.nan))
            transition.append(OrnsteinUhlenbeck(drift_scale=jnp.nan, stationary_variance=jnp.nan))
            continue
        gain.append(flat(gain_of(optimizer.parts(opt_state), setting.batch_size)))
        read = transition_of(optimizer.parts, setting.scheduled(setting.learning_rate))
        transition.append(read(opt_state, step))
    # All optimizers in one computation: it compiles once.
    measure = jax.vmap(lambda own, drift: measure_gains(layers, square, own, drift))
    gains: Gains = measure(jnp.stack(gain), _stack(transition))
    return {
        "rms_gradient": jnp.sqrt(square)[weights],
        "gain": gains.gain[:, weights],
        "drift_scale": gains.drift_scale,
        "stationary_variance": gains.stationary_variance,
        "regime_fraction": gains.regime_fraction,
        "histogram": gains.histogram,
    }


def _decay(contest: Contest, view: SideBySideView) -> dict[str, Any]:
    """Shrink of everyone's update at the leader's weights, as made and as meant."""
    shadow = view.shadow
    proposals = [shadow.leader, *(shadow.followers[name] for name in contest.followers)]
    before = [view.leader_before, *(view.shadows_before[name] for name in contest.followers)]
    realised, intended = [], []
    for optimizer, proposal, state in zip(
        contest.everyone.values(), proposals, before, strict=True
    ):
        realised.append(
            realised_shrink(
                optimizer.optimizer,
                proposal.updates,
                shadow.gradient,
                state,
                shadow.params,
                shadow.loss,
            )
        )
        intended.append(stated_shrink(optimizer.parts)(proposal.opt_state))
    return {"realised": _stack(realised), "intended": _stack(intended)}


def _states(contest: Contest, view: SideBySideView) -> list[Any]:
    """Everyone's optimizer state after the leader's step."""
    followers = view.shadow.followers
    return [
        view.shadow.leader.opt_state,
        *(followers[name].opt_state for name in contest.followers),
    ]


def _most_weights(params: Params, contest: Contest, num_steps: int, record_every: int) -> int:
    """How many weights' gains can be written down, so that the run's records stay in memory."""
    records = -(-num_steps // record_every)
    itemsize = max(leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    per_weight = records * (len(contest.everyone) + 1) * itemsize
    return max(1, _BYTES_OF_GAINS // per_weight)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *each: jnp.stack(each), *trees)
