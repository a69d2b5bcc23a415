"""`BiCL` says once, in a warning, that no target pixel has had a label since the first step."""

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch

from protocontrast import BiCL
from protocontrast.bicl import silence
from protocontrast.bicl.silence import PATIENCE, Answer
from tests.bicl_steps import CLASSES, DIM, batch

SOURCE, LABELS, TARGET, STATIC = batch(0, "grid")
SOURCE, TARGET = SOURCE.float(), TARGET.float()
TEXT = (
    "BiCL: expected target pixels with a label in the first 20 updates, got none: coverage and the "
    "loss are 0. Hint: lower the threshold (now 1.0 of the confidence), fill the source bank "
    "first, `bicl.source_bank.fit(batches)`, or train on the source for longer; `coverage` and "
    "`class_share` of every step say what helps."
)


def steps(bicl: BiCL, number: int, static: Any = None, **how: Any) -> list[str]:
    """What is warned of over some steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(number):
            bicl(SOURCE, LABELS, TARGET, static, **how)
    assert all(warning.category is UserWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def unsure(**settings: Any) -> BiCL:
    return BiCL(CLASSES, DIM, **{"threshold": 1.0, "temperature": 10.0, **settings})


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
def test_a_silent_start_is_said_once(settings: dict[str, Any]) -> None:
    bicl = unsure(**settings)
    assert steps(bicl, PATIENCE - 1) == []
    assert steps(bicl, 1) == [TEXT]
    assert steps(bicl, 2 * PATIENCE) == []


def test_it_points_at_the_line_of_the_call() -> None:
    bicl = unsure()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(PATIENCE):
            bicl(SOURCE, LABELS, TARGET)
    line = test_it_points_at_the_line_of_the_call.__code__.co_firstlineno
    assert [(warning.filename, warning.lineno - line) for warning in caught] == [(__file__, 5)]


def test_one_labelled_pixel_is_enough() -> None:
    bicl = unsure()
    assert steps(bicl, 1, STATIC) == []
    assert steps(bicl, 2 * PATIENCE) == []
    late = unsure()
    assert steps(late, PATIENCE - 1) == []
    assert steps(late, 1, STATIC) == []
    assert steps(late, 2 * PATIENCE) == []


def test_only_updating_steps_count_and_no_labels_may_be_wanted() -> None:
    bicl = unsure()
    assert steps(bicl, 2 * PATIENCE, update=False) == []
    assert steps(bicl.eval(), 2 * PATIENCE) == []
    assert steps(unsure(threshold=math.inf), 2 * PATIENCE) == []


def test_a_traced_step_says_nothing() -> None:
    bicl = unsure()
    traced = torch.compile(bicl, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(PATIENCE + 1):
            traced(SOURCE, LABELS, TARGET)
    assert bicl.silence.steps == 0


class Later:
    """An event of a device that is done when it is told so."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done


def test_an_answer_is_read_when_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's answers come late and in order; nobody waits for them."""
    event = Later()
    monkeypatch.setattr(silence, "sent", lambda flag: Answer(flag.clone(), event))
    bicl = unsure()
    assert steps(bicl, 2 * PATIENCE) == []
    assert bicl.silence.steps == 0
    assert len(pickle.loads(pickle.dumps(bicl)).silence.waiting) == 0
    assert len(copy.deepcopy(bicl).silence.waiting) == 0
    event.done = True
    assert steps(bicl, 1) == [TEXT]
    assert bicl.silence.waiting == []


def test_it_is_no_state() -> None:
    assert [name for name in unsure().state_dict() if "silence" in name] == []
