"""Class means beside one-hot products and index_add."""

from collections.abc import Callable

import pytest

from benchmarks.cases import Case
from benchmarks.operators import Outputs
from benchmarks.parameters import contenders_of


@pytest.mark.parametrize(("case", "contender"), contenders_of("class_prototypes"))
def test_class_prototypes(
    timed: Callable[[Case, str], Outputs], case: Case, contender: str
) -> None:
    outputs = timed(case, contender)
    assert outputs["count"].sum() > 0
