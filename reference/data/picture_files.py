"""Picture files of images and labels: decoded whole and checked, or refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from reference.data.classes import (
    CITYSCAPES_LAST_ID,
    CITYSCAPES_TO_TRAIN,
    GTA5_LAST_ID,
    GTA5_TO_TRAIN,
    IGNORE,
    NUM_CLASSES,
    SYNTHIA_LAST_ID,
    SYNTHIA_TO_TRAIN,
    ByteArray,
)
from reference.data.faults import Fault, refuse
from reference.data.headers import Header, damaged, has_end, parse_header, read_header, truncated

_TRAIN_TO_TRAIN: Final = np.where(np.arange(256) < NUM_CLASSES, np.arange(256), IGNORE).astype(
    np.uint8
)


@dataclass(frozen=True)
class Numbering:
    """How a label file numbers classes.

    Args:
        table: train id, or 255, of each of the 256 byte values.
        allowed: the values that may occur; any other means a wrong file.
        described: the allowed values in words.
    """

    table: ByteArray
    allowed: frozenset[int]
    described: str


GTA5_IDS: Final = Numbering(
    GTA5_TO_TRAIN, frozenset(range(GTA5_LAST_ID + 1)), f"ids 0..{GTA5_LAST_ID}"
)
SYNTHIA_IDS: Final = Numbering(
    SYNTHIA_TO_TRAIN, frozenset(range(SYNTHIA_LAST_ID + 1)), f"ids 0..{SYNTHIA_LAST_ID}"
)
# A licence plate is id -1, which some tools store as the byte 255.
CITYSCAPES_IDS: Final = Numbering(
    CITYSCAPES_TO_TRAIN,
    frozenset({*range(CITYSCAPES_LAST_ID + 1), IGNORE}),
    f"ids 0..{CITYSCAPES_LAST_ID} or {IGNORE}",
)
TRAIN_IDS: Final = Numbering(
    _TRAIN_TO_TRAIN,
    frozenset({*range(NUM_CLASSES), IGNORE}),
    f"train ids 0..{NUM_CLASSES - 1} or {IGNORE}",
)


def read_picture(caller: str, path: Path) -> tuple[bytes, Header]:
    """Read a file and its header.

    Raises:
        DataError: the file is missing, empty or no picture.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        cause = "it was moved or removed since the folder was read"
        fault = Fault("missing", path, "to be a picture", "none", cause, "put it back")
        raise refuse(caller, fault) from error
    return data, parse_header(caller, path, data)


def _decode(
    caller: str, path: Path, modes: tuple[str, ...], cause: str, fix: str
) -> tuple[ByteArray, str]:
    """Read a file whole, in one of some Pillow modes, or say in one sentence what is wrong."""
    data, _ = read_picture(caller, path)
    if not has_end(data):
        raise refuse(caller, truncated(path))
    try:
        with Image.open(BytesIO(data)) as file:
            mode = file.mode
            pixels = np.array(file)
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise refuse(caller, damaged(path, error)) from error
    if mode not in modes:
        wanted = f"in Pillow mode {' or '.join(modes)}"
        raise refuse(caller, Fault("mode", path, wanted, f"mode {mode}", cause, fix))
    return pixels, mode


def decode_image(caller: str, path: Path) -> ByteArray:
    """Read an image, uint8 (H, W, 3), RGB; an alpha channel is dropped.

    Args:
        caller: begins the sentence when the file is refused.
        path: the PNG or JPEG file.

    Raises:
        DataError: the file is empty, damaged or has no colours.
    """
    cause = "another tool has changed the file"
    pixels, _ = _decode(caller, path, ("RGB", "RGBA"), cause, "use the file as downloaded")
    return np.ascontiguousarray(pixels[..., :3])


def decode_ids(caller: str, path: Path, modes: tuple[str, ...]) -> ByteArray:
    """Read a label file of one byte per pixel as it is, uint8 (H, W).

    Args:
        caller: begins the sentence when the file is refused.
        path: the PNG file.
        modes: Pillow modes that hold ids in this set.

    Raises:
        DataError: the file is empty, damaged or in another mode.
    """
    cause = "the file holds colours instead of class ids"
    pixels, _ = _decode(caller, path, modes, cause, "use the file as downloaded")
    return pixels


def to_train_ids(caller: str, path: Path, ids: ByteArray, numbering: Numbering) -> ByteArray:
    """Return train ids, uint8 of the shape of `ids`, 255 where not scored.

    Args:
        caller: begins the sentence when the file is refused.
        path: names the file the ids are from.
        ids: uint8.
        numbering: what its values mean.

    Raises:
        DataError: a value that the numbering does not allow.
    """
    # Ten times as fast as numpy's count, on a path that every training image takes.
    counts = Image.fromarray(ids).histogram()
    strange = [
        value for value, count in enumerate(counts) if count and value not in numbering.allowed
    ]
    if strange:
        found = f"{strange[0]} in {counts[strange[0]]} pixels"
        cause = "the file uses another numbering of classes"
        wanted = f"to hold {numbering.described}"
        raise refuse(caller, Fault("ids", path, wanted, found, cause, "use the file as downloaded"))
    return np.take(numbering.table, ids)


def require_size(caller: str, path: Path, size: tuple[int, ...], image: Path) -> None:
    """Refuse labels of another size than their image.

    Args:
        caller: begins the sentence.
        path: the label file.
        size: its (height, width), pixels.
        image: the image it belongs to; only its header is read.

    Raises:
        DataError: the sizes differ, or the image is empty, no picture or lacks its end.
    """
    height, width = read_header(caller, image).size
    if size != (height, width):
        wanted = f"of size {width}x{height} as its image"
        found, cause = f"{size[1]}x{size[0]}", "image and labels are not of one frame"
        raise refuse(caller, Fault("size", path, wanted, found, cause, "unpack both again"))


def decode_labels(
    caller: str, path: Path, image: Path, modes: tuple[str, ...], numbering: Numbering
) -> ByteArray:
    """Read the labels of an image as train ids, uint8 (H, W), 255 where not scored.

    Args:
        caller: begins the sentence when the file is refused.
        path: the PNG file.
        image: the image it belongs to; only its size is looked at.
        modes: Pillow modes that hold ids in this set.
        numbering: what its values mean.

    Raises:
        DataError: the file is empty, damaged, in another mode, differs in size from its image,
            or holds a value that the numbering does not allow.
    """
    ids = decode_ids(caller, path, modes)
    require_size(caller, path, ids.shape, image)
    return to_train_ids(caller, path, ids, numbering)
