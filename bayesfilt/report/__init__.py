"""Floor 9: one HTML page of a run, or of a folder of runs, that needs nothing but itself.

    write_report("runs/experiments", "runs/experiments/report.html")

Figures are drawn again from what is stored (records, and `figures/NAME.nc` beside an experiment's
figure); an experiment's question, claim and captions come from its `summary.json`, for
experiments are not installed with the package. Equal folders give equal pages.
"""

from bayesfilt.report.found import Run, find_runs
from bayesfilt.report.page import GENERATOR
from bayesfilt.report.write import Written, write_report

__all__ = ["GENERATOR", "Run", "Written", "find_runs", "write_report"]
