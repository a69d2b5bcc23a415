"""The check of an error message: its type, and its text from the first letter to the last."""

from collections.abc import Callable
from typing import Any


def assert_raises(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    """AssertionError unless the call raises exactly this type with exactly this text."""
    try:
        call()
    except Exception as caught:
        if type(caught) is error and str(caught) == text:
            return
        raise AssertionError(
            f"expected {error.__name__}: {text}\ngot {type(caught).__name__}: {caught}"
        ) from caught
    raise AssertionError(f"expected {error.__name__}: {text}\ngot no error")
