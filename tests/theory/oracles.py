"""What the theory is tested against: sixty-digit decimals and literal loops, no jax."""

import decimal
from decimal import Decimal

import numpy as np

CONTEXT = decimal.Context(prec=60, Emin=-100_000, Emax=100_000)


def exact(number) -> Decimal:
    """The very number that a float32 or float64 holds."""
    return Decimal(float(number))


def decimal_decay(drift_scale, stationary_variance) -> Decimal:
    """η²/2σ², to sixty digits."""
    with decimal.localcontext(CONTEXT):
        return exact(drift_scale) ** 2 / (2 * exact(stationary_variance))


def decimal_process_variance(drift_scale, stationary_variance) -> Decimal:
    """σ²(1 - exp(-η²/σ²)), to sixty digits less those that cancel."""
    with decimal.localcontext(CONTEXT):
        if np.isinf(stationary_variance):
            return exact(drift_scale) ** 2
        decay = decimal_decay(drift_scale, stationary_variance)
        return exact(stationary_variance) * (1 - (-2 * decay).exp())


def decimal_steady_state(precision, drift_scale, stationary_variance) -> Decimal:
    """Positive root of h a² p² + (h q + 1 - a²) p - q = 0, by the school formula."""
    with decimal.localcontext(CONTEXT):
        added = decimal_process_variance(drift_scale, stationary_variance)
        if np.isinf(stationary_variance):
            kept_squared = Decimal(1)
        else:
            kept_squared = (-2 * decimal_decay(drift_scale, stationary_variance)).exp()
        square = exact(precision) * kept_squared
        linear = exact(precision) * added + 1 - kept_squared
        if square == 0:
            return added / linear
        return (-linear + (linear**2 + 4 * square * added).sqrt()) / (2 * square)


def decimal_fixed_point(mean_square_gradient, drift_scale, stationary_variance) -> Decimal:
    """1/p = 1/2σ² + √(1/4σ⁴ + g²/η²), as the paper prints it."""
    with decimal.localcontext(CONTEXT):
        half = Decimal(0)
        if not np.isinf(stationary_variance):
            half = 1 / (2 * exact(stationary_variance))
        return 1 / (half + (half**2 + exact(mean_square_gradient) / exact(drift_scale) ** 2).sqrt())


def iterated_variance(variance, precision, drift_scale, stationary_variance, steps: int) -> float:
    """Posterior variance after `steps` steps of the recursion, in plain float64."""
    kept_squared = float(np.exp(-(drift_scale**2) / stationary_variance))
    added = float(-stationary_variance * np.expm1(-(drift_scale**2) / stationary_variance))
    for _ in range(steps):
        variance = 1 / (1 / (kept_squared * variance + added) + precision)
    return variance


def relative_error(ours, wanted: Decimal) -> float:
    """|ours - wanted|/wanted, in decimals, so that nothing is lost below 1e-308."""
    with decimal.localcontext(CONTEXT):
        return float(abs(exact(ours) - wanted) / wanted)
