"""Inferences as records hold them, made of formulas instead of sampling."""

import numpy as np

from bayesfilt.records import Group, variable

LAYERS = ("dense_0", "dense_1")
MANY_LAYERS = ("conv_0", "conv_1", "dense_0", "dense_1", "block_0/attention/key", "out")
MODELS = ("static", "random_walk", "ornstein_uhlenbeck", "nonzero_mean", "l2", "velocity")
_SHRINKING = ("ornstein_uhlenbeck", "nonzero_mean")


def foretold_group(layers=LAYERS, each=8, num_steps=300, seed=0, failed=False) -> Group:
    """Mean-reverting streams with a gap, a band that starts wide."""
    rng = np.random.default_rng(seed)
    count = each * len(layers)
    observed = np.zeros((count, num_steps))
    for step in range(1, num_steps):
        observed[:, step] = 0.97 * observed[:, step - 1] + 0.01 * rng.standard_normal(count)
    mean = np.concatenate([np.zeros((count, 1)), 0.97 * observed[:, :-1]], axis=1)
    deviation = np.full((count, num_steps), 0.01)
    deviation[:, 0] = 5.0
    observed[-1, num_steps // 3 : num_steps // 2] = np.nan
    return {
        "step": variable("step", 100 + np.arange(num_steps)),
        "stream": variable("stream", [str(17 * index) for index in range(count)]),
        "layer_of": variable("stream", np.repeat(layers, each)),
        "observed": variable(("stream", "step"), observed, label="coordinate optimum\n(weight)"),
        "one_step_mean": variable(
            ("stream", "step"), mean, model="ornstein_uhlenbeck", failed=failed
        ),
        "one_step_deviation": variable(("stream", "step"), deviation),
    }


def shrink_group(models=_SHRINKING, layers=LAYERS, failed=(), set_decay=1e-4) -> Group:
    """Log-normal posteriors, each layer's a little further to the right; a broad prior."""
    shrink = np.geomspace(1e-7, 1, 200)
    shape = (len(models), len(layers))
    middle = -3.4 + 0.3 * np.arange(len(layers)) + 0.2 * np.arange(len(models))[:, None]
    spread = np.full(shape, 0.25)
    density = _bell(np.log10(shrink), middle[..., None], spread[..., None])
    prior = np.broadcast_to(_bell(np.log10(shrink), -2.5, 1.2), density.shape)
    return {
        "model": variable("model", list(models)),
        "layer": variable("layer", list(layers)),
        "shrink": variable("shrink", shrink),
        "density": variable(("model", "layer", "shrink"), density),
        "prior_density": variable(("model", "layer", "shrink"), prior),
        "low": variable(("model", "layer"), 10 ** (middle - 1.645 * spread)),
        "median": variable(("model", "layer"), 10**middle),
        "high": variable(("model", "layer"), 10 ** (middle + 1.645 * spread)),
        "failed": variable("model", [name in failed for name in models]),
        "set_decay": variable((), set_decay),
        "implied_decay": variable("layer", 5e-4 * 1.5 ** np.arange(len(layers))),
        "negligible": variable((), 5e-5),
    }


def _bell(x, middle, deviation):
    return np.exp(-0.5 * ((x - middle) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def comparison_group(models=MODELS, layers=LAYERS, failed=("velocity",), loss=-900.0) -> Group:
    """The fourth model is best, the third close to it, the first far behind."""
    whole = (
        np.linspace(loss, 0, len(models))
        if len(models) < 4
        else np.array([loss, -70.0, -1.2, 0.0, -40.0, -3.0][: len(models)])
    )
    shares = np.array([1.0, *np.linspace(0.3, 0.7, len(layers)) / len(layers)])
    difference = whole[:, None] * shares
    error = (1 + 0.1 * np.abs(difference)) * np.sqrt(shares) * (whole[:, None] < 0)
    refuted = difference[:, 0] + 2 * error[:, 0] < 0
    weight = np.where(refuted, 0.0, 1.0)
    return {
        "model": variable("model", list(models)),
        "layer": variable("layer", ["all", *layers]),
        "difference": variable(("model", "layer"), difference),
        "standard_error": variable(("model", "layer"), error),
        "weight": variable("model", weight / weight.sum()),
        "refuted": variable("model", refuted),
        "failed": variable("model", [name in failed for name in models]),
        "reported": variable("model", [name == "ornstein_uhlenbeck" for name in models]),
    }


def calibration_group(models=MODELS, failed=("velocity",), seed=0) -> Group:
    """Two hundred ranks; the first models leave correlation behind."""
    rng = np.random.default_rng(seed)
    probability, lag = np.linspace(0, 1, 101), np.arange(1, 21)
    width = 1.96 * np.sqrt(probability * (1 - probability) / 200)
    ranks = (
        rng.uniform(size=(len(models), 200, 1)) ** np.linspace(1.6, 1, len(models))[:, None, None]
    )
    ecdf = (ranks <= probability).mean(axis=1)
    left = 0.6 * 0.8**lag * np.linspace(1, 0, len(models))[:, None]
    return {
        "model": variable("model", list(models)),
        "failed": variable("model", [name in failed for name in models]),
        "probability": variable("probability", probability),
        "ecdf_difference": variable(("model", "probability"), ecdf - probability),
        "band_low": variable("probability", -width),
        "band_high": variable("probability", width),
        "lag": variable("lag", lag),
        "autocorrelation": variable(
            ("model", "lag"), left + 0.02 * rng.standard_normal((len(models), len(lag)))
        ),
        "autocorrelation_band": variable((), 0.05),
    }


def instruments_group(layers=LAYERS, each=40, num_records=60, seed=0) -> Group:
    """Weights with R = 2 H and a drift that falls as H^-0.6."""
    rng = np.random.default_rng(seed)
    count = each * len(layers)
    curvature = 10.0 ** rng.uniform(-2, 2, count)
    scatter = np.exp(0.4 * rng.standard_normal((2, count)))
    step = 10 * np.arange(num_records)
    course = (1 + 5 * np.exp(-step / 150)) * np.ones((len(layers), 1))
    quantities = {"calibration": 3 * course, "innovation": course**0.5}
    over = ("layer", "step")
    drawn = {
        f"{name}{end}": variable(over, factor * values, variance="the filter's own")
        for name, values in quantities.items()
        for end, factor in {"": 1.0, "_low": 0.4, "_high": 2.0}.items()
    }
    return {
        "layer": variable("layer", list(layers)),
        "layer_of": variable("weight", np.repeat(layers, each)),
        "curvature": variable("weight", curvature),
        "noise_variance": variable("weight", 2 * curvature * scatter[0]),
        "drift_variance": variable("weight", 1e-6 * curvature**-0.6 * scatter[1]),
        "drift_slope": variable("layer", np.full(len(layers), -0.6)),
        "drift_slope_error": variable("layer", np.full(len(layers), 0.05)),
        "step": variable("step", step),
        **drawn,
    }


def odd_cases() -> dict[str, tuple[str, Group]]:
    """What a figure must survive: case -> (figure, the group it draws)."""
    nothing = instruments_group(LAYERS[:1])
    lost = {
        name: variable(each.dims, np.full(each.values.shape, np.nan), **each.attributes)
        for name, each in nothing.items()
        if each.values.dtype.kind == "f"
    }
    nowhere = shrink_group()
    nowhere["density"] = variable(("model", "layer", "shrink"), np.full((2, 2, 200), np.nan))
    return {
        "streams of six layers": ("streams", foretold_group(MANY_LAYERS, each=1)),
        "one stream of two steps": ("streams", foretold_group(LAYERS[:1], each=1, num_steps=2)),
        "shrink in six layers": ("shrink", shrink_group(layers=MANY_LAYERS)),
        "a failed model and no decay": (
            "shrink",
            shrink_group(failed=("nonzero_mean",), set_decay=0.0),
        ),
        "no shrink": ("shrink", nowhere),
        "six layers compared": ("comparison", comparison_group(layers=MANY_LAYERS)),
        "one model": ("comparison", comparison_group(MODELS[:1], loss=0.0)),
        "two models close by": ("comparison", comparison_group(MODELS[:2], loss=-1.0)),
        "one model's ranks": ("calibration", calibration_group(MODELS[:1], failed=())),
        "instruments in six layers": ("instruments", instruments_group(MANY_LAYERS, each=5)),
        "nothing measured": ("instruments", {**nothing, **lost}),
        "belief in six layers": ("belief", instruments_group(MANY_LAYERS, each=5)),
        "no belief": ("belief", {**nothing, **lost}),
    }
