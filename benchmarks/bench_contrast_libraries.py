"""Pixel-prototype contrast, loss and gradients, beside other libraries that say the same."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("contrast, libraries"))
def test_contrast_libraries(
    timed: Callable[[Case, str], Outputs], case: Case, contender: str
) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} <= outputs.keys()
