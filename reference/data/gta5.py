"""Reader of GTA5 ("Playing for Data") as it is downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from reference.data.classes import ByteArray
from reference.data.picture_files import GTA5_IDS, decode_image, decode_labels
from reference.data.readers import Listing, pictures, require_folder, require_pictures

GTA5_PAIRS: Final = 24966
# Numbers that a smaller download in use lacks (bupt-ai-cz/IAST-ECCV2020, issue 2).
GTA5_ABSENT: Final = frozenset(
    f"{number:05d}"
    for first, last in ((2154, 2158), (4634, 4637), (7115, 7119), (9683, 9688), (12050, 12054))
    for number in range(first, last + 1)
)
_MUST: Final = "images/ and labels/"


def _layer(root: Path, name: str) -> Path:
    folder = require_folder("GTA5", root / name, _MUST)
    inner = folder / name
    return inner if inner.is_dir() else folder


def read_gta5_labels(path: Path, image: Path) -> ByteArray:
    """Read a label file of GTA5 as train ids, uint8 (H, W), 255 where not scored.

    Args:
        path: the label file.
        image: the image it belongs to; only its size is looked at.

    Raises:
        DataError: the file is empty, damaged, holds colours instead of ids, differs in size from
            its image, or holds an id above 34.
    """
    return decode_labels("GTA5.labels", path, image, ("P", "L"), GTA5_IDS)


def list_gta5(root: str | Path) -> Listing:
    """Find the files of a GTA5 folder.

    Args:
        root: folder that holds ``images`` and ``labels``, each perhaps with a folder of the same
            name inside.

    Raises:
        DataError: one of them is missing, or there are no images.
    """
    root = Path(root)
    folders = _layer(root, "images"), _layer(root, "labels")
    images, labels = (pictures(folder) for folder in folders)
    require_pictures("GTA5", folders[0], images, "PNG files")
    missing = GTA5_PAIRS - len(GTA5_ABSENT)
    return Listing(
        "GTA5",
        root,
        " and ".join(f"{folder.relative_to(root)}/" for folder in folders),
        images,
        labels,
        {stem: folders[1] / path.name for stem, path in images.items()},
        read_gta5_labels,
        8,
        ("palette", "grey"),
        GTA5_PAIRS,
        {missing: f"a download in use that lacks {len(GTA5_ABSENT)} pairs"},
    )


class GTA5:
    """The GTA5 set: ``images/NNNNN.png`` and ``labels/NNNNN.png``.

    Both layouts in use are read: ``images/`` and ``images/images/`` (likewise labels). Images
    need not have one common size. A download that lacks some pairs gives one warning.

    Args:
        root: folder that holds ``images`` and ``labels``.

    Raises:
        DataError: a folder is missing or empty, or an image has no labels.

    Source:
        Richter et al., Playing for Data, ECCV 2016.
    """

    has_labels: Final = True

    def __init__(self, root: str | Path) -> None:
        listing = list_gta5(root)
        self.root = listing.root
        self.stems = tuple(listing.images)
        self.image_files = tuple(listing.images.values())
        self.label_files = listing.require_labels()
        self._warn_if_incomplete(len(listing.labels or ()))

    def _warn_if_incomplete(self, label_files: int) -> None:
        pairs = len(self)
        known = label_files == pairs == GTA5_PAIRS - len(GTA5_ABSENT)
        if known and GTA5_ABSENT.isdisjoint(self.stems):
            warnings.warn(
                f"GTA5: {pairs} pairs are read from {self.root}, a download in use that lacks "
                f"{len(GTA5_ABSENT)} of {GTA5_PAIRS} pairs.",
                stacklevel=3,
            )
        elif label_files > pairs or (self.stems[-1] == str(GTA5_PAIRS) and pairs < GTA5_PAIRS):
            warnings.warn(
                f"GTA5: {pairs} pairs are read from {self.root}, which holds {label_files} label "
                f"files; the complete set has {GTA5_PAIRS} pairs.",
                stacklevel=3,
            )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.image_files)

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            DataError: the file is empty, damaged or not RGB.
        """
        return decode_image("GTA5.image", self.image_files[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W), 255 where not scored.

        Raises:
            DataError: the file is empty, damaged, holds colours instead of ids, differs in
                size from its image, or holds an id above 34.
        """
        return read_gta5_labels(self.label_files[index], self.image_files[index])
