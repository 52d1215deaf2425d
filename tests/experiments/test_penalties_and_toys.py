"""Penalties, dead weights, saddles and recipes: each verdict can be yes and no."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.records import Record, variable
from bayesfilt.tasks import bowl_task, make_task
from experiments import (
    e30_dead_weights,
    e31_frozen_preconditioner,
    e32_shrink_and_gradient,
    e33_two_groups,
    e39_saddle_and_ravine,
    e40_decay_side_effects,
    small_surfaces,
)
from experiments.chosen_cells import Cells, chosen_and_judged
from experiments.falling_weights import dead_inputs, falling_numbers, rate_exponent, steps_to

SEEDS = 5


def holds(module, result, words):
    """The one verdict whose claim has these words."""
    (found,) = [each for each in module.check(result) if words in each.claim]
    return found.holds


# e30: weights that no gradient reaches

STEP = np.arange(0, 1_500, 5)


def adam_on_a_penalty(first, rate, l2, b2, num_steps, b1=0.9):
    """Sizes of one weight under Adam, whose only gradient is that of the penalty."""
    weight, mean, square, sizes = first, 0.0, 0.0, []
    for step in range(1, num_steps + 1):
        sizes.append(weight)
        gradient = l2 * weight
        mean, square = b1 * mean + (1 - b1) * gradient, b2 * square + (1 - b2) * gradient**2
        root = np.sqrt(square / (1 - b2**step)) + 1e-8
        weight -= rate * mean / (1 - b1**step) / root
    return np.array(sizes)


def dead_weights(*, factor=1.0, decay_factor=1.0, exponential=False, zeros=0.0, near=0.0):
    """Both groups as the laws have them, but for a factor or a shape."""
    first = np.linspace(0.04, 0.12, 8) * np.ones((SEEDS, 1))
    penalised = [(3e-4, 1e-3, 0.999), (3e-4, 1e-2, 0.999), (1e-4, 1e-2, 0.999), (3e-4, 1e-2, 0.9)]
    decoupled = [(3e-4, 0.0, 0.999), (3e-4, 1.0, 0.999), (3e-3, 30.0, 0.999)]

    def penalty_course(rate):
        way = factor * rate * STEP[:, None] / first[:, None, :]
        return first[:, None, :] * (np.exp(-way) if exponential else np.maximum(1 - way, 0))

    def decay_course(rate, decay):
        return first[:, None, :] * (1 - decay_factor * rate * decay) ** STEP[:, None]

    def numbers(settings, courses):
        ends = {name: np.zeros((len(settings), SEEDS)) for name in (
            "exactly_zero_dead", "exactly_zero_live", "near_zero_live", "test_error")}  # fmt: skip
        ends["near_zero_dead"] = np.ones((len(settings), SEEDS))
        return ends, falling_numbers(STEP, np.stack(courses), ends, settings, 8)

    ends, l2 = numbers(penalised, [penalty_course(rate) for rate, _, _ in penalised])
    ends["near_zero_live"][:] = near
    ends["exactly_zero_live"][0] = zeros
    ends, adamw = numbers(decoupled, [decay_course(rate, decay) for rate, decay, _ in decoupled])
    ends["exactly_zero_dead"][-1] = 1.0
    ends["test_error"][-1] = 0.9
    return Record(groups={"adam_l2": l2, "adamw": adamw}, attributes={})


def test_passage_times_are_those_of_a_line_and_an_exponential():
    step = np.arange(0, 1_000, 5)
    line, exponential = 1 - step / 900, np.exp(-step / 300)
    share = np.stack([line, exponential], axis=-1)
    np.testing.assert_allclose(steps_to(step, share, 0.5), [450, 300 * np.log(2)], rtol=1e-3)
    np.testing.assert_allclose(rate_exponent(step, share), [0, 1], atol=0.01)
    assert np.isnan(steps_to(step, share, 0.01)).tolist() == [False, True]


def test_adams_memory_bends_the_line_of_a_weight_without_a_gradient():
    """A slow twin of Adam on one weight: a line with a short memory, none with the usual one."""
    step = np.arange(400)
    bent, straight = (
        rate_exponent(step, adam_on_a_penalty(0.06, 3e-4, 1e-2, b2, 400)[:, None] / 0.06).item()
        for b2 in (0.999, 0.9)
    )
    assert 0.4 < bent < 0.7
    assert abs(straight) < 0.05


def test_dead_inputs_are_those_that_no_example_has():
    inputs = np.asarray(make_task("digits-mlp", batch_size=32).train.inputs)
    assert {0, 32, 39} <= set(np.flatnonzero(dead_inputs(inputs)))
    inputs = np.copy(inputs)
    inputs[7, 0, 0] = 1e-9
    assert not dead_inputs(inputs)[0]


@pytest.mark.parametrize(
    ("words", "mutated"),
    [
        ("from a dead weight, b2 0.999 and", {"factor": 2.0}),
        ("is a straight line, b2 0.999", {"exponential": True}),
        ("takes the fraction lr wd per step", {"decay_factor": 2.0}),
        ("of live inputs exactly zero", {"zeros": 0.01}),
        ("live ones no more often", {"near": 0.2}),
    ],
)
def test_dead_weights_by_the_laws_are_a_yes_and_by_others_a_no(words, mutated):
    assert holds(e30_dead_weights, dead_weights(), words) is True
    assert holds(e30_dead_weights, dead_weights(**mutated), words) is False


def test_zeros_of_a_network_that_has_learnt_nothing_are_no_zeros():
    result = dead_weights(zeros=0.01)
    result.groups["adam_l2"]["test_error"].values[0] = 0.9
    assert holds(e30_dead_weights, result, "of live inputs exactly zero") is True


# e31: a penalty by the divisors

HELD = dataclasses.replace(
    e31_frozen_preconditioner.QUICK, num_seeds=SEEDS, learning_rate=0.01, shrink=0.01
)


@pytest.fixture
def on_a_bowl(monkeypatch):
    """The experiment on a bowl with quiet and loud weights, which compiles in a second."""
    curvature = np.diag(np.geomspace(0.01, 1, 6))
    task = bowl_task(
        curvature, curvature, batch_size=1, optimum=np.linspace(-1, 2, 6), dtype="float64"
    )
    monkeypatch.setattr(e31_frozen_preconditioner, "make_task", lambda *_, **__: task)
    return e31_frozen_preconditioner.run(HELD, jax.random.key(0))


def test_a_penalty_by_the_divisors_is_decay_where_its_rivals_are_not(on_a_bowl):
    for words in ("frozen divisors and no momentum", "equation 2", "No one L2", "√D"):
        assert holds(e31_frozen_preconditioner, on_a_bowl, words) is True
    assert holds(e31_frozen_preconditioner, on_a_bowl, "frozen divisors and momentum") is False


@pytest.mark.parametrize(("factor", "same"), [(1.0, True), (2.0, False)])
def test_another_factor_on_the_penalty_is_not_decay(factor, same, monkeypatch):
    """Step by step, without the compiled run: loud and quiet gradients, 3 steps of warm-up."""
    right = e31_frozen_preconditioner.equivalent_penalty
    monkeypatch.setattr(
        e31_frozen_preconditioner, "equivalent_penalty", lambda *args: factor * right(*args)
    )
    config = dataclasses.replace(HELD, warm_up=3)
    gradients = np.random.default_rng(0).standard_normal((8, 3)) * [0.01, 1, 10]

    def last_weights(name):
        numbers = {"b1": 0.0, "b2": 1.0, **e31_frozen_preconditioner._VARIANTS[name]._asdict()}
        optimizer = e31_frozen_preconditioner.held_adam(config, numbers)
        weights = jnp.array([1.0, -2.0, 3.0])
        state = optimizer.init(weights)
        for gradient in jnp.asarray(gradients):
            updates, state = optimizer.update(gradient, state, weights)
            weights = weights + updates
        return np.asarray(weights)

    gap = e31_frozen_preconditioner.gap_to_decay(
        *(last_weights(name) for name in ("penalty by D", "decay", "no decay"))
    )
    assert (gap < 1e-9) == same
    assert same or gap == pytest.approx(1, rel=0.1)  # twice the pull: as far as none, beyond


def test_a_gap_that_does_not_grow_with_motion_is_a_no():
    def result(power):
        rates = np.geomspace(1e-3, 1e-1, 4)
        rivals = ["coefficient as printed", "penalty by the root of D", "one coefficient"]
        groups = {
            "frozen": _held_group(["penalty by D", *rivals], 0.0, 1e-15),
            "frozen, with momentum": _held_group(["penalty by D"], 0.0, 1e-15),
        }
        groups |= {
            f"moving, b2 {rate:g}": _held_group(["penalty by D"], rate, 0.1 * rate**power)
            for rate in rates
        }
        return Record(groups=groups, attributes={})

    words = "gap grows with the rate"
    assert holds(e31_frozen_preconditioner, result(0.5), words) is True
    assert holds(e31_frozen_preconditioner, result(-0.5), words) is False
    # Rivals as close as this would be decay as well.
    assert holds(e31_frozen_preconditioner, result(0.5), "equation 2") is False


def _held_group(names, motion, gap):
    shake = np.exp(0.01 * np.random.default_rng(0).standard_normal((len(names), SEEDS, 3)))
    return {
        "variant": variable("variant", names),
        "step": variable("step", np.array([0, 10, 20])),
        "gap": variable(("variant", "seed", "step"), gap * shake),
        "motion": variable("seed", np.full(SEEDS, motion)),
    }


# e32: shares of weights by their gradients


def shares(power, decay_power=0.0):
    root = np.exp(np.random.default_rng(0).normal(-7, 1, (SEEDS, 400)))
    config = dataclasses.asdict(e32_shrink_and_gradient.Config(l2=(1e-5,), bins=10))
    group = {
        "root_mean_square": variable(("seed", "weight"), root),
        "share_l2": variable(("l2", "seed", "weight"), 1e-8 * root[None] ** power),
        "share_adamw": variable(("seed", "weight"), 1e-4 * root**decay_power),
    }
    return Record(groups={"weights": group}, attributes={"config": config})


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("takes less per step", shares(0.3)),
        ("goes like 1/√v", shares(-0.5)),
        ("AdamW takes the share", shares(-1.0, decay_power=-1.0)),
    ],
)
def test_shares_of_l2_go_like_the_inverse_root_and_those_of_decay_do_not(words, wrong):
    assert holds(e32_shrink_and_gradient, shares(-1.0), words) is True
    assert holds(e32_shrink_and_gradient, wrong, words) is False


def test_equal_shares_have_no_rank_and_are_not_judged():
    assert holds(e32_shrink_and_gradient, shares(0.0), "takes less per step") is None


# e33: sizes and gradients set apart

GROUPS = dataclasses.replace(e33_two_groups.QUICK, num_seeds=SEEDS)


def test_four_groups_have_every_size_with_every_gradient():
    task = e33_two_groups.four_groups(GROUPS)
    found = {
        name: (float(jnp.abs(task.optimum[name]).max()), float(task.noise_scale[name]))
        for name in task.optimum
    }
    assert found == {
        "small_quiet": (0.1, 0.1),
        "small_loud": (0.1, 1.0),
        "large_quiet": (10.0, 0.1),
        "large_loud": (10.0, 1.0),
    }


@pytest.fixture(scope="module")
def four_groups():
    return e33_two_groups.run(GROUPS, jax.random.key(0))


def test_a_weak_penalty_spares_loud_weights_and_a_strong_one_large_weights(four_groups):
    for words in ("weak L2: the share lost goes with no power of |w|",
                  "weak L2: the share lost goes like 1/|g|",
                  "AdamW: the share lost goes with no power of |g|"):  # fmt: skip
        assert holds(e33_two_groups, four_groups, words) is True
    assert holds(e33_two_groups, four_groups, "strong L2: the share lost goes with no") is False


def test_the_blogs_world_is_a_no(four_groups):
    """Shares that go like 1/|w| and not with |g|, for every optimizer."""
    config = four_groups.attributes["config"]
    group = dict(four_groups.groups["groups"])
    shares = 1e-6 / np.array(config["weights"])[:, None, None] * np.ones((4, 2, 2, SEEDS))
    group["share"] = variable(group["share"].dims, shares)
    result = Record(groups={"groups": group}, attributes=four_groups.attributes)
    verdicts = [each for each in e33_two_groups.check(result) if "|w|" in each.claim]
    assert [each.holds for each in verdicts] == [False] * 4
    assert holds(e33_two_groups, result, "weak L2: the share lost goes like 1/|g|") is False


# e39: saddles


def test_an_escape_is_the_last_step_up_there():
    height = np.array([[1, 1, 0.05, 0.05], [1, 0.05, 1, 0.05], [1, 1, 1, 1], [0, 0, np.nan, 0]])
    np.testing.assert_array_equal(small_surfaces.escape_step(height, 1.0), [2, 3, np.inf, 3])
    assert small_surfaces.escape_step(np.array([1, 0.05, np.nan]), 1.0) == np.inf


def saddle(*, adam=20.0, sgd=60.0, leaves=False, slow=1.0, ravine=5.0, edge=False):
    worlds = list(e39_saddle_and_ravine._WORLDS)
    names = ("sgd", "adam")
    by_rate = np.array([1, 1.5, 2]) if edge else np.array([2, 1, 1.5])
    shake = np.exp(0.01 * np.random.default_rng(0).standard_normal((len(worlds), 3, SEEDS)))
    groups = {}
    for name, steps in (("sgd", sgd), ("adam", adam)):
        escape = steps * by_rate[:, None] * shake
        escape[worlds.index("1e-6 from it")] *= 2.0 if name == "sgd" else slow
        escape[worlds.index("1e-3 from it, noise")] *= 0.5
        if not leaves:
            escape[worlds.index("on the saddle")] = np.inf
        groups[f"saddle/{name}"] = {
            "world": variable("world", worlds),
            "rate": variable("rate", np.array([0.1, 0.2, 0.4])),
            "escape": variable(("world", "rate", "seed"), escape),
        }
    ratio = np.array([0.1, 1.0, 10.0])
    mean = (ratio / np.sqrt(1 + ratio**2))[:, None] + 0.001 * shake[0, :3]
    groups["stream"] = {
        "ratio": variable("ratio", ratio),
        "mean_step": variable(("ratio", "seed"), mean),
    }
    groups["ravine"] = {
        "optimizer": variable("optimizer", list(names)),
        "floor_over_wall": variable(
            ("optimizer", "seed"), np.stack([np.ones(SEEDS), ravine * shake[0, 0]])
        ),
    }
    return Record(groups=groups, attributes={"config": {"optimizers": list(names)}})


@pytest.mark.parametrize(
    ("words", "mutated"),
    [
        ("Adam stays", {"leaves": True}),
        ("sooner than SGD", {"adam": 90.0}),
        ("costs Adam less", {"slow": 1.5}),
        ("Adam steps farther", {"ravine": 0.5}),
    ],
)
def test_saddles_and_ravines_can_be_a_yes_and_a_no(words, mutated):
    assert holds(e39_saddle_and_ravine, saddle(), words) is True
    assert holds(e39_saddle_and_ravine, saddle(**mutated), words) is False


def test_a_loser_at_the_edge_of_its_rates_is_not_judged():
    assert holds(e39_saddle_and_ravine, saddle(edge=True), "sooner than SGD") is None


def test_another_law_of_the_mean_step_is_a_no(monkeypatch):
    words = "mean step is"
    assert holds(e39_saddle_and_ravine, saddle(), words) is True
    monkeypatch.setattr(e39_saddle_and_ravine, "mean_step", lambda ratio: ratio / (1 + ratio))
    assert holds(e39_saddle_and_ravine, saddle(), words) is False


# e40: recipes


def recipe(best=0.1, *, decays=(0.01, 0.1, 1.0), best_rate=1, training=None, seeds=9):
    """Errors over (rate, decay, seed), lowest at the middle decay and `best_rate`."""
    rate, decay = np.meshgrid(np.arange(4), np.arange(len(decays)), indexing="ij")
    height = 0.4 * np.abs(rate - best_rate) + 0.2 * np.abs(decay - len(decays) // 2)
    shake = 0.02 * np.random.default_rng(0).standard_normal((*rate.shape, seeds))
    error = best * np.exp(height[..., None] + shake)
    return Cells(
        rates=[1e-3, 3e-3, 1e-2, 3e-2],
        decays=list(decays),
        test_error=error,
        training_loss=error if training is None else training * error,
    )


def test_a_lower_best_cell_is_a_yes_a_higher_one_a_no_and_one_at_the_edge_neither():
    def verdict(first, second):
        return chosen_and_judged("a claim", first, second, "test_error", high=0.0).holds

    assert verdict(recipe(0.1), recipe(0.12)) is True
    assert verdict(recipe(0.12), recipe(0.1)) is False
    assert verdict(recipe(0.1), recipe(0.1)) is None
    assert verdict(recipe(0.1), recipe(0.12, best_rate=0)) is None


def test_the_best_of_many_equal_cells_is_no_better_than_one():
    shape = np.random.default_rng(1).normal(size=(3, 40, 9))
    error = 0.1 * np.exp(0.1 * shape)
    many = Cells(rates=[1.0, 2.0, 3.0], decays=range(40), test_error=error, training_loss=shape)
    one = many.with_decays([7])
    found = chosen_and_judged("a claim", many, one, "test_error", high=0.0)
    assert found.holds is not True


def test_floors_and_best_rates_are_read_off_their_laws():
    rates, q = 0.01 * 2.0 ** np.arange(-3, 4), 0.01**2
    ones = np.ones((1, SEEDS))
    assert small_surfaces.floor_power(rates, rates[:, None] / 2 * ones) == pytest.approx(1)
    drifting = ((rates**2 + q) / (2 * rates))[:, None] * ones
    assert small_surfaces.best_rate(rates, drifting) == pytest.approx(0.01, rel=1e-6)
    assert np.isnan(small_surfaces.best_rate(rates, rates[:, None] * ones))


def targets(power=1.0, drift=0.01):
    rates = 0.01 * 2.0 ** np.arange(-3, 4)
    shake = np.exp(0.01 * np.random.default_rng(0).standard_normal((len(rates), SEEDS)))
    rest, moving = rates**power, (rates**2 + drift**2) / (2 * rates)
    return {
        "target": variable("target", ["at rest", "drifting"]),
        "rate": variable("rate", rates),
        "distance": variable(
            ("target", "rate", "seed"), np.stack([rest[:, None] * shake, moving[:, None] * shake])
        ),
    }


@pytest.mark.parametrize("wrong", [{"power": 0.5, "drift": 0.02}, {"power": 2.0, "drift": 0.005}])
def test_another_floor_and_another_best_rate_are_a_no(wrong):
    right = e40_decay_side_effects._of_targets(targets(), 0.01)
    assert [each.holds for each in right] == [True, True]
    found = e40_decay_side_effects._of_targets(targets(**wrong), 0.01)
    assert [each.holds for each in found] == [False, False]


def test_a_mask_leaves_the_biases_out_that_it_names():
    params = make_task("digits-mlp", batch_size=32).init_params(jax.random.key(0))
    for mask, biases in (
        ("all weights", [True, True]),
        ("no biases", [False, False]),
        ("not the last bias", [True, False]),
    ):
        tree = e40_decay_side_effects.decayed(mask, params)
        assert [tree[name].bias for name in sorted(tree)] == biases
        assert all(tree[name].weight is True for name in tree)
