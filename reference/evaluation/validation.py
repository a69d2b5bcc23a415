"""Scores of a run on its validation images: the last evaluation is the headline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from reference.evaluation.class_table import class_table, read_evaluation, write_class_table
from reference.evaluation.protocol import Evaluation, Protocol, evaluate
from reference.networks.output import Segmenter, in_words
from reference.settings import Settings

if TYPE_CHECKING:
    from reference.data.sets import Sets
    from reference.run.state import State

TABLE = "classes"


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


def protocol_of(settings: Settings, sets: Sets) -> Protocol:
    """Return how networks of a run are evaluated."""
    return Protocol(
        classes=sets.classes,
        size=settings.reporting.size,
        labelled=tuple(sets.labelled.labelled),
        source=settings.data.source_set,
    )


def validate(folder: Path, settings: Settings, sets: Sets, state: State) -> Validated:
    """Evaluate a network and its moving average, as their method uses them at test time.

    Writes ``classes.{md,csv,json}`` of the network, beside the evaluation before if there is one
    that was measured alike, and ``classes_teacher.*`` of the moving average.

    Args:
        folder: of the run.
        settings: of the run.
        sets: its images.
        state: what is trained.

    Raises:
        ValueError: the validation images have no labels, or a file is broken.
    """
    protocol = protocol_of(settings, sets)

    def scored(network: Segmenter) -> Evaluation:
        with torch.no_grad(), state.precision.autocast():
            return evaluate(state.at_test(network), sets.validation, protocol)

    student = scored(state.network)
    previous = None
    if (folder / f"{TABLE}.json").is_file():
        previous = read_evaluation(folder / f"{TABLE}.json")
    if previous is not None and previous.header != student.header:
        previous = None
    name = in_words(state.network)
    write_class_table(folder, class_table(student, network=name, previous=previous), stem=TABLE)
    means = [(n, v) for n, v in student.means_percent.items() if v is not None]
    mean, value = means[0] if means else (next(iter(student.means_percent)), 0.0)
    teacher = None
    if state.average is not None:
        average = scored(cast(Segmenter, state.average.module))
        table = class_table(average, network=f"{name}, moving average")
        write_class_table(folder, table, stem=f"{TABLE}_teacher")
        teacher = average.means_percent[mean]
    return Validated(mean, value, teacher)
