"""The validity map, against the recursion run until it rests."""

import numpy as np
import pytest

from bayesfilt.compare import validity_map


def iterated(rms, ratio, steps=20_000):
    """Where predict and condition settle at eta = 1, from far above and step by step."""
    sigma2 = 0.5 / ratio
    keep, add = np.exp(-2 * ratio), -sigma2 * np.expm1(-2 * ratio)
    variance = np.full(np.shape(rms), min(sigma2, 1e6))
    for _ in range(steps):
        variance = 1 / (1 / (keep * variance + add) + rms**2)
    return variance


def test_the_exact_rows_are_where_the_recursion_settles():
    rms = np.array([1e-2, 0.3, 1.0, 20.0])
    found = validity_map([1e-2, 0.5], rms)
    for row, ratio in zip(found.exact, [1e-2, 0.5], strict=True):
        np.testing.assert_allclose(row, iterated(rms, ratio), rtol=1e-10)


def test_every_formula_is_its_definition():
    rms, ratio = np.array([1e-4, 0.5, 30.0]), np.array([1e-3, 0.2])
    found = validity_map(ratio, rms)
    fixed_point = 1 / (ratio[:, None] + np.sqrt(ratio[:, None] ** 2 + rms**2))
    np.testing.assert_allclose(found.fixed_point, fixed_point, rtol=1e-13)
    np.testing.assert_allclose(found.adam, 1 / rms, rtol=1e-14)
    np.testing.assert_allclose(found.mean_square, 1 / rms**2, rtol=1e-14)
    np.testing.assert_allclose(found.sgd, 0.5 / ratio, rtol=1e-14)


def test_each_limit_holds_in_its_own_corner_and_nowhere_else():
    found = validity_map([1e-4], [1e-7, 1e-2, 1e4])
    quiet, middle, loud = found.exact[0]
    assert quiet == pytest.approx(found.sgd[0], rel=1e-3)
    assert middle == pytest.approx(found.adam[1], rel=2e-2)
    assert loud == pytest.approx(found.mean_square[2], rel=1e-3)
    assert found.fixed_point[0, 2] > 1e3 * loud


@pytest.mark.parametrize("arguments", [([0.0], [1.0]), ([1.0], [-1.0])])
def test_numbers_that_are_not_positive_are_refused(arguments):
    with pytest.raises(ValueError, match="validity_map needs a finite"):
        validity_map(*arguments)
