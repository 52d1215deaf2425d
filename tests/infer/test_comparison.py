"""Scores that foretell, their standard errors, and what becomes of rivals."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from bayesfilt.infer import model_named, optimum_streams
from bayesfilt.infer.comparison import (
    compare_models,
    compare_scores,
    simplicity,
    stacking_weights,
    standard_error_of_sum,
)
from bayesfilt.infer.leave_future_out import leave_future_out
from bayesfilt.infer.predictive_scores import (
    LogPredictive,
    first_steps,
    held_out_log_predictive,
    hidden_after,
    leave_stream_out,
    sequential_log_predictive,
)
from tests.infer.fits import fit_of
from tests.infer.walks import WALK, grid_densities, grid_fit, predictive, walks


def test_at_fixed_numbers_the_score_is_the_sum_of_the_one_step_densities():
    streams = walks()
    numbers = {"drift_scale": jnp.full(6, 1.5), "initial_variance": jnp.full(6, 3.0)}
    score = sequential_log_predictive(WALK, numbers, streams, burn_in=5)
    moves = np.diff(np.asarray(streams.observed), axis=1)
    by_hand = -0.5 * (np.log(2 * np.pi * 1.5**2) + moves**2 / 1.5**2)
    np.testing.assert_allclose(score.density[:, 5:], by_hand[:, 4:], rtol=1e-12)
    assert not score.density[:, :5].any() and not score.scored[:, :5].any()


@pytest.mark.equation("LPD-1")
@pytest.mark.parametrize("cut", [first_steps, hidden_after])
def test_held_out_steps_are_scored_by_the_mean_density_of_the_first_part(cut):
    streams = walks()
    fit = grid_fit(cut(streams, 8), 8, number=60, chains=2)
    score = held_out_log_predictive(fit, streams, max_draws=120)
    posterior = fit.tree["posterior"].to_dataset()
    drift = posterior["drift_scale"].to_numpy().reshape(-1, 1, 1)
    moves = np.diff(np.asarray(streams.observed), axis=1)[None]
    density = -0.5 * (np.log(2 * np.pi * drift**2) + moves**2 / drift**2)
    by_hand = logsumexp(density, axis=0) - np.log(len(drift))
    np.testing.assert_allclose(score.density[:, 8:], by_hand[:, 7:], rtol=1e-10)
    assert score.scored.sum() == 6 * 6 and not score.density[:, :8].any()


def test_leaving_a_stream_out_agrees_with_fitting_the_others():
    streams = walks(num_streams=12)
    density = grid_densities(np.asarray(streams.observed)).sum(axis=2)
    whole = density.sum(axis=1)
    exact = [predictive(whole - own, own) for own in density.T]
    score = leave_stream_out(grid_fit(streams))
    assert score.failures == () and score.pareto_k.shape == (12,)
    # 4000 draws and weights of a deviation of about 1: standard errors of 0.02 at most.
    np.testing.assert_allclose(score.density[:, 0], exact, atol=0.08)
    in_sample = [predictive(whole, own) for own in density.T]
    assert np.abs(np.array(in_sample) - exact).max() > 0.2  # the check could fail


def test_a_stream_unlike_the_others_is_a_failure_of_the_weights_and_no_warning():
    observed = np.array(walks(num_streams=3).observed)
    observed[0] *= 6
    score = leave_stream_out(grid_fit(optimum_streams(observed)))
    assert score.pareto_k.max() > 0.7
    assert any("Pareto k above" in why for why in score.failures)


def test_too_few_draws_for_importance_weights_are_a_failure_and_no_error():
    score = leave_stream_out(grid_fit(walks(num_streams=3), number=6, chains=2))
    assert np.isnan(score.density).all()
    assert any("Pareto k above" in why for why in score.failures)


def test_leaving_the_future_out_agrees_with_a_fit_at_every_step():
    streams, cutoffs = walks(), []

    def refit(cutoff, seen):
        cutoffs.append(cutoff)
        assert np.asarray(seen.valid).any(axis=0).sum() == cutoff
        assert np.isnan(np.asarray(seen.observed)[:, cutoff:]).all()
        return grid_fit(streams, cutoff, seed=cutoff)

    score = leave_future_out(refit, grid_fit(streams), streams, min_observations=4)
    density = grid_densities(np.asarray(streams.observed)).sum(axis=1)
    exact = [predictive(density[:, :t].sum(axis=1), density[:, t]) for t in range(4, 14)]
    np.testing.assert_allclose(score.density[0, 4:], exact, atol=0.06)
    assert cutoffs[0] == 4 and len(cutoffs) < 10
    assert score.scored.sum() == 10


def test_a_score_of_what_was_fitted_is_refused():
    streams = walks()
    with pytest.raises(ValueError, match="needs a fit to the first part"):
        held_out_log_predictive(grid_fit(streams, number=5), streams)
    with pytest.raises(ValueError, match="first part was fitted, got others"):
        held_out_log_predictive(grid_fit(first_steps(walks(seed=9), 8), 8, number=5), streams)
    with pytest.raises(ValueError, match="burn_in below 14"):
        sequential_log_predictive(WALK, {}, streams, burn_in=14)
    with pytest.raises(ValueError, match="min_observations <= 12"):
        leave_future_out(grid_fit, grid_fit(streams, number=5), streams, min_observations=13)


def test_a_stream_with_numbers_of_its_own_cannot_be_left_out():
    own = model_named("random_walk", noise="none", pooling="stream")
    fit = fit_of(own, walks(), {"drift_scale": np.ones((1, 2, 1))})
    with pytest.raises(ValueError, match="pooling='layer'"):
        leave_stream_out(fit)


@pytest.mark.equation("LPD-2")
@pytest.mark.parametrize("shared_by", ["nothing", "steps of a stream", "streams of a step"])
def test_the_standard_error_allows_for_what_is_shared(shared_by):
    generator = np.random.default_rng(0)
    shape = (12, 120)
    sums, errors = [], []
    for _ in range(400):
        values = generator.normal(size=shape)
        if shared_by == "steps of a stream":
            values += generator.normal(size=(12, 1))
        if shared_by == "streams of a step":
            values += generator.normal(size=(1, 120))
        sums.append(values.sum())
        errors.append(standard_error_of_sum(values, np.ones(shape, bool), num_blocks=10))
    # The larger of two estimates, each of about 10 units, is some 10 to 20 % too large.
    assert 0.9 < np.median(errors) / np.std(sums) < 1.35


def test_the_stack_may_have_no_room_for_the_model_that_is_best_alone():
    # "wide" catches five outliers, where "best" beats "other" by 2 nats; elsewhere it loses 0.01.
    outlier = np.arange(600) < 5
    wide = np.where(outlier, -8.0, -6.0)
    best = np.where(outlier, -78.0, -1.01)
    other = np.where(outlier, -80.0, -1.0)
    assert best.sum() > other.sum() + 4 > wide.sum()
    found = stacking_weights([wide, best, other])
    weights, densities = np.full(3, 1 / 3), np.exp([wide, best, other])
    for _ in range(5_000):  # EM, which never leaves the simplex and only ever climbs
        weights = (weights[:, None] * densities / (weights @ densities)).mean(axis=1)
    np.testing.assert_allclose(found, weights, atol=2e-3)
    assert found[1] < 0.01 < 0.98 < found[2]


def test_stacking_weighs_two_models_that_are_each_right_half_the_time():
    one = np.array([0.0] * 30 + [-3.0] * 10)
    other = np.array([-3.0] * 30 + [0.0] * 10)
    # d/dw: 30 (1 - r)/(w + r(1-w)) = 10 (1 - r)/((1-w) + r w), r = exp(-3)
    ratio = np.exp(-3)
    by_hand = (30 - 10 * ratio) / (40 * (1 - ratio))
    np.testing.assert_allclose(stacking_weights([one, other]), [by_hand, 1 - by_hand], atol=1e-3)
    shift = np.linspace(-5e3, 5e3, 40)  # a whole stream's log density overflows the exponential
    shifted = stacking_weights([one + shift, other + shift])
    np.testing.assert_allclose(shifted, [by_hand, 1 - by_hand], atol=1e-3)


def score(transition, density, failures=(), layer=None, names=("all",)):
    density = np.asarray(density, float)
    return LogPredictive(
        model=model_named(transition, noise="matched"),
        method="held out",
        density=density,
        scored=np.ones(density.shape, bool),
        layer=np.zeros(len(density), int) if layer is None else np.asarray(layer),
        layer_names=names,
        pareto_k=np.zeros(0),
        failures=failures,
    )


def noisy(mean, seed):
    """8 streams of 40 steps whose sum is about 320 times the mean, standard error 1.8."""
    return mean + 0.1 * np.random.default_rng(seed).normal(size=(8, 40))


def verdicts(comparison, layer="all"):
    return {row.name: row.verdict for row in comparison.of_layer(layer)}


def test_the_simplest_that_is_not_refuted_is_preferred():
    comparison = compare_scores(
        {
            "velocity": score("velocity", noisy(0.002, 0)),
            "ornstein_uhlenbeck": score("ornstein_uhlenbeck", noisy(0.0, 1)),
            "random_walk": score("random_walk", noisy(-0.2, 2)),
        }
    )
    assert comparison.preferred() == "ornstein_uhlenbeck"
    assert verdicts(comparison) == {
        "velocity": "not refuted",
        "ornstein_uhlenbeck": "preferred",
        "random_walk": "refuted",
    }
    walk = comparison.of_layer()[-1]
    assert walk.name == "random_walk" and walk.difference == pytest.approx(-64, abs=8)
    assert 1 < walk.standard_error < 6


def test_a_loss_is_no_refutation_within_two_standard_errors_or_four_nats():
    sure = np.zeros((8, 40))
    wide = np.outer(np.linspace(-1, 1, 8), np.full(40, 0.2)) - 0.02  # -6.4 nats, error 15
    tiny = np.full((8, 40), -3.9 / 320)  # -3.9 nats, no error at all
    lost = np.full((8, 40), -4.1 / 320)
    comparison = compare_scores(
        {
            "a": score("nonzero_mean", sure),
            "b": score("l2", wide),
            "c": score("random_walk", tiny),
            "d": score("static", lost),
        }
    )
    assert verdicts(comparison) == {
        "a": "not refuted",
        "b": "not refuted",
        "c": "preferred",
        "d": "refuted",
    }


def test_a_loss_is_a_refutation_however_much_one_stream_has_lost():
    absurd = np.full((8, 40), -2.0)
    absurd[0] = -1e4  # a loss of 400 000 nats with as large a standard error
    lucky = np.zeros((8, 40))
    lucky[0] = -1e4  # one stream alone, which may be an accident
    best = score("velocity", np.zeros((8, 40)))
    for density, word in ((absurd, "refuted"), (lucky, "preferred")):
        comparison = compare_scores({"best": best, "rival": score("static", density)})
        row = comparison.of_layer()[1]
        assert row.difference > -2 * row.standard_error
        assert row.verdict == word


def test_a_fit_that_failed_its_gates_is_marked_and_never_ranked():
    comparison = compare_scores(
        {
            "static": score("static", noisy(5.0, 0), failures=("r-hat is 1.3",)),
            "random_walk": score("random_walk", noisy(0.0, 1)),
            "velocity": score("velocity", np.full((8, 40), np.nan)),
        }
    )
    best, *rest = comparison.of_layer()
    assert best.name == "random_walk" and best.verdict == "preferred" and best.difference == 0
    assert {row.name: row.verdict for row in rest} == dict.fromkeys(
        ("static", "velocity"), "not ranked"
    )
    assert all(np.isnan(row.stacking_weight) for row in rest)
    failures = {row.name: row.failures for row in rest}
    assert failures["static"] == ("r-hat is 1.3",)
    assert "not finite" in failures["velocity"][0]


def test_nothing_is_preferred_where_every_fit_failed():
    comparison = compare_scores({"static": score("static", noisy(0, 0), failures=("bad",))})
    assert comparison.preferred() is None


def test_layers_are_compared_each_and_pooled():
    layer, names = [0] * 4 + [1] * 4, ("first", "last")
    sign = np.array([1.0] * 4 + [-1.0] * 4)[:, None]
    comparison = compare_scores(
        {
            "static": score("static", noisy(0.5, 0), layer=layer, names=names),
            "velocity": score("velocity", noisy(0.5, 1) + sign, layer=layer, names=names),
        }
    )
    assert comparison.preferred("first") == "velocity"
    assert comparison.preferred("last") == "static"
    pooled = {row.name: row for row in comparison.of_layer("all")}
    for name in pooled:
        parts = [row for row in comparison.rivals if row.name == name and row.layer != "all"]
        assert len(parts) == 2
        total = sum(row.log_predictive for row in parts)
        assert pooled[name].log_predictive == pytest.approx(total)


def test_scores_of_different_observations_are_not_compared():
    short = score("static", noisy(0, 0)[:, :30])
    whole = score("velocity", noisy(0, 1))
    with pytest.raises(ValueError, match="same observations, got 240 for a and 320 for b"):
        compare_scores({"a": short, "b": whole})
    other: Any = whole._asdict() | {"method": "leave stream out"}
    with pytest.raises(ValueError, match="one method for all"):
        compare_scores({"a": whole, "b": LogPredictive(**other)})
    with pytest.raises(ValueError, match="at least one model"):
        compare_scores({})
    with pytest.raises(ValueError, match="Did you mean 'held_out'"):
        compare_models({}, walks(), method="heldout")


def test_simplicity_has_the_stated_order():
    order = ["static", "random_walk", "ornstein_uhlenbeck", "l2", "nonzero_mean", "velocity"]
    models = [model_named(name) for name in order]
    assert sorted(map(model_named, sorted(order)), key=simplicity) == models
    hierarchy = model_named("static", pooling="stream")
    assert simplicity(hierarchy) > simplicity(models[-1])
    assert simplicity(model_named("static")) > simplicity(model_named("static", noise="matched"))


def test_models_are_compared_from_their_fits():
    streams = walks(num_streams=12, num_steps=40)
    training = first_steps(streams, 20)
    rest = model_named("random_walk", noise="none")
    wrong = {
        "drift_scale": np.full((1, 4, 1), 2.0),
        "initial_variance": np.full((1, 4, 1), 4.0),
    }
    fits = {"right": grid_fit(training, 20, number=20), "wrong": fit_of(rest, training, wrong)}
    comparison = compare_models(fits, streams)
    assert comparison.method == "held out" and comparison.num_scored == 12 * 20
    assert verdicts(comparison) == {"right": "preferred", "wrong": "refuted"}
    pair = comparison.paired["all", "right", "wrong"]
    assert pair.difference == -comparison.of_layer()[1].difference and pair.is_clear
    assert not comparison.paired["all", "wrong", "right"].is_clear
