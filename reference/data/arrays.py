"""A small set held in memory at one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from reference.data.classes import ByteArray
from reference.data.readers import Reader
from reference.progress import track


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

    def merged(self, pairs: Sequence[tuple[int, int]]) -> ArrayDomain:
        """Return the same images with some classes read as others.

        Args:
            pairs: (a, b): pixels of train id a become b. All at once, so (1, 2), (2, 3) leaves no 3
                that was a 1.

        Example:
            >>> labels = torch.tensor([[[1, 2, 255]]], dtype=torch.uint8)
            >>> domain = ArrayDomain(torch.zeros(1, 3, 1, 3, dtype=torch.uint8), labels, ("a",))
            >>> domain.merged([(1, 2), (2, 3)]).labels.tolist()
            [[[2, 3, 255]]]
        """
        if self.labels is None or not pairs:
            return self
        table = torch.arange(256, dtype=torch.uint8)
        for before, after in pairs:
            table[before] = after
        return replace(self, labels=table[self.labels.long()])


def _resized(pixels: ByteArray, size: tuple[int, int], how: Image.Resampling) -> ByteArray:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how))


def load_domain(reader: Reader, size: tuple[int, int], *, progress: bool = False) -> ArrayDomain:
    """Read a whole set into memory at one size.

    Args:
        reader: any of the sets.
        size: (H, W) in pixels. Images of another size are scaled with an antialiased bilinear
            filter, labels by nearest neighbour; the aspect ratio is not kept.
        progress: show a progress bar with the time left.

    Returns:
        The domain; its labels are None when the reader holds none.

    Raises:
        DataError: a file is broken (see the readers).
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
