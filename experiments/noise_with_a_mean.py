"""AdamW on gradients of a constant mean and white noise: how large weights become, by their SNR.

The SNR is the mean of a gradient over its deviation. Below sqrt(lr wd/2) weights have the size of
noise, above it that of gradients that agree, 1/wd.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesfilt.records import Group
from bayesfilt.theory import equilibrium_rms_with_momentum
from experiments.contract import Verdict, judged
from experiments.coordinates import interval_over_seeds
from experiments.interval_columns import columns, medians
from experiments.layer_sizes import median_of
from experiments.panels import Panel, Series
from experiments.size_laws import AXES

B1 = 0.9  # Adam's momentum
CROSSING_BAND = 0.25  # of SNR; its steps here are 2 to 3
BOTH_BAND = 0.10  # of the size, at any SNR


def expected_size(
    snr: np.ndarray, learning_rate: np.ndarray, weight_decay: np.ndarray
) -> np.ndarray:
    """RMS of weights whose gradients have that mean over their deviation.

    Normalised gradients have the mean snr/sqrt(1 + snr^2) and the deviation 1/sqrt(1 + snr^2).
    """
    shrink = jnp.asarray(learning_rate * weight_decay)
    found = equilibrium_rms_with_momentum(jnp.asarray(learning_rate), shrink, B1)
    of_noise = np.asarray(found, float)
    return np.sqrt((np.square(snr / weight_decay) + np.square(of_noise)) / (1 + np.square(snr)))


def expected_crossing(learning_rate: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
    """SNR at which mean and deviation of the weights are equal, sqrt(lr wd/2)."""
    return np.sqrt(learning_rate * weight_decay / 2)


def crossing(snr: Float[np.ndarray, " layers"], ratio: Float[np.ndarray, " layers"]) -> float:
    """SNR at which |mean|/deviation of the weights is 1, between the two SNRs around it.

    A line over logarithms. NaN where it does not rise through 1, or from its noise.
    """
    above = np.flatnonzero(ratio >= 1)
    if not above.size or above[0] == 0:
        return float("nan")
    first = int(above[0])
    low, high = np.log(ratio[first - 1 : first + 1])
    share = -low / (high - low)
    steps = np.log(snr[first - 1 : first + 1])
    return float(np.exp(steps @ np.array([1 - share, share])))


def crossings(group: Group, mean: np.ndarray, deviation: np.ndarray) -> Float[np.ndarray, " cells"]:
    """Crossing of every setting, of medians over seeds."""
    ratio = median_of(mean) / median_of(deviation)
    return np.array([crossing(group["snr"].values, row) for row in ratio])


def both_limits(group: Group) -> Verdict:
    """Whether both sizes together are the size, at every SNR."""
    expected = _limits(group)

    def worst(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(median_of(drawn) / expected - 1)))

    return judged(
        "Noise with a mean: the size of weights is that of noise and that of 1/wd together, at any"
        " SNR.",
        interval_over_seeds(worst, group["rms"].values),
        high=BOTH_BAND,
        tolerance="the SNR and setting that are furthest off, as a fraction; the noise of Adam's"
        " mean square is left out; 90 % bootstrap over seeds",
    )


def crossing_verdict(group: Group) -> Verdict:
    """Whether signal and noise are equal where they should be."""
    law = expected_crossing(*(group[name].values for name in AXES))

    def off(drawn: np.ndarray) -> float:
        return float(np.max(np.abs(crossings(group, *drawn) / law - 1)))

    found = interval_over_seeds(off, np.stack([group["mean"].values, group["deviation"].values]))
    each = crossings(group, group["mean"].values, group["deviation"].values)
    verdict = judged(
        "Noise with a mean: signal and noise are equal where SNR^2 = lr wd/2.",
        found,
        high=CROSSING_BAND,
        tolerance="the setting whose crossing is furthest off, as a fraction of SNR; 90 % bootstrap"
        " over seeds",
    )
    said = ", ".join(f"{seen:.2g} for {law:.2g}" for seen, law in zip(each, law, strict=True))
    return verdict._replace(measured=f"{verdict.measured}; crossings {said}")


def sizes_panel(group: Group) -> Panel:
    """Sizes over 1/wd by SNR, of the fastest and the slowest decay, with the law of each."""
    snr, expected = group["snr"].values, _limits(group)
    product = group[AXES[0]].values * group[AXES[1]].values
    series = []
    for cell in dict.fromkeys((int(np.argmin(product)), int(np.argmax(product)))):
        decay = group["weight_decay"].values[cell]
        middle, low, high = (part * decay for part in medians(group["rms"].values[cell]))
        name = f"lr {group[AXES[0]].values[cell]:g}, wd {decay:g}"
        series.append(Series(name, snr, middle, low, high, "points"))
        series.append(Series("both together", snr, expected[cell] * decay, kind="law"))
    return Panel(
        "noise with a mean", "SNR of the gradient", "rms of weights x wd", series, "log", "log"
    )


def crossing_panel(group: Group) -> Panel:
    """Where mean and noise are equal, over where they should be."""
    law = expected_crossing(*(group[name].values for name in AXES))
    both = np.stack([group["mean"].values, group["deviation"].values])
    found = columns(
        [
            interval_over_seeds(
                lambda drawn, cell=cell: float(crossings(group, *drawn)[cell]), both
            )
            for cell in range(len(law))
        ]
    )
    ends = np.array([law.min(), law.max()])
    series = [
        Series("crossing", law, *found, "points"),
        Series("as predicted", ends, ends, kind="law"),
    ]
    return Panel(
        "Mean and noise are equal", "sqrt(lr wd/2)", "SNR at the crossing", series, "log", "log"
    )


def _limits(group: Group) -> Float[np.ndarray, "cells layers"]:
    rate, decay = (group[name].values[:, None] for name in AXES)
    return expected_size(group["snr"].values[None], rate, decay)
