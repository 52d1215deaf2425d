"""Records as `bayesfilt compare` writes them, made of formulas instead of training.

Numbers have the size and the shape of real ones: losses fall, trajectories part from their
noise floor, gains follow the closed form with scatter. All formulas here are written out
again, in NumPy, so that a figure is not tested against itself.
"""

import numpy as np

from bayesfilt.records import Group, Record, variable
from tests.figures import grids, inferences

LEADER = "adamw"
FOLLOWERS = ("adabayes_fixed_point", "adabayes", "steady_state")
EIGHT_FOLLOWERS = (
    "adabayes_fixed_point",
    "adabayes",
    "steady_state",
    "adam",
    "adam_large_eps",
    "sgdw",
    "my_optimizer",
    "another-optimizer-with-a-long-name",
)
LAYERS = ("dense_0", "dense_1")
PARTS = ("decay", "variance", "momentum", "eps")
REGIMES = ("sgd", "adam", "mean_square")
CONVENTIONS = ("lr_scaled", "paper", "filter")


def _steps(num_records: int) -> np.ndarray:
    return 10 * np.arange(num_records)


def free_group(followers=FOLLOWERS, num_records=201, seed=0) -> Group:
    """Free-running training: a classifier that learns, followers that drift from the leader."""
    rng = np.random.default_rng(seed)
    runs, step = (LEADER, *followers), _steps(num_records)
    shape = (len(runs), num_records)
    pace = 1 + 0.15 * np.arange(len(runs))[:, None]
    smooth = 2.3 / (1 + step * pace / 60) + 0.012
    loss = smooth * np.exp(0.25 * rng.standard_normal(shape))
    accuracy = 1 - 0.9 / (1 + step * pace / 40) - 0.015
    noise = np.minimum(1e-15 * np.exp(step / 90), 3e-3)
    start = 10.0 ** -np.linspace(2.5, 6, len(runs))[:, None]
    distance = start * (1 - np.exp(-step / 300)) * np.exp(0.1 * rng.standard_normal(shape))
    distance[0] = 0
    return {
        "step": variable(("step",), step),
        "run": variable(("run",), np.array(runs)),
        "loss": variable(("run", "step"), loss, units="nats"),
        "test_loss": variable(("run", "step"), 1.1 * smooth + 0.05, units="nats"),
        "test_accuracy": variable(("run", "step"), accuracy),
        "weight_distance": variable(("run", "step"), distance),
        "predictive_kl": variable(("run", "step"), 0.3 * distance**2),
        "noise_weight_distance": variable(("step",), noise),
        "noise_loss_gap": variable(("step",), 0.3 * noise),
        "noise_predictive_kl": variable(("step",), 0.3 * noise**2),
        "divergence_horizon": variable((), np.array(1500)),
        "diverged_at": variable(("run",), np.full(len(runs), -1)),
    }


def shadow_group(followers=FOLLOWERS, layers=LAYERS, num_records=201, seed=1) -> Group:
    """Teacher-forced agreement; the last follower cannot be taken apart where there are several."""
    rng = np.random.default_rng(seed)
    step = _steps(num_records)
    shape = (len(followers), len(layers), num_records)
    size = 10.0 ** -np.linspace(0.7, 4, len(followers))[:, None, None]
    error = size * np.exp(0.2 * rng.standard_normal(shape)) * (1 + 3 * np.exp(-step / 100))
    share = np.array([0.1, 1.15, -0.35, 0.1])[:, None] + 0.04 * rng.standard_normal(
        (len(followers), len(PARTS), num_records)
    )
    share /= share.sum(axis=1, keepdims=True)
    if len(followers) > 1:
        share[-1] = np.nan
    return {
        "step": variable(("step",), step),
        "follower": variable(("follower",), np.array(followers)),
        "layer": variable(("layer",), np.array(layers)),
        "part": variable(("part",), np.array(PARTS)),
        "cosine": variable(("follower", "layer", "step"), 1 / np.sqrt(1 + error**2)),
        "relative_error": variable(("follower", "layer", "step"), error),
        "log_size_ratio": variable(("follower", "layer", "step"), -np.log1p(error)),
        "sign_agreement": variable(("follower", "layer", "step"), 1 / (1 + 0.3 * error)),
        "share": variable(("follower", "part", "step"), share),
    }


def gains_group(optimizers=FOLLOWERS, layers=LAYERS, num_weights=4_000, seed=2) -> Group:
    """Gains near the fixed point; a tenth of the weights (dead pixels) have no gradient."""
    rng = np.random.default_rng(seed)
    snapshot = np.array([0, 100, 500, 1990])
    shape = (len(optimizers), len(snapshot), num_weights)
    eta, sigma2 = 1e-3, 5e-3
    loudness = 10.0 ** np.linspace(1.0, -1.2, len(snapshot))[:, None]
    rms = loudness * np.exp(1.4 * rng.standard_normal(shape))
    rms[..., : num_weights // 10] = 0
    settled = 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + rms**2 / eta**2))
    scatter = 0.15 * np.arange(len(optimizers))[:, None, None]
    gain = settled * np.exp(scatter * rng.standard_normal(shape) * (rms > 0))
    edges = np.linspace(-8, -2, 49)
    counts = np.array(
        [[np.histogram(np.log10(one), edges)[0] for one in by_snapshot] for by_snapshot in gain]
    )
    quiet = 1 / (1 + loudness[:, 0] * np.linspace(1, 6, len(layers))[:, None])
    quiet = quiet * np.linspace(1, 0.7, len(optimizers))[:, None, None]
    loud = 0.02 * np.ones_like(quiet)
    fraction = np.stack([quiet, 1 - quiet - loud, loud], axis=2)
    both = ("optimizer", "snapshot")
    return {
        "optimizer": variable(("optimizer",), np.array(optimizers)),
        "snapshot": variable(("snapshot",), snapshot),
        "weight": variable(("weight",), np.arange(num_weights)),
        "layer": variable(("layer",), np.array(layers)),
        "regime": variable(("regime",), np.array(REGIMES)),
        "rms_gradient": variable((*both, "weight"), rms, units="1/weight"),
        "gain": variable((*both, "weight"), gain, units="weight^2"),
        "drift_scale": variable(both, np.full(shape[:2], eta)),
        "stationary_variance": variable(both, np.full(shape[:2], sigma2)),
        "regime_fraction": variable(("optimizer", "layer", "regime", "snapshot"), fraction),
        "log10_gain_bin": variable(("log10_gain_bin",), 0.5 * (edges[1:] + edges[:-1])),
        "gain_count": variable((*both, "log10_gain_bin"), counts),
    }


def decay_group(optimizers=(LEADER, *FOLLOWERS), num_records=201, cosine=True) -> Group:
    """A shrink of 1e-4 under a cosine (or constant) schedule; float32 loses some of it."""
    step = _steps(num_records)
    factor = 0.5 * (1 + np.cos(np.pi * step / step[-1])) if cosine else np.ones(num_records)
    conventions = 1e-4 * np.stack([factor, factor, factor**2])
    intended = np.array([conventions[2 if "adabayes" in name else 0] for name in optimizers])
    realised = intended * (1 + 1e-3 * np.sin(step / 7.0))
    with np.errstate(divide="ignore"):
        timescale = 1 / realised
    return {
        "step": variable(("step",), step),
        "optimizer": variable(("optimizer",), np.array(optimizers)),
        "convention": variable(("convention",), np.array(CONVENTIONS)),
        "realised_shrink": variable(("optimizer", "step"), realised),
        "intended_shrink": variable(("optimizer", "step"), intended),
        "convention_shrink": variable(("convention", "step"), conventions),
        "ema_timescale": variable(("optimizer", "step"), timescale, units="steps"),
        "decay_kept": variable(("optimizer",), np.linspace(0.97, 1.06, len(optimizers))),
    }


def validity_group(ratios=(1e-6, 1e-4, 1e-2, 0.5), num_points=121) -> Group:
    """The exact root of the variance recursion and what approximates it, with eta = 1."""
    x = np.geomspace(1e-6, 1e4, num_points)
    ratio = np.array(ratios)[:, None]
    sigma2 = 0.5 / ratio
    retained = np.exp(-2 * ratio)
    added = -sigma2 * np.expm1(-2 * ratio)
    linear = x**2 * added + 1 - retained
    exact = 2 * added / (linear + np.sqrt(linear**2 + 4 * x**2 * retained * added))
    two = ("prior_ratio", "rms_times_drift")
    return {
        "rms_times_drift": variable(("rms_times_drift",), x),
        "prior_ratio": variable(("prior_ratio",), np.array(ratios)),
        "exact": variable(two, exact),
        "fixed_point": variable(two, 1 / (0.5 / sigma2 + np.sqrt(0.25 / sigma2**2 + x**2))),
        "adam": variable(("rms_times_drift",), 1 / x),
        "mean_square": variable(("rms_times_drift",), 1 / x**2),
        "sgd": variable(("prior_ratio",), sigma2[:, 0]),
    }


def record(**settings) -> Record:
    """All groups at the top level."""
    groups = {
        "free": free_group(),
        "shadow": shadow_group(),
        "gains": gains_group(),
        "decay": decay_group(),
        "validity": validity_group(),
        "heatmaps": grids.heatmaps_group(),
        "anytime": grids.anytime_group(),
        "curves": grids.curves_group(),
        "matched": grids.matched_group(),
        "budgets": grids.budgets_group(),
        "inferred_decay": grids.inferred_decay_group(),
        "panels": grids.panels_group(),
        "foretold": inferences.foretold_group(),
        "shrink": inferences.shrink_group(),
        "comparison": inferences.comparison_group(),
        "calibration": inferences.calibration_group(),
        "instruments": inferences.instruments_group(),
    }
    return Record(groups=groups | settings, attributes={"tasks": ["digits-mlp"]})


def with_values(group: Group, **values) -> Group:
    """The same group with other numbers in some variables."""
    changed = {
        name: variable(group[name].dims, new, **group[name].attributes)
        for name, new in values.items()
    }
    return group | changed


def without_accuracy() -> Group:
    """A task that is no classifier: accuracy NaN, the other held-out numbers missing."""
    group = free_group()
    nothing = np.full(group["test_accuracy"].values.shape, np.nan)
    absent = ("test_loss", "predictive_kl", "noise_predictive_kl")
    group = {name: each for name, each in group.items() if name not in absent}
    return with_values(group, test_accuracy=nothing)


def diverged() -> Group:
    """The last follower blows up at step 500 and is not a number from step 600 on."""
    group = free_group()
    step = group["step"].values
    loss, distance = group["loss"].values.copy(), group["weight_distance"].values.copy()
    for values in (loss, distance):
        values[-1, step >= 500] = 1e30
        values[-1, step >= 600] = np.nan
        values[-1, step == 590] = np.inf
    ends = np.where(np.arange(len(loss)) == len(loss) - 1, 500, -1)
    return with_values(group, loss=loss, weight_distance=distance, diverged_at=ends)


def equal_to_the_leader() -> Group:
    """Followers that never leave the leader, and a horizon that was never reached."""
    group = free_group()
    nothing = np.zeros(group["weight_distance"].values.shape)
    return with_values(
        group, weight_distance=nothing, predictive_kl=nothing, divergence_horizon=np.array(-1)
    )


def falling_below_zero() -> Group:
    """A saddle: the loss has no floor at zero."""
    group = free_group()
    return with_values(group, loss=1 - group["step"].values * np.ones(group["loss"].values.shape))


def odd_names() -> tuple[str, ...]:
    """Names that a careless figure takes for formulas, or cannot fit."""
    return ("pay_$5_or_$6", "50%_{x}^2", "λ-адам", "x" * 70, "a b" * 12)


def silent_gradients() -> Group:
    """Every gradient zero for ever, under a random walk (no prior) and no optimizer without."""
    group = gains_group()
    both = group["stationary_variance"].values.shape
    shape = group["gain"].values.shape
    return with_values(
        group,
        rms_gradient=np.zeros(shape),
        gain=np.full(shape, 0.01),
        stationary_variance=np.full(both, np.inf),
    )


def gains_not_available() -> Group:
    """The last optimizer has no posterior variance, and no state-space model behind it."""
    group = gains_group()
    gain, eta = group["gain"].values.copy(), group["drift_scale"].values.copy()
    sigma2, count = group["stationary_variance"].values.copy(), 1.0 * group["gain_count"].values
    fraction = group["regime_fraction"].values.copy()
    for values in (gain, eta, sigma2, count, fraction):
        values[-1] = np.nan
    return with_values(
        group,
        gain=gain,
        drift_scale=eta,
        stationary_variance=sigma2,
        gain_count=count,
        regime_fraction=fraction,
    )


def without_decay() -> Group:
    """No decay anywhere: shrinks of zero, timescales without end, nothing to keep."""
    group = decay_group()
    shape = group["realised_shrink"].values.shape
    return with_values(
        group,
        realised_shrink=np.zeros(shape),
        intended_shrink=np.zeros(shape),
        convention_shrink=np.zeros(group["convention_shrink"].values.shape),
        ema_timescale=np.full(shape, np.inf),
        decay_kept=np.full(shape[0], np.nan),
    )


def agreement_to_rounding() -> Group:
    """A follower that is the leader: errors of one rounding or none, shares of a gap of zero."""
    group = shadow_group(followers=("adamw",))
    cosine = group["cosine"].values
    return with_values(
        group,
        cosine=np.ones(cosine.shape) - 1e-16,
        relative_error=np.zeros(cosine.shape),
        log_size_ratio=1e-17 * np.ones(cosine.shape),
        sign_agreement=np.ones(cosine.shape),
        share=np.full(group["share"].values.shape, np.nan),
    )


def odd_cases() -> dict[str, tuple[str, Group]]:
    """What a figure must survive: case -> (figure, the group it draws)."""
    layers = ("conv_0", "conv_1", "dense_0", "dense_1", "layer_norm_0", "layer_norm_1", "out")
    many = gains_group(EIGHT_FOLLOWERS, layers[:4], num_weights=200)
    crowd = shadow_group(EIGHT_FOLLOWERS, layers, num_records=21)
    return {
        "no followers": ("training", free_group(())),
        "eight followers": ("training", free_group(EIGHT_FOLLOWERS, num_records=41)),
        "odd names": ("training", free_group(odd_names(), num_records=41)),
        "no accuracy": ("training", without_accuracy()),
        "diverged": ("training", diverged()),
        "equal to the leader": ("training", equal_to_the_leader()),
        "below zero": ("training", falling_below_zero()),
        "one record": ("training", free_group(num_records=1)),
        "one follower, forced": ("agreement", shadow_group(FOLLOWERS[:1], layers[:1])),
        "eight followers, seven layers": ("agreement", crowd),
        "odd layers": ("agreement", shadow_group(odd_names(), ("block_0/attention/key",))),
        "rounding": ("agreement", agreement_to_rounding()),
        "one forced record": ("agreement", shadow_group(num_records=1)),
        "eight shares": ("shares", crowd),
        "no share": ("shares", agreement_to_rounding()),
        "eight gains": ("crossover", many),
        "odd gains": ("crossover", gains_group(odd_names(), num_weights=200)),
        "silent gradients": ("crossover", silent_gradients()),
        "one without gains": ("crossover", gains_not_available()),
        "histograms of eight": ("gains", many),
        "histograms of silence": ("gains", silent_gradients()),
        "regimes in four layers": ("regimes", many),
        "constant shrink": ("decay", decay_group(cosine=False)),
        "no decay": ("decay", without_decay()),
        "eight decays": ("decay", decay_group((LEADER, *EIGHT_FOLLOWERS))),
        "one ratio": ("validity", validity_group(ratios=(1e-3,))),
        "one heatmap": ("heatmaps", grids.heatmaps_group(("AdamW",))),
        "six heatmaps": ("heatmaps", grids.heatmaps_group(grids.TITLES * 2)),
        "a small heatmap": ("heatmaps", grids.heatmaps_group(num_rates=3, num_decays=3)),
        "no valley": ("heatmaps", grids.without_valley()),
        "odd curves": ("curves", grids.curves_group(odd_names())),
        "one record of curves": ("curves", grids.courses(("adamw",), ("test_error",), 1)),
        "no restarts": ("anytime", grids.anytime_group(restarts=())),
        "eight at matched loss": ("matched", grids.matched_group(EIGHT_FOLLOWERS)),
        "no budget inside": ("budgets", grids.budgets_group(inside=False)),
        "no decay known": ("inferred-decay", grids.inferred_decay_group(known=False)),
        "six readings": (
            "inferred-decay",
            grids.inferred_decay_group([f"reading {index} of optima" for index in range(6)]),
        ),
        "many ratios": ("validity", validity_group(ratios=np.geomspace(1e-12, 0.9, 40))),
    }
