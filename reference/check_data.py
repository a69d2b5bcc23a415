"""Check data sets before hours of training depend on them.

    python -m reference.check_data gta5 /data/GTA5 cityscapes /data/cityscapes
    python -m reference.check_data synthia /data/SYNTHIA --full all --workers 8
    python -m reference.check_data own my/images my/labels --classes my/classes.json

Reads the head and the end of every file and decodes a sample; with ``--full all`` it decodes all,
and keeps the counts that rare-class sampling uses. Ends with 2 when training would refuse a set.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from reference.commands import answer, laid_out, read
from reference.data.checking import by_cause, check_set
from reference.data.classes import CITYSCAPES, ClassList, read_classes
from reference.data.files import DataError
from reference.data.image_set import OWN, ImageSet, layout_of, open_set
from reference.data.layouts import LAYOUTS
from reference.data.rare_classes import class_probabilities, keep_counts
from reference.data.settings import RareClasses, require

FAILED: Final = 2


@dataclass(frozen=True)
class Roots:
    """Which sets a command reads, and where they lie."""

    # layout and root of each set, such as: gta5 /data/GTA5 cityscapes /data/cityscapes; of your own
    # set, own and its folders of images and labels
    sets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    # root of GTA5
    gta5: Path | None = None
    # root of SYNTHIA-RAND-CITYSCAPES
    synthia: Path | None = None
    # root of Cityscapes
    cityscapes: Path | None = None
    # processes that read
    workers: int = min(8, os.cpu_count() or 1)

    def words(self, command: str) -> list[str]:
        """Return layouts and roots in turn, as the command was given them."""
        named = [(name, getattr(self, name)) for name in ("gta5", "synthia", "cityscapes")]
        words = [*self.sets, *(str(word) for pair in named if pair[1] for word in pair)]
        got, hint = " ".join(words) or "nothing", f"python -m reference.{command} gta5 /data/GTA5"
        require(command, "a layout", got, "and its root", len(words) >= 2, hint)
        return words


@dataclass(frozen=True)
class Options(Roots):
    """Check data sets: which files are there, whether they are whole, what they hold."""

    # JSON of the classes of your own set
    classes: Path | None = None
    # look at labels of a target's training images as well, which adaptation never does
    train_labels: bool = False
    # pairs of each split that are decoded whole; of the others the head and the end are read
    sample: int = 64
    # all decodes every pair and keeps the counts of classes
    full: Literal["no", "all"] = "no"
    # folder of the counts
    index: Path = Path("runs/index")
    # images that training may leave out, as data.max_bad
    max_bad: int = 100
    # print JSON instead of tables
    json: bool = False


@dataclass
class Report:
    """What a split holds."""

    layout: str
    split: str
    root: str
    labels: bool  # whether labels are looked at
    expected: int | None  # number of images of the complete split; None where not known
    images: int = 0
    decoded: int = 0  # number of pairs that were read whole
    faults: tuple[str, ...] = ()  # sentences about files that training leaves out
    warnings: tuple[str, ...] = ()  # sentences about the rest
    refusal: str = ""  # why training refuses the set
    pixels: dict[str, int] | None = None  # of every class; None where no labels were decoded
    probabilities: dict[str, float] | None = None  # of rare-class sampling
    index: str | None = None  # file of the counts; None where they were not kept


def parts(options: Options) -> Iterator[tuple[Report, Path | None]]:
    """Yield the splits that are to be checked, and where their labels lie if elsewhere."""
    for name, least in (("sample", 1), ("workers", 0), ("max_bad", 0)):
        got = getattr(options, name)
        require("check_data", name, got, f"of at least {least}", got >= least)
    words = options.words("check_data")
    while words:
        name = words.pop(0)
        layout = layout_of(name, "target")
        require("check_data", "the root", "nothing", f"of {name}", bool(words))
        root, labels = words.pop(0), layout.source or options.train_labels
        truth = None
        if layout is OWN:
            labels = bool(words) and words[0] not in (*LAYOUTS, "own")
            truth = Path(words.pop(0)) if labels else None
        for split in ("train",) if layout.source else ("train", "val"):
            expected = layout.counts.get(split, (None,))[0]
            yield Report(name, split, root, labels or split == "val", expected), truth


def check(options: Options) -> list[Report]:
    wanted = list(parts(options))
    ok = options.classes is not None or all(report.layout != "own" for report, _ in wanted)
    require("check_data", "--classes", "none", "with layout own", ok)
    classes = CITYSCAPES if options.classes is None else read_classes(options.classes)
    for report, truth in wanted:
        _check(report, truth, classes, options)
    return [report for report, _ in wanted]


def _check(report: Report, truth: Path | None, classes: ClassList, options: Options) -> None:
    layout = layout_of(report.layout, "target")
    try:
        images = open_set(
            layout, Path(report.root), report.split, classes, labels=report.labels,
            label_root=truth, role="source" if layout.source else "target",
        )  # fmt: skip
    except DataError as error:
        report.refusal = str(error)
        return
    found = check_set(
        images, scored=report.split != "train", max_bad=options.max_bad, workers=options.workers,
        decoded=None if options.full == "all" else options.sample, progress=True,
    )  # fmt: skip
    report.images, report.decoded = len(images), found.decoded
    report.faults = tuple(str(fault) for fault in found.faults.values())
    report.warnings, report.refusal = tuple(found.warnings), found.refusal
    if found.pixels is not None and found.pixels.any():
        _count(report, images, found.pixels, options.index)


def _count(report: Report, images: ImageSet, pixels: Any, index: Path) -> None:
    names, total = images.classes.names, pixels.sum(axis=0)
    shares = class_probabilities(total, RareClasses().temperature)
    report.pixels = dict(zip(names, total.tolist(), strict=True))
    report.probabilities = dict(zip(names, shares.tolist(), strict=True))
    if len(pixels) == len(images):
        kept = keep_counts(images, pixels, index)
        report.index = None if kept is None else str(kept)
        if kept is None:
            report.warnings += (f"The counts of classes could not be kept in {index}.",)


def lines(report: Report) -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    name = f"{report.layout} {report.split}"
    if report.refusal:
        yield f"refused, {name}: {report.refusal}"
    yield from (f"broken, {name}: {fault}" for fault in by_cause(report.faults))
    yield from (f"warning, {name}: {sentence}" for sentence in report.warnings)
    if report.index is not None:
        yield f"Counts of {name}: {report.index}"


def show(reports: Sequence[Report]) -> None:
    table = [["set", "images", "expected", "labels", "decoded", "broken"]]
    for report in reports:
        table.append([
            f"{report.layout} {report.split}", str(report.images), str(report.expected or "any"),
            "yes" if report.labels else "not looked at", str(report.decoded),
            str(len(report.faults)),
        ])  # fmt: skip
    print(laid_out(table))
    for report in reports:
        if report.pixels is not None and report.probabilities is not None:
            total, drawn = sum(report.pixels.values()), report.probabilities
            table = [["class", "pixels, %", "rare-class sampling, %"]]
            for name, count in report.pixels.items():
                table.append([name, f"{100 * count / total:.3f}", f"{100 * drawn[name]:.2f}"])
            title = f"Classes of {report.layout} {report.split}, {report.decoded} pairs:"
            print(f"\n{title}\n\n{laid_out(table)}\n")
        for line in lines(report):
            print(line)
    refused = sum(bool(report.refusal) for report in reports)
    broken = sum(len(report.faults) for report in reports)
    last = f"Left out of training: {broken}." if broken else "All that was read is whole."
    print(f"Splits that training would refuse: {refused}." if refused else last)


def main() -> None:
    options = read(Options, "check_data")
    reports = answer(lambda: check(options), failed=FAILED)
    if options.json:
        passed = [{**asdict(report), "passed": not report.refusal} for report in reports]
        print(json.dumps(passed, indent=2))
    else:
        show(reports)
    if any(report.refusal for report in reports):
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
