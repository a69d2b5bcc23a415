"""Means, label transfer and both contrasts of a step beside its modular composition."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case, Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("bidirectional step"))
def test_bidirectional(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features", "gradient of target"} <= outputs.keys()
