"""Label transfer beside normalize + einsum + softmax + max."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("transfer_labels"))
def test_transfer(timed: Callable[[Case, str], Outputs], case: Case, contender: str) -> None:
    outputs = timed(case, contender)
    assert outputs["labels"].shape == outputs["confidence"].shape
