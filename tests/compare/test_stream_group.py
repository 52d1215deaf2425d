"""What streams say of the filter's assumptions, put into a record."""

import numpy as np
import pytest

from bayesfilt.compare.stream_group import instruments_group
from tests.compare.recordings import streams

STEPS, WEIGHTS = 400, 20


def power_law(**changes):
    """Two layers of ten weights: noise 2 H, moves of variance 1/H in the first, 1 in the other."""
    rng = np.random.default_rng(0)
    curvature = np.tile(np.geomspace(0.1, 10, 10), 2)
    moves = np.where(np.arange(WEIGHTS) < 10, curvature**-0.5, 1.0)
    shape = (STEPS, WEIGHTS)
    fields = {
        "curvature": np.broadcast_to(curvature, shape),
        "noise_variance": np.broadcast_to(2 * curvature, shape),
        "optimum": (moves * rng.standard_normal(shape)).cumsum(axis=0),
        "gradient": np.sqrt(curvature) * rng.standard_normal(shape),
        "layer": np.repeat([0, 1], 10),
    }
    return streams(STEPS, WEIGHTS, **{**fields, **changes})


def test_a_drift_that_falls_with_the_curvature_has_its_slope():
    group = instruments_group(power_law())
    slope, error = group["drift_slope"].values, group["drift_slope_error"].values
    assert np.all(np.abs(slope - [-1, 0]) < 4 * error)
    assert np.all(error < 0.1)
    np.testing.assert_allclose(group["drift_slope_on_noise"].values, slope)  # R is 2 H
    ratio = group["noise_variance"].values / group["curvature"].values
    np.testing.assert_allclose(ratio, 2)
    assert list(group["layer_of"].values) == ["dense_0"] * 10 + ["dense_1"] * 10


def test_a_slope_through_a_few_weights_is_not_said():
    assert np.isnan(instruments_group(streams())["drift_slope"].values).all()


def test_the_gauss_newton_curvature_goes_before_the_exact_one():
    double = 2 * power_law().curvature
    group = instruments_group(power_law(ggn=double))
    np.testing.assert_allclose(group["curvature"].values, double[0])


def test_a_belief_is_judged_by_what_it_was_before_the_step():
    # sigma^2 = lr/(2 wd) = 0.005 and a posterior of 0.005: drifting changes nothing.
    shape = (STEPS, WEIGHTS)
    own = power_law(
        posterior_variance=np.full(shape, 0.005),
        optimum=np.full(shape, np.sqrt(0.02)),
        weight=np.zeros(shape),
    )
    group = instruments_group(own)
    course = group["calibration"]
    assert course.attributes["variance"] == "the filter's own"
    np.testing.assert_allclose(course.values, 4.0, rtol=1e-6)
    # A variance that grows tells whether a step is judged by its own: 4, not 3.
    growing = 0.005 * np.arange(1, 4)[:, None] * np.ones((1, 3))
    short = streams(
        3, 3, posterior_variance=growing, optimum=np.full((3, 3), np.sqrt(0.02)),
        settings={"learning_rate": 1e-9, "weight_decay": 0.0},
    )  # fmt: skip
    found = instruments_group(short)["calibration"].values
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1:], [[4.0, 2.0]] * 2, rtol=1e-6)


def test_an_optimizer_that_is_no_filter_is_read_as_one():
    group = instruments_group(power_law())
    assert "fixed point" in group["calibration"].attributes["variance"]
    # Loud gradients: the variance is lr / |g|, so h^2 p = lr h^1.5 is small beside h.
    innovation = group["innovation"].values.mean(axis=1)
    assert np.all(np.abs(innovation - 1) < 4 * np.sqrt(2 / (STEPS * 10)))


@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.0, "weight_decay": 0.1}])
def test_without_a_learning_rate_no_belief_is_known(settings):
    group = instruments_group(power_law(settings=settings))
    assert np.isnan(group["calibration"].values).all()
    assert "no learning rate" in group["calibration"].attributes["variance"]


def test_what_was_not_recorded_is_nan():
    group = instruments_group(power_law(optimum=None, optimum_valid=None, gradient=None))
    for name in ("drift_variance", "gradient_autocorrelation", "calibration", "innovation"):
        assert np.isnan(group[name].values).all()
    assert np.isfinite(group["noise_variance"].values).all()
