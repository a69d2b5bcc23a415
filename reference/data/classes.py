"""The 19 Cityscapes classes: names, colours, id tables and the subsets that papers report.

Four numberings meet here. *Train ids* 0..18 are what networks predict; 255 (`IGNORE`) means
"not scored". *Cityscapes ids* 0..33 are what ``*_labelIds.png`` files hold; GTA5 palette files
use the same numbers plus 34 (licence plate). *SYNTHIA ids* 0..22 are a numbering of their own;
terrain, truck and train have a number there but do not occur in the images. Everything outside
the 19 classes, such as SYNTHIA's lane marking and parking, maps to `IGNORE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]

IGNORE: Final = 255

# (name, Cityscapes id, SYNTHIA id, colour), in train-id order.
_TABLE: Final = (
    ("road", 7, 3, (128, 64, 128)),
    ("sidewalk", 8, 4, (244, 35, 232)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 21, (102, 102, 156)),
    ("fence", 13, 5, (190, 153, 153)),
    ("pole", 17, 7, (153, 153, 153)),
    ("traffic light", 19, 15, (250, 170, 30)),
    ("traffic sign", 20, 9, (220, 220, 0)),
    ("vegetation", 21, 6, (107, 142, 35)),
    ("terrain", 22, 16, (152, 251, 152)),
    ("sky", 23, 1, (70, 130, 180)),
    ("person", 24, 10, (220, 20, 60)),
    ("rider", 25, 17, (255, 0, 0)),
    ("car", 26, 8, (0, 0, 142)),
    ("truck", 27, 18, (0, 0, 70)),
    ("bus", 28, 19, (0, 60, 100)),
    ("train", 31, 20, (0, 80, 100)),
    ("motorcycle", 32, 12, (0, 0, 230)),
    ("bicycle", 33, 11, (119, 11, 32)),
)

NUM_CLASSES: Final = len(_TABLE)
NAMES: Final = tuple(name for name, _, _, _ in _TABLE)

CITYSCAPES_LAST_ID: Final = 33
GTA5_LAST_ID: Final = 34
SYNTHIA_LAST_ID: Final = 22


def _frozen(array: ByteArray) -> ByteArray:
    array.setflags(write=False)
    return array


def _lookup_table(ids: Sequence[int]) -> ByteArray:
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[list(ids)] = np.arange(NUM_CLASSES)
    return _frozen(table)


_CITYSCAPES: Final = tuple(number for _, number, _, _ in _TABLE)
_SYNTHIA: Final = tuple(number for _, _, number, _ in _TABLE)

PALETTE: Final = _frozen(np.array([colour for _, _, _, colour in _TABLE], dtype=np.uint8))
TRAIN_TO_CITYSCAPES: Final = _frozen(np.array(_CITYSCAPES, dtype=np.uint8))
CITYSCAPES_TO_TRAIN: Final = _lookup_table(_CITYSCAPES)
GTA5_TO_TRAIN: Final = _lookup_table(_CITYSCAPES)
SYNTHIA_TO_TRAIN: Final = _lookup_table(_SYNTHIA)

# The 16 and 13 classes are those that papers report for SYNTHIA -> Cityscapes.
SUBSETS: Final = {
    "19": tuple(range(NUM_CLASSES)),
    "16": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    "13": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}

# Train ids that occur in the drawn street scenes, and in CamVid laid out as Cityscapes.
TOY_CLASSES: Final = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)
CAMVID_CLASSES: Final = (0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 13)
