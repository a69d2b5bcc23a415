"""Kernels on CPU: triton's interpreter on before triton is imported, and unwritten memory poisoned.

These tests need a process of their own: `make test-kernels`, or pytest tests/interpreter.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from importlib.util import find_spec
from itertools import groupby
from types import SimpleNamespace
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

from tests.shared import in_turns

# A program costs milliseconds here, so a call costs as much as a hundred eager ones.
FEWER = {"repeatable": 6, "thorough": 60}
for name, examples in FEWER.items():
    settings.register_profile(name, settings.get_profile(name), max_examples=examples)
settings.load_profile("repeatable")


# What autograd and autocast do around an operator is one code for all of them.
AROUND = (
    "test_autocast_around_the_call_changes_nothing",
    "test_two_losses_of_one_leaf_add_up_and_scale",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Numbers that are NaN by intention make numpy, in which the interpreter computes, warn.
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        if find_spec("triton") is None:
            item.add_marker(pytest.mark.skip(reason="triton is not installed"))
    # The main suite asks the other backends for every case of a test.
    shared = [item for item in items if item.path.name == "test_shared.py"]
    for _, group in groupby(shared, key=lambda item: item.originalname):
        cases = [*group]
        wanted = in_turns([parameters(case) for case in cases])
        if cases[0].originalname.startswith(AROUND):
            wanted = wanted[::3]
        for place in {*range(len(cases))} - {*wanted}:
            cases[place].add_marker(pytest.mark.slow)


def parameters(case: Any) -> tuple[str, ...]:
    """What a case of a test is given, by parametrisation."""
    names = [mark.args[0] for mark in case.iter_markers("parametrize")]
    each = [[name] if isinstance(name, str) else name for name in names]
    return tuple(repr([case.callspec.params[name] for name in together]) for together in each)


@pytest.fixture(autouse=True, scope="session")
def language_prepared_once() -> Iterator[None]:
    """Saves half of the time: the interpreter prepares triton's language anew for every call.

    Nothing else is to use the language in this process, so it may stay as the interpreter wants it.
    """
    if find_spec("triton") is None:
        yield
        return
    from triton import language
    from triton.runtime import interpreter

    seen_from = SimpleNamespace(__globals__={"tl": language, "core": language.core})
    interpreter._patch_lang(seen_from)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda fn: interpreter._LangPatchScope())
        # That of triton 3.6 wants a number from an array of one, which numpy 2.4 refuses.
        patch.setattr(language.tensor, "__index__", lambda self: int(self.handle.data.squeeze()))
        yield


@pytest.fixture(autouse=True, scope="session")
def types_made_once(language_prepared_once: None) -> Iterator[None]:
    """Saves half of the rest: every number is a tensor, whose type and shape are made anew."""
    if find_spec("triton") is None:
        yield
        return
    from triton.language import core
    from triton.runtime import interpreter

    numpy_dtype, known = interpreter._get_np_dtype, dict[str, Any]()

    def looked_up(kind: Any) -> Any:
        name = kind.scalar.name
        if name not in known:
            known[name] = numpy_dtype(kind)
        return known[name]

    equal, yes = core.tuple.__eq__, core.constexpr(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_get_np_dtype", looked_up)
        once_for(patch, core.block_type, block_key)
        once_for(patch, core.tensor, lambda handle, kind: kind.name, own="handle")
        # Of one type, shapes are then one object.
        patch.setattr(
            core.tuple, "__eq__", lambda one, other: yes if one is other else equal(one, other)
        )
        yield


def block_key(element: Any, shape: Any) -> tuple[Any, ...]:
    return element.name, *[getattr(length, "value", length) for length in shape]


def once_for(
    patch: pytest.MonkeyPatch, made: Any, key: Callable[..., Any], own: str | None = None
) -> None:
    """What has one key shares the fields of the first of it, but for one: the first argument."""
    initialise, fields = made.__init__, dict[Any, dict[str, Any]]()

    @wraps(initialise)
    def initialised(self: Any, first: Any, second: Any) -> None:
        found = fields.get(name := key(first, second))
        if found is None:
            initialise(self, first, second)
            fields[name] = {field: value for field, value in vars(self).items() if field != own}
        else:
            self.__dict__.update(found)
            if own:
                setattr(self, own, first)

    patch.setattr(made, "__init__", initialised)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty is NaN, or the largest integer: an element that no kernel writes shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
