"""Searches with equal budgets, decay beside adaptive steps: what would make a verdict wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.records import Record, variable
from experiments import e41_decayed_adaptive as e41
from experiments import e42_equal_tuning as e42
from experiments import equal_budgets
from experiments.grids import Problem
from tests.experiments.made_digits import holds, made_digits

SEEDS = 6


def search(even, odd=None, edge=(), decay=None, spread=0.0):
    """A made-up search: errors of its cells, the same from every seed but for a spread."""
    random = np.random.default_rng(5)
    even = np.asarray(even, float)
    odd = even if odd is None else np.asarray(odd, float)
    noise = 1 + spread * random.standard_normal((len(even), SEEDS))
    return {
        "even": variable(("cell", "seed"), even[:, None] * noise),
        "odd": variable(("cell", "seed"), odd[:, None] * noise),
        "edge": variable("cell", [place in edge for place in range(len(even))]),
        "decay": variable("cell", np.zeros(len(even)) if decay is None else decay),
    }


def test_each_half_chooses_the_cell_whose_error_the_other_reports():
    made = search([0.10, 0.20, 0.30], [0.25, 0.15, 0.35])
    found = equal_budgets.log_error(made, np.arange(SEEDS))
    assert found == pytest.approx(np.log(0.5 * (0.20 + 0.25)))


def test_both_halves_together_are_the_test_error():
    task = made_digits()
    params = task.init_params(jax.random.key(0))
    halves = equal_budgets.error_by_half(task, params)
    whole = 1 - float(task.evaluate(params)["test_accuracy"])
    assert 0.5 * float(halves["even"] + halves["odd"]) == pytest.approx(whole)


def test_the_lower_error_is_a_yes_and_the_higher_a_no():
    low, high = search([0.10, 0.2], spread=0.01), search([0.15, 0.2], spread=0.01)
    assert equal_budgets.compared("a.", low, high, high=0.0).holds is True
    assert equal_budgets.compared("a.", high, low, high=0.0).holds is False
    assert equal_budgets.no_worse("a.", search([0.105]), search([0.10])).holds is True
    assert equal_budgets.no_worse("a.", search([0.12]), search([0.10])).holds is False


def test_only_a_loser_at_the_edge_of_its_grid_hinders_a_verdict():
    low, high = search([0.10, 0.2], edge=[0]), search([0.15, 0.2])
    assert equal_budgets.compared("a.", low, high, high=0.0).holds is True
    high = search([0.15, 0.2], edge=[0])
    assert equal_budgets.compared("a.", search([0.10, 0.2]), high, high=0.0).holds is None


def test_a_search_at_its_edge_hinders_what_its_lower_error_could_change():
    """In order: the errors, who is at an edge, the band; and the answer that is left."""
    first, second, both = {"first": [0]}, {"second": [0]}, {"first": [0], "second": [0]}
    cases = (
        # At most a tenth more, though more: only the second's wider grid could undo it.
        (0.105, first, {"high": 0.0953}, True),
        (0.105, second, {"high": 0.0953}, None),
        # More than a tenth more: only the first's could.
        (0.120, first, {"high": 0.0953}, None),
        (0.120, second, {"high": 0.0953}, False),
        # Alike: either could; less than alike: only the second's.
        (0.100, first, {"low": -0.0953, "high": 0.0953}, None),
        (0.100, second, {"low": -0.0953, "high": 0.0953}, None),
        (0.080, first, {"low": -0.0953, "high": 0.0953}, False),
        (0.080, both, {"low": -0.0953, "high": 0.0953}, None),
    )
    for error, edges, band, expected in cases:
        pair = (
            search([error], edge=edges.get("first", ())),
            search([0.10], edge=edges.get("second", ())),
        )
        found = equal_budgets.compared("a.", *pair, **band)
        assert found.holds is expected, (error, edges, band)


def test_rates_are_open_at_both_ends_and_decays_upwards_only():
    found = equal_budgets._on_edge(
        {"rate": np.repeat([1.0, 2.0, 3.0], 2), "decay": np.tile([0.0, 1.0], 3), "eps": np.ones(6)}
    )
    np.testing.assert_array_equal(found, [True, True, False, True, True, True])


def test_a_kind_has_no_edge():
    settings = {"kind": np.array([0.0, 1.0, 1.0]), "decay": np.array([0.1, 0.1, 0.2])}
    np.testing.assert_array_equal(equal_budgets._on_edge(settings), [False, False, True])


def test_a_run_that_diverged_errs_like_a_guess():
    made = equal_budgets.Search(lambda numbers: optax.sgd(numbers["rate"]), {"rate": [np.nan, 0.1]})
    group = equal_budgets.searched(made_digits(), made, [1, 2], 4, probes={})[0]
    np.testing.assert_array_equal(group["even"].values[0], 0.9)


def test_gains_that_differ_by_more_than_a_tenth_are_not_the_same():
    flat, half = (search([0.2]), search([0.2])), (search([0.2]), search([0.1]))
    assert equal_budgets.same_gain("a.", half, half).holds is True
    assert equal_budgets.same_gain("a.", half, flat).holds is False


def test_two_gains_that_are_none_are_not_judged_alike():
    flat = (search([0.2]), search([0.2]))
    assert equal_budgets.same_gain("a.", flat, flat).holds is None


def test_none_at_all_may_be_asked_for_and_two_nones_are_then_alike():
    flat, half = (search([0.2]), search([0.2])), (search([0.2]), search([0.1]))
    assert equal_budgets.same_gain("a.", flat, flat, if_none=True).holds is True
    assert equal_budgets.same_gain("a.", half, flat, if_none=True).holds is False
    assert equal_budgets.same_gain("a.", flat, half, if_none=True).holds is False


def test_less_by_a_tenth_is_more_than_less():
    lead = {0.080: True, 0.090: True, 0.0925: False, 0.099: False, 0.12: False}
    for error, expected in lead.items():
        found = equal_budgets.much_better("a.", search([error], spread=1e-3), search([0.10]))
        assert found.holds is expected, error
    near = equal_budgets.much_better("a.", search([0.1 / 1.1], spread=0.05), search([0.10]))
    assert near.holds is None


def test_a_lead_of_less_than_a_tenth_is_not_judged_with_the_leader_at_its_edge():
    """It leads already, but a wider grid might carry it over the tenth; the other's might not."""
    low, lower, high = [0.099, 0.3], [0.05, 0.3], [0.10, 0.3]
    much_better = equal_budgets.much_better
    assert much_better("a.", search(low, edge=[0]), search(high)).holds is None
    assert much_better("a.", search(low), search(high, edge=[0])).holds is False
    assert much_better("a.", search(lower, edge=[0]), search(high)).holds is True
    assert much_better("a.", search(lower), search(high, edge=[0])).holds is None


def test_decay_beside_the_step_shrinks_and_l2_only_turns_the_gradient():
    """AdaGrad's first step is the rate in the direction of the sign, its fourth half of it."""
    weight, gradient = jnp.array([2.0, -3.0]), jnp.array([1.0, -1.0])
    expected = {
        "l2": lambda step: -0.1 * np.sign([1.0, -1.0]) / np.sqrt(step),
        "decoupled": lambda step: (
            -0.1 * np.array([1.0, -1.0]) / np.sqrt(step) - 0.1 * 0.5 * np.array([2.0, -3.0])
        ),
        "scheduled": lambda step: (
            (-0.1 * np.array([1.0, -1.0]) - 0.05 * np.array([2.0, -3.0])) / np.sqrt(step)
        ),
    }
    for kind, law in expected.items():
        made = e41.decayed("adagrad", kind, {"rate": 0.1, "decay": 0.5}, Problem(num_steps=5))
        state = made.init(weight)
        for step in range(1, 5):
            found, state = made.update(gradient, state, weight)
            np.testing.assert_allclose(np.asarray(found), law(step), rtol=1e-6)
    with pytest.raises(ValueError, match="kind among"):
        e41.decayed("adagrad", "l1", {"rate": 0.1, "decay": 0.5}, Problem())


def decays(constant=0.5, scheduled=0.0, adagrad=(0.2, 0.15, 0.12), amsgrad=(0.2, 0.15)):
    """A made-up record of e41: errors with L2, decoupled and scheduled decay; slopes of shares."""
    step = np.arange(0, 600, 20)
    errors = {
        "adam/l2": 0.2,
        "adam/decoupled": 0.15,
        "amsgrad/l2": amsgrad[0],
        "amsgrad/decoupled": amsgrad[1],
        "adagrad/l2": adagrad[0],
        "adagrad/decoupled": adagrad[1],
        "adagrad/scheduled": adagrad[2],
    }
    slopes = {
        "adagrad/decoupled": constant, "adagrad/scheduled": scheduled, "adam/decoupled": 0.0
    }  # fmt: skip
    groups = {name: search([error], spread=0.005) for name, error in errors.items()}
    for name, slope in slopes.items():
        share = np.tile((step + 1.0) ** slope, (2, SEEDS, 1))
        groups[name]["step"] = variable("step", step)
        groups[name]["share"] = variable(("weak", "seed", "step"), share)
    config = {"first": 100, "problem": {"num_seeds": SEEDS}}
    return Record(groups=groups, attributes={"config": config})


def test_gains_like_adams_and_a_decay_that_grows_are_a_yes():
    assert all(each.holds is True for each in e41.check(decays()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"constant": 0.0}, "like the root of time"),
        ({"constant": 1.0}, "like the root of time"),
        ({"constant": 0.1}, "faster than adam's"),
        ({"scheduled": 0.5}, "falls like"),
        ({"adagrad": (0.2, 0.25, 0.12)}, "adagrad errs less with decoupled"),
        ({"adagrad": (0.2, 0.25, 0.12)}, "adagrad gains as much"),
        ({"amsgrad": (0.2, 0.2)}, "amsgrad gains as much"),
        ({"adagrad": (0.2, 0.15, 0.18)}, "falls with its step"),
    ],
)
def test_other_gains_or_shares_are_a_no(change, words):
    assert holds(e41.check(decays(**change)), words) is False


def tuned(**errors):
    """A made-up record of e42: the best error with decay, half as many again without."""
    errors = {
        "sgd with L2": 0.10, "sgdw": 0.10, "adam with L2": 0.14, "adamw": 0.12,
        "adamw, eps tuned": 0.10, "adabayes": 0.10, "fixed point": 0.10,
    } | errors  # fmt: skip
    groups = {
        f"digits/{name}": search([1.5 * error, error], decay=[0.0, 1.0], spread=0.005)
        for name, error in errors.items()
    }
    return Record(groups=groups, attributes={})


def test_errors_as_the_sources_have_them_are_a_yes():
    assert all(each.holds is True for each in e42.check(tuned()))


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({"adamw": 0.09}, "adaptive methods generalise worse"),
        ({"adabayes": 0.08}, "no other errs a tenth less"),
        ({"adabayes": 0.13}, ": AdaBayes errs at most a tenth more"),
        ({"adabayes": 0.13}, ": AdaBayes errs less than Adam"),
        ({"fixed point": 0.13}, "fixed point errs at most a tenth more"),
        ({"adamw, eps tuned": 0.12}, "epsilon tuned"),
        ({"adam with L2": 0.11}, "AdamW errs less than Adam with L2"),
        ({"adam with L2": 0.125}, "AdamW errs less by more than a tenth"),
    ],
)
def test_other_errors_are_a_no(errors, words):
    assert holds(e42.check(tuned(**errors)), words) is False


def test_a_decay_that_does_more_for_one_is_a_no():
    record = tuned()
    record.groups["digits/sgdw"] = search([0.11, 0.10], decay=[0.0, 1.0])
    for words in ("decay does as much", "gain or none"):
        assert holds(e42.check(record), words) is False


def test_decay_that_helps_neither_is_alike_and_not_as_much():
    record = tuned()
    for name in ("sgdw", "adamw"):
        record.groups[f"digits/{name}"] = search([0.1, 0.1], decay=[0.0, 1.0])
    assert holds(e42.check(record), "decay does as much") is None
    assert holds(e42.check(record), "gain or none") is True
