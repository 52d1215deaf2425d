"""Floor 2: a belief about each weight's optimum, and how it moves; start with `belief`."""

from bayesfilt.filters.belief import Belief, Filter, Innovation
from bayesfilt.filters.diagonal import DiagonalFilter, diagonal_filter
from bayesfilt.filters.sequence import (
    FilteredStream,
    GradientStream,
    filter_stream,
    stream_log_likelihood,
)
from bayesfilt.filters.steady_state import SteadyStateFilter, steady_state_filter
from bayesfilt.filters.velocity import VelocityBelief, VelocityFilter, velocity_filter

__all__ = [
    "Belief",
    "DiagonalFilter",
    "Filter",
    "FilteredStream",
    "GradientStream",
    "Innovation",
    "SteadyStateFilter",
    "VelocityBelief",
    "VelocityFilter",
    "diagonal_filter",
    "filter_stream",
    "steady_state_filter",
    "stream_log_likelihood",
    "velocity_filter",
]
