"""Make a smaller copy of the data sets, which reads many times faster.

    python -m reference.prepare --gta5 /data/GTA5 --cityscapes /data/cityscapes --out /data/half

Writes ``<out>/gta5``, ``<out>/synthia`` and ``<out>/cityscapes``: images as JPEG files of quality
95, labels as PNG files of train ids. The roots of the copies are then given where those of the
originals would be. A stopped command goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import tyro
from rich.console import Console
from rich.table import Table

from reference.data.prepared import Prepared
from reference.data.preparing import Plan, claim, copy_all, decode_time_ms, make_plan
from reference.data.sets import given_roots, open_set

INTERRUPTED: Final = 130
DIVISORS: Final = {"half": 2, "full": 1}


@dataclass(frozen=True)
class Options:
    """Make a smaller copy of data sets.

    Args:
        gta5: root of GTA5.
        synthia: root of SYNTHIA-RAND-CITYSCAPES.
        cityscapes: root of Cityscapes.
        out: folder of the copies; each set gets a folder in it.
        size: "half" halves both sides; "full" keeps them and only changes the format.
        labels: copy the labels of Cityscapes train as well; without it they are not touched.
        workers: processes that copy.
    """

    gta5: Path | None = None
    synthia: Path | None = None
    cityscapes: Path | None = None
    out: Path = Path("runs/prepared")
    size: Literal["half", "full"] = "half"
    labels: bool = False
    workers: int = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Copied:
    """One copied split.

    Args:
        plan: what was copied.
        written: number of files written by this command.
        before_ms: time to read one pair of the original, milliseconds.
        after_ms: time to read one pair of the copy, milliseconds.
    """

    plan: Plan
    written: int
    before_ms: float
    after_ms: float


def plans(options: Options) -> list[list[Plan]]:
    """List what is to be copied, the splits of one set together.

    Labels of Cityscapes val keep their size, since scores are taken with them.

    Args:
        options: of the command.

    Raises:
        ValueError: no root is given, `workers` is negative, or a reader refuses a root.
    """
    if options.workers < 0:
        raise ValueError(f"prepare: expected workers of at least 0, got {options.workers}.")
    roots = given_roots(
        "prepare", gta5=options.gta5, synthia=options.synthia, cityscapes=options.cityscapes
    )
    divisor = DIVISORS[options.size]
    found = []
    for name, root in roots.items():
        splits = {"train": name != "cityscapes" or options.labels}
        if name == "cityscapes":
            splits["val"] = True
        found.append(
            [
                make_plan(
                    name,
                    split,
                    open_set(name, root, split, labels=labels),
                    options.out / name,
                    image_divisor=divisor,
                    label_divisor=1 if split == "val" else divisor,
                )
                for split, labels in splits.items()
            ]
        )
    return found


def prepare(options: Options, *, progress: bool = True) -> list[Copied]:
    """Copy all that the options name.

    Args:
        options: of the command.
        progress: show bars.

    Raises:
        ValueError: a root or the folder of a copy is refused, before anything is written; or a
            file is broken, and then what was copied before stays.
    """
    sets = plans(options)
    for splits in sets:
        claim(splits)
    return [_copied(plan, options.workers, progress) for splits in sets for plan in splits]


def _copied(plan: Plan, workers: int, progress: bool) -> Copied:
    written = copy_all(plan, workers=workers, progress=progress)
    copy = Prepared(plan.folder, plan.manifest.split, labels=plan.reader.has_labels)
    return Copied(plan, written, decode_time_ms(plan.reader), decode_time_ms(copy))


def table(copied: list[Copied]) -> Table:
    """Lay out what was written, and how long one pair takes to read before and after."""
    view = Table(title="Time to read one image, with its labels where they are copied")
    view.add_column("set")
    for title in ("pairs", "files written", "original, ms", "copy, ms"):
        view.add_column(title, justify="right")
    for each in copied:
        manifest = each.plan.manifest
        view.add_row(
            f"{manifest.name} {manifest.split}",
            str(len(manifest.pairs)),
            str(each.written),
            f"{each.before_ms:.1f}",
            f"{each.after_ms:.1f}",
        )
    return view


def main() -> None:
    """Read the command line, copy, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.prepare")
    try:
        copied = prepare(options)
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    console = Console()
    console.print(table(copied))
    for folder in dict.fromkeys(each.plan.folder for each in copied):
        console.print(f"Give {folder} as the root of {folder.name}.", soft_wrap=True)


if __name__ == "__main__":
    main()
