"""Two laws of the size of weights under AdamW, and how to tell them apart by their exponents.

White gradients give sqrt(lr/(2 wd)), gradients that agree in time 1/wd.
"""

import numpy as np
from jaxtyping import Float

from bayesfilt.records import Group
from experiments.contract import (
    INTERVAL,
    Verdict,
    all_of,
    margin_of,
    margin_of_all,
    spelled,
    within,
)
from experiments.coordinates import interval_over_seeds
from experiments.layer_sizes import median_of, power_law

AXES = ("learning_rate", "weight_decay")
# Exponents in both: of noise, and of gradients that agree.
NOISY, AGREEING = (0.5, -0.5), (0.0, -1.0)
SLOPE_BAND = 0.125  # a quarter of the way from one law to the other


def size_goes_as(
    claim: str, group: Group, sizes: Float[np.ndarray, "cells seeds"], law: tuple[float, float]
) -> Verdict:
    """Whether the exponents of a size are those of a law.

    Args:
        claim: in words.
        group: has the learning rate and the decay of every cell.
        sizes: of the same cells.
        law: exponents of the learning rate and of the decay.
    """
    axes = {name: group[name].values for name in AXES if len(np.unique(group[name].values)) > 1}
    found = [
        interval_over_seeds(
            lambda drawn, name=name: power_law(median_of(drawn), axes).get(name, float("nan")),
            sizes,
        )
        for name in AXES
    ]
    bands = [(exponent - SLOPE_BAND, exponent + SLOPE_BAND) for exponent in law]
    parts = [within(each, *band) for each, band in zip(found, bands, strict=True)]
    margins = [margin_of(each, *band) for each, band in zip(found, bands, strict=True)]
    return Verdict(
        claim=claim,
        measured=f"exponents {spelled(found[0])} of the learning rate, {spelled(found[1])} of the"
        " decay",
        expected=f"{law[0]:g} and {law[1]:g}",
        tolerance=f"within {SLOPE_BAND:g} of both, a quarter of the way to the other law;"
        f" {INTERVAL}",
        holds=all_of(*parts),
        margin=margin_of_all(margins, parts),
    )
