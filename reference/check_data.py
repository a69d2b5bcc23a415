"""Check downloaded data sets before hours of training depend on them.

    python -m reference.check_data --gta5 /data/GTA5 --cityscapes /data/cityscapes
    python -m reference.check_data --synthia /data/SYNTHIA --full all --workers 8
    python -m reference.check_data --gta5 /data/GTA5 --json

Reads the head and the end of every file and decodes a sample; with ``--full`` it decodes all, and
writes the index that rare-class sampling uses. Ends with 2 when a reader would refuse a file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reference.data.checking import Report, check_set
from reference.data.classes import NAMES
from reference.data.index import FOLDER
from reference.data.prepared import SetName
from reference.data.rare_classes import RareClasses, class_probabilities
from reference.data.sets import given_roots

FAILED: Final = 2
INTERRUPTED: Final = 130
_SHOWN: Final = 10


@dataclass(frozen=True)
class Options:
    """Check data sets: which files are there, whether they are whole, what they hold.

    Args:
        gta5: root of GTA5, with images/ and labels/.
        synthia: root of SYNTHIA-RAND-CITYSCAPES, with RGB/ and GT/.
        cityscapes: root of Cityscapes, with leftImg8bit/ and gtFine/.
        train_labels: look at the labels of Cityscapes train as well, which adaptation never does.
        sample: pairs of each set that are decoded whole; of the others the head and the end are
            read.
        full: "all" decodes every pair and writes the index.
        workers: processes that check.
        index: folder of the index.
        json: print JSON instead of tables.
    """

    gta5: Path | None = None
    synthia: Path | None = None
    cityscapes: Path | None = None
    train_labels: bool = False
    sample: int = 64
    full: Literal["no", "all"] = "no"
    workers: int = min(8, os.cpu_count() or 1)
    index: Path = FOLDER
    json: bool = False


def parts(options: Options) -> list[tuple[SetName, Path, str, bool]]:
    """List name, root, split and whether to look at labels, of all that is to be checked.

    Args:
        options: of the command.

    Raises:
        ValueError: no root is given, or `sample` or `workers` is out of its range.
    """
    if options.sample < 1:
        raise ValueError(f"check_data: expected sample of at least 1, got {options.sample}.")
    if options.workers < 0:
        raise ValueError(f"check_data: expected workers of at least 0, got {options.workers}.")
    roots = given_roots(
        "check_data", gta5=options.gta5, synthia=options.synthia, cityscapes=options.cityscapes
    )
    found: list[tuple[SetName, Path, str, bool]] = []
    for name, root in roots.items():
        found.append((name, root, "train", name != "cityscapes" or options.train_labels))
        if name == "cityscapes":
            found.append((name, root, "val", True))
    return found


def check(options: Options, *, progress: bool = True) -> list[Report]:
    """Check all that the options name.

    Args:
        options: of the command.
        progress: show bars.

    Raises:
        ValueError: no root is given, or a number is out of its range.
    """
    return [
        check_set(
            name,
            root,
            split,
            labels=labels,
            sample=None if options.full == "all" else options.sample,
            workers=options.workers,
            index_folder=options.index,
            progress=progress,
        )
        for name, root, split, labels in parts(options)
    ]


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as JSON can hold it, with the probabilities of rare-class sampling."""
    faults = [{**asdict(fault), "path": str(fault.path)} for fault in report.faults]
    return {
        **asdict(report),
        "root": str(report.root),
        "index": None if report.index is None else str(report.index),
        "faults": faults,
        "rare_class_probabilities": probabilities(report),
        "passed": not report.serious,
    }


def probabilities(report: Report) -> list[float] | None:
    """Return how often rare-class sampling would draw each class; None without labels."""
    if report.pixels is None or sum(report.pixels) == 0:
        return None
    pixels = np.array(report.pixels, dtype=np.int64)
    return [float(x) for x in class_probabilities(pixels, RareClasses().temperature)]


def overview(reports: Sequence[Report]) -> Table:
    """Lay out what was found of each set."""
    view = Table(title="Data sets")
    for title in ("set", "layout"):
        view.add_column(title)
    for title in ("images", "expected", "labels", "decoded", "faults"):
        view.add_column(title, justify="right")
    for report in reports:
        labels = "not looked at" if report.labels is None else str(report.labels)
        view.add_row(
            f"{report.name} {report.split}",
            report.variant or "not recognised",
            str(report.images),
            str(report.expected or "any"),
            labels,
            str(report.decoded),
            str(len(report.serious)),
        )
    return view


def histogram(report: Report) -> Table:
    """Lay out pixels per class, and how often rare-class sampling would draw each class."""
    pixels, drawn = report.pixels or (), probabilities(report) or []
    view = Table(title=f"Classes of {report.name} {report.split}, {report.decoded} label files")
    view.add_column("class")
    for title in ("pixels", "share in percent", "drawn, percent"):
        view.add_column(title, justify="right")
    total = sum(pixels)
    for name, count, probability in zip(NAMES, pixels, drawn, strict=True):
        share = f"{100 * count / total:.3f}"
        view.add_row(name, f"{count}", share, f"{100 * probability:.2f}")
    return view


def fault_lines(report: Report) -> list[str]:
    """Say what is wrong, serious faults first, at most ten of each kind."""
    lines: list[str] = []
    for serious, word in ((True, "error"), (False, "warning")):
        found = [fault for fault in report.faults if fault.serious is serious]
        for kind in dict.fromkeys(fault.kind for fault in found):
            alike = [fault for fault in found if fault.kind == kind]
            for fault in alike[:_SHOWN]:
                lines.append(fault.sentence(f"{word}, {report.name} {report.split}, {kind}"))
            if len(alike) > _SHOWN:
                more = len(alike) - _SHOWN
                lines.append(f"{word}, {report.name} {report.split}, {kind}: {more} more.")
    return lines


def show(reports: Sequence[Report], console: Console) -> None:
    """Print tables, then what is wrong."""
    console.print(overview(reports))
    for report in reports:
        if probabilities(report) is not None:
            console.print(histogram(report))
        for line in fault_lines(report):
            # Paths are searched for and copied, so they are not broken into lines.
            console.print(Text(line), soft_wrap=True)
        if report.index is not None:
            console.print(Text(f"Index of {report.name} {report.split}: {report.index}"))
    failed = sum(len(report.serious) for report in reports)
    if failed:
        console.print(f"Faults that a reader refuses: {failed}.")
    else:
        console.print("All that was read is whole.")


def main() -> None:
    """Read the command line, check, print; ends with 2 when something serious is wrong."""
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
        print(json.dumps([as_dict(report) for report in reports], indent=2))
    else:
        show(reports, Console())
    if any(report.serious for report in reports):
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
