"""Draws of a posterior that is known in closed form, and what happens around the drawing."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from bayesfilt.infer.gates import pareto_k
from bayesfilt.infer.sampling import (
    STEPS_PER_BLOCK,
    NutsSettings,
    check_nuts,
    sample_nuts,
    sample_prior,
    tree_depth,
)
from bayesfilt.infer.variational import BLOCKS, SviSettings, check_svi, sample_svi

PRIOR = {"mean": jnp.array([1.0, -2.0]), "deviation": jnp.array(3.0)}
DATA = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)) + [[2.0], [5.0], [2.0], [5.0]])
LAYER = np.array([0, 1, 0, 1])
SETTINGS = NutsSettings(num_chains=2, num_warmup=130)
NUM_SAMPLES = 620
SVI = SviSettings(num_steps=1_000, learning_rate=0.1)
traces = 0


def density(data, prior):
    """Two unknown means with a Gaussian prior, seen through unit noise."""
    global traces
    traces += 1
    mean = numpyro.sample("mean", dist.Normal(prior["mean"], prior["deviation"]).to_event(1))
    numpyro.deterministic("twice", 2 * mean)
    numpyro.factor("log_likelihood", dist.Normal(mean[LAYER][:, None], 1.0).log_prob(data).sum())


def exact_posterior(data):
    """Mean and standard deviation, by the textbook."""
    rows = [np.asarray(data)[layer == LAYER].ravel() for layer in (0, 1)]
    precision = 1 / 9 + len(rows[0])
    means = [(m / 9 + row.sum()) / precision for m, row in zip([1.0, -2.0], rows, strict=True)]
    return np.array(means), precision**-0.5


def exact_log_evidence(data):
    """From the joint normal density of each layer's numbers."""
    found = 0.0
    for layer, mean in ((0, 1.0), (1, -2.0)):
        row = np.asarray(data)[layer == LAYER].ravel()
        covariance = np.eye(row.size) + 9.0
        found += stats.multivariate_normal(np.full(row.size, mean), covariance).logpdf(row)
    return found


def draw(key=0, data=DATA, settings=SETTINGS, num_samples=NUM_SAMPLES, **more):
    arguments = (data, PRIOR)
    return sample_nuts(jax.random.key(key), density, arguments, settings, num_samples, **more)


@functools.cache
def whole():
    """All draws of the first key, made once."""
    return draw()


def test_nuts_finds_the_posterior_that_the_textbook_has():
    draws = whole()
    mean, deviation = exact_posterior(DATA)
    found = draws.sites["mean"]
    assert found.shape == (2, NUM_SAMPLES, 2)
    # Neighbouring draws of this posterior are hardly dependent: 400 stands for 1240.
    np.testing.assert_allclose(found.mean((0, 1)), mean, atol=4 * deviation / 20)
    np.testing.assert_allclose(found.std((0, 1)), deviation, rtol=4 / 800**0.5)
    np.testing.assert_array_equal(draws.sites["twice"], 2 * found)
    likelihood = stats.norm(found[..., LAYER][..., None], 1).logpdf(DATA).sum((-1, -2))
    prior = stats.norm([1.0, -2.0], 3).logpdf(found).sum(-1)
    np.testing.assert_allclose(draws.stats["lp"], likelihood + prior)
    assert not draws.stats["diverging"].any()
    assert not draws.interrupted


def test_the_key_decides_the_draws_and_every_chain_has_its_own():
    first, again, other = (draw(key, num_samples=60).sites["mean"] for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(first, other).any()
    assert not np.isin(first[0], first[1]).any()


def test_other_data_of_the_same_shape_compiles_nothing_and_is_used():
    whole()
    before = traces
    found = draw(data=DATA + 10, num_samples=200).sites["mean"].mean((0, 1))
    np.testing.assert_allclose(found, exact_posterior(DATA + 10)[0], atol=0.1)
    draw(num_samples=3)
    assert traces == before


def test_progress_counts_the_warm_up_and_ends_at_the_end():
    seen = []
    draw(num_samples=60, on_progress=lambda made, total: seen.append((made, total)))
    assert seen == [(50, 190), (100, 190), (130, 190), (180, 190), (190, 190)]


class Interruption:
    """Ctrl-C during the block that would bring the steps beyond `after`."""

    def __init__(self, after):
        self.after = after

    def __call__(self, made, total):
        if made >= self.after:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_finished_blocks_of_draws():
    cut = draw(on_progress=Interruption(130 + 2 * STEPS_PER_BLOCK))
    assert cut.interrupted
    assert cut.sites["mean"].shape == (2, 2 * STEPS_PER_BLOCK, 2)
    beginning = whole().sites["mean"][:, : 2 * STEPS_PER_BLOCK]
    np.testing.assert_array_equal(cut.sites["mean"], beginning)
    assert {value.shape for value in cut.stats.values()} == {(2, 2 * STEPS_PER_BLOCK)}


def test_ctrl_c_during_the_warm_up_leaves_nothing_to_keep():
    with pytest.raises(KeyboardInterrupt):
        draw(on_progress=Interruption(130))


def test_fewer_devices_than_chains_are_a_note():
    (note,) = whole().notes
    assert note.startswith("2 chains shared 1 device, 2 one after the other on each")


def nowhere(offset):
    numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("log_likelihood", jnp.log(offset - 1))


def test_a_density_that_is_nowhere_finite_is_refused():
    settings = NutsSettings(num_chains=1, num_warmup=0)
    with pytest.raises(ValueError, match=r"starting point with a finite density[^\n]+$"):
        sample_nuts(jax.random.key(0), nowhere, (jnp.array(1.0),), settings, 5)


def test_the_depth_of_a_tree_is_how_often_it_doubled():
    assert tree_depth(np.array([1, 2, 3, 4, 7, 8, 1023])).tolist() == [1, 2, 2, 3, 3, 4, 10]


def test_prior_draws_know_no_data():
    sites = sample_prior(jax.random.key(0), density, (DATA + 100, PRIOR), 2_000)
    assert sites.keys() == {"mean", "twice"}
    np.testing.assert_allclose(sites["mean"].mean(0), [1, -2], atol=4 * 3 / 2_000**0.5)
    np.testing.assert_allclose(sites["mean"].std(0), 3, rtol=4 / 4_000**0.5)


def test_a_gaussian_guide_is_exact_for_a_gaussian_and_a_second_one_compiles_nothing():
    draws = sample_svi(jax.random.key(0), density, (DATA, PRIOR), SVI, 500)
    mean, deviation = exact_posterior(DATA)
    found = draws.sites["mean"]
    assert found.shape == (1, 500, 2)
    np.testing.assert_allclose(found.mean((0, 1)), mean, atol=4 * deviation / 500**0.5)
    np.testing.assert_allclose(found.std((0, 1)), deviation, rtol=0.15)
    # Each weight then is the evidence itself, and so is the bound.
    evidence = exact_log_evidence(DATA)
    np.testing.assert_allclose(draws.stats["log_weight"].mean(), evidence, atol=0.05)
    np.testing.assert_allclose(draws.stats["elbo"][0, -1], evidence, atol=0.05)
    assert draws.stats["log_weight"].std() < 0.2
    assert pareto_k(draws.stats["log_weight"].ravel()) < 0.7
    assert draws.stats["elbo"].shape == (1, BLOCKS)
    before = traces  # and a second guide, on other data, compiles nothing
    other = sample_svi(jax.random.key(1), density, (DATA + 10, PRIOR), SVI, 500)
    wanted = exact_posterior(DATA + 10)[0]
    np.testing.assert_allclose(other.sites["mean"].mean((0, 1)), wanted, atol=0.1)
    assert traces == before


@pytest.mark.parametrize(
    ("change", "num_samples", "message"),
    [
        ({"num_chains": 0}, 10, "num_chains >= 1, got num_chains=0"),
        ({"num_chains": 1.5}, 10, "num_chains >= 1, got num_chains=1.5"),
        ({"num_warmup": -1}, 10, "num_warmup >= 0, got num_warmup=-1"),
        ({}, 0, "num_samples >= 1, got num_samples=0"),
        ({"max_tree_depth": 0}, 10, "max_tree_depth >= 1"),
        ({"target_accept_prob": 0.0}, 10, "0 < target_accept_prob < 1, got target_accept_prob=0.0"),
        ({"target_accept_prob": 1}, 10, "0 < target_accept_prob < 1, got target_accept_prob=1"),
        ({"target_accept_prob": float("nan")}, 10, "finite target_accept_prob"),
        ({"target_accept_prob": None}, 10, "real number for target_accept_prob"),
    ],
)
def test_settings_that_no_sampler_can_work_with_are_refused(change, num_samples, message):
    settings = NutsSettings(**{**SETTINGS._asdict(), **change})
    with pytest.raises(ValueError, match=f"^fit needs [^\n]*{message}[^\n]*$"):
        check_nuts("fit", settings, num_samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 10}, "num_steps >= 200, got num_steps=10"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"num_particles": 0}, "num_particles >= 1"),
    ],
)
def test_settings_that_no_optimisation_can_work_with_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^fit needs [^\n]*{message}[^\n]*$"):
        check_svi("fit", SviSettings(**change), 10)


SCRIPT = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)  # before the backend starts
import numpy as np
from tests.infer.test_sampling import SETTINGS, draw
side_by_side = draw(num_samples=20)
assert side_by_side.notes == (), side_by_side.notes
print(*side_by_side.sites["mean"].ravel())
"""


@pytest.mark.slow  # starts another process; chains one after the other are above
def test_chains_side_by_side_are_the_chains_one_after_the_other():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    side_by_side = np.array(done.stdout.split(), float).reshape(2, 20, 2)
    # To rounding, which the leapfrog steps of the warm-up carry on.
    np.testing.assert_allclose(side_by_side, draw(num_samples=20).sites["mean"], rtol=1e-5)
