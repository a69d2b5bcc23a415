"""Reader of GTA5 ("Playing for Data") as it is downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from reference.data.classes import ByteArray
from reference.data.picture_files import GTA5_IDS, decode_labels
from reference.data.readers import ListedSet, Listing, pictures, require_folder, require_pictures

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


class GTA5(ListedSet):
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

    def __init__(self, root: str | Path) -> None:
        listing = list_gta5(root)
        super().__init__(listing)
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
