"""Kernels compiled ahead of time: each case once, in processes of their own, while tests wait."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ahead_of_time.cases import Case
    from tests.ahead_of_time.resources import Resources

if os.environ.get("TRITON_INTERPRET") == "1":
    raise RuntimeError(
        "tests/ahead_of_time: expected TRITON_INTERPRET to be unset, got 1. "
        "Hint: the interpreter compiles nothing; unset it, or run make test-kernels."
    )

# All of them import triton, so that without it there is nothing to collect.
collect_ignore_glob = [] if find_spec("triton") else ["*.py"]


@pytest.fixture(scope="session")
def resources(request: pytest.FixtureRequest) -> "Iterator[Callable[[Case], Resources]]":
    """Resources of a case that some collected test has as its parameter `case`."""
    from tests.ahead_of_time.budget import compiling
    from tests.ahead_of_time.cases import Case

    parameters = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = (found.params.get("case") for found in parameters if found is not None)
    cases = dict.fromkeys(case for case in wanted if isinstance(case, Case))
    with compiling(cases) as futures:
        yield lambda case: futures[case].result()
