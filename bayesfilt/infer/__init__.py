"""Floor 7: which state-space model does training itself prefer?"""

# Trust: is the inference right about its own uncertainty, and do the data say anything?
from bayesfilt.infer.calibration import Calibration, CalibrationProblem, Chain, calibrate
from bayesfilt.infer.calibration_report import (
    CalibrationVerdict,
    Coverage,
    Uniformity,
    calibration_lines,
    calibration_tree,
    coverage,
    judge,
    standard_scores,
    uniformity,
)
from bayesfilt.infer.calibration_targets import (
    Given,
    calibration_design,
    calibration_priors,
    coverage_study,
    model_problem,
    numpyro_problem,
)
from bayesfilt.infer.draw import draw_numbers, draw_path, draw_streams
from bayesfilt.infer.identifiability import (
    Contraction,
    Identifiability,
    Profile,
    Window,
    contraction,
    identifiability,
    profile_likelihood,
    relaxation_times,
)
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

# Sampling and what becomes of the draws.
from bayesfilt.infer.fit import Fit, fit, fit_of_tree, load_fit, save_fit  # isort: skip
from bayesfilt.infer.gates import Gate, Gates, Limits, gate_table, judge  # isort: skip
from bayesfilt.infer.posterior_summary import posterior_rows  # isort: skip
from bayesfilt.infer.posterior_tree import model_of, require_fit_tree, streams_of  # isort: skip
from bayesfilt.infer.recorded_streams import RecordedStreams, recorded_streams  # isort: skip
from bayesfilt.infer.variational import SviSettings  # isort: skip

__all__ = [
    "Fit",
    "Gate",
    "Gates",
    "Limits",
    "MODELS",
    "Calibration",
    "CalibrationProblem",
    "CalibrationVerdict",
    "Chain",
    "Contraction",
    "Coverage",
    "Given",
    "Identifiability",
    "Profile",
    "Uniformity",
    "Window",
    "calibrate",
    "calibration_design",
    "calibration_lines",
    "calibration_priors",
    "calibration_tree",
    "contraction",
    "coverage",
    "coverage_study",
    "identifiability",
    "judge",
    "model_problem",
    "numpyro_problem",
    "profile_likelihood",
    "relaxation_times",
    "standard_scores",
    "uniformity",
    "Model",
    "Predictions",
    "Priors",
    "RecordedStreams",
    "Spread",
    "StreamWarning",
    "Streams",
    "SviSettings",
    "check_streams",
    "draw_numbers",
    "draw_path",
    "draw_streams",
    "fit",
    "fit_of_tree",
    "gate_table",
    "gradient_streams",
    "judge",
    "load_fit",
    "log_likelihood",
    "model_function",
    "model_named",
    "model_of",
    "numbers_of",
    "optimum_streams",
    "parameter_names",
    "posterior_rows",
    "predictions",
    "priors_for",
    "recorded_streams",
    "require_fit_tree",
    "save_fit",
    "step_log_densities",
    "streams_of",
]
