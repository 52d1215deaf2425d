"""Numbers about runs: how far optimizers agree, why they do not, and what is only rounding."""

from bayesfilt.compare.agreement import (
    Agreement,
    compare_updates,
    layer_agreement,
    update_agreement,
)
from bayesfilt.compare.attribution import PARTS, gap_shares, shares
from bayesfilt.compare.chosen_weights import ChosenWeights, choose_weights, chosen_weights
from bayesfilt.compare.coordinate_optimum import CoordinateOptimum, coordinate_optimum
from bayesfilt.compare.decay_kept import (
    HONEST_DECAY,
    DecayKept,
    DecayWarning,
    decay_complaint,
    decay_kept_of_all,
    measure_decay_kept,
    realised_shrink,
    stated_shrink,
)
from bayesfilt.compare.distances import predictive_divergence, weight_distance
from bayesfilt.compare.gains import (
    LOG10_GAIN_EDGES,
    Gains,
    gain_histogram,
    gain_of,
    measure_gains,
    regime_fraction,
)
from bayesfilt.compare.generalisation import (
    Anytime,
    MatchedLoss,
    anytime,
    error_at_matched_loss,
)
from bayesfilt.compare.grid import (
    BestCell,
    Interval,
    Ridge,
    best_cell,
    bootstrap,
    median_over_seeds,
    ridge,
)
from bayesfilt.compare.grid_record import (
    Course,
    HeatmapPanel,
    best_decay_with_interval,
    chosen_region,
    course_group,
    heatmap_group,
    matched_group,
)
from bayesfilt.compare.instruments import (
    chosen_posterior_variance,
    chosen_weight,
    fixed_examples,
    ggn_diagonal,
    gradient_norm,
    hessian_diagonal,
    noise_over_examples,
    noise_over_minibatches,
    summed_gradient,
    whole_data,
)
from bayesfilt.compare.layers import Layers, layers_of
from bayesfilt.compare.noise_floor import (
    NoiseFloor,
    clear_until,
    divergence_horizon,
    measure_noise_floor,
    perturbed,
)
from bayesfilt.compare.record_streams import record_streams, stream_probes
from bayesfilt.compare.separability import (
    DecaySlope,
    Separability,
    decay_slope,
    quadratic_fit,
    separability,
)
from bayesfilt.compare.side_by_side import SideBySideView, training_side_by_side
from bayesfilt.compare.streams import (
    StreamRecord,
    streams_from_record,
    streams_from_trajectory,
    streams_to_record,
)
from bayesfilt.compare.study import run_study
from bayesfilt.compare.validity import ValidityMap, validity_map

__all__ = [
    "ChosenWeights",
    "choose_weights",
    "chosen_weights",
    "CoordinateOptimum",
    "coordinate_optimum",
    "chosen_posterior_variance",
    "chosen_weight",
    "fixed_examples",
    "ggn_diagonal",
    "gradient_norm",
    "hessian_diagonal",
    "noise_over_examples",
    "noise_over_minibatches",
    "summed_gradient",
    "whole_data",
    "record_streams",
    "stream_probes",
    "StreamRecord",
    "streams_from_record",
    "streams_from_trajectory",
    "streams_to_record",
    "HONEST_DECAY",
    "LOG10_GAIN_EDGES",
    "PARTS",
    "Agreement",
    "Anytime",
    "BestCell",
    "Course",
    "DecayKept",
    "DecaySlope",
    "DecayWarning",
    "Gains",
    "HeatmapPanel",
    "Interval",
    "Layers",
    "MatchedLoss",
    "NoiseFloor",
    "Ridge",
    "Separability",
    "SideBySideView",
    "ValidityMap",
    "anytime",
    "best_cell",
    "best_decay_with_interval",
    "bootstrap",
    "chosen_region",
    "clear_until",
    "compare_updates",
    "course_group",
    "decay_complaint",
    "decay_kept_of_all",
    "decay_slope",
    "divergence_horizon",
    "error_at_matched_loss",
    "gain_histogram",
    "gain_of",
    "gap_shares",
    "heatmap_group",
    "layer_agreement",
    "layers_of",
    "matched_group",
    "measure_decay_kept",
    "measure_gains",
    "measure_noise_floor",
    "median_over_seeds",
    "perturbed",
    "predictive_divergence",
    "quadratic_fit",
    "realised_shrink",
    "regime_fraction",
    "ridge",
    "run_study",
    "separability",
    "shares",
    "stated_shrink",
    "training_side_by_side",
    "update_agreement",
    "validity_map",
    "weight_distance",
]
