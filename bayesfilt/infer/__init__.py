"""Floor 7: which state-space model does training itself prefer?"""

from bayesfilt.infer.draw import draw_numbers, draw_path, draw_streams
from bayesfilt.infer.likelihood import (
    Predictions,
    log_likelihood,
    predictions,
    step_log_densities,
)
from bayesfilt.infer.models import model_function, numbers_of
from bayesfilt.infer.priors import Priors, Spread, priors_for
from bayesfilt.infer.state_space import MODELS, Model, model_named, parameter_names
from bayesfilt.infer.streams import (
    Streams,
    StreamWarning,
    check_streams,
    gradient_streams,
    optimum_streams,
)

__all__ = [
    "MODELS",
    "Model",
    "Predictions",
    "Priors",
    "Spread",
    "StreamWarning",
    "Streams",
    "check_streams",
    "draw_numbers",
    "draw_path",
    "draw_streams",
    "gradient_streams",
    "log_likelihood",
    "model_function",
    "model_named",
    "numbers_of",
    "optimum_streams",
    "parameter_names",
    "predictions",
    "priors_for",
    "step_log_densities",
]
