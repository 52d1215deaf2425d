"""Every verdict can be yes and no: results in which the claim holds, and their mutants."""

import dataclasses

import jax
import numpy as np
import pytest

from bayesfilt.compare import Interval
from experiments import (
    e01_separability,
    e02_generalisation,
    e03_warm_restarts,
    e04_decay_budget,
)
from experiments.contract import FEWEST_SEEDS, below, is_the_one, margin_of, margin_of_the_one
from experiments.grids import difference, lower_error, lowest_log_error
from tests.experiments.surfaces import OBLIQUE, SEPARABLE, grid, record, valley_of_law

LAWS = tuple(e01_separability.LAWS)


def holds(module, result, words):
    """The one verdict whose claim has these words."""
    (found,) = [each for each in module.check(result) if words in each.claim]
    return found.holds


def with_every_seed_lost(one):
    return one._replace(
        test_error=np.full_like(one.test_error, np.nan),
        training_loss=np.full_like(one.training_loss, np.nan),
        test_error_course=np.full_like(one.test_error_course, np.nan),
    )


def separability(decoupled, penalised, constant=None):
    return record(
        mlp__adamw__cosine=decoupled,
        mlp__adam_l2__cosine=penalised,
        mlp__adamw__constant=constant or grid(lowest=0.13),
        mlp__adam_l2__constant=penalised,
    )


def test_separability_holds_and_is_turned_by_rotating_the_ridge():
    good = separability(grid(SEPARABLE), grid(OBLIQUE, lowest=0.12))
    rotated = separability(grid(OBLIQUE), grid(SEPARABLE, lowest=0.12))
    for own in ("factor on the learning rate", "shrink per step"):
        words = f"mlp, cosine: AdamW is more separable than Adam + L2, decay as {own}"
        assert holds(e01_separability, good, words) is True
        assert holds(e01_separability, rotated, words) is False


def test_a_lower_error_holds_and_is_turned_by_exchanging_the_optimizers():
    words = "mlp, cosine: AdamW's best test error"
    good = separability(grid(), grid(lowest=0.12))
    assert holds(e01_separability, good, words) is True
    assert holds(e01_separability, separability(grid(lowest=0.12), grid()), words) is False
    assert holds(e01_separability, separability(grid(), grid()), words) is None


def test_sgd_is_judged_like_adam():
    result = record(mlp__sgdw__cosine=grid(SEPARABLE), mlp__momentum_l2__cosine=grid(OBLIQUE))
    words = "mlp, cosine: SGDW is more separable than SGD + L2, decay as shrink"
    assert holds(e01_separability, result, words) is True
    assert holds(e01_separability, result, "mlp, cosine: SGDW's best test error is below") is None
    assert len(e01_separability.check(result)) == 5  # the laws are AdamW's


def test_the_costly_network_is_trained_under_the_cosine_on_every_second_value(monkeypatch):
    trained = {}

    def only_note(problem, optimizer, schedule, axes, seeds):
        trained[problem.name, optimizer, schedule] = axes.values(), len(seeds)
        return grid()

    monkeypatch.setattr(e01_separability, "train_grid", only_note)
    e01_separability.run(e01_separability.PAPER, jax.random.key(0))
    of_costly = [names[1:] for names in trained if names[0] == "digits-cnn-300"]
    assert sorted(of_costly) == [("adam_l2", "cosine"), ("adamw", "cosine")]
    for optimizer in ("adam_l2", "adamw"):
        full, _ = trained["digits-mlp-300", optimizer, "cosine"]
        some, num_seeds = trained["digits-cnn-300", optimizer, "cosine"]
        assert num_seeds >= FEWEST_SEEDS
        for all_values, values in zip(full, some, strict=True):
            np.testing.assert_array_equal(all_values[::2], values)


@pytest.mark.parametrize("best_decay", [10.0, 1e3])
def test_a_loser_whose_best_cell_is_at_the_edge_of_its_grid_has_not_lost(best_decay):
    words = "mlp, cosine: AdamW's best test error"
    edge = grid(lowest=0.13, best_decay=best_decay)
    assert holds(e01_separability, separability(grid(), edge), words) is None
    assert holds(e01_separability, separability(edge, grid()), words) is None
    # It may win from there, and the lowest decay is as good as none at all.
    better = grid(lowest=0.05, best_decay=10.0)
    assert holds(e01_separability, separability(better, grid()), words) is True
    without = grid(lowest=0.13, best_decay=1e-3)
    assert holds(e01_separability, separability(grid(), without), words) is True


@pytest.mark.parametrize(("seeds", "judged"), [(3, None), (5, True)])
def test_three_seeds_are_not_judged(seeds, judged):
    good = separability(grid(seeds=seeds), grid(seeds=seeds, lowest=0.13), grid(seeds=seeds))
    assert holds(e01_separability, good, "mlp, cosine: AdamW's best test error") is judged
    pair = generalisation(grid(seeds=seeds), grid(seeds=seeds, lowest=0.13))
    assert holds(e02_generalisation, pair, "best test error is below") is judged
    pair = restarts(grid(seeds=seeds, pace=8.0), grid(seeds=seeds))
    assert holds(e03_warm_restarts, pair, "at the first restart the error") is judged
    assert holds(e04_decay_budget, budgets(0.0, noise=0.002, seeds=seeds), "the filter") is judged


def test_the_slope_of_the_best_shrink_tells_the_laws_apart():
    for right, law in enumerate(LAWS):
        made = grid(valley_of_law(right), noise=0.001)
        found = e01_separability.check(record(mlp__adamw__cosine=made, mlp__adam_l2__cosine=made))
        for words in (
            "mlp, cosine: AdamW's best shrink goes with the learning rate as ",
            "mlp, cosine: AdamW's decay costs least when it is carried as ",
        ):
            for other in LAWS:
                (one,) = [each for each in found if words + other in each.claim]
                assert one.holds is (other == law), one
                assert one.margin > 0


def test_a_law_that_costs_least_must_beat_both_others():
    # Half-way between two laws either may be the cheaper, and the third is dearer than both.
    made = grid(valley_of_law(0.5), noise=0.3)
    between = record(mlp__adamw__cosine=made, mlp__adam_l2__cosine=made)
    words = "mlp, cosine: AdamW's decay costs least when it is carried as "
    found = {each.claim: each.holds for each in e01_separability.check(between)}
    assert [found[f"{words}{law} has it"] for law in LAWS] == [None, None, False]


def test_the_price_of_a_carried_decay_is_turned_by_exchanging_the_optimizers():
    # What runs along the shrink is cheap to carry as a shrink, and dear as a factor on the rate.
    shrink, factor = (grid(valley_of_law(power), noise=0.02) for power in (0, 1))
    for pair, title in ((("adamw", "adam_l2"), "AdamW"), (("sgdw", "momentum_l2"), "SGDW")):
        for first, second, expected in (
            (shrink, factor, (True, False)),
            (factor, shrink, (False, True)),
            (shrink, shrink, (None, None)),
        ):
            grids = {
                f"mlp__{name}__cosine": each
                for name, each in zip(pair, (first, second), strict=True)
            }
            found = e01_separability.check(record(**grids))
            words = f"mlp, cosine: {title}'s decay, carried to another rate as "
            for own, holds_so in zip(("shrink", "factor"), expected, strict=True):
                (one,) = [each for each in found if words + own in each.claim]
                assert one.holds is holds_so, one
                assert one.margin is not None
                assert (one.margin > 0) is (holds_so is not None)


def test_a_price_is_not_judged_without_rates_or_runs():
    words = "mlp, cosine: AdamW's decay, carried to another rate as shrink"
    for lost in (with_every_seed_lost(grid()), grid(shape=(2, 9))):
        same = grid(shape=lost.test_error.shape[:2])
        result = record(mlp__adamw__cosine=lost, mlp__adam_l2__cosine=same)
        assert holds(e01_separability, result, words) is None


def test_optimizers_of_other_rates_are_refused_before_they_are_trained():
    other = dataclasses.replace(e01_separability.QUICK.adamw, rates="log:1e-3:0.2:3")
    with pytest.raises(ValueError, match="same learning rates") as caught:
        dataclasses.replace(e01_separability.QUICK, adamw=other)
    assert "\n" not in str(caught.value)


def test_the_best_schedule_holds_and_is_turned_by_a_better_one():
    words = "errs less under the cosine than under constant"
    good = separability(grid(), grid())
    assert holds(e01_separability, good, words) is True
    assert holds(e01_separability, separability(grid(), grid(), grid(lowest=0.08)), words) is False


def test_separability_is_not_judged_where_the_grid_has_no_valley():
    small = grid(shape=(2, 3))
    result = separability(small, small, small)
    assert (
        holds(
            e01_separability,
            result,
            "cosine: AdamW is more separable than Adam + L2, decay as shrink",
        )
        is None
    )
    lost = separability(with_every_seed_lost(grid()), grid())
    assert holds(e01_separability, lost, "mlp, cosine: AdamW's best test error") is None


def generalisation(decoupled, penalised):
    return record(mlp__adamw=decoupled, mlp__adam_l2=penalised)


def test_generalisation_holds_and_is_turned_by_exchanging_the_optimizers():
    better, worse = grid(lowest=0.1), grid(lowest=0.13)
    for words in ("best test error is below", "at equal training loss"):
        assert holds(e02_generalisation, generalisation(better, worse), words) is True
        assert holds(e02_generalisation, generalisation(worse, better), words) is False


def test_fitting_the_training_data_better_is_not_generalising_better():
    # The same error at the same loss; only the lowest error differs, where losses are lower.
    same = grid()
    result = generalisation(same, same)
    assert holds(e02_generalisation, result, "at equal training loss") is None
    apart = same._replace(training_loss=1e4 * same.training_loss)
    assert holds(e02_generalisation, generalisation(same, apart), "at equal training") is None


def test_curves_coincide_half_way_and_do_not_where_one_is_slower():
    words = "half-way the test errors"
    assert holds(e02_generalisation, generalisation(grid(), grid()), words) is True
    assert holds(e02_generalisation, generalisation(grid(), grid(pace=0.3)), words) is False


def restarts(fast, slow):
    return record({"first_period": 200}, adamw__restarts=fast, adamw__cosine=slow)


def test_restarts_are_sooner_and_are_not_once_they_are_slow():
    good = restarts(grid(pace=8.0), grid())
    bad = restarts(grid(), grid(pace=8.0))
    for words in ("at the first restart the error", "needs a multiple of the steps"):
        assert holds(e03_warm_restarts, good, words) is True
        assert holds(e03_warm_restarts, bad, words) is False
    assert holds(e03_warm_restarts, restarts(grid(), grid()), "needs a multiple") is False


def test_a_multiple_of_the_steps_needs_its_interval():
    # The factor is 2 for the median over seeds, but from 1 to 3.5 for one or another of them.
    rough = np.geomspace(0.6, 1.6, 7).reshape(1, 1, 7, 1)
    slow, fast = grid(seeds=7), grid(seeds=7, pace=2.0)
    uneven = slow._replace(test_error_course=slow.test_error_course * rough)
    result = restarts(fast, uneven)
    assert holds(e03_warm_restarts, result, "needs a multiple of the steps") is None
    lost = restarts(with_every_seed_lost(fast), slow)
    assert holds(e03_warm_restarts, lost, "needs a multiple of the steps") is None


def test_restarts_may_lose_a_tenth_of_the_error_and_no_more():
    words = "no worse than the cosine's"
    assert holds(e03_warm_restarts, restarts(grid(lowest=0.104), grid()), words) is True
    assert holds(e03_warm_restarts, restarts(grid(lowest=0.13), grid()), words) is False


def budgets(slope, noise=0.01, seeds=5):
    steps = (750, 3_000, 12_000)
    lines = {
        f"mlp__{each}": grid(
            shape=(1, 13), best_decay=0.1 * (each / 3_000) ** slope, noise=noise, seeds=seeds
        )
        for each in steps
    }
    return record(**lines)


@pytest.mark.parametrize(
    ("slope", "normalised", "filtered"),
    [(-0.5, True, False), (0.0, False, True), (-1.0, False, False), (0.5, False, False)],
)
def test_the_law_of_the_budget_is_told_by_its_slope(slope, normalised, filtered):
    result = budgets(slope, noise=0.002)
    assert holds(e04_decay_budget, result, "normalised decay") is normalised
    assert holds(e04_decay_budget, result, "law of the filter") is filtered


def test_the_law_of_the_budget_is_not_judged_where_the_best_decay_is_outside():
    result = record(
        **{f"mlp__{each}": grid(shape=(1, 13), best_decay=1e3) for each in (750, 3_000)}
    )
    assert holds(e04_decay_budget, result, "normalised decay") is None


def test_every_verdict_has_a_margin_that_is_positive_where_it_decides():
    better, worse = grid(noise=0.002), grid(lowest=0.13, noise=0.002)
    results = {
        e01_separability: separability(better, worse),
        e02_generalisation: generalisation(better, worse),
        e03_warm_restarts: restarts(grid(pace=8.0), better),
        e04_decay_budget: budgets(-0.5, noise=0.002),
    }
    for module, result in results.items():
        found = module.check(result)
        assert any(each.holds for each in found)
        for each in found:
            assert each.margin is not None, each
            assert each.holds is None or each.margin > 0, each


@pytest.mark.parametrize("bound", [0.0, 0.1])
def test_a_lower_error_near_its_bound_is_marked(bound):
    other, decided = grid(noise=0.03), []
    for gain in np.linspace(0.0, 0.2, 11):
        first = grid(lowest=0.1 * np.exp(bound - gain), noise=0.0)
        verdict = lower_error("less", ("one", first), ("two", other), bound=bound)
        gap = difference(lowest_log_error, first, other)
        assert verdict.margin == margin_of(gap, -np.inf, bound)
        decided += [verdict.is_near] if verdict.holds else []
    # From just below the bound to far below it.
    assert decided == sorted(decided, reverse=True)
    assert set(decided) == {True, False}


@pytest.mark.parametrize(
    ("factor", "decision", "margin"),
    [
        ((8.5, 2.0, np.inf), True, 0.0),  # just reached: another seed may undo it
        ((8.5, 4.0, np.inf), True, np.log(4 / 2) / (0.5 * np.log(14.5 / 4))),
        ((np.inf, np.inf, np.inf), True, np.inf),
        ((3.0, 1.0, 4.0), None, np.log(1 / 2) / (0.5 * np.log(4 / 1))),
        ((1.0, 0.0, 1.5), False, np.log(2 / 1.5) / (0.5 * np.log(1.5 / 0.5))),
        ((np.nan, np.nan, np.nan), None, np.nan),
    ],
)
def test_the_margin_of_a_factor_is_in_logarithms_as_far_as_the_steps_can_tell(
    monkeypatch, factor, decision, margin
):
    # Recorded every 100 steps up to 2,900, the first restart at 200: from 0.5 to 14.5.
    monkeypatch.setattr(e03_warm_restarts, "times_as_long", lambda *_: Interval(*factor))
    found = e03_warm_restarts.check(restarts(grid(), grid()))
    (one,) = [each for each in found if "needs a multiple of the steps" in each.claim]
    assert one.holds is decision
    np.testing.assert_allclose(one.margin, margin, rtol=1e-9)


def test_an_interval_decides_only_when_it_is_on_one_side():
    assert below(Interval(-1.0, -2.0, -0.5), 0.0) is True
    assert below(Interval(1.0, 0.5, 2.0), 0.0) is False
    assert below(Interval(0.1, -0.5, 2.0), 0.0) is None
    assert below(Interval(-0.1, -0.5, 2.0), 0.0) is None
    assert below(Interval(np.nan, np.nan, np.nan), 0.0) is None
    assert is_the_one(Interval(0.0, -0.1, 0.1), 0.0, [-0.5]) is True
    assert is_the_one(Interval(-0.3, -0.6, 0.1), 0.0, [-0.5]) is None
    assert is_the_one(Interval(-0.3, -0.4, -0.2), 0.0, [-0.5]) is False
    assert is_the_one(Interval(-0.7, -2.0, -0.1), -0.5, [0.0]) is None  # anything goes
    assert is_the_one(Interval(np.nan, np.nan, np.nan), 0.0, [-0.5]) is None


@pytest.mark.parametrize(
    ("interval", "claimed", "rivals", "margin"),
    [
        ((0.0, -0.1, 0.1), 0.0, [-0.5], 1.0),  # to its own end; the rival is 4 half-widths away
        ((0.08, -0.02, 0.18), 0.0, [-0.5], 0.2),  # a little more, and it is outside
        ((0.0, -0.1, 0.1), 0.0, [0.13, -9.0], -0.7),  # wider than the way to the nearest rival
        ((0.2, 0.0, 0.4), 0.2, [0.62], 0.1),  # just narrow enough to choose
        ((0.3, 0.2, 0.4), 0.0, [1.0], 2.0),  # a no: from the claimed value to the near end
        ((0.3, 0.02, 0.42), 0.0, [0.1], 0.1),  # a no, whatever rival is inside
        ((0.1, 0.1, 0.1), 0.1, [0.0], np.inf),  # every seed says so
        ((0.0, -1.0, 1.0), 0.0, [], 1.0),
    ],
)
def test_the_margin_of_a_choice_is_the_way_to_another_answer(interval, claimed, rivals, margin):
    found = margin_of_the_one(Interval(*interval), claimed, rivals)
    np.testing.assert_allclose(found, margin, rtol=1e-9)
    if is_the_one(Interval(*interval), claimed, rivals) is None:
        assert found <= 0


def test_the_margin_of_a_choice_falls_to_0_where_a_yes_becomes_a_no():
    edges = {True: [], False: []}
    for shift in np.linspace(0, 0.3, 301):
        interval = Interval(shift, shift - 0.1, shift + 0.1)
        found = is_the_one(interval, 0.0, [0.9])
        edges[found].append(margin_of_the_one(interval, 0.0, [0.9]))
    assert min(edges[True]) < 0.02
    assert min(edges[False]) < 0.02
    assert max(edges[True]) == 1.0
    assert np.isnan(margin_of_the_one(Interval(np.nan, np.nan, np.nan), 0.0, [1.0]))
