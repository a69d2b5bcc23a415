"""What can be wrong with a file of a data set: one sentence for people, fields for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "missing",
    "extra",
    "count",
    "empty",
    "truncated",
    "unreadable",
    "mode",
    "bit depth",
    "size",
    "ids",
    "product",
]


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it should be.

    Args:
        kind: which sort of fault, one word or two.
        path: the file or folder.
        expected: what it should be, continuing "expected <path> ".
        found: what it is, continuing "got ".
        cause: the likely reason.
        fix: what to do.
        serious: whether a reader refuses it; otherwise it is worth a warning.
    """

    kind: Kind
    path: Path
    expected: str
    found: str
    cause: str
    fix: str
    serious: bool = True

    def sentence(self, caller: str) -> str:
        """Say it in one sentence and a hint, beginning with the name of the caller."""
        return (
            f"{caller}: expected {self.path} {self.expected}, got {self.found}. "
            f"Hint: {self.cause}; {self.fix}."
        )


class DataError(ValueError):
    """A data set that a reader refuses; its text is the sentence of its fault.

    Args:
        sentence: the whole text.
        fault: the same in fields; None where the text was all that was left, as when a worker
            process hands it on.
    """

    def __init__(self, sentence: str, fault: Fault | None = None) -> None:
        super().__init__(sentence)
        self.fault = fault


def refuse(caller: str, fault: Fault) -> DataError:
    """Make the error of a fault, to be raised.

    Args:
        caller: begins the sentence.
        fault: what is wrong.
    """
    return DataError(fault.sentence(caller), fault)
