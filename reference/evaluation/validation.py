"""Scores of a run on its validation images: the last evaluation is the headline."""

from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import torch

from reference.data.sets import Sets
from reference.evaluation.class_table import class_table, read_evaluation, write_class_table
from reference.evaluation.protocol import Evaluation, Protocol, evaluate
from reference.networks.output import Segmenter, in_words
from reference.run.files import durable_file
from reference.run.folder import CLASSES
from reference.run.state import State
from reference.settings import Settings, phases

EACH: Final = "confusions.npz"


class Validation(NamedTuple):
    """The mean called `name` of network and moving average, in percent, and `verdict` on it."""

    name: str
    student: float
    teacher: float | None
    verdict: str


# Source set -> (iterations of warm-up, percent mIoU below which something is likely wrong). The
# limits are our own choice, below published end results: a DeepLab-V2 on ResNet-101 that was
# trained on GTA5 alone ends at 36.6 % on Cityscapes, one whose pre-trained weights were not loaded
# at 25, one with a learning rate of 1e-5 at 30 (issues 25, 56, 65 and 81 of
# wasidennis/AdaptSegNet); trained on SYNTHIA alone it ends at 33.5 % over 16 classes.
EXPECTED: Final = {"gta5": {2000: 20.0, 10_000: 28.0}, "synthia": {2000: 17.0, 10_000: 25.0}}
# Labels read with the wrong colours or bits leave a network below this.
_NOTHING_LEARNT: Final = 5.0


def expected_percent(settings: Settings, iteration: int) -> float | None:
    """Least score to expect of a warm-up that begins as published ones did; None for all others."""
    as_published = (
        settings.data.target_set == "cityscapes"
        and settings.network.kind == "deeplab"
        and not settings.network.random_weights
        and settings.stages in ("full", "source-only")
        and iteration <= settings.source.iterations
    )
    limits = EXPECTED.get(settings.data.source_set, {})
    return limits.get(iteration) if as_published else None


def due(settings: Settings, iteration: int) -> bool:
    """Whether a run is scored after so many iterations."""
    every, rows = settings.reporting.evaluate_every, phases(settings)
    ends = {rows[-1].stop, *(row.stop for row in rows if not row.adapts)}
    often = bool(every) and iteration % every == 0
    judged = expected_percent(settings, iteration) is not None
    return settings.reporting.evaluate and (often or iteration in ends or judged)


def verdict(miou_percent: float, settings: Settings, iteration: int) -> str:
    """Say whether an early score is as expected, else where to look; "" where nothing is known."""
    least = expected_percent(settings, iteration)
    if least is None:
        return ""
    low = (
        "see that the backbone's weights were loaded (the report at the start of the run), that "
        "--source.optimiser.learning-rate is about 2.5e-4, and that the weights belong to the "
        "colour normalisation of the network."
    )
    if miou_percent < _NOTHING_LEARNT:
        low = (
            "next to nothing is learnt; labels that were saved again with other colours or bits "
            "do this (python -m reference.check_data)."
        )
    return (
        f"does it train? mIoU {miou_percent:.1f} after {iteration} iterations, expected "
        f"{least:g} or more: " + ("OK" if miou_percent >= least else f"LOW. Hint: {low}")
    )


def validate(folder: Path, settings: Settings, sets: Sets, state: State) -> Validation:
    """Evaluate a network and its moving average, as their method uses them at test time.

    Writes ``classes.{md,csv,json}`` of the network, beside an evaluation before that was measured
    alike, with the confusion of every image, and ``classes_teacher.*`` of the moving average.
    """
    protocol = Protocol(
        sets.classes, settings.reporting.size, labelled=tuple(sets.labelled.labelled),
        source=settings.data.source_set,
    )  # fmt: skip

    def scored(network: Segmenter) -> Evaluation:
        with torch.no_grad(), state.precision.autocast():
            return evaluate(state.method.at_test(network), sets.validation, protocol)

    student, before = scored(state.network), folder / CLASSES
    previous = read_evaluation(before) if before.is_file() else None
    if previous is not None and previous.header != student.header:
        previous = None
    words = in_words(state.network)
    write_class_table(folder, class_table(student, network=f"student: {words}", previous=previous))
    if student.each is not None:
        with durable_file(folder / EACH, sync=False) as file:
            np.savez_compressed(file, confusions=student.each.numpy().astype(np.uint32))
    means = student.means_percent.items()
    name, value = next((name, value) for name, value in means if value is not None)
    teacher = None
    if state.average is not None:
        average = scored(cast(Segmenter, state.average.module))
        table = class_table(average, network=f"teacher: {words}")
        write_class_table(folder, table, stem="classes_teacher")
        teacher = average.means_percent[name]
    return Validation(name, value, teacher, verdict(value, settings, state.iteration))
