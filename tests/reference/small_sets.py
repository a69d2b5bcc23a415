"""Tiny sets on disk in the layouts of GTA5 and Cityscapes, for the tests of the readers."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4, 6)


def save_image(path: Path, value: int = 9, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def save_ids(path: Path, ids: list[int], *, palette: bool, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.resize(np.array(ids, dtype=np.uint8), size))
    if palette:
        image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(path)
    return path


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def first_label(root: Path) -> Path:
    return root / "labels" / "00001.png"


def make_gta5(root: Path) -> Path:
    for number in (1, 2):
        save_image(root / "images" / f"0000{number}.png", value=number)
        save_ids(root / "labels" / f"0000{number}.png", [7, 34, 26], palette=True)
    return root


def make_cityscapes(root: Path) -> Path:
    for split, city in (("train", "ulm"), ("val", "bonn"), ("val", "aachen")):
        stem = f"{city}_000000_000019"
        save_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        truth = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
        save_ids(truth, [7, 0, 33, 255], palette=False)
    return root
