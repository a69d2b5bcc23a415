"""Copies of tests for another backend: their backend is the one that is given, and no other."""

from itertools import product

import pytest

from tests import test_operator_properties as properties
from tests.shared import ON_EVERY_BACKEND, in_turns, on


def backends_of(test: object) -> list[str]:
    """What a test is parametrised with."""
    (found,) = [mark.args[1] for mark in test.pytestmark if mark.args[0] == "backend"]  # type: ignore[attr-defined]
    return [*found]


def test_a_copy_runs_on_the_backend_that_is_given() -> None:
    copies = on("triton", "operator_properties")
    copy = copies["test_two_runs_give_the_same_bits_of_operator_properties"]
    original = properties.test_two_runs_give_the_same_bits
    assert backends_of(copy) == ["triton"]
    assert backends_of(original) == ["eager", "naive"]
    assert len(copy.pytestmark) == len(original.pytestmark) == 2
    with pytest.raises(ValueError, match="'nowhere'"):
        copy("logits", "nowhere")


def test_a_property_of_drawn_calls_is_asked_of_the_copy_too() -> None:
    copy = on("triton", "operator_properties")["test_any_call_of_operator_properties"]
    with pytest.raises(ValueError, match="'nowhere'"):
        copy(name="upsampled", backend="nowhere")


def test_every_module_has_tests_for_any_backend() -> None:
    assert {name.rpartition("_of_")[0] != "" for name in on("eager", *ON_EVERY_BACKEND)} == {True}
    with pytest.raises(RuntimeError, match="expected tests with a backend, got none in test_house"):
        on("eager", "house")


def test_each_value_is_asked_once_and_the_others_take_turns() -> None:
    cases = [*product("ab", "xyz", "?")]
    assert [cases[place] for place in in_turns(cases)] == [*zip("aba", "xyz", "???", strict=True)]
    assert in_turns([()]) == [] == in_turns([])
