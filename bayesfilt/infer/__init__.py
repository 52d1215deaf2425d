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
    judge_calibration,
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

# Rivals: which model foretells best, is it good enough, and does its mean shrink?
from bayesfilt.infer.comparison import Comparison, Rival, compare_models, stacking_weights
from bayesfilt.infer.draw import draw_numbers, draw_path, draw_streams

# Sampling and what becomes of the draws.
from bayesfilt.infer.fit import Fit, fit, fit_of_tree, load_fit, save_fit
from bayesfilt.infer.gates import Gate, Gates, Limits, gate_table, judge_gates
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
from bayesfilt.infer.leave_future_out import leave_future_out
from bayesfilt.infer.likelihood import (
    Predictions,
    log_likelihood,
    predictions,
    step_log_densities,
)
from bayesfilt.infer.models import model_function, numbers_of
from bayesfilt.infer.posterior_summary import posterior_rows
from bayesfilt.infer.posterior_tree import model_of, require_fit_tree, streams_of
from bayesfilt.infer.predictive_checks import calibration_checks, replicate_checks
from bayesfilt.infer.predictive_scores import (
    held_out_log_predictive,
    leave_stream_out,
    sequential_log_predictive,
)
from bayesfilt.infer.priors import Priors, Spread, priors_for
from bayesfilt.infer.recorded_streams import RecordedStreams, recorded_streams
from bayesfilt.infer.state_space import MODELS, Model, model_named, parameter_names
from bayesfilt.infer.streams import (
    Streams,
    StreamWarning,
    check_streams,
    gradient_streams,
    optimum_streams,
)
from bayesfilt.infer.variational import SviSettings
from bayesfilt.infer.verdict import TransitionVerdict, transition_verdicts

__all__ = [
    "Calibration",
    "CalibrationProblem",
    "CalibrationVerdict",
    "Chain",
    "Comparison",
    "Contraction",
    "Coverage",
    "Fit",
    "Gate",
    "Gates",
    "Given",
    "Identifiability",
    "Limits",
    "MODELS",
    "Model",
    "Predictions",
    "Priors",
    "Profile",
    "RecordedStreams",
    "Rival",
    "Spread",
    "StreamWarning",
    "Streams",
    "SviSettings",
    "TransitionVerdict",
    "Uniformity",
    "Window",
    "calibrate",
    "calibration_checks",
    "calibration_design",
    "calibration_lines",
    "calibration_priors",
    "calibration_tree",
    "check_streams",
    "compare_models",
    "contraction",
    "coverage",
    "coverage_study",
    "draw_numbers",
    "draw_path",
    "draw_streams",
    "fit",
    "fit_of_tree",
    "gate_table",
    "gradient_streams",
    "held_out_log_predictive",
    "identifiability",
    "judge_calibration",
    "judge_gates",
    "leave_future_out",
    "leave_stream_out",
    "load_fit",
    "log_likelihood",
    "model_function",
    "model_named",
    "model_of",
    "model_problem",
    "numbers_of",
    "numpyro_problem",
    "optimum_streams",
    "parameter_names",
    "posterior_rows",
    "predictions",
    "priors_for",
    "profile_likelihood",
    "recorded_streams",
    "relaxation_times",
    "replicate_checks",
    "require_fit_tree",
    "save_fit",
    "sequential_log_predictive",
    "stacking_weights",
    "standard_scores",
    "step_log_densities",
    "streams_of",
    "transition_verdicts",
    "uniformity",
]
