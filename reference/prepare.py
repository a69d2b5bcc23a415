"""Make a smaller copy of data sets, which reads many times faster.

    python -m reference.prepare gta5 /data/GTA5 cityscapes /data/cityscapes --out /data/half

Writes ``<out>/gta5`` and ``<out>/cityscapes`` in the layouts of the originals: images as JPEG files
of quality 95, labels as PNG files of train ids. Give ``--data.root /data/half`` in place of the
original. A stopped command goes on where it stopped.
"""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from reference.data.classes import CITYSCAPES, ByteArray
from reference.data.files import DataError
from reference.data.image_set import (
    OWN,
    ImageSet,
    converted_pattern,
    layout_of,
    named_roots,
    open_set,
)

INTERRUPTED: Final = 130
QUALITY: Final = 95
DIVISORS: Final = {"half": 2, "full": 1}
MARK: Final = "prepared.json"


@dataclass(frozen=True)
class Options:
    """Make a smaller copy of data sets, in the same layouts."""

    # layout and root of each set, such as: gta5 /data/GTA5 cityscapes /data/cityscapes
    sets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    # root of GTA5
    gta5: Path | None = None
    # root of SYNTHIA-RAND-CITYSCAPES
    synthia: Path | None = None
    # root of Cityscapes
    cityscapes: Path | None = None
    # folder of the copies; each set gets a folder in it
    out: Path = Path("runs/prepared")
    # half halves both sides; full keeps them and only changes the format
    size: Literal["half", "full"] = "half"
    # copy the labels of a target's training images as well; without it they are not touched
    labels: bool = False
    # processes that copy
    workers: int = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Copy:
    """A split and where its copy goes.

    Args:
        images: the original.
        labels: pattern of the label files of the copy.
        split: as the set writes it.
        folder: of the copy.
        divisor: of both sides of images.
        label_divisor: of labels; those that scores are taken with keep their size.
    """

    images: ImageSet
    labels: str
    split: str
    folder: Path
    divisor: int
    label_divisor: int


def copies(options: Options) -> list[Copy]:
    """List what is to be copied.

    Raises:
        ValueError: no set is given, a layout is unknown, or a folder is not what its layout wants.
    """
    named = {name: getattr(options, name) for name in ("gta5", "synthia", "cityscapes")}
    words = named_roots("prepare", options.sets, named)
    if len(words) % 2:
        raise ValueError(f"prepare: expected a root for every layout, got {' '.join(words)}.")
    found, divisor = [], DIVISORS[options.size]
    for name, root in zip(words[::2], words[1::2], strict=True):
        layout = layout_of(name, "target")
        if layout is OWN:
            raise ValueError("prepare: expected a set of the table in docs/data.md, got own.")
        splits = {"train": layout.source or options.labels}
        if not layout.source:
            splits["val"] = True
        for split, labels in splits.items():
            role: Literal["source", "target"] = "source" if layout.source else "target"
            images = open_set(layout, Path(root), split, CITYSCAPES, labels=labels, role=role)
            pattern = converted_pattern(layout).replace("{split}", layout.splits.get(split, split))
            found.append(
                Copy(
                    images,
                    pattern,
                    layout.splits.get(split, split),
                    options.out / name,
                    divisor,
                    divisor if split == "train" else 1,
                )
            )
    return found


def claim(copy: Copy) -> None:
    """Make the folder of a copy ours, or raise before anything is written.

    Raises:
        ValueError: the folder holds other things, or a copy of another set or size.
    """
    from reference.run.files import write_atomically

    wanted = {"source": str(copy.images.root.resolve()), "divisor": copy.divisor}
    mark = copy.folder / MARK
    try:
        held = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if held == wanted:
        return
    if copy.folder.exists() and (not copy.folder.is_dir() or any(copy.folder.iterdir())):
        got = "other things" if held is None else f"a copy with {held}"
        raise ValueError(
            f"prepare: expected {copy.folder} to be new, empty or a copy with {wanted}, got {got}. "
            "Hint: choose another folder with --out."
        )
    write_atomically(mark, json.dumps(wanted) + "\n")


def copy_pair(copy: Copy, index: int) -> int | str:
    """Write the files of one pair that are not there yet.

    Returns:
        The number of files written, or what is wrong with the pair, which is then left out.
    """
    from PIL import Image

    from reference.data.files import resize_image, resize_labels
    from reference.run.files import write_atomically

    images, sample = copy.images, copy.images.samples[index]
    target = copy.folder / sample.image.relative_to(images.root).with_suffix(".jpg")
    truth = copy.folder / f"{copy.labels.format(**sample.parts)}.png"
    if target.is_file() and (truth.is_file() or not images.has_labels):
        return 0
    try:
        pixels, labels = images.pair(index)
        partner = images.partner(index)
    except DataError as error:
        return str(error)

    def write(path: Path, pixels: ByteArray, divisor: int) -> None:
        size = tuple(max(1, round(length / divisor)) for length in pixels.shape[:2])
        small = (resize_image if pixels.ndim == 3 else resize_labels)(pixels, (size[0], size[1]))
        encoded = io.BytesIO()
        kind = "JPEG" if pixels.ndim == 3 else "PNG"
        Image.fromarray(small).save(encoded, format=kind, quality=QUALITY)
        write_atomically(path, encoded.getvalue())

    # The image last: one without labels would be refused.
    if labels is not None:
        write(truth, labels, copy.label_divisor)
    if partner is not None and sample.partner is not None:
        there = copy.folder / sample.partner.relative_to(images.root).with_suffix(".jpg")
        write(there, partner, copy.divisor)
    write(target, pixels, copy.divisor)
    return 1 + (labels is not None) + (partner is not None)


def prepare(options: Options, *, progress: bool = True) -> list[str]:
    """Copy all that the options name, and say of each split what was done.

    Raises:
        ValueError: a set or the folder of a copy is refused, before anything is written.
        OSError: the disk is full or not writable; what was copied before stays.
    """
    from reference.data.batches import over

    wanted = copies(options)
    for copy in wanted:
        claim(copy)
    told = []
    for copy in wanted:
        work, count = partial(copy_pair, copy), len(copy.images)
        title = f"Copying {copy.images.name}"
        done = list(over(work, count, title, workers=options.workers, progress=progress))
        broken = [answer for answer in done if isinstance(answer, str)]
        files = sum(answer for answer in done if isinstance(answer, int))
        told.append(f"{copy.images.name} {copy.split}: {count - len(broken)} pairs, {files} files")
        told += [f"left out: {sentence}" for sentence in broken]
    return told


def main() -> None:
    """Read the command line, copy, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.prepare")
    try:
        for line in prepare(options):
            print(line)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"Give --data.root {options.out} in place of the original.")


if __name__ == "__main__":
    main()
