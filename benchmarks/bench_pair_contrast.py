"""Contrast between pairs of pixels, loss and gradient, beside compositions that hold all pairs."""

from collections.abc import Callable

import pytest

from benchmarks.cases import PAIRS, Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(
    ("case", "contender"), [call for name in PAIRS for call in contenders_of(name)]
)
def test_pair_contrast(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} <= outputs.keys()
