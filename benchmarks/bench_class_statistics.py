"""Means and variances of classes, beside products with one-hot labels."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("class_statistics"))
def test_class_statistics(
    timed: Callable[[Case, str], Outputs], case: Case, contender: str
) -> None:
    outputs = timed(case, contender)
    assert outputs.keys() == {"mean", "variance"}
