"""`checks`: the one form of every message, and what counts as a number or an integer."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from protocontrast import checks
from tests.sentences import assert_raises

INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
NEITHER = ["complex64", "float8_e4m3fn"]


@checks.called("inner")
def refuse(value: object) -> None:
    raise ValueError(checks.sentence("x", "to be 1", value))


@checks.public
def outer(value: object) -> None:
    """Calls another."""
    refuse(value)


def test_the_outermost_function_says_it() -> None:
    assert_raises(ValueError, "inner: expected x to be 1, got 2.", lambda: refuse(2))
    assert_raises(ValueError, "outer: expected x to be 1, got 2.", lambda: outer(2))
    named = checks.called("Module")(outer)
    assert_raises(ValueError, "Module: expected x to be 1, got 2.", lambda: named(2))
    assert (named.__name__, named.__doc__) == ("outer", "Calls another.")


def test_what_others_say_stays_as_it_is() -> None:
    @checks.public
    def asked(value: str) -> int:
        return int(value)

    assert asked("3") == 3
    text = "invalid literal for int() with base 10: 'x'"
    assert_raises(ValueError, text, lambda: asked("x"))


def test_a_sentence_ends_once() -> None:
    assert checks.sentence("x", "to be 1", 2) == "expected x to be 1, got 2."
    with_hint = checks.sentence("x", "to be 1", 2, "try 1.")
    assert with_hint == "expected x to be 1, got 2. Hint: try 1."


@pytest.mark.parametrize("value", [1, 0, -2.5, math.inf, np.float32(1), np.int8(1), Fraction(1, 2)])
def test_numbers(value: Any) -> None:
    assert checks.is_number(value)
    checks.check_number("x", value)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, math.nan, np.float32("nan"), "1", None, 1j, [1], torch.ones(()), Decimal(1)],
)
def test_what_is_no_number(value: Any) -> None:
    assert not checks.is_number(value)
    text = f"expected x to be a number, got {value!r}."
    assert_raises(ValueError, text, lambda: checks.check_number("x", value))


@pytest.mark.parametrize("value", [1, 1e-30, 1e30, np.float32(0.1)])
def test_positive(value: Any) -> None:
    checks.check_positive("x", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, None])
def test_not_positive(value: Any) -> None:
    text = f"expected x to be a finite number > 0, got {value!r}."
    assert_raises(ValueError, text, lambda: checks.check_positive("x", value))


@pytest.mark.parametrize("value", [0, 1, 0.3, np.float64(1)])
def test_shares(value: Any) -> None:
    checks.check_share("x", value)


@pytest.mark.parametrize("value", [-1e-9, 1.0001, math.nan, False, "0"])
def test_no_shares(value: Any) -> None:
    text = f"expected x to be a number in [0, 1], got {value!r}."
    assert_raises(ValueError, text, lambda: checks.check_share("x", value))


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "1", np.float64(2)])
def test_no_counts(value: Any) -> None:
    text = f"expected x to be an integer >= 1, got {value!r}."
    assert_raises(ValueError, text, lambda: checks.check_count("x", value))


@pytest.mark.parametrize("name", INTEGERS + FLOATS + NEITHER + ["bool"])
def test_dtypes(name: str) -> None:
    value = torch.zeros(2, dtype=getattr(torch, name))
    if name in INTEGERS:
        checks.check_integer("x", value)
    else:
        hint = (
            " Hint: a boolean mask is not a label map; use labels.long()." if name == "bool" else ""
        )
        text = f"expected x of an integer dtype, got torch.{name}.{hint}"
        assert_raises(TypeError, text, lambda: checks.check_integer("x", value))
    if name in FLOATS:
        checks.check_floating("x", value)
    else:
        text = f"expected x of a floating dtype, got torch.{name}."
        assert_raises(TypeError, text, lambda: checks.check_floating("x", value))


@pytest.mark.parametrize("value", [[1.0], np.ones(2), None, 3])
@pytest.mark.parametrize("check", ["check_tensor", "check_floating", "check_integer"])
def test_no_tensors(check: str, value: Any) -> None:
    text = f"expected x to be a torch.Tensor, got {type(value).__name__}."
    assert_raises(TypeError, text, lambda: getattr(checks, check)("x", value))


def test_shapes_and_devices() -> None:
    value = torch.zeros(2, 3)
    checks.check_shape("x", value, (2, 3), "as asked")
    text = "expected x of shape (3, 2) as asked, got (2, 3). Hint: turn it."
    call = checks.check_shape
    assert_raises(ValueError, text, lambda: call("x", value, (3, 2), "as asked", "turn it."))
    checks.check_device("x", value, value, "y")
    text = "expected x on meta like y, got cpu."
    assert_raises(ValueError, text, lambda: checks.check_device("x", value, value.to("meta"), "y"))


def test_gradients_are_refused_only_where_they_would_be_recorded() -> None:
    value = torch.ones(2, requires_grad=True)
    checks.check_no_grad("x", None)
    checks.check_no_grad("x", value.detach())
    with torch.no_grad():
        checks.check_no_grad("x", value)
    text = (
        "expected x without gradient, got requires_grad=True. "
        "Hint: pass x.detach(); gradients go to features and prototypes only."
    )
    assert_raises(TypeError, text, lambda: checks.check_no_grad("x", value))


def test_choices_of_any_kind() -> None:
    checks.check_choice("x", "a", ("a", "b"))
    checks.check_choice("x", np.False_, (True, False))
    text = "expected x to be 'a' or False, got ['a']."
    assert_raises(ValueError, text, lambda: checks.check_choice("x", ["a"], ("a", False)))
