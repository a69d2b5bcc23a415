"""Check a set as it lies on disk: every fault is found and named, not only the first."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from reference.data.classes import NUM_CLASSES
from reference.data.faults import DataError, Fault, Kind
from reference.data.headers import Header, read_header
from reference.data.index import FOLDER, SetIndex, store_index
from reference.data.picture_files import decode_image
from reference.data.prepared import SetName, manifest_path
from reference.data.readers import Listing, missing_labels
from reference.data.sets import list_files, open_set
from reference.data.worker_pool import over_files

_AS_DOWNLOADED: Final = "use the files as downloaded"


@dataclass(frozen=True)
class Report:
    """What was found in one set or split.

    Args:
        name: of the set.
        split: of the set.
        root: its folder.
        variant: which of the layouts in use was found, in words; "" where none was.
        images: number of image files.
        labels: number of label files; None where they were not looked at.
        expected: number of images in the complete set; 0 where not known.
        decoded: number of pairs that were read whole.
        pixels: of every train id in the labels read, 19 numbers; None where none was read.
        faults: all that is wrong, those that a reader refuses and those that it does not.
        index: where the index was written; None where it was not.
    """

    name: SetName
    split: str
    root: Path
    variant: str = ""
    images: int = 0
    labels: int | None = None
    expected: int = 0
    decoded: int = 0
    pixels: tuple[int, ...] | None = None
    faults: tuple[Fault, ...] = ()
    index: Path | None = None

    @property
    def serious(self) -> tuple[Fault, ...]:
        """The faults that a reader refuses."""
        return tuple(fault for fault in self.faults if fault.serious)


class Checked(NamedTuple):
    """What was found in one pair of files."""

    faults: tuple[Fault, ...]
    size: tuple[int, int] | None
    pixels: tuple[int, ...] | None


@dataclass(frozen=True)
class Pairs:
    """The pairs of a set, as workers check them.

    Args:
        listing: the files of the set.
        stems: names of the pairs.
        decode: numbers of the pairs that are read whole; of the others only the headers are read.
    """

    listing: Listing
    stems: tuple[str, ...]
    decode: frozenset[int]


def _header(path: Path) -> Header | Fault:
    try:
        return read_header("check_data", path)
    except DataError as error:
        if error.fault is None:
            raise
        return error.fault
    except OSError as error:
        found = f"an error in opening ({error.strerror})"
        cause, fix = "rights or the disk", "check them"
        return Fault("unreadable", path, "to be a readable picture", found, cause, fix)


def _image_fault(path: Path, header: Header) -> Fault | None:
    if header.colours in ("RGB", "RGB and alpha") and header.bit_depth == 8:
        return None
    cause = "another tool has changed the file"
    return Fault("mode", path, "to be 8-bit RGB", str(header), cause, _AS_DOWNLOADED)


def _label_fault(listing: Listing, path: Path, header: Header) -> Fault | None:
    deep = listing.bit_depth == 16
    right_depth = header.bit_depth == 16 if deep else header.bit_depth <= 8
    if right_depth and header.colours in listing.colours:
        return None
    wanted = f"to be {listing.bit_depth}-bit {' or '.join(listing.colours)}"
    cause = "the file holds colours instead of class ids"
    if deep:
        cause = "the file is a picture of the labels, or a tool has cut its 16 bits to 8"
    kind: Kind = "mode" if right_depth else "bit depth"
    return Fault(kind, path, wanted, str(header), cause, _AS_DOWNLOADED)


def _size_fault(path: Path, header: Header, image: Header) -> Fault | None:
    if header.size == image.size:
        return None
    wanted = f"of size {image.size[1]}x{image.size[0]} as its image"
    found, cause = f"{header.size[1]}x{header.size[0]}", "image and labels are not of one frame"
    return Fault("size", path, wanted, found, cause, "unpack both again")


def _header_faults(listing: Listing, image: Path, labels: Path | None) -> Iterator[Fault | None]:
    first = _header(image)
    yield first if isinstance(first, Fault) else _image_fault(image, first)
    if labels is not None:
        second = _header(labels)
        yield second if isinstance(second, Fault) else _label_fault(listing, labels, second)
        if isinstance(first, Header) and isinstance(second, Header):
            yield _size_fault(labels, second, first)


def check_pair(pairs: Pairs, number: int) -> Checked:
    """Check an image and its labels.

    Args:
        pairs: of the set.
        number: of the pair.
    """
    listing, stem = pairs.listing, pairs.stems[number]
    image = listing.images[stem]
    labels = (listing.labels or {}).get(stem)
    faults = tuple(fault for fault in _header_faults(listing, image, labels) if fault is not None)
    if faults or number not in pairs.decode:
        return Checked(faults, None, None)
    try:
        decode_image("check_data", image)
        if labels is None:
            return Checked((), None, None)
        ids = listing.read_labels(labels, image)
    except DataError as error:
        if error.fault is None:
            raise
        return Checked((error.fault,), None, None)
    counts = np.bincount(ids.ravel(), minlength=256)[:NUM_CLASSES]
    return Checked((), (ids.shape[0], ids.shape[1]), tuple(counts.tolist()))


def _listing_faults(listing: Listing) -> Iterator[Fault]:
    for path in listing.missing:
        yield missing_labels(path, "none", listing.unpack)
    for path in listing.extra:
        cause, fix = "a part of the images is missing", "unpack all image archives"
        yield Fault("extra", path, "to belong to an image", "none", cause, fix, serious=False)
    images, expected = len(listing.images), listing.expected
    if expected and images != expected:
        cause = listing.known.get(images, "a part of the set is missing, or it is another set")
        fix = "go on if that is meant, else unpack all archives"
        wanted, found = f"to hold {expected} images", str(images)
        yield Fault("count", listing.root, wanted, found, cause, fix, serious=False)


def _sample(count: int, size: int | None) -> frozenset[int]:
    if size is None or size >= count:
        return frozenset(range(count))
    return frozenset(place * count // size for place in range(size))


def check_set(
    name: SetName,
    root: Path,
    split: str,
    *,
    labels: bool = True,
    sample: int | None = 64,
    workers: int = 0,
    index_folder: Path = FOLDER,
    progress: bool = False,
) -> Report:
    """Check one set or split.

    The header and the end of every file are read; a sample of the pairs is decoded whole. When
    all were decoded and nothing serious was found, the index of the set is written.

    Args:
        name: of the set.
        root: its folder, as downloaded.
        split: of Cityscapes; "train" for the others.
        labels: whether to look at labels of Cityscapes; the others always have them.
        sample: how many pairs are decoded, spread over the set; None decodes all.
        workers: processes that check; 0 checks in this one.
        index_folder: where the index is written.
        progress: show a bar.
    """
    report = Report(name, split, root)
    if manifest_path(root, split).is_file():
        wanted, found = "to hold the set as downloaded", "a copy that reference.prepare made"
        cause, fix = "copies are complete or refused by their reader", "check the original"
        return replace(report, faults=(Fault("product", root, wanted, found, cause, fix),))
    try:
        listing = list_files(name, root, split, labels=labels)
    except DataError as error:
        if error.fault is None:
            raise
        return replace(report, faults=(error.fault,))
    stems = tuple(listing.images)
    pairs = Pairs(listing, stems, _sample(len(stems), sample))
    work, described = partial(check_pair, pairs), f"Checking {name} {split}"
    checked = list(over_files(work, len(stems), described, workers=workers, progress=progress))
    counted = [found for found in checked if found.pixels is not None]
    pixels = np.array([found.pixels for found in counted], dtype=np.int64).reshape(-1, NUM_CLASSES)
    damaged = {number for number, found in enumerate(checked) if found.faults}
    faults = (*_listing_faults(listing), *(fault for found in checked for fault in found.faults))
    report = replace(
        report,
        variant=listing.variant,
        images=len(stems),
        labels=None if listing.labels is None else len(listing.labels),
        expected=listing.expected,
        decoded=len(pairs.decode - damaged),
        pixels=tuple(pixels.sum(axis=0).tolist()) if counted else None,
        faults=faults,
    )
    if report.serious or len(counted) < len(stems):
        return report
    with warnings.catch_warnings():
        # What it would warn of is in the report.
        warnings.simplefilter("ignore", UserWarning)
        reader = open_set(name, root, split)
    sizes = np.array([found.size for found in counted], dtype=np.int64)
    return replace(report, index=store_index(reader, SetIndex(stems, sizes, pixels), index_folder))
