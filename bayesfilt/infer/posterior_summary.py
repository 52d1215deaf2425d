"""A fit's numbers as rows for a table."""

import math
from typing import Any

import numpy as np

from bayesfilt.infer.fit import Fit
from bayesfilt.infer.gates import diagnostics
from bayesfilt.infer.state_space import parameter_names

INTERVAL = (0.05, 0.95)  # quantiles: equal tails, 90 %


def posterior_rows(fit: Fit, *, by_stream: bool = False) -> list[dict[str, Any]]:
    """One row for each number of the model and each layer; `fit.gates` says whether to believe it.

    Args:
        fit: of any method.
        by_stream: rows for the streams' own numbers instead, where the model has them.

    Returns:
        Rows of parameter, layer (its name; of a stream too), stream (its index, or None), mean,
        standard_deviation, median, low and high (90 % between them, 5 % on either side), r_hat,
        ess_bulk, ess_tail (NaN for an approximation: its draws are independent).
    """
    posterior = fit.tree["posterior"].to_dataset()
    names = [*parameter_names(fit.model, fit.tree.attrs["kind"]), "shrink"]
    wanted = [f"{name}_of_stream" for name in names] if by_stream else names
    posterior = posterior[[name for name in wanted if name in posterior]]
    if not posterior:
        return []
    layers = fit.tree["constant_data"].to_dataset()["layer"].values
    layer_names = fit.tree["log_likelihood"].to_dataset()["layer"].values
    measured = diagnostics(posterior) if fit.tree.attrs["method"] == "nuts" else {}
    rows = []
    for name, array in posterior.data_vars.items():
        draws = array.values.reshape(-1, array.shape[-1])
        low, median, high = np.quantile(draws, (INTERVAL[0], 0.5, INTERVAL[1]), axis=0)
        for place in range(array.shape[-1]):
            rows.append(
                {
                    "parameter": str(name).removesuffix("_of_stream"),
                    "layer": str(layer_names[layers[place] if by_stream else place]),
                    "stream": place if by_stream else None,
                    "mean": float(draws[:, place].mean()),
                    "standard_deviation": float(draws[:, place].std(ddof=1)),
                    "median": float(median[place]),
                    "low": float(low[place]),
                    "high": float(high[place]),
                    **{
                        column: float(measured[column][name].values[place])
                        if measured
                        else math.nan
                        for column in ("r_hat", "ess_bulk", "ess_tail")
                    },
                }
            )
    return rows
