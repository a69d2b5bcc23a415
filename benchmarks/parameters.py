"""Cases and contenders as pytest parameters."""

import time
from typing import Any

import pytest

from benchmarks.cases import CASES
from benchmarks.operators import OPERATORS


def contenders_of(operator: str) -> list[Any]:
    """Every case of an operator with each contender, one case's contenders in one group.

    The clock is the thread's CPU time, which does not count what others take from the machine.
    """
    return [
        pytest.param(
            case,
            contender,
            id=f"{case}, {contender}",
            marks=pytest.mark.benchmark(group=str(case), timer=time.thread_time),
        )
        for case in CASES
        if case.operator == operator
        for contender in OPERATORS[operator].contenders
    ]
