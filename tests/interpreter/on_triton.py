"""Tests of the main suite that run once per backend, run here on the kernels alone."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def on_triton(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The module's tests with a parameter `backend`, which becomes "triton".

    The functions themselves are changed: the process that collects this folder runs no other tests.
    """
    found = {}
    for name, test in vars(module).items():
        marks = getattr(test, "pytestmark", [])
        if name.startswith("test_") and any(_chooses_backend(mark) for mark in marks):
            test.pytestmark = [
                pytest.mark.parametrize("backend", ["triton"]).mark
                if _chooses_backend(mark)
                else mark
                for mark in marks
            ]
            found[name] = test
    if not found:
        raise RuntimeError(f"on_triton: expected tests with a backend, got none in {module}.")
    return found


def _chooses_backend(mark: pytest.Mark) -> bool:
    return mark.name == "parametrize" and mark.args[0] == "backend"
