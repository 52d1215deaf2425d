"""Large epsilon, regimes, switching and the memory of squares: each verdict can be yes and no."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import Interval
from bayesfilt.optimizers.aliases import adabayes_fixed_point
from bayesfilt.optimizers.belief_report import only_state
from bayesfilt.records import Record, variable
from bayesfilt.simulate import StepView
from experiments import e15_large_epsilon as e15
from experiments import e16_regime_migration as e16
from experiments import e17_switch_to_sgd as e17
from experiments import e28_memory_of_squares as e28
from experiments import tuned_cells
from experiments.many_runs import ManyRuns
from experiments.watched_squares import watch_squares, watched_squares


def only(verdicts, words):
    """The one verdict whose claim has these words."""
    (found,) = [each for each in verdicts if words in each.claim]
    return found.holds


def cells(levels, *, seeds=5, noise=0.005, seed=0):
    """Losses around levels, (cells, seeds)."""
    shake = np.random.default_rng(seed).standard_normal((len(levels), seeds))
    return np.asarray(levels, float)[:, None] * np.exp(noise * shake)


# The best of tuned cells.


def test_the_best_cell_has_the_lowest_median_and_a_diverged_run_is_infinitely_bad():
    values = np.array([[0.3, 0.3, 0.3], [0.1, np.nan, np.nan], [0.2, 0.9, 0.2]])
    assert tuned_cells.best_cell_of(values) == 2
    np.testing.assert_allclose(tuned_cells.log_best(values), np.log(0.2))
    assert np.isnan(tuned_cells.log_best(np.full((2, 3), np.nan)))


def test_a_gap_of_paired_grids_leaves_out_what_they_share():
    shared = np.exp(np.random.default_rng(0).standard_normal((4, 6)))
    gap = tuned_cells.gap_of_best(2 * shared, shared)
    np.testing.assert_allclose(gap, np.log(2), atol=1e-5)


def test_the_gap_of_a_cell_is_the_median_of_its_runs_that_lived():
    first = np.array([[2.0, 2.0, np.nan], [np.nan, np.nan, 1.0]])
    found = tuned_cells.cell_gaps(first, np.ones((2, 3)))
    np.testing.assert_allclose(found[0], np.log(2))
    assert np.isnan(found[1])


def test_the_edge_of_an_axis_is_its_ends_and_one_number_is_no_axis():
    grid = tuned_cells.product(rate=[1.0, 2.0, 3.0], other=[5.0])
    middle, end = cells([3, 1, 2]), cells([3, 2, 1])
    assert not tuned_cells.best_at_edge(middle, grid["rate"], grid["other"])
    assert tuned_cells.best_at_edge(end, grid["rate"])


def test_the_loser_at_the_edge_of_its_grid_is_not_judged_and_the_winner_is():
    low, high = cells([1.0]), cells([2.0])
    assert tuned_cells.lower_best("a", low, high).holds is True
    assert tuned_cells.lower_best("a", high, low).holds is False
    assert tuned_cells.lower_best("a", low, low).holds is None  # touches the bound
    rounded = low * (1 + 1e-7)  # as an accuracy in float32 may be
    assert tuned_cells.lower_best("a", rounded, low).holds is None
    assert tuned_cells.lower_best("a", low, rounded).holds is None
    assert tuned_cells.lower_best("a", low, high, second_at_edge=True).holds is None
    assert tuned_cells.lower_best("a", high, low, first_at_edge=True).holds is None
    assert tuned_cells.lower_best("a", low, high, first_at_edge=True).holds is True


# Large epsilon.


def epsilon_record(*, fixed=0.0, plain=0.2, quiet=(0.05, 0.5, 0.95), seeds=5, cellwise=0.0):
    """Log gaps to Adam with epsilon: of the fixed point, of AdamW and SGDW; a grid of nine."""
    config = e15.Config(problems=(), adam_rates=(1e-3, 4e-3, 1.6e-2), sgd_rates=(0.1, 0.4, 1.6))
    grid = tuned_cells.product(drift_scale=config.adam_rates, sgd_rate=config.sgd_rates)
    valley = np.array([3, 2, 3, 2, 1, 2, 3, 2, 3.0])
    apart = np.where(valley == 1, 0.0, cellwise)

    def group(settings, log_gap, seed):
        values = cells(valley * np.exp(log_gap), seeds=seeds, noise=0.002, seed=seed)
        return tuned_cells.cells_group(settings, dict.fromkeys(tuned_cells.UNITS, values))

    one_rate = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9.0])
    groups = {
        e15.FIXED: group(grid, fixed + apart, 1),
        e15.TWIN: group(grid, fixed + apart, 1),
        e15.RECURSION: group(grid, fixed, 2),
        e15.EPSILON: group(grid, 0.0, 3),
        e15.ADAMW: group({"drift_scale": one_rate}, plain, 4),
        e15.SGDW: group({"sgd_rate": one_rate}, plain, 5),
    }
    spread = np.repeat(np.resize(quiet, 9)[:, None], seeds, axis=1)
    groups[e15.FIXED]["quiet"] = variable(("cell", "seed"), spread)
    named = {f"digits/{name}": each for name, each in groups.items()}
    return Record(groups={"gains": e15.gain_ratios(), **named}, attributes={})


def test_the_gains_differ_by_a_quarter_at_most_and_at_two_thirds_of_epsilon():
    found = e15.gain_ratios()
    ratio, place = found["ratio"].values, found["relative_gradient"].values
    np.testing.assert_allclose(ratio.max(), 1.25, rtol=1e-4)
    np.testing.assert_allclose(place[ratio.argmax()], 2 / 3, rtol=0.02)
    x = place  # an independent formula: mean-loss units, eta = eps = 1
    np.testing.assert_allclose(ratio, (1 + x) / (0.5 + np.sqrt(0.25 + x * x)), rtol=1e-4)


@pytest.mark.parametrize("factor", [0.5, 2.0, 1.05])
def test_another_epsilon_has_not_these_gains(monkeypatch, factor):
    words = "Adam's gain is nowhere above"
    assert only(e15.check(epsilon_record()), words) is True
    right = e15.large_epsilon
    monkeypatch.setattr(e15, "large_epsilon", lambda *numbers: factor * right(*numbers))
    assert only(e15.check(epsilon_record()), words) is False


@pytest.mark.parametrize(
    ("gap", "beyond", "ties"), [(-0.1, True, False), (0.0, False, True), (0.1, False, False)]
)
def test_the_passage_adds_something_or_ties_but_never_both(gap, beyond, ties):
    verdicts = e15.check(epsilon_record(fixed=gap))
    for name in ("the fixed point", "the recursive filter"):
        assert only(verdicts, f"the best test loss of {name} is more than 5 %") is beyond
        assert only(verdicts, f"the best test losses of {name} and of Adam") is ties
    assert only(verdicts, "cell by cell, the test loss") is ties


def test_cells_can_differ_where_the_best_ones_tie():
    verdicts = e15.check(epsilon_record(cellwise=0.1))
    assert only(verdicts, "the best test losses of the fixed point and of Adam") is True
    assert only(verdicts, "cell by cell, the test loss") is False


@pytest.mark.parametrize(
    ("best", "judged"),
    [((0, 1), False), ((1, 0), False), ((2, 1), True), ((1, 2), True), ((2, 2), False)],
)
def test_the_best_cell_at_a_lowest_rate_or_in_the_far_corner_is_not_judged(best, judged):
    record = epsilon_record(fixed=0.1)
    values = record.groups[f"digits/{e15.FIXED}"]["test_loss"].values
    values[...] = 3.0 + 0.01 * np.arange(5)
    values[3 * best[0] + best[1]] -= 1.0
    verdicts = e15.check(record)
    assert (
        only(verdicts, "the best test loss of the fixed point is more than 5 %") is False
    ) is judged
    assert (
        only(verdicts, "the best test losses of the fixed point and of Adam") is False
    ) is judged


def test_a_grid_without_both_regimes_or_seeds_is_not_judged():
    one_regime = e15.check(epsilon_record(quiet=(0.9, 0.95, 1.0)))
    few = e15.check(epsilon_record(seeds=3))
    for verdicts in (one_regime, few):
        assert only(verdicts, "the best test losses of the fixed point and of Adam") is None
        assert only(verdicts, "cell by cell, the test loss") is None
    assert only(one_regime, "Adam with a tuned epsilon is below that of plain AdamW") is True


@pytest.mark.parametrize(("plain", "holds"), [(0.2, True), (-0.2, False)])
def test_a_prior_is_worth_something_or_not(plain, holds):
    verdicts = e15.check(epsilon_record(plain=plain))
    for rival in ("plain AdamW", "SGDW"):
        words = f"the best test loss of Adam with a tuned epsilon is below that of {rival}"
        assert only(verdicts, words) is holds
    assert only(verdicts, "errs at most 5 % more than SGDW") is holds


def test_rivals_get_the_epsilon_in_mean_units_and_take_the_filters_steps(monkeypatch):
    trained = {}

    def stub(task, build, settings, seeds, num_steps, **options):
        count = len(next(iter(settings.values())))
        names = ("test_loss", "training_loss", "test_accuracy")
        trained[len(trained)] = (build, settings)
        shape = (count, len(seeds))
        return ManyRuns(
            step=np.arange(num_steps),
            records={"quiet": np.zeros((*shape, num_steps))},
            final={name: np.ones(shape) for name in names},
            diverged=np.zeros(shape, bool),
        )

    monkeypatch.setattr(e15, "train_many", stub)
    e15.run(e15.QUICK, jax.random.key(0))
    (fixed, grid), (_, _), (adam, rivals), (_, _) = trained.values()
    half = len(rivals["eps"]) // 2
    np.testing.assert_allclose(
        rivals["eps"][:half], grid["drift_scale"][:half] / grid["sgd_rate"][:half], rtol=1e-6
    )
    sizes, shrink = jnp.array([1e-5, 100.0]), e15.QUICK.shrink

    def first_steps(build, settings):
        def step(size):
            optimizer, weights = build(settings), jnp.ones(1)
            return optimizer.update(size[None], optimizer.init(weights), weights)[0][0]

        return jax.jit(jax.vmap(step))(sizes)

    ours = first_steps(fixed, {"drift_scale": 4e-3, "sgd_rate": 0.1})
    theirs = first_steps(adam, {"drift_scale": 4e-3, "eps": 0.04})
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)
    laws = np.array([0.1 * 1e-5, 4e-3])  # quiet: SGD's step; loud: Adam's
    np.testing.assert_allclose(ours, -laws - shrink, rtol=2e-3)


# Regimes.


def toy_task(batch_size=32) -> Any:
    """As much of a task as a probe looks at."""
    return SimpleNamespace(batch_size=batch_size)


def toy_view(gradient, *, drift_scale=1e-3, sgd_rate=0.1, batch=32):
    """One step of the fixed point on given gradients, as a probe sees it."""
    weights = jax.tree.map(jnp.zeros_like, gradient)
    optimizer = optax.chain(
        watch_squares((0.999,)),
        adabayes_fixed_point(drift_scale, sgd_rate / batch, batch_size=batch),
    )
    updates, state = optimizer.update(gradient, optimizer.init(weights), weights)
    return StepView(
        step=jnp.array(0), params=weights, loss=jnp.array(0.0), gradient=gradient,
        updates=updates, opt_state=state,
    )  # fmt: skip


def test_regimes_are_counted_layer_by_layer_among_the_weights_with_gradients():
    gradient = {"a": jnp.array([0.0, 0.009, 0.011, 0.02]), "b": jnp.array([1e-4, 1e-3])}

    @jax.jit
    def looked_at(gradient):
        view = toy_view(gradient)
        right, wrong = (e16.regimes(toy_task(size), view) for size in (32, 1))
        return right, wrong, e15.quiet_fraction(toy_task(), view)

    found, wrong_units, quiet = looked_at(gradient)
    np.testing.assert_allclose(found["loud"], [2 / 3, 0.0, 2 / 5], rtol=1e-6)
    np.testing.assert_allclose(found["small_steps"], found["loud"])  # the fixed point's identity
    np.testing.assert_allclose(found["live"], [3, 2, 5])
    np.testing.assert_allclose(found["gradient"], 0.009, rtol=1e-4)
    np.testing.assert_allclose(np.sum(found["share"]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(quiet, 3 / 5, rtol=1e-6)
    assert float(wrong_units["loud"][-1]) == 0.0


def regime_record(*, change=-0.3, tied=0.97, gradient=-0.5, lag=0.0, seeds=5):
    """Fractions that change from early to the end, the first layer's half as much."""
    step, early = np.arange(0, 100, 10), 1
    course = np.clip((step - 10) / 80, 0, 1)
    shake = 0.01 * np.random.default_rng(0).standard_normal((seeds, 1, 1))

    def group(start, slope):
        layers = start + np.outer(course * slope, [0.5, 1.5, 1.0])
        loud = layers + shake
        return {
            "step": variable("step", step),
            "layer": variable("layer", ["dense_0", "dense_1", "all"]),
            "loud": variable(("seed", "step", "layer"), loud),
            "small_steps": variable(("seed", "step", "layer"), loud - lag),
            "gradient": variable(("seed", "step"), np.exp(gradient * course + shake[..., 0])),
            "share": variable(("seed", "step", "bin"), np.ones((seeds, 10, 28)) / 28),
            "crossover": variable((), np.array(0.01)),
            "early": variable((), np.array(early)),
        }

    groups = {
        f"digits/{e16.RELEASED}": group(0.6, change),
        f"digits/{e16.TIED}0.01": group(tied, 0.0),
        f"digits/{e16.RECURSION}": group(0.6, change),
    }
    return Record(groups=groups, attributes={})


@pytest.mark.parametrize(("change", "holds"), [(-0.3, True), (0.3, False), (-0.1, None)])
def test_migration_is_a_fall_by_more_than_a_tenth(change, holds):
    verdicts = e16.check(regime_record(change=change))
    for setting in (e16.RELEASED, e16.RECURSION):
        falls = f"digits, {setting}: the fraction of weights in Adam's regime falls"
        assert only(verdicts, falls) is holds
    words = f"digits, {e16.RELEASED}: in every layer"
    assert only(verdicts, words) is (change < 0)
    words = f"digits, {e16.RELEASED}: most weights are in SGD's"
    assert only(verdicts, words) is (None if change == -0.1 else change < 0)


def test_the_premise_the_tied_decay_and_the_lag_can_hold_and_fail():
    words = ("RMS gradient of the median weight", "more than 95 %", "as many weights take Adam's")
    good = e16.check(regime_record())
    bad = e16.check(regime_record(tied=0.8, gradient=0.5, lag=0.3))
    few = e16.check(regime_record(seeds=3))
    for each in words:
        assert only(good, each) is True
        assert only(bad, each) is False
        assert only(few, each) is None


# Switching.


def test_the_switch_is_adam_before_and_sgd_of_the_same_momentum_after():
    gradients = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    weights = jnp.zeros(3)

    def updates(*numbers):
        optimizer = e17.adam_then(*numbers)
        step = lambda state, gradient: optimizer.update(gradient, state)[::-1]  # noqa: E731
        return jax.lax.scan(step, optimizer.init(weights), jnp.asarray(gradients))[1]

    m, v, twin = np.zeros(3), np.zeros(3), []
    for t, g in enumerate(gradients.astype(float)):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        mean, square = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        twin.append((0.01 * mean / np.sqrt(square), 0.3 * mean))
    adam, sgd = np.moveaxis(np.array(twin), 1, 0)
    np.testing.assert_allclose(updates(0.01, 0.3, 4, 0), [*adam[:4], *sgd[4:]], rtol=1e-3)
    again = updates(0.01, 0.3, 4, 1)
    np.testing.assert_allclose(again, [*adam[:4], *(30 * adam[4:])], rtol=1e-3)
    optax_adam = optax.scale_by_adam()
    first: Any = optax_adam.update(jnp.asarray(gradients[0]), optax_adam.init(weights))[0]
    np.testing.assert_allclose(updates(1.0, 0.3, 9, 0)[0], first, rtol=1e-5)


def test_every_arm_has_as_many_cells_and_one_rate_has_a_finer_grid():
    config = dataclasses.replace(e17.PAPER, adam_rates=(1.0, 2.0, 4.0), sgd_rates=(0.1, 0.4))
    for fraction, varied in ((0.0, "second_rate"), (1.0, "adam_rate")):
        arm = e17._cells(config, fraction, 80)
        assert np.unique(arm[varied]).size == 6
        assert np.unique(arm["switch"]) == 80 * fraction
    inner = e17._cells(config, 0.375, 80)
    assert len(set(zip(inner["adam_rate"], inner["second_rate"], strict=True))) == 6
    assert set(inner["switch"]) == {30.0}
    control = e17._cells(config, 0.375, 80, again=1.0)
    assert {len(values) for values in control.values()} == {6}
    assert set(control["second_rate"]) == {1.0, 4.0}


def switch_record(heights, *, filters=1.0, control=1.2, seeds=5):
    """Best losses of the fractions, of the filters and of the control; valleys inside."""
    rates = (1.0, 2.0, 3.0)
    grid = tuned_cells.product(adam_rate=rates, second_rate=rates)
    valley = np.where(np.arange(9) == 4, 1.0, 2.0)

    def group(level, seed):
        values = cells(valley * level, seeds=seeds, noise=0.003, seed=seed)
        return tuned_cells.cells_group(grid, dict.fromkeys(tuned_cells.UNITS, values))

    fractions = np.arange(9) / 8
    groups = {
        f"digits/{e17.SWITCH}/{fraction:g}": group(level, place)
        for place, (fraction, level) in enumerate(zip(fractions, heights, strict=True))
    }
    groups[f"digits/{e17.CONTROL}"] = group(control, 20)
    groups |= {f"digits/{name}": group(filters, 30) for name in e17.FILTERS}
    return Record(groups=groups, attributes={})


BEST_AT_3 = [1.3, 1.3, 1.2, 1.0, 1.2, 1.3, 1.3, 1.3, 1.3]


def test_three_eighths_is_the_best_place_or_another_one_is():
    words = ("of all fractions of the run, 3/8", "than one a step earlier or later")
    good = e17.check(switch_record(BEST_AT_3))
    other = e17.check(switch_record(np.roll(BEST_AT_3, 2)))
    flat = e17.check(switch_record(np.ones(9)))
    for each in words:
        assert only(good, each) is True
        assert only(other, each) is False
    assert only(flat, words[0]) is not True


def test_the_switch_can_beat_either_alone_and_lose():
    good = e17.check(switch_record(BEST_AT_3))
    bad = e17.check(switch_record(2.3 - np.array(BEST_AT_3), control=0.8))
    for measure in ("test loss", "test error"):
        for rival in ("Adam", "SGD"):
            words = (
                f"the best {measure} with a switch from Adam to SGD at 3/8 is below that of {rival}"
            )
            assert only(good, words) is True
            assert only(bad, words) is False
    words = "it is better to go on with SGD than with Adam"
    assert only(good, words) is True
    assert only(bad, words) is False
    few = e17.check(switch_record(BEST_AT_3, seeds=3))
    assert all(each.holds is None for each in few)


@pytest.mark.parametrize(("filters", "needless"), [(1.0, True), (1.2, False), (1.0513, None)])
def test_the_filter_needs_no_switch_if_it_is_as_good_without(filters, needless):
    verdicts = e17.check(switch_record(BEST_AT_3, filters=filters))
    for name in ("the fixed point", "the recursive filter"):
        assert only(verdicts, f"without a switch, the best test loss of {name}") is needless
    assert only(verdicts, "of Adam with decoupled decay alone") is False


# The memory of squares.


def test_squares_of_a_memory_are_adams_own():
    watched, adam = watch_squares((0.9, 0.999)), optax.scale_by_adam(b2=0.999)
    weights = jnp.zeros(3)
    squares, moments = watched.init(weights), adam.init(weights)
    for gradient in jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32):
        passed, squares = watched.update(gradient, squares)
        _, moments = adam.update(gradient, moments)
        np.testing.assert_array_equal(passed, gradient)
    short, long = watched_squares((squares,))
    adams: Any = only_state(optax.ScaleByAdamState, moments).nu
    np.testing.assert_allclose(long, adams, rtol=1e-5)
    assert not np.allclose(short, adams, rtol=0.1)


def memory_record(*, shift=0.0, rise=0.0, diagonal=1.0, own=1e3, told=None, seeds=5):
    """Losses in a valley over log rate.

    Args:
        shift: how far a memory ten times shorter moves the valley, in log rate.
        rise: how much such a memory lifts it, in log loss.
        diagonal: the best loss with b1 = b2.
        own: the filter's own memory.
        told: the shift that the mean step tells; the true one by default.
        seeds: of every cell.
    """
    config = e28.Config(problem=e28.QUICK.problem, memories=(0.9, 0.99, 0.999, 0.9999))
    settings, count = e28._cells(config), len(config.memories) * len(config.rates)
    tens = np.log10((1 - settings["b2"]) / (1 - e28.USUAL))
    place = np.log(settings["rate"] / 3e-3)
    height = 0.2 * (place + shift * tens) ** 2 + rise * tens
    level = np.exp(height)
    level[count:] = diagonal * np.exp(
        0.2 * place[count:] ** 2 + 0.2 * np.abs(settings["b2"][count:] - 0.9)
    )
    groups = {
        name: tuned_cells.cells_group(
            settings,
            dict.fromkeys(tuned_cells.UNITS, cells(level, noise=0.002, seeds=seeds, seed=seed)),
        )
        for seed, name in enumerate((e28.ADAM, e28.FIXED))
    }
    tens = np.log10((1 - np.array(config.memories)) / (1 - e28.USUAL))
    step = np.exp((shift if told is None else told) * tens)
    groups["steps"] = {
        "b2": variable("memory", np.array(config.memories)),
        "relative_step": variable(("memory", "seed"), np.repeat(step[:, None], seeds, axis=1)),
        "own_memory": variable("seed", np.full(seeds, own)),
    }
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


@pytest.mark.parametrize(
    ("shift", "rise", "fixed", "tuned"),
    [(0.0, 0.0, True, True), (0.7, 0.0, False, None), (0.0, 0.1, False, False)],
)
def test_a_memory_matters_at_fixed_rates_and_after_tuning(shift, rise, fixed, tuned):
    verdicts = e28.check(memory_record(shift=shift, rise=rise))
    for name in ("AdamW", "the fixed point"):
        for loss in ("test loss", "training loss"):
            words = f"{name}: at the rate that is best for b2 = 0.999, the {loss}"
            assert only(verdicts, words) is fixed
            found = only(verdicts, f"{name}: with the rate tuned again, the {loss}")
            assert found is not False if tuned is None else found is tuned


def test_the_mean_step_explains_what_it_moves_and_not_the_opposite():
    words = "AdamW: the mean step explains"
    assert only(e28.check(memory_record(shift=0.3)), words) is True
    assert only(e28.check(memory_record(shift=0.3, told=-0.3)), words) is False
    assert only(e28.check(memory_record(shift=0.3, told=0.0)), words) is False
    assert only(e28.check(memory_record()), words) is None  # nothing to explain


def test_a_short_memory_is_enough_or_not_and_only_one_below_the_filters_own():
    words = "AdamW: with a memory of ten squares"
    assert only(e28.check(memory_record()), words) is True
    assert only(e28.check(memory_record(rise=0.1)), words) is False
    assert only(e28.check(memory_record(own=5.0)), words) is None


@pytest.mark.parametrize(("diagonal", "holds"), [(0.8, True), (1.2, False)])
def test_equal_memories_are_better_or_not(diagonal, holds):
    verdicts = e28.check(memory_record(diagonal=diagonal))
    assert only(verdicts, "the best test loss with b1 = b2") is holds
    assert only(e28.check(memory_record(seeds=3)), "the best test loss with b1 = b2") is None


def test_what_the_mean_step_leaves_is_nothing_where_the_curve_only_moves():
    record = memory_record(shift=0.2)
    grid = e28._grid(record, e28.ADAM, "training_loss")
    raw, left = e28.changes(grid, grid.values, record.groups["steps"]["relative_step"].values)
    assert raw > 0.1
    assert left < 0.3 * raw  # lines between the rates
    assert isinstance(tuned_cells.over_seeds(tuned_cells.log_best, grid.values[0]), Interval)
