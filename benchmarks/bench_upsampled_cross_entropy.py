"""Cross-entropy of upsampled logits, loss and gradient, beside interpolate + cross_entropy."""

from collections.abc import Callable

import pytest

from benchmarks.cases import UPSAMPLED, Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of

CALLS = [call for operator in UPSAMPLED for call in contenders_of(operator)]


@pytest.mark.parametrize(("case", "contender"), CALLS)
def test_upsampled_cross_entropy(
    timed: Callable[[Case, str], Outputs], case: Case, contender: str
) -> None:
    outputs = timed(case, contender)
    assert {"loss", "gradient of features"} == outputs.keys()
