"""What every QUICK must do: run, come back from its file, be judged, be drawn."""

import functools

import jax

from bayesfilt.figures import VenueFigure
from bayesfilt.records import Record, read_record, write_record
from experiments.contract import Verdict, experiment_named


@functools.cache
def quick_result(name: str, folder) -> Record:
    """The result of a QUICK, as it comes back from its file."""
    module = experiment_named(name)
    write_record(module.run(module.QUICK, jax.random.key(0)), folder / name)
    return read_record(folder / name)


def assert_it_runs_is_judged_and_drawn(name: str, folder) -> None:
    module, result = experiment_named(name), quick_result(name, folder)
    verdicts = module.check(result)
    assert verdicts
    assert all(isinstance(each, Verdict) for each in verdicts)
    assert len({each.claim for each in verdicts}) == len(verdicts)
    assert all(each.holds in (True, False, None) and each.tolerance for each in verdicts)
    figure = module.plot(result, "icml")
    assert isinstance(figure, VenueFigure)
    assert figure.venue == "icml"
    again = module.check(result)  # bootstraps have a key of their own
    assert [each.plain() for each in again] == [each.plain() for each in verdicts]
