"""The theory's anchors on real training: where the filter is AdamW, SGD and itself.

Each compares whole trajectories or updates of two optimizers that the theory says are one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.filters import diagonal_filter
from bayesfilt.optimizers import (
    adabayes,
    adabayes_fixed_point,
    posterior_variance,
    steady_state,
)
from bayesfilt.simulate import shadow, simulate
from bayesfilt.tasks import Tracking, make_task, tracking_task
from bayesfilt.theory import OrnsteinUhlenbeck, exact_shrink

BATCH_SIZE = 64
KEY = jax.random.key(2024)


@pytest.fixture(scope="module")
def digits():
    return make_task("digits-mlp", batch_size=BATCH_SIZE, dtype="float64")


def weights(task, view):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(view.params)])


def trained(task, optimizers, steps, record_every=100, probes=None):
    """Records of free-running trajectories, one after the other from the same start."""
    probes = {"weights": weights} if probes is None else probes

    @jax.jit
    def run(key, task):
        return [
            simulate(key, task, optimizer, steps, probes=probes, record_every=record_every).records
            for optimizer in optimizers
        ]

    return run(KEY, task)


def assert_same_trajectory(first, second, tolerance):
    """Weights agree in every component, at every record, relative to the weights' size."""
    assert np.isfinite(first).all()
    assert np.linalg.norm(first[-1] - first[0]) > 1e-3 * np.linalg.norm(first[0])
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * np.abs(second).max())


def test_without_a_prior_the_fixed_point_is_adamw_for_2000_steps(digits):
    """sigma^2 = inf at a fixed shrink; AdamW's eps is 1e-30, for dead pixels make 0/0."""
    rate, decay = 1e-3, 0.1
    fixed_point = adabayes_fixed_point(
        rate, np.inf, batch_size=BATCH_SIZE, weight_decay=rate * decay
    )
    adamw = optax.adamw(rate, weight_decay=decay, eps=1e-30)
    ours, theirs = trained(digits, [fixed_point, adamw], 2000)
    assert_same_trajectory(ours["weights"], theirs["weights"], 1e-9)


class Quiet:
    """A task whose mean loss is scaled down until the prior is all that counts."""

    def __init__(self, task, factor):
        self.task, self.factor = task, factor

    def loss(self, params, batch):
        return self.factor * self.task.loss(params, batch)

    def __getattr__(self, name):
        return getattr(self.task, name)


def test_gradients_too_quiet_to_say_anything_make_fixed_point_and_recursion_sgd(digits):
    """Mean loss times 1e-10, sigma^2 times 1e10, eta^2 / (2 sigma^2) = 0.5: rate sigma^2 B."""
    sigma2 = 1e10 * 0.1 / BATCH_SIZE
    eta = np.sqrt(sigma2)
    sgd = optax.sgd(sigma2 * BATCH_SIZE)
    settings = {"batch_size": BATCH_SIZE, "b1": 0.0, "weight_decay": 0.0}
    filters = [recipe(eta, sigma2, **settings) for recipe in (adabayes_fixed_point, adabayes)]

    @jax.jit
    def run(key, task):
        quiet = Quiet(task, 1e-10)
        return [
            simulate(key, quiet, each, 200, probes={"weights": weights}, record_every=20).records
            for each in [sgd, *filters]
        ]

    plain, fixed_point, recursion = (each["weights"] for each in run(KEY, digits))
    assert_same_trajectory(fixed_point, plain, 1e-9)
    assert_same_trajectory(recursion, plain, 1e-9)


class Measured(NamedTuple):
    """A run between the limits: gradients of all steps, and every weight's gain at the end."""

    eta: float
    sigma2: float
    gradients: np.ndarray  # of the summed loss
    gains: dict[str, np.ndarray]

    @property
    def mean_square(self):
        """Debiased running mean, as a plain loop."""
        b2, square = 0.999, 0.0
        for gradient in self.gradients:
            square = b2 * square + (1 - b2) * gradient**2
        return square / (1 - b2 ** len(self.gradients))


@pytest.fixture(scope="module")
def measured(digits):
    eta, sigma2 = 1e-3, 1e-2
    recipes = {"fixed_point": adabayes_fixed_point, "steady": steady_state, "recursion": adabayes}
    followers = {name: make(eta, sigma2, batch_size=BATCH_SIZE) for name, make in recipes.items()}

    def gains(task, view):
        return {
            name: weights(task, view._replace(params=posterior_variance(proposal.opt_state)))
            for name, proposal in view.followers.items()
        }

    def gradient(task, view):
        return BATCH_SIZE * weights(task, view._replace(params=view.gradient))

    measures = {"gains": gains, "gradient": gradient}
    leader = optax.adamw(eta, weight_decay=0.05)
    run = jax.jit(
        lambda key, task: shadow(
            key, task, leader, followers, 150, measures=measures, record_every=1
        )
    )
    records = run(KEY, digits).records
    gains = {name: np.asarray(values)[-1] for name, values in records["gains"].items()}
    return Measured(eta, sigma2, np.asarray(records["gradient"]), gains)


def test_in_between_every_gain_falls_on_the_closed_form(measured):
    eta, sigma2, square = measured.eta, measured.sigma2, measured.mean_square
    expected = 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + square / eta**2))
    np.testing.assert_allclose(measured.gains["fixed_point"], expected, rtol=1e-9)
    # Both limits and what lies between them are there.
    share = expected / sigma2
    assert np.mean(share > 0.99) > 0.05
    assert np.mean((share > 0.1) & (share < 0.9)) > 0.05
    assert np.mean(share < 0.1) > 0.05


def test_in_between_every_gain_falls_on_the_exact_root(measured):
    eta, sigma2, h = measured.eta, measured.sigma2, measured.mean_square
    a2 = np.exp(-(eta**2) / sigma2)
    q = sigma2 * (1 - a2)
    linear = h * q + 1 - a2
    expected = 2 * q / (linear + np.sqrt(linear**2 + 4 * h * a2 * q))
    np.testing.assert_allclose(measured.gains["steady"], expected, rtol=1e-9)


def test_the_recursion_s_gains_are_predict_and_condition_on_each_gradient(measured):
    a2 = np.exp(-(measured.eta**2) / measured.sigma2)
    variance = np.full(measured.gradients.shape[1], measured.sigma2)
    for gradient in measured.gradients:
        predicted = a2 * variance + (1 - a2) * measured.sigma2
        variance = 1 / (1 / predicted + gradient**2)
    np.testing.assert_allclose(measured.gains["recursion"], variance, rtol=1e-9)


TRANSITION = OrnsteinUhlenbeck(drift_scale=0.05, stationary_variance=0.04)
SHRINK = float(exact_shrink(*TRANSITION))
STEPS = 500


def matched_adabayes(order):
    return adabayes(*TRANSITION, batch_size=4, b1=0.0, weight_decay=SHRINK, decay_order=order)


class Tracked(NamedTuple):
    task: Tracking
    weights: np.ndarray  # that adabayes with decay after the step holds
    precision: np.ndarray  # g^2 of its gradients


@pytest.fixture(scope="module")
def tracked():
    task = tracking_task(
        jax.random.key(7), TRANSITION, np.logspace(0, 3, 8), STEPS, batch_size=4, dtype="float64"
    )

    def precision(task, view):
        return (task.batch_size * view.gradient) ** 2

    probes = {"weights": weights, "precision": precision}
    (ours,) = trained(task, [matched_adabayes("after")], STEPS, record_every=1, probes=probes)
    return Tracked(task, np.asarray(ours["weights"]), np.asarray(ours["precision"]))


def exact_filter(tracked):
    """Predicted means of the filter: gradients at its own means, precisions as they were fed."""
    truth = diagonal_filter(TRANSITION)

    @jax.jit
    def track(key, task, precision):
        batch_key = jax.random.split(key)[1]

        def step(belief, now):
            step, precision = now
            batch = task.sample_batch(jax.random.fold_in(batch_key, step), step)
            gradient = task.batch_size * jax.grad(task.loss)(belief.mean, batch)
            after = truth.predict(truth.condition(belief, gradient, precision))
            return after, belief.mean

        start = truth.init(jnp.zeros(8), TRANSITION.stationary_variance)
        return jax.lax.scan(step, start, (jnp.arange(STEPS), precision))[1]

    return np.asarray(track(KEY, tracked.task, tracked.precision))


def test_on_the_matched_world_adabayes_with_decay_after_is_the_exact_filter(tracked):
    means = exact_filter(tracked)
    assert np.abs(means).max() > 0.1
    np.testing.assert_allclose(tracked.weights, means, rtol=0, atol=1e-12)


def test_with_decay_before_it_is_not(tracked):
    before = trained(tracked.task, [matched_adabayes("before")], STEPS, record_every=1)[0]
    assert np.abs(before["weights"] - tracked.weights).max() > 1e-3


def test_a_step_with_decay_before_overshoots_by_the_shrink_of_the_step(tracked):
    """From one belief the two orders differ by shrink * p * g, the decay of the step itself."""

    def gap_and_prediction(task, view):
        before = view.followers["before"]
        gain = posterior_variance(before.opt_state)
        gap = before.updates - view.leader.updates
        return gap, -SHRINK * gain * task.batch_size * view.gradient

    run = jax.jit(
        lambda key, task: shadow(
            key, task, matched_adabayes("after"), {"before": matched_adabayes("before")}, STEPS,
            measures={"both": gap_and_prediction}, record_every=1,
        )
    )  # fmt: skip
    gap, predicted = (np.asarray(each) for each in run(KEY, tracked.task).records["both"])
    assert np.abs(gap).max() > 1e-3
    np.testing.assert_allclose(gap, predicted, rtol=0, atol=1e-15)
