"""Images of one split of any layout, and their labels where the set was opened with them.

A set opened without labels holds no path to one, so a run cannot read the labels of its target's
training images by mistake; the folder of labels may even be absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from reference.data.classes import IGNORE, ByteArray, ClassList
from reference.data.files import (
    Reading,
    Size,
    find_files,
    fit_labels,
    picture_size,
    read_image,
    read_labels,
    refuse,
    require_short_names,
)
from reference.data.layouts import CONVERTED, LAYOUTS, TRAIN_IDS, Labels, Layout

Role = Literal["source", "target"]

# Without splits of its own, every fifth image of a target is kept for validation.
_FIFTH: Final = 5
_OWN_ENDINGS: Final = ("", "_labels", "_label", "_mask", "_gt", "_labelIds", "_L")
OWN: Final = Layout(
    "your own set",
    ("{path}",),
    tuple(Labels(f"{{path}}{ending}", {}, "own", any_value=True) for ending in _OWN_ENDINGS),
    "labels are PNG files with the names of their images",
    source=True,
)


class Sample(NamedTuple):
    """Files of one image.

    Args:
        stem: its name, which the set holds once.
        image: its file.
        labels: file of its labels; None where the set was opened without.
        way: number of the layout's way that the labels are written in.
        partner: day image of the same place, or None.
        parts: what the names in braces of the layout's pattern stand for.
    """

    stem: str
    image: Path
    labels: Path | None = None
    way: int = 0
    partner: Path | None = None
    parts: Mapping[str, str] = {}

    @property
    def place(self) -> str:
        """Drive or city."""
        return self.parts.get("place", "")


class _Cache:
    """Decoded images of one process, as many as fit."""

    def __init__(self, mib: int) -> None:
        self.left = mib << 20
        self.kept: dict[tuple[Path, bool], ByteArray] = {}

    def get(self, key: tuple[Path, bool], read: Callable[[], ByteArray]) -> ByteArray:
        if key in self.kept:
            return self.kept[key]
        pixels = read()
        if pixels.nbytes <= self.left:
            pixels.setflags(write=False)
            self.left -= pixels.nbytes
            self.kept[key] = pixels
        return pixels


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split, and their labels where it was opened with them.

    Args:
        name: title of the set.
        root: its folder.
        classes: of the run.
        samples: files of every image.
        has_labels: whether `labels` may be called.
        labelled: numbers of the classes that labels of this set show.
        readings: how each way of writing labels is read.
        notes: what is odd about the files, in sentences, and yet no reason to refuse them.
        cache_mib: decoded images are kept up to this many MiB.
    """

    name: str
    root: Path
    classes: ClassList
    samples: tuple[Sample, ...]
    has_labels: bool
    labelled: tuple[int, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()
    cache_mib: int = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Name of every image, in order."""
        return tuple(sample.stem for sample in self.samples)

    @cached_property
    def bad(self) -> dict[int, str]:
        """What is wrong with images that were left out, by their number."""
        return {}

    @cached_property
    def _cache(self) -> _Cache:
        return _Cache(self.cache_mib)

    def __getstate__(self) -> dict[str, object]:
        """Leave decoded images behind when the set goes to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            DataError: the file is broken.
        """
        path = self.samples[index].image
        return self._cache.get((path, True), lambda: read_image(path))

    def labels(self, index: int, shape: Size | None = None) -> ByteArray:
        """Return class numbers of image `index`, uint8 (H, W), 255 where nothing is scored.

        Args:
            index: of the image.
            shape: (height, width) of the image where it is known; else its header is read.

        Raises:
            ValueError: the set was opened without labels.
            DataError: the file is broken, or is no label file of this image.
        """
        sample = self.samples[index]
        path = sample.labels
        if path is None:
            raise ValueError(
                f"ImageSet.labels: expected a set opened with labels, got {self.name} without."
            )

        def read() -> ByteArray:
            wanted = shape or picture_size(sample.image)
            return fit_labels(path, read_labels(path, self.readings[sample.way]), wanted)

        return self._cache.get((path, False), read)

    def pair(self, index: int) -> tuple[ByteArray, ByteArray | None]:
        """Return an image and its labels, or None where there are none; each is decoded once."""
        image = self.image(index)
        if not self.has_labels:
            return image, None
        return image, self.labels(index, (image.shape[0], image.shape[1]))

    def partner(self, index: int) -> ByteArray | None:
        """Return the day image of the same place, uint8 (H, W, 3), or None."""
        path = self.samples[index].partner
        if path is None:
            return None
        return self._cache.get((path, True), lambda: read_image(path))

    @property
    def has_partners(self) -> bool:
        """Whether every image has a day image of the same place."""
        return bool(self.samples) and all(sample.partner for sample in self.samples)

    def part(self, indices: Iterable[int]) -> ImageSet:
        """Return a set of some of the images."""
        samples = tuple(self.samples[index] for index in indices)
        return replace(self, samples=samples, notes=())


def _reading(way: Labels, classes: ClassList, merge: Sequence[str]) -> Reading:
    merged = classes.merge_table(merge)
    numbers: dict[int, int] = {}
    colours: dict[int, int] = {}
    if way.kind == "own":
        for number in range(len(classes)):
            numbers |= dict.fromkeys(classes.ids[number] if classes.ids else (number,), number)
            shown = classes.label_colours[number] if classes.label_colours else ()
            for red, green, blue in shown or (classes.colours[number],):
                colours[red << 16 | green << 8 | blue] = number
    else:
        known = {name: number for number, name in enumerate(classes.names)}
        found = {value: known.get(name, IGNORE) for value, name in way.values.items()}
        numbers, colours = ({}, found) if way.kind == "colours" else (found, {})
    table = np.full(max(256, 2 + max(numbers, default=0)), IGNORE, dtype=np.uint8)
    for value, number in numbers.items():
        table[value] = merged[number]
    allowed = None if way.any_value else frozenset(way.values)
    return Reading(way.kind, table, allowed, {c: int(merged[n]) for c, n in colours.items()})


def layout_of(name: str, role: Role) -> Layout:
    """Return a layout by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name == "own":
        return OWN
    if role == "source" and name.startswith("toy"):
        name = "toy-source"
    if name not in LAYOUTS:
        known = ", ".join([*LAYOUTS, "own"])
        raise ValueError(f"data: expected a layout of {known}, got {name}.")
    return LAYOUTS[name]


def shown_classes(layout: Layout, classes: ClassList, merge: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the classes that labels of a layout show."""
    names = {name for way in layout.labels for name in way.values.values()}
    numbers = classes.numbers(layout.holds or names)
    read_as = classes.merge_table(merge)
    every = range(len(classes)) if layout is OWN else numbers
    return tuple(sorted({int(read_as[number]) for number in every}))


def named_roots(caller: str, words: Sequence[str], named: Mapping[str, Path | None]) -> list[str]:
    """Return layouts and roots in turn, as a command was given them.

    Args:
        caller: begins the sentence.
        words: layouts and roots.
        named: roots by layout, from options.

    Raises:
        ValueError: there are none.
    """
    found = list(words)
    for name, root in named.items():
        found += [] if root is None else [name, str(root)]
    if len(found) < 2:
        raise ValueError(
            f"{caller}: expected a layout and its root, got {' '.join(found) or 'nothing'}. "
            f"Hint: python -m reference.{caller} gta5 /data/GTA5."
        )
    return found


def converted_pattern(layout: Layout) -> str:
    """Return where train ids of an image lie, beside labels as they are downloaded."""
    plain = [way.pattern for way in layout.labels if way.values is TRAIN_IDS]
    return plain[0] if plain else layout.labels[0].pattern + CONVERTED


def ways_of(layout: Layout) -> tuple[Labels, ...]:
    """Return all ways in which labels of a layout may lie, converted ones last."""
    if layout is OWN or any(way.values is TRAIN_IDS for way in layout.labels):
        return layout.labels
    return (*layout.labels, Labels(converted_pattern(layout), TRAIN_IDS))


def _other_product(root: Path) -> str:
    """Name the SYNTHIA product that a folder holds in place of the wanted one, or ""."""
    if (root / "RGB" / "Stereo_Left").is_dir() or any(root.glob("SYNTHIA-SEQS*")):
        return "SYNTHIA-SEQS (video sequences)"
    return "SYNTHIA-SF" if (root / "RGBLeft").is_dir() else ""


def _images(layout: Layout, root: Path, split: str) -> tuple[dict[tuple[str, ...], Path], str]:
    for pattern in layout.images:
        found = find_files(root, pattern, layout.splits.get(split, split), labels=False)
        if found:
            return found, pattern
    wanted = layout.images[0].replace("{split}", layout.splits.get(split, split))
    for part in ("{stem}", "{place}", "{path}", "{condition}"):
        wanted = wanted.replace(part, "*")
    got = "no such folder" if not root.is_dir() else _other_product(root) or "none"
    hint = f"the folder is another one, or not all is unpacked: {layout.download}"
    raise refuse("missing", root, f"to hold images of {layout.title}, {wanted}.png", got, hint)


def open_set(
    layout: Layout,
    root: Path,
    split: str,
    classes: ClassList,
    *,
    labels: bool,
    role: Role = "target",
    merge: Sequence[str] = (),
    label_root: Path | None = None,
    cache_mib: int = 0,
) -> ImageSet:
    """Open one split of a set; its files are listed and none of them is opened.

    Args:
        layout: of the set.
        root: its folder.
        split: "train", "val" or another that the set has.
        classes: of the run.
        labels: whether labels will be read; with False no folder of labels is touched.
        role: what it is used as; a source without splits of its own is read whole.
        merge: pairs such as "rider=person".
        label_root: folder of labels, where they do not lie below `root`.
        cache_mib: decoded images are kept up to this many MiB.

    Raises:
        DataError: there are no images, or one has no labels.
    """
    images, pattern = _images(layout, root, split)
    names = sorted(part.partition("}")[0] for part in pattern.split("{")[1:] if "}" in part)
    names = [name for name in names if name != "split"]
    if "{split}" not in pattern and role == "target" and layout is not OWN:
        wanted = [n % _FIFTH == _FIFTH - 1 for n in range(len(images))]
        keep = wanted if split == "val" else [not w for w in wanted]
        images = {key: path for (key, path), k in zip(images.items(), keep, strict=True) if k}
    ways = ways_of(layout)
    truth: dict[tuple[str, ...], tuple[Path, int]] = {}
    extra = 0
    if labels:
        truth, extra = _label_files(layout, ways, label_root or root, split)
        extra -= len(truth.keys() & images.keys())
        missing = [path for key, path in images.items() if key not in truth]
        if missing:
            got = f"none; {len(missing)} of {len(images)} images lack theirs"
            hint = f"unpack all archives of labels: {layout.download}"
            raise refuse("missing", missing[0], "to have labels", got, hint)
    partners: Mapping[tuple[str, ...], Path] = {}
    if layout.partner:
        partners = find_files(root, layout.partner, layout.splits.get(split, split), labels=False)
    samples = []
    for key, path in images.items():
        parts = dict(zip(names, key, strict=True))
        stem = parts.get("stem") or parts["path"].replace("/", "_")
        label, way = truth.get(key, (None, 0))
        samples.append(Sample(stem, path, label, way, partners.get(key), parts))
    if len({sample.stem for sample in samples}) < len(samples):
        samples = [s._replace(stem=f"{s.place}_{s.stem}" if s.place else s.stem) for s in samples]
    _require_names_once(samples)
    return ImageSet(
        layout.title,
        root,
        classes,
        tuple(samples),
        labels,
        shown_classes(layout, classes, merge),
        tuple(_reading(way, classes, merge) for way in ways),
        tuple(_notes(layout, root, split, len(samples), extra if labels else 0)),
        cache_mib,
    )


def _label_files(
    layout: Layout, ways: Sequence[Labels], root: Path, split: str
) -> tuple[dict[tuple[str, ...], tuple[Path, int]], int]:
    """Return the label file of every image and its way, and the number of names."""
    truth: dict[tuple[str, ...], tuple[Path, int]] = {}
    for number, way in enumerate(ways):
        part = layout.splits.get(split, split)
        for key, path in find_files(root, way.pattern, part, labels=True).items():
            # Other repositories write converted labels beside the downloaded ones.
            if CONVERTED in way.pattern or not path.stem.endswith(CONVERTED):
                truth.setdefault(key, (path, number))
    return truth, len(truth)


def _notes(layout: Layout, root: Path, split: str, count: int, extra: int) -> Iterable[str]:
    expected = layout.counts.get(split, ())
    if extra > 0:
        yield f"{layout.title}: {extra} label files below {root} belong to no image."
    if expected and count != expected[0]:
        known = ", as a download in use" if count in expected else ""
        yield (
            f"{layout.title}: {count} images of {split} in {root}{known}; the complete set has "
            f"{expected[0]}."
        )


def _require_names_once(samples: Sequence[Sample]) -> None:
    seen: dict[str, Path] = {}
    for sample in samples:
        if sample.stem in seen:
            wanted, got = "to have a name of its own", f"that of {seen[sample.stem]}"
            raise refuse("extra", sample.image, wanted, got, "rename one of them")
        seen[sample.stem] = sample.image
    require_short_names((sample.stem, sample.image) for sample in samples)
