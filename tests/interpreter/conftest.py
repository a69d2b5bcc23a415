"""Kernels on CPU: triton's interpreter on before triton is imported, and unwritten memory poisoned.

These tests need a process of their own: `make test-kernels`, or pytest tests/interpreter.
"""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

if early := {"triton", "protocontrast"} & {*sys.modules}:
    raise RuntimeError(
        f"tests/interpreter: expected nothing to import {min(early)} yet, got it imported. "
        "Hint: run pytest tests/interpreter in a process of its own."
    )
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from hypothesis import settings

# A program costs milliseconds here, so a call costs as much as a hundred eager ones.
FEWER = {"repeatable": 6, "thorough": 60}
for name, examples in FEWER.items():
    settings.register_profile(name, settings.get_profile(name), max_examples=examples)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Numbers that are NaN by intention make numpy, in which the interpreter computes, warn.
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        if find_spec("triton") is None:
            item.add_marker(pytest.mark.skip(reason="triton is not installed"))


@pytest.fixture(autouse=True, scope="session")
def device_functions_called_directly() -> Iterator[None]:
    """Saves a third of the time: the interpreter prepares triton's language for every call anew.

    A device function of ours sees the same `triton.language` as the kernel that calls it.
    """
    if find_spec("triton") is None:
        yield
        return
    from triton.runtime.interpreter import InterpretedFunction

    prepared_call = InterpretedFunction.__call__

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.fn.__module__.startswith("protocontrast."):
            return self.rewrite()(*arguments, **named)
        return prepared_call(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpretedFunction, "__call__", call)
        yield


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty is NaN, or the largest integer: an element that no kernel writes shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
