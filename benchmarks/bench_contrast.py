"""Pixel-prototype contrast, loss and gradients, beside normalize + einsum + cross_entropy."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case, Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("contrast"))
def test_contrast(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} <= outputs.keys()
