"""A step of `BiCL` beside the same step from public functions."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("BiCL step"))
def test_bicl(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features", "gradient of target"} <= outputs.keys()
