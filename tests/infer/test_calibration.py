"""Is the calibration calibrated? It must pass what is right and fail what is not."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesfilt.infer import (
    MODELS,
    Calibration,
    CalibrationProblem,
    Chain,
    Given,
    calibrate,
    calibration_design,
    calibration_lines,
    calibration_priors,
    calibration_tree,
    coverage,
    coverage_study,
    draw_numbers,
    draw_streams,
    judge_calibration,
    model_named,
    model_problem,
    numpyro_problem,
    parameter_names,
    standard_scores,
    step_log_densities,
    uniformity,
)
from bayesfilt.infer.calibration import _simulate_batch, quantity_names
from experiments.calibration_mutations import (
    MISTAKES,
    MODEL,
    calibrate_mistake,
    mutated_step_log_densities,
    mutation_design,
)

SHORT = Chain(num_warmup=150, num_draws=60, thinning=3, num_leapfrog=3)


class Normal(NamedTuple):
    """Unknown mean of unit-variance data, prior N(1, deviation²): the posterior is known.

    All cases of it are numbers of one compiled program.
    """

    deviation: float = 2.0
    believed_noise: float = 1.0  # standard deviation that the likelihood has
    wall: float = np.inf  # the fits' density is 0 above, and a step into it has diverged
    broken_above: float = np.inf  # a first observation above makes a quantity NaN


COUNT = 4


def normal_log_likelihood(position, data, given):
    return jnp.sum(jax.scipy.stats.norm.logpdf(data, position, given.believed_noise))


NORMAL = CalibrationProblem(
    draw_truth=lambda key, given: 1 + given.deviation * jax.random.normal(key),
    simulate=lambda key, truth, given: truth + jax.random.normal(key, (COUNT,)),
    log_joint=lambda position, data, given: (
        normal_log_likelihood(position, data, given)
        + jax.scipy.stats.norm.logpdf(position, 1.0, given.deviation)
        + jnp.where(position > given.wall, -jnp.inf, 0)
    ),
    log_likelihood=normal_log_likelihood,
    quantities=lambda position, data, given: {
        "mean": jnp.where(data[0] > given.broken_above, jnp.nan, position),
        "pair": jnp.stack([position, jnp.sum(data)]),
    },
)


KEY = 3  # 0, 1, 2 and 8 are unlucky; over 1000 keys the scores are as N(0, 1) has them


def calibrate_normal(given, num_simulations=100, key=KEY, **settings) -> Calibration:
    """With one and the same program, whatever is given."""
    return calibrate(
        jax.random.key(key),
        NORMAL,
        given,
        num_simulations=num_simulations,
        simulations_at_once=100,
        chain=SHORT,
        **settings,
    )


@functools.cache
def right() -> Calibration:
    return calibrate_normal(Normal(), num_simulations=300)


def test_a_right_inference_passes():
    verdict = judge_calibration(right())
    assert verdict.passes, verdict.failures
    assert right().names == ("log_likelihood", "mean", "pair[0]", "pair[1]")
    assert not right().diverged.any() and right().finite.all()
    # Below how many of 60 draws a truth is, from none to all; and its place is in that bin.
    assert (right().ranks.min(), right().ranks.max()) == (0, SHORT.num_draws)
    within = right().places * (SHORT.num_draws + 1) - right().ranks
    assert ((within >= 0) & (within <= 1)).all()
    assert (np.abs(verdict.wide.covered[:3] - 0.9) < 4 * verdict.wide.standard_error[:3]).all()
    assert (np.abs(verdict.half.covered[:3] - 0.5) < 4 * verdict.half.standard_error[:3]).all()


def test_the_fits_are_the_known_posterior():
    # Conjugate: precision 1/4 + 4; the truth's distance to its mean has that variance.
    scores = standard_scores(right())[:, 1]
    deviation = right().deviations[:, 1]
    np.testing.assert_allclose(deviation.mean(), (0.25 + COUNT) ** -0.5, rtol=0.03)
    assert abs(scores.mean()) < 4 / np.sqrt(len(scores))
    data_sum = right().truths[:, 3]
    known = (0.25 + data_sum) / (0.25 + COUNT)
    error = right().means[:, 1] - known
    # The mean of 60 nearly independent draws; four of its deviations, the worst of 300.
    assert np.abs(error).max() < 6 * (0.25 + COUNT) ** -0.5 / np.sqrt(60)
    assert np.abs(error.mean()) < 4 * error.std() / np.sqrt(300)


@pytest.mark.parametrize(
    ("given", "words"),
    [(Normal(believed_noise=0.5), "too narrow"), (Normal(believed_noise=2.5), "too wide")],
)
def test_a_wrong_noise_fails_in_words_that_say_which_way(given, words):
    right()
    compiled = _simulate_batch._cache_size()
    calibration = calibrate_normal(given, num_simulations=200, key=1)
    # Another belief is another number, and no other program.
    assert _simulate_batch._cache_size() == compiled
    verdict = judge_calibration(calibration)
    assert not verdict.passes
    assert any(line.startswith("mean:") and words in line for line in verdict.failures)
    assert "NOT calibrated" in calibration_lines(calibration, verdict)


def test_a_simulation_depends_on_its_number_and_not_on_the_batch():
    told = []
    calibration = calibrate(
        jax.random.key(KEY),
        NORMAL,
        Normal(),
        num_simulations=11,
        simulations_at_once=7,
        chain=SHORT,
        progress=lambda done, wanted: told.append((done, wanted)),
    )
    # The last batch is filled up, and what was too many is dropped.
    assert told == [(7, 11), (11, 11)] and calibration.num_simulations == 11
    np.testing.assert_allclose(calibration.truths, right().truths[:11], rtol=1e-12)
    np.testing.assert_allclose(calibration.means, right().means[:11], rtol=1e-6)
    assert np.unique(right().truths[:, 1]).size == 300  # and every number gives another one


def test_simulations_that_diverged_keep_their_rows():
    walled = calibrate_normal(Normal(wall=2.0))
    assert 0 < walled.diverged.sum() < 100 and walled.num_simulations == 100
    np.testing.assert_array_equal(walled.truths, right().truths[:100])
    assert walled.ranks.shape == right().truths[:100].shape
    # No step anywhere: each of the 60 times 3 after the warm-up is counted, and no other.
    stuck = calibrate_normal(Normal(wall=-np.inf))
    assert (stuck.divergences == SHORT.num_draws * SHORT.thinning).all()
    assert stuck.deviations[:, 1].max() < 1e-12


def test_posterior_calibration_passes_what_is_right_and_truths_follow_the_observed_data():
    observed = jnp.array([4.0, 5.0, 3.0, 4.5])
    settings = {
        "num_simulations": 200,
        "simulations_at_once": 200,
        "chain": SHORT,
        "observed": observed,
    }
    calibration = calibrate(jax.random.key(2), NORMAL, Normal(), **settings)
    assert calibration.kind == "posterior"
    assert judge_calibration(calibration).passes
    known, variance = (0.25 + 16.5) / 4.25, 1 / 4.25
    truths = calibration.truths[:, 1]
    assert abs(truths.mean() - known) < 4 * np.sqrt(variance / 200)
    np.testing.assert_allclose(truths.var(), variance, rtol=4 * np.sqrt(2 / 200))
    # The fit has seen both data sets: eight looks and the prior.
    np.testing.assert_allclose(calibration.deviations[:, 1].mean(), 8.25**-0.5, rtol=0.04)
    wrong = calibrate(jax.random.key(2), NORMAL, Normal(believed_noise=0.4), **settings)
    assert not judge_calibration(wrong).passes


def made(places: np.ndarray, **changes) -> Calibration:
    """A calibration with these places of the truths, and nothing else to say."""
    size = places.shape
    parts = {
        "names": tuple("abcdef"[: size[1]]),
        "ranks": np.floor(places * 100).astype(int),
        "places": places,
        "truths": places,
        "means": np.full(size, 0.5),
        "deviations": np.full(size, 12**-0.5),
        "autocorrelation": np.zeros(size),
        "divergences": np.zeros(size[0], int),
        "acceptance": np.ones(size[0]),
        "finite": np.ones(size[0], bool),
        "num_draws": 99,
        "kind": "prior",
        "seconds": 0.0,
    }
    return Calibration(**(parts | changes))


@pytest.mark.slow  # the bands are arviz's
def test_uniform_places_leave_the_bands_as_rarely_as_promised():
    rng = np.random.default_rng(0)
    outside = [not uniformity(made(rng.uniform(size=(50, 2))), 0.9).inside.all() for _ in range(60)]
    # Bonferroni and the steps of counts keep it below 10 %, four standard errors for the draws.
    assert 0.0 < np.mean(outside) < 0.1 + 4 * np.sqrt(0.09 / 60)


def test_coverage_counts_central_intervals():
    places = np.array([[0.04], [0.06], [0.3], [0.76], [0.94], [0.96]])
    assert coverage(made(places), 0.9).covered == pytest.approx(4 / 6)
    assert coverage(made(places), 0.5).covered == pytest.approx(1 / 6)
    assert coverage(made(places), 0.9).standard_error == pytest.approx(np.sqrt(0.09 / 6))


def test_diverged_and_broken_simulations_are_counted_and_never_dropped():
    places = (np.arange(100)[:, None] + 0.5) / 100
    diverged = made(places, divergences=np.eye(1, 100, 3, dtype=int)[0] * 7)
    verdict = judge_calibration(diverged)
    assert (
        verdict.passes and "1 of 100 simulations had divergent transitions (7" in verdict.notes[0]
    )
    broken = judge_calibration(made(places, finite=np.arange(100) != 5))
    assert not broken.passes and "1 of 100 simulations" in broken.failures[0]
    correlated = judge_calibration(made(places, autocorrelation=np.full((100, 1), 0.4)))
    assert "thin more" in correlated.notes[0]


def test_numbers_that_are_not_finite_are_seen():
    calibration = calibrate_normal(Normal(broken_above=3.0))
    assert 0 < (~calibration.finite).sum() < 100
    assert not judge_calibration(calibration).passes


@pytest.mark.slow  # that HMC finds the known posterior is above
def test_nuts_agrees_with_hmc():
    chain = SHORT._replace(method="nuts", num_draws=30, thinning=2)
    calibration = calibrate(jax.random.key(KEY), NORMAL, Normal(), num_simulations=60, chain=chain)
    np.testing.assert_allclose(calibration.truths, right().truths[:60], rtol=1e-12)
    # Both miss the known posterior by nothing but the error of 30 and of 60 draws.
    for fits in (calibration, right()):
        error = fits.means[:60, 1] - (0.25 + fits.truths[:60, 3]) / 4.25
        assert abs(error.mean()) < 4 * error.std() / 60**0.5 and error.std() < 0.3 * 4.25**-0.5
        # Autocorrelation moves variance from the draws to their mean; the sum stays.
        variance = (fits.deviations[:60, 1] ** 2 + error**2) * 4.25
        assert abs(variance.mean() - 1) < 4 * variance.std() / 60**0.5


def scale_model(data, given):
    """A scale that is positive, and its data, as a user would write them."""
    scale = numpyro.sample("scale", dist.LogNormal(given["centre"], 0.5))
    numpyro.deterministic("variance", scale**2)
    with numpyro.plate("rows", 6):
        numpyro.sample("y", dist.Normal(0.0, scale), obs=None if data is None else data["y"])


def test_any_numpyro_model_is_calibrated_from_its_own_prior():
    problem = numpyro_problem(scale_model, data_sites=("y",))
    given = {"centre": jnp.array(0.7)}
    truth = problem.draw_truth(jax.random.key(1), given)
    data = problem.simulate(jax.random.key(2), truth, given)
    scale = float(jnp.exp(truth["scale"]))  # the position is unconstrained
    expected = dist.Normal(0, scale).log_prob(data["y"]).sum()
    np.testing.assert_allclose(problem.log_likelihood(truth, data, given), expected)
    prior = dist.Normal(0.7, 0.5).log_prob(jnp.log(scale))  # the Jacobian included
    np.testing.assert_allclose(problem.log_joint(truth, data, given), expected + prior)
    calibration = calibrate(
        jax.random.key(3), problem, given, num_simulations=200, simulations_at_once=200, chain=SHORT
    )
    assert calibration.names == ("log_likelihood", "scale", "variance")
    assert judge_calibration(calibration).passes
    np.testing.assert_array_equal(calibration.ranks[:, 1], calibration.ranks[:, 2])


def test_a_numpyro_model_needs_one_source_of_data_and_continuous_parameters():
    with pytest.raises(ValueError, match="either data_sites or simulate"):
        numpyro_problem(scale_model)

    def discrete(data, given):
        numpyro.sample("coin", dist.Bernoulli(0.5))

    problem = numpyro_problem(discrete, simulate=lambda key, sites, given: jnp.zeros(1))
    with pytest.raises(ValueError, match="continuous parameters, got 'coin'"):
        problem.draw_truth(jax.random.key(0), None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_simulations": 1}, "num_simulations >= 2, got num_simulations=1"),
        ({"simulations_at_once": 0}, "simulations_at_once >= 1"),
        ({"chain": Chain(method="gibbs")}, "knows method hmc, nuts; got 'gibbs'"),
        ({"chain": Chain(num_draws=1)}, "num_draws >= 2"),
        ({"chain": Chain(jitter=1.0)}, "0 <= jitter < 1"),
        ({"chain": Chain(target_accept_prob=1.0)}, "0 < target_accept_prob < 1"),
    ],
)
def test_settings_that_make_no_chain_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        calibrate(jax.random.key(0), NORMAL, Normal(), **settings)


def test_the_tree_is_what_arviz_plots():
    tree = calibration_tree(right())
    assert set(tree["prior_sbc"].data_vars) == set(right().names)
    assert tree["prior_sbc"]["mean"].shape == (1, 300)


def test_the_mutated_likelihood_without_a_mistake_is_the_librarys():
    design = mutation_design(jax.random.key(0), num_streams=3, num_steps=20)
    priors = calibration_priors(design)

    @jax.jit
    def data(key):
        numbers = draw_numbers(key, MODEL, priors, 1, design.layer)
        return numbers, draw_streams(jax.random.key(2), MODEL, numbers, design)

    numbers, streams = data(jax.random.key(1))
    densities = jax.jit(mutated_step_log_densities, static_argnums=0)
    terms = densities(MODEL, numbers, streams, MISTAKES["none"])
    own = jax.jit(step_log_densities, static_argnums=0)(MODEL, numbers, streams)
    np.testing.assert_allclose(terms, own, rtol=1e-9, atol=1e-9)
    for name, mistake in MISTAKES.items():
        mutated = densities(MODEL, numbers, streams, mistake)
        assert (name == "none") == np.allclose(mutated, terms)


@functools.cache
def mistaken(name: str):
    design = mutation_design(jax.random.key(0), num_streams=12, num_steps=40)
    return calibrate_mistake(
        jax.random.key(3),
        MISTAKES[name],
        design,
        num_simulations=100,
        simulations_at_once=100,
        chain=Chain(num_warmup=100, num_draws=40, thinning=2, num_leapfrog=3),
    )


@pytest.mark.slow  # that each mistake changes the density is seen above, and a wrong noise fails
@pytest.mark.parametrize("name", MISTAKES)
def test_calibration_passes_the_right_likelihood_and_notices_every_mistake(name):
    verdict = mistaken(name)[1]
    assert verdict.passes == (name == "none"), verdict.failures


def given_of(design) -> Given:
    return Given(design=design, priors=calibration_priors(design))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_can_be_calibrated(name):
    design = calibration_design(jax.random.key(0), num_streams=2, num_steps=12, missing=0.1)
    names = quantity_names(jax.random.key(1), model_problem(MODELS[name]), given_of(design))
    known = {name if name == "towards" else f"log_{name}" for name in parameter_names(MODELS[name])}
    also = {"log_likelihood", "log_density_of_first"}
    assert set(names) == known | also | (
        {"log_shrink"} if "log_stationary_variance" in known else set()
    )


def test_a_model_s_joint_density_is_its_prior_s_and_its_likelihood_s():
    model = MODELS["l2"]
    design = calibration_design(jax.random.key(0), num_streams=2, num_steps=12, missing=0.1)
    problem, given = model_problem(model), given_of(design)

    @jax.jit
    def told(key):
        truth = problem.draw_truth(key, given)
        data = problem.simulate(key, truth, given)
        joint, slope = jax.value_and_grad(problem.log_joint)(truth, data, given)
        likelihood = problem.log_likelihood(truth, data, given)
        return truth, joint, likelihood, slope, problem.quantities(truth, data, given)

    truth, joint, likelihood, *others = told(jax.random.key(1))
    prior = sum(dist.Normal(0, 1).log_prob(value).sum() for value in truth.values())
    np.testing.assert_allclose(joint - likelihood, prior, rtol=1e-9)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(others))


def test_most_windows_of_the_calibration_hold_five_relaxation_times():
    design = calibration_design(jax.random.key(0), num_streams=1, num_steps=80)
    priors = calibration_priors(design)
    draw = jax.jit(jax.vmap(lambda key: draw_numbers(key, MODEL, priors, 1, jnp.zeros(1, int))))
    draws = draw(jax.random.split(jax.random.key(1), 4_000))
    times = 80 * draws["drift_scale"] ** 2 / (2 * draws["stationary_variance"])
    assert 0 < np.mean(times < 5) < 0.004  # three deviations: 0.13 %
    assert 0.5 < np.median(draws["stationary_variance"]) < 2


def test_a_coverage_study_calibrates_the_model_that_drew_the_data(monkeypatch):
    asked = {}

    def calibrate(key, problem, given, **settings):
        asked.update(problem=problem, given=given, **settings)
        return right()

    monkeypatch.setitem(coverage_study.__globals__, "calibrate", calibrate)
    model = model_named("ornstein_uhlenbeck", noise="none")
    design = calibration_design(jax.random.key(0), "optimum", num_streams=3, num_steps=30)
    assert coverage_study(jax.random.key(1), model, design, num_simulations=40) is right()
    assert asked["problem"] is model_problem(model)
    assert asked["given"].design is design and asked["num_simulations"] == 40
    assert asked["given"].priors.relaxation_time == calibration_priors(design).relaxation_time
