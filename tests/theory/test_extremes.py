"""Every formula over many decades, in both precisions; under jit, vmap and grad; at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfilt import theory
from tests.theory import oracles

EPS = {"float32": 1.2e-7, "float64": 2.3e-16}
LARGEST = {"float32": 3e38, "float64": 1e300}
# XLA flushes what is smaller than this to zero.
SMALLEST = {"float32": 1.2e-38, "float64": 2.3e-308}

settled_exactly = jax.jit(theory.steady_state_variance)
settled_closed = jax.jit(theory.fixed_point_variance)
FORMS = {"exact": settled_exactly, "closed": settled_closed}
ORACLES = {"exact": oracles.decimal_steady_state, "closed": oracles.decimal_fixed_point}


def powers_of_ten(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


def worlds():
    """(h, η, σ²): the decay from 1e-12 to just under one, or none; h over all of float32."""
    silence_and_noise = st.one_of(
        st.just(0.0), st.just(3e38), powers_of_ten(-6, 6), powers_of_ten(-37, 38.4)
    )
    decays = st.one_of(st.just(0.0), st.just(0.999), powers_of_ten(-12, -0.001))

    def world(h, eta, decay):
        return h, eta, (eta**2 / (2 * decay) if decay else np.inf)

    return st.builds(world, silence_and_noise, powers_of_ten(-8, 0.5), decays)


@pytest.mark.equation("RIC-1", "FP-1")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=300)
@given(world=worlds())
def test_the_settled_variance_has_all_its_digits_in_either_precision(form, dtype, world):
    h, eta, sigma2 = (jnp.asarray(number, dtype) for number in world)
    ours = FORMS[form](h, eta, sigma2)
    assert ours.dtype == dtype
    if h == 0:
        wanted = float(sigma2)
        assert ours == wanted or abs(float(ours) / wanted - 1) < 8 * EPS[dtype]
        return
    wanted = ORACLES[form](h, eta, sigma2)
    if wanted > SMALLEST[dtype]:
        assert oracles.relative_error(ours, wanted) < 12 * EPS[dtype]
    else:
        assert 0 <= ours <= 2 * SMALLEST[dtype]


@pytest.mark.equation("RIC-1", "FP-1")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=200)
@given(world=worlds(), ratio=st.floats(0, 0.999))
def test_a_louder_gradient_never_means_a_larger_step(form, dtype, world, ratio):
    h, eta, sigma2 = (jnp.asarray(number, dtype) for number in world)
    loud, quiet = FORMS[form](h, eta, sigma2), FORMS[form](h * ratio, eta, sigma2)
    rounding = 1 + 8 * EPS[dtype]
    assert 0 <= loud <= quiet * rounding
    assert quiet <= sigma2 * rounding


@pytest.mark.equation("RIC-0", "KF-1", "KF-3")
@pytest.mark.parametrize("dtype", EPS)
@settings(max_examples=60)
@given(world=worlds())
def test_the_recursion_stays_between_nothing_and_the_stationary_variance(dtype, world):
    h, eta, sigma2 = (jnp.asarray(number, dtype) for number in world)
    begin = jnp.where(jnp.isinf(sigma2), 0, sigma2).astype(dtype)

    variance = begin
    for _ in range(20):
        after = one_step(variance, h, eta, sigma2)
        assert after.dtype == dtype
        assert 0 <= after <= sigma2 * (1 + 8 * EPS[dtype])
        if np.isfinite(sigma2):
            assert after <= variance * (1 + 8 * EPS[dtype])  # it only learns, from σ² downwards
        variance = after


one_step = jax.jit(theory.variance_step)

# Every per-weight formula with arguments that keep it in range.
SOME = {
    "decay_per_step": (0.3, 2.0),
    "retention": (0.3, 2.0),
    "exact_shrink": (0.3, 2.0),
    "process_variance": (0.3, 2.0),
    "process_deviation": (0.3, 2.0),
    "first_order_retention": (0.3, 2.0),
    "linearised_stationary_variance": (0.3, 2.0),
    "predicted_variance": (0.7, 0.9, 0.1),
    "drifted_variance": (0.7, 0.3, 2.0),
    "relaxed_variance": (0.7, 0.08, 0.04),
    "conditioned_variance": (0.7, 3.0),
    "variance_step": (0.7, 3.0, 0.3, 2.0),
    "steady_state_variance": (3.0, 0.3, 2.0),
    "fixed_point_variance": (3.0, 0.3, 2.0),
    "fixed_point_from_epsilon": (3.0, 0.3, 0.075),
    "steady_state_from_scalars": (3.0, 0.5, 40.0),
    "large_epsilon": (0.3, 2.0),
    "transient_from_zero": (2.5, 3.0, 0.3),
    "transient_from_infinity": (2.5, 3.0, 0.3),
    "transient_variance": (0.7, 2.5, 3.0, 0.3, 2.0),
    "time_constant": (3.0, 0.3),
    "static_variance": (2.0, 3.0),
    "variance_memory": (0.2, 3.0, 0.9),
    "crossover_gradient": (0.3, 2.0),
    "information_per_step": (3.0, 0.3, 2.0),
    "sgd_variance": (3.0, 2.0),
    "adam_variance": (3.0, 0.3),
    "mean_square_variance": (3.0,),
    "gain": (0.7, 3.0),
    "kalman_multiplier": (0.7, 3.0, 1.5),
    "equilibrium_rms": (0.3, 0.02),
    "equilibrium_rms_with_momentum": (0.3, 0.02, 0.9),
    "ema_timescale": (0.02,),
    "rotation_per_step": (0.02, 0.9),
    "tracking_error": (0.2, 3.0, 1.5, 0.1),
    "optimal_learning_rate": (1.5, 0.1),
    "equivalent_l2": (0.02, 0.3),
    "l2_conditioned_variance": (0.7, 3.0, 0.2),
    "l2_conditioned_mean": (0.7, 0.3, 1.5, 0.2),
    "l2_shrink": (0.7, 0.2),
    "momentum_l2_shrink": (0.2, 0.3, 0.9),
}
# Not elementwise, or not a formula of numbers: each has tests of its own.
APART = {
    *("REGIMES", "CONVENTIONS", "AdamWSettings", "OrnsteinUhlenbeck", "regime"),
    *("adamw_from_transition", "transition_from_adamw", "convention_shrink"),
    "normalised_weight_decay",
    *("condition_dense", "log_density_dense", "transition_at_batch_size"),
    *("equivalent_penalty", "l2_misfit"),
    *("JointBasis", "KroneckerFactors", "from_basis", "gradient_factors", "joint_basis"),
    *("marginal_variance", "pair_precision", "reexpressed_variance", "to_basis", "whitened_step"),
    *("OnItsRange", "conditioned_covariance", "conditioned_on_gradient", "inverse_root"),
    *("matrix_steady_state", "natural_gradient_covariance", "on_its_range", "overconfidence"),
    *("slow_drift_covariance", "symmetric_root", "whitening_covariance"),
    *("conditional_optimum", "expected_gradient", "coupled_drift_variance"),
}
# Tag of each formula, for the tests that go through them all.
EVERY = [pytest.param(name, id=name) for name in SOME]


def test_every_public_formula_is_tried():
    assert set(SOME) | APART == set(theory.__all__)
    assert not set(SOME) & APART


@pytest.mark.parametrize("name", EVERY)
def test_slopes_are_those_of_finite_differences(name):
    function, at = getattr(theory, name), SOME[name]
    for which, value in enumerate(at):
        slope = float(jax.grad(function, argnums=which)(*map(jnp.float64, at)))
        high, low = list(at), list(at)
        high[which], low[which] = value * (1 + 1e-5), value * (1 - 1e-5)
        wanted = (float(function(*high)) - float(function(*low))) / (2e-5 * value)
        assert slope == pytest.approx(wanted, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_jit_and_vmap_change_nothing(name):
    function = getattr(theory, name)
    rows = np.asarray(SOME[name]) * np.asarray([[1.0], [0.9], [0.5]])
    one_by_one = [float(function(*map(jnp.float64, row))) for row in rows]
    columns = [jnp.asarray(column) for column in rows.T]
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(*columns), one_by_one, rtol=1e-14)
    np.testing.assert_allclose(function(*columns), one_by_one, rtol=1e-14)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_python_numbers_beside_an_array_leave_its_dtype_alone(name, dtype):
    function, at = getattr(theory, name), SOME[name]
    for which in range(len(at)):

        def of_one(array, which=which):
            return function(*at[:which], array, *at[which + 1 :])

        assert jax.eval_shape(of_one, jax.ShapeDtypeStruct((2,), dtype)).dtype == dtype


@pytest.mark.parametrize("name", EVERY)
def test_without_x64_everything_is_float32(name, float32_only):
    del float32_only
    result = getattr(theory, name)(*SOME[name])
    assert result.dtype == "float32"


# Where a formula is entered at an edge: no gradient, no decay, gradients near overflow.
EDGES = {
    "steady_state_variance": [
        *((0.0, 1e-3, 1e-2), (0.0, 1e-3, np.inf), (3e38, 1e-3, 1e-2), (3e38, 3.0, np.inf)),
        *((1.0, 1e-3, np.inf), (1.0, 1e-6, 0.5), (1.0, 1.0, 0.5006), (2.0, 0.0, 0.5)),
        *((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1e-20, 1e-3, np.inf)),
    ],
    "drifted_variance": [(0.0, 1e-3, np.inf), (0.5, 0.0, 0.5), (0.5, 0.1, 0.0), (0.0, 0.0, 0.0)],
    "conditioned_variance": [(0.0, 3e38), (1e3, 3e38), (0.0, 0.0)],
    "variance_step": [(0.0, 0.0, 1e-3, np.inf), (1e-2, 3e38, 1e-3, 1e-2)],
    "time_constant": [(0.0, 1e-3), (3e38, 1e-3)],
    "transient_from_zero": [(5.0, 0.0, 1e-3), (0.0, 2.0, 1e-3), (5.0, 3e38, 1e-3)],
    "transient_from_infinity": [(5.0, 0.0, 1e-3), (0.0, 2.0, 1e-3), (5.0, 3e38, 1e-3)],
    "static_variance": [(np.inf, 0.0), (np.inf, 3.0), (0.0, 3.0), (2.0, 3e38)],
    "information_per_step": [(0.0, 1e-3, np.inf), (0.0, 1e-3, 1e-2)],
    "adam_variance": [(0.0, 1e-3), (3e38, 1e-3)],
    "mean_square_variance": [(0.0,), (3e38,)],
    "linearised_stationary_variance": [(1e-3, np.inf), (1e-3, 5.1e-7)],
    "ema_timescale": [(0.0,)],
}
EDGES["fixed_point_variance"] = EDGES["steady_state_variance"]


@pytest.mark.equation("RIC-1", "FP-1", "RIC-0")
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", EDGES)
def test_values_and_slopes_exist_at_the_edges(name, dtype):
    cases = np.asarray(EDGES[name])
    slopes_too = jax.value_and_grad(getattr(theory, name), argnums=tuple(range(cases.shape[1])))
    values, slopes = jax.jit(jax.vmap(slopes_too))(*jnp.asarray(cases.T, dtype))
    for case, value, *slope in zip(cases, values, *slopes, strict=True):
        assert not np.isnan(value), (case, value)
        assert np.isfinite(slope).all(), (case, slope)


@pytest.mark.equation("RIC-0", "RIC-1", "FP-1", "REG-2")
@pytest.mark.parametrize(
    "function",
    [
        theory.steady_state_variance,
        theory.fixed_point_variance,
        theory.information_per_step,
        lambda h, eta, sigma2: theory.variance_step(0.3, h, eta, sigma2),
    ],
)
def test_the_slope_at_silence_is_the_one_sided_difference(function):
    slope = float(jax.grad(function)(jnp.float64(0.0), 0.1, 0.5))
    step = 1e-7
    wanted = float(function(jnp.float64(step), 0.1, 0.5) - function(jnp.float64(0.0), 0.1, 0.5))
    assert slope == pytest.approx(wanted / step, rel=1e-4)
    assert slope != 0


@pytest.mark.equation("RIC-1")
def test_per_weight_drifts_broadcast():
    h, eta = jnp.asarray([[1.0, 2.0], [3.0, 0.0]]), jnp.asarray([0.1, 0.2])
    both = theory.steady_state_variance(h, eta, jnp.asarray([0.5, np.inf]))
    assert both.shape == (2, 2)
    alone = theory.steady_state_variance(jnp.float64(2.0), 0.2, jnp.inf)
    assert float(both[0, 1]) == pytest.approx(float(alone), rel=1e-15)
