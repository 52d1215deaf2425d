"""The matrix optimizers over twelve decades of drift, prior and loudness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt.optimizers import kalman_full, kalman_kronecker

RECIPES = {"kalman_full": kalman_full, "kalman_kronecker": kalman_kronecker}
GRADIENTS = jnp.asarray(np.random.default_rng(0).normal(0.3, 1.0, (8, 3, 2)))
START = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))

decades = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
few = st.floats(-2, 2).map(lambda exponent: 10.0**exponent)


def run_of(name):
    @jax.jit
    def run(eta, sigma2, gradients):
        made = RECIPES[name](eta, sigma2, batch_size=1, b1=0.0, weight_decay=0.0)

        def step(carry, gradient):
            params, state = carry
            updates, state = made.update(gradient, state, params)
            return (params + updates, state), updates

        (_, state), updates = jax.lax.scan(step, (START, made.init(START)), gradients)
        return updates, state[1].posterior_variance()

    return run


RUNS = {name: run_of(name) for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=60, deadline=None)
@given(eta=decades, sigma2=st.one_of(decades, st.just(np.inf)), loud=decades)
def test_over_twelve_decades_nothing_is_nan_and_no_variance_negative_or_above_the_prior(
    name, eta, sigma2, loud
):
    updates, variance = RUNS[name](eta, sigma2, GRADIENTS * loud)
    assert np.isfinite(updates).all()
    assert (np.asarray(variance) >= 0).all()
    # After eight steps a random walk from 0 has wandered no further than eight drifts.
    most = sigma2 if np.isfinite(sigma2) else 8 * eta**2
    assert (np.asarray(variance) <= most * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=60, deadline=None)
@given(eta=few, sigma2=few, loud=few, doublings=st.integers(-20, 20))
def test_measured_in_other_units_the_steps_are_the_same_steps(name, eta, sigma2, loud, doublings):
    """Drift and weights times c, variances times c², gradients by c; rounding grows with gain."""
    unit = 2.0**doublings
    plain, _ = RUNS[name](eta, sigma2, GRADIENTS * loud)
    scaled, _ = RUNS[name](eta * unit, sigma2 * unit**2, GRADIENTS * loud / unit)
    np.testing.assert_allclose(scaled / unit, plain, rtol=1e-6, atol=1e-6 * np.abs(plain).max())
