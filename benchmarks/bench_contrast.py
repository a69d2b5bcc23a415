"""Pixel-prototype contrast, loss and gradients, beside normalize + einsum + cross_entropy."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of

CALLS = [call for operator in ("contrast", "contrast, soft") for call in contenders_of(operator)]


@pytest.mark.parametrize(("case", "contender"), CALLS)
def test_contrast(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} <= outputs.keys()
