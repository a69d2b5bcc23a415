"""Readers of GTA5 and Cityscapes as they are downloaded, and a small set held in memory.

Labels come out as train ids 0..18 and 255, remapped on the fly; no conversion step is needed.
A `Cityscapes` reader made with ``labels=False`` holds no label path, so that a run cannot open
target labels by mistake: gtFine may even be absent.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from PIL import Image

from reference.data.classes import ByteArray
from reference.data.picture_files import (
    CITYSCAPES_IDS,
    GTA5_IDS,
    TRAIN_IDS,
    Numbering,
    decode_image,
    decode_labels,
)
from reference.progress import track

GTA5_PAIRS: Final = 24966


class Reader(Protocol):
    """What every data set offers: images by number, and labels where it was given them."""

    @property
    def stems(self) -> tuple[str, ...]:
        """Name of every image, in reading order."""

    @property
    def has_labels(self) -> bool:
        """Whether `labels` may be called."""

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB."""

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W)."""


def _folder(caller: str, folder: Path, hint: str) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{caller}: expected a folder {folder}, got none. Hint: {hint}")
    return folder


class GTA5:
    """The GTA5 set ("Playing for Data"): ``images/NNNNN.png`` and ``labels/NNNNN.png``.

    Both layouts in use are read: ``images/`` and ``images/images/`` (likewise labels). Images
    need not have one common size. A download that lacks some pairs gives one warning.

    Args:
        root: folder that holds ``images`` and ``labels``.

    Raises:
        ValueError: a folder is missing or empty, or an image has no labels.

    Source:
        Richter et al., Playing for Data, ECCV 2016.
    """

    has_labels: Final = True

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        images, labels = self._layer("images"), self._layer("labels")
        self._images = tuple(sorted(images.glob("*.png")))
        if not self._images:
            raise ValueError(f"GTA5: expected PNG files in {images}, got none.")
        self._labels = tuple(labels / path.name for path in self._images)
        present = {path.name for path in labels.glob("*.png")}
        missing = [path for path in self._labels if path.name not in present]
        if missing:
            raise ValueError(
                f"GTA5: expected labels for each of {len(self._images)} images, got none for "
                f"{len(missing)}, the first {missing[0]}. Hint: unpack all label archives."
            )
        self._warn_if_incomplete(len(present))

    def _layer(self, name: str) -> Path:
        folder = _folder("GTA5", self.root / name, "the root must hold images/ and labels/.")
        inner = folder / name
        return inner if inner.is_dir() else folder

    def _warn_if_incomplete(self, label_files: int) -> None:
        pairs = len(self)
        whole = self.stems[-1] == str(GTA5_PAIRS)
        if label_files > pairs or (whole and pairs < GTA5_PAIRS):
            warnings.warn(
                f"GTA5: {pairs} pairs are read from {self.root}, which holds {label_files} label "
                f"files; the complete set has {GTA5_PAIRS} pairs.",
                stacklevel=3,
            )

    @property
    def stems(self) -> tuple[str, ...]:
        """Name of every image, in reading order, such as "00001"."""
        return tuple(path.stem for path in self._images)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._images)

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            ValueError: the file is empty, damaged or not RGB.
        """
        return decode_image("GTA5.image", self._images[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W), 255 where not scored.

        Raises:
            ValueError: the file is empty, damaged, holds colours instead of ids, differs in
                size from its image, or holds an id above 34.
        """
        path, image = self._labels[index], self._images[index]
        return decode_labels("GTA5.labels", path, image, ("P", "L"), GTA5_IDS)


class Cityscapes:
    """The Cityscapes set: ``leftImg8bit/<split>/<city>`` and ``gtFine/<split>/<city>``.

    ``*_labelIds.png`` is read as downloaded; where only ``*_labelTrainIds.png`` exists, that.

    Args:
        root: folder that holds ``leftImg8bit`` (and ``gtFine``, when labels are wanted).
        split: name of the folder below, usually "train", "val" or "test".
        labels: whether labels will be read. With False neither the folder ``gtFine`` nor any
            file in it is touched, and the reader holds no path to one.

    Raises:
        ValueError: a folder is missing or empty, or an image has no labels.

    Source:
        Cordts et al., The Cityscapes Dataset, CVPR 2016.
    """

    def __init__(self, root: str | Path, split: str, *, labels: bool) -> None:
        self.root = Path(root)
        self.split = split
        hint = "the root must hold leftImg8bit/<split>/<city>/ and, for labels, gtFine alike."
        folder = _folder("Cityscapes", self.root / "leftImg8bit" / split, hint)
        self._images = tuple(sorted(folder.glob("*/*_leftImg8bit.png")))
        if not self._images:
            raise ValueError(
                f"Cityscapes: expected files <city>/*_leftImg8bit.png in {folder}, got none."
            )
        self._labels: tuple[tuple[Path, Numbering], ...] | None = None
        if labels:
            truth = _folder("Cityscapes", self.root / "gtFine" / split, hint)
            self._labels = tuple(
                self._find_labels(truth / path.parent.name, stem)
                for path, stem in zip(self._images, self.stems, strict=True)
            )

    @staticmethod
    def _find_labels(folder: Path, stem: str) -> tuple[Path, Numbering]:
        kinds: Mapping[str, Numbering] = {"labelIds": CITYSCAPES_IDS, "labelTrainIds": TRAIN_IDS}
        for kind, numbering in kinds.items():
            path = folder / f"{stem}_gtFine_{kind}.png"
            if path.is_file():
                return path, numbering
        raise ValueError(
            f"Cityscapes: expected labels {folder / stem}_gtFine_labelIds.png (or "
            "_labelTrainIds.png), got none. Hint: unpack gtFine, or read without labels."
        )

    @property
    def stems(self) -> tuple[str, ...]:
        """Name of every image, in reading order, such as "bonn_000000_000019"."""
        return tuple(path.stem.removesuffix("_leftImg8bit") for path in self._images)

    @property
    def has_labels(self) -> bool:
        """Whether the reader was made with labels."""
        return self._labels is not None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            ValueError: the file is empty, damaged or not RGB.
        """
        return decode_image("Cityscapes.image", self._images[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W), 255 where not scored.

        Raises:
            ValueError: the reader was made without labels, or the file is empty, damaged, holds
                colours instead of ids, differs in size from its image, or holds unknown ids.
        """
        if self._labels is None:
            raise ValueError(
                "Cityscapes.labels: expected a reader made with labels=True, got labels=False."
            )
        path, numbering = self._labels[index]
        return decode_labels("Cityscapes.labels", path, self._images[index], ("L",), numbering)


@dataclass(frozen=True)
class ArrayDomain:
    """A whole set in memory.

    Args:
        images: uint8 (N, 3, H, W), RGB.
        labels: train ids uint8 (N, H, W), 255 where not scored; None without labels.
        stems: N names.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    stems: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.stems)


def _resized(pixels: ByteArray, size: tuple[int, int], how: Image.Resampling) -> ByteArray:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how))


def load_domain(reader: Reader, size: tuple[int, int], *, progress: bool = False) -> ArrayDomain:
    """Read a whole set into memory at one size.

    Args:
        reader: `GTA5` or `Cityscapes`.
        size: (H, W) in pixels. Images of another size are scaled with an antialiased bilinear
            filter, labels by nearest neighbour; the aspect ratio is not kept.
        progress: show a progress bar with the time left.

    Returns:
        The domain; its labels are None when the reader holds none.

    Raises:
        ValueError: a file is broken (see the readers).
    """
    images = np.empty((len(reader), *size, 3), dtype=np.uint8)
    labels = np.empty((len(reader), *size), dtype=np.uint8) if reader.has_labels else None
    for index in track(len(reader), "Reading images", show=progress):
        images[index] = _resized(reader.image(index), size, Image.Resampling.BILINEAR)
        if labels is not None:
            labels[index] = _resized(reader.labels(index), size, Image.Resampling.NEAREST)
    return ArrayDomain(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        None if labels is None else torch.from_numpy(labels),
        reader.stems,
    )
