"""Contrast with class distributions, loss and gradient, beside its eager composition."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("distribution contrast"))
def test_distribution_contrast(
    timed: Callable[[Case, str], Outputs], case: Case, contender: str
) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} <= outputs.keys()
