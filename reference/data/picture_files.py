"""PNG files of images and labels: decoded whole and checked, or refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
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
    ByteArray,
)

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


def _decode(caller: str, path: Path, modes: tuple[str, ...], hint: str) -> ByteArray:
    """Read a PNG whole, or say in one sentence what is wrong with it."""
    if path.stat().st_size == 0:
        raise ValueError(
            f"{caller}: expected a PNG file, got {path} with 0 bytes. "
            "Hint: unpack or download it again."
        )
    try:
        with Image.open(path) as file:
            mode = file.mode
            pixels = np.array(file)
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(
            f"{caller}: expected a readable PNG file, got {path} ({error}). "
            "Hint: the file is damaged; unpack or download it again."
        ) from error
    if mode not in modes:
        raise ValueError(
            f"{caller}: expected {path} in Pillow mode {' or '.join(modes)}, got mode {mode}. "
            f"Hint: {hint}"
        )
    return pixels


def decode_image(caller: str, path: Path) -> ByteArray:
    """Read an image, uint8 (H, W, 3), RGB.

    Args:
        caller: begins the sentence when the file is refused.
        path: the PNG file.

    Raises:
        ValueError: the file is empty, damaged or not RGB.
    """
    return _decode(caller, path, ("RGB",), "save the image as 8-bit RGB.")


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
        ValueError: the file is empty, damaged, in another mode, differs in size from its image,
            or holds a value that the numbering does not allow.
    """
    ids = _decode(
        caller,
        path,
        modes,
        "the file holds colours instead of class ids; use the file as downloaded.",
    )
    with Image.open(image) as file:
        width, height = file.size
    if ids.shape != (height, width):
        raise ValueError(
            f"{caller}: expected {path} of size {width}x{height} as its image, "
            f"got {ids.shape[1]}x{ids.shape[0]}. Hint: image and labels are not of one frame."
        )
    counts = np.bincount(ids.ravel(), minlength=256)
    strange = [value for value in np.flatnonzero(counts) if int(value) not in numbering.allowed]
    if strange:
        raise ValueError(
            f"{caller}: expected {numbering.described} in {path}, got {strange[0]} in "
            f"{counts[strange[0]]} pixels. Hint: the file uses another numbering of classes."
        )
    return numbering.table[ids]
