"""A step without any target label looks like a perfect one: said once, in a warning."""

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast.checks import sentence

PATIENCE = 20
"""Updating steps without a labelled target pixel after which a module warns."""

INSIDE = tuple(f"{Path(name).parent}{os.sep}" for name in (torch.__file__, Path(__file__).parent))
"""Files between a user's call and its step: torch's modules and the library."""


class Answer(NamedTuple):
    """A number on its way to the host; `arrived` never waits."""

    value: Tensor
    event: Any

    def arrived(self) -> bool:
        """Whether the value may be read."""
        return self.event is None or bool(self.event.query())


def sent(number: Tensor) -> Answer | None:
    """A number () copied to the host behind the work that makes it; None where that would wait."""
    if number.device.type == "cpu":
        return Answer(number, None)
    if number.device.type != "cuda":
        return None
    value = torch.empty((), dtype=number.dtype, pin_memory=True)
    value.copy_(number, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return Answer(value, event)


class Silence:
    """Counts a module's first updating steps until a target pixel has a label, or warns.

    Then it asks no more, since on a device each answer costs the host a copy and an event: a later
    fall to 0 shows in `coverage` alone. It is no state: copies and loaded modules begin to count
    anew where they are.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.over = False
        self.waiting: list[Answer] = []

    def __getstate__(self) -> dict[str, Any]:
        # An event belongs to its process.
        return {**self.__dict__, "waiting": []}

    def note(self, coverage: Tensor, threshold: float, measure: str) -> None:
        """One more step, in which this share () of the target's pixels has a label."""
        if torch.compiler.is_compiling() or self.over or math.isinf(threshold):
            return
        if type(coverage) is not Tensor or coverage.is_meta:
            return
        # An event may not even be asked while a graph is captured.
        if coverage.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        if torch._C._are_functorch_transforms_active():
            return
        answer = sent(coverage)
        if answer is not None:
            self.waiting.append(answer)
        while self.waiting and self.waiting[0].arrived():
            self._hear(bool(self.waiting.pop(0).value > 0), threshold, measure)

    def _hear(self, labelled: bool, threshold: float, measure: str) -> None:
        self.steps += 1
        if labelled or self.over:
            self.over = True
        elif self.steps == PATIENCE:
            self.over = True
            hint = (
                f"lower the threshold (now {threshold} of the {measure}), fill the source bank "
                "first, `bicl.source_bank.fit(batches)`, or train on the source for longer; "
                "`coverage` and `class_share` of every step say what helps."
            )
            requirement = f"with a label in the first {PATIENCE} updates"
            got = "none: coverage and the loss are 0"
            text = sentence("target pixels", requirement, got, hint).said_by("BiCL")
            warnings.warn(text, UserWarning, stacklevel=_level_of_the_user())


def _level_of_the_user() -> int:
    """The stack level, to the function that asks, of the first line outside of the library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        level, frame = level + 1, frame.f_back
    return level
