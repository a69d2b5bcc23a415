"""Tiny sets on disk in any layout, for the tests."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from reference.data.image_set import layout_of
from reference.data.layouts import Labels, Layout

SIZE = (8, 12)


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    save_values(path, pixels)
    return pixels


def save_values(path: Path, values: np.ndarray, *, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(path)
    return path


def save_deep(path: Path, values: np.ndarray, channels: int = 3) -> Path:
    """A label file of SYNTHIA: red is the class, green the number of the object, in 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blue_green_red = np.zeros((*values.shape, channels), dtype=np.uint16)
    blue_green_red[..., 2] = values
    blue_green_red[..., 1] = 970
    blue_green_red[..., 3:] = np.iinfo(np.uint16).max
    path.write_bytes(cv2.imencode(".png", blue_green_red)[1].tobytes())
    return path


def save_labels(path: Path, way: Labels, values: list[int]) -> Path:
    """Write a label file as a way of labels wants it."""
    grid = np.resize(np.array(values), SIZE)
    if way.kind == "deep":
        return save_deep(path, grid)
    channels = {"colours": (grid >> 16, grid >> 8 & 255, grid & 255), "red": (grid, grid * 0, grid)}
    if way.kind in channels:
        grid = np.stack(channels[way.kind], axis=-1)
    return save_values(path, grid.astype(np.uint8))


def fill(pattern: str, split: str, number: int) -> str:
    values = {"place": f"place{number % 2}", "condition": ("fog", "night")[number % 2]}
    return pattern.format(stem=f"{number:07d}", split=split, path=f"{number:07d}", **values)


def make(
    root: Path,
    name: str,
    *,
    splits: tuple[str, ...] = ("train",),
    count: int = 3,
    labels: bool = True,
    variant: int = 0,
    way: int = 0,
    ending: str = "png",
) -> Layout:
    """Write a tiny tree of a layout; labels show its first 24 values in turn."""
    layout = layout_of(name, "target")
    for split in (layout.splits.get(each, each) for each in splits):
        for number in range(count):
            image = fill(layout.images[variant], split, number)
            save_image(root / f"{image}.{ending}", seed=number)
            if labels:
                chosen = layout.labels[way]
                path = root / f"{fill(chosen.pattern, split, number)}.png"
                save_labels(path, chosen, list(chosen.values)[:24])
    return layout


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def cut_short(path: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file, as a download does that stops."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path
