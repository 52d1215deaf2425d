"""Which cases of a test a quick look (`make test-fast`) takes; `make test` takes them all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from bayesfilt.catalogue import OPTIMIZER_FACTS


def slow_but(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, marked slow but for the quick ones, of which there must be some."""
    cases = list(cases)
    assert any(each in quick for each in cases), (quick, cases)
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow) for each in cases]


# Of the zoo: the first of every status, so that nothing here names one.
ONE_OF_EACH_STATUS = tuple(
    {facts.status: facts.name for facts in reversed(OPTIMIZER_FACTS)}.values()
)
