"""Verdicts about single weights turn when the theory is wrong by a factor, a power or a sign.

Each attack goes both ways: what the right theory accepts the wrong one refuses, and the other way
round. And each verdict says how far from its threshold it is.
"""

import numpy as np
import pytest

from bayesfilt.compare import Interval
from experiments import e05_inferred_shrink as e05
from experiments import e06_inferred_decay as e06
from experiments import e07_noise_is_curvature as e07
from experiments import e08_drift_and_curvature as e08
from experiments import e09_calibration as e09
from experiments import e10_white_at_best_rate as e10
from experiments.coordinates import MOMENTS
from tests.experiments.test_inferred_shrink import READING, SET, SQUARE, shrinks, swept
from tests.experiments.test_verdicts import holds
from tests.experiments.weights import (
    calibration_result,
    drift_result,
    filter_world,
    noise_result,
    noise_world,
    white_world,
    whiteness_result,
)


@pytest.mark.parametrize(
    ("words", "law", "right", "wrong"),
    [
        (SET, "the decay that was set", (1.0, 1.0), (0.5, 1.0)),  # a root of the learning rate
        (SET, "the decay that was set", (1.0, 1.0), (1.0, -1.0)),
        (SQUARE, "the square of the learning rate", (2.0, 0.0), (1.0, 0.0)),  # eta, not eta^2
        (SQUARE, "the square of the learning rate", (2.0, 0.0), (-2.0, 0.0)),
    ],
)
def test_a_law_of_the_shrink_with_a_wrong_power_is_turned(monkeypatch, words, law, right, wrong):
    assert holds(e05, shrinks(right), words) is True
    assert holds(e05, shrinks(wrong), words) is False
    monkeypatch.setitem(e05.LAWS, law, wrong)
    assert holds(e05, shrinks(right), words) is False
    assert holds(e05, shrinks(wrong), words) is True


@pytest.mark.parametrize("factor", [1 / 3, 3.0])
@pytest.mark.parametrize(("module", "made"), [(e05, lambda: shrinks((1, 1))), (e06, swept)])
def test_controls_of_inferred_decays_fail_at_a_wrong_level(module, made, factor):
    words = "control, known decays come back"
    result = made() if module is e05 else made(1.0)
    assert holds(module, result, words) is True
    result.groups[READING]["control_decay"].values[...] *= factor
    assert holds(module, result, words) is False


@pytest.mark.parametrize("slope", [-1.0, 2.0])
def test_a_drift_with_another_power_of_the_rate_is_not_proportional_to_it(slope):
    words = "the drift of a step is proportional"
    assert holds(e05, shrinks((1, 1), drift=(slope, 0.0)), words) is False


def test_a_decay_by_the_record_and_not_by_the_step_is_not_near_the_best():
    """The slow part is recorded at every eighth step; and the theory's factor of 2, squared."""
    words = "at learning rate 0.01 the"
    for factor in (e06.PAPER.slow_part.spacing, 4.0, 0.25):
        assert holds(e06, swept(factor), words) is False
    assert holds(e06, swept(1.0), words) is True


def test_noise_is_judged_at_its_own_moment():
    for attacked, name in enumerate(MOMENTS):
        world = noise_world()
        world["noise"].values[attacked] *= world["gauss_newton"].values[attacked] ** -2.0
        found = {each.claim: each.holds for each in e07.check(noise_result(world))}
        for moment in MOMENTS:
            (level,) = (v for k, v in found.items() if f"digits, {moment}: R = H" in k)
            (slope,) = (v for k, v in found.items() if f"digits, {moment}: R is prop" in k)
            assert (level, slope) == ((False, False) if moment == name else (True, True))


@pytest.mark.parametrize("wrong", [-0.5, 1.0])
def test_a_law_of_the_drift_with_a_wrong_power_or_sign_is_turned(monkeypatch, wrong):
    words = "digits, late: the drift of an optimum goes as one"
    right, other = drift_result(-1.0), drift_result(wrong)
    assert (holds(e08, right, words), holds(e08, other, words)) == (True, False)
    monkeypatch.setitem(e08.LAWS, "as one over curvature", wrong)
    assert (holds(e08, right, words), holds(e08, other, words)) == (False, True)


def test_a_control_of_the_drift_with_a_wrong_slope_is_turned(monkeypatch):
    right, other = drift_result(), drift_result(coupled=1.0, uniform=-1.0)
    for name, wrong in ((e08.COUPLED, 1.0), (e08.UNIFORM, -1.0)):
        words = f"control, {name}"
        assert (holds(e08, right, words), holds(e08, other, words)) == (True, False)
        monkeypatch.setitem(e08._CONTROLS, name, wrong)
        assert (holds(e08, right, words), holds(e08, other, words)) == (False, True)


@pytest.mark.parametrize(
    ("mutated", "power"),
    [(lambda p: 1 - p, 0.25), (lambda p: 2 * p, 1.5), (lambda p: p - 0.5, 0.25)],
    ids=["(1 + alpha)/2", "1 - alpha", "-alpha/2"],
)
def test_a_power_predicted_with_a_wrong_sign_or_factor_is_turned(monkeypatch, mutated, power):
    words = "training loss: the power that trains best is the one that the drift predicts"
    right, other = drift_result(-0.5, best=0.75), drift_result(-0.5, best=power)
    assert (holds(e08, right, words), holds(e08, other, words)) == (True, False)
    told = e08.predicted_power(right.groups["digits/drift"])
    ends = sorted((mutated(told.low), mutated(told.high)))
    wrong = Interval(mutated(told.estimate), *ends)
    monkeypatch.setattr(e08, "predicted_power", lambda group: wrong)
    assert holds(e08, right, words) is False
    if power <= 1.25:  # of those that are tried
        assert holds(e08, other, words) is True


def test_a_square_that_should_be_one_has_not_its_median_there(monkeypatch):
    words = "digits, adamw, late: (w* - mu)²/p"
    result = calibration_result(filter_world())
    assert holds(e09, result, words) is True
    monkeypatch.setattr(e09, "MEDIAN_SQUARE", 1.0)  # that of its mean
    assert holds(e09, result, words) is False
    assert holds(e09, calibration_result(filter_world(1 / 0.455)), words) is True


def test_both_levels_must_be_right_at_the_same_moment():
    words = "there is a moment"
    world = filter_world()
    world["calibration"].values[:, 1:] *= 100.0
    assert holds(e09, calibration_result(world), words) is True  # early both are
    world["innovation"].values[:, :1] *= 100.0  # now each is somewhere, never both
    assert holds(e09, calibration_result(world), words) is False


@pytest.mark.parametrize("where", ["digits, late", "control, matched world"])
def test_correlations_of_the_wrong_sign_have_no_crossing_at_the_best_rate(where):
    assert holds(e10, whiteness_result(white_world(), white_world()), where) is True
    wrong = white_world()
    wrong["autocorrelation"].values[...] *= -1.0
    assert holds(e10, whiteness_result(wrong, wrong), where) is False


UNEVEN = np.exp(0.16 * np.linspace(-1, 1, 5))  # from seed to seed
WORLD = noise_world()

# Of each experiment: what is judged, a record near its threshold, and one far from it.
NEAR_AND_FAR = [
    (e05, "shrink is the decay", shrinks((1, 1), level=1.33, noise=0.3), shrinks((1, 1))),
    (e06, "at learning rate 0.01 the", swept(1.6 * UNEVEN[:, None]), swept(1.0)),
    (e07, "digits, late: R = H", noise_result(noise_world(1.21, uneven=0.05)), noise_result(WORLD)),
    (e08, "digits, late: the drift of an", drift_result(-0.9, uneven=0.1), drift_result(-1.0)),
    (
        e09,
        "digits, adamw, late: (w",
        calibration_result(filter_world(1.95, uneven=0.12)),
        calibration_result(filter_world()),
    ),
    (
        e10,
        "digits, late",
        whiteness_result(white_world(crossing=0.018, uneven=0.15)),
        whiteness_result(white_world()),
    ),
]


@pytest.mark.parametrize(("module", "words", "near", "far"), NEAR_AND_FAR)
def test_a_verdict_near_its_threshold_says_so(module, words, near, far):
    for result, is_near in ((near, True), (far, False)):
        found = module.check(result)
        assert all(each.margin is not None and not np.isnan(each.margin) for each in found)
        first = next(each for each in found if words in each.claim)
        assert first.holds is True
        assert first.is_near is is_near
