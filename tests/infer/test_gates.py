"""Draws made by hand, good and bad, in front of the gates."""

import numpy as np
import pytest
import xarray

from bayesfilt.infer.gates import (
    FEWEST_WEIGHTS,
    Limits,
    gate_table,
    gates_as_json,
    gates_from_json,
    judge_gates,
    pareto_k,
)
from bayesfilt.infer.variational import BLOCKS, STEADY_BLOCKS

LAYERS = ["fc1", "fc2"]


def good_draws(num_chains=2, num_draws=1_000):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(num_chains, num_draws, 2)) for name in ("drift", "shrink")}


def tree_of(draws, *, diverging=0, energy=None, wanted=None):
    num_chains, num_draws = next(iter(draws.values())).shape[:2]
    if energy is None:
        energy = np.random.default_rng(1).normal(size=(num_chains, num_draws))
    flags = np.arange(num_chains * num_draws).reshape(num_chains, num_draws) < diverging
    dims = ("chain", "draw")
    posterior = xarray.Dataset(
        {name: ((*dims, "layer"), value) for name, value in draws.items()}, {"layer": LAYERS}
    )
    stats = xarray.Dataset({"diverging": (dims, flags), "energy": (dims, energy)})
    attributes = {"method": "nuts", "num_samples": num_draws if wanted is None else wanted}
    return _tree(posterior, stats, attributes)


def _tree(posterior, stats, attributes):
    root = xarray.Dataset(attrs=attributes)
    return xarray.DataTree.from_dict({"/": root, "posterior": posterior, "sample_stats": stats})


def guide_of(log_weight, elbo=None):
    draws = np.random.default_rng(2).normal(size=(1, log_weight.size, 2))
    posterior = xarray.Dataset({"shrink": (("chain", "draw", "layer"), draws)}, {"layer": LAYERS})
    stats = xarray.Dataset({"log_weight": (("chain", "draw"), log_weight[None])})
    elbo = np.full(BLOCKS, -300.0) if elbo is None else elbo
    attributes = {"method": "svi", "num_samples": log_weight.size}
    attributes |= {"elbo": elbo, "elbo_error": np.full(BLOCKS, 0.05)}
    return _tree(posterior, stats, attributes)


def test_independent_draws_pass_every_gate():
    gates = judge_gates(tree_of(good_draws()))
    assert gates.passes and gates.failures == ()
    assert 1 <= gates.r_hat < 1.01
    # Of 2,000 independent draws about 2,000 are effective.
    assert 1_400 < gates.ess_bulk < 2_400 and 1_400 < gates.ess_tail < 2_400
    assert gates.divergences == 0 and gates.bfmi > 1
    assert gates.pareto_k is None
    assert [row["passes"] for row in gate_table(gates)] == [True] * 5


def test_a_chain_that_is_somewhere_else_fails_and_is_named():
    draws = good_draws()
    draws["shrink"][1, :, 1] += 3
    gates = judge_gates(tree_of(draws))
    assert gates.r_hat > 1.5
    assert any(f.startswith("r-hat of shrink[fc2] is ") for f in gates.failures)
    assert "r-hat" in {row["name"] for row in gate_table(gates) if not row["passes"]}


def test_a_chain_that_is_wider_fails_though_its_middle_is_right():
    draws = good_draws()
    draws["drift"][1, :, 0] *= 3
    assert any(f.startswith("r-hat of drift[fc1]") for f in judge_gates(tree_of(draws)).failures)


def test_slow_chains_have_few_effective_draws():
    rng = np.random.default_rng(3)
    draws = good_draws()
    slow = np.zeros((2, 1_000))
    for step in range(1, 1_000):
        slow[:, step] = 0.9 * slow[:, step - 1] + rng.normal(size=2)
    draws["drift"][..., 0] = slow
    gates = judge_gates(tree_of(draws))
    # One in (1 + 0.9)/(1 - 0.9) = 19 counts: 105 of 2,000, give or take a few.
    assert 60 < gates.ess_bulk < 180
    assert any(f.startswith("ESS, bulk of drift[fc1] is") for f in gates.failures)
    assert any(f.startswith("ESS, tails of drift[fc1] is") for f in gates.failures)


def test_tails_that_come_in_spells_fail_though_the_bulk_is_well_mixed():
    rng = np.random.default_rng(8)
    spell = np.repeat(rng.choice([0.1, 5.0], size=(2, 10)), 100, axis=1)
    draws = good_draws()
    draws["drift"][..., 0] *= spell
    gates = judge_gates(tree_of(draws))
    assert gates.ess_tail < 300 < 800 < gates.ess_bulk


def test_divergences_are_counted_over_all_chains():
    gates = judge_gates(tree_of(good_draws(), diverging=1_003))
    assert gates.divergences == 1_003
    assert gates.failures == ("divergences is 1003, wanted <= 0",)
    assert judge_gates(tree_of(good_draws(), diverging=3), Limits(divergences=3)).passes


def test_an_energy_that_hardly_moves_fails():
    steps = np.random.default_rng(4).normal(size=(2, 1_000))
    steps[1] = np.cumsum(steps[1])
    gates = judge_gates(tree_of(good_draws(), energy=steps))
    assert gates.bfmi < 0.1
    assert gates.failures == (f"BFMI of energy[chain 1] is {gates.bfmi:.4g}, wanted > 0.3",)


def test_draws_that_are_not_finite_fail_and_are_named():
    draws = good_draws()
    draws["drift"][0, 7, 0] = np.nan
    draws["drift"][0, 8, 1] = np.inf
    gates = judge_gates(tree_of(draws))
    assert gates.failures[0] == "drift[fc1] has draws that are not finite (and 1 more)"
    assert not gates.passes and np.isnan(gates.r_hat)


@pytest.mark.parametrize("chains", [[0], [1], [0, 1]])
def test_a_chain_that_never_moves_fails_whatever_its_effective_draws(chains):
    draws = good_draws()
    draws["shrink"][chains, :, 1] = 0.25
    assert "shrink[fc2] never moves" in judge_gates(tree_of(draws)).failures


def test_one_chain_fails_because_nothing_compares_it():
    gates = judge_gates(tree_of(good_draws(num_chains=1)))
    assert gates.failures[0] == "one chain: r-hat, which compares chains, needs two or more"
    assert np.isnan(gates.r_hat)


def test_a_handful_of_draws_fails_without_a_warning():
    assert not judge_gates(tree_of(good_draws(num_draws=2))).passes


def test_an_interrupted_fit_says_how_far_it_came():
    gates = judge_gates(tree_of(good_draws(), wanted=1_500))
    assert gates.failures == ("interrupted: 1000 of 1500 draws of each chain",)


def test_the_limits_are_arguments():
    tree = tree_of(good_draws(num_draws=100))
    assert not judge_gates(tree).passes
    assert judge_gates(tree, Limits(r_hat=1.1, ess=50)).passes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_hat": 1.0}, "r_hat > 1, got r_hat=1"),
        ({"r_hat": np.inf}, "finite r_hat"),
        ({"ess": -1}, "ess >= 0, got ess=-1"),
        ({"divergences": np.nan}, "divergences >= 0"),
        ({"pareto_k": 0}, "pareto_k > 0"),
    ],
)
def test_limits_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^Limits needs [^\n]*{message}[^\n]*$"):
        judge_gates(tree_of(good_draws()), Limits(**change))


def test_weights_with_a_light_tail_pass():
    gates = judge_gates(guide_of(np.random.default_rng(5).normal(scale=0.3, size=1_000)))
    assert gates.passes and gates.pareto_k < 0.7
    assert gates.r_hat is None and gates.ess_bulk is None and gates.divergences is None


def test_weights_with_a_heavy_tail_fail():
    # Pareto with shape 1: its mean does not exist.
    heavy = np.random.default_rng(6).pareto(1.0, size=4_000) + 1
    gates = judge_gates(guide_of(np.log(heavy)))
    assert 0.8 < gates.pareto_k < 1.4
    assert gates.failures == (f"Pareto k is {gates.pareto_k:.4g}, wanted < 0.7",)


def test_the_shape_of_a_tail_is_found():
    rng = np.random.default_rng(7)
    for shape in (0.4, 0.8):
        weights = rng.pareto(1 / shape, size=40_000) + 1
        assert abs(pareto_k(np.log(weights)) - shape) < 0.1


def test_a_weight_that_is_not_finite_fails():
    log_weight = np.random.default_rng(5).normal(size=1_000)
    log_weight[3] = -np.inf
    gates = judge_gates(guide_of(log_weight))
    assert gates.failures == ("Pareto k is nan, wanted < 0.7",)


def test_too_few_weights_to_have_a_tail_fail():
    log_weight = np.random.default_rng(5).normal(scale=0.3, size=FEWEST_WEIGHTS - 1)
    gates = judge_gates(guide_of(log_weight))
    assert gates.failures == ("Pareto k is nan, wanted < 0.7",)


def test_a_guide_on_its_way_fails():
    elbo = np.full(BLOCKS, -300.0)
    elbo[: STEADY_BLOCKS - 1] -= 2
    light = np.random.default_rng(5).normal(scale=0.3, size=1_000)
    (failure,) = judge_gates(guide_of(light, elbo)).failures
    assert failure == "last gain of the ELBO is 2, wanted < 0.31"
    elbo[STEADY_BLOCKS - 1] = np.nan
    assert not judge_gates(guide_of(light, elbo)).passes


def test_gates_are_written_and_read():
    draws = good_draws()
    draws["drift"][1, :, 0] += 3
    gates = judge_gates(tree_of(draws))
    assert gates_from_json(gates_as_json(gates)) == gates
