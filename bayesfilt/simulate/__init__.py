"""A run is one `lax.scan`: trajectory, shadow, and the same in chunks."""

from bayesfilt.callable_package import answer_calls_with
from bayesfilt.simulate.chunks import ChunkedRun, run_in_chunks
from bayesfilt.simulate.probes import DEFAULT_PROBES, Probe, StepView
from bayesfilt.simulate.program import NEVER, Program, RunRecord
from bayesfilt.simulate.shadow import (
    DEFAULT_MEASURES,
    Measure,
    PrecisionWarning,
    Proposal,
    ShadowRecord,
    ShadowView,
    shadow,
    shadowing,
    warn_if_float32,
)
from bayesfilt.simulate.trajectory import Trajectory, simulate, training

__all__ = [
    "DEFAULT_MEASURES",
    "DEFAULT_PROBES",
    "NEVER",
    "ChunkedRun",
    "Measure",
    "PrecisionWarning",
    "Probe",
    "Program",
    "Proposal",
    "RunRecord",
    "ShadowRecord",
    "ShadowView",
    "StepView",
    "Trajectory",
    "run_in_chunks",
    "shadow",
    "shadowing",
    "simulate",
    "training",
    "warn_if_float32",
]

answer_calls_with(__name__, simulate)
