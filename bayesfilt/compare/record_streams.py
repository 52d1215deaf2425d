"""One compiled run whose probes look at chosen weights at every step of a window."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jaxtyping import PRNGKeyArray

from bayesfilt.checks import require_at_least, require_one_of
from bayesfilt.compare.chosen_weights import ChosenWeights
from bayesfilt.compare.coordinate_optimum import (
    TOLERANCE,
    TRUST_RADIUS,
    coordinate_optimum,
)
from bayesfilt.compare.instruments import (
    BatchAt,
    chosen_posterior_variance,
    chosen_weight,
    fixed_examples,
    ggn_diagonal,
    gradient_norm,
    has_examples,
    hessian_diagonal,
    noise_over_examples,
    noise_over_minibatches,
    summed_gradient,
)
from bayesfilt.compare.streams import StreamRecord, streams_from_trajectory
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.belief_report import filter_state
from bayesfilt.simulate import Probe, run_in_chunks, training
from bayesfilt.simulate.probes import minibatch_loss
from bayesfilt.tasks import Supervised

WHICH = (
    "gradient",
    "curvature",
    "ggn",
    "noise_variance",
    "optimum",
    "posterior_variance",
    "gradient_norm",
    "loss",
)


def record_streams(
    key: PRNGKeyArray,
    task: Any,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    chosen: ChosenWeights,
    warm_up_steps: int = 0,
    which: Sequence[str] | None = None,
    batch: int | BatchAt = 512,
    trust_radius: float = TRUST_RADIUS,
    tolerance: float = TOLERANCE,
    params: Params | None = None,
    settings: Mapping[str, Any] | None = None,
    clipped: bool | None = None,
    steps_per_chunk: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> StreamRecord:
    """Train, and write down `num_steps` steps of the chosen weights after `warm_up_steps`.

    Everything of 128 weights of the digits network (64-64-10) over 600 steps, on 512 examples in
    float64, took 35 seconds on two cores, compiling included; four fifths are the optimum's.

    Args:
        key: Splits into the run's key (`simulate`'s) and that of the fixed batch.
        task: What is trained.
        optimizer: Any optax transformation of mean-loss gradients.
        num_steps: Steps recorded, all in a row.
        chosen: From `choose_weights`.
        warm_up_steps: Steps before the first recorded one; no instrument looks at them.
        which: Of `WHICH`; by default all that this task and optimizer can give. The weights are
            always there; "optimum" brings the curvature with it.
        batch: What curvature, noise and optimum are measured on: so many fixed examples of the
            training data, or a function of (task, step). A surface without examples is
            measured without its noise.
        trust_radius: Of `coordinate_optimum`.
        tolerance: Of `coordinate_optimum`.
        params: First weights; by default the task's.
        settings: Of the optimizer, kept with the streams: learning_rate, weight_decay, ...
        clipped: Whether gradients are clipped before the optimizer sees them; kept likewise.
        steps_per_chunk: As in `run_in_chunks`.
        on_progress: As in `run_in_chunks`: called with (completed steps, all steps).

    Returns:
        A `StreamRecord`; shorter than asked for after Ctrl-C.

    Raises:
        ValueError: A length below 1, an unknown name in `which`, or one that this task or
            optimizer cannot give.
        KeyboardInterrupt: Ctrl-C before the first recorded chunk was completed.
    """
    owner = "record_streams"
    require_at_least(owner, "num_steps", num_steps, 1)
    require_at_least(owner, "warm_up_steps", warm_up_steps, 0)
    run_key, rows_key = jax.random.split(key)
    names = fields_of(task, optimizer) if which is None else tuple(which)
    batch_at = batch if callable(batch) else fixed_examples(rows_key, task, batch)
    probes = stream_probes(
        task, chosen, names, batch_at, trust_radius=trust_radius, tolerance=tolerance
    )
    done = run_in_chunks(
        training(optimizer, probes),
        run_key,
        task,
        num_steps,
        params=params,
        warm_up_steps=warm_up_steps,
        steps_per_chunk=steps_per_chunk,
        on_progress=on_progress,
    )
    return streams_from_trajectory(
        done.record.records,
        chosen=chosen,
        batch_size=task.batch_size,
        diverged_at=int(done.record.diverged_at),
        settings=None if settings is None else dict(settings),
        clipped=clipped,
        step=done.record.step,
    )


def fields_of(task: Any, optimizer: optax.GradientTransformation) -> tuple[str, ...]:
    """All of `WHICH` that this task and this optimizer can give."""
    cannot = set() if isinstance(task, Supervised) else {"ggn"}
    state = jax.eval_shape(lambda key: optimizer.init(task.init_params(key)), jax.random.key(0))
    try:
        filter_state(state)
    except ValueError:
        cannot.add("posterior_variance")
    return tuple(name for name in WHICH if name not in cannot)


def stream_probes(
    task: Any,
    chosen: ChosenWeights,
    which: Sequence[str],
    batch_at: BatchAt,
    *,
    trust_radius: float = TRUST_RADIUS,
    tolerance: float = TOLERANCE,
) -> dict[str, Probe]:
    """The probes that record these fields, for `simulate`; `streams_from_trajectory` reads them.

    Raises:
        ValueError: A name that is not in `WHICH`.
    """
    for name in which:
        require_one_of("stream_probes", "fields", name, WHICH)
    noise = (
        noise_over_examples(chosen, batch_at)
        if has_examples(task)
        else noise_over_minibatches(jax.random.key(0), chosen)
    )
    optimum = coordinate_optimum(chosen, batch_at, trust_radius=trust_radius, tolerance=tolerance)
    every: dict[str, Probe] = {
        "gradient": summed_gradient(chosen),
        "curvature": hessian_diagonal(chosen, batch_at),
        "ggn": ggn_diagonal(chosen, batch_at),
        "noise_variance": noise,
        "optimum": optimum,
        "posterior_variance": chosen_posterior_variance(chosen),
        "gradient_norm": gradient_norm,
        "loss": minibatch_loss,
    }
    wanted = set(which) - ({"curvature"} if "optimum" in which else set())
    return {"weight": chosen_weight(chosen)} | {
        name: every[name] for name in WHICH if name in wanted
    }
