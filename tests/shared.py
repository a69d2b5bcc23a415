"""Tests that run once per backend: the modules that hold them, and each of them on another one.

A test with a parameter `backend` runs on plain torch in the main suite. C, Triton's interpreter and
a GPU meet the same test in a process of their own.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import pytest

Test = Callable[..., Any]


ON_EVERY_BACKEND = (
    *("bidirectional", "class_balance", "class_prototypes", "contrast_edges"),
    *("distribution_contrast", "logits", "not_finite", "operator_properties", "pair_contrast"),
    *("target_pass", "transfer", "upsampled_cross_entropy"),
)


def on(backend: str, *stems: str) -> dict[str, Test]:
    """The tests of modules that have a parameter `backend`, which becomes the one that is given."""
    found = {}
    for stem in stems:
        tests = parametrised_by("backend", import_module(f"tests.test_{stem}"))
        if not tests:
            raise RuntimeError(f"on: expected tests with a backend, got none in test_{stem}.")
        for name, test in tests.items():
            by_this = pytest.mark.parametrize("backend", [backend]).mark
            marks = [by_this if is_by("backend", mark) else mark for mark in test.pytestmark]
            found[f"{name}_of_{stem}"] = marked_anew(test, marks)
    return found


def parametrised_by(parameter: str, module: ModuleType) -> dict[str, Any]:
    """The module's tests that are parametrised by it."""
    return {
        name: test
        for name, test in vars(module).items()
        if isinstance(test, FunctionType)
        and any(is_by(parameter, mark) for mark in getattr(test, "pytestmark", []))
    }


def is_by(parameter: str, mark: Any) -> bool:
    return mark.name == "parametrize" and mark.args[0] == parameter


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


def in_turns(cases: Sequence[Sequence[str]]) -> list[int]:
    """Places of a few cases in which each parameter has each of its values, the others in turns."""
    left, given = dict(enumerate(cases)), Counter[tuple[int, str]]()
    kept: list[int] = []

    def adds(place: int) -> tuple[int, int]:
        counts = [given[value] for value in enumerate(left[place])]
        return counts.count(0), -sum(counts)

    while left and adds(best := max(left, key=adds))[0]:
        given.update(enumerate(left.pop(best)))
        kept.append(best)
    return kept
