"""Right arguments of every public call are taken, in any dtype and kind of number."""

import inspect
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import checks
from tests.bad_arguments import UNCHECKED, calls

CALLS = calls()
RESULTS = {
    "BiCLOutput", "BidirectionalContrast", "ClassMix", "ClassPrototypes", "ClassStatistics",
    "QueuedKeys", "SampledPixels", "TransferredLabels",
}  # fmt: skip


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    called = function.forward if isinstance(function, nn.Module) else function
    every = inspect.signature(called).parameters
    return {name: one for name, one in every.items() if name not in UNCHECKED}


def test_every_public_call_is_here() -> None:
    assert {name.partition(".")[0] for name in CALLS} == set(pc.__all__) - RESULTS


@pytest.mark.parametrize("name", CALLS)
def test_the_right_arguments_are_taken(name: str) -> None:
    CALLS[name].function(**CALLS[name].arguments)


NUMBERS = {
    "num_classes": 3, "dim": 4, "length": 2, "components": 2, "pixels": 2, "number": 4,
    "per_class": 2, "min_pixels": 1, "iterations": 2, "seed": 1, "ignore_index": 255,
    "temperature": 0.5, "epsilon": 0.5, "momentum": 0.5, "bias_momentum": 0.5, "min_share": 0.5,
    "image_share": 0.5, "share": 0.5, "cap": 0.5, "strength": 0.5, "cross_entropy_weight": 0.5,
    "reverse_weight": 0.5, "floor": 0.5, "threshold": 0.5,
}  # fmt: skip


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, nn.Module):
        return list(result.buffers())
    parts = result if isinstance(result, tuple) else (result,)
    return [one for one in parts if isinstance(one, Tensor)]


KINDS: dict[type, tuple[Any, ...]] = {
    float: (np.float64, np.float32, np.float16, Fraction),
    int: (np.int64, np.int32, np.uint8),
    bool: (np.bool_,),
}


@pytest.mark.parametrize("name", CALLS)
def test_numbers_of_other_kinds_are_numbers(name: str) -> None:
    """Scalars of numpy, flags among them, and fractions."""
    for argument, parameter in parameters(CALLS[name].function).items():
        flag = parameter.default if isinstance(parameter.default, bool) else None
        given = CALLS[name].arguments.get(argument, NUMBERS.get(argument, flag))
        if type(given) not in KINDS:
            continue
        results = []
        for value in (given, *(kind(given) for kind in KINDS[type(given)])):
            torch.manual_seed(0)
            fresh = calls()[name]  # banks move
            results.append(tensors(fresh.function(**{**fresh.arguments, argument: value})))
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], rtol=0, atol=0, equal_nan=True)


def test_a_value_is_shown_in_one_line() -> None:
    for value in (10**400, 10**5000, float("nan"), np.ones(3), torch.ones(300)):
        text = checks.shown(value)
        assert text
        assert "\n" not in text
        assert len(text) <= checks.LONGEST_VALUE


def test_values_that_are_too_long_are_named() -> None:
    assert checks.shown(torch.ones(3, 40)) == "Tensor of shape (3, 40)"
    assert checks.shown(np.ones((3, 40))) == "ndarray of shape (3, 40)"
    assert checks.shown(10**5000) == "a value of type int"
    assert checks.shown(list(range(100))) == "a value of type list"
    assert checks.shown("nearest") == "'nearest'"


def test_the_ends_are_taken() -> None:
    checks.check_ignore_index(2**63 - 1)
    checks.check_ignore_index(-(2**63))
    checks.check_count("x", 2**63 - 1)


def test_the_smallest_divisor() -> None:
    checks.check_positive("x", checks.SMALLEST_DIVISOR)
    assert torch.finfo(torch.float32).tiny == checks.SMALLEST_DIVISOR
    assert (1 / torch.tensor(checks.SMALLEST_DIVISOR, dtype=torch.float32)).isfinite()
    rows = torch.eye(2)
    loss = pc.pixel_prototype_contrast(
        rows, torch.tensor([0, 0]), rows, temperature=checks.SMALLEST_DIVISOR, reduction="none"
    )
    assert loss[0] == 0
    assert loss[1] == 2.0**126


@pytest.mark.parametrize("dtype", checks.LABEL_DTYPES)
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    def result(name: str, arguments: dict[str, Any], dtype: torch.dtype) -> list[Tensor]:
        labels = {
            argument: torch.where(value == 255, 0, value).to(dtype)
            for argument, value in arguments.items()
            if argument.endswith("labels") or argument in ("base", "predictions", "counts")
        }
        torch.manual_seed(0)
        return tensors(calls()[name].function(**{**arguments, **labels}))

    for name, call in calls().items():
        expected = result(name, call.arguments, torch.int64)
        torch.testing.assert_close(
            result(name, call.arguments, dtype), expected, rtol=0, atol=0, equal_nan=True
        )
