"""What every reader of a data set offers, and what those of downloaded sets are built on.

Labels come out as train ids 0..18 and 255, remapped on the fly; no conversion step is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from reference.data.classes import ByteArray
from reference.data.faults import Fault, refuse
from reference.data.picture_files import decode_image

ReadLabels = Callable[[Path, Path], ByteArray]

# Other repositories write converted labels beside the downloaded ones.
CONVERTED: Final = "_labelTrainIds"


class ImageReader(Protocol):
    """A set of images without labels: all that a target pipeline may hold."""

    @property
    def stems(self) -> tuple[str, ...]:
        """Name of every image, in reading order."""

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB."""


class Reader(ImageReader, Protocol):
    """What every data set offers: images by number, and labels where it was given them."""

    @property
    def has_labels(self) -> bool:
        """Whether `labels` may be called."""

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W)."""


class FileReader(Reader, Protocol):
    """A reader whose images and labels are files, one each."""

    @property
    def root(self) -> Path:
        """Folder of the set."""

    @property
    def image_files(self) -> tuple[Path, ...]:
        """File of every image."""

    @property
    def label_files(self) -> tuple[Path, ...]:
        """File of every image's labels; nothing where the reader was made without."""


@dataclass(frozen=True)
class Listing:
    """Files of one set or split as they lie on disk, before any of them is opened.

    Args:
        name: of the set, beginning the sentences about it.
        root: folder of the set.
        variant: which of the layouts in use was found, in words.
        images: stem -> file, sorted.
        labels: stem -> file, sorted; None where labels were not asked for.
        truth: where the labels of each image are expected, by stem.
        read_labels: reads a label file, given also its image, as train ids.
        bit_depth: of the label files, 8 (or less) or 16.
        colours: what label files hold per pixel, as a `Header` names it.
        expected: number of images in the complete set; 0 where not known.
        known: numbers of images of smaller downloads that are in use, with a word about each.
        unpack: what to do when labels are missing.
    """

    name: str
    root: Path
    variant: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path] | None
    truth: Mapping[str, Path]
    read_labels: ReadLabels
    bit_depth: int
    colours: tuple[str, ...]
    expected: int = 0
    known: Mapping[int, str] = field(default_factory=dict)
    unpack: str = "unpack all label archives"

    @property
    def missing(self) -> tuple[Path, ...]:
        """Label files that images lack."""
        if self.labels is None:
            return ()
        return tuple(self.truth[stem] for stem in self.images if stem not in self.labels)

    @property
    def extra(self) -> tuple[Path, ...]:
        """Label files without an image."""
        labels = self.labels or {}
        return tuple(path for stem, path in labels.items() if stem not in self.images)

    def require_labels(self) -> tuple[Path, ...]:
        """Return the label file of every image, in the order of the images.

        Raises:
            DataError: an image has none.
        """
        if self.labels is None:
            return ()
        missing = self.missing
        if missing:
            found = f"none; {len(missing)} of {len(self.images)} images lack theirs"
            raise refuse(self.name, missing_labels(missing[0], found, self.unpack))
        return tuple(self.labels[stem] for stem in self.images)


class ListedSet:
    """Reader of the files of a listing: all of a downloaded set but how its folders lie.

    Args:
        listing: of the set; without labels the reader holds no path to one.

    Raises:
        DataError: an image has no labels, and they were asked for.
    """

    def __init__(self, listing: Listing) -> None:
        self.root = listing.root
        self.has_labels = listing.labels is not None
        self.stems = tuple(listing.images)
        self.image_files = tuple(listing.images.values())
        self.label_files = listing.require_labels()
        self._name = listing.name
        self._read_labels = listing.read_labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_files)

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            DataError: the file is empty, damaged or not RGB.
        """
        return decode_image(f"{self._name}.image", self.image_files[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W), 255 where not scored.

        Raises:
            ValueError: the reader was made without labels.
            DataError: the file is refused by the function that reads the labels of the set.
        """
        if not self.has_labels:
            raise ValueError(
                f"{self._name}.labels: expected a reader made with labels=True, got labels=False."
            )
        return self._read_labels(self.label_files[index], self.image_files[index])


def missing_labels(path: Path, found: str, fix: str) -> Fault:
    """Return the fault of a label file that is not there.

    Args:
        path: where it should be.
        found: "none", perhaps with a count.
        fix: what to do.
    """
    cause = "a part of the download is missing"
    return Fault("missing", path, "to hold the labels of an image", found, cause, fix)


def require_folder(caller: str, folder: Path, must: str) -> Path:
    """Return a folder, or say that it is missing.

    Args:
        caller: begins the sentence.
        folder: the path.
        must: what the root must hold, in words.

    Raises:
        DataError: it is no folder.
    """
    if not folder.is_dir():
        found = "a file" if folder.is_file() else "none"
        cause = "the root is another folder, or not all is unpacked"
        fix = f"the root must hold {must}"
        raise refuse(caller, Fault("missing", folder, "to be a folder", found, cause, fix))
    return folder


def pictures(folder: Path) -> dict[str, Path]:
    """Return stem -> PNG file of a folder, sorted, without labels that other tools converted."""
    paths = (path for path in sorted(folder.glob("*.png")) if not path.stem.endswith(CONVERTED))
    return {path.stem: path for path in paths}


def require_pictures(caller: str, folder: Path, found: Iterable[str], what: str) -> None:
    """Refuse a folder without images.

    Args:
        caller: begins the sentence.
        folder: where they should be.
        found: their stems.
        what: pattern of the file names.

    Raises:
        DataError: there are none.
    """
    if not any(True for _ in found):
        cause, fix = "the archives are not unpacked there", "unpack them, keeping their folders"
        raise refuse(caller, Fault("missing", folder, f"to hold {what}", "none", cause, fix))
