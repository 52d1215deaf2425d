"""Grids and curves of sweeps as records hold them, made of formulas instead of training.

Written out by hand, variable by variable, so that no figure is tested against the code that
makes its group.
"""

import numpy as np

from bayesfilt.records import Group, variable
from experiments import panels
from experiments.panels import Panel, Series

TITLES = ("Adam + L2, cosine", "AdamW, cosine", "SGDW, cosine")


def heatmaps_group(titles=TITLES, num_rates=9, num_decays=9, diverging=True) -> Group:
    """Valleys turned by 0, 45, ... degrees; the largest rates diverge, some seeds before."""
    rates, decays = np.geomspace(2.0**-11, 2.0**-3, num_rates), np.geomspace(1e-3, 10, num_decays)
    u, v = np.meshgrid(np.log(rates / 0.01), np.log(decays / 0.1), indexing="ij")
    shape = (len(titles), num_rates, num_decays)
    medians, chosen, valleys, best = np.zeros(shape), np.zeros(shape), [], []
    for index in range(len(titles)):
        slant = 0.8 * index
        medians[index] = 0.1 * np.exp(0.04 * u**2 + 0.03 * (v + slant * u) ** 2)
        chosen[index] = np.exp(-50 * (medians[index] / medians[index].min() - 1))
        chosen[index] /= chosen[index].sum()
        valleys.append(0.1 * (rates / 0.01) ** -slant)
        best.append(np.unravel_index(np.argmin(medians[index]), medians[index].shape))
    diverged = np.zeros(shape)
    if diverging:
        diverged[:, -1, :], diverged[:, -2, -2:] = 1.0, 0.2
        medians[:, -1, :] = np.inf
    grid, both = ("panel", "rate", "decay"), ("panel", "parametrisation")
    term = np.linspace(-0.6, 0.3, 2 * len(titles)).reshape(-1, 2)
    price = np.linspace(0.02, 0.31, 2 * len(titles)).reshape(-1, 2)
    valley = np.array(valleys)
    valley[:, -1] = np.nan
    return {
        "panel": variable("panel", list(titles)),
        "parametrisation": variable("parametrisation", ["lr_scaled", "paper"]),
        "learning_rate": variable(("panel", "rate"), np.tile(rates, (len(titles), 1))),
        "weight_decay": variable(("panel", "decay"), np.tile(decays, (len(titles), 1))),
        "median_error": variable(grid, medians, description="test error"),
        "diverged": variable(grid, diverged),
        "chosen": variable(grid, chosen),
        "region": variable(grid, chosen > 0.05),
        "ridge": variable(("panel", "rate"), valley),
        "best_cell": variable(("panel", "axis"), np.array(best)),
        "off_diagonal": variable(both, term),
        "off_diagonal_low": variable(both, term - 0.1),
        "off_diagonal_high": variable(both, term + 0.1),
        "ridge_angle": variable(both, 75 * term),
        "ridge_angle_low": variable(both, 75 * term - 4),
        "ridge_angle_high": variable(both, 75 * term + 4),
        "carried_regret": variable(both, price),
        "carried_regret_low": variable(both, price - 0.05),
        "carried_regret_high": variable(both, price + 0.06),
    }


def without_valley() -> Group:
    """Grids too flat or too small to say where their valley lies, all runs of one diverged."""
    group = heatmaps_group()
    lost = {
        name: variable(each.dims, np.full(each.values.shape, np.nan))
        for name, each in group.items()
        if name.startswith(("off_diagonal", "ridge"))
    }
    medians = group["median_error"].values.copy()
    medians[-1, :, :-1] = np.inf
    return group | lost | {"median_error": variable(("panel", "rate", "decay"), medians)}


def courses(names, quantities, num_records=21) -> Group:
    """Curves that fall at a pace of their own, with an interval and an envelope."""
    step = 150 * np.arange(num_records)
    pace = 1 + 0.3 * np.arange(len(names))[:, None]
    group = {"optimizer": variable("optimizer", list(names)), "step": variable("step", step)}
    for turn, name in enumerate(quantities):
        values = 0.05 * (turn + 1) + 1.5 / (1 + pace * step / 200)
        both = ("optimizer", "step")
        group[name] = variable(both, values)
        group[f"{name}_low"] = variable(both, 0.9 * values)
        group[f"{name}_high"] = variable(both, 1.15 * values)
        group[f"{name}_envelope"] = variable(both, 0.8 * values)
    return group


def anytime_group(names=("adamw", "adam"), restarts=(200, 600, 1400)) -> Group:
    """Test error, with the steps at which a schedule begins again."""
    group = courses(names, ("test_error",))
    return group | ({"restart": variable("restart", list(restarts))} if restarts else {})


def curves_group(names=("adamw", "adam", "sgdw")) -> Group:
    """Training loss, test loss and test error."""
    return courses(names, ("loss", "test_loss", "test_error"))


def matched_group(names=("adamw", "adam"), num_runs=120) -> Group:
    """Runs with losses over decades; the first optimizer errs less at every one of them."""
    rng = np.random.default_rng(3)
    loss = 10 ** rng.uniform(-4, 0.3, (len(names), num_runs))
    error = 0.1 + 0.02 * np.arange(len(names))[:, None] + 0.01 * np.abs(np.log(loss))
    error *= np.exp(0.1 * rng.standard_normal(loss.shape))
    loss[:, 0] = np.nan
    edges = np.geomspace(1e-4, 1, 9)
    middle = np.sqrt(edges[1:] * edges[:-1])
    medians = 0.1 + 0.02 * np.arange(len(names))[:, None] + 0.01 * np.abs(np.log(middle))
    medians[0, 0] = np.nan
    return {
        "optimizer": variable("optimizer", list(names)),
        "training_loss": variable(("optimizer", "run"), loss),
        "test_error": variable(("optimizer", "run"), error),
        "bin_loss": variable("bin", middle),
        "bin_error": variable(("optimizer", "bin"), medians),
    }


def budgets_group(tasks=("300 points, 20 % noise", "all points"), inside=True) -> Group:
    """The best decay of three lengths of a run, one of which the grid does not hold."""
    budgets = np.array([750, 3000, 12000])
    best = 1e-4 * np.outer(np.arange(1, len(tasks) + 1), (budgets / 3000) ** -0.5)
    best[-1, 0] = np.nan
    best = best if inside else np.full_like(best, np.nan)
    laws = np.stack([(budgets / 3000) ** -0.5, np.ones(3)])
    return {
        "task": variable("task", list(tasks)),
        "budget": variable("budget", budgets),
        "best": variable(("task", "budget"), best),
        "best_low": variable(("task", "budget"), 0.7 * best),
        "best_high": variable(("task", "budget"), 1.5 * best),
        "law": variable("law", ["1/sqrt(steps)", "constant"]),
        "predicted": variable(("task", "law", "budget"), 1e-4 * np.tile(laws, (len(tasks), 1, 1))),
    }


def inferred_decay_group(
    readings=("optimum at every step, shrinking to zero", "gradients, shrinking to a mean"),
    known=True,
) -> Group:
    """Decays of two layers around the reference; one below all that is seen, one not known."""
    rates, decays = np.geomspace(1e-3, 8e-3, 3), np.array([0.5, 4.0])
    reference = np.outer(rates, decays)
    factors = np.geomspace(0.3, 30, 2 * len(readings)).reshape(len(readings), 2, 1, 1)
    decay = factors * reference**0.8
    edge = np.zeros(decay.shape)
    edge[0, 0, 0, 0], edge[-1, 1, 2, 1] = -1, 1
    decay[-1, 0, 0, 1] = np.nan
    decay = decay if known else np.full_like(decay, np.nan)
    where = ("reading", "layer", "learning_rate", "weight_decay")
    return {
        "reading": variable("reading", list(readings)),
        "layer": variable("layer", ["dense_0", "dense_1"]),
        "learning_rate": variable("learning_rate", rates),
        "reference": variable(
            ("learning_rate", "weight_decay"), reference, description="decay per step that was set"
        ),
        "near": variable((), 2.0),
        "decay": variable(where, decay),
        "decay_low": variable(where, 0.6 * decay),
        "decay_high": variable(where, 1.5 * decay),
        "edge": variable(where, edge),
    }


def panels_group() -> Group:
    """A line with a band, points with bars, a law; a guide; words for places; none known."""
    x = np.arange(1.0, 13.0)
    line = Series("adamw", x, x**-0.5, low=0.8 * x**-0.5, high=1.2 * x**-0.5)
    law = Series("slope -1/2", x, x**-0.5, kind="law")
    bars = Series("measured", [0, 1], [1.5, 0.5], low=[1.0, 0.2], high=[2.0, 0.9], kind="points")
    nothing = Series("measured", [1.0, 2.0], [np.nan, np.nan])
    return panels.panels_group(
        [
            Panel("decay", "steps", "shrink per step", [line, law], guide=0.5),
            Panel("worlds", "world", "ratio", [bars], guide=1.0, places=("digits", "matched")),
            Panel("unknown", "steps", "loss (nats)", [nothing]),
        ]
    )
