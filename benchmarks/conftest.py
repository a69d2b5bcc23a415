"""How pytest-benchmark runs a case: on one thread, after the contender agrees."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.agreement import check, reference, tolerance_of
from benchmarks.cases import Case, resized
from benchmarks.inputs import Inputs, build
from benchmarks.measure import parse_size
from benchmarks.operators import OPERATORS, Outputs, run

ROUNDS = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    """A small map makes a quick trial run."""
    parser.addoption("--map-size", type=parse_size, help="height x width in place of every case's")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Leaves torch's number of threads as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def prepared(case: Case) -> tuple[Inputs, Outputs]:
    """Inputs and float64 reference, built once for the contenders of a case."""
    inputs = build(case)
    return inputs, reference(case, inputs)


@pytest.fixture
def timed(
    benchmark: BenchmarkFixture, one_thread: None, pytestconfig: pytest.Config
) -> Callable[[Case, str], Outputs]:
    """Times one contender, once it agrees; returns its outputs."""
    size = pytestconfig.getoption("--map-size")

    def time_it(case: Case, contender: str) -> Outputs:
        inputs, expected = prepared(resized(case, size))
        operator = OPERATORS[case.operator]
        arguments = operator, contender, inputs
        check(run(*arguments), expected, f"{case}, {contender}", tolerance_of(case, contender))
        return benchmark.pedantic(run, arguments, rounds=ROUNDS)

    return time_it
