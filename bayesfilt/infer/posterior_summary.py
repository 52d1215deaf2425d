"""A fit's numbers as rows for a table."""

from typing import Any

import numpy as np

from bayesfilt.infer.fit import Fit
from bayesfilt.infer.gates import TAILS

PROBABILITY = 0.9  # that the interval holds; equal tails


def posterior_rows(fit: Fit, *, streams: bool = False) -> list[dict[str, Any]]:
    """One row for each parameter and layer.

    Args:
        fit: whose gates say whether to believe the rows.
        streams: whether each stream's own numbers have rows too, where the model has them.

    Returns:
        Rows of parameter, layer (a name), stream (a number, or None), mean, standard_deviation,
        median, low, high (the interval with 5 % of the draws on either side), r_hat, ess_bulk and
        ess_tail (NaN for an approximation: its draws are independent, and of the guide).
    """
    import arviz

    names = [
        str(name)
        for name, array in fit.tree["posterior"].data_vars.items()
        if _is_reported(str(name), streams=streams)
    ]
    posterior = fit.tree["posterior"].to_dataset()[names]
    draws = ["chain", "draw"]
    low, median, high = posterior.quantile([0.05, 0.5, 0.95], dim=draws)
