"""What it costs to shrink before the step, as AdamW does, and not after it, as the filter does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.filters import Belief, diagonal_filter
from bayesfilt.theory import (
    OrnsteinUhlenbeck,
    drifted_variance,
    exact_shrink,
    process_variance,
    retention,
    steady_state_variance,
)

WEIGHTS, STEPS = 20_000, 300


def followed(h, drift):
    """Weights held by the filter and by AdamW's order after the same drift and noise.

    The filter holds the predicted mean, where its gradients are taken. Both use its variance.
    """
    rng = np.random.default_rng(12)
    settled = steady_state_variance(jnp.float64(h), *drift)
    prior = drifted_variance(settled, *drift)
    kept, added, shrink = retention(*drift), process_variance(*drift), exact_shrink(*drift)
    kalman, precision = diagonal_filter(drift), jnp.full(WEIGHTS, h)

    def step(carry, normals):
        optimum, belief, held = carry
        noise = jnp.sqrt(h) * normals[0]
        gradient = h * (belief.mean - optimum) + noise
        belief = kalman.predict(kalman.condition(belief, gradient, precision))
        held = (1 - shrink) * held - settled * (h * (held - optimum) + noise)
        optimum = kept * optimum + jnp.sqrt(added) * normals[1]
        return (optimum, belief, held), None

    start = np.sqrt(drift.stationary_variance) * rng.standard_normal(WEIGHTS)
    surely = np.sqrt(prior) * rng.standard_normal(WEIGHTS)
    belief = Belief(mean=jnp.asarray(start), variance=jnp.full(WEIGHTS, prior))
    normals = jnp.asarray(rng.standard_normal((STEPS, 2, WEIGHTS)))
    (optimum, belief, held), _ = jax.lax.scan(
        step, (jnp.asarray(start + surely), belief, jnp.asarray(start)), normals
    )
    return np.asarray(optimum), np.asarray(belief.mean), np.asarray(held)


@pytest.mark.equation("OU-2", "KF-4")
@pytest.mark.parametrize(
    ("h", "drift"),
    [
        (
            1.0,
            OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=1.0),
        ),  # shrink 0.02, gain 0.17
        (25.0, OrnsteinUhlenbeck(drift_scale=0.1, stationary_variance=0.02)),  # 0.22 and 0.28
        (4.0, OrnsteinUhlenbeck(drift_scale=0.01, stationary_variance=0.01)),  # 0.005 and 0.017
    ],
)
def test_check_C6_the_two_orders_part_by_the_shrink_of_each_step(h, drift):
    _, after, before = followed(h, drift)
    settled = float(steady_state_variance(jnp.float64(h), *drift))
    prior = float(drifted_variance(jnp.float64(settled), *drift))
    shrink = float(exact_shrink(*drift))
    # The gap d obeys d' = (1 - s - p h) d + s p g, and the filter's surprises g are white with
    # the variance h (1 + h v).
    pull = 1 - shrink - settled * h
    push = (shrink * settled) ** 2 * h * (1 + h * prior)
    wanted = push / (1 - pull**2) * (1 - pull ** (2 * STEPS))
    squares = (after - before) ** 2
    assert abs(squares.mean() - wanted) < 4 * squares.std() / np.sqrt(WEIGHTS)


@pytest.mark.equation("KF-3", "KF-4")
def test_check_C6_only_the_filters_order_errs_as_little_as_it_believes():
    h, drift = 25.0, OrnsteinUhlenbeck(drift_scale=0.1, stationary_variance=0.02)
    optimum, after, before = followed(h, drift)
    settled = steady_state_variance(jnp.float64(h), *drift)
    believed = float(drifted_variance(settled, *drift))
    ours, adamws = (optimum - after) ** 2, (optimum - before) ** 2
    assert abs(ours.mean() - believed) < 4 * ours.std() / np.sqrt(WEIGHTS)
    excess = adamws - ours
    assert excess.mean() > 6 * excess.std() / np.sqrt(WEIGHTS)
