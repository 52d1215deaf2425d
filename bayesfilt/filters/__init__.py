"""Floor 2: a belief about each weight's optimum, and how it moves; start with `belief`."""

from bayesfilt.filters.belief import Belief, Filter, Innovation
from bayesfilt.filters.diagonal import DiagonalFilter, diagonal_filter
from bayesfilt.filters.full import FullBelief, FullFilter, full_filter
from bayesfilt.filters.kronecker import (
    KroneckerBelief,
    KroneckerFilter,
    change_bases,
    kronecker_filter,
)
from bayesfilt.filters.look_back import PosteriorPath
from bayesfilt.filters.noise_ratio import NoiseRatioFilter, matched_stream, noise_ratio_filter
from bayesfilt.filters.ornstein_uhlenbeck import (
    OrnsteinUhlenbeckFilter,
    ornstein_uhlenbeck_filter,
)
from bayesfilt.filters.random_walk import RandomWalkFilter, random_walk_filter
from bayesfilt.filters.sequence import (
    FilteredStream,
    GradientStream,
    filter_stream,
    stream_log_likelihood,
)
from bayesfilt.filters.smoother import SmoothedStream, sample_posterior, smooth_stream
from bayesfilt.filters.static import StaticFilter, static_filter
from bayesfilt.filters.steady_state import SteadyStateFilter, steady_state_filter
from bayesfilt.filters.velocity import VelocityBelief, VelocityFilter, velocity_filter

__all__ = [
    "Belief",
    "DiagonalFilter",
    "Filter",
    "FilteredStream",
    "FullBelief",
    "FullFilter",
    "GradientStream",
    "Innovation",
    "KroneckerBelief",
    "KroneckerFilter",
    "NoiseRatioFilter",
    "OrnsteinUhlenbeckFilter",
    "PosteriorPath",
    "RandomWalkFilter",
    "SmoothedStream",
    "StaticFilter",
    "SteadyStateFilter",
    "VelocityBelief",
    "VelocityFilter",
    "change_bases",
    "diagonal_filter",
    "filter_stream",
    "kronecker_filter",
    "full_filter",
    "matched_stream",
    "noise_ratio_filter",
    "ornstein_uhlenbeck_filter",
    "random_walk_filter",
    "sample_posterior",
    "smooth_stream",
    "static_filter",
    "steady_state_filter",
    "stream_log_likelihood",
    "velocity_filter",
]
