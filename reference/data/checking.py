"""Every fault of a set on disk, and what training would refuse: one check for both."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from reference.data import files
from reference.data.cuts import require_cut
from reference.data.files import TRAP, DataError, check_ends, fit_labels, in_pixels, picture_size
from reference.data.image_set import ImageSet, spread_indices
from reference.data.rare_classes import count_pixels
from reference.data.sets import Sets
from reference.data.settings import Crops, Size, require

if TYPE_CHECKING:
    from reference.settings import Settings

# Pairs of a set whose heads and ends are read before a run, and of those that are decoded.
_HEADS: Final = 1000
_DECODED: Final = 8
_SHOWN: Final = 3
_LEAST_CLASSES: Final = 3
# A change of the aspect ratio that is worth a word.
_SQUEEZED: Final = 0.1


class _Look(NamedTuple):
    """What one pair holds: why training leaves it out, one colour alone, pixels of 256 values."""

    fault: DataError | None
    blank: bool = False
    counts: npt.NDArray[Any] | None = None


@dataclass
class Findings:
    """What is wrong with a set."""

    faults: dict[int, DataError]  # pairs that training leaves out, by their number
    warnings: list[str]  # what is worth a line
    refusal: str = ""  # why training refuses the set
    pixels: npt.NDArray[Any] | None = None  # of every class in labels that were decoded, (pairs, C)
    decoded: int = 0  # number of pairs that were read whole


def _look(images: ImageSet, numbers: Sequence[int], decode: frozenset[int], place: int) -> _Look:
    """Look at one pair: at heads, ends and sizes, and where asked for at every pixel."""
    number = numbers[place]
    sample = images.samples[number]
    try:
        if number not in decode:
            check_ends(sample.image)
            if sample.labels is not None:
                check_ends(sample.labels)
                # No pixel is needed to compare two sizes.
                empty = np.broadcast_to(np.uint8(0), picture_size(sample.labels))
                fit_labels(sample.labels, empty, picture_size(sample.image))
            return _Look(None)
        pixels, labels = images.pair(number)
    except DataError as error:
        return _Look(error)
    counts = None if labels is None else np.bincount(labels.ravel(), minlength=256)
    return _Look(None, bool(pixels.min() == pixels.max()), counts)


def check_set(
    images: ImageSet, *, scored: bool, max_bad: int = 100, heads: int | None = None,
    decoded: int | None = None, workers: int = 0, progress: bool = False,
) -> Findings:  # fmt: skip
    """Look at the pairs of a set and say what is wrong with it.

    Args:
        scored: whether scores are taken on it, so that no image may be missing.
        heads: of how many pairs the heads, ends and sizes are compared; None: of all.
        decoded: how many pairs are read whole; None: all. Both are spread over the set.
    """
    from reference.data.batches import over

    count = len(images)
    decode = frozenset(spread_indices(count, count if decoded is None else decoded))
    numbers = sorted(decode.union(spread_indices(count, count if heads is None else heads)))
    work = partial(_look, images, numbers, decode)
    title = f"Checking {images.name}"
    answers = over(work, len(numbers), title, workers=workers, progress=progress)
    looks: dict[int, _Look] = dict(zip(numbers, answers, strict=True))
    faults = {number: one.fault for number, one in looks.items() if one.fault is not None}
    found = Findings(faults, list(images.notes), decoded=len(decode - faults.keys()))
    if bad := len(found.faults):
        told = f"{bad} of {count} images of {images.name} are broken"
        if scored or bad > max_bad or bad == len(looks):
            why = "scores need all of them" if scored else f"data.max_bad is {max_bad}"
            found.refusal = f"{next(iter(found.faults.values()))} In all {told}, and {why}."
        else:
            found.warnings.append(f"{told} and are left out of training.")
    counts = {number: one.counts for number, one in looks.items() if one.counts is not None}
    if counts:
        # Of broken pairs what a run counts, too, so that it may take these counts.
        found.pixels = np.array([
            counts[number][: len(images.classes)] if number in counts
            else count_pixels(images, number) for number in numbers if number in decode
        ])  # fmt: skip
        _judge_labels(images, counts, found, scored=scored)
    if blank := [number for number, one in looks.items() if one.blank]:
        told = f"{len(blank)} of {len(looks)} images of {images.name} are all one colour"
        found.warnings.append(f"{told}: {_names(images, blank)}.")
    return found


def by_cause(faults: Iterable[object]) -> list[str]:
    """Return the first fault of every cause, which its hint tells, with the number of them."""
    causes: dict[str, list[str]] = {}
    for fault in map(str, faults):
        causes.setdefault(fault.partition("Hint: ")[2], []).append(fault)
    return [
        f"{first} The same cause in {len(others)} more." if others else first
        for first, *others in causes.values()
    ]


def _names(images: ImageSet, numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(images.stems[number] for number in numbers[:_SHOWN]) + more


def _judge_labels(
    images: ImageSet, counts: dict[int, npt.NDArray[Any]], found: Findings, *, scored: bool
) -> None:
    # Void counts as a class here.
    poor = [number for number, each in counts.items() if np.count_nonzero(each) < _LEAST_CLASSES]
    if poor and "SYNTHIA" in images.name:
        path = images.samples[poor[0]].labels
        got = f"{path} shows fewer than {_LEAST_CLASSES} classes"
        if len(poor) == len(counts) > 1:
            found.refusal = f"data: expected labels of streets, got none; {got}. Hint: {TRAP}."
        else:
            found.warnings.append(f"{len(poor)} label files are poor: {got}. Hint: {TRAP}.")
    void = [number for number, each in counts.items() if not each[: len(images.classes)].any()]
    if void and len(void) < len(counts):
        told = f"{len(void)} of {len(counts)} label files of {images.name} are all void"
        found.warnings.append(f"{told}: {_names(images, void)}.")
    elif void:
        why = "nothing could be scored" if scored else "they teach nothing"
        told = (
            f"data: expected labels of {', '.join(images.classes.names[:3])}, ... in "
            f"{images.name}, got none in {len(void)} label files such as "
            f"{images.samples[void[0]].labels}; {why}. Hint: labels of a test split are "
            "placeholders, or the files number classes otherwise."
        )
        if scored:
            found.refusal = told
        else:
            found.warnings.append(told)


def check_sets(
    sets: Sets, *, target: bool = True, validation: bool = True, whole_at: Iterable[Size] = (),
    cut_by: Mapping[str, Iterable[Crops]] | None = None,
) -> list[str]:  # fmt: skip
    """Look at what a run reads before it starts; refuse what it would refuse, return warnings."""
    told: list[str] = []
    for name, images in sets.opened(target=target, validation=validation).items():
        if images.root == sets.undrawn:
            continue
        found = check_set(
            images, scored=name == "validation", max_bad=sets.settings.max_bad, heads=_HEADS,
            decoded=_DECODED,
        )  # fmt: skip
        if found.refusal:
            raise DataError(found.refusal)
        paths = [images.samples[number].image for number in spread_indices(len(images), _HEADS)]
        for size in whole_at:
            files.require_whole(paths, size)
        for crops in (cut_by or {}).get(name, ()):
            for path, shape in files.shapes(paths if crops.short_side else ()):
                require_cut(path, shape, crops)
        told += [*found.warnings, *by_cause(found.faults.values())[:_SHOWN]]
    return told


def require_given(given: Path, images: ImageSet) -> None:
    """Refuse a folder of labels made elsewhere that lacks one; a few of them are read."""
    from reference.data.batches import read_static

    missing = [f"{stem}.png" for stem in images.stems if not (given / f"{stem}.png").is_file()]
    wanted = f"to hold {''.join(missing[:1])} and a label of every other image of {images.name}"
    got = f"{given} without {len(missing)} of {len(images)}"
    require("train", "adaptation.static.given", got, wanted, not missing)
    for number in spread_indices(len(images), _DECODED):
        read_static(given / f"{images.stems[number]}.png", images.classes)


def _size(images: ImageSet) -> Size | None:
    """Height and width of the first image that can be read."""
    for sample in images.samples:
        with suppress(DataError):
            return picture_size(sample.image)
    return None


def _scaled(shape: Size, to: Crops | Size) -> str:
    """Say to what size an image of `shape` is scaled, and whether that changes its aspect ratio."""
    if isinstance(to, Crops):
        if to.size is None:
            return f"a short side of {'..'.join(map(str, dict.fromkeys(to.short_side or ())))}"
        to = to.size
    wider = to[1] * shape[0] / (to[0] * shape[1]) if to[1] else 1.0
    change = max(wider, 1 / wider) - 1
    squeezed = f", which changes the aspect ratio by {change:.0%}" if change > _SQUEEZED else ""
    return in_pixels(to) + squeezed


def scaling(settings: "Settings", sets: Sets) -> str:
    """Say to what size a run scales images, and where that changes their aspect ratio."""
    stage, told = settings.adaptation, []
    source = stage.source_crops if settings.stages == "adapt" else settings.source.crops
    wanted: dict[str, dict[str, Crops | Size]] = {
        "labelled": {"": source},
        "target": {"": stage.target_crops},
        "validation": {"": settings.reporting.size},
    }
    if settings.method == "bicl" and stage.uses_static:
        wanted["target"][", its static labels"] = stage.static.size
    read = sets.opened(target=settings.adapts, validation=settings.reporting.evaluate)
    for name, images in read.items():
        drawn = images.root == sets.undrawn
        shape = settings.data.drawn.size if drawn else _size(images)
        if shape is not None:
            sizes = (f"{what} to {_scaled(shape, to)}" for what, to in wanted[name].items())
            told.append(f"{name} {shape[1]}x{shape[0]}{''.join(sizes)}")
    return f"images are scaled (width x height): {'; '.join(told)}"
