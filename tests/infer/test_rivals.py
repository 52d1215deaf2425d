"""Data of a known truth: the comparison finds it (experiments/benchmarks/rivals.py: all seven)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer import log_likelihood, priors_for
from bayesfilt.infer.comparison import compare_scores
from bayesfilt.infer.predictive_scores import LogPredictive, first_steps
from bayesfilt.infer.rivals import (
    MatchedDesign,
    MatchedRivals,
    contains,
    matched_streams,
    posterior_mode,
    rivals_on_matched_data,
)
from bayesfilt.infer.state_space import MODELS, model_named
from tests.quick_look import slow_but

QUICK = MatchedDesign(num_streams=24, num_fitted=240, num_foretold=120, relaxation_time=12.0)
SOME = ("random_walk", "ornstein_uhlenbeck")


@pytest.mark.parametrize("truth", slow_but(SOME[:1], SOME))
def test_the_truth_is_preferred_and_what_lacks_it_is_refuted(truth):
    found = rivals_on_matched_data(jax.random.key(1), truth, rivals=SOME, design=QUICK)
    assert found.surprises == ()
    assert found.comparison.preferred() == truth
    assert found.comparison.num_scored == 24 * 120


def test_the_mode_is_the_top_of_the_posterior():
    streams = first_steps(matched_streams(jax.random.key(0), "random_walk", QUICK), 240)
    model, priors = model_named("random_walk", noise="matched"), priors_for(streams)
    numbers = posterior_mode(model, streams, priors)
    likelihood = jax.jit(log_likelihood, static_argnums=0)

    def log_posterior(factors):
        moved = {name: values * factors.get(name, 1.0) for name, values in numbers.items()}
        total = likelihood(model, moved, streams).sum()
        for name, prior in (
            ("drift_scale", priors.process_deviation),
            ("initial_variance", priors.initial_variance),
        ):
            total -= 0.5 * ((jnp.log(moved[name][0]) - prior.centre[0]) / prior.deviation) ** 2
        return float(total)

    top = log_posterior({})
    for name in numbers:
        for factor in (0.98, 1.02):
            assert log_posterior({name: factor}) < top


def test_a_comparison_that_misses_the_truth_is_said_to():
    def score(name, mean):
        density = np.full((8, 40), mean)
        return LogPredictive(
            model=model_named(name, noise="matched"),
            method="fixed numbers",
            density=density,
            scored=np.ones(density.shape, bool),
            layer=np.zeros(8, int),
            layer_names=("all",),
            pareto_k=np.zeros(0),
            failures=(),
        )

    scores = {"random_walk": score("random_walk", 1.0), "ornstein_uhlenbeck": score("l2", 0.0)}
    comparison = compare_scores(scores)
    assert MatchedRivals(truth="random_walk", comparison=comparison).surprises == (
        "ornstein_uhlenbeck contains random_walk and was refuted (-320.0 nats, standard error 0.0)",
    )
    missed = MatchedRivals(truth="ornstein_uhlenbeck", comparison=comparison).surprises
    assert "ornstein_uhlenbeck contains ornstein_uhlenbeck and was refuted" in missed[0] + missed[1]
    assert "random_walk was preferred to ornstein_uhlenbeck" in missed[-1]


def test_every_transition_contains_itself_and_no_special_case_contains_it():
    for name in MODELS:
        assert contains(name, name)
        for other in MODELS:
            assert not (name != other and contains(name, other) and contains(other, name))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'random_walk'"):
        rivals_on_matched_data(jax.random.key(0), "random_walks", design=QUICK)
    with pytest.raises(ValueError, match="num_foretold >= 2"):
        tiny = MatchedDesign(num_foretold=1)
        rivals_on_matched_data(jax.random.key(0), "static", design=tiny)
