"""The verdict in words, and the numbers it stands beside."""

import numpy as np
import pytest

from bayesfilt.infer import gradient_streams, model_named
from bayesfilt.infer.comparison import compare_scores
from bayesfilt.infer.predictive_scores import LogPredictive
from bayesfilt.infer.verdict import transition_verdicts
from tests.infer.fits import fit_of

PROCESS = model_named("ornstein_uhlenbeck", noise="matched")
STEPS = 500
NAMES = ("first", "last")


def fit_with(shrink, *, spread=0.1, failures=(), model=PROCESS, layer_names=("first",)):
    """Draws of a shrink, log-normal about `shrink` (one a layer), at a drift scale of 2."""
    shrink = np.broadcast_to(shrink, len(layer_names))
    noise = np.random.default_rng(0).normal(size=(2, 500, len(layer_names)))
    draws = shrink * np.exp(spread * noise)
    rows = len(layer_names)
    streams = gradient_streams(
        np.ones((rows, STEPS)), 0.5, 0.0, layer=np.arange(rows), layer_names=layer_names
    )
    sites = {
        "shrink": draws,
        "drift_scale": np.full(draws.shape, 2.0),
        "stationary_variance": 2.0**2 / (2 * -np.log1p(-draws)),
    }
    return fit_of(model, streams, sites, failures=failures)


def comparison_with(gain, *, failures=(), layer_names=("first",)):
    """The process foretells each layer by `gain` nats better than a random walk, and surely."""
    noise = 0.02 * np.random.default_rng(0).normal(size=(8 * len(layer_names), 40))

    def score(transition, density, failures):
        return LogPredictive(
            model=model_named(transition, noise="matched"),
            method="held out",
            density=density,
            scored=np.ones(density.shape, bool),
            layer=np.repeat(np.arange(len(layer_names)), 8),
            layer_names=layer_names,
            pareto_k=np.zeros(0),
            failures=failures,
        )

    better = noise + np.repeat(np.broadcast_to(gain, len(layer_names)), 8)[:, None] / 320
    return compare_scores(
        {
            "ornstein_uhlenbeck": score("ornstein_uhlenbeck", better, failures),
            "random_walk": score("random_walk", np.zeros_like(noise), ()),
        }
    )


def only(fit, **others):
    (verdict,) = transition_verdicts(fit, **others)
    return verdict


@pytest.mark.parametrize(
    ("shrink", "spread", "gain", "word"),
    [
        (0.02, 0.1, 50.0, "shrinks"),  # ten relaxation times
        (0.0002, 0.1, 0.0, "does not shrink"),  # a tenth of one
        (0.0005, 1.5, 0.0, "cannot tell"),  # from a fiftieth to three
        (0.02, 0.1, -50.0, "cannot tell"),  # a random walk foretells better
        (0.0002, 0.1, 50.0, "cannot tell"),  # ... and worse
        (0.003, 0.1, 50.0, "shrinks"),  # 1.5 relaxation times, and seen in the comparison
        (0.003, 0.1, 2.0, "cannot tell"),  # 1.5, and not seen in it
    ],
)
def test_the_word_follows_the_interval_and_the_comparison(shrink, spread, gain, word):
    verdict = only(fit_with(shrink, spread=spread), comparison=comparison_with(gain))
    assert verdict.word == word
    assert word in verdict.sentence


def test_a_narrow_interval_of_few_relaxation_times_is_not_enough_without_a_comparison():
    assert only(fit_with(0.003)).word == "cannot tell"
    assert only(fit_with(0.02)).word == "shrinks"
    assert "start" in only(fit_with(0.003)).sentence


def test_a_fit_that_failed_its_gates_says_nothing():
    verdict = only(fit_with(0.02, failures=("r-hat of shrink is 1.2, wanted < 1.01",)))
    assert verdict.word == "cannot tell"
    assert "the fit failed a gate: r-hat of shrink is 1.2" in verdict.sentence


def test_a_rival_that_is_not_ranked_is_no_witness():
    comparison = comparison_with(-50.0, failures=("divergences",))
    verdict = only(fit_with(0.02), comparison=comparison)
    assert verdict.word == "shrinks" and verdict.difference is None


def test_the_numbers_stand_beside_what_was_set_and_what_the_tie_makes():
    verdict = only(fit_with(0.02), learning_rate=1e-2, weight_decay=0.5)
    low, middle, high = verdict.shrink
    # Log-normal with a deviation of 0.1: the middle, and 1.645 deviations to either side.
    np.testing.assert_allclose([low, middle, high], 0.02 * np.exp([-0.1645, 0, 0.1645]), rtol=0.02)
    assert verdict.decay_set == pytest.approx(5e-3)
    assert "lr*wd was 0.005, outside the interval" in verdict.sentence
    # eta^2/(2 sigma^2) is -log(1 - shrink), a little more than the shrink.
    assert verdict.tied_decay is not None
    np.testing.assert_allclose(verdict.tied_decay, -np.log1p(-np.array(verdict.shrink)), rtol=1e-3)
    assert verdict.relaxation_times == pytest.approx(STEPS * middle)
    assert verdict.negligible == pytest.approx(0.25 / STEPS)
    assert only(fit_with(0.02), learning_rate=0.1, weight_decay=0.2).sentence.count("inside") == 1


def test_what_counts_as_none_can_be_named():
    assert only(fit_with(0.02), negligible=0.1).word == "does not shrink"
    assert only(fit_with(0.02), negligible=0.02).word == "cannot tell"


def test_few_relaxation_times_are_said():
    assert "sigma^2 rests on" in only(fit_with(0.004)).sentence
    assert "sigma^2 rests on" not in only(fit_with(0.02)).sentence


def test_each_layer_has_its_own_verdict():
    verdicts = transition_verdicts(
        fit_with([0.02, 0.0001], layer_names=NAMES),
        comparison=comparison_with([50.0, 0.0], layer_names=NAMES),
    )
    assert [v.layer for v in verdicts] == ["first", "last"]
    assert [v.word for v in verdicts] == ["shrinks", "does not shrink"]
    assert verdicts[0].difference == pytest.approx(50, abs=2)
    assert verdicts[1].difference == pytest.approx(0, abs=2)


def test_what_cannot_be_judged_is_refused():
    walk = model_named("random_walk", noise="matched")
    still = fit_of(
        walk, gradient_streams(np.ones((1, 5)), 0.5, 0.0), {"drift_scale": np.ones((1, 2, 1))}
    )
    with pytest.raises(ValueError, match="has a shrink, got 'random_walk'"):
        transition_verdicts(still)
    with pytest.raises(ValueError, match="both learning_rate and weight_decay"):
        transition_verdicts(fit_with(0.02), learning_rate=0.1)
    with pytest.raises(ValueError, match="needs 'walk' in the comparison"):
        transition_verdicts(fit_with(0.02), comparison=comparison_with(1.0), random_walk="walk")
    with pytest.raises(ValueError, match="negligible > 0"):
        transition_verdicts(fit_with(0.02), negligible=0.0)
