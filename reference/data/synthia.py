"""Reader of SYNTHIA-RAND-CITYSCAPES as it is downloaded, 16-bit labels included.

The first channel of a label file is the class, the second the number of the object. Most readers
cut 16 bits to the upper 8, which makes every class 0, so the files are decoded by OpenCV and what
comes out is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from reference.data.classes import SYNTHIA_LAST_ID, ByteArray
from reference.data.faults import Fault, refuse
from reference.data.headers import damaged, has_end, truncated
from reference.data.picture_files import (
    SYNTHIA_IDS,
    decode_ids,
    read_picture,
    require_size,
    to_train_ids,
)
from reference.data.readers import ListedSet, Listing, pictures, require_folder, require_pictures

SYNTHIA_PAIRS: Final = 9400
PRODUCT: Final = "SYNTHIA-RAND-CITYSCAPES (CVPR16)"
# OpenCV stores blue first, so that the first channel of the file is its third.
_CLASS_CHANNEL: Final = 2
_LEAST_CLASSES: Final = 3
_STEM_DIGITS: Final = 7
_LEVEL: Final = "RAND_CITYSCAPES"
_DEEP: Final = ("GT/LABELS",)
# Labels with SYNTHIA's class ids in 8 bits, made by other repositories; known by their names.
_SHALLOW_NAMES: Final = ("synthia_mapped_to_cityscapes", "parsed_LABELS")
_SHALLOW: Final = tuple(f"{prefix}{name}" for name in _SHALLOW_NAMES for prefix in ("GT/", ""))
_USE: Final = f"use the files of {PRODUCT} as downloaded"


def other_product(root: Path) -> str | None:
    """Name the SYNTHIA product that a folder holds when it is not the wanted one.

    Args:
        root: folder of the set.

    Returns:
        The name in words, or None.
    """
    if (root / "RGB" / "Stereo_Left").is_dir() or any(root.glob("SYNTHIA-SEQS*")):
        return "SYNTHIA-SEQS (video sequences)"
    if (root / "RGBLeft").is_dir():
        return "SYNTHIA-SF"
    first = next((root / "RGB").glob("*.png"), None)
    if first is not None and not (len(first.stem) == _STEM_DIGITS and first.stem.isdigit()):
        return f"another set, with images such as {first.name}"
    return None


def _base(root: Path) -> Path:
    inner = root / _LEVEL
    base = inner if inner.is_dir() else root
    product = other_product(base)
    if product is not None:
        cause = "there are several SYNTHIA products"
        fix = f"download {PRODUCT}, with images RGB/0000000.png and labels GT/LABELS/"
        raise refuse("Synthia", Fault("product", base, f"to hold {PRODUCT}", product, cause, fix))
    return base


def _label_folders(base: Path) -> Iterator[Path]:
    for name in _DEEP + _SHALLOW:
        folder = base / name
        if folder.is_dir() and next(folder.glob("*.png"), None) is not None:
            yield folder


def list_synthia(root: str | Path) -> Listing:
    """Find the files of a SYNTHIA folder.

    Args:
        root: folder that holds ``RGB`` and ``GT``, or ``RAND_CITYSCAPES`` with both inside.

    Raises:
        DataError: one of them is missing, there are no images, or the folder holds another
            SYNTHIA product.
    """
    root = Path(root)
    base = _base(root)
    must = "RGB/ and GT/LABELS/, at once or inside RAND_CITYSCAPES/"
    folder = require_folder("Synthia", base / "RGB", must)
    images = pictures(folder)
    require_pictures("Synthia", folder, images, "PNG files")
    truth = next(_label_folders(base), None)
    if truth is None:
        truth = require_folder("Synthia", base / _DEEP[0], must)
        require_pictures("Synthia", truth, (), "PNG files")
    shallow = truth.name in _SHALLOW_NAMES
    bit_depth = 8 if shallow else 16
    return Listing(
        "Synthia",
        root,
        f"{folder.relative_to(root)}/ and {truth.relative_to(root)}/ ({bit_depth}-bit)",
        images,
        pictures(truth),
        {stem: truth / path.name for stem, path in images.items()},
        read_synthia_labels,
        bit_depth,
        ("grey", "palette") if shallow else ("RGB", "RGB and alpha"),
        SYNTHIA_PAIRS,
    )


class Synthia(ListedSet):
    """The SYNTHIA-RAND-CITYSCAPES set: ``RGB/NNNNNNN.png`` and ``GT/LABELS/NNNNNNN.png``.

    Read with and without a folder ``RAND_CITYSCAPES`` around both. Where ``GT/LABELS`` is absent,
    8-bit files with the same class ids are read from ``synthia_mapped_to_cityscapes`` or
    ``parsed_LABELS``, inside ``GT`` or beside it.

    Args:
        root: folder of the set.

    Raises:
        DataError: a folder is missing or empty, an image has no labels, or the folder holds
            another SYNTHIA product.

    Source:
        Ros et al., The SYNTHIA Dataset, CVPR 2016.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(list_synthia(root))


def read_synthia_labels(path: Path, image: Path) -> ByteArray:
    """Read a label file of SYNTHIA as train ids, uint8 (H, W), 255 where not scored.

    Args:
        path: the label file; the name of its folder tells whether it has 16 bits or 8.
        image: the image it belongs to; only its size is looked at.

    Raises:
        DataError: the file is empty, damaged, was cut to 8 bits, holds colours instead of ids,
            differs in size from its image, or holds an id above 22.
    """
    caller = "Synthia.labels"
    shallow = path.parent.name in _SHALLOW_NAMES
    ids = decode_ids(caller, path, ("L", "P")) if shallow else decode_deep(caller, path)
    require_size(caller, path, ids.shape, image)
    return to_train_ids(caller, path, _plausible(caller, path, ids), SYNTHIA_IDS)


def decode_deep(caller: str, path: Path) -> ByteArray:
    """Read the class channel of a 16-bit label file, uint8 (H, W).

    Args:
        caller: begins the sentence when the file is refused.
        path: the PNG file.

    Raises:
        DataError: the file is empty, damaged, not 16-bit RGB, or holds a class above 22.
    """
    # Everything else in the recipe reads and draws without it.
    import cv2

    data, header = read_picture(caller, path)
    if header.bit_depth != 16 or header.colours not in ("RGB", "RGB and alpha"):
        cause = "the file is a picture of the labels, or a tool has cut its 16 bits to 8"
        fault = Fault("bit depth", path, "to be a 16-bit RGB PNG", str(header), cause, _USE)
        raise refuse(caller, fault)
    if not has_end(data):
        raise refuse(caller, truncated(path))
    try:
        # OpenCV returns what it could decode; Pillow compares every checksum.
        with Image.open(BytesIO(data)) as file:
            file.verify()
    except (OSError, SyntaxError) as error:
        raise refuse(caller, damaged(path, error)) from error
    pixels: npt.NDArray[Any] | None = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
    )
    if pixels is None:
        raise refuse(caller, damaged(path, OSError("OpenCV decodes nothing")))
    ids = pixels[..., _CLASS_CHANNEL]
    if ids.max() > SYNTHIA_LAST_ID:
        raise refuse(caller, _trap(path, f"ids up to {ids.max()}"))
    return ids.astype(np.uint8)


def _plausible(caller: str, path: Path, ids: ByteArray) -> ByteArray:
    """Refuse a street with hardly any class: the sign of labels that were cut to 8 bits."""
    present = np.flatnonzero(Image.fromarray(ids).histogram())
    if len(present) < _LEAST_CLASSES:
        raise refuse(caller, _trap(path, f"only {', '.join(str(value) for value in present)}"))
    return ids


def _trap(path: Path, found: str) -> Fault:
    wanted = f"to hold at least {_LEAST_CLASSES} of the class ids 0..{SYNTHIA_LAST_ID}"
    cause = "SYNTHIA labels have 16 bits per channel, which most tools cut to 8 when they save"
    return Fault("ids", path, wanted, found, cause, _USE)
