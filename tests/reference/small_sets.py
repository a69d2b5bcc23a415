"""Tiny sets on disk in the layouts of GTA5, SYNTHIA and Cityscapes, for the tests."""

from pathlib import Path

import cv2
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


def cut_short(path: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file, as a download does that stops."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


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


def save_deep(
    path: Path,
    ids: list[int],
    *,
    size: tuple[int, int] = SIZE,
    channels: int = 3,
) -> Path:
    """A label file of SYNTHIA: red is the class, green the number of the object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blue_green_red = np.zeros((*size, channels), dtype=np.uint16)
    blue_green_red[..., 2] = np.resize(np.array(ids), size)
    blue_green_red[..., 1] = 970
    blue_green_red[..., 3:] = np.iinfo(np.uint16).max
    path.write_bytes(cv2.imencode(".png", blue_green_red)[1].tobytes())
    return path


SYNTHIA_SAMPLE = [3, 0, 8, 22, 21, 1]
SYNTHIA_TRAIN_IDS = [0, 255, 13, 255, 3, 10]


def make_synthia(root: Path, *, channels: int = 3) -> Path:
    for number in (0, 1):
        save_image(root / "RGB" / f"000000{number}.png", value=number)
        label = root / "GT" / "LABELS" / f"000000{number}.png"
        save_deep(label, SYNTHIA_SAMPLE, channels=channels)
    return root


def make_shallow_synthia(root: Path, folder: str) -> Path:
    for number in (0, 1):
        save_image(root / "RGB" / f"000000{number}.png", value=number)
        save_ids(root / folder / f"000000{number}.png", SYNTHIA_SAMPLE, palette=False)
    return root
