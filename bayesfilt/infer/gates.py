"""What draws must pass before anybody believes them, and in which words they fail.

A fit that fails is kept and marked: every table and figure made of it says so.
"""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesfilt.checks import require_finite, require_non_negative, require_positive
from bayesfilt.infer.variational import STEADY_BLOCKS
from bayesfilt.records import as_plain

if TYPE_CHECKING:
    import xarray

TAILS = (0.05, 0.95)  # quantiles whose estimates `ess_tail` counts the effective draws of
FEWEST_WEIGHTS = 25  # arviz fits the tail to a fifth of them, and to no fewer than five
_SAMPLE_DIMS = ["chain", "draw"]


class Limits(NamedTuple):
    """Where the gates stand (Vehtari et al. 2021 and 2024, Betancourt 2016)."""

    r_hat: float = 1.01  # rank-normalised and split; below
    ess: float = 400.0  # effective draws of all chains together, in the bulk and the tails; above
    divergences: int = 0  # at most
    bfmi: float = 0.3  # share of the energy's variance that one step renews; above
    pareto_k: float = 0.7  # of an approximation's importance weights; below


class Gate(NamedTuple):
    """One row of the table: the worst value that was found, and where."""

    name: str
    value: float  # NaN where it cannot be had; that fails
    wanted: str
    where: str  # the parameter, or the chain; empty where there is only one
    passes: bool


class Gates(NamedTuple):
    """The worst value over all parameters; None where a gate does not apply to the method."""

    r_hat: float | None
    ess_bulk: float | None
    ess_tail: float | None
    divergences: float | None
    bfmi: float | None
    pareto_k: float | None
    rows: tuple[Gate, ...]
    failures: tuple[str, ...]  # in words

    @property
    def passes(self) -> bool:
        """Whether the fit may be believed, as far as these gates can tell."""
        return not self.failures


def check_limits(limits: Limits) -> None:
    """Refuse limits that every fit would pass, or none."""
    require_finite("Limits", "r_hat", limits.r_hat)
    if limits.r_hat <= 1:
        raise ValueError(f"Limits needs r_hat > 1, got r_hat={limits.r_hat:g}.")
    require_non_negative("Limits", "ess", limits.ess)
    require_non_negative("Limits", "divergences", limits.divergences)
    require_non_negative("Limits", "bfmi", limits.bfmi)
    require_positive("Limits", "pareto_k", limits.pareto_k)


def judge_gates(tree: "xarray.DataTree", limits: Limits | None = None) -> Gates:
    """Hold the draws in a fit's tree against the gates.

    Draws that never move, or are NaN, fail whatever the other gates make of them: by the usual
    formula all draws of a constant are effective. One chain fails: nothing tells then whether
    it found all of the posterior.

    Args:
        tree: groups posterior and sample_stats, attributes method, num_samples (wanted, of each
            chain) and, of an approximation, elbo and elbo_error.
        limits: by default `Limits()`.

    Raises:
        ValueError: limits that every fit would pass, or none.
    """
    limits = Limits() if limits is None else limits
    check_limits(limits)
    rows = list(
        _gates_of_guide(tree, limits)
        if tree.attrs["method"] == "svi"
        else _gates_of_chains(tree, limits)
    )
    values = {row.name: row.value for row in rows}
    return Gates(
        r_hat=values.get("r-hat"),
        ess_bulk=values.get("ESS, bulk"),
        ess_tail=values.get("ESS, tails"),
        divergences=values.get("divergences"),
        bfmi=values.get("BFMI"),
        pareto_k=values.get("Pareto k"),
        rows=tuple(rows),
        failures=(*_interruption(tree), *_bad_draws(tree), *map(_in_words, _failing(rows))),
    )


def gate_table(gates: Gates) -> list[dict[str, Any]]:
    """Rows for a report: gate, value, wanted, where, passes."""
    return [row._asdict() for row in gates.rows]


def diagnostics(posterior: "xarray.Dataset") -> dict[str, "xarray.Dataset"]:
    """r_hat (rank-normalised, split), ess_bulk and ess_tail of every variable, by arviz."""
    import arviz

    # 0/0 where draws are constant: a NaN, which fails; `_bad_draws` says it in words.
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "r_hat": arviz.rhat(posterior, sample_dims=_SAMPLE_DIMS, method="rank"),
            "ess_bulk": arviz.ess(posterior, sample_dims=_SAMPLE_DIMS, method="bulk"),
            "ess_tail": arviz.ess(posterior, sample_dims=_SAMPLE_DIMS, method="tail", prob=TAILS),
        }


def gates_as_json(gates: Gates) -> str:
    """As a tree's attribute holds them."""
    return json.dumps(as_plain(gates))


def gates_from_json(text: str) -> Gates:
    """What `gates_as_json` wrote."""
    fields = json.loads(text)
    rows = tuple(Gate(**row) for row in fields.pop("rows"))
    return Gates(rows=rows, failures=tuple(fields.pop("failures")), **fields)


def _gates_of_chains(tree: "xarray.DataTree", limits: Limits) -> Iterator[Gate]:
    import arviz

    measured, stats = diagnostics(tree["posterior"].to_dataset()), tree["sample_stats"].to_dataset()
    value, where = _worst(measured["r_hat"], largest=True)
    yield Gate("r-hat", value, f"< {limits.r_hat:g}", where, value < limits.r_hat)
    for name, column in (("ESS, bulk", "ess_bulk"), ("ESS, tails", "ess_tail")):
        value, where = _worst(measured[column], largest=False)
        yield Gate(name, value, f"> {limits.ess:g}", where, value > limits.ess)
    count = float(stats["diverging"].sum())
    yield Gate("divergences", count, f"<= {limits.divergences}", "", count <= limits.divergences)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where the energy never changes
        bfmi = arviz.bfmi(stats, sample_dims=_SAMPLE_DIMS)
    value, where = _worst(bfmi, largest=False)
    yield Gate("BFMI", value, f"> {limits.bfmi:g}", where, value > limits.bfmi)


def _gates_of_guide(tree: "xarray.DataTree", limits: Limits) -> Iterator[Gate]:
    k = pareto_k(tree["sample_stats"].to_dataset()["log_weight"].values.ravel())
    yield Gate("Pareto k", k, f"< {limits.pareto_k:g}", "", k < limits.pareto_k)
    before, last = STEADY_BLOCKS - 2, STEADY_BLOCKS - 1
    bounds, errors = tree.attrs["elbo"], tree.attrs["elbo_error"]
    gain = float(bounds[last] - bounds[before])
    # A tenth of a nat moves no parameter by half its posterior standard deviation.
    allowed = 0.1 + 3 * math.hypot(errors[last], errors[before])
    yield Gate("last gain of the ELBO", gain, f"< {allowed:.2g}", "", gain < allowed)


def pareto_k(log_weights: np.ndarray) -> float:
    """Shape of the Pareto tail of importance weights, by arviz.

    NaN where one is not finite, or where they are too few to have a tail.
    """
    import arviz  # noqa: F401  (gives xarray its `azstats`)
    import xarray

    if not np.isfinite(log_weights).all() or log_weights.size < FEWEST_WEIGHTS:
        return math.nan
    # arviz takes log densities of what is left out: the log weights with the other sign.
    left_out: Any = xarray.DataArray(-log_weights, dims=["draw"])
    return float(left_out.azstats.psislw(dim="draw")[1])


def _worst(values: "xarray.Dataset", *, largest: bool) -> tuple[float, str]:
    """The worst number in a data set, and its name; NaN is the worst of all."""
    worst, where = -math.inf if largest else math.inf, ""
    for name, array in values.data_vars.items():
        for index, value in np.ndenumerate(array.values):
            value = float(value)
            if math.isnan(value):
                return math.nan, _label(str(name), array, index)
            if (value > worst) if largest else (value < worst):
                worst, where = value, _label(str(name), array, index)
    return worst, where


def _label(name: str, array: "xarray.DataArray", index: tuple[int, ...]) -> str:
    """Such as `shrink[fc1]`, or `energy[chain 1]`."""
    parts = []
    for dim, place in zip(array.dims, index, strict=True):
        label = array[dim].values[place] if dim in array.coords else place
        parts.append(str(label) if dim == "layer" else f"{dim} {label}")
    return f"{name}[{', '.join(parts)}]" if parts else name


def _interruption(tree: "xarray.DataTree") -> Iterator[str]:
    there, wanted = tree["posterior"].sizes["draw"], int(tree.attrs["num_samples"])
    if there < wanted:
        yield f"interrupted: {there} of {wanted} draws of each chain"


def _bad_draws(tree: "xarray.DataTree") -> Iterator[str]:
    """What is wrong with the draws themselves, one finding a parameter."""
    posterior = tree["posterior"].to_dataset()
    if tree.attrs["method"] != "svi" and posterior.sizes["chain"] < 2:
        yield "one chain: r-hat, which compares chains, needs two or more"
    for name, array in posterior.data_vars.items():
        draws = np.moveaxis(array.values, (0, 1), (-2, -1))
        rest = draws.shape[:-2]
        finite = np.isfinite(draws).all(axis=(-2, -1))
        still = finite & (np.ptp(np.where(np.isfinite(draws), draws, 0), axis=-1) == 0).any(axis=-1)
        bare = array.isel(chain=0, draw=0, drop=True)
        for found, problem in ((~finite, "has draws that are not finite"), (still, "never moves")):
            places = [index for index in np.ndindex(rest) if found[index]]
            if places:
                more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
                yield f"{_label(str(name), bare, places[0])} {problem}{more}"


def _failing(rows: list[Gate]) -> Iterator[Gate]:
    return (row for row in rows if not row.passes)


def _in_words(row: Gate) -> str:
    of = f" of {row.where}" if row.where else ""
    digits = 5 if row.name == "r-hat" else 4  # 1.0101 fails, and is not 1.01
    return f"{row.name}{of} is {row.value:.{digits}g}, wanted {row.wanted}"
