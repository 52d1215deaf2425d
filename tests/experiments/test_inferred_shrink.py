"""What is said about inferred decays, from results made of formulas, and the fit behind it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from bayesfilt.compare import chosen_weight, summed_gradient
from bayesfilt.infer import Streams, model_named
from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Record, variable
from bayesfilt.simulate import simulate
from bayesfilt.tasks import make_task
from experiments import e05_inferred_shrink as e05
from experiments import e06_inferred_decay as e06
from experiments.fitted_shrink import Lookup, best_scale, draw_layers, fit_layers
from experiments.grids import grid_group
from experiments.readings import CELLS, READINGS, named
from experiments.recorded import (
    Recorded,
    Window,
    choose_matrices,
    record_runs,
    steps_between,
    streams_of,
)
from tests.experiments import surfaces
from tests.experiments.test_verdicts import holds, with_every_seed_lost

READING = "every_step/to_a_mean"
RATES, DECAYS = np.geomspace(1e-3, 8e-3, 3), np.geomspace(0.5, 4, 3)


def cells(slopes, *, level=1.0, noise=0.01, seeds=5, rates=RATES, decays=DECAYS):
    """Numbers that go like powers of rate and decay; (rates, decays, seeds, 2 layers)."""
    law = np.outer(rates ** slopes[0], decays ** slopes[1])
    shake = np.random.default_rng(0).standard_normal((*law.shape, seeds, 2))
    return level * law[:, :, None, None] * np.array([1.0, 1.5]) * np.exp(noise * shake)


def group(decay, *, drift=(1.0, 0.0), known=e05.LAWS, control_noise=0.01, white=0.0):
    """A reading whose controls follow `known` while the truth follows the laws."""
    rates, decays = RATES[: decay.shape[0]], DECAYS[: decay.shape[1]]
    size = {"rates": rates, "decays": decays, "seeds": decay.shape[2]}
    controls = [
        cells(slopes, noise=control_noise, **size) / [1.0, 1.5] for slopes in known.values()
    ]
    truths = [np.outer(rates ** slopes[0], decays ** slopes[1]) for slopes in e05.LAWS.values()]
    return {
        "learning_rate": variable("learning_rate", rates),
        "weight_decay": variable("weight_decay", decays),
        "layer": variable("layer", ["dense_0", "dense_1"]),
        "decay": variable(CELLS, decay),
        "edge": variable(CELLS, np.zeros(decay.shape)),
        "control_edge": variable(("law", *CELLS), np.zeros((len(known), *decay.shape))),
        "process_deviation": variable(CELLS, cells(drift, **size)),
        "autocorrelation": variable(CELLS, np.full(decay.shape, white)),
        "control_decay": variable(("law", *CELLS), np.stack(controls)),
        "control_truth": variable(("law", *CELLS[:2]), np.stack(truths)),
    }


def shrinks(slopes, *, level=1.0, noise=0.01, seeds=5, **others):
    made = group(cells(slopes, level=level, noise=noise, seeds=seeds), **others)
    return Record(groups={READING: made}, attributes={})


SET, SQUARE = "goes with the decay that was set", "goes with the square of the learning rate"


@pytest.mark.parametrize(
    ("slopes", "as_set", "as_square"),
    [
        ((1, 1), True, False),
        ((2, 0), False, True),
        ((1, 0), False, False),  # neither: the half of each
        ((2, 1), False, False),
        ((0, 0), False, False),
    ],
)
def test_the_law_of_the_shrink_is_told_by_both_slopes(slopes, as_set, as_square):
    result = shrinks(slopes)
    assert holds(e05, result, SET) is as_set
    assert holds(e05, result, SQUARE) is as_square


def test_a_wrong_exponent_in_the_theory_turns_the_verdict(monkeypatch):
    result = shrinks((1, 1))
    monkeypatch.setitem(e05.LAWS, "the decay that was set", (1.5, 1.0))
    assert holds(e05, result, SET) is not True


def test_a_law_is_not_judged_where_seeds_disagree_are_few_or_lost():
    assert holds(e05, shrinks((1, 1), noise=3.0), SET) is None
    assert holds(e05, shrinks((1, 1), seeds=3), SET) is None
    lost = cells((1, 1))
    lost[:, 1:, :3] = np.nan  # most seeds of most cells
    assert holds(e05, Record(groups={READING: group(lost)}, attributes={}), SET) is None


@pytest.mark.parametrize(
    ("known", "noise"),
    [
        ({"set": (1.0, 1.0), "square": (1.0, 1.0)}, 0.01),
        ({"set": (0.5, 1.0), "square": (2.0, 0.0)}, 0.01),
        (e05.LAWS, 2.0),
    ],
)
def test_no_law_is_judged_by_a_tool_that_does_not_return_known_decays(known, noise):
    words = "control, known decays come back"
    assert holds(e05, shrinks((1, 1)), words) is True
    blind = shrinks((1, 1), known=known, control_noise=noise)
    assert holds(e05, blind, words) is (None if noise > 1 else False)
    for claim in (SET, SQUARE, "is the decay that was set", "the drift of a step"):
        assert holds(e05, blind, claim) is None


def test_the_right_slopes_at_a_wrong_level_are_not_the_decay():
    words = "the shrink is the decay that was set"
    assert holds(e05, shrinks((1, 1)), words) is True
    high = shrinks((1, 1), level=30.0)
    assert holds(e05, high, SET) is True
    assert holds(e05, high, words) is False
    assert holds(e05, shrinks((1, 1), level=1 / 30), words) is False
    assert holds(e05, shrinks((1, 1), level=1.65, noise=0.5), words) is None


def test_the_drift_is_told_by_its_slope():
    words = "the drift of a step is proportional"
    assert holds(e05, shrinks((1, 1)), words) is True
    assert holds(e05, shrinks((1, 1), drift=(0.5, 0.0)), words) is False
    assert holds(e05, shrinks((1, 1), drift=(0.0, 1.0)), words) is False


def test_innovations_that_go_together_are_no_ornstein_uhlenbeck_process():
    words = "an Ornstein-Uhlenbeck process"
    assert holds(e05, shrinks((1, 1)), words) is True
    assert holds(e05, shrinks((1, 1), white=0.7), words) is False
    assert holds(e05, shrinks((1, 1), white=-0.3), words) is False


def swept(inferred, *, known=e05.LAWS, **numbers):
    """A sweep whose best decay per step is 0.1 rate, and what was inferred, 1.22 times as high."""
    line = surfaces.grid(shape=(3, 9), curvature=np.diag([1.0, 1.0]), noise=0.001, **numbers)
    decay = inferred * 0.1 * line.rates[:, None, None, None] / 1.22 * np.array([1.0, 1.5])
    decay = np.broadcast_to(decay, (3, 1, line.test_error.shape[-1], 2))
    made = group(decay, known=known)
    made["learning_rate"] = variable("learning_rate", line.rates)
    return Record(groups={"sweep": grid_group(line), READING: made}, attributes={})


@pytest.mark.parametrize(
    ("inferred", "expected"), [(1.0, True), (1.6, True), (8.0, False), (0.1, False)]
)
def test_an_inferred_decay_is_near_the_best_or_is_not(inferred, expected):
    for rate in ("0.001", "0.01", "0.1"):
        assert holds(e06, swept(inferred), f"at learning rate {rate} the") is expected


def test_a_decay_is_not_near_a_best_that_the_sweep_does_not_hold():
    words = "at learning rate 0.01 the"
    assert holds(e06, swept(1.0, best_decay=1e4), words) is None
    assert holds(e06, swept(np.nan), words) is None
    blind = {"set": (0.0, 1.0), "square": (0.0, 0.0)}
    assert holds(e06, swept(1.0, known=blind), "control") is not True
    assert holds(e06, swept(1.0, known=blind), words) is None
    result = swept(1.0)
    lost = grid_group(with_every_seed_lost(surfaces.grid(shape=(3, 9))))
    result.groups["sweep"] = lost
    assert holds(e06, result, words) is None


def test_every_reading_has_a_name_of_its_own():
    assert len({named(reading) for reading in READINGS}) == len(READINGS)


def optima(key, model, decay, *, runs, streams=24, steps=150):
    """Layers drawn from the model: deviation 0.2, places around 1."""
    shape = (runs, streams, steps)
    place = 1 + 0.5 * jax.random.normal(jax.random.key(9), shape[:2])
    missing = jax.random.bernoulli(jax.random.key(8), 0.1, shape)
    design = Streams(
        observed=jnp.broadcast_to(place[..., None], shape),
        precision=jnp.ones(shape),
        taken_at=jnp.zeros(shape),
        valid=~missing,
        layer=jnp.zeros(shape[:2], int),
        kind="optimum",
        layer_names=("layer",),
    )
    noise = 0.5 if model.noise == "free" else 0.0
    return draw_layers(
        key, model, jnp.full(runs, decay), jnp.full(runs, noise), jnp.full(runs, 0.2), design
    )


@pytest.mark.parametrize("decay", [0.05, 0.3])
def test_a_known_decay_comes_back(decay):
    """With places to be found, and a tenth of the steps missing."""
    model = model_named("nonzero_mean", noise="free")
    runs = 12
    streams = optima(jax.random.key(0), model, decay, runs=runs)
    found = fit_layers(model, Lookup(lowest=1e-3), streams)
    logs = np.log(np.asarray(found.decay) / decay)
    assert np.isfinite(logs).all()
    assert abs(logs.mean()) < 4 * logs.std(ddof=1) / np.sqrt(runs)
    assert logs.std() < 0.35
    inside = (np.asarray(found.low) < decay) & (decay < np.asarray(found.high))
    assert inside.sum() >= 8  # of 12 with probability 0.9: fewer once in 250
    assert np.abs(np.asarray(found.autocorrelation)).max() < 4 / np.sqrt(24 * 150)
    np.testing.assert_allclose(np.median(found.deviation), 0.2, rtol=0.15)


@pytest.mark.parametrize("decay", [0.002, 0.05])
def test_weights_on_their_way_in_have_the_decay_they_move_with(decay):
    """They start five deviations out; at rest they would be taken for hardly moving."""
    at_rest, model = (
        model_named(name, noise="none") for name in ("ornstein_uhlenbeck", "shrinking_walk")
    )
    streams = optima(jax.random.key(4), model, decay, runs=12)
    logs = np.log(np.asarray(fit_layers(model, Lookup(lowest=1e-4), streams).decay) / decay)
    assert abs(logs.mean()) < 4 * logs.std(ddof=1) / np.sqrt(12)
    assert logs.std() < 0.35
    if decay == 0.002:
        taken = fit_layers(at_rest, Lookup(lowest=1e-4), streams)
        assert np.median(taken.decay) < decay / 3


def test_a_random_walk_has_no_decay_that_the_window_holds():
    walk = model_named("ornstein_uhlenbeck", noise="none")
    found = fit_layers(walk, Lookup(lowest=3e-3), optima(jax.random.key(1), walk, 1e-7, runs=4))
    assert found.edge.tolist() == [-1] * 4
    np.testing.assert_allclose(found.decay, 3e-3)
    assert np.isnan(found.low).all()


def test_white_noise_has_a_decay_above_all_that_the_window_holds():
    walk = model_named("ornstein_uhlenbeck", noise="none")
    found = fit_layers(walk, Lookup(lowest=3e-3), optima(jax.random.key(1), walk, 50.0, runs=4))
    assert found.edge.tolist() == [1] * 4


def test_streams_that_say_nothing_are_left_out_and_too_few_have_no_fit():
    model = model_named("ornstein_uhlenbeck", noise="none")
    streams = optima(jax.random.key(2), model, 0.1, runs=2)
    dead = streams.valid & (jnp.arange(24) >= jnp.array([[20], [21]]))[..., None]
    found = fit_layers(model, Lookup(lowest=1e-3), dataclasses.replace(streams, valid=dead))
    assert found.streams.tolist() == [4.0, 3.0]
    assert np.isfinite(found.decay[0])
    assert np.isnan(found.decay[1])


def generalised_least_squares(y, matrix, direction, *, place: bool, anywhere: bool):
    """Log density of y ~ N(m direction, c matrix), at the best c, m integrated out; and that c."""
    inverse, log_det = scipy.linalg.inv(matrix), np.linalg.slogdet(matrix)[1]
    freedom, extra = len(y) - anywhere, 0.0
    if place:
        information = direction @ inverse @ direction
        y = y - direction * (direction @ inverse @ y) / information
        freedom, extra = freedom - 1, np.log(information)
    scale = y @ inverse @ y / freedom
    return -0.5 * (freedom * np.log(scale) + log_det + extra), scale


@pytest.mark.parametrize("kind", ["optimum", "gradient"])
@pytest.mark.parametrize("transition", ["ornstein_uhlenbeck", "shrinking_walk", "nonzero_mean"])
def test_the_profile_is_that_of_the_dense_gaussian(kind, transition):
    """With the whole covariance matrix of what was seen, gradients, or optima."""
    model, noise = model_named(transition, noise="free"), 0.7
    drawn = optima(jax.random.key(3), model, 0.1, runs=1, steps=40)
    streams = jax.tree.map(lambda each: each[0], drawn)
    rng = np.random.default_rng(0)
    curvature, taken_at = rng.uniform(1, 5, (24, 40)), rng.standard_normal((24, 40))
    if kind == "gradient":
        streams = dataclasses.replace(
            streams,
            kind="gradient",
            precision=jnp.asarray(curvature),
            taken_at=jnp.asarray(taken_at),
            observed=jnp.asarray(curvature * (taken_at - streams.observed)),
        )

    def dense(decay, row):
        seen = np.asarray(streams.valid[row])
        y, time = np.asarray(streams.observed[row])[seen], np.arange(40)[seen]
        kept, look, direction = (
            np.exp(-decay * np.abs(time[:, None] - time)),
            noise,
            np.ones(len(y)),
        )
        anywhere = transition == "shrinking_walk"
        if anywhere:
            left = np.exp(-decay * (time - time[0]))
            kept = kept + (1e6 - np.exp(-2 * decay * time[0])) * np.outer(left, left)
        if kind == "gradient":
            h = curvature[row, seen]
            y, direction = y - h * taken_at[row, seen], -h
            kept, look = kept * np.outer(h, h), noise * h.mean() * h
        matrix = kept + look * np.eye(len(y))
        place = transition == "nonzero_mean"
        return generalised_least_squares(y, matrix, direction, place=place, anywhere=anywhere)

    near, far = (best_scale(model, streams, decay, noise) for decay in (0.03, 0.4))
    for row in (0, 1, 2):
        (first, scale), (second, _) = dense(0.03, row), dense(0.4, row)
        np.testing.assert_allclose(near.scale[row], scale, rtol=1e-8)
        gap = near.log_likelihood[row] - far.log_likelihood[row]
        np.testing.assert_allclose(gap, first - second, rtol=1e-7)


def test_a_recorded_run_is_the_run_that_simulate_makes():
    """Same weights and gradients at the same steps; the optimum is one of the whole data."""
    problem, windows = e05.QUICK.problem, e05.QUICK.windows()
    rates, decays = e05.QUICK.axes.values()
    _, found = record_runs(
        problem, rates.tolist(), decays.tolist(), [3, 4], windows, e05.QUICK.per_layer
    )
    task = make_task("digits-mlp", batch_size=32, subset=300, label_noise=0.2, dtype="float32")
    chosen = choose_matrices(task.init_params(jax.random.key(0)), e05.QUICK.per_layer)
    setting = Setting(
        learning_rate=float(rates[1]), weight_decay=float(decays[0]), batch_size=32, num_steps=1
    )
    probes = {"weight": chosen_weight(chosen), "gradient": summed_gradient(chosen)}
    run = jax.jit(
        lambda task: simulate(
            jax.random.key(4), task, named_optimizer("adamw", setting).optimizer, 96, probes=probes
        )
    )(task)
    for window, recorded in zip(windows.values(), found.values(), strict=True):
        at = window.begin + window.spacing * np.arange(window.count)
        for name in ("weight", "gradient"):
            ours = getattr(recorded, name)[1, 0, 1].reshape(-1, window.count)
            theirs = np.asarray(run.records[name])[at[at < 96]].T
            np.testing.assert_allclose(ours[:, at < 96], theirs, rtol=1e-2, atol=1e-3)
        known = np.isfinite(recorded.optimum)
        assert 0.3 < known.mean() < 1
        assert np.abs(recorded.optimum - recorded.weight)[known].max() < 2.0


def test_streams_whose_optimum_is_often_lost_are_not_used():
    shape = (1, 1, 1, 1, 3, 10)
    optimum = np.zeros(shape)
    optimum[..., 1, :1], optimum[..., 2, :2] = np.nan, np.nan
    numbers = np.ones(shape)
    numbers[..., 0, 0] = 0.0  # a curvature that says nothing
    recorded = Recorded(optimum=optimum, gradient=numbers, curvature=numbers, weight=numbers)
    assert np.asarray(streams_of(recorded, "optimum").valid).sum(axis=-1).tolist() == [[10, 9, 0]]
    gradients = streams_of(recorded, "gradient")
    assert np.asarray(gradients.valid).sum(axis=-1).tolist() == [[9, 10, 10]]
    assert np.isfinite(np.asarray(gradients.observed)).all()


def test_records_stand_at_the_steps_of_their_windows():
    windows = {
        "slow": Window(begin=7, spacing=5, count=3),
        "fast": Window(begin=30, spacing=1, count=4),
    }
    taken, at = 0, []
    for gap in steps_between(windows):
        taken += gap
        at.append(taken)
        taken += 1  # the step that is recorded
    assert at == [7, 12, 17, 30, 31, 32, 33]
    assert windows["slow"].end == 22
