"""Every fault of a set on disk, and what training would refuse: one check for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from reference.data.files import (
    TRAP,
    DataError,
    Size,
    check_ends,
    fit_labels,
    picture_size,
)
from reference.data.image_set import ImageSet
from reference.data.sets import Sets

if TYPE_CHECKING:
    from reference.run.ranks import Ranks
    from reference.settings import Settings

# Pairs of a set whose headers are compared before a run, and of those that are decoded.
_HEADERS: Final = 1000
_DECODED: Final = 8
_SHOWN: Final = 3
_LEAST_CLASSES: Final = 3


class Look(NamedTuple):
    """What one pair holds.

    Args:
        fault: why training leaves it out, or None.
        blank: whether the image is all one colour.
        pixels: of every class; None where labels were not decoded.
        distinct: number of classes in the labels, void counted as one.
    """

    fault: DataError | None
    blank: bool = False
    pixels: tuple[int, ...] | None = None
    distinct: int = 0


@dataclass
class Findings:
    """What is wrong with a set: sentences, the worst first.

    Args:
        faults: pairs that training leaves out, by their number.
        warnings: what is worth a line.
        refusal: why training refuses the set, or "".
        pixels: of every class in the labels that were decoded; None without.
        decoded: number of pairs that were read whole.
    """

    faults: dict[int, DataError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refusal: str = ""
    pixels: np.ndarray[Any, Any] | None = None
    decoded: int = 0


def look(images: ImageSet, decode: frozenset[int], index: int) -> Look:
    """Look at one pair: at heads, ends and sizes, and where asked for at every pixel."""
    sample = images.samples[index]
    try:
        if index not in decode:
            check_ends(sample.image)
            if sample.labels is not None:
                check_ends(sample.labels)
                _require_sizes(sample.labels, picture_size(sample.image))
            return Look(None)
        pixels, labels = images.pair(index)
    except DataError as error:
        return Look(error)
    blank = bool(pixels.min() == pixels.max())
    if labels is None:
        return Look(None, blank)
    counts = np.bincount(labels.ravel(), minlength=256)
    shown = tuple(counts[: len(images.classes)].tolist())
    return Look(None, blank, shown, int(np.count_nonzero(counts)))


def _require_sizes(path: Path, shape: Size) -> None:
    # No pixel is needed to compare two sizes.
    fit_labels(path, np.broadcast_to(np.uint8(0), picture_size(path)), shape)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of 0 .. count - 1, evenly spread."""
    return sorted(
        {place * count // most for place in range(most)} if count > most else range(count)
    )


def judge(images: ImageSet, looks: dict[int, Look], *, scored: bool, max_bad: int) -> Findings:
    """Say what is wrong with a set.

    Args:
        images: the set.
        looks: at some of its pairs, by their number.
        scored: whether scores are taken on it, so that no image may be missing.
        max_bad: number of training images that may be left out.
    """
    found = Findings(warnings=list(images.notes))
    found.faults = {i: one.fault for i, one in looks.items() if one.fault is not None}
    labelled = {i: one for i, one in looks.items() if one.pixels is not None}
    if labelled:
        found.pixels = np.array([one.pixels for one in labelled.values()], dtype=np.int64)
    bad, first = len(found.faults), next(iter(found.faults.values()), None)
    if first is not None:
        told = f"{bad} of {len(images)} images of {images.name} are broken"
        if scored or bad > max_bad or bad == len(looks):
            why = "scores need all of them" if scored else f"data.max_bad is {max_bad}"
            found.refusal = f"{first} In all {told}, and {why}."
        else:
            found.warnings.append(f"{told} and are left out of training.")
    _judge_labels(images, labelled, found, scored=scored)
    _judge_looks(images, looks, found)
    return found


def _judge_labels(
    images: ImageSet, labelled: dict[int, Look], found: Findings, *, scored: bool
) -> None:
    poor = [i for i, one in labelled.items() if one.distinct < _LEAST_CLASSES]
    if poor and "SYNTHIA" in images.name:
        path = images.samples[poor[0]].labels
        got = f"{path} shows fewer than {_LEAST_CLASSES} classes"
        if len(poor) == len(labelled) > 1:
            found.refusal = f"data: expected labels of streets, got none; {got}. Hint: {TRAP}."
        else:
            found.warnings.append(f"{len(poor)} label files are poor: {got}. Hint: {TRAP}.")
    void = [i for i, one in labelled.items() if not sum(one.pixels or ())]
    if void and len(void) == len(labelled):
        path = images.samples[void[0]].labels
        told = (
            f"data: expected labels of {', '.join(images.classes.names[:3])}, ... in "
            f"{images.name}, got none in {len(void)} label files such as {path}"
        )
        hint = "labels of a test split are placeholders, or the files number classes otherwise"
        if scored:
            found.refusal = f"{told}; nothing could be scored. Hint: {hint}."
        else:
            found.warnings.append(f"{told}; they teach nothing. Hint: {hint}.")
    elif void:
        names = ", ".join(images.stems[i] for i in void[:_SHOWN])
        found.warnings.append(f"{len(void)} label files of {images.name} are all void: {names}.")


def _judge_looks(images: ImageSet, looks: dict[int, Look], found: Findings) -> None:
    blank = [i for i, one in looks.items() if one.blank]
    if blank:
        names = ", ".join(images.stems[i] for i in blank[:_SHOWN])
        more = f" and {len(blank) - _SHOWN} more" if len(blank) > _SHOWN else ""
        found.warnings.append(
            f"{len(blank)} images of {images.name} are all one colour: {names}{more}."
        )


def check_sets(sets: Sets, *, target: bool = True, validation: bool = True) -> list[str]:
    """Look at the sets of a run before it starts, as its dry run does.

    The sizes of up to 1000 pairs of a set are compared, and 8 of them are decoded.

    Args:
        sets: of the run.
        target: whether training images of the target are needed.
        validation: whether scores are taken.

    Returns:
        Warnings, one sentence each.

    Raises:
        ValueError: the run would refuse a set.
    """
    wanted: list[tuple[ImageSet, bool]] = [(sets.source, False)]
    wanted += [(sets.target, False)] if target else []
    wanted += [(sets.validation, True)] if validation else []
    warned: list[str] = []
    for images, scored in wanted:
        decode = frozenset(spread(len(images), _DECODED))
        numbers = sorted(decode.union(spread(len(images), _HEADERS)))
        looks = {number: look(images, decode, number) for number in numbers}
        found = judge(images, looks, scored=scored, max_bad=sets.settings.max_bad)
        if found.refusal:
            raise DataError(found.refusal)
        warned += found.warnings
        warned += [str(fault) for fault in list(found.faults.values())[:_SHOWN]]
    return warned


def check_all(
    images: ImageSet,
    sample: int | None,
    *,
    scored: bool,
    max_bad: int = 100,
    workers: int = 0,
    progress: bool = False,
) -> Findings:
    """Look at every pair of a set.

    Args:
        images: the set.
        sample: how many pairs are decoded, spread over the set; None decodes all.
        scored: whether scores are taken on it.
        max_bad: number of training images that may be left out.
        workers: processes that look.
        progress: show a bar.
    """
    from reference.data.batches import over

    count = len(images)
    decode = frozenset(range(count) if sample is None else spread(count, sample))
    work = partial(look, images, decode)
    told = f"Checking {images.name}"
    looks: Sequence[Look] = list(over(work, count, told, workers=workers, progress=progress))
    found = judge(images, dict(enumerate(looks)), scored=scored, max_bad=max_bad)
    found.decoded = len(decode - found.faults.keys())
    return found


def adapts(settings: Settings) -> bool:
    """Whether a run sees target images."""
    return settings.stages in ("full", "adapt")


def check_run(settings: Settings, sets: Sets, ranks: Ranks) -> list[str]:
    """Check batches and data before a run writes anything.

    Returns:
        list: what a person should know about the data.

    Raises:
        ValueError: processes times parts do not divide a batch, or the data are not what they
            should be.
    """
    if settings.stages != "adapt":
        ranks.share(settings.source.batch_size, settings.machine.accumulate)
    if adapts(settings):
        ranks.share(settings.adaptation.batch_size, settings.machine.accumulate)
    return check_sets(sets, target=adapts(settings), validation=settings.reporting.evaluate)
