"""Means, label transfer and both contrasts of a step beside its compositions and its release."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of

OPERATORS = "bidirectional step", "bidirectional step, by class", "released step"
CALLS = [call for operator in OPERATORS for call in contenders_of(operator)]


@pytest.mark.parametrize(("case", "contender"), CALLS)
def test_bidirectional(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features", "gradient of target"} <= outputs.keys()
