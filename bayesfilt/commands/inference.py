"""Fit every model to a run's streams, compare them, keep what was found; go on where it ended."""

import contextlib
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from bayesfilt.commands.console import note, progress_bar, say
from bayesfilt.commands.inference_models import file_name
from bayesfilt.commands.inference_tables import all_fits, as_dict, show_findings, show_instruments
from bayesfilt.compare.stream_group import instruments_group
from bayesfilt.compare.streams import StreamRecord, streams_from_record
from bayesfilt.figures import draw_all, save_figure
from bayesfilt.figures.sampling import chains_figure, posterior_figure
from bayesfilt.figures.style import venue_style
from bayesfilt.infer.comparison import compare_models
from bayesfilt.infer.fit import Fit, fit, load_fit, save_fit
from bayesfilt.infer.identifiability import Identifiability, identifiability
from bayesfilt.infer.inference_record import Findings, inference_record, reported_model
from bayesfilt.infer.predictive_checks import ReplicateCheck, calibration_checks, replicate_checks
from bayesfilt.infer.predictive_scores import hidden_after
from bayesfilt.infer.priors import priors_for
from bayesfilt.infer.recorded_streams import (
    RecordedStreams,
    fingerprint,
    of_layers,
    ready_streams,
    recorded_streams,
)
from bayesfilt.infer.state_space import Model
from bayesfilt.infer.streams import Streams, StreamWarning
from bayesfilt.infer.verdict import TRANSITIONS_JUDGED, transition_verdicts
from bayesfilt.records import Group, read_record, write_record
from bayesfilt.run_directory import (
    FIGURES_NAME,
    MANIFEST_NAME,
    open_run_directory,
    read_manifest,
    write_manifest,
    write_summary,
)
from bayesfilt.simulate import NEVER

if TYPE_CHECKING:
    from rich.progress import Progress

FITS_NAME = "fits"
_FIRST = "-first"  # behind the name of a model that was fitted to the first steps alone
_MUCH = 0.1  # share of the steps
_REPLICATES, _LEAST_REPLICATES = 200, 20


class Order(NamedTuple):
    """Everything that an inference is made from."""

    run: Path
    out: Path
    force: bool
    models: Mapping[str, Model]
    kind: str
    method: str
    num_chains: int
    num_warmup: int
    num_samples: int
    held_out: float
    layers: tuple[str, ...]
    seed: int


class Task(NamedTuple):
    """One fit that is to be there."""

    name: str  # of its file
    model: Model
    streams: Streams


def carry_out(order: Order) -> int:
    """Make what is missing of an inference; the exit code: 0, or 2 if Ctrl-C came.

    Raises:
        ValueError: no run, no streams, streams that cannot be fitted, a folder that is not empty.
        CannotWriteError: the folder cannot be written.
    """
    began = time.perf_counter()
    streams = _load(order)
    if streams.diverged_at != NEVER:
        note(f"The run diverged at step {streams.diverged_at}: nothing after it is looked at.")
    recorded = recorded_streams(streams, order.kind)
    if order.layers:
        recorded = of_layers(recorded, order.layers)
    num_first = _num_first(order, recorded)
    recorded, notes = ready_streams(recorded, num_first)
    for each in [*notes, *_masked(recorded.streams)]:
        note(each)
    config = _config(order, recorded)
    folder = _open(order, config)
    try:
        fits = _make_all(order, recorded.streams, num_first, folder)
    except KeyboardInterrupt:
        made = len(list((folder / FITS_NAME).glob("*.nc")))
        note(
            f"interrupted with {made} fits finished in {folder / FITS_NAME}; they are kept, and"
            " the same command goes on from there."
        )
        return 2
    try:
        findings = _findings(order, recorded, fits)
        _keep(order, findings, instruments_group(streams), folder, config, began)
    except KeyboardInterrupt:
        note(f"interrupted while writing: what stands in {folder} is whole, the rest is not.")
        return 2
    return 0


def _load(order: Order) -> StreamRecord:
    """What was recorded of the run's weights."""
    if not order.run.is_dir():
        what = "is a file" if order.run.exists() else "does not exist"
        raise ValueError(
            f"{order.run} {what}; infer needs the folder of a run, or --task to record one there."
        )
    try:
        record = read_record(order.run)
    except FileNotFoundError as error:
        raise ValueError(
            f"{order.run} is no run: it has no record; infer needs the folder of a run, or --task"
            " to record one."
        ) from error
    if "streams" not in record.groups:
        found = ", ".join(record.groups) or "nothing"
        raise ValueError(
            f"{order.run} was recorded without streams (it has {found}); to record some:"
            " bayesfilt infer NEW_FOLDER --task digits-mlp."
        )
    return streams_from_record(record)


def _masked(streams: Streams) -> Iterator[str]:
    """How much is not looked at, where that is much."""
    if (lost := 1 - float(streams.valid.mean())) > _MUCH:
        why = "no valid optimum" if streams.kind == "optimum" else "no positive curvature"
        yield f"{lost:.0%} of the steps are masked ({why}): what is inferred may be biased by that."


def _num_first(order: Order, recorded: RecordedStreams) -> int:
    """Steps that the models see before they foretell the others; all where nothing is held out."""
    steps = len(recorded.step)
    if not order.held_out:
        return steps
    first = steps - max(1, round(order.held_out * steps))
    if first < 2:
        raise ValueError(
            f"infer needs at least 2 steps before those that are held out, got {steps} steps with"
            f" --held-out {order.held_out:g}."
        )
    return first


def _config(order: Order, recorded: RecordedStreams) -> dict[str, Any]:
    """What the numbers depend on, besides the models."""
    names = ("kind", "method", "num_chains", "num_warmup", "num_samples", "held_out", "seed")
    return {
        "run": str(order.run),
        **{name: getattr(order, name) for name in names},
        "layers": list(recorded.streams.layer_names),
        "streams": fingerprint(recorded.streams),
    }


def _open(order: Order, config: dict[str, Any]) -> Path:
    """The results' folder: new, or that of this very inference, which goes on.

    Raises:
        ValueError: it holds something else.
    """
    folder = order.out.expanduser()
    if order.force:
        _remove_fits(folder)
    elif (folder / MANIFEST_NAME).is_file():
        before = read_manifest(folder)["config"]
        known = before if isinstance(before, dict) else {}
        other = [name for name in config if name != "run" and known.get(name) != config[name]]
        if not other:
            return folder
        changed = ", ".join(
            "of other streams"
            if name == "streams"
            else f"{name} {known.get(name)!r}, not {config[name]!r}"
            for name in other
        )
        raise ValueError(
            f"{folder} holds another inference ({changed}); name another --out, or pass --force"
            " to replace it."
        )
    folder = open_run_directory(folder, force=order.force)
    _write_manifest(order, folder, config, 0.0, interrupted=True)
    return folder


def _remove_fits(folder: Path) -> None:
    """Take away an earlier inference's fits; other .nc files in a folder of that name are kept.

    Raises:
        ValueError: there are such files and no manifest of a run.
    """
    files = list((folder / FITS_NAME).glob("*.nc"))
    if files and not (folder / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{folder / FITS_NAME} holds {files[0].name} and {folder} is no inference (it has no"
            f" {MANIFEST_NAME}); name another --out."
        )
    for file in files:
        file.unlink()
    with contextlib.suppress(OSError):
        (folder / FITS_NAME).rmdir()


def _write_manifest(
    order: Order, folder: Path, config: dict[str, Any], seconds: float, *, interrupted: bool
) -> None:
    models = {name: model._asdict() for name, model in order.models.items()}
    write_manifest(
        folder,
        {**config, "models": models},
        seed=order.seed,
        dtype="float64",
        wall_time_seconds=seconds,
        interrupted=interrupted,
    )


def _make_all(order: Order, streams: Streams, num_first: int, folder: Path) -> dict[str, Fit]:
    """Every fit by the name of its file; those that stand already are read."""
    tasks = [Task(name=name, model=model, streams=streams) for name, model in order.models.items()]
    if order.held_out:
        first = hidden_after(streams, num_first)
        tasks += [
            Task(name=name + _FIRST, model=model, streams=first)
            for name, model in order.models.items()
        ]
    fits = {}
    with progress_bar() as progress, _without(StreamWarning):
        whole = progress.add_task("all fits", total=len(tasks))
        for task in tasks:
            file = folder / FITS_NAME / f"{file_name(task.name)}.nc"
            if file.exists():
                fits[task.name] = load_fit(file)
                _require_same_model(file, fits[task.name], task.model)
            else:
                fits[task.name] = _make_one(order, task, progress)
                save_fit(file, fits[task.name])
            progress.advance(whole)
    return fits


def _make_one(order: Order, task: Task, progress: "Progress") -> Fit:
    """One fit, with a bar of its own.

    Raises:
        KeyboardInterrupt: Ctrl-C; a fit that it cut short is not kept.
    """
    bar = progress.add_task(f"{task.name}: compiling", total=None)

    def show(completed: int, total: int) -> None:
        progress.update(bar, description=task.name, completed=completed, total=total)

    # By the name, so that a model's draws do not depend on which others are fitted.
    key = jax.random.fold_in(jax.random.key(order.seed), zlib.crc32(task.name.encode()))
    made = fit(
        key,
        task.model,
        task.streams,
        method=order.method,
        num_chains=order.num_chains,
        num_warmup=order.num_warmup,
        num_samples=order.num_samples,
        on_progress=show,
    )
    progress.remove_task(bar)
    if made.tree["posterior"].sizes["draw"] < order.num_samples:
        raise KeyboardInterrupt
    return made


def _require_same_model(file: Path, found: Fit, wanted: Model) -> None:
    if found.model != wanted:
        raise ValueError(
            f"{file} holds a fit of {found.model}, not of {wanted}; pass --force to replace it."
        )


@contextlib.contextmanager
def _without(category: type[Warning]) -> Iterator[None]:
    """Silence what was said once already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def _keep(
    order: Order,
    findings: Findings,
    instruments: Group,
    folder: Path,
    config: dict[str, Any],
    began: float,
) -> None:
    """Write the numbers, print them, draw."""
    record = inference_record(findings, {"config": config, "models": list(order.models)})
    record.groups["instruments"] = instruments
    path = write_record(record, folder)
    write_summary(folder, as_dict(findings))
    _write_manifest(order, folder, config, time.perf_counter() - began, interrupted=False)
    show_instruments(instruments)
    show_findings(findings)
    count = len(all_fits(findings))
    say(f"Fits     {folder / FITS_NAME}: {count}, each a DataTree that ArviZ reads")
    say(f"Record   {path}")
    figures = folder / FIGURES_NAME
    with progress_bar() as progress:
        progress.add_task("drawing", total=None)
        drawn = draw_all(record, figures)
        drawn += _draw_sampling(findings.fits, figures)
    say(f"Figures  {figures}: {len(drawn) // 2}, each as PNG and PDF")


def _findings(order: Order, recorded: RecordedStreams, fits: dict[str, Fit]) -> Findings:
    """What the fits say together."""
    whole = {name: fits[name] for name in order.models}
    held = {name: fits[name + _FIRST] for name in order.models} if order.held_out else whole
    method = "held_out" if order.held_out else "leave_stream_out"
    comparison = compare_models(held, recorded.streams, method=method)
    by_transition = {model.transition: name for name, model in reversed(list(order.models.items()))}
    shrinking = next(filter(None, map(by_transition.get, TRANSITIONS_JUDGED)), None)
    walk = by_transition.get("random_walk")
    verdicts = ()
    rate, decay = recorded.learning_rate, recorded.weight_decay
    both_known = bool(rate) and decay is not None  # a user's own settings may lack one
    if shrinking is not None:
        verdicts = transition_verdicts(
            whole[shrinking],
            learning_rate=rate if both_known else None,
            weight_decay=decay if both_known else None,
            comparison=comparison if walk is not None else None,
            shrinking=shrinking,
            random_walk=walk or "random_walk",
        )
    streams = recorded.streams
    replicate_key, prior_key = jax.random.split(jax.random.fold_in(jax.random.key(order.seed), 2))
    reported = reported_model(comparison)
    spoken_of = dict.fromkeys([reported, *filter(None, [shrinking])])
    return Findings(
        streams=recorded.streams,
        step=recorded.step,
        weights=recorded.weight,
        fits=whole,
        foretelling=held,
        comparison=comparison,
        verdicts=verdicts,
        calibration={name: calibration_checks(made, streams) for name, made in held.items()},
        replicates=_replicates(replicate_key, whole[reported], streams),
        learned={name: _learned(prior_key, whole[name], streams) for name in spoken_of},
        learning_rate=recorded.learning_rate,
        weight_decay=recorded.weight_decay,
    )


def _replicates(key: jax.Array, made: Fit, streams: Streams) -> tuple[ReplicateCheck, ...]:
    """Checks of data drawn from the reported model, as many as its draws allow."""
    posterior = made.tree["posterior"]
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    if draws < _LEAST_REPLICATES:
        return ()
    return replicate_checks(key, made, streams, num_replicates=min(_REPLICATES, draws))


def _learned(key: jax.Array, made: Fit, streams: Streams) -> Identifiability:
    """What the streams say of a model's numbers, and what only the prior does."""
    posterior = made.tree["posterior"].to_dataset()
    draws = {str(name): posterior[name].values for name in posterior.data_vars}
    return identifiability(key, made.model, streams, priors_for(streams), draws)


def _draw_sampling(fits: Mapping[str, Fit], folder: Path) -> list[Path]:
    """Chains and posteriors of every model."""
    paths: list[Path] = []
    for name, made in fits.items():
        failed = not made.gates.passes
        with venue_style("neurips"):
            chains = chains_figure(made.tree, name, failed=failed)
            paths += save_figure(chains, folder, f"chains-{file_name(name)}")
            posterior = posterior_figure(made.tree, name, failed=failed)
            paths += save_figure(posterior, folder, f"posterior-{file_name(name)}")
    return paths
