"""A run is one `lax.scan`: trajectory, shadow, the same in chunks; and sweeps of many runs."""

from bayesfilt.callable_package import answer_calls_with
from bayesfilt.simulate.chunks import ChunkedRun, run_in_chunks
from bayesfilt.simulate.cluster import run_on_cluster
from bayesfilt.simulate.merge_shards import MergedShards, merge_shards
from bayesfilt.simulate.merged import merge
from bayesfilt.simulate.probes import DEFAULT_PROBES, Probe, StepView
from bayesfilt.simulate.program import NEVER, Program, RunRecord
from bayesfilt.simulate.run_sweep import (
    Shard,
    SweepOutcome,
    SweepProgress,
    parse_shard,
    run_sweep,
)
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
from bayesfilt.simulate.sweep import Sweep, sweep_from
from bayesfilt.simulate.sweep_plan import SweepPlan, plan_sweep
from bayesfilt.simulate.trajectory import Trajectory, simulate, training

__all__ = [
    "DEFAULT_MEASURES",
    "DEFAULT_PROBES",
    "NEVER",
    "ChunkedRun",
    "Measure",
    "MergedShards",
    "PrecisionWarning",
    "Probe",
    "Program",
    "Proposal",
    "RunRecord",
    "ShadowRecord",
    "ShadowView",
    "Shard",
    "StepView",
    "Sweep",
    "SweepOutcome",
    "SweepPlan",
    "SweepProgress",
    "Trajectory",
    "merge",
    "merge_shards",
    "parse_shard",
    "plan_sweep",
    "run_in_chunks",
    "run_on_cluster",
    "run_sweep",
    "shadow",
    "shadowing",
    "simulate",
    "sweep_from",
    "training",
    "warn_if_float32",
]

answer_calls_with(__name__, simulate)
