"""Scores of a run on the validation images: the last checkpoint is the headline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from reference.data.readers import Reader
from reference.engine.settings import Settings
from reference.engine.state import RunState, averaged
from reference.evaluation.class_table import class_table, write_class_table
from reference.evaluation.protocol import Evaluation, Protocol, evaluate_reader
from reference.networks.output import Segmenter


@dataclass(frozen=True)
class Validated:
    """What an evaluation gave, in percent.

    Args:
        name: of the mean, such as "miou19".
        student: of the trained network.
        teacher: of its moving average; None without one.
    """

    name: str
    student: float
    teacher: float | None


def protocol_of(settings: Settings) -> Protocol:
    """Return how networks of a run are evaluated."""
    return Protocol(size=settings.reporting.size, source=settings.data.source_set)


def network_name(settings: Settings) -> str:
    """Name the network and its head, which two networks of one name differ in."""
    if settings.network.kind == "toy":
        return "toy network"
    return f"{settings.network.deeplab.backbone}, {settings.network.deeplab.head}"


class Validation:
    """Evaluates the networks of a run and writes the table per class.

    Args:
        run: folder of the run.
        settings: of the run.
        reader: validation images with labels.
    """

    def __init__(self, run: Path, settings: Settings, reader: Reader) -> None:
        self.run = run
        self.settings = settings
        self.reader = reader
        self.protocol = protocol_of(settings)
        self._previous: Evaluation | None = None

    def _score(self, network: Segmenter, state: RunState) -> Evaluation:
        with torch.no_grad(), state.precision.autocast():
            return evaluate_reader(network, self.reader, self.protocol)

    def __call__(self, state: RunState) -> Validated:
        """Evaluate student and teacher, and write ``classes.{md,csv,json}`` of the student.

        Args:
            state: of the run.
        """
        student = self._score(state.network, state)
        table = class_table(student, network=network_name(self.settings), previous=self._previous)
        write_class_table(self.run, table)
        self._previous = student
        name, value = next(iter(student.means_percent.items()))
        teacher = None
        if state.teacher is not None:
            second = self._score(averaged(state.teacher), state)
            write_class_table(
                self.run,
                class_table(second, network=f"{network_name(self.settings)}, moving average"),
                stem="classes_teacher",
            )
            teacher = second.means_percent[name]
        return Validated(name, value, teacher)
