"""The verdict in words, and the numbers it stands beside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer import gradient_streams, log_likelihood, model_named, optimum_streams
from bayesfilt.infer.comparison import compare_scores
from bayesfilt.infer.predictive_scores import LogPredictive
from bayesfilt.infer.state_space import parameter_names
from bayesfilt.infer.verdict import transition_verdicts
from tests.infer.fits import fit_of

AT_REST = model_named("ornstein_uhlenbeck", noise="matched")
WALK = model_named("shrinking_walk", noise="matched")
STEPS = 500
NAMES = ("first", "last")


def fit_with(
    shrink, *, spread=0.1, failures=(), model=WALK, layer_names=("first",), prior_spread=2.0
):
    """Draws of a shrink, log-normal about `shrink` (one a layer), at a drift scale of 2."""
    shrink = np.broadcast_to(shrink, len(layer_names))
    noise = np.random.default_rng(0).normal(size=(2, 500, len(layer_names)))
    prior = {"shrink": 0.01 * np.exp(prior_spread * noise)}
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
    if model == WALK:
        sites["initial_variance"] = np.ones(draws.shape)
    return fit_of(model, streams, sites, prior=prior, failures=failures)


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
            "shrinking": score("ornstein_uhlenbeck", better, failures),
            "random_walk": score("random_walk", np.zeros_like(noise), ()),
        }
    )


def only(fit, **others):
    (verdict,) = transition_verdicts(fit, shrinking="shrinking", **others)
    return verdict


@pytest.mark.parametrize(
    ("shrink", "spread", "gain", "word"),
    [
        (0.02, 0.1, 50.0, "shrinks"),  # ten relaxation times
        (0.0002, 0.1, 0.0, "does not shrink"),  # a tenth of one
        (0.0005, 1.5, 0.0, "cannot tell"),  # from a fiftieth to three
        (0.02, 0.1, -50.0, "cannot tell"),  # a random walk foretells better
        (0.0002, 0.1, 50.0, "cannot tell"),  # ... and worse
        (0.003, 0.1, 2.0, "shrinks"),  # 1.5 relaxation times, seen as the weights went
    ],
)
def test_the_word_follows_the_interval_and_the_comparison(shrink, spread, gain, word):
    verdict = only(fit_with(shrink, spread=spread), comparison=comparison_with(gain))
    assert verdict.word == word
    assert word in verdict.sentence
    refuted = "shrinking is itself refuted: random_walk foretells better"
    assert (refuted in verdict.sentence) == (gain < 0)


@pytest.mark.parametrize(
    ("shrink", "gain", "word"),
    [
        (0.02, 0.0, "shrinks"),  # ten relaxation times: the return was seen
        (0.003, 50.0, "shrinks"),  # 1.5 of them, and seen in the comparison
        (0.003, 2.0, "cannot tell"),  # ... and not seen in it
        (0.0002, 0.0, "cannot tell"),  # a wide start alone makes that of a fast return
    ],
)
def test_of_few_relaxation_times_a_process_that_starts_at_rest_is_not_believed(shrink, gain, word):
    verdict = only(fit_with(shrink, model=AT_REST), comparison=comparison_with(gain))
    assert verdict.word == word
    assert ("the start of the streams" in verdict.sentence) == (word == "cannot tell")
    alone = only(fit_with(shrink, model=AT_REST))
    assert alone.word == ("shrinks" if shrink == 0.02 else "cannot tell")


@pytest.mark.parametrize(
    ("shrink", "prior_spread", "word"),
    [
        (0.02, 0.12, "cannot tell"),
        (0.0001, 0.12, "cannot tell"),
        (0.02, 0.2, "cannot tell"),  # 75 % learned: a tail of the prior cut off does that
        (0.0001, 0.2, "does not shrink"),
        (0.02, 0.3, "shrinks"),
    ],
)
def test_what_the_prior_knew_is_no_finding(shrink, prior_spread, word):
    verdict = only(fit_with(shrink, spread=0.1, prior_spread=prior_spread))
    assert verdict.word == word
    assert verdict.learned == pytest.approx(1 - (0.1 / prior_spread) ** 2)
    assert ("the prior says more" in verdict.sentence) == (word == "cannot tell")


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


def test_weights_on_their_way_from_a_wide_start_are_seen_to_shrink():
    """Not at rest: a process that starts there has a tenth of the shrink forced on it."""
    random, shrink, steps = np.random.default_rng(0), 0.004, 200
    place, path = 0.3 * random.normal(size=12), []
    for _ in range(steps):
        path.append(place)
        place = (1 - shrink) * place + 1e-3 * random.normal(size=12)
    streams = optimum_streams(np.stack(path, axis=1))
    shrinks, moves = np.meshgrid(np.geomspace(1e-6, 0.1, 101), np.geomspace(5e-4, 0.05, 41))
    rate = -np.log1p(-shrinks.ravel())
    numbers = {"drift_scale": moves.ravel(), "stationary_variance": moves.ravel() ** 2 / (2 * rate)}
    numbers["initial_variance"] = np.full(rate.size, np.mean(path[0] ** 2))

    def most_likely(name):
        model = model_named(name, noise="none")
        mine = {each: numbers[each] for each in parameter_names(model, "optimum")}

        def total(one):
            everywhere = {each: jnp.broadcast_to(value, 12) for each, value in one.items()}
            return log_likelihood(model, everywhere, streams).sum()

        return shrinks.ravel()[np.argmax(jax.lax.map(total, mine, batch_size=256))]

    assert most_likely("shrinking_walk") == pytest.approx(shrink, rel=0.15)
    assert most_likely("ornstein_uhlenbeck") < 0.1 * shrink


def test_few_relaxation_times_are_said():
    assert "sigma^2 rests on" in only(fit_with(0.004)).sentence
    assert "sigma^2 rests on" not in only(fit_with(0.02)).sentence


def test_each_layer_has_its_own_verdict():
    verdicts = transition_verdicts(
        fit_with([0.02, 0.0001], layer_names=NAMES),
        comparison=comparison_with([50.0, 0.0], layer_names=NAMES),
        shrinking="shrinking",
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
        only(fit_with(0.02), comparison=comparison_with(1.0), random_walk="walk")
    with pytest.raises(ValueError, match="negligible > 0"):
        transition_verdicts(fit_with(0.02), negligible=0.0)
