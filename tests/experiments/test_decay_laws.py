"""Experiments on what the best decay and the best rates go with: yes, no and not judged."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import ridge
from bayesfilt.records import Record, variable
from bayesfilt.tasks import Supervised
from experiments import best_values, drawn_data, layerwise
from experiments import e18_tied_variance as tied
from experiments import e19_decay_and_data as data
from experiments import e20_width as width
from experiments import e21_layerwise_rate as rates_of_layers
from experiments.contract import Verdict
from experiments.grids import Grid, grid_group

SEEDS = 7
# What a seed moves the best value by at each setting, in natural logarithms.
LUCK = 0.1 * np.random.default_rng(0).standard_normal((5, SEEDS))
LUCK -= np.median(LUCK, axis=1, keepdims=True)


def valleys(log_values, log_best) -> np.ndarray:
    """Errors with their lowest point at a value that depends a little on the seed, by setting.

    Args:
        log_values: the same for all settings, or one line each.
        log_best: one a setting.
    """
    best = np.asarray(log_best)[:, None, None] + LUCK[: len(log_best), None]
    return 0.1 * np.exp(0.05 * (np.asarray(log_values)[..., None] - best) ** 2)


def bowl(log_first, log_second, best, *, setting=0, oblique=1.0) -> np.ndarray:
    """The same of two values; the second's luck is the opposite of the first's."""
    first = log_first[:, None, None] - best[0] - 0.3 * LUCK[setting]
    second = log_second[None, :, None] - best[1] + 0.3 * LUCK[setting]
    return 0.1 * np.exp(0.05 * (first**2 + second**2 + oblique * first * second))


def holding(verdicts: list[Verdict], *words: str) -> bool | None:
    """What the only verdict says whose claim has these words."""
    found = [each for each in verdicts if all(word in each.claim for word in words)]
    assert len(found) == 1, [each.claim for each in found]
    return found[0].holds


# --- Best values -------------------------------------------------------------------------------


def test_the_lowest_point_of_a_parabola_is_found_to_rounding():
    x = np.linspace(-4, 3, 8)
    assert best_values.log_best(0.3 * (x - 0.37) ** 2, x) == pytest.approx(0.37)
    errors = np.exp(0.3 * (x - 0.37) ** 2)[None, :, None]
    assert ridge(errors, np.exp(x)).log_decay[0] == pytest.approx(0.37)


@pytest.mark.parametrize("best", [-4.0, 3.0, 9.0])
def test_a_lowest_point_at_the_edge_is_no_best_value(best):
    x = np.linspace(-4, 3, 8)
    assert np.isnan(best_values.log_best((x - best) ** 2, x))


def test_runs_that_diverged_take_no_part_in_a_fit():
    x = np.linspace(-4, 3, 8)
    heights = np.where(x > 1.5, np.inf, (x - 0.4) ** 2)
    assert best_values.log_best(heights, x) == pytest.approx(0.4)
    assert np.isnan(best_values.log_best(np.full(8, np.inf), x))


def test_the_lowest_point_of_a_bowl_is_found_to_rounding():
    x, y = np.linspace(-4, 3, 8), np.linspace(-2, 3, 6)
    u, v = np.meshgrid(x - 0.37, y - 0.61, indexing="ij")
    found = best_values.log_best_of_pair(u**2 + u * v + 2 * v**2, x, y)
    assert found == pytest.approx((0.37, 0.61))
    beside = best_values.log_best_of_pair(u**2 + (v - 5) ** 2, x, y)
    assert np.isnan(beside).all()


def test_a_law_needs_the_way_to_its_rivals():
    def said(low, high):
        found = best_values.Interval(0.5 * (low + high), low, high)
        laws = {"one": 1.0, "same": 1.0, "none": 0.0}
        return best_values.is_law("It.", found, "one", laws, measured="slope")

    assert said(0.9, 1.2).holds is True
    assert said(1.1, 1.2).holds is False
    assert said(-0.2, 1.2).holds is None
    assert said(0.2, 1.9).holds is None  # wider than the way to the rival
    assert said(np.nan, np.nan).holds is None
    assert said(0.95, 1.1).margin == pytest.approx(0.05 / 0.075)  # from the nearer end
    assert said(0.4, 1.3).margin == pytest.approx(0.1 / 0.45)  # from the widest that chooses
    assert said(0.01, 1.0).margin == pytest.approx(0.0)
    assert said(1.1, 1.3).margin == pytest.approx(1.0)


def test_an_interval_is_no_smaller_than_what_a_quarter_of_a_step_does_to_a_slope():
    x, settings = np.arange(8.0), np.array([0.0, 1.0, 2.0, 3.0])
    heights = (x[None] - 2 - settings[:, None]) ** 2
    errors = np.repeat(np.exp(heights)[..., None], 5, axis=-1)  # seeds that agree
    moving = best_values.Moving(errors, np.tile(x, (4, 1)), settings)
    found = best_values.slope_of_best(moving)
    apart = 0.25 * np.linalg.lstsq(np.stack([settings, np.ones(4)], 1), np.eye(4))[0][0]
    error = np.linalg.norm(apart)  # of independent errors, each a quarter
    assert found == pytest.approx((1.0, 1.0 - error, 1.0 + error))
    assert best_values.best_intervals(moving)[0] == pytest.approx(np.exp([2.0, 1.75, 2.25]))


# --- Layers and data ---------------------------------------------------------------------------


def step_of(made: optax.GradientTransformation, directions: Any, params: Any) -> Any:
    """The first step of an optimizer."""
    return made.update(directions, made.init(params), params)[0]


@pytest.fixture(scope="module")
def small() -> tuple[Supervised, Any]:
    """A network of 64, 5 and 10, and its first weights."""
    task = layerwise.mlp_task(layerwise.Digits(subset=40), (5,))
    return task, task.init_params(jax.random.key(0))


def test_every_layer_has_its_own_rate_and_only_weights_shrink(small):
    task, params = small
    assert layerwise.fan_ins(task) == {"dense_0": 64, "dense_1": 5}
    made = layerwise._stepped({"dense_0": 0.1, "dense_1": 0.3}, {"dense_1": 0.5})
    steps = step_of(made, jax.tree.map(np.ones_like, params), params)
    np.testing.assert_allclose(steps["dense_0"].weight, -0.1, rtol=1e-6)
    np.testing.assert_allclose(steps["dense_1"].bias, -0.3, rtol=1e-6)
    expected = -0.3 - 0.5 * np.asarray(params["dense_1"].weight)
    np.testing.assert_allclose(steps["dense_1"].weight, expected, rtol=1e-6)


def test_equal_numbers_for_all_layers_are_the_optimizers_of_optax(small):
    _, params = small
    gradient = jax.tree.map(lambda weight: np.asarray(weight) ** 2 - 0.01, params)
    equal, none = dict.fromkeys(params, 0.01), dict.fromkeys(params, 0.0)
    for mine, theirs in (
        (layerwise.adamw_by_layer(equal, none), optax.adam(0.01)),
        (layerwise.sgd_by_layer(equal), optax.sgd(0.01)),
    ):
        pairs = zip(
            *(jax.tree.leaves(step_of(made, gradient, params)) for made in (mine, theirs)),
            strict=True,
        )
        for own, other in pairs:
            np.testing.assert_allclose(own, other, rtol=1e-5)


def test_first_weights_have_the_variance_that_is_said(small):
    _, params = small
    weight = np.asarray(params["dense_0"].weight)
    # 320 weights: the deviation of their variance is 5 %.
    assert float(np.var(weight)) == pytest.approx(1 / (3 * 64), rel=0.15)
    assert np.abs(weight).max() == pytest.approx(1 / 8, rel=0.02)


def test_a_seed_draws_examples_and_only_the_first_count():
    shuffled = drawn_data.shuffled_digits((1, 2), 0.2, 64)
    inputs = np.asarray(shuffled.train.inputs)
    assert inputs.shape[:2] == (2, 1297)
    assert not np.array_equal(inputs[0], inputs[1])
    own = dataclasses.replace(shuffled, train=jax.tree.map(lambda each: each[1], shuffled.train))
    batch = drawn_data.FirstExamples(own, jnp.asarray(3)).sample_batch(jax.random.key(0), 0)
    seen = {example.tobytes() for example in np.asarray(batch.inputs)}
    assert seen == {example.tobytes() for example in inputs[1, :3]}


# --- e18 ---------------------------------------------------------------------------------------


def tied_record(law, *, ratio=16 / 64, seeds=SEEDS) -> Record:
    """The best shrink at a rate is `law(rate)`; that of the second layer `ratio` of the first's."""
    rates, decays = np.geomspace(0.002, 0.032, 5), np.geomspace(0.001, 100, 16)
    errors = valleys(np.log(np.outer(rates, decays)), np.log(law(rates)))[..., :seeds]
    courses = np.zeros((*errors.shape, 1))
    grid = Grid(rates, decays, np.zeros(1, int), errors, errors, courses, courses, courses)
    shrinks = 1e-5 * 4.0 ** np.arange(7)
    best = np.log(5e-4), np.log(5e-4 * ratio)
    layerwise_group = {
        "first_shrink": variable("first_shrink", shrinks),
        "second_shrink": variable("second_shrink", shrinks),
        "fan_in": variable("layer", np.array([64, 16])),
        "test_error": variable(
            ("first_shrink", "second_shrink", "seed"),
            bowl(np.log(shrinks), np.log(shrinks), best)[..., :seeds],
        ),
    }
    prior = {
        "fan_in": variable("layer", np.array([64, 64])),
        "first_variance": variable("layer", np.full(2, 1 / 192)),
    }
    groups = {"global": grid_group(grid), "prior": prior, "layerwise": layerwise_group}
    return Record(groups=groups, attributes={})


def of_prior(rate):
    """The tied shrink of a prior variance of 1/64."""
    return rate**2 / (2 / 64)


def test_a_decay_tied_to_the_first_weights_is_seen():
    verdicts = tied.check(tied_record(of_prior))
    assert [each.holds for each in verdicts] == [True] * 4
    found = tied.tied_intervals(tied_record(of_prior))
    for each in found:
        assert each.low <= each.estimate <= each.high
        assert each.estimate == pytest.approx(1 / 64, rel=0.15)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_decay_that_goes_otherwise_with_the_rate_is_tied_to_no_variance(power):
    verdicts = tied.check(tied_record(lambda rate: of_prior(0.008) * (rate / 0.008) ** power))
    assert holding(verdicts, "the same at every") is False
    assert holding(verdicts, "At every learning rate the best") is False


def test_a_tied_variance_of_another_size_is_not_that_of_first_weights():
    verdicts = tied.check(tied_record(lambda rate: 8 * of_prior(rate)))
    assert holding(verdicts, "the same at every") is True
    assert holding(verdicts, "At every learning rate the best") is False


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_layers_whose_decays_have_another_ratio_refute_the_fan_ins(ratio):
    verdicts = tied.check(tied_record(of_prior, ratio=ratio))
    assert holding(verdicts, "searched apart") is False
    assert holding(verdicts, "than equal shrinks") is False


def test_a_tied_variance_off_by_its_factor_of_two_twice_is_seen(monkeypatch):
    right = tied.tied_variance
    monkeypatch.setattr(tied, "tied_variance", lambda rate, shrink: 4 * right(rate, shrink))
    verdicts = tied.check(tied_record(of_prior))
    assert holding(verdicts, "At every learning rate the best") is False


def test_a_best_decay_at_the_edge_and_few_seeds_are_not_judged():
    edge = tied.check(tied_record(lambda rate: 1e-9 + 0 * rate))
    assert holding(edge, "the same at every") is None
    assert holding(edge, "At every learning rate the best") is None
    few = tied.check(tied_record(of_prior, seeds=3))
    assert all(each.holds is None for each in few)


# --- e19 ---------------------------------------------------------------------------------------


def data_record(law) -> Record:
    """The best shrink of a run is `law(examples, steps)`."""
    examples, shrinks = np.array([150, 300, 600, 1_200]), 1e-6 * 2.4 ** np.arange(14)
    groups = {}
    for design in data.DESIGNS:
        steps = np.array([data.PAPER.steps(design, int(each)) for each in examples])
        best = [law(*pair) for pair in zip(examples, steps, strict=True)]
        errors = valleys(np.log(shrinks), np.log(best))
        groups[design] = {
            "examples": variable("examples", examples),
            "num_steps": variable("examples", steps),
            "shrink": variable("shrink", shrinks),
            "test_error": variable(("examples", "shrink", "seed"), errors),
        }
    return Record(groups=groups, attributes={"config": {"batch_size": 32}})


# By words of the claim: the law, and which claims hold then at fixed epochs and at fixed steps.
DATA_LAWS = {
    "remembers": (lambda examples, steps: 0.1 / examples, (1, 0, 0), (1, 0, 0)),
    "root": (lambda examples, steps: 0.01 / steps**0.5, (0, 1, 0), (0, 1, 1)),
    "not know": (lambda examples, steps: 3e-4, (0, 0, 1), (0, 1, 1)),
}


@pytest.mark.parametrize("name", DATA_LAWS)
def test_each_law_of_the_data_is_told_from_the_others(name):
    law, at_epochs, at_steps = DATA_LAWS[name]
    verdicts = data.check(data_record(law))
    for words, epochs, steps in zip(DATA_LAWS, at_epochs, at_steps, strict=True):
        assert holding(verdicts, "of epochs the best", words) is bool(epochs)
        assert holding(verdicts, "of steps the best", words) is bool(steps)


def test_laws_say_the_slopes_of_the_sources():
    record = data_record(DATA_LAWS["root"][0])
    assert data.law_slopes(record, "epochs") == pytest.approx(
        {"memory in epochs": -1, "normalised": -0.5, "filter": 0}, abs=1e-5
    )
    assert data.law_slopes(record, "steps") == pytest.approx(
        {"memory in epochs": -1, "normalised": 0, "filter": 0}, abs=1e-5
    )


def test_a_memory_of_epochs_with_the_wrong_exponent_is_refuted(monkeypatch):
    right = data.law

    def wrong(name, examples, steps, batch_size):
        power = 2 if name == "memory in epochs" else 1
        return right(name, examples, steps, batch_size) ** power

    monkeypatch.setattr(data, "law", wrong)
    verdicts = data.check(data_record(DATA_LAWS["remembers"][0]))
    assert holding(verdicts, "of epochs the best", "remembers") is False
    assert holding(verdicts, "of steps the best", "remembers") is False


# --- e20 ---------------------------------------------------------------------------------------


def width_record(law) -> Record:
    """The best shrink of a layer is `law(rate, fan_in)`."""
    widths, shrinks = np.array([16, 32, 64, 128]), 1e-6 * 2.8 ** np.arange(12)
    groups = {}
    for design in width.DESIGNS:
        rates = np.array([width.PAPER.rate_of(design, int(each)) for each in widths])
        best = [law(*pair) for pair in zip(rates, widths, strict=True)]
        errors = valleys(np.log(shrinks), np.log(best))
        groups[design] = {
            "width": variable("width", widths),
            "rate": variable("width", rates),
            "shrink": variable("shrink", shrinks),
            "test_error": variable(("width", "shrink", "seed"), errors),
        }
    return Record(groups=groups, attributes={})


@pytest.mark.parametrize(
    "law, filter_holds, memory_holds",
    [
        (lambda rate, fan_in: rate**2 * fan_in / 2, (True, True), (False, False)),
        (lambda rate, fan_in: 5e-4, (False, False), (True, True)),
        (lambda rate, fan_in: 0.1 * rate, (False, True), (True, False)),  # constant weight decay
    ],
)
def test_width_tells_the_filter_from_one_memory_for_all(law, filter_holds, memory_holds):
    verdicts = width.check(width_record(law))
    for place, where in enumerate(("at a fixed rate", "one over the width")):
        assert holding(verdicts, "square of the rate", where) is filter_holds[place]
        assert holding(verdicts, "does not go", where) is memory_holds[place]
    if filter_holds == (True, True):
        assert all(holding(verdicts, "At every width", where) for where in width.DESIGNS.values())


@pytest.mark.parametrize("factor", [1 / 4, 6.0])
def test_a_shrink_of_another_size_stands_for_no_variance_of_first_weights(factor):
    verdicts = width.check(width_record(lambda rate, fan_in: factor * rate**2 * fan_in / 2))
    assert holding(verdicts, "square of the rate", "at a fixed rate") is True
    assert holding(verdicts, "At every width", "at a fixed rate") is False


def test_a_filter_that_forgets_the_square_is_refuted(monkeypatch):
    record = width_record(lambda rate, fan_in: rate**2 * fan_in / 2)
    monkeypatch.setattr(width, "filter_shrink", lambda rate, fan_in: rate * fan_in / 2)
    assert holding(width.check(record), "square of the rate", "one over the width") is False
    monkeypatch.setattr(width, "filter_shrink", lambda rate, fan_in: rate**2 / fan_in)
    assert holding(width.check(record), "square of the rate", "at a fixed rate") is False


def test_the_first_layer_keeps_its_rate_and_the_filters_shrink(small):
    task, params = small
    made = width._optimizer_of(width.PAPER, task)({"rate": 0.5, "shrink": 0.25})
    steps = step_of(made, jax.tree.map(np.zeros_like, params), params)
    kept = {name: float(steps[name].weight[0, 0] / params[name].weight[0, 0]) for name in params}
    assert kept["dense_0"] == pytest.approx(-(0.008**2) * 64 / 2, rel=1e-5)
    assert kept["dense_1"] == -0.25


# --- e21 ---------------------------------------------------------------------------------------


def rates_record(power, *, factor=1.0, seeds=SEEDS) -> Record:
    """The second layer's best rate over the first's is (64/width)^power times a factor."""
    ratios, means = 4.0 ** np.arange(-8, 9), 0.0625 * 2.0 ** np.arange(7)
    groups = {}
    for setting, fan_in in enumerate((16, 64, 256)):
        best = power * np.log(64 / fan_in) + np.log(factor), np.log(0.5)
        errors = bowl(np.log(ratios), np.log(means), best, setting=setting, oblique=0)
        dims = ("ratio", "mean_rate", "seed")
        groups[f"width {fan_in}"] = {
            "ratio": variable("ratio", ratios),
            "mean_rate": variable("mean_rate", means),
            "fan_in": variable("layer", np.array([64, fan_in])),
            "training_loss": variable(dims, errors[..., :seeds]),
            "test_error": variable(dims, errors[..., :seeds]),
        }
    return Record(groups=groups, attributes={})


@pytest.mark.parametrize("power, law", [(1, "as the ratio"), (0, "does not"), (2, "as muP")])
def test_the_ratio_of_best_rates_singles_out_one_law(power, law):
    verdicts = rates_of_layers.check(rates_record(power))
    for words in ("as the ratio", "does not", "as muP"):
        assert holding(verdicts, "training loss", words) is (words == law)
    for level in ("At width 16", "At width 256"):
        assert holding(verdicts, level) is (power == 1)


def test_a_ratio_of_another_level_refutes_the_prior_and_not_its_slope():
    verdicts = rates_of_layers.check(rates_record(1, factor=2.5))
    assert holding(verdicts, "training loss", "as the ratio") is True
    assert holding(verdicts, "At width 16") is False


def test_rates_in_the_inverse_ratio_are_refuted(monkeypatch):
    right = rates_of_layers.told_ratio
    monkeypatch.setattr(rates_of_layers, "told_ratio", lambda law, each: 1 / right(law, each))
    verdicts = rates_of_layers.check(rates_record(1))
    assert holding(verdicts, "training loss", "as the ratio") is False
    assert holding(verdicts, "At width 256") is False


def test_best_rates_on_the_border_and_few_seeds_are_not_judged():
    beyond = rates_of_layers.check(rates_record(1, factor=1e9))
    assert all(each.holds is None for each in beyond)
    few = rates_of_layers.check(rates_record(1, seeds=3))
    assert all(each.holds is None for each in few)
