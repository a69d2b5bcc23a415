"""Reader of Cityscapes, and of photographs laid out alike, as they are downloaded.

A reader made with ``labels=False`` holds no label path, so that a run cannot open target labels by
mistake: gtFine may even be absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reference.data.classes import ByteArray
from reference.data.picture_files import CITYSCAPES_IDS, TRAIN_IDS, decode_labels
from reference.data.readers import CONVERTED, ListedSet, Listing, require_folder, require_pictures

CITYSCAPES_IMAGES: Final = {"train": 2975, "val": 500, "test": 1525}
_IMAGE: Final = "_leftImg8bit"
_MUST: Final = "leftImg8bit/<split>/<city>/ and, for labels, gtFine alike"
# The first kind that is there is read.
_KINDS: Final = ("_gtFine_labelIds", f"_gtFine{CONVERTED}")


def read_cityscapes_labels(path: Path, image: Path) -> ByteArray:
    """Read a label file of Cityscapes as train ids, uint8 (H, W), 255 where not scored.

    Args:
        path: the label file; its name tells how it numbers classes.
        image: the image it belongs to; only its size is looked at.

    Raises:
        DataError: the file is empty, damaged, holds colours instead of ids, differs in size from
            its image, or holds unknown ids.
    """
    numbering = TRAIN_IDS if path.stem.endswith(CONVERTED) else CITYSCAPES_IDS
    return decode_labels("Cityscapes.labels", path, image, ("L",), numbering)


def list_cityscapes(root: str | Path, split: str, *, labels: bool) -> Listing:
    """Find the files of one split.

    Args:
        root: folder that holds ``leftImg8bit`` (and ``gtFine``, when labels are wanted).
        split: name of the folder below, usually "train", "val" or "test".
        labels: whether to look for labels; with False the folder ``gtFine`` is not touched.

    Raises:
        DataError: a folder is missing, or there are no images.
    """
    root = Path(root)
    folder = require_folder("Cityscapes", root / "leftImg8bit" / split, _MUST)
    files = sorted(folder.glob(f"*/*{_IMAGE}.png"))
    images = {path.stem.removesuffix(_IMAGE): path for path in files}
    require_pictures("Cityscapes", folder, images, f"files <city>/*{_IMAGE}.png")
    variant, found, truth = "images alone", None, {}
    if labels:
        labelled = require_folder("Cityscapes", root / "gtFine" / split, _MUST)
        found = _label_files(labelled)
        kinds = sorted({path.stem.rpartition("_")[2] for path in found.values()})
        variant = f"labels as {' and '.join(kinds) or 'nothing'}"
        truth = {
            stem: labelled / path.parent.name / f"{stem}{_KINDS[0]}.png"
            for stem, path in images.items()
        }
    return Listing(
        "Cityscapes",
        root,
        variant,
        images,
        found,
        truth,
        read_cityscapes_labels,
        8,
        ("grey",),
        CITYSCAPES_IMAGES.get(split, 0),
        unpack="unpack gtFine, or read without labels",
    )


def _label_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind in reversed(_KINDS):
        paths = folder.glob(f"*/*{kind}.png")
        found |= {path.stem.removesuffix(kind): path for path in paths}
    return dict(sorted(found.items()))


class Cityscapes(ListedSet):
    """The Cityscapes set: ``leftImg8bit/<split>/<city>`` and ``gtFine/<split>/<city>``.

    ``*_labelIds.png`` is read as downloaded; where only ``*_labelTrainIds.png`` exists, that.

    Args:
        root: folder that holds ``leftImg8bit`` (and ``gtFine``, when labels are wanted).
        split: name of the folder below, usually "train", "val" or "test".
        labels: whether labels will be read. With False neither the folder ``gtFine`` nor any
            file in it is touched, and the reader holds no path to one.

    Raises:
        DataError: a folder is missing or empty, or an image has no labels.

    Source:
        Cordts et al., The Cityscapes Dataset, CVPR 2016.
    """

    def __init__(self, root: str | Path, split: str, *, labels: bool) -> None:
        super().__init__(list_cityscapes(root, split, labels=labels))
        self.split = split
