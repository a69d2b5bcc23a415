"""Make a smaller copy of data sets, which reads many times faster.

    python -m reference.prepare gta5 /data/GTA5 cityscapes /data/cityscapes --out /data/half

Writes ``<out>/gta5`` and ``<out>/cityscapes`` in the layouts of the originals: images as JPEG files
of quality 95, labels as PNG files of train ids. Give ``--data.root /data/half`` in place of the
original. A stopped command goes on where it stopped.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from PIL import Image

from reference.check_data import Roots
from reference.commands import answer, read
from reference.data.classes import CITYSCAPES, ByteArray
from reference.data.files import DataError, resize_image, resize_labels
from reference.data.image_set import ImageSet, Role, converted_pattern, layout_of, open_set
from reference.data.settings import require
from reference.run.files import entries, read_json, remove_partials, write_json, write_picture

QUALITY: Final = 95
MARK: Final = "prepared.json"


@dataclass(frozen=True)
class Options(Roots):
    """Make a smaller copy of data sets, in the same layouts."""

    # folder of the copies; each set gets a folder in it
    out: Path = Path("runs/prepared")
    # half halves both sides; full keeps them and only changes the format
    size: Literal["half", "full"] = "half"
    # copy the labels of a target's training images as well; without it they are not touched
    labels: bool = False


class Copy(NamedTuple):
    """A split and where its copy goes."""

    images: ImageSet
    split: str  # as the set writes it
    labels: str  # pattern of the label files of the copy
    folder: Path  # of the copy
    divisor: int  # of both sides of images
    label_divisor: int  # of labels; those that scores are taken with keep their size


def copies(options: Options) -> list[Copy]:
    """List what is to be copied; ValueError where a folder is not what its layout wants."""
    words = options.words("prepare")
    require("prepare", "a set", "own", "of the table in docs/data.md", "own" not in words)
    require("prepare", "a root", " ".join(words), "for every layout", len(words) % 2 == 0)
    listed, divisor = [], 2 if options.size == "half" else 1
    for name, root in zip(words[::2], words[1::2], strict=True):
        layout = layout_of(name, "target")
        role: Role = "source" if layout.source else "target"
        for split in ("train",) if layout.source else ("train", "val"):
            labels = layout.source or options.labels or split == "val"
            images = open_set(layout, Path(root), split, CITYSCAPES, labels=labels, role=role)
            written = layout.splits.get(split, split)
            pattern = converted_pattern(layout).replace("{split}", written)
            kept = divisor if split == "train" else 1
            listed.append(Copy(images, written, pattern, options.out / name, divisor, kept))
    return listed


def claim(copy: Copy) -> None:
    """Make the folder of a copy ours; ValueError where it holds other things or another copy."""
    wanted = {"source": str(copy.images.root.resolve()), "divisor": copy.divisor}
    mark = copy.folder / MARK
    if (held := read_json("prepare", mark)) != wanted:
        folder, got = copy.folder, "other things" if held is None else f"a copy with {held}"
        ok = not folder.exists() or (folder.is_dir() and not entries(folder))
        told, hint = f"to be new, empty or a copy with {wanted}", "choose another folder with --out"
        require("prepare", str(folder), got, told, ok, hint)
        write_json(mark, wanted)
    remove_partials(copy.folder)


def copy_pair(copy: Copy, index: int) -> int | str:
    """Write the files of one pair and return their number, or what is wrong with the pair."""
    images, sample = copy.images, copy.images.samples[index]

    def at(image: Path) -> Path:
        return copy.folder / image.relative_to(images.root).with_suffix(".jpg")

    truth = copy.folder / f"{copy.labels.format(**sample.parts)}.png"
    if at(sample.image).is_file() and (truth.is_file() or not images.has_labels):
        return 0
    try:
        pixels, labels = images.pair(index)
        partner = images.partner(index)
    except DataError as error:
        return str(error)
    # The image last: one without labels would be refused.
    if labels is not None:
        _write(truth, labels, copy.label_divisor)
    if partner is not None and sample.partner is not None:
        _write(at(sample.partner), partner, copy.divisor)
    _write(at(sample.image), pixels, copy.divisor)
    return 1 + (labels is not None) + (partner is not None)


def _write(path: Path, pixels: ByteArray, divisor: int) -> None:
    height, width = (max(1, round(length / divisor)) for length in pixels.shape[:2])
    scaled = (resize_image if pixels.ndim == 3 else resize_labels)(pixels, (height, width))
    kind = "JPEG" if pixels.ndim == 3 else "PNG"
    write_picture(path, Image.fromarray(scaled), kind, quality=QUALITY)


def prepare(options: Options) -> list[str]:
    """Copy all that the options name, and say of each split what was done.

    A set or a folder that is refused is so before anything is written.
    """
    from reference.data.batches import over

    wanted, told = copies(options), []
    for copy in wanted:
        claim(copy)
    for copy in wanted:
        work, title = partial(copy_pair, copy), f"Copying {copy.images.name}"
        count, workers = len(copy.images), options.workers
        done = list(over(work, count, title, workers=workers, progress=True))
        broken = [answer for answer in done if isinstance(answer, str)]
        files = sum(answer for answer in done if isinstance(answer, int))
        told.append(f"{copy.images.name} {copy.split}: {count - len(broken)} pairs, {files} files")
        told += [f"left out: {sentence}" for sentence in broken]
    return told


def main() -> None:
    options = read(Options, "prepare")
    stopped = "Stopped; the same command goes on from here."
    print(*answer(lambda: prepare(options), stopped), sep="\n")
    print(f"Give --data.root {options.out} in place of the original.")


if __name__ == "__main__":
    main()
