"""Recorded streams made by hand."""

import numpy as np

from bayesfilt.compare.streams import StreamRecord


def streams(num_steps=12, num_weights=3, **changes) -> StreamRecord:
    """Wandering optima and gradients of two layers, all valid."""
    rng = np.random.default_rng(0)
    shape = (num_steps, num_weights)
    optimum = rng.standard_normal(shape).cumsum(axis=0)
    fields = {
        "step": np.arange(num_steps),
        "weight": np.zeros(shape),
        "gradient": rng.standard_normal(shape),
        "curvature": np.ones(shape),
        "ggn": None,
        "noise_variance": None,
        "optimum": optimum,
        "optimum_curvature": None,
        "optimum_valid": np.isfinite(optimum),
        "posterior_variance": None,
        "gradient_norm": None,
        "loss": None,
        "layer": np.arange(num_weights) % 2,
        "layer_names": ("dense_0", "dense_1"),
        "index": 10 * np.arange(num_weights),
        "batch_size": 16,
        "diverged_at": -1,
        "settings": {"learning_rate": 1e-3, "weight_decay": 0.1},
        "clipped": False,
    }
    return StreamRecord(**{**fields, **changes})
