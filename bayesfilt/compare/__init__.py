"""Numbers about runs: how far optimizers agree, why they do not, and what is only rounding."""

from bayesfilt.compare.agreement import (
    Agreement,
    compare_updates,
    layer_agreement,
    update_agreement,
)
from bayesfilt.compare.attribution import PARTS, gap_shares, shares
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
from bayesfilt.compare.layers import Layers, layers_of
from bayesfilt.compare.noise_floor import (
    NoiseFloor,
    clear_until,
    divergence_horizon,
    measure_noise_floor,
    perturbed,
)
from bayesfilt.compare.side_by_side import SideBySideView, training_side_by_side
from bayesfilt.compare.study import run_study
from bayesfilt.compare.validity import ValidityMap, validity_map

__all__ = [
    "LOG10_GAIN_EDGES",
    "PARTS",
    "Agreement",
    "DecayKept",
    "Gains",
    "Layers",
    "NoiseFloor",
    "SideBySideView",
    "ValidityMap",
    "compare_updates",
    "clear_until",
    "HONEST_DECAY",
    "DecayWarning",
    "decay_complaint",
    "decay_kept_of_all",
    "measure_decay_kept",
    "divergence_horizon",
    "gain_histogram",
    "gain_of",
    "gap_shares",
    "layer_agreement",
    "layers_of",
    "measure_gains",
    "measure_noise_floor",
    "perturbed",
    "predictive_divergence",
    "realised_shrink",
    "regime_fraction",
    "run_study",
    "shares",
    "training_side_by_side",
    "stated_shrink",
    "update_agreement",
    "validity_map",
    "weight_distance",
]
