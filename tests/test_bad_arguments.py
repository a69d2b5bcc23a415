"""Whatever is handed to a public call in place of an argument, the answer is one sentence."""

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import checks
from tests.bad_arguments import BY_NAME, CHOICES, NO_CHOICE, UNCHECKED, Call, calls
from tests.sentences import assert_raises

CALLS = calls()
SENTENCE = re.compile(r"(\w+): expected ([^\n]+), got ([^\n]+)\.( Hint: [^\n]+\.)?")
LONGEST = 400
RESULTS = {
    "BiCLOutput", "BidirectionalContrast", "ClassMix", "ClassPrototypes", "ClassStatistics",
    "QueuedKeys", "SampledPixels", "TransferredLabels",
}  # fmt: skip


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    called = function.forward if isinstance(function, nn.Module) else function
    every = inspect.signature(called).parameters
    return {name: one for name, one in every.items() if name not in UNCHECKED}


def takes_none(parameter: inspect.Parameter) -> bool:
    return parameter.default is None or type(None) in get_args(parameter.annotation)


def what_is_wrong(call: Call, argument: str, value: Any) -> str:
    """ "" where the call refuses the value in one sentence."""
    try:
        call.function(**{**call.arguments, argument: value})
    except (TypeError, ValueError) as caught:
        text = str(caught)
        found = SENTENCE.fullmatch(text)
        if found and found[1] in pc.__all__ and len(text) <= LONGEST:
            return ""
        return f"{argument}: {type(caught).__name__}: {text}"
    except Exception as caught:
        return f"{argument}: {type(caught).__name__}: {caught}"
    return f"{argument}: {checks.shown(value)} was taken"


def test_every_public_call_is_here() -> None:
    assert {name.partition(".")[0] for name in CALLS} == set(pc.__all__) - RESULTS


@pytest.mark.parametrize("name", CALLS)
def test_the_right_arguments_are_taken(name: str) -> None:
    CALLS[name].function(**CALLS[name].arguments)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_in_a_sentence(name: str) -> None:
    call = CALLS[name]
    found = []
    for argument, parameter in parameters(call.function).items():
        values = NO_CHOICE if argument in CHOICES else BY_NAME.get(argument)
        values = call.replaced.get(argument, values)
        assert values is not None, f"nothing is known about {argument}"
        values = values if takes_none(parameter) else [*values, None]
        found += [what_is_wrong(call, argument, value) for value in values]
    assert [one for one in found if one] == []


def test_the_comparison_can_fail() -> None:
    def taken(features: Any) -> None:
        pass

    def traced(features: Any) -> None:
        raise RuntimeError("shape '[2]' is invalid")

    def unnamed(features: Any) -> None:
        raise ValueError("f: expected features to be 1, got 2.")

    def unfinished(features: Any) -> None:
        raise ValueError("mrkld: expected features to be 1, got 2")

    for function in (taken, traced, unnamed, unfinished):
        assert what_is_wrong(Call(function, {}), "features", 1)


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


@pytest.mark.parametrize("name", CALLS)
def test_numpys_scalars_are_numbers(name: str) -> None:
    for argument in parameters(CALLS[name].function):
        given = CALLS[name].arguments.get(argument, NUMBERS.get(argument))
        if argument not in NUMBERS or isinstance(given, Tensor):
            continue
        kinds = (np.float64, np.float32) if isinstance(given, float) else (np.int64, np.uint8)
        results = []
        for value in (given, *(kind(given) for kind in kinds)):  # type: ignore[abstract]
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


@pytest.mark.parametrize("value", [1e-320, 1e-39, np.float64(1e-310)])
def test_a_divisor_is_not_lost_in_float32(value: Any) -> None:
    text = "expected x to be a number >= 2**-126, the least that float32 divides by, "
    text += f"got {value!r}."
    assert_raises(ValueError, text, lambda: checks.check_positive("x", value))


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


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**70])
def test_integers_have_64_bits(value: int) -> None:
    hint = "labels are at most of 64 bits; the usual ignore values are 255 and -100."
    text = f"expected ignore_index to be an integer of 64 bits, got {value}. Hint: {hint}"
    assert_raises(ValueError, text, lambda: checks.check_ignore_index(value))
    if value > 0:
        text = f"expected x to be an integer of 64 bits, got {value}."
        assert_raises(ValueError, text, lambda: checks.check_count("x", value))
    checks.check_ignore_index(2**63 - 1)
    checks.check_ignore_index(-(2**63))


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
