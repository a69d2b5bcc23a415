"""Check data sets before hours of training depend on them.

    python -m reference.check_data gta5 /data/GTA5 cityscapes /data/cityscapes
    python -m reference.check_data synthia /data/SYNTHIA --full all --workers 8
    python -m reference.check_data own my/images my/labels --classes my/classes.json

Reads the head and the end of every file and decodes a sample; with ``--full all`` it decodes all,
and keeps the counts that rare-class sampling uses. Ends with 2 when training would refuse a set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import tyro

from reference.data.classes import CITYSCAPES, ClassList, read_classes
from reference.data.files import DataError
from reference.data.image_set import OWN, ImageSet, layout_of, named_roots, open_set
from reference.data.layouts import LAYOUTS

if TYPE_CHECKING:
    from rich.table import Table

FAILED: Final = 2
INTERRUPTED: Final = 130
_SHOWN: Final = 10


@dataclass(frozen=True)
class Options:
    """Check data sets: which files are there, whether they are whole, what they hold."""

    # layout and root of each set, such as: gta5 /data/GTA5 cityscapes /data/cityscapes; of your own
    # set, own and its folders of images and labels
    sets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    # root of GTA5
    gta5: Path | None = None
    # root of SYNTHIA-RAND-CITYSCAPES
    synthia: Path | None = None
    # root of Cityscapes
    cityscapes: Path | None = None
    # JSON of the classes of your own set
    classes: Path | None = None
    # look at labels of a target's training images as well, which adaptation never does
    train_labels: bool = False
    # pairs of each split that are decoded whole; of the others the head and the end are read
    sample: int = 64
    # all decodes every pair and keeps the counts of classes
    full: Literal["no", "all"] = "no"
    # processes that check
    workers: int = min(8, os.cpu_count() or 1)
    # folder of the counts
    index: Path = Path("runs/index")
    # images that training may leave out, as data.max_bad
    max_bad: int = 100
    # print JSON instead of tables
    json: bool = False


class Part(NamedTuple):
    """One split to check."""

    layout: str
    root: Path
    split: str
    labels: bool
    label_root: Path | None = None


@dataclass
class Report:
    """What a split holds.

    Args:
        layout, split, root: which it is.
        images: number of images.
        labels: whether labels were looked at.
        expected: number of images of the complete split; None where not known.
        decoded: number of pairs that were read whole.
        faults: sentences about files that training leaves out.
        warnings: sentences about the rest.
        refusal: why training refuses the set, or "".
        pixels: of every class by name; None where no labels were decoded.
        probabilities: of rare-class sampling, by name.
        index: file of the counts; None where they were not kept.
    """

    layout: str
    split: str
    root: str
    images: int = 0
    labels: bool = False
    expected: int | None = None
    decoded: int = 0
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    pixels: dict[str, int] | None = None
    probabilities: dict[str, float] | None = None
    index: str | None = None


def parts(options: Options) -> Iterator[Part]:
    """Yield the splits that are to be checked.

    Raises:
        ValueError: no set is given, a layout is unknown, or a number is out of its range.
    """
    for name, least in (("sample", 1), ("workers", 0), ("max_bad", 0)):
        if (got := getattr(options, name)) < least:
            raise ValueError(f"check_data: expected {name} of at least {least}, got {got}.")
    named = {name: getattr(options, name) for name in ("gta5", "synthia", "cityscapes")}
    words = named_roots("check_data", options.sets, named)
    while words:
        name = words.pop(0)
        layout = layout_of(name, "target")
        if not words:
            raise ValueError(f"check_data: expected the root of {name}, got nothing.")
        root = Path(words.pop(0))
        if layout is OWN:
            more = bool(words) and words[0] not in (*LAYOUTS, "own")
            yield Part(name, root, "train", more, Path(words.pop(0)) if more else None)
            continue
        yield Part(name, root, "train", options.train_labels or layout.source)
        if not layout.source:
            yield Part(name, root, "val", True)


def check(options: Options, *, progress: bool = True) -> list[Report]:
    """Check all that the options name.

    Raises:
        ValueError: see `parts`; or classes of an own set are missing or not described well.
    """
    wanted = list(parts(options))
    own = any(layout_of(part.layout, "target") is OWN for part in wanted)
    if own and options.classes is None:
        raise ValueError("check_data: expected --classes with layout own, got none.")
    classes = CITYSCAPES if options.classes is None else read_classes(options.classes)
    return [_check(part, classes, options, progress) for part in wanted]


def _check(part: Part, classes: ClassList, options: Options, progress: bool) -> Report:
    from reference.data.checking import check_all

    layout = layout_of(part.layout, "target")
    expected = layout.counts.get(part.split, (None,))[0]
    report = Report(part.layout, part.split, str(part.root), labels=part.labels, expected=expected)
    try:
        images = open_set(
            layout,
            part.root,
            part.split,
            classes,
            labels=part.labels,
            role="source" if layout.source else "target",
            label_root=part.label_root,
        )
    except DataError as error:
        report.refusal = str(error)
        return report
    sample = None if options.full == "all" else options.sample
    found = check_all(
        images,
        sample,
        scored=part.split != "train",
        max_bad=options.max_bad,
        workers=options.workers,
        progress=progress,
    )
    report.images, report.decoded = len(images), found.decoded
    report.faults = tuple(str(fault) for fault in found.faults.values())
    report.warnings, report.refusal = tuple(found.warnings), found.refusal
    if found.pixels is not None and found.pixels.sum():
        _count(report, images, found.pixels, options)
    return report


def _count(report: Report, images: ImageSet, pixels: Any, options: Options) -> None:
    from reference.data.rare_classes import ClassCounts, class_probabilities, keep_counts
    from reference.data.settings import RareClasses

    names, total = images.classes.names, pixels.sum(axis=0)
    report.pixels = dict(zip(names, total.tolist(), strict=True))
    shares = class_probabilities(total, RareClasses().temperature)
    report.probabilities = dict(zip(names, shares.tolist(), strict=True))
    if len(pixels) == len(images):
        kept = keep_counts(images, ClassCounts(images.stems, pixels), options.index)
        if kept is None:
            report.warnings += (f"The counts of classes could not be kept in {options.index}.",)
        else:
            report.index = str(kept)


def overview(reports: Sequence[Report]) -> Table:
    """Lay out what each split holds."""
    from rich.table import Table

    view = Table(title="Data sets")
    view.add_column("set")
    for title in ("images", "expected", "labels", "decoded", "broken"):
        view.add_column(title, justify="right")
    for report in reports:
        view.add_row(
            f"{report.layout} {report.split}",
            str(report.images),
            str(report.expected or "any"),
            "yes" if report.labels else "not looked at",
            str(report.decoded),
            str(len(report.faults)),
        )
    return view


def histogram(report: Report) -> Table:
    """Lay out the classes of a split, and how often rare-class sampling draws each."""
    from rich.table import Table

    pixels, shares = report.pixels or {}, report.probabilities or {}
    total = sum(pixels.values())
    view = Table(title=f"Classes of {report.layout} {report.split}, {report.decoded} pairs")
    view.add_column("class")
    view.add_column("pixels, %", justify="right")
    view.add_column("rare-class sampling, %", justify="right")
    for name, count in pixels.items():
        view.add_row(name, f"{100 * count / total:.3f}", f"{100 * shares[name]:.2f}")
    return view


def lines(report: Report) -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    name = f"{report.layout} {report.split}"
    if report.refusal:
        yield f"refused, {name}: {report.refusal}"
    yield from (f"broken, {name}: {fault}" for fault in report.faults[:_SHOWN])
    if len(report.faults) > _SHOWN:
        yield f"broken, {name}: {len(report.faults) - _SHOWN} more."
    yield from (f"warning, {name}: {sentence}" for sentence in report.warnings)
    if report.index is not None:
        yield f"Counts of {name}: {report.index}"


def show(reports: Sequence[Report]) -> None:
    """Print tables, then what is wrong."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(overview(reports))
    for report in reports:
        if report.pixels is not None:
            console.print(histogram(report))
        for line in lines(report):
            # Paths are searched for and copied, so they are not broken into lines.
            console.print(Text(line), soft_wrap=True)
    refused = sum(bool(report.refusal) for report in reports)
    broken = sum(len(report.faults) for report in reports)
    if refused:
        console.print(f"Splits that training would refuse: {refused}.")
    elif broken:
        console.print(f"Training would leave out {broken} images.")
    else:
        console.print("All that was read is whole.")


def main() -> None:
    """Read the command line, check, print; ends with 2 when training would refuse a set."""
    options = tyro.cli(Options, prog="python -m reference.check_data")
    try:
        reports = check(options, progress=not options.json)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if options.json:
        passed = [{**asdict(report), "passed": not report.refusal} for report in reports]
        print(json.dumps(passed, indent=2))
    else:
        show(reports)
    if any(report.refusal for report in reports):
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
