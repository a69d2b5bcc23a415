"""Scores of a run on the validation images: the last checkpoint is the headline."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch

from reference.data.sets import Sets
from reference.networks.output import Segmenter
from reference.run.state import State
from reference.settings import Settings


class Validated(NamedTuple):
    """What an evaluation gave, in percent.

    Args:
        name: of the mean, such as "miou19".
        student: of the trained network.
        teacher: of its moving average; None without one.
    """

    name: str
    student: float
    teacher: float | None


def validate(folder: Path, settings: Settings, sets: Sets, state: State) -> Validated:
    return Validated("x", 1.0, None)
