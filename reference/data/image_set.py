"""Images of one split of any layout, and their labels where the set was opened with them.

A set opened without labels holds no path to one, so a run cannot read the labels of its target's
training images by mistake; the folder of labels may even be absent.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from reference.data import files
from reference.data.classes import IGNORE, ByteArray, ClassList
from reference.data.files import Reading, find_files, picture_size, read_image, read_labels, refuse
from reference.data.layouts import CONVERTED, LAYOUTS, TRAIN_IDS, Labels, Layout
from reference.data.settings import Size, refusal

Role = Literal["source", "target"]
Parts = tuple[str, ...]

# Without splits of its own, every fifth image of a target is kept for validation.
_FIFTH: Final = 5
# A stem with the ending and the mark of a half-written file must fit into 255 bytes.
_LONGEST_STEM: Final = 220
_OWN_ENDINGS: Final = ("", "_labels", "_label", "_mask", "_gt", "_labelIds", "_L")
OWN: Final = Layout(
    "your own set",
    ("{path}",),
    tuple(Labels(f"{{path}}{ending}", {}, "own") for ending in _OWN_ENDINGS),
    "images are PNG or JPEG files, labels PNG files with the names of their images",
    source=True,
)


class Sample(NamedTuple):
    """Files of one image."""

    stem: str  # its name, which the set holds once
    image: Path
    labels: Path | None  # None where the set was opened without
    way: int  # number of the layout's way that the labels are written in
    partner: Path | None  # day image of the same place
    parts: Mapping[str, str]  # what the names in braces of the layout's pattern stand for

    @property
    def place(self) -> str:
        """Drive or city."""
        return self.parts.get("place", "")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split, and their labels where it was opened with them."""

    name: str  # title of the set
    root: Path
    classes: ClassList  # of the run
    samples: tuple[Sample, ...]
    has_labels: bool  # whether `labels` may be called
    labelled: tuple[int, ...]  # numbers of the classes that labels of this set show
    readings: tuple[Reading, ...]  # how each way of writing labels is read
    notes: tuple[str, ...] = ()  # what is odd about the files, and yet no reason to refuse them
    cache_mib: int = 0  # decoded images are kept up to this many MiB

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def stems(self) -> tuple[str, ...]:
        return tuple(sample.stem for sample in self.samples)

    @cached_property
    def bad(self) -> dict[int, str]:
        """What is wrong with images that were left out, by their number."""
        return {}

    @cached_property
    def _kept(self) -> dict[Path, ByteArray]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        """Leave decoded images behind when the set goes to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _read(self, path: Path, read: Callable[[Path], ByteArray]) -> ByteArray:
        if path in self._kept:
            return self._kept[path]
        pixels = read(path)
        room = (self.cache_mib << 20) - pixels.nbytes
        if room >= 0 and sum(kept.nbytes for kept in self._kept.values()) <= room:
            pixels.setflags(write=False)
            self._kept[path] = pixels
        return pixels

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB; DataError where the file is broken."""
        return self._read(self.samples[index].image, read_image)

    def labels(self, index: int, shape: Size | None = None) -> ByteArray:
        """Return class numbers of image `index`, uint8 (H, W), 255 where nothing is scored.

        Where the image's `shape` is not known, its header is read. ValueError where the set was
        opened without labels, DataError where the file is broken or belongs to another image.
        """
        sample = self.samples[index]
        if sample.labels is None:
            got = f"{self.name} without"
            raise refusal("ImageSet.labels", "a set", got, "opened with labels")

        def read(path: Path) -> ByteArray:
            wanted = shape or picture_size(sample.image)
            return files.fit_labels(path, read_labels(path, self.readings[sample.way]), wanted)

        return self._read(sample.labels, read)

    def pair(self, index: int) -> tuple[ByteArray, ByteArray | None]:
        """Return an image and its labels, or None where there are none; each is decoded once."""
        image = self.image(index)
        size = (image.shape[0], image.shape[1])
        return image, self.labels(index, size) if self.has_labels else None

    def partner(self, index: int) -> ByteArray | None:
        """Return the day image of the same place, uint8 (H, W, 3), or None."""
        path = self.samples[index].partner
        return None if path is None else self._read(path, read_image)

    @property
    def has_partners(self) -> bool:
        """Whether every image has a day image of the same place."""
        return bool(self.samples) and all(sample.partner for sample in self.samples)

    def part(self, indices: Iterable[int]) -> "ImageSet":
        return replace(self, samples=tuple(self.samples[index] for index in indices), notes=())


def reading_of(way: Labels, classes: ClassList, merge: Sequence[str] = ()) -> Reading:
    """Return how label files of one way become classes of the run."""
    merged = classes.merge_table(merge)
    numbers: dict[int, int] = {}
    colours: dict[int, int] = {}
    if way.kind == "own":
        for number, colour in enumerate(classes.colours):
            numbers |= dict.fromkeys(classes.ids[number] if classes.ids else (number,), number)
            shown = classes.label_colours[number] if classes.label_colours else ()
            for red, green, blue in shown or (colour,):
                colours[red << 16 | green << 8 | blue] = number
        for red, green, blue in ((0, 0, 0), *classes.void):
            colours.setdefault(red << 16 | green << 8 | blue, IGNORE)
    else:
        known = {name: number for number, name in enumerate(classes.names)}
        read_as = {value: known.get(name, IGNORE) for value, name in way.values.items()}
        numbers, colours = ({}, read_as) if way.kind == "colours" else (read_as, {})
    table = np.full(max(256, 2 + max(numbers, default=0)), IGNORE, dtype=np.uint8)
    for value, number in numbers.items():
        table[value] = merged[number]
    allowed = None if way.kind == "own" else frozenset(way.values)
    return Reading(way.kind, table, allowed, {c: int(merged[n]) for c, n in colours.items()})


def layout_of(name: str, role: Role) -> Layout:
    """Return a layout by its name."""
    if name == "own":
        return OWN
    if role == "source" and name.startswith("toy"):
        name = "toy-source"
    if name not in LAYOUTS:
        raise refusal("data", "a layout", name, f"of {', '.join([*LAYOUTS, 'own'])}")
    return LAYOUTS[name]


def looks_like(root: Path, split: str) -> str:
    """Name the first layout of the table whose images lie below a folder, "" for none."""
    for name, layout in LAYOUTS.items():
        word = layout.splits.get(split, split)
        if any(find_files(root, pattern, word, labels=False) for pattern in layout.images):
            return name
    return ""


def shown_classes(layout: Layout, classes: ClassList, merge: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the classes that labels of a layout show."""
    names = layout.holds or {name for way in layout.labels for name in way.values.values()}
    numbers = range(len(classes)) if layout is OWN else classes.numbers(names)
    return tuple(sorted({int(classes.merge_table(merge)[number]) for number in numbers}))


def converted_pattern(layout: Layout) -> str:
    """Return where train ids of an image lie, beside labels as they are downloaded."""
    plain = [way.pattern for way in layout.labels if way.values is TRAIN_IDS]
    return plain[0] if plain else layout.labels[0].pattern + CONVERTED


def open_set(
    layout: Layout, root: Path, split: str, classes: ClassList, *, labels: bool,
    role: Role = "target", merge: Sequence[str] = (), label_root: Path | None = None,
    cache_mib: int = 0,
) -> ImageSet:  # fmt: skip
    """Open one split of a set; its files are listed and none of them is opened.

    Args:
        labels: whether labels will be read; with False no folder of labels is touched.
        role: what it is used as; a source without splits of its own is read whole.
        label_root: folder of labels, where they do not lie below `root`.
    """
    word = layout.splits.get(split, split)
    found, pattern = _images(layout, root, word)
    images = found
    if "{split}" not in pattern and role == "target" and layout is not OWN:
        fifth = {key for n, key in enumerate(found) if n % _FIFTH == _FIFTH - 1}
        images = {key: path for key, path in found.items() if (key in fifth) == (split == "val")}
        if not images:
            wanted = f"to hold {_FIFTH} images or more, every fifth of which is for validation"
            raise refuse(root, wanted, str(len(found)), "add some, or give --reporting.no-evaluate")
    ways = layout.labels
    if layout is not OWN and not any(way.values is TRAIN_IDS for way in ways):
        ways = (*ways, Labels(converted_pattern(layout), TRAIN_IDS))
    truth = _label_files(ways, label_root or root, word) if labels else {}
    missing = [path for key, path in images.items() if key not in truth]
    if labels and missing:
        got = f"none; {len(missing)} of {len(images)} images lack theirs"
        unpack = "" if layout is OWN else "unpack all archives of labels: "
        raise refuse(missing[0], "to have labels", got, unpack + layout.download)
    partners = find_files(root, layout.partner, word, labels=False) if layout.partner else {}
    names = {part.partition("}")[0] for part in pattern.split("{")[1:]} - {"split"}
    samples = []
    for key, path in images.items():
        parts = dict(zip(sorted(names), key, strict=True))
        stem = parts.get("stem") or parts["path"].replace("/", "_")
        file, way = truth.get(key, (None, 0))
        samples.append(Sample(stem, path, file, way, partners.get(key), parts))
    # A file with the ending of a way is also found as one without, of another name.
    used = {path for key, (path, _) in truth.items() if key in found}
    unused = len({path for path, _ in truth.values()} - used)
    where = f"{layout.title}: {unused} label files below {label_root or root}"
    notes = [f"{where} belong to no image."] if unused else []
    count, expected = len(samples), layout.counts.get(split, (len(samples),))
    if count != expected[0]:
        known = ", as a download in use" if count in expected else ""
        where = f"{layout.title}: {count} images of {split} in {root}{known}"
        notes.append(f"{where}; the complete set has {expected[0]}.")
    readings = tuple(reading_of(way, classes, merge) for way in ways)
    shown = shown_classes(layout, classes, merge)
    return ImageSet(
        layout.title, root, classes, _named_once(samples), labels, shown, readings, tuple(notes),
        cache_mib,
    )  # fmt: skip


def _images(layout: Layout, root: Path, word: str) -> tuple[dict[Parts, Path], str]:
    """Return the images by what the pattern names, and the pattern that finds them."""
    for pattern in layout.images:
        if images := find_files(root, pattern, word, labels=False):
            return images, pattern
    wanted = layout.images[0].replace("{split}", word)
    for part in ("{stem}", "{place}", "{path}", "{condition}"):
        wanted = wanted.replace(part, "*")
    got = "none" if root.is_dir() else "no such folder"
    # Two products that are mistaken for the wanted one.
    if (root / "RGB" / "Stereo_Left").is_dir() or any(root.glob("SYNTHIA-SEQS*")):
        got = "SYNTHIA-SEQS (video sequences)"
    elif (root / "RGBLeft").is_dir():
        got = "SYNTHIA-SF"
    other = "" if layout is OWN else "the folder is another one, or not all is unpacked: "
    wanted = f"to hold images of {layout.title}, {wanted}.png"
    raise refuse(root, wanted, got, other + layout.download)


def _label_files(ways: Sequence[Labels], root: Path, word: str) -> dict[Parts, tuple[Path, int]]:
    """Return the label file of every image, and the number of its way."""
    truth: dict[Parts, tuple[Path, int]] = {}
    for number, way in enumerate(ways):
        for key, path in find_files(root, way.pattern, word, labels=True).items():
            # Other repositories write converted labels beside the downloaded ones.
            if CONVERTED in way.pattern or not path.stem.endswith(CONVERTED):
                truth.setdefault(key, (path, number))
    return truth


def _named_once(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples with names that differ and leave room for files named after them."""
    if len({sample.stem for sample in samples}) < len(samples):
        samples = [s._replace(stem=f"{s.place}_{s.stem}" if s.place else s.stem) for s in samples]
    seen: dict[str, Path] = {}
    for sample in samples:
        length = len(os.fsencode(sample.stem))
        if sample.stem in seen:
            wanted, got = "to have a name of its own", f"that of {seen[sample.stem]}"
            raise refuse(sample.image, wanted, got, "rename one of them")
        if length > _LONGEST_STEM:
            wanted = f"to have a name of at most {_LONGEST_STEM} bytes"
            raise refuse(sample.image, wanted, str(length), "rename it and its labels")
        seen[sample.stem] = sample.image
    return tuple(samples)


def spread_indices(count: int, wanted: int) -> list[int]:
    """Pick evenly spaced indices: a fixed rule, so that no picture is chosen for its looks.

    Example:
        >>> spread_indices(100, 4)
        [12, 37, 62, 87]
    """
    wanted = min(count, wanted)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]
