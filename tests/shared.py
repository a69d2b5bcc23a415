"""Tests that run once per backend: the modules that hold them, and each of them on another one.

A test with a parameter `backend` runs on plain torch in the main suite. C, Triton's interpreter and
a GPU meet the same test in a process of their own.
"""

import functools
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest

Test = Callable[..., Any]


def on(backend: str, *modules: ModuleType, **named: list[Any]) -> dict[str, Test]:
    """The modules' tests with a parameter `backend`, which becomes the one that is given.

    Other parameters that are named take the values that are given, too.
    """
    values = {"backend": [backend], **named}
    found = {}
    for module in modules:
        stem = module.__name__.split(".")[-1].removeprefix("test_")
        tests = [(name, test) for name, test in vars(module).items() if chooses_backend(test)]
        if not tests:
            raise RuntimeError(f"on: expected tests with a backend, got none in {module}.")
        for name, test in tests:
            marks = [
                pytest.mark.parametrize(mark.args[0], values[mark.args[0]]).mark
                if mark.name == "parametrize" and mark.args[0] in values
                else mark
                for mark in test.pytestmark
            ]
            found[f"{name}_of_{stem}"] = marked_anew(test, marks)
    return found


def chooses_backend(test: Any) -> bool:
    marks = getattr(test, "pytestmark", [])
    return isinstance(test, FunctionType) and any(
        mark.name == "parametrize" and mark.args[0] == "backend" for mark in marks
    )


def marked_anew(test: FunctionType, marks: list[Any]) -> Test:
    """A copy, so that the test keeps its marks where it stands."""
    copy = FunctionType(
        test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__
    )
    copy.__kwdefaults__ = test.__kwdefaults__
    functools.update_wrapper(copy, test)
    del copy.__wrapped__  # type: ignore[attr-defined]
    copy.pytestmark = marks  # type: ignore[attr-defined]
    return copy
